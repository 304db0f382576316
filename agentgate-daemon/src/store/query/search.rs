//! The way through the blocks of a log.

use std::{cmp::Reverse, collections::BinaryHeap};

use redb::{ReadOnlyTable, ReadTransaction};

use super::{Count, Cursor, PAGE_BYTES, Page, ROWS_CAP, SCAN_CAP, plan::Plan, text::Bodies};
use crate::{
    filter::{Bounds, Expression, Sort},
    model::{Record, RecordId},
    store::{
        StoreError,
        canonical::Malformed,
        postings::{
            self, COLUMNS, POSTINGS,
            bits::{BLOCK, Bits, SHIFT, block_of, offset_of},
            column::{Column, kind},
            terms::{field, term},
        },
        read::Reader,
        text::{Candidates, Sought, Text},
    },
    words::Needle,
};

/// Terms that are looked up one by one; of more, all rows of their field are walked.
const LOOKED_UP: usize = 64;

/// What it counts for to look at all words of a block's records.
const SCANNED: usize = 1024;

/// Of which records of a block a condition holds.
#[derive(Clone, Copy, Debug)]
struct Answer {
    sure: Bits,
    /// All of `sure`, and those of which it may.
    maybe: Bits,
}

impl Answer {
    const NONE: Self = Self { sure: Bits::NONE, maybe: Bits::NONE };

    fn certain(bits: Bits) -> Self {
        Self { sure: bits, maybe: bits }
    }
}

pub(super) struct Search {
    reader: Reader,
    postings: ReadOnlyTable<(u64, u64), &'static [u8]>,
    columns: ReadOnlyTable<(u64, u8), &'static [u8]>,
    bodies: Bodies,
    /// What is looked for in texts, and where it may be.
    words: Vec<(Sought, Candidates)>,
    plan: Plan,
    expression: Expression,
    page: Page,
    bytes: usize,
    /// Rows and records looked at.
    rows: usize,
    records: usize,
    /// All records of the block that is looked at, once they were asked for.
    everything: Option<Bits>,
}

/// What a look at a record says.
enum Looked {
    Matches(Box<Record>),
    Differs,
    /// Reading on would cost too much.
    Spent,
}

impl Search {
    pub(super) fn of(
        text: &Text,
        transaction: &ReadTransaction,
        expression: Expression,
    ) -> Result<Self, StoreError> {
        let postings = transaction.open_table(POSTINGS)?;
        let plan = Plan::of(transaction, &expression)?;
        let mut sought = Vec::new();
        plan.sought(&mut sought);
        let mut words: Vec<(Sought, Candidates)> = Vec::with_capacity(sought.len());
        for sought in sought {
            if !words.iter().any(|(known, _)| known == sought) {
                words.push((sought.clone(), text.candidates(transaction, vec![sought.clone()])?));
            }
        }
        let mut all = Vec::new();
        expression.needles(&mut all);
        let mut needles: Vec<Needle> = Vec::with_capacity(all.len());
        for needle in all {
            if !needles.contains(needle) {
                needles.push(needle.clone());
            }
        }
        Ok(Self {
            reader: Reader::of(transaction)?,
            postings,
            columns: transaction.open_table(COLUMNS)?,
            bodies: Bodies::of(transaction, needles)?,
            words,
            plan,
            expression,
            page: Page::default(),
            bytes: 0,
            rows: 0,
            records: 0,
            everything: None,
        })
    }

    pub(super) fn newest(mut self, before: Option<Cursor>, limit: usize) -> Result<Page, StoreError> {
        let below = before.map_or(u64::MAX, |cursor| cursor.id.0);
        let Some(last) = below.checked_sub(1) else { return Ok(self.page) };
        let mut next = self.block_down_from(Some(block_of(last)))?;
        while let Some(block) = next {
            next = self.block_down_from(block.checked_sub(1))?;
            if self.rows >= ROWS_CAP {
                self.page.next = Some(RecordId((block + 1) << SHIFT).into());
                return Ok(self.page);
            }
            let answer = self.ask(block)?;
            for at in answer.maybe.and(&Bits::within(block, 0, last)).falling() {
                let id = (block << SHIFT) + at as u64;
                match self.look_at(id, answer.sure.has(at))? {
                    Looked::Matches(record) => self.page.records.push(*record),
                    Looked::Differs => {}
                    // It is the first that was not looked at.
                    Looked::Spent => {
                        self.page.next = Some(RecordId(id + 1).into());
                        return Ok(self.page);
                    }
                }
                if self.is_full(limit) {
                    // Ids begin at 1, so nothing is left below that.
                    self.page.next = Some(RecordId(id).into()).filter(|_| id > 1);
                    return Ok(self.page);
                }
            }
        }
        Ok(self.page)
    }

    pub(super) fn oldest(mut self, after: Option<Cursor>, limit: usize) -> Result<Page, StoreError> {
        let first = after.map_or(0, |cursor| cursor.id.0.saturating_add(1));
        let mut next = self.block_up_from(block_of(first))?;
        while let Some(block) = next {
            next = self.block_up_from(block + 1)?;
            if self.rows >= ROWS_CAP {
                self.page.next = Some(RecordId((block << SHIFT) - 1).into());
                return Ok(self.page);
            }
            let answer = self.ask(block)?;
            for at in answer.maybe.and(&Bits::within(block, first, u64::MAX)).rising() {
                let id = (block << SHIFT) + at as u64;
                match self.look_at(id, answer.sure.has(at))? {
                    Looked::Matches(record) => self.page.records.push(*record),
                    Looked::Differs => {}
                    Looked::Spent => {
                        self.page.next = Some(RecordId(id - 1).into());
                        return Ok(self.page);
                    }
                }
                if self.is_full(limit) {
                    self.page.next = Some(RecordId(id).into());
                    return Ok(self.page);
                }
            }
        }
        Ok(self.page)
    }

    /// By a column, the largest first, and the newest of equal ones.
    pub(super) fn largest(
        mut self,
        sort: Sort,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let column = if sort == Sort::Duration { kind::DURATION } else { kind::BYTES };
        let after =
            after.map_or((u64::MAX, u64::MAX), |cursor| (cursor.value.unwrap_or(u64::MAX), cursor.id.0));
        let mut best: BinaryHeap<Reverse<(u64, u64)>> = BinaryHeap::with_capacity(limit + 1);
        let mut next = self.block_down_from(Some(u64::MAX))?;
        'blocks: while let Some(block) = next {
            next = self.block_down_from(block.checked_sub(1))?;
            if self.rows >= ROWS_CAP {
                self.page.unsearched = Some(RecordId((block + 1) << SHIFT));
                break;
            }
            let answer = self.ask(block)?;
            if answer.maybe.is_empty() {
                continue;
            }
            let values = self.column(block, column)?;
            for at in answer.maybe.falling() {
                let id = (block << SHIFT) + at as u64;
                let place = (values.get(at).unwrap_or(0), id);
                let worse = best.len() >= limit && best.peek().is_some_and(|Reverse(least)| place < *least);
                if place >= after || worse {
                    continue;
                }
                if !answer.sure.has(at) {
                    match self.look_at(id, false)? {
                        Looked::Matches(_) => {}
                        Looked::Differs => continue,
                        Looked::Spent => {
                            self.page.unsearched = Some(RecordId(id + 1));
                            break 'blocks;
                        }
                    }
                }
                best.push(Reverse(place));
                if best.len() > limit {
                    best.pop();
                }
            }
        }
        let mut best = best.into_sorted_vec();
        let full = best.len() >= limit;
        for Reverse((value, id)) in best.drain(..) {
            if let Looked::Matches(record) = self.look_at(id, true)? {
                self.page.records.push(*record);
            }
            let cut = self.bytes >= PAGE_BYTES;
            if full || cut {
                self.page.next = Some(Cursor { value: Some(value), id: RecordId(id) });
            }
            if cut {
                break;
            }
        }
        Ok(self.page)
    }

    pub(super) fn count(mut self, before: Option<Cursor>) -> Result<Count, StoreError> {
        let below = before.map_or(u64::MAX, |cursor| cursor.id.0);
        let mut counted = Count::default();
        let Some(last) = below.checked_sub(1) else { return Ok(counted) };
        let mut next = self.block_down_from(Some(block_of(last)))?;
        'blocks: while let Some(block) = next {
            next = self.block_down_from(block.checked_sub(1))?;
            if self.rows >= ROWS_CAP {
                counted.next = Some(RecordId((block + 1) << SHIFT).into());
                break;
            }
            let answer = self.ask(block)?;
            let within = Bits::within(block, 0, last);
            let open = answer.maybe.without(&answer.sure).and(&within);
            let mut sure = answer.sure.and(&within);
            for at in open.falling() {
                let id = (block << SHIFT) + at as u64;
                match self.look_at(id, false)? {
                    Looked::Matches(_) => counted.count += 1,
                    Looked::Differs => {}
                    Looked::Spent => {
                        // Of this block those above it are counted.
                        sure = sure.and(&Bits::within(block, id + 1, u64::MAX));
                        counted.count += sure.count();
                        counted.next = Some(RecordId(id + 1).into());
                        break 'blocks;
                    }
                }
            }
            counted.count += sure.count();
        }
        counted.unreadable = self.page.unreadable;
        Ok(counted)
    }

    /// The highest block that there is at this one or below. Between blocks may be as many without a record
    /// as there are numbers, after an import.
    fn block_down_from(&self, block: Option<u64>) -> Result<Option<u64>, StoreError> {
        let Some(block) = block else { return Ok(None) };
        let row = self.postings.range((0, 0)..=(block, u64::MAX))?.next_back().transpose()?;
        Ok(row.map(|(key, _)| key.value().0))
    }

    /// The lowest block that there is at this one or above.
    fn block_up_from(&self, block: u64) -> Result<Option<u64>, StoreError> {
        let row = self.postings.range((block, 0)..)?.next().transpose()?;
        Ok(row.map(|(key, _)| key.value().0))
    }

    fn is_full(&self, limit: usize) -> bool {
        self.page.records.len() >= limit || self.bytes >= PAGE_BYTES
    }

    /// Reads a record and, where that is not certain, sees whether it matches.
    fn look_at(&mut self, id: u64, sure: bool) -> Result<Looked, StoreError> {
        if !sure {
            if self.records >= SCAN_CAP || self.bodies.spent() {
                return Ok(Looked::Spent);
            }
            self.records += 1;
        }
        let version = self.reader.get(id)?;
        let missing = || StoreError::Malformed { id: RecordId(id), source: Malformed("it is not there") };
        let found = version.ok_or_else(missing).and_then(|version| Ok((version.record()?, version)));
        match found {
            Ok((record, version)) => {
                let bodies = &mut self.bodies;
                let matches = sure || bodies.matches(&self.expression, &record, &version)?;
                if !matches {
                    return Ok(Looked::Differs);
                }
                self.bytes += version.encoded().map_or(0, <[u8]>::len);
                Ok(Looked::Matches(Box::new(record)))
            }
            Err(error) => {
                // One line a page: there may be many.
                if self.page.unreadable == 0 {
                    tracing::error!(%error, "a record is passed over");
                }
                self.page.unreadable += 1;
                Ok(Looked::Differs)
            }
        }
    }

    /// Which records of a block match.
    fn ask(&mut self, block: u64) -> Result<Answer, StoreError> {
        self.everything = None;
        self.rows += 1;
        // Out of `self`, which its parts are asked with.
        let plan = std::mem::replace(&mut self.plan, Plan::Unknown);
        let answer = self.answer(&plan, block);
        self.plan = plan;
        answer
    }

    fn answer(&mut self, plan: &Plan, block: u64) -> Result<Answer, StoreError> {
        Ok(match plan {
            Plan::All(parts) => {
                let mut all: Option<Answer> = None;
                for part in parts {
                    let next = self.answer(part, block)?;
                    let both = all.map_or(next, |all| Answer {
                        sure: all.sure.and(&next.sure),
                        maybe: all.maybe.and(&next.maybe),
                    });
                    if both.maybe.is_empty() {
                        return Ok(Answer::NONE);
                    }
                    all = Some(both);
                }
                match all {
                    Some(all) => all,
                    None => Answer::certain(self.everything(block)?),
                }
            }
            Plan::Any(parts) => {
                let mut any = Answer::NONE;
                for part in parts {
                    let next = self.answer(part, block)?;
                    any = Answer { sure: any.sure.or(&next.sure), maybe: any.maybe.or(&next.maybe) };
                }
                any
            }
            Plan::Not(part) => {
                let inner = self.answer(part, block)?;
                let all = self.everything(block)?;
                Answer { sure: all.without(&inner.maybe), maybe: all.without(&inner.sure) }
            }
            Plan::Terms { sure, maybe } => {
                let sure = self.one_of(block, sure)?;
                Answer { sure, maybe: sure.or(&self.one_of(block, maybe)?) }
            }
            Plan::Range(low, high) => Answer::certain(self.walk(block, *low, *high, |_| true)?),
            Plan::Ids(low, high) => {
                Answer::certain(self.everything(block)?.and(&Bits::within(block, *low, *high)))
            }
            Plan::Started(bounds) => Answer::certain(self.started(block, bounds)?),
            Plan::Column(column, bounds, without) => {
                let all = self.everything(block)?;
                let values = self.column(block, *column)?;
                let mut bits = Bits::NONE;
                for at in all.rising() {
                    if values.get(at).or(*without).is_some_and(|value| bounds.holds(value)) {
                        bits.set(at, true);
                    }
                }
                Answer::certain(bits)
            }
            Plan::Text(sought) => {
                let all = self.everything(block)?;
                let first = block << SHIFT;
                let mut maybe = Bits::NONE;
                if let Some((_, candidates)) = self.words.iter_mut().find(|(known, _)| known == sought) {
                    for id in candidates.among(first..=first + (BLOCK - 1))? {
                        maybe.set(offset_of(id), true);
                    }
                }
                self.rows += if sought.is_dear() { SCANNED } else { 64 };
                Answer { sure: Bits::NONE, maybe: all.and(&maybe) }
            }
            Plan::Unknown => Answer { sure: Bits::NONE, maybe: self.everything(block)? },
        })
    }

    fn everything(&mut self, block: u64) -> Result<Bits, StoreError> {
        if let Some(everything) = self.everything {
            return Ok(everything);
        }
        let everything = self.row(block, term(field::ALL, 0))?;
        self.everything = Some(everything);
        Ok(everything)
    }

    fn row(&mut self, block: u64, term: u64) -> Result<Bits, StoreError> {
        self.rows += 1;
        let row = self.postings.get((block, term))?;
        row.map_or(Ok(Bits::NONE), |row| Bits::read(row.value()).map_err(|why| damaged(block, why)))
    }

    fn one_of(&mut self, block: u64, terms: &[u64]) -> Result<Bits, StoreError> {
        if terms.len() <= LOOKED_UP {
            return terms.iter().try_fold(Bits::NONE, |any, term| Ok(any.or(&self.row(block, *term)?)));
        }
        match (terms.first(), terms.last()) {
            (Some(low), Some(high)) => {
                self.walk(block, *low, *high, |term| terms.binary_search(&term).is_ok())
            }
            (None, _) | (_, None) => Ok(Bits::NONE),
        }
    }

    fn walk(
        &mut self,
        block: u64,
        low: u64,
        high: u64,
        wanted: impl Fn(u64) -> bool,
    ) -> Result<Bits, StoreError> {
        let mut any = Bits::NONE;
        for row in self.postings.range((block, low)..=(block, high))? {
            let (key, value) = row?;
            self.rows += 1;
            if wanted(key.value().1) {
                any = any.or(&Bits::read(value.value()).map_err(|why| damaged(block, why))?);
            }
        }
        Ok(any)
    }

    fn started(&mut self, block: u64, bounds: &Bounds) -> Result<Bits, StoreError> {
        self.rows += 1;
        let Some(row) = self.columns.get((block, kind::BOUNDS))? else { return Ok(Bits::NONE) };
        let (earliest, latest) = postings::bounds(row.value()).map_err(|why| damaged(block, why))?;
        if i128::from(latest) < bounds.low || i128::from(earliest) > bounds.high {
            return Ok(Bits::NONE);
        }
        if bounds.holds(earliest) && bounds.holds(latest) {
            return self.everything(block);
        }
        let times = self.column(block, kind::STARTED)?;
        let mut bits = Bits::NONE;
        for at in times.has.rising() {
            bits.set(at, times.get(at).is_some_and(|time| bounds.holds(time.cast_signed())));
        }
        Ok(bits)
    }

    fn column(&mut self, block: u64, column: u8) -> Result<Column, StoreError> {
        self.rows += (BLOCK / 256) as usize;
        let row = self.columns.get((block, column))?;
        let read = |row: redb::AccessGuard<'_, &[u8]>| Column::read(row.value(), column == kind::STARTED);
        row.map_or_else(|| Ok(Column::empty()), |row| read(row).map_err(|why| damaged(block, why)))
    }
}

fn damaged(block: u64, source: Malformed) -> StoreError {
    StoreError::Malformed { id: RecordId(block << SHIFT), source }
}
