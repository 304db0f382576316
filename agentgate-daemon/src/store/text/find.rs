//! Which entries of a segment may be what is looked for.

use super::set::Set;
use crate::words::{Needle, is_dense};

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

/// Entries that may hold all of `needles`; `find` gives those that have a word, or one that begins with it.
pub(super) fn candidates<E>(
    bounds: &Bounds,
    needles: &[Needle],
    mut find: impl FnMut(&[u8], bool) -> Result<Set, E>,
) -> Result<Set, E> {
    let mut all =
        Set::first(usize::try_from(bounds.to - bounds.from).unwrap_or(usize::MAX).min(super::set::ENTRIES));
    for (word, open) in needles.iter().flat_map(Needle::words) {
        let mut found = find(word, open)?;
        found.union(&bounds.partial);
        if open || is_dense(word) {
            found.union(&bounds.dense);
        }
        all.intersect(&found);
        if all.is_empty() {
            break;
        }
    }
    Ok(all)
}
