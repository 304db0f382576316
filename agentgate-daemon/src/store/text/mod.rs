//! Full text: which records may hold words.
//!
//! The log is cut into *segments*, runs of its entries. A segment knows every word that the texts of its
//! entries have ([`crate::words`] says what these are), and which entries have it: so a word costs a row or
//! two for each segment, and none of the records. What is found are *candidates*: records of which the
//! index does not rule out that they have all words, in any order. Who asks looks into them.
//!
//! One thread at the lowest priority ([`Indexer`]) reads what the tables have and builds the last segment
//! in memory, where it is searched as well. A segment that is whole is handed to whoever makes the next
//! transaction. After a restart the thread goes on behind the last segment that is in the tables; what
//! no segment is about is a candidate whatever is looked for.
//!
//! Memory: the segment under way and one or two that are whole, each at most some 40 MiB, mostly far less.

mod candidates;
mod check;
mod find;
mod format;
mod indexer;
mod segment;
mod set;
mod table;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use redb::{ReadTransaction, WriteTransaction};
use serde::Serialize;

pub use candidates::Candidates;
pub(in crate::store) use check::check;
pub use indexer::Indexer;

use super::{StoreError, packed::Packer};
use crate::{model::TextIndex, words::Needle};
use segment::{Builder, Segment};
use table::{Reading, Writing};
pub(in crate::store) use table::{SEGMENTS, WORDS};

/// How the index does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TextStatus {
    /// What is indexed.
    pub mode: TextIndex,
    /// Entries of the log before this one are indexed.
    pub indexed: u64,
    /// The number of the log's next entry.
    pub entries: u64,
    /// Segments in the tables.
    pub segments: u64,
    /// Bytes that they take there.
    pub bytes: u64,
}

impl TextStatus {
    /// Entries that are not indexed yet.
    #[must_use]
    pub fn lag(&self) -> u64 {
        self.entries.saturating_sub(self.indexed)
    }
}

/// What is known beside the tables.
#[derive(Debug, Default)]
pub(super) struct Text {
    state: Mutex<State>,
    /// Touched when there are more entries, when segments were written, and at the end.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    mode: TextIndex,
    /// The segment under way.
    builder: Option<Builder>,
    /// The one before it, while it is made whole.
    closing: Option<Arc<Builder>>,
    /// Those that are whole, until they are in the tables; oldest first.
    whole: Vec<Arc<Segment>>,
    /// Entries before this one are indexed, here or in the tables.
    indexed: u64,
    /// Counts the commits, so that none is missed.
    commits: u64,
    /// Somebody took the tables out: the thread begins again.
    reset: bool,
    stopping: bool,
}

impl Text {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that may have all of `needles`: with no index, all there are.
    pub(super) fn candidates(
        &self,
        transaction: &ReadTransaction,
        needles: Vec<Needle>,
    ) -> Result<Candidates, StoreError> {
        Candidates::new(self, transaction, needles)
    }

    /// Segments that are to go into the next transaction.
    pub(super) fn whole(&self) -> Vec<Arc<Segment>> {
        self.state().whole.clone()
    }

    /// A transaction was committed, with these in it.
    pub(super) fn committed(&self, written: &[Arc<Segment>]) {
        let mut state = self.state();
        state.whole.retain(|segment| !written.iter().any(|written| Arc::ptr_eq(segment, written)));
        state.commits += 1;
        drop(state);
        self.changed.notify_all();
    }

    /// The tables were taken out, or are others: nothing is indexed.
    pub(super) fn reset(&self) {
        let mut state = self.state();
        (state.builder, state.closing) = (None, None);
        state.whole.clear();
        (state.indexed, state.reset) = (0, true);
        drop(state);
        self.changed.notify_all();
    }

    /// Entries before this one are indexed, as the thread knows it; `None` where there is no index.
    pub(super) fn indexed(&self) -> Option<u64> {
        let state = self.state();
        (state.mode != TextIndex::Off).then_some(state.indexed)
    }

    /// How the index does, by one snapshot.
    pub(super) fn status(
        &self,
        transaction: &ReadTransaction,
        entries: u64,
    ) -> Result<TextStatus, StoreError> {
        let (segments, bytes) = Reading::of(transaction)?.size()?;
        let (mode, indexed) = {
            let state = self.state();
            (state.mode, state.indexed)
        };
        let indexed = indexed.max(indexer::frontier(&Reading::of(transaction)?, mode)?.0);
        Ok(TextStatus { mode, indexed, entries, segments, bytes })
    }
}

#[cfg(test)]
impl Text {
    /// Waits until the thread has made it so.
    fn wait(&self, is_so: impl Fn(&State) -> bool) {
        let waited = self.changed.wait_while(self.state(), |state| !is_so(state));
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

/// Makes the tables where they are not there.
pub(super) fn open(transaction: &WriteTransaction) -> Result<(), StoreError> {
    Writing::open(transaction).map(drop)
}

/// Takes the tables out: they derive from the entries, and are made anew by and by.
pub(super) fn drop_tables(transaction: &WriteTransaction) -> Result<(), StoreError> {
    transaction.delete_table(SEGMENTS)?;
    transaction.delete_table(WORDS)?;
    Ok(())
}

/// Writes segments that are whole.
pub(super) fn write(transaction: &WriteTransaction, segments: &[Arc<Segment>]) -> Result<(), StoreError> {
    if segments.is_empty() {
        return Ok(());
    }
    // Its own, because what derives from the entries is no part of the log's weight.
    let mut packer = Packer::new()?;
    let mut tables = Writing::open(transaction)?;
    segments.iter().try_for_each(|segment| tables.put(segment, &mut packer))
}

/// Takes out the segments that are only about entries before `first`, the first that the log still has.
/// Returns how many.
pub(super) fn forget(transaction: &WriteTransaction, first: u64) -> Result<usize, StoreError> {
    let mut tables = Writing::open(transaction)?;
    let gone = tables.before(first)?;
    for from in &gone {
        tables.remove(*from, from + 1)?;
    }
    Ok(gone.len())
}
