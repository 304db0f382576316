//! What a record keeps of a websocket, put together from both directions' events.

use super::{Control, Event, Sender};
use crate::model::{
    Timestamp,
    websocket::{Closed, Passed, TranscriptLine, WebSocket},
};

/// What a transcript may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TranscriptLimits {
    /// Most messages.
    pub lines: usize,
    /// Most bytes of one message.
    pub line: usize,
    /// Most bytes of all of them.
    pub total: usize,
}

impl Default for TranscriptLimits {
    fn default() -> Self {
        Self { lines: 1000, line: 64 * 1024, total: 1 << 20 }
    }
}

/// Kinds of faults that are named.
const MOST_FAULTS: usize = 16;
/// Bytes of a binary message that are shown.
const SHOWN_BINARY: usize = 32;

/// Collects.
#[derive(Clone, Debug)]
pub struct Transcript {
    limits: TranscriptLimits,
    used: usize,
    seen: WebSocket,
}

impl Transcript {
    /// Nothing seen yet.
    #[must_use]
    pub fn new(limits: TranscriptLimits) -> Self {
        Self { limits, used: 0, seen: WebSocket::default() }
    }

    /// Takes in what `from` sent; `at` is when its last byte came.
    pub fn note(&mut self, from: Sender, at: Timestamp, event: &Event<'_>) {
        let passed = self.passed(from);
        match event {
            Event::Message(message) => {
                passed.messages += 1;
                passed.bytes += message.wire;
                passed.decoded += message.length;
                passed.unseen += u64::from(message.truncated);
                let kind = if message.binary { "binary" } else { "text" };
                let shown =
                    if message.binary { self.limits.line.min(SHOWN_BINARY) } else { self.limits.line };
                let start = message.payload.get(..shown).unwrap_or(message.payload);
                let text = if message.binary {
                    start.iter().map(|byte| format!("{byte:02x}")).collect()
                } else {
                    String::from_utf8_lossy(whole_letters(start, message.payload)).into_owned()
                };
                let cost = text.len().saturating_add(size_of::<TranscriptLine>());
                if self.seen.transcript.len() >= self.limits.lines || self.used + cost > self.limits.total {
                    self.seen.left_out += 1;
                    return;
                }
                self.used += cost;
                let truncated = message.truncated || start.len() < message.payload.len();
                let (kind, length) = (kind.to_owned(), message.length);
                self.seen.transcript.push(TranscriptLine { at, from, kind, length, text, truncated });
            }
            Event::Control(_, control) => {
                passed.controls += 1;
                if let Control::Close(code, reason) = control
                    && self.seen.closed.is_none()
                {
                    let reason = String::from_utf8_lossy(reason).into_owned();
                    self.seen.closed = Some(Closed { by: from, code: *code, reason });
                }
            }
            Event::Fault(_, fault) => {
                let fault = format!("{}: {fault}", from.as_str());
                if self.seen.faults.len() < MOST_FAULTS && !self.seen.faults.contains(&fault) {
                    self.seen.faults.push(fault);
                }
            }
        }
    }

    /// What was seen so far.
    #[must_use]
    pub fn seen(&self) -> &WebSocket {
        &self.seen
    }

    /// What was seen.
    #[must_use]
    pub fn into_seen(self) -> WebSocket {
        self.seen
    }

    fn passed(&mut self, from: Sender) -> &mut Passed {
        match from {
            Sender::Client => &mut self.seen.client,
            Sender::Server => &mut self.seen.server,
        }
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
        let limits = TranscriptLimits { lines: 3, line: 5, total: 1 << 20 };
        let mut transcript = Transcript::new(limits);
        let at = Timestamp(7);
        transcript.note(Sender::Client, at, &message(b"hello world", false));
        transcript.note(Sender::Server, at, &message("abcdé".as_bytes(), false));
        transcript.note(Sender::Server, at, &message(&[0, 255, 16], true));
        transcript.note(Sender::Server, at, &message(b"too many", false));
        transcript.note(Sender::Client, at, &Event::Fault(0, Fault::Unmasked));
        transcript.note(Sender::Client, at, &Event::Fault(9, Fault::Unmasked));
        transcript.note(Sender::Client, at, &Event::Control(0..4, Control::Close(Some(1000), b"bye")));
        transcript.note(Sender::Server, at, &Event::Control(0..4, Control::Close(Some(1001), b"")));
        let seen = transcript.into_seen();
        let lines: Vec<_> = seen
            .transcript
            .iter()
            .map(|line| {
                (line.from.as_str(), line.kind.as_str(), line.length, line.text.as_str(), line.truncated)
            })
            .collect();
        assert_eq!(
            lines,
            [
                ("client", "text", 11, "hello", true),
                ("server", "text", 6, "abcd", true),
                ("server", "binary", 3, "00ff10", false),
            ]
        );
        assert_eq!(seen.left_out, 1);
        assert_eq!(seen.client, Passed { messages: 1, bytes: 11, decoded: 11, controls: 1, unseen: 0 });
        assert_eq!(seen.server, Passed { messages: 3, bytes: 17, decoded: 17, controls: 1, unseen: 0 });
        assert_eq!(
            seen.closed,
            Some(Closed { by: Sender::Client, code: Some(1000), reason: "bye".to_owned() })
        );
        assert_eq!(seen.faults, ["client: a client's frame without a mask"]);
    }

    #[test]
    fn the_whole_has_a_cap_too() {
        let mut transcript = Transcript::new(TranscriptLimits { lines: 1000, line: 1000, total: 4000 });
        for _ in 0..100 {
            transcript.note(Sender::Server, Timestamp(0), &message(&[b'x'; 900], false));
        }
        let seen = transcript.into_seen();
        assert!((1..=4).contains(&seen.transcript.len()), "{}", seen.transcript.len());
        assert_eq!(seen.left_out + seen.transcript.len() as u64, 100);
    }
}
