//! Figures, and how they are shown.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path, time::Duration};

use rustix::time::{ClockId, clock_gettime};

/// CPU time of this process.
pub(crate) fn cpu() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// A number of KiB from `/proc/self/status`, in MiB.
fn memory(key: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().map_or(0, |kib: u64| kib / 1024)
}

/// What the files take of the disk: redb's has holes.
pub(crate) fn size(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.blocks() * 512).sum()
}

pub(crate) fn heading() {
    println!(
        "| engine | payload | CPU ms/MB | % of payload | memory while building, searching | {} |",
        queries("first 50 / count of").join(" | ")
    );
    println!("| --- | --- | --- | --- | --- |{}", " --- |".repeat(crate::corpus::QUERIES.len()));
}

fn queries(what: &str) -> Vec<String> {
    crate::corpus::QUERIES.iter().map(|(name, _)| format!("{what} {name}, ms")).collect()
}

/// What was measured before the first search.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) engine: &'static str,
    pub(crate) payload: u64,
    pub(crate) cpu: Duration,
    pub(crate) bytes: u64,
    peak: u64,
}

impl Built {
    pub(crate) fn new(engine: &'static str, payload: u64, cpu: Duration, bytes: u64) -> Self {
        Self { engine, payload, cpu, bytes, peak: memory("VmHWM") }
    }

    /// `found`: milliseconds to the first page, milliseconds to a count, and the count.
    pub(crate) fn show(&self, found: &[(f64, f64, usize)]) {
        let mb = self.payload as f64 / 1e6;
        let cells: Vec<_> =
            found.iter().map(|(first, count, many)| format!("{first:.1} / {count:.1} ({many})")).collect();
        println!(
            "| {} | {mb:.0} MB | {:.1} | {:.2} | {} MiB, {} MiB | {} |",
            self.engine,
            self.cpu.as_secs_f64() * 1e3 / mb,
            self.bytes as f64 * 100.0 / self.payload as f64,
            self.peak,
            memory("VmRSS"),
            cells.join(" | "),
        );
    }
}

/// The median time of some rounds, in milliseconds, and what came of the last.
pub(crate) fn timed<T>(mut run: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<(f64, T)> {
    let mut took = Vec::new();
    let mut last = None;
    for _ in 0..7 {
        let begun = std::time::Instant::now();
        last = Some(run()?);
        took.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    took.sort_by(f64::total_cmp);
    let median = took.get(took.len() / 2).copied().unwrap_or_default();
    Ok((median, last.ok_or_else(|| anyhow::anyhow!("no round"))?))
}
