//! What was seen and is not on record yet, so that the balance with the kernel's counters can tell what
//! is on its way from what is lost.
//!
//! A connection is carried from the moment it is taken from the kernel until a record of it is committed.
//! Where its guard goes before that, it was refused without a record, and is to be declared lost. Nobody
//! has to say so: a task that is ended, or a log that cannot be written, ends in the same place.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use agentgate_common::tally::window;

use crate::model::{Flow, Kind, Record};

/// Cookie of the socket and time of its connect(2): one connection.
type Connection = (u64, u64);

#[derive(Debug)]
struct Carried {
    session: u64,
    /// Its task still has it.
    guarded: bool,
    /// A record of it is on its way to the disk.
    queued: bool,
}

#[derive(Debug, Default)]
struct Inner {
    carried: HashMap<Connection, Carried>,
    /// By session and window.
    lost: HashMap<(u64, u32), u64>,
}

impl Inner {
    fn forget(&mut self, connection: Connection) {
        if let Some(carried) = self.carried.remove(&connection) {
            *self.lost.entry((carried.session, window(connection.1))).or_insert(0) += 1;
        }
    }
}

/// The connections on their way, and until when refusals are told.
#[derive(Debug, Default)]
pub struct Books {
    inner: Mutex<Inner>,
    told_until: AtomicU64,
}

/// A connection that was taken from the kernel; held for as long as somebody works on it.
#[derive(Debug)]
pub struct Taken {
    connection: Connection,
    books: Arc<Books>,
}

impl Books {
    fn locked(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries a connection until a record of it is committed.
    #[must_use]
    pub fn take(self: &Arc<Self>, flow: &Flow) -> Taken {
        let connection = (flow.cookie, flow.connected_ns);
        let carried = Carried { session: flow.session, guarded: true, queued: false };
        self.locked().carried.insert(connection, carried);
        Taken { connection, books: self.clone() }
    }

    /// Connections on their way, by session and window.
    #[must_use]
    pub fn carried(&self) -> HashMap<(u64, u32), u64> {
        let mut found = HashMap::new();
        for ((_, at), carried) in &self.locked().carried {
            *found.entry((carried.session, window(*at))).or_insert(0) += 1;
        }
        found
    }

    /// Connections that were refused without a record, by session and window; the books forget them.
    #[must_use]
    pub fn take_lost(&self) -> HashMap<(u64, u32), u64> {
        std::mem::take(&mut self.locked().lost)
    }

    /// Puts back what could not be declared.
    pub fn put_back(&self, session: u64, window: u32, count: u64) {
        *self.locked().lost.entry((session, window)).or_insert(0) += count;
    }

    /// Everything that the kernel reported before this moment (nanoseconds since boot) is on record.
    pub fn tell_until(&self, ns: u64) {
        self.told_until.fetch_max(ns, Ordering::AcqRel);
    }

    /// The moment of [`Books::tell_until`].
    #[must_use]
    pub fn told_until(&self) -> u64 {
        self.told_until.load(Ordering::Acquire)
    }

    pub(super) fn queued(&self, record: &Record) {
        let Some(connection) = connection(record) else { return };
        if let Some(carried) = self.locked().carried.get_mut(&connection) {
            carried.queued = true;
        }
    }

    pub(super) fn recorded(&self, record: &Record) {
        if let Some(connection) = connection(record) {
            self.locked().carried.remove(&connection);
        }
    }

    pub(super) fn refused(&self, record: &Record) {
        let Some(connection) = connection(record) else { return };
        let mut inner = self.locked();
        let Some(carried) = inner.carried.get_mut(&connection) else { return };
        carried.queued = false;
        if !carried.guarded {
            inner.forget(connection);
        }
    }
}

fn connection(record: &Record) -> Option<Connection> {
    let flow = record.flow.as_ref().filter(|_| record.kind == Kind::Flow)?;
    Some((flow.cookie, flow.connected_ns))
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut inner = self.books.locked();
        let Some(carried) = inner.carried.get_mut(&self.connection) else { return };
        carried.guarded = false;
        if !carried.queued {
            inner.forget(self.connection);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{OriginalDestination, Timestamp};

    const AT: u64 = 5_000_000_000;

    fn record(cookie: u64) -> Record {
        let mut record = Record::new(Kind::Flow, Timestamp(0));
        record.flow = Some(
            Flow {
                cookie,
                original: OriginalDestination("192.0.2.1:443".parse().unwrap()),
                pid: 7,
                uid: 0,
                gid: 0,
                comm: String::new(),
                cgroup: 9,
                session: 9,
                netns: 0,
                connected_ns: AT,
            }
            .into(),
        );
        record
    }

    fn taken(books: &Arc<Books>, record: &Record) -> Taken {
        books.take(record.flow.as_ref().unwrap())
    }

    #[test]
    fn what_is_recorded_is_carried_until_then_and_never_lost() {
        let books = Arc::new(Books::default());
        let first = record(1);
        let guard = taken(&books, &first);
        assert_eq!(books.carried(), HashMap::from([((9, 1), 1)]));
        books.queued(&first);
        // Its task is ended while the record is on its way, and the record is written none the less.
        drop(guard);
        assert_eq!(books.carried().len(), 1);
        books.recorded(&first);
        assert!(books.carried().is_empty() && books.take_lost().is_empty());
    }

    #[test]
    fn what_is_not_recorded_is_lost_once() {
        let books = Arc::new(Books::default());
        let (ended, refused, waited) = (record(1), record(2), record(3));
        drop(taken(&books, &ended));
        let guard = taken(&books, &refused);
        books.queued(&refused);
        books.refused(&refused);
        assert_eq!(books.take_lost(), HashMap::from([((9, 1), 1)]));
        drop(guard);
        let guard = taken(&books, &waited);
        books.queued(&waited);
        drop(guard);
        books.refused(&waited);
        assert_eq!(books.take_lost(), HashMap::from([((9, 1), 2)]));
        assert!(books.carried().is_empty());
        books.put_back(9, 1, 2);
        assert_eq!(books.take_lost(), HashMap::from([((9, 1), 2)]));
    }
}
