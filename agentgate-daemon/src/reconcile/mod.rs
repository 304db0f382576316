//! The balance between what the kernel counted and what is on record, kept while the gate runs and shown
//! on demand.
//!
//! The kernel counts by windows of time (`agentgate_common::tally`), and a record knows its window by the
//! time that the kernel stamped it with. So a window that is over can be balanced exactly, however fast
//! counting goes on in the next, and what a daemon took with it when it was killed is not mixed up with
//! what its successor is about to record. [`Reconciler::keep`] looks at it every second: what the ring
//! buffer lost, what was refused without a record, and what an earlier daemon lost is declared, in a
//! record that says how many. What nothing explains stays as a difference, for good.

mod abandoned;
mod balance;

use std::{
    cmp::Reverse,
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use agentgate_common::tally::{Booked, window};
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{Instant, MissedTickBehavior, interval, timeout_at},
};

use crate::{
    audit::{Audit, AuditError},
    drain::told,
    kernel::{Kernel, KernelError, since_boot_ns},
    model::{Balance, EarlierBalance, Failure, Kind, Loss, Record, State, Timestamp},
    session::Sessions,
    store::{
        Store, StoreError,
        tally::{CLOSED, Class, RING_FULL, TallyRow},
    },
};
pub use abandoned::Why;
use balance::{Finding, Key, Numbers};

/// How often the books are looked at.
const TICK: Duration = Duration::from_secs(1);
/// How long an answer may wait for what is on its way: a window and its margin, and the longest that a
/// connection is looked at before it is recorded.
const PATIENCE: Duration = Duration::from_secs(15);
/// Rows that one answer shows: a line of the control socket has to hold them.
const SHOWN: usize = 1500;
/// A loss whose cause is that a daemon ended without having recorded what it knew of.
const RESTART: &str = "restart";
/// A loss whose cause is that the log could not be written, or that the gate stopped.
const UNRECORDED: &str = "unrecorded";
/// A loss whose cause is that connections ended before they were accepted, and others had their ports.
const REPLACED: &str = "replaced";

/// Why the books cannot be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    #[error("the kernel's counters: {0}")]
    Kernel(#[from] KernelError),
    #[error("the sums of the audit log: {0}")]
    Store(#[from] StoreError),
    #[error("a loss cannot be recorded: {0}")]
    Audit(#[from] AuditError),
    /// A task of ours panicked or was ended.
    #[error("reading the books: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// Keeps the balance.
pub struct Reconciler {
    kernel: Arc<dyn Kernel>,
    store: Arc<Store>,
    audit: Audit,
    sessions: Arc<Sessions>,
    /// The window in which this daemon began: what is missing up to it, an earlier one may have lost.
    began: u32,
    /// Differences seen at the last look. A number is acted on once it was seen twice, because it is put
    /// together from four places one after the other.
    seen: Mutex<HashMap<Key, i64>>,
    looked: watch::Sender<()>,
}

/// What one look found.
struct Look {
    numbers: HashMap<Key, Numbers>,
    /// Events that found the ring buffer full.
    lost: u64,
    /// What found no room in the books.
    unbooked: u64,
    /// Connections whose place another took, by window and session.
    replaced: HashMap<(u32, u64), u64>,
}

impl std::fmt::Debug for Reconciler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reconciler").field("began", &self.began).finish_non_exhaustive()
    }
}

impl Reconciler {
    /// Begins to count records for the epoch of the kernel's counters: to be called before anything is
    /// recorded.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn begin(
        kernel: Arc<dyn Kernel>,
        store: Arc<Store>,
        audit: Audit,
        sessions: Arc<Sessions>,
    ) -> Result<Arc<Self>, StoreError> {
        store.enter_epoch(&kernel.epoch())?;
        Ok(Arc::new(Self {
            kernel,
            store,
            audit,
            sessions,
            began: window(since_boot_ns()),
            seen: Mutex::default(),
            looked: watch::Sender::new(()),
        }))
    }

    /// Looks every second until `drain`.
    pub async fn keep(self: Arc<Self>, mut drain: watch::Receiver<bool>) {
        let began = Instant::now();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = told(&mut drain) => return,
            }
            if let Err(error) = self.look(began.elapsed() >= abandoned::PATIENCE).await {
                tracing::warn!(%error, "the balance of the audit log is not kept");
            }
            self.looked.send_replace(());
        }
    }

    async fn look(self: &Arc<Self>, arrivals_are_late: bool) -> Result<(), ReconcileError> {
        self.declare_unrecorded().await?;
        if arrivals_are_late {
            self.record_abandoned(Why::NeverArrived).await?;
        }
        self.settle(since_boot_ns()).await
    }

    /// The last look of a daemon that stops: what was refused without a record is declared, and the
    /// kernel's numbers are kept.
    ///
    /// # Errors
    /// What could not be done; the next daemon finds it missing.
    pub async fn close(self: &Arc<Self>) -> Result<(), ReconcileError> {
        self.declare_unrecorded().await?;
        let this = self.clone();
        spawn_blocking(move || {
            let counts = balance::kernel_counts(&this.kernel.booked()?);
            Ok(this.store.keep_kernel(&counts)?)
        })
        .await?
    }

    async fn declare_unrecorded(&self) -> Result<(), ReconcileError> {
        let books = self.audit.books();
        let mut first = Ok(());
        for ((session, window), count) in books.take_lost() {
            if first.is_ok() {
                first = self.declare((window, session, Class::Flows), count, UNRECORDED).await;
            }
            if first.is_err() {
                books.put_back(session, window, count);
            }
        }
        first
    }

    /// Declares what is missing from windows that are over, and closes those that balance.
    async fn settle(self: &Arc<Self>, now: u64) -> Result<(), ReconcileError> {
        let this = self.clone();
        let Look { numbers, lost, replaced, .. } =
            spawn_blocking(move || this.numbers(Store::unsettled_tallies)).await??;
        let findings = {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            balance::find(&numbers, now, self.audit.books().told_until(), &mut seen)
        };
        let declared = numbers.get(&(CLOSED, 0, Class::Ring)).map_or(0, |ring| ring.declared);
        let mut budget = lost.saturating_sub(declared);
        let mut close = findings.balanced;
        for Finding { key, missing, over } in findings.missing {
            let (window, session, class) = key;
            let (known, cause) = match class {
                Class::Flows => (replaced.get(&(window, session)).copied().unwrap_or(0), REPLACED),
                Class::Refused(_) | Class::Ring => (budget, RING_FULL),
            };
            let explained = missing.min(known);
            if explained > 0 {
                self.declare(key, explained, cause).await?;
            }
            if cause == RING_FULL {
                budget -= explained;
            }
            let rest = missing - explained;
            if rest > 0 && window <= self.began {
                self.declare(key, rest, RESTART).await?;
            } else if rest > 0 && over {
                tracing::error!(
                    window,
                    session,
                    what = class.code(),
                    missing = rest,
                    "not on record, and nothing says why"
                );
                close.push(window);
            }
        }
        for (key, surplus) in findings.surplus {
            tracing::error!(
                window = key.0,
                session = key.1,
                what = key.2.code(),
                surplus,
                "on record, and the kernel did not count it"
            );
            close.push(key.0);
        }
        if close.is_empty() {
            return Ok(());
        }
        let this = self.clone();
        spawn_blocking(move || this.put_away(&close)).await?
    }

    /// Keeps the kernel's numbers of windows that are over, takes them out of the kernel, and sums up. A
    /// daemon that dies in between finds the rest to be done by what is left.
    fn put_away(&self, windows: &[u32]) -> Result<(), ReconcileError> {
        let mut booked = self.kernel.booked()?;
        booked.retain(|(key, _)| windows.contains(&key.window));
        self.store.keep_kernel(&balance::kernel_counts(&booked))?;
        let keys: Vec<Booked> = booked.iter().map(|(key, _)| *key).collect();
        self.kernel.forget_booked(&keys)?;
        Ok(self.store.close_windows(windows)?)
    }

    /// The numbers of the windows that `rows` reads, and what the kernel says of its losses.
    fn numbers(
        &self,
        rows: impl FnOnce(&Store) -> Result<Vec<TallyRow>, StoreError>,
    ) -> Result<Look, ReconcileError> {
        // The kernel first, and then in the order in which a connection moves on: it may be counted twice
        // while it does, which the next look mends, and is never missed.
        let booked = self.kernel.booked()?;
        let (lost, unbooked) = (self.kernel.lost_events()?, self.kernel.unbooked()?);
        let waiting = self.kernel.pending_flows()?;
        let carried = self.audit.books().carried();
        let rows = rows(&self.store)?;
        let numbers = balance::gather(&balance::kernel_counts(&booked), &waiting, &carried, &rows);
        Ok(Look { numbers, lost, unbooked, replaced: balance::replaced(&booked) })
    }

    /// The balance as soon as nothing is on its way, or at the deadline with what is; with `recount`
    /// compared with the records themselves too.
    ///
    /// # Errors
    /// When counters or log cannot be read.
    pub async fn balance(self: &Arc<Self>, recount: bool) -> Result<Balance, ReconcileError> {
        let deadline = Instant::now() + PATIENCE;
        let mut looked = self.looked.subscribe();
        loop {
            let this = self.clone();
            let found = spawn_blocking(move || this.balance_at(since_boot_ns())).await??;
            let at_rest = found.balanced && found.total.iter().all(|row| row.pending == 0);
            if at_rest || !matches!(timeout_at(deadline, looked.changed()).await, Ok(Ok(()))) {
                let this = self.clone();
                return spawn_blocking(move || this.completed(found, recount)).await?;
            }
        }
    }

    fn balance_at(&self, now: u64) -> Result<Balance, ReconcileError> {
        let Look { numbers, lost, unbooked, .. } = self.numbers(Store::tallies)?;
        let mut rows = balance::rows(&numbers, now, self.audit.books().told_until());
        let total = balance::total(&rows);
        // What the kernel could not count it cannot be asked for: nobody knows whether the log holds it.
        let balanced = unbooked == 0 && rows.iter().all(|row| row.difference == 0);
        rows.sort_by_key(|row| (row.difference == 0, row.pending == 0, Reverse(row.kernel)));
        let left_out = rows.len().saturating_sub(SHOWN);
        rows.truncate(SHOWN);
        for row in &mut rows {
            row.name = self.store.session_name(row.session)?;
        }
        let epoch = self.kernel.epoch();
        Ok(Balance {
            at: Timestamp::now(),
            epoch,
            rows,
            left_out: u64::try_from(left_out).unwrap_or(u64::MAX),
            total,
            lost_events: lost,
            unbooked,
            miscounts: None,
            earlier: Vec::new(),
            balanced,
        })
    }

    fn completed(&self, mut found: Balance, recount: bool) -> Result<Balance, ReconcileError> {
        for epoch in self.store.earlier_tallies()? {
            let numbers = balance::gather(&[], &[], &HashMap::new(), &epoch.rows);
            let total = balance::total(&balance::rows(&numbers, u64::MAX, u64::MAX));
            found.earlier.push(EarlierBalance { epoch: epoch.name, total });
        }
        if recount {
            let miscounts = self.store.recount()?;
            found.balanced &= miscounts.is_empty();
            found.miscounts = Some(miscounts);
        }
        Ok(found)
    }

    async fn declare(
        &self,
        (window, session, class): Key,
        count: u64,
        cause: &str,
    ) -> Result<(), ReconcileError> {
        let name = self.store.session_name(session).ok().flatten();
        let who = name.unwrap_or_else(|| format!("number {session}"));
        let what = match class {
            Class::Flows => "connections".to_owned(),
            Class::Refused(_) | Class::Ring => format!("refusals ({})", class.code()),
        };
        let why = match cause {
            RING_FULL => "the kernel's buffer of events was full",
            REPLACED => "they ended before they were accepted, and others came from the same ports",
            RESTART => "the gate ended before it had recorded them, or none ran",
            _ => "they were refused while the audit log could not take a record, or the gate stopped",
        };
        let mut record = Record::new(Kind::Kernel, Timestamp::now());
        record.state = State::Failed;
        record.protocol = "loss".to_owned();
        record.times = count;
        record.note = Some(format!("{count} {what} of session {who} are not on record: {why}"));
        record.failure =
            Some(Failure { blame: "gate".into(), code: format!("lost_{cause}"), detail: why.into() });
        record.loss = Some(Loss { session, window, what: class.code().into(), cause: cause.into() });
        tracing::warn!(window, session, count, what = class.code(), cause, "declared as lost");
        self.audit.note(record).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
