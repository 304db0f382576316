//! What a selftest makes on the machine itself: a pair of cgroups and a directory; and their removal,
//! also of those whose owner died.

use std::{
    fmt, fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    str::FromStr,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{SelftestError, step};
use crate::kernel::cgroup2_mount;

const PREFIX: &str = "agentgate-selftest-";
/// How long killed processes may take to go.
const PATIENCE: Timespec = Timespec { tv_sec: 20, tv_nsec: 0 };

/// What everything is named after: a process and its start, so that a later run can tell whether the
/// owner still lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owner {
    pid: u32,
    /// Clock ticks since boot, field 22 of `/proc/PID/stat`.
    start: u64,
}

impl Owner {
    fn this() -> Result<Self, SelftestError> {
        let pid = std::process::id();
        let gone = || step("/proc/self/stat")(io::Error::from(ErrorKind::NotFound));
        Ok(Self { pid, start: start_time(pid).ok_or_else(gone)? })
    }

    fn alive(self) -> bool {
        start_time(self.pid) == Some(self.start)
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}-{}", self.pid, self.start)
    }
}

impl FromStr for Owner {
    type Err = ();
    fn from_str(name: &str) -> Result<Self, ()> {
        let (pid, start) = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-')).ok_or(())?;
        Ok(Self { pid: pid.parse().map_err(drop)?, start: start.parse().map_err(drop)? })
    }
}

/// Start time of a process; `None` if there is none, or only its corpse.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, field 2, may hold anything, so count from its closing bracket.
    let (_, after) = stat.rsplit_once(')')?;
    let mut fields = after.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// The place of one selftest. Dropping it kills what is in the cgroups and removes all.
#[derive(Debug)]
pub(super) struct Place {
    /// The cgroup above both others.
    pub(super) cgroup: PathBuf,
    /// An empty directory to mount over.
    pub(super) directory: PathBuf,
}

impl Place {
    /// Makes it, after removing what dead ones left.
    pub(super) fn make() -> Result<Self, SelftestError> {
        let mount = cgroup2_mount().map_err(|error| step("find cgroup v2")(io::Error::other(error)))?;
        sweep(&mount)?;
        let name = Owner::this()?.to_string();
        let made = Self { cgroup: mount.join(&name), directory: std::env::temp_dir().join(&name) };
        fs::create_dir(&made.directory).map_err(step(made.directory.display().to_string()))?;
        for directory in [made.cgroup.clone(), outside(&made.cgroup), agents(&made.cgroup)] {
            fs::create_dir(&directory).map_err(step(directory.display().to_string()))?;
        }
        Ok(made)
    }

    /// Removes it and says what went wrong.
    pub(super) fn remove(self) -> Result<(), SelftestError> {
        self.clear()
    }

    fn clear(&self) -> Result<(), SelftestError> {
        destroy(&self.cgroup).map_err(step(format!("remove {}", self.cgroup.display())))?;
        match fs::remove_dir(&self.directory) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(step(format!("remove {}", self.directory.display()))(error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = self.clear() {
            tracing::warn!(%error, "the selftest left something behind; its next run removes it");
        }
    }
}

/// The cgroup of the selftest's own processes.
pub(super) fn outside(cgroup: &Path) -> PathBuf {
    cgroup.join("outside")
}

/// The cgroup that the daemon guards.
pub(super) fn agents(cgroup: &Path) -> PathBuf {
    cgroup.join("agents")
}

/// Removes what selftests left whose owner is dead.
fn sweep(mount: &Path) -> Result<(), SelftestError> {
    for cgroup in abandoned(mount).map_err(step(mount.display().to_string()))? {
        destroy(&cgroup).map_err(step(format!("remove {}", cgroup.display())))?;
    }
    let temporary = std::env::temp_dir();
    for directory in abandoned(&temporary).map_err(step(temporary.display().to_string()))? {
        // Empty: its contents were in the mount namespace of the process that died.
        fs::remove_dir(&directory).map_err(step(format!("remove {}", directory.display())))?;
    }
    Ok(())
}

fn abandoned(within: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(within)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.parse::<Owner>().is_ok_and(|owner| !owner.alive()) {
            found.push(path);
        }
    }
    Ok(found)
}

/// Kills everything in a cgroup and below, and removes both.
fn destroy(cgroup: &Path) -> io::Result<()> {
    match fs::write(cgroup.join("cgroup.kill"), "1") {
        Err(error) if error.kind() == ErrorKind::NotFound && !cgroup.exists() => return Ok(()),
        other => other?,
    }
    wait_until_empty(cgroup)?;
    remove(cgroup)
}

/// Waits for `populated 0` in `cgroup.events`, whose changes the kernel tells through poll(2).
fn wait_until_empty(cgroup: &Path) -> io::Result<()> {
    loop {
        // Opened each time: the kernel tells of changes since the last read of this very file.
        let file = fs::File::open(cgroup.join("cgroup.events"))?;
        if io::read_to_string(&file)?.lines().any(|line| line == "populated 0") {
            return Ok(());
        }
        let mut entries = [PollFd::new(&file, PollFlags::PRI | PollFlags::ERR)];
        if poll(&mut entries, Some(&PATIENCE))? == 0 {
            return Err(io::Error::other("killed processes do not end"));
        }
    }
}

/// Removes a tree of empty cgroups, leaves first.
fn remove(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_known_by_its_name() {
        let this = Owner::this().unwrap();
        assert!(this.alive());
        assert_eq!(this.to_string().parse(), Ok(this));
        assert!(!Owner { start: this.start + 1, ..this }.alive(), "a reused pid is another process");
        for name in ["agentgate-selftest-7", "agentgate-selftest-x-1", "agentgate-lab-1-1", ""] {
            assert_eq!(name.parse::<Owner>(), Err(()), "{name}");
        }
    }

    #[test]
    fn only_the_abandoned_are_found() {
        let directory = tempfile::tempdir().unwrap();
        let this = Owner::this().unwrap();
        let dead = Owner { start: this.start + 1, ..this };
        for name in [this.to_string(), dead.to_string(), "agents".to_owned()] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        assert_eq!(abandoned(directory.path()).unwrap(), [directory.path().join(dead.to_string())]);
    }
}
