//! How far behind the index may be before it is no longer only built where nothing else wants to run.

use std::time::{Duration, Instant};

/// Entries: what a search looks through in a hundred calls. A gate that is busy as never before is through
/// with that in a minute.
const MOST: u64 = 1 << 20;
/// How long none may have been indexed to the end: of large bodies fewer entries are much to read.
const LONGEST: Duration = Duration::from_secs(600);

/// Tells when the thread takes a share, however busy the machine.
#[derive(Debug)]
pub(super) struct Lag {
    /// It does up to this entry.
    goal: u64,
    /// When there was nothing to do, or half of what there was had been done.
    since: Instant,
}

impl Lag {
    pub(super) fn new(now: Instant) -> Self {
        Self { goal: 0, since: now }
    }

    /// Entries before `at` are indexed, of as many as `end`. Returns the entry up to which that goes on which
    /// is to go on: half of what there is.
    pub(super) fn goal(&mut self, at: u64, end: u64, now: Instant) -> u64 {
        let lag = end.saturating_sub(at);
        if at < self.goal {
            return self.goal;
        }
        if lag == 0 || self.goal > 0 {
            (self.goal, self.since) = (0, now);
        }
        if lag > MOST || (lag > 0 && now.duration_since(self.since) > LONGEST) {
            self.goal = at + lag.div_ceil(2);
        }
        self.goal
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_is_done_of_too_much() {
        let now = Instant::now();
        let mut lag = Lag::new(now);
        assert_eq!(lag.goal(0, MOST, now), 0);
        assert_eq!(lag.goal(10, MOST + 12, now), 10 + MOST / 2 + 1);
        // What comes meanwhile counts when that is done.
        assert_eq!(lag.goal(11, 3 * MOST, now), 10 + MOST / 2 + 1);
        let at = 11 + MOST / 2;
        assert_eq!(lag.goal(at, at + MOST, now), 0);
        assert_eq!(lag.goal(at, at + MOST + 2, now), at + MOST / 2 + 1);
    }

    #[test]
    fn half_is_done_of_what_is_old() {
        let began = Instant::now();
        let mut lag = Lag::new(began);
        let after = |times: u32| began + LONGEST * times + Duration::from_secs(1);
        assert_eq!(lag.goal(5, 105, began + LONGEST), 0);
        assert_eq!(lag.goal(5, 105, after(1)), 55);
        assert_eq!(lag.goal(55, 105, after(1)), 0);
        assert_eq!(lag.goal(55, 105, after(3)), 80);
        // Nothing is old where nothing is left.
        assert_eq!(lag.goal(105, 105, after(5)), 0);
        assert_eq!(lag.goal(105, 107, after(5)), 0);
    }
}
