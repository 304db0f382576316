//! Whether the tables that derive from entries say what entries say: by what records are found and counted,
//! which are under way, and until when bodies are needed. Where they do not, a record that is there and whole
//! is not found, or retention takes what it should keep; `reindex` makes them anew.
//!
//! Records are read once more in the order of their ids, a block of them at a time.

use std::collections::BTreeMap;

use redb::{ReadOnlyTable, ReadTransaction, ReadableTable as _, ReadableTableMetadata as _};

use super::super::{
    StoreError,
    bodies::Place,
    canonical::Glance,
    postings::{
        BEGUN, COLUMNS, Columns, POSTINGS, TERMS,
        bits::{Bits, SHIFT, block_of, offset_of},
        put_terms,
        terms::{self, Complete, Dictionary, Known},
    },
    read::{Reader, Version},
    tables::{DROPPED, GROUPS, LAST_ID, META, NEXT_PACK, PACKS, UNDERWAY, WEIGHT, WEIGHT_MOST},
    uses::USES,
};
use crate::{
    chain::{Finding, Verifier, What},
    model::State,
};

/// What a walk through the entries gathers.
#[derive(Debug, Default)]
pub(super) struct Needed {
    /// The last group that refers to a pack.
    last: BTreeMap<u64, u64>,
    /// A group could not be read: it is told, and what is in it is not known.
    pub(super) unreadable: bool,
}

impl Needed {
    /// An entry of this group, with the places of its bodies.
    pub(super) fn entry(&mut self, group: u64, places: &[Option<Place>; 2]) {
        for place in places.iter().flatten() {
            self.last.insert(place.pack, group);
        }
    }

    /// Compares with the table of uses, and with the numbers that are kept of packs.
    pub(super) fn finish(
        self,
        transaction: &ReadTransaction,
        verifier: &mut Verifier,
    ) -> Result<(), StoreError> {
        let meta = transaction.open_table(META)?;
        let number = |name| Ok::<_, StoreError>(meta.get(name)?.map_or(0, |value| value.value()));
        let uses = transaction.open_table(USES)?;
        let (mut packs, mut wrong, mut before) = (0, 0, None);
        let mut weight = 0;
        for row in transaction.open_table(PACKS)?.iter()? {
            let (key, value) = row?;
            let (pack, _) = key.value();
            weight += value.value().len() as u64;
            if before.replace(pack) == Some(pack) {
                continue;
            }
            packs += 1;
            let said = uses.get(pack)?.map(|group| group.value());
            wrong += u64::from(said.is_none() || said != self.last.get(&pack).copied());
        }
        wrong += uses.len()?.saturating_sub(packs);
        if wrong > 0 && !self.unreadable {
            index(
                verifier,
                format!("of {wrong} packs of bodies it is not said rightly until when they are needed"),
            );
        }
        if before.is_some_and(|last| number(NEXT_PACK).is_ok_and(|next| next <= last)) {
            index(verifier, "the next pack of bodies would be put in the place of another".to_owned());
        }
        for row in transaction.open_table(GROUPS)?.iter()? {
            weight += row?.1.value().len() as u64;
        }
        if number(WEIGHT)? != weight || number(WEIGHT_MOST)? < weight {
            index(verifier, format!("{} bytes are said to be in use of {weight}", number(WEIGHT)?));
        }
        Ok(())
    }
}

fn index(verifier: &mut Verifier, words: String) {
    verifier.add(Finding::new(What::Index, words));
}

/// What the tables should have of a block of ids.
#[derive(Default)]
struct Block {
    number: u64,
    /// Terms, and places of records that have them.
    terms: Vec<(u64, u16)>,
    columns: Columns,
    /// A record of it cannot be read.
    unsure: bool,
}

/// The tables, compared with records.
pub(super) struct Derived {
    terms: Complete,
    postings: ReadOnlyTable<(u64, u64), &'static [u8]>,
    columns: ReadOnlyTable<(u64, u8), &'static [u8]>,
    begun: ReadOnlyTable<u64, &'static [u8]>,
    underway: ReadOnlyTable<u64, u64>,
    known: Known,
    block: Option<Block>,
    records: u64,
    /// How many are under way.
    open: u64,
    /// Blocks whose rows are others, and the first of them.
    wrong: (u64, Option<u64>),
    /// The same of what is kept of records under way, by id.
    wrong_open: (u64, Option<u64>),
    unreadable: bool,
}

/// Compares all of them; `told` of how many records were read.
pub(super) fn check(
    transaction: &ReadTransaction,
    verifier: &mut Verifier,
    told: &mut dyn FnMut(u64),
) -> Result<(), StoreError> {
    let mut derived = Derived {
        terms: Complete { table: transaction.open_table(TERMS)?, lacks: false },
        postings: transaction.open_table(POSTINGS)?,
        columns: transaction.open_table(COLUMNS)?,
        begun: transaction.open_table(BEGUN)?,
        underway: transaction.open_table(UNDERWAY)?,
        known: Known::default(),
        block: None,
        records: 0,
        open: 0,
        wrong: (0, None),
        wrong_open: (0, None),
        unreadable: false,
    };
    let mut reader = Reader::of(transaction)?;
    let (mut at, mut last) = (0, 0);
    while let Some(row) = reader.spans.range(at..)?.next().transpose()? {
        let (first, row) = (row.0.value(), row.1.value());
        // Rows that contradict each other were told: nothing is read twice.
        let Some(next) = row.0.max(first).checked_add(1) else { break };
        at = next;
        told(derived.records);
        for version in reader.span(first, row)? {
            last = version.id;
            derived.record(first, &version)?;
        }
    }
    derived.finish(verifier)?;
    derived.dictionary(verifier)?;
    let meta = transaction.open_table(META)?;
    let number = |name| Ok::<_, StoreError>(meta.get(name)?.map_or(0, |value| value.value()));
    let (highest, dropped) = (number(LAST_ID)?, number(DROPPED)?);
    if highest < last {
        index(
            verifier,
            format!(
                "record {last} is there, and {highest} is said to be the last: its id would be given again"
            ),
        );
    } else if highest.saturating_sub(dropped) < derived.records {
        index(verifier, format!("{} records are there, and fewer are counted", derived.records));
    }
    Ok(())
}

impl Derived {
    /// The next record, in the order of ids; `home` is the first id of its span.
    fn record(&mut self, home: u64, version: &Version) -> Result<(), StoreError> {
        let (id, number) = (version.id, block_of(version.id));
        if self.block.as_ref().is_none_or(|block| block.number != number) {
            self.close(number)?;
            self.block = Some(Block { number, ..Block::default() });
        }
        self.records += 1;
        let Some(block) = self.block.as_mut() else { return Ok(()) };
        let encoded = version.encoded().ok();
        let seen = encoded.and_then(|encoded| Some((encoded, Glance::at(encoded).ok()?)));
        let Some((encoded, seen)) = seen else {
            (block.unsure, self.unreadable) = (true, true);
            return Ok(());
        };
        let found = Dictionary { table: &mut self.terms, known: &mut self.known }.terms(encoded, &seen);
        let (terms, values) = match found {
            Ok(found) => found,
            Err(StoreError::Malformed { .. }) => {
                (block.unsure, self.unreadable) = (true, true);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let at = offset_of(id);
        block.columns.set(at, Some(&values));
        block.terms.extend(terms.iter().map(|term| (*term, at as u16)));
        if seen.state == Some(State::Open) {
            self.open += 1;
            let underway = self.underway.get(id)?.map(|first| first.value());
            let begun = self.begun.get(id)?.is_some_and(|row| row.value() == put_terms(&terms));
            if underway != Some(home) || !begun {
                self.wrong_open = (self.wrong_open.0 + 1, self.wrong_open.1.or(Some(id)));
            }
        }
        Ok(())
    }

    /// Compares the block under way. The next is `next`: between them there is nothing.
    fn close(&mut self, next: u64) -> Result<(), StoreError> {
        let mut from = 0;
        if let Some(block) = self.block.take() {
            from = block.number + 1;
            if !block.unsure && !self.is_right(&block)? {
                self.note(block.number);
            }
        }
        let posted = self.postings.range((from, 0)..(next, 0))?.next().transpose()?;
        let column = self.columns.range((from, 0)..(next, 0))?.next().transpose()?;
        let stray = posted.map(|row| row.0.value().0).or(column.map(|row| row.0.value().0));
        if let Some(stray) = stray {
            self.note(stray);
        }
        Ok(())
    }

    fn note(&mut self, block: u64) {
        self.wrong = (self.wrong.0 + 1, self.wrong.1.or(Some(block)));
    }

    fn is_right(&self, block: &Block) -> Result<bool, StoreError> {
        let mut expect = block.terms.clone();
        expect.sort_unstable();
        let mut left = expect.as_slice();
        for row in self.postings.range((block.number, 0)..=(block.number, u64::MAX))? {
            let (key, value) = row?;
            let (_, term) = key.value();
            let count = left.iter().take_while(|(of, _)| *of == term).count();
            let (these, rest) = left.split_at(count);
            left = rest;
            let mut bits = Bits::NONE;
            these.iter().for_each(|(_, at)| bits.set(usize::from(*at), true));
            if these.is_empty() || Bits::read(value.value()).ok() != Some(bits) {
                return Ok(false);
            }
        }
        let mut rows = block.columns.rows().into_iter();
        for row in self.columns.range((block.number, 0)..=(block.number, u8::MAX))? {
            let (key, value) = row?;
            if rows.next().is_none_or(|(kind, row)| (kind, row.as_slice()) != (key.value().1, value.value()))
            {
                return Ok(false);
            }
        }
        Ok(left.is_empty() && rows.next().is_none())
    }

    /// All records have come.
    fn finish(&mut self, verifier: &mut Verifier) -> Result<(), StoreError> {
        self.close(u64::MAX)?;
        if let (blocks, Some(first)) = self.wrong {
            let (low, high) = (first << SHIFT, (first + 1) << SHIFT);
            index(
                verifier,
                format!(
                    "by what records are found is not what they say, in {blocks} blocks, of ids from {low} to {} first",
                    high - 1
                ),
            );
        }
        if let (records, Some(first)) = self.wrong_open {
            index(
                verifier,
                format!(
                    "of {records} records it is not said rightly that they are under way, of {first} first"
                ),
            );
        }
        let (underway, begun) = (self.underway.len()?, self.begun.len()?);
        if !self.unreadable && (underway, begun) != (self.open, self.open) {
            index(
                verifier,
                format!("{} records are under way, {underway} and {begun} are said to be", self.open),
            );
        }
        Ok(())
    }

    /// Each text has a number of its own, and those that come get others.
    fn dictionary(&self, verifier: &mut Verifier) -> Result<(), StoreError> {
        let mut numbers = Vec::new();
        let mut next = 0;
        for row in self.terms.table.iter()? {
            let (key, number) = row?;
            if key.value().is_empty() {
                next = number.value();
            } else {
                numbers.push(number.value());
            }
        }
        let highest = numbers.iter().map(|number| terms::number_of(*number) + 1).max().unwrap_or(0);
        let count = numbers.len();
        numbers.sort_unstable();
        numbers.dedup();
        if self.terms.lacks {
            index(verifier, "texts by which records are found are missing".to_owned());
        }
        if numbers.len() < count || highest > next {
            index(verifier, "texts by which records are found share a number".to_owned());
        }
        Ok(())
    }
}
