//! Between those who record and the thread that writes: a list that is taken whole.
//!
//! The thread is woken by the first message after it went to sleep, and then gathers for a moment before
//! it takes what there is; while it gathers it is woken only by who waits for an answer. Where many are
//! expected to wait, it is woken by the last of them. Under load it never sleeps, and nobody wakes it.

use std::{
    mem,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::Message;
use crate::model::RecordId;

/// Messages that end the gathering.
const MANY: usize = 8192;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Thread {
    /// At work, or about to look.
    Awake,
    /// Waits for a message.
    Asleep,
    /// Waits for more messages.
    Gathering,
    /// Waits for so many in all whose answer somebody waits for.
    Expecting(usize),
    /// Gone: nobody takes what is put here.
    Gone,
}

#[derive(Debug)]
struct Inner {
    messages: Vec<Message>,
    /// To how many of them somebody waits for an answer.
    awaited: usize,
    /// The thread is to look at something else.
    nudged: bool,
    thread: Thread,
    /// What was taken is not in the tables yet.
    behind: bool,
    /// Nobody is left who could put anything here.
    closed: bool,
    /// Next id, where ids are given out here.
    next: RecordId,
}

#[derive(Debug)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    wake: Condvar,
}

/// What a wait brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waited {
    /// Messages, or the time was up.
    On,
    /// Nothing more will come.
    Closed,
}

impl Queue {
    pub(super) fn new(next: RecordId) -> Self {
        let inner = Inner {
            messages: Vec::new(),
            awaited: 0,
            nudged: false,
            thread: Thread::Awake,
            behind: false,
            closed: false,
            next,
        };
        Self { inner: Mutex::new(inner), wake: Condvar::new() }
    }

    fn locked(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a message; `hurry` where somebody waits for its answer. Gives it back where nobody takes it.
    pub(super) fn push(&self, message: Message, hurry: bool) -> Result<(), Box<Message>> {
        self.put(self.locked(), message, hurry)
    }

    /// Gives out the next id and puts the message that `make` makes of it.
    pub(super) fn push_numbered(
        &self,
        make: impl FnOnce(RecordId) -> Message,
    ) -> Result<RecordId, Box<Message>> {
        let mut inner = self.locked();
        let id = inner.next;
        if inner.thread != Thread::Gone {
            inner.next = RecordId(id.0 + 1);
        }
        self.put(inner, make(id), false)?;
        Ok(id)
    }

    fn put(
        &self,
        mut inner: MutexGuard<'_, Inner>,
        message: Message,
        hurry: bool,
    ) -> Result<(), Box<Message>> {
        if inner.thread == Thread::Gone {
            return Err(Box::new(message));
        }
        inner.messages.push(message);
        inner.awaited += usize::from(hurry);
        self.rouse(inner);
        Ok(())
    }

    fn rouse(&self, mut inner: MutexGuard<'_, Inner>) {
        let wake = match inner.thread {
            Thread::Asleep => true,
            Thread::Gathering => {
                inner.awaited > 0 || inner.nudged || inner.closed || inner.messages.len() >= MANY
            }
            Thread::Expecting(count) => {
                inner.awaited >= count || inner.nudged || inner.closed || inner.messages.len() >= MANY
            }
            Thread::Awake | Thread::Gone => false,
        };
        if wake {
            // Once: whoever comes next finds it awake.
            inner.thread = Thread::Awake;
            drop(inner);
            self.wake.notify_one();
        }
    }

    /// Wakes the thread for something that is not here.
    pub(super) fn nudge(&self) {
        let mut inner = self.locked();
        inner.nudged = true;
        self.rouse(inner);
    }

    /// Nobody is left to put anything here.
    pub(super) fn close(&self) {
        let mut inner = self.locked();
        inner.closed = true;
        self.rouse(inner);
    }

    /// The thread is gone; what is left is dropped.
    pub(super) fn abandon(&self) {
        let mut inner = self.locked();
        inner.thread = Thread::Gone;
        let left = mem::take(&mut inner.messages);
        drop(inner);
        drop(left);
    }

    /// Whether something that was acknowledged is not in the tables.
    pub(super) fn is_behind(&self) -> bool {
        let inner = self.locked();
        inner.thread != Thread::Gone && (inner.behind || !inner.messages.is_empty())
    }

    /// Everything that was taken is in the tables.
    pub(super) fn caught_up(&self) {
        self.locked().behind = false;
    }

    pub(super) fn len(&self) -> usize {
        self.locked().messages.len()
    }

    /// Waits for a message or a nudge until `until`, gathers for `linger` where nobody waits for an answer, or
    /// for the given time until so many do, and takes what there is.
    pub(super) fn take(
        &self,
        until: Option<Instant>,
        linger: Duration,
        (expected, patience): (usize, Duration),
        into: &mut Vec<Message>,
    ) -> Waited {
        let mut inner = self.locked();
        inner = self.wait(inner, until, Thread::Asleep, |inner| !inner.messages.is_empty() || inner.nudged);
        if !inner.messages.is_empty() && !linger.is_zero() {
            let until = Some(Instant::now() + linger);
            inner = self.wait(inner, until, Thread::Gathering, |inner| {
                inner.awaited > 0 || inner.nudged || inner.messages.len() >= MANY
            });
        }
        if inner.awaited > 0 && !patience.is_zero() {
            let until = Some(Instant::now() + patience);
            inner = self.wait(inner, until, Thread::Expecting(expected), |inner| {
                inner.awaited >= expected || inner.nudged || inner.messages.len() >= MANY
            });
        }
        inner.thread = Thread::Awake;
        (inner.awaited, inner.nudged) = (0, false);
        inner.behind |= !inner.messages.is_empty();
        mem::swap(&mut inner.messages, into);
        if inner.closed && into.is_empty() { Waited::Closed } else { Waited::On }
    }

    fn wait<'q>(
        &self,
        mut inner: MutexGuard<'q, Inner>,
        until: Option<Instant>,
        how: Thread,
        enough: impl Fn(&Inner) -> bool,
    ) -> MutexGuard<'q, Inner> {
        while !enough(&inner) && !inner.closed {
            inner.thread = how;
            inner = match until {
                None => self.wake.wait(inner).unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        break;
                    }
                    self.wake.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        inner
    }
}
