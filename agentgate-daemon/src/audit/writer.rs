//! The thread that writes: gathers what is queued, commits it at once, answers, publishes.

use std::{
    mem,
    sync::{Arc, atomic::Ordering, mpsc},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{Audit, AuditError, AuditOptions, Drained, Entry, Final, Message, Shared, Slot};
use crate::{
    model::{Record, RecordId},
    store::{Store, StoreError, Write},
};

/// Captured bytes after which a transaction takes no more final writes, because redb keeps what a
/// transaction changes in memory.
const BATCH_BYTES: u64 = 16 << 20;
/// How long the ends of records may wait for company.
const LINGER: Duration = Duration::from_millis(5);
/// How often a drain looks whether all slots are free: a caller that gives up waiting for a slot frees
/// it without a message.
const DRAIN_TICK: Duration = Duration::from_millis(20);

/// Something that waits for the commit to be answered.
enum Asked {
    Open { record: Record, slot: Slot, audit: Audit, reply: oneshot::Sender<Result<Entry, AuditError>> },
    Note { last: Final, reply: oneshot::Sender<Result<RecordId, AuditError>> },
}

impl Asked {
    fn record(&self) -> &Record {
        match self {
            Self::Open { record, .. } => record,
            Self::Note { last, .. } => &last.record,
        }
    }

    fn record_mut(&mut self) -> &mut Record {
        match self {
            Self::Open { record, .. } => record,
            Self::Note { last, .. } => &mut last.record,
        }
    }

    fn refuse(self, error: &AuditError) {
        // The slot is free before the answer, so that who hears it finds it so. Whoever asked may be
        // gone, and then needs no answer.
        match self {
            Self::Open { slot, reply, .. } => {
                drop(slot);
                drop(reply.send(Err(error.clone())));
            }
            Self::Note { last, reply } => {
                drop(last);
                drop(reply.send(Err(error.clone())));
            }
        }
    }
}

struct Drain {
    deadline: Instant,
    reply: oneshot::Sender<Drained>,
}

pub(super) struct Writer {
    store: Arc<Store>,
    receiver: mpsc::Receiver<Message>,
    shared: Arc<Shared>,
    batch: usize,
    retry: Duration,
    /// The next id; known after the store was asked.
    next: Option<RecordId>,
    asked: Vec<Asked>,
    /// Final writes not committed yet, oldest first; grows beyond a batch while the store fails.
    finals: Vec<Final>,
    /// Ids given out in commits that failed without saying whether they were kept.
    unsure: Vec<RecordId>,
    /// The file must be opened again before anything else.
    reopen: bool,
    /// While the store cannot be written: when to try again.
    retry_at: Option<Instant>,
    drain: Option<Drain>,
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Also when the thread panics or never ran: nothing is admitted that nobody would write.
        self.shared.slots.close();
        self.shared.trouble.send_if_modified(|trouble| {
            let open = trouble.is_none();
            if open {
                *trouble = Some(AuditError::Closed);
            }
            open
        });
    }
}

impl Writer {
    pub(super) fn new(
        store: Arc<Store>,
        receiver: mpsc::Receiver<Message>,
        shared: Arc<Shared>,
        options: &AuditOptions,
    ) -> Self {
        Self {
            store,
            receiver,
            shared,
            batch: options.batch.max(1),
            retry: options.retry,
            next: None,
            asked: Vec::new(),
            finals: Vec::new(),
            unsure: Vec::new(),
            reopen: false,
            retry_at: None,
            drain: None,
        }
    }

    pub(super) fn run(mut self) {
        loop {
            let connected = self.gather();
            let due = self.retry_at.is_none_or(|at| Instant::now() >= at);
            // At the very end a last attempt is made whatever the time.
            let last =
                !connected || self.drain.as_ref().is_some_and(|drain| Instant::now() >= drain.deadline);
            if due || last {
                self.commit();
            } else {
                self.refuse_asked();
            }
            if self.ended(connected) {
                return;
            }
        }
    }

    /// Waits for a message, then takes what is there up to a batch. False when every handle is gone.
    fn gather(&mut self) -> bool {
        let tick = self.drain.as_ref().map(|drain| drain.deadline.min(Instant::now() + DRAIN_TICK));
        let until = match (self.retry_at, tick) {
            (Some(retry), Some(tick)) => Some(retry.min(tick)),
            (at, None) | (None, at) => at,
        };
        let first = match until {
            None => self.receiver.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected),
            Some(until) => self.receiver.recv_timeout(until.saturating_duration_since(Instant::now())),
        };
        match first {
            Ok(message) => self.take(message),
            Err(mpsc::RecvTimeoutError::Timeout) => return true,
            Err(mpsc::RecvTimeoutError::Disconnected) => return false,
        }
        for _ in 1..self.batch {
            match self.receiver.try_recv() {
                Ok(message) => self.take(message),
                Err(mpsc::TryRecvError::Empty | mpsc::TryRecvError::Disconnected) => break,
            }
        }
        // Nobody waits for the end of a record, but whoever comes next waits for the commit under way.
        // So ends alone are held for a moment, and go with the next record that somebody waits for.
        let until = Instant::now() + LINGER;
        while self.asked.is_empty() && self.drain.is_none() && (1..self.batch).contains(&self.finals.len()) {
            match self.receiver.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(message) => self.take(message),
                Err(mpsc::RecvTimeoutError::Timeout | mpsc::RecvTimeoutError::Disconnected) => break,
            }
        }
        true
    }

    fn take(&mut self, message: Message) {
        self.shared.queued.fetch_sub(1, Ordering::Relaxed);
        match message {
            Message::Open { record, slot, audit, reply } => {
                self.asked.push(Asked::Open { record, slot, audit, reply })
            }
            Message::Note { record, slot, bytes, reply } => {
                self.asked.push(Asked::Note { last: Final { record, bytes, _slot: slot }, reply });
            }
            Message::Final(last) => self.finals.push(last),
            Message::Drain { deadline, reply } => self.drain = Some(Drain { deadline, reply }),
        }
    }

    /// Commits all there is, or enters or stays in the failing state.
    fn commit(&mut self) {
        let mut result = self.try_commit();
        // A reader's I/O error also makes redb refuse to go on; that is no reason to refuse anybody.
        if self.retry_at.is_none() && result.as_ref().is_err_and(StoreError::needs_reopening) {
            result = self.try_commit();
        }
        match result {
            Ok(()) => {
                if self.retry_at.take().is_some() {
                    tracing::info!("the audit log can be written again");
                    self.shared.trouble.send_replace(None);
                }
            }
            Err(error) => {
                let reason: Arc<str> = error.to_string().into();
                if self.retry_at.is_none() {
                    tracing::error!(%error, "the audit log cannot be written; everything is refused until it can");
                }
                self.retry_at = Some(Instant::now() + self.retry);
                self.shared.trouble.send_replace(Some(AuditError::Unavailable { reason }));
                self.refuse_asked();
            }
        }
    }

    fn try_commit(&mut self) -> Result<(), StoreError> {
        if self.reopen {
            self.next = Some(self.store.recover(&self.unsure)?);
            self.unsure.clear();
            self.reopen = false;
        }
        let mut next = match self.next {
            Some(next) => next,
            None => self.store.next_id()?,
        };
        while !(self.asked.is_empty() && self.finals.is_empty()) {
            for asked in &mut self.asked {
                asked.record_mut().id = next;
                next = RecordId(next.0 + 1);
            }
            let finals = self.chunk();
            let writes: Vec<Write<'_>> =
                (self.finals.iter().take(finals).map(|last| Write::Final(&last.record)))
                    .chain(self.asked.iter().map(|asked| match asked {
                        Asked::Open { record, .. } => Write::Open(record),
                        Asked::Note { last, .. } => Write::Final(&last.record),
                    }))
                    .collect();
            let written = writes.len() as u64;
            if let Err(error) = self.store.apply(&writes) {
                self.unsure.extend(self.asked.iter().map(|asked| asked.record().id));
                self.reopen = true;
                return Err(error);
            }
            self.next = Some(next);
            self.shared.written.fetch_add(written, Ordering::Relaxed);
            self.answer(finals);
        }
        Ok(())
    }

    /// How many of the final writes go into the next transaction.
    fn chunk(&self) -> usize {
        let mut bytes = 0;
        let fits = |last: &&Final| {
            let room = bytes < BATCH_BYTES;
            bytes += last.bytes;
            room
        };
        self.finals.iter().take(self.batch).take_while(fits).count()
    }

    /// After a commit: answers who asked, frees the slots of what ended, publishes.
    fn answer(&mut self, finals: usize) {
        let mut feed = Vec::new();
        let watched = self.shared.live.receiver_count() > 0;
        let mut show = |record: &Record| {
            if watched {
                feed.push(without_bodies(record));
            }
        };
        let congested = self.shared.congested();
        for last in self.finals.drain(..finals) {
            show(&last.record);
            self.shared.pending_bytes.fetch_sub(last.bytes, Ordering::AcqRel);
        }
        for asked in mem::take(&mut self.asked) {
            // Before the answer: who hears it may let go of the connection.
            self.shared.books.recorded(asked.record());
            show(asked.record());
            match asked {
                Asked::Open { record, slot, audit, reply } => {
                    let id = record.id;
                    // Where nobody waits any more, the entry comes back, is dropped, and so ends as
                    // cancelled.
                    drop(reply.send(Ok(Entry { id, record, ending: Some((slot, audit)) })));
                }
                Asked::Note { last, reply } => {
                    self.shared.pending_bytes.fetch_sub(last.bytes, Ordering::AcqRel);
                    let id = last.record.id;
                    drop(last);
                    drop(reply.send(Ok(id)));
                }
            }
        }
        if congested && !self.shared.congested() {
            // Wakes those who wait for just that.
            self.shared.trouble.send_modify(|_| ());
        }
        for record in feed {
            // An error says that nobody watches.
            drop(self.shared.live.send(record));
        }
    }

    fn refuse_asked(&mut self) {
        if self.asked.is_empty() {
            return;
        }
        let error = self.shared.trouble.borrow().clone().unwrap_or(AuditError::Closed);
        for asked in self.asked.drain(..) {
            if let Asked::Note { last, .. } = &asked {
                self.shared.pending_bytes.fetch_sub(last.bytes, Ordering::AcqRel);
            }
            self.shared.books.refused(asked.record());
            asked.refuse(&error);
        }
    }

    /// Whether the thread is done; answers the drain then.
    fn ended(&mut self, connected: bool) -> bool {
        let unwritten = self.finals.len();
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
        let more = self.retry_at.is_none() && self.shared.queued.load(Ordering::Relaxed) > 0;
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

/// What viewers get: captured bytes would be kept alive by the slowest of them.
fn without_bodies(record: &Record) -> Arc<Record> {
    let mut record = record.clone();
    if let Some(head) = &mut record.request {
        head.body.bytes = bytes::Bytes::new();
    }
    if let Some(head) = &mut record.response {
        head.body.bytes = bytes::Bytes::new();
    }
    Arc::new(record)
}
