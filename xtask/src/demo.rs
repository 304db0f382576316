//! `cargo xtask demo`: an agent's traffic through the real gate, shown beside what the origin saw and
//! what the log holds.

use std::{os::unix::process::CommandExt as _, process::ExitCode};

use anyhow::Context as _;
use serde_json::json;

use crate::{
    lab::{
        inside::Lab,
        row::{Row, table},
        scenario,
    },
    privilege, setup, test,
};

/// Sets up, builds, and becomes the demo's outer process, as root.
///
/// # Errors
/// When set-up or the build fails, or root is not to be had.
pub(crate) fn run(once: bool, json: bool) -> anyhow::Result<ExitCode> {
    setup::ensure(&[setup::Need::Build, setup::Need::Lab])?;
    test::build_programs()?;
    let mut arguments = vec!["lab", "demo"];
    arguments.extend(once.then_some("--once"));
    arguments.extend(json.then_some("--json"));
    // Becoming it instead of waiting for it: Ctrl-C then goes to the one that cleans up.
    let error = privilege::this_as_root(&arguments)?.exec();
    Err(error).context("become root through sudo")
}

/// The demo, inside the lab. True when nothing differs.
///
/// # Errors
/// When the daemon cannot be started or the dashboard's address not be had.
pub(crate) async fn inside(lab: &mut Lab, once: bool, json: bool) -> anyhow::Result<bool> {
    lab.write_settings()?;
    lab.start_daemon().await?;
    let mut rows: Vec<Row> = Vec::new();
    for scenario in scenario::shown() {
        let row = scenario.run(lab).await;
        if !json {
            eprintln!("{} {}", if row.ok() { "ok     " } else { "DIFFERS" }, row.name);
        }
        rows.push(row);
    }
    let differing = rows.iter().filter(|row| !row.ok()).count();
    if json {
        println!("{}", json!({ "rows": rows, "differing": differing }));
    } else {
        println!("\n{}", table(&rows));
        println!("{} rows, {differing} differ", rows.len());
        if differing > 0
            && let Some(daemon) = &lab.daemon
        {
            println!("the daemon's log ends:\n{}", daemon.log_tail());
        }
    }
    if once {
        return Ok(differing == 0);
    }
    let address = dashboard(lab).await?;
    if json {
        println!("{}", json!({ "dashboard": address }));
    } else {
        println!("\nThe dashboard, for one login within two minutes: {address}");
        println!(
            "Another address: {} --root {} dashboard (as root)",
            lab.programs.agentctl.display(),
            lab.root().display()
        );
        println!("Ctrl-C ends the demo and removes everything it made.");
    }
    std::future::pending().await
}

/// An address that logs in at the dashboard once: the same on the machine's loopback, through the relay.
async fn dashboard(lab: &Lab) -> anyhow::Result<String> {
    let said = lab.steer(&["dashboard"]).await?;
    let address = said.split_whitespace().find(|word| word.starts_with("http://"));
    let address = address.with_context(|| format!("agentctl dashboard gave no address: {said}"))?;
    Ok(address.to_owned())
}
