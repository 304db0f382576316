//! What happened, kept durably: the handles by which the data path records, and the thread that writes.
//!
//! A record that [`Audit::open`] returned is on disk ([`Durability::BeforeForward`]), or will be within
//! 50 ms ([`Durability::Backpressure`]); the [`Entry`] it gives is written once more, and exactly once,
//! when it is finished or dropped; and, where what was captured of a request's body has to be on disk before
//! the last of it goes on ([`Entry::keep`]), once in between. Records are encoded by those who make them. One OS
//! thread owns all writes: it makes what has queued up durable in the store's journal, at one stroke, and answers.
//! Another brings it into the store's tables now and then, or when somebody wants to read, while the journal goes
//! on. A record that is over by then is written there once. One that nobody waits for, as nobody does under
//! [`Durability::Backpressure`], is encoded and written once where it is over before the stroke ([`running`]).
//!
//! **Bounds.** Every record on its way takes one of a fixed number of slots, from `open` until its
//! final write is on disk. A slot has at most two messages under way, so the queue to the thread,
//! unbounded in itself, never holds more than twice as many messages as there are slots, and neither
//! `finish` nor a drop can meet a full queue. Where slots run out, `open` and `note` wait. They wait as well while
//! more captured bytes than the option allows are on their way to the tables.
//!
//! **Failure.** When journal or tables cannot be written, who waits for an acknowledgement is told so,
//! what was acknowledged and final writes stay in memory (they keep their slots), and `open` and `note`
//! fail at once until the thread has written what it kept. Nobody has to intervene.
//!
//! What this does not do: mask secrets. Callers do, with [`redact`], before a record gets here.

pub mod books;
mod company;
mod entry;
pub mod fit;
mod queue;
pub mod redact;
pub mod retain;
mod running;
mod tables;
mod writer;

#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, oneshot, watch};

pub use crate::model::Durability;
use crate::{
    model::{Record, RecordId, State, Timestamp},
    store::{self, Behind, Store},
};
pub use books::Books;
use books::{Connection, connection};
pub use entry::{Entry, Keeping};
use queue::Queue;
pub use running::Editing;
use running::{Begun, Due};
use writer::Writer;

/// Bounds of the audit log. The defaults are meant for use; tests make them small.
#[derive(Clone, Debug)]
pub struct AuditOptions {
    pub durability: Durability,
    /// Slots: records on their way at once, which includes every open entry.
    pub capacity: usize,
    /// Messages that are made durable at one stroke.
    pub batch: usize,
    /// Captured bytes on their way to the disk above which `open` and `note` wait.
    pub pending_bytes: u64,
    /// Time between attempts while the store cannot be written.
    pub retry: Duration,
    /// How long the tables may lag behind the journal.
    pub lag: Duration,
    /// Records that a viewer of the live feed may lag behind before it misses some.
    pub live: usize,
}

impl Default for AuditOptions {
    fn default() -> Self {
        Self {
            durability: Durability::default(),
            capacity: 65_536,
            batch: 16_384,
            pending_bytes: 256 << 20,
            retry: Duration::from_millis(500),
            lag: Duration::from_secs(1),
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
    /// Writes made durable since the start.
    pub written: u64,
}

/// One of the slots; free again when dropped.
type Slot = OwnedSemaphorePermit;

/// What callers and the thread share.
#[derive(Debug)]
struct Shared {
    durability: Durability,
    slots: Arc<Semaphore>,
    capacity: usize,
    pending_limit: u64,
    /// Captured bytes between `open` or `finish` and the tables.
    pending_bytes: AtomicU64,
    written: AtomicU64,
    /// Whether there is `trouble`: what is asked first.
    troubled: AtomicBool,
    /// Why nothing can be recorded; also touched when `pending_bytes` falls below its limit.
    trouble: watch::Sender<Option<AuditError>>,
    live: broadcast::Sender<Arc<Record>>,
    books: Arc<Books>,
    queue: Queue,
}

impl Shared {
    /// So many captured bytes more are on their way.
    fn add_pending(&self, bytes: u64) {
        // All threads write there, and mostly there is nothing.
        if bytes > 0 {
            self.pending_bytes.fetch_add(bytes, Ordering::AcqRel);
        }
    }

    fn congested(&self) -> bool {
        self.pending_bytes.load(Ordering::Acquire) > self.pending_limit
    }

    /// Nothing is admitted any more that nobody would write.
    fn close(&self) {
        self.slots.close();
        self.queue.abandon();
        self.set_trouble(Some(AuditError::Closed));
    }

    fn set_trouble(&self, trouble: Option<AuditError>) {
        self.troubled.store(trouble.is_some(), Ordering::Release);
        self.trouble.send_replace(trouble);
    }

    /// The record as viewers get it, where there are any: captured bytes would be kept alive by the
    /// slowest of them.
    fn shown(&self, record: &Record) -> Option<Box<Record>> {
        (self.live.receiver_count() > 0).then(|| {
            let mut record = record.clone();
            if let Some(head) = &mut record.request {
                head.body.bytes = bytes::Bytes::new();
            }
            if let Some(head) = &mut record.response {
                head.body.bytes = bytes::Bytes::new();
            }
            Box::new(record)
        })
    }
}

impl Behind for Shared {
    fn catch_up(&self) -> bool {
        if !self.queue.is_behind() {
            return true;
        }
        let (done, caught_up) = mpsc::sync_channel(1);
        let asked = self.queue.push(Message::CatchUp(done), true);
        // The thread lets go of its end unanswered where it cannot.
        asked.is_ok() && caught_up.recv().is_ok()
    }

    fn write_segments(&self) {
        // A log that is closed has no use for them: they are built again.
        drop(self.queue.push(Message::Segments, false));
    }
}

/// What the thread is sent.
#[derive(Debug)]
enum Message {
    Write(Box<Pending>),
    /// A record that nobody waits for.
    Begun(Begun),
    /// An open record whose beginner went away before it could be told.
    Cancel {
        id: RecordId,
        slot: Slot,
    },
    /// The tables are to have all there is.
    CatchUp(mpsc::SyncSender<()>),
    /// The store has segments of its text index to be written.
    Segments,
    Drain {
        deadline: Instant,
        reply: oneshot::Sender<Drained>,
    },
}

/// One write on its way.
#[derive(Debug)]
struct Pending {
    entry: store::Entry,
    open: bool,
    /// Captured bytes.
    bytes: u64,
    /// Held until it is on disk, but for an open record whose entry has it already.
    slot: Option<Slot>,
    connection: Option<Connection>,
    /// For viewers, before `shown`: how it began, where that is not written.
    began: Option<Box<Record>>,
    /// For viewers.
    shown: Option<Box<Record>>,
    /// Who waits. An open record and a note get their ids then; all others have one.
    reply: Option<Reply>,
}

impl Pending {
    /// Whether it gets its id when it is made durable.
    fn is_unnumbered(&self) -> bool {
        matches!(self.reply, Some(Reply::Open { .. } | Reply::Note(_)))
    }
}

#[derive(Debug)]
enum Reply {
    Open {
        audit: Audit,
        reply: oneshot::Sender<Result<Opened, AuditError>>,
    },
    Note(oneshot::Sender<Result<RecordId, AuditError>>),
    /// Of a record that has its id.
    Keep(oneshot::Sender<Result<(), AuditError>>),
}

/// An open record on its way to whoever began it. Where that is not there any more, it ends as cancelled.
#[derive(Debug)]
struct Opened {
    id: RecordId,
    ending: Option<(Slot, Audit)>,
}

impl Drop for Opened {
    fn drop(&mut self) {
        if let Some((slot, audit)) = self.ending.take()
            && audit.shared().queue.push(Message::Cancel { id: self.id, slot }, false).is_err()
        {
            tracing::warn!(record = %self.id, "a record ended after the audit log was closed");
        }
    }
}

/// Captured bytes that `record` carries.
fn captured_bytes(record: &Record) -> u64 {
    let request = record.request.as_ref().map_or(0, |head| head.body.bytes.len());
    let response = record.response.as_ref().map_or(0, |head| head.body.bytes.len());
    u64::try_from(request + response).unwrap_or(u64::MAX)
}

/// The handle by which the data path records. Cheap to clone.
#[derive(Clone)]
pub struct Audit(Arc<Handle>);

/// Tells the thread when the last handle is gone.
#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.queue.close();
    }
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
        let capacity = options.capacity.clamp(1, Semaphore::MAX_PERMITS);
        let shared = Arc::new(Shared {
            durability: options.durability,
            slots: Arc::new(Semaphore::new(capacity)),
            capacity,
            pending_limit: options.pending_bytes,
            pending_bytes: AtomicU64::new(0),
            written: AtomicU64::new(0),
            troubled: AtomicBool::new(false),
            trouble: watch::Sender::new(None),
            live: broadcast::Sender::new(options.live.max(1)),
            books: Arc::default(),
            queue: Queue::new(store.next_id()),
        });
        let behind = Arc::downgrade(&shared);
        store.follow(behind);
        let writer = Writer::new(store, shared.clone(), &options);
        // A writer that is dropped unrun closes the log, as does one that ends.
        let thread =
            writer.and_then(|writer| thread::Builder::new().name("audit".into()).spawn(move || writer.run()));
        if let Err(error) = &thread {
            tracing::error!(%error, "the audit threads cannot be started");
            shared.close();
        }
        let audit = Self(Arc::new(Handle { shared }));
        (audit.clone(), AuditThread { audit, thread: thread.ok() })
    }

    fn shared(&self) -> &Shared {
        &self.0.shared
    }

    /// Begins a record: it has an id, and is as durable as [`AuditOptions::durability`] says, when this
    /// returns, with what it has of its request's body. Its `id` and `state` are set here. Waits while all
    /// slots are taken. Where the future is dropped before it is ready, the record ends as cancelled.
    ///
    /// # Errors
    /// [`AuditError`], at once, while the store cannot be written: what was to be recorded must not
    /// happen then. In rare cases the log shows such a record as failed.
    pub async fn open(&self, mut record: Record) -> Result<Entry, AuditError> {
        let slot = self.slot().await?;
        record.state = State::Open;
        let shared = self.shared();
        let bytes = captured_bytes(&record);
        shared.add_pending(bytes);
        let (connection, shown) = (connection(&record), shared.shown(&record));
        if shared.durability == Durability::Backpressure {
            return self.begin(record, Due { bytes, connection, shown }, slot);
        }
        let mut known = store::Known::default();
        let (reply, answer) = oneshot::channel();
        self.send(Box::new(Pending {
            entry: store::Entry::version(&record, &mut known),
            open: true,
            bytes,
            slot: Some(slot),
            connection,
            began: None,
            shown,
            reply: Some(Reply::Open { audit: self.clone(), reply }),
        }))?;
        let opened = answer.await.map_err(|_| AuditError::Closed)??;
        known.durable = true;
        Ok(Entry::new(opened, record, known))
    }

    /// Tells the thread of a record that nobody waits for.
    fn begin(&self, record: Record, due: Due, slot: Slot) -> Result<Entry, AuditError> {
        let (shared, connection, bytes) = (self.shared(), due.connection, due.bytes);
        shared.books.queued(connection);
        let running = running::Shared::due(record, due);
        match shared.queue.push_numbered(|id| Message::Begun(running.begun(id))) {
            Ok(id) => Ok(Entry::begun(id, running, (slot, self.clone()))),
            Err(_refused) => Err(self.unsent(connection, bytes)),
        }
    }

    /// Whether what is recorded is durable before it is acted upon.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        self.shared().durability == Durability::BeforeForward
    }

    /// Records something that is over, in one go; as durable as [`AuditOptions::durability`] says when
    /// this returns. Where the record is still [`State::Open`] it becomes [`State::Done`], and `finished`
    /// is set where it is not. Also written where the future is dropped.
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
        let shared = self.shared();
        shared.add_pending(bytes);
        let mut write = Box::new(Pending {
            entry: store::Entry::last(&record),
            open: false,
            bytes,
            slot: Some(slot),
            connection: connection(&record),
            began: None,
            shown: shared.shown(&record),
            reply: None,
        });
        match shared.durability {
            Durability::Backpressure => self.send_numbered(write),
            Durability::BeforeForward => {
                let (reply, answer) = oneshot::channel();
                write.reply = Some(Reply::Note(reply));
                self.send(write)?;
                answer.await.map_err(|_| AuditError::Closed)?
            }
        }
    }

    /// Every write that begins from here on, once it is durable, without captured bytes; what began before
    /// is found in the store. Who lags by more than 1,024 records misses some and is told how many.
    #[must_use]
    pub fn live(&self) -> broadcast::Receiver<Arc<Record>> {
        self.shared().live.subscribe()
    }

    /// What was seen and is not on record yet.
    #[must_use]
    pub fn books(&self) -> &Arc<Books> {
        &self.shared().books
    }

    /// How the log does at the moment.
    #[must_use]
    pub fn health(&self) -> AuditHealth {
        let shared = self.shared();
        let error = shared.trouble.borrow().as_ref().map(ToString::to_string);
        AuditHealth {
            ok: error.is_none(),
            error,
            queued: shared.queue.len(),
            pending: shared.capacity.saturating_sub(shared.slots.available_permits()),
            capacity: shared.capacity,
            written: shared.written.load(Ordering::Relaxed),
        }
    }

    /// Waits for a slot, for as long as the store can be written.
    async fn slot(&self) -> Result<Slot, AuditError> {
        let shared = self.shared();
        // What is nearly always so costs next to nothing.
        if !shared.troubled.load(Ordering::Acquire)
            && !shared.congested()
            && let Ok(slot) = shared.slots.clone().try_acquire_owned()
        {
            return Ok(slot);
        }
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

    /// Sends a write that somebody waits for.
    fn send(&self, write: Box<Pending>) -> Result<(), AuditError> {
        let shared = self.shared();
        shared.books.queued(write.connection);
        shared.queue.push(Message::Write(write), true).map_err(|refused| self.closed(&refused))
    }

    /// Sends a write that nobody waits for, and gives it an id.
    fn send_numbered(&self, mut write: Box<Pending>) -> Result<RecordId, AuditError> {
        let shared = self.shared();
        shared.books.queued(write.connection);
        let numbered = |id| {
            write.entry.set_id(id);
            if let Some(shown) = &mut write.shown {
                shown.id = id;
            }
            Message::Write(write)
        };
        shared.queue.push_numbered(numbered).map_err(|refused| self.closed(&refused))
    }

    fn closed(&self, refused: &Message) -> AuditError {
        match refused {
            Message::Write(write) => self.unsent(write.connection, write.bytes),
            Message::Begun(_)
            | Message::Cancel { .. }
            | Message::CatchUp(_)
            | Message::Segments
            | Message::Drain { .. } => AuditError::Closed,
        }
    }

    /// What goes with a write that nobody took.
    fn unsent(&self, connection: Option<Connection>, bytes: u64) -> AuditError {
        self.shared().books.refused(connection);
        self.shared().pending_bytes.fetch_sub(bytes, Ordering::AcqRel);
        AuditError::Closed
    }

    /// Returns when the thread is gone, which it is not before the drain unless something is wrong: nothing
    /// can be recorded from then on.
    pub async fn ended(&self) {
        let mut trouble = self.shared().trouble.subscribe();
        // The sender lives as long as this handle.
        let _closed = trouble.wait_for(|trouble| *trouble == Some(AuditError::Closed)).await;
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
        self.audit.shared().slots.close();
        let (reply, answer) = oneshot::channel();
        let deadline = Instant::now() + within;
        let drained = match self.audit.shared().queue.push(Message::Drain { deadline, reply }, true) {
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
