//! `agentctl audit export`.

use std::{io, io::IsTerminal as _, path::PathBuf, sync::Arc};

use super::{
    super::{Failure, Session, output},
    saved::{CursorFile, Progress, Target},
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
        if !self.format.is_lines() && (self.follow || self.cursor_file.is_some()) {
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
                "an export that verifies is a whole: write what follows to a file of its own, or use --plain",
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
    formatter: Formatter,
    target: Target,
    cursor: Option<CursorFile>,
    progress: Progress,
    buffer: Vec<u8>,
    /// Where to go on: after the last row that was taken.
    next: u64,
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
        if line.starts_with(b"{\"type\":\"entry\"") {
            self.rows += 1;
        }
        self.buffer.extend_from_slice(line);
        self.buffer.push(b'\n');
        if self.buffer.len() >= WRITE { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<(), Failure> {
        if !self.buffer.is_empty() {
            self.target.write(&self.buffer, &mut self.session.output)?;
            self.buffer.clear();
        }
        Ok(())
    }

    /// All that was up to here is taken.
    fn walked(&mut self, turned: Turned) -> Result<(), Failure> {
        self.next = self.next.max(turned.next);
        self.missing += turned.pruned + turned.unreadable;
        self.progress.say(self.next, turned.end, self.rows);
        // Who follows reads along; who keeps a cursor wants it to hold.
        if turned.is_over() || self.cursor.is_some() {
            self.write()?;
            self.target.sync(&mut self.session.output)?;
            if let Some(cursor) = &self.cursor {
                cursor.write(self.next)?;
            }
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), Failure> {
        self.formatter.end(&mut self.buffer)?;
        self.write()?;
        self.target.sync(&mut self.session.output)?;
        self.progress.clear();
        if self.left_out > 0 {
            output::complain(&format!(
                "{} records are no HTTP exchanges, and HAR has no place for them",
                self.left_out
            ));
        }
        if self.missing > 0 { Err(Failure::Incomplete(self.missing)) } else { Ok(()) }
    }
}

pub(super) fn run(session: &mut Session, args: &Args) -> Result<(), Failure> {
    args.check(session.output.terminal)?;
    let filter = args.filter();
    let parsed = Filter::parse(&filter, Timestamp::now());
    let parsed = parsed.map_err(|error| Failure::Invalid(Some(error.to_string())))?;
    let cursor = args.cursor_file.clone().map(CursorFile::new);
    let kept = cursor.as_ref().map(CursorFile::read).transpose()?.flatten();
    let begin = args.after.or(kept);
    let more = begin.is_some() && args.format.is_lines() && !args.force;
    let goes_on =
        more && args.output.as_ref().is_some_and(|path| path.metadata().is_ok_and(|file| file.len() > 0));
    let mut writing = Writing {
        formatter: Formatter::new(args.format, args.bodies)?,
        target: Target::open(args.output.as_deref(), more, args.force)?,
        cursor,
        progress: Progress::new(&session.output, args.output.is_some()),
        buffer: Vec::new(),
        next: begin.unwrap_or(0),
        rows: 0,
        left_out: 0,
        missing: 0,
        session,
    };
    if !goes_on {
        writing.formatter.begin(&mut writing.buffer);
    }
    let done = match &args.store {
        Some(path) => from_file(&mut writing, args, parsed, path.clone()),
        None => from_daemon(&mut writing, args, &filter),
    };
    let done = done.and_then(|()| writing.end());
    writing.progress.clear();
    let told = args.output.is_some() || io::stderr().is_terminal();
    match &done {
        Ok(()) if told => {
            output::complain(&format!(
                "{} records written; what comes later: --after {}",
                writing.rows, writing.next
            ));
        }
        // What is whole was written, so that it can be gone on with.
        Err(_) if writing.rows > 0 && args.format.is_lines() => {
            let written = writing.write().and_then(|()| writing.target.sync(&mut writing.session.output));
            if written.is_ok() {
                output::complain(&format!(
                    "{} records written; to go on: --after {}",
                    writing.rows, writing.next
                ));
            }
        }
        Ok(()) | Err(_) => {}
    }
    done
}

fn from_file(writing: &mut Writing<'_>, args: &Args, filter: Filter, path: PathBuf) -> Result<(), Failure> {
    let closed = Arc::new(Closed::open(&path)?);
    let wanted = Wanted { filter, bodies: args.bodies, open: args.begun };
    if args.is_chained() {
        let mut chain = Chained::new(From::File(closed), wanted, args.filter(), writing.next);
        let line = |writing: &mut Writing<'_>, line: &Line| {
            let text = serde_json::to_vec(line).map_err(|error| Failure::Output(error.into()))?;
            writing.copy(&text)
        };
        loop {
            let turned = chain.step(|made| line(writing, made))?;
            if turned.is_over() {
                line(writing, &chain.end())?;
            }
            writing.walked(turned)?;
            if turned.is_over() {
                return Ok(());
            }
        }
    }
    let mut pages = Pages::new(From::File(closed), wanted, writing.next);
    loop {
        let turned = pages.turn(|row| {
            writing.take(&row)?;
            // A page ends by what was read, not by what was written.
            Ok::<_, Failure>(row.size())
        })?;
        writing.walked(turned)?;
        if turned.is_over() {
            return Ok(());
        }
    }
}

fn from_daemon(writing: &mut Writing<'_>, args: &Args, filter: &str) -> Result<(), Failure> {
    loop {
        let before = writing.next;
        match ask(writing, args, filter) {
            // The daemon cut it off, because what reads the output was slow: goes on after the last row.
            Err(Failure::Daemon(ClientError::Protocol(_) | ClientError::Io(_)))
                if writing.next > before && !args.is_chained() => {}
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
    };
    let client: Client = writing.session.connect()?;
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
