//! What can go wrong with the store.

use std::{io, path::PathBuf};

use crate::model::RecordId;

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
    /// The file cannot be made or opened.
    #[error("cannot open {}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    /// The file was closed after an I/O error and could not be opened again so far.
    #[error("the audit log is closed after an I/O error and could not be opened again")]
    Closed,
    /// A record whose format this program does not know.
    #[error("record {id} has format {format}, which this program does not know")]
    UnknownFormat { id: RecordId, format: u8 },
    /// A record that does not read as its format says.
    #[error("record {id} cannot be read: {source}")]
    Unreadable { id: RecordId, source: serde_json::Error },
    /// A record that cannot be written as JSON.
    #[error("record {id} cannot be encoded: {source}")]
    Unwritable { id: RecordId, source: serde_json::Error },
    /// An index names a record that is not there.
    #[error("record {id} is in an index but not in the log")]
    Missing { id: RecordId },
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
            Self::File { .. } => "store_file",
            Self::Closed => "store_closed",
            Self::UnknownFormat { .. } => "store_unknown_format",
            Self::Unreadable { .. } | Self::Missing { .. } => "store_unreadable",
            Self::Unwritable { .. } => "store_unwritable",
            Self::Redb(_) => "store_io",
        }
    }

    /// Whether redb refuses to go on because of an *earlier* I/O error, perhaps a reader's: nothing
    /// was tried, and opening the file again may be all it takes.
    pub(crate) fn needs_reopening(&self) -> bool {
        match self {
            Self::Redb(error) => matches!(**error, redb::Error::PreviousIo | redb::Error::DatabaseClosed),
            Self::Closed => true,
            Self::Busy { .. }
            | Self::Newer { .. }
            | Self::File { .. }
            | Self::UnknownFormat { .. }
            | Self::Unreadable { .. }
            | Self::Unwritable { .. }
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
