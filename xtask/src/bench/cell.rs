//! One measurement of one peer in one round.

use std::{collections::BTreeMap, process::Stdio, time::Duration};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tokio::{io::AsyncReadExt as _, net::TcpStream, process::Command, time::timeout};

use super::{
    figure::{Figure, Metric},
    peer::{Kind, Running},
    setting::{COUNTERS, NAMES, Setting},
};

/// Longer than any cell takes, a stalling peer's included.
const PATIENCE: Duration = Duration::from_secs(180);

/// What the load generator prints.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Report {
    pub(crate) count: u64,
    pub(crate) seconds: f64,
    pub(crate) connections: u64,
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) cpu_seconds: Option<f64>,
    pub(crate) first_event_us: Option<f64>,
}

impl Report {
    /// What went wrong, if anything did.
    pub(crate) fn complaint(&self) -> Option<String> {
        let first = self.first_error.as_deref()?;
        Some(format!("{} errors, the first: {first}", self.errors))
    }
}

/// Numbers of one measurement; where there is an error they count for nothing.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Cell {
    pub(crate) figure: Figure,
    pub(crate) peer: Kind,
    pub(crate) round: usize,
    pub(crate) values: BTreeMap<Metric, f64>,
    pub(crate) error: Option<String>,
}

impl Cell {
    pub(crate) fn failed(figure: Figure, peer: Kind, round: usize, error: &anyhow::Error) -> Self {
        Self { figure, peer, round, values: BTreeMap::new(), error: Some(format!("{error:#}")) }
    }
}

/// The load generator against a peer. Where it is pinned, peer and origin are too for as long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load<'a> {
    pub(crate) setting: &'a Setting,
    pub(crate) peer: &'a Running,
    pub(crate) name: &'a str,
    pub(crate) pinned: bool,
    pub(crate) warm: f64,
    pub(crate) seconds: f64,
}

impl Load<'_> {
    /// It, about to be started.
    pub(crate) fn command(&self, what: &[String]) -> Command {
        let Self { setting, peer, .. } = self;
        let mut command = setting.child(&setting.client(peer), &setting.programs.peers);
        command.arg("load").arg("--to").arg(peer.kind.meets().to_string());
        command.args(peer.kind.is_explicit().then_some("--connect"));
        command.arg("--name").arg(self.name);
        if peer.kind.is_gate() {
            // The gate wants to know by which name an agent came by an address, as all agents do.
            command.arg("--resolve").arg(NAMES.to_string());
        }
        command.arg("--ca").arg(setting.trusted(peer.kind, self.name));
        if let Some(cgroup) = &peer.cgroup {
            command.arg("--charge").arg(cgroup);
        }
        if self.pinned {
            command.arg("--cpu").arg(setting.last_cpu().to_string());
        }
        command.args(["--warm", &self.warm.to_string(), "--seconds", &self.seconds.to_string()]);
        command.args(what).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs it to its end; the second number is of the origin's handshakes meanwhile.
    pub(crate) async fn run(&self, what: &[String]) -> anyhow::Result<(Report, u64)> {
        let before = handshakes().await?;
        self.setting.pin(self.peer, self.pinned)?;
        let child = self.command(what).spawn().context("start the load generator")?;
        let output = timeout(PATIENCE, child.wait_with_output()).await;
        self.setting.pin(self.peer, false)?;
        let output = output.context("the load generator hangs")??;
        let complaint = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "{}", complaint.trim());
        let report = serde_json::from_slice(&output.stdout).context("the load generator's report")?;
        Ok((report, handshakes().await? - before))
    }
}

/// Handshakes that the origin has completed so far.
async fn handshakes() -> anyhow::Result<u64> {
    #[derive(Deserialize)]
    struct Counters {
        full: u64,
        resumed: u64,
    }
    let mut text = Vec::new();
    let mut stream = TcpStream::connect(COUNTERS).await.context("the origin's counters")?;
    stream.read_to_end(&mut text).await?;
    let Counters { full, resumed } = serde_json::from_slice(&text).context("the origin's counters")?;
    Ok(full + resumed)
}
