//! The `agentgated` under test: settings, start, readiness, and what it records.

use std::{
    fs, io,
    net::IpAddr,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Duration,
};

use super::{
    SelftestError,
    orders::{ALLOWED, DASHBOARD_PORT, DNS_PORT, LISTENER_PORT, RESOLVER_V4, RESOLVER_V6, TUNNEL, run_of},
    place, step,
    sys::process,
};
use crate::{
    control::{
        client::{Client, ClientError},
        wire::{Item, LogFilter, Request},
    },
    model::Record,
};

/// From start to READY=1: loading programs and opening a store take well under a second; a debug build on
/// a busy machine takes more.
const START: Duration = Duration::from_secs(60);
/// Lines of the daemon's log in a message.
const TAIL: usize = 30;

/// The running daemon. Killed when dropped.
#[derive(Debug)]
pub(super) struct Daemon {
    child: Child,
    root: PathBuf,
    log: PathBuf,
    /// Kept open, because the daemon also tells of its end.
    _notify: UnixDatagram,
}

impl Daemon {
    /// Starts it for the guarded cgroup and waits until it is ready.
    pub(super) fn start(program: &Path, cgroup: &Path, directory: &Path) -> Result<Self, SelftestError> {
        let root = directory.join("root");
        let etc = root.join("etc/agentgate");
        fs::create_dir_all(etc.join("lists")).map_err(step("the daemon's directories"))?;
        fs::write(etc.join("agentgate.toml"), settings(cgroup, directory)).map_err(step("its settings"))?;
        fs::write(etc.join("policy.toml"), policy()).map_err(step("its policy"))?;
        let socket = directory.join("notify.sock");
        let notify = UnixDatagram::bind(&socket).map_err(step("the readiness socket"))?;
        notify.set_read_timeout(Some(Duration::from_millis(100))).map_err(step("the readiness socket"))?;
        let log = directory.join("agentgated.log");
        let writer = fs::File::create(&log).map_err(step("its log"))?;
        let errors = writer.try_clone().map_err(step("its log"))?;
        let mut command = Command::new(program);
        command.arg("--root").arg(&root).env("NOTIFY_SOCKET", &socket);
        command.stdin(Stdio::null()).stdout(writer).stderr(errors);
        let child = process::spawn(&mut command).map_err(step(program.display().to_string()))?;
        let mut daemon = Self { child, root, log, _notify: notify };
        daemon.wait_until_ready()?;
        Ok(daemon)
    }

    fn wait_until_ready(&mut self) -> Result<(), SelftestError> {
        let deadline = std::time::Instant::now() + START;
        let mut buffer = [0; 4096];
        loop {
            match self._notify.recv(&mut buffer) {
                Ok(length) => {
                    let text = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
                    if text.lines().any(|line| line == "READY=1") {
                        return Ok(());
                    }
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                }
                Err(error) => return Err(step("the readiness socket")(error)),
            }
            if let Some(status) = self.child.try_wait().map_err(step("agentgated"))? {
                return Err(SelftestError::Daemon(format!("it ended with {status}\n{}", self.tail())));
            }
            if std::time::Instant::now() > deadline {
                return Err(SelftestError::Daemon(format!("not ready after {START:?}\n{}", self.tail())));
            }
        }
    }

    /// What `--root` names.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Whether it still runs; the end of its log where it does not.
    pub(super) fn check(&mut self) -> Result<(), SelftestError> {
        match self.child.try_wait().map_err(step("agentgated"))? {
            None => Ok(()),
            Some(status) => {
                Err(SelftestError::Daemon(format!("it ended during the test with {status}\n{}", self.tail())))
            }
        }
    }

    /// The end of its log.
    pub(super) fn tail(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_else(|error| format!("no log: {error}"));
        let lines: Vec<&str> = text.lines().collect();
        lines.get(lines.len().saturating_sub(TAIL)..).unwrap_or_default().join("\n")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Its cgroup, its pins and its store are thrown away: no drain is needed.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

fn settings(cgroup: &Path, directory: &Path) -> String {
    format!(
        "[gate]\ncgroup = \"{}\"\nwatch = \"{}\"\nlisten_port = {LISTENER_PORT}\npin_dir = \"{}\"\n\n\
         [dns]\nlisten_port = {DNS_PORT}\nresolvers = [\"{RESOLVER_V4}:53\", \"[{RESOLVER_V6}]:53\"]\n\n\
         [tls]\nextra_roots = \"{}\"\n\n\
         [dashboard]\nlisten = \"127.0.0.1:{DASHBOARD_PORT}\"\n\n\
         [control]\ngroup = \"root\"\n",
        place::agents(cgroup).display(),
        cgroup.display(),
        directory.join("bpf/agentgate").display(),
        directory.join("root.pem").display(),
    )
}

fn policy() -> String {
    format!("version = 1\nmode = \"enforce\"\n\n[hosts]\nallow = [\"{ALLOWED}\", \"*.{TUNNEL}\"]\n")
}

/// What the daemon has recorded so far, as its log is followed.
#[derive(Clone, Debug, Default)]
pub(super) struct Records(Arc<(Mutex<Vec<Record>>, Condvar)>);

impl Records {
    /// Follows the log of the daemon with this control socket, on a thread of its own.
    pub(super) fn follow(socket: &Path) -> Result<Self, SelftestError> {
        let records = Self::default();
        let client = Client::connect(socket).map_err(refused)?;
        let into = records.clone();
        let request = Request::Logs { filter: LogFilter { limit: 1, ..LogFilter::default() }, follow: true };
        std::thread::Builder::new()
            .name("records".to_owned())
            .spawn(move || {
                // Ends with the daemon.
                let _end: Result<(), ClientError> = client.stream(request, true, |item| {
                    if let Item::Record(record) = item {
                        into.add(*record);
                    }
                    Ok(())
                });
            })
            .map_err(step("start a thread"))?;
        Ok(records)
    }

    fn add(&self, record: Record) {
        let mut all = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        match all.iter_mut().find(|known| known.id == record.id) {
            Some(known) => *known = record,
            None => all.push(record),
        }
        self.0.1.notify_all();
    }

    /// Waits until there is a record of this run; whether there is one.
    pub(super) fn wait(&self, run: u16, session: &str, pid: u32, patience: Duration) -> bool {
        let all = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let none = |all: &mut Vec<Record>| !all.iter().any(|record| belongs(record, run, session, pid));
        let waited = self.0.1.wait_timeout_while(all, patience, none);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// The records of one run: by session, by process where it has left its session, or by the address that is its own.
    pub(super) fn of(&self, run: u16, session: &str, pid: u32) -> Vec<Record> {
        let all = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter(|record| belongs(record, run, session, pid)).cloned().collect()
    }
}

fn belongs(record: &Record, run: u16, session: &str, pid: u32) -> bool {
    let subject = record
        .subject
        .as_ref()
        .is_some_and(|subject| subject.session.0.starts_with(session) || subject.pid == pid);
    let to: Option<IpAddr> = record.flow.as_ref().map(|flow| flow.original.0.ip());
    subject || to.and_then(run_of) == Some(run)
}

fn refused(error: ClientError) -> SelftestError {
    SelftestError::Daemon(format!("its log cannot be followed: {error}"))
}
