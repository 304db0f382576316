//! The thread that indexes.

use std::{
    sync::{Arc, PoisonError},
    thread,
    time::Duration,
};

use super::{Builder, Reading, State, StoreError, Text};
use crate::{
    model::TextIndex,
    store::{
        Store,
        error::unharmed,
        order::{Placed, Walk},
    },
    words::{Token, in_bodies, in_heads},
};

/// Segments that are whole and not in the tables: the thread waits where there are more.
const WHOLE: usize = 2;
/// How long it waits after an error, where no commit comes before.
const RETRY: Duration = Duration::from_secs(10);
/// Lower than anything that serves; as nice(2).
const NICE: i32 = 19;

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
        self.store.text.state().stopping = true;
        self.store.text.changed.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the text index panicked");
        }
        let mut state = self.store.text.state();
        // What is not in the tables is built again by the next.
        *state = State { mode: state.mode, ..State::default() };
    }
}

/// Why the thread stops what it does.
enum Stop {
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
    // A thread's own priority, on Linux. Where it cannot be had, the index is built all the same.
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::warn!(%error, "the text index is built at the priority of everything else");
    }
    let mut told = false;
    loop {
        match unharmed(|| Ok(follow(store, mode))).unwrap_or_else(|error| Err(Stop::Error(error))) {
            Ok(()) | Err(Stop::End) => return,
            Err(Stop::Again) => told = false,
            Err(Stop::Error(error)) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::error!(%error, "the text index is not up to date");
                }
                let state = store.text.state();
                let waited = store
                    .text
                    .changed
                    .wait_timeout_while(state, RETRY, |state| !state.stopping && !state.reset);
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
    let (mut at, mut below) = {
        text.state().reset = false;
        frontier(&Reading::of(&store.snapshot()?)?, mode)?
    };
    {
        let mut state = text.state();
        (state.builder, state.indexed) = (None, at);
    }
    loop {
        let seen = text.state().commits;
        let mut walk = store.walk_settled()?;
        while let Some(stretch) = walk.stretch(at)? {
            for entry in &stretch.entries {
                below = begin(store, entry.n, below, mode)?;
                index(text, &mut walk, entry, mode)?;
                if text.state().builder.as_ref().is_some_and(Builder::is_full) {
                    below = close(store)?;
                }
            }
            at = stretch.next;
        }
        text.state().indexed = at;
        text.changed.notify_all();
        let state = text.state();
        let state =
            text.changed.wait_while(state, |state| state.commits == seen && !state.stopping && !state.reset);
        check(&state.unwrap_or_else(PoisonError::into_inner))?;
    }
}

fn check(state: &State) -> Result<(), Stop> {
    if state.stopping {
        return Err(Stop::End);
    }
    if state.reset { Err(Stop::Again) } else { Ok(()) }
}

/// Sees to it that the segment under way goes on with the entry `n`; `below` is the highest id that began
/// before. Returns that.
fn begin(store: &Store, n: u64, below: u64, mode: TextIndex) -> Result<u64, Stop> {
    let mut state = store.text.state();
    check(&state)?;
    let (to, empty) = match &state.builder {
        Some(builder) if builder.bounds().to == n => return Ok(below),
        Some(builder) => (builder.bounds().to, builder.bounds().to == builder.bounds().from),
        None => (n, true),
    };
    let mut below = below;
    if !empty {
        // Entries from `to` on are not there any more, or cannot be read.
        tracing::debug!(from = to, to = n, "a segment of the text index ends early");
        drop(state);
        below = close(store)?;
        state = store.text.state();
        check(&state)?;
    }
    state.builder = Some(Builder::new(n, below, mode == TextIndex::Bodies));
    Ok(below)
}

/// Adds an entry to the segment under way.
fn index(text: &Text, walk: &mut Walk, entry: &Placed, mode: TextIndex) -> Result<(), Stop> {
    let record = entry.record();
    let bodies = match mode {
        TextIndex::Bodies => walk.bodies(entry),
        TextIndex::Heads | TextIndex::Off => Ok([None, None]),
    };
    let mut state = text.state();
    // It may have been taken away meanwhile.
    let Some(builder) = state.builder.as_mut() else { return Err(Stop::Again) };
    builder.begin(entry.id().0);
    let builder = std::cell::RefCell::new(builder);
    let mut add = |token: Token<'_>| match token {
        Token::Word(word) | Token::Also(word) => builder.borrow_mut().add(word),
        Token::Gap => {}
    };
    if let Ok(record) = &record {
        in_heads(record, &mut add);
        if let Ok(bodies) = &bodies {
            let bodies = bodies.each_ref().map(|body| body.as_deref());
            in_bodies(record, bodies, &mut |bytes| builder.borrow_mut().begin_text(bytes), &mut add);
        }
    }
    for error in [record.err(), bodies.err()].into_iter().flatten() {
        if !matches!(error, StoreError::Malformed { .. }) {
            return Err(Stop::Error(error));
        }
        // Who looks into it meets the same.
        builder.borrow_mut().is_partial();
    }
    Ok(())
}

/// Makes the segment under way whole and hands it on; returns the highest id that began before its end.
fn close(store: &Store) -> Result<u64, Stop> {
    let text = &store.text;
    let builder = {
        let mut state = text.state();
        let Some(builder) = state.builder.take().map(Arc::new) else { return Err(Stop::Again) };
        // The next begins where it ends, so that there is always one.
        let (bounds, highest) = (builder.bounds(), builder.highest());
        state.builder = Some(Builder::new(bounds.to, highest, builder.has_bodies()));
        state.closing = Some(builder.clone());
        builder
    };
    let segment = builder.finish().map_err(StoreError::Packing)?;
    let mut state = text.state();
    check(&state)?;
    state.closing = None;
    state.whole.push(Arc::new(segment));
    drop(state);
    store.ask_for_segments();
    let state = text.state();
    let full = |state: &mut State| state.whole.len() >= WHOLE && !state.stopping && !state.reset;
    check(&text.changed.wait_while(state, full).unwrap_or_else(PoisonError::into_inner))?;
    Ok(builder.highest())
}
