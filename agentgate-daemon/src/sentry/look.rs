//! One look at everybody inside, compared with the looks before it.

use std::{
    collections::{HashMap, HashSet},
    fs,
    sync::Arc,
};

use super::inside::{Enrolled, Id, Inside, Process, process};
use crate::kernel::{ForeignSocket, GuardedCgroup, Kernel, Place, foreign_sockets};

/// Looks from one full look at everybody's descriptors to the next; newcomers get theirs at once.
const FULL: u64 = 3;
/// Sockets that are remembered of one process, so that each is told once.
const TOLD: usize = 256;

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) process: Process,
    pub(super) what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// It holds a socket that was made elsewhere.
    Foreign(ForeignSocket),
    /// It was alive before, and not inside.
    MovedIn,
    /// It is alive, and no longer inside.
    Left {
        /// Its cgroup's path.
        to: String,
    },
}

/// What is known of a process that has been seen inside.
#[derive(Debug)]
struct Seen {
    process: Process,
    /// Inodes of its foreign sockets that have been told.
    told: HashSet<u64>,
    left: bool,
}

/// The looks so far.
pub(super) struct Look {
    kernel: Arc<dyn Kernel>,
    guarded: GuardedCgroup,
    enrolled: Enrolled,
    seen: HashMap<Id, Seen>,
    number: u64,
    /// When the look before began, in clock ticks since boot, where it took in everybody.
    before: Option<u64>,
    ticks: u64,
}

impl Look {
    pub(super) fn new(kernel: Arc<dyn Kernel>, guarded: GuardedCgroup, enrolled: Enrolled) -> Self {
        let ticks = procfs::ticks_per_second().max(1);
        Self { kernel, guarded, enrolled, seen: HashMap::new(), number: 0, before: None, ticks }
    }

    /// Takes one.
    pub(super) fn take(&mut self) -> Vec<Finding> {
        let began = self.now();
        let inside = match Inside::list(self.guarded.directory()) {
            Ok(inside) => inside,
            Err(error) => {
                tracing::warn!(%error, "the guarded cgroup cannot be listed");
                self.before = None;
                return Vec::new();
            }
        };
        if !inside.whole {
            tracing::warn!(processes = inside.processes.len(), "not all guarded processes are looked at");
        }
        let mut findings = Vec::new();
        let here: HashSet<Id> = inside.processes.iter().map(Process::id).collect();
        let everybody = self.number.is_multiple_of(FULL);
        let mut known = HashSet::new();
        for process in inside.processes {
            let id = process.id();
            let newcomer = !self.seen.contains_key(&id);
            // Started in the same tick as the look before, it may have been too young for it.
            let older = self.before.is_some_and(|before| id.start < before);
            if newcomer && older && !self.enrolled.contains(id) {
                findings.push(Finding { process: process.clone(), what: What::MovedIn });
            }
            let seen = self.seen.entry(id).or_insert_with(|| Seen {
                process: process.clone(),
                told: HashSet::new(),
                left: false,
            });
            seen.process = process;
            if newcomer || everybody {
                findings.extend(foreign(&*self.kernel, seen, &mut known));
            }
        }
        findings.extend(self.gone(&here));
        self.before = inside.whole.then_some(began);
        self.number += 1;
        findings
    }

    /// Those who were inside and are not: dead and forgotten, or elsewhere.
    fn gone(&mut self, here: &HashSet<Id>) -> Vec<Finding> {
        // Who came in through the gate was inside, also where it left before anybody looked.
        for process in self.enrolled.insiders() {
            let id = process.id();
            if !here.contains(&id) && !self.seen.contains_key(&id) && left(&self.guarded, id).is_some() {
                self.seen.insert(id, Seen { process, told: HashSet::new(), left: false });
            }
        }
        let mut findings = Vec::new();
        let guarded = &self.guarded;
        self.seen.retain(|id, seen| {
            if here.contains(id) {
                return true;
            }
            if !seen.left
                && let Some(to) = left(guarded, *id)
            {
                seen.left = true;
                findings.push(Finding { process: seen.process.clone(), what: What::Left { to } });
            }
            is_alive(*id)
        });
        let known = &self.seen;
        // One that was just enrolled has not been seen yet.
        self.enrolled.keep(|id| known.contains_key(id) || is_alive(*id));
        findings
    }

    #[cfg(test)]
    pub(super) fn ticks_now(&self) -> u64 {
        self.now()
    }

    /// Clock ticks since boot, the unit of start times.
    fn now(&self) -> u64 {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let part = |n: i64| u64::try_from(n).unwrap_or(0);
        part(now.tv_sec) * self.ticks + part(now.tv_nsec) * self.ticks / 1_000_000_000
    }
}

/// Ends the foreign sockets of a process; those that have not been told yet are findings.
fn foreign(kernel: &dyn Kernel, seen: &mut Seen, known: &mut HashSet<u64>) -> Vec<Finding> {
    let pid = seen.process.pid;
    let found = match foreign_sockets(kernel, pid, true, known) {
        Ok(found) => found,
        Err(error) => {
            // Gone is the usual reason, and none to speak of.
            if process(pid, 0).is_some_and(|now| now.start == seen.process.start) {
                tracing::warn!(pid, %error, "a guarded process's descriptors cannot be looked at");
            }
            return Vec::new();
        }
    };
    if found.cut {
        tracing::warn!(pid, "not all descriptors of a guarded process are looked at");
    }
    let mut findings = Vec::new();
    for socket in found.foreign {
        if seen.told.len() >= TOLD {
            seen.told.clear();
        }
        if seen.told.insert(socket.inode) {
            findings.push(Finding { process: seen.process.clone(), what: What::Foreign(socket) });
        }
    }
    findings
}

fn is_alive(id: Id) -> bool {
    process(id.pid, 0).is_some_and(|now| now.start == id.start)
}

/// Where a process is that is alive and not under guard.
fn left(guarded: &GuardedCgroup, id: Id) -> Option<String> {
    // Read between two looks at the same process, or it is not that process's.
    let to = is_alive(id).then(|| cgroup_of(id.pid)).flatten()?;
    (guarded.place(&to) == Place::Outside && is_alive(id)).then_some(to)
}

fn cgroup_of(pid: u32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
}
