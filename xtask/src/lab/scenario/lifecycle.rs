//! The daemon's life under an agent that goes on: policy changes, death, restart, a rival.

use std::{fs, time::Instant};

use anyhow::Context as _;
use fake_internet::world::{OPEN, UNLISTED};
use tokio::time::timeout;

use super::Scenario;
use crate::lab::{agent, case::since, daemon::policy, inside::Lab, row::Row};

const OPEN_URL: &str = "https://open.example/";
const UNLISTED_URL: &str = "https://unlisted.example/";

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::Story("a policy reload holds for the next request", |lab| {
            Box::pin(policy_reload(lab))
        }),
        Scenario::Story("a broken policy is refused, the last good one stays", |lab| {
            Box::pin(broken_policy(lab))
        }),
        Scenario::Story("agentctl deny and allow hold for the next request", |lab| {
            Box::pin(lists(lab))
        }),
        Scenario::Story("a second daemon on the cgroup is refused", |lab| {
            Box::pin(second_daemon(lab))
        }),
        Scenario::Story("kill -9: refused; restarted: flows again", |lab| {
            Box::pin(killed(lab))
        }),
        Scenario::Story("stopped in good order: refused; started: flows again", |lab| {
            Box::pin(stopped(lab))
        }),
        Scenario::Story("a config with an unknown key is refused", |lab| {
            Box::pin(unknown_key(lab))
        }),
        Scenario::Story("agentctl status tells mode and health", |lab| {
            Box::pin(status(lab))
        }),
    ]
}

impl Lab {
    /// Runs an `agentctl` command that must succeed; gives what it printed.
    pub(crate) async fn steer(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = self.agentctl();
        command.args(arguments).stdin(std::process::Stdio::null());
        let output = command.output().await.context("agentctl")?;
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        anyhow::ensure!(
            output.status.success(),
            "agentctl {}: {said}",
            arguments.join(" ")
        );
        Ok(said)
    }
}

/// One fetch by the long-lived agent, compared.
async fn fetch(
    row: &mut Row,
    agent: &mut agent::LongAgent,
    url: &str,
    expect: &str,
    when: &str,
) -> anyhow::Result<()> {
    let got = agent.fetch(url).await?;
    row.saw(&format!("{when}: {got}"));
    row.expect(got == expect, || {
        format!("{when}: {url} gave {got}, not {expect}")
    });
    Ok(())
}

async fn policy_reload(lab: &mut Lab) -> anyhow::Result<Row> {
    let mut row = Row::new("", "fetch, reload, fetch");
    let mut agent = lab.start_agent()?;
    fetch(&mut row, &mut agent, UNLISTED_URL, "200", "blocklist").await?;
    let before = lab.internet.journal.snapshot();
    fs::write(lab.policy(), policy("enforce"))?;
    lab.steer(&["policy", "reload"]).await?;
    fetch(&mut row, &mut agent, UNLISTED_URL, "403", "enforce").await?;
    let arrived = since(&before, lab.internet.journal.snapshot())
        .requests_to(UNLISTED)
        .count();
    row.expect(arrived == 0, || format!("{arrived} requests arrived in enforce"));
    fs::write(lab.policy(), policy("blocklist"))?;
    lab.steer(&["policy", "reload"]).await?;
    fetch(&mut row, &mut agent, UNLISTED_URL, "200", "blocklist again").await?;
    agent.finish().await?;
    Ok(row)
}

async fn broken_policy(lab: &mut Lab) -> anyhow::Result<Row> {
    let mut row = Row::new("", "reload a policy that does not parse");
    let mut agent = lab.start_agent()?;
    fs::write(lab.policy(), "version = 1\nmode = \"blocklst\"\n")?;
    let reloaded = lab.steer(&["policy", "reload"]).await;
    match &reloaded {
        Ok(said) => row.differs.push(format!("the reload succeeded: {said}")),
        Err(error) => {
            let said = format!("{error:#}");
            row.saw("reload refused");
            row.expect(said.contains("policy.toml:2"), || {
                format!("no file and line in: {said}")
            });
        }
    }
    fetch(&mut row, &mut agent, OPEN_URL, "200", "still the last good").await?;
    fs::write(lab.policy(), policy("blocklist"))?;
    lab.steer(&["policy", "reload"]).await?;
    fetch(&mut row, &mut agent, OPEN_URL, "200", "mended").await?;
    agent.finish().await?;
    Ok(row)
}

async fn lists(lab: &mut Lab) -> anyhow::Result<Row> {
    let mut row = Row::new("", "agentctl deny, deny --remove");
    let mut agent = lab.start_agent()?;
    fetch(&mut row, &mut agent, UNLISTED_URL, "200", "before").await?;
    lab.steer(&["deny", UNLISTED]).await?;
    fetch(&mut row, &mut agent, UNLISTED_URL, "403", "denied").await?;
    lab.steer(&["deny", UNLISTED, "--remove"]).await?;
    fetch(&mut row, &mut agent, UNLISTED_URL, "200", "removed").await?;
    agent.finish().await?;
    Ok(row)
}

async fn second_daemon(lab: &mut Lab) -> anyhow::Result<Row> {
    let mut row = Row::new("", "agentgated, a second time");
    let mut agent = lab.start_agent()?;
    let ended = agent::finish({
        let mut rival = lab.agentgated();
        rival
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        rival
    })
    .await?;
    row.saw(&format!("exit {}", ended.code));
    row.expect(ended.code != 0, || "the second daemon ended with 0".to_owned());
    row.expect(ended.said().contains("another agentgated"), || {
        format!("no reason in: {}", ended.said())
    });
    fetch(&mut row, &mut agent, OPEN_URL, "200", "the first serves on").await?;
    agent.finish().await?;
    Ok(row)
}

async fn killed(lab: &mut Lab) -> anyhow::Result<Row> {
    let mut row = Row::new("", "fetch, kill -9, fetch, restart, fetch");
    let mut agent = lab.start_agent()?;
    fetch(&mut row, &mut agent, OPEN_URL, "200", "before").await?;
    let daemon = lab.daemon.take().context("the daemon does not run")?;
    daemon.kill().await?;
    let restarted = gap(lab, &mut row, &mut agent).await;
    restarted?;
    agent.finish().await?;
    Ok(row)
}

async fn stopped(lab: &mut Lab) -> anyhow::Result<Row> {
    let mut row = Row::new("", "fetch, SIGTERM, fetch, start, fetch");
    let mut agent = lab.start_agent()?;
    fetch(&mut row, &mut agent, OPEN_URL, "200", "before").await?;
    let began = Instant::now();
    let daemon = lab.daemon.take().context("the daemon does not run")?;
    daemon.stop().await?;
    row.saw(&format!("stopped in {} ms", began.elapsed().as_millis()));
    gap(lab, &mut row, &mut agent).await?;
    agent.finish().await?;
    Ok(row)
}

/// No daemon: refused, and nothing arrives anywhere. Then a daemon again, and the same agent goes on.
async fn gap(lab: &mut Lab, row: &mut Row, agent: &mut agent::LongAgent) -> anyhow::Result<()> {
    let before = lab.internet.journal.snapshot();
    let pid = agent.pid();
    fetch(row, agent, OPEN_URL, "ConnectionRefusedError", "no daemon").await?;
    let arrived = since(&before, lab.internet.journal.snapshot())
        .connections_to(OPEN)
        .count();
    row.origin = format!("connections in the gap: {arrived}");
    row.expect(arrived == 0, || {
        format!("{arrived} connections arrived with no daemon")
    });
    lab.start_daemon().await?;
    fetch(row, agent, OPEN_URL, "200", "again").await?;
    row.expect(pid.is_some() && pid == agent.pid(), || {
        "it is another agent".to_owned()
    });
    Ok(())
}

async fn unknown_key(lab: &mut Lab) -> anyhow::Result<Row> {
    let mut row = Row::new("", "agentgated --check-config");
    let path = lab.dir.join("unknown.toml");
    fs::write(&path, "[gate]\ncgroop = \"agent.slice\"\n")?;
    let mut command = tokio::process::Command::new(&lab.programs.agentgated);
    command
        .arg("--config")
        .arg(&path)
        .arg("--root")
        .arg(lab.root())
        .arg("--check-config")
        .kill_on_drop(true);
    let output = timeout(std::time::Duration::from_secs(10), command.output()).await??;
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    row.saw(said.lines().next().unwrap_or_default());
    row.expect(!output.status.success(), || "it was accepted".to_owned());
    row.expect(said.contains("cgroop") && said.contains(":2:"), || {
        format!("no key and place in: {said}")
    });
    Ok(row)
}

async fn status(lab: &mut Lab) -> anyhow::Result<Row> {
    let mut row = Row::new("", "agentctl status");
    let said = lab.steer(&["status"]).await?;
    row.saw(said.lines().next().unwrap_or_default());
    row.expect(said.contains("blocklist"), || format!("no mode in: {said}"));
    Ok(row)
}
