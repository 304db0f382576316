//! From earlier schemas. Schema 1 had a row of JSON for each record, and a row for each body. Schema 2 had
//! the log as it is, and fewer tables that derive from it: they are made anew.

use std::sync::Arc;

use redb::{ReadableTable as _, TableDefinition, WriteTransaction};

use super::{
    Entry, StoreError, reindex,
    tables::{META, SCHEMA, SCHEMA_VERSION},
    write::{Batch, Packing},
};
use crate::{
    chain::SigningKey,
    model::{Record, RecordId, State},
};

pub(super) const RECORDS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("records");
pub(super) const BODIES: TableDefinition<'_, (u64, u8), &[u8]> = TableDefinition::new("bodies");
pub(super) const OPEN: TableDefinition<'_, u64, &str> = TableDefinition::new("open");
pub(super) const HOSTS: TableDefinition<'_, (&str, u64), ()> = TableDefinition::new("hosts");
pub(super) const BLOCKS: TableDefinition<'_, u64, (i64, i64, u32)> = TableDefinition::new("blocks");

/// JSON of the record, without body bytes, after this byte.
pub(super) const FORMAT_JSON: u8 = 1;

/// Brings a file of schema `found`, which is an earlier one, to this program's.
pub(super) fn run(
    transaction: &WriteTransaction,
    packing: &mut Packing,
    key: &Arc<SigningKey>,
    found: u64,
) -> Result<(), StoreError> {
    tracing::info!("bringing the audit log from schema {found} to {SCHEMA_VERSION}");
    if found < 2 {
        let mut batch = Batch::anew(transaction, packing, key.clone())?;
        from_first(transaction, &mut batch)?;
        batch.finish()?;
        drop_first(transaction)?;
    } else {
        reindex::run(transaction, packing, key.clone())?;
    }
    transaction.open_table(META)?.insert(SCHEMA, SCHEMA_VERSION)?;
    Ok(())
}

/// Moves every record and body. One that cannot be read stops it, and the file stays as it is: the
/// version that wrote it can read it.
fn from_first(transaction: &WriteTransaction, batch: &mut Batch<'_, '_>) -> Result<(), StoreError> {
    let records = transaction.open_table(RECORDS)?;
    let bodies = transaction.open_table(BODIES)?;
    let highest = batch.index.begin_after(0);
    for row in records.iter()? {
        let (id, value) = row?;
        let mut record = decode(RecordId(id.value()), value.value())?;
        let body =
            |side| Ok::<_, StoreError>(bodies.get((id.value(), side))?.map(|body| body.value().to_vec()));
        if let (Some(head), Some(bytes)) = (record.request.as_mut(), body(0)?) {
            head.body.bytes = bytes.into();
        }
        if let (Some(head), Some(bytes)) = (record.response.as_mut(), body(1)?) {
            head.body.bytes = bytes.into();
        }
        let open = record.state == State::Open;
        batch.put(&if open { Entry::open(&record) } else { Entry::last(&record) })?;
    }
    batch.index.end_at(highest);
    Ok(())
}

/// Takes the tables of schema 1 out.
fn drop_first(transaction: &WriteTransaction) -> Result<(), StoreError> {
    transaction.delete_table(RECORDS)?;
    transaction.delete_table(BODIES)?;
    transaction.delete_table(OPEN)?;
    transaction.delete_table(HOSTS)?;
    transaction.delete_table(BLOCKS)?;
    Ok(())
}

fn decode(id: RecordId, bytes: &[u8]) -> Result<Record, StoreError> {
    match bytes.split_first() {
        Some((&FORMAT_JSON, json)) => {
            serde_json::from_slice(json).map_err(|source| StoreError::Unreadable { id, source })
        }
        Some((&format, _)) => Err(StoreError::UnknownFormat { id, format }),
        None => Err(StoreError::UnknownFormat { id, format: 0 }),
    }
}
