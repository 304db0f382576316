//! Makes everything that derives from the log's entries anew, by reading them in their order.
//!
//! Groups and packs stay as they are, as do the tallies, because entries do not say which life of the
//! kernel's counters they belong to.

use std::sync::Arc;

use redb::{ReadableTable as _, WriteTransaction};

use super::{
    StoreError,
    bodies::body_in,
    canonical::{self, Glance, Malformed},
    chain::Chain,
    group,
    index::{Added, Index},
    packed,
    tables::{BODIES_FROM, CONTENTS, DROPPED_ID, GROUPS, META, NEXT_PACK, PACKS, WEIGHT, WEIGHT_MOST},
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

/// Sets right what derives from bodies: where large ones are, and the numbers that are kept of them.
pub(super) fn mend(transaction: &WriteTransaction) -> Result<(), StoreError> {
    let (packs, mut contents) = (transaction.open_table(PACKS)?, transaction.open_table(CONTENTS)?);
    let mut wrong = Vec::new();
    for row in contents.iter()? {
        let (digest, pack) = row?;
        let pack = packed::get(&packs, pack.value())?.and_then(Result::ok).unwrap_or_default();
        if !body_in(&pack, 0).is_ok_and(|body| canonical::digest(body) == *digest.value()) {
            wrong.push(*digest.value());
        }
    }
    for digest in wrong {
        contents.remove(&digest)?;
    }
    let (mut weight, mut next) = (0, 0);
    for row in packs.iter()? {
        let (key, value) = row?;
        (weight, next) = (weight + value.value().len() as u64, key.value().0 + 1);
    }
    for row in transaction.open_table(GROUPS)?.iter()? {
        weight += row?.1.value().len() as u64;
    }
    let mut meta = transaction.open_table(META)?;
    for (name, least) in [(NEXT_PACK, next), (WEIGHT_MOST, weight)] {
        let is = meta.get(name)?.map_or(0, |value| value.value());
        meta.insert(name, is.max(least))?;
    }
    meta.insert(WEIGHT, weight)?;
    Ok(())
}

/// The group after this one.
fn next_group(batch: &Batch<'_, '_>, after: Option<u64>) -> Result<Option<u64>, StoreError> {
    let from = after.map_or((0, 0), |number| (number, u16::MAX));
    let row = batch.groups.range(from..)?.next().transpose()?;
    Ok(row.map(|(key, _)| key.value().0))
}
