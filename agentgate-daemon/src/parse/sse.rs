//! Server-sent events, as they come (WHATWG HTML 9.2.6, "Interpreting an event stream").
//!
//! Fields are given as bytes: the standard decodes them as UTF-8 with replacement, which is the reader's to
//! do. Reconnecting and the last event ID across events are the client's business and not kept.

use std::ops::Range;

use memchr::memchr2;

#[cfg(test)]
mod tests;

/// Longest `event` or `id` that is kept.
const NAME: usize = 256;
/// What a line has around its value, at most: byte order mark, `event`, colon and space.
const AROUND: usize = 16;
/// Room kept between events.
const KEPT: usize = 16 * 1024;

/// Lines up to a blank one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// Where it is in the stream: from the end of the event before to past the first byte of the blank
    /// line's ending (the LF of a CR LF is in the next one, because it may not have come). Ranges touch.
    pub range: Range<u64>,
    /// The last `event` field; empty means `message`.
    pub name: &'a [u8],
    /// The `data` lines, joined by LF. `None` where there were none: a client dispatches nothing then. So it
    /// is with keep-alive comments.
    pub data: Option<&'a [u8]>,
    /// The last `id` field that is valid.
    pub id: Option<&'a [u8]>,
    /// Milliseconds.
    pub retry: Option<u64>,
    /// True where a field is only the start of what was sent.
    pub truncated: bool,
    /// False where the stream ended before the blank line. Browsers drop such an event, some clients do not.
    pub complete: bool,
}

/// Splits a stream into events. Data in one line, come in one piece, is not copied.
#[derive(Debug)]
pub struct Parser {
    /// Most bytes of an event's data.
    cap: usize,
    /// The start of a line whose end has not come.
    partial: Vec<u8>,
    /// True where `partial` is not all of it.
    cut: bool,
    /// True before the first line has ended, where a byte order mark may stand.
    first: bool,
    after_cr: bool,
    /// Offset of the next byte.
    at: u64,
    /// Offset of the event's first byte.
    start: u64,
    block: Block,
}

/// The fields since the last blank line.
#[derive(Debug, Default)]
struct Block {
    /// True once there was a line, be it a comment.
    any: bool,
    has_data: bool,
    data: Vec<u8>,
    name: Vec<u8>,
    id: Option<Vec<u8>>,
    retry: Option<u64>,
    truncated: bool,
}

/// The only data line so far, where it is still in the caller's slice.
type Borrowed<'a> = Option<&'a [u8]>;

impl Parser {
    /// A parser that keeps at most `cap` bytes of an event's data.
    #[must_use]
    pub fn new(cap: usize) -> Self {
        Self {
            cap,
            partial: Vec::new(),
            cut: false,
            first: true,
            after_cr: false,
            at: 0,
            start: 0,
            block: Block::default(),
        }
    }

    /// Takes the next bytes and yields the events that end in them.
    pub fn push(&mut self, mut bytes: &[u8], sink: &mut dyn FnMut(Event<'_>)) {
        let mut borrowed = None;
        while let Some(next) = bytes.first() {
            if std::mem::take(&mut self.after_cr) && *next == b'\n' {
                bytes = bytes.get(1..).unwrap_or_default();
                self.at += 1;
                continue;
            }
            let Some((line, rest)) = memchr2(b'\r', b'\n', bytes).and_then(|end| bytes.split_at_checked(end))
            else {
                self.append(bytes);
                self.at += bytes.len() as u64;
                break;
            };
            self.after_cr = rest.first() == Some(&b'\r');
            bytes = rest.get(1..).unwrap_or_default();
            self.at += line.len() as u64 + 1;
            if self.partial.is_empty() && !self.cut {
                let (kept, left) = line.split_at_checked(self.longest()).unwrap_or((line, &[]));
                self.line(kept, !left.is_empty(), &mut borrowed, sink);
            } else {
                self.append(line);
                self.joined(&mut borrowed, sink);
            }
        }
        self.keep(borrowed);
    }

    /// Yields what stood after the last blank line, an unfinished line with it.
    pub fn finish(mut self, sink: &mut dyn FnMut(Event<'_>)) {
        let mut borrowed = None;
        if !self.partial.is_empty() || self.cut {
            self.joined(&mut borrowed, sink);
        }
        self.dispatch(borrowed, false, sink);
    }

    /// Most bytes of a line that are kept.
    fn longest(&self) -> usize {
        self.cap.max(NAME).saturating_add(AROUND)
    }

    fn append(&mut self, bytes: &[u8]) {
        let room = self.longest().saturating_sub(self.partial.len());
        let (kept, left) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
        self.partial.extend_from_slice(kept);
        self.cut |= !left.is_empty();
    }

    /// The line that came in several pieces. Its data is in no slice of the caller's.
    fn joined(&mut self, borrowed: &mut Borrowed<'_>, sink: &mut dyn FnMut(Event<'_>)) {
        self.keep(borrowed.take());
        let line = std::mem::take(&mut self.partial);
        let cut = std::mem::take(&mut self.cut);
        let mut data = None;
        self.line(&line, cut, &mut data, sink);
        self.keep(data);
        self.partial = line;
        self.partial.clear();
        self.partial.shrink_to(KEPT);
    }

    /// Copies data that is about to leave the caller's slice.
    fn keep(&mut self, borrowed: Borrowed<'_>) {
        if let Some(data) = borrowed {
            self.block.data.extend_from_slice(data);
        }
    }

    fn line<'a>(
        &mut self,
        mut line: &'a [u8],
        cut: bool,
        borrowed: &mut Borrowed<'a>,
        sink: &mut dyn FnMut(Event<'_>),
    ) {
        if std::mem::take(&mut self.first) {
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        if line.is_empty() {
            self.dispatch(borrowed.take(), true, sink);
            return;
        }
        self.block.any = true;
        let (field, value) = match line.iter().position(|byte| *byte == b':') {
            None => (line, [].as_slice()),
            Some(colon) => {
                let (field, rest) = line.split_at_checked(colon).unwrap_or((line, &[]));
                let value = rest.get(1..).unwrap_or_default();
                (field, value.strip_prefix(b" ").unwrap_or(value))
            }
        };
        match field {
            b"data" => self.data(value, cut, borrowed),
            b"event" => {
                let kept = value.get(..NAME).unwrap_or(value);
                self.block.truncated |= cut || kept.len() < value.len();
                self.block.name.clear();
                self.block.name.extend_from_slice(kept);
            }
            b"id" if !value.contains(&0) => {
                let kept = value.get(..NAME).unwrap_or(value);
                self.block.truncated |= cut || kept.len() < value.len();
                self.block.id = Some(kept.to_vec());
            }
            b"retry" if !cut && !value.is_empty() && value.iter().all(u8::is_ascii_digit) => {
                self.block.retry = std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok());
            }
            // A comment, where the field is empty; else what the standard says to ignore.
            _ => {}
        }
    }

    fn data<'a>(&mut self, value: &'a [u8], cut: bool, borrowed: &mut Borrowed<'a>) {
        if !self.block.has_data {
            self.block.has_data = true;
            let kept = value.get(..self.cap).unwrap_or(value);
            self.block.truncated |= cut || kept.len() < value.len();
            *borrowed = Some(kept);
            return;
        }
        self.keep(borrowed.take());
        let room = self.cap.saturating_sub(self.block.data.len());
        let Some(room) = room.checked_sub(1) else {
            self.block.truncated = true;
            return;
        };
        let kept = value.get(..room).unwrap_or(value);
        self.block.truncated |= cut || kept.len() < value.len();
        self.block.data.push(b'\n');
        self.block.data.extend_from_slice(kept);
    }

    fn dispatch(&mut self, borrowed: Borrowed<'_>, complete: bool, sink: &mut dyn FnMut(Event<'_>)) {
        if !self.block.any {
            return;
        }
        let block = &mut self.block;
        let data = borrowed.unwrap_or(&block.data);
        sink(Event {
            range: self.start..self.at,
            name: &block.name,
            data: block.has_data.then_some(data),
            id: block.id.as_deref(),
            retry: block.retry,
            truncated: block.truncated,
            complete,
        });
        self.start = self.at;
        block.data.clear();
        block.data.shrink_to(KEPT);
        block.name.clear();
        let (data, name) = (std::mem::take(&mut block.data), std::mem::take(&mut block.name));
        *block = Block { data, name, ..Block::default() };
    }
}
