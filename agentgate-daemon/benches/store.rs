//! What recording costs, beside what the disk asks for: `cargo bench -p agentgate-daemon --bench store`.
//!
//! *durable*: records of about 2 KiB a second, where so many tasks each wait until theirs is on disk; in turn,
//! in the same run, beside a plain file to which as many are appended and synced at one stroke, and SQLite
//! (WAL, synchronous FULL; by way of Python's module, where there is one), to which as many rows are added in
//! one transaction. *burst* is what was acknowledged in the time of a round; *sustained* counts the time too
//! until the tables have all of it. *cost*: CPU time of all threads for one exchange (its record is built,
//! begun, filled in, ended, stored) while nobody waits for the disk, of which what building the record takes
//! alone is shown too. *size*: bytes on disk for each byte of what was recorded, as JSON and bodies.

#![expect(clippy::print_stdout, reason = "a benchmark talks to a person")]

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use agentgate::{
    audit::{Audit, AuditOptions, Durability, fit},
    model::{
        Action, Ancestor, Authority, Captured, Flow, Host, Kind, OriginalDestination, Record, RequestHead,
        ResponseHead, SessionId, State, Subject, Timestamp, Verdict,
    },
    store::{Query, Store},
};
use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use http::{HeaderMap, HeaderName, HeaderValue};
use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::Runtime;

/// What the daemon has.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Parser)]
struct Arguments {
    /// Rounds of each figure
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Length of a round
    #[arg(long, default_value_t = 1000)]
    milliseconds: u64,
    /// Only so many exchanges of *cost*, once: for tools that count instructions
    #[arg(long)]
    exchanges: Option<u64>,
    /// Where files are made: on the disk that is meant
    #[arg(long, default_value = env!("CARGO_TARGET_TMPDIR"))]
    dir: PathBuf,
    /// What cargo says to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// What one connection shares, and the heads of one exchange on it.
struct Sample {
    subject: Arc<Subject>,
    flow: Arc<Flow>,
    request: HeaderMap,
    response: HeaderMap,
    number: AtomicU64,
}

fn headers(fields: &[(&'static str, &str)]) -> Result<HeaderMap> {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        map.append(HeaderName::from_static(name), HeaderValue::from_str(value)?);
    }
    Ok(map)
}

impl Sample {
    fn new() -> Result<Self> {
        let subject = Subject {
            exe: Some("/usr/bin/node".into()),
            comm: "node".into(),
            start: Some(77_000),
            cmdline: ["node", "/usr/lib/node_modules/agent/cli.js", "--model", "large", "-p", "do it"]
                .map(str::to_owned)
                .to_vec(),
            ancestors: vec![Ancestor { pid: 1, exe: "/usr/lib/systemd/systemd".into() }],
            cgroup: "/agent.slice/run-u2.service".into(),
            ..Subject::unknown(SessionId("run-u2.service@1234".into()), 4242, 1000)
        };
        let flow = Flow {
            cookie: 99,
            original: OriginalDestination("192.0.2.10:443".parse()?),
            pid: 4242,
            uid: 1000,
            gid: 1000,
            comm: "node".into(),
            cgroup: 1234,
            session: 1234,
            netns: 1,
            connected_ns: 5_000_000_000,
        };
        let request = headers(&[
            ("host", "api.example.com"),
            ("accept", "application/json"),
            ("accept-encoding", "gzip, deflate, br, zstd"),
            ("authorization", "Bearer sk-ant-api03-abcdefghijklmnopqrstuvwxyz0123456789"),
            ("content-type", "application/json"),
            ("user-agent", "agent/1.2.3 (linux; x64) node/22.1.0"),
            ("content-length", "1024"),
        ])?;
        let response = headers(&[
            ("date", "Fri, 20 Nov 2026 13:41:01 GMT"),
            ("content-type", "application/json"),
            ("content-length", "1024"),
            ("cache-control", "no-cache"),
            ("server", "cloudflare"),
        ])?;
        let (subject, flow) = (Arc::new(subject), Arc::new(flow));
        Ok(Self { subject, flow, request, response, number: AtomicU64::new(0) })
    }

    fn next(&self) -> u64 {
        self.number.fetch_add(1, Ordering::Relaxed)
    }

    /// As the data path begins an exchange.
    fn begun(&self, number: u64) -> Record {
        let mut record = Record::new(Kind::Exchange, Timestamp::now());
        record.subject = Some(self.subject.clone());
        record.flow = Some(self.flow.clone());
        record.protocol = "http/1".to_owned();
        record.authority = Host::parse("api.example.com").ok().map(|host| Authority { host, port: 443 });
        record.verdict = Some(Verdict {
            action: Action::Allow,
            rule: "allow:api.example.com".into(),
            reason: "api.example.com is on the list".into(),
        });
        record.request = Some(RequestHead {
            method: "POST".into(),
            scheme: "https".into(),
            target: fit::target(&format!("/v1/messages?trace={number}")),
            version: "HTTP/1.1".into(),
            headers: fit::headers(&self.request),
            body: Captured::default(),
        });
        record
    }

    /// As it ends it.
    fn answered(&self, record: &mut Record, number: u64) {
        record.response = Some(ResponseHead {
            status: 200,
            version: "HTTP/1.1".into(),
            headers: fit::headers(&self.response),
            body: body(number),
            first_byte_us: 1234 + number % 999,
        });
    }

    /// One that is over, of about 2 KiB.
    fn two_kib(&self) -> Record {
        let number = self.next();
        let mut record = self.begun(number);
        record.note = Some(noise(number, 230));
        record.finished = Some(record.started);
        record.state = State::Done;
        record
    }
}

/// An answer, no two alike: by turns JSON of about 1 KiB, and as much of it as it comes in events.
fn body(number: u64) -> Captured {
    let mut text = String::with_capacity(2048);
    if number.is_multiple_of(2) {
        text = format!(
            r#"{{"id":"msg_{number:016x}","type":"message","role":"assistant","content":[{{"type":"text","text":"{}"}}],"usage":{{"input_tokens":{},"output_tokens":{}}}}}"#,
            noise(number, 130),
            number % 5000,
            number % 700,
        );
    } else {
        for (index, word) in noise(number, 12).split(' ').enumerate() {
            text.push_str("event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":");
            text.push_str(&index.to_string());
            text.push_str(",\"delta\":{\"type\":\"text_delta\",\"text\":\"");
            text.push_str(word);
            text.push_str("\"}}\n\n");
        }
    }
    Captured { total: text.len() as u64, truncated: false, bytes: text.into() }
}

/// Words of a language of 4,096, in an order of their own.
fn noise(number: u64, words: usize) -> String {
    const SYLLABLES: [&str; 16] = [
        "to", "ken", "re", "quest", "a", "gent", "in", "mo", "del", "pa", "th", "er", "fi", "le", "so", "ne",
    ];
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut text = String::with_capacity(words * 8);
    for _ in 0..words {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        // Half of them are of the 256 words that are said most.
        let long = state >> 63 == 0;
        for shift in [52, 56, 60].into_iter().take(if long { 3 } else { 2 }) {
            text.push_str(SYLLABLES.get((state >> shift & 15) as usize).copied().unwrap_or_default());
        }
        text.push(' ');
    }
    text
}

struct Scene {
    _dir: tempfile::TempDir,
    path: PathBuf,
    store: Arc<Store>,
    audit: Audit,
    thread: agentgate::audit::AuditThread,
}

impl Scene {
    fn new(arguments: &Arguments, durability: Durability) -> Result<Self> {
        let dir = tempfile::tempdir_in(&arguments.dir)?;
        let path = dir.path().join("audit.redb");
        let store = Arc::new(Store::open(&path)?);
        let options = AuditOptions { durability, ..AuditOptions::default() };
        let (audit, thread) = Audit::start(store.clone(), options);
        Ok(Self { _dir: dir, path, store, audit, thread })
    }
}

/// Appends and syncs for a round; strokes a second, and the median stroke in microseconds.
fn plain(arguments: &Arguments, records: usize, bytes: usize) -> Result<(f64, f64)> {
    let dir = tempfile::tempdir_in(&arguments.dir)?;
    let mut file = fs::File::create(dir.path().join("plain"))?;
    let stroke = vec![b'x'; records * bytes];
    let mut took = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(arguments.milliseconds) {
        let at = Instant::now();
        file.write_all(&stroke)?;
        file.sync_data()?;
        took.push(micros(at.elapsed()));
    }
    Ok((took.len() as f64 / begun.elapsed().as_secs_f64(), median(&mut took)))
}

/// The same of SQLite, rows a second; nothing where Python has no such module.
fn sqlite(arguments: &Arguments, records: usize, bytes: usize) -> Result<f64> {
    let dir = tempfile::tempdir_in(&arguments.dir)?;
    let told = Command::new("python3")
        .args(["-c", SQLITE])
        .arg(dir.path().join("sqlite.db"))
        .args([records, bytes].map(|number| number.to_string()))
        .arg((arguments.milliseconds as f64 / 1e3).to_string())
        .output();
    let told = told.ok().filter(|told| told.status.success()).map(|told| told.stdout);
    Ok(told.and_then(|told| String::from_utf8(told).ok()?.trim().parse().ok()).unwrap_or(f64::NAN))
}

/// File, rows of a transaction, bytes of a row, seconds.
const SQLITE: &str = "
import os, sqlite3, sys, time
path, rows, size, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
base = sqlite3.connect(path, isolation_level=None)
base.execute('pragma journal_mode=wal')
base.execute('pragma synchronous=full')
base.execute('create table records (id integer primary key, record blob)')
row = [(os.urandom(size),)] * rows
done, begun = 0, time.monotonic()
while time.monotonic() - begun < seconds:
    base.execute('begin')
    base.executemany('insert into records (record) values (?)', row)
    base.execute('commit')
    done += rows
print(done / (time.monotonic() - begun))
";

/// What [`noted`] saw.
struct Noted {
    /// Records a second, until the last was acknowledged, and until the tables had it.
    burst: f64,
    sustained: f64,
    /// Median and 99th percentile of the wait, in microseconds.
    wait: f64,
    late: f64,
}

/// `waiting` tasks note for a round.
fn noted(runtime: &Runtime, arguments: &Arguments, sample: &Arc<Sample>, waiting: usize) -> Result<Noted> {
    let scene = Scene::new(arguments, Durability::BeforeForward)?;
    let length = Duration::from_millis(arguments.milliseconds);
    let begun = Instant::now();
    let mut took: Vec<f64> = runtime.block_on(async {
        let tasks: Vec<_> = (0..waiting)
            .map(|_| {
                let (audit, sample) = (scene.audit.clone(), sample.clone());
                tokio::spawn(async move {
                    let mut took = Vec::new();
                    while begun.elapsed() < length {
                        let record = sample.two_kib();
                        let at = Instant::now();
                        audit.note(record).await?;
                        took.push(micros(at.elapsed()));
                    }
                    Ok::<_, anyhow::Error>(took)
                })
            })
            .collect();
        let mut all = Vec::new();
        for task in tasks {
            all.extend(task.await??);
        }
        Ok::<_, anyhow::Error>(all)
    })?;
    let burst = took.len() as f64 / begun.elapsed().as_secs_f64();
    let last = scene.store.query(&Query { limit: 1, ..Query::default() })?;
    let sustained = took.len() as f64 / begun.elapsed().as_secs_f64();
    ensure!(last.records.first().is_some_and(|record| record.id.0 == took.len() as u64), "not all is there");
    let drained = runtime.block_on(scene.thread.drain(Duration::from_secs(60)));
    ensure!(drained.unwritten == 0, "{drained:?}");
    let wait = median(&mut took);
    let late = took.get(took.len() * 99 / 100).copied().unwrap_or(f64::NAN);
    Ok(Noted { burst, sustained, wait, late })
}

fn durable(runtime: &Runtime, arguments: &Arguments, sample: &Arc<Sample>) -> Result<()> {
    let size = serde_json::to_vec(&sample.two_kib())?.len();
    println!("durable records a second, {size} bytes each as JSON; medians of {} rounds", arguments.rounds);
    println!(
        "| waiting | append + fdatasync | SQLite | burst | sustained | burst / append | sustained / append \
         | fdatasync µs | wait p50 µs | p99 µs | wait / fdatasync |"
    );
    println!("|{}", " --- |".repeat(11));
    for waiting in [1, 16, 256] {
        let mut columns: [Vec<f64>; 10] = Default::default();
        for _ in 0..arguments.rounds {
            let (strokes, sync) = plain(arguments, waiting, 2048)?;
            let Noted { burst, sustained, wait, late } = noted(runtime, arguments, sample, waiting)?;
            let sqlite = sqlite(arguments, waiting, 2048)?;
            let plain = strokes * waiting as f64;
            let figures = [
                plain,
                sqlite,
                burst,
                sustained,
                burst / plain,
                sustained / plain,
                sync,
                wait,
                late,
                wait / sync,
            ];
            for (column, figure) in columns.iter_mut().zip(figures) {
                column.push(figure);
            }
        }
        let [plain, sqlite, burst, sustained, of, of_all, sync, wait, late, syncs] =
            columns.each_mut().map(|column| median(column));
        println!(
            "| {waiting} | {plain:.0} | {sqlite:.0} | {burst:.0} | {sustained:.0} | {of:.2} | {of_all:.2} \
             | {sync:.0} | {wait:.0} | {late:.0} | {syncs:.2} |"
        );
    }
    Ok(())
}

fn cost(runtime: &Runtime, arguments: &Arguments, sample: &Arc<Sample>) -> Result<()> {
    let mut columns: [Vec<f64>; 5] = Default::default();
    for _ in 0..arguments.rounds {
        let count = 40_000;
        let at = cpu();
        for _ in 0..count {
            let number = sample.next();
            let mut record = sample.begun(number);
            sample.answered(&mut record, number);
            std::hint::black_box(record);
        }
        let building = (cpu() - at) / f64::from(count);

        let scene = Scene::new(arguments, Durability::Backpressure)?;
        let begun = Instant::now();
        let at = cpu();
        let length = Duration::from_millis(arguments.milliseconds * 2);
        let (exchanges, payload) = runtime.block_on(async {
            let tasks: Vec<_> = (0..64)
                .map(|_| {
                    let (audit, sample) = (scene.audit.clone(), sample.clone());
                    tokio::spawn(async move {
                        let mut done = 0_u64;
                        while begun.elapsed() < length {
                            let number = sample.next();
                            let mut entry = audit.open(sample.begun(number)).await?;
                            // The origin answers: others have their turn.
                            tokio::task::yield_now().await;
                            sample.answered(&mut entry.record(), number);
                            entry.finish(State::Done);
                            done += 1;
                        }
                        Ok::<_, anyhow::Error>(done)
                    })
                })
                .collect();
            let mut done = 0;
            for task in tasks {
                done += task.await??;
            }
            // Answers are of two kinds.
            let mut payload = 0;
            for number in [10, 11] {
                let mut record = sample.begun(number);
                sample.answered(&mut record, number);
                payload += serde_json::to_vec(&record)?.len() + body(number).bytes.len();
            }
            Ok::<_, anyhow::Error>((done, payload as f64 / 2.0))
        })?;
        let drained = runtime.block_on(scene.thread.drain(Duration::from_secs(60)));
        let all = (cpu() - at) / exchanges as f64;
        ensure!(drained.unwritten == 0, "{drained:?}");
        let rate = exchanges as f64 / begun.elapsed().as_secs_f64();
        drop(scene.audit);
        drop(scene.store);
        let disk = on_disk(&scene.path)? as f64 / (exchanges as f64 * payload);
        for (column, figure) in columns.iter_mut().zip([building, all - building, all, rate, disk]) {
            column.push(figure);
        }
    }
    let [building, recording, all, rate, disk] = columns.each_mut().map(|column| median(column));
    println!();
    println!(
        "one exchange, 1 KiB of JSON or events, nobody waits for the disk; medians of {} rounds",
        arguments.rounds
    );
    println!("| CPU µs | of which building the record | recording it | a second | bytes on disk per byte |");
    println!("| --- | --- | --- | --- | --- |");
    println!("| {all:.2} | {building:.2} | {recording:.2} | {rate:.0} | {disk:.2} |");
    Ok(())
}

/// So many exchanges, in turns of 64 that are under way at once, and the time that they take. Every one is over
/// before what is recorded is written, as nearly all are.
fn counted(runtime: &Runtime, arguments: &Arguments, sample: &Arc<Sample>, exchanges: u64) -> Result<()> {
    let scene = Scene::new(arguments, Durability::Backpressure)?;
    let at = cpu();
    runtime.block_on(async {
        let mut begun = Vec::with_capacity(64);
        for _ in 0..exchanges / 64 {
            for _ in 0..64 {
                let number = sample.next();
                begun.push((number, scene.audit.open(sample.begun(number)).await?));
            }
            for (number, mut entry) in begun.drain(..) {
                sample.answered(&mut entry.record(), number);
                entry.finish(State::Done);
            }
        }
        Ok::<_, anyhow::Error>(())
    })?;
    let drained = runtime.block_on(scene.thread.drain(Duration::from_secs(60)));
    ensure!(drained.unwritten == 0, "{drained:?}");
    println!("{exchanges} exchanges, {:.2} CPU µs each", (cpu() - at) / exchanges as f64);
    Ok(())
}

/// Bytes that the file takes, holes not counted.
fn on_disk(path: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    Ok(fs::metadata(path).context("the log")?.blocks() * 512)
}

/// CPU time of the process, in microseconds.
fn cpu() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let sample = Arc::new(Sample::new()?);
    if let Some(exchanges) = arguments.exchanges {
        return counted(&runtime, &arguments, &sample, exchanges);
    }
    durable(&runtime, &arguments, &sample)?;
    cost(&runtime, &arguments, &sample)
}
