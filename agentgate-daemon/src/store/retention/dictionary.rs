//! Texts by which nothing is found any more leave the table `terms`: with hosts and sessions that come and go
//! it would grow for ever.
//!
//! Which numbers rows of `postings` refer to is read of a snapshot, beside those who write; numbers that they
//! use from then on are taken down by [`Known`]. What is neither is taken out a few at a time: a text that comes
//! again later gets another number, and no number is given twice.

use std::{
    collections::HashSet,
    sync::{Arc, MutexGuard, PoisonError},
    time::Instant,
};

use redb::{ReadTransaction, ReadableTable as _};

use super::{
    super::{
        Store, StoreError,
        postings::{self, POSTINGS, TERMS, terms},
        write::Packing,
    },
    SLICE,
};

/// Texts that go in one transaction, at most.
const TEXTS: usize = 2048;
/// Bytes of texts that wait for it. More are found by the next run.
const WAITING: usize = 8 << 20;
/// Numbers that are gathered before what is there twice is taken out.
const GATHERED: usize = 1 << 20;

/// A text, and its number.
type Text = (Box<[u8]>, u64);

/// Where a run is.
#[derive(Clone, Debug, Default)]
pub(crate) enum Cleaning {
    /// Nothing is to be done.
    #[default]
    Idle,
    /// Records went.
    Due,
    /// These are not in use, but for those that were used since: as `memory` has it.
    Found { texts: Arc<Vec<Text>>, done: usize, memory: postings::Memory },
}

impl Cleaning {
    pub(super) fn is_idle(&self) -> bool {
        matches!(self, Self::Idle)
    }
}

/// Texts of one snapshot that no row of postings refers to.
fn unused(snapshot: &ReadTransaction) -> Result<Vec<Text>, StoreError> {
    let mut used: Vec<u64> = Vec::new();
    let mut bound = GATHERED;
    for row in snapshot.open_table(POSTINGS)?.iter()? {
        let term = row?.0.value().1;
        // Others have no text.
        if term < terms::term(terms::field::HOST, 0) {
            continue;
        }
        used.push(term);
        if used.len() >= bound {
            used.sort_unstable();
            used.dedup();
            bound = used.len() + GATHERED;
        }
    }
    used.sort_unstable();
    used.dedup();
    let (mut found, mut bytes) = (Vec::new(), 0);
    for row in snapshot.open_table(TERMS)?.iter()? {
        let (key, number) = row?;
        let (key, number) = (key.value(), number.value());
        // Under the empty key is the number that the next gets.
        if key.is_empty() || used.binary_search(&number).is_ok() {
            continue;
        }
        bytes += key.len() + size_of::<Text>();
        if bytes > WAITING {
            break;
        }
        found.push((key.into(), number));
    }
    Ok(found)
}

impl Store {
    /// Does a bounded piece of it; true where there is more.
    pub(super) fn clean_terms(
        &self,
        packing: MutexGuard<'_, Packing>,
        cleaning: &mut Cleaning,
    ) -> Result<bool, StoreError> {
        match std::mem::take(cleaning) {
            Cleaning::Idle => Ok(false),
            Cleaning::Due => {
                // Before the first transaction, and after one that failed, nobody takes down what is used: what
                // is to go waits for the next run.
                let Some((_, current, _)) = &packing.tail else { return Ok(false) };
                let memory = current.memory.clone();
                memory.lock().unwrap_or_else(PoisonError::into_inner).watch();
                // All that was used before is in it, because nobody writes while `packing` is held.
                let snapshot = self.snapshot()?;
                drop(packing);
                let texts = Arc::new(unused(&snapshot)?);
                *cleaning = Cleaning::Found { texts, done: 0, memory };
                Ok(true)
            }
            Cleaning::Found { texts, done, memory } => {
                let same = packing
                    .tail
                    .as_ref()
                    .is_some_and(|(_, current, _)| Arc::ptr_eq(&current.memory, &memory));
                let taken = {
                    let known = memory.lock().unwrap_or_else(PoisonError::into_inner);
                    match known.used().filter(|_| same) {
                        Some(used) => self.take_out(texts.get(done..).unwrap_or_default(), used)?,
                        None => 0,
                    }
                };
                if taken == 0 {
                    memory.lock().unwrap_or_else(PoisonError::into_inner).unwatch();
                    return Ok(false);
                }
                *cleaning = Cleaning::Found { texts, done: done + taken, memory };
                Ok(true)
            }
        }
    }

    /// Takes the first of `texts` out that are not in use, in one transaction; returns how many were looked at.
    fn take_out(&self, texts: &[Text], used: &HashSet<u64>) -> Result<usize, StoreError> {
        if texts.is_empty() {
            return Ok(0);
        }
        let begun = Instant::now();
        let transaction = self.begin_write()?;
        let mut taken = 0;
        {
            let mut table = transaction.open_table(TERMS)?;
            for (key, number) in texts.iter().take(TEXTS) {
                taken += 1;
                if !used.contains(number) {
                    table.remove(&**key)?;
                }
                if begun.elapsed() >= SLICE {
                    break;
                }
            }
        }
        transaction.commit()?;
        Ok(taken)
    }
}
