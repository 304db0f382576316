//! A continuous copy of the log as lines in files, for pipelines that read files: `[audit.mirror]`.
//!
//! It walks the log by position, from the tables, so that no line depends on a feed that may lag. How far
//! it came is in a file beside the mirror ([`place`]), written after the lines are on the disk: what it says
//! is there, and lines beyond it, of a mirror that was killed, are compared with what the log gives again,
//! so each record has its line once.
//!
//! **Trouble.** Where a file cannot be written, the mirror stays where it is, says so in status and log, and
//! tries again; the log goes on without it and keeps the lines. Retention waits for it, up to the bound in
//! bytes; only what that takes out of the log is lost to the mirror, which says how much it is.
//!
//! **Rotation.** By size or age the file is renamed to `NAME-TIME-ENTRY.EXT`, and compressed beside it; a
//! compressed file is whole when it has its name. Files are 0600.

mod file;
mod place;
mod rotate;

#[cfg(test)]
mod tests;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{sync::watch, task::spawn_blocking, time};

use super::{
    Format, FormatError, Formatter,
    pages::{From, Pages, Wanted},
};
use crate::{
    model::{Compress, Timestamp},
    store::{Store, StoreError, retention::Readers},
};
use file::Lines;
use place::Place;

/// How often it looks for entries: as often as the tables get some.
const TICK: Duration = Duration::from_secs(1);
/// Longest time between attempts while something is wrong.
const PATIENCE: Duration = Duration::from_secs(30);

/// What to mirror, and where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The file that is written to.
    pub path: PathBuf,
    /// One that is read line by line.
    pub format: Format,
    /// Bytes after which a file is full; 0: never.
    pub rotate_bytes: u64,
    /// Hours after which a file is closed; 0: never.
    pub rotate_hours: u64,
    pub compress: Compress,
    /// Closed files that are kept; 0: all.
    pub keep: usize,
    pub bodies: bool,
}

/// How the mirror does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub path: PathBuf,
    /// The next entry to mirror.
    pub next: u64,
    /// Entries that wait.
    pub behind: u64,
    /// Entries that were pruned before they were mirrored, and that cannot be read.
    pub lost: u64,
    /// Whether retention waits for it.
    #[serde(default)]
    pub waited_for: bool,
    /// What is wrong, and since when.
    pub error: Option<String>,
    pub since: Option<Timestamp>,
}

/// Why the mirror does not go on.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Format(#[from] FormatError),
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> MirrorError + '_ {
    |source| MirrorError::File { path: path.to_owned(), source }
}

/// A mirror.
#[derive(Clone, Debug)]
pub struct Mirror {
    report: Arc<Mutex<Report>>,
    work: Arc<Mutex<Work>>,
    readers: Arc<Readers>,
}

impl Mirror {
    /// One of `store`; nothing is done yet.
    #[must_use]
    pub fn new(store: Arc<Store>, settings: Settings) -> Self {
        let report = Report { path: settings.path.clone(), ..Report::default() };
        let work = Work { store, settings, state: None, lost: 0 };
        let readers = Arc::<Readers>::default();
        readers.came_to(work.next(), work.settings.bodies);
        Self { report: Arc::new(Mutex::new(report)), work: Arc::new(Mutex::new(work)), readers }
    }

    /// How far it came, for retention: what it has not written yet stays as long as there is room.
    #[must_use]
    pub fn readers(&self) -> Arc<Readers> {
        self.readers.clone()
    }

    /// How it does.
    #[must_use]
    pub fn report(&self) -> Report {
        let report = self.report.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Report { waited_for: self.readers.is_waited_for(), ..report }
    }

    /// Mirrors until the drain, and what there is then.
    pub async fn run(self, mut drain: watch::Receiver<bool>) {
        let mut wait = TICK;
        loop {
            let ending = *drain.borrow();
            let mirror = self.clone();
            let done = spawn_blocking(move || mirror.step()).await;
            match done {
                Ok(true) => wait = TICK,
                Ok(false) => wait = (wait * 2).min(PATIENCE),
                Err(error) => {
                    tracing::error!(%error, "the mirror of the audit log ends");
                    return;
                }
            }
            if ending {
                return;
            }
            tokio::select! {
                () = time::sleep(wait) => {}
                changed = drain.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Mirrors what there is; false where something is wrong.
    pub fn step(&self) -> bool {
        let mut work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        let done = work.catch_up();
        let (next, end) = (work.next(), work.end());
        self.readers.came_to(next, work.settings.bodies);
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        (report.next, report.behind, report.lost) = (next, end.saturating_sub(next), work.lost);
        match done {
            Ok(()) => {
                if report.error.take().is_some() {
                    tracing::info!(path = %report.path.display(), "the mirror of the audit log goes on");
                }
                report.since = None;
                true
            }
            Err(error) => {
                // What was written and not told of is found again.
                work.state = None;
                let text = error.to_string();
                if report.error.as_ref() != Some(&text) {
                    let behind = report.behind;
                    tracing::error!(%error, behind, "the mirror of the audit log falls behind");
                }
                report.since.get_or_insert_with(Timestamp::now);
                report.error = Some(text);
                false
            }
        }
    }
}

#[derive(Debug)]
struct Work {
    store: Arc<Store>,
    settings: Settings,
    /// `None` before the first step, and after trouble.
    state: Option<State>,
    lost: u64,
}

#[derive(Debug)]
struct State {
    place: Place,
    lines: Lines,
    pages: Pages,
    formatter: Formatter,
}

impl Work {
    fn next(&self) -> u64 {
        let open = self.state.as_ref().map(|state| state.place.next);
        open.unwrap_or_else(|| Place::read(&self.settings.path).ok().flatten().map_or(0, |place| place.next))
    }

    fn end(&self) -> u64 {
        self.store.walk_settled().map_or(0, |walk| walk.end())
    }

    fn catch_up(&mut self) -> Result<(), MirrorError> {
        let mut state = match self.state.take() {
            Some(state) if state.lines.is_in_place() => state,
            Some(_) | None => self.open()?,
        };
        loop {
            if state.is_due(&self.settings) {
                state = self.rotate(state)?;
            }
            let mut text = Vec::new();
            if state.place.length == 0 {
                state.formatter.begin(&mut text);
            }
            let formatter = &mut state.formatter;
            let turned = state.pages.turn(|row| {
                let before = text.len();
                formatter.row(&row, &mut text)?;
                Ok::<_, MirrorError>(text.len() - before)
            })?;
            if turned.next > state.place.next {
                state.lines.put(&text)?;
                state.lines.sync()?;
                state.place.length = state.lines.length();
                state.place.next = turned.next;
                state.place.write(&self.settings.path)?;
            }
            let (pruned, unreadable) = (turned.pruned, turned.unreadable);
            if pruned + unreadable > 0 {
                self.lost += pruned + unreadable;
                tracing::error!(pruned, unreadable, "entries of the audit log are missing in its mirror");
            }
            if turned.is_over() {
                break;
            }
        }
        self.state = Some(state);
        Ok(())
    }

    /// Goes on where the mirror was left.
    fn open(&self) -> Result<State, MirrorError> {
        let settings = &self.settings;
        let found = Place::read(&settings.path)?;
        rotate::tidy(settings)?;
        let place = match found {
            // Lines of another form do not go into one file.
            Some(place) if place.format != settings.format.as_str() => {
                if settings.path.exists() {
                    rotate::close(settings, &place)?;
                }
                Place::begin(settings.format, place.next)
            }
            Some(place) if settings.path.exists() => place,
            // It was rotated before the place was written, or somebody moved it.
            Some(place) => Place::begin(settings.format, place.next),
            None => {
                if settings.path.exists() {
                    // Not one of ours: it stays, under another name.
                    rotate::close(settings, &Place::begin(settings.format, 0))?;
                }
                Place::begin(settings.format, 0)
            }
        };
        self.state(place)
    }

    fn state(&self, mut place: Place) -> Result<State, MirrorError> {
        let settings = &self.settings;
        // Before the file is made: a file without a place is not the mirror's.
        place.write(&settings.path)?;
        let lines = Lines::open(&settings.path, place.length)?;
        place.length = lines.length();
        let wanted = Wanted { bodies: settings.bodies, ..Wanted::default() };
        let pages = Pages::new(From::Settled(self.store.clone()), wanted, place.next);
        Ok(State { place, lines, pages, formatter: Formatter::new(settings.format, settings.bodies)? })
    }

    fn rotate(&self, state: State) -> Result<State, MirrorError> {
        let State { place, lines, .. } = state;
        drop(lines);
        rotate::close(&self.settings, &place)?;
        rotate::tidy(&self.settings)?;
        self.state(Place::begin(self.settings.format, place.next))
    }
}

impl State {
    fn is_due(&self, settings: &Settings) -> bool {
        let age = Timestamp::now().since(self.place.began);
        let old = settings.rotate_hours > 0 && age >= settings.rotate_hours.saturating_mul(3_600_000_000);
        let full = settings.rotate_bytes > 0 && self.place.length >= settings.rotate_bytes;
        self.place.length > 0 && (old || full)
    }
}
