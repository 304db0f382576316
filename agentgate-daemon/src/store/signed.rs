//! The log in its own order with what proves it: links, checkpoints, keys and statements. What verifiable
//! exports are made of.

use redb::{ReadOnlyTable, ReadTransaction, ReadableTable as _};

use super::{
    Store, StoreError,
    chain::{CHECKPOINTS, KEYS, MARKS, PRUNES, beginning, log_of, tail_of},
    error::unharmed,
    linked::Linked,
    order::{Closed, Placed, Walk},
};
use crate::{
    chain::{Checkpoint, Hash, KeyStatement, LogId, LogLine, Prune},
    model::Timestamp,
};

/// One snapshot of the log, with its proofs.
#[derive(Debug)]
pub struct Signed {
    /// Bodies, and the end of the log.
    pub walk: Walk,
    linked: Linked,
    checkpoints: ReadOnlyTable<u64, &'static [u8]>,
    tail: Option<Checkpoint>,
    log: LogId,
    keys: Vec<KeyStatement>,
    prunes: Vec<Prune>,
    first: u64,
}

/// Entries with the links before them.
#[derive(Clone, Debug, Default)]
pub struct Run {
    pub entries: Vec<(Placed, Hash)>,
    /// Entries of the run that cannot be read.
    pub unreadable: u64,
}

impl Store {
    /// All that was acknowledged, with its proofs.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub fn signed(&self) -> Result<Signed, StoreError> {
        unharmed(|| Signed::of(&self.read()?))
    }

    /// The same as the tables have it.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub fn signed_settled(&self) -> Result<Signed, StoreError> {
        unharmed(|| Signed::of(&self.snapshot()?))
    }
}

impl Closed {
    /// The log with its proofs.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub fn signed(&self) -> Result<Signed, StoreError> {
        unharmed(|| Signed::of(&self.begin_read()?))
    }
}

impl Signed {
    fn of(transaction: &ReadTransaction) -> Result<Self, StoreError> {
        unharmed(|| {
            let marks = transaction.open_table(MARKS)?;
            let log = log_of(&marks)?.ok_or(StoreError::Chain("the log has no id"))?;
            let mut keys = Vec::new();
            for row in transaction.open_table(KEYS)?.iter()? {
                let statement = KeyStatement::decode(row?.1.value());
                keys.push(statement.ok_or(StoreError::Chain("the statement of a key cannot be read"))?);
            }
            let table = transaction.open_table(PRUNES)?;
            let (first, _) = beginning(&table, &log)?;
            let mut prunes = Vec::new();
            for row in table.iter()? {
                let prune = Prune::decode(row?.1.value());
                prunes.push(prune.ok_or(StoreError::Chain("a statement of pruning cannot be read"))?);
            }
            Ok(Self {
                walk: Walk::of(transaction)?,
                linked: Linked::of(transaction)?,
                checkpoints: transaction.open_table(CHECKPOINTS)?,
                tail: tail_of(&marks)?,
                log,
                keys,
                prunes,
                first,
            })
        })
    }

    /// The first line of an export.
    #[must_use]
    pub fn head(&self, filter: String, whole: bool) -> LogLine {
        let (log, keys) = (self.log, self.keys.clone());
        LogLine { format: LogLine::FORMAT, log, keys, made: Timestamp::now(), filter, whole }
    }

    /// Number of the first entry that is not pruned.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.first
    }

    /// Keys that sign, from the first on.
    #[must_use]
    pub fn keys(&self) -> &[KeyStatement] {
        &self.keys
    }

    /// Which log it is.
    #[must_use]
    pub fn log(&self) -> LogId {
        self.log
    }

    /// The link before entry `n`, as the log has it; `None` where it has no such entry and does not end there.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub fn link_before(&self, n: u64) -> Result<Option<Hash>, StoreError> {
        unharmed(|| {
            if let Some(tail) = self.tail.filter(|tail| tail.entries == n) {
                return Ok(Some(tail.link));
            }
            let Some(number) = self.linked.holding(n)? else { return Ok(None) };
            let walked = self.linked.group(number)?.ok();
            let place = walked.and_then(|walked| walked.places.into_iter().find(|(at, _)| *at == n));
            Ok(place.map(|(_, link)| link))
        })
    }

    /// What retention took out.
    #[must_use]
    pub fn prunes(&self) -> &[Prune] {
        &self.prunes
    }

    /// The last checkpoint of no more than `n` entries.
    ///
    /// # Errors
    /// [`StoreError`] where the file or the checkpoint cannot be read.
    pub fn before(&self, n: u64) -> Result<Option<Checkpoint>, StoreError> {
        unharmed(|| {
            let row = self.checkpoints.range(self.first..=n)?.next_back().transpose()?;
            row.map(|(_, value)| Checkpoint::decode(value.value()).ok_or(UNREADABLE)).transpose()
        })
    }

    /// The next checkpoint of more than `n` entries; at the end of the log that of its end.
    ///
    /// # Errors
    /// [`StoreError`] where the file or the checkpoint cannot be read.
    pub fn after(&self, n: u64) -> Result<Option<Checkpoint>, StoreError> {
        unharmed(|| match self.checkpoints.range(n + 1..)?.next().transpose()? {
            Some((_, value)) => Checkpoint::decode(value.value()).ok_or(UNREADABLE).map(Some),
            None => Ok(self.tail.filter(|tail| tail.entries > n)),
        })
    }

    /// The entries from one number to before another.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub fn run(&self, from: u64, to: u64) -> Result<Run, StoreError> {
        unharmed(|| {
            let mut run = Run::default();
            let mut at = self.linked.holding(from)?;
            while let Some(number) = at.filter(|number| *number < to) {
                let next = self.linked.from(number + 1)?;
                match self.linked.group(number)? {
                    Ok(walked) => {
                        for (entry, (n, prev)) in walked.entries.iter().zip(&walked.places) {
                            if (from..to).contains(n) {
                                let placed = Placed::new(*n, walked.encoded(entry).to_vec(), entry.places);
                                run.entries.push((placed, *prev));
                            }
                        }
                    }
                    Err(why) => {
                        tracing::error!(group = number, %why, "entries of the audit log are passed over");
                        run.unreadable += next.unwrap_or(to).min(to).saturating_sub(number.max(from));
                    }
                }
                at = next;
            }
            Ok(run)
        })
    }
}

const UNREADABLE: StoreError = StoreError::Chain("a checkpoint cannot be read");
