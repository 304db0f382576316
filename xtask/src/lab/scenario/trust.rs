//! `agentctl doctor trust` with the runtimes that are on this machine, on the whole way: DNS, redirection,
//! leaf, answer.

use anyhow::Context as _;
use serde_json::Value;
use tokio::process::Command;

use super::{
    Scenario,
    tools::{NOBODY, home},
};
use crate::lab::{
    agent::{self, Ended},
    case::since,
    inside::Lab,
    row::Row,
};

/// What set-up installs. More are tried where they are there.
const INSTALLED: [&str; 9] = ["gate", "rust", "curl", "wget", "git", "python", "node", "java", "ruby"];

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::Story("every runtime here trusts the gate, for an ordinary user and for root", |lab| {
            Box::pin(all(lab))
        }),
        Scenario::Story("no runtime here trusts the gate unless it is told to", |lab| Box::pin(untold(lab))),
        Scenario::Story("a runtime that does not trust the gate is named, with what mends it", |lab| {
            Box::pin(distrust(lab))
        }),
    ]
}

async fn doctor(lab: &Lab, user: bool, words: &[&str]) -> anyhow::Result<(Ended, Vec<Value>)> {
    let mut command = lab.agentctl();
    command.args(["--json", "doctor", "trust"]).args(words);
    report(lab, user, command).await
}

async fn report(lab: &Lab, user: bool, mut command: Command) -> anyhow::Result<(Ended, Vec<Value>)> {
    command.current_dir("/");
    if user {
        command.uid(NOBODY).gid(NOBODY).env("HOME", home(lab)?);
    }
    let ended = agent::finish(agent::unmodified(command)).await?;
    let report: Value =
        serde_json::from_str(&ended.stdout).with_context(|| format!("no report in {:?}", ended.said()))?;
    let checks = report["checks"].as_array().cloned().unwrap_or_default();
    Ok((ended, checks))
}

fn state<'a>(checks: &'a [Value], name: &str) -> &'a str {
    let found = checks.iter().find(|check| check["name"] == name);
    found.and_then(|check| check["state"].as_str()).unwrap_or("not there")
}

async fn all(lab: &mut Lab) -> anyhow::Result<Row> {
    let mut row = Row::new("", "agentctl doctor trust");
    let before = lab.internet.journal.snapshot();
    for (user, words) in [(true, &[][..]), (false, &["--system-bundle"])] {
        let (ended, checks) = doctor(lab, user, words).await?;
        let who = if user { "nobody" } else { "root" };
        row.saw(&format!("{who}: {} runtimes", checks.len() - 1));
        row.expect(ended.code == 0, || format!("{who}: exit {}", ended.code));
        for check in checks.iter().filter(|check| check["state"] != "ok") {
            row.differs.push(format!("{who}: {check}"));
        }
        for name in INSTALLED {
            let state = state(&checks, name);
            row.expect(state == "ok", || format!("{who}: {name} is {state}"));
        }
    }
    // The gate answered itself.
    let arrived = since(&before, lab.internet.journal.snapshot());
    let count = arrived.connections.len() + arrived.datagrams.len();
    row.expect(count == 0, || format!("{count} connections or datagrams left the host"));
    let asked: Vec<_> =
        arrived.queries.iter().filter(|query| format!("{query:?}").contains("agentgate")).collect();
    row.expect(asked.is_empty(), || format!("its name was asked for outside: {asked:?}"));
    Ok(row)
}

/// The detectors detect: the same runtimes under guard, with nothing that `agentctl run` sets.
async fn untold(lab: &mut Lab) -> anyhow::Result<Row> {
    let mut row = Row::new("", "env -i agentctl doctor trust --here");
    for user in [true, false] {
        let mut command = lab.agentctl();
        command.args(["run", "--quiet", "--keep-system-bundle", "--", "sh", "-c"]);
        command.arg("exec env -i PATH=\"$PATH\" HOME=\"$HOME\" \"$@\"").arg("sh");
        command.arg(&lab.programs.agentctl).arg("--root").arg(lab.root());
        command.args(["--json", "doctor", "trust", "--here"]);
        let (ended, checks) = report(lab, user, command).await?;
        let who = if user { "nobody" } else { "root" };
        row.saw(&format!("{who}: {} runtimes", checks.len() - 1));
        row.expect(ended.code == 1, || format!("{who}: exit {}", ended.code));
        row.expect(state(&checks, "gate") == "ok", || format!("{who}: {checks:?}"));
        for check in checks.iter().filter(|check| check["name"] != "gate") {
            row.expect(check["state"] == "fail", || format!("{who}: {check}"));
        }
        for name in INSTALLED {
            row.expect(state(&checks, name) != "not there", || format!("{who}: {name} is not there"));
        }
    }
    Ok(row)
}

async fn distrust(lab: &mut Lab) -> anyhow::Result<Row> {
    let mut row = Row::new("", "agentctl doctor trust --keep-system-bundle wget curl");
    let (ended, checks) = doctor(lab, true, &["--keep-system-bundle", "wget", "curl"]).await?;
    row.saw(&format!("exit {}", ended.code));
    row.expect(ended.code == 1, || format!("exit {}", ended.code));
    row.expect(checks.len() == 3, || format!("{checks:?}"));
    // It reads no variable.
    let wget = checks.iter().find(|check| check["name"] == "wget").cloned().unwrap_or_default();
    row.expect(wget["state"] == "fail", || format!("wget: {wget}"));
    let (found, advice) = (wget["found"].to_string(), wget["advice"].to_string());
    row.expect(found.contains("cert"), || format!("wget: {found}"));
    row.expect(advice.contains("--system-bundle"), || format!("wget: {advice}"));
    row.expect(state(&checks, "curl") == "ok", || format!("{checks:?}"));
    Ok(row)
}
