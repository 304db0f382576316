//! Content codings: caps that hold to the byte, and the same however the input is cut; where it is faulty,
//! one is the start of the other.
//!
//! The first byte says how to cut; the next two which codings, two bits each, and how many.

#![no_main]

use agentgate::inspect::{Codings, Decoder, Ended, Limits, decode};
use libfuzzer_sys::fuzz_target;

const NAMES: [&str; 4] = ["gzip", "deflate", "br", "zstd"];
const OUTPUT: u64 = 200_000;

fuzz_target!(|input: &[u8]| {
    let [seed, which, count, bytes @ ..] = input else { return };
    let names: Vec<&str> =
        (0..count % 5).map(|index| NAMES[usize::from(which >> (2 * index % 8)) & 3]).collect();
    let names = names.join(", ");
    let codings = Codings::parse([names.as_bytes()]).expect("known codings");
    let limits = Limits { zstd_window_log: 20, ..Limits::of(OUTPUT) };
    let whole = decode(&codings, bytes, limits);
    assert!(whole.bytes.len() as u64 <= OUTPUT);
    assert!(whole.truncated || whole.faults.len() <= 1);

    let mut decoder = Decoder::new(&codings, limits);
    let mut pieces = Vec::new();
    for piece in agentgate_fuzz::cut(bytes, *seed) {
        let before = decoder.ended();
        let goes_on = decoder.push(piece, &mut |decoded| pieces.extend_from_slice(decoded));
        assert!(!goes_on || !matches!(before, Ended::Capped | Ended::Faulty(_)), "went on after its end");
    }
    assert_eq!(decoder.given(), pieces.len() as u64);
    // Which of cap and fault comes first, and how much stands before a fault, may depend on the pieces.
    let faulty = matches!(decoder.ended(), Ended::Faulty(_));
    if faulty || !whole.faults.is_empty() {
        let capped = decoder.ended() == Ended::Capped || whole.bytes.len() as u64 == OUTPUT;
        assert!(
            capped || faulty != whole.faults.is_empty(),
            "{:?}, whole: {:?}",
            decoder.ended(),
            whole.faults
        );
        assert!(whole.bytes.starts_with(&pieces) || pieces.starts_with(&whole.bytes));
    } else {
        assert!(pieces == whole.bytes, "{} and {} bytes", pieces.len(), whole.bytes.len());
        assert_eq!(whole.truncated, decoder.ended() != Ended::Whole);
    }
});
