//! Edits of the list files and the mode file: a new file beside the old one, synced, then renamed over
//! it, so that a reader or a crash sees the old or the new one and nothing between.
//!
//! A file that is a symbolic link is not edited: renaming over it would replace the link by a file, and
//! writing through it would write somewhere else than the path says.

use std::{
    fmt,
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use super::files;
use crate::{
    model::Mode,
    policy::{HostPattern, InvalidPattern, pattern::list_entry},
};

/// A list file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum List {
    Allow,
    Deny,
    Passthrough,
}

impl List {
    /// In the order of the alphabet.
    pub const ALL: [Self; 3] = [Self::Allow, Self::Deny, Self::Passthrough];

    /// The word people write.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Passthrough => "passthrough",
        }
    }

    /// The file's name within the directory of lists.
    #[must_use]
    pub fn file(self) -> &'static str {
        match self {
            Self::Allow => "allow.txt",
            Self::Deny => "deny.txt",
            Self::Passthrough => "passthrough.txt",
        }
    }
}

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for List {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|list| list.as_str() == text)
            .ok_or_else(|| format!("{text:?} is not a list: allow, deny or passthrough"))
    }
}

/// What is done to a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Edit {
    Add,
    Remove,
}

/// Why an edit did not take effect.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The pattern is none; the file is untouched.
    #[error(transparent)]
    Pattern(#[from] InvalidPattern),
    /// The file is a symbolic link; it is untouched.
    #[error("{path} is a symbolic link; edit what it points to by hand", path = path.display())]
    Symlink { path: PathBuf },
    /// The file would be larger than what is read; it is untouched.
    #[error("{path} would become larger than 16 MiB", path = path.display())]
    TooLarge { path: PathBuf },
    /// The disk said no; the file is untouched.
    #[error("{path}: {source}", path = path.display())]
    Io { path: PathBuf, source: io::Error },
    /// The file was written, but the policy as a whole does not compile, so the last good one stays.
    #[error("written, but not in force: {}", errors.join("; "))]
    NotInForce { errors: Vec<String> },
}

impl EditError {
    /// Stable snake_case code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Pattern(_) => "invalid_pattern",
            Self::Symlink { .. } => "list_is_symlink",
            Self::TooLarge { .. } => "list_too_large",
            Self::Io { .. } => "list_not_writable",
            Self::NotInForce { .. } => "policy_broken",
        }
    }
}

/// Edits one list file in `dir`, which is made where it is missing. Whether the file changed.
pub(super) fn edit_list(dir: &Path, list: List, edit: Edit, pattern: &str) -> Result<bool, EditError> {
    let pattern = HostPattern::parse(pattern)?;
    let path = dir.join(list.file());
    let failed = |source| EditError::Io { path: path.clone(), source };
    refuse_symlink(&path)?;
    let before = files::read_text(&path).map_err(failed)?.unwrap_or_default();
    let Some(after) = edited(&before, edit, &pattern) else {
        return Ok(false);
    };
    if after.len() as u64 > files::LARGEST {
        return Err(EditError::TooLarge { path });
    }
    fs::create_dir_all(dir).map_err(failed)?;
    replace(&path, after.as_bytes())?;
    Ok(true)
}

/// Writes or removes the mode file.
pub(super) fn set_mode(path: &Path, mode: Option<Mode>) -> Result<(), EditError> {
    let failed = |source| EditError::Io { path: path.to_owned(), source };
    refuse_symlink(path)?;
    match mode {
        Some(mode) => replace(path, format!("{mode}\n").as_bytes()),
        None => match fs::remove_file(path) {
            Ok(()) => sync_directory(path).map_err(failed),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(failed(error)),
        },
    }
}

/// `text` with `pattern` added or removed; `None` where nothing changes. Every other line stays as it
/// is, also those that are no patterns.
fn edited(text: &str, edit: Edit, pattern: &HostPattern) -> Option<String> {
    let same = |line: &str| {
        let line = line.strip_prefix('\u{feff}').unwrap_or(line);
        list_entry(line).and_then(|entry| HostPattern::parse(entry).ok()).as_ref() == Some(pattern)
    };
    let present = text.lines().any(same);
    match edit {
        Edit::Add if present => None,
        Edit::Add => {
            let end = if text.contains("\r\n") { "\r\n" } else { "\n" };
            let gap = if text.is_empty() || text.ends_with('\n') { "" } else { end };
            Some(format!("{text}{gap}{pattern}{end}"))
        }
        Edit::Remove if !present => None,
        Edit::Remove => Some(text.split_inclusive('\n').filter(|line| !same(line)).collect()),
    }
}

fn refuse_symlink(path: &Path) -> Result<(), EditError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_symlink() => Err(EditError::Symlink { path: path.to_owned() }),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(EditError::Io { path: path.to_owned(), source }),
    }
}

/// Replaces `path` by a file with `contents`, keeping its permissions and owner; a file that was not
/// there becomes readable for everybody.
fn replace(path: &Path, contents: &[u8]) -> Result<(), EditError> {
    let temporary = temporary(path);
    let written = write_temporary(path, &temporary, contents)
        .and_then(|()| fs::rename(&temporary, path))
        .and_then(|()| sync_directory(path));
    written.map_err(|source| {
        // After a failure there may be nothing to remove; the failure itself is what is reported.
        let _ = fs::remove_file(&temporary);
        EditError::Io { path: path.to_owned(), source }
    })
}

/// The name of the file that is renamed over `path`. A fixed one: edits are one at a time, and what a
/// crash left behind is overwritten by the next.
fn temporary(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.agentgate"))
}

fn write_temporary(path: &Path, temporary: &Path, contents: &[u8]) -> io::Result<()> {
    match fs::remove_file(temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    // create_new: never writes through a link that somebody put there in the meantime.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(temporary)?;
    file.write_all(contents)?;
    match fs::metadata(path) {
        Ok(before) => {
            // While the file is still the daemon's own: changing the mode of another user's needs
            // CAP_FOWNER, and the daemon has CAP_CHOWN only. Without set-uid and set-gid, which a list has
            // no use for and which fchown(2) may clear.
            file.set_permissions(Permissions::from_mode(before.mode() & 0o777))?;
            let now = file.metadata()?;
            if (before.uid(), before.gid()) != (now.uid(), now.gid()) {
                std::os::unix::fs::fchown(&file, Some(before.uid()), Some(before.gid()))?;
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            file.set_permissions(Permissions::from_mode(0o644))?;
        }
        Err(error) => return Err(error),
    }
    file.sync_all()
}

/// Makes a rename or removal in the directory of `path` outlast a power cut.
fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests;
