//! Whether bodies are those whose digests entries name.

use std::collections::{HashMap, VecDeque};

use redb::{ReadOnlyTable, ReadTransaction, ReadableTable as _};

use super::super::{
    StoreError,
    bodies::{Place, body_in},
    canonical::{self, Digest, Glance, Malformed},
    group::Entry,
    packed::{self, Part},
    tables::{CONTENTS, PACKS},
};
use crate::chain::{Finding, Verifier, What};

/// Packs that are kept unpacked.
const KEPT: usize = 8;
/// Bodies that are known to be what they should be.
const KNOWN: usize = 64 << 10;
const SIDES: [&str; 2] = ["request", "response"];

/// The content of a pack, if it is there, and if it can be read.
type Unpacked = Option<Result<Vec<u8>, Malformed>>;

pub(super) struct Kept {
    packs: ReadOnlyTable<Part, &'static [u8]>,
    kept: VecDeque<(u64, Unpacked)>,
    known: HashMap<(u64, u64), Digest>,
    /// The beginning of the digest of each pack's first body.
    first: HashMap<u64, u64>,
}

impl Kept {
    pub(super) fn of(transaction: &ReadTransaction) -> Result<Self, StoreError> {
        Ok(Self {
            packs: transaction.open_table(PACKS)?,
            kept: VecDeque::new(),
            known: HashMap::new(),
            first: HashMap::new(),
        })
    }

    /// Checks the bodies of entry `n`.
    pub(super) fn entry(
        &mut self,
        n: u64,
        entry: &Entry,
        seen: &Glance<'_>,
        verifier: &mut Verifier,
    ) -> Result<(), StoreError> {
        for ((digest, place), side) in seen.digests.iter().zip(&entry.places).zip(SIDES) {
            match (digest, place) {
                (None, None) => {}
                (None, Some(_)) => {
                    let words = format!("there is a body of its {side}, which it does not name");
                    verifier.add(Finding::new(What::BodyAltered, words).at(n, entry.id));
                }
                (Some(digest), place) => match self.found(*place, digest)? {
                    Body::Same => verifier.body_holds(),
                    Body::Missing if n < verifier.bodies_from() => {}
                    Body::Missing => {
                        let words = format!("the body of its {side} is not there");
                        verifier.add(Finding::new(What::BodyMissing, words).at(n, entry.id));
                    }
                    Body::Other => {
                        let words = format!("the body of its {side} is not the one that was captured");
                        verifier.add(Finding::new(What::BodyAltered, words).at(n, entry.id));
                    }
                },
            }
        }
        Ok(())
    }

    /// All entries have come: whether the table of large bodies leads to them. What is captured once more is
    /// not kept again.
    pub(super) fn finish(
        mut self,
        transaction: &ReadTransaction,
        verifier: &mut Verifier,
    ) -> Result<(), StoreError> {
        let mut wrong = 0_u64;
        for row in transaction.open_table(CONTENTS)?.iter()? {
            let (digest, pack) = row?;
            let (digest, pack) = (digest.value(), pack.value());
            if self.first.get(&pack) != Some(&beginning(digest)) {
                let found = self.found(Some(Place { pack, index: 0 }), digest)?;
                wrong += u64::from(!matches!(found, Body::Same));
            }
        }
        if wrong > 0 {
            let words = format!("{wrong} rows say where large bodies are, and are wrong");
            verifier.add(Finding::new(What::Index, words));
        }
        Ok(())
    }

    fn found(&mut self, place: Option<Place>, digest: &Digest) -> Result<Body, StoreError> {
        let Some(place) = place else { return Ok(Body::Missing) };
        if self.known.get(&(place.pack, place.index)) == Some(digest) {
            return Ok(Body::Same);
        }
        let at = match self.kept.iter().position(|(pack, _)| *pack == place.pack) {
            Some(at) => at,
            None => {
                let content = packed::get(&self.packs, place.pack)?;
                if self.kept.len() >= KEPT {
                    self.kept.pop_front();
                }
                self.kept.push_back((place.pack, content));
                self.kept.len() - 1
            }
        };
        let body = match self.kept.get(at) {
            Some((_, Some(Ok(pack)))) => body_in(pack, place.index),
            Some((_, Some(Err(_)))) => return Ok(Body::Other),
            Some((_, None)) | None => return Ok(Body::Missing),
        };
        if body.is_ok_and(|body| canonical::digest(body) == *digest) {
            if self.known.len() >= KNOWN {
                self.known.clear();
            }
            self.known.insert((place.pack, place.index), *digest);
            if place.index == 0 {
                self.first.insert(place.pack, beginning(digest));
            }
            return Ok(Body::Same);
        }
        Ok(Body::Other)
    }
}

fn beginning(digest: &Digest) -> u64 {
    digest.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

enum Body {
    Same,
    Missing,
    Other,
}
