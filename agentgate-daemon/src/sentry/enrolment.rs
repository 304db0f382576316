//! Enrolment with a look first: who holds a socket from elsewhere does not come under guard with it.

use std::{collections::HashSet, fs, os::unix::fs::MetadataExt as _, sync::Arc};

use super::inside::Enrolled;
use crate::{
    control::{
        enrol::{EnrolError, Enroller},
        peer::Process,
    },
    kernel::{ForeignSocket, Kernel, cgroup2_mount, foreign_sockets},
};

/// Refuses processes with foreign sockets, remembers those it let in.
pub struct CarefulEnroller {
    kernel: Arc<dyn Kernel>,
    inner: Arc<dyn Enroller>,
    enrolled: Enrolled,
}

impl std::fmt::Debug for CarefulEnroller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CarefulEnroller").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl CarefulEnroller {
    /// Before `inner`; `enrolled` is what the sentry looks at.
    #[must_use]
    pub fn new(kernel: Arc<dyn Kernel>, inner: Arc<dyn Enroller>, enrolled: Enrolled) -> Self {
        Self { kernel, inner, enrolled }
    }
}

impl Enroller for CarefulEnroller {
    fn enrol(&self, process: &Process) -> Result<String, EnrolError> {
        let pid = process.pid();
        let gone = || EnrolError::ProcessGone { pid };
        // The number is that process's before and after the look.
        let is_alive = || process.is_alive().unwrap_or(false);
        if !is_alive() {
            return Err(gone());
        }
        let looked = foreign_sockets(&*self.kernel, pid, false, &mut HashSet::new());
        if !is_alive() {
            return Err(gone());
        }
        let found = looked.map_err(EnrolError::step(format!("look at the descriptors of process {pid}")))?;
        if found.cut {
            return Err(EnrolError::step(format!("look at the descriptors of process {pid}"))(
                std::io::Error::other(
                    "there are too many, or a thread has its own and Linux is older than 6.9",
                ),
            ));
        }
        if !found.foreign.is_empty() {
            return Err(EnrolError::ForeignSockets { pid, sockets: told(&found.foreign) });
        }
        // Before it is in: the sentry may look at once.
        self.enrolled.add(pid);
        let path = self.inner.enrol(process)?;
        self.enrolled.is_in(pid, number_of(&path));
        Ok(path)
    }
}

/// Number of the cgroup at this path below the mount; 0 where it has gone.
fn number_of(path: &str) -> u64 {
    let Ok(mount) = cgroup2_mount() else { return 0 };
    fs::metadata(mount.join(path.trim_start_matches('/'))).map_or(0, |metadata| metadata.ino())
}

/// The first few, with their numbers.
fn told(sockets: &[ForeignSocket]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<String> = sockets
        .iter()
        .take(SHOWN)
        .map(|socket| format!("descriptor {}: {}", socket.descriptor, socket.what))
        .collect();
    let more = match sockets.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    format!("{}{more}", shown.join("; "))
}
