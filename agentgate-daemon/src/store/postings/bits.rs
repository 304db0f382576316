//! Which records of a block: a bit for each of 4096 ids.
//!
//! **Layout.** One byte, then: 0, runs (how many ids are left out, how many are in, each LEB128, from the
//! first id of the block on); or 1, the 4096 bits, lowest first. Whichever is shorter.

use crate::store::canonical::{Malformed, put_number, take_number};

/// Ids of a block.
pub(in crate::store) const BLOCK: u64 = 1 << SHIFT;
/// An id's block is the id without so many low bits.
pub(in crate::store) const SHIFT: u32 = 12;
const WORDS: usize = 64;
const RUNS: u8 = 0;
const PLAIN: u8 = 1;
const PLAIN_BYTES: usize = WORDS * 8;

/// The block of an id.
pub(in crate::store) fn block_of(id: u64) -> u64 {
    id >> SHIFT
}

/// Its place in the block.
pub(in crate::store) fn offset_of(id: u64) -> usize {
    (id & (BLOCK - 1)) as usize
}

/// Some of a block's ids.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct Bits([u64; WORDS]);

impl std::fmt::Debug for Bits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.rising()).finish()
    }
}

impl Bits {
    pub(in crate::store) const NONE: Self = Self([0; WORDS]);
    #[cfg(test)]
    const ALL: Self = Self([u64::MAX; WORDS]);

    /// The ids of `block` from `low` to `high`, both included.
    pub(in crate::store) fn within(block: u64, low: u64, high: u64) -> Self {
        let first = block << SHIFT;
        let last = first + (BLOCK - 1);
        if high < first || low > last || low > high {
            return Self::NONE;
        }
        let (low, high) = (offset_of(low.max(first)), offset_of(high.min(last)));
        let mut bits = Self::NONE;
        for (at, word) in bits.0.iter_mut().enumerate() {
            let (from, to) = (at * 64, at * 64 + 63);
            if from > high || to < low {
                continue;
            }
            let left_out_low = low.saturating_sub(from);
            let left_out_high = to.saturating_sub(high);
            *word = (u64::MAX << left_out_low) & (u64::MAX >> left_out_high);
        }
        bits
    }

    pub(in crate::store) fn has(&self, at: usize) -> bool {
        self.0.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 == 1)
    }

    pub(in crate::store) fn set(&mut self, at: usize, is: bool) {
        if let Some(word) = self.0.get_mut(at / 64) {
            let bit = 1 << (at % 64);
            if is { *word |= bit } else { *word &= !bit }
        }
    }

    pub(in crate::store) fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    pub(in crate::store) fn count(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    fn with(mut self, other: &Self, of: impl Fn(u64, u64) -> u64) -> Self {
        for (word, other) in self.0.iter_mut().zip(&other.0) {
            *word = of(*word, *other);
        }
        self
    }

    pub(in crate::store) fn and(self, other: &Self) -> Self {
        self.with(other, |a, b| a & b)
    }

    pub(in crate::store) fn or(self, other: &Self) -> Self {
        self.with(other, |a, b| a | b)
    }

    pub(in crate::store) fn without(self, other: &Self) -> Self {
        self.with(other, |a, b| a & !b)
    }

    /// Places in rising order.
    pub(in crate::store) fn rising(&self) -> impl Iterator<Item = usize> {
        self.0.into_iter().enumerate().flat_map(|(index, mut left)| {
            std::iter::from_fn(move || {
                let bit = left.trailing_zeros();
                left &= left.wrapping_sub(1);
                (bit < 64).then_some(index * 64 + bit as usize)
            })
        })
    }

    /// Places in falling order.
    pub(in crate::store) fn falling(&self) -> impl Iterator<Item = usize> {
        self.0.into_iter().enumerate().rev().flat_map(|(index, mut left)| {
            std::iter::from_fn(move || {
                let bit = 63_u32.checked_sub(left.leading_zeros())?;
                left &= !(1 << bit);
                Some(index * 64 + bit as usize)
            })
        })
    }

    /// Appends the layout.
    pub(in crate::store) fn put(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.push(RUNS);
        let mut at = 0;
        while let Some(begin) = self.next(at, true) {
            let end = self.next(begin, false).unwrap_or(WORDS * 64);
            put_number(out, (begin - at) as u64);
            put_number(out, (end - begin) as u64);
            at = end;
            if out.len() - start > PLAIN_BYTES {
                out.truncate(start);
                out.push(PLAIN);
                self.0.iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
                return;
            }
        }
    }

    /// The first place from `from` on whose bit is `is`.
    fn next(&self, from: usize, is: bool) -> Option<usize> {
        let mut at = from;
        while let Some(word) = self.0.get(at / 64) {
            let word = (if is { *word } else { !*word }) & (u64::MAX << (at % 64));
            if word != 0 {
                return Some(at / 64 * 64 + word.trailing_zeros() as usize);
            }
            at = (at / 64 + 1) * 64;
        }
        None
    }

    /// Reads the layout, which must fill `bytes`.
    pub(in crate::store) fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        let (way, mut left) = bytes.split_first().ok_or(Malformed("postings are empty"))?;
        let mut bits = Self::NONE;
        match *way {
            PLAIN if left.len() == PLAIN_BYTES => {
                let (words, _) = left.as_chunks::<8>();
                for (word, bytes) in bits.0.iter_mut().zip(words) {
                    *word = u64::from_le_bytes(*bytes);
                }
            }
            RUNS => {
                let mut at = 0;
                while !left.is_empty() {
                    let begin = take_number(&mut left)?.saturating_add(at);
                    let end = take_number(&mut left)?.saturating_add(begin);
                    if end > BLOCK {
                        return Err(Malformed("postings go beyond their block"));
                    }
                    for (index, word) in bits.0.iter_mut().enumerate() {
                        let base = index as u64 * 64;
                        let (low, high) = (begin.max(base), end.min(base + 64));
                        if low < high {
                            *word |= (u64::MAX >> (64 - (high - low))) << (low - base);
                        }
                    }
                    at = end;
                }
            }
            _ => return Err(Malformed("postings of a kind that is not known")),
        }
        Ok(bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_read() {
        let mut every_third = Bits::NONE;
        let mut runs = Bits::NONE;
        for at in 0..4096 {
            every_third.set(at, at % 3 == 0);
            runs.set(at, at / 100 % 2 == 1);
        }
        let mut ends = Bits::NONE;
        ends.set(0, true);
        ends.set(4095, true);
        for (bits, most) in [(Bits::NONE, 1), (Bits::ALL, 4), (every_third, 513), (runs, 80), (ends, 6)] {
            let mut bytes = Vec::new();
            bits.put(&mut bytes);
            assert!(bytes.len() <= most, "{}", bytes.len());
            assert_eq!(Bits::read(&bytes).unwrap(), bits);
            let rising: Vec<_> = bits.rising().collect();
            let mut falling: Vec<_> = bits.falling().collect();
            falling.reverse();
            assert_eq!(rising, falling);
            assert_eq!(rising, (0..4096).filter(|at| bits.has(*at)).collect::<Vec<_>>());
            assert_eq!(rising.len() as u64, bits.count());
        }
    }

    #[test]
    fn ranges_of_ids() {
        let check = |block, low, high, expect: u64, first: Option<usize>| {
            let bits = Bits::within(block, low, high);
            assert_eq!((bits.count(), bits.rising().next()), (expect, first), "{block} {low} {high}");
        };
        check(0, 0, u64::MAX, 4096, Some(0));
        check(0, 1, 1, 1, Some(1));
        check(1, 4095, 4097, 2, Some(0));
        check(1, 4160, 5000, 841, Some(64));
        check(2, 0, 8191, 0, None);
        check(1, 5, 4, 0, None);
    }

    #[test]
    fn damage_is_told() {
        for bytes in [
            &[][..],
            &[2],
            &[1, 0],
            &[0, 5],
            &[0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
        ] {
            assert!(Bits::read(bytes).is_err(), "{bytes:?}");
        }
    }
}
