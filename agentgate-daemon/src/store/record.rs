//! The summary of a group of records.

use std::borrow::Cow;

use super::{
    canonical::{Glance, socket},
    tables::SpanRow,
};
use crate::model::{Action, Kind, Timestamp};

/// The host a record is found under: the name that was asked for, or whom it was for, else the address
/// the agent meant; empty where there is none.
pub(super) fn host<'b>(seen: &Glance<'b>) -> Cow<'b, str> {
    if !seen.question.is_empty() {
        return Cow::Borrowed(seen.question);
    }
    if !seen.host.is_empty() {
        return Cow::Borrowed(seen.host);
    }
    let original = seen.flow.and_then(|(original, ..)| socket(original).ok());
    original.map_or(Cow::Borrowed(""), |original| Cow::Owned(original.ip().to_canonical().to_string()))
}

/// What a group of records holds, so that a query can pass over it. May claim too much, after a record
/// changed, never too little.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) earliest: Timestamp,
    pub(super) latest: Timestamp,
    /// [`kind_bit`]s and [`action_bit`]s.
    pub(super) present: u32,
}

impl Summary {
    pub(super) fn of(seen: &Glance<'_>) -> Self {
        let present = seen.kind.map_or(0, kind_bit) | seen.action.map_or(0, action_bit);
        Self { earliest: seen.started, latest: seen.started, present }
    }

    pub(super) fn union(self, other: Self) -> Self {
        Self {
            earliest: self.earliest.min(other.earliest),
            latest: self.latest.max(other.latest),
            present: self.present | other.present,
        }
    }

    pub(super) fn from_row((_, _, earliest, latest, present): SpanRow) -> Self {
        Self { earliest: Timestamp(earliest), latest: Timestamp(latest), present }
    }

    pub(super) fn to_row(self, last: u64, group: u64) -> SpanRow {
        (last, group, self.earliest.0, self.latest.0, self.present)
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
