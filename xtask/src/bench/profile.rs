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
    let most = options.lines;
    println!("\nSelf, by crate:\n\n{}", crates(&data).await?);
    println!("\nSelf, by thread:\n\n{}", threads(&data).await?);
    println!("\nSelf, by function:\n\n{}", list(&data, "--no-children", most, |_| true).await?);
    let ours = |line: &str| line.contains("agentgate::") || line.contains("bench_peers::");
    println!("\nWith what they call, our functions:\n\n{}", list(&data, "--children", most, ours).await?);
    let calls = |line: &str| line.contains(" __x64_sys_") || line.contains(" __arm64_sys_");
    println!("\nWith what they call, system calls:\n\n{}", list(&data, "--children", most, calls).await?);
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
    children: &str,
    most: usize,
    wanted: impl Fn(&str) -> bool,
) -> anyhow::Result<String> {
    let text = report(data, &[children, "--sort", "symbol", "--percent-limit", "0.2"]).await?;
    let lines = text.lines().filter(|line| line.contains('%') && wanted(line)).take(most);
    let cut = |line: &str| line.chars().take(160).collect::<String>().trim_end().to_owned();
    Ok(lines.map(cut).collect::<Vec<_>>().join("\n"))
}

async fn report(data: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let mut perf = Command::new("perf");
    perf.args(["report", "--stdio", "--no-inline", "--call-graph", "none"]);
    perf.args(arguments).arg("--input").arg(data).stdin(Stdio::null());
    let output = perf.output().await.context("perf")?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "perf report: {}", complaint.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Shares of threads, those of one name together: workers are numbered.
async fn threads(data: &Path) -> anyhow::Result<String> {
    summed(data, "comm", |name| name.trim_end_matches(|c: char| c.is_ascii_digit()).to_owned()).await
}

/// Shares of crates, of the kernel, of the allocator, and of what copies memory.
async fn crates(data: &Path) -> anyhow::Result<String> {
    summed(data, "symbol", crate_of).await
}

/// Which crate a line's symbol is of: `[.] hyper::proto::h1::…` or `[.] <hyper::body::Incoming as …>::…`.
fn crate_of(symbol: &str) -> String {
    let (space, name) = symbol.split_once(' ').unwrap_or(("", symbol));
    let name = name.trim();
    let allocates = ["malloc", "free", "realloc", "calloc", "_int_", "unlink_chunk", "sysmalloc"];
    if space == "[k]" {
        "kernel".to_owned()
    } else if name.starts_with("aws_lc_") {
        "aws-lc".to_owned()
    } else if name.starts_with("__mem") {
        "libc's memory copies and comparisons".to_owned()
    } else if allocates.iter().any(|part| name.contains(part)) && !name.contains("::") {
        "libc's allocator".to_owned()
    } else if let Some((first, _)) = name.trim_start_matches(['<', '&']).split_once("::") {
        let first = first.trim_start_matches("mut ").trim_start_matches("dyn ");
        first.split(['<', ' ']).next().unwrap_or(first).to_owned()
    } else {
        "other code".to_owned()
    }
}

/// Shares by what `group` makes of what perf(1) sorts by, largest first.
async fn summed(data: &Path, sort: &str, group: impl Fn(&str) -> String) -> anyhow::Result<String> {
    let text = report(data, &["--no-children", "--sort", sort]).await?;
    let mut shares: BTreeMap<String, f64> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if let Some((share, name)) = line.trim().split_once('%')
            && let Ok(share) = share.parse::<f64>()
        {
            *shares.entry(group(name.trim())).or_default() += share;
        }
    }
    let mut rows: Vec<(String, f64)> = shares.into_iter().filter(|(_, share)| *share >= 0.1).collect();
    rows.sort_unstable_by(|(_, a), (_, b)| b.total_cmp(a));
    let rows = rows.iter().map(|(name, share)| format!("{share:>8.2}%  {name}"));
    Ok(rows.collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_have_crates() {
        for (symbol, expect) in [
            ("[k] tcp_ack", "kernel"),
            ("[.] _int_malloc", "libc's allocator"),
            ("[.] cfree@GLIBC_2.2.5", "libc's allocator"),
            ("[.] __memmove_avx512_unaligned_erms", "libc's memory copies and comparisons"),
            ("[.] aws_lc_0_47_0_aes_gcm_encrypt_avx512", "aws-lc"),
            ("[.] redb::tree_store::btree::Btree<K,V>::get", "redb"),
            (
                "[.] <hyper::client::conn::http1::Connection<T,B> as core::future::future::Future>::poll",
                "hyper",
            ),
            ("[.] do_it", "other code"),
        ] {
            assert_eq!(crate_of(symbol), expect, "{symbol}");
        }
    }
}
