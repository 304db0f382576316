//! `agentctl audit import`: a log that is begun with what exports of another hold.
//!
//! It is made in a directory of its own beside its place and put there when it is whole, so that what is
//! broken off leaves no log, and no part of one.

mod place;
mod source;

#[cfg(test)]
mod tests;

use std::{
    io,
    io::{IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{
    super::{Failure, Session, output, terminal},
    upkeep, verify,
};
use crate::{
    chain::{Bodies, Checkpoint, Finding, Line, LogId, PublicKey, Report, Trust},
    config::Paths,
    model::{Kind, Record, RecordId, State, Timestamp},
    store::{
        Store,
        import::{Importer, Refusal, Took},
        verify::lines::Proof,
    },
};
use place::Place;
use source::Source;

/// Time between two words about how far it came.
const WORDS: Duration = Duration::from_millis(200);

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// Exports of one or more logs, or bare records, one a line, in the order in which they are to be; gzip
    /// and zstd are told by their first bytes. - is standard input
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// A public key to go by, as a file (audit.pub) or in hex; may be given more than once [default: the
    /// first key that each export itself names]
    #[arg(long, value_name = "PUB")]
    key: Vec<String>,
    /// Also take what reads of exports that are not whole; the log says so then
    #[arg(long)]
    damaged: bool,
    /// Begin the log here, in the place of the gate's own
    #[arg(long, value_name = "FILE")]
    store: Option<PathBuf>,
}

/// What lines are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Form {
    /// As `export` has them, to be verified.
    Export,
    /// A bare record each.
    Records,
}

/// What one file came to.
#[derive(Clone, Debug, Serialize)]
struct Taken {
    file: String,
    /// Of the bytes as they are in the file, in hex.
    sha256: String,
    bytes: u64,
    form: Form,
    /// The log it is an export of.
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<LogId>,
    /// The last checkpoint of that log.
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<Checkpoint>,
    entries: u64,
    /// Records that begin here, as far as this file says.
    records: u64,
    bodies: u64,
    /// Bodies that entries name and that are not here.
    bodies_not_kept: u64,
    /// Lines that were passed over.
    left_out: u64,
    /// Whether it is an export that is whole.
    verified: bool,
    /// Whether that is by a key that was given.
    key_given: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    findings: Vec<Finding>,
    /// Findings beyond those.
    more: u64,
}

/// The answer.
#[derive(Debug, Serialize)]
struct Imported {
    imported: bool,
    store: PathBuf,
    /// The id that the next record gets.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<RecordId>,
    files: Vec<Taken>,
    /// What was in the place, and is kept.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    aside: Vec<PathBuf>,
}

pub(super) fn run(session: &mut Session, args: &Args) -> Result<(), Failure> {
    place::watch_signals().map_err(|error| Failure::NotImported(Some(error.to_string())))?;
    import(session, args, &mut io::stdin())
}

fn import(session: &mut Session, args: &Args, input: &mut dyn io::Read) -> Result<(), Failure> {
    if args.files.iter().filter(|file| is_stdin(file)).count() > 1 {
        return Err(Failure::Invalid(Some("standard input can be read once".to_owned())));
    }
    let keys: Result<Vec<PublicKey>, _> = args.key.iter().map(|key| verify::key_of(key)).collect();
    let keys = keys.map_err(|why| Failure::Invalid(Some(why.to_string())))?;
    let path = args.store.clone().unwrap_or_else(|| Paths::below(&session.root).store);
    if args.store.is_none() && upkeep::daemon(session)?.is_some() {
        let words = "the gate runs: stop it first (systemctl stop agentgated)";
        return Err(Failure::Invalid(Some(words.to_owned())));
    }
    let place = Place::prepare(&path)?;
    let mut making = Making {
        importer: Importer::new(Store::open(place.store())?)?,
        args,
        keys,
        files: Vec::new(),
        shown: Shown::new(),
    };
    for file in &args.files {
        let taken = making.file(file, input);
        making.shown.end();
        if let Ok(taken) = &taken
            && !taken.verified
            && taken.form == Form::Export
            && !args.damaged
        {
            return not_whole(session, path, taken);
        }
        making.files.push(taken?);
    }
    let Making { importer, files, .. } = making;
    let mut notes: Vec<Record> = files.iter().map(note).collect();
    let next = importer.finish(&mut notes)?;
    let aside = place.put()?;
    said(session, &Imported { imported: true, store: path, next: Some(next), files, aside })
}

fn is_stdin(file: &Path) -> bool {
    file == Path::new("-")
}

fn name_of(file: &Path) -> String {
    if is_stdin(file) { "standard input".to_owned() } else { file.display().to_string() }
}

/// Says what is wrong with an export.
fn not_whole(session: &mut Session, store: PathBuf, taken: &Taken) -> Result<(), Failure> {
    let name = taken.file.clone();
    if session.output.json {
        let answer =
            Imported { imported: false, store, next: None, files: vec![taken.clone()], aside: vec![] };
        session.output.json(&answer)?;
        session.output.flush()?;
    } else {
        for finding in &taken.findings {
            output::complain(&finding.to_string());
        }
        if taken.more > 0 {
            output::complain(&format!("and {} more", taken.more));
        }
    }
    let words = format!("{name} is not whole; --damaged takes what reads of it");
    Err(Failure::NotImported(Some(words)))
}

fn said(session: &mut Session, done: &Imported) -> Result<(), Failure> {
    if session.output.json {
        session.output.json(done)?;
        return session.output.flush();
    }
    for taken in &done.files {
        session.output.line(&terminal::escape(&describe(taken)))?;
    }
    let next = done.next.unwrap_or_default();
    let mut text = format!("the log at {} is begun; the next record gets id {next}", done.store.display());
    for kept in &done.aside {
        text.push_str(&format!("; what was there is kept as {}", kept.display()));
    }
    session.output.line(&terminal::escape(&text))?;
    session.output.flush()
}

/// What is known of a file, in one line: it leads to the export, which stays the evidence for its log.
fn describe(taken: &Taken) -> String {
    let mut text = format!("imported {}: SHA-256 {}", taken.file, taken.sha256);
    if let Some(log) = &taken.log {
        text.push_str(&format!("; export of log {log}"));
    }
    match &taken.last {
        Some(last) => text.push_str(&format!(
            ", its last checkpoint: {} entries, link {}, at {}, by key {}",
            last.entries, last.link, last.time, last.key
        )),
        None if taken.log.is_some() => text.push_str(", without a checkpoint"),
        None => text.push_str("; bare records"),
    }
    text.push_str(&format!("; {} entries of {} records taken", taken.entries, taken.records));
    text.push_str(&format!(", {} bodies, {} bodies not kept", taken.bodies, taken.bodies_not_kept));
    if taken.left_out > 0 {
        text.push_str(&format!(", {} lines left out", taken.left_out));
    }
    let found = taken.findings.len() as u64 + taken.more;
    text.push_str(&match (taken.form, taken.verified, taken.key_given) {
        (Form::Export, true, true) => "; verified: whole, by a key that was given".to_owned(),
        (Form::Export, true, false) => "; verified: whole, by the key that it names itself".to_owned(),
        (Form::Export, false, _) => format!("; verified: not whole, {found} findings"),
        (Form::Records, ..) => "; not verified: nothing proves bare records".to_owned(),
    });
    text
}

/// The record of a file.
fn note(taken: &Taken) -> Record {
    let now = Timestamp::now();
    let mut record = Record::new(Kind::Control, now);
    record.protocol = "control".to_owned();
    (record.state, record.finished) = (State::Done, Some(now));
    record.note = Some(format!("{}; by uid {}", describe(taken), rustix::process::getuid().as_raw()));
    record
}

/// A log under way.
struct Making<'a> {
    importer: Importer,
    args: &'a Args,
    keys: Vec<PublicKey>,
    files: Vec<Taken>,
    shown: Shown,
}

impl Making<'_> {
    fn file(&mut self, file: &Path, input: &mut dyn io::Read) -> Result<Taken, Failure> {
        let name = name_of(file);
        let mut source = if is_stdin(file) { Source::of(input) } else { Source::open(file) }
            .map_err(|source| Failure::File { path: PathBuf::from(&name), source })?;
        let mut taken = Taken {
            file: name.clone(),
            sha256: String::new(),
            bytes: 0,
            form: Form::Records,
            log: None,
            last: None,
            entries: 0,
            records: 0,
            bodies: 0,
            bodies_not_kept: 0,
            left_out: 0,
            verified: false,
            key_given: false,
            findings: Vec::new(),
            more: 0,
        };
        let mut reading = Reading { source: &mut source, name: &name, damaged: self.args.damaged };
        let Some(first) = reading.line()? else {
            return Err(Failure::NotImported(Some(format!("there is nothing in {name}"))));
        };
        let line = parse(first);
        if let Ok(Line::Log(head)) = &line {
            (taken.form, taken.log) = (Form::Export, Some(head.log));
            self.importer.begin(taken.log);
            let trust = Trust { keys: self.keys.clone(), checkpoints: Vec::new() };
            let report = match Proof::begin(Some(line), trust) {
                Ok(proof) => self.export(&mut reading, proof, &mut taken)?,
                Err(report) => *report,
            };
            // Nothing of it can be read: that is not what --damaged is for.
            if report.log.is_none() {
                let why = report.findings.first().map(ToString::to_string).unwrap_or_default();
                return Err(Failure::NotImported(Some(format!("{name}: {why}"))));
            }
            (taken.verified, taken.key_given, taken.last) = (report.whole, report.key_given, report.last);
            (taken.findings, taken.more) = (report.findings, report.more);
        } else if serde_json::from_slice::<Record>(first).is_ok() {
            self.importer.begin(None);
            self.records(&mut reading, &mut taken)?;
        } else {
            let words = "its first line is neither that of an export nor a record";
            return Err(Failure::NotImported(Some(format!("{name}: {words}"))));
        }
        (taken.sha256, taken.bytes) = source.end();
        Ok(taken)
    }

    /// The lines of an export after the first.
    fn export(
        &mut self,
        reading: &mut Reading<'_, '_>,
        mut proof: Proof,
        taken: &mut Taken,
    ) -> Result<Report, Failure> {
        let mut after = None;
        while let Some(line) = reading.line()? {
            let line = parse(line);
            let goes_on = proof.take(&line);
            if !goes_on {
                break;
            }
            match line {
                // The same once more; that it is there was told.
                Ok(Line::Entry { n, .. }) if after == Some(n) => taken.left_out += 1,
                Ok(Line::Entry { n, entry, bodies, .. }) => {
                    after = Some(n);
                    let bodies = bodies.map(|bodies| *bodies).unwrap_or_default();
                    let bodies = [bodies.request, bodies.response].map(|body| body.map(|body| body.0));
                    let took = self.importer.entry(entry.0, bodies)?;
                    self.count(took, reading, taken)?;
                }
                Ok(
                    Line::Log(_)
                    | Line::Pruned(_)
                    | Line::Checkpoint(_)
                    | Line::Key(_)
                    | Line::Skipped { .. }
                    | Line::End { .. },
                ) => {}
                Err(_) => taken.left_out += 1,
            }
        }
        Ok(proof.finish())
    }

    /// The records of a file, the first of which was read.
    fn records(&mut self, reading: &mut Reading<'_, '_>, taken: &mut Taken) -> Result<(), Failure> {
        let mut more = true;
        while more {
            let line = reading.source.current();
            match bare(line) {
                Ok(record) => {
                    let took = self.importer.record(&record)?;
                    self.count(took, reading, taken)?;
                }
                Err(_) if reading.damaged => taken.left_out += 1,
                Err(why) => return Err(reading.failure(&why)),
            }
            more = reading.line()?.is_some();
        }
        Ok(())
    }

    fn count(
        &mut self,
        took: Result<Took, Refusal>,
        reading: &Reading<'_, '_>,
        taken: &mut Taken,
    ) -> Result<(), Failure> {
        match took {
            Ok(took) => {
                taken.entries += 1;
                taken.records += u64::from(took.begins);
                taken.bodies += took.bodies;
                taken.bodies_not_kept += took.lacking;
                self.shown.tell(&taken.file, taken.entries);
                Ok(())
            }
            Err(Refusal::Twice { id, source_at }) => match self.files.get(source_at) {
                Some(other) => {
                    let words = format!("record {id} is in {} already", other.file);
                    Err(reading.failure(&words))
                }
                None if reading.damaged => {
                    taken.left_out += 1;
                    Ok(())
                }
                None => Err(reading.failure(&format!("record {id} is in it twice"))),
            },
            Err(refusal @ Refusal::Underway) => Err(reading.failure(&refusal.to_string())),
            Err(Refusal::Malformed(_) | Refusal::Id(_)) if reading.damaged => {
                taken.left_out += 1;
                Ok(())
            }
            Err(refusal @ (Refusal::Malformed(_) | Refusal::Id(_))) => {
                Err(reading.failure(&refusal.to_string()))
            }
        }
    }
}

fn parse(line: &[u8]) -> Result<Line, String> {
    serde_json::from_slice(line).map_err(|error| format!("it is no line of an export: {error}"))
}

/// A bare record, with the captured bytes of its bodies.
fn bare(line: &[u8]) -> Result<Record, String> {
    #[derive(serde::Deserialize)]
    struct With {
        #[serde(default)]
        bodies: Option<Bodies>,
    }
    let no = |error: serde_json::Error| format!("it is no record: {error}");
    let mut record: Record = serde_json::from_slice(line).map_err(no)?;
    let Some(bodies) = serde_json::from_slice::<With>(line).map_err(no)?.bodies else { return Ok(record) };
    let of = [
        (bodies.request, record.request.as_mut().map(|head| &mut head.body)),
        (bodies.response, record.response.as_mut().map(|head| &mut head.body)),
    ];
    for (bytes, body) in of {
        match (bytes, body) {
            (Some(bytes), Some(body)) => body.bytes = bytes.0.into(),
            (Some(_), None) => return Err("there is a body without a head".to_owned()),
            (None, _) => {}
        }
    }
    Ok(record)
}

/// A source, and how its faults are told.
struct Reading<'r, 's> {
    source: &'r mut Source<'s>,
    name: &'r str,
    damaged: bool,
}

impl Reading<'_, '_> {
    /// The next line that is not empty; `None` at the end.
    fn line(&mut self) -> Result<Option<&[u8]>, Failure> {
        match self.source.next() {
            Ok(true) => Ok(Some(self.source.current())),
            Ok(false) => Ok(None),
            // What was compressed and is cut off or broken ends there.
            Err(_) if self.damaged && self.source.is_compressed() => Ok(None),
            Err(error) => Err(self.failure(&error.to_string())),
        }
    }

    fn failure(&self, words: &str) -> Failure {
        Failure::NotImported(Some(format!("{}: line {}: {words}", self.name, self.source.number())))
    }
}

/// Progress, where somebody looks.
struct Shown {
    terminal: bool,
    last: Option<Instant>,
}

impl Shown {
    fn new() -> Self {
        Self { terminal: io::stderr().is_terminal(), last: None }
    }

    fn tell(&mut self, file: &str, entries: u64) {
        if self.terminal && self.last.is_none_or(|last| last.elapsed() >= WORDS) {
            self.last = Some(Instant::now());
            // Where standard error is closed nobody looks.
            drop(write!(io::stderr(), "\r\x1b[K{}: {entries} entries", terminal::escape(file)));
        }
    }

    fn end(&mut self) {
        if self.last.take().is_some() {
            drop(write!(io::stderr(), "\r\x1b[K"));
        }
    }
}
