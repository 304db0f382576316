//! Whether the log is whole: the chain over its entries, the bodies that they name, and the tables by which
//! records are found; the words of full text where that is asked for.
//!
//! Of a running log a snapshot is read. A file that nobody has open, which may be a copy, or damaged on
//! purpose, is opened so that nothing is ever written to it, however redb has to mend it for reading.

mod bodies;
mod derived;
pub(crate) mod lines;
mod overlay;
mod places;

#[cfg(test)]
mod tests;

use std::{
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use redb::{Database, ReadOnlyTable, ReadTransaction, ReadableDatabase as _, ReadableTable as _};

use super::{
    Store, StoreError,
    canonical::{Glance, decode},
    chain::{CHECKPOINTS, KEYS, MARKS, PRUNES, log_of, tail_of},
    error::unharmed,
    file::CACHE_BYTES,
    journal::{Disk, Journal},
    linked::Linked,
    tables::{ENTRIES, JOURNAL, META, SCHEMA, SCHEMA_VERSION, TAKEN},
    text,
};
use crate::chain::{Checkpoint, Finding, KeyStatement, Prune, Report, Trust, Verifier, What};
use bodies::Kept;
use derived::Needed;
use overlay::Overlay;
use places::Places;

/// Told now and then: entries that were read, and how many there are.
pub(crate) type Progress<'p> = &'p mut dyn FnMut(u64, u64);

impl Store {
    /// Verifies all that was acknowledged before.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read, or what was acknowledged is not in it.
    pub(crate) fn verify(&self, trust: Trust, progress: Progress<'_>) -> Result<Report, StoreError> {
        unharmed(|| {
            let transaction = self.read_all()?;
            verify(&transaction, trust, progress)
        })
    }
}

/// Verifies the file of a log that nobody has open, and its journal. Nothing is written.
///
/// # Errors
/// [`StoreError::Busy`] while somebody has it open, [`StoreError::Newer`], [`StoreError::File`] where it
/// cannot be read, [`StoreError::Unsigned`] for a schema that had no chain.
pub(crate) fn verify_file(path: &Path, trust: Trust, progress: Progress<'_>) -> Result<Report, StoreError> {
    let unusable = |source| StoreError::File { path: path.to_owned(), source };
    let file = fs::File::open(path).map_err(unusable)?;
    match file.try_lock_shared() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => return Err(StoreError::Busy { path: path.to_owned() }),
        Err(fs::TryLockError::Error(error)) => return Err(unusable(error)),
    }
    let length = file.metadata().map_err(unusable)?.len();
    let read = || -> Result<(Report, Taken), StoreError> {
        let backend = Overlay::new(file, length);
        let mut database = Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(backend)?;
        let sums = database.check_integrity();
        let transaction = database.begin_read()?;
        let report = verify(&transaction, trust, progress)?;
        Ok((with_sums(report, sums), Taken::of(&transaction)?))
    };
    // Whatever the bytes of a file are, they are no reason to fall over; redb checks what it reads by
    // assertions.
    let report = catch_unwind(AssertUnwindSafe(read));
    let (mut report, taken) = match report {
        Ok(Ok(report)) => report,
        Ok(Err(StoreError::Redb(error))) if !matches!(*error, redb::Error::Io(_)) => {
            return Ok(damaged(format!("the file cannot be read as a log: {error}")));
        }
        Ok(Err(error)) => return Err(error),
        Err(_) => {
            return Ok(damaged("the file cannot be read as a log: it contradicts itself".to_owned()));
        }
    };
    journal(path, &taken, &mut report)?;
    Ok(report)
}

fn damaged(words: String) -> Report {
    let mut report = Report::default();
    report.add(Finding::new(What::Damaged, words));
    report
}

fn with_sums(mut report: Report, sums: Result<bool, redb::DatabaseError>) -> Report {
    match sums {
        Ok(true) => {}
        Ok(false) => report.add(Finding::new(What::Damaged, "what the file says of its free pages is wrong")),
        Err(error) => {
            report.add(Finding::new(What::Damaged, format!("checksums of the file's pages: {error}")));
        }
    }
    report
}

/// What the tables have of which journal.
#[derive(Clone, Copy, Debug)]
struct Taken {
    sequence: u64,
    journal: Option<u64>,
}

impl Taken {
    fn of(transaction: &ReadTransaction) -> Result<Self, StoreError> {
        let meta = transaction.open_table(META)?;
        let number = |name| Ok::<_, StoreError>(meta.get(name)?.map(|value| value.value()));
        Ok(Self { sequence: number(TAKEN)?.unwrap_or(0), journal: number(JOURNAL)? })
    }
}

/// What a snapshot holds.
fn verify(transaction: &ReadTransaction, trust: Trust, progress: Progress<'_>) -> Result<Report, StoreError> {
    let meta = transaction.open_table(META)?;
    let number = |name| Ok::<_, StoreError>(meta.get(name)?.map(|value| value.value()));
    match number(SCHEMA)? {
        Some(SCHEMA_VERSION) => {}
        Some(found) if found > SCHEMA_VERSION => {
            return Err(StoreError::Newer { found, known: SCHEMA_VERSION });
        }
        found => return Err(StoreError::Unsigned { schema: found.unwrap_or(0) }),
    }
    let entries = number(ENTRIES)?.unwrap_or(0);
    let words = trust.words;
    // The log is gone through once in its order, once by ids, and once for its words.
    let all = entries * (2 + u64::from(words));
    let marks = transaction.open_table(MARKS)?;
    let Some(log) = log_of(&marks)? else {
        return Ok(damaged("the log has no id".to_owned()));
    };
    let keys = statements(&transaction.open_table(KEYS)?, KeyStatement::decode)?;
    let prunes = statements(&transaction.open_table(PRUNES)?, Prune::decode)?;
    let mut verifier = Verifier::new(trust, log, &keys.0, true);
    if keys.1 + prunes.1 > 0 {
        verifier.add(Finding::new(What::Statement, "statements of keys or pruning cannot be read"));
    }
    for prune in &prunes.0 {
        verifier.pruned(prune);
    }
    let mut checkpoints = Checkpoints::of(transaction)?;
    let walk = Linked::of(transaction)?;
    let mut places = Places::of(transaction)?;
    let mut bodies = Kept::of(transaction)?;
    let mut needed = Needed::default();
    let mut at = 0;
    while let Some(number) = walk.from(at)? {
        at = number + 1;
        progress(number, all);
        let walked = match walk.group(number)? {
            Ok(walked) => walked,
            Err(malformed) => {
                let words = format!("a group of entries cannot be read: {malformed}");
                verifier.add(Finding::new(What::Unreadable, words).at(number, 0));
                needed.unreadable = true;
                continue;
            }
        };
        places.begin_group(number, &walked, &mut verifier)?;
        for (entry, (n, prev)) in walked.entries.iter().zip(&walked.places) {
            checkpoints.feed(*n, &mut verifier)?;
            needed.entry(number, &entry.places);
            let encoded = walked.encoded(entry);
            verifier.entry(*n, *prev, encoded);
            if let Err(malformed) = decode(encoded) {
                let words = format!("it does not read as a record: {malformed}");
                verifier.add(Finding::new(What::Unreadable, words).at(*n, entry.id));
            }
            // What cannot be read was told.
            if let Ok(seen) = Glance::at(encoded) {
                places.entry(*n, &seen, &mut verifier)?;
                bodies.entry(*n, entry, &seen, &mut verifier)?;
            }
        }
    }
    checkpoints.feed(u64::MAX, &mut verifier)?;
    places.finish(&mut verifier)?;
    bodies.finish(transaction, &mut verifier)?;
    needed.finish(transaction, &mut verifier)?;
    derived::check(transaction, &mut verifier, &mut |records| progress(entries + records.min(entries), all))?;
    if words {
        let faults = text::check(transaction, &mut |at| progress(2 * entries + at.min(entries), all))?;
        for (from, why) in faults {
            let words = format!("a segment of full text cannot be relied on: {why}");
            verifier.add(Finding::new(What::Index, words).at(from, 0));
        }
    }
    progress(all, all);
    Ok(verifier.finish(Some(entries)))
}

/// Statements of a table, and how many cannot be read.
fn statements<T>(
    table: &ReadOnlyTable<u64, &'static [u8]>,
    decode: impl Fn(&[u8]) -> Option<T>,
) -> Result<(Vec<T>, usize), StoreError> {
    let (mut found, mut wrong) = (Vec::new(), 0);
    for row in table.iter()? {
        match decode(row?.1.value()) {
            Some(statement) => found.push(statement),
            None => wrong += 1,
        }
    }
    Ok((found, wrong))
}

/// Checkpoints in their order, the tail among them.
struct Checkpoints {
    table: ReadOnlyTable<u64, &'static [u8]>,
    tail: Option<Checkpoint>,
    after: Option<u64>,
    next: Option<(u64, Option<Checkpoint>)>,
}

impl Checkpoints {
    fn of(transaction: &ReadTransaction) -> Result<Self, StoreError> {
        let tail = tail_of(&transaction.open_table(MARKS)?)?;
        let mut made = Self { table: transaction.open_table(CHECKPOINTS)?, tail, after: None, next: None };
        made.step()?;
        Ok(made)
    }

    fn step(&mut self) -> Result<(), StoreError> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = self.after.map_or(Unbounded, Excluded);
        let row = self.table.range::<u64>((from, Unbounded))?.next().transpose()?;
        self.next = row.map(|(key, value)| (key.value(), Checkpoint::decode(value.value())));
        self.after = self.next.map(|(entries, _)| entries).or(self.after);
        Ok(())
    }

    /// Tells the verifier of all that come before entry `n`.
    fn feed(&mut self, n: u64, verifier: &mut Verifier) -> Result<(), StoreError> {
        while let Some((entries, checkpoint)) = self.next.filter(|(entries, _)| *entries <= n) {
            self.feed_tail(|tail| tail < entries, verifier);
            match checkpoint.filter(|checkpoint| checkpoint.entries == entries) {
                Some(checkpoint) => {
                    // The tail may be the same, and is then no second one.
                    self.tail =
                        self.tail.filter(|tail| tail.entries != entries || tail.link != checkpoint.link);
                    verifier.checkpoint(&checkpoint);
                }
                None => {
                    verifier.add(Finding::new(What::Checkpoint, "a checkpoint cannot be read").at(entries, 0))
                }
            }
            self.step()?;
        }
        self.feed_tail(|tail| tail <= n, verifier);
        Ok(())
    }

    fn feed_tail(&mut self, is_due: impl Fn(u64) -> bool, verifier: &mut Verifier) {
        if let Some(tail) = self.tail.filter(|tail| is_due(tail.entries)) {
            self.tail = None;
            verifier.checkpoint(&tail);
        }
    }
}

/// What the journal beside a file holds that its tables do not have.
fn journal(path: &Path, taken: &Taken, report: &mut Report) -> Result<(), StoreError> {
    let path = path.with_extension("journal");
    let unusable = |source| StoreError::File { path: path.clone(), source };
    let file = match fs::File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(unusable(error)),
    };
    // One that is empty cannot be begun in a file that is open for reading.
    if file.size().map_err(unusable)? == 0 {
        return Ok(());
    }
    let Ok(Some(mut journal)) = Journal::open(Box::new(file)) else {
        report.notes.push("the journal beside the log is none, or of a later version".to_owned());
        return Ok(());
    };
    if taken.journal != Some(journal.identity()) {
        report.notes.push("the journal beside the log belongs to another".to_owned());
        return Ok(());
    }
    let kept = journal.read(taken.sequence)?;
    if kept.lost > 0 {
        let words = format!("{} groups of acknowledged writes are missing in the journal", kept.lost);
        report.add(Finding::new(What::Damaged, words));
    }
    if !kept.frames.is_empty() {
        let groups = kept.frames.len();
        report.notes.push(format!(
            "{groups} groups of writes are in the journal only: the next start of the gate takes them over, \
             and signs them"
        ));
    }
    Ok(())
}
