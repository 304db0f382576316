//! The part that stays in the machine's namespaces: starts the inner process, passes on what it tells,
//! and cleans up whatever happens to it.

use std::{path::PathBuf, process::Stdio, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
    signal::unix::{SignalKind, signal},
};

use super::{
    SelftestError,
    place::Place,
    report::{Event, Summary},
    step, suite,
};

/// How long the inner process may be silent: an attempt that hangs is ended by it long before.
const SILENCE: Duration = Duration::from_secs(120);

/// What to run, and with what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The daemon to test; the one beside this program where it is not named.
    pub agentgated: Option<PathBuf>,
    /// Only attempts with this in their name, or of this family.
    pub filter: Option<String>,
    /// Without the layers of `agentctl run`: what the kernel's programs alone stop.
    pub bare: bool,
    /// With nothing guarded at all, so that every attempt must show as leaked: a test of the test.
    pub unguarded: bool,
}

/// What the inner process is told, as one JSON argument.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Task {
    pub(super) outer: u32,
    pub(super) cgroup: PathBuf,
    pub(super) directory: PathBuf,
    pub(super) agentgated: PathBuf,
    pub(super) agentctl: PathBuf,
    pub(super) filter: Option<String>,
    pub(super) bare: bool,
    pub(super) unguarded: bool,
}

/// Runs the suite and gives each event to `each` as it comes.
///
/// # Errors
/// [`SelftestError`]; whatever was made is removed first.
pub fn run(options: Options, each: impl FnMut(&Event)) -> Result<Summary, SelftestError> {
    if !rustix::process::geteuid().is_root() {
        return Err(SelftestError::NotRoot);
    }
    if let Some(filter) = &options.filter
        && suite::matching(Some(filter)).is_empty()
    {
        return Err(SelftestError::NoSuchAttempt(filter.clone()));
    }
    let agentctl = std::env::current_exe().map_err(step("where this program is"))?;
    let agentgated = options.agentgated.unwrap_or_else(|| agentctl.with_file_name("agentgated"));
    std::fs::metadata(&agentgated).map_err(step(agentgated.display().to_string()))?;
    let place = Place::make()?;
    let task = Task {
        outer: std::process::id(),
        cgroup: place.cgroup.clone(),
        directory: place.directory.clone(),
        agentgated,
        agentctl,
        filter: options.filter,
        bare: options.bare,
        unguarded: options.unguarded,
    };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(step("a runtime"))?;
    let ended = runtime.block_on(attend(&task, each));
    place.remove()?;
    ended
}

async fn attend(task: &Task, mut each: impl FnMut(&Event)) -> Result<Summary, SelftestError> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(step("SIGINT"))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(step("SIGTERM"))?;
    let mut hangup = signal(SignalKind::hangup()).map_err(step("SIGHUP"))?;
    let argument = serde_json::to_string(task).map_err(|error| step("the task")(error.into()))?;
    let mut inner = Command::new(&task.agentctl)
        .args(["selftest-inside", &argument])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(step("start the inner process"))?;
    let cut = |why: &str| SelftestError::CutShort(why.to_owned());
    let output = inner.stdout.take().ok_or_else(|| cut("no output"))?;
    let mut lines = BufReader::new(output).lines();
    loop {
        let line = tokio::select! {
            line = tokio::time::timeout(SILENCE, lines.next_line()) => line,
            _ = interrupt.recv() => return Err(cut("interrupted")),
            _ = terminate.recv() => return Err(cut("terminated")),
            _ = hangup.recv() => return Err(cut("hung up")),
        };
        let line = line.map_err(|_| cut("the inner process hangs"))?.map_err(step("read its output"))?;
        let Some(line) = line else {
            let status = inner.wait().await.map_err(step("wait for the inner process"))?;
            return Err(SelftestError::CutShort(format!("the inner process ended with {status}")));
        };
        let event: Event = serde_json::from_str(&line).map_err(|error| step("its output")(error.into()))?;
        each(&event);
        match event {
            Event::Done(summary) => return Ok(summary),
            Event::Failed { message } => return Err(SelftestError::Inner(message)),
            Event::Ready { .. } | Event::Begun { .. } | Event::Row(_) => {}
        }
    }
}
