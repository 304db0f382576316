//! Who may hold a connection, when there are more of them than the server keeps.
//!
//! Whoever has not shown a session or the token is a stranger. Strangers have a fixed number of seats,
//! and a newcomer who finds none free takes the one of the stranger who sits longest: half-sent
//! requests, unread answers and idle connections of another local user cannot keep the owner out. Who
//! logged in sits among the known, which no stranger can push out.
//!
//! What this does not do: slow down a flood. Whoever opens seats faster than a login is answered still
//! gets in its way, and no longer than the flood lasts.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

/// Connections of strangers at once. A browser opens six for a page.
pub(super) const MAX_STRANGERS: usize = 64;
/// Connections of the known at once, live feeds included; more stay strangers.
const MAX_KNOWN: usize = 64;

#[derive(Debug, Default)]
struct Plan {
    taken: u64,
    /// The one who sits longest in front.
    strangers: VecDeque<(u64, Arc<Notify>)>,
    known: HashSet<u64>,
}

/// All seats of the server.
#[derive(Clone, Debug, Default)]
pub(super) struct Seats(Arc<Mutex<Plan>>);

/// One connection's seat; free again when dropped.
#[derive(Debug)]
pub(super) struct Seat {
    number: u64,
    seats: Seats,
    leave: Arc<Notify>,
}

impl Seats {
    fn plan(&self) -> MutexGuard<'_, Plan> {
        // Each change below is complete on its own, so a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A seat for a newcomer, at once; the stranger who has to make room is told.
    pub(super) fn take(&self) -> Seat {
        let leave = Arc::new(Notify::new());
        let mut plan = self.plan();
        plan.taken += 1;
        let number = plan.taken;
        if plan.strangers.len() >= MAX_STRANGERS
            && let Some((_, longest)) = plan.strangers.pop_front()
        {
            // Kept for whoever asks later, so that it cannot be missed.
            longest.notify_one();
        }
        plan.strangers.push_back((number, leave.clone()));
        drop(plan);
        Seat { number, seats: self.clone(), leave }
    }
}

impl Seat {
    /// The connection's client has shown who it is: it stays.
    pub(super) fn keep(&self) {
        let mut plan = self.seats.plan();
        if plan.known.len() < MAX_KNOWN
            && let Some(at) = plan.strangers.iter().position(|(number, _)| *number == self.number)
        {
            plan.strangers.remove(at);
            plan.known.insert(self.number);
        }
    }

    /// Ready when the seat is given to another.
    pub(super) async fn lost(&self) {
        self.leave.notified().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut plan = self.seats.plan();
        if !plan.known.remove(&self.number) {
            plan.strangers.retain(|(number, _)| *number != self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_lost(seat: &Seat) -> bool {
        let mut lost = Box::pin(seat.lost());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        lost.as_mut().poll(&mut context).is_ready()
    }

    #[test]
    fn the_stranger_who_sits_longest_makes_room() {
        let seats = Seats::default();
        let mut held: Vec<Seat> = (0..MAX_STRANGERS).map(|_| seats.take()).collect();
        assert!(!held.iter().any(is_lost));
        held[0].keep();
        held.push(seats.take());
        assert!(!held.iter().any(is_lost), "a kept seat is no stranger's");
        held.push(seats.take());
        assert!(!is_lost(&held[0]) && is_lost(&held[1]) && !is_lost(&held[2]));
        held.truncate(3);
        held.push(seats.take());
        assert!(!is_lost(&held[2]), "whoever went left a free seat");
        held.clear();
        let plan = seats.plan();
        assert!(plan.strangers.is_empty() && plan.known.is_empty());
    }

    #[test]
    fn the_known_are_bounded_too() {
        let seats = Seats::default();
        let held: Vec<Seat> = (0..=MAX_KNOWN).map(|_| seats.take()).inspect(Seat::keep).collect();
        assert_eq!(seats.plan().known.len(), MAX_KNOWN);
        assert_eq!(seats.plan().strangers.len(), 1);
        held[MAX_KNOWN].keep();
        assert_eq!(seats.plan().strangers.len(), 1);
    }
}
