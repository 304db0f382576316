//! A record under way, shared by who acts on it and, where nobody waits for its beginning, by the thread. What is
//! written of it first is settled when the thread comes by: its beginning where it still goes on, and where it is
//! over by then its end alone, encoded once, by who ended it. The lock is nearly always free.

use std::{
    fmt, mem,
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Pending, books::Connection};
use crate::{
    model::{Record, RecordId},
    store,
};

#[derive(Debug)]
pub(super) struct Running {
    pub(super) record: Record,
    /// What is on record of the request's body.
    pub(super) known: store::Known,
    first: First,
}

/// What became of the first that is written of it.
#[derive(Debug)]
enum First {
    /// The thread has not come by.
    Due(Due),
    /// The record was over before it did: all there is to write.
    Whole(Box<Pending>),
    /// It was taken, or nobody will take it.
    Taken,
}

/// What goes with a record's beginning.
#[derive(Debug, Default)]
pub(super) struct Due {
    /// Captured bytes.
    pub(super) bytes: u64,
    pub(super) connection: Option<Connection>,
    /// For viewers.
    pub(super) shown: Option<Box<Record>>,
}

/// A record in the hands of who acts on it.
#[derive(Clone, Debug)]
pub(super) struct Shared(Arc<Mutex<Running>>);

impl Shared {
    /// One whose beginning was written.
    pub(super) fn written(record: Record, known: store::Known) -> Self {
        Self(Arc::new(Mutex::new(Running { record, known, first: First::Taken })))
    }

    /// One that the thread has to come by for.
    pub(super) fn due(record: Record, due: Due) -> Self {
        let running = Running { record, known: store::Known::default(), first: First::Due(due) };
        Self(Arc::new(Mutex::new(running)))
    }

    /// The thread's share of it, under its id.
    pub(super) fn begun(&self, id: RecordId) -> Begun {
        let mut running = self.locked();
        running.record.id = id;
        if let First::Due(Due { shown: Some(shown), .. }) = &mut running.first {
            shown.id = id;
        }
        drop(running);
        Begun(Some(self.clone()))
    }

    pub(super) fn locked(&self) -> MutexGuard<'_, Running> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running {
    /// It is over: `last` is given back where it has to be sent, and waits for the thread where that has not
    /// come by. In that case what is left of the record comes with it, to be let go of by who made it.
    pub(super) fn over(&mut self, mut last: Box<Pending>) -> Result<Record, Box<Pending>> {
        match mem::replace(&mut self.first, First::Taken) {
            First::Due(due) => {
                last.bytes += due.bytes;
                last.connection = due.connection;
                last.began = due.shown;
                self.first = First::Whole(last);
                let nothing = Record::new(self.record.kind, self.record.started);
                Ok(mem::replace(&mut self.record, nothing))
            }
            // There is one end.
            First::Whole(_) | First::Taken => Err(last),
        }
    }
}

/// The thread's share of a record. Where it is dropped untaken, nobody is waited for any more.
pub(super) struct Begun(Option<Shared>);

impl fmt::Debug for Begun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Begun").finish_non_exhaustive()
    }
}

impl Begun {
    /// What is to be written of it: its beginning, or all of it.
    pub(super) fn take(mut self) -> Option<Box<Pending>> {
        let shared = self.0.take()?;
        let mut running = shared.locked();
        match mem::replace(&mut running.first, First::Taken) {
            First::Due(Due { bytes, connection, shown }) => {
                let Running { record, known, .. } = &mut *running;
                Some(Box::new(Pending {
                    entry: store::Entry::version(record, known),
                    open: true,
                    bytes,
                    slot: None,
                    connection,
                    began: None,
                    shown,
                    reply: None,
                }))
            }
            First::Whole(last) => Some(last),
            First::Taken => None,
        }
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if let Some(shared) = self.0.take() {
            let first = mem::replace(&mut shared.locked().first, First::Taken);
            // What it frees has locks of its own.
            drop(first);
        }
    }
}

/// The record of an entry, to be filled in. While this is held it is not written.
pub struct Editing<'a>(pub(super) MutexGuard<'a, Running>);

impl fmt::Debug for Editing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Editing").field(&self.0.record.id).finish()
    }
}

impl Deref for Editing<'_> {
    type Target = Record;

    fn deref(&self) -> &Record {
        &self.0.record
    }
}

impl DerefMut for Editing<'_> {
    fn deref_mut(&mut self) -> &mut Record {
        &mut self.0.record
    }
}
