//! A filter as a question to the index.
//!
//! Of each condition it is known of which records of a block it holds for certain (`sure`) and of which it may
//! (`maybe`, which has all of `sure`). "And" and "or" are those of both; what is not sure is maybe not.

use std::ops::Bound;

use redb::{ReadOnlyTable, ReadTransaction};

use crate::{
    filter::{Bounds, Expression, FactTest, Pattern, Test, in_session},
    store::{
        StoreError,
        postings::{
            TERMS,
            column::kind,
            terms::{self, TEXT_CAP, field, term, unkey},
        },
        text::Sought,
    },
    words::Address,
};

/// Texts of a field that a pattern is tried on before its records are looked at instead.
const TEXTS_CAP: usize = 100_000;

/// What to ask of each block.
#[derive(Debug)]
pub(super) enum Plan {
    All(Vec<Plan>),
    Any(Vec<Plan>),
    Not(Box<Plan>),
    /// Records that have one of these terms; of the others it is not certain.
    Terms {
        sure: Vec<u64>,
        maybe: Vec<u64>,
    },
    /// Records that have a term from the one to the other.
    Range(u64, u64),
    Ids(u64, u64),
    Started(Bounds),
    /// A column, the numbers wanted, and what a record without one has.
    Column(u8, Bounds, Option<u64>),
    /// Words, or parts of an address, by what the text index does not rule out.
    Text(Sought),
    /// To be seen in the record.
    Unknown,
}

impl Plan {
    pub(super) fn of(transaction: &ReadTransaction, expression: &Expression) -> Result<Self, StoreError> {
        Planner { terms: transaction.open_table(TERMS)? }.plan(expression)
    }

    /// Everything that the text index is asked for.
    pub(super) fn sought<'p>(&'p self, into: &mut Vec<&'p Sought>) {
        match self {
            Self::All(parts) | Self::Any(parts) => parts.iter().for_each(|part| part.sought(into)),
            Self::Not(part) => part.sought(into),
            Self::Text(sought) => into.push(sought),
            Self::Terms { .. }
            | Self::Range(..)
            | Self::Ids(..)
            | Self::Started(_)
            | Self::Column(..)
            | Self::Unknown => {}
        }
    }

    /// What is dear comes last, because nothing is asked once no record is left.
    fn cost(&self) -> u8 {
        match self {
            Self::Ids(..) => 0,
            Self::Terms { sure, maybe } if sure.len() + maybe.len() <= 2 => 1,
            Self::Started(_) => 2,
            Self::Terms { .. } | Self::Range(..) => 3,
            Self::Any(parts) | Self::All(parts) => parts.iter().map(Self::cost).max().unwrap_or(0).max(4),
            Self::Not(part) => part.cost().max(4),
            Self::Column(..) => 5,
            Self::Text(_) => 6,
            Self::Unknown => 7,
        }
    }
}

struct Planner {
    terms: ReadOnlyTable<&'static [u8], u64>,
}

impl Planner {
    fn plan(&self, expression: &Expression) -> Result<Plan, StoreError> {
        let all =
            |parts: &[Expression]| parts.iter().map(|part| self.plan(part)).collect::<Result<Vec<_>, _>>();
        Ok(match expression {
            Expression::All(parts) => {
                let mut parts = all(parts)?;
                parts.sort_by_key(Plan::cost);
                Plan::All(parts)
            }
            Expression::Any(parts) => Plan::Any(all(parts)?),
            Expression::Not(part) => Plan::Not(Box::new(self.plan(part)?)),
            Expression::Is(test) => self.test(test)?,
        })
    }

    fn test(&self, test: &Test) -> Result<Plan, StoreError> {
        match test {
            Test::Host(pattern) => {
                let is = |host: &[u8]| pattern.matches_bytes(host);
                self.texts(field::HOST, &pattern.suffix_reversed(), pattern.is_literal(), is)
            }
            Test::Session(pattern) => {
                let is = |session: &[u8]| {
                    str::from_utf8(session).is_ok_and(|session| in_session(pattern, session))
                };
                self.texts(field::SESSION, &pattern.prefix(), false, is)
            }
            Test::Agent(pattern) => self.pattern(field::AGENT, pattern),
            Test::Exe(pattern) => self.pattern(field::EXE, pattern),
            Test::Flag(pattern) => self.pattern(field::FLAG, pattern),
            Test::Method(pattern) => self.pattern(field::METHOD, pattern),
            Test::Rule(pattern) => self.pattern(field::RULE, pattern),
            Test::Protocol(pattern) => self.pattern(field::PROTOCOL, pattern),
            Test::Code(pattern) => self.pattern(field::CODE, pattern),
            Test::Pid(bounds) => Ok(range(field::PID, bounds)),
            Test::Status(bounds) => Ok(range(field::STATUS, bounds)),
            Test::Parent(bounds) => Ok(range(field::PARENT, bounds)),
            Test::Verdict(action) => Ok(one(terms::of_action(*action))),
            Test::Kind(kind) => Ok(one(terms::of_kind(*kind))),
            Test::State(state) => Ok(one(terms::of_state(*state))),
            Test::Id(bounds) => {
                Ok(bounds.within_u64().map_or_else(nothing, |(low, high)| Plan::Ids(low, high)))
            }
            Test::Started(bounds) => Ok(Plan::Started(*bounds)),
            Test::Duration(bounds) => Ok(Plan::Column(kind::DURATION, *bounds, None)),
            Test::Bytes(bounds) => Ok(Plan::Column(kind::BYTES, *bounds, Some(0))),
            Test::Fact(test) => self.fact(test),
            Test::Text(needle) => Ok(Plan::Text(needle.clone().into())),
            Test::Path(pattern) => Ok(address(Address::of_target(&pattern.runs()))),
            Test::Url(pattern) => Ok(address(Address::of_url(&pattern.runs()))),
        }
    }

    fn pattern(&self, field: u8, pattern: &Pattern) -> Result<Plan, StoreError> {
        self.texts(field, &pattern.prefix(), pattern.is_literal(), |text| pattern.matches_bytes(text))
    }

    /// The terms of a field whose text `is` what is wanted; their keys begin with `prefix`, and are no longer
    /// where it is `whole`.
    fn texts(
        &self,
        field: u8,
        prefix: &[u8],
        whole: bool,
        is: impl Fn(&[u8]) -> bool,
    ) -> Result<Plan, StoreError> {
        let mut start = vec![field];
        // Of a longer text no more is in its key.
        start.extend(prefix.iter().take(TEXT_CAP));
        let (mut sure, mut maybe) = (Vec::new(), Vec::new());
        if whole && prefix.len() <= TEXT_CAP {
            sure.extend(self.terms.get(start.as_slice())?.map(|number| number.value()));
            return Ok(Plan::Terms { sure, maybe });
        }
        for (seen, row) in
            self.terms.range::<&[u8]>((Bound::Included(start.as_slice()), Bound::Unbounded))?.enumerate()
        {
            let (key, number) = row?;
            if !key.value().starts_with(&start) {
                break;
            }
            if seen >= TEXTS_CAP {
                return Ok(Plan::Unknown);
            }
            let (text, cut) = unkey(key.value());
            if cut {
                maybe.push(number.value());
            } else if is(&text) {
                sure.push(number.value());
            }
        }
        sure.sort_unstable();
        maybe.sort_unstable();
        Ok(Plan::Terms { sure, maybe })
    }

    fn fact(&self, test: &FactTest) -> Result<Plan, StoreError> {
        let name = test.name.to_ascii_lowercase();
        let mut parts = Vec::new();
        if let Some(pattern) = &test.text {
            let mut prefix = name.as_bytes().to_vec();
            prefix.push(0);
            let skip = prefix.len();
            prefix.extend(pattern.prefix());
            parts.push(self.texts(field::FACT, &prefix, pattern.is_literal(), |text| {
                text.get(skip..).is_some_and(|value| pattern.matches_bytes(value))
            })?);
        }
        if let Some(bounds) = &test.number {
            let amounts = self.texts(field::AMOUNT, name.as_bytes(), true, |_| true)?;
            let any = bounds.low == i128::MIN && bounds.high == i128::MAX;
            parts.push(match amounts {
                Plan::Terms { sure, maybe } if !any => Plan::Terms { sure: maybe, maybe: sure },
                Plan::Terms { .. }
                | Plan::All(_)
                | Plan::Any(_)
                | Plan::Not(_)
                | Plan::Range(..)
                | Plan::Ids(..)
                | Plan::Started(_)
                | Plan::Column(..)
                | Plan::Text(_)
                | Plan::Unknown => amounts,
            });
        }
        Ok(Plan::Any(parts))
    }
}

fn address(found: Option<Address>) -> Plan {
    found.map_or(Plan::Unknown, |address| Plan::Text(Sought::Address(address)))
}

fn one(term: u64) -> Plan {
    Plan::Terms { sure: vec![term], maybe: Vec::new() }
}

fn nothing() -> Plan {
    Plan::Any(Vec::new())
}

/// Records whose number of a field is within.
fn range(field: u8, bounds: &Bounds) -> Plan {
    // What does not fit a term cannot be in one.
    let most = term(0, u64::MAX);
    match bounds.within_u64() {
        Some((low, high)) if low == high && low <= most => one(term(field, low)),
        Some((low, high)) if low <= most => Plan::Range(term(field, low), term(field, high.min(most))),
        Some(_) | None => nothing(),
    }
}
