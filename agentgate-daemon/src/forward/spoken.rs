//! What origins were found to speak, so that an agent is offered just that.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    policy::Destination,
    tls::{Alpn, Offer},
};

/// How long it is believed. Origins change it seldom, and it is put right when found wrong.
const BELIEVED: Duration = Duration::from_secs(600);
/// Origins remembered.
const MOST: usize = 4096;

/// `None` is an origin that chose nothing.
type Chosen = Option<Alpn>;

/// The memory of it: bounded, and of this process only.
#[derive(Debug, Default)]
pub(super) struct Spoken(Mutex<HashMap<(Destination, Offer), (Instant, Chosen)>>);

impl Spoken {
    /// What `destination` chose of `offer`.
    pub(super) fn known(&self, destination: &Destination, offer: Offer) -> Option<Chosen> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, chosen) = known.get(&(destination.clone(), offer))?;
        (since.elapsed() < BELIEVED).then_some(*chosen)
    }

    /// It chose `chosen`.
    pub(super) fn learn(&self, destination: &Destination, offer: Offer, chosen: Chosen) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST {
            known.retain(|_, (since, _)| since.elapsed() < BELIEVED);
            if known.len() >= MOST {
                known.clear(); // an agent that asks for ever more names costs itself a look each
            }
        }
        known.insert((destination.clone(), offer), (Instant::now(), chosen));
    }

    /// What is believed of it is not so.
    pub(super) fn forget(&self, destination: &Destination) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for offer in Offer::ALL {
            known.remove(&(destination.clone(), offer));
        }
    }
}
