//! What records are found by: the terms of an entry.
//!
//! A term is a number: a field in the highest byte, and below it a small number of its own (a kind, a status,
//! a pid) or that which the table `terms` gives to a text. Fields are part of the file's format.

use std::collections::{HashMap, HashSet};

use redb::{ReadOnlyTable, ReadableTable, Table};

use crate::{
    model::{Action, Kind, State, Timestamp},
    store::{
        StoreError,
        canonical::{
            Fields, Glance, Malformed, code,
            fields::{number, signed, text, time},
            tag,
        },
        record,
    },
};

/// Fields of terms.
pub(in crate::store) mod field {
    /// Every record.
    pub(in crate::store) const ALL: u8 = 1;
    pub(in crate::store) const KIND: u8 = 2;
    pub(in crate::store) const STATE: u8 = 3;
    pub(in crate::store) const VERDICT: u8 = 4;
    pub(in crate::store) const STATUS: u8 = 5;
    pub(in crate::store) const PID: u8 = 6;
    pub(in crate::store) const PARENT: u8 = 7;
    /// Its text is written from its end, so that a domain's names stand together.
    pub(in crate::store) const HOST: u8 = 16;
    pub(in crate::store) const SESSION: u8 = 17;
    pub(in crate::store) const AGENT: u8 = 18;
    pub(in crate::store) const EXE: u8 = 19;
    pub(in crate::store) const FLAG: u8 = 20;
    pub(in crate::store) const METHOD: u8 = 21;
    pub(in crate::store) const RULE: u8 = 22;
    pub(in crate::store) const PROTOCOL: u8 = 23;
    pub(in crate::store) const CODE: u8 = 24;
    /// Name, a zero byte, and what a fact says that is a text.
    pub(in crate::store) const FACT: u8 = 25;
    /// Name of a fact that is a number.
    pub(in crate::store) const AMOUNT: u8 = 26;
}

/// Longest text of a term. A longer one is cut, and marked by [`CUT`] at its end.
pub(in crate::store) const TEXT_CAP: usize = 1024;
/// Is in no UTF-8.
pub(in crate::store) const CUT: u8 = 0xff;
/// Bits of a term below its field.
const NUMBER_BITS: u32 = 56;
/// Texts whose numbers are kept in memory.
const KNOWN: usize = 8192;
/// Numbers that are taken down while it is asked which are in use.
const USED: usize = 256 << 10;
/// Subjects of which all terms are.
const SUBJECTS: usize = 1024;
/// Under this key is the number that the next text gets.
const NEXT: &[u8] = &[];

/// The term of a field and a number.
pub(in crate::store) fn term(field: u8, number: u64) -> u64 {
    u64::from(field) << NUMBER_BITS | number & ((1 << NUMBER_BITS) - 1)
}

pub(in crate::store) fn of_kind(kind: Kind) -> u64 {
    term(field::KIND, code::of_kind(kind))
}

pub(in crate::store) fn of_state(state: State) -> u64 {
    term(field::STATE, code::of_state(state))
}

pub(in crate::store) fn of_action(action: Action) -> u64 {
    term(field::VERDICT, code::of_action(action))
}

/// The key of a text: its field, and the text in lower case.
pub(in crate::store) fn key(field: u8, text: &[u8], out: &mut Vec<u8>) {
    out.clear();
    out.push(field);
    let cut = text.len() > TEXT_CAP;
    if field == field::HOST {
        out.extend(text.iter().rev().take(TEXT_CAP).map(u8::to_ascii_lowercase));
    } else {
        out.extend(text.iter().take(TEXT_CAP).map(u8::to_ascii_lowercase));
    }
    if cut {
        out.push(CUT);
    }
}

/// The text of a key, and whether it was cut.
pub(in crate::store) fn unkey(key: &[u8]) -> (Vec<u8>, bool) {
    let Some((field, text)) = key.split_first() else { return (Vec::new(), false) };
    let (text, cut) = match text.split_last() {
        Some((&CUT, rest)) => (rest, true),
        Some(_) | None => (text, false),
    };
    let mut text = text.to_vec();
    if *field == field::HOST {
        text.reverse();
    }
    (text, cut)
}

/// What a column has of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::store) struct Values {
    pub(in crate::store) started: Timestamp,
    /// Microseconds; `None` of what is open.
    pub(in crate::store) duration: Option<u64>,
    pub(in crate::store) bytes: u64,
}

/// A subject's encoding, and its terms.
type OfSubject = (Box<[u8]>, Box<[u64]>);

/// Numbers that were given before, so that they need not be looked up. To be forgotten with a transaction
/// that failed.
#[derive(Debug, Default)]
pub(in crate::store) struct Known {
    texts: HashMap<Box<[u8]>, u64>,
    subjects: HashMap<u32, OfSubject>,
    scratch: Vec<u8>,
    /// Numbers that were looked up since somebody began to ask which are in use.
    used: Option<HashSet<u64>>,
}

impl Known {
    /// Forgets all, and takes down from here on which numbers are used.
    pub(in crate::store) fn watch(&mut self) {
        *self = Self { used: Some(HashSet::new()), ..Self::default() };
    }

    /// Numbers that were used since; `None` where it is not known.
    pub(in crate::store) fn used(&self) -> Option<&HashSet<u64>> {
        self.used.as_ref()
    }

    /// Takes nothing down any more.
    pub(in crate::store) fn unwatch(&mut self) {
        self.used = None;
    }
}

/// The number of a term below its field.
pub(in crate::store) fn number_of(term: u64) -> u64 {
    term & ((1 << NUMBER_BITS) - 1)
}

/// The table of texts, as it is written, or as it is.
pub(in crate::store) trait Texts {
    fn find(&self, key: &[u8]) -> Result<Option<u64>, StoreError>;
    /// The number of a text that has none.
    fn give(&mut self, field: u8, key: &[u8]) -> Result<u64, StoreError>;
}

impl Texts for Table<'_, &'static [u8], u64> {
    fn find(&self, key: &[u8]) -> Result<Option<u64>, StoreError> {
        Ok(self.get(key)?.map(|number| number.value()))
    }

    fn give(&mut self, field: u8, key: &[u8]) -> Result<u64, StoreError> {
        let next = self.get(NEXT)?.map_or(0, |next| next.value());
        self.insert(NEXT, next + 1)?;
        let number = term(field, next);
        self.insert(key, number)?;
        Ok(number)
    }
}

/// The table, where it should have everything.
#[derive(Debug)]
pub(in crate::store) struct Complete {
    pub(in crate::store) table: ReadOnlyTable<&'static [u8], u64>,
    /// It has not.
    pub(in crate::store) lacks: bool,
}

impl Texts for Complete {
    fn find(&self, key: &[u8]) -> Result<Option<u64>, StoreError> {
        Ok(self.table.get(key)?.map(|number| number.value()))
    }

    fn give(&mut self, _field: u8, _key: &[u8]) -> Result<u64, StoreError> {
        self.lacks = true;
        Ok(u64::MAX)
    }
}

/// The numbers of texts.
pub(in crate::store) struct Dictionary<'k, T> {
    pub(in crate::store) table: &'k mut T,
    pub(in crate::store) known: &'k mut Known,
}

impl<T: Texts> Dictionary<'_, T> {
    /// The term of a text, which gets a number where it has none.
    fn of(&mut self, field: u8, text: &[u8]) -> Result<u64, StoreError> {
        let mut scratch = std::mem::take(&mut self.known.scratch);
        key(field, text, &mut scratch);
        let found = self.of_key(field, &scratch);
        self.known.scratch = scratch;
        found
    }

    fn of_key(&mut self, field: u8, key: &[u8]) -> Result<u64, StoreError> {
        if let Some(known) = self.known.texts.get(key) {
            return Ok(*known);
        }
        let number = match self.table.find(key)? {
            Some(number) => number,
            None => self.table.give(field, key)?,
        };
        if self.known.texts.len() >= KNOWN {
            self.known.texts.clear();
        }
        self.known.texts.insert(key.into(), number);
        // What is known to it is not looked up again, and was taken down then.
        if let Some(used) = &mut self.known.used {
            used.insert(number);
            if used.len() > USED {
                self.known.used = None;
            }
        }
        Ok(number)
    }

    fn add(&mut self, field: u8, text: &str, out: &mut Vec<u64>) -> Result<(), StoreError> {
        if !text.is_empty() {
            out.push(self.of(field, text.as_bytes())?);
        }
        Ok(())
    }

    /// The terms of an entry, in rising order, and what its columns have.
    pub(in crate::store) fn terms(
        &mut self,
        encoded: &[u8],
        seen: &Glance<'_>,
    ) -> Result<(Vec<u64>, Values), StoreError> {
        let malformed = |source| StoreError::Malformed { id: crate::model::RecordId(seen.id), source };
        let mut out = Vec::with_capacity(24);
        out.push(term(field::ALL, 0));
        out.extend(seen.kind.map(of_kind));
        out.extend(seen.state.map(of_state));
        out.extend(seen.action.map(of_action));
        let host = record::host(seen);
        self.add(field::HOST, &host, &mut out)?;
        self.add(field::RULE, seen.rule, &mut out)?;
        self.add(field::CODE, seen.failure_code, &mut out)?;
        let (mut finished, mut passed, mut bodies) = (None, 0_u64, None::<u64>);
        for field in Fields::of(encoded) {
            let (tag, payload) = field.map_err(malformed)?;
            match tag {
                tag::FINISHED => finished = Some(time(payload).map_err(malformed)?),
                tag::PARENT => out.push(term(field::PARENT, number(payload).map_err(malformed)?)),
                tag::SUBJECT => self.subject(payload, &mut out, seen.id)?,
                tag::PROTOCOL => self.add(field::PROTOCOL, text(payload).map_err(malformed)?, &mut out)?,
                tag::FLAG => self.add(field::FLAG, first_text(payload, 1).map_err(malformed)?, &mut out)?,
                tag::REQUEST => {
                    self.add(field::METHOD, first_text(payload, 1).map_err(malformed)?, &mut out)?;
                    let total = body_total(payload, 6).map_err(malformed)?;
                    bodies = Some(bodies.unwrap_or(0).saturating_add(total));
                }
                tag::RESPONSE => {
                    out.push(term(field::STATUS, first_number(payload, 1).map_err(malformed)?));
                    let total = body_total(payload, 4).map_err(malformed)?;
                    bodies = Some(bodies.unwrap_or(0).saturating_add(total));
                }
                tag::BYTES_UP | tag::BYTES_DOWN => {
                    passed = passed.saturating_add(number(payload).map_err(malformed)?);
                }
                tag::QUESTION => {
                    self.add(field::CODE, first_text(payload, 4).map_err(malformed)?, &mut out)?
                }
                tag::FACT => self.fact(payload, &mut out).map_err(|error| error.of(seen.id))?,
                _ => {}
            }
        }
        out.sort_unstable();
        out.dedup();
        let open = seen.state == Some(State::Open);
        let values = Values {
            started: seen.started,
            duration: finished.filter(|_| !open).map(|end: Timestamp| end.since(seen.started)),
            bytes: bodies.unwrap_or(passed),
        };
        Ok((out, values))
    }

    /// The same subject comes with every record of a connection.
    fn subject(&mut self, payload: &[u8], out: &mut Vec<u64>, id: u64) -> Result<(), StoreError> {
        let slot = crc32fast::hash(payload) % SUBJECTS as u32;
        if let Some((known, terms)) = self.known.subjects.get(&slot)
            && **known == *payload
        {
            out.extend_from_slice(terms);
            return Ok(());
        }
        let malformed = |source| StoreError::Malformed { id: crate::model::RecordId(id), source };
        let (mut session, mut pid, mut comm, mut exe) = ("", 0, "", "");
        for field in Fields::of(payload) {
            match field.map_err(malformed)? {
                (1, payload) => session = text(payload).map_err(malformed)?,
                (2, payload) => pid = number(payload).map_err(malformed)?,
                (5, payload) => comm = text(payload).map_err(malformed)?,
                (6, payload) => exe = text(payload).map_err(malformed)?,
                _ => {}
            }
        }
        let mut terms = vec![term(field::PID, pid)];
        // A session is found where it is none too, as a record shows it.
        terms.push(self.of(field::SESSION, session.as_bytes())?);
        for name in crate::filter::agents(exe, comm) {
            self.add(field::AGENT, name, &mut terms)?;
        }
        self.add(field::EXE, exe, &mut terms)?;
        out.extend_from_slice(&terms);
        self.known.subjects.insert(slot, (payload.into(), terms.into()));
        Ok(())
    }

    fn fact(&mut self, payload: &[u8], out: &mut Vec<u64>) -> Result<(), Unindexed> {
        let (mut name, mut value, mut amount) = (&[][..], None, false);
        for field in Fields::of(payload) {
            match field? {
                (1, payload) => name = payload,
                (2, payload) => value = Some(text(payload)?),
                (3 | 4, payload) => amount = signed(payload).is_ok(),
                _ => {}
            }
        }
        if let Some(value) = value {
            out.push(self.of(field::FACT, &[name, &[0], value.as_bytes()].concat())?);
        } else if amount {
            out.push(self.of(field::AMOUNT, name)?);
        }
        Ok(())
    }
}

/// Why an entry has no terms.
enum Unindexed {
    Malformed(Malformed),
    Store(StoreError),
}

impl Unindexed {
    fn of(self, id: u64) -> StoreError {
        match self {
            Self::Malformed(source) => StoreError::Malformed { id: crate::model::RecordId(id), source },
            Self::Store(error) => error,
        }
    }
}

impl From<Malformed> for Unindexed {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl From<StoreError> for Unindexed {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

fn find(payload: &[u8], wanted: u8) -> Result<Option<&[u8]>, Malformed> {
    for field in Fields::of(payload) {
        let (tag, payload) = field?;
        if tag >= wanted {
            return Ok((tag == wanted).then_some(payload));
        }
    }
    Ok(None)
}

fn first_text(payload: &[u8], wanted: u8) -> Result<&str, Malformed> {
    find(payload, wanted)?.map_or(Ok(""), text)
}

fn first_number(payload: &[u8], wanted: u8) -> Result<u64, Malformed> {
    find(payload, wanted)?.map_or(Ok(0), number)
}

fn body_total(payload: &[u8], body: u8) -> Result<u64, Malformed> {
    find(payload, body)?.map_or(Ok(0), |body| first_number(body, 1))
}
