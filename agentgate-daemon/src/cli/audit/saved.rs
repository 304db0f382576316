//! Where an export goes, and how far it came.

use std::{
    fs, io,
    io::{IsTerminal as _, Seek as _, Write as _},
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
    /// Bytes of the file, or that were written.
    length: u64,
}

/// What is to become of a file that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum There {
    /// It is left alone.
    Refuse,
    /// It is begun anew.
    Replace,
    /// It is gone on with.
    GoOn,
    /// It is gone on with behind so many bytes; what is behind them goes.
    GoOnAt(u64),
}

impl Target {
    /// `path`, mode 0600 where it is made.
    pub(super) fn open(path: Option<&Path>, there: There) -> Result<Self, Failure> {
        let Some(path) = path else { return Ok(Self { file: None, length: 0 }) };
        let mut options = fs::OpenOptions::new();
        options.mode(0o600);
        match there {
            There::GoOn | There::GoOnAt(_) => options.append(true).create(true),
            There::Replace => options.write(true).create(true).truncate(true),
            There::Refuse => options.write(true).create_new(true),
        };
        let opened = options.open(path);
        if opened.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists) {
            let name = path.display();
            let words =
                format!("{name} is there already: go on with it by --resume, or write it anew by --force");
            return Err(Failure::Invalid(Some(words)));
        }
        let file = opened.map_err(at(path))?;
        if let There::GoOnAt(length) = there {
            file.set_len(length).map_err(at(path))?;
        }
        let length = file.metadata().map_err(at(path))?.len();
        Ok(Self { file: Some((path.to_owned(), file)), length })
    }

    /// Bytes of the file.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Takes the last `bytes` back; false where that cannot be done: of a pipe.
    pub(super) fn cut(&mut self, bytes: u64) -> Result<bool, Failure> {
        if bytes == 0 {
            return Ok(true);
        }
        let Some((path, file)) = &self.file else { return Ok(false) };
        if !file.metadata().map_err(at(path))?.is_file() {
            return Ok(false);
        }
        self.length = self.length.saturating_sub(bytes);
        file.set_len(self.length).map_err(at(path))?;
        // Without `append` it is written to where it was.
        let mut file = file;
        file.seek(io::SeekFrom::End(0)).map_err(at(path))?;
        Ok(true)
    }

    /// Writes whole lines at one stroke, so that what is killed seldom leaves half of one.
    pub(super) fn write(&mut self, bytes: &[u8], output: &mut Output) -> Result<(), Failure> {
        if let Some((path, file)) = &mut self.file {
            let written = file.write_all(bytes);
            if written.is_err() && file.metadata().is_ok_and(|file| file.is_file()) {
                // What is there of it would be half a line. Where it stays, going on finds and cuts it.
                let _torn = file.set_len(self.length).and_then(|()| file.seek(io::SeekFrom::End(0)));
            }
            written.map_err(at(path))?;
        }
        self.length += bytes.len() as u64;
        match &mut self.file {
            Some(_) => Ok(()),
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
pub(super) struct CursorFile {
    path: PathBuf,
    /// Of one output alone: with the bytes of it that hold what is before.
    beside: bool,
}

impl CursorFile {
    /// One that was named.
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, beside: false }
    }

    /// `NAME.cursor`, of this output.
    pub(super) fn beside(output: &Path) -> Self {
        let mut path = output.as_os_str().to_owned();
        path.push(".cursor");
        Self { path: path.into(), beside: true }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The entry, and the bytes of the output that hold what is before it where that is known. `None` where
    /// there is no such file yet.
    pub(super) fn read(&self) -> Result<Option<(u64, Option<u64>)>, Failure> {
        match fs::read_to_string(&self.path) {
            Ok(text) => {
                let mut numbers = text.split_ascii_whitespace().map(str::parse::<u64>);
                let found = (numbers.next(), numbers.next().transpose(), numbers.next());
                let (Some(Ok(next)), Ok(length), None) = found else {
                    let words = format!("{} does not hold the number of an entry", self.path.display());
                    return Err(Failure::Invalid(Some(words)));
                };
                Ok(Some((next, length)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(at(&self.path)(error)),
        }
    }

    /// Replaces it as a whole, once what is before `next` is on the disk, in `length` bytes of the output.
    pub(super) fn write(&self, next: u64, length: u64) -> Result<(), Failure> {
        let mut fresh = self.path.clone().into_os_string();
        fresh.push(".new");
        let fresh = PathBuf::from(fresh);
        let write = || {
            let mut options = fs::OpenOptions::new();
            let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
            if self.beside {
                writeln!(file, "{next} {length}")?;
            } else {
                writeln!(file, "{next}")?;
            }
            file.sync_all()?;
            fs::rename(&fresh, &self.path)
        };
        write().map_err(at(&self.path))
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
        let write = |there, text: &[u8], output: &mut Output| {
            let mut target = Target::open(Some(&path), there)?;
            target.write(text, output)?;
            target.sync(output)
        };
        write(There::Refuse, b"one\n", &mut output).unwrap();
        assert!(matches!(write(There::Refuse, b"two\n", &mut output), Err(Failure::Invalid(Some(_)))));
        write(There::GoOn, b"two\n", &mut output).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one\ntwo\n");
        write(There::GoOnAt(4), b"2\n", &mut output).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one\n2\n");
        write(There::Replace, b"three\n", &mut output).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"three\n");
        for there in [There::Replace, There::GoOn] {
            let mut target = Target::open(Some(&path), there).unwrap();
            target.write(b"four\nfive\n", &mut output).unwrap();
            assert!(target.cut(5).unwrap());
            target.write(b"six\n", &mut output).unwrap();
            assert_eq!(target.length(), fs::metadata(&path).unwrap().len());
        }
        assert_eq!(fs::read(&path).unwrap(), b"four\nsix\nfour\nsix\n");
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_cursor_is_kept_and_nothing_else_is_taken_for_one() {
        let dir = tempfile::tempdir().unwrap();
        let file = CursorFile::new(dir.path().join("cursor"));
        assert_eq!(file.read().unwrap(), None);
        file.write(77, 5).unwrap();
        assert_eq!(file.read().unwrap(), Some((77, None)));
        let beside = CursorFile::beside(&dir.path().join("log.csv"));
        beside.write(77, 5).unwrap();
        assert_eq!(beside.read().unwrap(), Some((77, Some(5))));
        assert_eq!(beside.path(), dir.path().join("log.csv.cursor"));
        fs::write(dir.path().join("cursor"), "x").unwrap();
        assert!(matches!(file.read(), Err(Failure::Invalid(Some(_)))));
    }
}
