//! The tables of full text.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `segments` | (a segment's first entry, part) | its head, packed (see `packed`) |
//! | `words` | (the same, part) | its content, as it is: each part but the last has 4,064 bytes, so that any place in it is found at once |
//!
//! [`format`](super::format) says what head and content are.

use std::borrow::Cow;

use redb::{ReadOnlyTable, ReadTransaction, ReadableTable as _, Table, TableDefinition, WriteTransaction};

use super::{
    format::{Content, Head},
    segment::Segment,
};
use crate::store::{
    StoreError,
    canonical::Malformed,
    packed::{self, Packer, Part},
};

pub(in crate::store) const SEGMENTS: TableDefinition<'_, Part, &[u8]> = TableDefinition::new("segments");
pub(in crate::store) const WORDS: TableDefinition<'_, Part, &[u8]> = TableDefinition::new("words");

/// Bytes of a part: it leaves no room in its page.
const PART: usize = 4_064;

/// The tables during a transaction that writes.
#[derive(Debug)]
pub(super) struct Writing<'t> {
    segments: Table<'t, Part, &'static [u8]>,
    words: Table<'t, Part, &'static [u8]>,
}

impl<'t> Writing<'t> {
    /// The tables, which are made where they are not there.
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, StoreError> {
        Ok(Self { segments: transaction.open_table(SEGMENTS)?, words: transaction.open_table(WORDS)? })
    }

    /// Writes a segment, in place of those that it is about.
    pub(super) fn put(&mut self, segment: &Segment, packer: &mut Packer) -> Result<(), StoreError> {
        let bounds = &segment.head.bounds;
        self.remove(bounds.from, bounds.to)?;
        packer.put(&mut self.segments, bounds.from, &segment.encoded, 0)?;
        for (part, bytes) in (0..=u16::MAX).zip(segment.content.chunks(PART)) {
            self.words.insert((bounds.from, part), bytes)?;
        }
        Ok(())
    }

    /// Takes out segments that begin with an entry from `from` on and before `to`.
    pub(super) fn remove(&mut self, from: u64, to: u64) -> Result<(), StoreError> {
        for table in [&mut self.segments, &mut self.words] {
            let keys: Vec<_> = table
                .range((from, 0)..(to, 0))?
                .map(|row| Ok(row?.0.value()))
                .collect::<Result<_, StoreError>>()?;
            for key in keys {
                table.remove(key)?;
            }
        }
        Ok(())
    }

    /// Where segments begin that are only about entries before `end`, oldest first.
    pub(super) fn before(&self, end: u64) -> Result<Vec<u64>, StoreError> {
        let mut found = Vec::new();
        for row in self.segments.range(..(end, 0))? {
            let (from, part) = row?.0.value();
            if part == 0 {
                found.push(from);
            }
        }
        // The last may go on behind the end.
        if let Some(&last) = found.last() {
            let bytes = packed::get(&self.segments, last)?.unwrap_or(Err(Malformed("no head")));
            let head = bytes.and_then(|bytes| Head::decode(last, &bytes)).map_err(StoreError::Text)?;
            if head.is_some_and(|head| head.bounds.to > end) {
                found.pop();
            }
        }
        Ok(found)
    }
}

/// The tables of one snapshot.
pub(super) struct Reading {
    segments: ReadOnlyTable<Part, &'static [u8]>,
    words: ReadOnlyTable<Part, &'static [u8]>,
}

impl std::fmt::Debug for Reading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reading")
    }
}

impl Reading {
    pub(super) fn of(transaction: &ReadTransaction) -> Result<Self, StoreError> {
        Ok(Self { segments: transaction.open_table(SEGMENTS)?, words: transaction.open_table(WORDS)? })
    }

    /// The head of the last segment that begins before this entry.
    pub(super) fn last_before(&self, entry: u64) -> Result<Option<(u64, Option<Head>)>, StoreError> {
        let Some(row) = self.segments.range(..(entry, 0))?.next_back() else { return Ok(None) };
        let from = row?.0.value().0;
        Ok(Some((from, self.head(from)?)))
    }

    /// The head of the first segment that begins with this entry or later.
    pub(super) fn first_from(&self, entry: u64) -> Result<Option<(u64, Option<Head>)>, StoreError> {
        let Some(row) = self.segments.range((entry, 0)..)?.next() else { return Ok(None) };
        let from = row?.0.value().0;
        Ok(Some((from, self.head(from)?)))
    }

    /// The head of the segment that begins with this entry; `None` where it is of another version.
    pub(super) fn head(&self, from: u64) -> Result<Option<Head>, StoreError> {
        let bytes = packed::get(&self.segments, from)?.unwrap_or(Err(Malformed("a segment is not there")));
        bytes.and_then(|bytes| Head::decode(from, &bytes)).map_err(StoreError::Text)
    }

    pub(super) fn content(&self, from: u64) -> Rows<'_> {
        Rows { words: &self.words, from }
    }

    /// How many segments there are, and bytes in both tables.
    pub(super) fn size(&self) -> Result<(u64, u64), StoreError> {
        let (mut count, mut bytes) = (0, 0);
        for row in self.segments.iter()? {
            let (key, value) = row?;
            count += u64::from(key.value().1 == 0);
            bytes += value.value().len() as u64;
        }
        use redb::ReadableTableMetadata as _;
        Ok((count, bytes + self.words.stats()?.stored_bytes()))
    }
}

/// The content of a segment, read where it is looked at.
pub(super) struct Rows<'r> {
    words: &'r ReadOnlyTable<Part, &'static [u8]>,
    from: u64,
}

impl Content for Rows<'_> {
    type Error = StoreError;

    fn damaged(source: Malformed) -> StoreError {
        StoreError::Text(source)
    }

    fn read(&self, at: u64, length: usize) -> Result<Cow<'_, [u8]>, StoreError> {
        let mut found = Vec::with_capacity(length);
        let (first, mut skip) = (at / PART as u64, (at % PART as u64) as usize);
        let Ok(first) = u16::try_from(first) else { return Ok(Cow::Owned(found)) };
        for part in first..=u16::MAX {
            let left = length - found.len();
            let Some(row) = self.words.get((self.from, part))?.filter(|_| left > 0) else { break };
            let bytes = row.value().get(skip..).unwrap_or_default();
            found.extend_from_slice(bytes.get(..left).unwrap_or(bytes));
            skip = 0;
        }
        Ok(Cow::Owned(found))
    }
}
