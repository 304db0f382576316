//! The files of the log: made for their owner alone, whole before they are in their place.

use std::{
    fs, io,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use redb::Database;
use rustix::fs::{CWD, RenameFlags};

use super::StoreError;

/// Bytes of redb's page cache. redb's own default of 1 GiB grows the daemon by as much.
pub(super) const CACHE_BYTES: usize = 16 << 20;

/// The database at `path`, made where there is none.
pub(super) fn open_file(path: &Path) -> Result<Database, StoreError> {
    let unusable = |source| StoreError::File { path: path.to_owned(), source };
    if let Err(error) = fs::symlink_metadata(path)
        && error.kind() == io::ErrorKind::NotFound
    {
        return make_file(path);
    }
    let file = open_private(path).map_err(unusable)?;
    database(path, file)
}

/// Makes the database beside its place and moves it there when it is whole: one whose making was cut short by
/// a crash is none to redb, and would be in the way for ever.
fn make_file(path: &Path) -> Result<Database, StoreError> {
    let fresh = path.with_extension("redb.new");
    let unusable = |source| StoreError::File { path: path.to_owned(), source };
    let file = open_private(&fresh).map_err(unusable)?;
    // Whoever else is at it has it locked.
    file.try_lock().map_err(|_| StoreError::Busy { path: path.to_owned() })?;
    file.set_len(0).map_err(unusable)?;
    let database = database(path, file)?;
    rustix::fs::renameat_with(CWD, &fresh, CWD, path, RenameFlags::NOREPLACE)
        .map_err(io::Error::from)
        .and_then(|()| sync_directory(path))
        .map_err(unusable)?;
    Ok(database)
}

fn database(path: &Path, file: fs::File) -> Result<Database, StoreError> {
    match Database::builder().set_cache_size(CACHE_BYTES).create_file(file) {
        Err(redb::DatabaseError::DatabaseAlreadyOpen) => Err(StoreError::Busy { path: path.to_owned() }),
        opened => Ok(opened?),
    }
}

/// A file for its owner alone, made where there is none.
fn open_private(path: &Path) -> io::Result<fs::File> {
    let file =
        fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    restrict(&file)?;
    Ok(file)
}

/// Makes the names of files in the directory of `path` durable.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    fs::File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

/// Nobody but the owner may read it.
pub(super) fn restrict(file: &fs::File) -> io::Result<()> {
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
    }
    Ok(())
}
