//! The tables of schema 3; the module above documents them.

use redb::{Key, ReadOnlyTable, ReadTransaction, TableDefinition, TableError, Value};
use serde::{Deserialize, Serialize};

use super::{StoreError, canonical::Digest, packed::Part};

/// Version of the layout as a whole.
pub(super) const SCHEMA_VERSION: u64 = 3;

pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
pub(super) const GROUPS: TableDefinition<'_, Part, &[u8]> = TableDefinition::new("groups");
pub(super) const SPANS: TableDefinition<'_, u64, SpanRow> = TableDefinition::new("spans");
pub(super) const ENDS: TableDefinition<'_, u64, u64> = TableDefinition::new("ends");
pub(super) const UNDERWAY: TableDefinition<'_, u64, u64> = TableDefinition::new("underway");
pub(super) const NAMES: TableDefinition<'_, (&str, u64), ()> = TableDefinition::new("names");
pub(super) const PACKS: TableDefinition<'_, Part, &[u8]> = TableDefinition::new("packs");
pub(super) const CONTENTS: TableDefinition<'_, &Digest, u64> = TableDefinition::new("contents");

/// Last id, group, earliest and latest start, kinds and verdicts.
pub(super) type SpanRow = (u64, u64, i64, i64, u32);

/// Keys of [`META`].
pub(super) const SCHEMA: &str = "schema";
pub(super) const LAST_ID: &str = "last_id";
/// Number of the next entry of the log.
pub(super) const ENTRIES: &str = "entries";
pub(super) const NEXT_PACK: &str = "next_pack";
/// Last sequence of the journal that is in the tables.
pub(super) const TAKEN: &str = "taken";
/// Highest id of a record whose first entry is pruned, and how many records are gone altogether.
pub(super) const DROPPED_ID: &str = "dropped_id";
pub(super) const DROPPED: &str = "dropped";
/// Number of the first group whose bodies were not dropped for their age.
pub(super) const BODIES_FROM: &str = "bodies_from";
/// Bytes of the values of `groups` and `packs`, and the most that they ever came to in this file.
pub(super) const WEIGHT: &str = "weight";
pub(super) const WEIGHT_MOST: &str = "weight_most";
/// Which journal that is.
pub(super) const JOURNAL: &str = "journal";

/// Which body of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// From the agent.
    Request,
    /// To the agent.
    Response,
}

impl Side {
    pub(super) fn key(self) -> u8 {
        match self {
            Self::Request => 0,
            Self::Response => 1,
        }
    }
}

/// A table as a snapshot has it; `None` where nothing was ever put into it.
pub(super) fn there<K: Key + 'static, V: Value + 'static>(
    snapshot: &ReadTransaction,
    table: TableDefinition<'_, K, V>,
) -> Result<Option<ReadOnlyTable<K, V>>, StoreError> {
    match snapshot.open_table(table) {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
