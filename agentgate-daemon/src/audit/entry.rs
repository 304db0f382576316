//! A record under way, held by whoever acts on it.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::sync::oneshot;

use super::{
    Audit, AuditError, Message, Opened, Pending, Reply, Slot, captured_bytes,
    running::{self, Editing},
};
use crate::{
    model::{Captured, Record, RecordId, State, Timestamp},
    store,
};

/// One open record. Written once more when it is finished, or as cancelled when it is dropped; where its
/// beginning was not written by then, that once is all.
pub struct Entry {
    id: RecordId,
    running: running::Shared,
    /// The slot and the way to the thread; taken by the final write, so that there is one only.
    ending: Option<(Slot, Audit)>,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Entry {
    /// One whose beginning is durable.
    pub(super) fn new(mut opened: Opened, mut record: Record, known: store::Known) -> Self {
        record.id = opened.id;
        let running = running::Shared::written(record, known);
        Self { id: opened.id, running, ending: opened.ending.take() }
    }

    /// One whose beginning the thread was told of.
    pub(super) fn begun(id: RecordId, running: running::Shared, ending: (Slot, Audit)) -> Self {
        Self { id, running, ending: Some(ending) }
    }

    /// The record's id.
    #[must_use]
    pub fn id(&self) -> RecordId {
        self.id
    }

    /// The record, to be filled in until it is finished; not to be held for long. Its id cannot be changed:
    /// what is put there is overwritten by the final write. What is filled in before its beginning is written
    /// is written with that.
    pub fn record(&mut self) -> Editing<'_> {
        Editing(self.running.locked())
    }

    /// Puts on record what was captured of its request's body. `None` where that need not be waited for: it is
    /// durable, or nobody waits for such things; else [`Entry::kept`] is to be called once it is.
    pub fn keep(&mut self, body: Captured) -> Option<Keeping> {
        let (_, audit) = self.ending.as_ref()?;
        if !audit.is_awaited() || body.bytes.is_empty() {
            return None;
        }
        let mut running = self.running.locked();
        let running = &mut *running;
        if running.known.has(&body.bytes) {
            return None;
        }
        running.record.id = self.id;
        running.record.state = State::Open;
        running.record.request.as_mut()?.body = body;
        let (reply, answer) = oneshot::channel();
        let write = Box::new(Pending {
            entry: store::Entry::version(&running.record, &mut running.known),
            open: true,
            // They are counted with the body while it moves, and with its end then.
            bytes: 0,
            slot: None,
            connection: None,
            began: None,
            shown: None,
            reply: Some(Reply::Keep(reply)),
        });
        // Where nobody takes it, the answer says so.
        drop(audit.shared().queue.push(Message::Write(write), true));
        Some(Keeping(answer))
    }

    /// What [`Entry::keep`] began is durable.
    pub fn kept(&mut self) {
        self.running.locked().known.durable = true;
    }

    /// Ends the record in `state`; `finished` is set where it is not. Never blocks. [`State::Open`] is
    /// no end and is taken as [`State::Cancelled`].
    pub fn finish(mut self, state: State) {
        self.end(|_record| state);
    }

    /// As [`Entry::finish`], in the state that `fill` says, which fills in what is left: nobody sees the record
    /// between the two.
    pub fn finish_with(mut self, fill: impl FnOnce(&mut Record) -> State) {
        self.end(fill);
    }

    fn end(&mut self, fill: impl FnOnce(&mut Record) -> State) {
        let Some((slot, audit)) = self.ending.take() else {
            return;
        };
        let mut guard = self.running.locked();
        let running = &mut *guard;
        let record = &mut running.record;
        let state = fill(record);
        record.id = self.id;
        record.state = if state == State::Open { State::Cancelled } else { state };
        record.finished.get_or_insert_with(Timestamp::now);
        let shared = audit.shared();
        let bytes = captured_bytes(record);
        shared.add_pending(bytes);
        let write = Box::new(Pending {
            entry: store::Entry::version(record, &mut running.known),
            open: false,
            bytes,
            slot: Some(slot),
            connection: None,
            began: None,
            shown: shared.shown(record),
            reply: None,
        });
        let over = running.over(write);
        drop(guard);
        if let Err(write) = over
            && let Err(refused) = shared.queue.push(Message::Write(write), false)
        {
            audit.closed(&refused);
            // Past the drain's deadline. The next start ends the record as interrupted.
            tracing::warn!(record = %self.id, "a record ended after the audit log was closed");
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.end(|_record| State::Cancelled);
    }
}

/// What was captured of a request's body, on its way to the disk.
#[derive(Debug)]
pub struct Keeping(oneshot::Receiver<Result<(), AuditError>>);

impl Future for Keeping {
    type Output = Result<(), AuditError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|answer| answer.map_err(|_gone| AuditError::Closed)?)
    }
}
