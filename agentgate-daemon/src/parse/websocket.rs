//! WebSocket frames as they pass (RFC 6455), with permessage-deflate (RFC 7692).
//!
//! One [`Parser`] reads one direction. What breaks the rules is reported as an [`Event::Fault`] and parsed on
//! as its receiver most likely will; only a length that no stream can have ends the parsing. Memory is
//! bounded by the limits, and a connection that never sent a compressed message holds no window.

use std::ops::Range;

pub mod extension;
mod frame;
mod inflate;
#[cfg(test)]
mod tests;
pub mod transcript;

pub use extension::{Deflate, Extensions, InvalidExtensions};
use frame::{Head, Header};
use inflate::Inflater;
pub use transcript::Transcript;

pub use crate::model::websocket::Sender;

/// What parsing may cost, for one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most decoded bytes kept of a message.
    pub message: usize,
    /// Most bytes that one message is inflated to. Beyond it the message is given up, and with context
    /// takeover every compressed message after it, which could only be read with what this one says.
    pub inflated: u64,
    /// A frame longer than this is a fault.
    pub frame: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { message: 1 << 20, inflated: 16 << 20, frame: 1 << 30 }
    }
}

/// What was wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("a client's frame without a mask")]
    Unmasked,
    #[error("a server's frame with a mask")]
    Masked,
    #[error("reserved bits that no extension gives a meaning")]
    ReservedBits,
    #[error("reserved opcode {0}")]
    Opcode(u8),
    #[error("a fragmented control frame")]
    FragmentedControl,
    #[error("a control frame of {0} bytes")]
    LongControl(u64),
    #[error("a length written longer than it needs")]
    LengthNotMinimal,
    #[error("a frame of {0} bytes")]
    LongFrame(u64),
    /// Nothing after it can be parsed.
    #[error("a frame length with its highest bit set")]
    Length,
    #[error("a continuation of no message")]
    Continuation,
    #[error("a message that begins before another has ended")]
    Interleaved,
    #[error("a close frame of one byte")]
    CloseLength,
    #[error("close code {0}")]
    CloseCode(u16),
    #[error("a close reason that is not UTF-8")]
    CloseReason,
    #[error("text that is not UTF-8")]
    Text,
    #[error("a frame after the close frame")]
    AfterClose,
    #[error("compressed data that is corrupt")]
    Deflate,
}

/// Why a message is given as far as it could be read, or as it was on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undecoded {
    /// Not deflate's data. What was inflated before that is given.
    Corrupt,
    /// More than [`Limits::inflated`]. What fits the message's limit is given.
    TooLarge,
    /// An earlier message was given up, whose context this one needs. Nothing is given.
    ContextLost,
    /// Reserved bits that no known extension gives a meaning. As on the wire, if it is not compressed too.
    Unknown,
}

/// A text or binary message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// From its first frame's header to the end of its last. Control frames may stand in between.
    pub range: Range<u64>,
    pub binary: bool,
    /// Decoded, at most [`Limits::message`] bytes.
    pub payload: &'a [u8],
    /// Bytes on the wire, without frame headers.
    pub wire: u64,
    /// Bytes after decompression; at [`Undecoded::TooLarge`] the limit.
    pub length: u64,
    pub compressed: bool,
    /// True where `payload` is not all of it.
    pub truncated: bool,
    pub undecoded: Option<Undecoded>,
    /// False where the stream ended, or another message began, within it.
    pub complete: bool,
}

/// A control frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control<'a> {
    Ping(&'a [u8]),
    Pong(&'a [u8]),
    /// Code and reason; an empty frame has neither.
    Close(Option<u16>, &'a [u8]),
}

/// What a direction's bytes say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    Message(Message<'a>),
    Control(Range<u64>, Control<'a>),
    /// With the offset of its frame.
    Fault(u64, Fault),
}

type Sink<'s> = &'s mut dyn FnMut(Event<'_>);

/// Longest control frame (RFC 6455 5.5).
const CONTROL: usize = 125;
/// Room kept between messages.
const KEPT: usize = 16 * 1024;

/// Reads one direction.
#[derive(Debug)]
pub struct Parser {
    sender: Sender,
    limits: Limits,
    extensions: Extensions,
    header: Header,
    /// The frame whose payload is passing, and how much of it has.
    frame: Option<(Head, u64)>,
    /// Offset of that frame, or of the next.
    frame_at: u64,
    /// Offset of the next byte.
    at: u64,
    open: Option<Open>,
    /// The open message's payload, as far as it is kept.
    kept: Vec<u8>,
    control: Vec<u8>,
    inflater: Option<Inflater>,
    closed: bool,
    lost: bool,
}

/// A message whose last frame has not ended.
#[derive(Clone, Copy, Debug)]
struct Open {
    start: u64,
    binary: bool,
    compressed: bool,
    wire: u64,
    length: u64,
    undecoded: Option<Undecoded>,
}

impl Parser {
    /// A parser for what `sender` sends from the first byte after the upgrade on.
    #[must_use]
    pub fn new(sender: Sender, extensions: Extensions, limits: Limits) -> Self {
        let most = limits.inflated.max(limits.message as u64);
        let inflater = extensions.deflate.map(|deflate| Inflater::new(deflate.takeover(sender), most));
        Self {
            sender,
            limits,
            extensions,
            header: Header::default(),
            frame: None,
            frame_at: 0,
            at: 0,
            open: None,
            kept: Vec::new(),
            control: Vec::new(),
            inflater,
            closed: false,
            lost: false,
        }
    }

    /// True once a frame had a length that cannot be followed.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.lost
    }

    /// From here on at most `most` decoded bytes of a message are kept.
    pub fn keep(&mut self, most: usize) {
        self.limits.message = most;
    }

    /// Bytes kept of the message whose end has not come.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.kept.len()
    }

    /// Bytes of memory: what is kept of a message, and a window once a compressed one came.
    #[must_use]
    pub fn holds(&self) -> usize {
        self.kept.capacity() + self.inflater.as_ref().map_or(0, Inflater::holds)
    }

    /// True while all of the message whose end has not come is kept, as far as it came.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let cut = |open: Open| open.undecoded.is_some() || open.length > self.kept.len() as u64;
        !self.lost && !self.open.is_some_and(cut)
    }

    /// Takes the next bytes and yields what ends in them.
    pub fn push(&mut self, mut bytes: &[u8], sink: Sink<'_>) {
        while !bytes.is_empty() && !self.lost {
            let Some((head, passed)) = self.frame else {
                let read = self.header.push(bytes);
                bytes = bytes.get(read..).unwrap_or_default();
                self.at += read as u64;
                if let Some(head) = self.header.take() {
                    self.begin(head, sink);
                    if !self.lost && head.length == 0 {
                        self.end(head, sink);
                    }
                }
                continue;
            };
            let left = usize::try_from(head.length - passed).unwrap_or(usize::MAX);
            let (piece, rest) = bytes.split_at_checked(left).unwrap_or((bytes, &[]));
            bytes = rest;
            self.at += piece.len() as u64;
            if piece.len() == left && passed == 0 && self.whole(head, piece, sink) {
                continue;
            }
            self.payload(head, passed, piece);
            if piece.len() == left {
                self.end(head, sink);
            } else {
                self.frame = Some((head, passed + piece.len() as u64));
            }
        }
    }

    /// Yields the message that the stream's end cut off.
    pub fn finish(mut self, sink: Sink<'_>) {
        if self.open.is_some() {
            self.message(self.at, false, sink);
        }
    }

    /// A frame's header: what is wrong with it, and which message it begins or carries on.
    fn begin(&mut self, head: Head, sink: Sink<'_>) {
        let at = self.frame_at;
        if std::mem::take(&mut self.closed) {
            sink(Event::Fault(at, Fault::AfterClose));
        }
        match (self.sender, head.mask) {
            (Sender::Client, None) => sink(Event::Fault(at, Fault::Unmasked)),
            (Sender::Server, Some(_)) => sink(Event::Fault(at, Fault::Masked)),
            (Sender::Client, Some(_)) | (Sender::Server, None) => {}
        }
        if !head.minimal {
            sink(Event::Fault(at, Fault::LengthNotMinimal));
        }
        if head.length > i64::MAX.unsigned_abs() {
            self.lost = true;
            return sink(Event::Fault(at, Fault::Length));
        }
        if head.length > self.limits.frame {
            sink(Event::Fault(at, Fault::LongFrame(head.length)));
        }
        // RSV1 marks a compressed message, in its first frame alone (RFC 7692 6).
        let begins = matches!(head.opcode, frame::TEXT | frame::BINARY);
        let compressed = begins && head.reserved & frame::RSV1 != 0 && self.inflater.is_some();
        let reserved = if compressed { head.reserved & !frame::RSV1 } else { head.reserved };
        let unknown = reserved != 0;
        if unknown && !self.extensions.unknown {
            sink(Event::Fault(at, Fault::ReservedBits));
        }
        match head.opcode {
            frame::CONTINUATION if self.open.is_none() => sink(Event::Fault(at, Fault::Continuation)),
            frame::CONTINUATION => {}
            frame::TEXT | frame::BINARY => {
                if self.open.is_some() {
                    sink(Event::Fault(at, Fault::Interleaved));
                    self.message(at, false, sink);
                }
                let lost = compressed && self.inflater.as_ref().is_some_and(Inflater::is_lost);
                let undecoded = match (unknown, lost) {
                    (true, _) => Some(Undecoded::Unknown),
                    (false, true) => Some(Undecoded::ContextLost),
                    (false, false) => None,
                };
                let binary = head.opcode == frame::BINARY;
                self.open = Some(Open { start: at, binary, compressed, wire: 0, length: 0, undecoded });
            }
            frame::CLOSE | frame::PING | frame::PONG => {
                if !head.last {
                    sink(Event::Fault(at, Fault::FragmentedControl));
                }
                if head.length > CONTROL as u64 {
                    sink(Event::Fault(at, Fault::LongControl(head.length)));
                }
            }
            other => sink(Event::Fault(at, Fault::Opcode(other))),
        }
        self.frame = Some((head, 0));
    }

    /// A message that is one whole frame here, neither masked nor compressed, is given without a copy.
    fn whole(&mut self, head: Head, piece: &[u8], sink: Sink<'_>) -> bool {
        let data = matches!(head.opcode, frame::TEXT | frame::BINARY);
        let Some(open) =
            self.open.filter(|open| data && head.last && head.mask.is_none() && !open.compressed)
        else {
            return false;
        };
        let length = piece.len() as u64;
        self.open = Some(Open { wire: length, length, ..open });
        self.frame = None;
        let payload = piece.get(..self.limits.message).unwrap_or(piece);
        self.yielded(payload, self.at, true, sink);
        self.frame_at = self.at;
        true
    }

    /// Some of a frame's payload; `passed` bytes of it went before.
    fn payload(&mut self, head: Head, passed: u64, piece: &[u8]) {
        match head.opcode {
            frame::CONTINUATION | frame::TEXT | frame::BINARY => {
                let Some(open) = &mut self.open else {
                    return;
                };
                open.wire += piece.len() as u64;
                match &mut self.inflater {
                    Some(inflater) if open.compressed => {
                        if open.undecoded.is_none() {
                            let most = self.limits.message;
                            open.undecoded =
                                inflater.feed(head.mask, passed, piece, &mut self.kept, most).err();
                        }
                        open.length = inflater.length();
                    }
                    Some(_) | None => {
                        open.length += piece.len() as u64;
                        frame::keep(head.mask, passed, piece, &mut self.kept, self.limits.message);
                    }
                }
            }
            frame::CLOSE | frame::PING | frame::PONG => {
                frame::keep(head.mask, passed, piece, &mut self.control, CONTROL);
            }
            _ => {}
        }
    }

    /// The end of a frame, and perhaps of its message.
    fn end(&mut self, head: Head, sink: Sink<'_>) {
        self.frame = None;
        match head.opcode {
            frame::CONTINUATION | frame::TEXT | frame::BINARY if head.last && self.open.is_some() => {
                self.message(self.at, true, sink);
            }
            frame::CLOSE => self.close(sink),
            frame::PING => sink(Event::Control(self.frame_at..self.at, Control::Ping(&self.control))),
            frame::PONG => sink(Event::Control(self.frame_at..self.at, Control::Pong(&self.control))),
            _ => {}
        }
        self.control.clear();
        self.frame_at = self.at;
    }

    fn close(&mut self, sink: Sink<'_>) {
        self.closed = true;
        let (at, range) = (self.frame_at, self.frame_at..self.at);
        let (code, reason) = match self.control.as_slice() {
            [] => (None, [].as_slice()),
            [_] => {
                sink(Event::Fault(at, Fault::CloseLength));
                (None, [].as_slice())
            }
            [high, low, reason @ ..] => (Some(u16::from_be_bytes([*high, *low])), reason),
        };
        // RFC 6455 7.4 and the registry: 1004 to 1006 and 1015 are never sent.
        if let Some(code) = code.filter(|code| !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)) {
            sink(Event::Fault(at, Fault::CloseCode(code)));
        }
        if std::str::from_utf8(reason).is_err() {
            sink(Event::Fault(at, Fault::CloseReason));
        }
        sink(Event::Control(range, Control::Close(code, reason)));
    }

    /// Yields the open message, which has been put together in `kept`.
    fn message(&mut self, end: u64, complete: bool, sink: Sink<'_>) {
        if let (Some(open), Some(inflater)) = (&mut self.open, &mut self.inflater)
            && open.compressed
        {
            let ended = if complete && open.undecoded.is_none() {
                inflater.end(&mut self.kept, self.limits.message)
            } else {
                inflater.abandon();
                Ok(())
            };
            open.undecoded = open.undecoded.or(ended.err());
            open.length = inflater.length();
            inflater.next();
        }
        let kept = std::mem::take(&mut self.kept);
        self.yielded(&kept, end, complete, sink);
        self.kept = kept;
        self.kept.clear();
        self.kept.shrink_to(KEPT);
    }

    fn yielded(&mut self, payload: &[u8], end: u64, complete: bool, sink: Sink<'_>) {
        let Some(open) = self.open.take() else {
            return;
        };
        let truncated = !complete || open.length > payload.len() as u64 || open.undecoded.is_some();
        if open.undecoded == Some(Undecoded::Corrupt) {
            sink(Event::Fault(open.start, Fault::Deflate));
        }
        if !open.binary && !truncated && std::str::from_utf8(payload).is_err() {
            sink(Event::Fault(open.start, Fault::Text));
        }
        sink(Event::Message(Message {
            range: open.start..end,
            binary: open.binary,
            payload,
            wire: open.wire,
            length: open.length,
            compressed: open.compressed,
            truncated,
            undecoded: open.undecoded,
            complete,
        }));
    }
}
