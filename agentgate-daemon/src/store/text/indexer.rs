//! The thread that indexes.

use std::{
    sync::{Arc, PoisonError, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use super::{Builder, Growing, Reading, State, StoreError, Text, lag::Lag, pacer::Pace, scribe::Scribe};
use crate::{
    model::TextIndex,
    store::{
        Store,
        error::unharmed,
        order::{Placed, Walk},
    },
};

/// Segments that are whole and not in the tables: the thread waits where there are more.
const WHOLE: usize = 2;
/// How long it waits after an error, where no commit comes before.
const RETRY: Duration = Duration::from_secs(10);
/// How long it looks at one snapshot: pages that others free meanwhile stay in the file.
const SNAPSHOT: Duration = Duration::from_secs(1);

/// Keeps the index up to date, until it is dropped.
#[derive(Debug)]
pub struct Indexer {
    store: Arc<Store>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Indexer {
    /// Starts the thread; with [`TextIndex::Off`] there is none. Where the system gives no thread, records
    /// are looked through without an index, and the log says so.
    #[must_use]
    pub fn start(store: Arc<Store>, mode: TextIndex) -> Self {
        store.text.state().mode = mode;
        let thread = match mode {
            TextIndex::Off => None,
            TextIndex::Heads | TextIndex::Bodies => {
                let store = store.clone();
                let thread = thread::Builder::new().name("text".into()).spawn(move || run(&store, mode));
                thread.inspect_err(|error| tracing::error!(%error, "the text index cannot be built")).ok()
            }
        };
        Self { store, thread }
    }
}

impl Drop for Indexer {
    fn drop(&mut self) {
        self.store.text.interrupt(|state| state.stopping = true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the text index panicked");
        }
        // What is not in the tables is built again by the next.
        *self.store.text.growing() = Growing::default();
        let mut state = self.store.text.state();
        *state = State { mode: state.mode, ..State::default() };
    }
}

/// Why the thread stops what it does.
#[derive(Debug)]
pub(super) enum Stop {
    /// For good.
    End,
    /// To begin again with what the tables have.
    Again,
    Error(StoreError),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Error(error)
    }
}

fn run(store: &Store, mode: TextIndex) {
    store.text.pacer.enter();
    try_for_good(store, mode);
    store.text.pacer.leave();
}

fn try_for_good(store: &Store, mode: TextIndex) {
    let text = &store.text;
    let mut told = false;
    loop {
        let outcome = unharmed(|| Ok(follow(store, mode))).unwrap_or_else(|error| Err(Stop::Error(error)));
        text.pacer.rest(Pace::Normal);
        match outcome {
            Ok(()) | Err(Stop::End) => return,
            Err(Stop::Again) => told = false,
            Err(Stop::Error(error)) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::error!(%error, "the text index is not up to date");
                }
                let state = text.state();
                let waited =
                    text.changed.wait_timeout_while(state, RETRY, |state| !state.stopping && !state.reset);
                if waited.unwrap_or_else(PoisonError::into_inner).0.stopping {
                    return;
                }
            }
        }
    }
}

/// Where the index ends: the entry, and the highest id that began before. Segments of another mode or
/// version do not count.
pub(super) fn frontier(reading: &Reading, mode: TextIndex) -> Result<(u64, u64), StoreError> {
    let (mut at, mut below) = (0, 0);
    let mut first = true;
    while let Some((from, head)) = reading.first_from(at)? {
        let fits = |bodies: bool| bodies == (mode != TextIndex::Heads);
        let Some(head) = head.filter(|head| fits(head.bodies) && (first || from == at)) else { break };
        (at, below, first) = (head.bounds.to, head.highest(), false);
    }
    Ok((at, below))
}

/// Indexes what there is, and then what comes.
fn follow(store: &Store, mode: TextIndex) -> Result<(), Stop> {
    let text = &store.text;
    {
        let mut state = text.state();
        if state.stopping {
            return Err(Stop::End);
        }
        text.interrupted.store(false, Ordering::SeqCst);
        state.reset = false;
    }
    let (at, below) = frontier(&Reading::of(&store.snapshot()?)?, mode)?;
    *text.growing() = Growing::default();
    text.state().indexed = at;
    let mut follower =
        Follower { store, mode, at, below, scribe: Scribe::new(), lag: Lag::new(Instant::now()) };
    loop {
        follower.catch_up()?;
    }
}

struct Follower<'s> {
    store: &'s Store,
    mode: TextIndex,
    /// Entries before this one are indexed.
    at: u64,
    /// The highest id that began before.
    below: u64,
    scribe: Scribe,
    lag: Lag,
}

impl Follower<'_> {
    /// Indexes what there is, and waits for more.
    fn catch_up(&mut self) -> Result<(), Stop> {
        let text = &self.store.text;
        let seen = text.state().commits;
        let (mut walk, mut taken) = (self.walk()?, Instant::now());
        while let Some(stretch) = walk.stretch(self.at)? {
            for entry in &stretch.entries {
                let now = Instant::now();
                self.pace(entry.n, walk.end(), now);
                if now.duration_since(taken) >= SNAPSHOT {
                    (walk, taken) = (self.renewed(walk)?, now);
                }
                self.index(&mut walk, entry)?;
            }
            self.at = stretch.next;
            self.done()?;
        }
        // Until there is more it is not idle, so that what it holds when it wakes is not held for long.
        text.pacer.rest(Pace::Normal);
        self.lag.goal(self.at, walk.end(), Instant::now());
        drop(walk);
        self.done()?;
        let state = text.state();
        let state =
            text.changed.wait_while(state, |state| state.commits == seen && !state.stopping && !state.reset);
        check(&state.unwrap_or_else(PoisonError::into_inner))
    }

    fn walk(&self) -> Result<Walk, Stop> {
        Ok(self.store.walk_settled()?.paced(self.store.text.pacer.clone()))
    }

    /// A walk of what there is now.
    fn renewed(&self, walk: Walk) -> Result<Walk, Stop> {
        let _hurried = self.store.text.pacer.hurry();
        drop(walk);
        self.walk()
    }

    /// Chooses how much the thread counts, before the entry `at` of as many as `end`.
    fn pace(&mut self, at: u64, end: u64, now: Instant) {
        let text = &self.store.text;
        let goal = self.lag.goal(at, end, now);
        text.pacer.rest(match () {
            () if at < text.wanted.load(Ordering::SeqCst) => Pace::Normal,
            () if at < goal => Pace::Low,
            () => Pace::Idle,
        });
    }

    /// Tells how far it is.
    fn done(&self) -> Result<(), Stop> {
        let text = &self.store.text;
        let _hurried = text.pacer.hurry();
        let mut state = text.state();
        check(&state)?;
        state.indexed = self.at;
        drop(state);
        text.changed.notify_all();
        Ok(())
    }

    fn index(&mut self, walk: &mut Walk, entry: &Placed) -> Result<(), Stop> {
        let text = &self.store.text;
        if text.interrupted.load(Ordering::SeqCst) {
            let _hurried = text.pacer.hurry();
            check(&text.state())?;
        }
        self.begin(entry.n)?;
        self.scribe.add(text, walk, entry, self.mode)?;
        self.below = self.below.max(entry.id().0);
        if held(text).builder.as_ref().is_some_and(Builder::is_full) {
            self.close()?;
        }
        Ok(())
    }

    /// Sees to it that the segment under way goes on with the entry `n`.
    fn begin(&mut self, n: u64) -> Result<(), Stop> {
        let text = &self.store.text;
        let bounds = held(text).builder.as_ref().map(|builder| (builder.bounds().from, builder.bounds().to));
        match bounds {
            Some((_, to)) if to == n => return Ok(()),
            Some((from, to)) if from < to => {
                // Entries from `to` on are not there any more, or cannot be read.
                tracing::debug!(from = to, to = n, "a segment of the text index ends early");
                self.close()?;
            }
            Some(_) | None => {}
        }
        self.scribe.forget();
        held(text).builder = Some(Builder::new(n, self.below, self.mode == TextIndex::Bodies));
        Ok(())
    }

    /// Makes the segment under way whole and hands it on.
    fn close(&mut self) -> Result<(), Stop> {
        let text = &self.store.text;
        self.scribe.forget();
        let builder = {
            let mut growing = held(text);
            let Some(builder) = growing.builder.take().map(Arc::new) else { return Err(Stop::Again) };
            // The next begins where it ends, so that there is always one.
            let (bounds, highest) = (builder.bounds(), builder.highest());
            growing.builder = Some(Builder::new(bounds.to, highest, builder.has_bodies()));
            growing.closing = Some(builder.clone());
            builder
        };
        self.below = builder.highest();
        let segment = builder.finish().map_err(StoreError::Packing)?;
        let _hurried = text.pacer.hurry();
        {
            let mut state = text.state();
            check(&state)?;
            state.whole.push(Arc::new(segment));
        }
        held(text).closing = None;
        self.store.ask_for_segments();
        let state = text.state();
        let full = |state: &mut State| state.whole.len() >= WHOLE && !state.stopping && !state.reset;
        check(&text.changed.wait_while(state, full).unwrap_or_else(PoisonError::into_inner))
    }
}

/// Segments that are not whole, for the thread.
fn held(text: &Text) -> std::sync::MutexGuard<'_, Growing> {
    text.growing.lock().unwrap_or_else(PoisonError::into_inner)
}

fn check(state: &State) -> Result<(), Stop> {
    if state.stopping {
        return Err(Stop::End);
    }
    if state.reset { Err(Stop::Again) } else { Ok(()) }
}
