//! Words in records.
//!
//! A text is the run of its *words*: letters and digits that stand together, in lower case, whatever stands
//! between. What is looked for is one word or some in a row, of which the last may be a beginning.

use super::lex::Character;
use crate::{
    inspect::{self, Codings, Limits},
    model::{Captured, FactValue, HeaderFields, Record},
};

/// Most words of a phrase.
const WORDS_CAP: usize = 16;
/// Most bytes that a body is decoded to.
pub const DECODED_CAP: u64 = 1 << 20;

/// Words in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Phrase {
    /// In lower case; one at least.
    pub words: Vec<String>,
    /// The last one is what a word begins with.
    pub open: bool,
}

impl Phrase {
    pub(super) fn of(word: &[Character]) -> Result<Self, (String, String)> {
        let (word, open) = match word.split_last() {
            Some((last, rest)) if !last.literal && last.is == '*' => (rest, true),
            Some(_) | None => (word, false),
        };
        if word.iter().any(|character| !character.literal && character.is == '*') {
            return Err((
                "`*` stands at the end of a word only".into(),
                "or in quotes, to mean nothing".into(),
            ));
        }
        let text: String = word.iter().map(|character| character.is).collect();
        let ends_in_word = text.chars().next_back().is_some_and(char::is_alphanumeric);
        let phrase = Self { words: words(&text).collect(), open: open && ends_in_word };
        match phrase.words.len() {
            0 => Err(("there is no word in it to look for".into(), "words are letters and digits".into())),
            1..=WORDS_CAP => Ok(phrase),
            _ => Err(("there are too many words in a row".into(), format!("at most {WORDS_CAP}"))),
        }
    }

    /// Whether the text has these words in a row.
    #[must_use]
    pub fn is_in(&self, text: &str) -> bool {
        // How many of the words each run that may still be the one has.
        let mut runs: Vec<usize> = Vec::new();
        for found in split(text) {
            runs.push(0);
            let mut over = false;
            runs.retain_mut(|at| {
                let Some(wanted) = self.words.get(*at) else { return false };
                *at += 1;
                let last = *at == self.words.len();
                let fits = is_word(found, wanted, last && self.open);
                over |= last && fits;
                fits
            });
            if over {
                return true;
            }
        }
        false
    }
}

/// The words of a text, in lower case.
pub fn words(text: &str) -> impl Iterator<Item = String> {
    split(text).map(str::to_lowercase)
}

fn split(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty())
}

fn is_word(found: &str, wanted: &str, open: bool) -> bool {
    if found.is_ascii() {
        let (found, wanted) = (found.as_bytes(), wanted.as_bytes());
        let head = if open { found.get(..wanted.len()) } else { Some(found) };
        return head.is_some_and(|head| head.eq_ignore_ascii_case(wanted));
    }
    let found = found.to_lowercase();
    if open { found.starts_with(wanted) } else { found == wanted }
}

/// The texts of a record, without its bodies, until `see` returns true; whether it did. Command lines are not
/// among them: they may hold secrets.
pub fn texts(record: &Record, see: &mut dyn FnMut(&str) -> bool) -> bool {
    let mut url = String::new();
    put_url(record, &mut url);
    let headers = |headers: &HeaderFields, see: &mut dyn FnMut(&str) -> bool| {
        headers.iter().any(|(name, value)| see(name) || see(value))
    };
    (!url.is_empty() && see(&url))
        || record.request.as_ref().is_some_and(|head| see(&head.method) || headers(&head.headers, see))
        || record.response.as_ref().is_some_and(|head| headers(&head.headers, see))
        || record.note.as_deref().is_some_and(&mut *see)
        || record.question.as_ref().is_some_and(|question| {
            see(&question.kind)
                || see(&question.code)
                || question.answers.iter().any(|answer| see(answer))
                || question.addresses.iter().any(|address| see(&address.to_string()))
        })
        || record.flow.as_ref().is_some_and(|flow| see(&flow.original.0.to_string()))
        || record.subject.as_ref().is_some_and(|subject| {
            see(&subject.session.0) || see(&subject.comm) || subject.exe.as_deref().is_some_and(&mut *see)
        })
        || record.tls.as_ref().is_some_and(|tls| tls.sni.as_deref().is_some_and(&mut *see))
        || record.verdict.as_ref().is_some_and(|verdict| see(&verdict.rule) || see(&verdict.reason))
        || record.flags.iter().any(|flag| see(&flag.code) || see(&flag.evidence))
        || record.failure.as_ref().is_some_and(|failure| see(&failure.code) || see(&failure.detail))
        || record.facts.iter().any(|fact| {
            see(&fact.name)
                || match &fact.value {
                    FactValue::Text(text) => see(text),
                    FactValue::Integer(_) | FactValue::Micros(_) => false,
                }
        })
}

/// Scheme, host, port where it is not the scheme's, and target; the host alone where there is no request.
pub(super) fn put_url(record: &Record, out: &mut String) {
    let host = super::host_of(record).unwrap_or_default();
    match &record.request {
        Some(head) => {
            out.push_str(&head.scheme);
            out.push_str("://");
            out.push_str(&host);
            let usual = if head.scheme == "http" { 80 } else { 443 };
            if let Some(authority) = record.authority.as_ref().filter(|authority| authority.port != usual) {
                out.push_str(&format!(":{}", authority.port));
            }
            out.push_str(&head.target);
        }
        None => out.push_str(&host),
    }
}

/// Whether the phrase is in a record or in what it carries of its bodies.
pub(super) fn carried(record: &Record, phrase: &Phrase) -> bool {
    let talk = record.websocket.is_some();
    texts(record, &mut |text| phrase.is_in(text))
        || record.request.as_ref().is_some_and(|head| in_body(phrase, &head.headers, &head.body, talk))
        || record.response.as_ref().is_some_and(|head| in_body(phrase, &head.headers, &head.body, talk))
}

/// Whether the phrase is in a body, its content codings undone; a `talk` is the transcript of a WebSocket,
/// which has none.
#[must_use]
pub fn in_body(phrase: &Phrase, headers: &HeaderFields, body: &Captured, talk: bool) -> bool {
    if body.bytes.is_empty() {
        return false;
    }
    let codings = inspect::recorded(headers);
    if talk || codings.as_ref().is_ok_and(Codings::is_identity) {
        return phrase.is_in(&String::from_utf8_lossy(&body.bytes));
    }
    let opened = inspect::open(body, &codings, Limits::of(DECODED_CAP));
    phrase.is_in(&String::from_utf8_lossy(&opened.bytes))
}
