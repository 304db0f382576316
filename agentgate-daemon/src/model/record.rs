//! What the audit log keeps.

use std::{fmt, net::IpAddr, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    Authority, Captured, Fact, Flag, Flow, HeaderFields, Inspected, Subject, Timestamp, Verdict, WebSocket,
};

/// Number of a record: rises by one, never reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RecordId(pub u64);

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for RecordId {
    type Err = std::num::ParseIntError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// What a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// One connection that reached the listener.
    Flow,
    /// One request and its response; `parent` is its flow.
    Exchange,
    /// A call that the kernel refused before there was a connection.
    Kernel,
    /// One question to the gate's DNS server and its answer, or a number of the same.
    Dns,
    /// A process that did not stay under guard, or a socket that came from outside it.
    Guard,
    /// A change of policy, mode or lists, and who made it; a start or stop of the gate.
    Control,
}

impl Kind {
    /// The word people read.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Flow => "flow",
            Self::Exchange => "exchange",
            Self::Kernel => "kernel",
            Self::Dns => "dns",
            Self::Guard => "guard",
            Self::Control => "control",
        }
    }
}

/// How far it got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Begun; what is read in this state after a restart was interrupted with the daemon.
    Open,
    /// Ended as it should.
    Done,
    /// Refused by policy, or because it could not be judged.
    Refused,
    /// Ended by an error; see `failure`.
    Failed,
    /// The agent went away before the end.
    Cancelled,
}

impl State {
    /// The word people read.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Whose fault an error was, and which.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// `agent`, `origin`, `policy` or `gate`.
    pub blame: String,
    /// Stable snake_case code, such as `origin_certificate_invalid`.
    pub code: String,
    /// One line for a person, without secrets.
    pub detail: String,
}

/// A question to the gate's DNS server, and what the agent was told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// As asked, in lower case, without the trailing dot; escaped as in zone files (RFC 4343).
    pub name: String,
    /// Type in the words of RFC 1035 and the IANA registry: `A`, `AAAA`, `HTTPS`, `TYPE999`.
    pub kind: String,
    /// `udp` or `tcp`.
    pub transport: String,
    /// Response code: `NOERROR`, `NXDOMAIN`, `SERVFAIL`, `REFUSED`, …
    pub code: String,
    /// Addresses that the agent was given: connections to them are connections to this name.
    pub addresses: Vec<IpAddr>,
    /// Other answers, as in a zone file, cut; and addresses that were left out, with why.
    pub answers: Vec<String>,
    /// Microseconds from question to answer.
    pub took_us: u64,
}

/// Events that the log says it does not hold, [`Record::times`] of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// [`Flow::session`] of those who caused them.
    pub session: u64,
    /// `agentgate_common::tally::window` of the time at which they happened.
    pub window: u32,
    /// `flows`, or the code of a kernel's denial.
    pub what: String,
    /// `ring_full`, `replaced`, `restart` or `unrecorded`.
    pub cause: String,
}

/// A request's head. Header values are masked before they get here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestHead {
    pub method: String,
    /// `http` or `https`.
    pub scheme: String,
    /// Path and query as sent.
    pub target: String,
    /// `HTTP/1.1`, `HTTP/2`.
    pub version: String,
    /// In the order they came; secrets masked.
    pub headers: HeaderFields,
    pub body: Captured,
}

/// A response's head. Header values are masked before they get here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResponseHead {
    pub status: u16,
    pub version: String,
    pub headers: HeaderFields,
    pub body: Captured,
    /// Microseconds from the request's head to the response's head.
    pub first_byte_us: u64,
}

/// TLS of a flow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tls {
    /// The name in the agent's ClientHello.
    pub sni: Option<String>,
    /// The JA4 fingerprint of that hello: which TLS library the agent has.
    pub ja4: String,
    /// Protocols that it offered by ALPN, in its order; other than printable ASCII is escaped.
    pub offered: Vec<String>,
    /// It had an encrypted hello inside, or what looks like one.
    pub ech: bool,
    /// `TLS 1.3`, `TLS 1.2`; `None` where the gate settled nothing with the agent, as in a tunnel.
    pub version: Option<String>,
    /// As in the IANA registry.
    pub cipher: Option<String>,
    /// What was chosen of the offer.
    pub alpn: Option<String>,
    /// By a session from before, without a certificate.
    pub resumed: bool,
    /// Version towards the origin, where a connection to it was made with this one.
    pub origin_version: Option<String>,
    pub origin_resumed: bool,
}

/// One record. Fields that later parsers add are optional, so that older records still read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub id: RecordId,
    pub kind: Kind,
    pub state: State,
    pub started: Timestamp,
    /// `None` while open.
    pub finished: Option<Timestamp>,
    /// The flow an exchange ran on.
    pub parent: Option<RecordId>,
    /// Shared by all records of a connection.
    pub subject: Option<Arc<Subject>>,
    /// Likewise.
    pub flow: Option<Arc<Flow>>,
    /// Whom it was for, as far as it is known.
    pub authority: Option<Authority>,
    /// `tls`, `http/1`, `http/2`, `websocket`, `opaque`, `silent`, `udp`, `tcp`, `socket`, …
    pub protocol: String,
    pub verdict: Option<Verdict>,
    pub flags: Vec<Flag>,
    pub request: Option<RequestHead>,
    pub response: Option<ResponseHead>,
    /// Bytes from the agent, of a flow.
    pub bytes_up: u64,
    /// Bytes to the agent, of a flow.
    pub bytes_down: u64,
    pub failure: Option<Failure>,
    /// Of a flow that begins with a ClientHello.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Box<Tls>>,
    /// Of an exchange that became a WebSocket: its bodies are the transcripts of both sides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub websocket: Option<Box<WebSocket>>,
    /// What inspection saw of the request's body; `None` where that is all of it, as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_seen: Option<Box<Inspected>>,
    /// The same of the response's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_seen: Option<Box<Inspected>>,
    /// Of a question.
    #[serde(default)]
    pub question: Option<Question>,
    /// Where this record tells of events that have none of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<Loss>,
    /// How many events this record stands for: floods are told by their number.
    #[serde(default = "once")]
    pub times: u64,
    /// For `Kind::Control` and `Kind::Kernel`: what happened, in one line.
    pub note: Option<String>,
    /// What parsers found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub facts: Vec<Fact>,
}

fn once() -> u64 {
    1
}

impl Record {
    /// An open record of `kind` that started at `started`; the id is given by the audit log.
    #[must_use]
    pub fn new(kind: Kind, started: Timestamp) -> Self {
        Self {
            id: RecordId::default(),
            kind,
            state: State::Open,
            started,
            finished: None,
            parent: None,
            subject: None,
            flow: None,
            authority: None,
            protocol: String::new(),
            verdict: None,
            flags: Vec::new(),
            request: None,
            response: None,
            bytes_up: 0,
            bytes_down: 0,
            failure: None,
            tls: None,
            websocket: None,
            request_seen: None,
            response_seen: None,
            question: None,
            loss: None,
            times: 1,
            note: None,
            facts: Vec::new(),
        }
    }
}
