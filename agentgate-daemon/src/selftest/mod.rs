//! `agentctl selftest`: every known way round the gate, tried on this very kernel with the programs as
//! they are installed.
//!
//! Three parts. `outer` stays in the machine's namespaces, makes a throw-away pair of cgroups and cleans
//! up whatever happens. `inner` is the same program started again in a mount and network namespace of its
//! own: it builds a small world behind a veth pair, starts a real `agentgated` for the throw-away cgroup
//! and starts each attempt. The world (`world`, `capture`) is a second network namespace that sees every
//! packet which leaves.
//!
//! Each attempt (`suite`, `attempts`) runs twice: outside the guarded cgroup, where it must arrive, and
//! inside, where it must not. So a detector that sees nothing, or an attempt that does nothing, shows as
//! *not testable* and never as *blocked*. What is judged is what arrived, not what a call returned.
//!
//! The live gate of the machine is not touched and not tested: that is for `agentctl doctor`.

mod accomplice;
mod attempts;
mod capture;
mod daemon;
mod evidence;
mod inner;
mod judge;
mod orders;
mod outer;
mod place;
mod report;
mod sinks;
mod suite;
mod sys;
mod tried;
mod world;
mod zone;

pub use inner::run as run_inside;
pub use outer::{Options, run};
pub use report::{Event, Family, Identity, Listed, Row, Summary, Verdict};
pub use suite::list;
pub use tried::run as run_attempt;

/// Why the suite could not be run, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum SelftestError {
    /// It makes cgroups and namespaces.
    #[error("the selftest makes cgroups, namespaces and eBPF programs: run it as root")]
    NotRoot,
    /// No attempt has such a name.
    #[error("no attempt has {0:?} in its name; `agentctl selftest --list` shows them")]
    NoSuchAttempt(String),
    /// One step of building the place failed.
    #[error("{step}: {source}")]
    Step {
        /// What was being done.
        step: String,
        #[source]
        source: std::io::Error,
    },
    /// The daemon under test did not start; the end of its log follows.
    #[error("agentgated does not start: {0}")]
    Daemon(String),
    /// The inner process ended without a word.
    #[error("the selftest was cut short: {0}")]
    CutShort(String),
    /// What the inner process said when it gave up.
    #[error("{0}")]
    Inner(String),
    /// Nothing can be believed: a detector is blind or the gate lets nothing through at all.
    #[error("the selftest cannot be trusted here: {0}")]
    Blind(String),
}

/// Names the step that an error belongs to.
fn step(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> SelftestError {
    let step = what.into();
    move |source| SelftestError::Step { step, source }
}
