//! `cargo xtask bench`: measurements on this machine, each with and without what it measures, in turn.

use std::{
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode},
};

use anyhow::Context as _;
use clap::Subcommand;

use crate::{
    privilege,
    setup::{self, Need},
};

mod cell;
mod figure;
mod gate;
mod inside;
mod install;
mod memory;
mod options;
mod outside;
mod peer;
mod profile;
mod results;
mod setting;
mod table;
mod target;
mod versions;

pub(crate) use options::{ProfileOptions, ProxyOptions};

#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// What the programs add to connect(2) and to sending a datagram, with and without them in turn
    Connect {
        /// Rounds of a hundred calls of each kind in each place
        #[arg(long, default_value_t = 100)]
        rounds: usize,
        /// Print JSON instead of a table
        #[arg(long)]
        json: bool,
    },
    /// The gate against nothing, bare relays and other proxies; writes docs/benchmarks.md
    Proxy(ProxyOptions),
    /// Where the gate spends its time under load
    Profile(ProfileOptions),
    /// Build and install what `proxy` measures; says what is not to be had
    Setup,
    /// The outer process, as root
    #[command(hide = true)]
    Outside { job: String },
    /// The inner one
    #[command(hide = true)]
    Inside { orders: String },
}

/// Does the task.
///
/// # Errors
/// When set-up fails, or something cannot be measured.
pub(crate) fn run(task: Task) -> anyhow::Result<ExitCode> {
    match task {
        Task::Connect { rounds, json } => connect(rounds, json),
        Task::Proxy(options) => become_root(&outside::Job::Proxy(options)),
        Task::Profile(options) => become_root(&outside::Job::Profile(options)),
        Task::Setup => install::all().map(|()| ExitCode::SUCCESS),
        Task::Outside { job } => outside::run(serde_json::from_str(&job).context("the job")?),
        Task::Inside { orders } => inside::run(&orders),
    }
}

/// Sets up, builds, and becomes the outer process as root: Ctrl-C then goes to the one that cleans up.
fn become_root(job: &outside::Job) -> anyhow::Result<ExitCode> {
    setup::ensure(&[Need::Build, Need::Lab])?;
    install::wanted(job)?;
    let job = serde_json::to_string(job)?;
    let error = privilege::this_as_root(&["bench", "outside", &job])?.exec();
    Err(error).context("become root through sudo")
}

/// What the programs add to connect(2) and to sending: `agentgate-daemon/benches/connect.rs`, optimised, as
/// root in namespaces of its own.
fn connect(rounds: usize, json: bool) -> anyhow::Result<ExitCode> {
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
