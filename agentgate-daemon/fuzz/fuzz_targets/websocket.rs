//! WebSocket frames, plain and deflated: the same however they are cut, caps that hold, a transcript that is
//! bounded.
//!
//! The first byte says how to cut; the second who sends, and what was agreed on.

#![no_main]

use agentgate::{
    model::{Timestamp, websocket::TranscriptLine},
    parse::websocket::{Control, Deflate, Event, Extensions, Limits, Parser, Sender, Transcript},
};
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits { message: 2000, inflated: 50_000, frame: 100_000 };

/// Most bytes of a transcript.
const MOST: usize = 1500;

fn events(pieces: &[&[u8]], sender: Sender, extensions: Extensions, total: usize) -> Vec<String> {
    let mut seen = Vec::new();
    let mut transcript = Transcript::new(sender, MOST);
    let mut sink = |event: Event<'_>| {
        match &event {
            Event::Message(message) => {
                assert!(message.payload.len() <= LIMITS.message);
                assert!(message.range.start < message.range.end && message.range.end <= total as u64);
                assert!(message.wire < message.range.end - message.range.start);
                assert!(!message.compressed || message.length <= LIMITS.inflated);
                assert!(message.compressed || message.length == message.wire);
                assert!(message.truncated || message.length == message.payload.len() as u64);
            }
            Event::Control(range, control) => {
                let (Control::Ping(bytes) | Control::Pong(bytes) | Control::Close(_, bytes)) = control;
                assert!(bytes.len() <= 125 && range.end <= total as u64);
            }
            Event::Fault(at, _) => assert!(*at < total as u64),
        }
        transcript.note(0, Timestamp(0), &event);
        seen.push(format!("{event:?}"));
    };
    let mut parser = Parser::new(sender, extensions, LIMITS);
    for piece in pieces {
        parser.push(piece, &mut sink);
    }
    parser.finish(&mut sink);
    let (lines, kept) = transcript.into_parts();
    assert!(lines.len() <= MOST);
    assert_eq!(TranscriptLine::of(&lines).len() as u64 + kept.left_out, kept.passed.messages);
    seen
}

fuzz_target!(|input: &[u8]| {
    let [seed, shape, bytes @ ..] = input else { return };
    let sender = if shape & 1 == 0 { Sender::Client } else { Sender::Server };
    let fresh = shape & 4 != 0;
    let deflate = Deflate {
        server_no_context_takeover: fresh,
        client_no_context_takeover: fresh,
        ..Deflate::default()
    };
    let extensions = Extensions { deflate: (shape & 2 != 0).then_some(deflate), unknown: shape & 8 != 0 };
    let whole = events(&[bytes], sender, extensions, bytes.len());
    assert_eq!(events(&agentgate_fuzz::cut(bytes, *seed), sender, extensions, bytes.len()), whole);
});
