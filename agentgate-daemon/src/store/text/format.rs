//! A segment as it is on disk.
//!
//! The *content* of a segment is blocks of words, and behind them sets of entries ([`set`]). A block is
//! compressed with zstd and holds words in the order of their bytes, each: how many bytes it shares with
//! the word before it in the block (1 byte), how many follow (1 byte), these, and a number (LEB128, as all
//! here): twice the place of its set, from where the sets begin, or, of a word that only one entry has,
//! twice that entry's place in the segment and one more.
//!
//! The *head* says what there is: 2 (the version of this format and of what a word is), 1 where bodies are
//! indexed or else 0, the entry after its last, the highest id that began before it; how many entries it
//! has, and their ids in runs (the first, less what follows the run before, in zigzag; how many); the sets
//! of entries that are not wholly indexed and of those whose dense words are not; how many words, bytes of
//! text, and blocks; and for each block its first word, as in a block, and its compressed length.

use std::borrow::Cow;

use super::{
    find::{self, Bounds, Sought},
    set::{self, ENTRIES, Set},
};
use crate::{
    store::canonical::{Malformed, put_number, take, take_number},
    words::Reach,
};

/// Changes with the format and with what a word is: segments of another are built anew.
pub(super) const VERSION: u8 = 2;
/// No block is larger, unpacked.
const BLOCK: usize = 64 * 1024;
/// Words that a prefix may stand for in one segment; where there are more, every entry may have one.
const EXPANDED: usize = 4096;

/// Where the content of a segment is read.
pub(super) trait Content {
    type Error;

    /// What it is that what was read is not what it should be.
    fn damaged(source: Malformed) -> Self::Error;

    /// So many bytes from `at` on, or as many as there are.
    fn read(&self, at: u64, length: usize) -> Result<Cow<'_, [u8]>, Self::Error>;
}

impl Content for [u8] {
    type Error = Malformed;

    fn damaged(source: Malformed) -> Malformed {
        source
    }

    fn read(&self, at: u64, length: usize) -> Result<Cow<'_, [u8]>, Malformed> {
        let rest = usize::try_from(at).ok().and_then(|at| self.get(at..)).unwrap_or_default();
        Ok(Cow::Borrowed(rest.get(..length).unwrap_or(rest)))
    }
}

/// What a segment has, and where.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) bounds: Bounds,
    pub(super) bodies: bool,
    pub(super) words: u64,
    /// Bytes of text that were indexed.
    pub(super) text: u64,
    entries: usize,
    /// Place of an entry, and its record's id: others follow with it up to the next run.
    runs: Vec<(usize, u64)>,
    /// First words of the blocks, joined, and where each ends; where each block ends in the content.
    firsts: Vec<u8>,
    blocks: Vec<(usize, u64)>,
}

impl Head {
    /// Of entries of these records; no words yet.
    pub(super) fn of(ids: &[u64]) -> Self {
        let mut runs: Vec<(usize, u64)> = Vec::new();
        for (at, id) in ids.iter().enumerate() {
            if runs.last().is_none_or(|(first, start)| start + (at - first) as u64 != *id) {
                runs.push((at, *id));
            }
        }
        let bounds = Bounds { from: 0, to: 0, below: 0, partial: Set::none(), dense: Set::none() };
        let (firsts, blocks) = (Vec::new(), Vec::new());
        Self { bounds, bodies: false, words: 0, text: 0, entries: ids.len(), runs, firsts, blocks }
    }

    pub(super) fn begin_block(&mut self, first: &[u8]) {
        self.firsts.extend_from_slice(first);
    }

    pub(super) fn end_block(&mut self, length: usize) {
        let end = self.sets_at() + length as u64;
        self.blocks.push((self.firsts.len(), end));
    }

    /// Where the sets begin.
    pub(super) fn sets_at(&self) -> u64 {
        self.blocks.last().map_or(0, |(_, end)| *end)
    }

    fn first_of(&self, block: usize) -> &[u8] {
        let start =
            block.checked_sub(1).and_then(|before| self.blocks.get(before)).map_or(0, |before| before.0);
        let end = self.blocks.get(block).map_or(start, |block| block.0);
        self.firsts.get(start..end).unwrap_or_default()
    }

    /// The id of an entry's record, by its place.
    pub(super) fn id(&self, at: usize) -> Option<u64> {
        let run = self.runs.partition_point(|(first, _)| *first <= at).checked_sub(1)?;
        let (first, id) = self.runs.get(run)?;
        (at < self.entries).then(|| id + (at - first) as u64)
    }

    /// The highest id that began before its end.
    pub(super) fn highest(&self) -> u64 {
        let lasts = self.runs.iter().zip(self.runs.iter().skip(1).map(|run| run.0).chain([self.entries]));
        lasts
            .map(|((first, id), next)| id + (next - first) as u64 - 1)
            .max()
            .unwrap_or(0)
            .max(self.bounds.below)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION, self.bodies.into()];
        for number in [self.bounds.to, self.bounds.below, self.entries as u64] {
            put_number(&mut out, number);
        }
        let mut next = 0_u64;
        let ends = self.runs.iter().skip(1).map(|run| run.0).chain([self.entries]);
        for ((first, id), end) in self.runs.iter().zip(ends) {
            let step = id.wrapping_sub(next).cast_signed();
            put_number(&mut out, (step << 1 ^ step >> 63).cast_unsigned());
            put_number(&mut out, (end - first) as u64);
            next = id + (end - first) as u64;
        }
        for set in [&self.bounds.partial, &self.bounds.dense] {
            let entries: Vec<u16> = set.iter().map(|at| at as u16).collect();
            set::put(&entries, &mut out, &mut Default::default());
        }
        for number in [self.words, self.text, self.blocks.len() as u64] {
            put_number(&mut out, number);
        }
        let (mut before, mut start) = (&[][..], 0);
        for (block, (_, end)) in self.blocks.iter().enumerate() {
            let first = self.first_of(block);
            let same = first.iter().zip(before).take_while(|(a, b)| a == b).count();
            out.extend_from_slice(&[same as u8, (first.len() - same) as u8]);
            out.extend_from_slice(first.get(same..).unwrap_or_default());
            put_number(&mut out, end - start);
            (before, start) = (first, *end);
        }
        out
    }

    /// Reads the head of the segment that begins with the entry `from`. `None`: it is of another version.
    pub(super) fn decode(from: u64, mut bytes: &[u8]) -> Result<Option<Self>, Malformed> {
        let left = &mut bytes;
        let &[version, bodies] = take(left, 2)?.as_array().ok_or(Malformed("a segment without a head"))?;
        if version != VERSION {
            return Ok(None);
        }
        let (to, below, entries) = (take_number(left)?, take_number(left)?, take_number(left)?);
        let entries = usize::try_from(entries).ok().filter(|entries| *entries <= ENTRIES);
        let entries = entries.ok_or(Malformed("a segment with too many entries"))?;
        if to.checked_sub(from) != Some(entries as u64) {
            return Err(Malformed("a segment does not end where it says"));
        }
        let mut head = Self { entries, bodies: bodies == 1, ..Self::of(&[]) };
        let (mut at, mut next) = (0, 0_u64);
        while at < entries {
            let zigzag = take_number(left)?;
            let id = next.wrapping_add_signed((zigzag >> 1).cast_signed() ^ -((zigzag & 1).cast_signed()));
            let run = usize::try_from(take_number(left)?).ok().filter(|run| (1..=entries - at).contains(run));
            let run = run.ok_or(Malformed("a run of ids of no length"))?;
            head.runs.push((at, id));
            next = id.checked_add(run as u64).ok_or(Malformed("an id is too large"))?;
            at += run;
        }
        let (partial, dense) = (set::take_set(left)?, set::take_set(left)?);
        head.bounds = Bounds { from, to, below, partial, dense };
        (head.words, head.text) = (take_number(left)?, take_number(left)?);
        let mut before = 0;
        for _ in 0..take_number(left)? {
            let &[same, more] = take(left, 2)?.as_array().ok_or(Malformed("a block without a word"))?;
            let start = head.firsts.len();
            let shared = before..before + usize::from(same);
            if shared.end > start {
                return Err(Malformed("a word shares more than there is"));
            }
            head.firsts.extend_from_within(shared);
            head.firsts.extend_from_slice(take(left, more.into())?);
            before = start;
            let length = usize::try_from(take_number(left)?).ok().filter(|length| *length <= BLOCK);
            head.end_block(length.ok_or(Malformed("a block of words is too long"))?);
        }
        if left.is_empty() { Ok(Some(head)) } else { Err(Malformed("bytes after the head of a segment")) }
    }

    /// The lowest and the highest id of its entries.
    pub(super) fn ids(&self) -> (u64, u64) {
        let lowest = self.runs.iter().map(|run| run.1).min().unwrap_or(0);
        (lowest, self.highest())
    }

    /// Entries that may hold all of `sought`.
    pub(super) fn candidates<C: Content + ?Sized>(
        &self,
        content: &C,
        sought: &[Sought],
    ) -> Result<Set, C::Error> {
        find::candidates(&self.bounds, sought, |word, reach| match reach {
            Reach::Whole => self.find(content, word, false),
            Reach::Begins => self.find(content, word, true),
            Reach::Ends | Reach::Within => self.scan(content, word, reach),
        })
    }

    /// Entries that have a word with the part in it.
    fn scan<C: Content + ?Sized>(&self, content: &C, part: &[u8], reach: Reach) -> Result<Set, C::Error> {
        let mut found = Set::none();
        let all = content.read(0, usize::try_from(self.sets_at()).unwrap_or(0))?;
        let not_packed = |_| C::damaged(Malformed("a block of words does not unpack"));
        let mut unpacker = zstd::bulk::Decompressor::new().map_err(not_packed)?;
        let (mut unpacked, mut references) = (Vec::with_capacity(BLOCK), Vec::new());
        let mut left = all.as_ref();
        let mut start = 0;
        for (_, end) in &self.blocks {
            let packed = take(&mut left, end - start).map_err(C::damaged)?;
            start = *end;
            unpacked.clear();
            unpacker.decompress_to_buffer(packed, &mut unpacked).map_err(not_packed)?;
            parted(&unpacked, part, reach, &mut references).map_err(C::damaged)?;
            if references.len() > EXPANDED {
                return Ok(Set::first(self.entries));
            }
        }
        for reference in references {
            self.refer(content, reference, &mut found)?;
        }
        Ok(found)
    }

    /// Entries that have the word, or, where that is open, one that begins with it.
    fn find<C: Content + ?Sized>(&self, content: &C, word: &[u8], open: bool) -> Result<Set, C::Error> {
        let mut found = Set::none();
        let mut expanded = 0;
        // The last block whose first word is not behind the word.
        let (mut low, mut high) = (0, self.blocks.len());
        while low < high {
            let middle = low.midpoint(high);
            if self.first_of(middle) <= word { low = middle + 1 } else { high = middle }
        }
        for block in low.saturating_sub(1)..self.blocks.len() {
            let first = self.first_of(block);
            if first > word && !(open && first.starts_with(word)) {
                break;
            }
            let mut references = Vec::new();
            let over = self.look_into(content, block, |other, reference| {
                if other == word || (open && other.starts_with(word)) {
                    references.push(reference);
                }
                other > word && !(open && other.starts_with(word))
            })?;
            expanded += references.len();
            if expanded > EXPANDED {
                return Ok(Set::first(self.entries));
            }
            for reference in references {
                self.refer(content, reference, &mut found)?;
            }
            if over {
                break;
            }
        }
        Ok(found)
    }

    /// Shows the words of a block, until one is past what is looked for; returns whether one was.
    fn look_into<C: Content + ?Sized>(
        &self,
        content: &C,
        block: usize,
        mut is_past: impl FnMut(&[u8], u64) -> bool,
    ) -> Result<bool, C::Error> {
        let start =
            block.checked_sub(1).and_then(|before| self.blocks.get(before)).map_or(0, |before| before.1);
        let end = self.blocks.get(block).map_or(start, |block| block.1);
        let packed = content.read(start, usize::try_from(end - start).unwrap_or(0))?;
        let unpacked = zstd::bulk::decompress(&packed, BLOCK);
        let unpacked = unpacked.map_err(|_| C::damaged(Malformed("a block of words does not unpack")))?;
        shown(&unpacked, &mut is_past).map_err(C::damaged)
    }

    /// Adds the entries that a word's reference stands for.
    fn refer<C: Content + ?Sized>(
        &self,
        content: &C,
        reference: u64,
        found: &mut Set,
    ) -> Result<(), C::Error> {
        if reference & 1 == 1 {
            found.insert(usize::try_from(reference >> 1).unwrap_or(usize::MAX));
            return Ok(());
        }
        let at = self.sets_at().saturating_add(reference >> 1);
        // Most are shorter; of others the whole is read once it is known.
        let start = content.read(at, 32)?;
        let length = set::length(&start).map_err(C::damaged)?;
        let bytes = if length <= start.len() { start } else { content.read(at, length)? };
        let mut left = bytes.as_ref();
        found.union(&set::take_set(&mut left).map_err(C::damaged)?);
        Ok(())
    }
}

/// Collects what stands behind the words of a block that have the part in them. What a word shares with the one
/// before it is not looked at again.
fn parted(
    mut left: &[u8],
    part: &[u8],
    reach: Reach,
    references: &mut Vec<u64>,
) -> Result<(), Malformed> {
    let mut word = Vec::new();
    // Where the part ends first in the word.
    let mut first: Option<usize> = None;
    while !left.is_empty() {
        let &[same, more] = take(&mut left, 2)?.as_array().ok_or(Malformed("a word without a length"))?;
        word.truncate(same.into());
        let known = word.len();
        word.extend_from_slice(take(&mut left, more.into())?);
        let reference = take_number(&mut left)?;
        if first.is_none_or(|end| end > known) {
            let from = (known + 1).saturating_sub(part.len());
            let rest = word.get(from..).unwrap_or_default();
            let at = rest.windows(part.len().max(1)).position(|found| found == part);
            first = at.map(|at| from + at + part.len());
        }
        let has = match reach {
            Reach::Within => first.is_some(),
            Reach::Whole | Reach::Begins | Reach::Ends => first.is_some() && reach.holds(part, &word),
        };
        if has {
            references.push(reference);
        }
    }
    Ok(())
}

/// Shows the words of a block and what stands behind each, until `is_past` is true; returns whether it was.
fn shown(mut left: &[u8], is_past: &mut impl FnMut(&[u8], u64) -> bool) -> Result<bool, Malformed> {
    let mut word = Vec::new();
    while !left.is_empty() {
        let &[same, more] = take(&mut left, 2)?.as_array().ok_or(Malformed("a word without a length"))?;
        word.truncate(same.into());
        word.extend_from_slice(take(&mut left, more.into())?);
        if is_past(&word, take_number(&mut left)?) {
            return Ok(true);
        }
    }
    Ok(false)
}
