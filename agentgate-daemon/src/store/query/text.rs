//! Words in records and their bodies.

use std::{cell::RefCell, collections::VecDeque};

use redb::{ReadOnlyTable, ReadTransaction};

use crate::{
    filter::Expression,
    model::Record,
    store::{
        StoreError, bodies,
        packed::{self, Part},
        read::Version,
        tables::PACKS,
    },
    words::{Needle, found},
};

/// Packs that are kept unpacked: what went on at one time is in few of them.
const KEPT: usize = 4;
/// Bytes of bodies that one call reads.
const BYTES_CAP: usize = 64 << 20;

/// The bodies of records that are looked at, and what is looked for in them.
pub(super) struct Bodies {
    needles: Vec<Needle>,
    packs: ReadOnlyTable<Part, &'static [u8]>,
    kept: VecDeque<(u64, Vec<u8>)>,
    read: usize,
}

impl Bodies {
    pub(super) fn of(transaction: &ReadTransaction, needles: Vec<Needle>) -> Result<Self, StoreError> {
        Ok(Self { needles, packs: transaction.open_table(PACKS)?, kept: VecDeque::new(), read: 0 })
    }

    /// Whether one call has read as much as it may.
    pub(super) fn spent(&self) -> bool {
        self.read >= BYTES_CAP
    }

    /// Whether the expression holds of a record. Its bodies are read once, and only where a word is asked for
    /// that its heads do not have.
    pub(super) fn matches(
        &mut self,
        expression: &Expression,
        record: &Record,
        version: &Version,
    ) -> Result<bool, StoreError> {
        let looked = RefCell::new((self, None::<Vec<bool>>, false, Ok(())));
        let in_text = |needle: &Needle| {
            let (bodies, heads, whole, outcome) = &mut *looked.borrow_mut();
            let Some(at) = bodies.needles.iter().position(|known| known == needle) else { return false };
            let has = |found: &Option<Vec<bool>>| {
                found.as_ref().and_then(|found| found.get(at)).copied().unwrap_or(false)
            };
            if heads.is_none() {
                *heads = Some(found(record, [None, None], &bodies.needles));
            }
            if !has(heads) && !*whole {
                *whole = true;
                match bodies.found(record, version) {
                    Ok(found) => *heads = Some(found),
                    Err(error) => *outcome = Err(error),
                }
            }
            has(heads)
        };
        let matches = expression.matches(record, &in_text);
        looked.into_inner().3.map(|()| matches)
    }

    fn found(&mut self, record: &Record, version: &Version) -> Result<Vec<bool>, StoreError> {
        let (_, entry) = version.entry()?;
        let mut bodies = [None, None];
        for (body, place) in bodies.iter_mut().zip(entry.places) {
            // What is gone or damaged has no words.
            let Some(place) = place else { continue };
            *body = self
                .pack(place.pack)?
                .and_then(|pack| bodies::body_in(pack, place.index).ok())
                .map(<[u8]>::to_vec);
        }
        self.read += bodies.iter().flatten().map(Vec::len).sum::<usize>();
        Ok(found(record, bodies.each_ref().map(Option::as_deref), &self.needles))
    }

    fn pack(&mut self, number: u64) -> Result<Option<&[u8]>, StoreError> {
        if !self.kept.iter().any(|(kept, _)| *kept == number) {
            let Some(Ok(pack)) = packed::get(&self.packs, number)? else { return Ok(None) };
            if self.kept.len() >= KEPT {
                self.kept.pop_front();
            }
            self.kept.push_back((number, pack));
        }
        Ok(self.kept.iter().find(|(kept, _)| *kept == number).map(|(_, pack)| pack.as_slice()))
    }
}
