//! Texts cut into pieces that mean the same alone.
//!
//! What agents send is mostly what they sent before, and something more. Whoever remembers pieces meets them
//! again, so a cut depends on the few bytes before it and on nothing else: behind what was put in or left
//! out, the same pieces follow.
//!
//! A cut is before a quotation mark, a space or a new line. None of these is part of a word, of a decimal
//! number, of Base64 or of an escape but at its end, so the words of the pieces are those of the text.

use memchr::memchr3;

/// Bytes of a piece, but of the last: shorter ones are not worth remembering.
const LEAST: usize = 512;
/// Bytes after which every place will do.
const MOST: usize = 3072;
/// Of so many places one is a cut.
const ONE_IN: u64 = 32;

/// The pieces of a text, in order; joined they are the text.
pub(crate) fn pieces(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut left = text;
    std::iter::from_fn(move || {
        let (piece, rest) = left.split_at_checked(cut(left)?)?;
        left = rest;
        Some(piece)
    })
}

/// Where the first piece ends; `None` of no text.
fn cut(text: &[u8]) -> Option<usize> {
    if text.is_empty() {
        return None;
    }
    let mut at = LEAST;
    while let Some(found) = text.get(at..).and_then(|rest| memchr3(b'"', b' ', b'\n', rest)) {
        at += found;
        if at >= MOST || is_cut(text, at) {
            return Some(at);
        }
        at += 1;
    }
    Some(text.len())
}

/// Whether what is before a place makes it a cut.
fn is_cut(text: &[u8], at: usize) -> bool {
    let before = text.get(at - 8..at).and_then(<[u8]>::as_array).copied().map_or(0, u64::from_le_bytes);
    // The golden ratio, as in Fibonacci hashing: the upper bits depend on all.
    before.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40 & (ONE_IN - 1) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::{Form, Token, each};

    fn words(pieces: &[&[u8]], form: Form) -> Vec<String> {
        let mut found = Vec::new();
        for piece in pieces {
            each(piece, form, &mut |token| match token {
                Token::Word(_) | Token::Also(_) | Token::Cut => found.push(format!("{token:?}")),
                Token::Gap => panic!("a text has no gap"),
            });
        }
        found
    }

    /// Everything that goes on across bytes, at random.
    fn text(seed: u64, parts: usize) -> Vec<u8> {
        let blob = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZn/+9-".repeat(7);
        let long = "long".repeat(20);
        let some: [&str; 24] = [
            " ",
            "\"",
            "\n",
            " ",
            "\\\"",
            "\\n",
            "\\\\n",
            "\\\\\\\"",
            "word",
            "Wörter",
            "0.123456",
            "1.",
            "654321",
            "\\u00fc",
            "\\ud83d\\ude00",
            "\\ud83d",
            "\\u",
            "/",
            "-",
            "\u{301}",
            "读",
            "\\",
            &blob,
            &long,
        ];
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut text = Vec::new();
        for _ in 0..parts {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let part = some[(state >> 33) as usize % some.len()];
            // What is long is seldom.
            if part.len() < 64 || state.is_multiple_of(8) {
                text.extend_from_slice(part.as_bytes());
            }
            if state.is_multiple_of(97) {
                text.push(0xff);
            }
        }
        text
    }

    #[test]
    fn pieces_have_the_words_of_the_text() {
        let mut cuts = 0;
        for seed in 1..200 {
            let text = text(seed, 1500);
            let found: Vec<_> = pieces(&text).collect();
            assert_eq!(found.concat(), text);
            cuts += found.len() - 1;
            for form in [Form::Plain, Form::Json] {
                assert_eq!(words(&found, form), words(&[&text], form), "{seed} {form:?}");
            }
        }
        assert!(cuts > 200, "{cuts}");
    }

    #[test]
    fn pieces_are_the_same_behind_a_change() {
        let before = text(1, 12_000);
        let mut after = before.clone();
        after.splice(4000..4003, *b" something else ");
        let (before, after): (Vec<_>, Vec<_>) = (pieces(&before).collect(), pieces(&after).collect());
        let common = after.iter().filter(|piece| before.contains(piece)).count();
        assert!(common * 3 > after.len() * 2, "{common} of {}", after.len());
        assert!(after.len() > 20 && after.iter().all(|piece| !piece.is_empty()), "{}", after.len());
    }

    #[test]
    fn no_text_has_no_pieces() {
        assert_eq!(pieces(b"").count(), 0);
        assert_eq!(pieces(&[b'a'; 10_000]).count(), 1);
        assert!(pieces(&[b' '; 10_000]).all(|piece| piece.len() <= MOST));
    }
}
