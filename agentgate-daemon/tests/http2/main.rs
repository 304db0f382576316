//! HTTP/2 through the whole gate in one process: agents and origins that are `h2` itself or bytes written
//! by hand, so that each frame that arrives is the test's to see. Needs no root.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod calls;
mod ends;
mod few;
mod floods;
#[path = "../shared/frames.rs"]
mod frames;
mod inspected;
mod leaving;
mod pressure;
#[path = "../proxy/setup.rs"]
#[expect(dead_code, reason = "what the tests of HTTP/1.1 need of it")]
mod setup;
mod sides;
