//! The thread that brings into the tables what the journal has, so that who waits for the journal does not
//! wait for them.

use std::{
    collections::HashMap,
    io, mem,
    sync::{Arc, mpsc},
    thread,
    time::Instant,
};

use super::Shared;
use crate::{
    model::RecordId,
    store::{self, Store, StoreError},
};

/// Entries that the journal has and the tables have not.
#[derive(Default)]
pub(super) struct Behind {
    entries: Vec<store::Entry>,
    /// Where the open ones are, by id.
    open: HashMap<u64, usize>,
    pub(super) bytes: u64,
    /// Captured bytes among them.
    pub(super) captured: u64,
    /// When the first came.
    pub(super) since: Option<Instant>,
    /// Last sequence of the journal.
    pub(super) sequence: u64,
}

impl Behind {
    /// A version takes the place of the one before it, where the tables have not had that.
    pub(super) fn add(&mut self, entry: store::Entry, open: bool) {
        self.since.get_or_insert_with(Instant::now);
        self.bytes += entry.size();
        let id = entry.id().0;
        let before = if open { self.open.get(&id).copied() } else { self.open.remove(&id) };
        if let Some(place) = before.and_then(|at| self.entries.get_mut(at)) {
            self.bytes = self.bytes.saturating_sub(place.size());
            *place = entry;
            return;
        }
        if open {
            self.open.insert(id, self.entries.len());
        }
        self.entries.push(entry);
    }

    /// A record that is open here.
    pub(super) fn open(&self, id: RecordId) -> Option<&store::Entry> {
        self.open.get(&id.0).and_then(|at| self.entries.get(*at))
    }

    pub(super) fn entries(&self) -> &[store::Entry] {
        &self.entries
    }

    /// Puts back what came before it.
    fn put_back(&mut self, round: Self) {
        let later = mem::replace(self, round);
        for entry in later.entries {
            let id = entry.id().0;
            self.open.remove(&id);
            if later.open.contains_key(&id) {
                self.open.insert(id, self.entries.len());
            }
            self.entries.push(entry);
        }
        self.bytes += later.bytes;
        self.captured += later.captured;
        self.sequence = self.sequence.max(later.sequence);
    }
}

/// What is handed over at once.
struct Round {
    behind: Behind,
    /// Who waits for the tables.
    waiting: Vec<mpsc::SyncSender<()>>,
}

/// The writer's side of the thread.
pub(super) struct Tables {
    /// `None` once it is to end.
    rounds: Option<mpsc::SyncSender<Arc<Round>>>,
    results: mpsc::Receiver<Result<(), StoreError>>,
    /// What it has.
    away: Option<Arc<Round>>,
    thread: Option<thread::JoinHandle<()>>,
}

/// What came of a round.
pub(super) enum Came {
    /// None is away.
    Nothing,
    /// It is not done yet.
    NotYet,
    /// The tables have it: so many captured bytes.
    Taken(u64),
    /// The tables have not: it is back, as are those who wait.
    Back(StoreError, Vec<mpsc::SyncSender<()>>),
    /// The thread is gone.
    Gone,
}

/// The thread's side.
struct Reports {
    /// `None` once the thread is gone.
    results: Option<mpsc::Sender<Result<(), StoreError>>>,
    shared: Arc<Shared>,
}

impl Reports {
    fn say(&self, taken: Result<(), StoreError>) {
        if let Some(results) = &self.results {
            // A writer that is gone has no use for it.
            let _unheard = results.send(taken);
        }
        self.shared.queue.nudge();
    }
}

impl Drop for Reports {
    /// Also where the thread panics: whoever is nudged finds it gone.
    fn drop(&mut self) {
        self.results = None;
        self.shared.queue.nudge();
    }
}

impl Tables {
    /// Starts the thread.
    pub(super) fn start(store: Arc<Store>, shared: Arc<Shared>) -> io::Result<Self> {
        let (rounds, given) = mpsc::sync_channel::<Arc<Round>>(1);
        let (results, came) = mpsc::channel();
        let reports = Reports { results: Some(results), shared };
        let run = move || {
            // Moved as a whole, so that it is dropped as such.
            let reports = reports;
            while let Ok(round) = given.recv() {
                let taken = store.take_round(round.behind.entries(), round.behind.sequence);
                if taken.is_ok() {
                    for done in &round.waiting {
                        // It may have given up.
                        let _unheard = done.send(());
                    }
                }
                // The writer is the only one to hold it then.
                drop(round);
                reports.say(taken);
            }
        };
        let thread = thread::Builder::new().name("audit-tables".into()).spawn(run)?;
        Ok(Self { rounds: Some(rounds), results: came, away: None, thread: Some(thread) })
    }

    /// A record that is open in what is away.
    pub(super) fn open(&self, id: RecordId) -> Option<&store::Entry> {
        self.away.as_ref()?.behind.open(id)
    }

    pub(super) fn are_busy(&self) -> bool {
        self.away.is_some()
    }

    /// Hands over all that is behind; only where nothing is away.
    pub(super) fn hand_over(&mut self, behind: Behind, waiting: Vec<mpsc::SyncSender<()>>) {
        let round = Arc::new(Round { behind, waiting });
        self.away = Some(round.clone());
        if let Some(rounds) = &self.rounds {
            // Where the thread is gone, the next look says so.
            drop(rounds.send(round));
        }
    }

    /// What came of it; with `wait` it is over when this returns. Where it came back it is in `behind`.
    pub(super) fn look(&mut self, wait: bool, behind: &mut Behind) -> Came {
        if self.away.is_none() {
            return Came::Nothing;
        }
        let result = if wait {
            self.results.recv().map_err(|_gone| mpsc::TryRecvError::Disconnected)
        } else {
            self.results.try_recv()
        };
        let taken = match result {
            Ok(taken) => taken,
            Err(mpsc::TryRecvError::Empty) => return Came::NotYet,
            Err(mpsc::TryRecvError::Disconnected) => return Came::Gone,
        };
        let Some(round) = self.away.take().and_then(Arc::into_inner) else { return Came::Gone };
        match taken {
            Ok(()) => Came::Taken(round.behind.captured),
            Err(error) => {
                behind.put_back(round.behind);
                Came::Back(error, round.waiting)
            }
        }
    }
}

impl Drop for Tables {
    fn drop(&mut self) {
        self.rounds = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the audit log's tables panicked");
        }
    }
}
