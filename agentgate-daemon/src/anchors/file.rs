//! Checkpoints appended to a file.

use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

/// Appends a line, and returns when it is durable. The file is opened each time: it may have been rotated away.
pub(super) fn append(path: &Path, line: &str) -> io::Result<()> {
    // O_APPEND alone works where only additions are allowed (chattr +a).
    let opened = fs::OpenOptions::new().append(true).create_new(true).mode(0o600).open(path);
    let mut file = match opened {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::OpenOptions::new().append(true).open(path)?
        }
        opened => opened?,
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    if metadata.permissions().mode() & 0o022 != 0 {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "others may write to it"));
    }
    // In one write, so that a line is whole or torn off at the end; a torn one is ended.
    let torn = metadata.len() > 0 && !ends_with_newline(path, metadata.len())?;
    file.write_all(format!("{}{line}\n", if torn { "\n" } else { "" }).as_bytes())?;
    file.sync_data()
}

fn ends_with_newline(path: &Path, length: u64) -> io::Result<bool> {
    use std::os::unix::fs::FileExt as _;
    let mut last = [0];
    fs::File::open(path)?.read_exact_at(&mut last, length - 1)?;
    Ok(last == *b"\n")
}
