//! The pin directory: a directory of root's on a bpffs, held by one daemon at a time.
//!
//! The exclusive lock is on this directory and not on the cgroup's, which every user may open and
//! could lock against us.

use std::{
    fs::{self, DirBuilder},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use agentgate_common::names;
use rustix::{
    fs::{FlockOperation, Mode, OFlags},
    mount::MountFlags,
};

use super::{KernelError, link::CgroupLink, step};

/// Where bpffs is mounted by convention, and the only place where it is mounted for the user.
const BPFFS: &str = "/sys/fs/bpf";
/// `BPF_FS_MAGIC` of include/uapi/linux/magic.h.
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

/// The pin directory, locked for as long as this lives.
#[derive(Debug)]
pub(super) struct PinDirectory {
    path: PathBuf,
    created: bool,
    _lock: OwnedFd,
}

impl PinDirectory {
    /// Makes the directory where it is missing and locks it. `None`: another daemon holds it.
    pub(super) fn open(path: &Path) -> Result<Option<Self>, KernelError> {
        let shown = path.display().to_string();
        let parent = path.parent().ok_or_else(|| step(&shown)(io::Error::other("it has no parent")))?;
        if path.starts_with(BPFFS) && !is_bpffs(Path::new(BPFFS)).map_err(step(BPFFS))? {
            rustix::mount::mount(
                "bpf",
                BPFFS,
                "bpf",
                MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC,
                Some(c"mode=0700"),
            )
            .map_err(step("mounting a bpffs on /sys/fs/bpf"))?;
        }
        if !is_bpffs(existing(parent)).map_err(step(&shown))? {
            return Err(step(&shown)(io::Error::other(
                "it is not on a bpffs, so nothing can be pinned there; mount one or use /sys/fs/bpf/agentgate",
            )));
        }
        let created = !path.exists();
        DirBuilder::new().mode(0o700).recursive(true).create(path).map_err(step(&shown))?;
        let lock = rustix::fs::open(
            path,
            OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW,
            Mode::empty(),
        )
        .map_err(step(&shown))?;
        let metadata = fs::metadata(path).map_err(step(&shown))?;
        let euid = rustix::process::geteuid().as_raw();
        if metadata.uid() != euid || metadata.permissions().mode() & 0o077 != 0 {
            return Err(step(&shown)(io::Error::other("it belongs to someone else, or others may enter it")));
        }
        match rustix::fs::flock(lock.as_fd(), FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { path: path.to_owned(), created, _lock: lock })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(step(&shown)(error)),
        }
    }

    /// Path of the pin of a program's link or of a map.
    pub(super) fn pin(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Maps that are pinned already.
    pub(super) fn maps(&self) -> Vec<&'static str> {
        names::PINNED_MAPS.into_iter().filter(|name| self.pin(name).exists()).collect()
    }

    /// Removes what a failed start pinned: maps that were not there before, and the directory.
    pub(super) fn undo(&self, before: &[&str]) {
        for name in names::PINNED_MAPS.into_iter().filter(|name| !before.contains(name)) {
            remove(&self.pin(name));
        }
        if self.created {
            // Not empty where a pin could not be removed; that has been said.
            let _stays = fs::remove_dir(&self.path);
        }
    }
}

/// Removes all pins, and the links with them: the cgroup is no longer guarded.
///
/// # Errors
/// When a daemon still holds them, or a pin cannot be removed.
pub(super) fn detach(path: &Path, cgroup: &Path) -> Result<(), KernelError> {
    if !path.exists() {
        return Ok(());
    }
    let Some(directory) = PinDirectory::open(path)? else {
        return Err(KernelError::AlreadyGuarded { cgroup: cgroup.display().to_string() });
    };
    for name in names::PROGRAMS.into_iter().chain(names::LAYERS) {
        let pin = directory.pin(name);
        if pin.exists() {
            let shown = pin.display().to_string();
            let link = CgroupLink::open(&pin).map_err(step(&shown))?;
            link.detach().map_err(step(&shown))?;
        }
    }
    for name in names::PROGRAMS.into_iter().chain(names::LAYERS).chain(names::PINNED_MAPS) {
        let pin = directory.pin(name);
        match fs::remove_file(&pin) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(step(&pin.display().to_string())(error)),
        }
    }
    fs::remove_dir(path).map_err(step(&path.display().to_string()))
}

/// Removes a pin that a failed start left; what cannot be removed is said.
pub(super) fn remove(pin: &Path) {
    match fs::remove_file(pin) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(pin = %pin.display(), %error, "the pin stays"),
    }
}

fn existing(path: &Path) -> &Path {
    path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(path)
}

fn is_bpffs(path: &Path) -> io::Result<bool> {
    Ok(rustix::fs::statfs(path)?.f_type as u64 == BPF_FS_MAGIC)
}
