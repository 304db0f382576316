//! `agentctl audit export`.

use std::{
    io,
    io::IsTerminal as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    super::{Failure, Session, output},
    saved::{CursorFile, Progress, Target, There},
    sound::Sound,
    stopping::Stopping,
};
use crate::{
    chain::Line,
    control::{
        client::{Client, ClientError},
        wire::{ExportAsk, Item, Request},
    },
    export::{
        Format, Formatter, Row,
        chained::Chained,
        pages::{From, Pages, Turned, Wanted},
    },
    filter::{Filter, shorthand},
    model::Timestamp,
    store::order::Closed,
};

/// Longest line that is put together: a record with two bodies of the largest that can be captured.
const LINE: usize = 256 << 20;
/// Bytes after which what is gathered is written.
const WRITE: usize = 1 << 20;
/// Bytes that wait for the checkpoint that covers them. What is longer is written, and taken back from a file
/// where the checkpoint does not come.
const HELD: usize = 32 << 20;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// jsonl, ocsf, csv, har or parquet
    #[arg(long, default_value = "jsonl")]
    format: Format,
    /// Records from here on: 2h, 30m, 1d, or a time as in 2026-11-20T08:00:00Z
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Records before this time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Part of a host name, or a pattern with *
    #[arg(long)]
    host: Option<String>,
    /// Session, as `show` names it
    #[arg(long)]
    session: Option<String>,
    /// Of jsonl: bare records, masked as `show` has them, without what proves them
    #[arg(long)]
    plain: bool,
    /// With captured bodies, which are not masked; the export is recorded then
    #[arg(long)]
    bodies: bool,
    /// Also the beginnings of records, which say that something is under way
    #[arg(long)]
    begun: bool,
    /// Go on with what comes; of formats that are lines
    #[arg(short, long, conflicts_with = "store")]
    follow: bool,
    /// Begin at this entry, as an export before said at its end
    #[arg(long, value_name = "CURSOR")]
    after: Option<u64>,
    /// Begin at the entry that FILE names, where there is one, and keep it up to date
    #[arg(long, value_name = "FILE", conflicts_with = "after")]
    cursor_file: Option<PathBuf>,
    /// Go on with FILE behind what is whole of it, and make it where it is not there; of formats that are lines.
    /// But for lines that verify, where it goes on is in FILE.cursor
    #[arg(long, requires = "output", conflicts_with_all = ["after", "cursor_file", "force"])]
    resume: bool,
    /// Write to FILE, mode 0600, instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Begin FILE anew where it is there
    #[arg(long, requires = "output")]
    force: bool,
    /// Read this store file instead of asking the daemon: a backup, or the log while no daemon runs
    #[arg(long, value_name = "FILE")]
    store: Option<PathBuf>,
    /// As `agentctl logs` takes it: 'verdict:deny host:*.example.com'
    filter: Vec<String>,
}

impl Args {
    /// All conditions in one text.
    fn filter(&self) -> String {
        let given = |given: &Option<String>| given.clone().unwrap_or_default();
        let parts = [
            self.filter.join(" "),
            shorthand::part("host", &given(&self.host)),
            shorthand::exact("session", &given(&self.session)),
            shorthand::exact("since", &given(&self.since)),
            shorthand::exact("until", &given(&self.until)),
        ];
        shorthand::joined(parts.iter().map(String::as_str))
    }

    /// Whether the lines are those that verify.
    fn is_chained(&self) -> bool {
        self.format == Format::Jsonl && !self.plain
    }

    fn check(&self, terminal: bool) -> Result<(), Failure> {
        let wrong = |text: &str| Err(Failure::Invalid(Some(text.to_owned())));
        let continued = self.after.is_some() || self.cursor_file.is_some();
        if !self.format.is_lines() && (self.follow || self.resume || self.cursor_file.is_some()) {
            return wrong("har and parquet are whole files: they cannot be followed or gone on with");
        }
        if !self.format.is_lines()
            && continued
            && self.output.as_ref().is_some_and(|path| path.exists())
            && !self.force
        {
            return wrong("har and parquet are whole files: write the rest to a file of its own");
        }
        if self.plain && self.format != Format::Jsonl {
            return wrong("--plain is of jsonl");
        }
        let there = self.output.as_ref().is_some_and(|path| path.metadata().is_ok_and(|file| file.len() > 0));
        if self.is_chained() && continued && there && !self.force {
            return wrong(
                "an export that verifies goes on from what it has: use --resume, or write what follows to a file \
                 of its own",
            );
        }
        if !self.format.is_text() && self.output.is_none() && terminal {
            return wrong("parquet is not for a terminal: write it to a file with -o");
        }
        Ok(())
    }
}

/// An export under way, on the side that writes.
struct Writing<'s> {
    session: &'s mut Session,
    stopping: Stopping,
    formatter: Formatter,
    target: Target,
    cursor: Option<CursorFile>,
    progress: Progress,
    buffer: Vec<u8>,
    /// Of lines that verify: what they hold, up to where in `buffer` they are signed, and how many bytes were
    /// written that are not.
    sound: Option<Sound>,
    covered: usize,
    beyond: u64,
    /// Where to go on: after the last row that was taken.
    next: u64,
    /// The daemon said that this was all there was.
    over: bool,
    rows: u64,
    left_out: u64,
    missing: u64,
}

impl Writing<'_> {
    fn take(&mut self, row: &Row) -> Result<(), Failure> {
        if self.formatter.row(row, &mut self.buffer)? {
            self.rows += 1;
        } else {
            self.left_out += 1;
        }
        self.next = row.n + 1;
        if self.buffer.len() >= WRITE { self.write() } else { Ok(()) }
    }

    /// A line that verifies, as it is.
    fn copy(&mut self, line: &[u8]) -> Result<(), Failure> {
        let Some(sound) = &mut self.sound else { return Err(Failure::Unexpected) };
        // Asked anew before there was a checkpoint: the head is there already.
        if sound.has_head(line)? {
            return Ok(());
        }
        let before = sound.entries();
        let covers = sound.line(line).map_err(|error| ClientError::Protocol(error.to_string()))?;
        self.buffer.extend_from_slice(line);
        self.buffer.push(b'\n');
        if covers {
            self.covered = self.buffer.len();
            self.rows += sound.entries() - before;
            self.next = sound.had().map_or(self.next, |had| self.next.max(had.checkpoint.entries));
        }
        if self.buffer.len() >= WRITE { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<(), Failure> {
        let length = match &self.sound {
            Some(_) if self.buffer.len() - self.covered < HELD => self.covered,
            Some(_) | None => self.buffer.len(),
        };
        if let Some(bytes) = self.buffer.get(..length).filter(|bytes| !bytes.is_empty()) {
            self.target.write(bytes, &mut self.session.output)?;
            if self.covered > 0 {
                self.beyond = 0;
            }
            self.beyond += length.saturating_sub(self.covered) as u64;
            self.buffer.drain(..length);
            self.covered = 0;
        }
        Ok(())
    }

    /// All that was up to here is taken.
    fn walked(&mut self, turned: Turned) -> Result<(), Failure> {
        self.next = self.next.max(turned.next);
        self.missing += turned.pruned + turned.unreadable;
        self.over = turned.is_over();
        self.progress.say(self.next, turned.end, self.rows);
        // Who follows reads along; who keeps a cursor wants it to hold.
        if turned.is_over() || self.cursor.is_some() {
            self.save()?;
        }
        Ok(())
    }

    /// Writes what there is, and where it is to be gone on with.
    fn save(&mut self) -> Result<(), Failure> {
        self.write()?;
        self.target.sync(&mut self.session.output)?;
        match &self.cursor {
            Some(cursor) => cursor.write(self.next, self.target.length()),
            None => Ok(()),
        }
    }

    /// Takes back what no checkpoint covers; false where that was written to where nothing is taken back.
    fn cut(&mut self) -> Result<bool, Failure> {
        let Some(sound) = &mut self.sound else { return Ok(true) };
        sound.cut();
        self.buffer.truncate(self.covered);
        self.write()?;
        let cut = self.target.cut(self.beyond)?;
        self.beyond = 0;
        Ok(cut)
    }

    /// Closes what was written, so that it is a whole and can be gone on with.
    fn end(&mut self) -> Result<(), Failure> {
        if !self.cut()? {
            output::complain("the end of what was written is not signed, and cannot be taken back");
        } else if let Some(sound) = self.sound.as_ref().filter(|_| self.target.length() > 0) {
            let last = Line::End { entries: sound.entries(), next: Some(self.next.to_string()) };
            serde_json::to_writer(&mut self.buffer, &last).map_err(|error| Failure::Output(error.into()))?;
            self.buffer.push(b'\n');
            self.covered = self.buffer.len();
        }
        self.formatter.end(&mut self.buffer)?;
        self.save()?;
        self.progress.clear();
        if self.left_out > 0 {
            output::complain(&format!(
                "{} records are no HTTP exchanges, and HAR has no place for them",
                self.left_out
            ));
        }
        Ok(())
    }
}

/// Where an export begins, and what becomes of a file that is there.
struct Beginning {
    next: u64,
    cursor: Option<CursorFile>,
    sound: Option<Sound>,
    there: There,
}

impl Beginning {
    fn of(args: &Args, filter: &str) -> Result<Self, Failure> {
        let there = if args.force { There::Replace } else { There::Refuse };
        let sound = args.is_chained().then(Sound::default);
        if let Some(output) = args.output.as_deref().filter(|_| args.resume) {
            return Self::resumed(args, output, filter);
        }
        let cursor = args.cursor_file.clone().map(CursorFile::new);
        let kept = cursor.as_ref().map(CursorFile::read).transpose()?.flatten();
        let begin = args.after.or(kept.map(|(next, _)| next));
        let goes_on = begin.is_some() && args.format.is_lines() && !args.force;
        let there = if goes_on { There::GoOn } else { there };
        Ok(Self { next: begin.unwrap_or(0), cursor, sound, there })
    }

    fn resumed(args: &Args, output: &Path, filter: &str) -> Result<Self, Failure> {
        if args.is_chained() {
            let (sound, length) = Sound::of_file(output, filter)?.unwrap_or_default();
            let next = sound.had().map_or(0, |had| had.checkpoint.entries);
            let there = There::GoOnAt(length);
            return Ok(Self { next, cursor: None, sound: Some(sound), there });
        }
        let cursor = CursorFile::beside(output);
        let is = output.metadata().map_or(0, |file| file.len());
        let wrong = |why: &str| {
            let words = format!("{}: {why}, as {} has it", output.display(), cursor.path().display());
            Err(Failure::Invalid(Some(words)))
        };
        let (next, length) = match cursor.read()? {
            // Where the file was moved away, another goes on from it.
            Some((next, Some(_))) if is == 0 => (next, 0),
            Some((next, Some(length))) if length <= is => (next, length),
            Some((_, Some(_))) => return wrong("it is shorter than it was"),
            Some((_, None)) => return wrong("it cannot be told how much of it is whole"),
            None if is == 0 => (0, 0),
            None => return wrong("it was not begun with --resume"),
        };
        Ok(Self { next, cursor: Some(cursor), sound: None, there: There::GoOnAt(length) })
    }
}

pub(super) fn run(session: &mut Session, args: &Args) -> Result<(), Failure> {
    args.check(session.output.terminal)?;
    let filter = args.filter();
    let parsed = Filter::parse(&filter, Timestamp::now());
    let parsed = parsed.map_err(|error| Failure::Invalid(Some(error.to_string())))?;
    let Beginning { next, cursor, sound, there } = Beginning::of(args, &filter)?;
    let target = Target::open(args.output.as_deref(), there)?;
    let mut writing = Writing {
        stopping: Stopping::watch()?,
        formatter: Formatter::new(args.format, args.bodies)?,
        cursor,
        progress: Progress::new(&session.output, args.output.is_some()),
        buffer: Vec::new(),
        sound,
        covered: 0,
        beyond: 0,
        next,
        over: false,
        rows: 0,
        left_out: 0,
        missing: 0,
        session,
        target,
    };
    if writing.target.length() == 0 {
        writing.formatter.begin(&mut writing.buffer);
    }
    let done = match &args.store {
        Some(path) => from_file(&mut writing, args, parsed, path),
        None => from_daemon(&mut writing, args, &filter),
    };
    let done = match done {
        Err(Failure::ReaderGone) => return Err(Failure::ReaderGone),
        Ok(()) | Err(_) if writing.stopping.is_asked() && args.follow => Ok(()),
        Ok(()) if writing.over => Ok(()),
        Ok(()) | Err(_) if writing.stopping.is_asked() => Err(Failure::Interrupted),
        // The daemon is stopped: who follows has come to an end.
        Ok(()) if args.follow => Ok(()),
        Ok(()) => Err(ClientError::Protocol("agentgated stopped before the end of it".to_owned()).into()),
        Err(error) => Err(error),
    };
    writing.progress.clear();
    // What is a whole only at its end is none before.
    if done.is_ok() || args.format.is_lines() {
        writing.end()?;
    }
    let (rows, next) = (writing.rows, writing.next);
    match &done {
        Ok(()) if args.output.is_some() || io::stderr().is_terminal() => {
            output::complain(&format!("{rows} records written; what comes later: --after {next}"));
        }
        Err(_) if rows > 0 && args.format.is_lines() => {
            output::complain(&format!("{rows} records written; to go on: --after {next}"));
        }
        Ok(()) | Err(_) => {}
    }
    match done {
        Ok(()) if writing.missing > 0 => Err(Failure::Incomplete(writing.missing)),
        other => other,
    }
}

fn from_file(writing: &mut Writing<'_>, args: &Args, filter: Filter, path: &Path) -> Result<(), Failure> {
    let closed = Arc::new(Closed::open(path)?);
    let wanted = Wanted { filter, bodies: args.bodies, open: args.begun };
    if args.is_chained() {
        let from = From::File(closed);
        let mut chain = match writing.sound.as_ref().and_then(Sound::had) {
            Some(had) => Chained::resumed(from, wanted, args.filter(), had),
            None => Chained::new(from, wanted, args.filter(), writing.next),
        };
        while !writing.over && !writing.stopping.is_asked() {
            let turned = chain.step(|line| {
                let text = serde_json::to_vec(line).map_err(|error| Failure::Output(error.into()))?;
                writing.copy(&text)
            })?;
            writing.walked(turned)?;
        }
        return Ok(());
    }
    let mut pages = Pages::new(From::File(closed), wanted, writing.next);
    while !writing.over && !writing.stopping.is_asked() {
        let turned = pages.turn(|row| {
            writing.take(&row)?;
            // A page ends by what was read, not by what was written.
            Ok::<_, Failure>(row.size())
        })?;
        writing.walked(turned)?;
    }
    Ok(())
}

fn from_daemon(writing: &mut Writing<'_>, args: &Args, filter: &str) -> Result<(), Failure> {
    loop {
        let before = writing.next;
        match ask(writing, args, filter) {
            // The daemon cut it off, because what reads the output was slow: goes on after the last row.
            Err(Failure::Daemon(ClientError::Protocol(_) | ClientError::Io(_)))
                if writing.next > before && !writing.stopping.is_asked() && writing.cut()? => {}
            other => return other,
        }
    }
}

fn ask(writing: &mut Writing<'_>, args: &Args, filter: &str) -> Result<(), Failure> {
    let ask = ExportAsk {
        from: writing.next,
        filter: filter.to_owned(),
        bodies: args.bodies,
        begun: args.begun,
        follow: args.follow,
        chained: args.is_chained(),
        had: writing.sound.as_ref().and_then(Sound::had),
    };
    writing.over = false;
    let client: Client = writing.session.connect()?;
    writing.stopping.cuts(client.connection()?);
    let mut lines = Lines::default();
    client.stream(Request::AuditExport { ask }, args.follow, |item| {
        if let Item::Walked(turned) = item {
            return writing.walked(turned);
        }
        let Item::Rows { text } = item else { return Err(Failure::Unexpected) };
        if args.is_chained() {
            return lines.push(&text, |line| writing.copy(line));
        }
        lines.push(&text, |line| {
            let row = Row::received(line).map_err(|error| ClientError::Protocol(error.to_string()))?;
            writing.take(&row)
        })
    })
}

/// Lines that come in pieces.
#[derive(Debug, Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn push(
        &mut self,
        text: &str,
        mut each: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut rest = text.as_bytes();
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, after) = rest.split_at(end);
            rest = after.get(1..).unwrap_or_default();
            if self.0.is_empty() {
                each(line)?;
            } else {
                self.0.extend_from_slice(line);
                each(&std::mem::take(&mut self.0))?;
            }
        }
        if self.0.len() + rest.len() > LINE {
            return Err(ClientError::Protocol(format!("a row of more than {LINE} bytes")).into());
        }
        self.0.extend_from_slice(rest);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_however_they_are_cut() {
        let text = "one\ntwo ü\n\nfour\n";
        for size in 1..text.len() {
            let (mut lines, mut found) = (Lines::default(), Vec::new());
            let mut left = text;
            while !left.is_empty() {
                let (piece, rest) = left.split_at(left.ceil_char_boundary(size));
                lines
                    .push(piece, |line| {
                        found.push(String::from_utf8(line.to_vec()).unwrap());
                        Ok(())
                    })
                    .unwrap();
                left = rest;
            }
            assert_eq!(found, ["one", "two ü", "", "four"], "{size}");
        }
    }

    #[test]
    fn flags_become_one_filter_that_reads() {
        #[derive(Debug, clap::Parser)]
        struct Whole {
            #[command(flatten)]
            args: Args,
        }
        let parse = |words: &[&str]| {
            <Whole as clap::Parser>::try_parse_from(std::iter::once(&"export").chain(words)).unwrap().args
        };
        let args = parse(&[
            "--host",
            "*.example.com",
            "--session",
            "run-1.scope@77",
            "--since",
            "2026-11-20T08:00:00Z",
            "--until",
            "2026-11-21T08:00:00Z",
            "verdict:deny",
            "OR",
            "status:500",
        ]);
        let filter = args.filter();
        assert!(filter.starts_with("(verdict:deny OR status:500) "), "{filter}");
        Filter::parse(&filter, Timestamp(0)).unwrap();
        assert_eq!(parse(&[]).filter(), "");
        let wrong = [
            vec!["--format", "har", "--follow"],
            vec!["--format", "parquet", "--cursor-file", "/nonexistent/cursor"],
            vec!["--format", "parquet"],
        ];
        for words in wrong {
            assert!(matches!(parse(&words).check(true), Err(Failure::Invalid(Some(_)))), "{words:?}");
        }
        assert!(parse(&["--format", "parquet"]).check(false).is_ok());
    }
}
