//! The lab: the real daemon and real eBPF on a throw-away cgroup, with a small internet behind a veth
//! pair, on the machine's own kernel.
//!
//! Three parts. [`outside`] stays in the machine's namespaces, owns the cgroup and the directory, and
//! cleans up whatever happens to the rest. [`inside`] is the same program started again: it leaves
//! for its own mount and network namespace and runs everything there. The internet is a thread of
//! `inside` in a third network namespace, so it cannot outlive it.
//!
//! Nothing here touches the machine's network, its mounts, or a cgroup that it did not make.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::clients::inside as clients;

pub(crate) mod agent;
pub(crate) mod case;
pub(crate) mod cgroup;
pub(crate) mod daemon;
pub(crate) mod fdstore;
pub(crate) mod hygiene;
pub(crate) mod inside;
pub(crate) mod internet;
pub(crate) mod kills;
pub(crate) mod leftovers;
pub(crate) mod log;
pub(crate) mod namespace;
pub(crate) mod network;
pub(crate) mod outside;
pub(crate) mod relay;
pub(crate) mod row;
pub(crate) mod scenario;

/// What everything of a lab is named after: the outer process, so that a later run can tell whether
/// its owner still lives. The start time tells a reused process id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LabId {
    pid: u32,
    /// Clock ticks since boot, field 22 of `/proc/PID/stat`.
    start: u64,
}

const PREFIX: &str = "agentgate-lab-";

impl LabId {
    /// The one of this process.
    pub(crate) fn own() -> anyhow::Result<Self> {
        let pid = std::process::id();
        let start = start_time(pid).context("/proc/self/stat")?;
        Ok(Self { pid, start })
    }

    /// Whether the process it is named after still runs.
    pub(crate) fn alive(self) -> bool {
        start_time(self.pid) == Some(self.start)
    }

    /// Its directory for files, below the system's directory for temporary ones.
    pub(crate) fn dir(self) -> PathBuf {
        std::env::temp_dir().join(self.to_string())
    }
}

impl fmt::Display for LabId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}-{}", self.pid, self.start)
    }
}

impl FromStr for LabId {
    type Err = anyhow::Error;
    fn from_str(name: &str) -> anyhow::Result<Self> {
        let numbers = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-'));
        let (pid, start) = numbers.with_context(|| format!("{name:?} is no lab's name"))?;
        Ok(Self { pid: pid.parse()?, start: start.parse()? })
    }
}

/// Start time of a process; `None` if there is none, or only its corpse.
fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, field 2, may hold anything, so count from its closing bracket.
    let (_, after) = stat.rsplit_once(')')?;
    let mut fields = after.split_whitespace();
    let state = fields.next()?;
    if state == "Z" || state == "X" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Restarts of the daemon under the hammer, where nothing else is asked for.
pub(crate) const RESTARTS: usize = 100;

/// What to do inside.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Job {
    /// The demo.
    Demo { once: bool, json: bool },
    /// Every scenario whose name contains the text.
    Suite { filter: Option<String>, restarts: usize },
    /// The daemon killed again and again.
    Kills(kills::Options),
    /// The lab itself, without the daemon.
    Bare,
    /// Real clients, with the gate and without.
    Clients(clients::Orders),
    /// Nothing, until it is ended.
    Hold { daemon: bool },
}

/// Where the daemon's programs are.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Programs {
    pub(crate) agentgated: PathBuf,
    pub(crate) agentctl: PathBuf,
}

impl Programs {
    /// Those that cargo put beside this program.
    pub(crate) fn beside_this() -> anyhow::Result<Self> {
        let own = std::env::current_exe().context("where this program is")?;
        let dir = own.parent().unwrap_or(Path::new("/"));
        Ok(Self { agentgated: dir.join("agentgated"), agentctl: dir.join("agentctl") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lab_is_known_by_its_name() {
        let own = LabId::own().unwrap();
        assert!(own.alive());
        let read: LabId = own.to_string().parse().unwrap();
        assert_eq!(read, own);
        assert!(!LabId { start: own.start + 1, ..own }.alive(), "a reused pid is another process");
        assert!(!LabId { pid: u32::MAX, start: 1 }.alive());
        assert!("agentgate-lab-7".parse::<LabId>().is_err());
        assert!("agentgate-lab-7-x".parse::<LabId>().is_err());
        assert!("something-7-8".parse::<LabId>().is_err());
    }
}
