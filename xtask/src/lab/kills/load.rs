//! Requests without end, from inside the guarded cgroup.

use std::time::Duration;

use anyhow::Context as _;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdout},
    time::timeout,
};

use crate::lab::inside::Lab;

/// Its threads end with their request; the slowest is a stream.
const PATIENCE: Duration = Duration::from_secs(60);

/// The process that asks.
#[derive(Debug)]
pub(super) struct Load {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Load {
    /// Returns when it has begun.
    pub(super) async fn start(lab: &Lab, seed: u64) -> anyhow::Result<Self> {
        let words = ["python3", "-u", "-c", include_str!("load.py"), &seed.to_string()].map(str::to_owned);
        let mut command = lab.inside(&words);
        command.stdin(std::process::Stdio::piped()).stderr(std::process::Stdio::inherit());
        let mut child = command.spawn().context("agentctl run")?;
        let lines = BufReader::new(child.stdout.take().context("stdout")?).lines();
        let mut load = Self { child, lines };
        load.line().await?;
        Ok(load)
    }

    /// Has it begin nothing more, or go on.
    pub(super) async fn rest(&mut self, rest: bool) -> anyhow::Result<()> {
        let line: &[u8] = if rest { b"rest\n" } else { b"go\n" };
        self.child.stdin.as_mut().context("stdin")?.write_all(line).await.context("the load ended")
    }

    /// Has it end; what it says of itself.
    pub(super) async fn end(mut self) -> anyhow::Result<String> {
        drop(self.child.stdin.take());
        let said = self.line().await?;
        let status = timeout(PATIENCE, self.child.wait()).await.context("the load hangs")??;
        anyhow::ensure!(status.success(), "the load ended with {status}");
        Ok(said)
    }

    async fn line(&mut self) -> anyhow::Result<String> {
        let line = timeout(PATIENCE, self.lines.next_line()).await.context("the load hangs")??;
        line.context("the load ended")
    }
}
