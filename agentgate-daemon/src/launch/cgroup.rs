//! Fresh children of the guarded cgroup, made by the daemon itself.
//!
//! Children are named `run-<pid>-<n>.scope`, as systemd would name them. Those that have run empty are
//! removed when the daemon starts, before the next enrolment and on [`OwnCgroups::sweep`]: an empty
//! cgroup costs nothing, so nobody watches it.

use std::{
    fs, io,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use super::systemd::{self, SystemdScopes};
use crate::{
    control::{
        enrol::{EnrolError, Enroller},
        peer::{PeerError, Process, is_inside},
    },
    kernel::GuardedCgroup,
};

/// Names that are tried before giving up, when earlier daemons left cgroups of the same name behind.
const NAMES: u64 = 1024;

/// The enroller for this host: systemd's scopes where systemd runs and the guarded cgroup is a slice,
/// else cgroups of our own.
#[must_use]
pub fn enroller(guarded: GuardedCgroup) -> Arc<dyn Enroller> {
    match systemd::slice_name(&guarded.below_mount()) {
        Some(slice) if systemd::is_running() => {
            let slice = slice.to_owned();
            Arc::new(SystemdScopes::new(guarded, slice))
        }
        Some(_) | None => {
            let own = OwnCgroups::new(guarded);
            match own.sweep() {
                Ok(0) => {}
                Ok(removed) => tracing::info!(removed, "removed empty cgroups of earlier runs"),
                // Enrolment will say so again, to somebody who waits for it.
                Err(error) => tracing::warn!(%error, "empty cgroups of earlier runs cannot be looked for"),
            }
            Arc::new(own)
        }
    }
}

/// Makes cgroups below the guarded one without asking anybody.
#[derive(Debug)]
pub struct OwnCgroups {
    guarded: GuardedCgroup,
    number: AtomicU64,
    /// Held from making a cgroup until its process is in, so that a sweep never takes it for an old one.
    making: Mutex<()>,
}

impl OwnCgroups {
    /// Children of `guarded`.
    #[must_use]
    pub fn new(guarded: GuardedCgroup) -> Self {
        Self { guarded, number: AtomicU64::new(0), making: Mutex::new(()) }
    }

    /// Removes children that have run empty, and returns how many.
    ///
    /// # Errors
    /// When the guarded cgroup cannot be listed.
    pub fn sweep(&self) -> io::Result<usize> {
        let _held = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        sweep(self.guarded.directory())
    }

    fn make(&self, pid: u32) -> Result<String, EnrolError> {
        for _ in 0..NAMES {
            let name = scope_name(pid, self.number.fetch_add(1, Ordering::Relaxed));
            let directory = self.guarded.directory().join(&name);
            match fs::create_dir(&directory) {
                Ok(()) => return Ok(name),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(EnrolError::step(format!("mkdir {}", directory.display()))(e)),
            }
        }
        let taken = io::Error::from(io::ErrorKind::AlreadyExists);
        Err(EnrolError::step(format!("a free name in {}", self.guarded.directory().display()))(taken))
    }
}

impl Enroller for OwnCgroups {
    fn enrol(&self, process: &Process) -> Result<String, EnrolError> {
        let _held = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let guarded = self.guarded.directory();
        sweep(guarded).map_err(EnrolError::step(format!("list {}", guarded.display())))?;
        let name = self.make(process.pid())?;
        let directory = guarded.join(&name);
        let cgroup = self.guarded.child(&name);
        let moved = move_into(process, &directory)
            .and_then(|()| confirm(process, &cgroup))
            .map_err(|error| stranger(process, &directory, &cgroup).unwrap_or(error));
        if moved.is_err() {
            // Fails while something is in it, and is then left to the next sweep.
            let _in_use = fs::remove_dir(&directory);
        }
        moved
    }
}

/// Name of the `number`th scope, made for process `pid`.
pub(super) fn scope_name(pid: u32, number: u64) -> String {
    format!("run-{pid}-{number}.scope")
}

/// Whether a cgroup's name is one of ours.
fn is_scope_name(name: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    name.strip_prefix("run-")
        .and_then(|rest| rest.strip_suffix(".scope"))
        .and_then(|rest| rest.split_once('-'))
        .is_some_and(|(pid, number)| digits(pid) && digits(number))
}

fn sweep(directory: &Path) -> io::Result<usize> {
    let mut removed = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        // rmdir(2) on a cgroup fails with EBUSY while it has processes or children: no check before it
        // could be more exact.
        if entry.file_name().to_str().is_some_and(is_scope_name) && fs::remove_dir(entry.path()).is_ok() {
            removed += 1;
        }
    }
    Ok(removed)
}

/// Writes the process into `directory`'s `cgroup.procs`, which moves all its threads. The kernel takes a
/// pid there, so the pidfd is asked before the write and, by [`confirm`], after it: a process that was
/// alive after the write kept its pid all along.
fn move_into(process: &Process, directory: &Path) -> Result<(), EnrolError> {
    let procs = directory.join("cgroup.procs");
    if !process.is_alive().map_err(of_peer(process))? {
        return Err(EnrolError::ProcessGone { pid: process.pid() });
    }
    match fs::write(&procs, process.pid().to_string()) {
        Ok(()) => Ok(()),
        Err(e) if e.raw_os_error() == Some(libc::ESRCH) => {
            Err(EnrolError::ProcessGone { pid: process.pid() })
        }
        Err(e) => Err(EnrolError::step(format!("write {}", procs.display()))(e)),
    }
}

/// Checks that the live process is in `expected`, and returns that.
pub(super) fn confirm(process: &Process, expected: &str) -> Result<String, EnrolError> {
    let found = process.cgroup().map_err(of_peer(process))?;
    if is_inside(&found, Path::new(expected)) {
        Ok(expected.to_owned())
    } else {
        Err(EnrolError::NotInside { pid: process.pid(), expected: expected.to_owned(), found })
    }
}

/// Whether another process was moved into `directory` in the stead of one that is gone. `cgroup.procs`
/// lists no zombies, so whoever has the number there is somebody else.
pub(super) fn stranger(process: &Process, directory: &Path, cgroup: &str) -> Option<EnrolError> {
    if process.is_alive().unwrap_or(true) {
        return None;
    }
    let pid = process.pid();
    let procs = fs::read_to_string(directory.join("cgroup.procs")).ok()?;
    if !procs.lines().any(|line| line.parse() == Ok(pid)) {
        return None;
    }
    let who = Process::open(pid).map_or_else(
        |error| error.to_string(),
        |other| {
            format!("{:?}, {}", other.comm(), other.exe().unwrap_or_else(|| "executable unknown".to_owned()))
        },
    );
    Some(EnrolError::Stranger { pid, who, cgroup: cgroup.to_owned() })
}

pub(super) fn of_peer(process: &Process) -> impl FnOnce(PeerError) -> EnrolError {
    let pid = process.pid();
    move |error| match error {
        PeerError::Gone { .. } => EnrolError::ProcessGone { pid },
        PeerError::Io { what, source } => EnrolError::Step { step: what, source },
        error @ (PeerError::NoPid | PeerError::NoCgroup { .. }) => {
            EnrolError::Step { step: format!("cgroup of process {pid}"), source: io::Error::other(error) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that plays the guarded cgroup.
    fn stand_in(directory: &Path) -> GuardedCgroup {
        GuardedCgroup::on_mount("/", directory.parent().unwrap(), directory).unwrap()
    }

    #[test]
    fn only_our_own_names_are_swept() {
        let rows = [
            ("run-1-0.scope", true),
            ("run-4711-12.scope", true),
            ("run-u2.service", false),
            ("run-.scope", false),
            ("run-1-.scope", false),
            ("run--1.scope", false),
            ("run-1-2-3.scope", false),
            ("run-1-0.scope.d", false),
            ("claude.service", false),
        ];
        for (name, expect) in rows {
            assert_eq!(is_scope_name(name), expect, "{name}");
        }
        assert!(is_scope_name(&scope_name(u32::MAX, u64::MAX)));
    }

    #[test]
    fn sweeping_takes_empty_scopes_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["run-1-0.scope", "run-2-0.scope", "other"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        // A directory that cannot be removed stands in for a cgroup in use.
        fs::write(dir.path().join("run-2-0.scope/busy"), "").unwrap();
        let cgroups = OwnCgroups::new(stand_in(dir.path()));
        assert_eq!(cgroups.sweep().unwrap(), 1);
        let mut left: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["other", "run-2-0.scope"]);
    }

    #[test]
    fn a_process_that_did_not_arrive_is_an_error() {
        // An ordinary directory takes the write and moves nobody.
        let dir = tempfile::tempdir().unwrap();
        let cgroups = OwnCgroups::new(stand_in(dir.path()));
        let me = Process::open(std::process::id()).unwrap();
        let error = cgroups.enrol(&me).unwrap_err();
        assert!(matches!(error, EnrolError::NotInside { .. }), "{error}");
    }

    #[test]
    fn whoever_was_moved_by_a_recycled_number_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let process = Process::open(child.id()).unwrap();
        child.wait().unwrap();
        let seen = |procs: &str| {
            fs::write(dir.path().join("cgroup.procs"), procs).unwrap();
            stranger(&process, dir.path(), "/agent.slice/x")
        };
        let pid = process.pid();
        let expect = format!("process {pid} ended and its number went to another (");
        let found = seen(&format!("1\n{pid}\n")).unwrap().to_string();
        assert!(found.starts_with(&expect) && found.contains("/agent.slice/x"), "{found}");
        // Its children, which came in with it.
        assert!(seen("1\n").is_none() && seen("").is_none());
        // Alive, it is no stranger to itself.
        let me = Process::open(std::process::id()).unwrap();
        fs::write(dir.path().join("cgroup.procs"), me.pid().to_string()).unwrap();
        assert!(stranger(&me, dir.path(), "/agent.slice/x").is_none());
    }

    #[test]
    fn a_missing_guarded_cgroup_is_an_error() {
        let cgroups = OwnCgroups::new(stand_in(Path::new("/nonexistent/agent.slice")));
        let me = Process::open(std::process::id()).unwrap();
        assert!(matches!(cgroups.enrol(&me), Err(EnrolError::Step { .. })));
    }
}
