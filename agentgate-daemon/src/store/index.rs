//! The tables that derive from the log's entries: where the records of a group are, which are under way,
//! and by what a group is found.
//!
//! [`Index::add`] gets every entry once, in its order, whether it was appended a moment ago or read back
//! from its group ([`super::reindex`]): what it writes follows from the entries alone. A table of one's
//! own is one line in each of `open`, `add` and `finish`.

use std::collections::BTreeMap;

use redb::{ReadableTable as _, Table, WriteTransaction};

use super::{
    StoreError,
    bodies::Place,
    canonical::Glance,
    postings::{self, Postings},
    record::Summary,
    tables::{ENDS, NAMES, SPANS, SpanRow, UNDERWAY},
    text,
    uses::Uses,
};
use crate::model::State;

/// An entry and where it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Added<'e> {
    pub(super) seen: &'e Glance<'e>,
    /// Canonical.
    pub(super) encoded: &'e [u8],
    /// Number of its group.
    pub(super) group: u64,
    /// Its bodies, of request and response.
    pub(super) places: [Option<Place>; 2],
}

/// What is known of the group that entries are added to: kept between transactions, because the last
/// group grows.
#[derive(Clone, Debug, Default)]
pub(super) struct Current {
    /// Number of its first entry.
    pub(super) number: u64,
    /// First and last id of the records that begin here.
    pub(super) span: Option<(u64, u64)>,
    /// Of the records that begin here.
    pub(super) summary: Option<Summary>,
    /// Numbers of terms.
    pub(super) memory: postings::Memory,
}

impl Current {
    pub(super) fn at(number: u64) -> Self {
        Self { number, ..Self::default() }
    }
}

/// The derived tables during one transaction.
#[derive(Debug)]
pub(super) struct Index<'t> {
    pub(super) spans: Table<'t, u64, SpanRow>,
    pub(super) ends: Table<'t, u64, u64>,
    pub(super) underway: Table<'t, u64, u64>,
    pub(super) postings: Postings<'t>,
    pub(super) uses: Uses<'t>,
    pub(super) current: Current,
    /// Held back, so that a span is written once for the many late ends of a batch.
    summaries: BTreeMap<u64, Summary>,
    last_id: u64,
}

impl<'t> Index<'t> {
    pub(super) fn open(
        transaction: &'t WriteTransaction,
        current: Current,
        last_id: u64,
    ) -> Result<Self, StoreError> {
        text::open(transaction)?;
        Ok(Self {
            spans: transaction.open_table(SPANS)?,
            ends: transaction.open_table(ENDS)?,
            underway: transaction.open_table(UNDERWAY)?,
            postings: Postings::open(transaction, current.memory.clone())?,
            uses: Uses::open(transaction)?,
            current,
            summaries: BTreeMap::new(),
            last_id,
        })
    }

    /// Takes the tables out, so that they can be made anew.
    pub(super) fn drop(transaction: &WriteTransaction) -> Result<(), StoreError> {
        transaction.delete_table(SPANS)?;
        transaction.delete_table(ENDS)?;
        transaction.delete_table(UNDERWAY)?;
        // Of schema 2.
        transaction.delete_table(NAMES)?;
        Postings::drop(transaction)?;
        Uses::drop(transaction)?;
        text::drop_tables(transaction)
    }

    /// Entries that follow are in the group of this number.
    pub(super) fn begin_group(&mut self, number: u64) -> Result<(), StoreError> {
        self.write_span()?;
        self.current = Current::at(number);
        Ok(())
    }

    /// Adds the next entry of the log; true where it is the first of its record.
    pub(super) fn add(&mut self, added: &Added<'_>) -> Result<bool, StoreError> {
        let seen = added.seen;
        let begins = self.find(added)?;
        self.postings.add(added.encoded, seen, begins)?;
        self.uses.add(added.group, added.places);
        Ok(begins)
    }

    /// Notes where the record is.
    fn find(&mut self, added: &Added<'_>) -> Result<bool, StoreError> {
        let seen = added.seen;
        let summary = Summary::of(seen);
        if seen.id > self.last_id {
            self.last_id = seen.id;
            let (first, _) = self.current.span.unwrap_or((seen.id, seen.id));
            self.current.span = Some((first, seen.id));
            self.current.summary = Some(self.current.summary.map_or(summary, |all| all.union(summary)));
            if seen.state == Some(State::Open) {
                self.underway.insert(seen.id, first)?;
            }
            return Ok(true);
        }
        let began = self.underway.remove(seen.id)?.map(|first| first.value());
        // One that was over before its beginning was written comes after those that began later.
        let begins = began.is_none() && !self.postings.has(seen.id)?;
        let home = match began {
            Some(first) => first,
            None => self.home(seen.id)?,
        };
        let in_current = self.current.span.is_some_and(|(first, _)| first == home);
        let home = if in_current || self.holds(home, seen.id)? {
            home
        } else {
            // What it began with is pruned: this is its first entry in the log.
            self.spans.insert(seen.id, summary.to_row(seen.id, added.group))?;
            self.ends.remove(seen.id)?;
            if seen.state == Some(State::Open) {
                self.underway.insert(seen.id, seen.id)?;
            }
            return Ok(begins);
        };
        if seen.state == Some(State::Open) {
            self.underway.insert(seen.id, home)?;
        }
        match self.current.span {
            Some((first, _)) if first == home => {
                self.current.summary = Some(self.current.summary.map_or(summary, |all| all.union(summary)));
            }
            Some(_) | None => {
                self.ends.insert(seen.id, added.group)?;
                self.summaries.entry(home).and_modify(|all| *all = all.union(summary)).or_insert(summary);
            }
        }
        Ok(begins)
    }

    /// Whether the span that begins with `home` has a record of this id.
    fn holds(&self, home: u64, id: u64) -> Result<bool, StoreError> {
        Ok(self.spans.get(home)?.is_some_and(|row| (home..=row.value().0).contains(&id)))
    }

    /// First id of the group in which this record begins.
    fn home(&self, id: u64) -> Result<u64, StoreError> {
        if let Some((first, last)) = self.current.span
            && (first..=last).contains(&id)
        {
            return Ok(first);
        }
        let row = self.spans.range(..=id)?.next_back().transpose()?;
        Ok(row.map_or(id, |(first, _)| first.value()))
    }

    fn write_span(&mut self) -> Result<(), StoreError> {
        if let (Some((first, last)), Some(summary)) = (self.current.span, self.current.summary) {
            self.spans.insert(first, summary.to_row(last, self.current.number))?;
        }
        Ok(())
    }

    /// Ids are given anew after this one; returns the highest so far.
    pub(super) fn begin_after(&mut self, id: u64) -> u64 {
        std::mem::replace(&mut self.last_id, id)
    }

    /// Ids up to this one are taken.
    pub(super) fn end_at(&mut self, id: u64) {
        self.last_id = self.last_id.max(id);
    }

    /// Highest id that was met.
    pub(super) fn last_id(&self) -> u64 {
        self.last_id
    }

    /// Writes what was held back; returns what is known of the group under way.
    pub(super) fn finish(mut self) -> Result<Current, StoreError> {
        self.write_span()?;
        for (home, summary) in &self.summaries {
            let Some(row) = self.spans.get(home)?.map(|row| row.value()) else { continue };
            let (last, number, ..) = row;
            let merged = Summary::from_row(row).union(*summary).to_row(last, number);
            if merged != row {
                self.spans.insert(home, merged)?;
            }
        }
        self.uses.finish()?;
        self.current.memory = self.postings.finish()?;
        Ok(self.current)
    }
}
