//! What the daemon may do on the host: fewer capabilities than root has, and fewer still once the
//! programs are attached.
//!
//! Called while the process has one thread: capabilities are a thread's own, and threads begin with those
//! of the thread that starts them (capabilities(7)). The unit sets the same limits; this holds for a
//! daemon that is started otherwise.

use std::io;

use rustix::{
    io::Errno,
    process::{Resource, Rlimit, getrlimit, setrlimit},
    thread::{CapabilitySet, capabilities, remove_capability_from_bounding_set, set_capabilities},
};

/// What the daemon needs for as long as it runs.
pub const RUNNING: CapabilitySet = CapabilitySet::from_bits_retain(
    // Read and change maps where kernel.unprivileged_bpf_disabled is set.
    CapabilitySet::BPF.bits()
        // Destroy sockets that a process brings with it (SOCK_DESTROY of sock_diag(7)).
        | CapabilitySet::NET_ADMIN.bits()
        // Enter network namespaces of guarded processes (setns(2)), and open programs by id.
        | CapabilitySet::SYS_ADMIN.bits()
        // Read /proc/PID/exe, /proc/PID/ns and descriptors of other users' processes (pidfd_getfd(2)).
        | CapabilitySet::SYS_PTRACE.bits()
        // List /proc/PID/fd of other users' processes, which is closed to everybody else (0500): that is
        // where sockets are found that a process brings with it.
        | CapabilitySet::DAC_READ_SEARCH.bits()
        // Leave host lists with their owner when they are edited, and give the control socket to its group.
        | CapabilitySet::CHOWN.bits(),
);

/// What only loading and attaching needs.
pub const ATTACHING: CapabilitySet = CapabilitySet::from_bits_retain(
    // The verifier lets programs do with pointers what it refuses to others.
    CapabilitySet::PERFMON.bits()
        // Make the guarded cgroup in the root of the hierarchy, which is writable for nobody, where the
        // unit's ExecStartPre= has not made it. The unit does not give it.
        | CapabilitySet::DAC_OVERRIDE.bits(),
);

/// The limit (RLIMIT_NICE of getrlimit(2)) at which a thread that made itself idle, or nice, may have the
/// ordinary priority back, nice 0, and no higher one.
const ORDINARY: u64 = 20;

/// What the daemon keeps here: [`RUNNING`], and where that limit cannot be had, which takes CAP_SYS_RESOURCE,
/// CAP_SYS_NICE in its place.
#[must_use]
pub fn running() -> CapabilitySet {
    if is_ordinary(getrlimit(Resource::Nice).current) { RUNNING } else { RUNNING | CapabilitySet::SYS_NICE }
}

fn is_ordinary(limit: Option<u64>) -> bool {
    limit.is_none_or(|limit| limit >= ORDINARY)
}

/// Why privileges could not be given up.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub struct PrivilegeError {
    what: &'static str,
    #[source]
    source: io::Error,
}

fn step(what: &'static str) -> impl FnOnce(Errno) -> PrivilegeError {
    move |error| PrivilegeError { what, source: error.into() }
}

/// Leaves this thread with [`running`] and [`ATTACHING`], as far as it has them, and takes away what a
/// program that it starts could gain.
///
/// # Errors
/// Where the kernel refuses to take away.
pub fn limit() -> Result<(), PrivilegeError> {
    rustix::thread::set_no_new_privs(true).map_err(step("prctl(PR_SET_NO_NEW_PRIVS)"))?;
    come_back();
    let all = running() | ATTACHING;
    // First, since it needs CAP_SETPCAP, which goes with the rest. Without it the set cannot be changed:
    // then whoever started the daemon has seen to it, as the unit does.
    if capabilities(None).map_err(step("capget"))?.effective.contains(CapabilitySet::SETPCAP) {
        bound(all)?;
    }
    keep(all)
}

/// Has threads come back from an idle priority.
fn come_back() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nice);
    if !is_ordinary(current) {
        let maximum = if is_ordinary(maximum) { maximum } else { Some(ORDINARY) };
        if let Err(error) = setrlimit(Resource::Nice, Rlimit { current: Some(ORDINARY), maximum }) {
            tracing::debug!(%error, "the limit of priorities stays as it is");
        }
    }
}

/// Gives up, in this thread, what only [`ATTACHING`] needed.
///
/// # Errors
/// Where the kernel refuses.
pub fn attached() -> Result<(), PrivilegeError> {
    keep(running())
}

fn keep(wanted: CapabilitySet) -> Result<(), PrivilegeError> {
    let mut sets = capabilities(None).map_err(step("capget"))?;
    sets.permitted &= wanted;
    sets.effective = sets.permitted;
    sets.inheritable = CapabilitySet::empty();
    rustix::thread::clear_ambient_capability_set().map_err(step("prctl(PR_CAP_AMBIENT_CLEAR_ALL)"))?;
    set_capabilities(None, sets).map_err(step("capset"))
}

/// Takes everything but `wanted` from the bounding set.
fn bound(wanted: CapabilitySet) -> Result<(), PrivilegeError> {
    for bit in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        if wanted.contains(one) {
            continue;
        }
        match remove_capability_from_bounding_set(one) {
            Ok(()) => {}
            // Beyond the last that this kernel has.
            Err(Errno::INVAL) => return Ok(()),
            Err(error) => return Err(step("prctl(PR_CAPBSET_DROP)")(error)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The unit's capabilities, by name.
    fn unit() -> Vec<String> {
        let unit = include_str!("../../packaging/systemd/agentgated.service");
        unit.lines()
            .filter_map(|line| line.strip_prefix("CapabilityBoundingSet=CAP_"))
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn the_unit_gives_what_the_daemon_keeps() {
        let mut given = unit();
        let needed = (RUNNING | ATTACHING) - CapabilitySet::DAC_OVERRIDE;
        let mut kept: Vec<String> = needed.iter_names().map(|(name, _)| name.to_owned()).collect();
        given.sort();
        kept.sort();
        assert_eq!(given, kept);
    }

    #[test]
    fn what_is_not_there_is_not_asked_for() {
        // In a thread, since they are its own. Also without root: then there is nothing to keep.
        let kept = std::thread::spawn(|| {
            limit().unwrap();
            attached().unwrap();
            capabilities(None).unwrap()
        });
        let kept = kept.join().unwrap();
        assert_eq!(kept.permitted, kept.effective);
        assert_eq!(
            (kept.permitted - running(), kept.inheritable),
            (CapabilitySet::empty(), CapabilitySet::empty())
        );
    }
}
