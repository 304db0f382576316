//! The outer process of a lab: owns cgroup and directory, starts the inner one, and cleans up.

use std::{
    fs,
    os::fd::OwnedFd,
    path::PathBuf,
    process::{ExitCode, Stdio},
    time::Duration,
};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};

use super::{Job, LabId, Programs, cgroup::LabCgroup, leftovers, relay};

/// How long the inner process may take to end in good order: the daemon's own drain is shorter.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the inner process needs to know, as JSON on its command line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Orders {
    pub(crate) outer: u32,
    pub(crate) dir: PathBuf,
    pub(crate) host: PathBuf,
    pub(crate) guarded: PathBuf,
    pub(crate) programs: Programs,
    pub(crate) job: Job,
}

/// Files of the lab; removed on drop.
struct LabDir(PathBuf);

impl LabDir {
    fn create(id: LabId) -> anyhow::Result<Self> {
        let path = id.dir();
        fs::create_dir(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for LabDir {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("cannot remove {}: {error}", self.0.display());
        }
    }
}

/// Builds a lab, does the job inside, and leaves nothing behind.
///
/// # Errors
/// When the lab cannot be built or something of it remains.
pub(crate) fn run(job: Job) -> anyhow::Result<ExitCode> {
    let swept = leftovers::sweep().context("clean up after an earlier lab")?;
    if !swept.is_empty() {
        eprintln!("removed what an earlier lab left:\n{swept}");
    }
    let id = LabId::own()?;
    let pins_before = leftovers::pins();
    let (ended, namespaces) = {
        let cgroup = LabCgroup::create(id)?;
        let dir = LabDir::create(id)?;
        let orders = Orders {
            outer: std::process::id(),
            dir: dir.0.clone(),
            host: cgroup.host(),
            guarded: cgroup.guarded(),
            programs: Programs::beside_this()?,
            job,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let ended = runtime.block_on(attend(&orders));
        (ended, leftovers::read_namespaces(&dir.0)?)
    };
    let left = leftovers::of_lab(id, &namespaces, &pins_before)?;
    anyhow::ensure!(left.is_empty(), "the lab left something behind:\n{left}");
    Ok(if ended? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Starts the inner process and waits for its end; SIGINT and SIGTERM ask it to end.
async fn attend(orders: &Orders) -> anyhow::Result<bool> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let relay = relay::bind().context("a port on 127.0.0.1 for the dashboard")?;
    let mut inner = tokio::process::Command::new(std::env::current_exe()?)
        .args(["lab", "inside", &serde_json::to_string(orders)?])
        // The only descriptor that a child may inherit without unsafe code is a standard one.
        .stdin(Stdio::from(OwnedFd::from(relay)))
        .kill_on_drop(true)
        .spawn()
        .context("start the inner process")?;
    let asked = tokio::select! {
        status = inner.wait() => return Ok(status?.success()),
        _ = interrupt.recv() => "interrupted",
        _ = terminate.recv() => "terminated",
    };
    eprintln!("{asked}: cleaning up");
    if let Some(pid) = inner.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw) {
        // It may be gone already: the terminal sends Ctrl-C to both.
        let _gone = kill_process(pid, Signal::TERM);
    }
    let status = tokio::time::timeout(PATIENCE, inner.wait()).await;
    // Ctrl-C is also how a person ends the demo: the inner process knows whether it was too early.
    Ok(status.context("the inner process does not end: killed")??.success())
}
