//! `cargo xtask fidelity`: the fidelity test for as long as one likes. Built as other tests are, with checks
//! of arithmetic on; what it waits for is the network's turns, not the compiler's.

use std::{
    process::{Command, ExitCode},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;

use crate::{setup, setup::Need};

/// Sends `exchanges` through the gate.
///
/// # Errors
/// When set-up fails or cargo cannot be started.
pub(crate) fn run(exchanges: u64, seed: Option<u64>) -> anyhow::Result<ExitCode> {
    setup::ensure(&[Need::Build])?;
    let seed = match seed {
        Some(seed) => seed,
        None => SystemTime::now().duration_since(UNIX_EPOCH).context("the clock")?.as_secs(),
    };
    println!("fidelity: {exchanges} exchanges from seed {seed}");
    let status = Command::new("cargo")
        .args(["test", "--package", "agentgate-daemon", "--test", "fidelity", "--"])
        .args(["--exchanges", &exchanges.to_string(), "--seed", &seed.to_string()])
        .status()
        .context("start cargo")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
