//! A run of the log's entries, packed into one value.
//!
//! The content of a group is its entries in the order they were written, each: length (LEB128) and bytes
//! of the canonical record, how many of its bodies are kept (LEB128), and for each its side (0 request,
//! 1 response), pack and index in the pack (LEB128). A record whose end was not written with its
//! beginning has two entries, and the later one is the record.

use std::ops::Range;

use super::{
    bodies::Place,
    canonical::{Malformed, put_number, take, take_number},
};

/// Entries and bytes of a group after which the next is begun. The links of so many entries fill a page.
const ENTRIES: u64 = 120;
const BYTES: usize = 64 * 1024;

/// The group that is written to: kept in memory, so that it can be written again with more in it.
#[derive(Clone, Debug, Default)]
pub(super) struct Tail {
    /// Number of its first entry.
    pub(super) number: u64,
    pub(super) content: Vec<u8>,
    pub(super) entries: u64,
    /// Parts that it has in the table.
    pub(super) parts: u16,
}

impl Tail {
    pub(super) fn at(number: u64) -> Self {
        Self { number, ..Self::default() }
    }

    pub(super) fn is_full(&self) -> bool {
        self.entries >= ENTRIES || self.content.len() >= BYTES
    }

    pub(super) fn push(&mut self, encoded: &[u8], places: [Option<Place>; 2]) {
        put_number(&mut self.content, encoded.len() as u64);
        self.content.extend_from_slice(encoded);
        put_number(&mut self.content, places.iter().flatten().count() as u64);
        for (side, place) in places.iter().enumerate() {
            if let Some(place) = place {
                put_number(&mut self.content, side as u64);
                put_number(&mut self.content, place.pack);
                put_number(&mut self.content, place.index);
            }
        }
        self.entries += 1;
    }
}

/// Where an entry lies in the content of its group.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) id: u64,
    /// Of the canonical record.
    pub(super) record: Range<usize>,
    pub(super) places: [Option<Place>; 2],
}

/// The entries of a group's content, in their order.
pub(super) fn entries(content: &[u8]) -> Result<Vec<Entry>, Malformed> {
    let mut found = Vec::new();
    let mut left = content;
    while !left.is_empty() {
        let length = take_number(&mut left)?;
        let start = content.len() - left.len();
        let record = take(&mut left, length)?;
        let end = content.len() - left.len();
        let id = record.get(2..10).and_then(|id| id.try_into().ok()).map(u64::from_le_bytes);
        let mut places = [None, None];
        for _ in 0..take_number(&mut left)? {
            let side = take_number(&mut left)?;
            let place = Place { pack: take_number(&mut left)?, index: take_number(&mut left)? };
            let side = usize::try_from(side).ok().and_then(|side| places.get_mut(side));
            *side.ok_or(Malformed("a body of a side that is not known"))? = Some(place);
        }
        found.push(Entry { id: id.ok_or(Malformed("an entry without an id"))?, record: start..end, places });
    }
    Ok(found)
}
