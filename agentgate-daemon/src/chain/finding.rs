//! What a verification says.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Checkpoint, LogId, Prune, PublicKey};
use crate::model::RecordId;

/// Findings that a report holds; the rest is counted.
pub(super) const KEPT: usize = 100;

/// What happened to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// An entry is another than the one that was written.
    Altered,
    /// Entries are missing.
    Removed,
    /// An entry was not written there.
    Inserted,
    /// Entries are in another order than they were written in.
    Moved,
    /// The log ends earlier than it did.
    Truncated,
    /// Entries that no checkpoint covers.
    Unsigned,
    /// Entries are whole, but the links kept of them are not.
    Links,
    /// A checkpoint is missing, or says what cannot be.
    Checkpoint,
    /// A signature is not that of the key it names.
    Signature,
    /// Signed by a key that nobody vouches for.
    UnknownKey,
    /// A statement of keys or pruning is not whole.
    Statement,
    /// A body is another than the one that was captured.
    BodyAltered,
    /// A body is not there.
    BodyMissing,
    /// A record is not found where the indexes say it is.
    Index,
    /// What is there cannot be read as what it should be.
    Unreadable,
    /// The file itself is damaged.
    Damaged,
}

impl What {
    /// As in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Altered => "altered",
            Self::Removed => "removed",
            Self::Inserted => "inserted",
            Self::Moved => "moved",
            Self::Truncated => "truncated",
            Self::Unsigned => "unsigned",
            Self::Links => "links",
            Self::Checkpoint => "checkpoint",
            Self::Signature => "signature",
            Self::UnknownKey => "unknown_key",
            Self::Statement => "statement",
            Self::BodyAltered => "body_altered",
            Self::BodyMissing => "body_missing",
            Self::Index => "index",
            Self::Unreadable => "unreadable",
            Self::Damaged => "damaged",
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub what: What,
    /// Number of the first entry that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<u64>,
    /// Number of the last, where it is not known which of several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<u64>,
    /// The record of the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<RecordId>,
    /// In words.
    pub detail: String,
}

impl Finding {
    /// One that is about no entry.
    pub fn new(what: What, detail: impl Into<String>) -> Self {
        Self { what, entry: None, last: None, record: None, detail: detail.into() }
    }

    /// About this entry, of a record where its id is not 0.
    #[must_use]
    pub fn at(mut self, entry: u64, record: u64) -> Self {
        self.entry = Some(entry);
        self.record = (record != 0).then_some(RecordId(record));
        self
    }

    /// About one of the entries up to this one.
    #[must_use]
    pub fn up_to(mut self, last: u64) -> Self {
        self.last = Some(last).filter(|last| self.entry != Some(*last));
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.what.as_str())?;
        if let Some(record) = self.record {
            write!(f, ": record {record}")?;
        }
        match (self.entry, self.last) {
            (Some(entry), Some(last)) => write!(f, " (entries {entry} to {last})")?,
            (Some(entry), None) => write!(f, " (entry {entry})")?,
            (None, _) => {}
        }
        write!(f, ": {}", self.detail)
    }
}

/// A key that signs, or signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyReport {
    pub key: PublicKey,
    /// From this entry on.
    pub from: u64,
    /// Given by who asked, or vouched for by one that was.
    pub trusted: bool,
}

/// What a verification found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Nothing is wrong.
    pub whole: bool,
    pub log: Option<LogId>,
    /// Number of the first entry that there is.
    pub first: u64,
    /// Number after the last.
    pub end: u64,
    /// Entries that were read, and that a checkpoint covers.
    pub entries: u64,
    /// Entries of which only the digest is there.
    pub skipped: u64,
    /// Checkpoints that hold.
    pub checkpoints: u64,
    /// Bodies that are those that were captured.
    pub bodies: u64,
    /// The last checkpoint that holds: worth keeping elsewhere.
    pub last: Option<Checkpoint>,
    pub keys: Vec<KeyReport>,
    /// Whether a key was given to go by; otherwise the log's own first key was believed.
    pub key_given: bool,
    /// Of checkpoints kept elsewhere, how many hold.
    pub kept_elsewhere: u64,
    /// The last of what was pruned.
    pub pruned: Vec<Prune>,
    /// First things first.
    pub findings: Vec<Finding>,
    /// Findings beyond those.
    pub more: u64,
    /// What is worth knowing and nothing wrong.
    pub notes: Vec<String>,
}

impl Report {
    /// Adds a finding.
    pub fn add(&mut self, finding: Finding) {
        self.whole = false;
        if self.findings.len() < KEPT {
            self.findings.push(finding);
        } else {
            self.more += 1;
        }
    }
}
