//! Sets of the entries of a segment, by their place in it.
//!
//! **Layout.** How it is written and how much that is, in one number (LEB128): bytes or numbers that follow,
//! times four, plus 0 for the numbers themselves (each less the one before and one more), 1 for runs (how
//! many are left out, how many are in), 2 for bits (lowest first).

use crate::store::canonical::{Malformed, put_number, take, take_number};

/// Entries of a segment, at most.
pub(super) const ENTRIES: usize = 8192;

const LIST: u64 = 0;
const RUNS: u64 = 1;
const BITS: u64 = 2;

/// Some of a segment's entries.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Set(Box<[u64; ENTRIES / 64]>);

impl std::fmt::Debug for Set {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl Set {
    pub(super) fn none() -> Self {
        Self(Box::new([0; ENTRIES / 64]))
    }

    /// The first `count`.
    pub(super) fn first(count: usize) -> Self {
        let mut set = Self::none();
        for at in 0..count {
            set.insert(at);
        }
        set
    }

    pub(super) fn insert(&mut self, at: usize) {
        if let Some(word) = self.0.get_mut(at / 64) {
            *word |= 1 << (at % 64);
        }
    }

    pub(super) fn has(&self, at: usize) -> bool {
        self.0.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 == 1)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    pub(super) fn union(&mut self, other: &Self) {
        for (word, other) in self.0.iter_mut().zip(other.0.iter()) {
            *word |= other;
        }
    }

    pub(super) fn intersect(&mut self, other: &Self) {
        for (word, other) in self.0.iter_mut().zip(other.0.iter()) {
            *word &= other;
        }
    }

    /// In their order.
    pub(super) fn iter(&self) -> impl Iterator<Item = usize> {
        self.0.iter().enumerate().flat_map(|(index, word)| {
            let mut left = *word;
            std::iter::from_fn(move || {
                let bit = left.trailing_zeros();
                left &= left.wrapping_sub(1);
                (bit < 64).then_some(index * 64 + bit as usize)
            })
        })
    }
}

/// Appends the set of `entries`, which rise, in the shortest way.
pub(super) fn put(entries: &[u16], out: &mut Vec<u8>, scratch: &mut [Vec<u8>; 3]) {
    for way in scratch.iter_mut() {
        way.clear();
    }
    let [list, runs, bits] = scratch;
    let mut next = 0;
    for &entry in entries {
        put_number(list, u64::from(entry) - next);
        next = u64::from(entry) + 1;
        let place = usize::from(entry) / 8;
        if bits.len() <= place {
            bits.resize(place + 1, 0);
        }
        if let Some(byte) = bits.get_mut(place) {
            *byte |= 1 << (entry % 8);
        }
    }
    let mut at = 0;
    let mut left = entries;
    while let Some(&first) = left.first() {
        let run = left.iter().zip(first..).take_while(|(entry, expect)| *entry == expect).count();
        put_number(runs, u64::from(first) - at);
        put_number(runs, run as u64);
        at = u64::from(first) + run as u64;
        left = left.get(run..).unwrap_or_default();
    }
    let shortest =
        [(LIST, &*list), (RUNS, &*runs), (BITS, &*bits)].into_iter().min_by_key(|(_, way)| way.len());
    if let Some((way, bytes)) = shortest {
        put_number(out, (bytes.len() as u64) << 2 | way);
        out.extend_from_slice(bytes);
    }
}

/// How many bytes a set takes that begins with these: at most ten of them say so.
pub(super) fn length(mut start: &[u8]) -> Result<usize, Malformed> {
    let before = start.len();
    let head = take_number(&mut start)?;
    usize::try_from(head >> 2)
        .ok()
        .filter(|length| *length <= ENTRIES * 2)
        .map(|length| before - start.len() + length)
        .ok_or(Malformed("a set of entries is too long"))
}

/// Takes a set off the front of `bytes`.
pub(super) fn take_set(bytes: &mut &[u8]) -> Result<Set, Malformed> {
    let head = take_number(bytes)?;
    let mut left = take(bytes, head >> 2)?;
    let mut set = Set::none();
    let mut at = 0_u64;
    let within = |at: u64| {
        usize::try_from(at).ok().filter(|at| *at < ENTRIES).ok_or(Malformed("an entry outside its segment"))
    };
    match head & 3 {
        LIST => {
            while !left.is_empty() {
                at = at.saturating_add(take_number(&mut left)?);
                set.insert(within(at)?);
                at += 1;
            }
        }
        RUNS => {
            while !left.is_empty() {
                at = at.saturating_add(take_number(&mut left)?);
                let end = at.saturating_add(take_number(&mut left)?);
                within(end.saturating_sub(1))?;
                for entry in at..end {
                    set.insert(within(entry)?);
                }
                at = end;
            }
        }
        BITS => {
            for (index, byte) in left.iter().enumerate() {
                for bit in (0..8).filter(|bit| byte >> bit & 1 == 1) {
                    set.insert(within((index * 8 + bit) as u64)?);
                }
            }
        }
        _ => return Err(Malformed("a set of entries written in a way that is not known")),
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_read_as_they_were_written() {
        let every = |step: usize, end: usize| (0..end).step_by(step).map(|at| at as u16).collect::<Vec<_>>();
        for (entries, most) in [
            (vec![], 1),
            (vec![8191], 4),
            (vec![0], 3),
            (every(1, 8192), 5),
            (every(2, 8192), 1100),
            (every(300, 8192), 64),
            ((100..200).chain(300..8000).collect(), 10),
        ] {
            let mut bytes = Vec::new();
            put(&entries, &mut bytes, &mut Default::default());
            assert!(bytes.len() <= most, "{} bytes", bytes.len());
            assert_eq!(length(bytes.get(..bytes.len().min(10)).unwrap()).unwrap(), bytes.len());
            let mut left = bytes.as_slice();
            let set = take_set(&mut left).unwrap();
            assert!(left.is_empty());
            assert_eq!(set.iter().map(|at| at as u16).collect::<Vec<_>>(), entries);
            for cut in 0..bytes.len() {
                // Whatever it is, it is no panic.
                let _shorter = take_set(&mut bytes.get(..cut).unwrap());
            }
        }
    }

    #[test]
    fn sets_that_cannot_be_are_refused() {
        for bytes in [&[3][..], &[8, 0xff, 0xff], &[13, 1, 0xff, 0x7f], &[0xff, 0xff, 0xff, 0x7f]] {
            assert!(take_set(&mut &bytes[..]).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn sets_are_joined_and_cut() {
        let mut set = Set::first(70);
        let mut other = Set::none();
        assert!(other.is_empty());
        for at in [3, 69, 70, 8191] {
            other.insert(at);
        }
        let mut both = set.clone();
        both.intersect(&other);
        assert_eq!(both.iter().collect::<Vec<_>>(), [3, 69]);
        set.union(&other);
        assert_eq!(set.iter().count(), 72);
    }
}
