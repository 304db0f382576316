//! The file that a mirror writes to.

use std::{
    fs, io,
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use super::{MirrorError, at, place::sync_directory};

/// Lines at the end of a file.
#[derive(Debug)]
pub(super) struct Lines {
    path: PathBuf,
    file: fs::File,
    /// Where the next line belongs.
    length: u64,
    /// Bytes of the file: more than `length` where an earlier run wrote lines and did not come to say so.
    size: u64,
}

impl Lines {
    /// Opens the file, or makes it, to go on after `length` bytes.
    pub(super) fn open(path: &Path, length: u64) -> Result<Self, MirrorError> {
        let open = || {
            let mut options = fs::OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(0o600);
            // A link in its place may lead anywhere.
            options.custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC);
            let file = options.open(path)?;
            let size = file.metadata()?.len();
            sync_directory(path)?;
            Ok((file, size))
        };
        let (file, size) = open().map_err(at(path))?;
        if size < length {
            // Lines that were on the disk are gone: cut by somebody, as some rotate logs. What follows is
            // written after what is left.
            tracing::warn!(path = %path.display(), size, length, "the mirror of the audit log was cut by somebody else");
        }
        Ok(Self { path: path.to_owned(), file, length: length.min(size), size })
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Whether the file is still the one that its name leads to, and nobody cut it.
    pub(super) fn is_in_place(&self) -> bool {
        let (Ok(named), Ok(own)) = (fs::symlink_metadata(&self.path), self.file.metadata()) else {
            return false;
        };
        (named.dev(), named.ino()) == (own.dev(), own.ino()) && own.len() >= self.length
    }

    /// Puts `text` after what is there. What is there already of it, from an earlier run, is left as it is,
    /// so that who reads along meets no byte twice.
    pub(super) fn put(&mut self, text: &[u8]) -> Result<(), MirrorError> {
        let put = |lines: &mut Self| -> io::Result<()> {
            let there = usize::try_from(lines.size.saturating_sub(lines.length)).unwrap_or(usize::MAX);
            let mut found = vec![0; there.min(text.len())];
            lines.file.read_exact_at(&mut found, lines.length)?;
            let same = found.iter().zip(text).take_while(|(found, wanted)| found == wanted).count();
            let rest = text.get(same..).unwrap_or_default();
            if !rest.is_empty() {
                let from = lines.length + same as u64;
                if there > same {
                    // A line that was torn.
                    lines.file.set_len(from)?;
                }
                lines.file.write_all_at(rest, from)?;
                lines.size = from + rest.len() as u64;
            }
            lines.length += text.len() as u64;
            Ok(())
        };
        put(self).map_err(at(&self.path.clone()))
    }

    /// Makes what was put durable.
    pub(super) fn sync(&self) -> Result<(), MirrorError> {
        self.file.sync_data().map_err(at(&self.path))
    }
}
