//! A connection to an origin, carried by the task of the agent's connection that it belongs to.

use std::{
    future::{Future as _, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use h2::{Ping, PingPong, client};
use tokio::time::timeout;

use super::origins::NoOrigin;
use crate::{
    forward::{Dialled, ForwardError, OriginStream},
    http::{
        body::describe,
        h2::{Grip, Part, Wire, gathered, to_origin},
    },
    model::Flag,
    policy::Scheme,
    tls::Alpn,
};

/// Largest head of an origin's answer.
const HEAD_BYTES: usize = 512 * 1024;

/// A connection to an origin that just came to be.
pub(super) struct Connected {
    pub(super) sender: client::SendRequest<Bytes>,
    pub(super) connection: client::Connection<Wire<OriginStream>, Bytes>,
    pub(super) grip: Grip<OriginStream>,
    pub(super) flags: Vec<Flag>,
}

/// Speaks HTTP/2 on a connection whose origin chose it, or was not asked.
pub(super) async fn connect(dialled: Dialled) -> Result<Connected, NoOrigin> {
    if dialled.alpn != Some(Alpn::Http2) && dialled.to().0.scheme == Scheme::Https {
        return Err(NoOrigin::NotHttp2);
    }
    let Dialled { stream, flags, .. } = dialled;
    let (wire, grip) = gathered(stream, 0);
    let (sender, connection) = to_origin(HEAD_BYTES)
        .handshake(wire)
        .await
        .map_err(|error| NoOrigin::Failed(Arc::new(ForwardError::Http(describe(&error)))))?;
    Ok(Connected { sender, connection, grip, flags })
}

impl Connected {
    /// Waits for what the origin says first, its settings, for at most `patience`.
    pub(super) async fn settled(mut self, patience: Duration) -> Self {
        let heard = poll_fn(|cx| {
            // An end of it is found again when it is polled next.
            let ended = Pin::new(&mut self.connection).poll(cx).is_ready();
            let broken = matches!(self.grip.poll_flush(cx), Poll::Ready(Err(_)));
            if ended || broken || self.grip.take_heard() { Poll::Ready(()) } else { Poll::Pending }
        });
        // Then it is used as one that has said nothing special.
        let _late = timeout(patience, heard).await;
        self
    }
}

/// What is known of a connection's other end.
#[derive(Debug)]
pub(super) struct Peer<S> {
    pub(super) grip: Grip<S>,
    pings: Option<PingPong>,
    unheard: Duration,
}

impl<S> Peer<S> {
    pub(super) fn new(grip: Grip<S>, pings: Option<PingPong>) -> Self {
        Self { grip, pings, unheard: Duration::ZERO }
    }

    /// Gives memory back that a connection without streams does not need.
    pub(super) fn rest(&self) {
        self.grip.rest();
    }

    /// Another `beat` has passed. False where the peer must be gone: it did not answer for `patience` and
    /// once more as long.
    pub(super) fn is_there(&mut self, beat: Duration, patience: Duration) -> bool {
        if self.grip.take_heard() {
            self.unheard = Duration::ZERO;
            return true;
        }
        self.unheard += beat;
        if self.unheard >= patience
            && let Some(pings) = self.pings.as_mut()
        {
            // An answer that was not looked at is in the way of another question; one question is enough.
            let _answer = pings.poll_pong(&mut Context::from_waker(Waker::noop()));
            let _asked = pings.send_ping(Ping::opaque());
        }
        self.unheard < patience * 2
    }
}

/// A connection to an origin, and when it is to be polled.
pub(super) struct Line {
    connection: client::Connection<Wire<OriginStream>, Bytes>,
    pub(super) peer: Peer<OriginStream>,
    pub(super) part: Part,
    /// It takes nothing more; its last words are still to be read.
    deaf: bool,
}

impl Line {
    pub(super) fn new(
        mut connection: client::Connection<Wire<OriginStream>, Bytes>,
        grip: Grip<OriginStream>,
        part: Part,
    ) -> Self {
        let pings = connection.ping_pong();
        Self { connection, peer: Peer::new(grip, pings), part, deaf: false }
    }

    /// Sends what is to be said first, as far as it leaves.
    pub(super) fn begin(&mut self, cx: &mut Context<'_>) {
        // An end of it is found again when it is polled next.
        let _polled = Pin::new(&mut self.connection).poll(cx);
        let _flushed = self.peer.grip.poll_flush(cx);
    }

    /// False once it is over.
    pub(super) fn poll(&mut self) -> bool {
        let mut cx = Context::from_waker(self.part.waker());
        match Pin::new(&mut self.connection).poll(&mut cx) {
            Poll::Ready(Ok(())) => false,
            Poll::Ready(Err(error)) => {
                tracing::debug!(%error, "a connection to an origin ended");
                false
            }
            Poll::Pending => self.peer.grip.flood().is_none_or(|flood| {
                tracing::warn!(%flood, "a connection to an origin was ended");
                false
            }),
        }
    }

    /// Writes what has gathered. Where that fails it is read to its end: which requests the origin has not
    /// looked at, it may have said (RFC 9113 6.8).
    pub(super) fn flush(&mut self) {
        let mut cx = Context::from_waker(self.part.waker());
        if matches!(self.peer.grip.poll_flush(&mut cx), Poll::Ready(Err(_))) && !self.deaf {
            self.deaf = true;
            self.part.waker().wake_by_ref();
        }
    }

    /// Says what is to be said last. False once it has left.
    pub(super) fn poll_farewell(&mut self, cx: &mut Context<'_>) -> bool {
        Pin::new(&mut self.connection).poll(cx).is_pending()
            && !matches!(self.peer.grip.poll_flush(cx), Poll::Ready(Err(_)))
    }
}
