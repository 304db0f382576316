//! The control socket and the enrolment socket: how `agentctl` asks the daemon.
//!
//! `wire` is what both ends say, `socket` and `peer` who may ask and who is asking, `server` and `answer`
//! the daemon's end, `client` the command line's. Peers inside the guarded cgroup are refused at both
//! before a byte of theirs is read.
//! Nothing here judges traffic.

pub mod answer;
pub mod client;
mod cut;
pub mod enrol;
mod export;
mod follow;
pub mod peer;
mod places;
mod proof;
pub mod server;
pub mod socket;
mod steer;
mod upkeep;
pub mod wire;

pub use answer::{ControlContext, DashboardAccess};
pub use enrol::{EnrolError, Enroller};
pub use peer::Process;
pub use server::Door;
