//! How much of a body was seen.

use serde::{Deserialize, Serialize};

/// What inspection saw of a body. Lengths are in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspected {
    /// Kept of what passed, still encoded.
    pub captured: u64,
    /// Passed in all.
    pub total: u64,
    /// Readable: what of the captured bytes was decoded. `None` where nobody has: records are written
    /// without, and who looks at a body decodes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decoded: Option<u64>,
    /// True where there is more to the body than was seen: it was cut, the cap was reached, or a fault
    /// came before its end.
    pub truncated: bool,
    /// As in `Content-Encoding`: `gzip, br`; `identity`, or `unknown`.
    pub encoding: String,
    /// What was wrong with the encoding.
    pub fault: Option<String>,
}

impl Inspected {
    /// True where the whole body was seen as any client would read it.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        !self.truncated && self.fault.is_none()
    }
}
