//! The first bytes of a connection: read up to a cap and a deadline, named, and replayed.
//!
//! Nothing is consumed: whoever comes next reads the same bytes again.

pub mod client_hello;
mod ja4;
pub mod opaque;
pub mod protocol;
mod replay;

use std::{io, time::Duration};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    time::{Instant, timeout_at},
};

pub use client_hello::{ClientHello, InvalidHello};
pub use opaque::{Named, Naming};
pub use protocol::Protocol;
pub use replay::Replayed;

/// Most bytes read before a verdict must be possible: the largest hello with its record headers.
const MAX_SNIFF: usize = 24 * 1024;

/// How long to wait.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// For the first byte; after it the connection counts as silent (the server speaks first).
    pub silence: Duration,
    /// From the start to a verdict.
    pub total: Duration,
}

/// What the first bytes were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Tls(ClientHello),
    Http1,
    Http2,
    Other,
    /// Nothing came within [`Deadlines::silence`].
    Silent,
}

impl Kind {
    /// The word for the record.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Tls(_) => "tls",
            Self::Http1 => "http/1",
            Self::Http2 => "http/2",
            Self::Other => "opaque",
            Self::Silent => "silent",
        }
    }
}

/// Ports of which everybody knows that the client speaks first.
const CLIENT_FIRST: [u16; 4] = [80, 443, 8080, 8443];

impl Deadlines {
    /// The same for a connection to `port`. Where the client speaks first, silence says nothing about the
    /// protocol: the client is busy (loading a trust bundle takes some of them seconds on a loaded host),
    /// so it has the whole time.
    #[must_use]
    pub fn at(self, port: u16) -> Self {
        if CLIENT_FIRST.contains(&port) { Self { silence: self.total, ..self } } else { self }
    }
}

/// A connection that has been sniffed, every byte still to be read.
#[derive(Debug)]
pub struct Sniffed<S> {
    pub kind: Kind,
    pub stream: Replayed<S>,
}

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum SniffError {
    /// Some bytes came, then not enough in time.
    #[error("the first bytes stopped after {received} before they could be understood")]
    Stalled { received: usize },
    /// The agent closed before it could be understood.
    #[error("closed after {received} bytes")]
    Closed { received: usize },
    #[error("not a TLS ClientHello: {0}")]
    InvalidHello(#[from] InvalidHello),
    #[error("read: {0}")]
    Io(#[from] io::Error),
}

/// Reads until the protocol is known.
///
/// # Errors
/// [`SniffError`]; the stream is given back with it so that the caller can answer or reset.
pub async fn sniff<S: AsyncRead + Unpin>(
    mut stream: S,
    deadlines: Deadlines,
) -> Result<Sniffed<S>, (SniffError, S)> {
    let start = Instant::now();
    let mut bytes = BytesMut::with_capacity(4096);
    let kind = loop {
        match protocol::classify(&bytes) {
            Protocol::Tls(hello) => break Kind::Tls(hello),
            Protocol::Http1 => break Kind::Http1,
            Protocol::Http2 => break Kind::Http2,
            Protocol::Other => break Kind::Other,
            Protocol::InvalidTls(why) => return Err((why.into(), stream)),
            Protocol::Incomplete => {}
        }
        let received = bytes.len();
        if received >= MAX_SNIFF {
            return Err((InvalidHello::TooLarge.into(), stream));
        }
        let deadline = start + if received == 0 { deadlines.silence } else { deadlines.total };
        match timeout_at(deadline, stream.read_buf(&mut bytes)).await {
            Err(_elapsed) if received == 0 => break Kind::Silent,
            Err(_elapsed) => return Err((SniffError::Stalled { received }, stream)),
            Ok(Ok(0)) => return Err((SniffError::Closed { received }, stream)),
            Ok(Ok(_more)) => {}
            Ok(Err(error)) => return Err((error.into(), stream)),
        }
    };
    Ok(Sniffed { kind, stream: Replayed::new(bytes.freeze(), stream) })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt as _, duplex};

    use super::*;

    const SHORT: Deadlines =
        Deadlines { silence: Duration::from_millis(20), total: Duration::from_millis(60) };

    #[tokio::test]
    async fn replays_what_it_read() {
        let (mut agent, gate) = duplex(64);
        agent.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        let mut sniffed = sniff(gate, SHORT).await.unwrap();
        assert_eq!(sniffed.kind, Kind::Http1);
        agent.write_all(b"\r\n").await.unwrap();
        drop(agent);
        let mut all = String::new();
        sniffed.stream.read_to_string(&mut all).await.unwrap();
        assert_eq!(all, "GET / HTTP/1.1\r\n\r\n");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_speaks_first_may_take_its_time() {
        for (port, kind) in [(443, Kind::Http1), (80, Kind::Http1), (22, Kind::Silent)] {
            let (mut agent, gate) = duplex(64);
            let late = async move {
                tokio::time::sleep(SHORT.silence * 2).await;
                agent.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
                agent
            };
            let (sniffed, _agent) = tokio::join!(sniff(gate, SHORT.at(port)), late);
            assert_eq!(sniffed.unwrap().kind, kind, "{port}");
        }
        let (_agent, gate) = duplex(64);
        assert_eq!(sniff(gate, SHORT.at(443)).await.unwrap().kind, Kind::Silent, "it says nothing at all");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_and_stalls_end() {
        let (agent, gate) = duplex(64);
        assert_eq!(sniff(gate, SHORT).await.unwrap().kind, Kind::Silent);
        drop(agent);
        let (mut agent, gate) = duplex(64);
        agent.write_all(&[22, 3, 1]).await.unwrap();
        assert!(matches!(sniff(gate, SHORT).await, Err((SniffError::Stalled { received: 3 }, _))));
        let (mut agent, gate) = duplex(64);
        agent.write_all(&[22, 3, 1]).await.unwrap();
        drop(agent);
        assert!(matches!(sniff(gate, SHORT).await, Err((SniffError::Closed { received: 3 }, _))));
    }
}
