//! The daemon's life under an agent that goes on: policy changes, death, restart, a rival.

use std::{
    fs,
    io::Write as _,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use fake_internet::world::{OPEN, UNLISTED};
use rustix::process::Signal;
use tokio::time::timeout;

use super::Scenario;
use crate::lab::{
    agent,
    case::since,
    daemon::policy,
    inside::Lab,
    log::{Pattern, Record},
    row::Row,
};

const OPEN_URL: &str = "https://open.example/";
const UNLISTED_URL: &str = "https://unlisted.example/";
/// Nothing listens there in the clear: only a refusal can answer.
const UNLISTED_ADDRESS: &str = "http://203.0.113.40/";
const OPEN_ADDRESS: &str = "http://198.51.100.10/";

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::Story("a policy reload holds for the next request", |lab| Box::pin(policy_reload(lab))),
        Scenario::Story("a broken policy is refused, the last good one stays", |lab| {
            Box::pin(broken_policy(lab))
        }),
        Scenario::Story("SIGHUP reloads and disturbs nobody", |lab| Box::pin(hangup(lab))),
        Scenario::Story("agentctl deny and allow hold for the next request", |lab| Box::pin(lists(lab))),
        Scenario::Story("a second daemon on the cgroup is refused", |lab| Box::pin(second_daemon(lab))),
        Scenario::Story("kill -9: refused; restarted: flows again", |lab| Box::pin(killed(lab))),
        Scenario::Story("stopped in good order: refused; started: flows again", |lab| Box::pin(stopped(lab))),
        Scenario::Story("kill -9 in the middle of an answer", |lab| Box::pin(killed_in_the_middle(lab))),
        Scenario::Story("a full disk: refused; room again: flows again", |lab| Box::pin(full_disk(lab))),
        Scenario::Story("a config with an unknown key is refused", |lab| Box::pin(unknown_key(lab))),
        Scenario::Story("agentctl status tells mode and health", |lab| Box::pin(status(lab))),
    ]
}

impl Lab {
    /// Runs an `agentctl` command that must succeed; gives what it printed.
    pub(crate) async fn steer(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = self.agentctl();
        command.args(arguments).stdin(std::process::Stdio::null());
        let output = command.output().await.context("agentctl")?;
        let said =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        anyhow::ensure!(output.status.success(), "agentctl {}: {said}", arguments.join(" "));
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
    row.expect(got == expect, || format!("{when}: {url} gave {got}, not {expect}"));
    Ok(())
}

async fn policy_reload(lab: &mut Lab) -> anyhow::Result<Row> {
    let mut row = Row::new("", "fetch, reload, fetch");
    let mut agent = lab.start_agent()?;
    fetch(&mut row, &mut agent, UNLISTED_URL, "200", "blocklist").await?;
    let before = lab.internet.journal.snapshot();
    fs::write(lab.policy(), policy("enforce"))?;
    lab.steer(&["policy", "reload"]).await?;
    fetch(&mut row, &mut agent, UNLISTED_URL, "gaierror", "enforce").await?;
    fetch(&mut row, &mut agent, UNLISTED_ADDRESS, "403", "enforce, by address").await?;
    let arrived = since(&before, lab.internet.journal.snapshot()).requests_to(UNLISTED).count();
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
            row.expect(said.contains("policy.toml:2"), || format!("no file and line in: {said}"));
        }
    }
    fetch(&mut row, &mut agent, OPEN_URL, "200", "still the last good").await?;
    fs::write(lab.policy(), policy("blocklist"))?;
    lab.steer(&["policy", "reload"]).await?;
    fetch(&mut row, &mut agent, OPEN_URL, "200", "mended").await?;
    agent.finish().await?;
    Ok(row)
}

async fn hangup(lab: &mut Lab) -> anyhow::Result<Row> {
    let mut row = Row::new("", "fetch, SIGHUP, fetch");
    let mut agent = lab.start_agent()?;
    fetch(&mut row, &mut agent, OPEN_URL, "200", "before").await?;
    let daemon = lab.daemon.as_ref().context("no daemon")?;
    daemon.signal(Signal::HUP)?;
    daemon.logged("policy reloaded").await?;
    fetch(&mut row, &mut agent, OPEN_URL, "200", "after").await?;
    agent.finish().await?;
    Ok(row)
}

async fn lists(lab: &mut Lab) -> anyhow::Result<Row> {
    let mut row = Row::new("", "agentctl deny, deny --remove");
    let mut agent = lab.start_agent()?;
    fetch(&mut row, &mut agent, UNLISTED_URL, "200", "before").await?;
    lab.steer(&["deny", UNLISTED]).await?;
    fetch(&mut row, &mut agent, UNLISTED_URL, "gaierror", "denied").await?;
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
        rival.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        rival
    })
    .await?;
    row.saw(&format!("exit {}", ended.code));
    row.expect(ended.code != 0, || "the second daemon ended with 0".to_owned());
    row.expect(ended.said().contains("another agentgated"), || format!("no reason in: {}", ended.said()));
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
    // With them, who connects would wait for the next daemon.
    lab.let_go_of_sockets();
    let before = lab.internet.journal.snapshot();
    let pid = agent.pid();
    fetch(row, agent, OPEN_URL, "gaierror", "no daemon").await?;
    fetch(row, agent, OPEN_ADDRESS, "ConnectionRefusedError", "no daemon, by address").await?;
    let arrived = since(&before, lab.internet.journal.snapshot()).connections_to(OPEN).count();
    row.origin = format!("connections in the gap: {arrived}");
    row.expect(arrived == 0, || format!("{arrived} connections arrived with no daemon"));
    lab.start_daemon().await?;
    fetch(row, agent, OPEN_URL, "200", "again").await?;
    row.expect(pid.is_some() && pid == agent.pid(), || "it is another agent".to_owned());
    Ok(())
}

async fn killed_in_the_middle(lab: &mut Lab) -> anyhow::Result<Row> {
    let mut row = Row::new("", "curl a stream of events, kill -9, restart");
    let mark = lab.newest().await?;
    let curl = ["curl", "-sSN", "https://open.example/sse?n=600&ms=100"].map(str::to_owned);
    let client = tokio::spawn(agent::finish(lab.inside(&curl)));
    let streaming = |s: &fake_internet::Snapshot| s.requests_to(OPEN).any(|r| r.target.contains("n=600"));
    let came = lab.internet.journal.wait_for(Duration::from_secs(20), streaming).await;
    row.expect(came, || "the request did not arrive".to_owned());
    lab.daemon.take().context("the daemon does not run")?.kill().await?;
    let ended = client.await??;
    row.saw(&format!("exit {}", ended.code));
    row.expect(ended.code != 0, || "curl took half an answer for a whole one".to_owned());
    lab.start_daemon().await?;
    let pattern = Pattern {
        kind: Some("exchange"),
        host: Some(OPEN),
        state: Some("failed"),
        blame: Some("gate"),
        ..Pattern::default()
    };
    let records = lab.records_with(mark, &pattern).await?;
    match records.iter().find(|record| pattern.matches(record)) {
        Some(record) => row.log = record.summary(),
        None => row.differs.push(format!(
            "the exchange is not recorded as interrupted: {}",
            records.iter().map(Record::summary).collect::<Vec<_>>().join("; ")
        )),
    }
    Ok(row)
}

/// What cannot be recorded must not pass.
async fn full_disk(lab: &mut Lab) -> anyhow::Result<Row> {
    let mut row = Row::new("", "fill the disk under the store, fetch; make room, fetch");
    let mut agent = lab.start_agent()?;
    fetch(&mut row, &mut agent, OPEN_URL, "200", "before").await?;
    let filler = lab.state().join("filler");
    let full = fill(&filler)?;
    row.saw(&format!("{full} bytes fill the disk"));
    // Pages that the store holds already are its own to use, so it may go on for a while.
    let mut refused = None;
    for _ in 0..200 {
        let before = lab.internet.journal.snapshot();
        let got = agent.fetch("https://open.example/bytes/200000").await?;
        if got != "200" {
            let arrived = since(&before, lab.internet.journal.snapshot()).requests_to(OPEN).count();
            refused = Some((got, arrived));
            break;
        }
    }
    match refused {
        Some((got, arrived)) => {
            row.saw(&format!("full: {got}"));
            row.origin = format!("requests after that: {arrived}");
            row.expect(arrived == 0, || format!("{arrived} unrecorded requests arrived"));
        }
        None => row.differs.push("200 requests passed with a full disk".to_owned()),
    }
    fs::remove_file(&filler)?;
    // The store is tried again within a second; each fetch until then is refused.
    let began = Instant::now();
    let mut got = agent.fetch(OPEN_URL).await?;
    while got != "200" && began.elapsed() < Duration::from_secs(10) {
        got = agent.fetch(OPEN_URL).await?;
    }
    row.saw(&format!("room again: {got}"));
    row.expect(got == "200", || format!("room again, still: {got}"));
    agent.finish().await?;
    Ok(row)
}

/// Writes until the disk is full; gives how much it took.
fn fill(path: &Path) -> anyhow::Result<u64> {
    let mut file = fs::File::create(path)?;
    // In small pieces, so that no room for one page is left.
    let mut written = 0;
    loop {
        match file.write(&[0; 4096]) {
            Ok(n) => written += n as u64,
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => return Ok(written),
            Err(error) => return Err(error).context("fill the disk"),
        }
    }
}

async fn unknown_key(lab: &mut Lab) -> anyhow::Result<Row> {
    let mut row = Row::new("", "agentgated --check-config");
    let path = lab.dir.join("unknown.toml");
    fs::write(&path, "[gate]\ncgroop = \"agent.slice\"\n")?;
    let mut command = tokio::process::Command::new(&lab.programs.agentgated);
    command.arg("--config").arg(&path).arg("--root").arg(lab.root()).arg("--check-config").kill_on_drop(true);
    let output = timeout(Duration::from_secs(10), command.output()).await??;
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    row.saw(said.lines().next().unwrap_or_default());
    row.expect(!output.status.success(), || "it was accepted".to_owned());
    row.expect(said.contains("cgroop") && said.contains(":2:"), || format!("no key and place in: {said}"));
    Ok(row)
}

async fn status(lab: &mut Lab) -> anyhow::Result<Row> {
    let mut row = Row::new("", "agentctl status");
    let said = lab.steer(&["status"]).await?;
    row.saw(said.lines().next().unwrap_or_default());
    row.expect(said.contains("blocklist"), || format!("no mode in: {said}"));
    Ok(row)
}
