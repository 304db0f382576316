//! What goes over the control socket: one JSON object per line each way, one request per connection.
//!
//! A request is answered by one [`Reply::Ok`], one [`Reply::Error`], or a run of [`Reply::Item`] closed
//! by [`Reply::End`] (or by an error). Pure: no sockets here.

use std::{net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use crate::{
    anchors::PlaceReport,
    kernel::{LayerState, Layers},
};
use crate::{
    chain::{Checkpoint, KeyStatement, PublicKey, Report},
    export::{chained::Had, mirror, pages::Turned},
    model::{Action, Balance, Kind, Mode, Record, RecordId, Timestamp},
    reload::{Edit, List, PolicyStatus},
    store::{
        Side,
        compact::Compacted,
        dump::Dumped,
        stats::{Pace, Stats},
    },
};

/// Version of this protocol. Both ends come from one package, so there is no negotiation: another
/// version is refused with a hint to restart the daemon.
pub const VERSION: u32 = 1;

/// Longest line either end accepts, in bytes without the newline.
pub const LINE_CAP: usize = 1 << 20;

/// Bytes of a captured body in one [`Item::Body`]; twice that in hex stays far below [`LINE_CAP`].
pub const BODY_CHUNK: usize = 64 << 10;

/// Bytes of lines in one [`Item::Rows`]: what JSON makes of them stays below [`LINE_CAP`].
pub const ROWS_CHUNK: usize = 256 << 10;

/// Records that one `Logs` request may ask for.
pub const LIMIT_CAP: usize = 1000;

/// A request with the version it is written in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// Always [`VERSION`] when sent.
    pub version: u32,
    pub request: Request,
}

impl From<Request> for Envelope {
    fn from(request: Request) -> Self {
        Self { version: VERSION, request }
    }
}

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// How the gate is.
    Status,
    /// Put the asking process itself under guard, in a cgroup of its own.
    Enrol,
    /// The newest records that match, newest first and each as soon as it is found, then
    /// [`Item::Listed`], then with `follow` each later change.
    Logs { filter: LogFilter, follow: bool },
    /// One record.
    Show { id: RecordId },
    /// The captured prefix of one body, as a stream of [`Item::Body`]. Recorded: bodies are not masked.
    Body { id: RecordId, side: Side },
    /// Read and compile the policy files again.
    PolicyReload,
    /// The mode in force.
    ModeGet,
    /// Override the mode of `policy.toml`, or with `None` stop doing so.
    ModeSet { mode: Option<Mode> },
    /// Change a host list.
    ListEdit { list: List, edit: Edit, host: String },
    /// The certificate of the gate's authority, PEM.
    CaExport,
    /// An address that logs in at the dashboard once. Recorded.
    Dashboard,
    /// Whether the audit log holds what the kernel counted. With `recount` every record is read.
    Reconcile {
        #[serde(default)]
        recount: bool,
    },
    /// What concerns the log as a whole.
    Upkeep { ask: Upkeep },
    /// How many records match: [`Item::Searched`] while they are counted, then [`Item::Counted`]. The
    /// filter's `limit` means nothing.
    Count { filter: LogFilter },
    /// Verify the log, by these keys and by checkpoints kept elsewhere: [`Item::Verifying`] now and then,
    /// then [`Item::Verified`].
    AuditVerify {
        #[serde(default)]
        keys: Vec<PublicKey>,
        #[serde(default)]
        checkpoints: Vec<Checkpoint>,
    },
    /// The proof of one record, as a stream of [`Item::Text`].
    AuditProve { id: RecordId },
    /// Sign the log with another key from here on. Recorded.
    AuditRotateKey,
    /// The log in its own order, as a stream of [`Item::Rows`] and [`Item::Walked`]. Recorded where bodies
    /// are wanted: they are not masked.
    AuditExport { ask: ExportAsk },
}

/// What an export is to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExportAsk {
    /// Position in the log to begin at.
    pub from: u64,
    /// In the language of `agentctl logs`; empty for everything.
    pub filter: String,
    /// With captured bodies.
    pub bodies: bool,
    /// Also the beginnings of records that are not over.
    pub begun: bool,
    /// Goes on with what comes.
    pub follow: bool,
    /// Lines of `chain::Line`, which verify, instead of rows; without the last, which says how many there
    /// were: that is for whoever writes them.
    pub chained: bool,
    /// What such an export has that is gone on with: `from` means nothing then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub had: Option<Had>,
}

/// What is done to the log as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Upkeep {
    /// How large it is. Reads all of it.
    Stats,
    /// Every row of one snapshot: [`UpkeepItem::Piece`]s, then [`UpkeepItem::Dumped`]. Recorded.
    Backup,
    /// Give free room back to the disk: [`UpkeepItem::Copied`], then [`UpkeepItem::Compacted`]. Recorded.
    Compact,
}

/// How that goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpkeepItem {
    /// The next bytes of the stream that `store::dump` describes.
    Piece {
        base64: String,
    },
    /// What the stream held.
    Dumped(Dumped),
    /// So many bytes of rows more.
    Copied {
        bytes: u64,
    },
    Compacted(Compacted),
}

/// Which records. Every field that is set must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogFilter {
    /// Host name, part of one, or a pattern with `*`.
    #[serde(default)]
    pub host: Option<String>,
    #[serde(default)]
    pub verdict: Option<Action>,
    #[serde(default)]
    pub kind: Option<Kind>,
    /// Session id as records show it.
    #[serde(default)]
    pub session: Option<String>,
    /// Records that started at this time or later.
    #[serde(default)]
    pub since: Option<Timestamp>,
    /// In the language of [`crate::filter`].
    #[serde(default)]
    pub text: String,
    /// At most [`LIMIT_CAP`]; more is cut to it.
    pub limit: usize,
}

/// One line from the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// The whole answer.
    Ok(Box<Payload>),
    /// A part of a streamed answer.
    Item(Box<Item>),
    /// The end of a streamed answer.
    End,
    /// No answer, or no more of it.
    Error(ErrorReply),
}

impl Reply {
    /// A whole answer.
    #[must_use]
    pub fn ok(payload: Payload) -> Self {
        Self::Ok(Box::new(payload))
    }
    /// A part of one.
    #[must_use]
    pub fn item(item: Item) -> Self {
        Self::Item(Box::new(item))
    }
}

/// Whole answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Payload {
    Status(Box<StatusReport>),
    Enrolled(Enrolled),
    Record(Box<Record>),
    Policy(PolicyStatus),
    Mode {
        mode: Mode,
    },
    /// `changed` is false where the list already said so.
    List {
        list: List,
        host: String,
        changed: bool,
    },
    Ca {
        pem: String,
    },
    Dashboard {
        listen: SocketAddr,
        url: String,
    },
    Balance(Box<Balance>),
    AuditKey(Box<KeyStatement>),
    Stats(Box<Stats>),
}

/// Parts of streamed answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Item {
    Record(Box<Record>),
    /// The search goes on below this record, and is not dead.
    Searched {
        down_to: RecordId,
    },
    /// All that was there has been sent.
    Listed,
    /// This reader was too slow and the live feed went on without it; the log itself holds them.
    Missed {
        updates: u64,
    },
    /// Up to [`BODY_CHUNK`] bytes in lower case hex.
    Body {
        hex: String,
    },
    Upkeep(Box<UpkeepItem>),
    /// A piece of lines that `export::Row::received` reads, or of a chain's; lines go on from piece to piece.
    Rows {
        text: String,
    },
    /// All lines up to here have been sent.
    Walked(Turned),
    /// So many records match; of `unreadable` it cannot be said.
    Counted {
        count: u64,
        unreadable: u64,
    },
    /// A list by duration or bytes lacks the records below this one: to look at all would take too long.
    Unsearched {
        below: RecordId,
    },
    /// So many entries were verified of so many.
    Verifying {
        done: u64,
        of: u64,
    },
    Verified(Box<Report>),
    /// Part of a text, of up to [`BODY_CHUNK`] bytes.
    Text {
        text: String,
    },
}

/// The asking process is under guard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolled {
    /// Its cgroup below the cgroup v2 mount.
    pub cgroup: String,
    /// The guarded cgroup above it.
    pub guarded: String,
    /// System roots and the gate's own, PEM, readable by everyone.
    pub bundle: PathBuf,
    /// What to hide from the command.
    pub hidden: Hidden,
    /// `system_bundle` of `[run]`.
    #[serde(default)]
    pub system_bundle: bool,
}

/// What is hidden from a command under guard. Sent, since its user may not be able to read the settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hidden {
    /// `hide` of `[run]`: names and paths.
    pub places: Vec<String>,
    /// The gate's own sockets.
    pub sockets: Vec<PathBuf>,
}

/// How the gate is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusReport {
    pub gate: GateReport,
    pub policy: PolicyStatus,
    pub audit: AuditReport,
}

/// The part of the status that only the daemon's owner of tasks knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateReport {
    /// Version of the daemon.
    pub version: String,
    pub pid: u32,
    pub started: Timestamp,
    /// Path of the guarded cgroup below the cgroup v2 mount.
    pub guarded: String,
    pub listen: Vec<SocketAddr>,
    /// Programs attached to the guarded cgroup.
    pub programs: Vec<String>,
    /// Layers that not every kernel has; none from a daemon that does not tell.
    #[serde(default)]
    pub layers: Option<Layers>,
    /// Kernel events that could not be handed over.
    pub lost_events: u64,
    /// What the kernel had no room to count by session and time: `audit reconcile` proves nothing then.
    #[serde(default)]
    pub unbooked: u64,
    /// How often each hook came to each outcome since the programs were attached first.
    #[serde(default)]
    pub counters: Vec<HookCount>,
    /// Connections open at this moment.
    pub connections: u64,
    pub dashboard: Option<SocketAddr>,
    /// True from the request to stop on.
    pub draining: bool,
    /// Where the audit log's checkpoints are sent, and how that goes.
    #[serde(default)]
    pub checkpoints: Vec<PlaceReport>,
}

/// One counter of the kernel programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookCount {
    /// The kernel's name of the hook.
    pub hook: String,
    /// Code of a passage or a denial.
    pub outcome: String,
    pub count: u64,
}

/// The audit log's health.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditReport {
    /// False while records cannot be written, when nothing is let through.
    pub healthy: bool,
    /// The last error.
    pub error: Option<String>,
    /// Writes waiting.
    pub queued: u64,
    /// Writes committed since start.
    pub written: u64,
    /// `None` where nothing is mirrored.
    #[serde(default)]
    pub mirror: Option<mirror::Report>,
    /// How it grows; `None` from a daemon that does not tell, and while it cannot be read.
    #[serde(default)]
    pub pace: Option<Pace>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReply {
    pub code: ErrorCode,
    /// What happened, in one sentence.
    pub message: String,
    /// What a person can do about it; may be empty.
    pub hint: String,
}

impl ErrorReply {
    /// An error without a hint.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: String::new() }
    }
    /// With a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }
}

/// The kinds of error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// Not a request.
    BadRequest,
    /// Written for another version of the daemon.
    Version,
    /// The peer is in the guarded cgroup.
    Guarded,
    /// The daemon cannot tell which process is asking.
    UnknownPeer,
    /// Too many control connections.
    Busy,
    /// The request did not come in time.
    Deadline,
    /// No such record, body or entry.
    NotFound,
    /// The value given is not valid.
    Invalid,
    /// The policy on disk does not compile; the last good one stays in force.
    PolicyInvalid,
    /// The request could not be recorded, so it was not carried out.
    AuditUnavailable,
    /// The process was not put under guard.
    EnrolFailed,
    /// Another process, with the number of the one that asked and ended, was put under guard.
    StrangerEnrolled,
    /// Not part of this daemon's configuration.
    Unavailable,
    /// The gate's own fault.
    Internal,
    /// A code of a later version.
    #[serde(other)]
    Other,
}

impl ErrorCode {
    /// As on the wire and in records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::Version => "version",
            Self::Guarded => "guarded",
            Self::UnknownPeer => "unknown_peer",
            Self::Busy => "busy",
            Self::Deadline => "deadline",
            Self::NotFound => "not_found",
            Self::Invalid => "invalid",
            Self::PolicyInvalid => "policy_invalid",
            Self::AuditUnavailable => "audit_unavailable",
            Self::EnrolFailed => "enrol_failed",
            Self::StrangerEnrolled => "stranger_enrolled",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
            Self::Other => "other",
        }
    }
}

/// Why a line is not a message.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// Longer than [`LINE_CAP`].
    #[error("a line of {length} bytes, more than {LINE_CAP}")]
    TooLong {
        /// Bytes of the line.
        length: usize,
    },
    /// Not the JSON that was expected.
    #[error("not a control message: {0}")]
    Json(#[from] serde_json::Error),
}

/// `message` as one line with its newline. JSON escapes every newline inside strings.
///
/// # Errors
/// [`WireError`] where the line would be longer than [`LINE_CAP`].
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, WireError> {
    let mut line = serde_json::to_vec(message)?;
    if line.len() > LINE_CAP {
        return Err(WireError::TooLong { length: line.len() });
    }
    line.push(b'\n');
    Ok(line)
}

/// The message of one line, with or without its newline.
///
/// # Errors
/// [`WireError`] where it is not one.
pub fn decode<T: DeserializeOwned>(line: &[u8]) -> Result<T, WireError> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    if line.len() > LINE_CAP {
        return Err(WireError::TooLong { length: line.len() });
    }
    Ok(serde_json::from_slice(line)?)
}

/// Lower case hex.
#[must_use]
pub fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|b| [DIGITS[usize::from(b >> 4)], DIGITS[usize::from(b & 15)]])
        .map(char::from)
        .collect()
}

/// The bytes of lower or upper case hex; `None` where it is not hex.
#[must_use]
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
        return None;
    };
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

#[cfg(test)]
mod tests;
