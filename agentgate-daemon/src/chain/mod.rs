//! What proves that the log is whole: hashes over its entries in their order, signed at intervals.
//!
//! Pure: no files, no tables, nothing of how entries are stored. `docs/record.md` says the same for those
//! who write a verifier of their own; whatever changes here is a change of that format.
//!
//! An *entry* is the canonical encoding of one version of a record, *n* its place in the log from 0 on. Its
//! [`digest`] goes into the [`next`] link; a link says which entries come before it. A [`Checkpoint`] is a
//! signed link. [`KeyStatement`]s say which keys sign from where on, [`Prune`]s what was taken out by
//! retention. [`Line`]s carry all that in an export; the [`Verifier`] checks it as it goes by, and says
//! what happened where.

mod finding;
mod key;
mod line;
mod statement;
mod text;
mod verify;

use aws_lc_rs::digest::{Context, SHA256};

pub use finding::{Finding, KeyReport, Report, What};
pub use key::{KeyError, PublicKey, SigningKey};
pub use line::{Bodies, Line, LogLine};
pub use statement::{Checkpoint, KeyStatement, Prune, Pruned};
pub use text::{Base64, Hex};
pub use verify::{Trust, Verifier};

/// SHA-256.
pub type Hash = Hex<32>;
/// Names a log; random.
pub type LogId = Hex<16>;

/// Entries after which there is a checkpoint, at the latest.
pub const INTERVAL: u64 = 256;

/// What the first link is a hash of, before the log's id.
const FIRST: &[u8] = b"agentgate log 1\n";

fn sha256(parts: &[&[u8]]) -> Hash {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    Hex(hash)
}

/// Of one entry.
#[must_use]
pub fn digest(entry: &[u8]) -> Hash {
    sha256(&[&[0], entry])
}

/// The link before the first entry of a log.
#[must_use]
pub fn first(log: &LogId) -> Hash {
    sha256(&[FIRST, &log.0])
}

/// The link after an entry, of the one before it and the entry's digest.
#[must_use]
pub fn next(link: &Hash, digest: &Hash) -> Hash {
    sha256(&[&[1], &link.0, &digest.0])
}

/// The id of the record that an entry is of; 0 where it has none.
#[must_use]
pub fn record_of(entry: &[u8]) -> u64 {
    let id = entry.get(2..10).and_then(|id| id.try_into().ok());
    id.map_or(0, u64::from_le_bytes)
}

#[cfg(test)]
mod tests;
