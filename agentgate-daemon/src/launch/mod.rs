//! Putting an agent under guard: its cgroup, its environment, its trust bundle.
//!
//! `cgroup` and `systemd` are the daemon's half: they move the asking process. `bundle` writes what the
//! agent must trust. `environment`, `seccomp` and `command` are the half of `agentctl run`. Nothing here attaches
//! programs: the guarded cgroup has them already, and children inherit.

pub mod bundle;
pub mod cgroup;
pub mod command;
pub mod environment;
mod seccomp;
pub mod systemd;

pub use cgroup::{OwnCgroups, enroller};
pub use systemd::SystemdScopes;
