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

/// One message of the transcript. What a record keeps as the body of either side are its sender's messages,
/// one such object in JSON a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TranscriptLine {
    /// Place in the order in which messages and control frames of both sides were seen to end.
    pub number: u64,
    pub at: Timestamp,
    pub from: Sender,
    /// `text` or `binary`.
    pub kind: String,
    /// Bytes after decompression, as far as known.
    pub length: u64,
    /// The start: text with U+FFFD for what is not UTF-8, hexadecimal digits of a binary message.
    pub text: String,
    /// True where `text` is not the whole message.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
}

impl TranscriptLine {
    /// The messages of a side's stored body. A line that is none is left out.
    #[must_use]
    pub fn of(body: &[u8]) -> Vec<Self> {
        body.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
    }
}

/// A websocket in a record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebSocket {
    pub client: Passed,
    pub server: Passed,
    pub closed: Option<Closed>,
    /// Messages for which the transcript had no room.
    pub left_out: u64,
    /// What was wrong with the frames, the first few, each kind once.
    pub faults: Vec<String>,
}
