//! What is tested: the two programs, this one for the lab, and the tests that need root, without their
//! debug information, which would fill the machine's memory.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::Context as _;
use serde::Deserialize;

/// A program or test.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) name: String,
    /// Stripped.
    pub(super) file: PathBuf,
    /// Where cargo left it, which tests know as the place of the programs.
    pub(super) built: PathBuf,
}

/// Those tests of the step `root` that say something about the kernel.
const TESTS: [&str; 5] = ["foreign", "host", "kernel", "namespaces", "privileges"];
/// Crates of this workspace that are optimised as their dependencies are: emulated, each instruction costs
/// ten times what it does here. The rest is what an ordinary build has left.
const OPTIMISED: [&str; 3] = ["agentgate-daemon", "fake-internet", "xtask"];

/// A line of `cargo --message-format=json`, of which there are many kinds.
#[derive(Debug, Deserialize)]
struct Message {
    target: Option<Target>,
    executable: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
struct Target {
    name: String,
}

/// Builds and strips them.
///
/// # Errors
/// When cargo or strip fails.
pub(super) fn build(work: &Path) -> anyhow::Result<Vec<Program>> {
    // The tests bring the programs that they start with them, so the library is built once.
    let mut arguments = vec!["test", "--no-run", "--package", "agentgate-daemon"];
    for test in TESTS {
        arguments.extend(["--test", test]);
    }
    let mut found = Vec::new();
    for (name, path) in cargo(&arguments)? {
        match name.as_str() {
            "agentgated" | "agentctl" => found.push((name, path)),
            test if TESTS.contains(&test) => found.push((format!("test-{test}"), path)),
            _ => {}
        }
    }
    let lab = cargo(&["build", "--package", "xtask", "--bins"])?;
    found.extend(lab.into_iter().filter(|(name, _)| name == "xtask"));
    anyhow::ensure!(found.len() == 3 + TESTS.len(), "cargo built {found:?}");
    let into = work.join("programs");
    fs::create_dir_all(&into)?;
    let mut stripped = Vec::new();
    for (name, path) in found {
        let to = into.join(&name);
        let status = Command::new("strip").arg("-o").arg(&to).arg(&path).status();
        anyhow::ensure!(status.context("start strip (package binutils)")?.success(), "strip {name} failed");
        stripped.push(Program { name, file: to, built: path });
    }
    Ok(stripped)
}

/// Runs cargo and gives what it built that can be run.
fn cargo(arguments: &[&str]) -> anyhow::Result<Vec<(String, PathBuf)>> {
    let optimised = OPTIMISED
        .iter()
        .flat_map(|name| ["--config".to_owned(), format!("profile.dev.package.{name}.opt-level=1")]);
    let output = Command::new("cargo")
        .args(arguments)
        .args(optimised)
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit())
        .output()
        .context("start cargo")?;
    anyhow::ensure!(output.status.success(), "cargo {}: {}", arguments.join(" "), output.status);
    let mut built = Vec::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let Message { target, executable } = serde_json::from_str(line).context("what cargo said")?;
        if let (Some(target), Some(path)) = (target, executable) {
            built.push((target.name, path));
        }
    }
    Ok(built)
}
