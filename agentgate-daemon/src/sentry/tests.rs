//! The sentry with a directory of files for a cgroup: real processes, no root.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    os::fd::OwnedFd,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Mutex,
};

use super::{
    inside::{Inside, process},
    *,
};
use crate::{
    control::{
        enrol::{EnrolError, Enroller},
        peer::Process,
    },
    kernel::fake::FakeKernel,
};

/// A directory that plays the cgroup v2 mount, with `agent.slice` in it.
struct Host {
    directory: tempfile::TempDir,
    guarded: GuardedCgroup,
    enrolled: Enrolled,
    kernel: Arc<FakeKernel>,
}

impl Host {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let slice = directory.path().join("agent.slice");
        fs::create_dir_all(slice.join("run-1.scope")).unwrap();
        let guarded = GuardedCgroup::on_mount("/", directory.path(), &slice).unwrap();
        let host = Self { directory, guarded, enrolled: Enrolled::default(), kernel: Arc::default() };
        host.hold(&[]);
        host
    }

    fn look(&self) -> Look {
        Look::new(self.kernel.clone(), self.guarded.clone(), self.enrolled.clone())
    }

    /// Puts these processes, and nobody else, into the scope.
    fn hold(&self, pids: &[u32]) {
        let text: String = pids.iter().map(|pid| format!("{pid}\n")).collect();
        fs::write(self.directory.path().join("agent.slice/run-1.scope/cgroup.procs"), text).unwrap();
    }
}

fn sleeper() -> Child {
    Command::new("sleep").arg("60").spawn().unwrap()
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// With a TCP connection for its standard input.
fn sleeper_with_socket() -> (Child, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    let child = Command::new("sleep").arg("60").stdin(Stdio::from(OwnedFd::from(client))).spawn().unwrap();
    (child, server)
}

/// Waits until a process that starts later is at least a tick younger.
fn next_tick(look: &Look) {
    let now = look.ticks_now();
    while look.ticks_now() <= now + 1 {
        std::thread::yield_now();
    }
}

fn whats(findings: Vec<Finding>) -> Vec<(u32, String)> {
    let word = |what| match what {
        What::Foreign(socket) => format!("foreign {} {}", socket.descriptor, socket.ended),
        What::MovedIn => "moved in".to_owned(),
        What::Left { to } => format!("left to {to}"),
    };
    findings.into_iter().map(|finding| (finding.process.pid, word(finding.what))).collect()
}

#[test]
fn who_was_alive_before_and_not_inside_was_moved_in() {
    let host = Host::new();
    let (old, enrolled) = (sleeper(), sleeper());
    let mut look = host.look();
    next_tick(&look);
    // Those who are there at the first look came before anybody looked.
    let first = sleeper();
    host.hold(&[first.id()]);
    assert_eq!(look.take(), []);
    // Started inside since the look before: nothing to tell.
    let young = sleeper();
    host.enrolled.add(enrolled.id());
    host.hold(&[first.id(), young.id(), old.id(), enrolled.id()]);
    assert_eq!(whats(look.take()), [(old.id(), "moved in".to_owned())]);
    assert_eq!(look.take(), [], "told once");
    for child in [old, enrolled, first, young] {
        end(child);
    }
}

#[test]
fn who_is_alive_elsewhere_has_left_and_the_dead_have_not() {
    let host = Host::new();
    let (leaver, mortal) = (sleeper(), sleeper());
    let mut look = host.look();
    host.hold(&[leaver.id(), mortal.id()]);
    assert_eq!(look.take(), []);
    let (pid, mut mortal) = (mortal.id(), mortal);
    mortal.kill().unwrap();
    let ended = rustix::process::Pid::from_child(&mortal);
    let options = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
    rustix::process::waitid(rustix::process::WaitId::Pid(ended), options).unwrap();
    host.hold(&[leaver.id()]);
    // A zombie until it is waited for.
    assert_eq!(look.take(), [], "process {pid} ended");
    mortal.wait().unwrap();
    host.hold(&[]);
    // Really this test's own cgroup.
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let own = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap();
    assert_eq!(whats(look.take()), [(leaver.id(), format!("left to {own}"))]);
    assert_eq!(look.take(), [], "told once");
    end(leaver);
}

#[test]
fn who_was_let_in_and_left_between_two_looks_has_left() {
    let host = Host::new();
    let (leaver, arriving) = (sleeper(), sleeper());
    let mut look = host.look();
    host.enrolled.add(leaver.id());
    host.enrolled.add(arriving.id());
    assert_eq!(look.take(), [], "neither has been inside");
    host.enrolled.is_in(leaver.id(), 7);
    let found = look.take();
    assert_eq!(found[0].process.cgroup, 7);
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let own = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap();
    assert_eq!(whats(found), [(leaver.id(), format!("left to {own}"))]);
    assert_eq!(look.take(), [], "told once");
    end(leaver);
    end(arriving);
}

#[test]
fn a_process_goes_on_after_its_first_thread_has_ended() {
    let script = "import ctypes,threading,time\n\
                  threading.Thread(target=time.sleep, args=(60,)).start()\n\
                  ctypes.CDLL(None).pthread_exit(None)";
    let child = Command::new("python3").args(["-c", script]).spawn().unwrap();
    let state = || fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
    while !state().contains(") Z ") {
        std::thread::yield_now();
    }
    assert!(process(child.id(), 0).is_some());
    end(child);
}

#[test]
fn foreign_sockets_are_ended_and_told_once() {
    let host = Host::new();
    host.kernel.guard_nothing();
    let (child, server) = sleeper_with_socket();
    host.hold(&[child.id()]);
    let mut look = host.look();
    assert_eq!(whats(look.take()), [(child.id(), "foreign 0 true".to_owned())]);
    let seen = std::io::Read::read(&mut &server, &mut [0]).unwrap_err();
    assert_eq!(seen.kind(), std::io::ErrorKind::ConnectionReset);
    for _ in 0..6 {
        assert_eq!(look.take(), []);
    }
    end(child);
}

#[test]
fn a_finding_becomes_a_record() {
    let host = Host::new();
    host.kernel.guard_nothing();
    let (child, server) = sleeper_with_socket();
    host.hold(&[child.id()]);
    let found = host.look().take();
    let record = record_of(&found[0], &Sessions::new(host.guarded.clone()));
    assert_eq!((record.kind, record.state), (Kind::Guard, State::Refused));
    let subject = record.subject.unwrap();
    assert_eq!(subject.pid, child.id());
    assert!(subject.session.0.starts_with("run-1.scope@"), "{}", subject.session);
    assert_eq!(record.flags[0].code, "foreign_socket");
    assert_eq!(record.flags[0].severity, Severity::High);
    let server = server.local_addr().unwrap();
    assert_eq!(record.authority.unwrap().port, server.port());
    let note = record.note.unwrap();
    assert!(note.contains("descriptor 0") && note.contains(&format!("to {server}; ended")), "{note}");
    end(child);
}

#[test]
fn only_so_many_cgroups_are_gone_through() {
    let directory = tempfile::tempdir().unwrap();
    assert!(Inside::list(directory.path()).unwrap().whole);
    for n in 0..4096 {
        fs::create_dir(directory.path().join(n.to_string())).unwrap();
    }
    assert!(!Inside::list(directory.path()).unwrap().whole);
    assert!(Inside::list(Path::new("/nonexistent")).is_err());
}

#[derive(Debug, Default)]
struct Inner(Mutex<Vec<u32>>);

impl Enroller for Inner {
    fn enrol(&self, process: &Process) -> Result<String, EnrolError> {
        self.0.lock().unwrap().push(process.pid());
        Ok("/agent.slice/x".to_owned())
    }
}

#[test]
fn who_holds_a_socket_from_elsewhere_is_not_enrolled() {
    let kernel = Arc::new(FakeKernel::default());
    kernel.guard_nothing();
    let (inner, enrolled) = (Arc::new(Inner::default()), Enrolled::default());
    let enroller = CarefulEnroller::new(kernel.clone(), inner.clone(), enrolled.clone());
    let (child, server) = sleeper_with_socket();
    let held = Process::open(child.id()).unwrap();
    let refused = enroller.enrol(&held).unwrap_err().to_string();
    let expect = format!("process {} holds sockets made outside the guard: descriptor 0: TCP at", child.id());
    assert!(refused.starts_with(&expect), "{refused}");
    assert!(refused.contains(&server.local_addr().unwrap().to_string()), "{refused}");
    assert!(inner.0.lock().unwrap().is_empty());
    // It keeps its socket: the refusal is told to somebody who may mend it.
    assert!(std::io::Write::write(&mut &server, b"x").is_ok());

    let plain = sleeper();
    enroller.enrol(&Process::open(plain.id()).unwrap()).unwrap();
    assert_eq!(*inner.0.lock().unwrap(), [plain.id()]);
    assert!(enrolled.contains(process(plain.id(), 0).unwrap().id()));
    end(child);
    end(plain);
}
