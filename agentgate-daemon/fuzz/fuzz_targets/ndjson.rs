//! Lines: the same however they are cut, ranges that touch, caps that hold.
//!
//! The first byte says how to cut, the second how much of a line is kept.

#![no_main]

use agentgate::parse::ndjson::{Line, Parser};
use libfuzzer_sys::fuzz_target;

fn lines(pieces: &[&[u8]], cap: usize, total: usize) -> Vec<String> {
    let mut seen = Vec::new();
    let mut end = 0;
    let mut sink = |line: Line<'_>| {
        assert_eq!(line.range.start, end);
        assert!(line.range.end > end && line.range.end <= total as u64, "{:?} of {total}", line.range);
        end = line.range.end;
        assert!(line.bytes.len() <= cap && !line.bytes.contains(&b'\n'));
        seen.push(format!("{line:?}"));
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
    let cap = usize::from(*cap);
    let whole = lines(&[bytes], cap, bytes.len());
    assert_eq!(lines(&agentgate_fuzz::cut(bytes, *seed), cap, bytes.len()), whole);
});
