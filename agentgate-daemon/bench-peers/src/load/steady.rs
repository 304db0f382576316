//! The same request again and again, by so many at a time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::Instant,
};

use tokio::task::JoinSet;

use super::{Client, PATIENCE, Report, Stretch, http1, http2};

/// Phases; before them, while it warms up, 0.
const MEASURING: u8 = 1;
const OVER: u8 = 2;

const PATH: &str = "/1k";
const LENGTH: u64 = 1024;

/// Told to all workers.
#[derive(Debug, Default)]
struct Phase {
    now: AtomicU8,
    connections: AtomicU64,
}

impl Phase {
    fn now(&self) -> u8 {
        self.now.load(Ordering::Acquire)
    }
}

/// Times of what one worker began and ended while measuring, and what ended it early.
type Done = (Vec<u64>, anyhow::Result<()>);

/// What a worker does again and again.
trait Ask: Send {
    /// Does it once, and gives the length of the answer.
    fn once(&mut self) -> impl Future<Output = anyhow::Result<u64>> + Send;
}

/// A connection for each request.
struct Fresh {
    client: Arc<Client>,
    phase: Arc<Phase>,
    request: Vec<u8>,
}

impl Ask for Fresh {
    async fn once(&mut self) -> anyhow::Result<u64> {
        let mut connection = http1::Connection::open(&self.client).await?;
        self.phase.connections.fetch_add(1, Ordering::Relaxed);
        let length = connection.ask(&self.request).await?;
        connection.closed().await?;
        Ok(length)
    }
}

/// A connection that is kept.
struct Kept {
    connection: http1::Connection,
    request: Vec<u8>,
}

impl Ask for Kept {
    async fn once(&mut self) -> anyhow::Result<u64> {
        self.connection.ask(&self.request).await
    }
}

impl Ask for http2::Connection {
    async fn once(&mut self) -> anyhow::Result<u64> {
        self.ask().await
    }
}

/// Repeats it until measuring is over.
async fn repeat(phase: Arc<Phase>, mut asker: impl Ask) -> Done {
    let mut times = Vec::with_capacity(1 << 16);
    loop {
        let before = phase.now();
        if before == OVER {
            return (times, Ok(()));
        }
        let began = Instant::now();
        let length = match tokio::time::timeout(PATIENCE, asker.once()).await {
            Ok(Ok(length)) => length,
            Ok(Err(error)) => return (times, Err(error)),
            Err(_) => return (times, Err(anyhow::anyhow!("no answer in {PATIENCE:?}"))),
        };
        if length != LENGTH {
            return (times, Err(anyhow::anyhow!("{length} bytes instead of {LENGTH}")));
        }
        if before == MEASURING && phase.now() == MEASURING {
            times.push(began.elapsed().as_nanos() as u64);
        }
    }
}

/// Lets the workers warm up and then measures them.
async fn measure(client: &Client, phase: &Phase, mut workers: JoinSet<Done>) -> anyhow::Result<Report> {
    let mut report = Report::default();
    tokio::time::sleep(client.warm).await;
    let stretch = Stretch::begin(client)?;
    phase.now.store(MEASURING, Ordering::Release);
    tokio::time::sleep(client.measured).await;
    phase.now.store(OVER, Ordering::Release);
    stretch.end(client, &mut report)?;
    let mut all = Vec::new();
    while let Some(worker) = workers.join_next().await {
        let (times, ended) = worker?;
        all.extend(times);
        if let Err(error) = ended {
            report.failed(&error);
        }
    }
    report.count = all.len() as u64;
    report.connections = phase.connections.load(Ordering::Relaxed);
    report.times(all);
    Ok(report)
}

pub(super) async fn fresh(client: &Arc<Client>, connections: usize) -> anyhow::Result<Report> {
    let phase = Arc::new(Phase::default());
    let mut workers = JoinSet::new();
    for _ in 0..connections {
        let request = http1::get(&client.host, PATH, true);
        let asker = Fresh { client: Arc::clone(client), phase: Arc::clone(&phase), request };
        workers.spawn(repeat(Arc::clone(&phase), asker));
    }
    measure(client, &phase, workers).await
}

pub(super) async fn http1(client: &Arc<Client>, connections: usize) -> anyhow::Result<Report> {
    let phase = Arc::new(Phase::default());
    let mut workers = JoinSet::new();
    for _ in 0..connections {
        let connection = http1::Connection::open(client).await?;
        phase.connections.fetch_add(1, Ordering::Relaxed);
        let asker = Kept { connection, request: http1::get(&client.host, PATH, false) };
        workers.spawn(repeat(Arc::clone(&phase), asker));
    }
    measure(client, &phase, workers).await
}

pub(super) async fn http2(
    client: &Arc<Client>,
    connections: usize,
    streams: usize,
) -> anyhow::Result<Report> {
    let phase = Arc::new(Phase::default());
    let mut workers = JoinSet::new();
    for _ in 0..connections {
        let connection = http2::Connection::open(client, PATH).await?;
        phase.connections.fetch_add(1, Ordering::Relaxed);
        for _ in 0..streams {
            workers.spawn(repeat(Arc::clone(&phase), connection.clone()));
        }
    }
    measure(client, &phase, workers).await
}
