//! Where an export goes, and how far it came.

use std::{
    fs, io,
    io::{IsTerminal as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::super::{Failure, output::Output};

/// Time between two words about how far it came.
const WORDS: Duration = Duration::from_millis(200);

fn at(path: &Path) -> impl FnOnce(io::Error) -> Failure + '_ {
    |source| Failure::File { path: path.to_owned(), source }
}

/// A file, or standard output.
#[derive(Debug)]
pub(super) struct Target {
    file: Option<(PathBuf, fs::File)>,
}

impl Target {
    /// `path`, mode 0600 where it is made: a file that is there is gone on with where `more`, begun anew
    /// where `force`, and else left alone.
    pub(super) fn open(path: Option<&Path>, more: bool, force: bool) -> Result<Self, Failure> {
        let Some(path) = path else { return Ok(Self { file: None }) };
        let mut options = fs::OpenOptions::new();
        options.mode(0o600);
        if more {
            options.append(true).create(true);
        } else if force {
            options.write(true).create(true).truncate(true);
        } else {
            options.write(true).create_new(true);
        }
        let opened = options.open(path);
        if opened.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists) {
            let name = path.display();
            let words =
                format!("{name} is there already: go on with it by --after, or write it anew by --force");
            return Err(Failure::Invalid(Some(words)));
        }
        Ok(Self { file: Some((path.to_owned(), opened.map_err(at(path))?)) })
    }

    /// Writes whole lines at one stroke, so that what is killed seldom leaves half of one.
    pub(super) fn write(&mut self, bytes: &[u8], output: &mut Output) -> Result<(), Failure> {
        match &mut self.file {
            Some((path, file)) => file.write_all(bytes).map_err(at(path)),
            None if output.terminal => {
                // Lines of their own: they are escaped, and get their ends back.
                let lines = bytes.strip_suffix(b"\n").unwrap_or(bytes);
                if lines.is_empty() { Ok(()) } else { output.bytes(lines) }
            }
            None => output.bytes(bytes),
        }
    }

    /// Hands over what was written; a file's content is on the disk then.
    pub(super) fn sync(&mut self, output: &mut Output) -> Result<(), Failure> {
        match &mut self.file {
            // Pipes and devices have nothing to sync.
            Some((path, file)) => match file.sync_all() {
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
                other => other.map_err(at(path)),
            },
            None => output.flush(),
        }
    }
}

/// The position to go on at, in a file: read before, written as the export goes on.
#[derive(Debug)]
pub(super) struct CursorFile(PathBuf);

impl CursorFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// `None` where there is no such file yet.
    pub(super) fn read(&self) -> Result<Option<u64>, Failure> {
        match fs::read_to_string(&self.0) {
            Ok(text) => text.trim().parse().map(Some).map_err(|_| {
                Failure::Invalid(Some(format!("{} does not hold the number of an entry", self.0.display())))
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(at(&self.0)(error)),
        }
    }

    /// Replaces it as a whole, once what is before `next` is on the disk.
    pub(super) fn write(&self, next: u64) -> Result<(), Failure> {
        let mut fresh = self.0.clone().into_os_string();
        fresh.push(".new");
        let fresh = PathBuf::from(fresh);
        let write = || {
            let mut options = fs::OpenOptions::new();
            let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
            writeln!(file, "{next}")?;
            file.sync_all()?;
            fs::rename(&fresh, &self.0)
        };
        write().map_err(at(&self.0))
    }
}

/// How far it came, on a terminal that shows nothing else.
#[derive(Debug)]
pub(super) struct Progress {
    shown: bool,
    last: Option<Instant>,
    on: bool,
}

impl Progress {
    pub(super) fn new(output: &Output, to_file: bool) -> Self {
        Self { shown: false, last: None, on: io::stderr().is_terminal() && (to_file || !output.terminal) }
    }

    pub(super) fn say(&mut self, next: u64, end: u64, rows: u64) {
        if !self.on || self.last.is_some_and(|last| last.elapsed() < WORDS) {
            return;
        }
        self.last = Some(Instant::now());
        self.shown = true;
        // Where standard error is closed there is nobody to tell.
        let _unheard = write!(io::stderr(), "\r\u{1b}[Kentry {next} of {end}, {rows} records");
    }

    /// Leaves the line to whoever writes next.
    pub(super) fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            let _unheard = write!(io::stderr(), "\r\u{1b}[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_there_is_not_written_over_untold() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.csv");
        let mut output = Output::to_stdout(false);
        let write = |more, force, text: &[u8], output: &mut Output| {
            let mut target = Target::open(Some(&path), more, force)?;
            target.write(text, output)?;
            target.sync(output)
        };
        write(false, false, b"one\n", &mut output).unwrap();
        assert!(matches!(write(false, false, b"two\n", &mut output), Err(Failure::Invalid(Some(_)))));
        write(true, false, b"two\n", &mut output).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one\ntwo\n");
        write(false, true, b"three\n", &mut output).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"three\n");
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_cursor_is_kept_and_nothing_else_is_taken_for_one() {
        let dir = tempfile::tempdir().unwrap();
        let file = CursorFile::new(dir.path().join("cursor"));
        assert_eq!(file.read().unwrap(), None);
        file.write(77).unwrap();
        assert_eq!(file.read().unwrap(), Some(77));
        fs::write(dir.path().join("cursor"), "x").unwrap();
        assert!(matches!(file.read(), Err(Failure::Invalid(Some(_)))));
    }
}
