//! Makes everything that derives from the log's entries anew, by reading them in their order.
//!
//! Groups and packs stay as they are, as do the tallies, because entries do not say which life of the
//! kernel's counters they belong to.

use std::sync::Arc;

use redb::{ReadableTable as _, WriteTransaction};

use super::{
    StoreError,
    canonical::{Glance, Malformed},
    chain::Chain,
    group,
    index::{Added, Index},
    packed,
    tables::{BODIES_FROM, DROPPED_ID},
    write::{Batch, Packing},
};
use crate::{chain::SigningKey, model::RecordId};

#[cfg(test)]
mod tests;

/// Takes the derived tables out and makes them anew. An entry that cannot be read stops it, and the
/// file stays as it is.
pub(super) fn run(
    transaction: &WriteTransaction,
    packing: &mut Packing,
    key: Arc<SigningKey>,
) -> Result<(), StoreError> {
    Index::drop(transaction)?;
    Chain::drop(transaction)?;
    let mut batch = Batch::anew(transaction, packing, key)?;
    // Ids up to that began in groups that are gone.
    let dropped = batch.meta.get(DROPPED_ID)?.map_or(0, |value| value.value());
    let bodies_from = batch.meta.get(BODIES_FROM)?.map_or(0, |value| value.value());
    let highest = batch.index.begin_after(dropped);
    let mut after = None;
    while let Some(number) = next_group(&batch, after)? {
        after = Some(number);
        batch.chain.begin_group(number)?;
        batch.index.begin_group(number)?;
        let unreadable = |id| move |source| StoreError::Malformed { id: RecordId(id), source };
        let content = packed::get(&batch.groups, number)?.unwrap_or(Err(Malformed("its group is not there")));
        let content = content.map_err(unreadable(0))?;
        for entry in group::entries(&content).map_err(unreadable(0))? {
            let encoded = content.get(entry.record.clone()).unwrap_or_default();
            let seen = Glance::at(encoded).map_err(unreadable(entry.id))?;
            let mut places = entry.places;
            if number < bodies_from {
                batch.bodies.keep_known(&mut places)?;
            }
            let added = Added { seen: &seen, encoded, group: number, places };
            batch.chain.add(encoded)?;
            batch.index.add(&added)?;
        }
    }
    batch.chain.begin_group(batch.entries)?;
    batch.index.begin_group(batch.entries)?;
    batch.index.end_at(highest);
    batch.finish()?;
    Ok(())
}

/// The group after this one.
fn next_group(batch: &Batch<'_, '_>, after: Option<u64>) -> Result<Option<u64>, StoreError> {
    let from = after.map_or((0, 0), |number| (number, u16::MAX));
    let row = batch.groups.range(from..)?.next().transpose()?;
    Ok(row.map(|(key, _)| key.value().0))
}
