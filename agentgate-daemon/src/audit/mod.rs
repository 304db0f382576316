//! What happened, kept durably: the handles by which the data path records, and the thread that writes.
//!
//! A record that [`Audit::open`] returned is on disk; the [`Entry`] it gives is written once more, and
//! exactly once, when it is finished or dropped. One OS thread owns all writes and commits what has
//! queued up in one transaction.
//!
//! **Bounds.** Every record on its way takes one of a fixed number of slots, from `open` until its
//! final write is committed. A slot has at most one message under way, so the channel to the thread,
//! unbounded in itself, never holds more messages than there are slots, and neither `finish` nor a
//! drop can meet a full queue. Where slots run out, `open` and `note` wait. They wait as well while
//! more captured bytes than the option allows are on their way to the disk.
//!
//! **Failure.** When a commit fails, what waited in it for an acknowledgement is told so, final writes
//! stay in memory (they keep their slots), and `open` and `note` fail at once until the thread has
//! opened the file again and written what it kept. Nobody has to intervene.
//!
//! What this does not do: mask secrets. Callers do, with [`redact`], before a record gets here.

pub mod books;
pub mod fit;
pub mod redact;
mod writer;

#[cfg(test)]
mod tests;

use std::{
    fmt, mem,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, oneshot, watch};

use crate::{
    model::{Record, RecordId, State, Timestamp},
    store::Store,
};
pub use books::Books;
use writer::Writer;

/// Bounds of the audit log. The defaults are meant for use; tests make them small.
#[derive(Clone, Debug)]
pub struct AuditOptions {
    /// Slots: records on their way at once, which includes every open entry.
    pub capacity: usize,
    /// Messages that one transaction takes.
    pub batch: usize,
    /// Captured bytes on their way to the disk above which `open` and `note` wait.
    pub pending_bytes: u64,
    /// Time between attempts while the store cannot be written.
    pub retry: Duration,
    /// Records that a viewer of the live feed may lag behind before it misses some.
    pub live: usize,
}

impl Default for AuditOptions {
    fn default() -> Self {
        Self {
            capacity: 65_536,
            batch: 512,
            pending_bytes: 256 << 20,
            retry: Duration::from_millis(500),
            live: 1024,
        }
    }
}

/// Why nothing was recorded. Whoever wanted to act on a record must not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuditError {
    /// The store cannot be written at the moment.
    #[error("the audit log cannot be written: {reason}")]
    Unavailable { reason: Arc<str> },
    /// The audit log is being shut down, or its thread is gone.
    #[error("the audit log is closed")]
    Closed,
}

impl AuditError {
    /// Stable snake_case code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unavailable { .. } => "audit_unavailable",
            Self::Closed => "audit_closed",
        }
    }
}

/// How the audit log does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditHealth {
    /// False while `open` and `note` fail.
    pub ok: bool,
    /// What is wrong.
    pub error: Option<String>,
    /// Messages that wait for the thread.
    pub queued: usize,
    /// Slots in use: records whose final write is not committed yet.
    pub pending: usize,
    /// Slots there are.
    pub capacity: usize,
    /// Writes committed since the start.
    pub written: u64,
}

/// One of the slots; free again when dropped.
type Slot = OwnedSemaphorePermit;

/// What callers and the thread share.
struct Shared {
    slots: Arc<Semaphore>,
    capacity: usize,
    pending_limit: u64,
    /// Captured bytes between `finish` and their commit.
    pending_bytes: AtomicU64,
    queued: AtomicUsize,
    written: AtomicU64,
    /// Why nothing can be recorded; also touched when `pending_bytes` falls below its limit.
    trouble: watch::Sender<Option<AuditError>>,
    live: broadcast::Sender<Arc<Record>>,
    books: Arc<Books>,
}

impl Shared {
    fn congested(&self) -> bool {
        self.pending_bytes.load(Ordering::Acquire) > self.pending_limit
    }
}

/// What the thread is sent.
enum Message {
    Open { record: Record, slot: Slot, audit: Audit, reply: oneshot::Sender<Result<Entry, AuditError>> },
    Note { record: Record, slot: Slot, bytes: u64, reply: oneshot::Sender<Result<RecordId, AuditError>> },
    Final(Final),
    Drain { deadline: Instant, reply: oneshot::Sender<Drained> },
}

/// The last write of a record, kept until it is committed.
struct Final {
    record: Record,
    bytes: u64,
    /// Held, not read: the slot is free when the write is done.
    _slot: Slot,
}

/// Captured bytes that `record` carries.
fn captured_bytes(record: &Record) -> u64 {
    let request = record.request.as_ref().map_or(0, |head| head.body.bytes.len());
    let response = record.response.as_ref().map_or(0, |head| head.body.bytes.len());
    u64::try_from(request + response).unwrap_or(u64::MAX)
}

/// The handle by which the data path records. Cheap to clone.
#[derive(Clone)]
pub struct Audit {
    shared: Arc<Shared>,
    sender: mpsc::Sender<Message>,
}

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Audit").field("health", &self.health()).finish_non_exhaustive()
    }
}

impl Audit {
    /// Starts the thread that writes to `store`. Where the system gives no thread, the log is closed
    /// from the start and says so.
    #[must_use]
    pub fn start(store: Arc<Store>, options: AuditOptions) -> (Self, AuditThread) {
        let (sender, receiver) = mpsc::channel();
        let capacity = options.capacity.clamp(1, Semaphore::MAX_PERMITS);
        let shared = Arc::new(Shared {
            slots: Arc::new(Semaphore::new(capacity)),
            capacity,
            pending_limit: options.pending_bytes,
            pending_bytes: AtomicU64::new(0),
            queued: AtomicUsize::new(0),
            written: AtomicU64::new(0),
            trouble: watch::Sender::new(None),
            live: broadcast::Sender::new(options.live.max(1)),
            books: Arc::default(),
        });
        let writer = Writer::new(store, receiver, shared.clone(), &options);
        // A writer that is dropped unrun closes the log, as does one that ends.
        let thread = thread::Builder::new().name("audit".into()).spawn(move || writer.run());
        if let Err(error) = &thread {
            tracing::error!(%error, "the audit thread cannot be started");
        }
        let audit = Self { shared, sender };
        (audit.clone(), AuditThread { audit, thread: thread.ok() })
    }

    /// Begins a record: it has an id and is on disk when this returns. Its `id` and `state` are set
    /// here. Waits while all slots are taken. Where the future is dropped before it is ready, the
    /// record ends as cancelled.
    ///
    /// # Errors
    /// [`AuditError`], at once, while the store cannot be written: what was to be recorded must not
    /// happen then. In rare cases the log shows such a record as failed.
    pub async fn open(&self, mut record: Record) -> Result<Entry, AuditError> {
        let slot = self.slot().await?;
        record.state = State::Open;
        let (reply, answer) = oneshot::channel();
        self.shared.books.queued(&record);
        self.send(Message::Open { record, slot, audit: self.clone(), reply })?;
        answer.await.map_err(|_| AuditError::Closed)?
    }

    /// Records something that is over, in one go; on disk when this returns. Where the record is still
    /// [`State::Open`] it becomes [`State::Done`], and `finished` is set where it is not. Also written
    /// where the future is dropped.
    ///
    /// # Errors
    /// As [`Audit::open`]; in rare cases it is on disk none the less.
    pub async fn note(&self, mut record: Record) -> Result<RecordId, AuditError> {
        let slot = self.slot().await?;
        if record.state == State::Open {
            record.state = State::Done;
        }
        record.finished.get_or_insert_with(Timestamp::now);
        let bytes = captured_bytes(&record);
        self.shared.pending_bytes.fetch_add(bytes, Ordering::AcqRel);
        let (reply, answer) = oneshot::channel();
        self.shared.books.queued(&record);
        self.send(Message::Note { record, slot, bytes, reply })?;
        answer.await.map_err(|_| AuditError::Closed)?
    }

    /// Every write from here on, once it is committed, without captured bytes. Who lags by more than
    /// 1,024 records misses some and is told how many.
    #[must_use]
    pub fn live(&self) -> broadcast::Receiver<Arc<Record>> {
        self.shared.live.subscribe()
    }

    /// What was seen and is not on record yet.
    #[must_use]
    pub fn books(&self) -> &Arc<Books> {
        &self.shared.books
    }

    /// How the log does at the moment.
    #[must_use]
    pub fn health(&self) -> AuditHealth {
        let shared = &self.shared;
        let error = shared.trouble.borrow().as_ref().map(ToString::to_string);
        AuditHealth {
            ok: error.is_none(),
            error,
            queued: shared.queued.load(Ordering::Relaxed),
            pending: shared.capacity.saturating_sub(shared.slots.available_permits()),
            capacity: shared.capacity,
            written: shared.written.load(Ordering::Relaxed),
        }
    }

    /// Waits for a slot, for as long as the store can be written.
    async fn slot(&self) -> Result<Slot, AuditError> {
        let shared = &self.shared;
        let mut trouble = shared.trouble.subscribe();
        if let Some(error) = trouble.borrow_and_update().clone() {
            return Err(error);
        }
        if shared.congested() {
            let relieved = trouble.wait_for(|error| error.is_some() || !shared.congested()).await;
            if let Some(error) = relieved.map_err(|_| AuditError::Closed)?.clone() {
                return Err(error);
            }
        }
        tokio::select! {
            slot = shared.slots.clone().acquire_owned() => slot.map_err(|_| AuditError::Closed),
            error = trouble.wait_for(Option::is_some) => {
                Err(error.ok().and_then(|error| error.clone()).unwrap_or(AuditError::Closed))
            }
        }
    }

    fn send(&self, message: Message) -> Result<(), AuditError> {
        self.shared.queued.fetch_add(1, Ordering::Relaxed);
        self.sender.send(message).map_err(|refused| {
            if let Message::Open { record, .. } | Message::Note { record, .. } = &refused.0 {
                self.shared.books.refused(record);
            }
            self.shared.queued.fetch_sub(1, Ordering::Relaxed);
            AuditError::Closed
        })
    }
}

/// One open record. Written once more when it is finished, or as cancelled when it is dropped.
pub struct Entry {
    id: RecordId,
    record: Record,
    /// The slot and the way to the thread; taken by the final write, so that there is one only.
    ending: Option<(Slot, Audit)>,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Entry {
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

    /// Ends the record in `state`; `finished` is set where it is not. Never blocks. [`State::Open`] is
    /// no end and is taken as [`State::Cancelled`].
    pub fn finish(mut self, state: State) {
        self.end(state);
    }

    fn end(&mut self, state: State) {
        let Some((slot, audit)) = self.ending.take() else {
            return;
        };
        let nothing = Record::new(self.record.kind, self.record.started);
        let mut record = mem::replace(&mut self.record, nothing);
        record.id = self.id;
        record.state = if state == State::Open { State::Cancelled } else { state };
        record.finished.get_or_insert_with(Timestamp::now);
        let bytes = captured_bytes(&record);
        audit.shared.pending_bytes.fetch_add(bytes, Ordering::AcqRel);
        if audit.send(Message::Final(Final { record, bytes, _slot: slot })).is_err() {
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

/// What a drain left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Records that were still open at the deadline. The next start ends them as interrupted.
    pub left_open: usize,
    /// Final writes that the store did not take until the deadline. Likewise.
    pub unwritten: usize,
}

/// The thread that writes. Where this is dropped undrained, the thread ends after the last handle and
/// entry.
pub struct AuditThread {
    audit: Audit,
    thread: Option<thread::JoinHandle<()>>,
}

impl fmt::Debug for AuditThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditThread").finish_non_exhaustive()
    }
}

impl AuditThread {
    /// Closes the log: `open` and `note` fail from here on, entries that are open may be finished for
    /// `within`, and what they write is committed. Returns when the thread is gone.
    pub async fn drain(self, within: Duration) -> Drained {
        self.audit.shared.slots.close();
        let (reply, answer) = oneshot::channel();
        let deadline = Instant::now() + within;
        let drained = match self.audit.send(Message::Drain { deadline, reply }) {
            Ok(()) => answer.await.ok(),
            Err(_) => None,
        };
        if let Some(thread) = self.thread {
            // It has answered or panicked, so it is at its end and this does not block.
            if thread.join().is_err() {
                tracing::error!("the audit thread panicked");
            }
        }
        let pending = self.audit.health().pending;
        drained.unwrap_or(Drained { left_open: pending, unwritten: 0 })
    }
}
