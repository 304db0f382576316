//! A record under way, held by whoever acts on it.

use std::{
    fmt,
    pin::Pin,
    sync::atomic::Ordering,
    task::{Context, Poll},
};

use tokio::sync::oneshot;

use super::{Audit, AuditError, Message, Opened, Pending, Reply, Slot, captured_bytes};
use crate::{
    model::{Captured, Record, RecordId, State, Timestamp},
    store,
};

/// One open record. Written once more when it is finished, or as cancelled when it is dropped.
pub struct Entry {
    id: RecordId,
    record: Record,
    /// What is on record of the request's body.
    known: store::Known,
    /// The slot and the way to the thread; taken by the final write, so that there is one only.
    ending: Option<(Slot, Audit)>,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Entry {
    pub(super) fn new(mut opened: Opened, mut record: Record, known: store::Known) -> Self {
        record.id = opened.id;
        Self { id: opened.id, record, known, ending: opened.ending.take() }
    }

    /// The record's id.
    #[must_use]
    pub fn id(&self) -> RecordId {
        self.id
    }

    /// The record, to be filled in until it is finished. Its id cannot be changed: what is put there
    /// is overwritten by the final write.
    pub fn record(&mut self) -> &mut Record {
        &mut self.record
    }

    /// Puts on record what was captured of its request's body. `None` where that need not be waited for: it is
    /// durable, or nobody waits for such things; else [`Entry::kept`] is to be called once it is.
    pub fn keep(&mut self, body: Captured) -> Option<Keeping> {
        let (_, audit) = self.ending.as_ref()?;
        if !audit.is_awaited() || body.bytes.is_empty() || self.known.has(&body.bytes) {
            return None;
        }
        self.record.id = self.id;
        self.record.state = State::Open;
        self.record.request.as_mut()?.body = body;
        let (reply, answer) = oneshot::channel();
        let write = Box::new(Pending {
            entry: store::Entry::version(&self.record, &mut self.known),
            open: true,
            // They are counted with the body while it moves, and with its end then.
            bytes: 0,
            slot: None,
            connection: None,
            shown: None,
            reply: Some(Reply::Keep(reply)),
        });
        // Where nobody takes it, the answer says so.
        drop(audit.shared().queue.push(Message::Write(write), true));
        Some(Keeping(answer))
    }

    /// What [`Entry::keep`] began is durable.
    pub fn kept(&mut self) {
        self.known.durable = true;
    }

    /// Ends the record in `state`; `finished` is set where it is not. Never blocks. [`State::Open`] is
    /// no end and is taken as [`State::Cancelled`].
    pub fn finish(mut self, state: State) {
        self.end(state);
    }

    fn end(&mut self, state: State) {
        let Some((slot, audit)) = self.ending.take() else {
            return;
        };
        let record = &mut self.record;
        record.id = self.id;
        record.state = if state == State::Open { State::Cancelled } else { state };
        record.finished.get_or_insert_with(Timestamp::now);
        let shared = audit.shared();
        let bytes = captured_bytes(record);
        shared.pending_bytes.fetch_add(bytes, Ordering::AcqRel);
        let write = Box::new(Pending {
            entry: store::Entry::version(record, &mut self.known),
            open: false,
            bytes,
            slot: Some(slot),
            connection: None,
            shown: shared.shown(record),
            reply: None,
        });
        if let Err(refused) = shared.queue.push(Message::Write(write), false) {
            audit.closed(&refused);
            // Past the drain's deadline. The next start ends the record as interrupted.
            tracing::warn!(record = %self.id, "a record ended after the audit log was closed");
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.end(State::Cancelled);
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
