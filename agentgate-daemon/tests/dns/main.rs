//! The agents' resolver in one process: a fake kernel that says who asks, a small internet with a name
//! server that keeps a journal, the real gate between them. Needs no root.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod answers;
mod hostile;
mod judged;
mod setup;
