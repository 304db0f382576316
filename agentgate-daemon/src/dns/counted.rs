//! Questions that are asked again and again, and are told by their number: a client that polls asks the
//! same thing hundreds of times a second, and each record costs the log more than it costs the client.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::model::Record;

/// Within this time of a record, the same question with the same answer is only counted.
const WINDOW: Duration = Duration::from_secs(5);
/// Questions that are counted apart; beyond them everything is recorded one by one.
const KINDS: usize = 4096;

/// What makes two questions the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Asking {
    /// The session as the kernel numbers it, and the cgroup where there is none.
    pub(super) session: (u64, u64),
    pub(super) transport: &'static str,
    pub(super) name: String,
    pub(super) kind: String,
}

/// What makes two answers the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) code: String,
    pub(super) rule: String,
    /// In any order: servers rotate them.
    pub(super) addresses: Vec<IpAddr>,
}

impl Told {
    pub(super) fn new(code: String, rule: String, mut addresses: Vec<IpAddr>) -> Self {
        addresses.sort_unstable();
        Self { code, rule, addresses }
    }
}

#[derive(Debug)]
struct Tally {
    since: Instant,
    told: Told,
    /// The last of those that were only counted; its `times` is their number.
    unseen: Option<Box<Record>>,
}

/// Questions of the last seconds.
#[derive(Debug, Default)]
pub(super) struct Counted(Mutex<Tallies>);

#[derive(Debug, Default)]
struct Tallies {
    by: HashMap<Asking, Tally>,
    closed: bool,
}

impl Counted {
    /// Whether the same question was recorded within the window.
    pub(super) fn knows(&self, asking: &Asking) -> bool {
        let tallies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        !tallies.closed && tallies.by.get(asking).is_some_and(|tally| tally.since.elapsed() < WINDOW)
    }

    /// Takes note that a question is recorded by itself. Gives what was counted before, where that is
    /// to be recorded now.
    pub(super) fn recorded(&self, asking: Asking, told: Told) -> Option<Record> {
        let mut tallies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if tallies.closed || tallies.by.len() >= KINDS && !tallies.by.contains_key(&asking) {
            return None;
        }
        let tally = Tally { since: Instant::now(), told, unseen: None };
        tallies.by.insert(asking, tally).and_then(|before| before.unseen).map(|record| *record)
    }

    /// Counts `record` where the same question was told the same within the window; gives it back where
    /// it is to be recorded by itself.
    pub(super) fn admit(&self, asking: &Asking, told: &Told, record: Record) -> Option<Record> {
        let mut tallies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if tallies.closed {
            return Some(record);
        }
        match tallies.by.get_mut(asking) {
            Some(tally) if tally.since.elapsed() < WINDOW && tally.told == *told => {
                let before = tally.unseen.as_ref().map_or(0, |unseen| unseen.times);
                let mut record = record;
                record.times = before + 1;
                tally.unseen = Some(Box::new(record));
                None
            }
            Some(_) | None => Some(record),
        }
    }

    /// What was counted and whose window is over; forgets what needs no more counting.
    pub(super) fn settle(&self) -> Vec<Record> {
        let mut tallies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut told = Vec::new();
        tallies.by.retain(|_, tally| {
            let over = tally.since.elapsed() >= WINDOW;
            if over {
                told.extend(tally.unseen.take().map(|record| *record));
            }
            !over
        });
        told
    }

    /// Everything that was counted; from here on each question is recorded by itself.
    pub(super) fn close(&self) -> Vec<Record> {
        let mut tallies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tallies.closed = true;
        tallies.by.drain().filter_map(|(_, tally)| tally.unseen).map(|record| *record).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Kind, Timestamp};

    #[test]
    fn the_same_is_counted_and_nothing_is_lost() {
        let counted = Counted::default();
        let record = || Record::new(Kind::Dns, Timestamp::now());
        let asking = |name: &str| Asking {
            session: (1, 1),
            transport: "udp",
            name: name.to_owned(),
            kind: "A".to_owned(),
        };
        let told = |code: &str| Told::new(code.to_owned(), String::new(), Vec::new());
        assert!(!counted.knows(&asking("a")));
        assert!(counted.admit(&asking("a"), &told("NOERROR"), record()).is_some());
        assert!(counted.recorded(asking("a"), told("NOERROR")).is_none());
        assert!(counted.knows(&asking("a")));
        for _ in 0..99 {
            assert!(counted.admit(&asking("a"), &told("NOERROR"), record()).is_none());
        }
        assert!(counted.admit(&asking("a"), &told("NXDOMAIN"), record()).is_some(), "another answer");
        assert!(counted.admit(&asking("b"), &told("NOERROR"), record()).is_some(), "another name");
        assert!(counted.settle().is_empty(), "the window is not over");
        let before = counted.recorded(asking("a"), told("NXDOMAIN")).unwrap();
        assert_eq!(before.times, 99, "what was counted under the answer before is told");
        assert!(counted.admit(&asking("a"), &told("NXDOMAIN"), record()).is_none());
        counted.0.lock().unwrap().by.get_mut(&asking("a")).unwrap().since -= WINDOW;
        assert!(!counted.knows(&asking("a")));
        assert_eq!(counted.settle().iter().map(|record| record.times).sum::<u64>(), 1);
        counted.recorded(asking("a"), told("NOERROR"));
        assert!(counted.admit(&asking("a"), &told("NOERROR"), record()).is_none());
        assert_eq!(counted.close().len(), 1);
        assert!(counted.admit(&asking("a"), &told("NOERROR"), record()).is_some(), "closed: one by one");
    }
}
