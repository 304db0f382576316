//! One direction of a stream: DATA goes on the moment it comes, as far as the other side takes it.

use std::{
    collections::VecDeque,
    ops::ControlFlow,
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use http::HeaderMap;

/// What is taken of a body before its head goes on.
const AHEAD: usize = 64 * 1024;

/// What is told of a body as it passes.
#[derive(Debug)]
pub enum Seen<'a> {
    Data(&'a [u8]),
    /// All of it went on.
    End,
    /// The sender broke off or fell silent, and why.
    Failed(String),
}

/// Who is told what passes.
pub trait See {
    /// `Break` where these bytes must not go on.
    fn see(&mut self, seen: Seen<'_>) -> ControlFlow<()>;

    /// All of it was seen: ready once its end may go on; `Break` where it must not.
    fn poll_last(&mut self, cx: &mut Context<'_>) -> Poll<ControlFlow<()>>;
}

/// Who only looks holds nothing up.
impl<F: FnMut(Seen<'_>) -> ControlFlow<()>> See for F {
    fn see(&mut self, seen: Seen<'_>) -> ControlFlow<()> {
        self(seen)
    }

    fn poll_last(&mut self, _cx: &mut Context<'_>) -> Poll<ControlFlow<()>> {
        Poll::Ready(ControlFlow::Continue(()))
    }
}

/// A body as it comes, of which the first frames may have been looked at.
#[derive(Debug)]
pub struct Incoming {
    ahead: VecDeque<Bytes>,
    from: RecvStream,
}

impl From<RecvStream> for Incoming {
    fn from(from: RecvStream) -> Self {
        Self { ahead: VecDeque::new(), from }
    }
}

impl Incoming {
    /// Shows `content` a body that is there already, all of it. False where it is not: some of it may have
    /// been shown. Nothing is waited for.
    pub fn show(&mut self, mut content: impl FnMut(&[u8])) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        let mut seen = 0;
        while !self.from.is_end_stream() && seen < AHEAD {
            match self.from.poll_data(&mut cx) {
                Poll::Ready(Some(Ok(data))) => {
                    seen += data.len();
                    content(&data);
                    self.ahead.push_back(data);
                }
                // Trailers, or the end of what has none.
                Poll::Ready(None) => return true,
                // An error is there again when more is wanted.
                Poll::Ready(Some(Err(_))) | Poll::Pending => return false,
            }
        }
        self.from.is_end_stream()
    }

    /// Whether nothing more will come.
    #[must_use]
    pub fn is_end_stream(&self) -> bool {
        self.ahead.is_empty() && self.from.is_end_stream()
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, h2::Error>>> {
        match self.ahead.pop_front() {
            Some(data) => Poll::Ready(Some(Ok(data))),
            None => self.from.poll_data(cx),
        }
    }

    fn poll_trailers(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<HeaderMap>, h2::Error>> {
        self.from.poll_trailers(cx)
    }

    /// What was taken may be sent again.
    fn release(&mut self, bytes: usize) {
        // It fails only where the stream is gone, which is seen elsewhere.
        let _gone = self.from.flow_control().release_capacity(bytes);
    }

    /// The next frame, its capacity given back; `None` at the end.
    ///
    /// # Errors
    /// Those of the stream.
    pub async fn data(&mut self) -> Option<Result<Bytes, h2::Error>> {
        let data = std::future::poll_fn(|cx| self.poll_data(cx)).await;
        if let Some(Ok(data)) = &data {
            self.release(data.len());
        }
        data
    }
}

/// Whom a direction waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waits {
    /// The one that sends.
    Sender,
    /// The one that receives; what the sender does does not matter then.
    Receiver,
    /// Nobody: all of it has passed, or nothing more will.
    Nobody,
}

/// Which side ended a direction before its end.
#[derive(Debug)]
pub(super) enum Broken {
    /// What it sent broke off.
    Sender(h2::Error),
    /// It takes no more.
    Receiver,
    /// Neither: who sees it lets no more of it go.
    Seer,
}

/// One direction. Holds at most one frame beyond those that were looked at before; the sender may send more
/// only for what has gone on.
#[derive(Debug)]
pub(super) struct Pipe<F> {
    from: Incoming,
    pub(super) to: SendStream<Bytes>,
    hand: Option<Bytes>,
    /// The frame in hand carries END_STREAM.
    last: bool,
    see: F,
    /// Its end may go on.
    free: bool,
    pub(super) waits: Waits,
    /// The receiver wanted no more before the end.
    pub(super) stopped: bool,
    /// Something passed since this was last set to false.
    pub(super) moved: bool,
}

impl<F: See> Pipe<F> {
    /// `ended` says that the head already had END_STREAM, on both sides.
    pub(super) fn new(from: Incoming, to: SendStream<Bytes>, ended: bool, mut see: F) -> Self {
        if ended {
            let _over = see.see(Seen::End);
        }
        let waits = if ended { Waits::Nobody } else { Waits::Sender };
        Self { from, to, hand: None, last: false, see, free: false, waits, stopped: false, moved: false }
    }

    /// Moves what can be moved. Ready once END_STREAM has gone on, or nothing more can.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        loop {
            let Some(data) = self.hand.as_mut() else {
                if self.waits == Waits::Nobody {
                    return Poll::Ready(Ok(()));
                }
                self.waits = Waits::Sender;
                match ready!(self.from.poll_data(cx)) {
                    Some(Ok(data)) => {
                        self.moved = true;
                        if !data.is_empty() && self.see.see(Seen::Data(&data)).is_break() {
                            return Poll::Ready(Err(Broken::Seer));
                        }
                        self.last = self.from.is_end_stream();
                        self.hand = Some(data);
                    }
                    Some(Err(error)) => return Poll::Ready(Err(Broken::Sender(error))),
                    None => {
                        ready!(self.poll_free(cx))?;
                        return self.poll_trailers(cx);
                    }
                }
                continue;
            };
            let length = data.len();
            if length > 0 {
                self.waits = Waits::Receiver;
                let room = ready!(poll_room(&mut self.to, length, cx)).ok_or(Broken::Receiver)?;
                if self.last && room >= length {
                    ready!(self.poll_free(cx))?;
                }
                let Some(data) = self.hand.as_mut() else { continue };
                let piece = if room < length { data.split_to(room) } else { std::mem::take(data) };
                let taken = piece.len();
                let whole = taken == length;
                self.to.send_data(piece, self.last && whole).map_err(|_closed| Broken::Receiver)?;
                self.moved = true;
                self.from.release(taken);
                if !whole {
                    continue;
                }
            } else if self.last {
                ready!(self.poll_free(cx))?;
                self.to.send_data(Bytes::new(), true).map_err(|_closed| Broken::Receiver)?;
            }
            self.hand = None;
            if self.last {
                return self.ended();
            }
        }
    }

    /// Ready once the end may go on.
    fn poll_free(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        if !self.free {
            self.moved = true; // neither side is silent
            match ready!(self.see.poll_last(cx)) {
                ControlFlow::Continue(()) => self.free = true,
                ControlFlow::Break(()) => return Poll::Ready(Err(Broken::Seer)),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_trailers(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        match ready!(self.from.poll_trailers(cx)) {
            Ok(Some(trailers)) => self.to.send_trailers(trailers),
            Ok(None) => self.to.send_data(Bytes::new(), true),
            Err(error) => return Poll::Ready(Err(Broken::Sender(error))),
        }
        .map_err(|_closed| Broken::Receiver)?;
        self.moved = true;
        self.ended()
    }

    fn ended(&mut self) -> Poll<Result<(), Broken>> {
        self.waits = Waits::Nobody;
        let _over = self.see.see(Seen::End);
        Poll::Ready(Ok(()))
    }

    /// Nothing more will pass; the record hears why.
    pub(super) fn failed(&mut self, why: String) {
        self.waits = Waits::Nobody;
        let _over = self.see.see(Seen::Failed(why));
    }

    /// The receiver wants no more of it, which is its right: what comes is let go.
    pub(super) fn stop(&mut self) {
        self.waits = Waits::Nobody;
        self.stopped = true;
        self.hand = None;
    }

    pub(super) fn is_over(&self) -> bool {
        self.waits == Waits::Nobody
    }
}

/// How many of `wanted` bytes the receiver takes now, at least one; `None` when it takes no more at all.
fn poll_room(to: &mut SendStream<Bytes>, wanted: usize, cx: &mut Context<'_>) -> Poll<Option<usize>> {
    to.reserve_capacity(wanted);
    loop {
        let room = to.capacity();
        if room > 0 {
            return Poll::Ready(Some(room.min(wanted)));
        }
        match ready!(to.poll_capacity(cx)) {
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return Poll::Ready(None),
        }
    }
}
