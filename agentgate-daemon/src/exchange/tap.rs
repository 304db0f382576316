//! What sees a body go by: counts its bytes, and keeps a prefix, or the transcript of a WebSocket, within
//! the limit and the memory that there is for all. What it keeps of a request is durable before that with
//! which the request ends goes on.

use std::{
    fmt,
    future::Future as _,
    ops::ControlFlow,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};

use super::{
    talk::Talk,
    underway::{Side, Underway},
    whole::Unseen,
};
use crate::{
    audit::Keeping,
    http::{
        body::{End, Ended, Watch},
        gauge::Held,
    },
    inspect::Decoder,
    model::Captured,
    parse::websocket::Sender,
};

/// Watches one body. Its end is told once; one that is dropped before tells of that.
pub struct Tap {
    of: Underway,
    side: Side,
    prefix: BytesMut,
    held: Held,
    limit: usize,
    total: u64,
    ended: bool,
    /// Of a WebSocket.
    talk: Option<Box<Talk>>,
    /// Of a request in a coding, where it has to be seen whole.
    decoder: Option<Box<Decoder>>,
    /// It was not seen whole, and that was told.
    told: bool,
    durable: Durable,
}

/// How what is kept of a request stands.
#[derive(Debug)]
enum Durable {
    /// It may grow yet.
    Growing,
    /// It is on its way to the disk.
    Awaited(Bytes, Keeping),
    /// It is there, or nobody waits for that.
    Is(Bytes),
}

impl fmt::Debug for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tap").field("side", &self.side).field("total", &self.total).finish_non_exhaustive()
    }
}

impl Tap {
    pub(super) fn new(of: Underway, side: Side, limit: usize, held: Held) -> Self {
        let decoder = match side {
            Side::Request => of.wanted().decoder(limit),
            Side::Response => None,
        };
        Self {
            of,
            side,
            prefix: BytesMut::new(),
            held,
            limit,
            total: 0,
            ended: false,
            talk: None,
            decoder,
            told: false,
            durable: Durable::Growing,
        }
    }

    /// More of the body, without framing. `Break` where these bytes must not go on: [`Underway::stopped`]
    /// says why.
    pub fn data(&mut self, data: &[u8]) -> ControlFlow<()> {
        self.total += data.len() as u64;
        if self.talk.is_none() && self.of.agreed().is_some() {
            self.switch();
        }
        let unseen = match &mut self.talk {
            Some(talk) => {
                talk.data(data, &mut self.held);
                if talk.is_whole() { None } else { Some(Unseen::Truncated) }
            }
            None => self.keep(data),
        };
        match unseen {
            Some(unseen) if self.side == Side::Request => self.unseen(&unseen),
            Some(_) | None => ControlFlow::Continue(()),
        }
    }

    /// Keeps what of it there is room for, and says if that is not all that came.
    fn keep(&mut self, data: &[u8]) -> Option<Unseen> {
        let wanted = self.limit.saturating_sub(self.prefix.len()).min(data.len());
        if wanted > 0 {
            let got = self.held.take(wanted);
            self.prefix.extend_from_slice(data.get(..got).unwrap_or(data));
            if got < wanted {
                self.limit = 0; // a prefix has no holes
            }
        }
        if self.total > self.kept() {
            self.keep_on_disk();
            return Some(Unseen::Truncated);
        }
        let decoder = self.decoder.as_mut()?;
        // What it says is looked at elsewhere; here only whether it can be read to its end.
        if decoder.push(data, &mut |_| {}) { None } else { Some(Unseen::of(decoder.ended())) }
    }

    /// Bytes that it keeps.
    fn kept(&self) -> u64 {
        match &self.durable {
            Durable::Growing => self.prefix.len() as u64,
            Durable::Awaited(bytes, _) | Durable::Is(bytes) => bytes.len() as u64,
        }
    }

    /// What is kept of a request grows no more.
    fn keep_on_disk(&mut self) {
        if self.side != Side::Request || !matches!(self.durable, Durable::Growing) {
            return;
        }
        let bytes = std::mem::take(&mut self.prefix).freeze();
        self.limit = 0;
        let truncated = self.total > bytes.len() as u64;
        let captured = Captured { total: self.total, truncated, bytes: bytes.clone() };
        self.durable = match self.of.keep(captured) {
            Some(keeping) => Durable::Awaited(bytes, keeping),
            None => Durable::Is(bytes),
        };
    }

    fn unseen(&mut self, unseen: &Unseen) -> ControlFlow<()> {
        if std::mem::replace(&mut self.told, true) {
            return ControlFlow::Continue(());
        }
        self.decoder = None;
        self.of.unseen(unseen)
    }

    /// It is a WebSocket from here on. What an agent sent before it was told so counts with it.
    fn switch(&mut self) {
        let Some(agreed) = self.of.agreed() else { return };
        let sender = match self.side {
            Side::Request => Sender::Client,
            Side::Response => Sender::Server,
        };
        let mut talk = Talk::new(sender, agreed, self.limit);
        let early = match std::mem::replace(&mut self.durable, Durable::Growing) {
            Durable::Growing => std::mem::take(&mut self.prefix).freeze(),
            Durable::Awaited(bytes, _) | Durable::Is(bytes) => bytes,
        };
        self.decoder = None;
        if !early.is_empty() {
            talk.data(&early, &mut self.held);
        }
        self.talk = Some(talk);
    }

    /// All of the body was seen: ready once that with which it ends may go on. `Break` where it must not,
    /// because what is kept of it cannot be made durable: [`Underway::stopped`] says so.
    pub fn poll_last(&mut self, cx: &mut Context<'_>) -> Poll<ControlFlow<()>> {
        // Messages are not waited for one by one.
        if self.talk.is_some() {
            return Poll::Ready(ControlFlow::Continue(()));
        }
        self.keep_on_disk();
        let Durable::Awaited(bytes, keeping) = &mut self.durable else {
            return Poll::Ready(ControlFlow::Continue(()));
        };
        let kept = ready!(Pin::new(keeping).poll(cx));
        self.durable = Durable::Is(std::mem::take(bytes));
        Poll::Ready(match kept {
            Ok(()) => {
                self.of.kept();
                ControlFlow::Continue(())
            }
            Err(error) => {
                self.of.unrecorded(error);
                ControlFlow::Break(())
            }
        })
    }

    /// Bytes that passed.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The body is over.
    pub fn end(mut self, end: End) {
        self.close(end);
    }

    fn close(&mut self, end: End) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let (bytes, truncated, talk) = match self.talk.take() {
            Some(talk) => {
                let whole = talk.is_whole();
                let (lines, seen) = talk.end();
                (lines, !whole, Some(seen))
            }
            None => {
                let bytes = match std::mem::replace(&mut self.durable, Durable::Growing) {
                    Durable::Growing => std::mem::take(&mut self.prefix).freeze(),
                    Durable::Awaited(bytes, _) | Durable::Is(bytes) => bytes,
                };
                let truncated = self.total > bytes.len() as u64;
                (bytes, truncated, None)
            }
        };
        let truncated = truncated || end != End::Complete;
        let captured = Captured { total: self.total, truncated, bytes };
        // Taken with it, because it is memory for as long as the end is.
        let held = std::mem::take(&mut self.held);
        self.of.rested(self.side, Ended { end, captured, held }, talk);
    }
}

/// Of a request.
impl Watch for &mut Tap {
    fn data(&mut self, data: &[u8]) -> ControlFlow<()> {
        Tap::data(self, data)
    }

    fn poll_last(&mut self, cx: &mut Context<'_>) -> Poll<ControlFlow<()>> {
        Tap::poll_last(self, cx)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.close(End::Dropped);
    }
}
