//! A new log that is made of what another had: entries in their order, with their ids, states, times and
//! bodies. It has an id and signatures of its own.
//!
//! Memory is that of one batch of entries, and of the ids of records that are under way.

use std::collections::HashMap;

use bytes::Bytes;

use super::{
    Store, StoreError,
    canonical::{Glance, Malformed, decode, digest},
    chain::Gone,
    read::Reader,
    tables::there,
    write::{Batch, Entry},
};
use crate::{
    chain::{LogId, Pruned, record_of},
    model::{Record, RecordId, State, Timestamp},
};

/// Entries that one transaction takes, and bytes of them.
const BATCH: usize = 4096;
const BATCH_BYTES: u64 = 8 << 20;
/// Highest id that is taken, of more records than a log can hold. Searches go through all blocks of ids from the
/// lowest to the highest: an id that somebody made up must not keep them busy for ever.
const HIGHEST: u64 = u32::MAX as u64;
/// Records that may be under way at one time.
const UNDERWAY: usize = 1 << 20;
/// Tag and length of an id, which every entry begins with.
const ID: [u8; 2] = [1, 8];

/// Why an entry is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("it does not read as a record: {0}")]
    Malformed(#[from] Malformed),
    #[error("{0} is no id of a record: these are from 1 to {HIGHEST}")]
    Id(u64),
    #[error("record {id} is in source {source_at} already")]
    Twice {
        id: u64,
        /// Which source had it, from 0 on.
        source_at: usize,
    },
    #[error("more than {UNDERWAY} records are under way")]
    Underway,
}

/// What became of an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Took {
    /// It is the first of its record.
    pub(crate) begins: bool,
    /// Bodies that are with it.
    pub(crate) bodies: u64,
    /// Bodies that it names, and that are not with it.
    pub(crate) lacking: u64,
}

/// A record whose last entry so far says that it is under way.
#[derive(Debug)]
struct Begun {
    source: usize,
    started: Timestamp,
}

#[derive(Debug)]
struct Source {
    /// Number of the first entry that came of it.
    first: u64,
    log: Option<LogId>,
}

/// A log that is being made.
pub(crate) struct Importer {
    store: Store,
    sources: Vec<Source>,
    held: Vec<Entry>,
    bytes: u64,
    /// Ids of what is held, and their sources.
    fresh: HashMap<u64, usize>,
    reader: Option<Reader>,
    underway: HashMap<u64, Begun>,
    highest: u64,
    entries: u64,
    /// The number after the last entry that lacks a body.
    lacking: u64,
}

impl std::fmt::Debug for Importer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Importer").field("entries", &self.entries).finish_non_exhaustive()
    }
}

impl Importer {
    /// Into a store that has no entries.
    ///
    /// # Errors
    /// [`StoreError::Exists`] where it has.
    pub(crate) fn new(store: Store) -> Result<Self, StoreError> {
        if !store.is_empty()? {
            return Err(StoreError::Exists { path: store.files.path.clone() });
        }
        Ok(Self {
            store,
            sources: Vec::new(),
            held: Vec::new(),
            bytes: 0,
            fresh: HashMap::new(),
            reader: None,
            underway: HashMap::new(),
            highest: 0,
            entries: 0,
            lacking: 0,
        })
    }

    /// What follows is of another source; `log` is the log that it was exported of, where it says so.
    pub(crate) fn begin(&mut self, log: Option<LogId>) {
        self.sources.push(Source { first: self.entries, log });
    }

    /// Takes the next entry, canonical, with the bodies that came with it: those that are not what it names
    /// are not kept. There may be entries of a record after the one that ends it, but none that begins it again.
    ///
    /// # Errors
    /// [`StoreError`] of the file.
    pub(crate) fn entry(
        &mut self,
        encoded: Vec<u8>,
        bodies: [Option<Vec<u8>>; 2],
    ) -> Result<Result<Took, Refusal>, StoreError> {
        let id = record_of(&encoded);
        match decode(&encoded) {
            Ok((record, _)) if encoded.starts_with(&ID) && record.id.0 == id => {}
            Ok(_) => return Ok(Err(Malformed("it does not begin with its id").into())),
            Err(malformed) => return Ok(Err(malformed.into())),
        }
        let bodies = bodies.map(|body| body.map(Bytes::from));
        self.add(Entry { encoded, bodies, kept: false }, true)
    }

    /// Takes a bare record, with the captured bytes of its bodies.
    ///
    /// # Errors
    /// [`StoreError`] of the file.
    pub(crate) fn record(&mut self, record: &Record) -> Result<Result<Took, Refusal>, StoreError> {
        self.add(Entry::last(record), false)
    }

    fn add(&mut self, mut entry: Entry, chained: bool) -> Result<Result<Took, Refusal>, StoreError> {
        let mut took = Took::default();
        let (id, state, started) = {
            let seen = match Glance::at(&entry.encoded) {
                Ok(seen) => seen,
                Err(malformed) => return Ok(Err(malformed.into())),
            };
            for (body, named) in entry.bodies.iter_mut().zip(seen.digests) {
                *body = body.take().filter(|body| !chained || named == Some(digest(body)));
                match (body, named) {
                    (Some(_), _) => took.bodies += 1,
                    (None, Some(_)) => took.lacking += 1,
                    (None, None) => {}
                }
            }
            (seen.id, seen.state, seen.started)
        };
        if !(1..=HIGHEST).contains(&id) {
            return Ok(Err(Refusal::Id(id)));
        }
        match self.find(id, started)? {
            Some(at) if !chained || at + 1 != self.sources.len() || state == Some(State::Open) => {
                return Ok(Err(Refusal::Twice { id, source_at: at }));
            }
            Some(_) => {}
            None => took.begins = !self.underway.contains_key(&id),
        }
        let source = self.sources.len().saturating_sub(1);
        if state == Some(State::Open) {
            if self.underway.len() >= UNDERWAY && !self.underway.contains_key(&id) {
                return Ok(Err(Refusal::Underway));
            }
            self.underway.insert(id, Begun { source, started });
        } else {
            self.underway.remove(&id);
        }
        self.highest = self.highest.max(id);
        self.entries += 1;
        if took.lacking > 0 {
            self.lacking = self.entries;
        }
        self.fresh.insert(id, source);
        self.bytes += entry.size();
        self.held.push(entry);
        if self.held.len() >= BATCH || self.bytes >= BATCH_BYTES {
            self.flush()?;
        }
        Ok(Ok(took))
    }

    /// Which source has the record already, so that there can be no more of it from another.
    fn find(&mut self, id: u64, started: Timestamp) -> Result<Option<usize>, StoreError> {
        if id > self.highest {
            return Ok(None);
        }
        let source = self.sources.len().saturating_sub(1);
        if let Some(begun) = self.underway.get(&id) {
            // Parts of one log, or files of one mirror: it begins in one and ends in another.
            let log = |at: usize| self.sources.get(at).and_then(|source| source.log);
            let same = begun.started == started && log(begun.source) == log(source);
            return Ok((!same).then_some(begun.source));
        }
        if let Some(at) = self.fresh.get(&id) {
            return Ok(Some(*at));
        }
        let reader = match &mut self.reader {
            Some(reader) => reader,
            none @ None => none.insert(Reader::of(&self.store.snapshot()?)?),
        };
        let Some(version) = reader.get(id)? else { return Ok(None) };
        let (group, _) = version.entry()?;
        let n = group.number + version.at() as u64;
        Ok(Some(self.sources.partition_point(|source| source.first <= n).saturating_sub(1)))
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        if !self.held.is_empty() {
            self.store.commit(&self.held, 0, None)?;
        }
        self.held.clear();
        self.fresh.clear();
        self.bytes = 0;
        self.reader = None;
        Ok(())
    }

    /// Ends the log with `notes`, which get the ids after the highest, and closes it. A signed statement says
    /// which entries may lack bodies. Returns the id that the next record gets.
    ///
    /// # Errors
    /// [`StoreError`] of the file.
    pub(crate) fn finish(mut self, notes: &mut [Record]) -> Result<RecordId, StoreError> {
        self.flush()?;
        for (id, note) in (self.highest + 1..).zip(notes.iter_mut()) {
            note.id = RecordId(id);
        }
        let notes: Vec<Entry> = notes.iter().map(Entry::last).collect();
        self.store.end_import(self.lacking, &notes)?;
        Ok(self.store.next_id())
    }
}

impl Store {
    /// Whether nothing was ever recorded, nor anything else kept by name.
    pub(crate) fn is_empty(&self) -> Result<bool, StoreError> {
        use redb::ReadableTableMetadata as _;
        let snapshot = self.snapshot()?;
        let counters = there(&snapshot, super::typed::COUNTERS)?.map(|table| table.len());
        let limits = there(&snapshot, super::typed::LIMITS)?.map(|table| table.len());
        let approvals = there(&snapshot, super::typed::APPROVALS)?.map(|table| table.len());
        let mut kept = 0;
        for rows in [counters, limits, approvals].into_iter().flatten() {
            kept += rows?;
        }
        Ok(kept == 0 && self.walk_settled()?.end() == 0)
    }

    fn end_import(&self, lacking: u64, notes: &[Entry]) -> Result<(), StoreError> {
        let mut packing = self.packing();
        let transaction = self.begin_write()?;
        let key = self.key(&packing, &transaction)?;
        let last_id = {
            let mut batch = Batch::open(&transaction, 0, &mut packing, key)?;
            if lacking > 0 {
                let gone = Gone {
                    what: Pruned::Bodies,
                    to: lacking,
                    records: 0,
                    first: 0,
                    last: 0,
                    earliest: Timestamp(0),
                    latest: Timestamp(0),
                    reason: "import: bodies that were not in what was imported".to_owned(),
                };
                batch.chain.prune(0, gone)?;
            }
            for note in notes {
                batch.put(note)?;
            }
            batch.finish()?.1
        };
        packing.forget();
        transaction.commit()?;
        self.last_id.store(last_id, std::sync::atomic::Ordering::Release);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
