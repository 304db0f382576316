//! A WebSocket as its bytes pass: counted, and kept as the transcript that its record has for bodies.
//!
//! Frames are read in the connection's own task, because reading them costs far less than moving them;
//! messages are inflated there too, each to [`INFLATED`] bytes at most, and none after one that is larger
//! where the next needs its context. Memory is that of the exchange's budget.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;

use crate::{
    http::gauge::Held,
    model::{Flag, Record, Severity, Timestamp, WebSocket},
    parse::websocket::{
        Event, Extensions, Limits, Parser, Sender, Transcript, extension::InvalidExtensions, transcript::Seen,
    },
};

/// Most bytes that one message is inflated to.
const INFLATED: u64 = 4 << 20;

/// What both ends agreed on when they switched.
#[derive(Clone, Debug)]
pub(super) struct Agreed {
    extensions: Extensions,
    /// Numbers messages of both sides.
    order: Arc<AtomicU64>,
}

impl Agreed {
    /// By the extensions that the agent offered and the origin chose; with why they make no sense.
    pub(super) fn on<'a>(
        offered: impl IntoIterator<Item = &'a [u8]>,
        chosen: impl IntoIterator<Item = &'a [u8]>,
    ) -> (Self, Option<InvalidExtensions>) {
        let (extensions, fault) = match Extensions::agreed(offered, chosen) {
            Ok(extensions) => (extensions, None),
            // Whatever the two make of it: reserved bits may mean anything.
            Err(fault) => (Extensions { deflate: None, unknown: true }, Some(fault)),
        };
        (Self { extensions, order: Arc::default() }, fault)
    }
}

/// One side of a WebSocket.
#[derive(Debug)]
pub(super) struct Talk {
    parser: Parser,
    transcript: Transcript,
    order: Arc<AtomicU64>,
    /// Most bytes of its transcript, and of a message on its way into it.
    limit: usize,
}

impl Talk {
    pub(super) fn new(sender: Sender, agreed: &Agreed, limit: usize) -> Box<Self> {
        let limits = Limits { message: limit, inflated: INFLATED, ..Limits::default() };
        Box::new(Self {
            parser: Parser::new(sender, agreed.extensions, limits),
            transcript: Transcript::new(sender, limit),
            order: agreed.order.clone(),
            limit,
        })
    }

    /// More bytes. `held` is the memory that it has between calls.
    pub(super) fn data(&mut self, bytes: &[u8], held: &mut Held) {
        let lines = self.transcript.lines().len();
        // What it may need at most, and what is not needed is given back at once.
        let room = held.take(self.limit);
        self.parser.keep(self.limit.min(self.parser.kept() + room));
        self.transcript.hold(self.limit.min(lines + room));
        self.parser.push(bytes, &mut |event| note(&mut self.transcript, &self.order, &event));
        if !held.settle(self.transcript.lines().len() + self.parser.holds()) {
            // There is no more memory; from here on messages are counted.
            self.limit = 0;
        }
    }

    /// True while all that came has been read and kept.
    pub(super) fn is_whole(&self) -> bool {
        self.transcript.is_whole() && self.parser.is_whole()
    }

    /// The transcript, and what was seen, now that no more comes.
    pub(super) fn end(self) -> (Bytes, Seen) {
        let Self { parser, mut transcript, order, .. } = self;
        parser.finish(&mut |event| note(&mut transcript, &order, &event));
        let (lines, seen) = transcript.into_parts();
        (lines.into(), seen)
    }
}

fn note(transcript: &mut Transcript, order: &AtomicU64, event: &Event<'_>) {
    match event {
        Event::Message(_) | Event::Control(..) => {
            let number = order.fetch_add(1, Ordering::Relaxed);
            transcript.note(number, Timestamp::now(), event);
        }
        Event::Fault(..) => transcript.note(0, Timestamp(0), event),
    }
}

/// Puts what was seen of both sides on record.
pub(super) fn conclude(record: &mut Record, client: Option<Seen>, server: Option<Seen>) {
    let Some(websocket) = record.websocket.as_deref_mut() else { return };
    let [client, server] = [client, server].map(Option::unwrap_or_default);
    let first = [client.closed, server.closed].into_iter().flatten().min_by_key(|(number, _)| *number);
    websocket.client = client.passed;
    websocket.server = server.passed;
    websocket.closed = first.map(|(_, closed)| closed);
    websocket.left_out = client.left_out + server.left_out;
    websocket.faults.extend(client.faults);
    websocket.faults.extend(server.faults);
    if !websocket.faults.is_empty() {
        let evidence = websocket.faults.join("; ");
        record.flags.push(Flag::new("websocket_fault", Severity::Low, evidence));
    }
}

/// The record of an exchange that has just become a WebSocket.
pub(super) fn begun(record: &mut Record, fault: Option<InvalidExtensions>) {
    "websocket".clone_into(&mut record.protocol);
    let faults = fault.iter().map(ToString::to_string).collect();
    record.websocket = Some(Box::new(WebSocket { faults, ..WebSocket::default() }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{http::gauge::Budget, model::websocket::TranscriptLine};

    fn frame(text: &str) -> Vec<u8> {
        let length = u16::try_from(text.len()).unwrap().to_be_bytes();
        [&[0x81, 126, length[0], length[1]], text.as_bytes()].concat()
    }

    #[test]
    fn memory_is_that_of_the_budget_and_is_given_back() {
        let (agreed, _) = Agreed::on([], []);
        let budget = Budget::new(100_000);
        let mut held = budget.open();
        let mut talk = Talk::new(Sender::Server, &agreed, 50_000);
        for piece in frame(&"x".repeat(2000)).chunks(100) {
            talk.data(piece, &mut held);
        }
        assert!(talk.is_whole());
        let mut rest = budget.open();
        let free = rest.take(100_000);
        assert!((60_000..98_000).contains(&free), "{free}");
        // None is left: counted, not kept.
        for _ in 0..20 {
            talk.data(&frame(&"y".repeat(2000)), &mut held);
        }
        assert!(!talk.is_whole());
        let (lines, seen) = talk.end();
        assert_eq!(seen.passed.messages, 21);
        assert_eq!(TranscriptLine::of(&lines).len() as u64 + seen.left_out, 21);
        assert!(seen.left_out >= 19, "{seen:?}");
        drop((held, rest));
        assert_eq!(budget.open().take(usize::MAX), 100_000);
    }
}
