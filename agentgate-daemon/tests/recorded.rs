//! The record as the running daemon keeps it and sends it on: the real programs on a throw-away cgroup.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpListener,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Arc, mpsc},
    time::Duration,
};

use agentgate::kernel::GuardedCgroup;
use rustix::process::{Pid, Signal, kill_process};

const PATIENCE: Duration = Duration::from_secs(60);

/// A gate on a cgroup and in a directory of its own; gone with everything it made on drop.
struct Gate {
    name: String,
    cgroup: PathBuf,
    pins: PathBuf,
    dir: tempfile::TempDir,
    child: Option<Child>,
    told: UnixDatagram,
}

impl Gate {
    fn new(test: &str, settings: &str) -> Self {
        let name = format!("agentgate-{test}-{}", std::process::id());
        let cgroup = GuardedCgroup::find(&name).unwrap().directory().to_owned();
        let pins = Path::new("/sys/fs/bpf").join(&name);
        let dir = tempfile::tempdir().unwrap();
        let text = format!(
            "[gate]\ncgroup = \"{name}\"\nlisten_port = 0\npin_dir = \"{}\"\n[dns]\nlisten_port = 0\nresolvers = \
             [\"127.0.0.1:9\"]\n[dashboard]\nenabled = false\n[control]\ngroup = \"root\"\n{settings}",
            pins.display()
        );
        fs::write(dir.path().join("agentgate.toml"), text).unwrap();
        fs::create_dir_all(dir.path().join("etc/agentgate")).unwrap();
        fs::write(dir.path().join("etc/agentgate/policy.toml"), "version = 1\n").unwrap();
        let told = UnixDatagram::bind(dir.path().join("notify")).unwrap();
        told.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { name, cgroup, pins, dir, child: None, told }
    }

    fn start(&mut self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_agentgated"));
        command
            .arg("--root")
            .arg(self.dir.path())
            .arg("--config")
            .arg(self.dir.path().join("agentgate.toml"));
        command.env("NOTIFY_SOCKET", self.dir.path().join("notify")).stdin(Stdio::null());
        self.child = Some(command.spawn().unwrap());
        let mut state = [0; 256];
        loop {
            let length = self.told.recv(&mut state).expect("the daemon comes up within a minute");
            if state[..length].starts_with(b"READY=1") {
                return;
            }
        }
    }

    /// Ends the daemon by this signal, and waits for it.
    fn end(&mut self, signal: Signal) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        send(&child, signal);
        child.wait().unwrap()
    }

    fn agentctl(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_agentctl"));
        command.arg("--root").arg(self.dir.path()).args(words).stdin(Stdio::null());
        command
    }

    /// The same by env(1), which says what its signals do whatever they do here.
    fn heeding(&self, signals: &str, words: &[&str]) -> Command {
        let mut command = Command::new("env");
        command.arg(signals).arg(env!("CARGO_BIN_EXE_agentctl")).arg("--root").arg(self.dir.path());
        command.args(words).stdin(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        self.agentctl(words).output().unwrap()
    }

    /// Makes a record: of a host that is let through, or not any more.
    fn record(&self, number: usize) {
        let host = format!("host{number}.example.com");
        let output = self.run(&["allow", &host]);
        assert!(output.status.success(), "{}: {output:?}", self.name);
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    fn store(&self) -> PathBuf {
        self.dir.path().join("var/lib/agentgate/audit.redb")
    }

    fn key(&self) -> String {
        self.store().with_extension("pub").to_str().unwrap().to_owned()
    }

    /// The verdict of both verifiers of an export, which is one.
    fn is_whole(&self, export: &str) -> bool {
        let ours = self.run(&["audit", "verify", "--key", &self.key(), export]);
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/verifier/verify.py");
        let mut theirs = Command::new("python3");
        theirs.arg("-B").arg(script).args(["--key", &self.key(), export]);
        let theirs = theirs.output().unwrap();
        assert_eq!(ours.status.code(), theirs.status.code(), "{ours:?} {theirs:?}");
        ours.status.success()
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _gone = child.kill();
            let _gone = child.wait();
        }
        let _none = fs::remove_dir_all(&self.pins);
        for scope in fs::read_dir(&self.cgroup).into_iter().flatten().flatten() {
            let _file = fs::remove_dir(scope.path());
        }
        let _none = fs::remove_dir(&self.cgroup);
    }
}

fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// Returns when the file has so many lines that hold `what`.
fn wait_for(path: &str, what: &str, count: usize) {
    let until = std::time::Instant::now() + PATIENCE;
    loop {
        let text = fs::read_to_string(path).unwrap_or_default();
        if text.lines().filter(|line| line.contains(what)).count() >= count {
            return;
        }
        assert!(std::time::Instant::now() < until, "{what} is not in {path} {count} times:\n{text}");
        #[expect(
            clippy::disallowed_methods,
            reason = "another process writes the file: there is nothing to wait on"
        )]
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn lines(path: &str, what: &str) -> usize {
    fs::read_to_string(path).unwrap().lines().filter(|line| line.contains(what)).count()
}

/// An export that follows is closed by whatever ends it, and gone on with as often as one likes: it is one export,
/// whole to both verifiers each time, so that each entry is in it once.
#[test]
#[ignore = "needs root; run by cargo xtask test"]
fn an_export_that_follows_is_closed_and_gone_on_with() {
    let mut gate = Gate::new("followed", "");
    gate.start();
    let export = gate.path("log.jsonl");
    let follow = ["audit", "export", "--follow", "--resume", "-o", &export];
    let mut number = 0;
    for ending in [Signal::INT, Signal::TERM, Signal::HUP] {
        let following = gate.heeding("--default-signal=INT,TERM,HUP", &follow).spawn().unwrap();
        for _ in 0..3 {
            number += 1;
            gate.record(number);
        }
        wait_for(&export, &format!("host{number}.example.com"), 1);
        send(&following, ending);
        assert!({ following }.wait().unwrap().success());
        assert!(gate.is_whole(&export), "{ending:?}");
        assert_eq!(lines(&export, "\"type\":\"end\""), 1);
    }
    // As nohup(1) starts it, it goes on after a hangup.
    let following = gate.heeding("--ignore-signal=HUP", &follow).spawn().unwrap();
    for _ in 0..2 {
        number += 1;
        gate.record(number);
        wait_for(&export, &format!("host{number}.example.com"), 1);
        send(&following, Signal::HUP);
    }
    send(&following, Signal::TERM);
    assert!({ following }.wait().unwrap().success());
    assert!(gate.is_whole(&export));
    // The daemon stops, and is killed.
    for (ending, status) in [(Signal::TERM, 0), (Signal::KILL, 3)] {
        let mut following = gate.agentctl(&follow).stderr(Stdio::null()).spawn().unwrap();
        number += 1;
        gate.record(number);
        wait_for(&export, &format!("host{number}.example.com"), 1);
        gate.end(ending);
        assert_eq!(following.wait().unwrap().code(), Some(status), "{ending:?}");
        assert!(gate.is_whole(&export), "{ending:?}");
        gate.start();
    }
    // What follows is killed, half a line is left, and the key is changed.
    let mut following = gate.agentctl(&follow).stderr(Stdio::null()).spawn().unwrap();
    number += 1;
    gate.record(number);
    wait_for(&export, &format!("host{number}.example.com"), 1);
    following.kill().unwrap();
    following.wait().unwrap();
    assert!(!gate.is_whole(&export), "it has no end");
    let first_key = fs::read_to_string(gate.key()).unwrap();
    assert!(gate.run(&["audit", "rotate-key"]).status.success());
    number += 1;
    gate.record(number);
    fs::OpenOptions::new().append(true).open(&export).unwrap().write_all(b"{\"type\":\"ent").unwrap();
    let output = gate.run(&["audit", "export", "--resume", "-o", &export]);
    assert!(output.status.success(), "{output:?}");
    fs::write(gate.key(), first_key).unwrap();
    assert!(gate.is_whole(&export));
    for number in 1..=number {
        assert!(lines(&export, &format!("host{number}.example.com")) > 0, "{number}");
    }
    // By the store alone, once the daemon is stopped.
    assert!(gate.end(Signal::TERM).success());
    let store = gate.store().to_str().unwrap().to_owned();
    let output = gate.run(&["audit", "export", "--store", &store, "--resume", "-o", &export]);
    assert!(output.status.success(), "{output:?}");
    assert!(gate.is_whole(&export));
    // Of other records it is another export.
    let output = gate.run(&["audit", "export", "--store", &store, "--resume", "-o", &export, "kind:control"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(gate.is_whole(&export));
}

/// The forms that are lines go on behind what is whole of them, each record once.
#[test]
#[ignore = "needs root; run by cargo xtask test"]
fn other_lines_are_gone_on_with_too() {
    let mut gate = Gate::new("resumed", "");
    gate.start();
    for (format, plain) in [("jsonl", true), ("csv", false), ("ocsf", false)] {
        let export = gate.path(&format!("log.{format}"));
        let mut words =
            vec!["audit", "export", "--resume", "-o", &export, "--format", format, "kind:control"];
        words.extend(plain.then_some("--plain"));
        let follow: Vec<&str> = words.iter().copied().chain(["--follow"]).collect();
        for round in 0..2 {
            let host = format!("{format}-{round}.example.com");
            let mut following = gate.agentctl(&follow).stderr(Stdio::null()).spawn().unwrap();
            assert!(gate.run(&["allow", &host]).status.success());
            wait_for(&export, &host, 1);
            if round == 0 {
                following.kill().unwrap();
                following.wait().unwrap();
                let mut file = fs::OpenOptions::new().append(true).open(&export).unwrap();
                file.write_all(b"half a li").unwrap();
            } else {
                send(&following, Signal::TERM);
                assert!(following.wait().unwrap().success());
            }
        }
        let output = gate.run(&words);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(lines(&export, "half a li"), 0);
        for round in 0..2 {
            assert_eq!(lines(&export, &format!("{format}-{round}.example.com")), 1, "{format}");
        }
        assert_eq!(lines(&export, "entry,id,"), usize::from(format == "csv"));
        // Where the cursor is lost it is not known how much is there.
        fs::remove_file(format!("{export}.cursor")).unwrap();
        assert_eq!(gate.run(&words).status.code(), Some(2));
    }
}

/// Takes what is posted to it, over TLS by the key and certificate of these files.
fn webhook(certificate: &str, key: &str) -> (u16, mpsc::Receiver<String>) {
    use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
    let certificate = CertificateDer::from_pem_file(certificate).unwrap();
    let key = PrivateKeyDer::from_pem_file(key).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.unwrap().with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            let connection = rustls::ServerConnection::new(config.clone()).unwrap();
            let mut stream = BufReader::new(rustls::StreamOwned::new(connection, stream));
            let mut length = 0;
            loop {
                let mut line = String::new();
                if stream.read_line(&mut line).unwrap_or(0) <= 2 {
                    break;
                }
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).unwrap();
            let answer = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
            stream.get_mut().write_all(answer).unwrap();
            stream.get_mut().conn.send_close_notify();
            let _closed = stream.get_mut().flush();
            if tell.send(String::from_utf8(body).unwrap()).is_err() {
                return;
            }
        }
    });
    (port, told)
}

/// Who kept what the daemon sent tells that the log was put back to an earlier state, however well signed that is.
#[test]
#[ignore = "needs root; run by cargo xtask test"]
fn a_log_that_was_put_back_is_told_by_what_was_sent_elsewhere() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let keys = tempfile::tempdir().unwrap();
    let at = |name: &str| keys.path().join(name).to_str().unwrap().to_owned();
    fs::write(at("hook.crt"), made.cert.pem()).unwrap();
    fs::write(at("hook.key"), made.signing_key.serialize_pem()).unwrap();
    let (port, told) = webhook(&at("hook.crt"), &at("hook.key"));
    let kept = at("kept.jsonl");
    let settings = format!(
        "[tls]\nextra_roots = \"{}\"\n[audit.checkpoints]\nfile = \"{kept}\"\nwebhook = \
         \"https://localhost:{port}/checkpoints\"\nevery = 1\n",
        at("hook.crt")
    );
    let mut gate = Gate::new("anchored", &settings);
    gate.start();
    gate.record(1);
    wait_for(&kept, "\"type\":\"checkpoint\"", 1);
    let mut posted = told.recv_timeout(PATIENCE).unwrap();
    // What is copied now is put back later.
    assert!(gate.run(&["audit", "backup", &gate.path("earlier.redb")]).status.success());
    for number in 2..=5 {
        gate.record(number);
    }
    assert!(gate.end(Signal::TERM).success());
    // The last of both is the end of the log, sent as the daemon stopped.
    let last = |path: &str| fs::read_to_string(path).unwrap().lines().last().unwrap().to_owned();
    while !posted.contains(&last(&kept)) {
        posted.push_str(&told.recv_timeout(PATIENCE).unwrap());
    }
    let hook = at("posted.jsonl");
    fs::write(&hook, &posted).unwrap();
    let verify = |file: &str, checkpoints: &str| {
        gate.run(&["--json", "audit", "verify", "--key", &gate.key(), "--checkpoints", checkpoints, file])
    };
    let store = gate.store().to_str().unwrap().to_owned();
    for checkpoints in [&kept, &hook] {
        let whole = verify(&store, checkpoints);
        assert!(whole.status.success(), "{checkpoints}: {whole:?}");
        assert!(lines(checkpoints, "\"type\":\"checkpoint\"") >= 2);
    }
    fs::remove_file(&store).unwrap();
    fs::remove_file(gate.store().with_extension("journal")).unwrap();
    fs::copy(gate.path("earlier.redb"), &store).unwrap();
    let alone = gate.run(&["audit", "verify", "--key", &gate.key(), &store]);
    assert!(alone.status.success(), "by itself it is whole: {alone:?}");
    for checkpoints in [&kept, &hook] {
        let cut = verify(&store, checkpoints);
        assert_eq!(cut.status.code(), Some(1), "{cut:?}");
        assert!(String::from_utf8_lossy(&cut.stdout).contains("\"truncated\""), "{cut:?}");
    }
}
