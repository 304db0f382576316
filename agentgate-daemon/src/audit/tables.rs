//! The thread that brings into the tables what the journal has, so that who waits for the journal does not
//! wait for them.

use std::{
    collections::HashMap,
    io,
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
        let before = match open {
            true => self.open.get(&id).copied(),
            // Nearly all are over, and their beginnings nowhere.
            false if self.open.is_empty() => None,
            false => self.open.remove(&id),
        };
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
}

/// What is handed over at once.
pub(super) struct Round {
    pub(super) behind: Behind,
    /// The store has segments of its text index.
    pub(super) segments: bool,
    /// Who waits for the tables.
    pub(super) waiting: Vec<mpsc::SyncSender<()>>,
}

impl Round {
    /// Writes it. After an error, which does not say what of it is there, it can be done again: by itself, so
    /// that nothing is written twice.
    pub(super) fn take(&self, store: &Store) -> Result<(), StoreError> {
        if self.behind.since.is_some() {
            store.take_round(self.behind.entries(), self.behind.sequence)?;
        }
        if self.segments { store.write_segments() } else { Ok(()) }
    }
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
    /// The tables have not, or not all of it.
    Back(StoreError, Round),
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
                let taken = round.take(&store);
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

    /// Hands over a round; only where nothing is away.
    pub(super) fn hand_over(&mut self, round: Round) {
        let round = Arc::new(round);
        self.away = Some(round.clone());
        if let Some(rounds) = &self.rounds {
            // Where the thread is gone, the next look says so.
            drop(rounds.send(round));
        }
    }

    /// What came of it; with `wait` it is over when this returns.
    pub(super) fn look(&mut self, wait: bool) -> Came {
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
            Err(error) => Came::Back(error, round),
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
