//! The tables of schema 1; the module above documents them.

use redb::TableDefinition;
use serde::{Deserialize, Serialize};

/// Version of the layout as a whole.
pub(super) const SCHEMA_VERSION: u64 = 1;

pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
pub(super) const RECORDS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("records");
pub(super) const BODIES: TableDefinition<'_, (u64, u8), &[u8]> = TableDefinition::new("bodies");
pub(super) const OPEN: TableDefinition<'_, u64, &str> = TableDefinition::new("open");
pub(super) const HOSTS: TableDefinition<'_, (&str, u64), ()> = TableDefinition::new("hosts");
pub(super) const BLOCKS: TableDefinition<'_, u64, (i64, i64, u32)> = TableDefinition::new("blocks");

/// Keys of [`META`].
pub(super) const SCHEMA: &str = "schema";
pub(super) const LAST_ID: &str = "last_id";

/// Ids a row of [`BLOCKS`] covers.
pub(super) const BLOCK: u64 = 1024;

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
