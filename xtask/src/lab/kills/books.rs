//! What origins saw beside what the log holds.

use std::{collections::HashMap, fmt};

use fake_internet::{Journal, journal, world::OPEN};

use crate::lab::log::Record;

/// Differences that are worth telling; the rest is more of the same.
const TOLD: usize = 20;

/// A request that an origin saw.
#[derive(Debug)]
pub(super) struct Arrived {
    /// Path and query.
    pub(super) target: String,
    pub(super) method: String,
    /// Its body, where it came whole.
    pub(super) body: Option<Vec<u8>>,
}

/// Both sides so far.
#[derive(Debug, Default)]
pub(super) struct Books {
    /// Requests of the journal before this one were looked at.
    seen: usize,
    /// Of these, those whose body was not over.
    unfinished: Vec<usize>,
    /// What was found on record, by target. A client that asks again where it was cut off has several.
    records: HashMap<String, Vec<Entered>>,
    /// The highest number up to which every record has its final state.
    settled: u64,
    newest: u64,
    requests: usize,
    bodies: usize,
    interrupted: usize,
    pub(super) differs: Vec<String>,
}

#[derive(Debug)]
struct Entered {
    id: u64,
    method: String,
    /// Arrived, whole, and is on record so.
    compared: bool,
}

impl Books {
    /// What arrived since it was asked last, and what has become whole since.
    pub(super) fn arrivals(&mut self, journal: &Journal) -> Vec<Arrived> {
        let (fresh, again) = journal.read(|snapshot| {
            let all = &snapshot.requests;
            let fresh = (self.seen..all.len()).collect::<Vec<_>>();
            let over = |n: &&usize| all.get(**n).is_some_and(|request| request.complete || request.aborted);
            let again: Vec<usize> = self.unfinished.iter().filter(over).copied().collect();
            let told = fresh.iter().chain(&again).filter_map(|n| all.get(*n)).map(arrived).collect();
            let open = |n: &usize| all.get(*n).is_some_and(|request| !request.complete && !request.aborted);
            self.unfinished = self.unfinished.iter().chain(&fresh).copied().filter(open).collect();
            (fresh.len(), told)
        });
        self.seen += fresh;
        self.requests += fresh;
        again
    }

    /// Records from here on are to be entered: those that were not over, and later ones.
    pub(super) fn after(&self) -> u64 {
        self.settled
    }

    /// Enters records, oldest first. Those that began before `killed` were begun by a daemon that is gone.
    pub(super) fn enter(&mut self, found: Vec<Record>, killed: i64) {
        let mut expected = self.settled + 1;
        let mut settled = true;
        for record in found {
            self.expect(record.id == expected, || {
                format!("record {expected} is missing: the next is {}", record.id)
            });
            expected = record.id + 1;
            let open = record.state == "open";
            self.expect(!open || record.started >= killed, || {
                format!("a dead daemon's record is still open: {}", record.summary())
            });
            settled &= !open;
            if settled {
                self.settled = record.id;
            }
            if !open {
                self.judge(&record);
            }
            self.newest = self.newest.max(record.id);
            if let Some(exchange) = record.exchange()
                && exchange.host == OPEN
            {
                let entered = self.records.entry(exchange.target.to_owned()).or_default();
                if entered.iter().all(|entered| entered.id != record.id) {
                    let method = exchange.method.to_owned();
                    entered.push(Entered { id: record.id, method, compared: false });
                }
            }
        }
    }

    /// What is over says how it ended.
    fn judge(&mut self, record: &Record) {
        let failure = record.failure.as_ref().map(|failure| (failure.blame.as_str(), failure.code.as_str()));
        let interrupted = failure == Some(("gate", "interrupted"));
        self.interrupted += usize::from(interrupted);
        let sensible = match record.state.as_str() {
            "failed" => failure.is_some(),
            "done" => !interrupted && (record.kind != "exchange" || record.response.is_some()),
            "refused" | "cancelled" => !interrupted,
            _ => false,
        };
        self.expect(sensible && record.finished.is_some(), || {
            format!("a record that is neither here nor there: {}", record.summary())
        });
    }

    /// The records that may be of a request; where there is none, that is a difference.
    pub(super) fn candidates(&mut self, target: &str, method: &str) -> Vec<u64> {
        let all = self.records.get(target).map(Vec::as_slice).unwrap_or_default();
        let alike = all.iter().filter(|entered| entered.method == method && !entered.compared);
        let found: Vec<u64> = alike.map(|entered| entered.id).collect();
        self.expect(!found.is_empty(), || {
            format!("{method} {target} reached its origin and is not on record")
        });
        found
    }

    /// Notes which of them it was whose body is the one that reached its origin.
    pub(super) fn compared(&mut self, target: &str, length: usize, same: Option<u64>) {
        self.bodies += 1;
        let all = self.records.get_mut(target).map(Vec::as_mut_slice).unwrap_or_default();
        all.iter_mut().filter(|entered| Some(entered.id) == same).for_each(|entered| entered.compared = true);
        self.expect(same.is_some(), || {
            format!("{target}: the {length} bytes of body that reached its origin are not on record")
        });
    }

    /// A test in which little happened has shown nothing.
    pub(super) fn expect_substance(&mut self, kills: u32) {
        let kills = usize::try_from(kills).unwrap_or(usize::MAX);
        let Self { requests, bodies, interrupted, .. } = *self;
        self.expect(requests > kills * 5 && bodies > kills && interrupted > kills / 4, || {
            "the load was no load".to_owned()
        });
    }

    fn expect(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds && self.differs.len() < TOLD {
            self.differs.push(otherwise());
        }
    }
}

impl fmt::Display for Books {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requests, bodies, interrupted, newest, .. } = self;
        write!(
            f,
            "{requests} requests arrived, {bodies} bodies of them whole; {newest} records, {interrupted} interrupted"
        )
    }
}

fn arrived(request: &journal::Request) -> Arrived {
    // HTTP/2 has the whole URI.
    let target = request.target.split_once(OPEN).map_or(request.target.as_str(), |(_, target)| target);
    let body = (request.complete && !request.body.is_empty()).then(|| request.body.clone());
    Arrived { target: target.to_owned(), method: request.method.clone(), body }
}
