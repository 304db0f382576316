//! What one agent connection may ask of the gate.

use std::time::Duration;

/// How much and how long.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest request head in bytes.
    pub header_bytes: usize,
    /// From the first byte of a head to its last.
    pub header_time: Duration,
    /// How long a connection may stay without anything moving.
    pub idle: Duration,
    /// How long what has no end of its own may go on once the gate is told to stop: less than what ends
    /// every task, so that its record says how much passed.
    pub grace: Duration,
}

/// How long a connection on which nothing was asked so far may stay once the gate is told to stop: who
/// connected before that has the first request on its way, and would be refused without need.
pub const FIRST_REQUEST: Duration = Duration::from_secs(2);
