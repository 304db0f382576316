//! Whether records are found: `spans` and `ends` lead to each, and to nothing else. An index that leaves a
//! record out hides it as well as a log that does.

use std::collections::HashSet;

use redb::{ReadOnlyTable, ReadTransaction, ReadableTableMetadata as _};

use super::super::{
    StoreError,
    canonical::Glance,
    linked::Walked,
    record::Summary,
    tables::{DROPPED_ID, ENDS, META, SPANS, SpanRow},
};
use crate::chain::{Finding, Verifier, What};

pub(super) struct Places {
    spans: ReadOnlyTable<u64, SpanRow>,
    ends: ReadOnlyTable<u64, u64>,
    last_id: u64,
    /// The group that is walked through.
    number: u64,
    /// First and last id of the records that begin in it, and their summary.
    current: Option<(u64, u64, Summary)>,
    /// Ids in this group whose rows in `ends` were met.
    ended: HashSet<u64>,
    /// Spans of one record each in this group, of those that began before it.
    homes: HashSet<u64>,
    /// Rows that entries account for.
    span_rows: u64,
    end_rows: u64,
}

impl Places {
    pub(super) fn of(transaction: &ReadTransaction) -> Result<Self, StoreError> {
        let dropped = transaction.open_table(META)?.get(DROPPED_ID)?.map_or(0, |value| value.value());
        Ok(Self {
            spans: transaction.open_table(SPANS)?,
            ends: transaction.open_table(ENDS)?,
            // Records up to this one began in groups that were pruned.
            last_id: dropped,
            number: 0,
            current: None,
            ended: HashSet::new(),
            homes: HashSet::new(),
            span_rows: 0,
            end_rows: 0,
        })
    }

    pub(super) fn begin_group(
        &mut self,
        number: u64,
        walked: &Walked,
        verifier: &mut Verifier,
    ) -> Result<(), StoreError> {
        debug_assert_eq!(number, walked.number, "the walk gives what was asked for");
        self.end_group(verifier)?;
        self.number = number;
        Ok(())
    }

    fn end_group(&mut self, verifier: &mut Verifier) -> Result<(), StoreError> {
        self.ended.clear();
        self.homes.clear();
        let Some((first, last, summary)) = self.current.take() else { return Ok(()) };
        match self.spans.get(first)?.map(|row| row.value()) {
            Some(row) if row.0 == last && row.1 == self.number && covers(row, summary) => self.span_rows += 1,
            Some(_) | None => {
                let words = format!("records {first} to {last} are not found where they are");
                verifier.add(Finding::new(What::Index, words).at(self.number, first));
            }
        }
        Ok(())
    }

    /// The next entry of the group.
    pub(super) fn entry(
        &mut self,
        n: u64,
        seen: &Glance<'_>,
        verifier: &mut Verifier,
    ) -> Result<(), StoreError> {
        let summary = Summary::of(seen);
        if seen.id > self.last_id {
            self.last_id = seen.id;
            let (first, _, all) = self.current.unwrap_or((seen.id, seen.id, summary));
            self.current = Some((first, seen.id, all.union(summary)));
            return Ok(());
        }
        if let Some((first, last, all)) = self.current
            && (first..=last).contains(&seen.id)
        {
            self.current = Some((first, last, all.union(summary)));
            return Ok(());
        }
        let home = self.spans.range(..=seen.id)?.next_back().transpose()?;
        let home = home.map(|(first, row)| (first.value(), row.value())).filter(|(_, row)| row.0 >= seen.id);
        let row = self.ends.get(seen.id)?.map(|row| row.value());
        let found = match (row, home) {
            (Some(group), _) if group == self.number => {
                if self.ended.insert(seen.id) {
                    self.end_rows += 1;
                }
                true
            }
            // A later entry of the same record is to come.
            (Some(group), _) => group > self.number,
            // Where it began is pruned, or never was in this log: a row of its own leads to what is here.
            (None, Some((first, row))) => first == row.0 && row.1 >= self.number,
            (None, None) => false,
        };
        if let Some((first, row)) = home.filter(|(first, row)| first == &row.0 && row.1 == self.number)
            && self.homes.insert(first)
        {
            debug_assert_eq!(first, row.0, "a span of one");
            self.span_rows += 1;
        }
        let home = home.map(|(_, row)| row);
        if !found || !home.is_some_and(|row| covers(row, summary)) {
            let words = "its last entry is not found where it is";
            verifier.add(Finding::new(What::Index, words).at(n, seen.id));
        }
        Ok(())
    }

    /// All entries have come.
    pub(super) fn finish(mut self, verifier: &mut Verifier) -> Result<(), StoreError> {
        self.end_group(verifier)?;
        let (spans, ends) = (self.spans.len()?, self.ends.len()?);
        if (spans, ends) != (self.span_rows, self.end_rows) {
            let words = format!(
                "{} rows say where records are that are not there",
                spans.abs_diff(self.span_rows) + ends.abs_diff(self.end_rows)
            );
            verifier.add(Finding::new(What::Index, words));
        }
        Ok(())
    }
}

/// Whether a query that goes by this row cannot miss such a record.
fn covers(row: SpanRow, summary: Summary) -> bool {
    let row = Summary::from_row(row);
    row.earliest <= summary.earliest
        && row.latest >= summary.latest
        && row.present & summary.present == summary.present
}
