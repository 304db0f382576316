//! The files of the key that signs, beside the store: `audit.key` (0600), and `audit.pub` for everybody.
//!
//! A key that is to follow waits in `audit.key.next` until the tables say that it signs: whichever of the
//! two they name last is the one, so that a crash between the two costs nothing.

use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use super::{
    StoreError,
    file::{restrict, sync_directory},
};
use crate::chain::{PublicKey, SigningKey};

/// Longest file that is read as a key.
const KEY_BYTES: u64 = 4096;

/// The private key of the store at `store`.
fn private(store: &Path) -> PathBuf {
    store.with_extension("key")
}

fn waiting(store: &Path) -> PathBuf {
    store.with_extension("key.next")
}

/// The public key of the store at `store`.
pub(crate) fn public(store: &Path) -> PathBuf {
    store.with_extension("pub")
}

/// The key to sign with: the one that the tables name last, or one that nobody had. With `unused`, only
/// the latter.
pub(super) fn settle(
    store: &Path,
    newest: Option<PublicKey>,
    unused: bool,
) -> Result<SigningKey, StoreError> {
    let (in_use, next) = (private(store), waiting(store));
    let found = read(&in_use)?;
    if let Some(key) = read(&next)?.filter(|key| newest == Some(key.public())) {
        rename(&next, &in_use)?;
        publish(store, &key.public())?;
        return Ok(key);
    }
    let fits = |key: &SigningKey| newest.map_or(!unused, |newest| newest == key.public());
    let key = match found {
        Some(key) if fits(&key) => key,
        other => {
            if other.is_some() {
                let aside = store.with_extension("key.other");
                tracing::error!(kept = %aside.display(), "the key beside the audit log is not the one that signed it");
                rename(&in_use, &aside)?;
            } else if newest.is_some() {
                tracing::error!("the key that signed the audit log is not there; another goes on");
            }
            let key = make(&next)?;
            rename(&next, &in_use)?;
            key
        }
    };
    publish(store, &key.public())?;
    Ok(key)
}

/// Makes a key that is to follow.
pub(super) fn prepare(store: &Path) -> Result<SigningKey, StoreError> {
    make(&waiting(store))
}

/// The key that was made is in use.
pub(super) fn put_in_use(store: &Path, key: &PublicKey) -> Result<(), StoreError> {
    rename(&waiting(store), &private(store))?;
    publish(store, key)
}

fn make(path: &Path) -> Result<SigningKey, StoreError> {
    let (key, pem) = SigningKey::generate().map_err(StoreError::Signing)?;
    write(path, &pem, 0o600)?;
    Ok(key)
}

fn publish(store: &Path, key: &PublicKey) -> Result<(), StoreError> {
    let (path, pem) = (public(store), key.to_pem());
    if fs::read(&path).is_ok_and(|found| found == pem.as_bytes()) {
        return Ok(());
    }
    let fresh = store.with_extension("pub.next");
    write(&fresh, &pem, 0o644)?;
    rename(&fresh, &path)
}

/// `None` where there is none.
fn read(path: &Path) -> Result<Option<SigningKey>, StoreError> {
    let unusable = |source| StoreError::File { path: path.to_owned(), source };
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unusable(error)),
    };
    restrict(&file).map_err(unusable)?;
    let pem = io::read_to_string(io::Read::take(file, KEY_BYTES)).map_err(unusable)?;
    let key = SigningKey::from_pem(&pem);
    key.map(Some).map_err(|error| unusable(io::Error::new(io::ErrorKind::InvalidData, error)))
}

/// Writes a file durably, in place of one that a crash left.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), StoreError> {
    let put = || {
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    put().map_err(|source| StoreError::File { path: path.to_owned(), source })
}

fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    let put = || {
        fs::rename(from, to)?;
        sync_directory(to)
    };
    put().map_err(|source| StoreError::File { path: to.to_owned(), source })
}
