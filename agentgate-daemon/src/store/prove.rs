//! The proof of one record: an export of just its last entry, from the signed link before it to the one
//! after it, with no more of what is between than digests.

use redb::{ReadTransaction, ReadableTable as _};

use super::{
    Store, StoreError,
    canonical::{Malformed, decode},
    chain::{CHECKPOINTS, KEYS, MARKS, PRUNES, log_of, tail_of},
    error::unharmed,
    linked::Linked,
    tables::{ENDS, SPANS},
};
use crate::{
    chain::{Base64, Checkpoint, KeyStatement, Line, LogLine, Prune, digest},
    model::{RecordId, Timestamp},
};

impl Store {
    /// The lines of the proof of a record; `None` where there is none of this id.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read, or what was acknowledged is not in it.
    pub fn prove(&self, id: RecordId) -> Result<Option<Vec<Line>>, StoreError> {
        unharmed(|| {
            let transaction = self.read_all()?;
            prove(&transaction, id)
        })
    }
}

fn prove(transaction: &ReadTransaction, id: RecordId) -> Result<Option<Vec<Line>>, StoreError> {
    let Some(number) = group_of(transaction, id.0)? else { return Ok(None) };
    let malformed = |source| StoreError::Malformed { id, source };
    let walk = Linked::of(transaction)?;
    let walked = walk.group(number)?.map_err(malformed)?;
    let place = walked.entries.iter().zip(&walked.places).rfind(|(entry, _)| entry.id == id.0);
    let Some((entry, (n, prev))) = place else { return Ok(None) };
    let encoded = walked.encoded(entry);
    let (record, _) = decode(encoded).map_err(malformed)?;
    let proven = Line::Entry {
        n: *n,
        prev: *prev,
        entry: Base64(encoded.to_vec()),
        record: Box::new(record),
        bodies: None,
    };

    let marks = transaction.open_table(MARKS)?;
    let log = log_of(&marks)?.ok_or(StoreError::Chain("the log has no id"))?;
    let checkpoints = transaction.open_table(CHECKPOINTS)?;
    let signed = |row: Option<Result<_, redb::StorageError>>| {
        let row: Option<(redb::AccessGuard<'_, u64>, redb::AccessGuard<'_, &[u8]>)> = row.transpose()?;
        let found = row.map(|(_, value)| Checkpoint::decode(value.value()));
        found.map(|found| found.ok_or(StoreError::Chain("a checkpoint cannot be read"))).transpose()
    };
    let before = signed(checkpoints.range(..=*n)?.next_back())?;
    let after = match signed(checkpoints.range(n + 1..)?.next())? {
        Some(after) => after,
        None => tail_of(&marks)?
            .filter(|tail| tail.entries > *n)
            .ok_or(StoreError::Chain("there is no checkpoint after the record"))?,
    };

    let mut keys = Vec::new();
    for row in transaction.open_table(KEYS)?.iter()? {
        let statement = KeyStatement::decode(row?.1.value());
        keys.push(statement.ok_or(StoreError::Chain("the statement of a key cannot be read"))?);
    }
    let filter = format!("id:{id}");
    let head = LogLine { format: LogLine::FORMAT, log, keys, made: Timestamp::now(), filter, whole: false };
    let mut lines = vec![Line::Log(head)];
    let mut from = 0;
    match before {
        Some(before) => {
            from = before.entries;
            lines.push(Line::Checkpoint(before));
        }
        None => {
            for row in transaction.open_table(PRUNES)?.iter()? {
                let prune = Prune::decode(row?.1.value());
                let prune = prune.ok_or(StoreError::Chain("a statement of pruning cannot be read"))?;
                if prune.what == crate::chain::Pruned::Entries {
                    from = prune.to;
                }
                lines.push(Line::Pruned(prune));
            }
        }
    }
    lines.extend(skipped(&walk, from, *n).map_err(|error| error.of(id))?);
    lines.push(proven);
    lines.extend(skipped(&walk, n + 1, after.entries).map_err(|error| error.of(id))?);
    lines.push(Line::Checkpoint(after));
    lines.push(Line::End { entries: 1, next: None });
    Ok(Some(lines))
}

enum Unwalked {
    Store(StoreError),
    Malformed(Malformed),
}

impl Unwalked {
    fn of(self, id: RecordId) -> StoreError {
        match self {
            Self::Store(error) => error,
            Self::Malformed(source) => StoreError::Malformed { id, source },
        }
    }
}

/// The digests of entries from one number to before another.
fn skipped(walk: &Linked, from: u64, to: u64) -> Result<Option<Line>, Unwalked> {
    let mut digests = Vec::new();
    let mut at = walk.holding(from).map_err(Unwalked::Store)?;
    while let Some(number) = at.filter(|number| *number < to) {
        let walked = walk.group(number).map_err(Unwalked::Store)?.map_err(Unwalked::Malformed)?;
        for (entry, (n, _)) in walked.entries.iter().zip(&walked.places) {
            if (from..to).contains(n) {
                digests.extend_from_slice(&digest(walked.encoded(entry)).0);
            }
        }
        at = walk.from(number + 1).map_err(Unwalked::Store)?;
    }
    Ok((!digests.is_empty()).then_some(Line::Skipped { n: from, digests: Base64(digests) }))
}

/// The group that holds the last entry of a record.
fn group_of(transaction: &ReadTransaction, id: u64) -> Result<Option<u64>, StoreError> {
    if let Some(group) = transaction.open_table(ENDS)?.get(id)? {
        return Ok(Some(group.value()));
    }
    let row = transaction.open_table(SPANS)?.range(..=id)?.next_back().transpose()?;
    Ok(row.map(|(_, row)| row.value()).filter(|row| row.0 >= id).map(|row| row.1))
}
