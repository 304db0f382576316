//! Captured bytes, each kept once: packed with others of their time where they are small, in a pack of
//! their own where they are large.
//!
//! Whether bytes are known is told by their SHA-256. Digests of recent ones are remembered in memory;
//! those of large bodies are in a table too, so that they are kept once however long ago that was. Small
//! ones get no row: rows under random keys cost more than the bytes they save.
//!
//! The content of a pack is, for each body, its length (LEB128) and bytes.

use std::collections::{HashMap, HashSet};

use redb::{ReadableTable as _, Table, WriteTransaction};

use super::{
    StoreError,
    canonical::{Digest, Malformed, put_number, take, take_number},
    packed::{Packer, Part},
    tables::{CONTENTS, NEXT_PACK, PACKS},
};

/// From here on a body has a pack and a row of its own.
const LARGE: usize = 8 * 1024;
/// Bytes of a pack after which the next is begun.
const PACK: usize = 64 * 1024;
/// Digests remembered: twice this many at most.
const RECENT: usize = 16 * 1024;

/// Where a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) pack: u64,
    pub(super) index: u64,
}

/// Bodies met lately, in two generations: what is asked for again moves to the younger.
#[derive(Debug, Default)]
pub(super) struct Recent {
    young: HashMap<Digest, Place>,
    old: HashMap<Digest, Place>,
}

impl Recent {
    fn get(&mut self, digest: &Digest) -> Option<Place> {
        if let Some(place) = self.young.get(digest) {
            return Some(*place);
        }
        let place = self.old.get(digest).copied()?;
        self.put(*digest, place);
        Some(place)
    }

    fn put(&mut self, digest: Digest, place: Place) {
        if self.young.len() >= RECENT {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(digest, place);
    }

    /// Places in these packs are gone.
    fn lose(&mut self, packs: &HashSet<u64>) {
        if !packs.is_empty() {
            self.young.retain(|_, place| !packs.contains(&place.pack));
            self.old.retain(|_, place| !packs.contains(&place.pack));
        }
    }

    /// What was learnt in a transaction that did not come to be is wrong.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

/// The tables of bodies during one transaction.
#[derive(Debug)]
pub(super) struct Bodies<'t> {
    packs: Table<'t, Part, &'static [u8]>,
    contents: Table<'t, &'static Digest, u64>,
    next: u64,
    /// Number and content of the pack under way.
    current: Option<u64>,
    pack: Vec<u8>,
    count: u64,
    /// Packs that were taken out.
    gone: HashSet<u64>,
}

impl<'t> Bodies<'t> {
    pub(super) fn open(
        transaction: &'t WriteTransaction,
        meta: &Table<'t, &'static str, u64>,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            packs: transaction.open_table(PACKS)?,
            contents: transaction.open_table(CONTENTS)?,
            next: meta.get(NEXT_PACK)?.map_or(0, |value| value.value()),
            current: None,
            pack: Vec::new(),
            count: 0,
            gone: HashSet::new(),
        })
    }

    /// Keeps `bytes`, if they are not kept.
    pub(super) fn place(
        &mut self,
        recent: &mut Recent,
        packer: &mut Packer,
        digest: &Digest,
        bytes: &[u8],
    ) -> Result<Place, StoreError> {
        if let Some(place) = recent.get(digest) {
            return Ok(place);
        }
        let place = if bytes.len() >= LARGE {
            let known = self.contents.get(digest)?.map(|pack| pack.value());
            let pack = match known {
                Some(pack) => pack,
                None => {
                    let pack = take_next(&mut self.next);
                    let mut content = Vec::with_capacity(bytes.len() + 10);
                    put_number(&mut content, bytes.len() as u64);
                    content.extend_from_slice(bytes);
                    packer.put(&mut self.packs, pack, &content, 0)?;
                    self.contents.insert(digest, pack)?;
                    pack
                }
            };
            Place { pack, index: 0 }
        } else {
            if self.pack.len() >= PACK {
                self.flush(packer)?;
            }
            let pack = *self.current.get_or_insert_with(|| take_next(&mut self.next));
            put_number(&mut self.pack, bytes.len() as u64);
            self.pack.extend_from_slice(bytes);
            self.count += 1;
            Place { pack, index: self.count - 1 }
        };
        recent.put(*digest, place);
        Ok(place)
    }

    /// Leaves places in packs that are there.
    pub(super) fn keep_known(&self, places: &mut [Option<Place>; 2]) -> Result<(), StoreError> {
        for place in places {
            if let Some(Place { pack, .. }) = *place
                && self.packs.get((pack, 0))?.is_none()
            {
                *place = None;
            }
        }
        Ok(())
    }

    /// Takes a pack out. `digest` is that of its first body.
    pub(super) fn remove(
        &mut self,
        packer: &mut Packer,
        pack: u64,
        digest: Option<&Digest>,
    ) -> Result<bool, StoreError> {
        self.gone.insert(pack);
        if let Some(digest) = digest
            && self.contents.get(digest)?.is_some_and(|found| found.value() == pack)
        {
            self.contents.remove(digest)?;
        }
        packer.remove(&mut self.packs, pack)
    }

    /// Takes out the rows of packs that were taken out. Reads the whole table.
    pub(super) fn forget_contents(&mut self) -> Result<(), StoreError> {
        self.contents.retain(|_, pack| !self.gone.contains(&pack))?;
        Ok(())
    }

    fn flush(&mut self, packer: &mut Packer) -> Result<(), StoreError> {
        if let Some(number) = self.current.take() {
            packer.put(&mut self.packs, number, &self.pack, 0)?;
            self.pack.clear();
            self.count = 0;
        }
        Ok(())
    }

    pub(super) fn finish(
        mut self,
        recent: &mut Recent,
        packer: &mut Packer,
        meta: &mut Table<'t, &'static str, u64>,
    ) -> Result<(), StoreError> {
        self.flush(packer)?;
        recent.lose(&self.gone);
        meta.insert(NEXT_PACK, self.next)?;
        Ok(())
    }
}

fn take_next(next: &mut u64) -> u64 {
    *next += 1;
    *next - 1
}

/// The body at `index` of a pack.
pub(super) fn body_in(mut pack: &[u8], index: u64) -> Result<&[u8], Malformed> {
    for _ in 0..index {
        let length = take_number(&mut pack)?;
        take(&mut pack, length)?;
    }
    let length = take_number(&mut pack)?;
    take(&mut pack, length)
}
