//! The mounts that hide: views of directories without some of their entries, and covers.
//!
//! Called in a mount namespace of the command's own.

use std::{
    ffi::CString,
    fs, io,
    os::{
        fd::AsRawFd,
        unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::Access,
    mount::{MountFlags, mount, mount_bind, mount_bind_recursive, mount_remount},
};

use super::pattern::Pattern;

/// What a tmpfs may take of memory, which the command's cgroup pays, as for `/run/user/UID`.
const SIZE: &str = "size=10%";
/// Neither set-uid programs nor devices come from a tmpfs of ours.
const FLAGS: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);
/// Largest settings file that is copied, in bytes, and how many.
const SETTINGS_BYTES: u64 = 64 << 10;
const SETTINGS_FILES: usize = 64;

/// Files by their paths, and what is in them.
type Instead<'a> = [(PathBuf, &'a str)];

/// Covers `directory` with a view of itself that lacks what `hidden` names, and in which the files of
/// `instead` are others. It can be written where the directory could.
pub(super) fn view(directory: &Path, hidden: &[Pattern], instead: &Instead<'_>) -> io::Result<()> {
    let original = fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC)
        .open(directory)?;
    // The covered directory is reached through this descriptor.
    let source = format!("/proc/self/fd/{}", original.as_raw_fd());
    build(Path::new(&source), directory, hidden, instead)
}

/// A view of `source` at `target`, which is where it stands for the command.
fn build(source: &Path, target: &Path, hidden: &[Pattern], instead: &Instead<'_>) -> io::Result<()> {
    let writable = cover_directory(source, target)?;
    for (path, text) in instead.iter().filter(|(path, _)| path.parent() == Some(target)) {
        fs::write(path, text)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o644))?;
    }
    let entries = match fs::read_dir(source) {
        Ok(entries) => entries,
        // Its entries cannot be known, so none is shown.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return seal(target, writable),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let name = entry?.file_name();
        let (from, to) = (source.join(&name), target.join(&name));
        let other = instead.iter().any(|(path, _)| *path == to);
        if other || hidden.iter().any(|pattern| pattern.directory == target && pattern.takes(&name)) {
            continue;
        }
        match show(&from, &to, hidden, instead) {
            // Gone since it was listed, or not to be looked at by this user either, such as the file
            // systems of others in user space.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {}
            done => done?,
        }
    }
    seal(target, writable)
}

/// Shows `from`, an entry of a directory, at `to` in its view.
fn show(from: &Path, to: &Path, hidden: &[Pattern], instead: &Instead<'_>) -> io::Result<()> {
    let kind = fs::symlink_metadata(from)?.file_type();
    if kind.is_symlink() {
        return symlink(fs::read_link(from)?, to);
    }
    if !kind.is_dir() {
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
        return Ok(mount_bind(from, to)?);
    }
    fs::create_dir(to)?;
    let differs = hidden.iter().any(|pattern| pattern.directory.starts_with(to))
        || instead.iter().any(|(path, _)| path.starts_with(to));
    if differs { build(from, to, hidden, instead) } else { Ok(mount_bind_recursive(from, to)?) }
}

/// Covers what is at `path`: a directory with an empty one, anything else with what no socket can be
/// behind.
pub(super) fn cover(path: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.is_dir() {
        return Ok(mount_bind("/dev/null", path)?);
    }
    let writable = cover_directory(path, path)?;
    seal(path, writable)
}

/// Mounts `what` over `place`; with `seal` so that nobody can write to it there.
pub(super) fn cover_with(what: &Path, place: &Path, seal: bool) -> io::Result<()> {
    mount_bind(what, place)?;
    if seal {
        mount_remount(place, MountFlags::BIND | MountFlags::RDONLY | FLAGS, "")?;
    }
    Ok(())
}

/// An empty tmpfs at `target`, with owner and mode of `source`; whether this user could write to that.
fn cover_directory(source: &Path, target: &Path) -> io::Result<bool> {
    let metadata = fs::metadata(source)?;
    let writable = rustix::fs::access(source, Access::WRITE_OK).is_ok();
    let mode = metadata.permissions().mode() & 0o7777;
    let owned = |options: String| -> io::Result<()> {
        let options = CString::new(options)?;
        Ok(mount("agentgate", target, "tmpfs", FLAGS, options.as_c_str())?)
    };
    let (uid, gid) = (metadata.uid(), metadata.gid());
    match owned(format!("{SIZE},mode={mode:o},uid={uid},gid={gid}")) {
        // In a user namespace nobody else has a number. Then it is this user's, who may only look, or
        // could write to it anyway.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => owned(format!("{SIZE},mode={mode:o}"))?,
        done => done?,
    }
    Ok(writable)
}

/// Closes what this user could not write to before.
fn seal(target: &Path, writable: bool) -> io::Result<()> {
    if !writable {
        mount_remount(target, MountFlags::BIND | MountFlags::RDONLY | FLAGS, "")?;
    }
    Ok(())
}

/// Covers `directory`, where there is one, with a copy that belongs to this user.
pub(super) fn own_copy(directory: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let mut files = Vec::new();
    for entry in entries.take(SETTINGS_FILES) {
        let entry = entry?;
        // What this user cannot read, ssh cannot either.
        let Ok(metadata) = fs::metadata(entry.path()) else { continue };
        if metadata.is_file() && metadata.len() <= SETTINGS_BYTES {
            files.extend(fs::read(entry.path()).ok().map(|bytes| (entry.file_name(), bytes)));
        }
    }
    if files.is_empty() {
        return Ok(());
    }
    mount("agentgate", directory, "tmpfs", FLAGS, c"size=8m,mode=755")?;
    for (name, bytes) in files {
        let path = directory.join(name);
        fs::write(&path, bytes)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
    }
    seal(directory, false)
}
