//! What the records stand for, counted as they are written: the log's side of the balance with the
//! kernel's own counters, and what was kept of those.
//!
//! A row belongs to an epoch (one life of the kernel's counters), a window of time, a session, a class
//! and a column. A record is counted in the transaction that first holds it, and never again, so that a
//! batch that is done twice counts once. Windows that are over are summed up under [`CLOSED`].

use std::{collections::BTreeMap, ops::RangeBounds, sync::atomic::Ordering};

use agentgate_common::{
    tally::window,
    verdict::{DNS_PORT, Denial},
};
use redb::{ReadTransaction, ReadableTable as _, Table, TableDefinition, WriteTransaction};

use super::{
    Store, StoreError, UNACKNOWLEDGED,
    canonical::{Glance, socket},
    read::Reader,
    tables::{LAST_ID, META, there},
    unharmed,
};
use crate::model::{Kind, Miscount, RecordId};

/// (epoch, window, session, class, column).
type Key = (u32, u32, u64, u8, u8);

pub(super) const TALLIES: TableDefinition<'_, Key, u64> = TableDefinition::new("tallies");
/// Numbers of epochs, and the first id in them, by their names.
pub(super) const EPOCHS: TableDefinition<'_, &str, (u32, u64)> = TableDefinition::new("epochs");
/// Names of sessions, by epoch and number.
pub(super) const SESSIONS: TableDefinition<'_, (u32, u64), &str> = TableDefinition::new("sessions");

/// The window under which those that are over are summed up.
pub const CLOSED: u32 = u32::MAX;
/// Added to the number of a column: what of it stood in records that are pruned. In no balance, and taken
/// for nothing by programs that do not know it.
const PRUNED: u8 = 16;
/// Epochs whose sums are kept.
const EPOCHS_KEPT: u32 = 16;
/// Code of a flow that nobody listened for.
pub const NO_LISTENER: &str = "no_listener";
/// Code of a flow that never came to the listener.
pub const NEVER_ARRIVED: &str = "never_arrived";
/// Cause of a loss: the ring buffer was full.
pub const RING_FULL: &str = "ring_full";
/// Of a flow: what the classes of a balance are called besides the codes of denials.
const FLOWS: &str = "flows";

/// What is balanced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Connections that the kernel tied to the listener.
    Flows,
    /// Refusals of this number.
    Refused(u8),
    /// Not a class of its own: what was declared because the ring buffer was full, all together.
    Ring,
}

impl Class {
    fn number(self) -> u8 {
        match self {
            Self::Flows => 0,
            Self::Refused(denial) => denial,
            Self::Ring => u8::MAX,
        }
    }

    fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Flows,
            u8::MAX => Self::Ring,
            denial => Self::Refused(denial),
        }
    }

    /// `flows`, or the code of a denial.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Flows => FLOWS,
            Self::Refused(denial) => Denial::from_u8(denial).map_or("unknown", Denial::code),
            Self::Ring => RING_FULL,
        }
    }

    /// The class of this code.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        if code == FLOWS {
            return Some(Self::Flows);
        }
        Denial::ALL.into_iter().find(|denial| denial.code() == code).map(|denial| Self::Refused(denial as u8))
    }
}

/// Who says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Column {
    /// The kernel.
    Kernel,
    /// Records of what was judged or refused.
    Recorded,
    /// Records of connections that never came to the listener.
    Abandoned,
    /// Records of losses.
    Declared,
}

impl Column {
    /// For people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Recorded => "recorded",
            Self::Abandoned => "abandoned",
            Self::Declared => "declared",
        }
    }

    fn number(self) -> u8 {
        match self {
            Self::Kernel => 0,
            Self::Recorded => 1,
            Self::Abandoned => 2,
            Self::Declared => 3,
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        [Self::Kernel, Self::Recorded, Self::Abandoned, Self::Declared]
            .into_iter()
            .find(|column| column.number() == number)
    }
}

/// One number of the balance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TallyRow {
    /// [`CLOSED`], or one that is not summed up yet.
    pub window: u32,
    pub session: u64,
    pub class: Class,
    pub column: Column,
    pub count: u64,
}

/// What one epoch came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EpochTallies {
    pub name: String,
    pub rows: Vec<TallyRow>,
}

/// The numbers that a record adds to: window, session, class, column, how much.
fn stands_for(record: &Glance<'_>) -> Option<(u32, u64, Class, Column, u64)> {
    if let Some((session, window, what, _)) = record.loss {
        let class = Class::from_code(what)?;
        return Some((window, session, class, Column::Declared, record.times));
    }
    let (original, session, connected_ns) = record.flow?;
    let at = window(connected_ns);
    match record.kind? {
        // A connection to the DNS server is not tied to the listener, and in no book of the kernel's.
        Kind::Flow if socket(original).is_ok_and(|original| original.port() == DNS_PORT) => None,
        Kind::Flow => {
            let never = [NO_LISTENER, NEVER_ARRIVED].contains(&record.failure_code);
            let column = if never { Column::Abandoned } else { Column::Recorded };
            Some((at, session, Class::Flows, column, record.times))
        }
        Kind::Kernel => {
            let code = record.rule.strip_prefix("kernel:")?;
            Some((at, session, Class::from_code(code)?, Column::Recorded, record.times))
        }
        Kind::Exchange | Kind::Dns | Kind::Guard | Kind::Control => None,
    }
}

/// The tables of the balance during one transaction.
pub(super) struct Tallies<'t> {
    rows: Table<'t, Key, u64>,
    sessions: Table<'t, (u32, u64), &'static str>,
    epoch: u32,
}

impl<'t> Tallies<'t> {
    /// Epoch 0: nothing is counted.
    pub(super) fn open(transaction: &'t WriteTransaction, epoch: u32) -> Result<Self, StoreError> {
        Ok(Self {
            rows: transaction.open_table(TALLIES)?,
            sessions: transaction.open_table(SESSIONS)?,
            epoch,
        })
    }

    /// Counts a record that the log did not hold before.
    pub(super) fn add(&mut self, record: &Glance<'_>) -> Result<(), StoreError> {
        let Some((window, session, class, column, count)) = stands_for(record).filter(|_| self.epoch != 0)
        else {
            return Ok(());
        };
        let first = self.change(window, session, class, column, |before| before.saturating_add(count))?;
        if first && !record.session.is_empty() {
            self.sessions.insert((self.epoch, session), record.session)?;
        }
        if record.loss.is_some_and(|(.., cause)| cause == RING_FULL) {
            self.change(CLOSED, 0, Class::Ring, column, |before| before.saturating_add(count))?;
        }
        Ok(())
    }

    /// Notes that a record of the epoch is pruned: what it counted for stays counted.
    pub(super) fn pruned(&mut self, record: &Glance<'_>) -> Result<(), StoreError> {
        let counts = self.epoch != 0 && record.failure_code != UNACKNOWLEDGED;
        if let Some((_, session, class, column, count)) = stands_for(record).filter(|_| counts) {
            let key = (self.epoch, CLOSED, session, class.number(), column.number() + PRUNED);
            let before = self.rows.get(key)?.map_or(0, |value| value.value());
            self.rows.insert(key, before.saturating_add(count))?;
        }
        Ok(())
    }

    /// Takes back what [`Tallies::add`] counted.
    #[cfg(test)]
    fn take_back(&mut self, record: &Glance<'_>) -> Result<(), StoreError> {
        if let Some((window, session, class, column, count)) = stands_for(record).filter(|_| self.epoch != 0)
        {
            self.change(window, session, class, column, |before| before.saturating_sub(count))?;
        }
        Ok(())
    }

    /// True where there was no such row.
    fn change(
        &mut self,
        window: u32,
        session: u64,
        class: Class,
        column: Column,
        to: impl FnOnce(u64) -> u64,
    ) -> Result<bool, StoreError> {
        let key = (self.epoch, window, session, class.number(), column.number());
        let before = self.rows.get(key)?.map(|value| value.value());
        self.rows.insert(key, to(before.unwrap_or(0)))?;
        Ok(before.is_none())
    }
}

/// The first id of an epoch; the highest number there is where it is not known.
pub(super) fn first_of(transaction: &WriteTransaction, epoch: u32) -> Result<u64, StoreError> {
    for row in transaction.open_table(EPOCHS)?.iter()? {
        let (number, first) = row?.1.value();
        if number == epoch {
            return Ok(first);
        }
    }
    Ok(u64::MAX)
}

impl Store {
    /// From here on records are counted in the epoch of this name, which goes on where it is known.
    /// Forgets epochs that are long past.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written.
    pub fn enter_epoch(&self, name: &str) -> Result<(), StoreError> {
        unharmed(|| {
            self.catch_up()?;
            let transaction = self.begin_write()?;
            let number = {
                let mut epochs = transaction.open_table(EPOCHS)?;
                let known = epochs.get(name)?.map(|value| value.value());
                let mut last = 0;
                for row in epochs.iter()? {
                    last = last.max(row?.1.value().0);
                }
                let next = transaction.open_table(META)?.get(LAST_ID)?.map_or(1, |value| value.value() + 1);
                let (number, next) = known.unwrap_or((last + 1, next));
                epochs.insert(name, (number, next))?;
                let first = last.max(number).saturating_sub(EPOCHS_KEPT - 1);
                epochs.retain(|_, (number, _)| number >= first)?;
                transaction.open_table(TALLIES)?.retain(|(epoch, ..), _| epoch >= first)?;
                transaction.open_table(SESSIONS)?.retain(|(epoch, _), _| epoch >= first)?;
                number
            };
            transaction.commit()?;
            self.epoch.store(number, Ordering::Release);
            Ok(())
        })
    }

    /// Every number of the epoch that records are counted in.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub fn tallies(&self) -> Result<Vec<TallyRow>, StoreError> {
        unharmed(|| self.tallies_of(self.epoch.load(Ordering::Acquire)))
    }

    /// The numbers of windows that are not summed up, and what was declared because the ring buffer was
    /// full. Costs nothing for sessions that are over, of which a host that is up for long has many.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub fn unsettled_tallies(&self) -> Result<Vec<TallyRow>, StoreError> {
        unharmed(|| {
            let epoch = self.epoch.load(Ordering::Acquire);
            let ring = (epoch, CLOSED, 0, Class::Ring.number(), Column::Declared.number());
            let transaction = self.read_all()?;
            let mut found = tallies_in(&transaction, (epoch, 0, 0, 0, 0)..(epoch, CLOSED, 0, 0, 0))?;
            found.extend(tallies_in(&transaction, ring..=ring)?);
            Ok(found)
        })
    }

    fn tallies_of(&self, epoch: u32) -> Result<Vec<TallyRow>, StoreError> {
        tallies(&self.read_all()?, epoch)
    }

    /// The numbers of the epochs before, oldest first.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub fn earlier_tallies(&self) -> Result<Vec<EpochTallies>, StoreError> {
        unharmed(|| {
            let current = self.epoch.load(Ordering::Acquire);
            let transaction = self.read_all()?;
            let Some(table) = there(&transaction, EPOCHS)? else { return Ok(Vec::new()) };
            let mut known = Vec::new();
            for row in table.iter()? {
                let (name, number) = row?;
                known.push((number.value().0, name.value().to_owned()));
            }
            known.sort_unstable();
            let before = known.into_iter().filter(|(number, _)| *number != current);
            before.map(|(number, name)| Ok(EpochTallies { name, rows: self.tallies_of(number)? })).collect()
        })
    }

    /// Counts the records of the epoch again, every one, and says where the sums kept of them do not agree.
    /// Reads as much of the log as was written in this epoch.
    ///
    /// # Errors
    /// [`StoreError`] where the file or a record cannot be read.
    pub fn recount(&self) -> Result<Vec<Miscount>, StoreError> {
        unharmed(|| {
            let transaction = self.read_all()?;
            let epoch = self.epoch.load(Ordering::Acquire);
            let mut first = None;
            for row in transaction.open_table(EPOCHS)?.iter()? {
                let (number, id) = row?.1.value();
                first = first.or((number == epoch).then_some(id));
            }
            let mut sums: BTreeMap<(u64, Class, Column), (u64, u64)> = BTreeMap::new();
            for row in tallies(&transaction, epoch)? {
                if row.column != Column::Kernel && row.class != Class::Ring {
                    sums.entry((row.session, row.class, row.column)).or_default().0 += row.count;
                }
            }
            let all = (epoch, CLOSED, 0, 0, 0)..=(epoch, CLOSED, u64::MAX, u8::MAX, u8::MAX);
            for row in transaction.open_table(TALLIES)?.range(all)? {
                let (key, count) = row?;
                let (_, _, session, class, column) = key.value();
                if let Some(column) = column.checked_sub(PRUNED).and_then(Column::from_number) {
                    sums.entry((session, Class::from_number(class), column)).or_default().1 += count.value();
                }
            }
            let mut reader = Reader::of(&transaction)?;
            let first = first.unwrap_or(u64::MAX);
            // The group in which the epoch began holds records of the one before too.
            let mut at =
                reader.spans.range(..=first)?.next_back().transpose()?.map_or(first, |row| row.0.value());
            while let Some(row) = reader.spans.range(at..)?.next() {
                let (begin, row) = row?;
                let (begin, row) = (begin.value(), row.value());
                at = row.0.max(begin).saturating_add(1);
                for version in reader.span(begin, row)?.iter().filter(|version| version.id >= first) {
                    let encoded = version.encoded()?;
                    let malformed = |source| StoreError::Malformed { id: RecordId(version.id), source };
                    let record = Glance::at(encoded).map_err(malformed)?;
                    let counts = record.failure_code != UNACKNOWLEDGED;
                    if let Some((_, session, class, column, count)) = stands_for(&record).filter(|_| counts) {
                        sums.entry((session, class, column)).or_default().1 += count;
                    }
                }
            }
            let differ = sums.into_iter().filter(|(_, (summed, counted))| summed != counted);
            Ok(differ
                .map(|((session, class, column), (summed, counted))| Miscount {
                    session,
                    what: class.code().to_owned(),
                    column: column.as_str().to_owned(),
                    summed,
                    counted,
                })
                .collect())
        })
    }

    /// The name under which records know a session of this epoch.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub fn session_name(&self, session: u64) -> Result<Option<String>, StoreError> {
        unharmed(|| {
            let transaction = self.read_all()?;
            let Some(table) = there(&transaction, SESSIONS)? else { return Ok(None) };
            let key = (self.epoch.load(Ordering::Acquire), session);
            Ok(table.get(key)?.map(|name| name.value().to_owned()))
        })
    }

    /// As somebody with a tool for such files would: takes a record out, and out of the sums too.
    #[cfg(test)]
    pub(crate) fn tamper(&self, id: RecordId, sums_too: bool) -> Result<(), StoreError> {
        use super::{group, packed, tables::GROUPS, tables::SPANS};
        self.catch_up()?;
        let transaction = self.begin_write()?;
        {
            let mut groups = transaction.open_table(GROUPS)?;
            let number = {
                let spans = transaction.open_table(SPANS)?;
                let row = spans.range(..=id.0)?.next_back().ok_or(StoreError::Missing { id })??;
                row.1.value().1
            };
            let malformed = |source| StoreError::Malformed { id, source };
            let content =
                packed::get(&groups, number)?.ok_or(StoreError::Missing { id })?.map_err(malformed)?;
            let mut without = group::Tail::at(number);
            let mut gone = None;
            for entry in group::entries(&content).map_err(malformed)? {
                let encoded = &content[entry.record];
                if entry.id == id.0 {
                    gone = Some(encoded);
                } else {
                    without.push(encoded, entry.places);
                }
            }
            let record = Glance::at(gone.ok_or(StoreError::Missing { id })?).map_err(malformed)?;
            packed::Packer::new()?.put(&mut groups, number, &without.content, u16::MAX)?;
            if sums_too {
                let epoch = self.epoch.load(Ordering::Acquire);
                Tallies::open(&transaction, epoch)?.take_back(&record)?;
            }
        }
        transaction.commit()?;
        self.forget_packing();
        Ok(())
    }

    /// Keeps what the kernel counted: each number replaces the one that was kept before.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written.
    pub fn keep_kernel(&self, counts: &[(u32, u64, Class, u64)]) -> Result<(), StoreError> {
        unharmed(|| {
            let transaction = self.begin_write()?;
            {
                let mut tallies = Tallies::open(&transaction, self.epoch.load(Ordering::Acquire))?;
                for (window, session, class, count) in counts {
                    tallies.change(*window, *session, *class, Column::Kernel, |_| *count)?;
                }
            }
            transaction.commit()?;
            Ok(())
        })
    }

    /// Sums up windows that are over.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written.
    pub fn close_windows(&self, windows: &[u32]) -> Result<(), StoreError> {
        unharmed(|| {
            self.catch_up()?;
            let transaction = self.begin_write()?;
            {
                let epoch = self.epoch.load(Ordering::Acquire);
                let mut tallies = Tallies::open(&transaction, epoch)?;
                for window in windows.iter().copied().filter(|window| *window != CLOSED) {
                    let all = (epoch, window, 0, 0, 0)..=(epoch, window, u64::MAX, u8::MAX, u8::MAX);
                    let mut rows = Vec::new();
                    for row in tallies.rows.range(all.clone())? {
                        let (key, count) = row?;
                        rows.push((key.value(), count.value()));
                    }
                    for ((_, _, session, class, column), count) in rows {
                        let sum = (epoch, CLOSED, session, class, column);
                        let before = tallies.rows.get(sum)?.map_or(0, |value| value.value());
                        tallies.rows.insert(sum, before.saturating_add(count))?;
                    }
                    tallies.rows.retain_in(all, |_, _| false)?;
                }
            }
            transaction.commit()?;
            Ok(())
        })
    }
}

fn tallies(transaction: &ReadTransaction, epoch: u32) -> Result<Vec<TallyRow>, StoreError> {
    tallies_in(transaction, (epoch, 0, 0, 0, 0)..=(epoch, u32::MAX, u64::MAX, u8::MAX, u8::MAX))
}

fn tallies_in(
    transaction: &ReadTransaction,
    keys: impl RangeBounds<Key>,
) -> Result<Vec<TallyRow>, StoreError> {
    // No epoch was entered in this file so far.
    let Some(table) = there(transaction, TALLIES)? else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for row in table.range(keys)? {
        let (key, count) = row?;
        let (_, window, session, class, column) = key.value();
        // A column of a later version is not of this balance.
        let Some(column) = Column::from_number(column) else { continue };
        found.push(TallyRow {
            window,
            session,
            class: Class::from_number(class),
            column,
            count: count.value(),
        });
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
