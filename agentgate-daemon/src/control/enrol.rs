//! What the server needs of whoever puts a process under guard.
//!
//! `launch` implements it: with cgroups of its own, or through systemd.

use super::peer::Process;

/// Moves processes into fresh children of the guarded cgroup. Calls block on the file system and on
/// systemd, for at most some seconds: never call one on the async runtime's own threads.
pub trait Enroller: Send + Sync + std::fmt::Debug {
    /// Moves `process` with all its threads into a fresh cgroup and returns that cgroup's path below
    /// the cgroup v2 mount, such as `/agent.slice/run-4711-0.scope`. On success the process was inside
    /// while it was alive, so no recycled pid was moved in its stead.
    ///
    /// # Errors
    /// [`EnrolError`]; the process may then be inside or outside, so the caller must not run anything.
    /// [`EnrolError::Stranger`] where a recycled pid was moved.
    fn enrol(&self, process: &Process) -> Result<String, EnrolError>;
}

/// Why a process was not put under guard.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// It ended before it was moved.
    #[error("process {pid} is gone")]
    ProcessGone {
        /// The process.
        pid: u32,
    },
    /// It ended, its number was given out again, and whoever has it was moved instead: the kernel and
    /// systemd take numbers, so this cannot be ruled out, only seen. It stays under guard, where it does
    /// no harm to anybody but itself: where it came from is not known, and a guess could set an agent
    /// free.
    #[error(
        "process {pid} ended and its number went to another ({who}), which is in {cgroup} by mistake; it \
         stays under guard until somebody moves it"
    )]
    Stranger {
        /// The number of both.
        pid: u32,
        /// Name and executable of the one that has it.
        who: String,
        /// Where it is.
        cgroup: String,
    },
    /// It would bring sockets along that nothing judges.
    #[error(
        "process {pid} holds sockets made outside the guard: {sockets}; close them, or start the agent with \
         agentctl run"
    )]
    ForeignSockets {
        /// The process.
        pid: u32,
        /// The first of them, with their numbers and addresses.
        sockets: String,
    },
    /// A step on the cgroup file system.
    #[error("{step}: {source}")]
    Step {
        /// What was being done, with the path.
        step: String,
        #[source]
        source: std::io::Error,
    },
    /// systemd did not make the scope.
    #[error("systemd did not start {unit}: {detail}")]
    Systemd {
        /// The scope.
        unit: String,
        /// What busctl or the kernel said.
        detail: String,
    },
    /// The process is not where it was put.
    #[error("process {pid} is in {found}, not in {expected}")]
    NotInside {
        /// The process.
        pid: u32,
        /// Cgroup it was to be in.
        expected: String,
        /// Cgroup it is in.
        found: String,
    },
}

impl EnrolError {
    /// A failed step, for `map_err`.
    pub fn step(step: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let step = step.into();
        move |source| Self::Step { step, source }
    }
}
