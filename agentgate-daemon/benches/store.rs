//! What recording costs, beside what the disk asks for: `cargo bench -p agentgate-daemon --bench store`.
//!
//! *durable*: records of about 2 KiB a second, where so many tasks each wait until theirs is on disk,
//! beside a plain file to which as many are appended and synced at one stroke; in turn, in the same run.
//! *cost*: CPU time of all threads for one exchange (its record is built, begun, filled in, ended, stored)
//! while nobody waits for the disk, of which what building the record takes alone is shown too. *size*:
//! bytes on disk for each byte of what was recorded, as JSON and bodies.

#![expect(clippy::print_stdout, reason = "a benchmark talks to a person")]

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
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

#[derive(Debug, Parser)]
struct Arguments {
    /// Rounds of each figure
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Length of a round
    #[arg(long, default_value_t = 1000)]
    milliseconds: u64,
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
        record.note = Some(noise(number, 300));
        record.finished = Some(record.started);
        record.state = State::Done;
        record
    }
}

/// 1 KiB of JSON, no two alike.
fn body(number: u64) -> Captured {
    let text = format!(
        r#"{{"id":"msg_{number:016x}","type":"message","role":"assistant","content":[{{"type":"text","text":"{}"}}],"usage":{{"input_tokens":{},"output_tokens":{}}}}}"#,
        noise(number, 110),
        number % 5000,
        number % 700,
    );
    let mut bytes = text.into_bytes();
    bytes.resize(1024, b' ');
    Captured { total: 1024, truncated: false, bytes: bytes.into() }
}

/// Words in an order of their own.
fn noise(number: u64, words: usize) -> String {
    const WORDS: [&str; 16] = [
        "the", "agent", "reads", "file", "and", "writes", "answer", "with", "some", "tokens", "model", "to",
        "of", "a", "request", "path",
    ];
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut text = String::with_capacity(words * 6);
    for _ in 0..words {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        text.push_str(WORDS.get((state >> 60) as usize).copied().unwrap_or_default());
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

/// `waiting` tasks note for a round; records a second, and the median wait in microseconds.
fn noted(
    runtime: &Runtime,
    arguments: &Arguments,
    sample: &Arc<Sample>,
    waiting: usize,
) -> Result<(f64, f64)> {
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
    let rate = took.len() as f64 / begun.elapsed().as_secs_f64();
    let drained = runtime.block_on(scene.thread.drain(Duration::from_secs(60)));
    ensure!(drained.unwritten == 0, "{drained:?}");
    let last = scene.store.query(&Query { limit: 1, ..Query::default() })?;
    ensure!(last.records.first().is_some_and(|record| record.id.0 == took.len() as u64), "not all is there");
    Ok((rate, median(&mut took)))
}

fn durable(runtime: &Runtime, arguments: &Arguments, sample: &Arc<Sample>) -> Result<()> {
    let size = serde_json::to_vec(&sample.two_kib())?.len();
    println!("durable records a second, {size} bytes each as JSON; medians of {} rounds", arguments.rounds);
    println!("| waiting | append + fdatasync | agentgate | ratio | fdatasync µs | wait µs |");
    println!("| --- | --- | --- | --- | --- | --- |");
    for waiting in [1, 16, 256] {
        let mut columns: [Vec<f64>; 5] = Default::default();
        for _ in 0..arguments.rounds {
            let (strokes, sync) = plain(arguments, waiting, 2048)?;
            let (rate, wait) = noted(runtime, arguments, sample, waiting)?;
            let plain = strokes * waiting as f64;
            for (column, figure) in columns.iter_mut().zip([plain, rate, rate / plain, sync, wait]) {
                column.push(figure);
            }
        }
        let [plain, rate, ratio, sync, wait] = columns.each_mut().map(|column| median(column));
        println!("| {waiting} | {plain:.0} | {rate:.0} | {ratio:.2} | {sync:.0} | {wait:.0} |");
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
                            sample.answered(entry.record(), number);
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
            let mut record = sample.begun(1);
            sample.answered(&mut record, 1);
            let payload = serde_json::to_vec(&record)?.len() + 1024;
            Ok::<_, anyhow::Error>((done, payload as f64))
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
        "one exchange, 1 KiB of body, nobody waits for the disk; medians of {} rounds",
        arguments.rounds
    );
    println!("| CPU µs | of which building the record | recording it | a second | bytes on disk per byte |");
    println!("| --- | --- | --- | --- | --- |");
    println!("| {all:.2} | {building:.2} | {recording:.2} | {rate:.0} | {disk:.2} |");
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
    durable(&runtime, &arguments, &sample)?;
    cost(&runtime, &arguments, &sample)
}
