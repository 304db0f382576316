//! Pages of records, newest first, by filters.
//!
//! A query by host walks the groups that the index has for it; any other walks all groups. Both pass over
//! groups whose summary rules them out. What one call may cost is bounded whatever the filters and the
//! size of the log: see [`SCAN_CAP`]. A record that cannot be read is counted and passed over.

use std::collections::BinaryHeap;

use redb::{Range, ReadTransaction};
use serde::Serialize;

use super::{
    Store, StoreError,
    read::{Reader, Version},
    record::{self, Summary, action_bit, kind_bit},
    tables::{NAMES, SpanRow},
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
    /// Records among those looked at that cannot be read: damaged, or of a later version.
    #[serde(skip_serializing_if = "is_zero")]
    pub unreadable: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Store {
    /// The newest records below `query.before` that match.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub fn query(&self, query: &Query) -> Result<Page, StoreError> {
        let transaction = self.read()?;
        let text = query.text.as_ref().map(|text| text.to_ascii_lowercase()).filter(|text| !text.is_empty());
        let mut search = Search {
            reader: Reader::of(&transaction)?,
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
    let index = transaction.open_table(NAMES)?;
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
    reader: Reader,
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
        let mut at = below;
        loop {
            // By steps, because looking at records needs the reader too.
            let Some(row) = self.reader.spans.range(..at)?.next_back() else { return Ok(()) };
            let (first, row) = row?;
            at = first.value();
            if self.look_into(at, row.value(), below)? == Step::Stop {
                return Ok(());
            }
        }
    }

    fn by_hosts(
        &mut self,
        transaction: &ReadTransaction,
        hosts: &[String],
        below: u64,
    ) -> Result<(), StoreError> {
        let index = transaction.open_table(NAMES)?;
        let mut rows: Vec<Range<'_, (&str, u64), ()>> = Vec::with_capacity(hosts.len());
        let mut heads = BinaryHeap::with_capacity(hosts.len());
        for host in hosts {
            let mut range = index.range((host.as_str(), 0)..(host.as_str(), below))?;
            if let Some(row) = range.next_back() {
                heads.push((row?.0.value().1, rows.len()));
            }
            rows.push(range);
        }
        let mut done = None;
        while let Some((first, at)) = heads.pop() {
            if let Some(row) = rows.get_mut(at).and_then(Range::next_back) {
                heads.push((row?.0.value().1, at));
            }
            if done == Some(first) {
                continue;
            }
            done = Some(first);
            let Some(row) = self.reader.spans.get(first)?.map(|row| row.value()) else { continue };
            if self.look_into(first, row, below)? == Step::Stop {
                return Ok(());
            }
        }
        Ok(())
    }

    fn may_match(&self, group: Summary) -> bool {
        let query = self.query;
        query.since.is_none_or(|since| group.latest >= since)
            && query.until.is_none_or(|until| group.earliest < until)
            && query.kind.is_none_or(|kind| group.present & kind_bit(kind) != 0)
            && query.verdict.is_none_or(|action| group.present & action_bit(action) != 0)
    }

    /// The records below `below` that begin in one group.
    fn look_into(&mut self, first: u64, row: SpanRow, below: u64) -> Result<Step, StoreError> {
        // The records of a group share one summary; the cursor stands above what was not looked at.
        if !self.may_match(Summary::from_row(row)) {
            return Ok(self.spend(first));
        }
        for version in self.reader.span(first, row)?.iter().rev().filter(|version| version.id < below) {
            if self.look_at(version) == Step::Stop {
                return Ok(Step::Stop);
            }
        }
        Ok(Step::On)
    }

    fn look_at(&mut self, version: &Version) -> Step {
        match version.record() {
            Ok(record) => {
                if self.matches(&record) {
                    self.page.records.push(record);
                    self.bytes += version.encoded().map_or(0, <[u8]>::len);
                }
            }
            Err(error) => {
                // One line a page: there may be many.
                if self.page.unreadable == 0 {
                    tracing::error!(%error, "a record is passed over");
                }
                self.page.unreadable += 1;
            }
        }
        self.spend(version.id)
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
                .is_none_or(|pattern| record::host_of(record).is_some_and(|host| pattern.matches(&host)))
            && self.text.as_ref().is_none_or(|text| {
                let holds = |field: &str| field.to_ascii_lowercase().contains(text);
                record::host_of(record).is_some_and(|host| holds(&host))
                    || record.request.as_ref().is_some_and(|head| holds(&head.target))
                    || record.note.as_deref().is_some_and(holds)
            })
    }
}
