//! Putting an agent under guard: its cgroup, its environment, what it trusts.
//!
//! `cgroup` and `systemd` are the daemon's half: they move the asking process. `trust` and
//! `bundle` write what the agent must trust. `command` is `agentctl run`; `descriptors`, `environment`, `hide`, `landlock`
//! and `seccomp` are what it does to itself before it becomes the command. Nothing here attaches programs:
//! the guarded cgroup has them already, and children inherit.

pub mod bundle;
pub mod cgroup;
pub mod command;
pub mod descriptors;
pub mod environment;
pub mod hide;
pub mod landlock;
pub mod namespaces;
mod seccomp;
pub mod systemd;
pub mod trust;

pub use cgroup::{OwnCgroups, enroller};
pub use systemd::SystemdScopes;
