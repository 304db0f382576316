//! Root where it is needed: the lab makes namespaces and cgroups and loads eBPF programs.

use std::process::Command;

use anyhow::Context as _;

/// Whether this process is root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// This program again, as root: through sudo where that is needed.
///
/// # Errors
/// When this program's own path cannot be told.
pub(crate) fn this_as_root(arguments: &[&str]) -> anyhow::Result<Command> {
    let own = std::env::current_exe().context("where this program is")?;
    let mut command = if is_root() {
        Command::new(own)
    } else {
        let mut sudo = Command::new("sudo");
        sudo.arg("--").arg(own);
        sudo
    };
    command.args(arguments);
    Ok(command)
}
