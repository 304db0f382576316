//! Which entries of a segment may be what is looked for.

use super::set::Set;
use crate::words::{Address, Needle, Reach, is_dense};

/// A word that no text has. Entries have it whose address has letters or digits that are in none of its words,
/// or not as they stand there.
pub(super) const CUT: &[u8] = b"\0cut";

/// What of the log a segment is about, and what of that it does not know.
#[derive(Clone, Debug)]
pub(super) struct Bounds {
    /// Its first entry, and the one after its last.
    pub(super) from: u64,
    pub(super) to: u64,
    /// Ids above this one begin in the segment or later.
    pub(super) below: u64,
    /// Entries that are not indexed, or not wholly.
    pub(super) partial: Set,
    /// Entries of which dense words were left out.
    pub(super) dense: Set,
}

/// What is looked for: words in texts, or parts of words in an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sought {
    Words(Needle),
    Address(Address),
}

impl Sought {
    /// Whether it takes a look at all words of a segment.
    #[must_use]
    pub fn is_dear(&self) -> bool {
        match self {
            Self::Words(_) => false,
            Self::Address(address) => address.is_dear(),
        }
    }
}

impl From<Needle> for Sought {
    fn from(needle: Needle) -> Self {
        Self::Words(needle)
    }
}

/// Entries that may hold all of `sought`; `find` gives those that have a word in which one lies so.
pub(super) fn candidates<E>(
    bounds: &Bounds,
    sought: &[Sought],
    mut find: impl FnMut(&[u8], Reach) -> Result<Set, E>,
) -> Result<Set, E> {
    let mut all =
        Set::first(usize::try_from(bounds.to - bounds.from).unwrap_or(usize::MAX).min(super::set::ENTRIES));
    let mut find = |all: &mut Set, word: &[u8], reach: Reach, besides: &Set| {
        let mut found = find(word, reach)?;
        found.union(&bounds.partial);
        found.union(besides);
        if reach != Reach::Whole || is_dense(word) {
            found.union(&bounds.dense);
        }
        all.intersect(&found);
        Ok(all.is_empty())
    };
    for sought in sought {
        match sought {
            Sought::Words(needle) => {
                for (word, open) in needle.words() {
                    let reach = if open { Reach::Begins } else { Reach::Whole };
                    if find(&mut all, word, reach, &Set::none())? {
                        return Ok(all);
                    }
                }
            }
            Sought::Address(address) => {
                let mut cut = Set::first(super::set::ENTRIES);
                find(&mut cut, CUT, Reach::Whole, &Set::none())?;
                for (part, reach) in address.parts() {
                    if find(&mut all, part, reach, &cut)? {
                        return Ok(all);
                    }
                }
            }
        }
    }
    Ok(all)
}
