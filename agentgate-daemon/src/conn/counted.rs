//! The agent's socket: counts what passes on the wire, and ends a connection whose agent takes
//! nothing for too long.

use std::{
    future::Future as _,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep_until},
};

use crate::socket::{OverTcp, reset};

/// Bytes of a connection, on the wire.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    pub(super) up: Arc<AtomicU64>,
    pub(super) down: Arc<AtomicU64>,
}

/// A stream that counts, and whose writes fail when the peer's window stays shut for `patience`:
/// otherwise an agent that never reads would hold its connection, its records and the origin's
/// connection for ever.
#[derive(Debug)]
pub(super) struct Counted {
    inner: TcpStream,
    counts: Counts,
    patience: Duration,
    stuck: Option<Pin<Box<Sleep>>>,
}

impl Counted {
    pub(super) fn new(inner: TcpStream, counts: Counts, patience: Duration) -> Self {
        Self { inner, counts, patience, stuck: None }
    }

    /// The bare socket: who takes it counts on its own.
    pub(super) fn into_inner(self) -> TcpStream {
        self.inner
    }

    /// Makes the coming close a reset, so that the agent does not take it for an empty answer.
    pub(super) fn reset(self) {
        reset(&self.inner);
    }

    /// What a write that `polled` means, with the time it may stay pending.
    fn progress(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match polled {
            Poll::Ready(done) => {
                self.stuck = None;
                if let Ok(length) = done {
                    self.counts.down.fetch_add(length as u64, Ordering::Relaxed);
                }
                Poll::Ready(done)
            }
            Poll::Pending => {
                let patience = self.patience;
                let stuck =
                    self.stuck.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + patience)));
                ready!(stuck.as_mut().poll(cx));
                let why = format!("the agent took nothing for {patience:?}");
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, why)))
            }
        }
    }
}

impl OverTcp for Counted {
    fn tcp(&self) -> Option<&TcpStream> {
        Some(&self.inner)
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        self.counts.up.fetch_add((buf.filled().len() - before) as u64, Ordering::Relaxed);
        polled
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.progress(cx, polled)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.progress(cx, polled)
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
