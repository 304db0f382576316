//! Whether segments have the words of the entries that they are about. Where one lacks a word, what has it is
//! there and is not found.
//!
//! Each entry's words are made of it once more and looked up as a search does. Words that a segment has and an
//! entry has not, as where a body was dropped since, only have a search look into more than it must.

use std::collections::HashMap;

use redb::ReadTransaction;

use super::{
    format::{Content as _, Head},
    set::Set,
    table::Reading,
};
use crate::{
    store::{
        StoreError,
        canonical::Malformed,
        order::{Placed, Walk},
    },
    words::{Token, in_bodies, in_heads, is_dense},
};

/// Bytes of a segment that are read at once.
const READ: usize = 1 << 20;
/// Sets that are kept unpacked: 1 KiB each.
const SETS: usize = 32 << 10;

/// What does not hold of a segment: its first entry, and why.
pub(in crate::store) type Fault = (u64, &'static str);

/// Compares all segments with the log; `told` of the entry that was reached.
///
/// # Errors
/// [`StoreError`] where the file cannot be read.
pub(in crate::store) fn check(
    transaction: &ReadTransaction,
    told: &mut dyn FnMut(u64),
) -> Result<Vec<Fault>, StoreError> {
    let reading = Reading::of(transaction)?;
    let mut log = Log { walk: Walk::of(transaction)?, next: 0, highest: 0 };
    let (mut faults, mut at) = (Vec::new(), 0);
    while let Some(from) = reading.beginning_from(at)? {
        at = from + 1;
        told(from);
        let segment = match Stored::read(&reading, from) {
            Ok(Some(segment)) => segment,
            // Of another version: nothing is looked for in it.
            Ok(None) => continue,
            Err(StoreError::Text(Malformed(why))) => {
                faults.push((from, why));
                continue;
            }
            Err(error) => return Err(error),
        };
        if let Err(why) = log.compare(segment)? {
            faults.push((from, why));
        }
    }
    Ok(faults)
}

/// The way through the entries, once.
struct Log {
    walk: Walk,
    next: u64,
    /// The highest id before it.
    highest: u64,
}

impl Log {
    /// Goes on to `to`; what `each` finds wrong first is returned at the end.
    fn go_on(
        &mut self,
        to: u64,
        mut each: impl FnMut(&mut Walk, &Placed) -> Result<Result<(), &'static str>, StoreError>,
    ) -> Result<Result<(), &'static str>, StoreError> {
        let mut found = Ok(());
        while self.next < to {
            let Some(stretch) = self.walk.stretch(self.next)? else { break };
            for entry in stretch.entries.iter().filter(|entry| entry.n < to) {
                self.highest = self.highest.max(entry.id().0);
                if found.is_ok() {
                    found = each(&mut self.walk, entry)?;
                }
            }
            self.next = stretch.next.min(to);
        }
        Ok(found)
    }

    fn compare(&mut self, mut segment: Stored) -> Result<Result<(), &'static str>, StoreError> {
        let (from, to) = (segment.head.bounds.from, segment.head.bounds.to);
        if from < self.next {
            return Ok(Err("it is about entries that another is about"));
        }
        if to > self.walk.end() {
            return Ok(Err("it is about entries that are not there"));
        }
        let _nothing_to_compare = self.go_on(from, |_, _| Ok(Ok(())))?;
        // Who searches takes it that ids above begin here.
        if segment.head.bounds.below < self.highest {
            return Ok(Err("it hides records that began before it"));
        }
        self.go_on(to, |walk, entry| segment.compare(walk, entry))
    }
}

/// A word that a segment has.
struct Known {
    reference: u64,
    /// One more than the last entry that was found to be among those it refers to.
    last: usize,
}

/// A segment as it is in the tables, unpacked.
struct Stored {
    head: Head,
    content: Vec<u8>,
    words: HashMap<Box<[u8]>, Known>,
    sets: HashMap<u64, Set>,
}

impl Stored {
    fn read(reading: &Reading, from: u64) -> Result<Option<Self>, StoreError> {
        let Some(head) = reading.head(from)? else { return Ok(None) };
        let (rows, mut content) = (reading.content(from), Vec::new());
        loop {
            let piece = rows.read(content.len() as u64, READ)?;
            content.extend_from_slice(&piece);
            if piece.len() < READ {
                break;
            }
        }
        let mut words = HashMap::new();
        let each = |word: &[u8], reference| {
            words.insert(word.into(), Known { reference, last: 0 });
        };
        head.each_word(content.as_slice(), each).map_err(StoreError::Text)?;
        Ok(Some(Self { head, content, words, sets: HashMap::new() }))
    }

    fn compare(&mut self, walk: &mut Walk, entry: &Placed) -> Result<Result<(), &'static str>, StoreError> {
        let place = usize::try_from(entry.n - self.head.bounds.from).unwrap_or(usize::MAX);
        if self.head.id(place) != Some(entry.id().0) {
            return Ok(Err("it names other records than its entries are of"));
        }
        if self.head.bounds.partial.has(place) {
            return Ok(Ok(()));
        }
        // What cannot be read, or is there no longer, was told or is no fault of the segment.
        let Some(record) = readable(entry.record())? else { return Ok(Ok(())) };
        let bodies = if self.head.bodies { readable(walk.bodies(entry))? } else { None };
        let mut lacks = false;
        let mut see = |token: Token<'_>| match token {
            Token::Word(word) | Token::Also(word) => lacks = lacks || !self.has(word, place),
            Token::Gap | Token::Cut => {}
        };
        in_heads(&record, &mut see);
        let bodies = bodies.unwrap_or_default();
        in_bodies(&record, bodies.each_ref().map(|body| body.as_deref()), &mut see);
        Ok(if lacks { Err("it lacks words of its entries, which are not found by them") } else { Ok(()) })
    }

    /// Whether a search for the word finds the entry at this place.
    fn has(&mut self, word: &[u8], place: usize) -> bool {
        let Some(known) = self.words.get_mut(word) else {
            return is_dense(word) && self.head.bounds.dense.has(place);
        };
        if known.last == place + 1 {
            return true;
        }
        let found = if known.reference & 1 == 1 {
            known.reference >> 1 == place as u64
        } else {
            if !self.sets.contains_key(&known.reference) {
                if self.sets.len() >= SETS {
                    self.sets.clear();
                }
                let mut set = Set::none();
                if self.head.refer(self.content.as_slice(), known.reference, &mut set).is_err() {
                    return false;
                }
                self.sets.insert(known.reference, set);
            }
            self.sets.get(&known.reference).is_some_and(|set| set.has(place))
        };
        if found {
            known.last = place + 1;
        }
        found || is_dense(word) && self.head.bounds.dense.has(place)
    }
}

/// What was read; `None` for what is damaged.
fn readable<T>(found: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(StoreError::Malformed { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
