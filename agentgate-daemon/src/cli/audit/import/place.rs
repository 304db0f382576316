//! Where the log is made, and how it comes to its place.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    thread,
};

use rustix::fs::{CWD, OFlags, RenameFlags};

use super::super::{
    super::Failure,
    upkeep::{beside, settled, unusable},
};
use crate::{
    model::Timestamp,
    store::{Store, StoreError},
};

/// The directory of an import that is under way: whoever ends the process takes it out.
static UNDER_WAY: Mutex<Option<PathBuf>> = Mutex::new(None);
/// Exit code of a process that was ended by the terminal.
const INTERRUPTED: i32 = 130;

/// A directory beside the place, for this import alone; taken out when this goes.
pub(super) struct Place {
    path: PathBuf,
    directory: PathBuf,
    /// Locked, so that another import does not take it for one that was broken off.
    _lock: fs::File,
    /// A log without entries that is in the place; held, so that no gate begins to use it.
    empty: Option<Store>,
    had_key: bool,
}

impl Place {
    pub(super) fn prepare(path: &Path) -> Result<Self, Failure> {
        let journal = path.with_extension("journal");
        let empty = if fs::symlink_metadata(path).is_ok() {
            let store = Store::open(path)?;
            if !store.is_empty()? {
                return Err(StoreError::Exists { path: path.to_owned() }.into());
            }
            Some(store)
        } else if journal.exists() {
            return Err(StoreError::Exists { path: journal }.into());
        } else {
            None
        };
        let directory = beside(path, "import");
        let lock = make(&directory)?;
        *UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner) = Some(directory.clone());
        let mut place = Self { path: path.to_owned(), directory, _lock: lock, empty, had_key: false };
        let key = path.with_extension("key");
        if key.exists() {
            // A key that is there and in use for no log signs this one.
            fs::copy(&key, place.store().with_extension("key")).map_err(unusable(&key))?;
            place.had_key = true;
        }
        Ok(place)
    }

    /// The log, while it is made.
    pub(super) fn store(&self) -> PathBuf {
        self.directory.join("audit.redb")
    }

    /// Puts the log, which is closed, in its place. Returns what was there and is kept.
    pub(super) fn put(mut self) -> Result<Vec<PathBuf>, Failure> {
        let made = self.store();
        fs::File::open(&made).and_then(|file| file.sync_all()).map_err(unusable(&made))?;
        // From here on it is not broken off.
        let mut under_way = UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Timestamp::now().0 / 1_000_000;
        let mut aside = Vec::new();
        if self.empty.is_some() {
            for old in [self.path.clone(), self.path.with_extension("journal")] {
                if old.exists() {
                    let kept = beside(&old, &format!("before-{now}"));
                    fs::rename(&old, &kept).map_err(unusable(&old))?;
                    aside.push(kept);
                }
            }
        }
        let key = self.path.with_extension("key");
        if !self.had_key {
            // First: a key without a log is one that the next log uses.
            place_new(&made.with_extension("key"), &key)?;
        }
        if let Err(failure) = place_new(&made, &self.path) {
            if !self.had_key {
                fs::remove_file(&key).map_err(unusable(&key))?;
            }
            return Err(failure);
        }
        let public = self.path.with_extension("pub");
        fs::rename(made.with_extension("pub"), &public).map_err(unusable(&public))?;
        settled(&self.path)?;
        *under_way = None;
        drop(under_way);
        self.empty = None;
        Ok(aside)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            let name = self.directory.display();
            super::super::super::output::complain(&format!("{name} is left and can be removed: {error}"));
        }
        let mut under_way = UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner);
        under_way.take_if(|directory| *directory == self.directory);
    }
}

fn place_new(from: &Path, to: &Path) -> Result<(), Failure> {
    rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)
        .map_err(|error| unusable(to)(error.into()))
}

/// A directory for its owner alone, locked. One that was left by an import that was killed is made anew.
fn make(directory: &Path) -> Result<fs::File, Failure> {
    let no_link = i32::try_from((OFlags::DIRECTORY | OFlags::NOFOLLOW).bits()).unwrap_or_default();
    let locked = || -> Result<fs::File, Failure> {
        let opened = fs::OpenOptions::new().read(true).custom_flags(no_link).open(directory);
        let opened = opened.map_err(unusable(directory))?;
        match opened.try_lock() {
            Ok(()) => Ok(opened),
            Err(fs::TryLockError::WouldBlock) => {
                let words = format!("another import is under way in {}", directory.display());
                Err(Failure::Invalid(Some(words)))
            }
            Err(fs::TryLockError::Error(error)) => Err(unusable(directory)(error)),
        }
    };
    if fs::symlink_metadata(directory).is_ok() {
        let _left_by_nobody = locked()?;
        fs::remove_dir_all(directory).map_err(unusable(directory))?;
    }
    fs::DirBuilder::new().mode(0o700).create(directory).map_err(unusable(directory))?;
    locked()
}

/// Ends the process on SIGINT, SIGTERM and SIGHUP, and takes out what an import made so far. A read of standard
/// input would not end by a flag.
pub(super) fn watch_signals() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let signals = {
        use tokio::signal::unix::{SignalKind, signal};
        let _entered = runtime.enter();
        [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal)
    };
    let [interrupt, terminate, hangup] = signals;
    let (mut interrupt, mut terminate, mut hangup) = (interrupt?, terminate?, hangup?);
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
        });
        // Not while the log is put in its place.
        let under_way = UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(directory) = &*under_way {
            drop(fs::remove_dir_all(directory));
        }
        #[expect(clippy::disallowed_methods, reason = "what guards would drop is taken out already")]
        std::process::exit(INTERRUPTED);
    })?;
    Ok(())
}
