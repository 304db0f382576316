//! Full text: which records may hold words.
//!
//! The log is cut into *segments*, runs of its entries. A segment knows every word that the texts of its
//! entries have ([`crate::words`] says what these are), and which entries have it: so a word costs a row or
//! two for each segment, and none of the records. What is found are *candidates*: records of which the
//! index does not rule out that they have all words, in any order. Who asks looks into them.
//!
//! One thread ([`Indexer`]) reads what the tables have and builds the last segment in memory, where it is
//! searched as well. It runs where nothing else wants to ([`pacer`]), and holds nothing that others wait for;
//! far behind, or with a search at hand, it takes a share. A segment that is whole is handed to whoever makes
//! the next transaction. After a restart the thread goes on behind the last segment that is in the tables;
//! what no segment is about is a candidate whatever is looked for.
//!
//! Memory: the segment under way and one or two that are whole, each at most some 40 MiB, mostly far less,
//! and what the thread remembers of texts ([`memo`]), at most some 12 MiB.

mod candidates;
mod find;
mod format;
mod indexer;
mod lag;
mod memo;
mod pacer;
mod scribe;
mod segment;
mod set;
mod table;

#[cfg(test)]
mod tests;

use std::sync::{
    Arc, Condvar, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use redb::{ReadTransaction, WriteTransaction};
use serde::Serialize;

pub use candidates::Candidates;
pub use find::Sought;
pub use indexer::Indexer;
pub(in crate::store) use pacer::Pacer;

use super::{StoreError, packed::Packer};
use crate::model::TextIndex;
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

/// Entries without an index that a search may find without a reason to have them indexed first: as many one
/// call looks through.
const FEW: u64 = 8192;

/// What is known beside the tables.
#[derive(Debug, Default)]
pub(super) struct Text {
    /// What commits look at: the thread takes it when it is not idle, so it is never starved with it.
    state: Mutex<State>,
    /// Touched when there are more entries, when segments were written, and at the end.
    changed: Condvar,
    /// What searches look at besides. They raise the thread where it has this.
    growing: Mutex<Growing>,
    pacer: Arc<Pacer>,
    /// Entries before this one were looked for.
    wanted: AtomicU64,
    /// The state says that the thread should stop what it does.
    interrupted: AtomicBool,
    #[cfg(test)]
    pause: tests::Pause,
}

#[derive(Debug, Default)]
struct State {
    mode: TextIndex,
    /// Segments that are whole, until they are in the tables; oldest first.
    whole: Vec<Arc<Segment>>,
    /// Entries before this one are indexed, here or in the tables.
    indexed: u64,
    /// Counts the commits, so that none is missed.
    commits: u64,
    /// Somebody took the tables out: the thread begins again.
    reset: bool,
    stopping: bool,
}

/// Segments that are not whole.
#[derive(Debug, Default)]
struct Growing {
    /// The one under way.
    builder: Option<Builder>,
    /// The one before it, while it is made whole.
    closing: Option<Arc<Builder>>,
}

impl Text {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For others than the thread.
    fn growing(&self) -> MutexGuard<'_, Growing> {
        self.pacer.wait_for(&self.growing)
    }

    /// Entries before `end` are looked for: where many of them are not indexed, that is done before other
    /// things.
    fn want(&self, end: u64) {
        let (mode, indexed) = {
            let state = self.state();
            (state.mode, state.indexed)
        };
        if mode != TextIndex::Off && end.saturating_sub(indexed) > FEW {
            self.wanted.fetch_max(end, Ordering::SeqCst);
            self.pacer.raise();
        }
    }

    /// Records that may have all of `sought`: with no index, all there are.
    pub(super) fn candidates(
        &self,
        transaction: &ReadTransaction,
        sought: Vec<Sought>,
    ) -> Result<Candidates, StoreError> {
        Candidates::new(self, transaction, sought)
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
        // Before the thread is told: what it makes until then it throws away.
        *self.growing() = Growing::default();
        self.wanted.store(0, Ordering::SeqCst);
        self.interrupt(|state| {
            state.whole.clear();
            (state.indexed, state.reset) = (0, true);
        });
    }

    /// Has the thread look at the state, which is changed.
    fn interrupt(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        change(&mut state);
        self.interrupted.store(true, Ordering::SeqCst);
        drop(state);
        self.changed.notify_all();
        self.pacer.raise();
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
