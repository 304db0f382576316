//! What an agent's stream says after the handshake about whether its client accepts the gate's
//! certificate.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Instant,
};

use rustls::AlertDescription;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::{
    AgentTlsError, Watch,
    pinned::{Seen, refusal},
};
use crate::{
    model::{Flag, Host, SessionId},
    socket::OverTcp,
};

/// One connection that is sent the gate's certificate, for [`Watch`].
#[derive(Debug)]
pub struct Heard {
    watch: Arc<Watch>,
    session: SessionId,
    host: Host,
    since: Instant,
    asked: AtomicBool,
    alert: OnceLock<AlertDescription>,
}

impl Heard {
    /// A connection of `session` to `host` whose handshake begins now.
    #[must_use]
    pub fn new(watch: Arc<Watch>, session: SessionId, host: Host) -> Arc<Self> {
        let (asked, alert) = (AtomicBool::new(false), OnceLock::new());
        Arc::new(Self { watch, session, host, since: Instant::now(), asked, alert })
    }

    /// The handshake failed with `error`. The flag for the record, where that shows a client that does not
    /// accept the certificate.
    #[must_use]
    pub fn failed(&self, error: &AgentTlsError) -> Option<Flag> {
        let AgentTlsError::Handshake(error) = error else { return None };
        if let Some(alert) = refusal(error) {
            return self.see(Seen::Refusal(alert));
        }
        // The whole hello was there before the handshake began, so that the certificate was sent at once.
        let gone = [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe];
        gone.contains(&error.kind()).then(|| self.see(Seen::Leave { since: self.since })).flatten()
    }

    /// The connection has ended after its handshake: as [`Heard::failed`].
    #[must_use]
    pub fn ended(&self) -> Option<Flag> {
        match self.alert.get() {
            Some(alert) => self.see(Seen::Refusal(*alert)),
            None if self.asked.load(Ordering::Relaxed) => None,
            None => self.see(Seen::Leave { since: self.since }),
        }
    }

    fn see(&self, seen: Seen) -> Option<Flag> {
        self.watch.see(&self.session, &self.host, seen, Instant::now())
    }

    fn read(&self, length: usize) {
        if length > 0 && !self.asked.swap(true, Ordering::Relaxed) {
            let _none_for_requests = self.see(Seen::Request);
        }
    }
}

/// A stream after its handshake, listened to.
#[derive(Debug)]
pub struct Listened<S> {
    inner: S,
    heard: Arc<Heard>,
}

impl<S> Listened<S> {
    /// Listens to `inner` for `heard`.
    pub fn new(inner: S, heard: Arc<Heard>) -> Self {
        Self { inner, heard }
    }
}

impl<S: OverTcp> OverTcp for Listened<S> {
    fn tcp(&self) -> Option<&TcpStream> {
        self.inner.tcp()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Listened<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        match &polled {
            Poll::Ready(Ok(())) => self.heard.read(buf.filled().len() - before),
            Poll::Ready(Err(error)) => {
                if let Some(alert) = refusal(error) {
                    let _only_the_first = self.heard.alert.set(alert);
                }
            }
            Poll::Pending => {}
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Listened<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }
    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
