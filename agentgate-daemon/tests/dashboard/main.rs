//! The dashboard over HTTP: who is let in, what is shown, what is changed, and that nothing hostile
//! gets through.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod content;
mod live;
mod seed;
mod served;
