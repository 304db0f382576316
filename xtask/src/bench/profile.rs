//! `cargo xtask bench profile`: where a peer spends its time under load, by perf(1).
//!
//! By the clock of the CPU where there are no hardware counters, as in most virtual machines.

use std::{collections::BTreeMap, fs, path::Path, process::Stdio};

use anyhow::Context as _;
use tokio::process::Command;

use super::{
    cell::{Load, Report},
    figure::Figure,
    gate,
    options::ProfileOptions,
    peer::{Kind, Running},
    setting::{INTERCEPTED, RAW, Setting},
};

/// Seconds of load before perf begins to look, and after it has ended.
const MARGIN: f64 = 0.7;
/// Samples a second of each CPU: no multiple of the timer's frequency.
const FREQUENCY: &str = "997";
/// Bytes of stack that a sample keeps, to be unwound by debug information: futures nest deeply.
const STACK: &str = "dwarf,16384";

/// Profiles one peer under one load.
pub(crate) async fn run(setting: &Setting, options: &ProfileOptions) -> anyhow::Result<bool> {
    let mut kind = options.peer;
    if kind.durability().is_some() && !gate::knows(kind, setting)? {
        eprintln!("note: this build of the gate has no setting of durability");
        kind = Kind::Gate;
    }
    anyhow::ensure!(options.figure.suits(kind), "{} is not measured by this figure", kind.name());
    let peer = Running::start(kind, setting).await?;
    let report = profiled(setting, &peer, options).await;
    peer.stop().await?;
    let (report, data) = report?;
    let rate = report.count as f64 / report.seconds;
    println!("{} under {}: {rate:.0} a second while profiled", kind.name(), options.figure.name());
    if let Some(complaint) = report.complaint() {
        anyhow::bail!("{complaint}");
    }
    println!("\nSelf, all code:\n\n{}", list(&data, &["--no-children"], |_| true, options.lines).await?);
    println!("\nSelf, by thread:\n\n{}", threads(&data).await?);
    let ours = |line: &str| line.contains("agentgate::") || line.contains("bench_peers::");
    println!(
        "\nWith what they call, our functions:\n\n{}",
        list(&data, &["--children"], ours, options.lines).await?
    );
    if let Some(keep) = &options.keep {
        fs::copy(&data, keep).with_context(|| keep.display().to_string())?;
        println!("\nkept: {} (perf report --no-inline -i {0})", keep.display());
    }
    Ok(true)
}

async fn profiled(
    setting: &Setting,
    peer: &Running,
    options: &ProfileOptions,
) -> anyhow::Result<(Report, std::path::PathBuf)> {
    let raw = options.figure == Figure::Passthrough && peer.kind.is_gate();
    let name = if raw { RAW } else { INTERCEPTED };
    let pinned = options.figure.is_pinned();
    let load = Load { setting, peer, name, pinned, warm: MARGIN, seconds: options.seconds + MARGIN };
    let cgroup = peer.cgroup.as_ref().context("nobody has no profile")?;
    let pids = fs::read_to_string(cgroup.join("cgroup.procs"))?;
    let data = setting.dir.join("perf.data");
    let mut perf = Command::new("perf");
    perf.args(["record", "--event", "cpu-clock", "--freq", FREQUENCY, "--call-graph", STACK, "--quiet"]);
    perf.arg("--pid").arg(pids.trim().replace('\n', ",")).arg("--output").arg(&data);
    // perf(1) counts for as long as this command runs.
    perf.args(["--", "sleep", &options.seconds.to_string()]);
    perf.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let words = options.figure.load();
    let (loaded, recorded) = tokio::join!(load.run(&words), async {
        tokio::time::sleep(std::time::Duration::from_secs_f64(MARGIN)).await;
        perf.spawn().context("perf (package linux-perf)")?.wait_with_output().await.context("perf")
    });
    let recorded = recorded?;
    let complaint = String::from_utf8_lossy(&recorded.stderr);
    anyhow::ensure!(data.exists(), "perf record: {}", complaint.trim());
    Ok((loaded?.0, data))
}

/// The first lines of a report of perf's that hold what is wanted.
async fn list(
    data: &Path,
    arguments: &[&str],
    wanted: impl Fn(&str) -> bool,
    most: usize,
) -> anyhow::Result<String> {
    let text = report(data, &[arguments, &["--sort", "symbol"]].concat()).await?;
    let lines = text.lines().filter(|line| line.contains('%') && wanted(line)).take(most);
    Ok(lines.map(|line| line.trim_end().chars().take(200).collect::<String>()).collect::<Vec<_>>().join("\n"))
}

async fn report(data: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let mut perf = Command::new("perf");
    perf.args(["report", "--stdio", "--no-inline", "--call-graph", "none", "--percent-limit", "0.2"]);
    perf.args(arguments).arg("--input").arg(data).stdin(Stdio::null());
    let output = perf.output().await.context("perf")?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "perf report: {}", complaint.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Shares of threads, those of one name together: workers are numbered.
async fn threads(data: &Path) -> anyhow::Result<String> {
    let text = report(data, &["--no-children", "--sort", "comm"]).await?;
    let mut shares: BTreeMap<String, f64> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        let share = words.next().and_then(|word| word.strip_suffix('%')?.parse::<f64>().ok());
        if let (Some(share), Some(name)) = (share, words.next()) {
            *shares.entry(name.trim_end_matches(|c: char| c.is_ascii_digit()).to_owned()).or_default() +=
                share;
        }
    }
    let rows = shares.iter().map(|(name, share)| format!("{share:>8.2}%  {name}"));
    Ok(rows.collect::<Vec<_>>().join("\n"))
}
