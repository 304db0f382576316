//! What one party may take of what all share: places, and lines of the log.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::model::SessionId;

/// Counts what each session holds.
#[derive(Clone, Debug)]
pub struct Shares {
    most: usize,
    held: Arc<Held>,
}

/// Sessions that hold something, and how much.
type Held = Mutex<HashMap<Arc<SessionId>, usize>>;

/// One of a session's places, given back when dropped.
#[derive(Debug)]
pub struct Share {
    session: Arc<SessionId>,
    held: Arc<Held>,
}

impl Shares {
    /// At most `most` for each session.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { most, held: Arc::default() }
    }

    /// A place for `session`; `None` when it holds its share already.
    #[must_use]
    pub fn take(&self, session: &SessionId) -> Option<Share> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let session = match held.get_key_value(session) {
            Some((known, _)) => known.clone(),
            None => Arc::new(session.clone()),
        };
        let count = held.entry(session.clone()).or_insert(0);
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Share { session, held: self.held.clone() })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&self.session) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.session);
            }
        }
    }
}

/// Lets a number of occurrences a second through and counts the others.
#[derive(Debug)]
pub struct Few {
    most: u32,
    window: Mutex<Window>,
}

#[derive(Debug)]
struct Window {
    since: Instant,
    admitted: u32,
    unseen: u64,
}

/// The window within which occurrences are counted.
const WINDOW: Duration = Duration::from_secs(1);

impl Few {
    /// Lets `most` a second through.
    #[must_use]
    pub fn new(most: u32) -> Self {
        Self { most, window: Mutex::new(Window { since: Instant::now(), admitted: 0, unseen: 0 }) }
    }

    /// Whether this one is let through, and then how many before it were not since the last that was.
    #[must_use]
    pub fn admit(&self) -> Option<u64> {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if window.since.elapsed() >= WINDOW {
            window.since = Instant::now();
            window.admitted = 0;
        }
        if window.admitted >= self.most {
            window.unseen += 1;
            return None;
        }
        window.admitted += 1;
        Some(std::mem::take(&mut window.unseen))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_session_leaves_room_for_another() {
        let shares = Shares::new(2);
        let (greedy, other) = (SessionId("a@1".into()), SessionId("b@2".into()));
        let first = shares.take(&greedy).unwrap();
        let _second = shares.take(&greedy).unwrap();
        assert!(shares.take(&greedy).is_none());
        assert!(shares.take(&other).is_some());
        drop(first);
        assert!(shares.take(&greedy).is_some());
        drop(_second);
        assert!(shares.held.lock().unwrap().is_empty());
    }

    #[test]
    fn counts_what_it_holds_back() {
        let few = Few::new(2);
        assert_eq!([few.admit(), few.admit(), few.admit(), few.admit()], [Some(0), Some(0), None, None]);
        few.window.lock().unwrap().since -= WINDOW;
        assert_eq!([few.admit(), few.admit(), few.admit()], [Some(2), Some(0), None]);
    }
}
