//! The chain in the tables: the links of each group, checkpoints, keys, and what was pruned. What these
//! are is [`crate::chain`]'s to say.
//!
//! A transaction signs the end that it leaves (the *tail*, which the next one replaces), so that whatever
//! is in the tables is covered. Checkpoints that stay are due every [`INTERVAL`] entries; besides, the
//! tail of a run stays when the log is opened again.

use std::sync::Arc;

use redb::{ReadableTable, Table, TableDefinition, WriteTransaction};

use super::{
    Store, StoreError, keys,
    tables::{LAST_ID, META},
    unharmed,
    write::{Batch, Packing},
};
use crate::{
    chain::{
        self, Checkpoint, Hash, Hex, INTERVAL, KeyStatement, LogId, Prune, Pruned, PublicKey, SigningKey,
    },
    model::Timestamp,
};

/// Number of a group -> the link before each of its entries, 32 bytes each.
pub(super) const LINKS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("links");
/// Entries -> [`Checkpoint::encode`].
pub(super) const CHECKPOINTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("checkpoints");
/// From 0 on -> [`KeyStatement::encode`].
pub(super) const KEYS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("keys");
/// From 0 on -> [`Prune::encode`].
pub(super) const PRUNES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("prunes");
/// Single values by name.
pub(super) const MARKS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("marks");

/// Key of [`MARKS`]: the log's id.
pub(super) const LOG: &str = "log";
/// Key of [`MARKS`]: the checkpoint of the end.
pub(super) const TAIL: &str = "tail";

/// The end of the chain: kept between transactions.
#[derive(Clone, Debug)]
pub(super) struct Grown {
    /// The link after the last entry.
    link: Hash,
    /// The links of the group under way.
    links: Vec<u8>,
}

/// What retention takes out, as [`Prune`] says it.
#[derive(Clone, Debug)]
pub(super) struct Gone {
    pub(super) what: Pruned,
    /// Number of the first entry that stays, or whose bodies stay.
    pub(super) to: u64,
    /// Records that are gone: how many, lowest and highest id, when they began.
    pub(super) records: u64,
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) earliest: Timestamp,
    pub(super) latest: Timestamp,
    pub(super) reason: String,
}

/// From where a transaction goes on.
#[derive(Debug)]
pub(super) enum Start {
    /// Where the last ended.
    Grown(Grown),
    /// Where the tables end.
    Tail,
    /// At the first entry that there is, all of which come again. Says the number of it.
    Anew,
}

/// The tables during one transaction.
#[derive(Debug)]
pub(super) struct Chain<'t> {
    links: Table<'t, u64, &'static [u8]>,
    checkpoints: Table<'t, u64, &'static [u8]>,
    keys: Table<'t, u64, &'static [u8]>,
    prunes: Table<'t, u64, &'static [u8]>,
    marks: Table<'t, &'static str, &'static [u8]>,
    log: LogId,
    key: Arc<SigningKey>,
    grown: Grown,
    /// Number of the group under way.
    group: u64,
    /// Number of the next entry.
    pub(super) entries: u64,
    /// Links of the group under way are not in the table.
    dirty: bool,
    /// Checkpoints are signed as they come due: not where a chain that has them is computed anew, because
    /// that would cover up what was done to it.
    signs: bool,
}

impl<'t> Chain<'t> {
    pub(super) fn open(
        transaction: &'t WriteTransaction,
        key: Arc<SigningKey>,
        start: Start,
        (group, entries): (u64, u64),
    ) -> Result<Self, StoreError> {
        let mut marks = transaction.open_table(MARKS)?;
        let log = match log_of(&marks)? {
            Some(log) => log,
            None => {
                let mut log = [0; 16];
                aws_lc_rs::rand::fill(&mut log)
                    .map_err(|_| StoreError::Signing(chain::KeyError::Unusable))?;
                marks.insert(LOG, &log[..])?;
                Hex(log)
            }
        };
        let keys = transaction.open_table(KEYS)?;
        let prunes = transaction.open_table(PRUNES)?;
        let signs = !matches!(start, Start::Anew) || keys.first()?.is_none();
        let fresh = |link| Grown { link, links: Vec::new() };
        let (grown, group, entries) = match start {
            Start::Grown(grown) => (grown, group, entries),
            Start::Anew => {
                let (from, link) = beginning(&prunes, &log)?;
                (fresh(link), from, from)
            }
            Start::Tail => {
                let tail = tail_of(&marks)?.filter(|tail| tail.entries == entries);
                let link = match tail {
                    Some(tail) if tail.is_signed(&log) => tail.link,
                    Some(_) => return Err(StoreError::Chain("the checkpoint of its end was altered")),
                    None if entries == 0 => chain::first(&log),
                    None => return Err(StoreError::Chain("there is no checkpoint of its end")),
                };
                (fresh(link), group, entries)
            }
        };
        Ok(Self {
            links: transaction.open_table(LINKS)?,
            checkpoints: transaction.open_table(CHECKPOINTS)?,
            keys,
            prunes,
            marks,
            log,
            key,
            grown,
            group,
            entries,
            dirty: false,
            signs,
        })
    }

    /// Takes out what is made anew from the entries.
    pub(super) fn drop(transaction: &WriteTransaction) -> Result<(), StoreError> {
        transaction.delete_table(LINKS)?;
        Ok(())
    }

    /// Entries that follow are in the group of this number.
    pub(super) fn begin_group(&mut self, number: u64) -> Result<(), StoreError> {
        self.write_links()?;
        self.grown.links.clear();
        self.group = number;
        Ok(())
    }

    /// Adds the next entry of the log.
    pub(super) fn add(&mut self, encoded: &[u8]) -> Result<(), StoreError> {
        self.grown.links.extend_from_slice(&self.grown.link.0);
        self.grown.link = chain::next(&self.grown.link, &chain::digest(encoded));
        self.entries += 1;
        self.dirty = true;
        if self.signs && self.entries.is_multiple_of(INTERVAL) {
            let due = self.sign()?;
            self.keep(&due)?;
        }
        Ok(())
    }

    fn sign(&self) -> Result<Checkpoint, StoreError> {
        let (entries, link) = (self.entries, self.grown.link);
        Checkpoint::sign(&self.log, entries, link, Timestamp::now(), &self.key).map_err(StoreError::Signing)
    }

    /// Puts a checkpoint where it stays. One that is there stays instead.
    fn keep(&mut self, checkpoint: &Checkpoint) -> Result<(), StoreError> {
        if self.checkpoints.get(checkpoint.entries)?.is_none() {
            self.checkpoints.insert(checkpoint.entries, &*checkpoint.encode())?;
        }
        Ok(())
    }

    fn write_links(&mut self) -> Result<(), StoreError> {
        if std::mem::take(&mut self.dirty) {
            self.links.insert(self.group, &*self.grown.links)?;
        }
        Ok(())
    }

    /// Of a log that is opened: the end of the run before stays signed, and the key in use is on record.
    pub(super) fn settle(&mut self) -> Result<(), StoreError> {
        if let Some(tail) = tail_of(&self.marks)?.filter(|tail| tail.entries > 0) {
            self.keep(&tail)?;
        }
        let newest = newest_of(&self.keys)?;
        if newest != Some(self.key.public()) {
            // The key before, if there was one, is lost: nobody vouches for this one.
            self.state_key(newest, None)?;
        }
        Ok(())
    }

    fn state_key(
        &mut self,
        previous: Option<PublicKey>,
        vouching: Option<&SigningKey>,
    ) -> Result<KeyStatement, StoreError> {
        let place = (self.entries, self.grown.link);
        let now = Timestamp::now();
        let statement = KeyStatement::sign(&self.log, place, now, &self.key, previous, vouching);
        let statement = statement.map_err(StoreError::Signing)?;
        let number = self.keys.last()?.map_or(0, |(number, _)| number.value() + 1);
        self.keys.insert(number, &*statement.encode())?;
        Ok(statement)
    }

    /// From here on `key` signs, and the one before vouches for it.
    fn rotate(&mut self, key: Arc<SigningKey>) -> Result<KeyStatement, StoreError> {
        let before = std::mem::replace(&mut self.key, key);
        self.state_key(Some(before.public()), Some(&before))
    }

    /// Signs and keeps a statement of what retention takes out in this transaction, and takes out what of
    /// the chain goes with it. `from` is where bodies went from; entries go from the first that there is.
    pub(super) fn prune(&mut self, from: u64, gone: Gone) -> Result<Prune, StoreError> {
        let (first, _) = beginning(&self.prunes, &self.log)?;
        let Gone { what, to, records, first: low, last: high, earliest, latest, reason } = gone;
        let from = match what {
            Pruned::Entries => first,
            Pruned::Bodies => from.max(first),
        };
        let prune = Prune {
            what,
            from,
            from_link: self.link_at(from)?,
            to,
            to_link: self.link_at(to)?,
            records,
            first: low,
            last: high,
            earliest,
            latest,
            time: Timestamp::now(),
            key: self.key.public(),
            reason,
            signature: Hex([0; 64]),
        };
        let prune = prune.sign(&self.log, Timestamp::now(), &self.key).map_err(StoreError::Signing)?;
        let number = self.prunes.last()?.map_or(0, |(number, _)| number.value() + 1);
        self.prunes.insert(number, &*prune.encode())?;
        if prune.what == Pruned::Entries {
            self.links.retain_in(..prune.to, |_, _| false)?;
            self.checkpoints.retain_in(..prune.to, |_, _| false)?;
        }
        Ok(prune)
    }

    /// The link before an entry.
    fn link_at(&self, n: u64) -> Result<Hash, StoreError> {
        let (first, link) = beginning(&self.prunes, &self.log)?;
        if n == first {
            return Ok(link);
        }
        if n == self.entries {
            return Ok(self.grown.link);
        }
        // Of the group under way the table may lag behind.
        if let Some(at) = n.checked_sub(self.group).and_then(|at| usize::try_from(at).ok())
            && let Some(link) = self.grown.links.as_chunks::<32>().0.get(at)
        {
            return Ok(Hex(*link));
        }
        let row = self.links.range(..=n)?.next_back().transpose()?;
        let found = row.and_then(|(group, links)| {
            let at = usize::try_from(n - group.value()).ok()?;
            links.value().as_chunks::<32>().0.get(at).map(|link| Hex(*link))
        });
        found.ok_or(StoreError::Chain("the link before an entry is not there"))
    }

    /// Writes what was held back, and signs the end; returns what the next transaction goes on from.
    pub(super) fn finish(mut self) -> Result<Grown, StoreError> {
        self.write_links()?;
        let tail = tail_of(&self.marks)?;
        let is_signed = tail.is_some_and(|tail| {
            (tail.entries, tail.link) == (self.entries, self.grown.link) && tail.is_signed(&self.log)
        });
        if !is_signed {
            if let Some(tail) = tail.filter(|_| !self.signs) {
                tracing::error!(
                    entries = tail.entries,
                    "the end of the log is not what was signed: its checkpoint is kept for `audit verify`"
                );
                self.keep(&tail)?;
            }
            let tail = self.sign()?;
            self.marks.insert(TAIL, &*tail.encode())?;
        }
        Ok(self.grown)
    }
}

/// Number of the first entry that is not pruned, and the link before it.
pub(super) fn beginning(
    prunes: &impl ReadableTable<u64, &'static [u8]>,
    log: &LogId,
) -> Result<(u64, Hash), StoreError> {
    for row in prunes.iter()?.rev() {
        if let Some(prune) = Prune::decode(row?.1.value()).filter(|prune| prune.what == Pruned::Entries) {
            return Ok((prune.to, prune.to_link));
        }
    }
    Ok((0, chain::first(log)))
}

pub(super) fn log_of(
    marks: &impl ReadableTable<&'static str, &'static [u8]>,
) -> Result<Option<LogId>, StoreError> {
    Ok(marks.get(LOG)?.and_then(|log| log.value().try_into().ok()).map(Hex))
}

pub(super) fn tail_of(
    marks: &impl ReadableTable<&'static str, &'static [u8]>,
) -> Result<Option<Checkpoint>, StoreError> {
    Ok(marks.get(TAIL)?.and_then(|tail| Checkpoint::decode(tail.value())))
}

/// The key that signs, by the last statement.
fn newest_of(keys: &impl ReadableTable<u64, &'static [u8]>) -> Result<Option<PublicKey>, StoreError> {
    let newest = keys.last()?.map(|(_, statement)| KeyStatement::decode(statement.value()));
    newest
        .map(|newest| Ok(newest.ok_or(StoreError::Chain("the statement of its key was altered"))?.key))
        .transpose()
}

/// The key to sign with: that of the last statement, if it is there.
pub(super) fn key(store: &Store, transaction: &WriteTransaction) -> Result<Arc<SigningKey>, StoreError> {
    let newest = newest_of(&transaction.open_table(KEYS)?)?;
    // What is there and was never signed is not signed with a key that others go by.
    let meta = transaction.open_table(META)?;
    let is_empty = meta.get(LAST_ID)?.is_none_or(|last| last.value() == 0);
    let unsigned = newest.is_none() && !is_empty;
    keys::settle(&store.files.path, newest, unsigned).map(Arc::new)
}

impl Store {
    /// The checkpoint of the log's end, and of which log. `None` where nothing was recorded so far.
    ///
    /// # Errors
    /// [`StoreError`] where the tables cannot be read, or cannot be brought up to date.
    pub fn newest_checkpoint(&self) -> Result<Option<(LogId, Checkpoint)>, StoreError> {
        unharmed(|| {
            let marks = self.read_all()?.open_table(MARKS)?;
            let tail = tail_of(&marks)?.filter(|tail| tail.entries > 0);
            Ok(log_of(&marks)?.zip(tail))
        })
    }

    /// Makes a new key that signs from here on. Returns what says so.
    ///
    /// # Errors
    /// [`StoreError`]; the key before is in use then, unless it is the commit that failed: that is settled
    /// when the log is written next.
    pub fn rotate_key(&self) -> Result<KeyStatement, StoreError> {
        let mut packing = self.packing();
        let result = self.try_rotate(&mut packing);
        if result.is_err() {
            packing.forget();
        }
        result
    }

    fn try_rotate(&self, packing: &mut Packing) -> Result<KeyStatement, StoreError> {
        unharmed(|| {
            let transaction = self.begin_write()?;
            let key = Arc::new(keys::prepare(&self.files.path)?);
            let (tail, statement) = {
                let mut batch = Batch::open(&transaction, 0, packing, self.key(packing, &transaction)?)?;
                let statement = batch.chain.rotate(key.clone())?;
                (batch.finish()?.0, statement)
            };
            transaction.commit()?;
            packing.go_on(tail, key);
            keys::put_in_use(&self.files.path, &statement.key)?;
            Ok(statement)
        })
    }
}
