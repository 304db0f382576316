//! `cargo xtask test vm`: the packaged product under systemd, on the kernels that Debian ships.
//!
//! Each kernel boots once in qemu from a file system in memory: Debian's minimal one, and on top of it
//! what a user would install, the lab, and a script that is run as a unit ([`guest`](self) directory) and
//! tells on the serial console what held and what did not. Emulated, not virtualised: that works
//! everywhere, and nested virtualisation does not. Nothing of it needs root, a disk or a network.
//!
//! The kernels are the newest 6.1 and 6.12 of the configured package sources. Packages, file system and
//! logs stay in `target/vm`.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context as _;

mod archive;
mod boot;
mod image;
mod kernel;
mod programs;
mod report;

use self::{kernel::Kernel, report::Report};

/// Series of kernels: the oldest that agentgate runs on, and a later one.
const SERIES: [&str; 2] = ["6.1", "6.12"];
/// For one kernel, from power on to power off: a few minutes on two free cores, many on busy ones.
const DEADLINE: Duration = Duration::from_secs(30 * 60);

/// How one kernel did.
struct Outcome {
    kernel: String,
    log: PathBuf,
    report: Report,
    took: Duration,
}

/// Boots every kernel, all at once, and prints a table: most of what is checked waits for something, so
/// that one machine alone leaves processors idle.
///
/// # Errors
/// When something cannot be built or fetched, and when a check failed or a kernel ended before its end.
pub(crate) fn run(filter: Option<&str>) -> anyhow::Result<()> {
    anyhow::ensure!(std::env::consts::ARCH == "x86_64", "the kernels are those of amd64");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
    let work = root.join("target/vm");
    fs::create_dir_all(&work).with_context(|| work.display().to_string())?;
    let kernels =
        SERIES.iter().map(|series| kernel::newest(series, &work)).collect::<anyhow::Result<Vec<_>>>()?;
    let base = image::base(&work)?;
    let programs = programs::build(&work)?;
    let chosen = kernels.iter().filter(|kernel| filter.is_none_or(|text| kernel.version.contains(text)));
    let chosen: Vec<&Kernel> = chosen.collect();
    let outcomes = std::thread::scope(|scope| {
        let machines: Vec<_> = chosen
            .into_iter()
            .map(|kernel| scope.spawn(|| boot(kernel, &base, &programs, &root, &work)))
            .collect();
        let ended = machines.into_iter().map(|machine| {
            machine.join().unwrap_or_else(|_| Err(anyhow::anyhow!("what watches a machine has panicked")))
        });
        ended.collect::<anyhow::Result<Vec<_>>>()
    })?;
    close(&outcomes)
}

fn boot(
    kernel: &Kernel,
    base: &Path,
    programs: &[programs::Program],
    root: &Path,
    work: &Path,
) -> anyhow::Result<Outcome> {
    let image = work.join(format!("{}.initrd", kernel.version));
    image::write(&image, base, kernel, programs, root).context("the file system in memory")?;
    let log = work.join(format!("{}.log", kernel.version));
    let began = Instant::now();
    let report = boot::run(kernel, &image, &log, DEADLINE);
    fs::remove_file(&image).with_context(|| image.display().to_string())?;
    Ok(Outcome { kernel: kernel.version.clone(), log, report: report?, took: began.elapsed() })
}

/// The table and what failed. Nothing run is nothing passed.
fn close(outcomes: &[Outcome]) -> anyhow::Result<()> {
    println!("\n{:30} {:>6} {:>6} {:>7} {:>7}  log", "kernel", "passed", "failed", "skipped", "time");
    for Outcome { kernel, log, report, took } in outcomes {
        let [passed, failed, skipped] = report.counts();
        println!("{kernel:30} {passed:6} {failed:6} {skipped:7} {:6}s  {}", took.as_secs(), log.display());
    }
    let mut well = !outcomes.is_empty();
    for Outcome { kernel, report, .. } in outcomes {
        for note in report.notes() {
            println!("{kernel}: {note}");
        }
        for line in report.failures() {
            println!("{kernel}: {line}");
            well = false;
        }
    }
    anyhow::ensure!(well, "not every kernel did as expected");
    Ok(())
}
