//! How far a mirror came: a small file beside it, replaced as a whole.

use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{MirrorError, at};
use crate::{export::Format, model::Timestamp};

/// Where to go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// The next entry to mirror.
    pub(super) next: u64,
    /// Bytes of the file that hold what is before it.
    pub(super) length: u64,
    /// The entry that the file begins with.
    pub(super) first: u64,
    /// When the file was begun.
    pub(super) began: Timestamp,
    pub(super) format: String,
}

/// `NAME.EXT.place`.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".place");
    name.into()
}

impl Place {
    /// A file that begins with entry `next`.
    pub(super) fn begin(format: Format, next: u64) -> Self {
        Self { next, length: 0, first: next, began: Timestamp::now(), format: format.as_str().to_owned() }
    }

    /// What is known of the mirror at `path`; `None` where there is none yet.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, MirrorError> {
        let path = beside(path);
        match fs::read(&path) {
            Ok(text) => {
                let place = serde_json::from_slice(&text);
                place.map(Some).map_err(|error| at(&path)(io::Error::new(io::ErrorKind::InvalidData, error)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(at(&path)(error)),
        }
    }

    /// Makes it durable.
    pub(super) fn write(&self, path: &Path) -> Result<(), MirrorError> {
        let path = beside(path);
        let mut fresh = path.as_os_str().to_owned();
        fresh.push(".new");
        let fresh = PathBuf::from(fresh);
        let write = || {
            let text = serde_json::to_vec(self)?;
            let mut file =
                fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&fresh, &path)?;
            sync_directory(&path)
        };
        write().map_err(at(&path))
    }
}

/// Makes the names in the directory of `path` durable.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    fs::File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}
