//! Reads the policy's files, each within a cap.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

use super::{List, PolicyPaths};
use crate::policy::{Policy, Text, Texts};

/// Largest file that is read, in bytes: room for a list of several hundred thousand hosts.
pub(super) const LARGEST: u64 = 16 * 1024 * 1024;

/// A policy as the files have it.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) policy: Policy,
    pub(super) mode_overridden: bool,
}

/// Reads and compiles; the errors are for people, with file, line and column.
pub(super) fn compile(paths: &PolicyPaths) -> Result<Loaded, Vec<String>> {
    let mut errors = Vec::new();
    let mut read = |path: &Path| match read_text(path) {
        Ok(text) => text,
        Err(error) => {
            errors.push(format!("{}: {error}", path.display()));
            None
        }
    };
    let policy = read(&paths.policy).map(|text| (path_text(&paths.policy), text));
    let [allow, deny, passthrough] = List::ALL.map(|list| {
        let path = paths.lists.join(list.file());
        read(&path).map(|text| (path_text(&path), text))
    });
    let mode = read(&paths.mode).map(|text| (path_text(&paths.mode), text));
    if policy.is_none() && errors.is_empty() {
        errors.push(format!("{}: there is no policy; nothing passes without one", paths.policy.display()));
    }
    if !errors.is_empty() {
        return Err(errors);
    }

    let texts = Texts {
        policy: text(&policy),
        allow: text(&allow).into_iter().collect(),
        deny: text(&deny).into_iter().collect(),
        passthrough: text(&passthrough).into_iter().collect(),
        mode: text(&mode),
    };
    match Policy::compile(&texts) {
        Ok(policy) => Ok(Loaded { policy, mode_overridden: mode.is_some() }),
        Err(errors) => Err(errors.iter().map(ToString::to_string).collect()),
    }
}

fn text(file: &Option<(String, String)>) -> Option<Text<'_>> {
    file.as_ref().map(|(file, text)| Text { file, text })
}

fn path_text(path: &Path) -> String {
    path.display().to_string()
}

/// The contents of a regular file; `None` where there is no such file.
pub(super) fn read_text(path: &Path) -> io::Result<Option<String>> {
    // Without O_NONBLOCK, opening a FIFO somebody put there would wait for its writer.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => read_capped(file).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(unreadable(path, error)),
        Err(error) => Err(error),
    }
}

/// The daemon is root without the right to read every file, which its owner does not expect.
fn unreadable(path: &Path, error: io::Error) -> io::Error {
    match std::fs::metadata(path) {
        Ok(file) => io::Error::new(
            error.kind(),
            format!(
                "the daemon may not read it: it belongs to uid {} with mode {:04o}; `chmod a+r` it, or give it \
                 to root",
                file.uid(),
                file.mode() & 0o7777
            ),
        ),
        Err(_) => error,
    }
}

fn read_capped(file: File) -> io::Result<String> {
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    if !file.metadata()?.is_file() {
        return Err(invalid("not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(invalid("larger than 16 MiB"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let line =
            error.as_bytes().iter().take(error.utf8_error().valid_up_to()).filter(|b| **b == b'\n').count();
        invalid(&format!("line {} is not UTF-8", line + 1))
    })
}
