//! Closed files of a mirror: their names, their compression, and how many there are.

use std::{
    fs, io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use super::{
    MirrorError, Settings, at,
    place::{Place, sync_directory},
};
use crate::model::Compress;

/// Of zstd; its own default.
const LEVEL: i32 = 3;

/// What stands before and behind the middle of a closed file's name.
fn around(path: &Path) -> (String, String) {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match name.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() => (format!("{stem}-"), format!(".{extension}")),
        Some(_) | None => (format!("{name}-"), String::new()),
    }
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Renames the file that is written to. Its name says when it was begun, and with which entry, so that the
/// names sort as the entries do.
pub(super) fn close(settings: &Settings, place: &Place) -> Result<PathBuf, MirrorError> {
    let path = &settings.path;
    let (before, after) = around(path);
    let began = jiff::Timestamp::from_microsecond(place.began.0).unwrap_or_default();
    let began = began.strftime("%Y%m%dT%H%M%SZ");
    let mut closed = directory(path).join(format!("{before}{began}-{:015}{after}", place.first));
    for more in 1.. {
        if !closed.exists() && !EXTENSIONS.iter().any(|extension| with(&closed, extension).exists()) {
            break;
        }
        closed = directory(path).join(format!("{before}{began}-{:015}.{more}{after}", place.first));
    }
    let rename = || {
        fs::rename(path, &closed)?;
        sync_directory(path)
    };
    rename().map_err(at(path))?;
    Ok(closed)
}

const EXTENSIONS: [&str; 2] = ["gz", "zst"];

fn with(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    name.into()
}

/// Compresses closed files that are not yet, and removes the oldest beyond those that are kept.
pub(super) fn tidy(settings: &Settings) -> Result<(), MirrorError> {
    let path = &settings.path;
    // Halves of compressed files; what they were made of is there.
    let (halves, whole): (Vec<_>, Vec<_>) = closed(path)
        .map_err(at(path))?
        .into_iter()
        .partition(|path| path.extension().is_some_and(|extension| extension == "new"));
    for half in halves {
        fs::remove_file(&half).map_err(at(&half))?;
    }
    for closed in whole {
        let name = closed.to_string_lossy();
        if EXTENSIONS.iter().any(|extension| name.ends_with(&format!(".{extension}"))) {
            continue;
        }
        let extension = match settings.compress {
            Compress::None => continue,
            Compress::Gzip => "gz",
            Compress::Zstd => "zst",
        };
        compress(&closed, extension).map_err(at(&closed))?;
    }
    let mut all = closed(path).map_err(at(path))?;
    all.sort();
    let beyond = if settings.keep == 0 { 0 } else { all.len().saturating_sub(settings.keep) };
    for old in all.iter().take(beyond) {
        fs::remove_file(old).map_err(at(old))?;
    }
    Ok(())
}

/// Closed files, by what their names must look like: nothing else in the directory is touched.
pub(super) fn closed(path: &Path) -> io::Result<Vec<PathBuf>> {
    let (before, after) = around(path);
    let mut found = Vec::new();
    for entry in fs::read_dir(directory(path))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(rest) = name.strip_prefix(&before) else { continue };
        let rest = rest.strip_suffix(".new").unwrap_or(rest);
        let rest = EXTENSIONS
            .iter()
            .find_map(|extension| rest.strip_suffix(&format!(".{extension}")))
            .unwrap_or(rest);
        let Some(middle) = rest.strip_suffix(after.as_str()) else { continue };
        let is_time = |text: &str| {
            text.len() == 16
                && text.bytes().enumerate().all(|(at, byte)| match at {
                    8 => byte == b'T',
                    15 => byte == b'Z',
                    _ => byte.is_ascii_digit(),
                })
        };
        let is_number = |text: &str| {
            let mut parts = text.split('.');
            let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            parts.next().is_some_and(|first| first.len() >= 15 && digits(first)) && parts.all(digits)
        };
        if middle.split_once('-').is_some_and(|(time, number)| is_time(time) && is_number(number))
            && entry.file_type()?.is_file()
        {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn compress(path: &Path, extension: &str) -> io::Result<()> {
    let done = with(path, extension);
    let fresh = with(&done, "new");
    let mut from = fs::File::open(path)?;
    let mut options = fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    let file = if extension == "gz" {
        let mut encoder = flate2::write::GzEncoder::new(file, flate2::Compression::default());
        io::copy(&mut from, &mut encoder)?;
        encoder.finish()?
    } else {
        let mut encoder = zstd::Encoder::new(file, LEVEL)?;
        encoder.include_checksum(true)?;
        io::copy(&mut from, &mut encoder)?;
        encoder.finish()?
    };
    file.sync_all()?;
    fs::rename(&fresh, &done)?;
    sync_directory(path)?;
    fs::remove_file(path)
}
