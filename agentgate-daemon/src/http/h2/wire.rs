//! A connection's bytes under the `h2` crate: what it writes is gathered and leaves when the connection's
//! task says so, in few large pieces; what it reads passes the [`Meter`].
//!
//! `h2` flushes after each larger DATA frame, and each flush of a TLS stream is a record and a system
//! call. Here a flush by `h2` does nothing; [`Grip::poll_flush`] is called once nothing more is to be
//! done, so sixteen answers that came together leave together.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::meter::{Flood, Meter};

/// What is gathered before it is written though nobody said so: four TLS records.
const GATHERED: usize = 64 * 1024;
/// What a connection at rest may keep of its buffer.
const AT_REST: usize = 4 * 1024;

#[derive(Debug)]
struct Shared<S> {
    io: S,
    out: BytesMut,
    unflushed: bool,
    meter: Meter,
    heard: bool,
    /// The peer takes nothing more; what it said before is still there to be read.
    deaf: Option<io::ErrorKind>,
}

/// The side that `h2` owns.
#[derive(Debug)]
pub struct Wire<S>(Arc<Mutex<Shared<S>>>);

/// The side of the connection's task.
#[derive(Debug)]
pub struct Grip<S>(Arc<Mutex<Shared<S>>>);

/// Both sides of `io`, of which the first `preface` bytes that come are no frames.
pub fn gathered<S>(io: S, preface: usize) -> (Wire<S>, Grip<S>) {
    let meter = Meter::after(preface);
    let shared = Shared { io, out: BytesMut::new(), unflushed: false, meter, heard: false, deaf: None };
    let shared = Arc::new(Mutex::new(shared));
    (Wire(shared.clone()), Grip(shared))
}

fn lock<S>(shared: &Mutex<Shared<S>>) -> MutexGuard<'_, Shared<S>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S: AsyncWrite + Unpin> Shared<S> {
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(kind) = self.deaf {
            self.out.clear();
            return Poll::Ready(Err(kind.into()));
        }
        while !self.out.is_empty() {
            let written = match ready!(Pin::new(&mut self.io).poll_write(cx, &self.out)) {
                Ok(0) => Err(io::ErrorKind::WriteZero.into()),
                written => written,
            };
            let written = written.inspect_err(|error| self.deaf = Some(error.kind()))?;
            self.out.advance(written);
            self.unflushed = true;
            self.meter.wrote(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> Grip<S> {
    /// Writes what was gathered. Pending where the peer does not take it.
    ///
    /// # Errors
    /// Those of the stream.
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut shared = lock(&self.0);
        ready!(shared.poll_drain(cx))?;
        if shared.unflushed {
            ready!(Pin::new(&mut shared.io).poll_flush(cx))?;
            shared.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S> Grip<S> {
    /// Whether the peer floods us.
    pub fn flood(&self) -> Option<Flood> {
        lock(&self.0).meter.flood()
    }

    /// A stream was answered to its end.
    pub fn answered(&self) {
        lock(&self.0).meter.answered();
    }

    /// Whether anything came since this was last asked.
    pub fn take_heard(&self) -> bool {
        std::mem::take(&mut lock(&self.0).heard)
    }

    /// Gives memory back that a connection without streams does not need.
    pub fn rest(&self) {
        let mut shared = lock(&self.0);
        if shared.out.is_empty() && shared.out.capacity() > AT_REST {
            shared.out = BytesMut::new();
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut shared = lock(&self.0);
        let shared = &mut *shared;
        if shared.meter.flood().is_some() {
            // Whoever polls looks for it next, and ends the connection.
            return Poll::Pending;
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut shared.io).poll_read(cx, buf))?;
        let read = buf.filled().get(before..).unwrap_or_default();
        shared.meter.read(read);
        shared.heard |= !read.is_empty();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut shared = lock(&self.0);
        if shared.out.len() >= GATHERED {
            // `h2` would read no more: the task is told of it by its own flush.
            let _deaf = ready!(shared.poll_drain(cx));
        }
        let taken = buf.len().min(GATHERED);
        shared.out.extend_from_slice(buf.get(..taken).unwrap_or(buf));
        Poll::Ready(Ok(taken))
    }

    /// Nothing: see the module's head.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut shared = lock(&self.0);
        ready!(shared.poll_drain(cx))?;
        Pin::new(&mut shared.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn leaves_when_told_and_all_of_it() {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let (mut wire, grip) = gathered(near, 0);
        wire.write_all(b"one ").await.unwrap();
        wire.flush().await.unwrap();
        wire.write_all(b"two").await.unwrap();
        let mut seen = [0; 16];
        tokio::select! {
            biased;
            read = far.read(&mut seen) => panic!("it left by itself: {read:?}"),
            () = std::future::ready(()) => {}
        }
        poll_fn(|cx| grip.poll_flush(cx)).await.unwrap();
        assert_eq!(far.read(&mut seen).await.unwrap(), 7);
        assert_eq!(&seen[..7], b"one two");
    }

    #[tokio::test]
    async fn holds_no_more_than_its_share_for_a_peer_that_does_not_read() {
        let (near, _far) = tokio::io::duplex(1);
        let (mut wire, _grip) = gathered(near, 0);
        let piece = [0; 10_000];
        let mut taken = 0;
        let mut cx = Context::from_waker(std::task::Waker::noop());
        while let Poll::Ready(more) = Pin::new(&mut wire).poll_write(&mut cx, &piece) {
            taken += more.unwrap();
            assert!(taken < 2 * GATHERED, "{taken}");
        }
        assert!(taken >= GATHERED, "{taken}");
    }

    #[tokio::test]
    async fn a_flood_is_not_read_on() {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let (mut wire, grip) = gathered(near, 0);
        let ping: Vec<u8> = [0, 0, 8, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0].repeat(20_000);
        far.write_all(&ping).await.unwrap();
        let mut buffer = vec![0; ping.len()];
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut buffer = ReadBuf::new(&mut buffer);
        assert!(Pin::new(&mut wire).poll_read(&mut cx, &mut buffer).is_ready());
        assert_eq!(grip.flood(), Some(Flood::Chatter));
        assert!(grip.take_heard());
        assert!(Pin::new(&mut wire).poll_read(&mut cx, &mut buffer).is_pending());
    }
}
