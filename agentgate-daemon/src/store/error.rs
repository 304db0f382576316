//! What can go wrong with the store.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
};

use super::canonical::Malformed;
use crate::{chain::KeyError, model::RecordId};

/// A failure of the audit log's file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process, or another `Store` of this one, has the file open.
    #[error("{} is in use by another process; is agentgated running already?", path.display())]
    Busy { path: PathBuf },
    /// The file was written by a later version.
    #[error(
        "the audit log has schema {found}, this program knows up to {known}: use the version that wrote it"
    )]
    Newer { found: u64, known: u64 },
    /// The file was written by an earlier version, and is to be left as it is.
    #[error("the audit log has schema {found}, and {known} is needed: start agentgated on it once")]
    Older { found: u64, known: u64 },
    /// The file cannot be made or opened.
    #[error("cannot open {}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    /// The file was closed after an I/O error and could not be opened again so far.
    #[error("the audit log is closed after an I/O error and could not be opened again")]
    Closed,
    /// A record that does not read as its format says, or is of a later version.
    #[error("record {id} cannot be read: {source}")]
    Malformed { id: RecordId, source: Malformed },
    /// A record of schema 1 that does not read as its format says.
    #[error("record {id} cannot be read: {source}")]
    Unreadable { id: RecordId, source: serde_json::Error },
    /// A record of schema 1 in a format that there was not.
    #[error("record {id} has format {format}, which this program does not know")]
    UnknownFormat { id: RecordId, format: u8 },
    /// What was acknowledged last cannot be written or read: disk full, I/O errors.
    #[error("the journal of the audit log: {0}")]
    Journal(#[source] io::Error),
    /// Nothing can be compressed: no memory.
    #[error("the audit log cannot be packed: {0}")]
    Packing(#[source] io::Error),
    /// Nothing can be signed.
    #[error("the audit log cannot be signed: {0}")]
    Signing(#[source] KeyError),
    /// What the hashes over the log say of its end is missing or altered.
    #[error(
        "the audit log was changed from outside: {0}; `agentctl audit verify` says what, and moving the \
         file away begins a new one"
    )]
    Chain(&'static str),
    /// An export cannot be gone on with.
    #[error("{0}")]
    Resumed(&'static str),
    /// A file of a version that had no chain.
    #[error("the audit log has schema {schema}, which was not signed: the gate brings it to a later one")]
    Unsigned { schema: u64 },
    /// What was acknowledged last cannot be brought into the tables at the moment.
    #[error("the audit log cannot be written, and what it holds is not up to date")]
    Behind,
    /// What was captured is gone because its time was up, or was not with what was imported.
    #[error("a body of record {id} is not kept: its time was up, or the export that was imported had it not")]
    BodyDropped { id: RecordId },
    /// A backup, a restoration or a compaction is under way.
    #[error("the audit log is being backed up or compacted; try again when that is done")]
    Upkeep,
    /// A copy that cannot have all of the log.
    #[error("part of the audit log cannot be read, so it is not copied: see `agentctl audit verify`")]
    Incomplete,
    /// Who asked for it has left.
    #[error("stopped")]
    Stopped,
    /// What was to be a backup is none, or not all of one.
    #[error("not a backup of an audit log: {0}")]
    NotADump(#[source] Malformed),
    /// There is a log where one was to be put.
    #[error("there is an audit log at {} already", path.display())]
    Exists { path: PathBuf },
    /// A scope or name of a counter, a limit or an approval is too long.
    #[error("a name of more than 512 bytes")]
    NameTooLong,
    /// A limit or an approval that does not read as its format says, or is of a later version.
    #[error("a row cannot be read: {0}")]
    BadRow(#[source] Malformed),
    /// An index names a record that is not there.
    #[error("record {id} is in an index but not in the log")]
    Missing { id: RecordId },
    /// The index of full text does not read as its format says: `agentctl audit reindex` makes it anew.
    #[error("the text index of the audit log is damaged, make it anew with `agentctl audit reindex`: {0}")]
    Text(#[source] Malformed),
    /// The file contradicts itself.
    #[error(
        "the file of the audit log is damaged: `agentctl audit verify` says how far, `agentctl audit restore` puts \
         a backup in its place"
    )]
    Damaged,
    /// What redb reports: disk full, I/O errors, corruption.
    #[error("{0}")]
    Redb(Box<redb::Error>),
}

impl StoreError {
    /// Stable snake_case code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Busy { .. } => "store_busy",
            Self::Newer { .. } => "store_newer",
            Self::Older { .. } => "store_older",
            Self::File { .. } => "store_file",
            Self::Closed => "store_closed",
            Self::Damaged => "store_damaged",
            Self::Behind => "store_behind",
            Self::UnknownFormat { .. } => "store_unknown_format",
            Self::BodyDropped { .. } => "store_body_dropped",
            Self::Upkeep => "store_upkeep",
            Self::Incomplete => "store_unreadable",
            Self::Stopped => "store_stopped",
            Self::NotADump(_) => "store_not_a_backup",
            Self::Exists { .. } => "store_exists",
            Self::NameTooLong => "store_name_too_long",
            Self::BadRow(_) => "store_unreadable",
            Self::Malformed { .. } | Self::Unreadable { .. } | Self::Missing { .. } | Self::Text(_) => {
                "store_unreadable"
            }
            Self::Journal(_) | Self::Redb(_) => "store_io",
            Self::Packing(_) => "store_packing",
            Self::Signing(_) => "store_signing",
            Self::Chain(_) => "store_chain",
            Self::Resumed(_) => "export_not_resumed",
            Self::Unsigned { .. } => "store_unsigned",
        }
    }

    /// Whether redb refuses to go on because of an *earlier* I/O error, perhaps a reader's: nothing
    /// was tried, and opening the file again may be all it takes.
    pub(crate) fn needs_reopening(&self) -> bool {
        match self {
            Self::Redb(error) => matches!(**error, redb::Error::PreviousIo | redb::Error::DatabaseClosed),
            // What it has in memory is of no use after an assertion that did not hold.
            Self::Closed | Self::Damaged => true,
            Self::Behind
            | Self::BodyDropped { .. }
            | Self::Upkeep
            | Self::Incomplete
            | Self::Stopped
            | Self::NotADump(_)
            | Self::Exists { .. }
            | Self::NameTooLong
            | Self::BadRow(_)
            | Self::Busy { .. }
            | Self::Newer { .. }
            | Self::Older { .. }
            | Self::File { .. }
            | Self::UnknownFormat { .. }
            | Self::Unreadable { .. }
            | Self::Malformed { .. }
            | Self::Journal(_)
            | Self::Packing(_)
            | Self::Signing(_)
            | Self::Chain(_)
            | Self::Resumed(_)
            | Self::Unsigned { .. }
            | Self::Text(_)
            | Self::Missing { .. } => false,
        }
    }
}

macro_rules! from_redb {
    ($($error:ident),*) => {$(
        impl From<redb::$error> for StoreError {
            fn from(error: redb::$error) -> Self {
                Self::Redb(Box::new(error.into()))
            }
        }
    )*};
}
from_redb!(DatabaseError, TransactionError, TableError, StorageError, SetDurabilityError, CommitError);

/// Does what reads or writes pages of the file. Whatever their bytes are, they are no reason to fall over; redb
/// checks what it reads by assertions.
pub(super) fn unharmed<T>(work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(StoreError::Damaged))
}
