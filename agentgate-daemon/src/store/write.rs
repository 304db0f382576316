//! Changes: batches of records in one transaction, and the closing of what was left open.

use std::{collections::BTreeMap, sync::atomic::Ordering};

use redb::{Durability, ReadableTable as _, Table, WriteTransaction};

use super::{
    Side, Store, StoreError,
    record::{self, Summary},
    tables::{BLOCK, BLOCKS, BODIES, HOSTS, LAST_ID, META, OPEN, RECORDS, SCHEMA, SCHEMA_VERSION},
    tally::Tallies,
};
use crate::model::{Failure, Record, RecordId, State, Timestamp};

/// One change. Doing it twice is the same as doing it once, so a batch whose commit failed without
/// saying whether it was kept can be done again.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Write<'a> {
    /// A record begins; its bodies are not stored yet.
    Open(&'a Record),
    /// A record in its last state, with the captured bytes of its bodies.
    Final(&'a Record),
}

impl Store {
    /// Does all of `writes` in one durable transaction, or none of them.
    ///
    /// # Errors
    /// After an I/O error redb does not say whether the commit was kept, and refuses everything until
    /// [`Store::recover`].
    pub(crate) fn apply(&self, writes: &[Write<'_>]) -> Result<(), StoreError> {
        let transaction = self.begin_write()?;
        {
            let mut batch = Batch::open(&transaction, self.epoch.load(Ordering::Acquire))?;
            for write in writes {
                match *write {
                    Write::Open(record) => batch.put_open(record)?,
                    Write::Final(record) => batch.put_final(record)?,
                }
            }
            batch.finish()?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// Ends records that are open, all of them or those of `only` that are, with `failure`, in one
    /// transaction. Costs one look-up for each such record, whatever the size of the log.
    pub(super) fn settle(&self, only: Option<&[RecordId]>, failure: &Failure) -> Result<(), StoreError> {
        let transaction = self.begin_write()?;
        check_schema(&transaction)?;
        {
            let mut batch = Batch::open(&transaction, self.epoch.load(Ordering::Acquire))?;
            let left = match only {
                None => batch
                    .open
                    .iter()?
                    .map(|row| Ok(row?.0.value()))
                    .collect::<Result<Vec<u64>, StoreError>>()?,
                Some(ids) => {
                    let mut left = Vec::new();
                    for id in ids {
                        let open = batch.open.get(id.0)?.is_some();
                        if batch.disown(*id, failure)? && open {
                            left.push(id.0);
                        }
                    }
                    left
                }
            };
            let ended = Timestamp::now();
            for id in left {
                let id = RecordId(id);
                let mut record = {
                    let value = batch.records.get(id.0)?.ok_or(StoreError::Missing { id })?;
                    record::decode(id, value.value())?
                };
                record.state = State::Failed;
                record.finished = Some(ended);
                record.failure = Some(failure.clone());
                batch.put_final(&record)?;
            }
            batch.finish()?;
        }
        transaction.commit()?;
        Ok(())
    }

    pub(super) fn begin_write(&self) -> Result<WriteTransaction, StoreError> {
        let database = self.database.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        // The module's header says why two phases.
        let mut transaction = database.as_ref().ok_or(StoreError::Closed)?.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        transaction.set_two_phase_commit(true);
        Ok(transaction)
    }
}

/// Before any other table is opened, because a later schema may have changed their types.
fn check_schema(transaction: &WriteTransaction) -> Result<(), StoreError> {
    let mut meta = transaction.open_table(META)?;
    let found = meta.get(SCHEMA)?.map(|value| value.value());
    match found {
        None => {
            meta.insert(SCHEMA, SCHEMA_VERSION)?;
            Ok(())
        }
        Some(found) if found > SCHEMA_VERSION => Err(StoreError::Newer { found, known: SCHEMA_VERSION }),
        Some(_) => Ok(()),
    }
}

/// The tables during one transaction.
struct Batch<'t> {
    meta: Table<'t, &'static str, u64>,
    records: Table<'t, u64, &'static [u8]>,
    bodies: Table<'t, (u64, u8), &'static [u8]>,
    open: Table<'t, u64, &'static str>,
    hosts: Table<'t, (&'static str, u64), ()>,
    blocks: Table<'t, u64, (i64, i64, u32)>,
    tallies: Tallies<'t>,
    /// Held back, so that a block is written once for the many records of a batch.
    summaries: BTreeMap<u64, Summary>,
    last_id: u64,
}

impl<'t> Batch<'t> {
    fn open(transaction: &'t WriteTransaction, epoch: u32) -> Result<Self, StoreError> {
        let meta = transaction.open_table(META)?;
        let last_id = meta.get(LAST_ID)?.map_or(0, |value| value.value());
        Ok(Self {
            meta,
            records: transaction.open_table(RECORDS)?,
            bodies: transaction.open_table(BODIES)?,
            open: transaction.open_table(OPEN)?,
            hosts: transaction.open_table(HOSTS)?,
            blocks: transaction.open_table(BLOCKS)?,
            tallies: Tallies::open(transaction, epoch)?,
            summaries: BTreeMap::new(),
            last_id,
        })
    }

    /// Takes back what a record counted whose commit was reported as failed. A second time it does
    /// nothing. False where the log does not hold it.
    fn disown(&mut self, id: RecordId, failure: &Failure) -> Result<bool, StoreError> {
        let record = match self.records.get(id.0)? {
            Some(value) => record::decode(id, value.value())?,
            None => return Ok(false),
        };
        if record.failure.as_ref() == Some(failure) {
            return Ok(true);
        }
        self.tallies.take_back(&record)?;
        if self.open.get(id.0)?.is_none() {
            let record = Record { failure: Some(failure.clone()), ..record };
            self.put_final(&record)?;
        }
        Ok(true)
    }

    fn put_open(&mut self, record: &Record) -> Result<(), StoreError> {
        let host = record::host(record);
        self.open.insert(record.id.0, host.as_deref().unwrap_or_default())?;
        self.put(record, host.as_deref())
    }

    fn put_final(&mut self, record: &Record) -> Result<(), StoreError> {
        let id = record.id.0;
        let host = record::host(record);
        let indexed = self.open.remove(id)?.map(|value| value.value().to_owned());
        // A flow learns its host from its first bytes: it moves from the address to the name.
        if let Some(before) = indexed.filter(|before| Some(before.as_str()) != host.as_deref()) {
            self.hosts.remove((before.as_str(), id))?;
        }
        let bodies = [
            (Side::Request, record.request.as_ref().map(|head| &head.body)),
            (Side::Response, record.response.as_ref().map(|head| &head.body)),
        ];
        for (side, body) in bodies {
            if let Some(body) = body.filter(|body| !body.bytes.is_empty()) {
                self.bodies.insert((id, side.key()), &*body.bytes)?;
            }
        }
        self.put(record, host.as_deref())
    }

    fn put(&mut self, record: &Record, host: Option<&str>) -> Result<(), StoreError> {
        let id = record.id.0;
        let first = self.records.insert(id, record::encode(record)?.as_slice())?.is_none();
        if first {
            self.tallies.add(record)?;
        }
        if let Some(host) = host {
            self.hosts.insert((host, id), ())?;
        }
        let summary = Summary::of(record);
        self.summaries.entry(id / BLOCK).and_modify(|all| *all = all.union(summary)).or_insert(summary);
        self.last_id = self.last_id.max(id);
        Ok(())
    }

    fn finish(mut self) -> Result<(), StoreError> {
        for (block, summary) in &self.summaries {
            let stored = self.blocks.get(block)?.map(|row| Summary::from_row(row.value()));
            let merged = stored.map_or(*summary, |stored| stored.union(*summary));
            if stored != Some(merged) {
                self.blocks.insert(block, merged.to_row())?;
            }
        }
        self.meta.insert(LAST_ID, self.last_id)?;
        Ok(())
    }
}
