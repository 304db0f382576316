//! Server-sent events: the same however they are cut, ranges that touch, caps that hold.
//!
//! The first byte says how to cut, the second how much of an event is kept.

#![no_main]

use agentgate::parse::sse::{Event, Parser};
use libfuzzer_sys::fuzz_target;

fn events(pieces: &[&[u8]], cap: usize, total: usize) -> Vec<String> {
    let mut seen = Vec::new();
    let mut end = 0;
    let mut sink = |event: Event<'_>| {
        assert_eq!(event.range.start, end);
        assert!(event.range.end > end && event.range.end <= total as u64, "{:?} of {total}", event.range);
        end = event.range.end;
        assert!(event.data.is_none_or(|data| data.len() <= cap));
        seen.push(format!("{event:?}"));
    };
    let mut parser = Parser::new(cap);
    for piece in pieces {
        parser.push(piece, &mut sink);
    }
    parser.finish(&mut sink);
    seen
}

fuzz_target!(|input: &[u8]| {
    let [seed, cap, bytes @ ..] = input else { return };
    let cap = usize::from(*cap) * 4;
    let whole = events(&[bytes], cap, bytes.len());
    assert_eq!(events(&agentgate_fuzz::cut(bytes, *seed), cap, bytes.len()), whole);
});
