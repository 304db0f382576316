//! A record as bytes, and the summary of a block of records.

use std::borrow::Cow;

use super::StoreError;
use crate::model::{Action, Kind, Record, RecordId, Timestamp};

/// JSON of the record, without body bytes.
const FORMAT_JSON: u8 = 1;

pub(super) fn encode(record: &Record) -> Result<Vec<u8>, StoreError> {
    let mut bytes = vec![FORMAT_JSON];
    serde_json::to_writer(&mut bytes, record)
        .map_err(|source| StoreError::Unwritable { id: record.id, source })?;
    Ok(bytes)
}

pub(super) fn decode(id: RecordId, bytes: &[u8]) -> Result<Record, StoreError> {
    match bytes.split_first() {
        Some((&FORMAT_JSON, json)) => {
            serde_json::from_slice(json).map_err(|source| StoreError::Unreadable { id, source })
        }
        Some((&format, _)) => Err(StoreError::UnknownFormat { id, format }),
        None => Err(StoreError::UnknownFormat { id, format: 0 }),
    }
}

/// The host a record is found under: whom it was for, or the name that was asked for, else the address
/// the agent meant.
pub(super) fn host(record: &Record) -> Option<Cow<'_, str>> {
    if let Some(question) = record.question.as_ref().filter(|question| !question.name.is_empty()) {
        return Some(Cow::Borrowed(&question.name));
    }
    match (&record.authority, &record.flow) {
        (Some(authority), _) => Some(Cow::Borrowed(authority.host.as_str())),
        (None, Some(flow)) => Some(Cow::Owned(flow.original.0.ip().to_canonical().to_string())),
        (None, None) => None,
    }
}

/// What a block of records holds, so that a query can pass over the block. May claim too much, after
/// a record changed, never too little.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) earliest: Timestamp,
    pub(super) latest: Timestamp,
    /// [`kind_bit`]s and [`action_bit`]s.
    pub(super) present: u32,
}

impl Summary {
    pub(super) fn of(record: &Record) -> Self {
        let action = record.verdict.as_ref().map_or(0, |verdict| action_bit(verdict.action));
        Self { earliest: record.started, latest: record.started, present: kind_bit(record.kind) | action }
    }

    pub(super) fn union(self, other: Self) -> Self {
        Self {
            earliest: self.earliest.min(other.earliest),
            latest: self.latest.max(other.latest),
            present: self.present | other.present,
        }
    }

    pub(super) fn from_row((earliest, latest, present): (i64, i64, u32)) -> Self {
        Self { earliest: Timestamp(earliest), latest: Timestamp(latest), present }
    }

    pub(super) fn to_row(self) -> (i64, i64, u32) {
        (self.earliest.0, self.latest.0, self.present)
    }
}

/// Part of the file's format: a bit keeps its meaning.
pub(super) fn kind_bit(kind: Kind) -> u32 {
    match kind {
        Kind::Flow => 1,
        Kind::Exchange => 1 << 1,
        Kind::Kernel => 1 << 2,
        Kind::Control => 1 << 3,
        Kind::Dns => 1 << 4,
        Kind::Guard => 1 << 5,
    }
}

/// Part of the file's format: a bit keeps its meaning.
pub(super) fn action_bit(action: Action) -> u32 {
    match action {
        Action::Allow => 1 << 16,
        Action::Deny => 1 << 17,
        Action::Passthrough => 1 << 18,
    }
}
