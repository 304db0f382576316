//! One side of an HTTP/1.1 connection: a stream, and what was read of it ahead.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    BadFraming, BadHead, Decoder, Framing,
    head::{empty_lines, end_of_head},
};
use crate::socket::{Cut, OverTcp, fin, reset};

/// Bytes read at once: what a TLS record holds.
const READ: usize = 16 * 1024;
/// What is read of a body before its head goes on.
const AHEAD: usize = 64 * 1024;
/// Who sends this much at once has more: it is read before any of it goes on.
const LARGE: usize = 4 * 1024;
/// What is read before it goes on: four TLS records, which are written by one call.
const BULK: usize = 64 * 1024;

thread_local! {
    /// Where idle connections are read into, so that waiting for a byte costs none.
    static SCRATCH: RefCell<[u8; READ]> = const { RefCell::new([0; READ]) };
}

/// Why no head came.
#[derive(Debug, thiserror::Error)]
pub enum HeadError {
    #[error(transparent)]
    Bad(#[from] BadHead),
    #[error("the connection ended within a head")]
    Cut,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A stream and what was read of it and not used yet.
#[derive(Debug)]
pub struct Wire<S> {
    io: S,
    pub(super) buffer: BytesMut,
    /// Bytes of the buffer in which no end of a head was found.
    scanned: usize,
    /// The peer sends no more.
    ended: bool,
    /// It broke, after what is in the buffer.
    broken: Option<io::Error>,
}

impl<S> Wire<S> {
    /// Nothing read yet.
    pub fn new(io: S) -> Self {
        Self { io, buffer: BytesMut::new(), scanned: 0, ended: false, broken: None }
    }

    /// True where the peer has said that it sends no more.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// True where nothing is left over.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// True where the beginning of something is there.
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.buffer.len() > empty_lines(&self.buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// Reads more; 0 at the end.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Err(error));
        }
        if self.ended {
            return Poll::Ready(Ok(0));
        }
        let first = if self.buffer.capacity() == 0 {
            ready!(self.poll_scratch(cx))?
        } else {
            ready!(self.poll_more(cx, READ))?
        };
        let (mut length, mut all) = (first, first);
        while length >= LARGE && self.buffer.len() < BULK {
            match self.poll_more(cx, BULK - self.buffer.len()) {
                Poll::Ready(Ok(more)) => length = more,
                Poll::Ready(Err(error)) => {
                    self.broken = Some(error);
                    break;
                }
                Poll::Pending => break,
            }
            all += length;
        }
        Poll::Ready(Ok(all))
    }

    /// Into a buffer with room for `room` bytes.
    fn poll_more(&mut self, cx: &mut Context<'_>, room: usize) -> Poll<io::Result<usize>> {
        self.buffer.reserve(room);
        let polled = tokio_util::io::poll_read_buf(Pin::new(&mut self.io), cx, &mut self.buffer);
        if let Poll::Ready(Ok(0)) = polled {
            self.ended = true;
        }
        polled
    }

    /// Without a buffer, which is had only when something came.
    fn poll_scratch(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut into = ReadBuf::new(scratch);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut into))?;
            let length = into.filled().len();
            self.ended = length == 0;
            self.buffer.extend_from_slice(into.filled());
            Poll::Ready(Ok(length))
        })
    }

    /// A head of at most `most` bytes; `None` where the peer ended before it began.
    pub fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        most: usize,
    ) -> Poll<Result<Option<BytesMut>, HeadError>> {
        loop {
            if let Some(head) = self.head(most)? {
                return Poll::Ready(Ok(Some(head)));
            }
            let polled = self.poll_fill(cx);
            if polled.is_pending() && self.buffer.is_empty() {
                self.buffer = BytesMut::new(); // this may take long
            }
            if ready!(polled)? == 0 {
                return Poll::Ready(if self.has_more() { Err(HeadError::Cut) } else { Ok(None) });
            }
        }
    }

    /// The head that is there already.
    fn head(&mut self, most: usize) -> Result<Option<BytesMut>, BadHead> {
        // A CR may have come before its LF.
        let empty = empty_lines(&self.buffer);
        self.buffer.advance(empty);
        self.scanned = self.scanned.saturating_sub(empty);
        match end_of_head(&self.buffer, self.scanned, most)? {
            Some(length) => {
                self.scanned = 0;
                Ok(Some(self.buffer.split_to(length)))
            }
            None => {
                self.scanned = self.buffer.len();
                Ok(None)
            }
        }
    }

    /// True where nothing came and nothing ended since it was last used: it may be used again.
    pub fn is_quiet(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        self.buffer.is_empty() && !self.ended && self.broken.is_none() && self.poll_fill(&mut cx).is_pending()
    }

    /// Resolves once an idle peer says anything, or ends, and how.
    pub fn poll_disturbed(&mut self, cx: &mut Context<'_>) -> Poll<Cut> {
        if !self.buffer.is_empty() || self.ended {
            return Poll::Ready(Cut::Closed);
        }
        self.poll_fill(cx).map(|filled| filled.map_or_else(|error| Cut::of(&error), |_| Cut::Closed))
    }

    /// Shows `content` a body that is there already, all of it. False where it is not: some of it may have
    /// been shown. Nothing is waited for, and nothing is taken away.
    pub fn show(&mut self, framing: Framing, mut content: impl FnMut(&[u8])) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        let (mut body, mut seen) = (Decoder::new(framing), 0);
        if matches!(framing, Framing::Length(length) if length > AHEAD as u64) {
            return false;
        }
        loop {
            let Ok(more) = body.advance(self.buffer.get(seen..).unwrap_or_default(), &mut content) else {
                return false;
            };
            seen += more;
            if body.is_complete() || self.buffer.len() >= AHEAD {
                return body.is_complete();
            }
            match self.poll_fill(&mut cx) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Err(error)) => {
                    self.broken = Some(error);
                    return false;
                }
                Poll::Ready(Ok(_)) | Poll::Pending => return false,
            }
        }
    }

    /// Reads some of a body for `see`; false where the peer ended or broke before it was whole.
    ///
    /// # Errors
    /// [`BadFraming`].
    pub async fn read_body(
        &mut self,
        body: &mut Decoder,
        see: impl FnMut(&[u8]),
    ) -> Result<bool, BadFraming> {
        if self.buffer.is_empty() && !body.is_complete() {
            let filled = poll_fn(|cx| self.poll_fill(cx)).await;
            if !matches!(filled, Ok(1..)) {
                return Ok(false);
            }
        }
        let mine = body.advance(&self.buffer, see)?;
        self.buffer.advance(mine);
        Ok(true)
    }

    /// Says that nothing more comes, and reads what the peer still sends until it has ended: closing before
    /// would make its system throw away what it was told last.
    pub async fn finish(&mut self) {
        if poll_fn(|cx| self.poll_shutdown(cx)).await.is_ok() {
            self.buffer = BytesMut::new();
            while let Ok(1..) = poll_fn(|cx| self.poll_scratch(cx)).await {
                self.buffer.clear();
            }
        }
    }

    /// Writes some of `first` and then `second`.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        first: &[u8],
        second: &[u8],
    ) -> Poll<io::Result<usize>> {
        let io = Pin::new(&mut self.io);
        let written = match (first, second) {
            (only, []) | ([], only) => ready!(io.poll_write(cx, only))?,
            (first, second) => {
                ready!(io.poll_write_vectored(cx, &[io::IoSlice::new(first), io::IoSlice::new(second)]))?
            }
        };
        Poll::Ready(if written == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(written) })
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    /// Tells the peer that nothing more comes.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    /// Tells the peer that nothing more comes, in the way that another peer said it; where that was a
    /// reset, this one's comes when the wire is dropped.
    pub(super) fn poll_pass(&mut self, cx: &mut Context<'_>, how: Cut) -> Poll<()>
    where
        S: OverTcp,
    {
        // A peer that is gone needs no telling.
        match (how, self.io.tcp()) {
            (Cut::Closed, _) | (_, None) => drop(ready!(self.poll_shutdown(cx))),
            (Cut::Dropped | Cut::Reset, Some(_)) => {
                let _gone = ready!(self.poll_flush(cx));
                if let Some(tcp) = self.io.tcp() {
                    if how == Cut::Reset { reset(tcp) } else { fin(tcp) }
                }
            }
        }
        Poll::Ready(())
    }

    /// Ends the connection as another peer ended its own.
    pub async fn pass(&mut self, how: Cut)
    where
        S: OverTcp,
    {
        poll_fn(|cx| self.poll_pass(cx, how)).await;
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// Those of the stream.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        use tokio::io::AsyncWriteExt as _;
        self.io.write_all(bytes).await?;
        self.io.flush().await
    }
}
