//! What must be there before a build or a test: found, or named.

use std::process::{Command, Stdio};

/// A purpose that needs programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Building the workspace with its eBPF object.
    Build,
    /// The lab: namespaces, and the clients that run in it.
    Lab,
    /// Licence and dependency checks.
    Deny,
}

/// Everything.
pub(crate) fn run() -> anyhow::Result<()> {
    ensure(&[Need::Build, Need::Lab, Need::Deny])
}

/// Checks that what is needed is there.
pub(crate) fn ensure(needs: &[Need]) -> anyhow::Result<()> {
    for need in needs {
        let programs: &[&str] = match need {
            Need::Build => &["cargo"],
            Need::Lab => &["curl", "ip", "setpriv", "python3"],
            Need::Deny => &["cargo-deny"],
        };
        for program in programs {
            let flag = if *program == "ip" { "-V" } else { "--version" };
            let started = Command::new(program)
                .arg(flag)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            anyhow::ensure!(started.is_ok(), "{program} is missing: install it");
        }
    }
    Ok(())
}
