//! The seam to the kernel: what the rest of the daemon needs of the eBPF programs.
//!
//! `Kernel` has two implementations: `Attached` with the real programs, and `fake::FakeKernel` for
//! tests without root. Nothing outside this module knows of maps, links or programs.

use std::net::SocketAddr;

use agentgate_common::{event::KernelEvent, settings::Settings};
use tokio::sync::mpsc;

use crate::model::Flow;

mod attach;
mod attached;
mod cgroup;
mod events;
pub mod fake;
mod link;
mod load;
mod pin;

pub use attached::{Attached, Options, attached_programs, detach};
pub use cgroup::{cgroup2_mount, guarded_path};

/// What can go wrong at the seam.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// This build holds no eBPF object.
    #[error("this build has no eBPF programs: run `cargo xtask setup`, then build again")]
    NoObject,
    /// Some step of loading, attaching or pinning; nothing stays attached that was not before.
    #[error("{step}: {source}")]
    Step {
        /// What was being done, with the name of the program, map or path.
        step: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another daemon holds the cgroup.
    #[error("another agentgated guards {cgroup}")]
    AlreadyGuarded { cgroup: String },
}

/// Names the step in which an error came up.
fn step<E: Into<Box<dyn std::error::Error + Send + Sync>>>(step: &str) -> impl FnOnce(E) -> KernelError {
    move |source| KernelError::Step { step: step.to_owned(), source: source.into() }
}

/// How often a hook came to an outcome, since the programs were attached first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Counter {
    /// [`Hook::code`].
    pub hook: &'static str,
    /// [`Denial::code`], or `direct`, `connected`, `listener`, `resolver` for what passed.
    pub outcome: &'static str,
    pub count: u64,
}

/// What the daemon asks of the kernel. Calls are short map operations and never block on a peer.
pub trait Kernel: Send + Sync + 'static {
    /// The flow behind an accepted connection, looked up by the agent's end of it (the peer address
    /// that accept(2) gave) and removed. `None`: unknown, so refuse.
    ///
    /// # Errors
    /// When the map cannot be read: refuse.
    fn take_flow(&self, peer: SocketAddr) -> Result<Option<Flow>, KernelError>;

    /// Installs settings; they hold for the next call of any agent.
    ///
    /// # Errors
    /// When the map cannot be written.
    fn configure(&self, settings: &Settings) -> Result<(), KernelError>;

    /// Kernel events since start, once: the receiver is taken by the first caller. The channel is
    /// bounded; while it is full the ring buffer fills, and what the ring buffer loses is counted.
    fn events(&self) -> Option<mpsc::Receiver<KernelEvent>>;

    /// Events the kernel could not hand over since the programs were attached.
    ///
    /// # Errors
    /// When the counter cannot be read.
    fn lost_events(&self) -> Result<u64, KernelError>;

    /// The programs' own counters, those above zero. Every refusal is counted, also where its event
    /// was lost.
    ///
    /// # Errors
    /// When they cannot be read.
    fn counters(&self) -> Result<Vec<Counter>, KernelError>;
}
