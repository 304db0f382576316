//! Who waited for the last stroke may be back soon, and then one stroke does for all of them what the first
//! to be back would else have for himself.

use std::time::Duration;

/// The part of a stroke's time that is waited for company.
const PART: u32 = 4;
/// The longest that is.
const MOST: Duration = Duration::from_micros(250);
/// Strokes without company after which it is looked for but seldom.
const HOPE: u8 = 8;
/// How seldom.
const SELDOM: u8 = 32;

/// What is expected of the next stroke.
#[derive(Debug, Default)]
pub(super) struct Company {
    /// Who waited for the last.
    expected: usize,
    /// What a stroke takes.
    takes: Duration,
    hope: u8,
    turn: u8,
    /// It was waited for.
    looked: bool,
}

impl Company {
    /// How many may come, and how long to wait for them.
    pub(super) fn expected(&mut self) -> (usize, Duration) {
        self.turn = (self.turn + 1) % SELDOM;
        self.looked = self.expected > 1 && (self.hope > 0 || self.turn == 0);
        let patience = if self.looked { (self.takes / PART).min(MOST) } else { Duration::ZERO };
        (self.expected, patience)
    }

    /// So many wait now.
    pub(super) fn came(&mut self, awaited: usize) {
        if self.looked && awaited > 0 {
            let enough = awaited * 4 >= self.expected * 3;
            self.hope = if enough { HOPE } else { self.hope.saturating_sub(1) };
        }
    }

    /// So many have their answers, by a stroke that took so long.
    pub(super) fn left(&mut self, answered: usize, took: Duration) {
        self.expected = answered;
        self.takes = (self.takes * 7 + took) / 8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOOK: Duration = Duration::from_micros(800);

    fn stroke(company: &mut Company, back: usize) -> Duration {
        let (expected, patience) = company.expected();
        company.came(back);
        company.left(expected.max(back), TOOK);
        patience
    }

    #[test]
    fn nobody_alone_is_kept_waiting() {
        let mut company = Company::default();
        for _ in 0..100 {
            assert_eq!(company.expected().1, Duration::ZERO);
            company.came(1);
            company.left(1, TOOK);
        }
    }

    #[test]
    fn who_comes_back_is_waited_for_and_who_does_not_is_not() {
        let mut company = Company::default();
        let waits = (0..200).filter(|_| stroke(&mut company, 16) > Duration::ZERO).count();
        assert!(waits > 160, "{waits}");
        assert!(stroke(&mut company, 16) <= TOOK / 4);
        let waits = (0..320).filter(|_| stroke(&mut company, 1) > Duration::ZERO).count();
        assert!((8..=18).contains(&waits), "{waits}");
        company.left(16, Duration::from_secs(1));
        assert!(stroke(&mut company, 16) <= MOST);
    }
}
