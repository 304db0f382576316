//! Changes: batches of entries in one transaction.

use std::{
    cell::RefCell,
    sync::{Arc, MutexGuard, PoisonError, atomic::Ordering},
};

use bytes::Bytes;
use redb::{Durability, ReadableTable as _, Table, WriteTransaction};

use super::{
    Store, StoreError,
    bodies::{Bodies, Place, Recent},
    canonical::{self, Digest, Glance, Malformed, digest},
    chain::{self, Chain, Grown, Start},
    group::Tail,
    index::{Added, Current, Index},
    packed::{Packer, Part},
    retention,
    tables::{ENTRIES, GROUPS, LAST_ID, META, SCHEMA, SCHEMA_VERSION, TAKEN},
    tally::Tallies,
    text, unharmed,
};
use crate::{
    chain::SigningKey,
    model::{Failure, Record, RecordId, State, Timestamp},
};

/// One change, for those who write without a journal.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Write<'a> {
    /// A record begins; its bodies are not stored yet.
    Open(&'a Record),
    /// A record in its last state, with the captured bytes of its bodies.
    Final(&'a Record),
}

/// One version of a record, encoded: what the log is made of.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Canonical.
    pub(super) encoded: Vec<u8>,
    /// Captured bytes, of request and response.
    pub(super) bodies: [Option<Bytes>; 2],
    /// The journal or the tables have the request's body with an earlier version: the journal need not have
    /// it again.
    pub(crate) kept: bool,
}

/// What versions of a record have of its request's body so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    body: Option<(Bytes, Digest)>,
    /// It is durable.
    pub(crate) durable: bool,
}

impl Known {
    /// Whether just these bytes are durable.
    pub(crate) fn has(&self, bytes: &Bytes) -> bool {
        self.durable && self.body.as_ref().is_some_and(|(known, _)| known == bytes)
    }
}

impl Entry {
    /// A record that begins; its bodies are not stored yet.
    pub(crate) fn open(record: &Record) -> Self {
        Self { encoded: encoded(record, [None, None]), bodies: [None, None], kept: false }
    }

    /// A record in its last state, with the captured bytes of its bodies.
    pub(crate) fn last(record: &Record) -> Self {
        Self::version(record, &mut Known::default())
    }

    /// A version of a record, with the captured bytes of its bodies. `known` is what earlier versions have of
    /// the request's, and then what this one has.
    pub(crate) fn version(record: &Record, known: &mut Known) -> Self {
        let some = |bytes: &Bytes| (!bytes.is_empty()).then(|| bytes.clone());
        let request = record.request.as_ref().and_then(|head| some(&head.body.bytes));
        let response = record.response.as_ref().and_then(|head| some(&head.body.bytes));
        let asked = request.as_ref().map(|bytes| match &known.body {
            Some((same, digest)) if same == bytes => *digest,
            Some(_) | None => {
                let digest = digest(bytes);
                *known = Known { body: Some((bytes.clone(), digest)), durable: false };
                digest
            }
        });
        let kept = asked.is_some() && known.durable;
        let digests = [asked, response.as_ref().map(|bytes| digest(bytes))];
        Self { encoded: encoded(record, digests), bodies: [request, response], kept }
    }

    /// This record, ended in another state at `finished`.
    pub(crate) fn ended(
        &self,
        state: State,
        finished: Timestamp,
        failure: Option<&Failure>,
    ) -> Result<Self, StoreError> {
        let encoded = canonical::ended(&self.encoded, state, finished, failure);
        let encoded = encoded.map_err(|source| StoreError::Malformed { id: self.id(), source })?;
        Ok(Self { encoded, bodies: self.bodies.clone(), kept: false })
    }

    pub(crate) fn id(&self) -> RecordId {
        let id = self.encoded.get(2..10).and_then(|id| id.try_into().ok());
        RecordId(id.map_or(0, u64::from_le_bytes))
    }

    pub(crate) fn set_id(&mut self, id: RecordId) {
        canonical::set_id(&mut self.encoded, id.0);
    }

    /// Bytes that it takes in memory.
    pub(crate) fn size(&self) -> u64 {
        let bodies: usize = self.bodies.iter().flatten().map(Bytes::len).sum();
        (self.encoded.len() + bodies) as u64
    }

    /// Appends the entry as the journal's payload has it.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        canonical::put_number(out, self.encoded.len() as u64);
        out.extend_from_slice(&self.encoded);
        let [request, response] = self.bodies.each_ref().map(Option::as_ref);
        let bodies = [request.filter(|_| !self.kept), response];
        canonical::put_number(out, bodies.iter().flatten().count() as u64);
        for (side, bytes) in bodies.iter().enumerate() {
            if let Some(bytes) = bytes {
                canonical::put_number(out, side as u64);
                canonical::put_number(out, bytes.len() as u64);
                out.extend_from_slice(bytes);
            }
        }
    }

    /// The entries of a journal's payload.
    pub(super) fn all(mut payload: &[u8]) -> Result<Vec<Self>, Malformed> {
        let mut found = Vec::new();
        let left = &mut payload;
        while !left.is_empty() {
            let length = canonical::take_number(left)?;
            let encoded = canonical::take(left, length)?.to_vec();
            let mut bodies = [None, None];
            for _ in 0..canonical::take_number(left)? {
                let side = canonical::take_number(left)?;
                let length = canonical::take_number(left)?;
                let bytes = Bytes::copy_from_slice(canonical::take(left, length)?);
                let side = usize::try_from(side).ok().and_then(|side| bodies.get_mut(side));
                *side.ok_or(Malformed("a body of a side that is not known"))? = Some(bytes);
            }
            found.push(Self { encoded, bodies, kept: false });
        }
        Ok(found)
    }
}

fn encoded(record: &Record, digests: [Option<Digest>; 2]) -> Vec<u8> {
    thread_local! {
        /// So that what is kept, of which there may be many, is as long as it needs to be.
        static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.clear();
        canonical::encode(record, digests, scratch);
        scratch.as_slice().to_vec()
    })
}

/// What the writing side keeps between transactions.
#[derive(Debug)]
pub(super) struct Packing {
    packer: Packer,
    /// The group under way, and what the indexes know of it. `None` before the first transaction, and
    /// after one that failed.
    pub(super) tail: Option<(Tail, Current, Grown)>,
    /// The key that signs; settled with the first transaction, and after one that failed.
    key: Option<Arc<SigningKey>>,
    recent: Recent,
}

impl Packing {
    pub(super) fn new() -> Result<Self, StoreError> {
        Ok(Self { packer: Packer::new()?, tail: None, key: None, recent: Recent::default() })
    }

    pub(super) fn forget(&mut self) {
        self.tail = None;
        self.key = None;
        self.recent.forget();
    }

    /// The transaction came to be.
    pub(super) fn go_on(&mut self, tail: (Tail, Current, Grown), key: Arc<SigningKey>) {
        self.tail = Some(tail);
        self.key = Some(key);
    }
}

impl Store {
    /// Does all of `writes` in one durable transaction, or none of them.
    ///
    /// # Errors
    /// After an I/O error redb does not say whether the commit was kept, and refuses everything until
    /// [`Store::recover`].
    pub(crate) fn apply(&self, writes: &[Write<'_>]) -> Result<(), StoreError> {
        let entries: Vec<Entry> = writes
            .iter()
            .map(|write| match *write {
                Write::Open(record) => Entry::open(record),
                Write::Final(record) => Entry::last(record),
            })
            .collect();
        self.commit(&entries, self.epoch.load(Ordering::Acquire), None)
    }

    /// Commits `entries` durably, all or none, as what the journal holds up to the sequence `taken`:
    /// where the tables have that already, there is nothing to do.
    pub(super) fn commit(&self, entries: &[Entry], epoch: u32, taken: Option<u64>) -> Result<(), StoreError> {
        let mut packing = self.packing();
        let result = unharmed(|| self.try_commit(&mut packing, entries, epoch, taken));
        if result.is_err() {
            packing.forget();
        }
        result
    }

    fn try_commit(
        &self,
        packing: &mut Packing,
        entries: &[Entry],
        epoch: u32,
        taken: Option<u64>,
    ) -> Result<(), StoreError> {
        let transaction = self.begin_write()?;
        let segments = self.text.whole();
        text::write(&transaction, &segments)?;
        let key = self.key(packing, &transaction)?;
        let (tail, last_id) = {
            let mut batch = Batch::open(&transaction, epoch, packing, key.clone())?;
            if let Some(taken) = taken {
                let before = batch.meta.get(TAKEN)?.map_or(0, |value| value.value());
                if before >= taken {
                    self.last_id.store(batch.index.last_id(), Ordering::Release);
                    return Ok(());
                }
                batch.meta.insert(TAKEN, taken)?;
            }
            for entry in entries {
                batch.put(entry)?;
            }
            batch.finish()?
        };
        transaction.commit()?;
        packing.go_on(tail, key);
        self.last_id.store(last_id, Ordering::Release);
        self.text.committed(&segments);
        Ok(())
    }

    /// What is in the tables was changed by another way.
    #[cfg(test)]
    pub(super) fn forget_packing(&self) {
        self.packing().forget();
    }

    pub(super) fn packing(&self) -> MutexGuard<'_, Packing> {
        self.packing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key that signs.
    pub(super) fn key(
        &self,
        packing: &Packing,
        transaction: &WriteTransaction,
    ) -> Result<Arc<SigningKey>, StoreError> {
        packing.key.clone().map_or_else(|| chain::key(self, transaction), Ok)
    }

    pub(super) fn begin_write(&self) -> Result<WriteTransaction, StoreError> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        // The module's header says why, and why so.
        let mut transaction = database.as_ref().ok_or(StoreError::Closed)?.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        transaction.set_two_phase_commit(true);
        transaction.set_quick_repair(true);
        Ok(transaction)
    }
}

/// The schema of the file, before any other table is opened, because a later one may have changed their
/// types. A file without one is new, and gets this program's.
pub(super) fn schema(transaction: &WriteTransaction) -> Result<u64, StoreError> {
    let mut meta = transaction.open_table(META)?;
    let found = meta.get(SCHEMA)?.map(|value| value.value());
    match found {
        None => {
            meta.insert(SCHEMA, SCHEMA_VERSION)?;
            Ok(SCHEMA_VERSION)
        }
        Some(found) if found > SCHEMA_VERSION => Err(StoreError::Newer { found, known: SCHEMA_VERSION }),
        Some(found) => Ok(found),
    }
}

/// The tables during one transaction.
pub(super) struct Batch<'t, 'p> {
    pub(super) meta: Table<'t, &'static str, u64>,
    pub(super) groups: Table<'t, Part, &'static [u8]>,
    pub(super) bodies: Bodies<'t>,
    pub(super) tallies: Tallies<'t>,
    /// All that derives from the entries.
    pub(super) index: Index<'t>,
    pub(super) chain: Chain<'t>,
    pub(super) packer: &'p mut Packer,
    pub(super) recent: &'p mut Recent,
    pub(super) tail: Tail,
    /// Number of the next entry.
    pub(super) entries: u64,
}

impl<'t, 'p> Batch<'t, 'p> {
    pub(super) fn open(
        transaction: &'t WriteTransaction,
        epoch: u32,
        packing: &'p mut Packing,
        key: Arc<SigningKey>,
    ) -> Result<Self, StoreError> {
        Self::open_at(transaction, epoch, packing, key, false)
    }

    /// One that is given all entries from the first on again, or for the first time.
    pub(super) fn anew(
        transaction: &'t WriteTransaction,
        packing: &'p mut Packing,
        key: Arc<SigningKey>,
    ) -> Result<Self, StoreError> {
        packing.forget();
        Self::open_at(transaction, 0, packing, key, true)
    }

    fn open_at(
        transaction: &'t WriteTransaction,
        epoch: u32,
        packing: &'p mut Packing,
        key: Arc<SigningKey>,
        anew: bool,
    ) -> Result<Self, StoreError> {
        let meta = transaction.open_table(META)?;
        let last_id = meta.get(LAST_ID)?.map_or(0, |value| value.value());
        let entries = meta.get(ENTRIES)?.map_or(0, |value| value.value());
        let bodies = Bodies::open(transaction, &meta)?;
        // Of a transaction that came to nothing.
        packing.packer.take_grown();
        // A copy, because the transaction may fail.
        let (tail, current, start) = match packing.tail.clone() {
            Some((tail, current, grown)) => (tail, current, Start::Grown(grown)),
            None if anew => (Tail::at(entries), Current::at(entries), Start::Anew),
            None => (Tail::at(entries), Current::at(entries), Start::Tail),
        };
        Ok(Self {
            meta,
            groups: transaction.open_table(GROUPS)?,
            bodies,
            tallies: Tallies::open(transaction, epoch)?,
            index: Index::open(transaction, current, last_id)?,
            chain: Chain::open(transaction, key, start, (tail.number, entries))?,
            packer: &mut packing.packer,
            recent: &mut packing.recent,
            tail,
            entries,
        })
    }

    /// Appends an entry to the log, and indexes it. The first of a record counts in the tallies.
    pub(super) fn put(&mut self, entry: &Entry) -> Result<(), StoreError> {
        let malformed = |source| StoreError::Malformed { id: entry.id(), source };
        let seen = Glance::at(&entry.encoded).map_err(malformed)?;
        let places = self.append(entry, &seen)?;
        let group = self.tail.number;
        self.chain.add(&entry.encoded)?;
        let begins = self.index.add(&Added { seen: &seen, encoded: &entry.encoded, group, places })?;
        if begins {
            self.tallies.add(&seen)?;
        }
        Ok(())
    }

    /// Puts an entry and its bodies where they stay.
    fn append(&mut self, entry: &Entry, seen: &Glance<'_>) -> Result<[Option<Place>; 2], StoreError> {
        if self.tail.is_full() {
            self.flush()?;
        }
        let mut places = [None, None];
        for ((place, bytes), digest) in places.iter_mut().zip(&entry.bodies).zip(&seen.digests) {
            if let (Some(bytes), Some(digest)) = (bytes, digest) {
                *place = Some(self.bodies.place(self.recent, self.packer, digest, bytes)?);
            }
        }
        self.tail.push(&entry.encoded, places);
        self.entries += 1;
        Ok(places)
    }

    /// Puts an entry that the log has once more, so that it stays when the first is pruned.
    pub(super) fn carry(&mut self, encoded: &[u8], places: [Option<Place>; 2]) -> Result<(), StoreError> {
        if self.tail.is_full() {
            self.flush()?;
        }
        let seen = Glance::at(encoded);
        let seen = seen.map_err(|source| StoreError::Malformed { id: RecordId(0), source })?;
        self.tail.push(encoded, places);
        self.entries += 1;
        self.chain.add(encoded)?;
        self.index.add(&Added { seen: &seen, encoded, group: self.tail.number, places })?;
        Ok(())
    }

    /// Writes the group under way and begins the next.
    fn flush(&mut self) -> Result<(), StoreError> {
        self.write_tail()?;
        self.tail = Tail::at(self.entries);
        self.chain.begin_group(self.entries)?;
        self.index.begin_group(self.entries)
    }

    fn write_tail(&mut self) -> Result<(), StoreError> {
        let tail = &mut self.tail;
        if tail.entries > 0 {
            tail.parts = self.packer.put(&mut self.groups, tail.number, &tail.content, tail.parts)?;
        }
        Ok(())
    }

    /// Writes what was held back; returns the group to go on with and the highest id.
    pub(super) fn finish(mut self) -> Result<((Tail, Current, Grown), u64), StoreError> {
        self.write_tail()?;
        let last_id = self.index.last_id();
        let current = self.index.finish()?;
        let grown = self.chain.finish()?;
        self.meta.insert(LAST_ID, last_id)?;
        self.meta.insert(ENTRIES, self.entries)?;
        self.bodies.finish(self.recent, self.packer, &mut self.meta)?;
        retention::weigh(&mut self.meta, self.packer.take_grown())?;
        Ok(((self.tail, current, grown), last_id))
    }
}
