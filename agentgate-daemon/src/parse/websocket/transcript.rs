//! What a record keeps of one side of a websocket, put together from its direction's events.
//!
//! Messages are kept as lines of JSON ([`TranscriptLine`]), so that what people are shown and what is looked
//! through later is one and the same, and the two sides are put in one order by their numbers.

use super::{Control, Event, Sender};
use crate::model::{
    Timestamp,
    websocket::{Closed, Passed, TranscriptLine},
};

/// Kinds of faults that are named.
const MOST_FAULTS: usize = 16;
/// Bytes of a binary message that are shown.
const SHOWN_BINARY: usize = 32;
/// A line without its text, at most.
const LINE: usize = 192;

/// What one side sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub passed: Passed,
    /// Its first close frame, and the number of that.
    pub closed: Option<(u64, Closed)>,
    /// Messages for which there was no room.
    pub left_out: u64,
    /// What was wrong with its frames, the first few, each kind once.
    pub faults: Vec<String>,
}

/// Collects what one side sends.
#[derive(Clone, Debug)]
pub struct Transcript {
    from: Sender,
    /// Most bytes of all lines.
    most: usize,
    lines: Vec<u8>,
    /// A message was cut or left out.
    full: bool,
    seen: Seen,
}

impl Transcript {
    /// Nothing seen yet; at most `most` bytes of lines.
    #[must_use]
    pub fn new(from: Sender, most: usize) -> Self {
        Self { from, most, lines: Vec::new(), full: false, seen: Seen::default() }
    }

    /// From here on the lines may take `most` bytes.
    pub fn hold(&mut self, most: usize) {
        self.most = most;
    }

    /// Takes in an event, the `number`th of both sides that is a message or control frame; `at` is when its
    /// last byte came.
    pub fn note(&mut self, number: u64, at: Timestamp, event: &Event<'_>) {
        let passed = &mut self.seen.passed;
        match event {
            Event::Message(message) => {
                passed.messages += 1;
                passed.bytes += message.wire;
                passed.decoded += message.length;
                passed.unseen += u64::from(message.truncated);
                let kind = if message.binary { "binary" } else { "text" };
                let line = TranscriptLine {
                    number,
                    at,
                    from: self.from,
                    kind: kind.to_owned(),
                    length: message.length,
                    text: String::new(),
                    truncated: message.truncated,
                };
                if !self.keep(line, message.payload, message.binary) {
                    self.full = true;
                    self.seen.left_out += 1;
                }
            }
            Event::Control(_, control) => {
                passed.controls += 1;
                if let Control::Close(code, reason) = control
                    && self.seen.closed.is_none()
                {
                    let reason = String::from_utf8_lossy(reason).into_owned();
                    self.seen.closed = Some((number, Closed { by: self.from, code: *code, reason }));
                }
            }
            Event::Fault(_, fault) => {
                let fault = format!("{}: {fault}", self.from.as_str());
                if self.seen.faults.len() < MOST_FAULTS && !self.seen.faults.contains(&fault) {
                    self.seen.faults.push(fault);
                }
            }
        }
    }

    /// Adds a line with as much of the message as there is room for; false where there is none.
    fn keep(&mut self, mut line: TranscriptLine, payload: &[u8], binary: bool) -> bool {
        // Messages after one that was cut would look as if they followed on it.
        let room = self.most.saturating_sub(self.lines.len());
        if self.full || room < LINE {
            return false;
        }
        let mut shown = if binary { payload.len().min(SHOWN_BINARY) } else { payload.len().min(room - LINE) };
        let whole = line.truncated;
        loop {
            let start = payload.get(..shown).unwrap_or(payload);
            line.text = if binary {
                start.iter().map(|byte| format!("{byte:02x}")).collect()
            } else {
                String::from_utf8_lossy(whole_letters(start, payload)).into_owned()
            };
            line.truncated = whole || shown < payload.len();
            let Ok(mut json) = serde_json::to_vec(&line) else { return false };
            json.push(b'\n');
            if json.len() <= room {
                self.full |= !binary && shown < payload.len();
                self.lines.extend_from_slice(&json);
                return true;
            }
            // JSON writes some letters with up to six.
            if shown == 0 {
                return false;
            }
            shown /= 2;
        }
    }

    /// The lines.
    #[must_use]
    pub fn lines(&self) -> &[u8] {
        &self.lines
    }

    /// What was seen.
    #[must_use]
    pub fn seen(&self) -> &Seen {
        &self.seen
    }

    /// True while every message has been seen and kept whole, as far as messages are read at all.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        !self.full && self.seen.passed.unseen == 0
    }

    /// The lines, and what was seen.
    #[must_use]
    pub fn into_parts(self) -> (Vec<u8>, Seen) {
        (self.lines, self.seen)
    }
}

/// `start` of `payload`, without the first bytes of a letter that was cut in two.
fn whole_letters<'a>(start: &'a [u8], payload: &[u8]) -> &'a [u8] {
    if start.len() == payload.len() {
        return start;
    }
    match std::str::from_utf8(start) {
        Err(error) if error.error_len().is_none() => start.get(..error.valid_up_to()).unwrap_or(start),
        Ok(_) | Err(_) => start,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::websocket::{Fault, Message};

    fn message(payload: &[u8], binary: bool) -> Event<'_> {
        let length = payload.len() as u64;
        Event::Message(Message {
            range: 0..length,
            binary,
            payload,
            wire: length,
            length,
            compressed: false,
            truncated: false,
            undecoded: None,
            complete: true,
        })
    }

    #[test]
    fn keeps_the_first_messages_and_counts_all() {
        let mut transcript = Transcript::new(Sender::Server, 3 * LINE);
        let at = Timestamp(7);
        let long = "abcdé".repeat(100);
        transcript.note(1, at, &message(&[0, 255, 16], true));
        transcript.note(2, at, &message(long.as_bytes(), false));
        transcript.note(3, at, &message(b"too many", false));
        transcript.note(4, at, &Event::Fault(0, Fault::Masked));
        transcript.note(4, at, &Event::Fault(9, Fault::Masked));
        transcript.note(4, at, &Event::Control(0..4, Control::Close(Some(1000), b"bye")));
        transcript.note(5, at, &Event::Control(0..4, Control::Close(Some(1001), b"")));
        assert!(!transcript.is_whole());
        let (lines, seen) = transcript.into_parts();
        assert!(lines.len() <= 3 * LINE, "{}", lines.len());
        let lines = TranscriptLine::of(&lines);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert_eq!((lines[0].number, lines[0].text.as_str(), lines[0].truncated), (1, "00ff10", false));
        assert!(long.starts_with(&lines[1].text) && lines[1].text.len() > 100 && lines[1].truncated);
        assert_eq!(lines[1].length, long.len() as u64);
        assert_eq!(seen.left_out, 1);
        let bytes = 3 + 8 + long.len() as u64;
        assert_eq!(seen.passed, Passed { messages: 3, bytes, decoded: bytes, controls: 2, unseen: 0 });
        let closed = Closed { by: Sender::Server, code: Some(1000), reason: "bye".to_owned() };
        assert_eq!(seen.closed, Some((4, closed)));
        assert_eq!(seen.faults, ["server: a server's frame with a mask"]);
    }

    #[test]
    fn the_cap_holds_whatever_the_text() {
        for text in ["x", "\u{1}", "\"", "é", "\u{10ffff}"] {
            for most in [0, LINE, LINE + 1, 1000, 4000] {
                let mut transcript = Transcript::new(Sender::Client, most);
                for number in 0..20 {
                    transcript.note(
                        number,
                        Timestamp(i64::MAX),
                        &message(text.repeat(300).as_bytes(), false),
                    );
                }
                assert!(transcript.lines().len() <= most, "{text:?} {most}");
                let kept = TranscriptLine::of(transcript.lines());
                assert_eq!(kept.len() as u64 + transcript.seen().left_out, 20, "{text:?} {most}");
            }
        }
    }
}
