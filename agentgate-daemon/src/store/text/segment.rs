//! A segment as it grows: which words the entries of a run of the log have.
//!
//! Words that are in the same entries are a *class*, and a word knows no more than its class. An entry
//! moves each of its words to the class that has the entry besides: words that came together and stay
//! together, as those of a file in a growing conversation do, move as one and cost one set of entries.

use std::hash::{BuildHasher as _, RandomState};

use super::{
    find::{self, Bounds, Sought},
    format::Head,
    set::{self, ENTRIES, Set},
};
use crate::{
    store::canonical::{Malformed, put_number},
    words::{Reach, is_dense},
};

/// Words after which a segment is closed.
const WORDS: usize = 400_000;
/// Their bytes.
const BYTES: usize = 6 << 20;
/// Classes.
const CLASSES: usize = 1_500_000;
/// Text: what a restart has to read again.
const TEXT: u64 = 256 << 20;
/// Words of one entry that the segment did not have. One with more is looked into whatever is searched for.
const NEW: usize = 65_536;
/// Dense words that an entry may bring, and bytes of text for each one more. Where it has more, those are
/// left out, and it is looked into when such a word is searched for.
const DENSE: usize = 64;
const BYTES_PER_DENSE: usize = 512;
/// Bytes of words that are compressed together.
const BLOCK: usize = 8 * 1024;
/// zstd's level: there is time.
const LEVEL: i32 = 3;

/// The class of words that no entry has.
const NOTHING: u32 = 0;

#[derive(Clone, Copy, Debug)]
struct Word {
    at: u32,
    length: u8,
    /// The last entry that has it.
    entry: u16,
    class: u32,
}

#[derive(Clone, Copy, Debug)]
struct Class {
    /// The class that lacks the last entry.
    parent: u32,
    /// The last class that was made of this one.
    child: u32,
    /// The last entry.
    entry: u16,
}

/// A segment that takes entries.
pub(super) struct Builder {
    bounds: Bounds,
    /// Whether bodies are among its texts.
    bodies: bool,
    keys: [u64; 2],
    /// Places in `words`, one more; 0 where there is none.
    slots: Vec<u32>,
    words: Vec<Word>,
    bytes: Vec<u8>,
    classes: Vec<Class>,
    /// Records of the entries; the one under way comes behind them.
    ids: Vec<u64>,
    id: u64,
    text: u64,
    /// What the entry under way may still bring.
    new: usize,
    dense: usize,
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder").field("bounds", &self.bounds).field("words", &self.words.len()).finish()
    }
}

/// What became of a word that an entry has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Added {
    /// It is this one of the segment's words.
    At(u32),
    /// It is one of too many that are new or dense: the entry is marked, and the word left out.
    LeftOut,
}

/// A segment that is whole: what is written of it.
#[derive(Clone, Debug)]
pub(in crate::store) struct Segment {
    pub(super) head: Head,
    /// [`Head`], encoded.
    pub(super) encoded: Vec<u8>,
    /// Words, and the sets that they refer to.
    pub(super) content: Vec<u8>,
}

impl Builder {
    /// Begins with the log's entry `from`; ids above `below` begin there or later.
    pub(super) fn new(from: u64, below: u64, bodies: bool) -> Self {
        let state = RandomState::new();
        Self {
            bounds: Bounds { from, to: from, below, partial: Set::none(), dense: Set::none() },
            bodies,
            keys: [state.hash_one(0) | 1, state.hash_one(1) | 1],
            slots: vec![0; 1 << 10],
            words: Vec::new(),
            bytes: Vec::new(),
            classes: vec![Class { parent: NOTHING, child: NOTHING, entry: 0 }],
            ids: Vec::new(),
            id: 0,
            text: 0,
            new: 0,
            dense: 0,
        }
    }

    pub(super) fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    /// Whether bodies are among its texts.
    pub(super) fn has_bodies(&self) -> bool {
        self.bodies
    }

    /// The highest id that began before its end.
    pub(super) fn highest(&self) -> u64 {
        self.ids.iter().copied().max().unwrap_or(0).max(self.bounds.below)
    }

    /// Whether it should take no more entries.
    pub(super) fn is_full(&self) -> bool {
        self.ids.len() >= ENTRIES
            || self.words.len() >= WORDS
            || self.bytes.len() >= BYTES
            || self.classes.len() >= CLASSES
            || self.text >= TEXT
    }

    /// The next entry of the log is of this record; its words follow, and its end. Until then a search
    /// takes it for one that the segment is not about.
    pub(super) fn begin(&mut self, id: u64) {
        (self.id, self.new, self.dense) = (id, NEW, DENSE);
    }

    /// The entry under way has no more words.
    pub(super) fn end(&mut self) {
        self.ids.push(self.id);
        self.bounds.to += 1;
    }

    /// The entry has a text of so many bytes.
    pub(super) fn begin_text(&mut self, bytes: usize) {
        self.text += bytes as u64;
        self.dense = self.dense.saturating_add(bytes / BYTES_PER_DENSE);
    }

    /// The entry cannot be read, or not all of it: it is looked into whatever is searched for.
    pub(super) fn is_partial(&mut self) {
        self.bounds.partial.insert(self.ids.len());
    }

    /// The entry has this word, of 64 bytes at most.
    pub(super) fn add(&mut self, word: &[u8]) -> Added {
        // There are never more than `ENTRIES`.
        let entry = self.ids.len() as u16;
        let slot = self.slot(word);
        let known = self.slots.get(slot).and_then(|place| place.checked_sub(1));
        let index = match known {
            Some(index) => index,
            None if is_dense(word) && self.dense == 0 => {
                self.bounds.dense.insert(entry.into());
                return Added::LeftOut;
            }
            None if self.new == 0 => {
                self.is_partial();
                return Added::LeftOut;
            }
            None => {
                self.new -= 1;
                self.dense -= usize::from(is_dense(word)).min(self.dense);
                self.insert(slot, word) as u32
            }
        };
        if let Some(word) = self.words.get_mut(index as usize)
            && (word.class == NOTHING || word.entry != entry)
        {
            (word.class, word.entry) = (next_class(&mut self.classes, word.class, entry), entry);
        }
        Added::At(index)
    }

    /// The entry has these words of the segment.
    pub(super) fn again(&mut self, indices: &[u32]) {
        let entry = self.ids.len() as u16;
        // Words that came together are in one class.
        let mut last = (NOTHING, NOTHING);
        for index in indices {
            let Some(word) = self.words.get_mut(*index as usize) else { continue };
            if word.class != NOTHING && word.entry == entry {
                continue;
            }
            if word.class != last.0 || last.1 == NOTHING {
                last = (word.class, next_class(&mut self.classes, word.class, entry));
            }
            (word.class, word.entry) = (last.1, entry);
        }
    }

    fn insert(&mut self, slot: usize, word: &[u8]) -> usize {
        let index = self.words.len();
        let (at, length) = (self.bytes.len() as u32, word.len() as u8);
        self.bytes.extend_from_slice(word);
        self.words.push(Word { at, length, entry: 0, class: NOTHING });
        if let Some(place) = self.slots.get_mut(slot) {
            *place = index as u32 + 1;
        }
        if self.words.len() * 2 > self.slots.len() {
            self.grow();
        }
        index
    }

    fn grow(&mut self) {
        self.slots = vec![0; self.slots.len() * 2];
        for index in 0..self.words.len() {
            let slot = self.slot_of(self.hash(self.bytes_of(index)), |_| false);
            if let Some(place) = self.slots.get_mut(slot) {
                *place = index as u32 + 1;
            }
        }
    }

    fn bytes_of(&self, index: usize) -> &[u8] {
        let bytes = self
            .words
            .get(index)
            .and_then(|word| self.bytes.get(word.at as usize..word.at as usize + usize::from(word.length)));
        bytes.unwrap_or_default()
    }

    /// Where `word` is in the slots, or would be.
    fn slot(&self, word: &[u8]) -> usize {
        self.slot_of(self.hash(word), |index| self.bytes_of(index) == word)
    }

    /// The first slot from the hash's on that is free, or whose word is the one.
    fn slot_of(&self, hash: u64, is_it: impl Fn(usize) -> bool) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = hash as usize & mask;
        while let Some(index) = self.slots.get(slot).and_then(|place| place.checked_sub(1)) {
            if is_it(index as usize) {
                break;
            }
            slot = (slot + 1) & mask;
        }
        slot
    }

    /// Multiplies and folds, with a key of its own: whoever writes a body cannot choose where words go.
    fn hash(&self, word: &[u8]) -> u64 {
        let [first, second] = self.keys;
        let fold = |value: u64, key: u64| {
            let product = u128::from(value) * u128::from(key);
            product as u64 ^ (product >> 64) as u64
        };
        let mut hash = first ^ word.len() as u64;
        let (chunks, rest) = word.as_chunks::<8>();
        for chunk in chunks {
            hash = fold(hash ^ u64::from_le_bytes(*chunk), second);
        }
        let last = rest.iter().fold(0, |last, byte| last << 8 | u64::from(*byte));
        fold(hash ^ last ^ second.rotate_left(32), second)
    }

    /// Entries that may hold all of `sought`.
    pub(super) fn candidates(&self, sought: &[Sought]) -> Set {
        let found = find::candidates::<Malformed>(&self.bounds, sought, |word, reach| {
            let mut set = Set::none();
            if reach != Reach::Whole {
                for index in (0..self.words.len()).filter(|index| reach.holds(word, self.bytes_of(*index))) {
                    self.collect(index, &mut set);
                }
            } else if let Some(index) = self.slots.get(self.slot(word)).and_then(|place| place.checked_sub(1))
            {
                self.collect(index as usize, &mut set);
            }
            Ok(set)
        });
        // Nothing is read, so nothing is malformed.
        found.unwrap_or_else(|Malformed(_)| Set::first(self.ids.len()))
    }

    /// Adds the entries that have a word.
    fn collect(&self, index: usize, set: &mut Set) {
        let mut class = self.words.get(index).map_or(NOTHING, |word| word.class);
        while let Some(found) = self.classes.get(class as usize).filter(|_| class != NOTHING) {
            set.insert(found.entry.into());
            class = found.parent;
        }
    }

    /// The id of an entry's record, by its place.
    pub(super) fn id(&self, at: usize) -> Option<u64> {
        self.ids.get(at).copied()
    }

    /// Closes it.
    ///
    /// # Errors
    /// Where nothing can be compressed: no memory.
    pub(super) fn finish(&self) -> std::io::Result<Segment> {
        let mut order: Vec<u32> = (0..self.words.len() as u32).collect();
        order.sort_unstable_by(|a, b| self.bytes_of(*a as usize).cmp(self.bytes_of(*b as usize)));
        let mut packer = zstd::bulk::Compressor::new(LEVEL)?;
        let (mut content, mut sets, mut block, mut before) =
            (Vec::new(), Sets::new(self), Vec::new(), Vec::new());
        let mut head = Head::of(&self.ids);
        (head.bounds, head.bodies) = (self.bounds.clone(), self.bodies);
        (head.words, head.text) = (self.words.len() as u64, self.text);
        let mut close = |block: &mut Vec<u8>, head: &mut Head, content: &mut Vec<u8>| {
            let packed = packer.compress(block)?;
            head.end_block(packed.len());
            content.extend_from_slice(&packed);
            block.clear();
            std::io::Result::Ok(())
        };
        for index in order {
            let word = self.bytes_of(index as usize);
            if block.is_empty() {
                head.begin_block(word);
                before.clear();
            }
            let same = word.iter().zip(&before).take_while(|(a, b)| a == b).count();
            block.extend_from_slice(&[same as u8, (word.len() - same) as u8]);
            block.extend_from_slice(word.get(same..).unwrap_or_default());
            put_number(
                &mut block,
                sets.reference(self.words.get(index as usize).map_or(NOTHING, |w| w.class)),
            );
            before.clear();
            before.extend_from_slice(word);
            if block.len() >= BLOCK {
                close(&mut block, &mut head, &mut content)?;
            }
        }
        if !block.is_empty() {
            close(&mut block, &mut head, &mut content)?;
        }
        content.extend_from_slice(&sets.bytes);
        Ok(Segment { encoded: head.encode(), head, content })
    }
}

/// The class of those of `class` that `entry` has.
fn next_class(classes: &mut Vec<Class>, class: u32, entry: u16) -> u32 {
    let child = classes.get(class as usize).map_or(NOTHING, |class| class.child);
    if child != NOTHING && classes.get(child as usize).is_some_and(|child| child.entry == entry) {
        return child;
    }
    let made = classes.len() as u32;
    classes.push(Class { parent: class, child: NOTHING, entry });
    if let Some(class) = classes.get_mut(class as usize) {
        class.child = made;
    }
    made
}

/// The sets of a segment's classes, each written when it is first referred to.
struct Sets<'b> {
    builder: &'b Builder,
    /// Where the set of a class is, and one more.
    written: Vec<u32>,
    bytes: Vec<u8>,
    entries: Vec<u16>,
    scratch: [Vec<u8>; 3],
}

impl<'b> Sets<'b> {
    fn new(builder: &'b Builder) -> Self {
        let written = vec![0; builder.classes.len()];
        Self { builder, written, bytes: Vec::new(), entries: Vec::new(), scratch: Default::default() }
    }

    /// What stands behind a word: twice where its set is, or twice its only entry and one more.
    fn reference(&mut self, class: u32) -> u64 {
        let Some(found) = self.builder.classes.get(class as usize) else { return 0 };
        if found.parent == NOTHING {
            return u64::from(found.entry) << 1 | 1;
        }
        if let Some(at) = self.written.get(class as usize).and_then(|at| at.checked_sub(1)) {
            return u64::from(at) << 1;
        }
        let at = self.bytes.len();
        if let Some(place) = self.written.get_mut(class as usize) {
            *place = at as u32 + 1;
        }
        self.entries.clear();
        let mut next = class;
        while let Some(found) = self.builder.classes.get(next as usize).filter(|_| next != NOTHING) {
            self.entries.push(found.entry);
            next = found.parent;
        }
        self.entries.reverse();
        set::put(&self.entries, &mut self.bytes, &mut self.scratch);
        (at as u64) << 1
    }
}
