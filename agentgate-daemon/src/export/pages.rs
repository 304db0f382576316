//! Rows of the log, page by page: bounded work and memory at each step, whatever the log's size.
//!
//! No snapshot is kept between pages, so an export that takes hours keeps no space of the file in use.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{FormatError, Row};
use crate::{
    filter::{Expression, Filter, Test},
    model::{Record, State, Timestamp},
    store::{
        Store, StoreError,
        order::{Closed, Placed, Walk},
        signed::Signed,
    },
};

/// Bytes after which a page ends; one row more may follow.
const PAGE_BYTES: usize = 1 << 20;
/// Groups of entries that one page looks into.
const PAGE_GROUPS: usize = 64;

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Format(#[from] FormatError),
}

/// Where entries come from.
#[derive(Clone, Debug)]
pub enum From {
    /// A log that is written to: with what was acknowledged last, brought into the tables first.
    Store(Arc<Store>),
    /// The same as the tables have it: for those who come again and again.
    Settled(Arc<Store>),
    /// A file that nobody writes to.
    File(Arc<Closed>),
}

impl From {
    /// A walk through what there is.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub fn walk(&self) -> Result<Walk, StoreError> {
        match self {
            Self::Store(store) => store.walk(),
            Self::Settled(store) => store.walk_settled(),
            Self::File(file) => file.walk(),
        }
    }
}

impl From {
    /// The same, with its proofs.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub fn signed(&self) -> Result<Signed, StoreError> {
        match self {
            Self::Store(store) => store.signed(),
            Self::Settled(store) => store.signed_settled(),
            Self::File(file) => file.signed(),
        }
    }
}

/// What is wanted of the log.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Records that match, each version for itself.
    pub filter: Filter,
    /// With the captured bytes of bodies.
    pub bodies: bool,
    /// Also the beginnings of records: an entry that says no more than that something is under way.
    pub open: bool,
}

impl Wanted {
    fn reads_text(expression: &Expression) -> bool {
        match expression {
            Expression::All(parts) | Expression::Any(parts) => parts.iter().any(Self::reads_text),
            Expression::Not(part) => Self::reads_text(part),
            Expression::Is(test) => matches!(test, Test::Text(_)),
        }
    }

    fn matches(&self, record: &Record) -> bool {
        (self.open || record.state != State::Open) && self.filter.matches(record)
    }

    /// Whether an entry is wanted.
    ///
    /// # Errors
    /// [`StoreError`] where the entry or a body cannot be read.
    pub fn takes(&self, walk: &mut Walk, entry: &Placed) -> Result<bool, StoreError> {
        let without = Self { filter: self.filter.clone(), bodies: false, open: self.open };
        without.row(walk, entry).map(|row| row.is_some())
    }

    /// The row of an entry; `None` for what is not wanted.
    ///
    /// # Errors
    /// [`StoreError`] where the entry or a body cannot be read.
    pub fn row(&self, walk: &mut Walk, entry: &Placed) -> Result<Option<Row>, StoreError> {
        let record = entry.record()?;
        if record.state == State::Open && !self.open {
            return Ok(None);
        }
        let in_bodies = Self::reads_text(&self.filter.expression);
        if !in_bodies && !self.matches(&record) {
            return Ok(None);
        }
        let found = if self.bodies || in_bodies { walk.bodies(entry)? } else { [None, None] };
        if !in_bodies {
            return Ok(Some(Row::new(entry.n, record, found)));
        }
        // What is looked for may be in a body: the record is judged with them.
        let mut with = record.clone();
        for (head, bytes) in [
            (with.request.as_mut().map(|head| &mut head.body), &found[0]),
            (with.response.as_mut().map(|head| &mut head.body), &found[1]),
        ] {
            if let (Some(body), Some(bytes)) = (head, bytes) {
                body.bytes = bytes.clone();
            }
        }
        if !self.matches(&with) {
            return Ok(None);
        }
        Ok(Some(Row::new(entry.n, record, if self.bodies { found } else { [None, None] })))
    }
}

/// A time that all records that match begin at or after.
fn earliest(expression: &Expression) -> Option<Timestamp> {
    match expression {
        Expression::All(parts) => parts.iter().filter_map(earliest).max(),
        Expression::Is(Test::Started(bounds)) => i64::try_from(bounds.low).ok().map(Timestamp),
        Expression::Any(_) | Expression::Not(_) | Expression::Is(_) => None,
    }
}

/// How far a page came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turned {
    /// Where the next begins.
    pub next: u64,
    /// The end of the log when it was looked at.
    pub end: u64,
    /// Entries that the log has no longer.
    pub pruned: u64,
    /// Entries that cannot be read. Which, the daemon's log or standard error says.
    pub unreadable: u64,
    /// Rows given.
    pub rows: u64,
}

impl Turned {
    /// True where there was nothing more at that moment.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.next >= self.end
    }
}

/// The way through the log.
#[derive(Clone, Debug)]
pub struct Pages {
    from: From,
    wanted: Wanted,
    next: u64,
    /// Goes ahead to where records of this time begin, once.
    since: Option<Timestamp>,
}

impl Pages {
    /// From entry `next` on; where the filter names a time to begin at, at once from there.
    #[must_use]
    pub fn new(from: From, wanted: Wanted, next: u64) -> Self {
        let since = earliest(&wanted.filter.expression);
        Self { from, wanted, next, since }
    }

    /// Gives the rows of one page to `each`, in the log's order; `each` says how many bytes they make.
    ///
    /// # Errors
    /// [`PageError`]; the page can be asked for again then, from its beginning.
    pub fn turn<E: std::convert::From<StoreError>>(
        &mut self,
        mut each: impl FnMut(Row) -> Result<usize, E>,
    ) -> Result<Turned, E> {
        let mut walk = self.from.walk()?;
        let mut turned = Turned { next: self.next, end: walk.end(), ..Turned::default() };
        if let Some(since) = self.since {
            turned.next = turned.next.max(walk.position_of(since)?);
        }
        let mut bytes = 0;
        'groups: for _ in 0..PAGE_GROUPS {
            let Some(stretch) = walk.stretch(turned.next)? else { break };
            turned.pruned += stretch.pruned;
            turned.unreadable += stretch.unreadable;
            for entry in &stretch.entries {
                match self.wanted.row(&mut walk, entry) {
                    Ok(Some(row)) => {
                        bytes += each(row)?;
                        turned.rows += 1;
                    }
                    Ok(None) => {}
                    Err(error @ StoreError::Malformed { .. }) => {
                        tracing::error!(entry = entry.n, %error, "an entry is passed over");
                        turned.unreadable += 1;
                    }
                    Err(error) => return Err(error.into()),
                }
                turned.next = entry.n + 1;
                if bytes >= PAGE_BYTES {
                    break 'groups;
                }
            }
            turned.next = turned.next.max(stretch.next);
        }
        (self.next, self.since) = (turned.next, None);
        Ok(turned)
    }

    /// Appends the lines of one page that [`Row::received`] reads.
    ///
    /// # Errors
    /// [`PageError`].
    pub fn send(&mut self, out: &mut Vec<u8>) -> Result<Turned, PageError> {
        self.turn(|row| {
            let before = out.len();
            row.send(out)?;
            Ok::<_, PageError>(out.len() - before)
        })
    }
}
