//! Sees changes of the policy's files through inotify and reloads once for each burst.
//!
//! Directories are watched, not files, because editors replace files. A burst ends when the kernel's
//! queue is empty; what arrives during a reload is the next burst, so nothing waits for a fixed time
//! and nothing is missed. A file that is being written in place counts when it is closed.
//! Not seen: a change of the target of a symbolic link elsewhere.

use std::{
    ffi::{OsStr, OsString},
    io,
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
};

use rustix::{
    fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags},
    io::Errno,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::watch,
};

use super::{List, PolicyHandle, PolicyPaths};

/// Changes of names, and ends of writing. Not `MODIFY`: a half-written file is nobody's policy.
const CHANGES: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::ONLYDIR);

/// Room for a few dozen events of the longest name (255 bytes) a read.
const EVENT_BUFFER: usize = 16 * 1024;

/// Why files are not watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The kernel gives no inotify instance or watch; `fs.inotify.max_user_instances` or
    /// `max_user_watches` may be used up.
    #[error("{path} cannot be watched for changes: {source}", path = path.display())]
    Inotify { path: PathBuf, source: io::Error },
    /// A reload panicked.
    #[error("a reload of the policy did not end: {0}")]
    Reload(#[from] tokio::task::JoinError),
}

/// A directory and the names in it that matter.
#[derive(Debug, PartialEq, Eq)]
struct Watched {
    directory: PathBuf,
    names: Vec<OsString>,
}

pub(super) async fn run(handle: PolicyHandle, mut drain: watch::Receiver<bool>) -> Result<(), WatchError> {
    let failed = |source: io::Error| WatchError::Inotify { path: handle.0.paths.policy.clone(), source };
    let watched = watched(&handle.0.paths);
    let inotify =
        inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).map_err(|e| failed(e.into()))?;
    #[expect(
        deprecated,
        reason = "its successor is unsafe and asks that the descriptor stay open and the same, which an OwnedFd promises by its type"
    )]
    let inotify = AsyncFd::with_interest(inotify, Interest::READABLE).map_err(failed)?;
    loop {
        // Again for each burst: a directory may have been made or replaced. Watches come before the
        // reload, so that what changes after the files were read is an event.
        let watches = arm(&inotify, &watched)?;
        let reloading = handle.clone();
        // Outcome and faults are in the status and the log.
        tokio::task::spawn_blocking(move || drop(reloading.reload())).await?;
        loop {
            let mut ready = tokio::select! {
                ready = inotify.readable() => ready.map_err(failed)?,
                _ = drain.wait_for(|drain| *drain) => return Ok(()),
            };
            let changed = read_burst(inotify.get_ref(), &watched, &watches).map_err(failed)?;
            ready.clear_ready();
            if changed {
                break;
            }
        }
    }
}

/// The directories of the files and the parents of these directories, each once.
fn watched(paths: &PolicyPaths) -> Vec<Watched> {
    let mut all: Vec<Watched> = Vec::new();
    let mut add = |path: &Path| {
        if let (Some(directory), Some(name)) = (path.parent(), path.file_name()) {
            let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
            match all.iter_mut().find(|watched| watched.directory == directory) {
                Some(watched) => watched.names.push(name.to_owned()),
                None => all.push(Watched { directory: directory.to_owned(), names: vec![name.to_owned()] }),
            }
        }
    };
    add(&paths.policy);
    add(&paths.mode);
    for list in List::ALL {
        add(&paths.lists.join(list.file()));
    }
    add(&paths.lists);
    // A directory that is moved away takes its watch along; its parent tells of the one that comes.
    for path in [&paths.policy, &paths.mode] {
        if let Some(directory) = path.parent() {
            add(directory);
        }
    }
    all
}

/// Watches every directory there is. The watch descriptors, in the order of `watched`.
fn arm(inotify: &AsyncFd<OwnedFd>, watched: &[Watched]) -> Result<Vec<Option<i32>>, WatchError> {
    watched
        .iter()
        .map(|Watched { directory, .. }| match inotify::add_watch(inotify.get_ref(), directory, CHANGES) {
            Ok(watch) => Ok(Some(watch)),
            // Not there yet: its parent is watched for it.
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(source) => Err(WatchError::Inotify { path: directory.clone(), source: source.into() }),
        })
        .collect()
}

/// Reads the queue until it is empty. Whether any of the files may have changed.
fn read_burst(inotify: &OwnedFd, watched: &[Watched], watches: &[Option<i32>]) -> io::Result<bool> {
    let mut buffer = [MaybeUninit::uninit(); EVENT_BUFFER];
    let mut events = inotify::Reader::new(inotify, &mut buffer);
    let mut changed = false;
    loop {
        match events.next() {
            Ok(event) => {
                let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()));
                changed |= matters(event.events(), event.wd(), name, watched, watches);
            }
            Err(Errno::AGAIN) => return Ok(changed),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn matters(
    events: ReadFlags,
    watch: i32,
    name: Option<&OsStr>,
    watched: &[Watched],
    watches: &[Option<i32>],
) -> bool {
    // An overflow has lost events; a watch that ended did so because its directory went away.
    if events.intersects(ReadFlags::QUEUE_OVERFLOW | ReadFlags::IGNORED | ReadFlags::UNMOUNT) {
        return true;
    }
    let Some(name) = name else { return false };
    // Two paths to one directory share a watch, so all of them are asked.
    let named = watched
        .iter()
        .zip(watches)
        .filter(|(_, armed)| **armed == Some(watch))
        .find(|(watched, _)| watched.names.iter().any(|known| known == name));
    let Some((Watched { directory, .. }, _)) = named else {
        return false;
    };
    // A regular file that appears by being written counts when it is closed, not when it is empty; one
    // that appears as a link, and a directory, is never written and closed.
    let appeared_empty = events.contains(ReadFlags::CREATE) && !events.contains(ReadFlags::ISDIR) && {
        use std::os::unix::fs::MetadataExt;
        std::fs::symlink_metadata(directory.join(name)).is_ok_and(|m| m.is_file() && m.nlink() == 1)
    };
    !appeared_empty
}
