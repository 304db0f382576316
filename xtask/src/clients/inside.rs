//! The suite inside the lab: each case twice, and what differs between the two.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use fake_internet::{Snapshot, journal::Request};
use serde::{Deserialize, Serialize};
use tokio::{io::AsyncReadExt as _, process::Command, time::timeout};

use super::{
    all, arrived,
    case::{Case, Noise, Version},
    diff::diff,
    report::{Report, Row, Side},
};
use crate::lab::{case::since, cgroup, inside::Lab, log::Record, row::cut};

/// How long the last request of a client that has ended may take to be over at the origin, and in the log.
const SETTLING: Duration = Duration::from_secs(10);

/// What the outer process found out before, and wants.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Orders {
    pub(crate) filter: Option<String>,
    /// Run directly both times.
    pub(crate) direct_only: bool,
    /// Kits that could not be installed, with why.
    pub(crate) missing: BTreeMap<String, String>,
    /// Where the others are.
    pub(crate) cache: PathBuf,
    /// Where to write the [`Report`].
    pub(crate) report: PathBuf,
    /// `PATH` of whoever asked: sudo sets another, without the interpreters of a person's own.
    pub(crate) path: String,
}

/// Where a client runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Direct,
    Gate,
}

/// One of the two runs.
#[derive(Debug)]
struct Run {
    side: Side,
    stdout: String,
    stderr: String,
    arrivals: Snapshot,
    /// What is not as the case wants it.
    wrong: Vec<String>,
}

/// The suite; true when nothing differs.
///
/// # Errors
/// When the daemon cannot be started or the report not be written.
pub(crate) async fn run(lab: &mut Lab, orders: &Orders) -> anyhow::Result<bool> {
    lab.write_settings()?;
    if !orders.direct_only {
        lab.start_daemon().await?;
    }
    let mut suite = Suite { lab, orders, versions: BTreeMap::new() };
    let mut report = Report { direct_only: orders.direct_only, rows: Vec::new() };
    for case in all().iter().filter(|case| case.is_meant(orders.filter.as_deref())) {
        let row = suite.row(case).await;
        let word = match (&row.missing, row.equal()) {
            (Some(_), _) => "not run",
            (None, true) => "equal",
            (None, false) => "DIFFERS",
        };
        eprintln!("{word:8} {}", case.title());
        report.rows.push(row);
    }
    if report.different() > 0
        && let Some(daemon) = &suite.lab.daemon
    {
        eprintln!("the daemon's log ends:\n{}", daemon.log_tail());
    }
    fs::write(&orders.report, serde_json::to_vec(&report)?)
        .with_context(|| orders.report.display().to_string())?;
    Ok(report.different() == 0)
}

struct Suite<'a> {
    lab: &'a Lab,
    orders: &'a Orders,
    /// Versions that clients printed, by name.
    versions: BTreeMap<&'static str, String>,
}

impl Suite<'_> {
    async fn row(&mut self, case: &Case) -> Row {
        let mut row = Row {
            client: case.client.name.to_owned(),
            case: case.name.to_owned(),
            version: String::new(),
            direct: None,
            gate: None,
            differences: Vec::new(),
            missing: self.orders.missing.get(case.client.kit.name).cloned(),
        };
        if row.missing.is_some() {
            return row;
        }
        if let Err(error) = self.compare(case, &mut row).await {
            row.differences.push(format!("{error:#}"));
        }
        // After it, since the working directory is then there.
        row.version = self.version(case).await;
        row
    }

    async fn version(&mut self, case: &Case) -> String {
        let client = case.client;
        match client.version {
            Version::Pinned(package) => client.kit.version(package).unwrap_or_else(|| "?".to_owned()),
            Version::Says(command) => {
                if let Some(known) = self.versions.get(client.name) {
                    return known.clone();
                }
                let words = self.words(case, command.iter().copied());
                let mut asked = self.bare(case, &words);
                let said = match timeout(SETTLING, asked.output()).await {
                    Ok(Ok(output)) => String::from_utf8_lossy(&output.stdout).into_owned(),
                    Ok(Err(_)) | Err(_) => String::new(),
                };
                let number = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit());
                let word = said.split_whitespace().find(number).unwrap_or("?").to_owned();
                self.versions.insert(client.name, word.clone());
                word
            }
        }
    }

    async fn compare(&self, case: &Case, row: &mut Row) -> anyhow::Result<()> {
        let direct = self.once(case, Place::Direct).await?;
        let second = if self.orders.direct_only { Place::Direct } else { Place::Gate };
        let gate = self.once(case, second).await?;
        row.differences.extend(direct.wrong.iter().map(|wrong| format!("direct: {wrong}")));
        row.differences.extend(gate.wrong.iter().map(|wrong| format!("second run: {wrong}")));
        if direct.side.code != gate.side.code {
            row.differences.push(format!("exit codes: {} and {}", direct.side.code, gate.side.code));
        }
        let changed = |text: &str| {
            case.noise.iter().fold(text.to_owned(), |text, noise| match noise {
                Noise::Output(change) => change(&text),
                Noise::Field(_)
                | Noise::Fields(_)
                | Noise::Body(_)
                | Noise::Message(_)
                | Noise::Request(_)
                | Noise::Order => text,
            })
        };
        let printed = diff(&changed(&direct.stdout), &changed(&gate.stdout));
        if !printed.is_empty() {
            row.differences.push(format!("printed (- direct, + second run):\n{}", printed.join("\n")));
        }
        let blocks = |run: &Run| arrived::blocks(&run.arrivals, &case.noise).join("\n");
        let received = diff(&blocks(&direct), &blocks(&gate));
        row.differences.extend(arrived::parted(&direct.arrivals, &gate.arrivals, &case.noise));
        if !received.is_empty() {
            row.differences
                .push(format!("origin received (- direct, + second run):\n{}", received.join("\n")));
        }
        if !row.differences.is_empty() {
            for (name, run) in [("direct", &direct), ("second run", &gate)] {
                if !run.stderr.trim().is_empty() {
                    row.differences.push(format!("stderr, {name}: {}", cut(run.stderr.trim(), 1500)));
                }
            }
        }
        (row.direct, row.gate) = (Some(direct.side), Some(gate.side));
        Ok(())
    }

    /// One run to its end, and what came of it.
    async fn once(&self, case: &Case, place: Place) -> anyhow::Result<Run> {
        self.prepare(case)?;
        let journal = &self.lab.internet.journal;
        let before = journal.snapshot();
        let mark = if place == Place::Gate { self.lab.newest().await? } else { 0 };
        let words = self.words(case, case.command.iter().map(String::as_str));
        let own = self.lab.guarded.with_file_name("client");
        let mut command = match place {
            Place::Direct => {
                cgroup::create(&own)?;
                self.direct(case, &words, &own)
            }
            Place::Gate => self.gated(case, &words),
        };
        let began = Instant::now();
        let ended = finish(&mut command, case.deadline).await;
        let took = began.elapsed();
        // What it left running would talk into the next case.
        match place {
            Place::Direct => cgroup::destroy(&own)?,
            Place::Gate => cgroup::kill(&self.lab.guarded)?,
        }
        let (code, stdout, stderr) = ended?;
        let mut wrong = Vec::new();
        let settled = journal.wait_for(SETTLING, |now| {
            let mut requests = now.requests.iter().skip(before.requests.len());
            requests.all(|request| request.answered && (request.complete || request.aborted))
        });
        if !settled.await {
            wrong.push("a request is not over at the origin though the client is".to_owned());
        }
        let arrivals = since(&before, journal.snapshot());
        if code != case.code {
            wrong.push(format!("it ended with {code}, not {}", case.code));
        }
        for text in case.says.iter().filter(|text| !stdout.contains(**text)) {
            wrong.push(format!("it did not print {text:?} but: {}", cut(&stdout, 1000)));
        }
        if arrivals.requests.len() < case.requests {
            wrong.push(format!(
                "{} requests reached the origin, not {}",
                arrivals.requests.len(),
                case.requests
            ));
        }
        if place == Place::Gate {
            wrong.extend(self.unrecorded(mark, &arrivals.requests).await?);
        }
        let side = Side {
            code,
            requests: arrivals.requests.len(),
            ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        };
        Ok(Run { side, stdout, stderr, arrivals, wrong })
    }

    fn work(&self) -> PathBuf {
        self.lab.dir.join("work")
    }

    /// The same directory, the same files, the same repositories each time.
    fn prepare(&self, case: &Case) -> anyhow::Result<()> {
        for dir in [self.work(), self.lab.dir.join("git")] {
            if dir.exists() {
                fs::remove_dir_all(&dir).with_context(|| dir.display().to_string())?;
            }
        }
        for dir in ["home", "tmp"] {
            fs::create_dir_all(self.work().join(dir))?;
        }
        for (path, text) in &case.files {
            let path = self.work().join(path);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::write(&path, self.filled(case, text)).with_context(|| path.display().to_string())?;
        }
        Ok(())
    }

    fn filled(&self, case: &Case, word: &str) -> String {
        let kit = case.client.kit.home(&self.orders.cache);
        word.replace("{kit}", &kit.display().to_string())
            .replace("{work}", &self.work().display().to_string())
    }

    fn words<'w>(&self, case: &Case, words: impl Iterator<Item = &'w str>) -> Vec<String> {
        words.map(|word| self.filled(case, word)).collect()
    }

    /// The command with the environment that both places share.
    fn bare(&self, case: &Case, words: &[String]) -> Command {
        let mut command = Command::new(words.first().map_or("false", String::as_str));
        command.args(words.get(1..).unwrap_or_default());
        self.dress(&mut command, case);
        command
    }

    fn dress(&self, command: &mut Command, case: &Case) {
        let (work, path) = (self.work(), self.path(case));
        command.env_clear().env("PATH", path).env("HOME", work.join("home")).env("TMPDIR", work.join("tmp"));
        command.env("LANG", "C.UTF-8").env("PYTHONDONTWRITEBYTECODE", "1").env("PYTHONHASHSEED", "0");
        for (name, value) in &case.env {
            command.env(name, self.filled(case, value));
        }
        command.current_dir(&work);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    }

    fn path(&self, case: &Case) -> String {
        let own = case.client.kit.programs(&self.orders.cache);
        own.map_or(self.orders.path.clone(), |own| format!("{}:{}", own.display(), self.orders.path))
    }

    /// As without the gate: outside the guarded cgroup, with the same variables, which name the internet's
    /// own root.
    fn direct(&self, case: &Case, words: &[String], own: &Path) -> Command {
        let enter = "echo 0 > \"$0\" && exec \"$@\"";
        let mut command = Command::new("sh");
        command.args(["-c", enter]).arg(own.join("cgroup.procs")).args(words);
        self.dress(&mut command, case);
        for name in super::BUNDLE_VARIABLES {
            command.env(name, &self.lab.root_pem);
        }
        command
    }

    fn gated(&self, case: &Case, words: &[String]) -> Command {
        let mut command = self.lab.agentctl();
        command.args(["run", "--quiet", "--"]).args(words);
        self.dress(&mut command, case);
        command
    }

    /// Requests that are in no finished record of the log.
    async fn unrecorded(&self, mark: u64, requests: &[Request]) -> anyhow::Result<Vec<String>> {
        let began = Instant::now();
        loop {
            let records = self.lab.records(mark).await?;
            let wrong = lacking(requests, &records);
            // Each question starts a process, which takes its time, so that the loop needs no pause.
            if wrong.is_empty() || began.elapsed() > SETTLING {
                return Ok(wrong);
            }
        }
    }
}

/// What the log lacks: each request has a record of its own, of an exchange that is over.
fn lacking(requests: &[Request], records: &[Record]) -> Vec<String> {
    let mut left: Vec<_> = records.iter().filter_map(Record::exchange).collect();
    let mut wrong = Vec::new();
    for request in requests {
        let target = path_of(&request.target);
        let found = left.iter().position(|exchange| {
            exchange.over
                && exchange.host == request.site
                && exchange.method == request.method
                && path_of(exchange.target) == target
        });
        match found {
            Some(index) => {
                left.swap_remove(index);
            }
            None => wrong.push(format!("not on record: {} {}{target}", request.method, request.site)),
        }
    }
    wrong
}

/// Path and query of a target in any form.
fn path_of(target: &str) -> &str {
    match target.split_once("://").filter(|_| !target.starts_with('/')) {
        Some((_, rest)) => rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/"),
        None => target,
    }
}

async fn finish(command: &mut Command, deadline: Duration) -> anyhow::Result<(i32, String, String)> {
    let mut child = command.spawn().with_context(|| format!("start {:?}", command.as_std().get_program()))?;
    let (mut out, mut err) = (child.stdout.take().context("stdout")?, child.stderr.take().context("stderr")?);
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let ended = timeout(deadline, async {
        let (_, _, status) =
            tokio::try_join!(out.read_to_end(&mut stdout), err.read_to_end(&mut stderr), child.wait())?;
        Ok::<_, std::io::Error>(status.code().unwrap_or(-1))
    });
    let code = match ended.await {
        Ok(code) => code?,
        Err(_) => {
            stderr.extend_from_slice(format!("\nnot at its end after {deadline:?}").as_bytes());
            -1
        }
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((code, text(&stdout), text(&stderr)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_wants_a_finished_record_of_its_own() {
        let request: Request = serde_json::from_str(
            r#"{"id":0,"connection":0,"site":"open.example","port":443,"method":"GET",
            "target":"https://open.example/a","version":"HTTP/2.0","headers":[],"body_len":0,
            "body_sha256":"","trailers":[],"complete":true,"aborted":false}"#,
        )
        .unwrap();
        let record = |state: &str, target: &str| -> Record {
            serde_json::from_value(serde_json::json!({
                "id": 7, "kind": "exchange", "state": state, "started": 1, "protocol": "http/2", "flags": [],
                "authority": { "host": "open.example" },
                "request": { "method": "GET", "target": target, "version": "HTTP/2", "headers": [] },
            }))
            .unwrap()
        };
        let one = std::slice::from_ref(&request);
        assert!(lacking(one, &[record("done", "/b"), record("done", "/a")]).is_empty());
        assert_eq!(lacking(one, &[record("open", "/a")]), ["not on record: GET open.example/a"]);
        assert_eq!(lacking(&[request.clone(), request.clone()], &[record("done", "/a")]).len(), 1);
    }

    #[test]
    fn targets_in_any_form_have_a_path() {
        let rows = [
            ("/a?b", "/a?b"),
            ("https://open.example/a?b", "/a?b"),
            ("https://open.example", "/"),
            ("/x?u=http://y/z", "/x?u=http://y/z"),
            ("*", "*"),
        ];
        for (target, expect) in rows {
            assert_eq!(path_of(target), expect);
        }
    }
}
