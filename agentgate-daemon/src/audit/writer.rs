//! The thread that writes: takes what is queued, makes it durable at once, answers, publishes; and hands it
//! to the thread of the tables now and then. While anything fails it brings things into the tables itself,
//! so that one thing is tried after the other.

use std::{
    io, mem,
    num::NonZeroU64,
    sync::{Arc, atomic::Ordering, mpsc},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{
    AuditError, AuditOptions, Drained, Durability, Message, Opened, Pending, Reply, Shared,
    company::Company,
    queue::Waited,
    tables::{Behind, Came, Round, Tables},
};
use crate::{
    model::{RecordId, State, Timestamp},
    store::{Store, StoreError},
};

/// Bytes after which a group takes no more writes.
const GROUP_BYTES: u64 = 4 << 20;
/// Bytes after which entries go to the tables at once: a transaction keeps what it changes in memory.
const TABLE_BYTES: u64 = 4 << 20;
/// Bytes that may gather while the tables are busy; then all wait for them.
const LAG_BYTES: u64 = 16 << 20;
/// How long the ends of records may wait for company.
const LINGER: Duration = Duration::from_millis(5);
/// The same of everything, where nobody waits for it.
const LINGER_UNAWAITED: Duration = Duration::from_millis(20);
/// How often a drain looks whether all slots are free: a caller that gives up waiting for a slot frees
/// it without a message.
const DRAIN_TICK: Duration = Duration::from_millis(20);

struct Drain {
    deadline: Instant,
    reply: oneshot::Sender<Drained>,
}

pub(super) struct Writer {
    store: Arc<Store>,
    shared: Arc<Shared>,
    batch: usize,
    retry: Duration,
    lag: Duration,
    /// The next id, where ids are given out here.
    next: RecordId,
    incoming: Vec<Message>,
    /// Writes that are not durable yet, oldest first; grows beyond a batch while the disk fails.
    #[expect(clippy::vec_box, reason = "they come boxed, and are moved twice")]
    held: Vec<Box<Pending>>,
    company: Company,
    behind: Behind,
    tables: Tables,
    /// What the thread of the tables could not write: older than what is behind.
    back: Option<Round>,
    /// The thread of the tables is gone: nothing can be recorded any more.
    broken: bool,
    /// Who waits for the tables.
    catching_up: Vec<mpsc::SyncSender<()>>,
    /// The store has segments of its text index.
    segments: bool,
    /// The database must be opened again before anything else.
    reopen: bool,
    /// While nothing can be written: when to try again.
    retry_at: Option<Instant>,
    drain: Option<Drain>,
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Also when the thread panics or never ran: nothing is admitted that nobody would write.
        self.shared.close();
    }
}

impl Writer {
    pub(super) fn new(store: Arc<Store>, shared: Arc<Shared>, options: &AuditOptions) -> io::Result<Self> {
        let tables = Tables::start(store.clone(), shared.clone())?;
        Ok(Self {
            next: store.next_id(),
            store,
            shared,
            batch: options.batch.max(1),
            retry: options.retry,
            lag: options.lag,
            incoming: Vec::new(),
            held: Vec::new(),
            company: Company::default(),
            behind: Behind::default(),
            tables,
            back: None,
            broken: false,
            catching_up: Vec::new(),
            segments: false,
            reopen: false,
            retry_at: None,
            drain: None,
        })
    }

    pub(super) fn run(mut self) {
        // Waits for company are shorter than what the kernel adds to them by default.
        if let Err(error) = rustix::thread::set_current_timer_slack(NonZeroU64::new(1)) {
            tracing::debug!(%error, "the audit thread's waits are longer than they need be");
        }
        loop {
            let connected = self.gather() == Waited::On;
            let due = self.retry_at.is_none_or(|at| Instant::now() >= at);
            // At the very end a last attempt is made whatever the time.
            let last =
                !connected || self.drain.as_ref().is_some_and(|drain| Instant::now() >= drain.deadline);
            if due || last {
                self.work(last);
            } else {
                self.refuse_asked();
            }
            if self.retry_at.is_some() {
                // They see it by that.
                self.catching_up.clear();
            }
            if self.broken || self.ended(connected) {
                return;
            }
        }
    }

    /// Waits for messages, and takes what is there.
    fn gather(&mut self) -> Waited {
        let tick = self.drain.as_ref().map(|drain| drain.deadline.min(Instant::now() + DRAIN_TICK));
        let turn = match self.retry_at {
            Some(retry) => Some(retry),
            // The tables say when they are done.
            None if self.tables.are_busy() => None,
            None => self.behind.since.map(|since| since + self.lag),
        };
        let until = [tick, turn].into_iter().flatten().min();
        let linger = match self.shared.durability {
            Durability::BeforeForward => LINGER,
            Durability::Backpressure => LINGER_UNAWAITED,
        };
        let mut incoming = mem::take(&mut self.incoming);
        let waited = self.shared.queue.take(until, linger, self.company.expected(), &mut incoming);
        let mut awaited = 0;
        for message in incoming.drain(..) {
            awaited += usize::from(matches!(&message, Message::Write(write) if write.reply.is_some()));
            self.take(message);
        }
        self.company.came(awaited);
        self.incoming = incoming;
        waited
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Write(write) => self.held.push(write),
            Message::Begun(begun) => self.held.extend(begun.take()),
            Message::Cancel { id, slot } => self.cancel(id, slot),
            Message::CatchUp(done) => self.catching_up.push(done),
            Message::Segments => self.segments = true,
            Message::Drain { deadline, reply } => self.drain = Some(Drain { deadline, reply }),
        }
    }

    /// Ends an open record that nobody holds.
    fn cancel(&mut self, id: RecordId, slot: super::Slot) {
        let held = self.held.iter().find(|held| held.entry.id() == id).map(|held| held.entry.clone());
        let known = || {
            let back = || self.back.as_ref().and_then(|round| round.behind.open(id));
            self.behind.open(id).or_else(|| self.tables.open(id)).or_else(back).cloned()
        };
        let found = match held.or_else(known) {
            Some(entry) => Ok(Some(entry)),
            None => self.store.entry(id),
        };
        let ended = found.and_then(|entry| {
            let entry = entry.ok_or(StoreError::Missing { id })?;
            entry.ended(State::Cancelled, Timestamp::now(), None)
        });
        match ended {
            Ok(entry) => self.held.push(Box::new(Pending {
                entry,
                open: false,
                bytes: 0,
                slot: Some(slot),
                connection: None,
                began: None,
                shown: None,
                reply: None,
            })),
            // The next start ends it.
            Err(error) => tracing::error!(record = %id, %error, "a record that was given up stays open"),
        }
    }

    /// Writes all there is, or enters or stays in the failing state.
    fn work(&mut self, last: bool) {
        let mut result = self.try_work(last);
        // A reader's I/O error also makes redb refuse to go on; that is no reason to refuse anybody.
        if self.retry_at.is_none() && result.as_ref().is_err_and(StoreError::needs_reopening) {
            result = self.try_work(last);
        }
        match result {
            Ok(()) => {
                if self.retry_at.take().is_some() {
                    tracing::info!("the audit log can be written again");
                    self.shared.set_trouble(None);
                }
            }
            Err(error) => {
                let reason: Arc<str> = error.to_string().into();
                if self.retry_at.is_none() {
                    tracing::error!(%error, "the audit log cannot be written; everything is refused until it can");
                }
                self.retry_at = Some(Instant::now() + self.retry);
                self.shared.set_trouble(Some(AuditError::Unavailable { reason }));
                self.refuse_asked();
            }
        }
    }

    fn try_work(&mut self, last: bool) -> Result<(), StoreError> {
        let failing = self.retry_at.is_some();
        let waits = last || failing || self.reopen || self.drain.is_some();
        self.look(waits)?;
        if self.reopen {
            self.store.reopen()?;
            self.reopen = false;
            self.bring()?;
        }
        if failing {
            // Success means that both files can be written.
            self.bring()?;
            if self.held.is_empty() {
                self.behind.sequence = self.store.log([].into_iter())?;
            }
        }
        while !self.held.is_empty() {
            if self.behind.bytes >= LAG_BYTES {
                self.look(waits)?;
                if self.tables.are_busy() {
                    return Ok(());
                }
            }
            self.log()?;
            if self.is_due() {
                self.hand_over();
            }
        }
        if last || self.drain.is_some() {
            self.look(true)?;
            self.bring()?;
        } else if self.segments || !self.catching_up.is_empty() || self.is_due() {
            self.hand_over();
        }
        if self.behind.since.is_none() && !self.tables.are_busy() {
            self.shared.queue.caught_up();
            self.caught_up();
        }
        Ok(())
    }

    /// Has the tables brought up to date, unless they are busy.
    fn hand_over(&mut self) {
        if self.tables.are_busy() || self.behind.since.is_none() && !self.segments {
            return;
        }
        if self.behind.since.is_some() {
            self.store.hand_over();
        }
        // Who waits, waits for all that came before.
        let waiting = if self.held.is_empty() { mem::take(&mut self.catching_up) } else { Vec::new() };
        let behind = mem::take(&mut self.behind);
        self.tables.hand_over(Round { behind, segments: mem::take(&mut self.segments), waiting });
    }

    /// Looks what became of what was handed over.
    fn look(&mut self, wait: bool) -> Result<(), StoreError> {
        match self.tables.look(wait) {
            Came::Nothing | Came::NotYet => Ok(()),
            Came::Taken(captured) => {
                self.relieve(captured);
                Ok(())
            }
            Came::Back(error, mut round) => {
                self.catching_up.append(&mut round.waiting);
                self.back = Some(round);
                self.reopen = true;
                Err(error)
            }
            Came::Gone => {
                self.broken = true;
                Err(StoreError::Closed)
            }
        }
    }

    /// So many captured bytes are in the tables.
    fn relieve(&self, captured: u64) {
        let congested = self.shared.congested();
        self.shared.pending_bytes.fetch_sub(captured, Ordering::AcqRel);
        if congested && !self.shared.congested() {
            // Wakes those who wait for just that.
            self.shared.trouble.send_modify(|_| ());
        }
    }

    /// Tells who waits that the tables have all there is.
    fn caught_up(&mut self) {
        for done in self.catching_up.drain(..) {
            // It may have given up.
            let _unheard = done.send(());
        }
    }

    /// Whether the tables should be brought up to date.
    fn is_due(&self) -> bool {
        self.behind.bytes >= TABLE_BYTES
            || self.shared.congested()
            || self.behind.since.is_some_and(|since| since.elapsed() >= self.lag)
            || self.store.journaled() >= 2 * TABLE_BYTES
    }

    /// Makes the oldest writes durable, and answers who waits.
    fn log(&mut self) -> Result<(), StoreError> {
        let count = self.chunk();
        let mut next = self.next;
        let mut answered = 0;
        for write in self.held.iter_mut().take(count) {
            answered += usize::from(write.reply.is_some());
            if write.is_unnumbered() {
                write.entry.set_id(next);
                if let Some(shown) = &mut write.shown {
                    shown.id = next;
                }
                next = RecordId(next.0 + 1);
            }
        }
        let at = Instant::now();
        self.behind.sequence = self.store.log(self.held.iter().take(count).map(|write| &write.entry))?;
        self.company.left(answered, at.elapsed());
        self.next = next;
        self.shared.written.fetch_add(count as u64, Ordering::Relaxed);
        // Nothing comes while they are answered.
        let mut held = mem::take(&mut self.held);
        for write in held.drain(..count) {
            self.answer(*write);
        }
        self.held = held;
        Ok(())
    }

    /// How many writes go into the next group.
    fn chunk(&self) -> usize {
        let mut bytes = 0;
        let fits = |size: &u64| {
            let room = bytes < GROUP_BYTES;
            bytes += size;
            room
        };
        let sizes = self.held.iter().take(self.batch).map(|write| write.entry.size());
        sizes.take_while(fits).count()
    }

    /// What was written is durable: answers who asked, frees the slots of what ended, publishes.
    fn answer(&mut self, write: Pending) {
        let Pending { entry, open, bytes, slot, connection, began, shown, reply } = write;
        let id = entry.id();
        self.behind.captured += bytes;
        self.behind.add(entry, open);
        // Before the answer: who hears it may let go of the connection.
        self.shared.books.recorded(connection);
        match reply {
            Some(Reply::Open { audit, reply }) => {
                // Where nobody waits any more, what is opened comes back, is dropped, and so ends as
                // cancelled.
                let ending = slot.map(|slot| (slot, audit));
                drop(reply.send(Ok(Opened { id, ending })));
            }
            Some(Reply::Note(reply)) => {
                // The slot is free before the answer, so that who hears it finds it so.
                drop(slot);
                drop(reply.send(Ok(id)));
            }
            // Who is gone by now has no more of the request to send.
            Some(Reply::Keep(reply)) => drop(reply.send(Ok(()))),
            None => drop(slot),
        }
        for shown in [began, shown].into_iter().flatten() {
            // An error says that nobody watches.
            drop(self.shared.live.send(Arc::from(shown)));
        }
    }

    /// Brings what the journal has into the tables, all of it, and segments of the text index, here and now.
    /// Only where nothing is away.
    fn bring(&mut self) -> Result<(), StoreError> {
        if let Some(round) = self.back.take() {
            if let Err(error) = round.take(&self.store) {
                self.back = Some(round);
                self.reopen = true;
                return Err(error);
            }
            self.relieve(round.behind.captured);
        }
        if self.behind.since.is_some() {
            if let Err(error) = self.store.take(self.behind.entries(), self.behind.sequence) {
                self.reopen = true;
                return Err(error);
            }
            let behind = mem::take(&mut self.behind);
            self.relieve(behind.captured);
        }
        if self.segments {
            if let Err(error) = self.store.write_segments() {
                self.reopen = true;
                return Err(error);
            }
            self.segments = false;
        }
        Ok(())
    }

    /// Refuses who waits; what was acknowledged stays.
    fn refuse_asked(&mut self) {
        if self.held.iter().all(|write| write.reply.is_none()) {
            return;
        }
        let error = self.shared.trouble.borrow().clone().unwrap_or(AuditError::Closed);
        let mut kept = Vec::with_capacity(self.held.len());
        for mut write in mem::take(&mut self.held) {
            let Some(reply) = write.reply.take() else {
                kept.push(write);
                continue;
            };
            self.shared.pending_bytes.fetch_sub(write.bytes, Ordering::AcqRel);
            self.shared.books.refused(write.connection);
            // The slot is free before the answer, so that who hears it finds it so. Whoever asked may be
            // gone, and then needs no answer.
            drop(write);
            match reply {
                Reply::Open { reply, .. } => drop(reply.send(Err(error.clone()))),
                Reply::Note(reply) => drop(reply.send(Err(error.clone()))),
                Reply::Keep(reply) => drop(reply.send(Err(error.clone()))),
            }
        }
        self.held = kept;
    }

    /// Whether the thread is done; answers the drain then.
    fn ended(&mut self, connected: bool) -> bool {
        let unwritten = self.held.len();
        if !connected {
            if unwritten > 0 {
                tracing::error!(unwritten, "the audit log ends with records it could not write");
            }
            return true;
        }
        let Some(drain) = &self.drain else { return false };
        let taken = self.shared.capacity.saturating_sub(self.shared.slots.available_permits());
        let over = Instant::now() >= drain.deadline;
        // What was sent before the deadline is written, however many batches it takes.
        let more = self.retry_at.is_none() && self.shared.queue.len() > 0;
        if taken > 0 && (!over || more) {
            return false;
        }
        if let Some(drain) = self.drain.take() {
            // The caller may have given up waiting.
            let drained = Drained { left_open: taken.saturating_sub(unwritten), unwritten };
            let _unheard = drain.reply.send(drained);
        }
        true
    }
}
