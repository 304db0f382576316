//! Doors in real network namespaces, with a kernel that is not real: nothing is attached, so this says
//! nothing about who is redirected, but all about where doors stand, and when.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use agentgate::{
    audit::{Audit, AuditOptions, AuditThread},
    drain::Drain,
    kernel::{GuardedCgroup, fake::FakeKernel},
    model::{Kind, Record},
    namespaces::{Doors, Opened, Ports, Serving},
    session::Sessions,
    store::{Query, Store},
};
use tokio::{io::AsyncWriteExt as _, net::TcpListener};

/// Ports that are only ever bound in namespaces of these tests.
const PORTS: Ports = Ports { listener: 7879, dns: 7880 };
/// For what takes a look or two.
const SOON: Duration = Duration::from_secs(20);

/// A throw-away guarded cgroup; killed and removed on drop.
struct Guarded(GuardedCgroup);

impl Guarded {
    fn make(name: &str) -> Self {
        let found = GuardedCgroup::find(&format!("agentgate-{name}-{}", std::process::id())).unwrap();
        fs::create_dir_all(found.directory().join("run-1.scope"))
            .expect("root, and a writable cgroup2 mount");
        Self(found)
    }

    fn scope(&self) -> PathBuf {
        self.0.directory().join("run-1.scope")
    }

    /// A shell in the cgroup and in a network namespace of its own, which runs what it is told.
    fn shell(&self) -> Shell {
        let mut child = Command::new("unshare")
            .args([
                "--net",
                "sh",
                "-c",
                "echo $$ > \"$0\"; echo here; while read line; do eval \"$line\"; done",
            ])
            .arg(self.scope().join("cgroup.procs"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        let mut shell = Shell { child, answers };
        assert_eq!(shell.answer(), "here");
        shell
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // Kills what a failed test left (cgroup-v2.rst, "cgroup.kill").
        let _none = fs::write(self.0.directory().join("cgroup.kill"), "1");
        // Those die by and by, and until then it is busy.
        let events = self.0.directory().join("cgroup.events");
        let until = std::time::Instant::now() + Duration::from_secs(10);
        while fs::read_to_string(&events).is_ok_and(|events| events.contains("populated 1"))
            && std::time::Instant::now() < until
        {
            std::thread::yield_now();
        }
        for directory in [&self.scope(), self.0.directory()] {
            let _busy = fs::remove_dir(directory);
        }
    }
}

struct Shell {
    child: Child,
    answers: BufReader<std::process::ChildStdout>,
}

impl Shell {
    fn tell(&mut self, line: &str) {
        writeln!(self.child.stdin.as_ref().unwrap(), "{line}").unwrap();
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn ask(&mut self, line: &str) -> String {
        self.tell(line);
        self.answer()
    }

    fn end(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// The daemon's part: doors that say who they are.
struct Gate {
    kernel: Arc<FakeKernel>,
    store: Arc<Store>,
    drain: Drain,
    task: tokio::task::JoinHandle<()>,
    audit: AuditThread,
    _directory: tempfile::TempDir,
}

impl Gate {
    fn start(guarded: &Guarded) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(directory.path().join("audit.redb")).unwrap());
        let (audit, thread) = Audit::start(store.clone(), AuditOptions::default());
        let kernel = Arc::new(FakeKernel::default());
        let doors = Doors {
            kernel: kernel.clone(),
            guarded: guarded.0.clone(),
            sessions: Arc::new(Sessions::new(guarded.0.clone())),
            audit,
            ports: PORTS,
            serve: Arc::new(greet),
        };
        let drain = Drain::default();
        let task = tokio::spawn(doors.run(drain.watch()));
        Self { kernel, store, drain, task, audit: thread, _directory: directory }
    }

    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let wait = async {
            let mut look = tokio::time::interval(Duration::from_millis(20));
            while !holds(self) {
                look.tick().await;
            }
        };
        tokio::time::timeout(SOON, wait).await.unwrap_or_else(|_| panic!("not {what}: {:?}", self.notes()));
    }

    fn records(&self) -> Vec<Record> {
        self.store.query(&Query { limit: 100, ..Query::default() }).unwrap().records
    }

    fn notes(&self) -> Vec<String> {
        let guard = self.records().into_iter().filter(|record| record.kind == Kind::Guard);
        guard.filter_map(|record| record.note).collect()
    }

    async fn stop(self) {
        self.drain.start();
        self.task.await.unwrap();
        assert_eq!(self.kernel.namespaces(), [] as [u64; 0], "nothing stays admitted");
        self.audit.drain(SOON).await;
    }
}

fn greet(opened: Opened) -> std::io::Result<Serving> {
    let listeners: Vec<TcpListener> =
        opened.listeners.into_iter().map(TcpListener::from_std).collect::<Result<_, _>>()?;
    let hello = format!("door of {} of {}\n", listeners.len(), opened.netns);
    // Held, so that the namespace's own processes cannot have the ports.
    let dns = (opened.dns_udp, opened.dns_tcp);
    Ok(Box::pin(async move {
        let _dns = dns;
        let [four, six] = listeners.as_slice() else { panic!("two families") };
        loop {
            let (mut stream, _) = tokio::select! {
                four = four.accept() => four.unwrap(),
                six = six.accept() => six.unwrap(),
            };
            stream.write_all(hello.as_bytes()).await.unwrap();
        }
    }))
}

const CONNECT: &str = "python3 -c 'import socket,sys; print(socket.create_connection((sys.argv[1], 7879)).makefile().readline().strip())'";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root; run by cargo xtask test"]
async fn doors_stand_where_guarded_processes_are_and_as_long() {
    let guarded = Guarded::make("doors");
    let mut shell = guarded.shell();
    let mut other = guarded.shell();
    let gate = Gate::start(&guarded);
    gate.until("told that nothing can be bound", |gate| {
        gate.notes().iter().filter(|note| note.contains("its loopback interface is down")).count() == 2
    })
    .await;
    assert_eq!(gate.kernel.namespaces(), [] as [u64; 0], "not admitted without doors");

    assert_eq!(shell.ask("ip link set lo up; echo up"), "up");
    gate.until("admitted", |gate| gate.kernel.namespaces().len() == 1).await;
    let netns = gate.kernel.namespaces()[0];
    for address in ["127.0.0.1", "::1"] {
        assert_eq!(shell.ask(&format!("{CONNECT} {address}")), format!("door of 2 of {netns}"));
    }
    let opened = gate.records().into_iter().find(|record| {
        record.note.as_ref().is_some_and(|note| note.contains("doors opened")) && record.kind == Kind::Guard
    });
    let subject = opened.unwrap().subject.unwrap();
    assert_eq!(subject.pid, shell.child.id());
    assert!(subject.session.0.starts_with("run-1.scope@"), "{subject:?}");

    // Loopback is another one's in each namespace, and so are the doors.
    assert_eq!(other.ask("ip link set lo up; echo up"), "up");
    gate.until("admitted too", |gate| gate.kernel.namespaces().len() == 2).await;

    other.end();
    gate.until("expelled", |gate| gate.kernel.namespaces() == [netns]).await;
    shell.end();
    gate.until("empty", |gate| gate.kernel.namespaces().is_empty()).await;
    gate.until("recorded", |gate| {
        gate.notes().iter().filter(|note| note.contains("are closed")).count() == 2
    })
    .await;
    gate.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root; run by cargo xtask test"]
async fn a_namespace_where_the_ports_are_taken_is_never_admitted() {
    let guarded = Guarded::make("taken");
    let mut shell = guarded.shell();
    let take = "import socket,sys; s = socket.create_server((\"::1\", 7880), family=socket.AF_INET6); print(\"mine\", flush=True); s.accept()";
    assert_eq!(shell.ask(&format!("ip link set lo up; python3 -c '{take}' &")), "mine");
    let gate = Gate::start(&guarded);
    gate.until("told", |gate| gate.notes().iter().any(|note| note.contains("has taken the gate's port")))
        .await;
    assert_eq!(gate.kernel.namespaces(), [] as [u64; 0]);
    assert!(
        gate.records().iter().any(|record| record.flags.iter().any(|f| f.code == "namespace_without_doors"))
    );
    shell.end();
    gate.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root; run by cargo xtask test"]
async fn a_thread_in_a_namespace_of_its_own_is_seen() {
    let guarded = Guarded::make("thread");
    let mut agent = Command::new("python3")
        .arg("-c")
        .arg(
            "import ctypes, os, sys, threading, subprocess\n\
             open(sys.argv[1], 'w').write(str(os.getpid()))\n\
             def away():\n\
             \x20   assert ctypes.CDLL(None).unshare(0x40000000) == 0\n\
             \x20   subprocess.run(['ip', 'link', 'set', 'lo', 'up'], check=True)\n\
             \x20   print('away', flush=True)\n\
             \x20   sys.stdin.read()\n\
             threading.Thread(target=away).start()\n",
        )
        .arg(guarded.scope().join("cgroup.procs"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(agent.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "away\n");
    let gate = Gate::start(&guarded);
    gate.until("admitted", |gate| gate.kernel.namespaces().len() == 1).await;
    drop(agent.stdin.take());
    agent.wait().unwrap();
    gate.until("expelled", |gate| gate.kernel.namespaces().is_empty()).await;
    gate.stop().await;
}
