//! Captured bodies.

use serde::{Deserialize, Serialize};

/// The captured prefix of a body, as it was on the wire (still content-encoded).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Captured {
    /// Bytes that passed in all.
    pub total: u64,
    /// True when `bytes` is less than what passed.
    pub truncated: bool,
    /// The prefix, at most the configured limit.
    #[serde(skip)]
    pub bytes: bytes::Bytes,
}
