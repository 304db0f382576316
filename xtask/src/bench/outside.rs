//! The outer process of a benchmark: owns cgroups and directory, starts the inner one, and cleans up.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
    time::Duration,
};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};

use super::{
    install,
    options::{ProfileOptions, ProxyOptions},
    setting::Programs,
};
use crate::lab::{LabId, cgroup::LabCgroup, leftovers};

/// How long the inner process may take to end in good order.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Job {
    Proxy(ProxyOptions),
    Profile(ProfileOptions),
}

/// What the inner process needs to know, as JSON on its command line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Orders {
    pub(crate) outer: u32,
    pub(crate) dir: PathBuf,
    /// Where the inner process itself and the client live.
    pub(crate) host: PathBuf,
    pub(crate) programs: Programs,
    pub(crate) job: Job,
}

/// Files of the run; removed on drop. Below the build's directory, because that is on a disk, as the
/// gate's store is, and directories for temporary files often are not.
struct RunDir(PathBuf);

impl RunDir {
    fn create(id: LabId) -> anyhow::Result<Self> {
        let path = install::directory()?.join(id.to_string());
        fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("cannot remove {}: {error}", self.0.display());
        }
    }
}

/// Builds the place, has the job done inside, and leaves nothing behind.
///
/// # Errors
/// When something cannot be built or measured, or something remains.
pub(crate) fn run(job: Job) -> anyhow::Result<ExitCode> {
    sweep()?;
    let id = LabId::own()?;
    let pins_before = leftovers::pins();
    let ended = {
        let cgroup = LabCgroup::create(id)?;
        let dir = RunDir::create(id)?;
        let orders = Orders {
            outer: std::process::id(),
            dir: dir.0.clone(),
            host: cgroup.host(),
            programs: install::programs()?,
            job,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(attend(&orders))
    };
    let left = leftovers::of_lab(id, &[], &pins_before)?;
    anyhow::ensure!(left.is_empty(), "the benchmark left something behind:\n{left}");
    Ok(if ended? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Removes what benchmarks that were killed have left.
fn sweep() -> anyhow::Result<()> {
    let swept = leftovers::sweep().context("clean up after an earlier benchmark")?;
    if !swept.is_empty() {
        eprintln!("removed what an earlier one left:\n{swept}");
    }
    let entries = fs::read_dir(install::directory()?).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()) {
        let named = |path: &Path| path.file_name()?.to_str()?.parse::<LabId>().ok();
        if named(&path).is_some_and(|id| !id.alive()) {
            fs::remove_dir_all(&path).with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}

/// Starts the inner process and waits for its end; SIGINT and SIGTERM ask it to end.
async fn attend(orders: &Orders) -> anyhow::Result<bool> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut inner = tokio::process::Command::new(std::env::current_exe()?)
        .args(["bench", "inside", &serde_json::to_string(orders)?])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("start the inner process")?;
    tokio::select! {
        status = inner.wait() => return Ok(status?.success()),
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    eprintln!("cleaning up");
    if let Some(pid) = inner.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw) {
        // It may be gone already: the terminal sends Ctrl-C to both.
        let _gone = kill_process(pid, Signal::TERM);
    }
    let status = tokio::time::timeout(PATIENCE, inner.wait()).await;
    status.context("the inner process does not end: killed")??;
    Ok(false)
}
