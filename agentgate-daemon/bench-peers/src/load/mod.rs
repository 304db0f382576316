//! The load generator: TLS 1.3 with full handshakes, verified against exactly one authority; HTTP/1.1 by
//! httparse, HTTP/2 by h2. It puts itself into a cgroup and onto a CPU where it is told to, asks, and
//! prints one JSON object. What goes wrong is counted and told, never asked again.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rustix::{
    thread::{CpuSet, sched_setaffinity},
    time::{ClockId, clock_gettime},
};
use rustls::{ClientConfig, client::Resumption};
use rustls_pki_types::ServerName;
use serde::Serialize;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{names, pki};

mod bulk;
mod events;
mod http1;
mod http2;
mod idle;
mod steady;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Whom to connect to
    #[arg(long)]
    to: SocketAddr,
    /// Ask it for a tunnel first
    #[arg(long)]
    connect: bool,
    /// Name server to ask for the name first, as whoever does not know the address would
    #[arg(long)]
    resolve: Option<SocketAddr>,
    /// The name of the origin
    #[arg(long, default_value = names::INTERCEPTED)]
    name: String,
    /// The one authority that is trusted
    #[arg(long)]
    ca: PathBuf,
    /// Cgroup to enter first
    #[arg(long)]
    cgroup: Option<PathBuf>,
    /// CPU to stay on
    #[arg(long)]
    cpu: Option<usize>,
    /// Directory of the cgroup whose CPU time is read as measuring begins and ends
    #[arg(long)]
    charge: Option<PathBuf>,
    /// Seconds that are not measured
    #[arg(long, default_value_t = 0.4)]
    warm: f64,
    /// Seconds that are
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// A connection for each request
    Fresh { connections: usize },
    /// Requests for 1 KiB on connections that are kept
    Http1 { connections: usize },
    /// The same by HTTP/2
    Http2 { connections: usize, streams: usize },
    /// Long answers, one after the other
    Down { bytes: u64, times: usize },
    /// Long requests
    Up { bytes: u64, times: usize },
    /// Streams of events
    Events {
        events: u64,
        milliseconds: u64,
        streams: usize,
        /// Streams of ten events more, for the first of each
        shorts: usize,
    },
    /// Connections that have answered once and are kept until standard input ends
    Idle { connections: usize },
    /// One request: prints the status, or the error
    Probe,
}

/// What was measured.
#[derive(Debug, Default, Serialize)]
struct Report {
    /// Requests, connections, transfers or events.
    count: u64,
    seconds: f64,
    /// Connections made, those before measuring began included.
    connections: u64,
    errors: u64,
    first_error: Option<String>,
    p50_us: f64,
    p99_us: f64,
    /// Of the peer, while measuring.
    cpu_seconds: Option<f64>,
    /// p50 of the time until the first event.
    first_event_us: Option<f64>,
}

impl Report {
    /// Percentiles out of times in nanoseconds.
    fn times(&mut self, mut nanoseconds: Vec<u64>) {
        nanoseconds.sort_unstable();
        self.p50_us = percentile(&nanoseconds, 0.50);
        self.p99_us = percentile(&nanoseconds, 0.99);
    }

    fn failed(&mut self, error: &anyhow::Error) {
        self.errors += 1;
        self.first_error.get_or_insert_with(|| format!("{error:#}"));
    }
}

/// In microseconds, of sorted nanoseconds.
fn percentile(sorted: &[u64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    let at = (last as f64 * share).round() as usize;
    sorted.get(at).map_or(0.0, |ns| *ns as f64 / 1_000.0)
}

/// The clock that origin and client share.
pub(crate) fn clock_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// Where to connect, and how.
struct Client {
    to: SocketAddr,
    tunnel: Option<Vec<u8>>,
    name: ServerName<'static>,
    host: String,
    tls: TlsConnector,
    charge: Option<PathBuf>,
    warm: Duration,
    measured: Duration,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("to", &self.to).field("host", &self.host).finish_non_exhaustive()
    }
}

/// How long anything may take: a peer that buffers a long stream answers after it.
const PATIENCE: Duration = Duration::from_secs(60);

impl Client {
    fn new(arguments: &Arguments) -> anyhow::Result<Self> {
        let builder = ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS13]);
        let mut config = builder.with_root_certificates(pki::roots(&arguments.ca)?).with_no_client_auth();
        config.resumption = Resumption::disabled();
        let h2 = matches!(arguments.what, What::Http2 { .. });
        config.alpn_protocols = vec![if h2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
        let tunnel = format!("CONNECT {0}:443 HTTP/1.1\r\nHost: {0}:443\r\n\r\n", arguments.name);
        Ok(Self {
            to: arguments.to,
            tunnel: arguments.connect.then(|| tunnel.into_bytes()),
            name: ServerName::try_from(arguments.name.clone())?,
            host: arguments.name.clone(),
            tls: TlsConnector::from(Arc::new(config)),
            charge: arguments.charge.clone(),
            warm: Duration::from_secs_f64(arguments.warm),
            measured: Duration::from_secs_f64(arguments.seconds),
        })
    }

    /// A new connection up to the end of its handshake.
    async fn open(&self) -> anyhow::Result<TlsStream<TcpStream>> {
        let opened = async {
            let mut stream = TcpStream::connect(self.to).await.context("connect")?;
            stream.set_nodelay(true)?;
            if let Some(request) = &self.tunnel {
                tunnel(&mut stream, request).await?;
            }
            let tls = self.tls.connect(self.name.clone(), stream).await.context("TLS handshake")?;
            let wanted = self.tls.config().alpn_protocols.first();
            let chosen = tls.get_ref().1.alpn_protocol();
            anyhow::ensure!(
                chosen == wanted.map(Vec::as_slice) || chosen.is_none(),
                "another ALPN: {chosen:?}"
            );
            Ok(tls)
        };
        tokio::time::timeout(PATIENCE, opened).await.context("connecting takes too long")?
    }
}

/// Asks for a tunnel, and reads not a byte more than the answer.
async fn tunnel(stream: &mut TcpStream, request: &[u8]) -> anyhow::Result<()> {
    stream.write_all(request).await?;
    let mut answer = Vec::with_capacity(256);
    let mut piece = [0; 256];
    while !answer.ends_with(b"\r\n\r\n") {
        let read = stream.read(&mut piece).await?;
        anyhow::ensure!(read > 0, "the proxy hung up");
        answer.extend_from_slice(piece.get(..read).unwrap_or_default());
        anyhow::ensure!(answer.len() < 8_192, "the answer to CONNECT has no end");
    }
    let status = String::from_utf8_lossy(answer.get(..answer.len().min(40)).unwrap_or_default()).into_owned();
    anyhow::ensure!(status.contains(" 200 "), "the answer to CONNECT is {status:?}");
    Ok(())
}

/// Asks for the IPv4 addresses of a name, and wants to be told one.
fn resolve(server: SocketAddr, name: &str) -> anyhow::Result<()> {
    let mut question = vec![7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        question.push(u8::try_from(label.len())?);
        question.extend_from_slice(label.as_bytes());
    }
    question.extend_from_slice(&[0, 0, 1, 0, 1]);
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(server)?;
    socket.send(&question)?;
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer)?;
    let answers = answer.get(..length).and_then(|answer| answer.get(6..8));
    anyhow::ensure!(answers.is_some_and(|count| count != [0, 0]), "{name} has no address");
    Ok(())
}

/// What is charged to the peer so far, in seconds.
fn charged(cgroup: Option<&Path>) -> anyhow::Result<Option<f64>> {
    let Some(cgroup) = cgroup else { return Ok(None) };
    let text = fs::read_to_string(cgroup.join("cpu.stat")).context("cpu.stat")?;
    let usage = text.lines().find_map(|line| line.strip_prefix("usage_usec "));
    let microseconds: f64 = usage.context("cpu.stat has no usage_usec")?.parse()?;
    Ok(Some(microseconds / 1e6))
}

/// Time and charge since it began.
#[derive(Debug)]
struct Stretch {
    began: Instant,
    charge: Option<f64>,
}

impl Stretch {
    fn begin(client: &Client) -> anyhow::Result<Self> {
        Ok(Self { charge: charged(client.charge.as_deref())?, began: Instant::now() })
    }

    fn end(self, client: &Client, report: &mut Report) -> anyhow::Result<()> {
        report.seconds = self.began.elapsed().as_secs_f64();
        let now = charged(client.charge.as_deref())?;
        report.cpu_seconds = now.zip(self.charge).map(|(now, before)| now - before);
        Ok(())
    }
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    // Before any other thread exists, so that all of them follow.
    if let Some(cgroup) = &arguments.cgroup {
        fs::write(cgroup.join("cgroup.procs"), "0").context("enter the cgroup")?;
    }
    if let Some(cpu) = arguments.cpu {
        let mut set = CpuSet::new();
        set.set(cpu);
        sched_setaffinity(None, &set).context("stay on one CPU")?;
    }
    if let Some(server) = arguments.resolve {
        resolve(server, &arguments.name).context("ask the name server")?;
    }
    let client = Arc::new(Client::new(arguments)?);
    let single = match arguments.what {
        What::Fresh { connections } | What::Http1 { connections } => connections == 1,
        What::Http2 { connections, streams } => connections * streams == 1,
        What::Down { .. } | What::Up { .. } | What::Events { .. } | What::Idle { .. } | What::Probe => true,
    };
    let mut builder = if single {
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    let report = builder.enable_all().build()?.block_on(async {
        match arguments.what {
            What::Fresh { connections } => steady::fresh(&client, connections).await,
            What::Http1 { connections } => steady::http1(&client, connections).await,
            What::Http2 { connections, streams } => steady::http2(&client, connections, streams).await,
            What::Down { bytes, times } => bulk::down(&client, bytes, times).await,
            What::Up { bytes, times } => bulk::up(&client, bytes, times).await,
            What::Events { events, milliseconds, streams, shorts } => {
                events::run(&client, events, milliseconds, streams, shorts).await
            }
            What::Idle { connections } => idle::run(&client, connections).await,
            What::Probe => idle::probe(&client).await,
        }
    })?;
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}
