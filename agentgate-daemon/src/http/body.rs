//! How bodies end, and what was kept of them.

use std::error::Error;

use super::gauge::Held;
use crate::model::Captured;

/// How a body ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    Complete,
    /// The sender broke off or fell silent.
    Failed(String),
    /// The receiver went away.
    Dropped,
}

/// The end of a body, and what was kept of it.
#[derive(Debug)]
pub struct Ended {
    pub end: End,
    pub captured: Captured,
    /// The memory of what was kept; given back when dropped.
    pub held: Held,
}

/// An error with its causes in one line.
#[must_use]
pub fn describe(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = inner.source();
    }
    text
}
