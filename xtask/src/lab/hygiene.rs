//! Does a lab clean up however it ends? Ends real ones in three ways and looks.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};

use super::{LabId, leftovers};

/// What the inner process of a held lab prints once everything stands, before the lab's name.
pub(crate) const HOLDING: &str = "holding ";

/// Ends a lab by Ctrl-C, by SIGTERM and by SIGKILL of its outer process. After the first two nothing
/// may remain; after the last, nothing once the next lab has swept.
///
/// # Errors
/// When a lab cannot be started or something remains.
pub(crate) fn run(daemon: bool) -> anyhow::Result<ExitCode> {
    for (signal, how) in [(Signal::INT, "Ctrl-C"), (Signal::TERM, "SIGTERM"), (Signal::KILL, "SIGKILL")] {
        let began = Instant::now();
        end_by(signal, daemon).with_context(|| format!("a lab ended by {how}"))?;
        println!("ok   a lab ended by {how} leaves nothing behind ({} ms)", began.elapsed().as_millis());
    }
    Ok(ExitCode::SUCCESS)
}

fn end_by(signal: Signal, daemon: bool) -> anyhow::Result<()> {
    let pins = leftovers::pins();
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["lab", "hold"]).args(daemon.then_some("--daemon"));
    let mut outer = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("start a lab")?;
    let mut lines = BufReader::new(outer.stdout.take().context("its output")?).lines();
    let name = lines.find_map(|line| line.ok()?.strip_prefix(HOLDING).map(str::to_owned));
    let id: LabId = name.context("it ended before it stood")?.parse()?;
    let namespaces = leftovers::read_namespaces(&id.dir())?;
    anyhow::ensure!(namespaces.len() == 3, "it names {} namespaces", namespaces.len());
    let before = leftovers::of_lab(id, &namespaces, &pins)?;
    anyhow::ensure!(!before.is_empty(), "the check for leftovers does not see a running lab");
    let pid = i32::try_from(outer.id()).ok().and_then(Pid::from_raw).context("its process id")?;
    kill_process(pid, signal)?;
    outer.wait()?;
    if signal == Signal::KILL {
        let swept = leftovers::sweep()?;
        anyhow::ensure!(!swept.is_empty(), "there was nothing to sweep: it did not die at once");
    }
    let left = leftovers::of_lab(id, &namespaces, &pins)?;
    anyhow::ensure!(left.is_empty(), "it left behind:\n{left}");
    Ok(())
}
