//! HTTP/2 between an agent's connection and an origin's, over the `h2` crate: connections with every
//! limit set, streams relayed one to one, and what both need to be polled by one task.
//!
//! Absent on purpose: translation to or from HTTP/1, server push (the origin is told that it may not),
//! and sharing of an origin's connection between agents' connections.

mod limits;
mod meter;
mod parts;
mod pipe;
mod relay;
mod wire;

pub use limits::{PREFACE, STREAMS, to_agent, to_origin};
pub use meter::{Flood, Meter};
pub use parts::{Part, Task};
pub use pipe::{Incoming, See, Seen};
pub use relay::{Answering, Asking, Broke, ToAgent, ask};
pub use wire::{Grip, Wire, gathered};

#[cfg(test)]
mod tests;
