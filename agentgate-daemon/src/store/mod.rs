//! The audit log on disk: one redb file. Synchronous; knows nothing of tasks, queues or the network.
//! `audit` owns the thread that writes; any thread may read beside it (redb keeps snapshots).
//!
//! Layout, schema 1. Integers in keys sort as numbers; every table is in the one file, and one
//! transaction changes all of them together.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `meta` | `"schema"`, `"last_id"` | the schema's version; the highest id ever given out |
//! | `records` | id | 1 byte of format, then the record; format 1 is JSON without body bytes |
//! | `bodies` | (id, 0 request or 1 response) | the captured bytes; absent where there are none |
//! | `open` | id | the host it was indexed under (empty for none); present until the final write |
//! | `hosts` | (host, id) | nothing: the index behind a query by host |
//! | `tallies` | (epoch, window, session, class, column) | how many; see `tally` |
//! | `epochs` | name | number of one life of the kernel's counters |
//! | `sessions` | (epoch, session's number) | its name |
//! | `blocks` | id / 1024 | earliest and latest start in the block, and which kinds and verdicts it holds |
//!
//! A later format of a record takes another first byte and is read beside format 1. A change that an
//! older program would misread raises the schema, and a program that meets a higher schema than its
//! own refuses the file.
//!
//! Commits take two phases, so that after a crash redb need not tell by a checksum, which bytes chosen
//! by an agent could be made to match, whether a commit finished. They do not save redb's allocator
//! state (`quick repair`): that makes every commit dearer by the size of the file, from half a
//! millisecond to many at 2 GB. The price is that opening after a crash, or after an I/O error, reads
//! the file once; opening after a clean close does not.

mod error;
mod query;
mod record;
mod tables;
pub mod tally;
mod write;

#[cfg(test)]
pub(crate) mod failing;
#[cfg(test)]
mod tests;

use std::{
    fmt, fs,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
    sync::{PoisonError, RwLock, atomic::AtomicU32},
};

use bytes::Bytes;
use redb::{Database, ReadTransaction, ReadableDatabase as _};

pub use error::StoreError;
pub use query::{HostPattern, LIMIT_CAP, Page, Query, SCAN_CAP};
pub use tables::Side;
pub(crate) use write::Write;

use crate::model::{Failure, Record, RecordId};

/// Bytes of redb's page cache. redb's own default of 1 GiB grows the daemon by as much.
const CACHE_BYTES: usize = 16 << 20;

type Opener = Box<dyn Fn() -> Result<Database, StoreError> + Send + Sync>;

/// The open audit log.
pub struct Store {
    /// `None` after a failed reopening: redb refuses a database after an I/O error until it is
    /// closed and opened again, and that can fail too.
    database: RwLock<Option<Database>>,
    opener: Opener,
    /// The epoch that records are counted in; 0 for none.
    epoch: AtomicU32,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the log at `path`, makes it (mode 0600) where there is none, and ends what a previous
    /// run left open as [`State::Failed`](crate::model::State) with code `interrupted`.
    ///
    /// # Errors
    /// [`StoreError::Busy`] while another process has it open, [`StoreError::Newer`] for a schema of
    /// a later version, else what the file system or redb reports.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref().to_owned();
        Self::open_by(Box::new(move || open_file(&path)))
    }

    pub(crate) fn open_by(opener: Opener) -> Result<Self, StoreError> {
        let store = Self { database: RwLock::new(Some(opener()?)), opener, epoch: AtomicU32::new(0) };
        store.settle(None, &interrupted())?;
        Ok(store)
    }

    /// The record with this id.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read or the record is of an unknown format.
    pub fn get(&self, id: RecordId) -> Result<Option<Record>, StoreError> {
        let table = self.read()?.open_table(tables::RECORDS)?;
        table.get(id.0)?.map(|value| record::decode(id, value.value())).transpose()
    }

    /// The captured bytes of one side of an exchange, as they were on the wire. `None` where nothing
    /// was captured, which includes everything that is still open.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub fn body(&self, id: RecordId, side: Side) -> Result<Option<Bytes>, StoreError> {
        let table = self.read()?.open_table(tables::BODIES)?;
        Ok(table.get((id.0, side.key()))?.map(|value| Bytes::copy_from_slice(value.value())))
    }

    /// The id that the next record gets.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub fn next_id(&self) -> Result<RecordId, StoreError> {
        let table = self.read()?.open_table(tables::META)?;
        let last = table.get(tables::LAST_ID)?.map_or(0, |value| value.value());
        Ok(RecordId(last + 1))
    }

    /// Closes the file and opens it again, as redb demands after an I/O error, ends those of `unsure`
    /// that are in it as open (their commit reported an error and was kept none the less), and
    /// returns the next id. Always commits, so that success means that the file can be written.
    /// Of `unsure`, what is over and in it none the less counts for nothing: whoever recorded it was
    /// refused, and records it again or declares it lost.
    pub(crate) fn recover(&self, unsure: &[RecordId]) -> Result<RecordId, StoreError> {
        {
            let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
            // Closed before it is opened: the file is locked by whoever has it open.
            *database = None;
            *database = Some((self.opener)()?);
        }
        self.settle(Some(unsure), &unacknowledged())?;
        self.next_id()
    }

    fn read(&self) -> Result<ReadTransaction, StoreError> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        Ok(database.as_ref().ok_or(StoreError::Closed)?.begin_read()?)
    }
}

fn open_file(path: &Path) -> Result<Database, StoreError> {
    let unusable = |source| StoreError::File { path: path.to_owned(), source };
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(unusable)?;
    let mode = file.metadata().map_err(unusable)?.permissions().mode();
    if mode & 0o077 != 0 {
        file.set_permissions(fs::Permissions::from_mode(0o600)).map_err(unusable)?;
    }
    match Database::builder().set_cache_size(CACHE_BYTES).create_file(file) {
        Err(redb::DatabaseError::DatabaseAlreadyOpen) => Err(StoreError::Busy { path: path.to_owned() }),
        opened => Ok(opened?),
    }
}

fn interrupted() -> Failure {
    Failure {
        blame: "gate".into(),
        code: "interrupted".into(),
        detail: "the gate stopped before this ended; the time of its end is that of the next start".into(),
    }
}

fn unacknowledged() -> Failure {
    Failure {
        blame: "gate".into(),
        code: "audit_unavailable".into(),
        detail: "the audit log reported an error when this began, so it was refused".into(),
    }
}
