//! The small internet alone, for a machine that has no other network: a virtual one.

use std::{
    fs,
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::Context as _;
use fake_internet::world;

use super::network;

/// Joins this machine to the internet for as long as `command` runs, with its root certificate, its
/// journal and a `resolv.conf` in the directory `at`. The exit code is the command's.
///
/// # Errors
/// On a machine that has any other interface than loopback, since its routes would be changed; and when
/// something cannot be made.
pub(crate) fn run(at: &Path, command: &[String]) -> anyhow::Result<ExitCode> {
    for interface in fs::read_dir("/sys/class/net").context("/sys/class/net")? {
        let name = interface?.file_name();
        anyhow::ensure!(name == "lo", "this machine has a network of its own: {}", name.display());
    }
    let (program, arguments) = command.split_first().context("no command")?;
    fs::create_dir_all(at).with_context(|| at.display().to_string())?;
    let internet = network::build(at.join("journal.sock"))?;
    fs::write(at.join("root.pem"), &internet.root_pem)?;
    let [first, _] = world::NAME_SERVERS;
    fs::write(at.join("resolv.conf"), format!("nameserver {first}\n"))?;
    let status = Command::new(program).args(arguments).status().with_context(|| program.clone())?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
