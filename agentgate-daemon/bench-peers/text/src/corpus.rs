//! What an agent's record looks like: small exchanges of JSON, or conversations with a model, where each
//! request has all that was said before, and answers are server-sent events.

use std::fmt::Write as _;

/// What is looked for, and how rare that is. `seldom` words are planted.
pub(crate) const QUERIES: [(&str, &[&str]); 6] = [
    ("rare", &["needleinhaystack"]),
    ("seldom", &["quarterlyplan"]),
    ("common", &["assistant"]),
    ("common AND seldom", &["content", "quarterlyplan"]),
    ("common AND common", &["w17", "w23"]),
    ("nowhere", &["nosuchwordanywhere"]),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    Exchanges,
    Conversations,
}

/// Gives the same records each time.
#[derive(Debug)]
pub(crate) struct Corpus {
    kind: Kind,
    pub(crate) records: u64,
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 11) % end
    }

    /// Small numbers far more often, as words of a language are: about as Zipf says, of 40,000.
    fn zipf(&mut self) -> u64 {
        let even = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        40_000_f64.powf(even) as u64
    }

    fn id(&mut self, out: &mut String, prefix: &str) {
        const ALPHABET: &[u8] = b"ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz123456789";
        out.push_str(prefix);
        for _ in 0..22 {
            let at = self.below(ALPHABET.len() as u64) as usize;
            out.push(char::from(ALPHABET.get(at).copied().unwrap_or(b'0')));
        }
    }

    fn words(&mut self, out: &mut String, count: u64) {
        for index in 0..count {
            let word = self.zipf();
            match self.below(40) {
                0 => write!(out, "src/w{word}/w{}.rs:{}", self.zipf(), self.below(900)),
                1 => write!(out, "fn w{word}_w{}(&self) -> w{};", self.zipf(), self.zipf()),
                2 => write!(out, "{}", self.below(100_000)),
                3 => write!(out, "w{word}.\\n"),
                _ => write!(out, "w{word}"),
            }
            .unwrap_or_default();
            out.push(if index % 12 == 11 { ',' } else { ' ' });
        }
    }
}

struct Conversation {
    said: String,
    turns: u64,
    end: u64,
}

impl Corpus {
    pub(crate) fn new(kind: Kind, records: u64) -> Self {
        Self { kind, records }
    }

    /// Shows the texts of each record, with its number.
    pub(crate) fn each(&self, see: &mut dyn FnMut(u64, &[&str])) {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let mut tools = String::new();
        random.words(&mut tools, 1500);
        let mut talks: Vec<Conversation> = Vec::new();
        let (mut head, mut request, mut response) = (String::new(), String::new(), String::new());
        for number in 0..self.records {
            head.clear();
            request.clear();
            response.clear();
            let host = random.zipf() % 40;
            write!(head, "POST https api{host}.example.com /v1/messages?trace={number} content-type application/json user-agent agent/1.2.3 (linux; x64) x-request-id ").unwrap_or_default();
            random.id(&mut head, "req_01");
            match self.kind {
                Kind::Exchanges => {
                    request.push_str(r#"{"model":"large-4","messages":[{"role":"user","content":""#);
                    random.words(&mut request, 110);
                    self.plant(number, &mut request);
                    request.push_str(r#""}],"max_tokens":1024}"#);
                    response.push_str(r#"{"id":""#);
                    random.id(&mut response, "msg_01");
                    response.push_str(
                        r#"","type":"message","role":"assistant","content":[{"type":"text","text":""#,
                    );
                    random.words(&mut response, 110);
                    write!(
                        response,
                        r#""}}],"usage":{{"input_tokens":{},"output_tokens":{}}}}}"#,
                        random.below(9000),
                        random.below(900)
                    )
                    .unwrap_or_default();
                }
                Kind::Conversations => {
                    while talks.len() < 4 {
                        talks.push(Conversation {
                            said: String::new(),
                            turns: 0,
                            end: 10 + random.below(60),
                        });
                    }
                    let at = random.below(talks.len() as u64) as usize;
                    let Some(talk) = talks.get_mut(at) else { continue };
                    talk.said.push_str(r#",{"role":"user","content":[{"type":"tool_result","tool_use_id":""#);
                    random.id(&mut talk.said, "toolu_01");
                    talk.said.push_str(r#"","content":""#);
                    let count = 60 + random.below(400);
                    random.words(&mut talk.said, count);
                    self.plant(number, &mut talk.said);
                    talk.said.push_str(r#""}]}"#);
                    write!(
                        request,
                        r#"{{"model":"large-4","tools":"{tools}","messages":[{{}}{}]}}"#,
                        talk.said
                    )
                    .unwrap_or_default();
                    talk.said.push_str(r#",{"role":"assistant","content":[{"type":"text","text":""#);
                    for delta in 0..20 + random.below(60) {
                        write!(response, "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":{},\"delta\":{{\"type\":\"text_delta\",\"text\":\"", delta % 3).unwrap_or_default();
                        let begun = response.len();
                        random.words(&mut response, 4);
                        let said = response.get(begun..).unwrap_or_default();
                        talk.said.push_str(said);
                        response.push_str("\"}}\n\n");
                    }
                    talk.said.push_str(r#""}]}"#);
                    talk.turns += 1;
                    if talk.turns >= talk.end {
                        talks.swap_remove(at);
                    }
                }
            }
            see(number + 1, &[&head, &request, &response]);
        }
    }

    /// What is looked for: one in a hundred thousand, and one in a thousand.
    fn plant(&self, number: u64, text: &mut String) {
        if number % 100_000 == self.records / 20 {
            text.push_str("needleinhaystack ");
        }
        if number % 1000 == 17 {
            text.push_str("quarterlyplan ");
        }
    }
}
