//! The audit log as `agentctl logs --json` prints it, read without the daemon's own types: what is
//! checked here is what a person's script would see.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    time::timeout,
};

use super::inside::Lab;

/// How long a record may take to reach its final state after the client ended.
const PATIENCE: Duration = Duration::from_secs(10);
/// More than one scenario makes.
const LIMIT: usize = 500;
/// Most that one question gives.
const MOST: usize = 1000;

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: u64,
    pub(crate) kind: String,
    pub(crate) state: String,
    /// Microseconds since 1970.
    pub(crate) started: i64,
    pub(crate) finished: Option<i64>,
    pub(crate) subject: Option<Subject>,
    pub(crate) flow: Option<Flow>,
    pub(crate) authority: Option<Authority>,
    pub(crate) question: Option<Question>,
    pub(crate) protocol: String,
    pub(crate) verdict: Option<Verdict>,
    pub(crate) flags: Vec<Flag>,
    pub(crate) request: Option<Request>,
    pub(crate) response: Option<Response>,
    pub(crate) failure: Option<Failure>,
    pub(crate) note: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Subject {
    pub(crate) session: String,
    pub(crate) pid: u32,
    pub(crate) exe: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Flow {
    pub(crate) original: String,
    pub(crate) pid: u32,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Authority {
    pub(crate) host: String,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Question {
    pub(crate) name: String,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Verdict {
    pub(crate) action: String,
    pub(crate) rule: String,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Flag {
    pub(crate) code: String,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) version: String,
    pub(crate) headers: Vec<(String, String)>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Response {
    pub(crate) status: u16,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Failure {
    pub(crate) blame: String,
    pub(crate) code: String,
}

/// What a record says of an HTTP exchange.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exchange<'a> {
    pub(crate) host: &'a str,
    pub(crate) method: &'a str,
    /// Path and query.
    pub(crate) target: &'a str,
    /// It has its final state.
    pub(crate) over: bool,
}

impl Record {
    /// The exchange that it is of, if it is of one.
    pub(crate) fn exchange(&self) -> Option<Exchange<'_>> {
        let request = self.request.as_ref().filter(|_| self.kind == "exchange")?;
        let (method, target) = (request.method.as_str(), request.target.as_str());
        let over = self.state != "open";
        Some(Exchange { host: self.host()?, method, target, over })
    }

    /// Process that it names.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.subject.as_ref().map(|s| s.pid).or(self.flow.as_ref().map(|f| f.pid))
    }

    /// The gist on one line.
    pub(crate) fn summary(&self) -> String {
        let mut words = vec![format!("#{} {} {}", self.id, self.kind, self.state)];
        words.extend(self.verdict.as_ref().map(|v| format!("{} ({})", v.action, v.rule)));
        words.extend(self.host().map(str::to_owned));
        words.extend(self.request.as_ref().map(|r| r.version.clone()));
        words.extend(self.response.as_ref().map(|r| r.status.to_string()));
        words.extend(self.failure.as_ref().map(|f| format!("{}:{}", f.blame, f.code)));
        words.extend(self.flags.iter().map(|f| format!("!{}", f.code)));
        if self.kind == "kernel" || self.kind == "control" {
            words.extend(self.note.clone());
        }
        words.join(" ")
    }

    /// Whether it is of a connection that nobody redirected.
    pub(crate) fn is_of_stranger(&self) -> bool {
        self.verdict.as_ref().is_some_and(|verdict| verdict.rule == "invariant:unknown_flow")
    }

    /// Whom it was for, or which name was asked for.
    fn host(&self) -> Option<&str> {
        let authority = self.authority.as_ref().map(|authority| authority.host.as_str());
        authority.or(self.question.as_ref().map(|question| question.name.as_str()))
    }

    /// pid, executable and session on one line; `None` where one of them is missing.
    pub(crate) fn who(&self) -> Option<String> {
        let subject = self.subject.as_ref()?;
        let exe = subject.exe.as_deref().filter(|exe| !exe.is_empty())?;
        let name = exe.rsplit('/').next().unwrap_or(exe);
        (subject.pid > 0 && !subject.session.is_empty())
            .then(|| format!("{name}[{}] in {}", subject.pid, subject.session))
    }
}

/// Conditions on one record; what is `None` is not looked at.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pattern {
    pub(crate) kind: Option<&'static str>,
    pub(crate) state: Option<&'static str>,
    pub(crate) host: Option<&'static str>,
    pub(crate) action: Option<&'static str>,
    /// Beginning of the rule.
    pub(crate) rule: Option<&'static str>,
    pub(crate) protocol: Option<&'static str>,
    /// Version of the request.
    pub(crate) version: Option<&'static str>,
    pub(crate) status: Option<u16>,
    pub(crate) flag: Option<&'static str>,
    pub(crate) blame: Option<&'static str>,
    /// The original destination.
    pub(crate) original: Option<&'static str>,
}

impl Pattern {
    pub(crate) fn matches(&self, r: &Record) -> bool {
        let same = |want: Option<&str>, got: Option<&str>| want.is_none_or(|want| got == Some(want));
        same(self.kind, Some(&r.kind))
            && same(self.state, Some(&r.state))
            && same(self.protocol, Some(&r.protocol))
            && same(self.host, r.host())
            && same(self.action, r.verdict.as_ref().map(|v| v.action.as_str()))
            && same(self.version, r.request.as_ref().map(|q| q.version.as_str()))
            && same(self.blame, r.failure.as_ref().map(|f| f.blame.as_str()))
            && same(self.original, r.flow.as_ref().map(|f| f.original.as_str()))
            && self.rule.is_none_or(|rule| r.verdict.as_ref().is_some_and(|v| v.rule.starts_with(rule)))
            && self.status.is_none_or(|status| r.response.as_ref().is_some_and(|p| p.status == status))
            && self.flag.is_none_or(|flag| r.flags.iter().any(|f| f.code == flag))
    }
}

impl Lab {
    /// Records with a greater number than `after`, oldest first.
    pub(crate) async fn records(&self, after: u64) -> anyhow::Result<Vec<Record>> {
        self.newest_records(after, LIMIT).await
    }

    /// All records with a greater number than `after`, oldest first; an error where they are too many for one
    /// question.
    pub(crate) async fn all_records(&self, after: u64) -> anyhow::Result<Vec<Record>> {
        for limit in [MOST / 10, MOST] {
            let found = self.newest_records(after, limit).await?;
            if found.len() < limit {
                return Ok(found);
            }
        }
        anyhow::bail!("more than {MOST} records after {after}")
    }

    async fn newest_records(&self, after: u64, limit: usize) -> anyhow::Result<Vec<Record>> {
        let output = self
            .agentctl()
            .args(["logs", "--json", "--limit", &limit.to_string()])
            .stdin(Stdio::null())
            .output()
            .await
            .context("agentctl logs")?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "agentctl logs: {complaint}");
        let mut records = Vec::new();
        for line in output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let record: Record = serde_json::from_slice(line)
                .with_context(|| format!("agentctl logs --json: {}", String::from_utf8_lossy(line)))?;
            if record.id > after {
                records.push(record);
            }
        }
        records.sort_by_key(|record| record.id);
        Ok(records)
    }

    /// The number of the newest record.
    pub(crate) async fn newest(&self) -> anyhow::Result<u64> {
        Ok(self.records(0).await?.last().map_or(0, |record| record.id))
    }

    /// What the log kept of a request's body, by the control socket; `None` where it kept nothing.
    pub(crate) async fn request_body(&self, id: u64) -> anyhow::Result<Option<Vec<u8>>> {
        let socket = self.root().join("run/agentgate/control.sock");
        let mut stream = UnixStream::connect(socket).await.context("the control socket")?;
        let request = json!({"version": 1, "request": {"op": "body", "id": id, "side": "request"}});
        stream.write_all(format!("{request}\n").as_bytes()).await?;
        let mut body = Vec::new();
        let mut lines = BufReader::new(stream).lines();
        while let Some(line) = timeout(PATIENCE, lines.next_line()).await.context("the control socket")?? {
            match serde_json::from_str(&line).with_context(|| line.clone())? {
                BodyReply::Item(BodyItem::Body { hex }) => body.extend(from_hex(&hex).context("hex")?),
                BodyReply::End => return Ok(Some(body)),
                BodyReply::Error { code } if code == "not_found" => return Ok(None),
                BodyReply::Error { code } => anyhow::bail!("the body of record {id}: {code}"),
            }
        }
        anyhow::bail!("the body of record {id}: no end")
    }

    /// Records after `after` as soon as one of them matches, or whatever there is when patience ends.
    /// Each question starts a process, which takes its time, so that the loop needs no pause.
    pub(crate) async fn records_with(&self, after: u64, pattern: &Pattern) -> anyhow::Result<Vec<Record>> {
        let began = Instant::now();
        loop {
            let records = self.records(after).await?;
            let found = records.iter().any(|record| pattern.matches(record));
            if found || began.elapsed() > PATIENCE {
                return Ok(records);
            }
        }
    }
}

/// What the control socket answers when a body is asked for.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum BodyReply {
    Item(BodyItem),
    End,
    Error { code: String },
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum BodyItem {
    Body { hex: String },
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    pairs.iter().map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_look_at_what_they_name() {
        let record: Record = serde_json::from_str(
            r#"{"id":7,"kind":"exchange","state":"done","started":1,"finished":2,"parent":6,
            "subject":{"session":"run-1@9","pid":42,"uid":0,"start":1,"comm":"curl","exe":"/usr/bin/curl",
            "cmdline":[],"ancestors":[],"cgroup":"/x"},
            "flow":{"cookie":1,"original":"198.51.100.10:443","pid":42,"uid":0,"gid":0,"comm":"curl",
            "cgroup":9,"connected_ns":1},"authority":{"host":"open.example","port":443},"protocol":"http/2",
            "verdict":{"action":"allow","rule":"allow:open.example","reason":"listed"},"flags":[],
            "request":{"method":"GET","scheme":"https","target":"/","version":"HTTP/2","headers":[],
            "body":{"total":0,"truncated":false}},"response":{"status":200,"version":"HTTP/2","headers":[],
            "body":{"total":0,"truncated":false},"first_byte_us":5},"bytes_up":0,"bytes_down":0,
            "failure":null,"note":null}"#,
        )
        .unwrap();
        let all = Pattern {
            kind: Some("exchange"),
            state: Some("done"),
            host: Some("open.example"),
            action: Some("allow"),
            rule: Some("allow:"),
            protocol: Some("http/2"),
            version: Some("HTTP/2"),
            status: Some(200),
            original: Some("198.51.100.10:443"),
            ..Pattern::default()
        };
        assert!(all.matches(&record) && Pattern::default().matches(&record));
        for other in [
            Pattern { kind: Some("flow"), ..all },
            Pattern { host: Some("other.example"), ..all },
            Pattern { rule: Some("deny:"), ..all },
            Pattern { status: Some(403), ..all },
            Pattern { flag: Some("x"), ..all },
            Pattern { blame: Some("origin"), ..all },
        ] {
            assert!(!other.matches(&record), "{other:?}");
        }
        assert_eq!(record.who().as_deref(), Some("curl[42] in run-1@9"));
    }
}
