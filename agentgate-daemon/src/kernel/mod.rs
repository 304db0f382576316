//! The seam to the kernel: what the rest of the daemon needs of the eBPF programs.
//!
//! `Kernel` has two implementations: `Attached` with the real programs, and `fake::FakeKernel` for
//! tests without root. Nothing outside this module knows of maps, links or programs.

use std::{
    net::{IpAddr, SocketAddr},
    os::fd::BorrowedFd,
};

use agentgate_common::{event::KernelEvent, settings::Settings, tally::Booked};
use tokio::sync::mpsc;

use crate::model::Flow;

mod attach;
mod attached;
mod btf;
mod cgroup;
mod descriptors;
mod events;
pub mod fake;
mod layers;
mod link;
mod load;
mod pin;
pub mod spent;
mod take;

pub use attached::{Attached, Options, attached_programs, detach, netns_cookie, netns_cookie_of};
pub use cgroup::{GuardedCgroup, Place, cgroup2_mount};
pub use descriptors::{Descriptors, ForeignSocket, foreign_sockets};
pub use layers::{LayerState, Layers, watched};

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

/// `CLOCK_BOOTTIME` in nanoseconds, as the programs stamp flows and events.
#[must_use]
pub fn since_boot_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let part = |n: i64| u64::try_from(n).unwrap_or(0);
    part(now.tv_sec) * 1_000_000_000 + part(now.tv_nsec)
}

/// How often a hook came to an outcome, since the programs were attached first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Counter {
    /// [`agentgate_common::event::Hook::code`].
    pub hook: &'static str,
    /// A name of [`agentgate_common::verdict::outcomes`].
    pub outcome: &'static str,
    pub count: u64,
}

/// The same for one session: the kernel's side of the balance of the audit log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionCounter {
    /// Id of the session's cgroup, 0 for the guarded cgroup itself.
    pub session: u64,
    pub counter: Counter,
}

/// The agent's end of something that came to a door of the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AgentEnd {
    /// Cookie of the network namespace that the door is in; `None`: the daemon's own.
    pub netns: Option<u64>,
    /// What accept(2) or recvfrom(2) gave.
    pub peer: SocketAddr,
    /// The door's port.
    pub door: u16,
}

/// One range of UDP that policy lets pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpRange {
    pub net: ipnet::IpNet,
    /// First and last port of each range; none: the range is a hole in a wider one.
    pub ports: Vec<(u16, u16)>,
}

/// What the daemon asks of the kernel. Calls are short map operations and never block on a peer.
pub trait Kernel: Send + Sync + 'static {
    /// The flow behind an accepted connection, looked up and removed. `None`: unknown, so refuse.
    ///
    /// # Errors
    /// When the map cannot be read: refuse.
    fn take_flow(&self, end: AgentEnd) -> Result<Option<Flow>, KernelError>;

    /// Who sent the last datagram from there to the gate's DNS server, with the destination that it was
    /// meant for. Stays: one socket asks more than once.
    ///
    /// # Errors
    /// When the map cannot be read: refuse.
    fn asker(&self, end: AgentEnd) -> Result<Option<Flow>, KernelError>;

    /// Removes and gives the flows that connect(2) made before `before_ns` (nanoseconds since boot) and
    /// that nobody took: connections that never came to the listener.
    ///
    /// # Errors
    /// When the map cannot be read.
    fn abandoned_flows(&self, before_ns: u64) -> Result<Vec<Flow>, KernelError>;

    /// The flows that wait to be taken.
    ///
    /// # Errors
    /// When the map cannot be read.
    fn pending_flows(&self) -> Result<Vec<Flow>, KernelError>;

    /// Installs settings; they hold for the next call of any agent.
    ///
    /// # Errors
    /// When the map cannot be written.
    fn configure(&self, settings: &Settings) -> Result<(), KernelError>;

    /// Installs the host's own addresses, besides loopback: what is there is judged as loopback is.
    ///
    /// # Errors
    /// When the map cannot be written.
    fn set_host_addresses(&self, addresses: &[IpAddr]) -> Result<(), KernelError>;

    /// Installs the UDP that policy lets pass.
    ///
    /// # Errors
    /// When the map cannot be written, or has no room.
    fn set_udp(&self, ranges: &[UdpRange]) -> Result<(), KernelError>;

    /// Opens the doors of the gate to guarded sockets of a network namespace: called once doors stand
    /// there.
    ///
    /// # Errors
    /// When the map cannot be written, or has no room.
    fn admit_namespace(&self, netns: u64) -> Result<(), KernelError>;

    /// The reverse, before the doors go.
    ///
    /// # Errors
    /// When the map cannot be written.
    fn expel_namespace(&self, netns: u64) -> Result<(), KernelError>;

    /// Whether a socket (of any process, duplicated into this one) was made under guard.
    ///
    /// # Errors
    /// When the kernel cannot say.
    fn is_guarded(&self, socket: BorrowedFd<'_>) -> Result<bool, KernelError>;

    /// Which of the layers that not every kernel has are in force.
    fn layers(&self) -> Layers;

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

    /// Outcomes that found no room among the counters by session.
    ///
    /// # Errors
    /// When the counter cannot be read.
    fn untallied(&self) -> Result<u64, KernelError>;

    /// The same as [`Kernel::counters`] by session. All of them and [`Kernel::untallied`] together are
    /// the sum of the counters.
    ///
    /// # Errors
    /// When they cannot be read.
    fn session_counters(&self) -> Result<Vec<SessionCounter>, KernelError>;

    /// What the audit log is balanced against: connections tied to the listener and refusals reported, by
    /// session and window of time.
    ///
    /// # Errors
    /// When it cannot be read.
    fn booked(&self) -> Result<Vec<(Booked, u64)>, KernelError>;

    /// What found no room among them: then they are no proof.
    ///
    /// # Errors
    /// When the counter cannot be read.
    fn unbooked(&self) -> Result<u64, KernelError>;

    /// Takes numbers of windows that are over out of [`Kernel::booked`], once they are kept elsewhere.
    ///
    /// # Errors
    /// When the map cannot be written.
    fn forget_booked(&self, keys: &[Booked]) -> Result<(), KernelError>;

    /// Every event that the programs reported before this moment (nanoseconds since boot) has been handed
    /// to the receiver of [`Kernel::events`], or was lost.
    fn heard_until(&self) -> u64;

    /// What [`Kernel::booked`] is part of: a name that changes when it begins anew, which is with the boot
    /// and with the making of the pinned map, whose id the kernel does not give out again.
    fn epoch(&self) -> String;
}
