//! How long a search takes in a long log: `cargo bench -p agentgate-daemon --bench search`.
//!
//! Makes a log of `--records` (a million) with hosts, sessions, verdicts, flags and bodies as agents leave
//! them: JSON that grows over a conversation, and event streams. With `--dir` it is made once and kept there.
//! A process of its own then opens it and asks; of each question the first answer and the median of `--rounds`
//! more are shown. *first page*: 50 records, read whole. *count*: all that match. Memory is that of the process
//! (VmRSS, and VmHWM for the most).

#![expect(clippy::print_stdout, reason = "a benchmark talks to a person")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use agentgate::{
    audit::{Audit, AuditOptions, Durability},
    filter::{Filter, Sort},
    model::{
        Action, Authority, Captured, Failure, Flag, HeaderFields, Host, Kind, Question, Record, RequestHead,
        ResponseHead, SessionId, Severity, State, Subject, TextIndex, Timestamp, Verdict,
    },
    store::{Query, Store, text::Indexer},
};
use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use redb::{ReadableDatabase as _, ReadableTableMetadata as _, TableHandle as _};

#[derive(Debug, Parser)]
struct Arguments {
    /// Records of the log
    #[arg(long, default_value_t = 1_000_000)]
    records: u64,
    /// Answers of each question after the first
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Where the log is, or is made and kept; without it one is made and thrown away
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Without an index of words
    #[arg(long)]
    no_text: bool,
    /// Makes all that derives from the entries anew, and says what the index of words took
    #[arg(long)]
    reindex: bool,
    /// The part that asks, in a process of its own
    #[arg(long, hide = true)]
    ask: bool,
    /// What cargo says to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// Time between two records.
const APART_US: u64 = 250_000;
/// The first record's beginning: 2026-11-17T00:00:00Z.
const BEGAN_US: u64 = 1_794_873_600_000_000;
const HOSTS: [&str; 8] = [
    "api.anthropic.com",
    "api.openai.com",
    "github.com",
    "api.github.com",
    "registry.npmjs.org",
    "pypi.org",
    "files.pythonhosted.org",
    "crates.io",
];
const AGENTS: [&str; 4] = ["/usr/bin/node", "/usr/bin/python3.13", "/usr/bin/git", "/usr/bin/curl"];
const WORDS: [&str; 32] = [
    "the", "function", "reads", "file", "and", "writes", "answer", "with", "some", "tokens", "model", "to",
    "of", "a", "request", "path", "test", "error", "return", "value", "string", "result", "please", "change",
    "index", "query", "table", "record", "commit", "branch", "server", "config",
];

/// A number of its own for each record and purpose.
fn mixed(number: u64, purpose: u64) -> u64 {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ purpose.wrapping_mul(0xd1b5_4a32_d192_ed03);
    state ^= state >> 32;
    state = state.wrapping_mul(0xd6e8_feb8_6659_fd93);
    state ^ state >> 32
}

fn host(number: u64) -> String {
    match mixed(number, 1) % 100 {
        0..=84 => HOSTS[(mixed(number, 2) % HOSTS.len() as u64) as usize].to_owned(),
        85..=97 => format!("cdn-{}.example.net", mixed(number, 3) % 400),
        _ => format!("h{}.example.org", mixed(number, 4) % 20_000),
    }
}

fn noise(number: u64, words: usize, out: &mut String) {
    let mut state = mixed(number, 5) | 1;
    for _ in 0..words {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.push_str(WORDS[(state >> 59) as usize]);
        out.push(' ');
    }
}

/// What was said so far, and one thing more.
fn asked(session: u64, turn: u64) -> String {
    let mut text = String::with_capacity(4096);
    text.push_str(r#"{"model":"claude-4","max_tokens":4096,"stream":true,"system":""#);
    noise(0, 120, &mut text);
    text.push_str(r#"","messages":["#);
    for at in 0..=turn {
        text.push_str(if at > 0 {
            r#",{"role":"user","content":""#
        } else {
            r#"{"role":"user","content":""#
        });
        noise(session * 100 + at, 50, &mut text);
        text.push_str(r#""}"#);
    }
    text.push_str("]}");
    text
}

fn answered(number: u64) -> String {
    let mut text = String::with_capacity(2048);
    for event in 0..12 {
        text.push_str(
            r#"event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":""#,
        );
        noise(number * 16 + event, 6, &mut text);
        if event == 3 && number % 100_000 == 77 {
            text.push_str("xylophone quartz");
        }
        if event == 4 && number % 1000 == 13 {
            text.push_str("refactoring");
        }
        text.push_str("\"}}\n\n");
    }
    text
}

fn body(text: String) -> Captured {
    Captured { total: text.len() as u64, truncated: false, bytes: text.into_bytes().into() }
}

fn record(number: u64) -> Result<Record> {
    let kind = match mixed(number, 6) % 20 {
        0..=2 => Kind::Flow,
        3..=4 => Kind::Dns,
        _ => Kind::Exchange,
    };
    let started = i64::try_from(BEGAN_US + number * APART_US + mixed(number, 7) % APART_US)?;
    let mut record = Record::new(kind, Timestamp(started));
    record.state = State::Done;
    record.finished = Some(Timestamp(started + i64::try_from(20_000 + mixed(number, 8) % 900_000)?));
    let session = number / 20_000 * 8 + mixed(number, 9) % 8;
    let exe = AGENTS[(mixed(number, 10) % 10).saturating_sub(6) as usize % AGENTS.len()];
    record.subject = Some(Arc::new(Subject {
        exe: Some(exe.to_owned()),
        comm: exe.rsplit('/').next().unwrap_or_default().to_owned(),
        start: Some(session),
        ..Subject::unknown(
            SessionId(format!("run-u{session}.service@{}", 4000 + session)),
            u32::try_from(10_000 + session * 30 + mixed(number, 11) % 30)?,
            1000,
        )
    }));
    let host = host(number);
    record.protocol = if kind == Kind::Flow { "tls" } else { "http/2" }.to_owned();
    let denied = mixed(number, 12).is_multiple_of(200);
    record.verdict = Some(Verdict {
        action: if denied { Action::Deny } else { Action::Allow },
        rule: if denied { "mode:enforce".to_owned() } else { format!("allow:{host}") },
        reason: if denied { "not on the list" } else { "on the list" }.to_owned(),
    });
    if mixed(number, 13).is_multiple_of(100) {
        record.flags.push(Flag::new("slow_origin", Severity::Low, "took long"));
    }
    if number % 100_000 == 5 {
        record.flags.push(Flag::new(
            "pinned_certificate",
            Severity::Medium,
            "the client ended the handshake",
        ));
    }
    match kind {
        Kind::Dns => {
            record.protocol = "dns".to_owned();
            record.question = Some(Question {
                name: host.clone(),
                kind: "A".into(),
                transport: "udp".into(),
                code: "NOERROR".into(),
                addresses: vec!["192.0.2.7".parse()?],
                ..Question::default()
            });
        }
        Kind::Flow => {
            (record.bytes_up, record.bytes_down) = (mixed(number, 14) % 9000, mixed(number, 15) % 90_000)
        }
        Kind::Exchange => exchange(&mut record, number, session, &host),
        Kind::Kernel | Kind::Guard | Kind::Control => {}
    }
    record.authority = Host::parse(&host).ok().map(|host| Authority { host, port: 443 });
    Ok(record)
}

fn exchange(record: &mut Record, number: u64, session: u64, host: &str) {
    let status = match (host, mixed(number, 16) % 100) {
        _ if number % 250_000 == 9 => 418,
        // These two are common, and meet in a handful of records.
        ("pypi.org", 0..=3) => {
            if number % 50_000 < 50 {
                500
            } else {
                404
            }
        }
        (_, 0..=3) => 500,
        (_, 4..=6) => 404,
        (_, 7) => 429,
        _ => 200,
    };
    record.request = Some(RequestHead {
        method: if mixed(number, 17).is_multiple_of(3) { "GET" } else { "POST" }.into(),
        scheme: "https".into(),
        target: format!("/v1/messages/{:x}?trace={number}", mixed(number, 18) & 0xffff),
        version: "HTTP/2".into(),
        headers: HeaderFields::from(vec![
            ("content-type", "application/json"),
            ("user-agent", "agent/1.2.3 (linux; x64) node/22.1.0"),
            ("accept-encoding", "gzip, br"),
            ("authorization", "Bearer ***"),
        ]),
        body: body(asked(session, mixed(number, 19) % 8)),
    });
    record.response = Some(ResponseHead {
        status,
        version: "HTTP/2".into(),
        headers: HeaderFields::from(vec![
            ("content-type", "text/event-stream"),
            ("cache-control", "no-cache"),
            ("server", "cloudflare"),
        ]),
        body: body(answered(number)),
        first_byte_us: 120_000,
    });
    if status == 500 {
        record.state = State::Failed;
        record.failure = Some(Failure {
            blame: "origin".into(),
            code: "origin_reset".into(),
            detail: "the origin reset the stream".into(),
        });
    }
}

/// Makes the log.
fn make(path: &Path, arguments: &Arguments) -> Result<()> {
    let records = arguments.records;
    let begun = Instant::now();
    let store = Arc::new(Store::open(path)?);
    let indexer = Indexer::start(store.clone(), arguments.mode());
    let options = AuditOptions { durability: Durability::Backpressure, ..AuditOptions::default() };
    let (audit, thread) = Audit::start(store.clone(), options);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (next, payload) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    runtime.block_on(async {
        let tasks: Vec<_> = (0..64)
            .map(|_| {
                let (audit, next, payload) = (audit.clone(), next.clone(), payload.clone());
                tokio::spawn(async move {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= records {
                            return Ok::<_, anyhow::Error>(());
                        }
                        let record = record(number)?;
                        // JSON of each is dear: of some it is enough.
                        if number % 64 == 0 {
                            let bodies = record.request.as_ref().map_or(0, |head| head.body.bytes.len())
                                + record.response.as_ref().map_or(0, |head| head.body.bytes.len());
                            let bytes = serde_json::to_vec(&record)?.len() + bodies;
                            payload.fetch_add(bytes as u64 * 64, Ordering::Relaxed);
                        }
                        audit.note(record).await?;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await??;
        }
        Ok::<_, anyhow::Error>(())
    })?;
    let made = begun.elapsed();
    indexed(&store, arguments)?;
    drop(indexer);
    let drained = runtime.block_on(thread.drain(Duration::from_secs(600)));
    ensure!(drained.unwritten == 0, "{drained:?}");
    let took = begun.elapsed();
    let size = fs::metadata(path)?.len();
    let payload = payload.load(Ordering::Relaxed);
    println!(
        "{records} records of {:.0} MB as JSON and bodies made in {:.0} s, and words indexed in {:.0} s; {:.0} MB on disk, {:.2} of that",
        payload as f64 / 1e6,
        made.as_secs_f64(),
        took.as_secs_f64(),
        size as f64 / 1e6,
        size as f64 / payload as f64
    );
    Ok(())
}

impl Arguments {
    fn mode(&self) -> TextIndex {
        if self.no_text { TextIndex::Off } else { TextIndex::Bodies }
    }
}

/// Returns when the index has all there is.
#[expect(
    clippy::disallowed_methods,
    reason = "the indexer has no reader to tell; what is measured comes after"
)]
fn indexed(store: &Store, arguments: &Arguments) -> Result<()> {
    while !arguments.no_text && store.text_status()?.lag() > 0 {
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

enum Asked {
    Page(Option<Sort>),
    Count,
}

fn ask(path: &Path, arguments: &Arguments) -> Result<()> {
    let began = Instant::now();
    let store = Arc::new(Store::open(path)?);
    println!("opened in {:.0} ms; {} MiB in memory then", millis(began.elapsed()), memory("VmRSS")?);
    if arguments.reindex {
        store.reindex()?;
    }
    let began = Instant::now();
    let indexer = Indexer::start(store.clone(), arguments.mode());
    indexed(&store, arguments)?;
    if arguments.reindex {
        println!("words made anew in {:.0} ms of CPU", thread_time("text")?.as_secs_f64() * 1000.0);
    }
    println!("words are up to date after {:.0} ms\n", millis(began.elapsed()));
    let now = Timestamp(i64::try_from(BEGAN_US + arguments.records * APART_US)?);
    let page = || Asked::Page(None);
    let rows = [
        ("all", "", page()),
        ("a common host", "host:github.com", page()),
        ("a domain", "host:*.github.com", page()),
        ("hundreds of hosts", "host:cdn-*.example.net", page()),
        ("one of 20,000 hosts", "host:h7777.example.org", page()),
        ("thousands of hosts", "host:*.example.org", page()),
        ("verdict, host, time", "host:*.github.com verdict:deny since:2h", page()),
        ("a rare status", "status:418", page()),
        ("a rare flag", "flag:pinned_certificate", page()),
        ("an old session", "session:run-u3.service", page()),
        ("common, rarely together", "host:pypi.org status:500", page()),
        ("common, never together", "kind:dns method:post agent:node", page()),
        ("three, two of them negated", "host:pypi.org -status:200 -status:404 -kind:flow,dns", page()),
        ("or, in brackets", "(flag:slow_origin or verdict:deny) status:5xx", page()),
        ("a range of ids", "id:1000..200000 status:429", page()),
        ("a day long ago", "since:2026-11-17 until:2026-11-18 verdict:deny status:5xx", page()),
        ("slow and large", "duration:>900ms bytes:>8k", page()),
        ("the longest", "host:*.github.com", Asked::Page(Some(Sort::Duration))),
        ("the largest of all", "", Asked::Page(Some(Sort::Bytes))),
        ("the oldest", "verdict:deny", Asked::Page(Some(Sort::Oldest))),
        ("all", "", Asked::Count),
        ("common, rarely together", "host:pypi.org status:500", Asked::Count),
        ("a domain and not a status", "host:*.github.com -status:200", Asked::Count),
        ("thousands of hosts", "host:*.example.org", Asked::Count),
        ("two days", "since:48h verdict:allow", Asked::Count),
        ("slow and large", "duration:>900ms bytes:>8k", Asked::Count),
        ("text: a rare word", "xylophone", page()),
        ("text: two words", "xylophone quartz", page()),
        ("text: one in 1000", "refactoring", page()),
        ("text: a common word", "function", page()),
        ("text: common words in a row", "\"please change\"", page()),
        ("text: a beginning", "xylo*", page()),
        ("text: no such word", "zzyzx", page()),
        ("text and host", "refactoring host:pypi.org", page()),
        ("part of a path", "path:*ffff*", page()),
    ];
    println!("| what | filter | asked | first ms | median ms | found | calls |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for (what, text, asked) in rows {
        if arguments.no_text && what.starts_with("text") {
            continue;
        }
        let filter = Filter::parse(text, now).with_context(|| text.to_owned())?;
        let mut query = Query::of(filter, 50);
        let name = match asked {
            Asked::Count => "count",
            Asked::Page(sort) => {
                query.sort = sort;
                if sort.is_some() { "first page, sorted" } else { "first page" }
            }
        };
        let count = matches!(asked, Asked::Count);
        let (mut first, mut rest, mut found, mut calls) = (None, Vec::new(), 0, 0);
        for _ in 0..=arguments.rounds {
            let at = Instant::now();
            (found, calls) = if count { counted(&store, &query)? } else { page_of(&store, &query)? };
            let took = millis(at.elapsed());
            if first.is_none() { first = Some(took) } else { rest.push(took) }
        }
        rest.sort_by(f64::total_cmp);
        let median = rest.get(rest.len() / 2).copied().unwrap_or_default();
        let first = first.unwrap_or_default();
        println!("| {what} | `{text}` | {name} | {first:.1} | {median:.1} | {found} | {calls} |");
    }
    println!("\nmemory: {} MiB after all of it, {} MiB at the most\n", memory("VmRSS")?, memory("VmHWM")?);
    drop((indexer, store));
    tables(path)
}

/// A first page, or as much as there is: a call may end before it is full.
fn page_of(store: &Store, query: &Query) -> Result<(u64, u64)> {
    let (mut query, mut found, mut calls) = (query.clone(), 0, 0);
    loop {
        let page = store.query(&query)?;
        ensure!(page.unreadable == 0 && page.unsearched.is_none(), "{:?}", page.unsearched);
        found += page.records.len() as u64;
        calls += 1;
        query.limit -= page.records.len().min(query.limit);
        match page.next {
            Some(next) if query.limit > 0 => query.before = Some(next),
            Some(_) | None => return Ok((found, calls)),
        }
    }
}

fn counted(store: &Store, query: &Query) -> Result<(u64, u64)> {
    let (mut query, mut found, mut calls) = (query.clone(), 0, 0);
    loop {
        let counted = store.count(&query)?;
        found += counted.count;
        calls += 1;
        match counted.next {
            Some(next) => query.before = Some(next),
            None => return Ok((found, calls)),
        }
    }
}

/// What each table takes.
fn tables(path: &Path) -> Result<()> {
    let database = redb::Database::open(path)?;
    let transaction = database.begin_read()?;
    println!("| table | rows | MB | bytes a row |");
    println!("| --- | --- | --- | --- |");
    for handle in transaction.list_tables()? {
        let name = handle.name().to_owned();
        let table = transaction.open_untyped_table(handle)?;
        let (rows, stats) = (table.len()?, table.stats()?);
        let bytes = stats.stored_bytes() + stats.metadata_bytes() + stats.fragmented_bytes();
        println!("| {name} | {rows} | {:.1} | {} |", bytes as f64 / 1e6, bytes / rows.max(1));
    }
    println!("\nfile: {:.1} MB", fs::metadata(path)?.len() as f64 / 1e6);
    Ok(())
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// A figure of this process, in MiB.
fn memory(what: &str) -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(what)).context("no such figure")?;
    let kib: u64 = line.trim_matches(|c: char| !c.is_ascii_digit()).parse()?;
    Ok(kib / 1024)
}

/// CPU time of this process's threads of a name.
fn thread_time(name: &str) -> Result<Duration> {
    let mut spent = 0;
    for task in fs::read_dir("/proc/self/task")? {
        let task = task?.path();
        if fs::read_to_string(task.join("comm"))?.trim_end() == name {
            let stat = fs::read_to_string(task.join("schedstat"))?;
            spent += stat.split(' ').next().context("no figure")?.parse::<u64>()?;
        }
    }
    Ok(Duration::from_nanos(spent))
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if arguments.ask {
        let dir = arguments.dir.as_ref().context("--ask needs --dir")?;
        return ask(&dir.join("audit.redb"), &arguments);
    }
    let scratch;
    let dir = match &arguments.dir {
        Some(dir) => {
            fs::create_dir_all(dir)?;
            dir.clone()
        }
        None => {
            scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
            scratch.path().to_owned()
        }
    };
    let path = dir.join("audit.redb");
    if !path.exists() {
        make(&path, &arguments)?;
    }
    let asked = Command::new(std::env::current_exe()?)
        .arg("--ask")
        .args(["--records", &arguments.records.to_string(), "--rounds", &arguments.rounds.to_string()])
        .arg("--dir")
        .arg(&dir)
        .args(arguments.no_text.then_some("--no-text"))
        .args(arguments.reindex.then_some("--reindex"))
        .status()?;
    ensure!(asked.success(), "{asked}");
    Ok(())
}
