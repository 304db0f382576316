//! Formats within bodies and upgraded connections, parsed as their bytes pass.
//!
//! Each parser is an observer: fed with slices cut anywhere, it yields the same whatever the cuts, keeps no
//! more than its caps, and says what was wrong. None stops a byte; who feeds it decides.

pub(crate) mod deflate;
pub mod ndjson;
pub mod sse;
pub mod websocket;
