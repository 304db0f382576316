//! `agentctl audit verify`.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
};

use super::super::{
    Failure, Session,
    terminal::{Colour, escape},
};
use crate::{
    chain::{PublicKey, Report, Trust},
    config::Paths,
    control::{
        client::{Client, ClientError},
        wire::{Item, Request},
    },
    store::verify::{lines, verify_file},
};

/// Longest file that is read as a key.
const KEY_BYTES: u64 = 4096;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// A store, a copy of one, an export or a proof [default: the log of the running gate, or of the one
    /// that runs here]
    file: Option<PathBuf>,
    /// A public key to go by, as a file (audit.pub) or in hex; may be given more than once [default:
    /// audit.pub beside the store, and without one the first key that the log itself names]
    #[arg(long, value_name = "PUB")]
    key: Vec<String>,
    /// Checkpoints that were kept elsewhere, one JSON object a line: the log must go at least that far
    #[arg(long, value_name = "FILE")]
    checkpoints: Option<PathBuf>,
    /// Also compare the words of full text with records and bodies: takes as long as indexing them
    #[arg(long)]
    words: bool,
}

pub(super) fn run(session: &mut Session, args: &Args) -> Result<(), Failure> {
    let report = report(session, args).map_err(|why| Failure::Unverified(why.to_string()))?;
    if session.output.json {
        session.output.json(&report)?;
    } else {
        for (line, fault) in words(&report) {
            let line = escape(&line);
            let line = if fault { session.output.paint(Colour::Red, &line) } else { line };
            session.output.line(&line)?;
        }
    }
    session.output.flush()?;
    if report.whole { Ok(()) } else { Err(Failure::NotWhole) }
}

fn report(session: &Session, args: &Args) -> anyhow::Result<Report> {
    let mut trust = Trust { words: args.words, ..Trust::default() };
    for key in &args.key {
        trust.keys.push(key_of(key)?);
    }
    if let Some(path) = &args.checkpoints {
        trust.checkpoints = lines::checkpoints(BufReader::new(open(path)?))?;
    }
    let mut shown = Shown { terminal: io::stderr().is_terminal(), last: None };
    if let Some(path) = &args.file {
        return of_file(path, trust, &mut shown);
    }
    let store = Paths::below(&session.root).store;
    if trust.keys.is_empty() {
        trust.keys.extend(beside(&store));
    }
    match Client::connect(&session.socket) {
        Ok(client) => {
            let request =
                Request::AuditVerify { keys: trust.keys, checkpoints: trust.checkpoints, words: trust.words };
            let mut found = None;
            client.stream(request, false, |item| -> Result<(), ClientError> {
                if let Item::Verifying { done, of } = item {
                    shown.tell(done, of);
                    return Ok(());
                }
                let Item::Verified(report) = item else {
                    return Err(ClientError::Protocol("an answer to another question".to_owned()));
                };
                found = Some(*report);
                Ok(())
            })?;
            shown.end();
            found.ok_or_else(|| anyhow::anyhow!("agentgated gave no result"))
        }
        Err(ClientError::NotRunning { .. }) => of_file(&store, trust, &mut shown),
        Err(error) => Err(error.into()),
    }
}

fn of_file(path: &Path, mut trust: Trust, shown: &mut Shown) -> anyhow::Result<Report> {
    let mut file = BufReader::new(open(path)?);
    let report = if file.fill_buf()?.first() == Some(&b'{') {
        lines::verify_lines(file, trust, &mut |done, of| shown.tell(done, of))?
    } else {
        drop(file);
        if trust.keys.is_empty() {
            trust.keys.extend(beside(path));
        }
        verify_file(path, trust, &mut |done, of| shown.tell(done, of))?
    };
    shown.end();
    Ok(report)
}

fn open(path: &Path) -> anyhow::Result<fs::File> {
    fs::File::open(path).map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))
}

/// The key beside a store.
fn beside(store: &Path) -> Option<PublicKey> {
    PublicKey::read(&text(&store.with_extension("pub")).ok()?).ok()
}

pub(super) fn key_of(given: &str) -> anyhow::Result<PublicKey> {
    if let Ok(key) = given.parse() {
        return Ok(key);
    }
    let text = text(Path::new(given)).map_err(|error| anyhow::anyhow!("{given}: {error}"))?;
    PublicKey::read(&text).map_err(|error| anyhow::anyhow!("{given}: {error}"))
}

fn text(path: &Path) -> io::Result<String> {
    io::read_to_string(io::Read::take(fs::File::open(path)?, KEY_BYTES))
}

/// Progress, where somebody looks.
struct Shown {
    terminal: bool,
    last: Option<u64>,
}

impl Shown {
    fn tell(&mut self, done: u64, of: u64) {
        let part = done.saturating_mul(100).checked_div(of).unwrap_or(done);
        if self.terminal && self.last != Some(part) {
            self.last = Some(part);
            let what = if of > 0 { format!("{part} %") } else { format!("{done} entries") };
            // Where standard error is closed nobody looks.
            drop(write!(io::stderr(), "\rverifying: {what} "));
        }
    }

    fn end(&mut self) {
        if self.last.take().is_some() {
            drop(write!(io::stderr(), "\r\x1b[K"));
        }
    }
}

/// Lines, and whether each tells of a fault.
fn words(report: &Report) -> Vec<(String, bool)> {
    let mut lines: Vec<(String, bool)> =
        report.findings.iter().map(|finding| (finding.to_string(), true)).collect();
    if report.more > 0 {
        lines.push((format!("and {} more", report.more), true));
    }
    for prune in &report.pruned {
        let what = match prune.what {
            crate::chain::Pruned::Entries => "entries",
            crate::chain::Pruned::Bodies => "bodies of entries",
        };
        let line = format!(
            "pruned {}: {what} {} to {}, {} records: {}",
            prune.time,
            prune.from,
            prune.to.saturating_sub(1),
            prune.records,
            prune.reason
        );
        lines.push((line, false));
    }
    for key in &report.keys {
        let trusted = if key.trusted { "" } else { ", which nothing vouches for" };
        lines.push((format!("key {} from entry {} on{trusted}", key.key, key.from), !key.trusted));
    }
    lines.extend(report.notes.iter().map(|note| (note.clone(), false)));
    if let Some(last) = &report.last {
        lines.push((
            format!("signed up to entry {} at {}: link {}", last.entries, last.time, last.link),
            false,
        ));
    }
    let counts = format!(
        "{} entries from {} to {}, {} left out, {} checkpoints, {} bodies",
        report.entries, report.first, report.end, report.skipped, report.checkpoints, report.bodies
    );
    lines.push((counts, false));
    lines.push(if report.whole { ("whole".to_owned(), false) } else { ("not whole".to_owned(), true) });
    lines
}
