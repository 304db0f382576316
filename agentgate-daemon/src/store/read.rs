//! Finding records in their groups.

use std::{collections::VecDeque, sync::Arc};

use redb::{ReadOnlyTable, ReadTransaction};

use super::{
    StoreError,
    canonical::{Malformed, decode},
    group::{self, Entry},
    packed::{self, Part},
    tables::{ENDS, GROUPS, SPANS, SpanRow},
};
use crate::model::{Record, RecordId};

/// Groups that are kept unpacked.
const KEPT: usize = 16;

/// A group, unpacked.
#[derive(Debug)]
pub(super) struct Group {
    /// Of its first entry.
    pub(super) number: u64,
    content: Vec<u8>,
    entries: Vec<Entry>,
}

/// The last version of a record, or why it cannot be read.
#[derive(Clone, Debug)]
pub(super) struct Version {
    pub(super) id: u64,
    pub(super) found: Result<(Arc<Group>, usize), Malformed>,
}

impl Version {
    pub(super) fn encoded(&self) -> Result<&[u8], StoreError> {
        let (group, entry) = self.entry()?;
        Ok(group.content.get(entry.record.clone()).unwrap_or_default())
    }

    pub(super) fn entry(&self) -> Result<(&Group, &Entry), StoreError> {
        let malformed = |source| StoreError::Malformed { id: RecordId(self.id), source };
        let (group, at) = self.found.as_ref().map_err(|source| malformed(*source))?;
        Ok((group, group.entries.get(*at).ok_or_else(|| malformed(Malformed("no such entry")))?))
    }

    /// Where in its group it is.
    pub(super) fn at(&self) -> usize {
        self.found.as_ref().map_or(0, |(_, at)| *at)
    }

    pub(super) fn record(&self) -> Result<Record, StoreError> {
        let decoded = decode(self.encoded()?);
        let (record, _) =
            decoded.map_err(|source| StoreError::Malformed { id: RecordId(self.id), source })?;
        Ok(record)
    }
}

/// Reads records of one snapshot.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) groups: ReadOnlyTable<Part, &'static [u8]>,
    pub(super) spans: ReadOnlyTable<u64, SpanRow>,
    ends: ReadOnlyTable<u64, u64>,
    kept: VecDeque<(u64, Result<Arc<Group>, Malformed>)>,
}

impl Reader {
    pub(super) fn of(transaction: &ReadTransaction) -> Result<Self, StoreError> {
        Ok(Self {
            groups: transaction.open_table(GROUPS)?,
            spans: transaction.open_table(SPANS)?,
            ends: transaction.open_table(ENDS)?,
            kept: VecDeque::new(),
        })
    }

    /// The group whose first entry has this number. What cannot be unpacked says so for its records.
    fn group(&mut self, number: u64) -> Result<Result<Arc<Group>, Malformed>, StoreError> {
        if let Some((_, group)) = self.kept.iter().find(|(kept, _)| *kept == number) {
            return Ok(group.clone());
        }
        let content = packed::get(&self.groups, number)?;
        let group = content.unwrap_or(Err(Malformed("its group is not there"))).and_then(|content| {
            let entries = group::entries(&content)?;
            Ok(Arc::new(Group { number, content, entries }))
        });
        if self.kept.len() >= KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back((number, group.clone()));
        Ok(group)
    }

    /// The record with this id.
    pub(super) fn get(&mut self, id: u64) -> Result<Option<Version>, StoreError> {
        let late = self.ends.get(id)?.map(|number| number.value());
        let number = match late {
            Some(number) => number,
            None => match self.spans.range(..=id)?.next_back().transpose()? {
                Some((_, row)) if row.value().0 >= id => row.value().1,
                Some(_) | None => return Ok(None),
            },
        };
        let found = match self.group(number)? {
            Ok(group) => match group.entries.iter().rposition(|entry| entry.id == id) {
                Some(at) => Ok((group, at)),
                None => return Ok(None),
            },
            Err(malformed) => Err(malformed),
        };
        Ok(Some(Version { id, found }))
    }

    /// The records that begin in one group, in the order of their ids. Of a group that cannot be unpacked
    /// each id that it may hold.
    pub(super) fn span(&mut self, first: u64, row: SpanRow) -> Result<Vec<Version>, StoreError> {
        let (last, number, ..) = row;
        let mut found = match self.group(number)? {
            Ok(group) => {
                let mut found = std::collections::BTreeMap::new();
                for (at, entry) in group.entries.iter().enumerate() {
                    if (first..=last).contains(&entry.id) {
                        found.insert(entry.id, Ok((group.clone(), at)));
                    }
                }
                found
            }
            Err(malformed) => (first..=last).map(|id| (id, Err(malformed))).collect(),
        };
        let mut late = Vec::new();
        for row in self.ends.range(first..=last)? {
            let (id, number) = row?;
            late.push((id.value(), number.value()));
        }
        for (id, number) in late {
            let ended = match self.group(number)? {
                Ok(group) => group.entries.iter().rposition(|entry| entry.id == id).map(|at| Ok((group, at))),
                Err(malformed) => Some(Err(malformed)),
            };
            if let Some(ended) = ended {
                found.insert(id, ended);
            }
        }
        Ok(found.into_iter().map(|(id, found)| Version { id, found }).collect())
    }
}
