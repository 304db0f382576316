//! Records that may have what is looked for, newest first, found as far down as somebody asks.

use std::{collections::BTreeMap, ops::RangeInclusive, sync::Arc};

use redb::{ReadOnlyTable, ReadTransaction};

use super::{
    Text,
    find::Sought,
    format::Head,
    segment::{Builder, Segment},
    set::Set,
    table::Reading,
};
use crate::{
    model::TextIndex,
    store::{
        StoreError,
        error::unharmed,
        order::Walk,
        tables::{SPANS, SpanRow},
    },
};

/// Records that may have all of what is looked for. Of one snapshot.
#[derive(Debug)]
pub struct Candidates {
    sought: Vec<Sought>,
    mode: TextIndex,
    reading: Reading,
    walk: Walk,
    spans: ReadOnlyTable<u64, SpanRow>,
    /// What is in memory, newest last.
    live: Vec<Live>,
    /// Segments that were passed over, because it is dear to look into them, until somebody asks for ids that
    /// they have.
    passed: Vec<Passed>,
    /// Entries from here on were looked at.
    at: u64,
    /// Of ids above this one all candidates are in `found`.
    known: u64,
    /// Rows of spans from this id on are of groups that were looked at.
    rows: u64,
    /// 64 ids to a word.
    found: BTreeMap<u64, u64>,
}

/// A segment in the tables, by its first entry, and the lowest and the highest id that it has.
#[derive(Clone, Copy, Debug)]
struct Passed {
    from: u64,
    lowest: u64,
    highest: u64,
}

/// What was found in a segment that is in memory.
#[derive(Debug)]
struct Live {
    from: u64,
    to: u64,
    below: u64,
    ids: Vec<u64>,
}

impl Live {
    fn of_builder(builder: &Builder, sought: &[Sought]) -> Self {
        let set = builder.candidates(sought);
        let bounds = builder.bounds();
        let ids = set.iter().filter_map(|at| builder.id(at)).collect();
        Self { from: bounds.from, to: bounds.to, below: bounds.below, ids }
    }

    fn of_segment(segment: &Segment, sought: &[Sought]) -> Result<Self, StoreError> {
        let set = segment.head.candidates(segment.content.as_slice(), sought).map_err(StoreError::Text)?;
        let bounds = &segment.head.bounds;
        let ids = ids(&segment.head, &set).collect();
        Ok(Self { from: bounds.from, to: bounds.to, below: bounds.below, ids })
    }
}

fn ids(head: &Head, set: &Set) -> impl Iterator<Item = u64> {
    set.iter().filter_map(|at| head.id(at))
}

impl Candidates {
    pub(super) fn new(
        text: &Text,
        transaction: &ReadTransaction,
        sought: Vec<Sought>,
    ) -> Result<Self, StoreError> {
        let walk = Walk::of(transaction)?;
        text.want(walk.end());
        let mut live = Vec::new();
        let closing = {
            let growing = text.growing();
            // While it is held, because it takes entries.
            live.extend(growing.builder.as_ref().map(|builder| Live::of_builder(builder, &sought)));
            growing.closing.clone()
        };
        // After that, because one that is closing comes there next: it may be in both, and not in neither.
        let (mode, whole): (_, Vec<Arc<Segment>>) = {
            let state = text.state();
            (state.mode, state.whole.clone())
        };
        live.extend(closing.map(|builder| Live::of_builder(&builder, &sought)));
        for segment in whole.iter().rev() {
            live.push(Live::of_segment(segment, &sought)?);
        }
        live.reverse();
        Ok(Self {
            sought,
            mode,
            reading: Reading::of(transaction)?,
            at: walk.end(),
            walk,
            spans: transaction.open_table(SPANS)?,
            live,
            passed: Vec::new(),
            known: u64::MAX,
            rows: u64::MAX,
            found: BTreeMap::new(),
        })
    }

    /// The newest candidate below this id.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub fn below(&mut self, id: u64) -> Result<Option<u64>, StoreError> {
        loop {
            if let Some(last) = id.checked_sub(1) {
                unharmed(|| self.look_into_passed(&(0..=last)))?;
            }
            let found = self.newest_below(id);
            if self.at == 0 || found.is_some_and(|found| found > self.known) {
                return Ok(found);
            }
            unharmed(|| self.load())?;
        }
    }

    /// The candidates among these ids, lowest first.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub fn among(&mut self, ids: RangeInclusive<u64>) -> Result<Vec<u64>, StoreError> {
        while self.at > 0 && *ids.start() <= self.known {
            unharmed(|| self.load())?;
        }
        unharmed(|| self.look_into_passed(&ids))?;
        let mut among = Vec::new();
        for (word, bits) in self.found.range(ids.start() / 64..=ids.end() / 64) {
            let each = (0..64).filter(|bit| bits >> bit & 1 == 1).map(|bit| word * 64 + bit);
            among.extend(each.filter(|id| ids.contains(id)));
        }
        Ok(among)
    }

    fn newest_below(&self, id: u64) -> Option<u64> {
        let last = id.checked_sub(1)?;
        self.found.range(..=last / 64).rev().find_map(|(word, bits)| {
            let upto = if *word == last / 64 { u64::MAX >> (63 - last % 64) } else { u64::MAX };
            let bits = bits & upto;
            (bits != 0).then(|| word * 64 + u64::from(63 - bits.leading_zeros()))
        })
    }

    fn insert(&mut self, id: u64) {
        *self.found.entry(id / 64).or_default() |= 1 << (id % 64);
    }

    /// Goes down by a segment, or by a group that none is about.
    fn load(&mut self) -> Result<(), StoreError> {
        while self.live.last().is_some_and(|live| live.from >= self.at) {
            self.live.pop();
        }
        if let Some(live) = self.live.last() {
            if live.to < self.at {
                return self.load_group(live.to);
            }
            if let Some(live) = self.live.pop() {
                live.ids.into_iter().for_each(|id| self.insert(id));
                (self.at, self.known) = (live.from, self.known.min(live.below));
            }
            return Ok(());
        }
        let mut before = self.at;
        loop {
            match self.reading.last_before(before)? {
                None => return self.load_group(0),
                Some((_, Some(head))) if head.bounds.to < self.at && self.counts(&head) => {
                    return self.load_group(head.bounds.to);
                }
                Some((from, Some(head))) if self.counts(&head) => {
                    if self.sought.iter().any(Sought::is_dear) {
                        let (lowest, highest) = head.ids();
                        self.passed.push(Passed { from, lowest, highest });
                        (self.at, self.known) = (from, self.known.min(head.bounds.below));
                        return Ok(());
                    }
                    let set = head.candidates(&self.reading.content(from), &self.sought)?;
                    ids(&head, &set).for_each(|id| self.insert(id));
                    (self.at, self.known) = (from, self.known.min(head.bounds.below));
                    return Ok(());
                }
                // Without bodies, or of another version: it is as if it were not there.
                Some((from, _)) => before = from,
            }
        }
    }

    /// Looks into segments that may have some of these ids.
    fn look_into_passed(&mut self, wanted: &RangeInclusive<u64>) -> Result<(), StoreError> {
        let has = |passed: &Passed| passed.lowest <= *wanted.end() && passed.highest >= *wanted.start();
        while let Some(at) = self.passed.iter().position(has) {
            let Some(Passed { from, .. }) = self.passed.get(at).copied() else { return Ok(()) };
            if let Some(head) = self.reading.head(from)? {
                let set = head.candidates(&self.reading.content(from), &self.sought)?;
                ids(&head, &set).for_each(|id| self.insert(id));
            }
            // Once it is known what it has.
            self.passed.swap_remove(at);
        }
        Ok(())
    }

    fn counts(&self, head: &Head) -> bool {
        head.bodies || self.mode == TextIndex::Heads
    }

    /// Takes in the entries of the group before `at`, from `floor` on: none is ruled out.
    fn load_group(&mut self, floor: u64) -> Result<(), StoreError> {
        let Some(number) = self.walk.group_before(self.at)? else {
            // What was here is pruned.
            (self.at, self.known) = (floor, if floor == 0 { 0 } else { self.known });
            return Ok(());
        };
        let stretch = self.walk.stretch(number.max(floor))?;
        let entries = stretch.map(|stretch| stretch.entries).unwrap_or_default();
        let at = self.at;
        for entry in entries.iter().filter(|entry| entry.n < at) {
            self.insert(entry.id().0);
        }
        // The last id that began in an earlier group. Rows of records whose beginning is pruned name the
        // group of their end.
        while number >= floor && self.known > 0 {
            let Some(row) = self.spans.range(..self.rows)?.next_back() else {
                self.known = 0;
                break;
            };
            let (first, row) = row?;
            let (last, group, ..) = row.value();
            if group < number {
                self.known = self.known.min(last);
                break;
            }
            self.rows = first.value();
        }
        self.at = number.max(floor);
        if self.at == 0 {
            self.known = 0;
        }
        Ok(())
    }
}
