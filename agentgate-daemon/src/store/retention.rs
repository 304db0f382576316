//! What is kept, and for how long: the oldest groups go first, whole, in short transactions.
//!
//! A record whose first entry goes while a later one stays moves to the group of its last entry; one that
//! is under way has its entry written once more at the end of the log. So every record is either there
//! as it was, or gone. Bodies may go earlier than records: their digests stay.
//!
//! Age is that of the youngest record that begins in a group, by the clock at that time. A clock that was
//! ahead for a while holds later records until that time has come; the bound in bytes holds regardless.
//! What goes stays counted for the balance with the kernel's counters (`tally`).

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt as _,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use redb::{ReadTransaction, ReadableTable, Table, WriteTransaction};
use serde::{Deserialize, Serialize};

use super::{
    Store, StoreError,
    bodies::Place,
    canonical::Glance,
    error::unharmed,
    group, packed,
    packed::Part,
    tables::{
        BODIES_FROM, DROPPED, DROPPED_ID, ENTRIES, GROUPS, LAST_ID, META, PACKS, SPANS, SpanRow, WEIGHT,
        WEIGHT_MOST,
    },
    text,
    write::Batch,
};
use crate::model::{RecordId, Timestamp};
use dictionary::Cleaning;
pub use readers::Readers;

mod dictionary;
mod prune;
mod readers;

#[cfg(test)]
mod tests;

/// Groups, and time, after which a transaction ends: writers wait for it.
const SLICE_GROUPS: u64 = 64;
const SLICE: Duration = Duration::from_millis(20);
/// By how much of itself a bound may be passed before something is pruned, so that it is not pruned
/// with every record: a fiftieth.
const SLACK: u64 = 50;
/// The same for ages.
const SLACK_TIME: Duration = Duration::from_hours(1);

/// What is kept. `None`: no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Since a record began.
    pub age: Option<Duration>,
    /// How many records.
    pub records: Option<u64>,
    /// Bytes of the file that are in use.
    pub bytes: Option<u64>,
    /// Since the record of a body began.
    pub body_age: Option<Duration>,
}

/// Why something is pruned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Why {
    Age,
    Records,
    Bytes,
}

impl Why {
    /// For people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Age => "age",
            Self::Records => "number of records",
            Self::Bytes => "bytes",
        }
    }
}

/// What went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    pub entries: u64,
    pub records: u64,
    /// Packs of bodies.
    pub packs: u64,
    /// First and last id of the records.
    pub ids: Option<(RecordId, RecordId)>,
    /// When the first and the last of them began.
    pub times: Option<(Timestamp, Timestamp)>,
    /// Entries that were written once more, because their records are under way.
    pub carried: u64,
    /// The first entry that the log has now.
    pub first: u64,
    /// Bodies of entries before this one are gone, but for those that later ones have too.
    pub bodies_from: u64,
    pub why: Option<Why>,
}

impl Pruned {
    fn over(&mut self, id: u64, started: Timestamp) {
        let id = RecordId(id);
        self.records += 1;
        self.ids = Some(self.ids.map_or((id, id), |(low, high)| (low.min(id), high.max(id))));
        self.times =
            Some(self.times.map_or((started, started), |(low, high)| (low.min(started), high.max(started))));
    }

    /// Adds what went after it.
    fn join(&mut self, later: Self) {
        self.entries += later.entries;
        self.records += later.records;
        self.packs += later.packs;
        self.carried += later.carried;
        let ids = [self.ids, later.ids].into_iter().flatten();
        self.ids = ids.reduce(|one, two| (one.0.min(two.0), one.1.max(two.1)));
        let times = [self.times, later.times].into_iter().flatten();
        self.times = times.reduce(|one, two| (one.0.min(two.0), one.1.max(two.1)));
        self.first = self.first.max(later.first);
        self.bodies_from = self.bodies_from.max(later.bodies_from);
        self.why = later.why.or(self.why);
    }

    fn is_empty(&self) -> bool {
        self.entries == 0 && self.packs == 0
    }

    /// One sentence, for the record of it.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = match (self.why, self.ids, self.times) {
            (Some(why), Some((low, high)), Some((from, to))) => format!(
                "retention by {}: {} records pruned, {low} to {high}, begun {from} to {to}; the log begins with \
                 entry {}",
                why.as_str(),
                self.records,
                self.first
            ),
            (Some(why), ..) => format!(
                "retention by {}: {} entries pruned; the log begins with entry {}",
                why.as_str(),
                self.entries,
                self.first
            ),
            (None, ..) => format!("retention: bodies dropped before entry {}", self.bodies_from),
        };
        if self.packs > 0 {
            text.push_str(&format!(", {} packs of bodies freed", self.packs));
        }
        if self.carried > 0 {
            text.push_str(&format!(", {} records under way carried on", self.carried));
        }
        text
    }
}

/// What is being pruned: once begun, until it is well within its bound.
#[derive(Clone, Debug, Default)]
pub(crate) struct Run {
    begun: BTreeSet<u8>,
    /// What went since the run began.
    pruned: Pruned,
    /// Texts that go after records.
    cleaning: Cleaning,
}

/// Whether something is to be pruned.
#[derive(Clone, Copy, Debug, Default)]
struct Due {
    now: bool,
    /// It would be, and somebody is to read it first.
    waits: bool,
}

/// What one slice came to.
#[derive(Debug, Default)]
pub(crate) struct Slice {
    /// There is more to do, at once.
    pub(crate) more: bool,
    /// A run is over, and this is what went in it.
    pub(crate) over: Option<Pruned>,
}

/// The oldest group from some number on.
#[derive(Clone, Copy, Debug)]
struct Oldest {
    number: u64,
    /// When its youngest record began; `None` where it cannot be read.
    youngest: Option<Timestamp>,
}

/// Numbers that bounds are compared with.
#[derive(Clone, Copy, Debug)]
struct Extent {
    records: u64,
    bytes: u64,
}

impl Store {
    /// Prunes for a moment, if something is due: one transaction at most. To be called again at once
    /// while there is more. Does nothing during backup and compaction. What `readers` have not read yet stays,
    /// but for the bound in bytes.
    pub(crate) fn retain(
        &self,
        rules: &Rules,
        readers: &Readers,
        run: &mut Run,
        now: Timestamp,
    ) -> Result<Slice, StoreError> {
        let Ok(_whole) = self.upkeep() else { return Ok(Slice::default()) };
        let mut packing = self.packing();
        // The group under way is written to, and known to `packing` alone.
        let end = packing.tail.as_ref().map(|(tail, ..)| tail.number);
        let due = unharmed(|| self.is_due(rules, readers, run, now, end))?;
        readers.are_waited_for(due.waits);
        if !due.now {
            let mut slice = run.end();
            if slice.over.as_ref().is_some_and(|pruned| pruned.records > 0) {
                run.cleaning = Cleaning::Due;
            }
            if !run.cleaning.is_idle() {
                slice.more = unharmed(|| self.clean_terms(packing, &mut run.cleaning))?;
            }
            return Ok(slice);
        }
        let result = unharmed(|| self.prune_slice(&mut packing, rules, readers, run, now));
        if result.is_err() {
            packing.forget();
        }
        result
    }

    /// A look without a transaction that writes: there is nearly never anything to do.
    fn is_due(
        &self,
        rules: &Rules,
        readers: &Readers,
        run: &Run,
        now: Timestamp,
        end: Option<u64>,
    ) -> Result<Due, StoreError> {
        let snapshot = self.snapshot()?;
        let (groups, meta) = (snapshot.open_table(GROUPS)?, snapshot.open_table(META)?);
        let spans = snapshot.open_table(SPANS)?;
        let end = end.map_or_else(|| number(&meta, ENTRIES), Ok)?;
        let mut run = run.clone();
        let extent = Extent::of(&meta, self.blocks())?;
        let eldest = oldest(&groups, &spans, &meta, 0, end)?;
        let bodies = if rules.body_age.is_some() {
            oldest(&groups, &spans, &meta, number(&meta, BODIES_FROM)?, end)?
        } else {
            None
        };
        let mut due = Due::default();
        if let Some(oldest) = eldest
            && let Some(why) = run.wants(rules, oldest, extent, now)
        {
            let unread = readers.need(next_group(&groups, oldest.number, end)?);
            (due.now, due.waits) = (why == Why::Bytes || !unread, unread && why != Why::Bytes);
            // The bound in bytes holds regardless.
            due.now |= unread && run.wants_bytes(rules, extent);
        }
        if let Some(oldest) = bodies
            && run.wants_bodies(rules, oldest, now)
        {
            let unread = readers.need_bodies(next_group(&groups, oldest.number, end)?);
            (due.now, due.waits) = (due.now || !unread, due.waits || unread);
        }
        due.waits &= !due.now;
        Ok(due)
    }

    fn prune_slice(
        &self,
        packing: &mut super::write::Packing,
        rules: &Rules,
        readers: &Readers,
        run: &mut Run,
        now: Timestamp,
    ) -> Result<Slice, StoreError> {
        let blocks = self.blocks();
        let begun = Instant::now();
        // Of this run only once the transaction is kept.
        let mut going = run.clone();
        let transaction = self.begin_write()?;
        let key = self.key(packing, &transaction)?;
        let (tail, last_id) = {
            let epoch = self.epoch.load(Ordering::Acquire);
            let epoch_first = super::tally::first_of(&transaction, epoch)?;
            let mut batch = Batch::open(&transaction, epoch, packing, key.clone())?;
            let bodies_before = number(&batch.meta, BODIES_FROM)?;
            let mut slice = Pruned::default();
            let mut groups = 0;
            let mut gone = Vec::new();
            while groups < SLICE_GROUPS && begun.elapsed() < SLICE {
                groups += 1;
                let end = batch.tail.number;
                let extent = Extent::of(&batch.meta, blocks)?;
                if let Some(eldest) = oldest(&batch.groups, &batch.index.spans, &batch.meta, 0, end)?
                    && let Some(why) = going.wants(rules, eldest, extent, now)
                    && let Some(why) = match readers.need(next_group(&batch.groups, eldest.number, end)?) {
                        true => going.wants_bytes(rules, extent).then_some(Why::Bytes),
                        false => Some(why),
                    }
                {
                    slice.why = Some(why);
                    batch.prune(eldest.number, epoch_first, &mut slice, &mut gone)?;
                } else {
                    let from = number(&batch.meta, BODIES_FROM)?;
                    match oldest(&batch.groups, &batch.index.spans, &batch.meta, from, end)? {
                        Some(oldest)
                            if going.wants_bodies(rules, oldest, now)
                                && !readers.need_bodies(next_group(&batch.groups, oldest.number, end)?) =>
                        {
                            batch.drop_bodies(oldest.number, &mut slice)?;
                        }
                        _ => break,
                    }
                }
                let grown = batch.packer.take_grown();
                weigh(&mut batch.meta, grown)?;
            }
            // Once for all, because it reads the rows of whole blocks.
            batch.index.postings.forget(&gone)?;
            batch.state(&slice, bodies_before)?;
            going.pruned.join(slice);
            batch.finish()?
        };
        text::forget(&transaction, going.pruned.first)?;
        transaction.commit()?;
        packing.go_on(tail, key);
        self.last_id.store(last_id, Ordering::Release);
        *run = going;
        Ok(Slice { more: true, over: None })
    }

    /// Bytes of the file that were ever written, which is what it takes of the disk.
    pub(super) fn blocks(&self) -> u64 {
        fs::metadata(&self.files.path).map_or(0, |file| file.blocks().saturating_mul(512))
    }
}

impl Run {
    const AGE: u8 = 1;
    const RECORDS: u8 = 2;
    const BYTES: u8 = 3;
    const BODIES: u8 = 4;

    /// Whether `which` goes on; `over`: beyond its bound, `within`: well within it.
    fn goes_on(&mut self, which: u8, over: bool, within: bool) -> bool {
        if over {
            self.begun.insert(which);
        }
        if within {
            self.begun.remove(&which);
        }
        self.begun.contains(&which)
    }

    fn ages(
        &mut self,
        which: u8,
        bound: Option<Duration>,
        youngest: Option<Timestamp>,
        now: Timestamp,
    ) -> bool {
        let Some(bound) = bound else { return false };
        let age = youngest.map_or(Duration::MAX, |youngest| Duration::from_micros(now.since(youngest)));
        self.goes_on(which, age > bound.saturating_add(SLACK_TIME.min(bound / 24)), age <= bound)
    }

    fn wants(&mut self, rules: &Rules, oldest: Oldest, extent: Extent, now: Timestamp) -> Option<Why> {
        if self.ages(Self::AGE, rules.age, oldest.youngest, now) {
            return Some(Why::Age);
        }
        if self.passes(Self::RECORDS, rules.records, extent.records) {
            return Some(Why::Records);
        }
        self.wants_bytes(rules, extent).then_some(Why::Bytes)
    }

    fn wants_bytes(&mut self, rules: &Rules, extent: Extent) -> bool {
        self.passes(Self::BYTES, rules.bytes, extent.bytes)
    }

    fn passes(&mut self, which: u8, bound: Option<u64>, is: u64) -> bool {
        bound.is_some_and(|bound| self.goes_on(which, is > bound, is <= bound - bound / SLACK))
    }

    fn wants_bodies(&mut self, rules: &Rules, oldest: Oldest, now: Timestamp) -> bool {
        self.ages(Self::BODIES, rules.body_age, oldest.youngest, now)
    }

    fn end(&mut self) -> Slice {
        self.begun.clear();
        let pruned = std::mem::take(&mut self.pruned);
        Slice { more: false, over: Some(pruned).filter(|pruned| !pruned.is_empty()) }
    }
}

impl Extent {
    /// `blocks`: bytes that the file takes.
    fn of(meta: &impl ReadableTable<&'static str, u64>, blocks: u64) -> Result<Self, StoreError> {
        let records = number(meta, LAST_ID)?.saturating_sub(number(meta, DROPPED)?);
        let (weight, most) = (number(meta, WEIGHT)?, number(meta, WEIGHT_MOST)?);
        // Pages that were freed stay with the file: what is in use is as much less of it as groups and
        // bodies are less than they were.
        let bytes = u128::from(blocks) * u128::from(weight) / u128::from(most.max(1));
        Ok(Self { records, bytes: u64::try_from(bytes).unwrap_or(u64::MAX) })
    }
}

/// Weighs a file that was not weighed: one of an earlier version.
pub(super) fn weigh_all(transaction: &WriteTransaction) -> Result<(), StoreError> {
    let mut meta = transaction.open_table(META)?;
    if meta.get(WEIGHT)?.is_some() {
        return Ok(());
    }
    let mut weight = 0;
    for table in [GROUPS, PACKS] {
        for row in transaction.open_table(table)?.iter()? {
            weight += row?.1.value().len() as u64;
        }
    }
    meta.insert(WEIGHT, weight)?;
    meta.insert(WEIGHT_MOST, weight)?;
    Ok(())
}

/// Bytes in use of a file that takes `disk` bytes.
pub(super) fn used(meta: &impl ReadableTable<&'static str, u64>, disk: u64) -> Result<u64, StoreError> {
    Ok(Extent::of(meta, disk)?.bytes)
}

/// Adds to the weight of the file.
pub(super) fn weigh(meta: &mut Table<'_, &'static str, u64>, grown: i64) -> Result<(), StoreError> {
    if grown == 0 {
        return Ok(());
    }
    let weight = number(meta, WEIGHT)?.saturating_add_signed(grown);
    meta.insert(WEIGHT, weight)?;
    if weight > number(meta, WEIGHT_MOST)? {
        meta.insert(WEIGHT_MOST, weight)?;
    }
    Ok(())
}

fn number(meta: &impl ReadableTable<&'static str, u64>, name: &'static str) -> Result<u64, StoreError> {
    Ok(meta.get(name)?.map_or(0, |value| value.value()))
}

/// Whether a body of a group's entry is not there because its time was up.
pub(super) fn dropped(snapshot: &ReadTransaction, group: u64, place: Place) -> Result<bool, StoreError> {
    let from = number(&snapshot.open_table(META)?, BODIES_FROM)?;
    Ok(group < from && snapshot.open_table(PACKS)?.get((place.pack, 0))?.is_none())
}

/// Where the group after this one begins, or `end`.
fn next_group(
    groups: &impl ReadableTable<Part, &'static [u8]>,
    group: u64,
    end: u64,
) -> Result<u64, StoreError> {
    let row = groups.range((group + 1, 0)..)?.next().transpose()?;
    Ok(row.map_or(end, |(key, _)| key.value().0))
}

/// The first group from `from` on that is before `end`.
fn oldest(
    groups: &impl ReadableTable<Part, &'static [u8]>,
    spans: &impl ReadableTable<u64, SpanRow>,
    meta: &impl ReadableTable<&'static str, u64>,
    from: u64,
    end: u64,
) -> Result<Option<Oldest>, StoreError> {
    let moved = number(meta, DROPPED_ID)?;
    let Some(row) = groups.range((from, 0)..(end, 0))?.next() else { return Ok(None) };
    let group = row?.0.value().0;
    // The rows of the oldest groups come first, but for those of single records: that were moved, or whose
    // beginning an import did not have.
    let mut youngest = None;
    for row in spans.iter()? {
        let (first, row) = row?;
        let (last, at, _, latest, _) = row.value();
        if at == group {
            youngest = youngest.max(Some(Timestamp(latest)));
        } else if at > group && first.value() > moved && first.value() < last {
            break;
        }
    }
    if youngest.is_none() {
        // Nothing begins in it: as old as what it has the ends of.
        let content = packed::get(groups, group)?.and_then(Result::ok).unwrap_or_default();
        for entry in group::entries(&content).unwrap_or_default() {
            let seen = Glance::at(content.get(entry.record).unwrap_or_default());
            youngest = youngest.max(seen.ok().map(|seen| seen.started));
        }
    }
    Ok(Some(Oldest { number: group, youngest }))
}
