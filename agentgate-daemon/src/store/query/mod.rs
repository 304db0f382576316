//! Pages and numbers of records, by filters.
//!
//! A filter becomes a [`plan`] over what [`super::postings`] knows of each block of ids: which of the block's
//! records match for certain, and which may and have to be looked at (words in bodies, parts of paths). What
//! one call may cost is bounded whatever the filter and the size of the log: see [`SCAN_CAP`]. A record that
//! cannot be read is counted and passed over.

mod cursor;
mod plan;
mod search;
mod text;

#[cfg(test)]
mod tests;

use serde::Serialize;

pub use crate::filter::Pattern as HostPattern;
pub use cursor::{Cursor, NoCursor};

use super::{Store, StoreError, unharmed};
use crate::{
    filter::{Bounds, Expression, Filter, Pattern, Sort, Test},
    model::{Action, Kind, Record, RecordId, SessionId, Timestamp},
};
use search::Search;

/// Most records a page holds.
pub const LIMIT_CAP: usize = 1000;
/// Records one call reads to see whether they match before it returns what it has, with a cursor to go on
/// from.
pub const SCAN_CAP: usize = 10_000;
/// Rows of the index one call looks at before it does the same.
const ROWS_CAP: usize = 200_000;
/// Encoded bytes of records after which a page ends, because heads may be hundreds of KiB each.
const PAGE_BYTES: usize = 16 << 20;

/// What to look for: `filter`, and every other condition that is given, must hold.
#[derive(Clone, Debug, Default)]
pub struct Query {
    pub filter: Filter,
    /// By the name asked for or the authority's host, or the original address of a flow without one.
    pub host: Option<Pattern>,
    pub verdict: Option<Action>,
    pub kind: Option<Kind>,
    pub session: Option<SessionId>,
    /// Started at this time or later.
    pub since: Option<Timestamp>,
    /// Started before this time.
    pub until: Option<Timestamp>,
    /// Stronger than the filter's own.
    pub sort: Option<Sort>,
    /// Only what comes after this in the order of the list: `next` of the page before.
    pub before: Option<Cursor>,
    /// Records wanted; taken as 1 at least and [`LIMIT_CAP`] at most.
    pub limit: usize,
}

/// Records in the order asked for.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Page {
    pub records: Vec<Record>,
    /// Where to go on. `None` once everything was looked at. May come with a page that is not full,
    /// or empty, where [`SCAN_CAP`] ended the search; and it does not promise another match.
    pub next: Option<Cursor>,
    /// Records among those looked at that cannot be read: damaged, or of a later version.
    #[serde(skip_serializing_if = "is_zero")]
    pub unreadable: u64,
    /// Of a list by duration or bytes that [`SCAN_CAP`] ended: records below this id are not in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unsearched: Option<RecordId>,
}

/// How many records match.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    pub count: u64,
    /// Where to go on, and add what is counted there. `None` once everything was counted.
    pub next: Option<Cursor>,
    /// Records that may match and cannot be read.
    #[serde(skip_serializing_if = "is_zero")]
    pub unreadable: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "what serde asks for")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Query {
    /// What matches this filter, `limit` at a time.
    #[must_use]
    pub fn of(filter: Filter, limit: usize) -> Self {
        Self { filter, limit, ..Self::default() }
    }

    /// Whether a record is one of those that are looked for, wherever it comes from. Of bodies, what the
    /// record itself carries is looked at.
    #[must_use]
    pub fn matches(&self, record: &Record) -> bool {
        Filter::from(self.expression()).matches(record)
    }

    /// The order of the list.
    #[must_use]
    pub fn sort(&self) -> Sort {
        self.sort.or(self.filter.sort).unwrap_or_default()
    }

    fn expression(&self) -> Expression {
        let tests = [
            self.host.clone().map(Test::Host),
            self.verdict.map(Test::Verdict),
            self.kind.map(Test::Kind),
            self.session.as_ref().map(|session| Test::Session(Pattern::exactly(&session.0))),
            self.since.map(|since| Test::Started(Bounds::from(since.0))),
            self.until.map(|until| Test::Started(Bounds::below(until.0))),
        ];
        let mut parts: Vec<_> = tests.into_iter().flatten().map(Expression::Is).collect();
        parts.push(self.filter.expression.clone());
        Expression::All(parts)
    }
}

impl Store {
    /// The first records in the order of `query` that match.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub fn query(&self, query: &Query) -> Result<Page, StoreError> {
        unharmed(|| self.search(query))
    }

    fn search(&self, query: &Query) -> Result<Page, StoreError> {
        let transaction = self.read()?;
        let search = Search::of(&self.text, &transaction, query.expression())?;
        let limit = query.limit.clamp(1, LIMIT_CAP);
        match query.sort() {
            Sort::Newest => search.newest(query.before, limit),
            Sort::Oldest => search.oldest(query.before, limit),
            sort @ (Sort::Duration | Sort::Bytes) => search.largest(sort, query.before, limit),
        }
    }

    /// How many records match, from `query.before` on in the order of their ids, highest first.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub fn count(&self, query: &Query) -> Result<Count, StoreError> {
        unharmed(|| {
            let transaction = self.read()?;
            Search::of(&self.text, &transaction, query.expression())?.count(query.before)
        })
    }
}
