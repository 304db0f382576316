//! Memory: of a peer that has just started, and with a thousand connections that do nothing.

use std::{collections::BTreeMap, process::Stdio};

use anyhow::Context as _;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::{
    cell::{Cell, Load, Report},
    figure::{Figure, IDLE, Metric},
    peer::Running,
    setting::{INTERCEPTED, Setting},
};

/// Measures one that was started just now.
pub(crate) async fn measure(setting: &Setting, peer: &Running, round: usize) -> anyhow::Result<Cell> {
    let idle = peer.resident()?;
    let load = Load { setting, peer, name: INTERCEPTED, pinned: setting.pin, warm: 0.0, seconds: 0.0 };
    let mut child = load.command(&Figure::Memory.load()).stdin(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("its output")?).lines();
    let line = lines.next_line().await?;
    if line.as_deref() != Some("ready") {
        let output = child.wait_with_output().await?;
        anyhow::bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let full = peer.resident()?;
    drop(child.stdin.take());
    let report = lines.next_line().await?.context("the load generator's report")?;
    let report: Report = serde_json::from_str(&report).context("the load generator's report")?;
    let status = child.wait().await?;
    anyhow::ensure!(status.success(), "the load generator ended with {status}");
    let values = BTreeMap::from([
        (Metric::Idle, idle as f64 / 1024.0),
        (Metric::Connection, full.saturating_sub(idle) as f64 / IDLE as f64),
    ]);
    Ok(Cell { figure: Figure::Memory, peer: peer.kind, round, values, error: report.complaint() })
}
