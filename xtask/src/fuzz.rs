//! `cargo xtask fuzz`: the parsers' fuzz targets, one after another.
//!
//! Seeds are checked in beside the targets; what fuzzing finds of interest stays below the crate's own
//! `target`, and the next run goes on from it. An input that breaks a target is left where it is told.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context as _, ensure};

use crate::setup::{self, Need};

/// The crate, below the workspace.
const CRATE: &str = "agentgate-daemon/fuzz";
/// Longest input, in bytes: more than any header or window boundary needs, short enough to be fast.
const LONGEST: usize = 20_000;
/// Longest that one input may take, in seconds: it costs somebody the same in the daemon.
const SLOWEST: u32 = 10;
/// Most memory of a target, in MiB, sanitizers included.
const MEMORY: u32 = 2048;

/// What a run came to.
#[derive(Debug)]
struct Outcome {
    target: String,
    /// Inputs tried in all, and in a second.
    executions: u64,
    rate: u64,
    /// The input that broke it, or a word where there is none.
    broken: Option<String>,
}

/// Runs the named targets, or all.
///
/// # Errors
/// When set-up fails, a target is not known, or cargo cannot be started.
pub(crate) fn run(named: &[String], seconds: u32) -> anyhow::Result<ExitCode> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
    let known = targets(&root.join(CRATE).join("fuzz_targets"))?;
    for name in named {
        ensure!(known.contains(name), "no target {name}; there are {}", known.join(", "));
    }
    setup::ensure(&[Need::Fuzz])?;
    let chosen = if named.is_empty() { known } else { named.to_vec() };
    let mut outcomes = Vec::new();
    for target in chosen {
        println!("== {target}: {seconds} s");
        outcomes.push(fuzz(&root, &target, seconds)?);
    }
    println!("\n{:<22} {:>12} {:>10}", "target", "inputs", "a second");
    for Outcome { target, executions, rate, broken } in &outcomes {
        let end = broken.as_ref().map_or(String::new(), |input| format!("  BROKEN: {input}"));
        println!("{target:<22} {executions:>12} {rate:>10}{end}");
    }
    for Outcome { target, broken, .. } in &outcomes {
        if let Some(input) = broken {
            println!("again: cargo +nightly fuzz run --fuzz-dir {CRATE} {target} {input}");
        }
    }
    let failed = outcomes.iter().any(|outcome| outcome.broken.is_some());
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The targets there are, by name.
fn targets(directory: &Path) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    Ok(names)
}

fn fuzz(root: &Path, target: &str, seconds: u32) -> anyhow::Result<Outcome> {
    let home = root.join(CRATE);
    // What is found goes into the first directory; the seeds stay as they are.
    let found = home.join("target/corpus").join(target);
    fs::create_dir_all(&found).with_context(|| found.display().to_string())?;
    let seeds = home.join("seeds").join(target);
    let mut command = Command::new("rustup");
    command
        .args(["run", "nightly", "cargo", "fuzz", "run", "--fuzz-dir"])
        .arg(&home)
        .arg(target)
        .args([&found, &seeds])
        .args(["--", "-print_final_stats=1"])
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={LONGEST}"))
        .arg(format!("-timeout={SLOWEST}"))
        .arg(format!("-rss_limit_mb={MEMORY}"))
        .current_dir(root)
        // Those of the cargo that runs this would have the build use another compiler.
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("CARGO")
        .stdin(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn().context("cannot start rustup")?;
    let lines = child.stderr.take().map(|stderr| BufReader::new(stderr).lines());
    let mut said = Said::default();
    for line in lines.into_iter().flatten() {
        let line = line?;
        eprintln!("{line}");
        said.line(&line);
    }
    let status = child.wait()?;
    let broken = match (status.success(), said.input) {
        (true, _) => None,
        (false, Some(input)) => Some(shortened(&input, root)),
        (false, None) => Some(format!("no input ({status})")),
    };
    Ok(Outcome { target: target.to_owned(), executions: said.executions, rate: said.rate, broken })
}

fn shortened(input: &str, root: &Path) -> String {
    let path = PathBuf::from(input);
    path.strip_prefix(root).unwrap_or(&path).display().to_string()
}

/// What libFuzzer says at its end.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    executions: u64,
    rate: u64,
    input: Option<String>,
}

impl Said {
    fn line(&mut self, line: &str) {
        let number = |text: &str| text.trim().parse().unwrap_or(0);
        if let Some(value) = line.strip_prefix("stat::number_of_executed_units:") {
            self.executions = number(value);
        } else if let Some(value) = line.strip_prefix("stat::average_exec_per_sec:") {
            self.rate = number(value);
        } else if let Some((_, path)) = line.split_once("Test unit written to ") {
            self.input = Some(path.trim().to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_is_in_the_manifest_and_has_seeds() {
        let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(CRATE);
        let manifest = fs::read_to_string(home.join("Cargo.toml")).unwrap();
        let known = targets(&home.join("fuzz_targets")).unwrap();
        assert!(known.len() >= 12, "{known:?}");
        assert_eq!(manifest.matches("[[bin]]").count(), known.len());
        for target in known {
            assert!(manifest.contains(&format!("name = \"{target}\"")), "{target}");
            let seeds = home.join("seeds").join(&target);
            assert!(fs::read_dir(&seeds).unwrap().count() > 0, "{target} has no seeds");
        }
    }

    #[test]
    fn reads_what_the_fuzzer_says() {
        let mut said = Said::default();
        for line in [
            "#2097152 pulse  cov: 400 ft: 900 corp: 100/3Kb lim: 700 exec/s: 699050 rss: 500Mb",
            "artifact_prefix='./'; Test unit written to /home/a/fuzz/artifacts/sse/crash-0a1b",
            "stat::number_of_executed_units: 123456",
            "stat::average_exec_per_sec:     2057",
        ] {
            said.line(line);
        }
        let input = Some("/home/a/fuzz/artifacts/sse/crash-0a1b".to_owned());
        assert_eq!(said, Said { executions: 123_456, rate: 2057, input });
    }
}
