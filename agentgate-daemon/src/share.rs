//! A session's share: one session cannot take every place that the gate has.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::model::SessionId;

/// Counts what each session holds.
#[derive(Clone, Debug)]
pub struct Shares {
    most: usize,
    held: Arc<Mutex<HashMap<SessionId, usize>>>,
}

/// One of a session's places, given back when dropped.
#[derive(Debug)]
pub struct Share {
    session: SessionId,
    held: Arc<Mutex<HashMap<SessionId, usize>>>,
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
        let count = held.entry(session.clone()).or_insert(0);
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Share { session: session.clone(), held: self.held.clone() })
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
}
