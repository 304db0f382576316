//! What is measured, and what of it becomes a number.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::{
    cell::{Cell, Report},
    peer::Kind,
};

/// One figure: a load, put on each peer in turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Figure {
    /// New connections, one at a time
    New1,
    /// New connections, 16 at a time
    New16,
    /// HTTP/1.1 on one connection
    #[value(name = "h1-1")]
    #[serde(rename = "h1-1")]
    Http1x1,
    /// HTTP/1.1 on 16
    #[value(name = "h1-16")]
    #[serde(rename = "h1-16")]
    Http1x16,
    /// HTTP/1.1 on 64
    #[value(name = "h1-64")]
    #[serde(rename = "h1-64")]
    Http1x64,
    /// HTTP/2, one stream at a time
    #[value(name = "h2-1")]
    #[serde(rename = "h2-1")]
    Http2x1,
    /// HTTP/2, 4 connections of 16 streams
    #[value(name = "h2-4x16")]
    #[serde(rename = "h2-4x16")]
    Http2x64,
    /// HTTP/1.1 on one connection, everybody on one CPU
    #[value(name = "pinned-h1")]
    #[serde(rename = "pinned-h1")]
    PinnedHttp1,
    /// HTTP/2, one stream at a time, everybody on one CPU
    #[value(name = "pinned-h2")]
    #[serde(rename = "pinned-h2")]
    PinnedHttp2,
    /// 100 MiB down
    Down,
    /// 100 MiB up
    Up,
    /// 100 MiB down through TLS that nobody opens
    Passthrough,
    /// Server-sent events
    Sse,
    /// Memory, idle and with 1,000 connections
    Memory,
}

/// A column of a figure's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Metric {
    /// Requests or connections a second.
    Rate,
    P50,
    P99,
    /// CPU seconds for 10,000 requests or connections.
    Cpu,
    /// MB (10^6 bytes) a second.
    Speed,
    /// CPU seconds for a GiB.
    CpuGib,
    /// Handshakes of the origin for each connection of the client.
    Handshakes,
    /// Microseconds until the first event.
    First,
    /// MiB with nothing to do.
    Idle,
    /// KiB for each of 1,000 connections.
    Connection,
}

impl Metric {
    /// The head of its column.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Rate => "a second",
            Self::P50 => "p50 µs",
            Self::P99 => "p99 µs",
            Self::Cpu => "CPU s per 10,000",
            Self::Speed => "MB/s",
            Self::CpuGib => "CPU s per GiB",
            Self::Handshakes => "origin handshakes each",
            Self::First => "first event µs",
            Self::Idle => "idle MiB",
            Self::Connection => "KiB a connection",
        }
    }

    /// Digits after the point.
    pub(crate) fn digits(self) -> usize {
        match self {
            Self::Rate | Self::Speed | Self::First => 0,
            Self::P50 | Self::P99 | Self::Idle | Self::Connection => 1,
            Self::Cpu | Self::CpuGib | Self::Handshakes => 2,
        }
    }
}

/// Bytes of a long body.
const LONG: u64 = 100 << 20;
/// Long bodies of one cell.
const TIMES: u64 = 3;
/// Idle connections.
pub(crate) const IDLE: u64 = 1_000;
/// A stream of events, milliseconds between two of them, streams of a cell, and short streams before them.
const SSE: [&str; 4] = ["200", "5", "1", "12"];

impl Figure {
    pub(crate) const ALL: [Self; 14] = [
        Self::New1,
        Self::New16,
        Self::Http1x1,
        Self::Http1x16,
        Self::Http1x64,
        Self::Http2x1,
        Self::Http2x64,
        Self::PinnedHttp1,
        Self::PinnedHttp2,
        Self::Down,
        Self::Up,
        Self::Passthrough,
        Self::Sse,
        Self::Memory,
    ];

    /// Those that the targets are about.
    pub(crate) fn is_quick(self) -> bool {
        match self {
            Self::New16
            | Self::Http1x16
            | Self::Http1x64
            | Self::Http2x64
            | Self::PinnedHttp1
            | Self::Down
            | Self::Up
            | Self::Sse
            | Self::Memory => true,
            Self::New1 | Self::Http1x1 | Self::Http2x1 | Self::PinnedHttp2 | Self::Passthrough => false,
        }
    }

    /// As it is asked for.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// The heading of its table.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::New1 => "New connections, one at a time (TLS 1.3 handshake, GET 1 KiB, close)",
            Self::New16 => "New connections, 16 at a time",
            Self::Http1x1 => "HTTP/1.1 requests, 1 connection, 1 KiB answers",
            Self::Http1x16 => "HTTP/1.1 requests, 16 connections",
            Self::Http1x64 => "HTTP/1.1 requests, 64 connections",
            Self::Http2x1 => "HTTP/2 requests, 1 connection, 1 stream at a time",
            Self::Http2x64 => "HTTP/2 requests, 4 connections of 16 streams",
            Self::PinnedHttp1 => "Latency, HTTP/1.1, 1 connection, everybody on one CPU",
            Self::PinnedHttp2 => "Latency, HTTP/2, 1 stream at a time, everybody on one CPU",
            Self::Down => "100 MiB down",
            Self::Up => "100 MiB up",
            Self::Passthrough => "100 MiB down, TLS that is passed through",
            Self::Sse => "Server-sent events: 200, 5 ms apart",
            Self::Memory => "Memory (resident), empty, and for each of 1,000 idle connections",
        }
    }

    /// What the load generator is told to do. Memory is measured elsewhere.
    pub(crate) fn load(self) -> Vec<String> {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let (long, times) = (LONG.to_string(), TIMES.to_string());
        match self {
            Self::New1 => words(&["fresh", "1"]),
            Self::New16 => words(&["fresh", "16"]),
            Self::Http1x1 | Self::PinnedHttp1 => words(&["http1", "1"]),
            Self::Http1x16 => words(&["http1", "16"]),
            Self::Http1x64 => words(&["http1", "64"]),
            Self::Http2x1 | Self::PinnedHttp2 => words(&["http2", "1", "1"]),
            Self::Http2x64 => words(&["http2", "4", "16"]),
            Self::Down | Self::Passthrough => words(&["down", &long, &times]),
            Self::Up => words(&["up", &long, &times]),
            Self::Sse => words(&["events", SSE[0], SSE[1], SSE[2], SSE[3]]),
            Self::Memory => words(&["idle", &IDLE.to_string()]),
        }
    }

    /// Whether everybody stays on one CPU.
    pub(crate) fn is_pinned(self) -> bool {
        matches!(self, Self::PinnedHttp1 | Self::PinnedHttp2)
    }

    /// Whether this peer is measured by this figure.
    pub(crate) fn suits(self, peer: Kind) -> bool {
        match (self, peer) {
            (Self::New1 | Self::New16, Kind::TlsResume) => true,
            (_, Kind::TlsResume) => false,
            (Self::Down | Self::Up | Self::Sse, Kind::MitmproxyStream) => true,
            (_, Kind::MitmproxyStream) => false,
            (Self::Memory, Kind::Direct) => false,
            (Self::Passthrough, peer) => peer == Kind::Direct || peer == Kind::Splice || peer.is_gate(),
            (Self::Http2x1 | Self::Http2x64 | Self::PinnedHttp2, Kind::Squid) => false,
            _ => true,
        }
    }

    /// Its columns; the first is what ratios are taken of.
    pub(crate) fn metrics(self) -> &'static [Metric] {
        match self {
            Self::New1 | Self::New16 => {
                &[Metric::Rate, Metric::P50, Metric::P99, Metric::Cpu, Metric::Handshakes]
            }
            Self::Http1x1 | Self::Http1x16 | Self::Http1x64 | Self::Http2x1 | Self::Http2x64 => {
                &[Metric::Rate, Metric::P50, Metric::P99, Metric::Cpu]
            }
            Self::PinnedHttp1 | Self::PinnedHttp2 => &[Metric::P50, Metric::P99, Metric::Rate],
            Self::Down | Self::Up | Self::Passthrough => &[Metric::Speed, Metric::CpuGib],
            Self::Sse => &[Metric::P50, Metric::P99, Metric::First],
            Self::Memory => &[Metric::Idle, Metric::Connection],
        }
    }

    /// Whether differences to direct are shown instead of ratios.
    pub(crate) fn is_delay(self) -> bool {
        matches!(self, Self::PinnedHttp1 | Self::PinnedHttp2 | Self::Sse)
    }

    /// Whom ratios are taken to.
    pub(crate) fn against(self) -> Kind {
        if self == Self::Passthrough { Kind::Splice } else { Kind::Tls }
    }

    /// A number of a cell; `None` where it has none, such as the CPU time of nobody.
    pub(crate) fn value(self, metric: Metric, report: &Report, handshakes: u64) -> Option<f64> {
        let count = report.count as f64;
        if count == 0.0 {
            return None;
        }
        let gib = count * LONG as f64 / f64::from(1 << 30);
        match metric {
            Metric::Rate => Some(count / report.seconds),
            Metric::P50 => Some(report.p50_us),
            Metric::P99 => Some(report.p99_us),
            Metric::Cpu => report.cpu_seconds.map(|cpu| cpu / count * 10_000.0),
            Metric::Speed => Some(LONG as f64 / report.p50_us),
            Metric::CpuGib => report.cpu_seconds.map(|cpu| cpu / gib),
            Metric::Handshakes => Some(handshakes as f64 / report.connections as f64),
            Metric::First => report.first_event_us,
            Metric::Idle | Metric::Connection => None,
        }
    }

    /// All numbers of a cell.
    pub(crate) fn cell(self, peer: Kind, round: usize, report: &Report, handshakes: u64) -> Cell {
        let values = self.metrics().iter();
        let values = values.filter_map(|metric| Some((*metric, self.value(*metric, report, handshakes)?)));
        Cell { figure: self, peer, round, values: values.collect(), error: report.complaint() }
    }
}
