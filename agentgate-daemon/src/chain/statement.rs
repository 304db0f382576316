//! What is signed. Each statement is a *body* of fixed layout, integers little endian; what is signed is a
//! line that names the kind of statement, the log's id, and the body. Tables hold the body and the
//! signatures after it.

use serde::{Deserialize, Serialize};

use super::{
    Hash, LogId,
    key::{KeyError, PublicKey, Signature, SigningKey, is_signed},
    text::Hex,
};
use crate::model::Timestamp;

const CHECKPOINT: &[u8] = b"agentgate checkpoint 1\n";
const KEY: &[u8] = b"agentgate key 1\n";
const PRUNE: &[u8] = b"agentgate prune 1\n";
/// Longest reason of a prune, in bytes.
const REASON: usize = 1024;

fn message(domain: &[u8], log: &LogId, body: &[u8]) -> Vec<u8> {
    [domain, &log.0, body].concat()
}

/// Takes fields off the front; `None` where they are cut off.
struct Take<'b>(&'b [u8]);

impl Take<'_> {
    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }
    fn number(&mut self) -> Option<u64> {
        self.bytes().map(u64::from_le_bytes)
    }
    fn time(&mut self) -> Option<Timestamp> {
        self.bytes().map(i64::from_le_bytes).map(Timestamp)
    }
    fn hex<const N: usize>(&mut self) -> Option<Hex<N>> {
        self.bytes().map(Hex)
    }
}

/// A signed link: so many entries, and these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Entries before it, from the beginning of the log on.
    pub entries: u64,
    /// The link after them.
    pub link: Hash,
    pub time: Timestamp,
    pub key: PublicKey,
    pub signature: Hex<64>,
}

impl Checkpoint {
    /// Signs.
    ///
    /// # Errors
    /// [`KeyError::Unusable`].
    pub fn sign(
        log: &LogId,
        entries: u64,
        link: Hash,
        time: Timestamp,
        key: &SigningKey,
    ) -> Result<Self, KeyError> {
        let mut made = Self { entries, link, time, key: key.public(), signature: Hex([0; 64]) };
        made.signature = key.sign(&message(CHECKPOINT, log, &made.body()))?;
        Ok(made)
    }

    /// Whether its key signed it, of this log.
    #[must_use]
    pub fn is_signed(&self, log: &LogId) -> bool {
        is_signed(&self.key, &message(CHECKPOINT, log, &self.body()), &self.signature)
    }

    fn body(&self) -> Vec<u8> {
        let number = self.entries.to_le_bytes();
        [&number[..], &self.link.0, &self.time.0.to_le_bytes(), &self.key.0].concat()
    }

    /// As a table holds it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        [&self.body()[..], &self.signature.0].concat()
    }

    /// What a table holds; `None` where it is none.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut take = Take(bytes);
        let (entries, link, time) = (take.number()?, take.hex()?, take.time()?);
        let made = Self { entries, link, time, key: take.hex()?, signature: take.hex()? };
        take.0.is_empty().then_some(made)
    }
}

/// From this entry on another key signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyStatement {
    /// Entries that the log had.
    pub entries: u64,
    /// The link after them.
    pub link: Hash,
    pub time: Timestamp,
    pub key: PublicKey,
    /// The key that signed before; none of the first.
    pub previous: Option<PublicKey>,
    /// By the key itself.
    pub signature: Hex<64>,
    /// By the key that signed before. Absent of the first, and where that key was lost.
    pub vouched: Option<Hex<64>>,
}

impl KeyStatement {
    /// Signs; `vouching` is the key that signed before, `previous` its public half also where it is lost.
    ///
    /// # Errors
    /// [`KeyError::Unusable`].
    pub fn sign(
        log: &LogId,
        (entries, link): (u64, Hash),
        time: Timestamp,
        key: &SigningKey,
        previous: Option<PublicKey>,
        vouching: Option<&SigningKey>,
    ) -> Result<Self, KeyError> {
        let signature = Hex([0; 64]);
        let mut made = Self { entries, link, time, key: key.public(), previous, signature, vouched: None };
        let message = message(KEY, log, &made.body());
        made.signature = key.sign(&message)?;
        made.vouched = vouching.map(|key| key.sign(&message)).transpose()?;
        Ok(made)
    }

    /// Whether the key it names signed it, of this log.
    #[must_use]
    pub fn is_signed(&self, log: &LogId) -> bool {
        is_signed(&self.key, &message(KEY, log, &self.body()), &self.signature)
    }

    /// Whether the key before vouches for it.
    #[must_use]
    pub fn is_vouched(&self, log: &LogId) -> bool {
        let message = message(KEY, log, &self.body());
        match (&self.previous, &self.vouched) {
            (Some(previous), Some(vouched)) => is_signed(previous, &message, vouched),
            (None, _) | (_, None) => false,
        }
    }

    fn body(&self) -> Vec<u8> {
        let number = self.entries.to_le_bytes();
        let previous = self.previous.unwrap_or(Hex([0; 32]));
        [&number[..], &self.link.0, &self.time.0.to_le_bytes(), &self.key.0, &previous.0].concat()
    }

    /// As a table holds it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let vouched = self.vouched.map_or([0; 64], |vouched| vouched.0);
        [&self.body()[..], &self.signature.0, &vouched].concat()
    }

    /// What a table holds; `None` where it is none.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut take = Take(bytes);
        let (entries, link, time, key) = (take.number()?, take.hex()?, take.time()?, take.hex()?);
        let previous = take.hex::<32>().map(|key| (key.0 != [0; 32]).then_some(key))?;
        let signature: Signature = take.hex()?;
        let vouched = take.hex::<64>().map(|by| (by.0 != [0; 64]).then_some(by))?;
        let made = Self { entries, link, time, key, previous, signature, vouched };
        take.0.is_empty().then_some(made)
    }
}

/// What a prune took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pruned {
    /// The entries, and what belongs to them.
    Entries,
    /// Captured bodies; their digests stay in the entries.
    Bodies,
}

impl Pruned {
    fn number(self) -> u8 {
        match self {
            Self::Entries => 1,
            Self::Bodies => 2,
        }
    }
}

/// What retention took out of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prune {
    pub what: Pruned,
    /// Number of the first entry that it concerns.
    pub from: u64,
    /// The link before that.
    pub from_link: Hash,
    /// Number of the first entry that it does not concern any more.
    pub to: u64,
    /// The link before that: with the one above it fixes all that was between.
    pub to_link: Hash,
    /// Records that began there.
    pub records: u64,
    /// Lowest and highest id of them, 0 where there were none.
    pub first: u64,
    pub last: u64,
    /// When the earliest and the latest of them began.
    pub earliest: Timestamp,
    pub latest: Timestamp,
    pub time: Timestamp,
    pub key: PublicKey,
    /// The rule by which, in one line.
    pub reason: String,
    pub signature: Hex<64>,
}

impl Prune {
    /// Signs: `key`, `time` and `signature` are set here, and the reason is cut to 1 KiB.
    ///
    /// # Errors
    /// [`KeyError::Unusable`].
    pub fn sign(mut self, log: &LogId, time: Timestamp, key: &SigningKey) -> Result<Self, KeyError> {
        let cut = self.reason.floor_char_boundary(REASON);
        self.reason.truncate(cut);
        (self.time, self.key) = (time, key.public());
        self.signature = key.sign(&message(PRUNE, log, &self.body()))?;
        Ok(self)
    }

    /// Whether its key signed it, of this log.
    #[must_use]
    pub fn is_signed(&self, log: &LogId) -> bool {
        is_signed(&self.key, &message(PRUNE, log, &self.body()), &self.signature)
    }

    fn body(&self) -> Vec<u8> {
        let mut body = vec![self.what.number()];
        body.extend_from_slice(&self.from.to_le_bytes());
        body.extend_from_slice(&self.from_link.0);
        body.extend_from_slice(&self.to.to_le_bytes());
        body.extend_from_slice(&self.to_link.0);
        for number in [self.records, self.first, self.last] {
            body.extend_from_slice(&number.to_le_bytes());
        }
        for time in [self.earliest, self.latest, self.time] {
            body.extend_from_slice(&time.0.to_le_bytes());
        }
        body.extend_from_slice(&self.key.0);
        body.extend_from_slice(self.reason.as_bytes());
        body
    }

    /// As a table holds it: the signature first, because the reason has no length.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        [&self.signature.0[..], &self.body()].concat()
    }

    /// What a table holds; `None` where it is none.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut take = Take(bytes);
        let signature = take.hex()?;
        let number = take.bytes::<1>()?[0];
        let what = [Pruned::Entries, Pruned::Bodies].into_iter().find(|what| what.number() == number)?;
        let (from, from_link, to, to_link) = (take.number()?, take.hex()?, take.number()?, take.hex()?);
        let (records, first, last) = (take.number()?, take.number()?, take.number()?);
        let (earliest, latest, time, key) = (take.time()?, take.time()?, take.time()?, take.hex()?);
        let reason = String::from_utf8(take.0.to_vec()).ok()?;
        Some(Self {
            what,
            from,
            from_link,
            to,
            to_link,
            records,
            first,
            last,
            earliest,
            latest,
            time,
            key,
            reason,
            signature,
        })
    }
}
