//! Captured bodies as people and programs read them.

use data_encoding::BASE64;

use crate::{
    inspect,
    model::{Captured, HeaderFields},
};

/// Decoded bytes of one body, above which it is cut: a few coded bytes may stand for gigabytes.
const MOST: u64 = 32 << 20;

/// What is readable of a captured body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) bytes: Vec<u8>,
    /// True where the body had more.
    pub(super) truncated: bool,
}

impl Content {
    /// Text as it is, else base64; and which of both.
    pub(super) fn text(&self) -> (String, bool) {
        match std::str::from_utf8(&self.bytes) {
            Ok(text) => (text.to_owned(), false),
            // A prefix may end within a character: that is text none the less.
            Err(error) if self.truncated && error.error_len().is_none() => {
                let valid = self.bytes.get(..error.valid_up_to()).unwrap_or_default();
                (String::from_utf8_lossy(valid).into_owned(), false)
            }
            Err(_) => (BASE64.encode(&self.bytes), true),
        }
    }
}

pub(super) fn content(headers: &HeaderFields, body: &Captured) -> Content {
    let opened = inspect::open(body, &inspect::recorded(headers), inspect::Limits::of(MOST));
    Content { bytes: opened.bytes, truncated: opened.inspected.truncated }
}
