//! A place to attack: a throw-away cgroup, mount namespace, network namespace and bpffs for each
//! test, and agents that are small Python programs inside the cgroup.

#[path = "../shared/namespaces.rs"]
mod namespaces;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Arc, Mutex, Once},
};

use agentgate::{
    kernel::{AgentEnd, Attached, Kernel, Options, cgroup2_mount, detach},
    model::Flow,
};
use agentgate_common::{event::KernelEvent, settings::Settings};
pub(crate) use namespaces::run;
use tracing_subscriber::fmt::MakeWriter;

/// Port of the listener, as in the default configuration: each lab has its own network namespace.
pub(crate) const LISTENER: u16 = 7879;
/// Port of the dashboard.
pub(crate) const DASHBOARD: u16 = 7878;
/// Port of the gate's DNS server.
pub(crate) const RESOLVER: u16 = 5353;
/// A loopback port that policy opens.
pub(crate) const OPENED: u16 = 5432;

/// What the agents begin with: each attempt gives a value or the name of an error.
const PRELUDE: &str = r#"
import errno, json, os, socket, struct, sys
def attempt(f, *a):
    try:
        r = f(*a)
        return "ok" if r is None else r
    except OSError as e:
        return errno.errorcode.get(e.errno, str(e))
def tcp(family, address, protocol=0, bind=None):
    s = socket.socket(family, socket.SOCK_STREAM, protocol)
    s.settimeout(5)
    if bind: s.bind(bind)
    s.connect(address)
    return s.getpeername()[:2]
def connect(address, family=socket.AF_INET, protocol=0):
    return attempt(tcp, family, address, protocol)
def connect6(address, protocol=0):
    return attempt(tcp, socket.AF_INET6, address, protocol)
def sendto(address, family=socket.AF_INET):
    s = socket.socket(family, socket.SOCK_DGRAM)
    return attempt(lambda: s.sendto(b"question", address))
def ask(address, family=socket.AF_INET, connected=False):
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.settimeout(5)
    def go():
        if connected:
            s.connect(address)
            s.send(b"question")
            return [s.recv(100).decode(), s.getpeername()[:2]]
        s.sendto(b"question", address)
        data, source = s.recvfrom(100)
        return [data.decode(), source[:2]]
    return attempt(go)
def make(*a):
    return attempt(lambda: socket.socket(*a).close())
def show(**values):
    print(json.dumps(values), flush=True)
"#;

/// Runs a test in namespaces of its own: those of one thread, and of what it starts.
pub(crate) fn in_namespaces(test: impl FnOnce(&Lab) + Send) {
    namespaces::alone(|| test(&Lab::new()));
}

/// Undone when dropped.
#[derive(Debug)]
pub(crate) struct Lab {
    directory: tempfile::TempDir,
    pub(crate) options: Options,
}

impl Lab {
    fn new() -> Self {
        watch_logs();
        let directory = tempfile::tempdir().unwrap();
        // Agents that are not root have to pass through.
        run("chmod", &["755", directory.path().to_str().unwrap()]);
        let bpf = directory.path().join("bpf");
        std::fs::create_dir(&bpf).unwrap();
        run("mount", &["--make-rprivate", "/"]);
        run("mount", &["-t", "bpf", "bpf", bpf.to_str().unwrap()]);
        run("ip", &["link", "set", "lo", "up"]);
        let name = format!("agentgate-test-{}", directory.path().file_name().unwrap().to_str().unwrap());
        let cgroup = cgroup2_mount().unwrap().join(name.replace('.', ""));
        Self { directory, options: Options { cgroup, pin_dir: bpf.join("agentgate"), watch: None } }
    }

    /// The daemon's settings in this lab.
    pub(crate) fn settings(&self) -> Settings {
        let mut settings = Settings { dns_port: RESOLVER, listener_port: LISTENER, ..Settings::default() };
        settings.gate_ports[0] = DASHBOARD;
        settings.loopback_ports[0] = OPENED;
        settings
    }

    /// Starts guarding with these settings.
    pub(crate) fn start(&self) -> Attached {
        let attached = Attached::start(&self.options).expect("the programs attach");
        attached.configure(&self.settings()).unwrap();
        attached
    }

    /// Runs an agent in a child of the guarded cgroup and gives what it shows, and its process id.
    pub(crate) fn agent(&self, script: &str) -> (serde_json::Value, u32) {
        let scope = self.options.cgroup.join("run-1.scope");
        std::fs::create_dir_all(&scope).unwrap();
        self.process(Some(&scope), script)
    }

    /// The same in the guarded cgroup itself or outside it.
    pub(crate) fn process(&self, cgroup: Option<&Path>, script: &str) -> (serde_json::Value, u32) {
        let mut command = Command::new("sh");
        match cgroup {
            Some(cgroup) => {
                command.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]).arg(cgroup.join("cgroup.procs"))
            }
            None => command.args(["-c", "exec \"$@\"", "sh"]),
        };
        let mut child = command
            .args(["/usr/bin/python3", "-I", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = child.id();
        child.stdin.take().unwrap().write_all(format!("{PRELUDE}\n{script}").as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "the agent failed: {}", output.status);
        let text = String::from_utf8(output.stdout).unwrap();
        (serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")), pid)
    }

    /// Starts an agent that stays until it is told to end; its script reads a line of standard input
    /// whenever it waits.
    pub(crate) fn staying(&self, cgroup: Option<&Path>, script: &str) -> Staying {
        let mut command = Command::new("sh");
        match cgroup {
            Some(cgroup) => {
                std::fs::create_dir_all(cgroup).unwrap();
                command.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]).arg(cgroup.join("cgroup.procs"))
            }
            None => command.args(["-c", "exec \"$@\"", "sh"]),
        };
        let mut child = command
            .args(["/usr/bin/python3", "-I", "-c", &format!("{PRELUDE}\n{script}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let shown = BufReader::new(child.stdout.take().unwrap());
        Staying { told: child.stdin.take(), shown, child }
    }

    /// A session: a child of the guarded cgroup.
    pub(crate) fn session(&self, name: &str) -> PathBuf {
        let path = self.options.cgroup.join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    /// Fails unless the counters by session are the counters: for each hook and outcome none too many,
    /// and in all as many as found room.
    pub(crate) fn balanced(&self, kernel: &Attached) {
        let mut sums = std::collections::BTreeMap::<(&str, &str), u64>::new();
        for tally in kernel.session_counters().unwrap() {
            *sums.entry((tally.counter.hook, tally.counter.outcome)).or_default() += tally.counter.count;
        }
        let mut missing = 0;
        for counter in kernel.counters().unwrap() {
            let sum = sums.remove(&(counter.hook, counter.outcome)).unwrap_or(0);
            assert!(sum <= counter.count, "{counter:?}: {sum}");
            missing += counter.count - sum;
        }
        assert!(sums.values().all(|sum| *sum == 0), "tallied and not counted: {sums:?}");
        assert_eq!(missing, kernel.untallied().unwrap());
    }

    /// Sum of one counter.
    pub(crate) fn counted(&self, kernel: &Attached, hook: &str, outcome: &str) -> u64 {
        let counters = kernel.counters().unwrap();
        counters.iter().filter(|c| c.hook == hook && c.outcome == outcome).map(|c| c.count).sum()
    }

    /// The flow of a connection to the listener, as the daemon takes it.
    pub(crate) fn taken(&self, kernel: &Attached, peer: SocketAddr) -> Option<Flow> {
        kernel.take_flow(AgentEnd { netns: None, peer, door: LISTENER }).unwrap()
    }

    /// The two listeners of the daemon.
    pub(crate) fn listeners(&self) -> [TcpListener; 2] {
        [
            TcpListener::bind((Ipv4Addr::LOCALHOST, LISTENER)).unwrap(),
            TcpListener::bind((Ipv6Addr::LOCALHOST, LISTENER)).unwrap(),
        ]
    }
}

/// An agent that waits for its next step.
#[derive(Debug)]
pub(crate) struct Staying {
    told: Option<ChildStdin>,
    shown: BufReader<ChildStdout>,
    child: Child,
}

impl Staying {
    /// What it shows next.
    pub(crate) fn next(&mut self) -> serde_json::Value {
        let mut line = String::new();
        self.shown.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// Lets it go on.
    pub(crate) fn go(&mut self) {
        self.told.as_mut().unwrap().write_all(b"go\n").unwrap();
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Staying {
    fn drop(&mut self) {
        drop(self.told.take());
        let ended = self.child.wait().unwrap();
        if !std::thread::panicking() {
            assert!(ended.success(), "the agent failed: {ended}");
        }
    }
}

/// Removes a cgroup and those below it.
fn remove_cgroup(path: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_cgroup(&entry.path())?;
        }
    }
    std::fs::remove_dir(path)
}

impl Drop for Lab {
    fn drop(&mut self) {
        let detached = detach(&self.options);
        let cgroup = &self.options.cgroup;
        let removed = if cgroup.exists() { remove_cgroup(cgroup) } else { Ok(()) };
        run("umount", &[self.directory.path().join("bpf").to_str().unwrap()]);
        if !std::thread::panicking() {
            detached.unwrap();
            removed.unwrap();
        }
    }
}

/// Another host behind a wire, in a network namespace that ends with its sockets: what arrives
/// there has left this one.
#[derive(Debug)]
pub(crate) struct Far {
    /// At [`Far::V4`] and [`Far::V6`].
    pub(crate) sinks: [UdpSocket; 2],
}

impl Far {
    pub(crate) const V4: &str = "203.0.113.7:9999";
    pub(crate) const V6: &str = "[2001:db8::7]:9999";

    /// This side of the wire is `v0` with 198.51.100.1 and 2001:db8:1::1.
    pub(crate) fn start() -> Self {
        let near = rustix::thread::gettid().as_raw_nonzero();
        let far = std::thread::spawn(move || {
            // SAFETY: as in `in_namespaces`.
            unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }.unwrap();
            for line in [
                "link set lo up",
                &format!("link add v1 type veth peer name v0 netns {near}"),
                "link set v1 up",
                "addr add 198.51.100.2/24 dev v1",
                "addr add 2001:db8:1::2/64 dev v1 nodad",
                "addr add 203.0.113.7/32 dev lo",
                "addr add 2001:db8::7/128 dev lo nodad",
            ] {
                run("ip", &line.split(' ').collect::<Vec<_>>());
            }
            [Self::V4, Self::V6].map(|address| UdpSocket::bind(address).unwrap())
        });
        let sinks = far.join().unwrap();
        for line in [
            "link set v0 up",
            "addr add 198.51.100.1/24 brd 198.51.100.255 dev v0",
            "addr add 2001:db8:1::1/64 dev v0 nodad",
            "route add default via 198.51.100.2",
            "-6 route add default via 2001:db8:1::2",
        ] {
            run("ip", &line.split(' ').collect::<Vec<_>>());
        }
        Self { sinks }
    }
}

/// Answers every datagram at an address until told to stop.
#[derive(Debug)]
pub(crate) struct Resolver {
    address: SocketAddr,
    askers: Arc<Mutex<Vec<SocketAddr>>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Resolver {
    pub(crate) fn start(address: SocketAddr) -> Self {
        let socket = UdpSocket::bind(address).unwrap();
        let askers = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&askers);
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 64];
            loop {
                let (length, peer) = socket.recv_from(&mut buffer).unwrap();
                if &buffer[..length] == b"stop" {
                    return;
                }
                seen.lock().unwrap().push(peer);
                socket.send_to(b"answer", peer).unwrap();
            }
        });
        Self { address, askers, thread: Some(thread) }
    }

    /// Where the questions since the last call came from.
    pub(crate) fn askers(&self) -> Vec<AgentEnd> {
        let peers = std::mem::take(&mut *self.askers.lock().unwrap());
        peers.into_iter().map(|peer| AgentEnd { netns: None, peer, door: self.address.port() }).collect()
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        let local = if self.address.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
        UdpSocket::bind(local).unwrap().send_to(b"stop", self.address).unwrap();
        self.thread.take().unwrap().join().unwrap();
    }
}

/// The kernel events, once as many have come as are asked for.
pub(crate) fn events(kernel: &Attached, at_least: usize) -> Vec<KernelEvent> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut receiver = kernel.events().expect("taken once");
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let collect = async {
            let mut events = Vec::new();
            while events.len() < at_least {
                let next = tokio::time::timeout(std::time::Duration::from_secs(10), receiver.recv()).await;
                events.push(next.unwrap_or_else(|_| panic!("only {events:#?}")).expect("open while running"));
            }
            stop.send(()).unwrap();
            events
        };
        let run = kernel.run_events(async {
            let _dropped = stopped.await;
        });
        let (ran, mut events) = tokio::join!(run, collect);
        ran.unwrap();
        while let Ok(event) = receiver.try_recv() {
            events.push(event);
        }
        events
    })
}

static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

#[derive(Clone, Copy, Debug)]
struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LOG.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;
    fn make_writer(&self) -> Self {
        *self
    }
}

fn watch_logs() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_ansi(false)
            .with_writer(Log)
            .finish();
        tracing::subscriber::set_global_default(subscriber).unwrap();
    });
}

/// What tracing has shown.
pub(crate) fn log() -> String {
    let mut text = String::new();
    LOG.lock().unwrap().as_slice().read_to_string(&mut text).unwrap();
    text
}
