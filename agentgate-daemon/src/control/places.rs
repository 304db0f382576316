//! How many connections there may be at a time, in all and for each user.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// The places at one socket.
#[derive(Debug)]
pub(super) struct Places {
    all: usize,
    each: usize,
    taken: Mutex<HashMap<u32, usize>>,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// Of the socket's places.
    All(usize),
    /// Of those of one user.
    Each(usize),
}

/// A place that is taken until this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    uid: u32,
}

impl Places {
    /// `all` places, of which a user may have `each`.
    pub(super) fn new(all: usize, each: usize) -> Arc<Self> {
        Arc::new(Self { all, each, taken: Mutex::default() })
    }

    /// A place for `uid`. The count of users is bounded by that of places: who has none is not kept.
    pub(super) fn take(self: &Arc<Self>, uid: u32) -> Result<Place, Full> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.values().sum::<usize>() >= self.all {
            return Err(Full::All(self.all));
        }
        let own = taken.get(&uid).copied().unwrap_or(0);
        if own >= self.each {
            return Err(Full::Each(self.each));
        }
        taken.insert(uid, own + 1);
        Ok(Place { places: Arc::clone(self), uid })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        match taken.get(&self.uid).copied() {
            Some(own) if own > 1 => taken.insert(self.uid, own - 1),
            Some(_) | None => taken.remove(&self.uid),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_leaves_places_for_the_others() {
        let places = Places::new(3, 2);
        let first = places.take(1).unwrap();
        let _second = places.take(1).unwrap();
        assert_eq!(places.take(1).unwrap_err(), Full::Each(2));
        let other = places.take(2).unwrap();
        assert_eq!(places.take(3).unwrap_err(), Full::All(3));
        drop(first);
        let _again = places.take(1).unwrap();
        drop(other);
        assert_eq!(places.taken.lock().unwrap().len(), 1);
        assert!(places.take(3).is_ok());
    }
}
