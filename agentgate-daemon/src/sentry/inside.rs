//! Who is in the guarded cgroup, and who was put there through the gate.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use procfs::{FromRead as _, process::Stat};

/// Processes that one look takes in.
const PROCESSES: usize = 8192;
/// Cgroups that one look goes through: an agent with a delegated cgroup can make many.
const CGROUPS: usize = 4096;
/// Bytes of `stat` and `cgroup.procs` that are read.
const RECORD: u64 = 1024 * 1024;

/// One process, whatever becomes of its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Id {
    pub(super) pid: u32,
    /// Clock ticks since boot.
    pub(super) start: u64,
}

/// What is told of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) start: u64,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) comm: String,
    /// Inode number of its cgroup's directory.
    pub(super) cgroup: u64,
}

impl Process {
    pub(super) fn id(&self) -> Id {
        Id { pid: self.pid, start: self.start }
    }
}

/// Everybody at or below a cgroup, and whether that is all.
#[derive(Debug, Default)]
pub(super) struct Inside {
    pub(super) processes: Vec<Process>,
    pub(super) whole: bool,
}

impl Inside {
    /// Lists the cgroup at `directory` and all below it. What goes away meanwhile is left out.
    ///
    /// # Errors
    /// When the cgroup itself cannot be read.
    pub(super) fn list(directory: &Path) -> io::Result<Self> {
        let mut found = Self { processes: Vec::new(), whole: true };
        let mut waiting: Vec<PathBuf> = vec![directory.to_owned()];
        let mut left = CGROUPS;
        fs::metadata(directory)?;
        while let Some(path) = waiting.pop() {
            let Some(fewer) = left.checked_sub(1) else {
                found.whole = false;
                return Ok(found);
            };
            left = fewer;
            found.add(&path);
            if found.processes.len() >= PROCESSES {
                found.whole = false;
                return Ok(found);
            }
            let below = fs::read_dir(&path).into_iter().flatten().filter_map(Result::ok);
            waiting.extend(
                below
                    .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                    .map(|entry| entry.path()),
            );
        }
        Ok(found)
    }

    fn add(&mut self, cgroup: &Path) {
        // A threaded cgroup gives no list: its processes are in that of the cgroup above.
        let Some(text) = read(&cgroup.join("cgroup.procs")) else { return };
        let Ok(id) = fs::metadata(cgroup).map(|metadata| metadata.ino()) else { return };
        let text = String::from_utf8_lossy(&text);
        let pids = text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid != 0);
        let room = PROCESSES.saturating_sub(self.processes.len());
        self.processes.extend(pids.filter_map(|pid| process(pid, id)).take(room));
    }
}

/// A live process by its number.
pub(super) fn process(pid: u32, cgroup: u64) -> Option<Process> {
    let proc = PathBuf::from(format!("/proc/{pid}"));
    let stat = Stat::from_read(read(&proc.join("stat"))?.as_slice()).ok()?;
    // Zombie and dead: what is left of such a process is its number. One whose first thread has ended is a
    // zombie too, while its others go on.
    if matches!(stat.state, 'X' | 'x') || stat.state == 'Z' && stat.num_threads <= 1 {
        return None;
    }
    let owner = fs::metadata(&proc).ok()?;
    Some(Process { pid, start: stat.starttime, uid: owner.uid(), gid: owner.gid(), comm: stat.comm, cgroup })
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(RECORD).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Processes that came in through the gate, so that nobody takes them for moved in by others, and that they
/// are known though they leave before anybody has looked.
#[derive(Clone, Debug, Default)]
pub struct Enrolled(Arc<Mutex<HashMap<Id, Entry>>>);

/// One of them, as it was.
#[derive(Clone, Debug)]
struct Entry {
    process: Process,
    /// It has been in the guarded cgroup; before that it is elsewhere by right.
    inside: bool,
}

impl Enrolled {
    /// The process with this number, which is held until this returns, is about to come in.
    pub(super) fn add(&self, pid: u32) {
        if let Some(process) = process(pid, 0) {
            self.with(|all| all.insert(process.id(), Entry { process, inside: false }));
        }
    }

    /// It is in the cgroup with this number. Nothing where it has ended meanwhile.
    pub(super) fn is_in(&self, pid: u32, cgroup: u64) {
        if let Some(id) = process(pid, 0).map(|process| process.id()) {
            self.with(|all| {
                if let Some(entry) = all.get_mut(&id) {
                    entry.inside = true;
                    entry.process.cgroup = cgroup;
                }
            });
        }
    }

    pub(super) fn contains(&self, id: Id) -> bool {
        self.with(|all| all.contains_key(&id))
    }

    /// Those that have been inside.
    pub(super) fn insiders(&self) -> Vec<Process> {
        let inside = |entry: &&Entry| entry.inside;
        self.with(|all| all.values().filter(inside).map(|entry| entry.process.clone()).collect())
    }

    /// Forgets those that `alive` does not have.
    pub(super) fn keep(&self, alive: impl Fn(&Id) -> bool) {
        self.with(|all| all.retain(|id, _| alive(id)));
    }

    fn with<T>(&self, work: impl FnOnce(&mut HashMap<Id, Entry>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
