//! Copies of the system's places with the gate's certificates among them.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs, io,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
};

use super::{
    Contents,
    places::{BUNDLES, JAVA, Kind},
};
use crate::launch::bundle::{BundleError, file, replace};

/// Entries of a directory that are copied; distributions have 300.
const MOST: usize = 4096;
/// Largest single file that is copied, in bytes.
const LARGEST: u64 = 1 << 20;

/// What is in a directory.
#[derive(Debug)]
enum Entry {
    File(Vec<u8>),
    Link(PathBuf),
    Directory(BTreeMap<OsString, Entry>),
}

/// Makes `copy` what `from` is with `contents` in it; takes it away where there is no such place.
pub(super) fn place(from: &Path, kind: Kind, copy: &Path, contents: &Contents) -> Result<(), BundleError> {
    let there = match fs::symlink_metadata(from) {
        Ok(metadata) => Some(metadata),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => None,
        Err(error) => return Err(file(from)(error)),
    };
    let Some(metadata) = there.filter(|metadata| !metadata.is_symlink()) else {
        return remove(copy);
    };
    let entry = match kind {
        Kind::Bundle if metadata.is_file() => Entry::File(contents.bundle.clone()),
        Kind::Java if metadata.is_file() => Entry::File(contents.java.clone()),
        Kind::Directory | Kind::Anchors if metadata.is_dir() => {
            let mut entries = directory(from, contents, true)?;
            add(&mut entries, contents, kind);
            Entry::Directory(entries)
        }
        Kind::Bundle | Kind::Java | Kind::Directory | Kind::Anchors => return remove(copy),
    };
    if let Some(parent) = copy.parent() {
        make(parent)?;
    }
    set(copy, &entry)
}

/// What is in `from`; of directories in it, with `deeper`, those that hold a store of Java's.
fn directory(
    from: &Path,
    contents: &Contents,
    deeper: bool,
) -> Result<BTreeMap<OsString, Entry>, BundleError> {
    let mut entries = BTreeMap::new();
    for entry in fs::read_dir(from).map_err(file(from))?.take(MOST) {
        let entry = entry.map_err(file(from))?;
        let (path, name) = (entry.path(), entry.file_name());
        let metadata = fs::symlink_metadata(&path).map_err(file(&path))?;
        let copied = if metadata.is_symlink() {
            Entry::Link(fs::read_link(&path).map_err(file(&path))?)
        } else if metadata.is_dir() && deeper && path.join(JAVA).is_file() {
            Entry::Directory(directory(&path, contents, false)?)
        } else if !metadata.is_file() || metadata.permissions().mode() & 0o004 == 0 {
            // What others may not read, agents may not either.
            continue;
        } else if BUNDLES.iter().any(|bundle| name == *bundle) {
            Entry::File(contents.bundle.clone())
        } else if name == JAVA {
            Entry::File(contents.java.clone())
        } else if metadata.len() <= LARGEST {
            Entry::File(fs::read(&path).map_err(file(&path))?)
        } else {
            continue;
        };
        entries.insert(name, copied);
    }
    Ok(entries)
}

/// Puts what is added among `entries`, under its hash where that is how it is found.
fn add(entries: &mut BTreeMap<OsString, Entry>, contents: &Contents, kind: Kind) {
    for (at, (pem, hash)) in contents.each.iter().enumerate() {
        let name = format!("agentgate-{at}.pem");
        if let Some(hash) = hash.as_ref().filter(|_| kind == Kind::Directory)
            && let Some(free) = (0..MOST)
                .map(|n| OsString::from(format!("{hash}.{n}")))
                .find(|name| !entries.contains_key(name))
        {
            entries.insert(free, Entry::Link(PathBuf::from(&name)));
        }
        entries.insert(name.into(), Entry::File(pem.clone()));
    }
}

/// Writes `bytes` for everybody to read, unless they are there.
pub(super) fn put(path: &Path, bytes: &[u8]) -> Result<(), BundleError> {
    let as_it_is = fs::symlink_metadata(path).is_ok_and(|m| {
        m.is_file() && m.len() == bytes.len() as u64 && m.permissions().mode() & 0o777 == 0o644
    });
    if as_it_is && fs::read(path).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    replace(path, bytes, 0o644).map_err(file(path))
}

fn set(path: &Path, entry: &Entry) -> Result<(), BundleError> {
    let found = fs::symlink_metadata(path).ok();
    match entry {
        Entry::File(bytes) => {
            if found.is_some_and(|found| found.is_dir()) {
                remove(path)?;
            }
            put(path, bytes)
        }
        Entry::Link(target) => {
            if fs::read_link(path).is_ok_and(|there| there == *target) {
                return Ok(());
            }
            remove(path)?;
            symlink(target, path).map_err(file(path))
        }
        Entry::Directory(entries) => {
            if found.is_some_and(|found| !found.is_dir()) {
                remove(path)?;
            }
            make(path)?;
            for (name, entry) in entries {
                set(&path.join(name), entry)?;
            }
            for there in fs::read_dir(path).map_err(file(path))? {
                let name = there.map_err(file(path))?.file_name();
                if !entries.contains_key(&name) {
                    remove(&path.join(name))?;
                }
            }
            Ok(())
        }
    }
}

/// A directory that everybody may read, whatever the umask.
fn make(path: &Path) -> Result<(), BundleError> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make(parent)?;
    }
    fs::create_dir(path)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755)))
        .map_err(file(path))
}

fn remove(path: &Path) -> Result<(), BundleError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Err(file(path)(error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
