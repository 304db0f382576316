//! The lines of an export: one JSON object each.

use serde::{Deserialize, Serialize};

use super::{Base64, Checkpoint, Hash, KeyStatement, LogId, Prune};
use crate::model::{Record, Timestamp};

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Line {
    /// The first.
    Log(LogLine),
    /// What retention took out.
    Pruned(Prune),
    Checkpoint(Checkpoint),
    /// A key that began to sign after the first line was made.
    Key(KeyStatement),
    Entry {
        /// Its number.
        n: u64,
        /// The link before it.
        prev: Hash,
        /// Canonical.
        entry: Base64,
        /// The same for people and programs that do not verify.
        record: Box<Record>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bodies: Option<Box<Bodies>>,
    },
    /// Entries that are left out, between two checkpoints around one that is not.
    Skipped {
        /// Number of the first.
        n: u64,
        /// 32 bytes each.
        digests: Base64,
    },
    /// The last.
    End {
        /// Entries exported.
        entries: u64,
        /// Where the next export goes on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<String>,
    },
}

/// What the export is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// [`LogLine::FORMAT`].
    pub format: u32,
    pub log: LogId,
    pub keys: Vec<KeyStatement>,
    pub made: Timestamp,
    /// Which records were asked for; empty for all.
    #[serde(default)]
    pub filter: String,
    /// Whether every entry is here that the log has.
    pub whole: bool,
}

impl LogLine {
    /// Version of the lines.
    pub const FORMAT: u32 = 1;
}

/// Captured bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bodies {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Base64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<Base64>,
}
