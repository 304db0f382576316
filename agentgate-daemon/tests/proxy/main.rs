//! The whole path of a connection in one process: a fake kernel at one end, a small internet at the
//! other, the real gate between them. Needs no root.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bad_input;
#[path = "../shared/frames.rs"]
mod frames;
mod hostile;
mod http;
mod inspected;
mod names;
mod policy;
mod setup;
mod smuggling;
mod tls;
mod websocket;
