//! Who acted: the process behind a flow, from procfs and its cgroup.
//!
//! Read at the time of the connection, while the process is most likely still there. What cannot be
//! read stays unknown and is never guessed; the kernel's own facts (pid, uid, cgroup id) always hold.
//! Nothing here decides anything: judging a subject is policy's.

mod recent;

use std::{
    fs::{self, File},
    io::Read,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::PathBuf,
    sync::Arc,
};

use procfs::{FromRead, process::Stat};

use self::recent::{Image, Recent};

use crate::{
    kernel::GuardedCgroup,
    model::{Ancestor, Flag, Flow, SessionId, Severity, Subject},
};

/// Bytes of arguments that are kept, in all.
const CMDLINE: u64 = 4096;
/// Parents that are named at most; a chain can be as long as an agent likes.
const ANCESTORS: usize = 32;
/// Bytes of `stat` and `cgroup` that are read: the kernel writes far less.
const RECORD: u64 = 16 * 1024;
/// Directories that are looked at for a cgroup id: an agent with a delegated cgroup can make many.
const DIRECTORIES: usize = 4096;
/// Deepest cgroup below the guarded one that is looked for by id.
const DEPTH: usize = 16;

/// Capabilities with which a process could undo the guard, by number (include/uapi/linux/capability.h):
/// it could detach programs, enter other namespaces, or act through processes outside.
const UNDOING: [(u32, &str); 4] =
    [(12, "CAP_NET_ADMIN"), (19, "CAP_SYS_PTRACE"), (21, "CAP_SYS_ADMIN"), (39, "CAP_BPF")];

/// The flag of a subject that could undo the guard.
#[must_use]
pub fn privileged(subject: &Subject) -> Option<Flag> {
    let has = subject.privileges.join(", ");
    (!has.is_empty()).then(|| Flag::new("privileged_agent", Severity::Medium, has))
}

/// Names subjects below one guarded cgroup.
#[derive(Clone, Debug)]
pub struct Sessions {
    proc: PathBuf,
    guarded: GuardedCgroup,
    /// Clock ticks a second, the unit of start times.
    ticks: u64,
    recent: Arc<Recent>,
}

/// What one process says of itself.
#[derive(Debug)]
struct Process {
    parent: u32,
    start: u64,
    image: Option<Image>,
}

impl Sessions {
    /// Sessions below `guarded`.
    #[must_use]
    pub fn new(guarded: GuardedCgroup) -> Self {
        let (proc, ticks) = (PathBuf::from("/proc"), procfs::ticks_per_second().max(1));
        Self { proc, guarded, ticks, recent: Arc::default() }
    }

    /// The subject of a flow. Reads a handful of small files of procfs and cgroupfs, never blocks
    /// on a peer, never fails: what is gone is `None` or empty.
    #[must_use]
    pub fn subject(&self, flow: &Flow) -> Subject {
        let before = self.process(flow.pid).filter(|process| self.lived(process, flow.connected_ns));
        let exe = before.is_some().then(|| self.exe(flow.pid)).flatten();
        let cmdline = if before.is_some() { self.cmdline(flow.pid) } else { Vec::new() };
        let ancestors = before.as_ref().map(|process| self.ancestors(process, flow.pid)).unwrap_or_default();
        let cgroup = before.is_some().then(|| self.cgroup_of(flow.pid)).flatten();
        let capabilities = if before.is_some() { self.capabilities(flow.pid) } else { Vec::new() };
        // Read between two looks at the same process, or it is not that process's.
        let process =
            before.filter(|before| self.process(flow.pid).is_some_and(|after| after.start == before.start));
        let held = process.is_some();
        // The kernel's word on the user holds, whatever procfs has.
        let root = (flow.uid == 0).then_some("uid 0");
        let capabilities = capabilities.into_iter().filter(|_| held);
        // The flow's id is where the process was at connect(2); it may have moved since.
        let cgroup = cgroup
            .filter(|path| held && self.inode(path) == Some(flow.cgroup))
            .or_else(|| self.cgroup_by_id(flow.cgroup))
            .unwrap_or_default();
        Subject {
            session: self.session(&cgroup, flow),
            pid: flow.pid,
            uid: flow.uid,
            start: process.map(|process| process.start),
            comm: flow.comm.clone(),
            exe: exe.filter(|_| held),
            cmdline: if held { cmdline } else { Vec::new() },
            ancestors: if held { ancestors } else { Vec::new() },
            cgroup,
            privileges: root.into_iter().chain(capabilities).map(str::to_owned).collect(),
        }
    }

    /// The session of a cgroup: its first component below the guarded one, with the id that the kernel
    /// gives the session, so that one session has one name also when cgroups of its have gone.
    fn session(&self, cgroup: &str, flow: &Flow) -> SessionId {
        let name = match cgroup.strip_prefix(self.guarded.path()) {
            Some("") => return SessionId("/".to_owned()),
            Some(inner) => inner.strip_prefix('/').and_then(|inner| inner.split('/').next()),
            None => None,
        };
        let known = (flow.session != 0).then_some(flow.session);
        // The cgroup is gone, or outside the guarded one: a process that moved, or whose cgroup another
        // one replaced. Then the session's own may still be there.
        let named = name.map(|name| (name.to_owned(), self.inode(&self.guarded.child(name))));
        let named = named.filter(|(_, inode)| known.is_none() || *inode == known);
        match (named, known) {
            (Some((name, inode)), _) => SessionId(format!("{name}@{}", inode.unwrap_or(flow.cgroup))),
            (None, Some(id)) => {
                let name = self.child_by_id(id).or(name.map(str::to_owned));
                SessionId(format!("{}@{id}", name.as_deref().unwrap_or("?")))
            }
            (None, None) => SessionId(format!("?@{}", flow.cgroup)),
        }
    }

    /// Name of the cgroup directly below the guarded one that has this id.
    fn child_by_id(&self, id: u64) -> Option<String> {
        let mut left = DIRECTORIES;
        let path = self.search(self.guarded.path(), id, 0, &mut left)?;
        path.rsplit('/').next().map(str::to_owned)
    }

    /// A process younger than the connection is another one that got its number.
    fn lived(&self, process: &Process, connected_ns: u64) -> bool {
        let start_ns = u128::from(process.start) * 1_000_000_000 / u128::from(self.ticks);
        start_ns <= u128::from(connected_ns)
    }

    fn process(&self, pid: u32) -> Option<Process> {
        let bytes = self.read(pid, "stat", RECORD)?;
        let stat = Stat::from_read(bytes.as_slice()).ok()?;
        let (parent, image) = (u32::try_from(stat.ppid).ok()?, Image::of(&stat));
        Some(Process { parent, start: stat.starttime, image })
    }

    fn exe(&self, pid: u32) -> Option<String> {
        let path = fs::read_link(self.file(pid, "exe")).ok()?;
        Some(path.to_string_lossy().into_owned())
    }

    fn cmdline(&self, pid: u32) -> Vec<String> {
        let bytes = self.read(pid, "cmdline", CMDLINE).unwrap_or_default();
        let bytes = bytes.strip_suffix(b"\0").unwrap_or(&bytes);
        if bytes.is_empty() {
            return Vec::new();
        }
        bytes.split(|byte| *byte == 0).map(|part| String::from_utf8_lossy(part).into_owned()).collect()
    }

    /// Which of [`UNDOING`] a process has in effect. None where it has them in a user namespace other than
    /// the daemon's: there they count for what belongs to that namespace alone.
    fn capabilities(&self, pid: u32) -> Vec<&'static str> {
        let namespace = |process: &str| fs::read_link(self.proc.join(process).join("ns/user")).ok();
        let own = namespace("self");
        if own.is_none() || namespace(&pid.to_string()) != own {
            return Vec::new();
        }
        let bytes = self.read(pid, "status", RECORD).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let effective = text.lines().find_map(|line| line.strip_prefix("CapEff:"));
        let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
        UNDOING.iter().filter(|(number, _)| effective & (1 << number) != 0).map(|(_, name)| *name).collect()
    }

    /// Parents, nearest first, up to the first process. A parent is never younger than its child:
    /// such a number belongs to another process by then.
    fn ancestors(&self, process: &Process, pid: u32) -> Vec<Ancestor> {
        let mut found: Vec<Ancestor> = Vec::new();
        let mut parent = process.parent;
        let mut younger = process.start;
        while parent != 0 && parent != pid && found.len() < ANCESTORS {
            let Some(next) = self.process(parent).filter(|next| next.start <= younger) else {
                break;
            };
            found.push(Ancestor { pid: parent, exe: self.exe(parent).unwrap_or_default() });
            (parent, younger) = (next.parent, next.start);
        }
        found
    }

    fn cgroup_of(&self, pid: u32) -> Option<String> {
        let bytes = self.read(pid, "cgroup", RECORD)?;
        let text = String::from_utf8_lossy(&bytes);
        text.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
    }

    /// Inode number of a cgroup given by its path.
    fn inode(&self, cgroup: &str) -> Option<u64> {
        let directory = self.guarded.directory_of(cgroup)?;
        fs::symlink_metadata(directory).ok().map(|metadata| metadata.ino())
    }

    /// The cgroup with this id at or below the guarded one.
    fn cgroup_by_id(&self, id: u64) -> Option<String> {
        let guarded = self.guarded.path();
        if self.inode(guarded) == Some(id) {
            return Some(guarded.to_owned());
        }
        let mut left = DIRECTORIES;
        self.search(guarded, id, DEPTH, &mut left)
    }

    fn search(&self, path: &str, id: u64, depth: usize, left: &mut usize) -> Option<String> {
        let entries = fs::read_dir(self.guarded.directory_of(path)?).ok()?;
        let mut below = Vec::new();
        for entry in entries.filter_map(Result::ok) {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            *left = left.checked_sub(1)?;
            let name = String::from_utf8_lossy(entry.file_name().as_bytes()).into_owned();
            let child = format!("{path}/{name}");
            if entry.metadata().is_ok_and(|metadata| metadata.ino() == id) {
                return Some(child);
            }
            below.push(child);
        }
        let depth = depth.checked_sub(1)?;
        below.into_iter().find_map(|child| self.search(&child, id, depth, left))
    }

    fn file(&self, pid: u32, name: &str) -> PathBuf {
        self.proc.join(pid.to_string()).join(name)
    }

    fn read(&self, pid: u32, name: &str, cap: u64) -> Option<Vec<u8>> {
        // Most of these files are smaller: one read, and one for the end.
        let mut bytes = Vec::with_capacity(1024);
        File::open(self.file(pid, name)).ok()?.take(cap).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }
}

#[cfg(test)]
mod tests;
