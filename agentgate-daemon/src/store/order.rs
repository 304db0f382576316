//! The log in its own order: entries by their position, group by group.
//!
//! What exports, mirrors and imports stand on. A walk is of one snapshot; whoever goes on later, as a
//! follower does, begins another at the position it came to. Memory is that of one group, and of the packs
//! of bodies looked at last.

use std::{collections::VecDeque, path::Path, sync::Arc};

use bytes::Bytes;
use redb::{
    AccessGuard, ReadOnlyDatabase, ReadOnlyTable, ReadableDatabase as _, ReadableTable as _, StorageError,
};

use super::{
    Store, StoreError, bodies,
    bodies::Place,
    canonical::{self, Digest, Glance, Malformed, decode},
    error::unharmed,
    group, packed,
    packed::Part,
    tables::{BODIES_FROM, ENTRIES, GROUPS, META, PACKS, SCHEMA, SCHEMA_VERSION, SPANS, SpanRow},
    text::Pacer,
};
use crate::model::{Record, RecordId, Timestamp};

/// Packs of bodies that are kept unpacked: what goes on at one time is in few of them.
const PACKS_KEPT: usize = 4;

/// A log that is only read: a copy or a backup, or the log of a daemon that does not run. Nothing is
/// written to the file, so what was open in it stays so.
pub struct Closed {
    database: ReadOnlyDatabase,
}

impl std::fmt::Debug for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Closed").finish_non_exhaustive()
    }
}

impl Closed {
    /// Opens the log at `path`. What its journal holds beyond the file is not seen.
    ///
    /// # Errors
    /// [`StoreError::Busy`] while somebody writes to it, [`StoreError::Newer`] and [`StoreError::Older`] for
    /// another schema, else what the file system or redb reports; among it that the file was not closed as
    /// it should, which whoever opens it for writing mends.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        unharmed(|| Self::open_unguarded(path))
    }

    fn open_unguarded(path: &Path) -> Result<Self, StoreError> {
        let database =
            match redb::Builder::new().set_cache_size(super::file::CACHE_BYTES).open_read_only(path) {
                Ok(database) => database,
                Err(redb::DatabaseError::DatabaseAlreadyOpen) => {
                    return Err(StoreError::Busy { path: path.to_owned() });
                }
                Err(error) => return Err(error.into()),
            };
        let found = database.begin_read()?.open_table(META)?.get(SCHEMA)?.map_or(0, |value| value.value());
        match found {
            SCHEMA_VERSION => Ok(Self { database }),
            _ if found > SCHEMA_VERSION => Err(StoreError::Newer { found, known: SCHEMA_VERSION }),
            _ => Err(StoreError::Older { found, known: SCHEMA_VERSION }),
        }
    }

    /// A walk through it.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub fn walk(&self) -> Result<Walk, StoreError> {
        unharmed(|| Walk::of(&self.begin_read()?))
    }

    pub(super) fn begin_read(&self) -> Result<redb::ReadTransaction, StoreError> {
        Ok(self.database.begin_read()?)
    }
}

/// An entry at its place.
#[derive(Clone, Debug)]
pub struct Placed {
    /// Its position in the log.
    pub n: u64,
    /// Canonical.
    pub encoded: Vec<u8>,
    places: [Option<Place>; 2],
}

impl Placed {
    pub(super) fn new(n: u64, encoded: Vec<u8>, places: [Option<Place>; 2]) -> Self {
        Self { n, encoded, places }
    }

    /// The id of the record that this is a version of.
    #[must_use]
    pub fn id(&self) -> RecordId {
        let id = self.encoded.get(2..10).and_then(|id| id.try_into().ok());
        RecordId(id.map_or(0, u64::from_le_bytes))
    }

    /// The record, without the captured bytes of its bodies.
    ///
    /// # Errors
    /// [`StoreError::Malformed`].
    pub fn record(&self) -> Result<Record, StoreError> {
        let (record, _) = decode(&self.encoded).map_err(|source| self.malformed(source))?;
        Ok(record)
    }

    /// When the record began, at the price of a look at its first fields.
    ///
    /// # Errors
    /// [`StoreError::Malformed`].
    pub fn started(&self) -> Result<Timestamp, StoreError> {
        Ok(Glance::at(&self.encoded).map_err(|source| self.malformed(source))?.started)
    }

    fn malformed(&self, source: Malformed) -> StoreError {
        StoreError::Malformed { id: self.id(), source }
    }
}

/// Entries that lie together.
#[derive(Clone, Debug, Default)]
pub struct Stretch {
    /// From the position asked for on, or from the first that there is after it.
    pub entries: Vec<Placed>,
    /// Where to go on.
    pub next: u64,
    /// Positions before `next` that the log has no longer: pruned.
    pub pruned: u64,
    /// Positions before `next` whose entries cannot be read.
    pub unreadable: u64,
}

/// A walk through one snapshot of the log.
pub struct Walk {
    groups: ReadOnlyTable<Part, &'static [u8]>,
    packs: ReadOnlyTable<Part, &'static [u8]>,
    spans: ReadOnlyTable<u64, SpanRow>,
    end: u64,
    /// Before this position bodies may be gone, because their time was up.
    bodies_from: u64,
    kept: VecDeque<(u64, Arc<Vec<u8>>)>,
    /// Of who walks while nothing else wants to run: what is read under locks is read in a hurry.
    pacer: Option<Arc<Pacer>>,
}

/// A group as it is in the table.
struct Packed {
    number: u64,
    value: Option<Vec<u8>>,
    /// The number of the one after it.
    after: u64,
}

impl std::fmt::Debug for Walk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Walk").field("end", &self.end).finish_non_exhaustive()
    }
}

impl Store {
    /// A walk through all that was acknowledged.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub fn walk(&self) -> Result<Walk, StoreError> {
        unharmed(|| Walk::of(&self.read()?))
    }

    /// A walk through what the tables hold, which is what there was about a second ago: for those who come
    /// again and again, and are no reason to have a transaction made.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub fn walk_settled(&self) -> Result<Walk, StoreError> {
        unharmed(|| Walk::of(&self.snapshot()?))
    }
}

impl Walk {
    pub(super) fn of(transaction: &redb::ReadTransaction) -> Result<Self, StoreError> {
        let meta = transaction.open_table(META)?;
        let number = |name| Ok::<_, StoreError>(meta.get(name)?.map_or(0, |value| value.value()));
        Ok(Self {
            groups: transaction.open_table(GROUPS)?,
            packs: transaction.open_table(PACKS)?,
            spans: transaction.open_table(SPANS)?,
            end: number(ENTRIES)?,
            bodies_from: number(BODIES_FROM)?,
            kept: VecDeque::new(),
            pacer: None,
        })
    }

    /// One that hurries where it holds locks of the file's.
    pub(super) fn paced(self, pacer: Arc<Pacer>) -> Self {
        Self { pacer: Some(pacer), ..self }
    }

    /// The position after the last entry.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.end
    }

    /// A position before which no entry is of a record that began at `since` or later. Reads a row for each
    /// group.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub fn position_of(&self, since: Timestamp) -> Result<u64, StoreError> {
        unharmed(|| self.find_position(since))
    }

    fn find_position(&self, since: Timestamp) -> Result<u64, StoreError> {
        let mut first = self.end;
        for row in self.spans.iter()? {
            let (_, row) = row?;
            let (_, group, _, latest, _) = row.value();
            // A late entry is after the group that its record begins in, which is counted there. Rows of
            // records whose beginning is pruned come first, and may be of any group.
            if latest >= since.0 {
                first = first.min(group);
            }
        }
        Ok(first)
    }

    /// The number of the last group that begins before position `n`.
    pub(super) fn group_before(&self, n: u64) -> Result<Option<u64>, StoreError> {
        let row = self.groups.range(..(n, 0))?.next_back().transpose()?;
        Ok(row.map(|(key, _)| key.value().0))
    }

    /// The entries from `from` to the end of their group. `None` at the end of the log.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read. A group that is damaged is passed over and counted.
    pub fn stretch(&self, from: u64) -> Result<Option<Stretch>, StoreError> {
        unharmed(|| self.read_stretch(from))
    }

    fn read_stretch(&self, from: u64) -> Result<Option<Stretch>, StoreError> {
        if from >= self.end {
            return Ok(None);
        }
        let before = || self.groups.range(..=(from, u16::MAX))?.next_back().transpose();
        if let Some(group) = self.packed(before)? {
            let found = group.entries(from);
            if found.next > from {
                return Ok(Some(found));
            }
        }
        // What was here is pruned.
        let next = || self.groups.range((from, 0)..)?.next().transpose();
        let Some(group) = self.packed(next)? else { return Ok(None) };
        let mut found = group.entries(group.number);
        found.pruned = group.number - from;
        Ok(Some(found))
    }

    /// The group that a row is of.
    fn packed<'r>(
        &self,
        row: impl FnOnce()
            -> Result<Option<(AccessGuard<'r, Part>, AccessGuard<'r, &'static [u8]>)>, StorageError>,
    ) -> Result<Option<Packed>, StoreError> {
        let _hurried = self.pacer.as_ref().map(|pacer| pacer.hurry());
        let Some((key, _)) = row()? else { return Ok(None) };
        let number = key.value().0;
        let after = match self.groups.range((number + 1, 0)..)?.next() {
            Some(row) => row?.0.value().0,
            None => self.end,
        };
        Ok(Some(Packed { number, value: packed::value(&self.groups, number)?, after }))
    }

    /// The captured bytes of an entry's request and response, proven by their digests; without those that
    /// were dropped because their time was up.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read, or the bytes are not those that were captured.
    pub fn bodies(&mut self, entry: &Placed) -> Result<[Option<Bytes>; 2], StoreError> {
        unharmed(|| self.read_bodies(entry))
    }

    fn read_bodies(&mut self, entry: &Placed) -> Result<[Option<Bytes>; 2], StoreError> {
        let mut found = [None, None];
        if entry.places == [None, None] {
            return Ok(found);
        }
        let seen = Glance::at(&entry.encoded).map_err(|source| entry.malformed(source))?;
        for (side, (found, expect)) in found.iter_mut().zip(seen.digests).enumerate() {
            *found = self.body(entry, side, expect)?;
        }
        Ok(found)
    }

    /// The captured bytes of one side (0: the request's) of an entry, as [`Walk::bodies`] has them; they must
    /// have the digest.
    pub(super) fn body(
        &mut self,
        entry: &Placed,
        side: usize,
        expect: Option<Digest>,
    ) -> Result<Option<Bytes>, StoreError> {
        let Some(place) = entry.places.get(side).copied().flatten() else { return Ok(None) };
        if entry.n < self.bodies_from && self.is_gone(place.pack)? {
            return Ok(None);
        }
        let pack = self.pack(place.pack)?.map_err(|source| entry.malformed(source))?;
        let body = bodies::body_in(&pack, place.index).map_err(|source| entry.malformed(source))?;
        if expect != Some(canonical::digest(body)) {
            return Err(entry.malformed(Malformed("a body is not the one that was captured")));
        }
        Ok(Some(Bytes::copy_from_slice(body)))
    }

    fn is_gone(&self, pack: u64) -> Result<bool, StoreError> {
        let _hurried = self.pacer.as_ref().map(|pacer| pacer.hurry());
        Ok(self.packs.get((pack, 0))?.is_none())
    }

    fn pack_value(&self, number: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let _hurried = self.pacer.as_ref().map(|pacer| pacer.hurry());
        packed::value(&self.packs, number)
    }

    fn pack(&mut self, number: u64) -> Result<Result<Arc<Vec<u8>>, Malformed>, StoreError> {
        if let Some((_, pack)) = self.kept.iter().find(|(kept, _)| *kept == number) {
            return Ok(Ok(pack.clone()));
        }
        let pack = match self.pack_value(number)?.map(|value| packed::unpack(&value)) {
            Some(Ok(pack)) => Arc::new(pack),
            Some(Err(why)) => return Ok(Err(why)),
            None => return Ok(Err(Malformed("the pack of a body is not there"))),
        };
        if self.kept.len() >= PACKS_KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back((number, pack.clone()));
        Ok(Ok(pack))
    }
}

impl Packed {
    /// The entries from position `from` on.
    fn entries(&self, from: u64) -> Stretch {
        let Self { number, value, after } = self;
        let content = value.as_deref().map_or(Err(Malformed("its group is not there")), packed::unpack);
        let entries = content.and_then(|content| Ok((group::entries(&content)?, content)));
        let (entries, content) = match entries {
            Ok(found) => found,
            Err(why) => {
                tracing::error!(group = number, %why, "entries of the audit log are passed over");
                let next = from.max(*after);
                return Stretch { next, unreadable: next - from, ..Stretch::default() };
            }
        };
        let next = number + entries.len() as u64;
        let skipped = usize::try_from(from - number).unwrap_or(usize::MAX);
        let entries = (*number..).zip(entries).skip(skipped);
        let entries = entries.map(|(n, entry)| Placed {
            n,
            encoded: content.get(entry.record).unwrap_or_default().to_vec(),
            places: entry.places,
        });
        Stretch { entries: entries.collect(), next, ..Stretch::default() }
    }
}

#[cfg(test)]
mod tests;
