//! Which packs of bodies are still needed: for each the last group that refers to it, so that a pack goes
//! with that group.

use std::collections::BTreeMap;

use redb::{ReadableTable as _, Table, TableDefinition, WriteTransaction};

use super::{StoreError, bodies::Place};

pub(super) const USES: TableDefinition<'_, u64, u64> = TableDefinition::new("uses");

/// The table during one transaction.
#[derive(Debug)]
pub(super) struct Uses<'t> {
    table: Table<'t, u64, u64>,
    /// Held back, because a pack has many bodies.
    latest: BTreeMap<u64, u64>,
}

impl<'t> Uses<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, StoreError> {
        Ok(Self { table: transaction.open_table(USES)?, latest: BTreeMap::new() })
    }

    pub(super) fn drop(transaction: &WriteTransaction) -> Result<(), StoreError> {
        transaction.delete_table(USES)?;
        Ok(())
    }

    /// An entry of `group` has its bodies at `places`. Groups come in their order.
    pub(super) fn add(&mut self, group: u64, places: [Option<Place>; 2]) {
        for place in places.into_iter().flatten() {
            self.latest.insert(place.pack, group);
        }
    }

    /// The last group that refers to a pack.
    pub(super) fn last(&self, pack: u64) -> Result<Option<u64>, StoreError> {
        match self.latest.get(&pack) {
            Some(group) => Ok(Some(*group)),
            None => Ok(self.table.get(pack)?.map(|group| group.value())),
        }
    }

    pub(super) fn remove(&mut self, pack: u64) -> Result<(), StoreError> {
        self.latest.remove(&pack);
        self.table.remove(pack)?;
        Ok(())
    }

    /// Takes out, and returns, what no group after `group` refers to. Reads the whole table.
    pub(super) fn take_up_to(&mut self, group: u64) -> Result<Vec<u64>, StoreError> {
        let mut found = Vec::new();
        for row in self.table.extract_if(|_, last| last <= group)? {
            let (pack, _) = row?;
            found.push(pack.value());
        }
        Ok(found)
    }

    pub(super) fn finish(mut self) -> Result<(), StoreError> {
        for (pack, group) in &self.latest {
            let known = self.table.get(pack)?.map(|group| group.value());
            if known != Some(*group) {
                self.table.insert(pack, group)?;
            }
        }
        Ok(())
    }
}
