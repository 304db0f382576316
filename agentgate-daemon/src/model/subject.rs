//! Who acted.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One run of one agent: the name of its scope or service cgroup below the guarded cgroup, `/` for
/// the guarded cgroup itself, with the cgroup's id so that a reused name is another session:
/// `run-u2.service@1234`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(pub String);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A parent process, nearest first in [`Subject::ancestors`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ancestor {
    pub pid: u32,
    /// Resolved path of its executable; empty when it was gone before it could be read.
    pub exe: String,
}

/// The process behind a flow, read from procfs at the time of the connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    pub session: SessionId,
    pub pid: u32,
    pub uid: u32,
    /// Start time in clock ticks since boot (`/proc/PID/stat` field 22); with `pid` it names one
    /// process. `None` when the process was gone before it could be read.
    pub start: Option<u64>,
    /// Thread name at connect(2).
    pub comm: String,
    /// Resolved path of the executable.
    pub exe: Option<String>,
    /// Arguments, cut to 4 KiB in all. May hold secrets: mask before showing.
    pub cmdline: Vec<String>,
    pub ancestors: Vec<Ancestor>,
    /// Path of the cgroup below the cgroup v2 mount, such as `/agent.slice/run-u2.service`.
    pub cgroup: String,
    /// What it could undo the guard with: `uid 0`, and capabilities that count outside a user namespace of
    /// its own, such as `CAP_NET_ADMIN`.
    #[serde(default)]
    pub privileges: Vec<String>,
}

impl Subject {
    /// One of whom no more than this is known.
    #[must_use]
    pub fn unknown(session: SessionId, pid: u32, uid: u32) -> Self {
        Self {
            session,
            pid,
            uid,
            start: None,
            comm: String::new(),
            exe: None,
            cmdline: Vec::new(),
            ancestors: Vec::new(),
            cgroup: String::new(),
            privileges: Vec::new(),
        }
    }
}
