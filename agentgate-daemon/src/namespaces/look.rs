//! Which network namespaces guarded threads are in, from cgroupfs and procfs.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use crate::model::Flow;

/// Cgroups that one look goes through: an agent with a delegated cgroup can make many.
const CGROUPS: usize = 4096;
/// Threads that one look goes through.
const THREADS: usize = 16_384;
/// Bytes that are read of one `cgroup.threads` or `status`.
const FILE: u64 = 1 << 20;

/// Device and inode of a namespace (namespaces(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct NamespaceId {
    pub(super) dev: u64,
    pub(super) ino: u64,
}

impl NamespaceId {
    pub(super) fn of(file: &fs::Metadata) -> Self {
        Self { dev: file.dev(), ino: file.ino() }
    }
}

/// A guarded thread that is in another network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Guest {
    pub(super) tid: u32,
    /// Id of its cgroup.
    pub(super) cgroup: u64,
    /// Id of its session's cgroup; 0 for the guarded cgroup itself.
    pub(super) session: u64,
}

/// One look.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The first thread of each namespace that is not the daemon's.
    pub(super) guests: HashMap<NamespaceId, Guest>,
    /// Not everything was looked at.
    pub(super) cut: bool,
    /// The first link that could not be read for another reason than that the thread was gone.
    pub(super) denied: Option<io::Error>,
}

/// Where to look.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) proc: PathBuf,
    /// Directory of the guarded cgroup.
    pub(super) guarded: PathBuf,
    /// The daemon's own namespace.
    pub(super) own: NamespaceId,
}

impl Place {
    /// The guarded cgroup at `guarded`, seen from this process.
    pub(super) fn here(guarded: &Path) -> io::Result<Self> {
        let proc = PathBuf::from("/proc");
        let own = NamespaceId::of(&fs::metadata(proc.join("thread-self/ns/net"))?);
        Ok(Self { proc, guarded: guarded.to_owned(), own })
    }

    /// Looks at every thread once: threads of one process can be in different namespaces.
    pub(super) fn look(&self) -> Seen {
        let mut seen = Seen::default();
        let (mut cgroups, mut threads) = (CGROUPS, THREADS);
        let mut left = vec![(self.guarded.clone(), 0)];
        while let Some((directory, session)) = left.pop() {
            // A cgroup that is gone has no threads.
            let Ok(cgroup) = fs::symlink_metadata(&directory).map(|file| file.ino()) else { continue };
            for tid in tids(&directory.join("cgroup.threads")) {
                if threads == 0 {
                    seen.cut = true;
                    return seen;
                }
                threads -= 1;
                match fs::metadata(self.link(tid)) {
                    Ok(file) => {
                        let id = NamespaceId::of(&file);
                        if id != self.own {
                            seen.guests.entry(id).or_insert(Guest { tid, cgroup, session });
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                        seen.denied.get_or_insert(error);
                    }
                    // The thread has ended.
                    Err(_) => {}
                }
            }
            for entry in fs::read_dir(&directory).into_iter().flatten().filter_map(Result::ok) {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    if cgroups == 0 {
                        seen.cut = true;
                        return seen;
                    }
                    cgroups -= 1;
                    let session = match session {
                        // One level below the guarded cgroup.
                        0 => entry.metadata().map_or(0, |file| file.ino()),
                        session => session,
                    };
                    left.push((entry.path(), session));
                }
            }
        }
        seen
    }

    /// The link to the network namespace of a thread.
    pub(super) fn link(&self, tid: u32) -> PathBuf {
        self.proc.join(tid.to_string()).join("ns/net")
    }

    /// A guest as who acts, for a record. What is gone stays zero or empty.
    pub(super) fn flow(&self, guest: &Guest, now_ns: u64, nowhere: Flow) -> Flow {
        let directory = self.proc.join(guest.tid.to_string());
        let status = text(&directory.join("status"));
        let field = |name: &str| -> Option<Vec<u32>> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.split_whitespace().filter_map(|number| number.parse().ok()).collect())
        };
        let first = |name: &str| field(name).and_then(|numbers| numbers.first().copied());
        Flow {
            pid: first("Tgid:").unwrap_or(guest.tid),
            uid: first("Uid:").unwrap_or_default(),
            gid: first("Gid:").unwrap_or_default(),
            comm: text(&directory.join("comm")).trim_end().to_owned(),
            cgroup: guest.cgroup,
            session: guest.session,
            connected_ns: now_ns,
            ..nowhere
        }
    }
}

/// What a file holds; nothing where it is gone.
fn text(path: &Path) -> String {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE).read_to_end(&mut bytes));
    if read.is_err() {
        return String::new();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn tids(path: &Path) -> Vec<u32> {
    text(path).lines().filter_map(|line| line.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct World(tempfile::TempDir);

    impl World {
        fn new() -> Self {
            let world = Self(tempfile::tempdir().unwrap());
            for name in ["own", "one", "two"] {
                fs::write(world.at(name), "").unwrap();
            }
            fs::create_dir_all(world.at("cgroup/agent")).unwrap();
            world
        }

        fn at(&self, path: &str) -> PathBuf {
            self.0.path().join(path)
        }

        /// A thread in a cgroup and a namespace, which is a file's inode as in procfs.
        fn thread(&self, tid: u32, cgroup: &str, namespace: &str) {
            let directory = self.at(&format!("proc/{tid}/ns"));
            fs::create_dir_all(&directory).unwrap();
            fs::hard_link(self.at(namespace), directory.join("net")).unwrap();
            let cgroup = self.at(&format!("cgroup/agent/{cgroup}"));
            fs::create_dir_all(&cgroup).unwrap();
            let list = cgroup.join("cgroup.threads");
            let before = fs::read_to_string(&list).unwrap_or_default();
            fs::write(&list, format!("{before}{tid}\n")).unwrap();
        }

        fn id(&self, name: &str) -> NamespaceId {
            NamespaceId::of(&fs::metadata(self.at(name)).unwrap())
        }

        fn ino(&self, path: &str) -> u64 {
            fs::metadata(self.at(path)).unwrap().ino()
        }

        fn place(&self) -> Place {
            Place { proc: self.at("proc"), guarded: self.at("cgroup/agent"), own: self.id("own") }
        }
    }

    #[test]
    fn every_other_namespace_is_seen_once_with_its_session() {
        let world = World::new();
        world.thread(10, "", "own");
        world.thread(11, "run-1.scope", "own");
        world.thread(12, "run-1.scope/inner/deep", "one");
        world.thread(13, "run-1.scope/inner/deep", "one");
        world.thread(14, "", "two");
        fs::write(world.at("cgroup/agent/run-1.scope/cgroup.threads"), "11\n99\n").unwrap();
        let seen = world.place().look();
        assert!(!seen.cut && seen.denied.is_none());
        assert_eq!(seen.guests.len(), 2);
        let one = &seen.guests[&world.id("one")];
        assert_eq!(one.session, world.ino("cgroup/agent/run-1.scope"));
        assert_eq!(one.cgroup, world.ino("cgroup/agent/run-1.scope/inner/deep"));
        assert!(one.tid == 12 || one.tid == 13);
        let two = &seen.guests[&world.id("two")];
        assert_eq!((two.tid, two.session, two.cgroup), (14, 0, world.ino("cgroup/agent")));
    }

    #[test]
    fn a_look_has_an_end_and_says_so() {
        let world = World::new();
        let list: String = (1..=THREADS + 1).map(|tid| format!("{tid}\n")).collect();
        fs::write(world.at("cgroup/agent/cgroup.threads"), list).unwrap();
        assert!(world.place().look().cut);
    }

    #[test]
    fn who_a_guest_is_comes_from_procfs() {
        let world = World::new();
        world.thread(12, "run-1.scope", "one");
        fs::write(world.at("proc/12/status"), "Name:\tx\nTgid:\t11\nUid:\t1000\t0\t0\t0\nGid:\t7\t0\t0\t0\n")
            .unwrap();
        fs::write(world.at("proc/12/comm"), "node\n").unwrap();
        let place = world.place();
        let nowhere = super::super::nowhere();
        let flow = place.flow(&Guest { tid: 12, cgroup: 5, session: 6 }, 9, nowhere.clone());
        assert_eq!((flow.pid, flow.uid, flow.gid, flow.comm.as_str()), (11, 1000, 7, "node"));
        assert_eq!((flow.cgroup, flow.session, flow.connected_ns), (5, 6, 9));
        assert_eq!(place.flow(&Guest { tid: 77, cgroup: 5, session: 6 }, 9, nowhere).pid, 77);
    }
}
