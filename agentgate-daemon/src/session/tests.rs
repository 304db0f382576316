//! The subject of this very process, and of processes made up in a directory.

use super::*;
use crate::model::OriginalDestination;

fn flow(pid: u32, cgroup: u64, connected_ns: u64) -> Flow {
    Flow {
        cookie: 1,
        original: OriginalDestination("203.0.113.7:443".parse().unwrap()),
        pid,
        uid: 1000,
        gid: 1000,
        comm: "agent".to_owned(),
        cgroup,
        session: 0,
        netns: 0,
        connected_ns,
    }
}

/// A procfs and a cgroupfs of plain files.
struct Host {
    directory: tempfile::TempDir,
    sessions: Sessions,
}

impl Host {
    fn new() -> Self {
        Self::mounted("/")
    }

    /// With a part of the hierarchy mounted.
    fn mounted(root: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mount = directory.path().join("cgroup");
        fs::create_dir_all(mount.join("agent.slice/run-u2.service/inner")).unwrap();
        fs::create_dir_all(mount.join("system.slice")).unwrap();
        let sessions = Sessions {
            proc: directory.path().join("proc"),
            ticks: 100,
            ..Sessions::new(GuardedCgroup::on_mount(root, &mount, &mount.join("agent.slice")).unwrap())
        };
        Self { directory, sessions }
    }

    fn inode(&self, cgroup: &str) -> u64 {
        self.sessions.inode(cgroup).unwrap()
    }

    fn process(&self, pid: u32, parent: u32, start: u64, cgroup: &str, cmdline: &[u8]) {
        self.running(pid, parent, (start, 0), cgroup, cmdline);
    }

    /// With where its stack is.
    fn running(&self, pid: u32, parent: u32, (start, image): (u64, u64), cgroup: &str, cmdline: &[u8]) {
        let path = self.directory.path().join("proc").join(pid.to_string());
        fs::create_dir_all(&path).unwrap();
        // comm can hold anything, also what looks like the end of the field.
        let mut stat = format!("{pid} (a) R 1 (b) S {parent}");
        stat.push_str(&" 0".repeat(17));
        stat.push_str(&format!(" {start}"));
        stat.push_str(&" 0".repeat(5));
        stat.push_str(&format!(" {image}"));
        stat.push_str(&" 0".repeat(24));
        fs::write(path.join("stat"), stat).unwrap();
        fs::write(path.join("cmdline"), cmdline).unwrap();
        fs::write(path.join("cgroup"), format!("3:cpu:/x\n0::{cgroup}\n")).unwrap();
        let _again = fs::remove_file(path.join("exe"));
        std::os::unix::fs::symlink(format!("/usr/bin/p{pid}"), path.join("exe")).unwrap();
    }
}

/// One second after boot.
const SECOND: u64 = 1_000_000_000;

#[test]
fn own_process() {
    let sessions = Sessions::new(GuardedCgroup::find("agent.slice").unwrap());
    let pid = std::process::id();
    let cgroup = sessions.inode(&sessions.cgroup_of(pid).unwrap()).unwrap();
    let subject = sessions.subject(&flow(pid, cgroup, u64::MAX));
    assert_eq!(subject.pid, pid);
    assert!(subject.start.is_some());
    assert_eq!(subject.exe.unwrap(), std::env::current_exe().unwrap().to_string_lossy());
    assert_eq!(subject.cmdline, std::env::args().collect::<Vec<_>>());
    let parent = std::os::unix::process::parent_id();
    assert_eq!(subject.ancestors.first().map(|ancestor| ancestor.pid), Some(parent));
    assert!(subject.cgroup.starts_with('/'));
}

#[test]
fn sessions_by_cgroup() {
    let host = Host::new();
    let service = host.inode("/agent.slice/run-u2.service");
    let rows = [
        ("/agent.slice/run-u2.service", format!("run-u2.service@{service}")),
        ("/agent.slice/run-u2.service/inner", format!("run-u2.service@{service}")),
        ("/agent.slice", "/".to_owned()),
    ];
    for (pid, (cgroup, expect)) in (10..).zip(rows) {
        host.process(pid, 1, 50, cgroup, b"agent\0");
        let subject = host.sessions.subject(&flow(pid, host.inode(cgroup), SECOND));
        assert_eq!(subject.session.0, expect);
        assert_eq!(subject.cgroup, cgroup);
        // The same from the id alone, when the process is gone.
        let gone = host.sessions.subject(&flow(99, host.inode(cgroup), SECOND));
        assert_eq!((gone.session.0, gone.cgroup), (expect, cgroup.to_owned()));
        assert_eq!((gone.start, gone.exe, gone.cmdline.len()), (None, None, 0));
    }
}

#[test]
fn a_process_that_moved_keeps_the_session_of_its_connection() {
    let host = Host::new();
    host.process(10, 1, 50, "/system.slice", b"agent\0");
    let there = "/agent.slice/run-u2.service";
    let subject = host.sessions.subject(&flow(10, host.inode(there), SECOND));
    assert_eq!(subject.cgroup, there);
    assert!(subject.session.0.starts_with("run-u2.service@"), "{}", subject.session);
}

#[test]
fn a_cgroup_that_is_gone_is_named_by_its_id() {
    let host = Host::new();
    let subject = host.sessions.subject(&flow(99, u64::MAX, SECOND));
    assert_eq!(subject.session.0, format!("?@{}", u64::MAX));
    assert_eq!(subject.cgroup, "");
}

#[test]
fn a_reused_pid_is_not_the_one_that_connected() {
    let host = Host::new();
    let cgroup = "/agent.slice/run-u2.service";
    host.process(10, 1, 200, cgroup, b"another\0");
    let rows = [(SECOND, None), (2 * SECOND - 1, None), (2 * SECOND, Some(200)), (3 * SECOND, Some(200))];
    for (connected, start) in rows {
        let subject = host.sessions.subject(&flow(10, host.inode(cgroup), connected));
        assert_eq!(subject.start, start, "{connected}");
        assert_eq!(subject.exe.is_some(), start.is_some());
        assert_eq!(subject.cmdline.is_empty(), start.is_none());
        assert_eq!(subject.cgroup, cgroup);
    }
}

#[test]
fn arguments_are_cut() {
    let host = Host::new();
    let rows: &[(&[u8], &[&str])] = &[
        (b"", &[]),
        (b"\0", &[]),
        (b"a\0", &["a"]),
        (b"a\0\0b\0", &["a", "", "b"]),
        (b"a", &["a"]),
        (b"\xff\0", &["\u{fffd}"]),
    ];
    for (pid, (bytes, expect)) in (10..).zip(rows) {
        host.process(pid, 1, 50, "/agent.slice", bytes);
        assert_eq!(host.sessions.cmdline(pid), *expect);
    }
    host.process(90, 1, 50, "/agent.slice", &[b'x'; 10_000]);
    assert_eq!(host.sessions.cmdline(90).concat().len(), 4096);
}

#[test]
fn ancestors_are_capped_and_older() {
    let host = Host::new();
    for pid in 100..200 {
        host.process(pid, pid - 1, u64::from(pid), "/agent.slice", b"p\0");
    }
    let subject = host.sessions.subject(&flow(199, host.inode("/agent.slice"), 10 * SECOND));
    assert_eq!(subject.ancestors.len(), ANCESTORS);
    assert_eq!(subject.ancestors.first(), Some(&Ancestor { pid: 198, exe: "/usr/bin/p198".to_owned() }));
    // A parent younger than its child is another process with that number.
    host.process(300, 301, 50, "/agent.slice", b"p\0");
    host.process(301, 1, 60, "/agent.slice", b"p\0");
    let subject = host.sessions.subject(&flow(300, host.inode("/agent.slice"), 10 * SECOND));
    assert_eq!(subject.ancestors, []);
    // Two that name each other end.
    host.process(400, 401, 50, "/agent.slice", b"p\0");
    host.process(401, 400, 50, "/agent.slice", b"p\0");
    let subject = host.sessions.subject(&flow(400, host.inode("/agent.slice"), 10 * SECOND));
    assert_eq!(subject.ancestors.len(), 1);
}

/// In containers `/proc/PID/cgroup` shows the mount's root before what is below the mount point.
#[test]
fn sessions_where_a_part_of_the_hierarchy_is_mounted() {
    let host = Host::mounted("/docker/ab");
    let shown = "/docker/ab/agent.slice/run-u2.service";
    let service = host.inode(shown);
    host.process(10, 1, 50, shown, b"agent\0");
    for pid in [10, 99] {
        let subject = host.sessions.subject(&flow(pid, service, SECOND));
        assert_eq!(subject.session.0, format!("run-u2.service@{service}"), "{pid}");
        assert_eq!(subject.cgroup, shown);
    }
}

/// What the kernel says of the session holds where cgroups of it have gone, so that two connections of
/// one session are never two sessions.
#[test]
fn a_session_keeps_its_name_when_cgroups_below_it_go() {
    let host = Host::new();
    let id = host.inode("/agent.slice/run-u2.service");
    let expect = format!("run-u2.service@{id}");
    let of = |cgroup: u64, session: u64| {
        host.sessions.subject(&Flow { session, ..flow(99, cgroup, SECOND) }).session.0
    };
    let inner = host.inode("/agent.slice/run-u2.service/inner");
    assert_eq!(of(inner, id), expect);
    // Its own cgroup is gone, the session's is there.
    assert_eq!(of(u64::MAX, id), expect);
    // Both are gone.
    assert_eq!(of(u64::MAX, u64::MAX), format!("?@{}", u64::MAX));
    // The name is another session's by then.
    assert_eq!(of(inner, u64::MAX), format!("run-u2.service@{}", u64::MAX));
    assert_eq!(of(host.inode("/agent.slice"), 0), "/");
}

#[test]
fn what_could_undo_the_guard_is_named() {
    let host = Host::new();
    let proc = host.directory.path().join("proc");
    let namespace = |process: &str, name: &str| {
        fs::create_dir_all(proc.join(process).join("ns")).unwrap();
        std::os::unix::fs::symlink(name, proc.join(process).join("ns/user")).unwrap();
    };
    namespace("self", "user:[1]");
    // uid, effective capabilities, user namespace
    let rows: [(u32, &str, &str, &[&str]); 9] = [
        (1000, "0000000000000000", "user:[1]", &[]),
        (0, "0000000000000000", "user:[1]", &["uid 0"]),
        (
            0,
            "000001ffffffffff",
            "user:[1]",
            &["uid 0", "CAP_NET_ADMIN", "CAP_SYS_PTRACE", "CAP_SYS_ADMIN", "CAP_BPF"],
        ),
        (1000, "0000000000001000", "user:[1]", &["CAP_NET_ADMIN"]),
        (1000, "0000008000080000", "user:[1]", &["CAP_SYS_PTRACE", "CAP_BPF"]),
        // CAP_NET_RAW and CAP_NET_BIND_SERVICE
        (1000, "0000000000002400", "user:[1]", &[]),
        // root of a user namespace of its own
        (1000, "000001ffffffffff", "user:[2]", &[]),
        (0, "000001ffffffffff", "user:[2]", &["uid 0"]),
        (1000, "not a number", "user:[1]", &[]),
    ];
    let cgroup = "/agent.slice/run-u2.service";
    for (pid, (uid, effective, user, expect)) in (10..).zip(rows) {
        host.process(pid, 1, 50, cgroup, b"agent\0");
        namespace(&pid.to_string(), user);
        let status =
            format!("Name:\tx\nCapPrm:\tffffffffffffffff\nCapEff:\t{effective}\nCapBnd:\tffffffffffffffff\n");
        fs::write(proc.join(pid.to_string()).join("status"), status).unwrap();
        let subject = host.sessions.subject(&Flow { uid, ..flow(pid, host.inode(cgroup), SECOND) });
        assert_eq!(subject.privileges, expect, "{uid} {effective} {user}");
        let flag = privileged(&subject);
        assert_eq!(
            flag.as_ref().map(|flag| flag.evidence.as_str()),
            (!expect.is_empty()).then(|| expect.join(", ")).as_deref()
        );
        // Another process with that number says nothing of this one.
        let gone = host.sessions.subject(&Flow { uid, ..flow(pid, host.inode(cgroup), SECOND / 10) });
        assert_eq!(gone.privileges, if uid == 0 { &["uid 0"][..] } else { &[] });
    }
    // Nothing is made of a process that cannot be read.
    assert_eq!(host.sessions.subject(&flow(999, host.inode(cgroup), SECOND)).privileges, [""; 0]);
}

/// This process, as its own /proc has it.
#[test]
fn own_capabilities_are_read() {
    let sessions = Sessions::new(GuardedCgroup::find("agent.slice").unwrap());
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    let effective = u64::from_str_radix(effective.trim(), 16).unwrap();
    let found = sessions.capabilities(std::process::id());
    assert_eq!(found.contains(&"CAP_SYS_ADMIN"), effective & (1 << 21) != 0, "{effective:x} {found:?}");
}

#[test]
fn who_connects_again_is_read_once_while_it_is_the_same_program() {
    let host = Host::new();
    let cgroup = "/agent.slice/run-u2.service";
    let flow = flow(10, host.inode(cgroup), SECOND);
    host.running(10, 1, (50, 7000), cgroup, b"first\0");
    assert!(host.sessions.recent(&flow).is_none(), "never seen");
    let seen = host.sessions.fresh(&flow, |subject| subject);
    let again = host.sessions.recent(&flow).unwrap();
    assert!(Arc::ptr_eq(&seen, &again));
    for other in [
        Flow { uid: 0, ..flow.clone() },
        Flow { cgroup: flow.cgroup + 1, ..flow.clone() },
        Flow { session: 5, ..flow.clone() },
        Flow { comm: "other".to_owned(), ..flow.clone() },
        Flow { pid: 11, ..flow.clone() },
        // Before the process was there.
        Flow { connected_ns: SECOND / 10, ..flow.clone() },
    ] {
        assert!(host.sessions.recent(&other).is_none(), "{other:?}");
    }
    // Another program in the same process, and another process of the same number.
    for (start, image) in [(50, 8000), (60, 7000)] {
        host.running(10, 1, (start, image), cgroup, b"second\0");
        assert!(host.sessions.recent(&flow).is_none(), "{start} {image}");
        assert_eq!(host.sessions.fresh(&flow, |subject| subject).cmdline, ["second"]);
    }
    // A kernel that does not say where the program is: nothing is remembered.
    host.running(10, 1, (60, 0), cgroup, b"third\0");
    host.sessions.fresh(&flow, |subject| subject);
    assert!(host.sessions.recent(&flow).is_none());
}
