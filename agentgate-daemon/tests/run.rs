//! `agentctl run` as people use it: the real binary, a real cgroup, a daemon's control socket in this
//! process. No programs are attached, so this says nothing about traffic.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "run/doctor.rs"]
mod doctor;
#[path = "run/hidden.rs"]
mod hidden;
#[path = "run/trust.rs"]
mod trust;

use std::{
    fs,
    net::{TcpListener, TcpStream},
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown},
        process::ExitStatusExt,
    },
    path::PathBuf,
    process::{Command, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use agentgate::{
    audit::{Audit, AuditOptions, AuditThread},
    config::{Paths, Run},
    control::{
        ControlContext, Door, EnrolError, Enroller, Process, server, socket,
        wire::{GateReport, Hidden},
    },
    kernel::GuardedCgroup,
    launch::OwnCgroups,
    model::{Kind, Record, State, Timestamp},
    reload::{Edit, List, PolicyHandle, PolicyPaths},
    store::{Query, Store},
    tls::Ca,
};
use tokio::sync::watch;

/// A throw-away guarded cgroup, with a bystander beside it; killed and removed on drop.
struct Cgroup {
    parent: PathBuf,
    guarded: GuardedCgroup,
}

/// How much of the hierarchy the daemon sees mounted.
#[derive(Clone, Copy)]
enum Mounted {
    Whole,
    /// As in a container: only what is below the guarded cgroup's parent.
    Part,
}

impl Cgroup {
    fn make(mounted: Mounted) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("agentgate-run-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::SeqCst));
        let parent = GuardedCgroup::find(&name).unwrap();
        let directory = parent.directory().join("agent.slice");
        fs::create_dir_all(&directory).expect("root, and a writable cgroup2 mount");
        fs::create_dir(parent.directory().join("bystander.slice")).unwrap();
        let guarded = match mounted {
            Mounted::Whole => GuardedCgroup::find(directory.to_str().unwrap()).unwrap(),
            // What a bind mount of the parent would show stands at the parent itself.
            Mounted::Part => GuardedCgroup::on_mount(parent.path(), parent.directory(), &directory).unwrap(),
        };
        Self { parent: parent.directory().to_owned(), guarded }
    }

    fn children(&self) -> Vec<String> {
        let entries = fs::read_dir(self.guarded.directory()).unwrap().map(Result::unwrap);
        let directories = entries.filter(|entry| entry.file_type().unwrap().is_dir());
        directories.map(|entry| entry.file_name().into_string().unwrap()).collect()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Kills what a failed test left, also in children (cgroup-v2.rst, "cgroup.kill").
        let _none = fs::write(self.parent.join("cgroup.kill"), "1");
        for child in self.children() {
            let _busy = fs::remove_dir(self.guarded.directory().join(child));
        }
        for below in ["agent.slice", "bystander.slice", ""] {
            let _busy = fs::remove_dir(self.parent.join(below));
        }
    }
}

struct Daemon {
    cgroup: Cgroup,
    dir: tempfile::TempDir,
    agentctl: PathBuf,
    ca: Arc<Ca>,
    store: Arc<Store>,
    drain: watch::Sender<bool>,
    servers: [tokio::task::JoinHandle<()>; 2],
    thread: AuditThread,
}

impl Daemon {
    fn start(group: &str) -> Self {
        Self::seeing(Mounted::Whole, group)
    }

    fn seeing(mounted: Mounted, group: &str) -> Self {
        let cgroup = Cgroup::make(mounted);
        let enroller = OwnCgroups::new(cgroup.guarded.clone());
        Self::with(cgroup, Arc::new(enroller), group)
    }

    fn with(cgroup: Cgroup, enroller: Arc<dyn Enroller>, group: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // The other user of a test must come through to the socket and to the program.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let agentctl = dir.path().join("agentctl");
        fs::copy(env!("CARGO_BIN_EXE_agentctl"), &agentctl).unwrap();
        let paths = Paths::below(dir.path());
        fs::create_dir_all(&paths.run).unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("policy.toml"), "version = 1\n").unwrap();
        let ca = Arc::new(Ca::load_or_create(&at("ca.crt"), &at("ca.key")).unwrap());
        agentgate::launch::trust::write(&paths.bundle, &[], ca.pem()).unwrap();
        let store = Arc::new(Store::open(at("audit.redb")).unwrap());
        let (audit, thread) = Audit::start(Arc::clone(&store), AuditOptions::default());
        let guarded = cgroup.guarded.path().to_owned();
        let context = ControlContext {
            mirror: None,
            policy: PolicyHandle::load(PolicyPaths {
                policy: at("policy.toml"),
                lists: at("lists"),
                mode: at("mode"),
            }),
            audit,
            store: Arc::clone(&store),
            enroller,
            gate: Arc::new(move || GateReport {
                version: "0".into(),
                pid: std::process::id(),
                started: Timestamp(0),
                guarded: guarded.clone(),
                listen: Vec::new(),
                programs: Vec::new(),
                layers: None,
                lost_events: 0,
                unbooked: 0,
                counters: Vec::new(),
                connections: 0,
                dashboard: None,
                draining: false,
                checkpoints: Vec::new(),
            }),
            books: None,
            ca_pem: "".into(),
            bundle: paths.bundle.clone(),
            system_bundle: true,
            hidden: Hidden {
                places: Run::default().hide,
                sockets: vec![paths.control_socket.clone(), paths.enrol_socket.clone()],
            },
            guarded: cgroup.guarded.clone(),
            dashboard: None,
        };
        let doors = [
            (Door::Steering, socket::bind_control(&paths.control_socket, group).unwrap()),
            (Door::Enrolment, socket::bind_enrol(&paths.enrol_socket).unwrap()),
        ];
        let (drain, draining) = watch::channel(false);
        let context = Arc::new(context);
        let servers = doors.map(|(door, listener)| {
            tokio::spawn(server::serve(door, listener, Arc::clone(&context), draining.clone()))
        });
        Self { cgroup, dir, agentctl, ca, store, drain, servers, thread }
    }

    fn agentctl(&self) -> Command {
        let mut command = Command::new(&self.agentctl);
        command.arg("--root").arg(self.dir.path()).stdin(Stdio::null());
        command
    }

    /// `agentctl run -- words`.
    async fn run(&self, words: &[&str]) -> Output {
        self.run_with(&[], words).await
    }

    /// `agentctl run flags -- words`.
    async fn run_with(&self, flags: &[&str], words: &[&str]) -> Output {
        let mut command = self.agentctl();
        command.arg("run").args(flags).arg("--").args(words);
        output(command).await
    }

    /// Returns the records, newest first, when the last of them is written.
    async fn stop(self) -> Vec<Record> {
        self.drain.send_replace(true);
        for server in self.servers {
            server.await.unwrap();
        }
        self.thread.drain(Duration::from_secs(5)).await;
        self.store.query(&Query { limit: 100, ..Query::default() }).unwrap().records
    }
}

/// Runs off the runtime, whose threads serve the socket.
async fn output(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn cgroup_line(output: &Output) -> String {
    let text = text(&output.stdout);
    text.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root; run by cargo xtask test"]
async fn a_command_runs_in_a_fresh_child_of_the_guarded_cgroup() {
    let daemon = Daemon::start("");
    let mut seen = Vec::new();
    for _ in 0..2 {
        let output = daemon.run(&["cat", "/proc/self/cgroup"]).await;
        assert!(output.status.success(), "{output:?}");
        let cgroup = cgroup_line(&output);
        let below = format!("{}/run-", daemon.cgroup.guarded.path());
        assert!(cgroup.starts_with(&below) && cgroup.ends_with(".scope"), "{cgroup}");
        seen.push(cgroup);
    }
    assert_ne!(seen[0], seen[1]);
    // The first was empty when the second was made.
    assert_eq!(daemon.cgroup.children().len(), 1);
    // This process stayed where it was.
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    assert!(!own.contains(daemon.cgroup.guarded.path()));
    // Children are inside with their parent.
    let child = daemon.run(&["sh", "-c", "cat /proc/self/cgroup; true"]).await;
    assert!(cgroup_line(&child).starts_with(daemon.cgroup.guarded.path()), "{child:?}");
    let records = daemon.stop().await;
    assert_eq!(records.len(), 3);
    assert!(records.iter().all(|r| (r.kind, r.state) == (Kind::Control, State::Done)));
    assert!(
        records.iter().all(|r| { r.note.as_deref().is_some_and(|n| n.starts_with("enrol, by uid 0 (pid ")) })
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root; run by cargo xtask test"]
async fn exit_codes_are_the_commands() {
    let daemon = Daemon::start("");
    let plain = daemon.dir.path().join("plain");
    fs::write(&plain, "not a program").unwrap();
    let rows: [(&[&str], Option<i32>); 6] = [
        (&["true"], Some(0)),
        (&["sh", "-c", "exit 7"], Some(7)),
        (&["sh", "-c", "exit 125"], Some(125)),
        (&["agentgate-no-such-command"], Some(127)),
        (&["/nonexistent/x"], Some(127)),
        (&[plain.to_str().unwrap()], Some(126)),
    ];
    for (words, expect) in rows {
        let output = daemon.run(words).await;
        assert_eq!(output.status.code(), expect, "{words:?} {output:?}");
    }
    let killed = daemon.run(&["sh", "-c", "kill -9 $$"]).await;
    assert_eq!(killed.status.signal(), Some(9));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root; run by cargo xtask test"]
async fn the_environment_points_at_the_bundle_and_at_no_proxy() {
    let daemon = Daemon::start("");
    let run = |flags: &[&str]| {
        let mut command = daemon.agentctl();
        command.arg("run").args(flags).args(["--", "env"]);
        // Not those of whoever runs the tests.
        command.env_clear().env("PATH", "/usr/bin:/bin").env("KEPT", "yes");
        command.env("HTTPS_PROXY", "http://127.0.0.1:1").env("SSL_CERT_FILE", "/mine.pem");
        output(command)
    };
    let plain = run(&[]).await;
    let run_dir = Paths::below(daemon.dir.path()).run;
    let variables = text(&plain.stdout);
    for (name, file) in [
        ("SSL_CERT_FILE", "ca-bundle.pem"),
        ("REQUESTS_CA_BUNDLE", "ca-bundle.pem"),
        ("AWS_CA_BUNDLE", "ca-bundle.pem"),
        ("GIT_SSL_CAINFO", "ca-bundle.pem"),
        ("NODE_EXTRA_CA_CERTS", "ca.pem"),
        // As root the system's own are as they are, Java's too.
        ("JAVA_TOOL_OPTIONS", "cacerts"),
    ] {
        let expect = match name {
            "JAVA_TOOL_OPTIONS" => {
                format!("{name}=-Djavax.net.ssl.trustStore={}", run_dir.join(file).display())
            }
            _ => format!("{name}={}", run_dir.join(file).display()),
        };
        assert!(variables.lines().any(|line| line == expect), "{expect}: {variables}");
    }
    assert!(variables.contains("KEPT=yes") && !variables.contains("HTTPS_PROXY"), "{variables}");
    let said = text(&plain.stderr);
    assert!(
        said.contains("SSL_CERT_FILE is left out: /mine.pem: No such")
            && said.contains("HTTPS_PROXY removed"),
        "{said}"
    );
    let quiet = run(&["--quiet", "--keep-proxy-env"]).await;
    assert!(text(&quiet.stdout).contains("HTTPS_PROXY=http://127.0.0.1:1"));
    assert!(quiet.stderr.is_empty(), "{quiet:?}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root; run by cargo xtask test"]
async fn another_user_runs_as_that_user_and_steers_if_in_the_group() {
    let groups = fs::read_to_string("/etc/group").unwrap();
    let fields = groups.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let (group, gid) = fields
        .filter_map(|fields| Some(((*fields.first()?).to_owned(), (*fields.get(2)?).to_owned())))
        .find(|(_, gid)| gid != "0")
        .expect("a group other than root's");
    let daemon = Daemon::start(&group);
    let run = |gid: &str, words: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", &format!("--regid={gid}"), "--clear-groups", "--"]);
        command.arg(&daemon.agentctl).arg("--root").arg(daemon.dir.path()).args(words);
        output(command)
    };
    // Whoever steers is in the group; whoever runs need not be.
    for gid in [gid.as_str(), "65533"] {
        let inside = run(gid, &["run", "--", "sh", "-c", "id -u; id -g; cat /proc/self/cgroup"]).await;
        assert!(inside.status.success(), "{inside:?}");
        assert!(text(&inside.stdout).starts_with(&format!("65534\n{gid}\n")), "{inside:?}");
        assert!(cgroup_line(&inside).starts_with(&format!("{}/run-", daemon.cgroup.guarded.path())));
        assert!(run(gid, &["ca", "export"]).await.status.success());
    }
    assert_eq!(text(&run(&gid, &["mode"]).await.stdout), "enforce\n");
    let stranger = run("65533", &["mode"]).await;
    assert_eq!(stranger.status.code(), Some(3), "{stranger:?}");
    assert!(text(&stranger.stderr).contains("join the group agentgate"), "{stranger:?}");
    // Nor does the other socket steer for them.
    let enrol = Paths::below(daemon.dir.path()).enrol_socket;
    let around = run("65533", &["--socket", enrol.to_str().unwrap(), "mode", "audit"]).await;
    assert_eq!(around.status.code(), Some(1), "{around:?}");
    assert!(text(&around.stderr).contains("does not answer this"), "{around:?}");
    assert_eq!(text(&run(&gid, &["mode"]).await.stdout), "enforce\n");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root; run by cargo xtask test"]
async fn a_guarded_process_cannot_steer_the_gate() {
    cannot_steer(Daemon::start("")).await;
}

/// Where `/proc/PID/cgroup` shows more of the path than the mount point does, guarded processes were not
/// known for what they are.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root; run by cargo xtask test"]
async fn a_guarded_process_cannot_steer_a_gate_that_sees_a_part_of_the_hierarchy() {
    cannot_steer(Daemon::seeing(Mounted::Part, "")).await;
}

async fn cannot_steer(daemon: Daemon) {
    let (agentctl, root) = (daemon.agentctl.to_str().unwrap(), daemon.dir.path().to_str().unwrap());
    for words in [vec!["status"], vec!["mode", "audit"], vec!["allow", "a.example.com"], vec!["ca", "export"]]
    {
        let words = [&[agentctl, "--root", root], &words[..]].concat();
        // The sockets are hidden; and where they are not, they answer no agent.
        let hidden = daemon.run(&words).await;
        assert_eq!(hidden.status.code(), Some(3), "{words:?} {hidden:?}");
        let output = daemon.run_with(&["--expose", "all"], &words).await;
        assert_eq!(output.status.code(), Some(1), "{words:?} {output:?}");
        assert!(text(&output.stderr).contains("under guard"), "{output:?}");
    }
    assert!(!daemon.dir.path().join("mode").exists());
    // Outside, the same works.
    let mut mode = daemon.agentctl();
    mode.args(["mode", "audit"]);
    let outside = output(mode).await;
    assert_eq!(text(&outside.stdout), "audit\n");
    let records = daemon.stop().await;
    assert_eq!(records.iter().filter(|record| record.state == State::Refused).count(), 4);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root; run by cargo xtask test"]
async fn no_descriptor_but_the_first_three_is_inherited_and_no_network_socket() {
    let daemon = Daemon::start("");
    let (agentctl, root) = (daemon.agentctl.display(), daemon.dir.path().display());
    // The shell has 9 open, and what it becomes has not.
    let script = format!(
        "exec 9</etc/passwd; test -e /proc/self/fd/9 || exit 3; \
         exec {agentctl} --root {root} run -- sh -c 'test ! -e /proc/$$/fd/9'"
    );
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]);
    let inherited = output(shell).await;
    assert_eq!(inherited.status.code(), Some(0), "{inherited:?}");

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connected = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let mut command = daemon.agentctl();
    command.args(["run", "--", "echo", "ran"]).stdin(Stdio::from(std::os::fd::OwnedFd::from(connected)));
    let refused = output(command).await;
    assert_eq!(refused.status.code(), Some(125), "{refused:?}");
    assert!(refused.stdout.is_empty() && text(&refused.stderr).contains("descriptor 0 is a network socket"));
    daemon.stop().await;
}

/// Says that it moved the process, and does not.
#[derive(Debug)]
struct Lying(String);

impl Enroller for Lying {
    fn enrol(&self, process: &Process) -> Result<String, EnrolError> {
        Ok(format!("{}/run-{}-0.scope", self.0, process.pid()))
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root; run by cargo xtask test"]
async fn nothing_runs_that_does_not_see_itself_inside() {
    let cgroup = Cgroup::make(Mounted::Whole);
    let lying = Lying(cgroup.guarded.path().to_owned());
    let daemon = Daemon::with(cgroup, Arc::new(lying), "");
    let output = daemon.run(&["echo", "ran"]).await;
    assert_eq!(output.status.code(), Some(125), "{output:?}");
    assert!(output.stdout.is_empty() && text(&output.stderr).contains("not under guard"), "{output:?}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root; run by cargo xtask test"]
async fn scopes_go_when_empty_and_stay_while_in_use() {
    let daemon = Daemon::start("");
    let mut running = daemon.agentctl();
    running.args(["run", "--", "sh", "-c", "echo up; read line"]);
    let mut running = running.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut up = [0; 3];
    let stdout = running.stdout.as_mut().unwrap();
    tokio::task::block_in_place(|| std::io::Read::read_exact(stdout, &mut up)).unwrap();
    let busy = daemon.cgroup.children();
    assert_eq!(busy.len(), 1);
    let sweeper = OwnCgroups::new(daemon.cgroup.guarded.clone());
    assert_eq!(sweeper.sweep().unwrap(), 0);
    assert_eq!(daemon.cgroup.children(), busy);
    drop(running.stdin.take());
    tokio::task::block_in_place(|| running.wait()).unwrap();
    assert_eq!(sweeper.sweep().unwrap(), 1);
    assert!(daemon.cgroup.children().is_empty());
    daemon.stop().await;
}

/// Runs `words` under guard or not, with a fresh terminal as standard input.
#[expect(unsafe_code, reason = "openpty(3) has no wrapper in the crates in use")]
async fn on_a_terminal(mut command: Command, words: &[&str]) -> Output {
    use std::os::fd::{FromRawFd, OwnedFd};
    let (mut master, mut slave) = (-1, -1);
    let (name, termios, size) = (std::ptr::null_mut(), std::ptr::null(), std::ptr::null());
    // SAFETY: both descriptors are live for the call, and null asks for the defaults (openpty(3)).
    let made = unsafe { libc::openpty(&raw mut master, &raw mut slave, name, termios, size) };
    assert_eq!(made, 0, "{}", std::io::Error::last_os_error());
    // SAFETY: openpty(3) has just made them and nobody else owns them.
    let (_master, slave) = unsafe { (OwnedFd::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) };
    command.args(words).stdin(Stdio::from(slave));
    output(command).await
}

/// An agent could put commands into the terminal, which the unguarded shell then ran.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root; run by cargo xtask test"]
async fn a_command_cannot_type_into_its_terminal() {
    const SCRIPT: &str = "import fcntl, re, termios\n\
        for command, argument in ((0x5412, b'x'), (0x541c, b'\\2')):\n\
        \x20   try:\n\
        \x20       print(fcntl.ioctl(0, command, argument))\n\
        \x20   except OSError as error:\n\
        \x20       print(error.errno)\n\
        print(len(termios.tcgetattr(0)))\n\
        status = open('/proc/self/status').read()\n\
        print(re.search('NoNewPrivs:\\\\s*(.)', status)[1])\n";
    let daemon = Daemon::start("");
    // Outside: root may type, and a pty knows no TIOCLINUX. So it is the filter that answers inside.
    let outside = on_a_terminal(Command::new("python3"), &["-c", SCRIPT]).await;
    assert_eq!(text(&outside.stdout), format!("b'x'\n{}\n7\n0\n", libc::ENOTTY), "{outside:?}");
    for (flags, new_privileges) in [(&["--quiet"][..], 1), (&["--quiet", "--allow-new-privileges"], 0)] {
        let words = [&["run"], flags, &["--", "python3", "-c", SCRIPT]].concat();
        let inside = on_a_terminal(daemon.agentctl(), &words).await;
        let refused = libc::EPERM;
        let expect = format!("{refused}\n{refused}\n7\n{new_privileges}\n");
        assert_eq!(text(&inside.stdout), expect, "{flags:?} {inside:?}");
        assert_eq!(text(&inside.stderr).contains("more than you have"), new_privileges == 0, "{inside:?}");
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root; run by cargo xtask test"]
async fn what_protects_less_is_said() {
    let daemon = Daemon::start("");
    let run = |uid: &str, flags: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args([&format!("--reuid={uid}"), "--clear-groups", "--"]);
        command.arg(&daemon.agentctl).arg("--root").arg(daemon.dir.path()).arg("run").args(flags);
        command.args(["--", "grep", "^Seccomp:", "/proc/self/status"]);
        command.env_clear().env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
        output(command)
    };
    let rows: [(&str, &[&str], &str, &[&str]); 5] = [
        ("0", &[], "2", &["runs as root"]),
        ("0", &["--quiet"], "2", &[]),
        ("65534", &[], "2", &[]),
        ("0", &["--allow-new-privileges"], "2", &["runs as root", "more than you have"]),
        // Nobody but root gets a filter then, and quiet does not hide that.
        (
            "65534",
            &["--quiet", "--allow-new-privileges", "--expose", "all"],
            "0",
            &["sees the sockets of docker", "more than you have, and it can type into"],
        ),
    ];
    let neither = run("65534", &["--allow-new-privileges"]).await;
    assert_eq!(neither.status.code(), Some(125), "{neither:?}");
    assert!(neither.stdout.is_empty() && text(&neither.stderr).contains("add --expose all"), "{neither:?}");
    for (uid, flags, seccomp, said) in rows {
        let output = run(uid, flags).await;
        assert_eq!(text(&output.stdout), format!("Seccomp:\t{seccomp}\n"), "{uid} {flags:?} {output:?}");
        let lines = text(&output.stderr);
        assert_eq!(lines.lines().count(), said.len(), "{lines}");
        assert!(said.iter().all(|part| lines.contains(part)), "{uid} {flags:?}: {lines}");
    }
    daemon.stop().await;
}

/// The daemon has CAP_CHOWN, and neither CAP_FOWNER nor the right to read every file.
#[test]
#[ignore = "needs root; run by cargo xtask test"]
fn lists_of_another_user_are_edited_with_the_daemons_capabilities() {
    let dir = tempfile::tempdir().unwrap();
    let (lists, policy) = (dir.path().join("lists"), dir.path().join("policy.toml"));
    fs::create_dir(&lists).unwrap();
    fs::write(&policy, "version = 1\n").unwrap();
    let list = |name: &str, mode: u32| {
        let path = lists.join(name);
        fs::write(&path, "a.example\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        chown(&path, Some(65534), Some(65533)).unwrap();
        path
    };
    let allow = list("allow.txt", 0o644);
    let handle =
        PolicyHandle::load(PolicyPaths { policy, lists: lists.clone(), mode: dir.path().join("mode") });
    let edit = |name: List| {
        // Capabilities are the thread's own.
        std::thread::scope(|scope| {
            let edit = scope.spawn(|| {
                let mut sets = rustix::thread::capabilities(None).unwrap();
                sets.effective = rustix::thread::CapabilitySet::CHOWN;
                rustix::thread::set_capabilities(None, sets).unwrap();
                handle.edit_list(name, Edit::Add, "b.example")
            });
            edit.join().unwrap()
        })
    };
    assert!(edit(List::Allow).unwrap());
    let after = fs::metadata(&allow).unwrap();
    assert_eq!((after.uid(), after.gid(), after.mode() & 0o7777), (65534, 65533, 0o644));
    assert_eq!(fs::read_to_string(&allow).unwrap(), "a.example\nb.example\n");

    let deny = list("deny.txt", 0o600);
    let error = edit(List::Deny).unwrap_err().to_string();
    let place = deny.display();
    let expect = format!("{place}: the daemon may not read it: it belongs to uid 65534 with mode 0600; ");
    assert!(error.starts_with(&expect), "{error}");
    assert_eq!(fs::read_to_string(&deny).unwrap(), "a.example\n");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root; run by cargo xtask test"]
async fn a_broken_policy_shows_in_exit_codes() {
    let daemon = Daemon::start("");
    let ask = async |words: &[&str]| {
        let mut command = daemon.agentctl();
        command.args(words);
        output(command).await
    };
    assert_eq!(ask(&["policy", "reload"]).await.status.code(), Some(0));
    assert_eq!(ask(&["status", "--check"]).await.status.code(), Some(0));
    fs::write(daemon.dir.path().join("policy.toml"), "version = 1\nmodes = 2\n").unwrap();
    let reload = ask(&["policy", "reload"]).await;
    assert_eq!(reload.status.code(), Some(2), "{reload:?}");
    assert!(text(&reload.stderr).contains("policy.toml:2:1"), "{reload:?}");
    for (words, expect) in
        [(&["status"][..], 0), (&["status", "--check"], 1), (&["status", "--check", "--json"], 1)]
    {
        let status = ask(words).await;
        assert_eq!(status.status.code(), Some(expect), "{status:?}");
        assert!(text(&status.stdout).contains("policy.toml:2:1"), "{status:?}");
    }
    daemon.stop().await;
}
