//! Pages of records, newest first, by filters.
//!
//! A query by host walks the index of hosts; any other walks the records and passes over blocks whose
//! summary rules them out. What one call may cost is bounded whatever the filters and the size of the
//! log: see [`SCAN_CAP`].

use std::collections::BinaryHeap;

use redb::{Range, ReadOnlyTable, ReadTransaction};
use serde::Serialize;

use super::{
    Store, StoreError,
    record::{self, Summary, action_bit, kind_bit},
    tables::{BLOCK, BLOCKS, HOSTS, RECORDS},
};
use crate::model::{Action, Kind, Record, RecordId, SessionId, Timestamp};

/// Most records a page holds.
pub const LIMIT_CAP: usize = 1000;
/// Rows one call looks at before it returns what it has, with a cursor to go on from.
pub const SCAN_CAP: usize = 10_000;
/// Encoded bytes of records after which a page ends, because heads may be hundreds of KiB each.
const PAGE_BYTES: usize = 16 << 20;
/// Hosts the index is searched for before the records are walked instead.
const HOSTS_SEEN: usize = 4096;
/// Hosts whose rows are merged; where more match, most records do, and walking them is as good.
const HOSTS_MERGED: usize = 64;
/// A longer pattern matches nothing: no host is as long.
const PATTERN_BYTES: usize = 512;

/// A host to look for: with `*` (any run) or `?` (any one character) a glob over the whole name, else
/// a part of it. Case does not matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPattern(String);

impl HostPattern {
    /// The pattern of `text`; a text of more than 512 bytes matches nothing.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.to_ascii_lowercase())
    }

    /// Whether `host`, which is lower case as `Host` keeps it, matches.
    #[must_use]
    pub fn matches(&self, host: &str) -> bool {
        if self.0.len() > PATTERN_BYTES {
            return false;
        }
        if self.0.contains(['*', '?']) {
            glob(self.0.as_bytes(), host.as_bytes())
        } else {
            host.contains(&self.0)
        }
    }
}

impl From<&str> for HostPattern {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

/// Glob match that goes back to the last `*` only, so its cost is at most the product of the lengths.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while let Some(&byte) = text.get(t) {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&want) if want == b'?' || want == byte => {
                p += 1;
                t += 1;
            }
            Some(_) | None => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    p = at + 1;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).unwrap_or_default().iter().all(|byte| *byte == b'*')
}

/// What to look for; every filter that is given must match.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// By the authority's host, or the original address of a flow without one.
    pub host: Option<HostPattern>,
    pub verdict: Option<Action>,
    pub kind: Option<Kind>,
    pub session: Option<SessionId>,
    /// Started at this time or later.
    pub since: Option<Timestamp>,
    /// Started before this time.
    pub until: Option<Timestamp>,
    /// Part of the host, the request's target or the note, whatever the case of ASCII letters.
    pub text: Option<String>,
    /// Only records below this id: `next` of the page before.
    pub before: Option<RecordId>,
    /// Records wanted; taken as 1 at least and [`LIMIT_CAP`] at most.
    pub limit: usize,
}

/// Records, newest (highest id) first.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Page {
    pub records: Vec<Record>,
    /// Where to go on. `None` once everything was looked at. May come with a page that is not full,
    /// or empty, where [`SCAN_CAP`] ended the search; and it does not promise another match.
    pub next: Option<RecordId>,
}

impl Store {
    /// The newest records below `query.before` that match.
    ///
    /// # Errors
    /// [`StoreError`] where the file or a record cannot be read.
    pub fn query(&self, query: &Query) -> Result<Page, StoreError> {
        let transaction = self.read()?;
        let text = query.text.as_ref().map(|text| text.to_ascii_lowercase()).filter(|text| !text.is_empty());
        let mut search = Search {
            records: transaction.open_table(RECORDS)?,
            blocks: transaction.open_table(BLOCKS)?,
            query,
            text,
            limit: query.limit.clamp(1, LIMIT_CAP),
            page: Page::default(),
            bytes: 0,
            looked_at: 0,
        };
        let below = query.before.map_or(u64::MAX, |id| id.0);
        if below == 0 {
            return Ok(search.page);
        }
        let hosts = match &query.host {
            Some(pattern) => matching_hosts(&transaction, pattern)?,
            None => None,
        };
        match hosts {
            Some(hosts) => search.by_hosts(&transaction, &hosts, below)?,
            None => search.by_records(below)?,
        }
        Ok(search.page)
    }
}

/// The hosts in the index that match, or `None` where there are too many to go by.
fn matching_hosts(
    transaction: &ReadTransaction,
    pattern: &HostPattern,
) -> Result<Option<Vec<String>>, StoreError> {
    let index = transaction.open_table(HOSTS)?;
    let mut found = Vec::new();
    // The empty string is no host, so the first step starts before every row.
    let mut at = String::new();
    for _ in 0..HOSTS_SEEN {
        let after = (std::ops::Bound::Excluded((at.as_str(), u64::MAX)), std::ops::Bound::Unbounded);
        let Some(row) = index.range::<(&str, u64)>(after)?.next() else {
            return Ok(Some(found));
        };
        let host = row?.0.value().0.to_owned();
        if pattern.matches(&host) {
            if found.len() == HOSTS_MERGED {
                return Ok(None);
            }
            found.push(host.clone());
        }
        at = host;
    }
    Ok(None)
}

/// What a step of the search says about the next.
#[derive(PartialEq, Eq)]
enum Step {
    On,
    Stop,
}

struct Search<'q> {
    records: ReadOnlyTable<u64, &'static [u8]>,
    blocks: ReadOnlyTable<u64, (i64, i64, u32)>,
    query: &'q Query,
    /// Lower case.
    text: Option<String>,
    limit: usize,
    page: Page,
    bytes: usize,
    looked_at: usize,
}

impl Search<'_> {
    fn by_records(&mut self, below: u64) -> Result<(), StoreError> {
        for row in self.blocks.range(..=below.saturating_sub(1) / BLOCK)?.rev() {
            let (block, summary) = row?;
            let first = block.value() * BLOCK;
            // The rows of a block share one summary; the cursor stands above what was not looked at.
            if !self.block_may_match(Summary::from_row(summary.value())) {
                if self.spend(first) == Step::Stop {
                    return Ok(());
                }
                continue;
            }
            let end = below.min(first.saturating_add(BLOCK));
            for row in self.records.range(first..end)?.rev() {
                let (id, value) = row?;
                if self.look_at(RecordId(id.value()), value.value())? == Step::Stop {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn by_hosts(
        &mut self,
        transaction: &ReadTransaction,
        hosts: &[String],
        below: u64,
    ) -> Result<(), StoreError> {
        let index = transaction.open_table(HOSTS)?;
        let mut rows: Vec<Range<'_, (&str, u64), ()>> = Vec::with_capacity(hosts.len());
        let mut heads = BinaryHeap::with_capacity(hosts.len());
        for host in hosts {
            let mut range = index.range((host.as_str(), 0)..(host.as_str(), below))?;
            if let Some(row) = range.next_back() {
                heads.push((row?.0.value().1, rows.len()));
            }
            rows.push(range);
        }
        let mut judged: Option<(u64, bool)> = None;
        while let Some((id, at)) = heads.pop() {
            if let Some(row) = rows.get_mut(at).and_then(Range::next_back) {
                heads.push((row?.0.value().1, at));
            }
            let block = id / BLOCK;
            let worth = match judged {
                Some((known, worth)) if known == block => worth,
                Some(_) | None => {
                    let row = self.blocks.get(block)?;
                    let worth = row.is_none_or(|row| self.block_may_match(Summary::from_row(row.value())));
                    judged = Some((block, worth));
                    worth
                }
            };
            let step = if worth {
                let value = self.records.get(id)?.ok_or(StoreError::Missing { id: RecordId(id) })?;
                self.look_at(RecordId(id), value.value())?
            } else {
                self.spend(id)
            };
            if step == Step::Stop {
                return Ok(());
            }
        }
        Ok(())
    }

    fn block_may_match(&self, block: Summary) -> bool {
        let query = self.query;
        query.since.is_none_or(|since| block.latest >= since)
            && query.until.is_none_or(|until| block.earliest < until)
            && query.kind.is_none_or(|kind| block.present & kind_bit(kind) != 0)
            && query.verdict.is_none_or(|action| block.present & action_bit(action) != 0)
    }

    fn look_at(&mut self, id: RecordId, value: &[u8]) -> Result<Step, StoreError> {
        let record = record::decode(id, value)?;
        if self.matches(&record) {
            self.page.records.push(record);
            self.bytes += value.len();
        }
        Ok(self.spend(id.0))
    }

    /// Counts one row; everything from `id` up has been looked at.
    fn spend(&mut self, id: u64) -> Step {
        self.looked_at += 1;
        let full = self.page.records.len() >= self.limit || self.bytes >= PAGE_BYTES;
        // Ids begin at 1, so nothing is left below that.
        if (full || self.looked_at >= SCAN_CAP) && id > 1 {
            self.page.next = Some(RecordId(id));
            return Step::Stop;
        }
        if full { Step::Stop } else { Step::On }
    }

    fn matches(&self, record: &Record) -> bool {
        let query = self.query;
        query.verdict.is_none_or(|action| record.verdict.as_ref().is_some_and(|v| v.action == action))
            && query.kind.is_none_or(|kind| record.kind == kind)
            && query.since.is_none_or(|since| record.started >= since)
            && query.until.is_none_or(|until| record.started < until)
            && query
                .session
                .as_ref()
                .is_none_or(|session| record.subject.as_ref().is_some_and(|s| s.session == *session))
            && query
                .host
                .as_ref()
                .is_none_or(|pattern| record::host(record).is_some_and(|host| pattern.matches(&host)))
            && self.text.as_ref().is_none_or(|text| {
                let holds = |field: &str| field.to_ascii_lowercase().contains(text);
                record::host(record).is_some_and(|host| holds(&host))
                    || record.request.as_ref().is_some_and(|head| holds(&head.target))
                    || record.note.as_deref().is_some_and(holds)
            })
    }
}
