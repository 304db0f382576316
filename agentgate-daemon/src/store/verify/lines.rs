//! Whether an export, or the proof of one record, is whole: it needs no store.

use std::io::{self, BufRead, Read as _};

use super::{
    super::canonical::{self, decode},
    damaged,
};
use crate::chain::{Bodies, Checkpoint, Finding, Line, LogLine, Report, Trust, Verifier, What, record_of};

/// Longest line, in bytes: captured bodies are cut long before.
const LINE: u64 = 1 << 30;
/// Entries after which progress is told.
const STEP: u64 = 1024;

/// Verifies the lines of an export.
///
/// # Errors
/// What reading them gives.
pub(crate) fn verify_lines(
    mut from: impl BufRead,
    trust: Trust,
    progress: super::Progress<'_>,
) -> io::Result<Report> {
    let mut line = Vec::new();
    let mut proof = match Proof::begin(next(&mut from, &mut line)?, trust) {
        Ok(proof) => proof,
        Err(report) => return Ok(*report),
    };
    while let Some(found) = next(&mut from, &mut line)? {
        if !proof.take(&found) {
            break;
        }
        if proof.entries > 0 && proof.entries.is_multiple_of(STEP) {
            progress(proof.entries, 0);
        }
    }
    progress(proof.entries, proof.entries);
    Ok(proof.finish())
}

/// A verification that is given line after line.
#[derive(Debug)]
pub(crate) struct Proof {
    verifier: Verifier,
    entries: u64,
    /// Of the line that came last, from 1 on.
    number: u64,
    /// How many entries the last line says there are.
    said: Option<u64>,
}

impl Proof {
    /// Begins with the first line.
    ///
    /// # Errors
    /// A report that says why it is none of an export.
    pub(crate) fn begin(first: Option<Result<Line, String>>, trust: Trust) -> Result<Self, Box<Report>> {
        let Some(Ok(Line::Log(head))) = first else {
            return Err(Box::new(unreadable("it does not begin as an export does")));
        };
        if head.format != LogLine::FORMAT {
            return Err(Box::new(unreadable("it is an export of a later version")));
        }
        let mut verifier = Verifier::new(trust, head.log, &head.keys, head.whole);
        if !head.whole {
            verifier.note("a part of a log: entries that are not in it may or may not be there");
        }
        Ok(Self { verifier, entries: 0, number: 1, said: None })
    }

    /// The next line, or why it is none. False where it comes after the end: no more is looked at.
    pub(crate) fn take(&mut self, found: &Result<Line, String>) -> bool {
        self.number += 1;
        let number = self.number;
        let verifier = &mut self.verifier;
        if self.said.is_some() {
            verifier.add(Finding::new(What::Inserted, format!("line {number} comes after the end")));
            return false;
        }
        match found {
            Ok(Line::Pruned(prune)) => verifier.pruned(prune),
            Ok(Line::Checkpoint(checkpoint)) => verifier.checkpoint(checkpoint),
            Ok(Line::Key(statement)) => verifier.key(statement),
            Ok(Line::Skipped { n, digests }) => verifier.skipped(*n, &digests.0),
            Ok(Line::Entry { n, prev, entry, record, bodies }) => {
                self.entries += 1;
                verifier.entry(*n, *prev, &entry.0);
                let id = record_of(&entry.0);
                match decode(&entry.0) {
                    Ok((expect, _)) if expect == **record => {}
                    Ok(_) => {
                        let words = "what the line shows as the record is not what its entry says";
                        verifier.add(Finding::new(What::Altered, words).at(*n, id));
                    }
                    Err(malformed) => {
                        let words = format!("it does not read as a record: {malformed}");
                        verifier.add(Finding::new(What::Unreadable, words).at(*n, id));
                    }
                }
                if let Some(bodies) = bodies {
                    compare(*n, id, &entry.0, bodies, verifier);
                }
            }
            Ok(Line::End { entries, .. }) => self.said = Some(*entries),
            Ok(Line::Log(_)) => {
                verifier.add(Finding::new(What::Inserted, format!("line {number} begins another export")));
            }
            Err(why) => {
                verifier.add(Finding::new(What::Unreadable, format!("line {number}: {why}")));
            }
        }
        true
    }

    /// All lines have come.
    pub(crate) fn finish(mut self) -> Report {
        let entries = self.entries;
        match self.said {
            None => {
                self.verifier.add(Finding::new(What::Truncated, "the file ends before the export does"));
            }
            Some(said) if said != entries => {
                let words = format!("{entries} entries are there, and {said} were exported");
                let what = if said > entries { What::Removed } else { What::Inserted };
                self.verifier.add(Finding::new(what, words));
            }
            Some(_) => {}
        }
        self.verifier.finish(None)
    }
}

fn compare(n: u64, id: u64, entry: &[u8], bodies: &Bodies, verifier: &mut Verifier) {
    let Ok(seen) = canonical::Glance::at(entry) else { return };
    let sides = [("request", &bodies.request), ("response", &bodies.response)];
    for ((side, body), digest) in sides.into_iter().zip(&seen.digests) {
        let Some(body) = body else { continue };
        if *digest == Some(canonical::digest(&body.0)) {
            verifier.body_holds();
        } else {
            let words = format!("the body of its {side} is not the one that was captured");
            verifier.add(Finding::new(What::BodyAltered, words).at(n, id));
        }
    }
}

fn unreadable(words: &str) -> Report {
    let mut report = damaged(words.to_owned());
    if let Some(finding) = report.findings.first_mut() {
        finding.what = What::Unreadable;
    }
    report
}

/// The next line; `None` at the end.
fn next(from: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Option<Result<Line, String>>> {
    line.clear();
    from.by_ref().take(LINE).read_until(b'\n', line)?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.len() as u64 >= LINE {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a line of more than 1 GiB"));
    }
    Ok(Some(serde_json::from_slice(line).map_err(|error| format!("it is no line of an export: {error}"))))
}

/// The checkpoints of a file, one line each: as an export has them, and as they are sent elsewhere.
///
/// # Errors
/// What reading them gives, and `InvalidData` for a line that is none.
pub(crate) fn checkpoints(mut from: impl BufRead) -> io::Result<Vec<Checkpoint>> {
    let (mut found, mut line) = (Vec::new(), Vec::new());
    while let Some(next) = next(&mut from, &mut line)? {
        match next.map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))? {
            Line::Checkpoint(checkpoint) => found.push(checkpoint),
            Line::Log(_)
            | Line::Pruned(_)
            | Line::Key(_)
            | Line::Entry { .. }
            | Line::Skipped { .. }
            | Line::End { .. } => {}
        }
    }
    Ok(found)
}
