//! What a record keeps of a websocket.

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// Who sent a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sender {
    /// The agent: its frames are masked.
    Client,
    /// The origin.
    Server,
}

impl Sender {
    /// The word people read.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

/// What passed one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passed {
    /// Text and binary messages.
    pub messages: u64,
    /// Their bytes on the wire, without frame headers.
    pub bytes: u64,
    /// Their bytes after decompression, as far as known.
    pub decoded: u64,
    /// Pings, pongs and closes.
    pub controls: u64,
    /// Messages of which less than all was seen.
    pub unseen: u64,
}

/// The first close frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    pub by: Sender,
    /// RFC 6455 7.4; `None` where the frame was empty.
    pub code: Option<u16>,
    pub reason: String,
}

/// One message of the transcript.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TranscriptLine {
    pub at: Timestamp,
    pub from: Sender,
    /// `text` or `binary`.
    pub kind: String,
    /// Bytes after decompression, as far as known.
    pub length: u64,
    /// The start: text with U+FFFD for what is not UTF-8, hexadecimal digits of a binary message. Secrets
    /// in it are masked by whoever writes the record.
    pub text: String,
    /// True where `text` is not the whole message.
    pub truncated: bool,
}

/// A websocket in a record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebSocket {
    pub client: Passed,
    pub server: Passed,
    pub closed: Option<Closed>,
    /// The first messages, both ways, in the order in which they were seen to end.
    pub transcript: Vec<TranscriptLine>,
    /// Messages for which the transcript had no room.
    pub left_out: u64,
    /// What was wrong with the frames, the first few, each kind once.
    pub faults: Vec<String>,
}
