//! Words in records and their bodies.

use std::{cell::RefCell, collections::VecDeque};

use bytes::Bytes;
use redb::{ReadOnlyTable, ReadTransaction};

use crate::{
    filter::{
        Expression, Phrase,
        text::{in_body, texts},
    },
    model::{Captured, HeaderFields, Record},
    store::{
        StoreError, bodies,
        packed::{self, Part},
        read::Version,
        tables::{PACKS, Side},
    },
};

/// Packs that are kept unpacked: what went on at one time is in few of them.
const KEPT: usize = 4;
/// Bytes of bodies that one call reads.
const BYTES_CAP: usize = 64 << 20;

/// The bodies of records that are looked at.
pub(super) struct Bodies {
    packs: ReadOnlyTable<Part, &'static [u8]>,
    kept: VecDeque<(u64, Vec<u8>)>,
    read: usize,
}

impl Bodies {
    pub(super) fn of(transaction: &ReadTransaction) -> Result<Self, StoreError> {
        Ok(Self { packs: transaction.open_table(PACKS)?, kept: VecDeque::new(), read: 0 })
    }

    /// Whether one call has read as much as it may.
    pub(super) fn spent(&self) -> bool {
        self.read >= BYTES_CAP
    }

    /// Whether the expression holds of a record.
    pub(super) fn matches(
        &mut self,
        expression: &Expression,
        record: &Record,
        version: &Version,
    ) -> Result<bool, StoreError> {
        // Two conditions may ask for the same body.
        let bodies = RefCell::new((self, Ok(())));
        let in_text = |phrase: &Phrase| {
            if texts(record, &mut |text| phrase.is_in(text)) {
                return true;
            }
            let talk = record.websocket.is_some();
            let (bodies, outcome) = &mut *bodies.borrow_mut();
            let mut side = |side, head: Option<(&HeaderFields, &Captured)>| {
                let Some((headers, captured)) = head else { return false };
                match bodies.get(version, side) {
                    Ok(Some(bytes)) => {
                        in_body(phrase, headers, &Captured { bytes, ..captured.clone() }, talk)
                    }
                    Ok(None) => false,
                    Err(error) => {
                        *outcome = Err(error);
                        false
                    }
                }
            };
            side(Side::Request, record.request.as_ref().map(|head| (&head.headers, &head.body)))
                || side(Side::Response, record.response.as_ref().map(|head| (&head.headers, &head.body)))
        };
        let matches = expression.matches(record, &in_text);
        bodies.into_inner().1.map(|()| matches)
    }

    /// The captured bytes of one side; `None` where there are none, or they are gone or damaged.
    fn get(&mut self, version: &Version, side: Side) -> Result<Option<Bytes>, StoreError> {
        let (_, entry) = version.entry()?;
        let Some(place) = entry.places.get(usize::from(side.key())).copied().flatten() else {
            return Ok(None);
        };
        let pack = match self.kept.iter().position(|(kept, _)| *kept == place.pack) {
            Some(at) => at,
            None => {
                let Some(Ok(pack)) = packed::get(&self.packs, place.pack)? else { return Ok(None) };
                if self.kept.len() >= KEPT {
                    self.kept.pop_front();
                }
                self.kept.push_back((place.pack, pack));
                self.kept.len() - 1
            }
        };
        let body = self.kept.get(pack).and_then(|(_, pack)| bodies::body_in(pack, place.index).ok());
        self.read += body.map_or(0, <[u8]>::len);
        Ok(body.map(Bytes::copy_from_slice))
    }
}
