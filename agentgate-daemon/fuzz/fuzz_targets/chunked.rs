//! Bodies of HTTP/1.1: the same content and the same end however they are cut.
//!
//! The first byte says how to cut; the second how the body is framed.

#![no_main]

use agentgate::http::h1::{Decoder, Framing};
use libfuzzer_sys::fuzz_target;

/// Content, bytes that belong to the body, and whether that was all; or a fault.
type Seen = Option<(Vec<u8>, usize, bool)>;

fn seen(framing: Framing, pieces: &[&[u8]]) -> Seen {
    let mut decoder = Decoder::new(framing);
    let (mut content, mut taken) = (Vec::new(), 0);
    for piece in pieces {
        let mine = decoder.advance(piece, |data| content.extend_from_slice(data)).ok()?;
        assert!(mine <= piece.len() && (mine == piece.len() || decoder.is_complete()));
        taken += mine;
        if mine < piece.len() {
            break;
        }
    }
    assert!(content.len() <= taken);
    Some((content, taken, decoder.is_complete()))
}

fuzz_target!(|input: &[u8]| {
    let [seed, framing, bytes @ ..] = input else { return };
    let framing = match framing {
        0 => Framing::Empty,
        1 => Framing::UntilClose,
        2..=40 => Framing::Length(u64::from(*framing)),
        _ => Framing::Chunked,
    };
    let whole = seen(framing, &[bytes]);
    assert_eq!(seen(framing, &agentgate_fuzz::cut(bytes, *seed)), whole);
});
