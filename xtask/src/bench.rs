//! `cargo xtask bench`: measurements on this machine, each with and without what it measures, in turn.

use std::process::{Command, ExitCode};

use anyhow::Context as _;

use crate::{
    privilege,
    setup::{self, Need},
};

/// What the programs add to connect(2) and to sending: `agentgate-daemon/benches/connect.rs`, optimised, as
/// root in namespaces of its own.
///
/// # Errors
/// When set-up fails or cargo cannot be started.
pub(crate) fn connect(rounds: usize, json: bool) -> anyhow::Result<ExitCode> {
    setup::ensure(&[Need::Build, Need::Lab])?;
    let mut runner = vec!["unshare", "--net", "--mount", "--propagation", "private", "--"];
    if !privilege::is_root() {
        runner.splice(0..0, ["sudo", "--"]);
    }
    let runner = format!("target.'cfg(all())'.runner={}", serde_json::to_string(&runner)?);
    let mut command = Command::new("cargo");
    command.args(["bench", "--package", "agentgate-daemon", "--bench", "connect", "--config", &runner]);
    command.args(["--", "--rounds", &rounds.to_string()]);
    if json {
        command.arg("--json");
    }
    let status = command.status().context("start cargo")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
