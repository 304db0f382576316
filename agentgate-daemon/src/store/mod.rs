//! The audit log on disk: one redb file, and a journal beside it. Synchronous; knows nothing of tasks,
//! queues or the network. `audit` owns the thread that writes; any thread may read beside it (redb keeps
//! snapshots).
//!
//! The log is a row of *entries*, each one version of one record: that it begins, that it is over, or
//! both at once. An entry is on disk when it is in the [`journal`]; the tables get many at a time. Who
//! reads has the journal's entries brought into the tables first, so that what was acknowledged is seen.
//!
//! Layout, schema 3. Integers in keys sort as numbers; every table is in the one file, and one
//! transaction changes all of them together.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `meta` | name | a number: `schema`; `last_id`, the highest ever given out; `entries`, the number of the next; `next_pack`; `journal`, which one is this file's, and `taken`, the last frame of it that the tables have |
//! | `groups` | (number of its first entry, part) | entries, packed: see [`group`], and [`packed`] for what is the same of all packed values |
//! | `spans` | id of the first record that begins in a group | id of the last, the group, earliest and latest start, which kinds and verdicts they have |
//! | `ends` | id | the group of its last entry, where that is not the one it begins in |
//! | `underway` | id of a record that is not over | id of the first record of its group |
//! | `terms`, `postings`, `columns`, `begun` | | by what records are found: see [`postings`] |
//! | `packs` | (number, part) | captured bodies, packed: see [`bodies`] |
//! | `contents` | SHA-256 of a large body | its pack |
//! | `segments`, `words` | (number of a segment's first entry, part) | full text: see [`text`] |
//! | `tallies` | (epoch, window, session, class, column) | how many; see `tally` |
//! | `links` | number of a group | the link before each of its entries: see [`crate::chain`] |
//! | `checkpoints` | entries | a signed link |
//! | `keys`, `prunes` | from 0 on | statements of keys that sign, and of what retention took out |
//! | `marks` | name | bytes: `log`, its id; `tail`, the checkpoint of its end |
//! | `epochs` | name | number of one life of the kernel's counters |
//! | `sessions` | (epoch, session's number) | its name |
//!
//! Entries are never changed, and only the last group grows: what a hash over the entries in their
//! order says of the log stays true. Facts of a record that later parsers add are fields with tags of
//! their own ([`canonical`]), and need no other schema. A change that an older program would misread
//! raises the schema; a program brings an older file to its own schema when it opens it ([`migrate`]),
//! and refuses one of a later schema.
//!
//! Commits take two phases, so that after a crash redb need not tell by a checksum, which bytes chosen
//! by an agent could be made to match, whether a commit finished; and they save redb's allocator state
//! (`quick repair`), without which opening after a crash reads the whole file. Both make a commit dearer;
//! the journal makes commits rare.

mod bodies;
mod canonical;
mod chain;
pub mod compact;
pub mod dump;
mod error;
mod every;
mod file;
#[cfg(fuzzing)]
pub mod fuzzing;
mod group;
pub(crate) mod import;
mod index;
pub(crate) mod journal;
mod keys;
mod linked;
mod migrate;
mod opening;
pub mod order;
mod packed;
mod postings;
mod prove;
mod query;
mod read;
mod record;
mod reindex;
pub mod retention;
pub mod signed;
pub mod stats;
mod tables;
pub mod tally;
pub mod text;
pub mod typed;
mod uses;
pub(crate) mod verify;
mod write;

#[cfg(test)]
pub(crate) mod failing;
#[cfg(test)]
mod tests;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError, RwLock, TryLockError, Weak,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use redb::{Database, ReadTransaction, ReadableDatabase as _};

pub use canonical::Malformed;
pub use error::StoreError;
use error::unharmed;
use file::open_file;
pub use query::{Count, Cursor, HostPattern, LIMIT_CAP, NoCursor, Page, Query, SCAN_CAP};
pub use tables::Side;
pub(crate) use write::{Entry, Known, Write};

use crate::model::{Record, RecordId};
use journal::{Disk, Journal};
use read::Reader;
use write::Packing;

/// Code of records whose beginning was refused, in logs of schema 1.
const UNACKNOWLEDGED: &str = "audit_unavailable";

/// The files, and how they are opened.
pub(crate) struct Files {
    pub(crate) database: Box<dyn Fn() -> Result<Database, StoreError> + Send + Sync>,
    /// Of the database; the journal is beside it.
    pub(crate) path: PathBuf,
    pub(crate) disk: Box<dyn Fn(fs::File) -> Box<dyn Disk> + Send + Sync>,
}

/// Whoever holds entries that are not in the tables yet.
pub(crate) trait Behind: Send + Sync {
    /// Returns when all that was acknowledged before is in the tables; false where it cannot be brought
    /// there.
    fn catch_up(&self) -> bool;

    /// There are segments of the text index to be written, by and by.
    fn write_segments(&self);
}

/// The open audit log.
pub struct Store {
    /// `None` after a failed reopening: redb refuses a database after an I/O error until it is
    /// closed and opened again, and that can fail too.
    database: RwLock<Option<Database>>,
    files: Files,
    journal: Mutex<Option<Journal>>,
    packing: Mutex<Packing>,
    behind: Mutex<Option<Weak<dyn Behind>>>,
    /// The epoch that records are counted in; 0 for none.
    epoch: AtomicU32,
    /// Highest id in the tables.
    last_id: AtomicU64,
    text: text::Text,
    /// Held by who needs the log to stay whole for long: nothing is pruned meanwhile.
    upkeep: Mutex<()>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the log at `path`, makes it (mode 0600) where there is none, and ends what a previous
    /// run left open as [`State::Failed`] with code `interrupted`.
    ///
    /// # Errors
    /// [`StoreError::Busy`] while another process has it open, [`StoreError::Newer`] for a schema of
    /// a later version, else what the file system or redb reports.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref().to_owned();
        let at = path.clone();
        Self::open_by(Files {
            database: Box::new(move || open_file(&at)),
            path,
            disk: Box::new(|file| Box::new(file)),
        })
    }

    pub(crate) fn open_by(files: Files) -> Result<Self, StoreError> {
        unharmed(|| Self::open_unguarded(files))
    }

    fn open_unguarded(files: Files) -> Result<Self, StoreError> {
        let database = (files.database)()?;
        let store = Self::of(files, database)?;
        store.prepare()?;
        let journal = store.replay()?;
        *store.journal() = Some(journal);
        store.end_interrupted()?;
        Ok(store)
    }

    /// One without a journal, whose tables are there.
    fn of(files: Files, database: Database) -> Result<Self, StoreError> {
        Ok(Self {
            database: RwLock::new(Some(database)),
            files,
            journal: Mutex::new(None),
            packing: Mutex::new(Packing::new()?),
            behind: Mutex::new(None),
            epoch: AtomicU32::new(0),
            last_id: AtomicU64::new(0),
            text: text::Text::default(),
            upkeep: Mutex::new(()),
        })
    }

    /// The record with this id.
    ///
    /// # Errors
    /// [`StoreError`] where the file or the record cannot be read.
    pub fn get(&self, id: RecordId) -> Result<Option<Record>, StoreError> {
        unharmed(|| {
            let version = Reader::of(&self.read()?)?.get(id.0)?;
            version.map(|version| version.record()).transpose()
        })
    }

    /// The captured bytes of one side of an exchange, as they were on the wire. `None` where nothing
    /// was captured, which includes everything that is still open.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read, or the bytes are not those that were captured.
    pub fn body(&self, id: RecordId, side: Side) -> Result<Option<Bytes>, StoreError> {
        unharmed(|| self.body_of(id, side))
    }

    fn body_of(&self, id: RecordId, side: Side) -> Result<Option<Bytes>, StoreError> {
        let transaction = self.read()?;
        let Some(version) = Reader::of(&transaction)?.get(id.0)? else { return Ok(None) };
        let (group, entry) = version.entry()?;
        let side = usize::from(side.key());
        let malformed = |source| StoreError::Malformed { id, source };
        let seen = canonical::Glance::at(version.encoded()?).map_err(malformed)?;
        let expect = seen.digests.get(side).copied().flatten();
        let Some(place) = entry.places.get(side).copied().flatten() else {
            // One that was under way for so long that its body went first has the digest only.
            return if expect.is_some() { Err(StoreError::BodyDropped { id }) } else { Ok(None) };
        };
        let body = body_at(&transaction, place)?;
        if body.is_err() && retention::dropped(&transaction, group.number, place)? {
            return Err(StoreError::BodyDropped { id });
        }
        let body = body.map_err(malformed)?;
        if expect != Some(canonical::digest(&body)) {
            return Err(malformed(Malformed("a body is not the one that was captured")));
        }
        Ok(Some(body))
    }

    /// The id that the next record gets, but for those that are not in the tables yet.
    #[must_use]
    pub fn next_id(&self) -> RecordId {
        RecordId(self.last_id.load(Ordering::Acquire) + 1)
    }

    /// An entry as the log has it last; only what the tables have is looked at.
    pub(crate) fn entry(&self, id: RecordId) -> Result<Option<Entry>, StoreError> {
        unharmed(|| {
            let transaction = self.snapshot()?;
            let version = Reader::of(&transaction)?.get(id.0)?;
            version.map(|version| whole(&transaction, &version)).transpose()
        })
    }

    /// Makes entries durable in the journal; returns the sequence under which they are there.
    ///
    /// # Errors
    /// [`StoreError::Journal`]; nothing was added then, and the next attempt takes its place.
    pub(crate) fn log<'e>(&self, entries: impl Iterator<Item = &'e Entry>) -> Result<u64, StoreError> {
        let epoch = self.epoch.load(Ordering::Acquire);
        let mut journal = self.journal();
        let journal = journal.as_mut().ok_or(StoreError::Closed)?;
        journal.append(epoch, |out| entries.for_each(|entry| entry.put(out)))
    }

    /// Brings entries into the tables: all that the journal holds up to the sequence `taken`, which is
    /// its last. Its space is free then. Can be done again after an error.
    pub(crate) fn take(&self, entries: &[Entry], taken: u64) -> Result<(), StoreError> {
        self.commit(entries, self.epoch.load(Ordering::Acquire), Some(taken))?;
        if let Some(journal) = self.journal().as_mut() {
            journal.rewind();
        }
        Ok(())
    }

    /// What the journal holds is about to be brought into the tables, by [`Store::take_round`], while more
    /// is logged. One round at a time.
    pub(crate) fn hand_over(&self) {
        if let Some(journal) = self.journal().as_mut() {
            journal.hand_over();
        }
    }

    /// As [`Store::take`], of what was handed over.
    pub(crate) fn take_round(&self, entries: &[Entry], taken: u64) -> Result<(), StoreError> {
        self.commit(entries, self.epoch.load(Ordering::Acquire), Some(taken))?;
        if let Some(journal) = self.journal().as_mut() {
            journal.taken();
        }
        Ok(())
    }

    /// Bytes that the journal holds, but for those that were handed over.
    pub(crate) fn journaled(&self) -> u64 {
        self.journal().as_ref().map_or(0, Journal::used)
    }

    /// Who is to be asked to catch up before anything is read.
    pub(crate) fn follow(&self, behind: Weak<dyn Behind>) {
        *self.behind.lock().unwrap_or_else(PoisonError::into_inner) = Some(behind);
    }

    /// Closes the database and opens it again, as redb demands after an I/O error.
    pub(crate) fn reopen(&self) -> Result<(), StoreError> {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        // Closed before it is opened: the file is locked by whoever has it open.
        unharmed(|| {
            *database = None;
            *database = Some((self.files.database)()?);
            Ok(())
        })
    }

    /// How the text index does.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub fn text_status(&self) -> Result<text::TextStatus, StoreError> {
        unharmed(|| {
            let transaction = self.snapshot()?;
            let entries = transaction.open_table(tables::META)?.get(tables::ENTRIES)?;
            self.text.status(&transaction, entries.map_or(0, |value| value.value()))
        })
    }

    /// Records that may have all of `sought` in their heads or bodies, as the index has it.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub fn text_candidates(&self, sought: Vec<text::Sought>) -> Result<text::Candidates, StoreError> {
        unharmed(|| self.text.candidates(&self.read()?, sought))
    }

    /// Writes segments of the text index that are whole, where no other transaction took them along.
    pub(crate) fn write_segments(&self) -> Result<(), StoreError> {
        if self.text.whole().is_empty() { Ok(()) } else { self.commit(&[], 0, None) }
    }

    /// Asks for these to be written.
    fn ask_for_segments(&self) {
        let behind = self.behind.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(behind) = behind.and_then(|behind| behind.upgrade()) {
            behind.write_segments();
        }
    }

    fn catch_up(&self) -> Result<(), StoreError> {
        let behind = self.behind.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match behind.and_then(|behind| behind.upgrade()) {
            Some(behind) if !behind.catch_up() => Err(StoreError::Behind),
            Some(_) | None => Ok(()),
        }
    }

    /// What the tables hold once all that was acknowledged is in them; while they cannot be written,
    /// what they hold.
    fn read(&self) -> Result<ReadTransaction, StoreError> {
        match self.catch_up() {
            Ok(()) | Err(StoreError::Behind) => self.snapshot(),
            Err(error) => Err(error),
        }
    }

    /// The same, for those who count: an error while the tables cannot be written.
    fn read_all(&self) -> Result<ReadTransaction, StoreError> {
        self.catch_up()?;
        self.snapshot()
    }

    fn snapshot(&self) -> Result<ReadTransaction, StoreError> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        Ok(database.as_ref().ok_or(StoreError::Closed)?.begin_read()?)
    }

    /// Nobody else writes to the tables while this is held.
    #[cfg(test)]
    pub(crate) fn hold_tables(&self) -> redb::WriteTransaction {
        self.begin_write().unwrap()
    }

    /// Keeps others from pruning, backing up and compacting.
    fn upkeep(&self) -> Result<MutexGuard<'_, ()>, StoreError> {
        match self.upkeep.try_lock() {
            Ok(guard) => Ok(guard),
            Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => Err(StoreError::Upkeep),
        }
    }

    /// Makes everything that derives from the entries anew, in one transaction: nothing is written meanwhile.
    ///
    /// # Errors
    /// [`StoreError`] where an entry cannot be read; the file is as it was then.
    pub fn reindex(&self) -> Result<(), StoreError> {
        let _whole = self.upkeep()?;
        let mut packing = self.packing();
        let made = unharmed(|| {
            let transaction = self.begin_write()?;
            let key = self.key(&packing, &transaction)?;
            reindex::run(&transaction, &mut packing, key)?;
            reindex::mend(&transaction)?;
            transaction.commit()?;
            Ok(())
        });
        packing.forget();
        // Before anybody writes: what is indexed in memory goes on from tables that are gone.
        self.text.reset();
        made
    }

    fn journal(&self) -> MutexGuard<'_, Option<Journal>> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An entry of the tables with its bodies; without one that is not there any more.
fn whole(transaction: &ReadTransaction, version: &read::Version) -> Result<Entry, StoreError> {
    let encoded = version.encoded()?.to_vec();
    let mut bodies = [None, None];
    for (body, place) in bodies.iter_mut().zip(version.entry()?.1.places) {
        if let Some(place) = place {
            *body = body_at(transaction, place)?.ok();
        }
    }
    Ok(Entry { encoded, bodies, kept: false })
}

fn body_at(
    transaction: &ReadTransaction,
    place: bodies::Place,
) -> Result<Result<Bytes, Malformed>, StoreError> {
    let pack = packed::get(&transaction.open_table(tables::PACKS)?, place.pack)?;
    let pack = pack.unwrap_or(Err(Malformed("the pack of a body is not there")));
    Ok(pack.and_then(|pack| bodies::body_in(&pack, place.index).map(Bytes::copy_from_slice)))
}
