//! What the texts of a segment were, and which words they gave: an agent says the same again and again.
//!
//! A text is known by its length and a hash of 128 bits: NH, as UMAC has it (RFC 4418 5.2.2), with words of
//! 64 bits and a key of this process. Whoever writes texts cannot see the hashes, and for whoever cannot, two
//! texts of one length have the same with a chance of 2^-64. So none hides behind another.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, BuildHasherDefault, Hash, Hasher, RandomState},
    ops::Range,
};

/// Bytes of a text; longer ones are not remembered.
pub(super) const LONGEST: usize = 4096;
/// Places of words, in all texts, after which everything is forgotten: 4 MiB.
const PLACES: usize = 1 << 20;
/// Texts after which it is: some 3 MiB.
const TEXTS: usize = 1 << 15;
/// Words of a body whose pieces lie apart, if it is to be remembered as a whole.
const JOINED: usize = 4096;

/// What a text is: one of another kind gives other words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// A field of a record, by its tag.
    Field(u8),
    Header,
    Line,
    Plain,
    Json,
    /// A body, by its digest and what it is taken for.
    Body,
    Transcript,
}

/// A text's identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    hash: u128,
    length: u32,
    kind: Kind,
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // The hash is one.
        state.write_u64((self.hash >> 64) as u64 ^ self.hash as u64);
    }
}

/// Takes the number that it is given for a hash.
#[derive(Clone, Copy, Debug, Default)]
struct Given(u64);

impl Hasher for Given {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        // A product's low bits depend on little.
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 ^= self.0 >> 32;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// What a text gave, where none of its words had to be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// Its words, as places that [`Memo::words`] knows.
    pub(super) words: Range<u32>,
    /// Bytes of text in it, as a segment counts them.
    pub(super) bytes: u32,
}

/// Texts of one segment.
pub(super) struct Memo {
    keys: Vec<u64>,
    known: HashMap<Key, Known, BuildHasherDefault<Given>>,
    places: Vec<u32>,
}

impl std::fmt::Debug for Memo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memo").field("known", &self.known.len()).finish_non_exhaustive()
    }
}

impl Memo {
    pub(super) fn new() -> Self {
        let state = RandomState::new();
        let keys = (0..LONGEST / 8).map(|at| state.hash_one(at)).collect();
        Self { keys, known: HashMap::default(), places: Vec::new() }
    }

    /// The identity of a text; `None` of one that is too long.
    pub(super) fn key(&self, kind: Kind, text: &[u8]) -> Option<Key> {
        let length = u32::try_from(text.len()).ok().filter(|_| text.len() <= LONGEST)?;
        Some(Key { hash: nh(&self.keys, text), length, kind })
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Known> {
        self.known.get(key)
    }

    /// The words behind places.
    pub(super) fn words(&self, places: &Range<u32>) -> &[u32] {
        self.places.get(places.start as usize..places.end as usize).unwrap_or_default()
    }

    /// Keeps words, where there is room.
    pub(super) fn keep(&mut self, words: &[u32]) -> Option<Range<u32>> {
        // One entry may have very many, and only between entries something is forgotten.
        (self.places.len() + words.len() <= 2 * PLACES).then(|| {
            let start = self.places.len() as u32;
            self.places.extend_from_slice(words);
            start..self.places.len() as u32
        })
    }

    /// The words of several texts as those of one, where that is not dear.
    pub(super) fn join(&mut self, texts: &[Range<u32>]) -> Option<Range<u32>> {
        let (Some(first), Some(last)) = (texts.first(), texts.last()) else { return Some(0..0) };
        // Those of one that was met for the first time lie side by side.
        if texts.windows(2).all(|pair| matches!(pair, [one, next] if one.end == next.start)) {
            return Some(first.start..last.end);
        }
        let count: usize = texts.iter().map(ExactSizeIterator::len).sum();
        let words = || texts.iter().flat_map(|text| self.words(text)).copied().collect::<Vec<_>>();
        let words = (count <= JOINED).then(words)?;
        self.keep(&words)
    }

    pub(super) fn put(&mut self, key: Key, known: Known) {
        self.known.insert(key, known);
    }

    /// To be called between entries: forgets where there is too much.
    pub(super) fn bound(&mut self) {
        if self.places.len() > PLACES || self.known.len() > TEXTS {
            self.clear();
        }
    }

    /// What is known is of another segment.
    pub(super) fn clear(&mut self) {
        self.known.clear();
        self.places.clear();
    }
}

/// The sum of the products of neighbours, each plus its key; the rest is filled with zeros.
fn nh(keys: &[u64], text: &[u8]) -> u128 {
    let (blocks, rest) = text.as_chunks::<16>();
    let mut sum = 0_u128;
    let mut add = |block: &[u8; 16], keys: &[u64; 2]| {
        let both = u128::from_le_bytes(*block);
        let (low, high) = ((both as u64).wrapping_add(keys[0]), ((both >> 64) as u64).wrapping_add(keys[1]));
        sum = sum.wrapping_add(u128::from(low) * u128::from(high));
    };
    let (pairs, _) = keys.as_chunks::<2>();
    for (block, keys) in blocks.iter().zip(pairs) {
        add(block, keys);
    }
    if let Some(keys) = pairs.get(blocks.len()).filter(|_| !rest.is_empty()) {
        let mut last = [0; 16];
        for (place, byte) in last.iter_mut().zip(rest) {
            *place = *byte;
        }
        add(&last, keys);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_and_the_length_and_the_kind_tell_texts_apart() {
        let memo = Memo::new();
        let text: Vec<u8> = (0..LONGEST).map(|at| at as u8).collect();
        for length in [0, 1, 15, 16, 17, 100, LONGEST] {
            let text = &text[..length];
            let key = memo.key(Kind::Plain, text).unwrap();
            assert_eq!(memo.key(Kind::Plain, text), Some(key));
            assert_ne!(memo.key(Kind::Json, text), Some(key));
            for at in 0..length {
                let mut other = text.to_vec();
                other[at] ^= 1;
                assert_ne!(memo.key(Kind::Plain, &other), Some(key), "{at} of {length}");
            }
        }
        // Zeros at the end are not what a shorter text is filled with.
        assert_ne!(memo.key(Kind::Plain, b"a"), memo.key(Kind::Plain, b"a\0"));
        assert_eq!(memo.key(Kind::Plain, &[0; LONGEST + 1]), None);
        assert_ne!(Memo::new().key(Kind::Plain, b"a"), memo.key(Kind::Plain, b"a"), "keys are of a process");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut memo = Memo::new();
        for text in 0..TEXTS as u64 + 1 {
            let key = memo.key(Kind::Header, &text.to_le_bytes()).unwrap();
            let words = memo.keep(&[1, 2]).unwrap();
            memo.put(key, Known { words, bytes: 0 });
        }
        memo.bound();
        assert_eq!((memo.known.len(), memo.places.len()), (0, 0));
        let many = vec![0; 100_000];
        let kept = (0..100).filter_map(|_| memo.keep(&many)).count();
        assert!(kept * many.len() <= 2 * PLACES, "{kept}");
        memo.bound();
        assert_eq!(memo.places.len(), 0);
    }

    #[test]
    fn texts_are_joined() {
        let mut memo = Memo::new();
        let [one, two, three] = [&[1, 2][..], &[], &[3]].map(|words| memo.keep(words).unwrap());
        for (texts, expect) in [
            (&[one.clone(), two.clone(), three.clone()][..], &[1, 2, 3][..]),
            (&[three.clone(), one.clone()], &[3, 1, 2]),
            (std::slice::from_ref(&two), &[]),
        ] {
            let joined = memo.join(texts).unwrap();
            assert_eq!(memo.words(&joined), expect);
        }
        assert_eq!(memo.join(&[]), Some(0..0));
        let many = memo.keep(&[7; JOINED]).unwrap();
        assert_eq!(memo.join(&[many, one]), None);
    }
}
