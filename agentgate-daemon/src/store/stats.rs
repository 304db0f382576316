//! How large the log is, and what takes the room.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use redb::{
    Key, ReadTransaction, ReadableTable as _, ReadableTableMetadata as _, TableDefinition, TableHandle as _,
    Value,
};
use serde::{Deserialize, Serialize};

use super::{
    Store, StoreError,
    error::unharmed,
    every::{self, Role, Visitor},
    retention,
    tables::{BODIES_FROM, DROPPED, ENTRIES, GROUPS, LAST_ID, META, PACKS, SPANS, UNDERWAY, there},
};
use crate::model::{TextIndex, Timestamp};

const DAY: u64 = 86_400_000_000;

/// One table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableStats {
    pub name: String,
    pub rows: u64,
    /// Of keys and values.
    pub bytes: u64,
    /// Of the file's pages that hold them.
    pub pages: u64,
}

/// The log as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Records that are kept.
    pub records: u64,
    /// Of them, how many are not over.
    pub underway: u64,
    /// Records that retention took.
    pub pruned: u64,
    /// Entries that are kept.
    pub entries: u64,
    /// Number of the first of them.
    pub first_entry: u64,
    /// Rows of captured bodies: packs, and parts of them.
    pub body_parts: u64,
    /// Bodies of entries before this one were dropped for their age.
    pub bodies_from: u64,
    /// When the oldest and the newest record that are kept began.
    pub oldest: Option<Timestamp>,
    pub newest: Option<Timestamp>,
    /// Length of the file, in bytes; it may have holes.
    pub file: u64,
    /// What the file takes of the disk.
    pub disk: u64,
    /// What is in use of it: what retention's bound in bytes is compared with.
    pub used: u64,
    /// Within the file and free.
    pub free: u64,
    /// Length of the journal beside it.
    pub journal: u64,
    /// Bytes of use that a day adds, over the time that the log covers; `None` for less than an hour.
    pub growth: Option<u64>,
    /// Entries before this one are in the index of words, as far as it goes.
    pub indexed: Option<u64>,
    pub tables: Vec<TableStats>,
}

/// How the log grows, and whether its index of words keeps up: what can be told without reading all of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// Bytes in use of the file.
    pub used: u64,
    /// Bytes of use that a day adds, over the time that the log covers; `None` for less than an hour.
    pub growth: Option<u64>,
    /// Entries that the index of words lacks; `None` where there is no such index.
    pub unindexed: Option<u64>,
}

/// Bytes of use that a day adds, where the log covers an hour.
fn growth(used: u64, oldest: Option<Timestamp>, newest: Option<Timestamp>) -> Option<u64> {
    let covered = oldest.zip(newest).map_or(0, |(oldest, newest)| newest.since(oldest));
    (covered >= DAY / 24)
        .then(|| u64::try_from(u128::from(used) * u128::from(DAY) / u128::from(covered)).unwrap_or(u64::MAX))
}

struct Measure<'s> {
    snapshot: &'s ReadTransaction,
    tables: Vec<TableStats>,
    pages: u64,
}

impl Visitor for Measure<'_> {
    fn visit<K: Key + 'static, V: Value + 'static>(
        &mut self,
        definition: TableDefinition<'static, K, V>,
        _role: Role,
    ) -> Result<(), StoreError> {
        let Some(table) = there(self.snapshot, definition)? else { return Ok(()) };
        let stats = table.stats()?;
        let pages = stats.stored_bytes() + stats.metadata_bytes() + stats.fragmented_bytes();
        self.pages += pages;
        self.tables.push(TableStats {
            name: definition.name().to_owned(),
            rows: table.len()?,
            bytes: stats.stored_bytes(),
            pages,
        });
        Ok(())
    }
}

impl Store {
    /// How the log grows, as the tables have it.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub fn pace(&self) -> Result<Pace, StoreError> {
        unharmed(|| {
            let snapshot = self.snapshot()?;
            let (meta, spans) = (snapshot.open_table(META)?, snapshot.open_table(SPANS)?);
            let oldest = spans.first()?.map(|(_, row)| Timestamp(row.value().2));
            let newest = spans.last()?.map(|(_, row)| Timestamp(row.value().3));
            let used = retention::used(&meta, self.blocks())?;
            let entries = meta.get(ENTRIES)?.map_or(0, |value| value.value());
            let unindexed = self.text.indexed().map(|indexed| entries.saturating_sub(indexed));
            Ok(Pace { used, growth: growth(used, oldest, newest), unindexed })
        })
    }

    /// Measures the log. Reads every page of it, beside whoever writes: seconds for each GiB that is not in
    /// memory.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub fn stats(&self) -> Result<Stats, StoreError> {
        unharmed(|| {
            let snapshot = self.read()?;
            let meta = snapshot.open_table(META)?;
            let number = |name| Ok::<_, StoreError>(meta.get(name)?.map_or(0, |value| value.value()));
            let first = snapshot.open_table(GROUPS)?.first()?.map(|(key, _)| key.value().0);
            let entries = number(ENTRIES)?;
            let first_entry = first.unwrap_or(entries);
            let (mut oldest, mut newest) = (None::<i64>, None::<i64>);
            for row in snapshot.open_table(SPANS)?.iter()? {
                let (_, _, earliest, latest, _) = row?.1.value();
                oldest = Some(oldest.map_or(earliest, |oldest| oldest.min(earliest)));
                newest = newest.max(Some(latest));
            }
            let mut measure = Measure { snapshot: &snapshot, tables: Vec::new(), pages: 0 };
            every::table(&mut measure)?;
            let length =
                |path: &std::path::Path| fs::metadata(path).map_or((0, 0), |m| (m.len(), m.blocks() * 512));
            let (file, disk) = length(&self.files.path);
            let used = retention::used(&meta, disk)?;
            let (oldest, newest) = (oldest.map(Timestamp), newest.map(Timestamp));
            let growth = growth(used, oldest, newest);
            let pruned = number(DROPPED)?;
            let text = self.text.status(&snapshot, entries)?;
            Ok(Stats {
                records: number(LAST_ID)?.saturating_sub(pruned),
                underway: snapshot.open_table(UNDERWAY)?.len()?,
                pruned,
                entries: entries.saturating_sub(first_entry),
                first_entry,
                body_parts: snapshot.open_table(PACKS)?.len()?,
                bodies_from: number(BODIES_FROM)?,
                oldest,
                newest,
                file,
                disk,
                used,
                free: file.saturating_sub(measure.pages),
                journal: length(&self.files.path.with_extension("journal")).0,
                growth,
                indexed: (text.mode != TextIndex::Off).then_some(text.indexed.min(entries)),
                tables: measure.tables,
            })
        })
    }
}
