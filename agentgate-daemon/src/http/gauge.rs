//! What bodies share beyond themselves: when something last moved, and how much memory captured
//! prefixes may take in all.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use tokio::time::{Duration, Instant, sleep_until};

/// When something last moved; shared by all that counts as one movement.
#[derive(Clone, Debug)]
pub struct Activity {
    start: Instant,
    last_ms: Arc<AtomicU64>,
}

impl Default for Activity {
    fn default() -> Self {
        Self { start: Instant::now(), last_ms: Arc::default() }
    }
}

impl Activity {
    /// Something moved.
    pub fn touch(&self) {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(now, Ordering::Relaxed);
    }

    /// Resolves once nothing has moved for `idle`.
    pub async fn silent_for(&self, idle: Duration) {
        loop {
            let last = self.start + Duration::from_millis(self.last_ms.load(Ordering::Relaxed));
            if last.elapsed() >= idle {
                return;
            }
            sleep_until(last + idle).await;
        }
    }
}

/// Memory for the captured prefixes of all bodies under way. Where it is used up a prefix ends
/// early, and its record says that it is cut.
#[derive(Clone, Debug)]
pub struct Budget(Arc<AtomicUsize>);

impl Budget {
    /// A budget of `bytes`.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(bytes)))
    }

    /// Nothing taken yet.
    #[must_use]
    pub fn open(&self) -> Held {
        Held { budget: Some(self.clone()), bytes: 0 }
    }
}

/// What one body has of the budget; given back when dropped. By default nothing of none.
#[derive(Debug, Default)]
pub struct Held {
    budget: Option<Budget>,
    bytes: usize,
}

impl Held {
    /// Takes up to `wanted` bytes more and says how many it got.
    pub fn take(&mut self, wanted: usize) -> usize {
        let Some(Budget(left)) = &self.budget else { return 0 };
        let got = left
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |free| Some(free - wanted.min(free)))
            .map_or(0, |free| wanted.min(free));
        self.bytes += got;
        got
    }

    /// Takes or gives back until it has `bytes`, as far as there are any, and says whether it has.
    pub fn settle(&mut self, bytes: usize) -> bool {
        if let Some(over) = self.bytes.checked_sub(bytes) {
            self.bytes = bytes;
            self.give_back(over);
            return true;
        }
        let wanted = bytes - self.bytes;
        self.take(wanted) == wanted
    }

    fn give_back(&self, bytes: usize) {
        // All threads write there.
        if let (Some(Budget(left)), 1..) = (&self.budget, bytes) {
            left.fetch_add(bytes, Ordering::AcqRel);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_given_back() {
        let budget = Budget::new(10);
        let (mut one, mut two) = (budget.open(), budget.open());
        assert_eq!([one.take(6), two.take(6), two.take(1)], [6, 4, 0]);
        drop(one);
        assert_eq!(two.take(10), 6);
        assert!(two.settle(3) && !two.settle(11) && two.settle(10));
        drop(two);
        assert_eq!(budget.open().take(100), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn any_movement_counts() {
        let activity = Activity::default();
        let start = Instant::now();
        let mover = activity.clone();
        tokio::spawn(async move {
            for _ in 0..5 {
                tokio::time::sleep(Duration::from_secs(1)).await;
                mover.touch();
            }
        });
        activity.silent_for(Duration::from_secs(2)).await;
        assert!(start.elapsed() >= Duration::from_secs(7), "{:?}", start.elapsed());
    }
}
