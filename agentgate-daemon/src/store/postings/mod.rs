//! By what records are found.
//!
//! For each block of 4096 ids and each *term* that one of its records has (a host, a status, a flag, …), the
//! table `postings` says which of them have it: exactly those whose last entry does, so that what is looked
//! for by several terms is found and counted without reading a record. Of each block the table `columns` has
//! times and sizes.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `terms` | field and text ([`terms::key`]) | its term; under the empty key the number that the next gets |
//! | `postings` | (block, term) | which records: [`bits`] |
//! | `columns` | (block, column) | numbers: [`column`] |
//! | `begun` | id of a record that is under way | the terms it has so far, rising: the first as it is, each other less the one before, LEB128 |
//!
//! The key begins with the block, because writing goes on in the last one, and searching goes block by block.

pub(super) mod bits;
pub(super) mod column;
pub(super) mod terms;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use redb::{ReadableTable as _, Table, TableDefinition, WriteTransaction};

use super::{
    StoreError,
    canonical::{Glance, Malformed, put_number, take_number},
};
use crate::model::{RecordId, State};
use bits::{Bits, block_of, offset_of};
use column::{Column, kind, unzigzag, zigzag};
use terms::{Dictionary, Known, Values};

pub(super) const TERMS: TableDefinition<'_, &[u8], u64> = TableDefinition::new("terms");
pub(super) const POSTINGS: TableDefinition<'_, (u64, u64), &[u8]> = TableDefinition::new("postings");
pub(super) const COLUMNS: TableDefinition<'_, (u64, u8), &[u8]> = TableDefinition::new("columns");
pub(super) const BEGUN: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("begun");

/// Records that are held back, so that a row is written once for all of them.
const HELD: usize = 8192;

/// What is remembered between transactions.
pub(super) type Memory = Arc<Mutex<Known>>;

/// A record that was added.
#[derive(Debug)]
struct Fresh {
    before: Before,
    terms: Vec<u64>,
    values: Values,
    open: bool,
}

/// What the tables have of it.
#[derive(Debug)]
enum Before {
    Nothing,
    Terms(Vec<u64>),
    /// It is in some rows of its block.
    Unknown,
}

/// The tables during one transaction.
#[derive(Debug)]
pub(super) struct Postings<'t> {
    terms: Table<'t, &'static [u8], u64>,
    postings: Table<'t, (u64, u64), &'static [u8]>,
    columns: Table<'t, (u64, u8), &'static [u8]>,
    begun: Table<'t, u64, &'static [u8]>,
    memory: Memory,
    fresh: BTreeMap<u64, Fresh>,
    /// A block that was asked about, and which records the table has of it: who asks, asks about many of one.
    asked: Option<(u64, Bits)>,
}

impl<'t> Postings<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction, memory: Memory) -> Result<Self, StoreError> {
        Ok(Self {
            terms: transaction.open_table(TERMS)?,
            postings: transaction.open_table(POSTINGS)?,
            columns: transaction.open_table(COLUMNS)?,
            begun: transaction.open_table(BEGUN)?,
            memory,
            fresh: BTreeMap::new(),
            asked: None,
        })
    }

    pub(super) fn drop(transaction: &WriteTransaction) -> Result<(), StoreError> {
        transaction.delete_table(TERMS)?;
        transaction.delete_table(POSTINGS)?;
        transaction.delete_table(COLUMNS)?;
        transaction.delete_table(BEGUN)?;
        Ok(())
    }

    /// Adds an entry; `begins` says whether it is the first of its record.
    pub(super) fn add(&mut self, encoded: &[u8], seen: &Glance<'_>, begins: bool) -> Result<(), StoreError> {
        let (terms, values) = {
            let mut known = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
            Dictionary { table: &mut self.terms, known: &mut known }.terms(encoded, seen)?
        };
        let open = seen.state == Some(State::Open);
        if let Some(fresh) = self.fresh.get_mut(&seen.id) {
            (fresh.terms, fresh.values, fresh.open) = (terms, values, open);
            return Ok(());
        }
        let before = if begins {
            Before::Nothing
        } else {
            let row = self.begun.remove(seen.id)?;
            match row.map(|row| read_terms(row.value())) {
                Some(Ok(terms)) => Before::Terms(terms),
                Some(Err(_)) | None => Before::Unknown,
            }
        };
        self.fresh.insert(seen.id, Fresh { before, terms, values, open });
        if self.fresh.len() >= HELD { self.flush() } else { Ok(()) }
    }

    /// Whether there is such a record.
    pub(super) fn has(&mut self, id: u64) -> Result<bool, StoreError> {
        if self.fresh.contains_key(&id) {
            return Ok(true);
        }
        let (block, at) = (block_of(id), offset_of(id));
        if let Some((asked, has)) = &self.asked
            && *asked == block
        {
            return Ok(has.has(at));
        }
        let row = self.columns.get((block, kind::STARTED))?.map(|row| Column::read_has(row.value()));
        let has = row.unwrap_or(Ok(Bits::NONE)).map_err(|why| damaged(block, why))?;
        self.asked = Some((block, has));
        Ok(has.has(at))
    }

    /// Takes out everything about records that are gone.
    pub(super) fn forget(&mut self, ids: &[u64]) -> Result<(), StoreError> {
        self.flush()?;
        let mut gone: BTreeMap<u64, Bits> = BTreeMap::new();
        for id in ids {
            gone.entry(block_of(*id)).or_insert(Bits::NONE).set(offset_of(*id), true);
            self.begun.remove(id)?;
        }
        self.asked = None;
        for (block, gone) in gone {
            self.clear(block, &gone)?;
            let mut columns = Columns::read(&self.columns, block)?;
            gone.rising().for_each(|at| columns.set(at, None));
            columns.write(&mut self.columns, block)?;
        }
        Ok(())
    }

    /// Takes records of a block out of all its rows.
    fn clear(&mut self, block: u64, gone: &Bits) -> Result<(), StoreError> {
        if gone.is_empty() {
            return Ok(());
        }
        let mut changed = Vec::new();
        for row in self.postings.range((block, 0)..=(block, u64::MAX))? {
            let (key, value) = row?;
            let bits = Bits::read(value.value()).map_err(|why| damaged(block, why))?;
            let left = bits.without(gone);
            if left != bits {
                changed.push((key.value().1, left));
            }
        }
        for (term, bits) in changed {
            self.write(block, term, &bits)?;
        }
        Ok(())
    }

    fn write(&mut self, block: u64, term: u64, bits: &Bits) -> Result<(), StoreError> {
        if bits.is_empty() {
            self.postings.remove((block, term))?;
            return Ok(());
        }
        let mut row = Vec::with_capacity(64);
        bits.put(&mut row);
        self.postings.insert((block, term), row.as_slice())?;
        Ok(())
    }

    /// Writes what is held back.
    fn flush(&mut self) -> Result<(), StoreError> {
        let fresh = std::mem::take(&mut self.fresh);
        self.asked = None;
        // (block, term, place, whether the record has it)
        let mut changes: Vec<(u64, u64, u16, bool)> = Vec::with_capacity(fresh.len() * 16);
        let mut unknown: BTreeMap<u64, Bits> = BTreeMap::new();
        let mut columns: BTreeMap<u64, Columns> = BTreeMap::new();
        for (id, record) in &fresh {
            let (block, at) = (block_of(*id), offset_of(*id));
            let mut change = |term, has| changes.push((block, term, at as u16, has));
            match &record.before {
                Before::Nothing => record.terms.iter().for_each(|term| change(*term, true)),
                Before::Unknown => {
                    unknown.entry(block).or_insert(Bits::NONE).set(at, true);
                    record.terms.iter().for_each(|term| change(*term, true));
                }
                Before::Terms(before) => {
                    let lacks = |of: &[u64], term: &u64| of.binary_search(term).is_err();
                    record.terms.iter().filter(|t| lacks(before, t)).for_each(|term| change(*term, true));
                    before.iter().filter(|t| lacks(&record.terms, t)).for_each(|term| change(*term, false));
                }
            }
            let columns = match columns.entry(block) {
                std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::btree_map::Entry::Vacant(entry) => {
                    entry.insert(Columns::read(&self.columns, block)?)
                }
            };
            columns.set(at, Some(&record.values));
            if record.open {
                self.begun.insert(id, put_terms(&record.terms).as_slice())?;
            }
        }
        for (block, gone) in &unknown {
            self.clear(*block, gone)?;
        }
        changes.sort_unstable();
        let mut left = changes.as_slice();
        while let Some((block, term, ..)) = left.first().copied() {
            let count = left.iter().take_while(|change| (change.0, change.1) == (block, term)).count();
            let (these, rest) = left.split_at(count);
            left = rest;
            let row = self.postings.get((block, term))?.map(|row| Bits::read(row.value()));
            let mut bits = row.unwrap_or(Ok(Bits::NONE)).map_err(|why| damaged(block, why))?;
            these.iter().for_each(|(_, _, at, has)| bits.set(usize::from(*at), *has));
            self.write(block, term, &bits)?;
        }
        for (block, columns) in columns {
            columns.write(&mut self.columns, block)?;
        }
        Ok(())
    }

    /// Writes what was held back.
    pub(super) fn finish(mut self) -> Result<Memory, StoreError> {
        self.flush()?;
        Ok(self.memory)
    }
}

/// The columns of a block.
#[derive(Debug)]
pub(super) struct Columns {
    started: Column,
    duration: Column,
    bytes: Column,
}

impl Default for Columns {
    fn default() -> Self {
        Self { started: Column::empty(), duration: Column::empty(), bytes: Column::empty() }
    }
}

impl Columns {
    fn read(table: &Table<'_, (u64, u8), &'static [u8]>, block: u64) -> Result<Self, StoreError> {
        let column = |column| {
            let row = table.get((block, column))?;
            let read = row.map(|row| Column::read(row.value(), column == kind::STARTED));
            read.unwrap_or_else(|| Ok(Column::empty())).map_err(|why| damaged(block, why))
        };
        Ok(Self {
            started: column(kind::STARTED)?,
            duration: column(kind::DURATION)?,
            bytes: column(kind::BYTES)?,
        })
    }

    pub(super) fn set(&mut self, at: usize, values: Option<&Values>) {
        self.started.set(at, values.map(|values| values.started.0.cast_unsigned()));
        self.duration.set(at, values.and_then(|values| values.duration));
        self.bytes.set(at, values.map(|values| values.bytes).filter(|bytes| *bytes > 0));
    }

    fn write(&self, table: &mut Table<'_, (u64, u8), &'static [u8]>, block: u64) -> Result<(), StoreError> {
        let rows = self.rows();
        if rows.is_empty() {
            table.retain_in((block, 0)..=(block, u8::MAX), |_, _| false)?;
        }
        for (kind, row) in rows {
            table.insert((block, kind), row.as_slice())?;
        }
        Ok(())
    }

    /// The rows of the block, by their kinds, which rise; none where it has no record.
    pub(super) fn rows(&self) -> Vec<(u8, Vec<u8>)> {
        let times = || self.started.has.rising().filter_map(|at| self.started.get(at)).map(u64::cast_signed);
        let (Some(earliest), Some(latest)) = (times().min(), times().max()) else { return Vec::new() };
        let mut bounds = Vec::new();
        put_number(&mut bounds, zigzag(earliest));
        put_number(&mut bounds, zigzag(latest));
        let mut rows = vec![(kind::BOUNDS, bounds)];
        for (kind, column) in
            [(kind::STARTED, &self.started), (kind::DURATION, &self.duration), (kind::BYTES, &self.bytes)]
        {
            let mut row = Vec::new();
            column.put(kind == kind::STARTED, &mut row);
            rows.push((kind, row));
        }
        rows
    }
}

/// Earliest and latest beginning of a block's records.
pub(super) fn bounds(mut row: &[u8]) -> Result<(i64, i64), Malformed> {
    Ok((unzigzag(take_number(&mut row)?), unzigzag(take_number(&mut row)?)))
}

fn damaged(block: u64, source: Malformed) -> StoreError {
    StoreError::Malformed { id: RecordId(block << bits::SHIFT), source }
}

pub(super) fn put_terms(terms: &[u64]) -> Vec<u8> {
    let mut out = Vec::with_capacity(terms.len() * 6);
    let mut before = 0;
    for term in terms {
        put_number(&mut out, term - before);
        before = *term;
    }
    out
}

fn read_terms(mut row: &[u8]) -> Result<Vec<u64>, Malformed> {
    let (mut terms, mut before) = (Vec::new(), 0_u64);
    while !row.is_empty() {
        before = before.checked_add(take_number(&mut row)?).ok_or(Malformed("a term is too large"))?;
        terms.push(before);
    }
    Ok(terms)
}
