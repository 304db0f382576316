//! The real `agentgated` on the lab's cgroup: configuration, start, readiness, end.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use fake_internet::world;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::{Child, Command},
    time::timeout,
};

use super::{fdstore::Manager, inside::Lab, namespace};

/// From start to READY=1: loading eBPF and opening a store take well under a second; a debug build on
/// a busy machine takes more.
const START: Duration = Duration::from_secs(30);
/// From SIGTERM to the end: the daemon's drain has its own, shorter deadline.
const STOP: Duration = Duration::from_secs(15);

/// The running daemon. Killed when dropped, and by the kernel when this process dies.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    log: PathBuf,
}

/// How long the two halves of a restart took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Restart {
    /// From the signal to the end of the process.
    pub(crate) ending: Duration,
    /// From its start until it said that it is ready.
    pub(crate) starting: Duration,
}

impl Daemon {
    /// Ends it in good order.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        let log = self.log.clone();
        let status = self.end(Signal::TERM).await?;
        anyhow::ensure!(status.success(), "agentgated ended with {status}\n{}", tail(&log));
        Ok(())
    }

    /// Ends it as the kernel's OOM killer would.
    pub(crate) async fn kill(self) -> anyhow::Result<ExitStatus> {
        self.end(Signal::KILL).await
    }

    /// Sends it a signal that does not end it.
    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        kill_process(pid.context("agentgated has ended")?, signal).context("signal agentgated")
    }

    /// Waits until its log has `words`.
    pub(crate) async fn logged(&self, words: &str) -> anyhow::Result<()> {
        let seen = async {
            let mut look = tokio::time::interval(Duration::from_millis(20));
            while !fs::read_to_string(&self.log).is_ok_and(|text| text.contains(words)) {
                look.tick().await;
            }
        };
        let late = || format!("{words:?} is not in the log\n{}", tail(&self.log));
        timeout(STOP, seen).await.with_context(late)
    }

    /// The end of its log.
    pub(crate) fn log_tail(&self) -> String {
        tail(&self.log)
    }

    async fn end(mut self, signal: Signal) -> anyhow::Result<ExitStatus> {
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            kill_process(pid, signal).context("signal agentgated")?;
        }
        let status = timeout(STOP, self.child.wait()).await;
        status.with_context(|| format!("agentgated does not end\n{}", tail(&self.log)))?.context("wait")
    }
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_else(|error| format!("no log: {error}"));
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(40)..).unwrap_or_default().join("\n")
}

impl Lab {
    fn config(&self) -> PathBuf {
        self.root().join("etc/agentgate/agentgate.toml")
    }

    /// What `--root` names.
    pub(crate) fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    /// The daemon's policy file.
    pub(crate) fn policy(&self) -> PathBuf {
        self.root().join("etc/agentgate/policy.toml")
    }

    /// Puts the daemon's state on a disk of its own, small enough to be filled.
    pub(crate) fn mount_small_disk(&self) -> anyhow::Result<()> {
        let state = self.state();
        fs::create_dir_all(&state)?;
        namespace::mount_small_disk(&state)
    }

    /// Where the daemon keeps its store.
    pub(crate) fn state(&self) -> PathBuf {
        self.root().join("var/lib/agentgate")
    }

    /// Writes configuration and the policy that scenarios start from.
    pub(crate) fn write_settings(&self) -> anyhow::Result<()> {
        let etc = self.root().join("etc/agentgate");
        fs::create_dir_all(etc.join("lists"))?;
        let [v4, v6] = world::NAME_SERVERS;
        let config = format!(
            "[gate]\ncgroup = \"{}\"\nwatch = \"{}\"\npin_dir = \"/sys/fs/bpf/agentgate\"\n\n\
             [dns]\nresolvers = [\"{v4}:53\", \"[{v6}]:53\"]\n\n\
             [tls]\nextra_roots = \"{}\"\n\n\
             [dashboard]\nlisten = \"127.0.0.1:{}\"\n\n\
             [control]\ngroup = \"root\"\n",
            self.guarded.display(),
            // The lab's own cgroup: nothing of the machine's is watched.
            self.guarded.parent().unwrap_or(&self.guarded).display(),
            self.root_pem.display(),
            self.dashboard_port,
        );
        fs::write(self.config(), config)?;
        fs::write(
            etc.join("lists/deny.txt"),
            format!("# Refused in every mode but audit.\n{}\n", world::DENIED),
        )?;
        fs::write(etc.join("lists/passthrough.txt"), format!("{}\n", world::PASSTHROUGH))?;
        fs::write(etc.join("lists/allow.txt"), format!("{}\n", world::ANTHROPIC))?;
        fs::write(self.policy(), policy("blocklist"))?;
        Ok(())
    }

    /// `agentgated` on the lab's settings. It dies with this thread, and needs no unsafe code for it:
    /// the signal that setpriv(1) asks for survives its exec.
    pub(crate) fn agentgated(&self) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(&self.programs.agentgated);
        command.arg("--config").arg(self.config()).arg("--root").arg(self.root());
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// `agentctl` on the lab's settings.
    pub(crate) fn agentctl(&self) -> Command {
        let mut command = Command::new(&self.programs.agentctl);
        command.arg("--root").arg(self.root()).kill_on_drop(true);
        command
    }

    /// Starts the daemon as after a stop, without the sockets of the one before, and waits until it says
    /// that it is ready.
    ///
    /// # Errors
    /// With the end of its log, when it ends or is not ready in time.
    pub(crate) async fn start_daemon(&mut self) -> anyhow::Result<()> {
        let mut manager = match self.manager.take() {
            Some(manager) => manager,
            None => Manager::at(&self.dir.join("notify.sock"))?,
        };
        manager.forget();
        self.start_under(manager).await
    }

    /// Ends the daemon by `signal` and starts it again with the sockets that it left in the store, as a
    /// restart does.
    ///
    /// # Errors
    /// As [`Lab::start_daemon`].
    pub(crate) async fn restart_daemon(&mut self, signal: Signal) -> anyhow::Result<Restart> {
        let daemon = self.take_daemon()?;
        let began = Instant::now();
        daemon.end(signal).await?;
        let ending = began.elapsed();
        self.start_with_sockets().await?;
        Ok(Restart { ending, starting: began.elapsed() - ending })
    }

    /// The running daemon, to be ended.
    pub(crate) fn take_daemon(&mut self) -> anyhow::Result<Daemon> {
        self.daemon.take().context("the daemon does not run")
    }

    /// Starts the daemon with the sockets that the one before left in the store.
    ///
    /// # Errors
    /// As [`Lab::start_daemon`].
    pub(crate) async fn start_with_sockets(&mut self) -> anyhow::Result<()> {
        let manager = self.manager.take().context("the daemon has no manager")?;
        self.start_under(manager).await
    }

    /// Starts the daemon with the sockets in the store and kills it `after` so long, ready or not; true where
    /// it was ready.
    pub(crate) async fn start_and_kill(&mut self, after: Duration) -> anyhow::Result<bool> {
        let mut manager = self.manager.take().context("the daemon has no manager")?;
        let Daemon { mut child, log } = self.spawn(&manager)?;
        let ready = timeout(after, manager.ready()).await;
        let ended = child.try_wait()?;
        child.kill().await.context("kill agentgated")?;
        // What it said is heard now, so that it is not taken for the next one's word.
        manager.hear_out()?;
        self.manager = Some(manager);
        anyhow::ensure!(ended.is_none(), "agentgated ended by itself\n{}", tail(&log));
        Ok(ready.is_ok_and(|ready| ready.is_ok()))
    }

    /// Empties the store, as the service manager does for a service that is stopped, or has failed and is not
    /// started again.
    pub(crate) fn let_go_of_sockets(&mut self) {
        if let Some(manager) = &mut self.manager {
            manager.forget();
        }
    }

    async fn start_under(&mut self, mut manager: Manager) -> anyhow::Result<()> {
        anyhow::ensure!(self.daemon.is_none(), "the daemon runs already");
        let mut daemon = self.spawn(&manager)?;
        let log = &daemon.log;
        let started = tokio::select! {
            status = daemon.child.wait() => {
                Err(anyhow::anyhow!("agentgated ended with {}\n{}", status?, tail(log)))
            }
            ready = timeout(START, manager.ready()) => match ready {
                Ok(ready) => ready,
                Err(_) => Err(anyhow::anyhow!("agentgated is not ready after {START:?}\n{}", tail(log))),
            },
        };
        self.manager = Some(manager);
        started?;
        self.daemon = Some(daemon);
        Ok(())
    }

    fn spawn(&self, manager: &Manager) -> anyhow::Result<Daemon> {
        let log = self.dir.join("agentgated.log");
        let writer = fs::File::options().create(true).append(true).open(&log)?;
        let child = manager.start(self.agentgated(), |mut command| {
            let command = command.stdout(writer.try_clone()?).stderr(writer);
            command.spawn().context("start agentgated through bash and setpriv (package util-linux)")
        })?;
        Ok(Daemon { child, log })
    }
}

/// The policy that scenarios start from, in a mode of their choice.
pub(crate) fn policy(mode: &str) -> String {
    format!("version = 1\nmode = \"{mode}\"\n\n[hosts]\nallow = [\"{}\", \"{}\"]\n", world::OPEN, world::OLD)
}
