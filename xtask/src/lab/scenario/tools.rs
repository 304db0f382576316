//! Tools that are no browsers, as an ordinary user runs them by `agentctl run`: git over HTTPS, and ssh,
//! whose server speaks first.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt as _, chown},
    path::PathBuf,
};

use anyhow::Context as _;
use fake_internet::{
    repository::{COMMIT, README},
    sink::GREETING,
    world::OPEN,
};

use super::Scenario;
use crate::lab::{agent, case::since, daemon::policy, inside::Lab, row::Row};

/// Uid and gid of `nobody`, whom every host knows: ssh runs for no user without a name.
pub(super) const NOBODY: u32 = 65_534;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::Story("git clones over HTTPS, as an ordinary user", |lab| Box::pin(git(lab))),
        Scenario::Story("ssh to a host that policy opens by name, as an ordinary user", |lab| {
            Box::pin(ssh(lab))
        }),
    ]
}

/// A home of nobody's own, gone with the lab's directory.
pub(super) fn home(lab: &Lab) -> anyhow::Result<PathBuf> {
    let home = lab.root().join("home");
    if !home.exists() {
        fs::DirBuilder::new().mode(0o700).create(&home).context("a home")?;
        chown(&home, Some(NOBODY), Some(NOBODY)).context("a home")?;
    }
    Ok(home)
}

async fn run(lab: &Lab, command: &[&str]) -> anyhow::Result<agent::Ended> {
    let home = home(lab)?;
    let words: Vec<String> = command.iter().map(|&word| word.to_owned()).collect();
    let mut agent = lab.inside(&words);
    agent.uid(NOBODY).gid(NOBODY).env("HOME", &home).env("GIT_CONFIG_NOSYSTEM", "1").current_dir("/");
    agent::finish(agent).await
}

async fn git(lab: &mut Lab) -> anyhow::Result<Row> {
    let mut row = Row::new("", "git clone https://open.example/tiny.git");
    let script = "cd && rm -rf tiny && git clone --quiet https://open.example/tiny.git && cd tiny && \
                  git rev-parse HEAD && cat README && id -u";
    let ended = run(lab, &["sh", "-c", script]).await?;
    row.saw(&format!("exit {}", ended.code));
    row.expect(ended.code == 0, || format!("it failed: {}", ended.said()));
    for text in [COMMIT, README, "65534"] {
        row.expect(ended.stdout.contains(text), || format!("no {text:?} in {:?}", ended.said()));
    }
    Ok(row)
}

async fn ssh(lab: &mut Lab) -> anyhow::Result<Row> {
    let mut row = Row::new("", "ssh open.example, closed and opened by policy");
    let command = [
        "ssh",
        "-v",
        "-o",
        "BatchMode=yes",
        "-o",
        "StrictHostKeyChecking=no",
        "-o",
        "UserKnownHostsFile=/dev/null",
        "-o",
        "ConnectTimeout=20",
        "git@open.example",
    ];
    let server = format!("remote software version {}", GREETING.trim_start_matches("SSH-2.0-"));
    let open =
        format!("{}\n[network]\nopaque_tcp = [{{ host = \"{OPEN}\", port = 22 }}]\n", policy("enforce"));
    for (policy, reached) in [(policy("enforce"), false), (open, true)] {
        fs::write(lab.policy(), policy)?;
        lab.steer(&["policy", "reload"]).await?;
        let before = lab.internet.journal.snapshot();
        let ended = run(lab, &command).await?;
        let arrived = since(&before, lab.internet.journal.snapshot());
        let said = arrived.connections_to(OPEN).filter(|connection| connection.port == 22).count();
        row.expect(ended.said().contains(&server) == reached, || format!("{reached}: {}", ended.said()));
        row.expect((said > 0) == reached, || format!("{said} connections at the origin"));
        row.saw(if reached { "greeted" } else { "closed" });
    }
    fs::write(lab.policy(), policy("blocklist"))?;
    lab.steer(&["policy", "reload"]).await?;
    Ok(row)
}
