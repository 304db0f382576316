//! Where a list goes on.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::model::RecordId;

/// The last record of a page, by which the next goes on: its id, and where a list is sorted by something else,
/// how much it had of that. As text `17` or `5000.17`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    pub value: Option<u64>,
    pub id: RecordId,
}

/// A text is no cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the `next` of a page")]
pub struct NoCursor;

impl From<RecordId> for Cursor {
    fn from(id: RecordId) -> Self {
        Self { value: None, id }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(value) = self.value {
            write!(f, "{value}.")?;
        }
        self.id.fmt(f)
    }
}

impl FromStr for Cursor {
    type Err = NoCursor;
    fn from_str(text: &str) -> Result<Self, NoCursor> {
        let (value, id) = match text.split_once('.') {
            Some((value, id)) => (Some(value.parse().map_err(|_| NoCursor)?), id),
            None => (None, text),
        };
        Ok(Self { value, id: id.parse().map_err(|_| NoCursor)? })
    }
}

impl Serialize for Cursor {
    /// A number where it is an id alone.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.value {
            None => self.id.serialize(serializer),
            Some(_) => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Cursor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Id(RecordId),
            Text(String),
        }
        match Either::deserialize(deserializer)? {
            Either::Id(id) => Ok(id.into()),
            Either::Text(text) => text.parse().map_err(D::Error::custom),
        }
    }
}
