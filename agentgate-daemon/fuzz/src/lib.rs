//! What the targets share: ways to cut input, and the law of sniffers.

use std::fmt::Debug;

/// Pieces of `bytes`, cut as `seed` says: 0 leaves them whole, 1 gives single bytes, others pieces of
/// lengths that differ.
pub fn cut(bytes: &[u8], seed: u8) -> Vec<&[u8]> {
    match seed {
        0 => vec![bytes],
        1 => bytes.chunks(1).collect(),
        _ => {
            let mut state = u32::from(seed) | 0x9e00;
            let mut rest = bytes;
            let mut pieces = Vec::new();
            while !rest.is_empty() {
                // Xorshift; a piece of no bytes is one too.
                state ^= state << 13;
                state ^= state >> 17;
                state ^= state << 5;
                let most = if state & 0x100 == 0 { 8 } else { 200 };
                let (piece, left) = rest.split_at((state as usize % most).min(rest.len()));
                pieces.push(piece);
                rest = left;
            }
            pieces
        }
    }
}

/// What is said of a prefix is `incomplete`, or what is said of the whole. About a hundred prefixes of long
/// input are tried, all of short.
pub fn prefixes_agree<T: Debug + PartialEq>(bytes: &[u8], incomplete: &T, parse: impl Fn(&[u8]) -> T) {
    let whole = parse(bytes);
    let step = bytes.len() / 100 + 1;
    for end in (0..bytes.len()).step_by(step) {
        let part = parse(&bytes[..end]);
        assert!(part == *incomplete || part == whole, "{end} of {}: {part:?}, whole: {whole:?}", bytes.len());
    }
}
