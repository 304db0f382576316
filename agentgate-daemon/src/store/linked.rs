//! The log's entries in their order, each with its number and the link before it.

use redb::{ReadOnlyTable, ReadTransaction};

use super::{
    StoreError,
    canonical::Malformed,
    chain::LINKS,
    group::{self, Entry},
    packed::{self, Part},
    tables::GROUPS,
};
use crate::chain::{self, Hash, Hex};

/// A group with its links.
#[derive(Debug)]
pub(super) struct Walked {
    /// Number of its first entry.
    pub(super) number: u64,
    pub(super) content: Vec<u8>,
    pub(super) entries: Vec<Entry>,
    /// Of each entry: its number, and the link before it. As many as there are entries.
    pub(super) places: Vec<(u64, Hash)>,
}

impl Walked {
    /// Canonical bytes of an entry.
    pub(super) fn encoded(&self, entry: &Entry) -> &[u8] {
        self.content.get(entry.record.clone()).unwrap_or_default()
    }
}

/// Groups of one snapshot, in their order.
#[derive(Debug)]
pub(super) struct Linked {
    groups: ReadOnlyTable<Part, &'static [u8]>,
    links: ReadOnlyTable<u64, &'static [u8]>,
}

impl Linked {
    pub(super) fn of(transaction: &ReadTransaction) -> Result<Self, StoreError> {
        Ok(Self { groups: transaction.open_table(GROUPS)?, links: transaction.open_table(LINKS)? })
    }

    /// Number of the first group at or after this number.
    pub(super) fn from(&self, number: u64) -> Result<Option<u64>, StoreError> {
        let row = self.groups.range((number, 0)..)?.next().transpose()?;
        Ok(row.map(|(key, _)| key.value().0))
    }

    /// Number of the group that has entry `n`, if there is one.
    pub(super) fn holding(&self, n: u64) -> Result<Option<u64>, StoreError> {
        let row = self.groups.range(..=(n, u16::MAX))?.next_back().transpose()?;
        Ok(row.map(|(key, _)| key.value().0))
    }

    /// The group of this number.
    pub(super) fn group(&self, number: u64) -> Result<Result<Walked, Malformed>, StoreError> {
        let content = packed::get(&self.groups, number)?;
        let content = match content.unwrap_or(Err(Malformed("its group is not there"))) {
            Ok(content) => content,
            Err(malformed) => return Ok(Err(malformed)),
        };
        let entries = match group::entries(&content) {
            Ok(entries) => entries,
            Err(malformed) => return Ok(Err(malformed)),
        };
        let row = self.links.get(number)?.map(|row| row.value().to_vec()).unwrap_or_default();
        let links = row.as_chunks::<32>().0;
        let digests =
            entries.iter().map(|entry| chain::digest(content.get(entry.record.clone()).unwrap_or_default()));
        let places = if links.len() == entries.len() {
            (number..).zip(links.iter().map(|link| Hex(*link))).collect()
        } else {
            fitted(number, links, digests)
        };
        Ok(Ok(Walked { number, content, entries, places }))
    }
}

/// Which link belongs to which entry, where there are not as many: by what they lead to.
fn fitted(number: u64, links: &[[u8; 32]], digests: impl Iterator<Item = Hash>) -> Vec<(u64, Hash)> {
    let mut next = 0;
    let mut places = Vec::new();
    for digest in digests {
        let leads = |at: &usize| match links.get(at + 1) {
            Some(following) => chain::next(&Hex(links[*at]), &digest).0 == *following,
            None => false,
        };
        let at = (next..links.len()).find(leads).unwrap_or(next);
        places.push((number + at as u64, links.get(at).map_or(Hex([0; 32]), |link| Hex(*link))));
        next = at + 1;
    }
    places
}
