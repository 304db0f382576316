//! When a record is on disk.

use serde::{Deserialize, Serialize};

/// When a record is durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Durability {
    /// Before what it is of goes on: before anything of a request is forwarded.
    #[default]
    BeforeForward,
    /// Within 50 ms. Nothing is dropped: where the disk cannot follow, what is to be recorded waits, and
    /// where it cannot be written, it is refused. What a crash takes is the last moment.
    Backpressure,
}
