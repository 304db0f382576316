//! Messages of agents, read and written: pure functions of bytes.
//!
//! An agent writes what it likes. The header is looked at before anything is parsed, so that a message
//! with more than one question, or with records that no question has, costs twelve bytes.

use hickory_proto::{
    op::{Edns, Message, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name, Record, RecordType, rdata::opt::EdnsOption},
};

/// Largest message that is read. A question has a name of at most 255 bytes and some options.
pub(super) const LARGEST: usize = 4096;
/// Largest answer over UDP, and what we say we take: what passes any path without fragments (DNS Flag
/// Day 2020), and here, on loopback, a bound on what one forged question costs.
pub(super) const UDP_PAYLOAD: u16 = 1232;
/// Largest answer over UDP to who does not say (RFC 1035 4.2.1).
const PLAIN_PAYLOAD: u16 = 512;
const HEADER: usize = 12;
/// Records after the question: OPT, and a signature (TSIG or SIG(0)), which is not looked at.
const ADDITIONAL: u16 = 2;

/// The EDNS option of RFC 8914.
const EXTENDED_ERROR: u16 = 15;

/// Extended DNS errors (RFC 8914 4).
pub(super) mod ede {
    pub(crate) const BLOCKED: u16 = 15;
    pub(crate) const FILTERED: u16 = 17;
    pub(crate) const PROHIBITED: u16 = 18;
    pub(crate) const NOT_SUPPORTED: u16 = 21;
    pub(crate) const NO_REACHABLE_AUTHORITY: u16 = 22;
    pub(crate) const NETWORK_ERROR: u16 = 23;
}

/// What bytes of an agent are.
#[derive(Debug)]
pub(super) enum Received {
    /// One question.
    Question(Box<Question>),
    /// Not a question that can be answered; `reply` is the error to send, `None` where an answer could
    /// only make a loop or would have no header to stand on.
    Unusable { why: &'static str, code: ResponseCode, reply: Option<Vec<u8>> },
}

/// One question as it was asked.
#[derive(Clone, Debug)]
pub(super) struct Question {
    id: u16,
    recursion_desired: bool,
    checking_disabled: bool,
    /// As sent: what comes back must have the same letters (draft-vixie-dnsext-dns0x20).
    query: Query,
    /// Lower case: letters are not to carry anything out.
    pub(super) name: Name,
    pub(super) kind: RecordType,
    /// Payload that the client takes, where it has EDNS.
    edns: Option<u16>,
}

/// What a question is told.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) code: ResponseCode,
    pub(super) answers: Vec<Record>,
    /// The SOA of a negative answer, by which clients know how long it holds (RFC 2308).
    pub(super) authorities: Vec<Record>,
    /// Extended error and its text.
    pub(super) extended: Option<(u16, &'static str)>,
}

impl Reply {
    pub(super) fn code(code: ResponseCode) -> Self {
        Self { code, answers: Vec::new(), authorities: Vec::new(), extended: None }
    }

    pub(super) fn extended(code: ResponseCode, error: u16, text: &'static str) -> Self {
        Self { extended: Some((error, text)), ..Self::code(code) }
    }
}

/// Reads what an agent sent.
pub(super) fn read(bytes: &[u8]) -> Received {
    let Some(header) = bytes.first_chunk::<HEADER>() else {
        return Received::Unusable { why: "shorter than a header", code: ResponseCode::FormErr, reply: None };
    };
    let [i, d, high, _low, q1, q0, a1, a0, n1, n0, x1, x0] = *header;
    let opcode = (high >> 3) & 0xf;
    let refuse = |code: ResponseCode, why| Received::Unusable {
        why,
        code,
        reply: Some(bare(u16::from_be_bytes([i, d]), high, code)),
    };
    if high & 0x80 != 0 {
        // Two servers that answer answers would never stop.
        return Received::Unusable {
            why: "an answer, not a question",
            code: ResponseCode::FormErr,
            reply: None,
        };
    }
    if opcode != u8::from(OpCode::Query) {
        return refuse(ResponseCode::NotImp, "an operation other than QUERY");
    }
    let [questions, answers, authorities, additional] =
        [[q1, q0], [a1, a0], [n1, n0], [x1, x0]].map(u16::from_be_bytes);
    if bytes.len() > LARGEST {
        return refuse(ResponseCode::FormErr, "longer than any question");
    }
    if questions != 1 || answers != 0 || authorities != 0 || additional > ADDITIONAL {
        return refuse(ResponseCode::FormErr, "not one question and nothing else");
    }
    let Ok(message) = Message::from_vec(bytes) else {
        return refuse(ResponseCode::FormErr, "not a well-formed message");
    };
    let [query] = message.queries.as_slice() else {
        return refuse(ResponseCode::FormErr, "not one question and nothing else");
    };
    if query.query_class() != DNSClass::IN {
        return refuse(ResponseCode::Refused, "a class other than IN");
    }
    let question = Question {
        id: message.metadata.id,
        recursion_desired: message.metadata.recursion_desired,
        checking_disabled: message.metadata.checking_disabled,
        name: query.name().to_lowercase(),
        kind: query.query_type(),
        edns: message.edns.as_ref().map(Edns::max_payload),
        query: query.clone(),
    };
    if message.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
        let reply = question.write(&Reply::code(ResponseCode::BADVERS), usize::from(UDP_PAYLOAD));
        return Received::Unusable {
            why: "a version of EDNS other than 0",
            code: ResponseCode::BADVERS,
            reply,
        };
    }
    Received::Question(Box::new(question))
}

/// An error without the question.
fn bare(id: u16, high: u8, code: ResponseCode) -> Vec<u8> {
    let mut reply = vec![0; HEADER];
    let [i, d] = id.to_be_bytes();
    // QR, the operation and RD of the question; RA and the code.
    for (slot, byte) in reply.iter_mut().zip([i, d, 0x80 | (high & 0x79), 0x80 | code.low()]) {
        *slot = byte;
    }
    reply
}

impl Question {
    /// Bytes that an answer over UDP may have.
    pub(super) fn udp_limit(&self) -> usize {
        usize::from(self.edns.unwrap_or(PLAIN_PAYLOAD).clamp(PLAIN_PAYLOAD, UDP_PAYLOAD))
    }

    /// The answer in at most `limit` bytes: truncated, so that the client asks again over TCP, where it
    /// does not fit. `None` where not even that can be written.
    pub(super) fn write(&self, reply: &Reply, limit: usize) -> Option<Vec<u8>> {
        let mut message = Message::response(self.id, OpCode::Query);
        message.metadata.recursion_desired = self.recursion_desired;
        message.metadata.recursion_available = true;
        message.metadata.checking_disabled = self.checking_disabled;
        message.metadata.response_code = reply.code;
        message.add_query(self.query.clone());
        if self.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(UDP_PAYLOAD).set_version(0);
            if let Some((error, text)) = reply.extended {
                let option = [&error.to_be_bytes()[..], text.as_bytes()].concat();
                edns.options_mut().insert(EdnsOption::Unknown(EXTENDED_ERROR, option));
            }
            message.set_edns(edns);
        }
        let empty = message.clone();
        message.insert_answers(reply.answers.clone());
        message.insert_authorities(reply.authorities.clone());
        match message.to_vec() {
            Ok(bytes) if bytes.len() <= limit => Some(bytes),
            // More than 65,535 bytes is an error, and more than fits all the same.
            Ok(_) | Err(_) => {
                let mut truncated = empty;
                truncated.metadata.truncation = true;
                truncated.to_vec().ok().filter(|bytes| bytes.len() <= limit)
            }
        }
    }
}

/// A response code as people know it.
pub(super) fn code_word(code: ResponseCode) -> String {
    match code {
        ResponseCode::NoError => "NOERROR".to_owned(),
        ResponseCode::FormErr => "FORMERR".to_owned(),
        ResponseCode::ServFail => "SERVFAIL".to_owned(),
        ResponseCode::NXDomain => "NXDOMAIN".to_owned(),
        ResponseCode::NotImp => "NOTIMP".to_owned(),
        ResponseCode::Refused => "REFUSED".to_owned(),
        ResponseCode::BADVERS => "BADVERS".to_owned(),
        other => format!("RCODE{}", u16::from(other)),
    }
}

/// A type as people know it; `TYPE999` where it has no name (RFC 3597 5).
pub(super) fn kind_word(kind: RecordType) -> String {
    match kind {
        RecordType::Unknown(number) => format!("TYPE{number}"),
        named => named.to_string(),
    }
}
