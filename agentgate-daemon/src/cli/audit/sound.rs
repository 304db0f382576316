//! How much of an export that verifies is covered by a signature: what is behind its last checkpoint is not,
//! and is cut off before the export is closed or gone on with.

use std::{
    fs, io,
    io::{BufRead as _, Read as _},
    path::Path,
};

use super::super::Failure;
use crate::{
    chain::{Checkpoint, Line, LogLine},
    control::client::ClientError,
    export::chained::Had,
};

/// Longest line, in bytes, as the verifier takes it.
const LINE: u64 = 1 << 30;

/// What the lines so far hold.
#[derive(Clone, Debug, Default)]
pub(super) struct Sound {
    head: Option<LogLine>,
    checkpoint: Option<Checkpoint>,
    /// Up to the last checkpoint: entries, and statements of keys.
    entries: u64,
    keys: u64,
    /// The same behind it.
    uncovered: (u64, u64),
}

impl Sound {
    /// The next line, without its end. True where what came so far can be closed: it is a head, or a checkpoint.
    pub(super) fn line(&mut self, line: &[u8]) -> Result<bool, serde_json::Error> {
        // Only a few lines are read; entries, which are most of them, are counted.
        let is = |kind: &str| line.starts_with(format!("{{\"type\":\"{kind}\"").as_bytes());
        if is("entry") {
            self.uncovered.0 += 1;
        } else if is("key") {
            self.uncovered.1 += 1;
        } else if is("checkpoint") || is("log") {
            match serde_json::from_slice(line)? {
                Line::Log(head) => {
                    self.keys = head.keys.len() as u64;
                    self.head = Some(head);
                }
                Line::Checkpoint(checkpoint) => {
                    self.checkpoint = Some(checkpoint);
                    self.entries += self.uncovered.0;
                    self.keys += self.uncovered.1;
                    self.uncovered = (0, 0);
                }
                Line::Pruned(_)
                | Line::Key(_)
                | Line::Entry { .. }
                | Line::Skipped { .. }
                | Line::End { .. } => {}
            }
            return Ok(true);
        }
        Ok(false)
    }

    /// Whether the line is the head that came before.
    pub(super) fn has_head(&self, line: &[u8]) -> Result<bool, ClientError> {
        let Some(head) = self.head.as_ref().filter(|_| line.starts_with(b"{\"type\":\"log\"")) else {
            return Ok(false);
        };
        match serde_json::from_slice(line) {
            Ok(Line::Log(again)) if again.log == head.log && again.keys == head.keys => Ok(true),
            Ok(_) | Err(_) => Err(ClientError::Protocol("the log is another than before".to_owned())),
        }
    }

    /// Lets go of what is behind the last checkpoint.
    pub(super) fn cut(&mut self) {
        self.uncovered = (0, 0);
    }

    /// Entries up to the last checkpoint.
    pub(super) fn entries(&self) -> u64 {
        self.entries
    }

    /// What it has that is to be gone on with; `None` where nothing is signed yet.
    pub(super) fn had(&self) -> Option<Had> {
        let head = self.head.as_ref()?;
        Some(Had { log: head.log, keys: self.keys, checkpoint: self.checkpoint? })
    }

    /// What is in a file, and how many of its bytes: the rest is to be cut off. `None`: there is nothing to go
    /// on with, and it is to be begun anew.
    pub(super) fn of_file(path: &Path, filter: &str) -> Result<Option<(Self, u64)>, Failure> {
        let unusable = |source| Failure::File { path: path.to_owned(), source };
        let wrong = |why: &str| Failure::Invalid(Some(format!("{}: {why}", path.display())));
        let file = match fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unusable(error)),
        };
        let mut from = io::BufReader::with_capacity(1 << 20, file);
        let (mut sound, mut line) = (Self::default(), Vec::new());
        let (mut at, mut length) = (0_u64, 0);
        loop {
            line.clear();
            at += from.by_ref().take(LINE).read_until(b'\n', &mut line).map_err(unusable)? as u64;
            let Some(whole) = line.strip_suffix(b"\n") else { break };
            if sound.head.is_some() && whole.starts_with(b"{\"type\":\"log\"") {
                return Err(wrong("there is more than one export in it"));
            }
            let read = sound.line(whole);
            if sound.head.is_none() {
                return Err(wrong("it is no export that verifies, so it cannot be gone on with as one"));
            }
            if read.map_err(|error| wrong(&format!("it cannot be gone on with: {error}")))? {
                length = at;
            }
        }
        if at > 0 && sound.head.is_none() && !b"{\"type\":\"log\"".starts_with(&line[..line.len().min(13)]) {
            return Err(wrong("it is no export that verifies, so it cannot be gone on with as one"));
        }
        if let Some(head) = &sound.head {
            if head.format != LogLine::FORMAT {
                return Err(wrong("it is an export of a later version"));
            }
            if head.filter != filter {
                let was = if head.filter.is_empty() { "all" } else { &head.filter };
                return Err(wrong(&format!("it was made of other records: {was}")));
            }
        }
        sound.cut();
        Ok(sound.checkpoint.map(|_| (sound, length)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{chain::Hex, model::Timestamp};

    fn lines() -> Vec<String> {
        let head = LogLine {
            format: LogLine::FORMAT,
            log: Hex([7; 16]),
            keys: Vec::new(),
            made: Timestamp(1),
            filter: "verdict:deny".to_owned(),
            whole: false,
        };
        let checkpoint = |entries| {
            Line::Checkpoint(Checkpoint {
                entries,
                link: Hex([1; 32]),
                time: Timestamp(2),
                key: Hex([2; 32]),
                signature: Hex([3; 64]),
            })
        };
        let text = |line: &Line| serde_json::to_string(line).unwrap();
        vec![
            text(&Line::Log(head)),
            "{\"type\":\"entry\",…}".to_owned(),
            text(&checkpoint(1)),
            "{\"type\":\"key\",…}".to_owned(),
            "{\"type\":\"entry\",…}".to_owned(),
            "{\"type\":\"skipped\",…}".to_owned(),
            text(&checkpoint(9)),
            text(&Line::End { entries: 2, next: None }),
        ]
    }

    #[test]
    fn wherever_a_file_is_cut_what_is_signed_of_it_is_gone_on_with() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.jsonl");
        let lines = lines();
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let end_of = |count: usize| lines[..count].iter().map(|line| line.len() as u64 + 1).sum::<u64>();
        assert!(Sound::of_file(&path, "").unwrap().is_none());
        for cut in 0..=text.len() {
            fs::write(&path, &text.as_bytes()[..cut]).unwrap();
            let found = Sound::of_file(&path, "verdict:deny").unwrap();
            let found = found.map(|(sound, length)| {
                let had = sound.had().unwrap();
                (had.checkpoint.entries, had.keys, sound.entries(), length)
            });
            let expect = if cut as u64 >= end_of(7) {
                Some((9, 1, 2, end_of(7)))
            } else {
                (cut as u64 >= end_of(3)).then(|| (1, 0, 1, end_of(3)))
            };
            assert_eq!(found, expect, "{cut}");
        }
    }

    #[test]
    fn what_is_no_such_export_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.jsonl");
        let whole: String = lines().iter().map(|line| format!("{line}\n")).collect();
        let rows = [
            ("{\"id\":1}\n".to_owned(), "verdict:deny", "no export that verifies"),
            ("torn text without an end".to_owned(), "verdict:deny", "no export that verifies"),
            (whole.replace("\"format\":1", "\"format\":2"), "verdict:deny", "a later version"),
            (whole.repeat(2), "verdict:deny", "more than one export"),
            (whole, "", "of other records: verdict:deny"),
        ];
        for (text, filter, expect) in rows {
            fs::write(&path, &text).unwrap();
            let error = Sound::of_file(&path, filter).unwrap_err().to_string();
            assert!(error.contains(expect), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }
}
