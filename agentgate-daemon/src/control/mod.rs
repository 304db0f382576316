//! The control socket: how `agentctl` asks the daemon.
//!
//! `wire` is what both ends say, `peer` who is asking, `server` and `answer` the daemon's end, `client`
//! the command line's. Peers inside the guarded cgroup are refused before a byte of theirs is read.
//! Nothing here judges traffic.

pub mod answer;
pub mod client;
pub mod enrol;
mod follow;
pub mod peer;
pub mod server;
mod steer;
pub mod wire;

pub use answer::{ControlContext, DashboardAccess};
pub use enrol::{EnrolError, Enroller};
pub use peer::Process;
