//! How bodies end, what was kept of them, and who sees them go by.

use std::{
    error::Error,
    ops::ControlFlow,
    task::{Context, Poll},
};

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

/// Sees the contents of a request's body before they go on.
pub trait Watch {
    /// More of it; `Break` where these bytes must not go on.
    fn data(&mut self, data: &[u8]) -> ControlFlow<()>;

    /// All of it was seen: ready once that with which it ends may go on; `Break` where it must not.
    fn poll_last(&mut self, cx: &mut Context<'_>) -> Poll<ControlFlow<()>>;
}

/// Who only looks holds nothing up.
impl<F: FnMut(&[u8]) -> ControlFlow<()>> Watch for F {
    fn data(&mut self, data: &[u8]) -> ControlFlow<()> {
        self(data)
    }

    fn poll_last(&mut self, _cx: &mut Context<'_>) -> Poll<ControlFlow<()>> {
        Poll::Ready(ControlFlow::Continue(()))
    }
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
