//! What a log may be handed to be read: entries of its tables, frames of its journal, lines of exports,
//! statements. All of it may be damaged, or made by somebody else.
//!
//! The first byte says which.

#![no_main]

use agentgate::{
    chain::{Checkpoint, Hex, KeyStatement, Line, Prune, Trust, Verifier},
    store::fuzzing::{payload, record},
};
use libfuzzer_sys::fuzz_target;

/// A statement that is read is the same when it is written again.
fn statement<T: std::fmt::Debug + PartialEq>(
    bytes: &[u8],
    decode: impl Fn(&[u8]) -> Option<T>,
    encode: impl Fn(&T) -> Vec<u8>,
) {
    if let Some(read) = decode(bytes) {
        assert_eq!(decode(&encode(&read)), Some(read));
    }
}

/// An export, as whoever verifies it reads it.
fn lines(bytes: &[u8]) {
    let mut verifier = Verifier::new(Trust::default(), Hex([0; 16]), &[], true);
    let mut entries = None;
    for line in bytes.split(|byte| *byte == b'\n') {
        let Ok(line) = serde_json::from_slice::<Line>(line) else { continue };
        let text = serde_json::to_string(&line).expect("what was read can be written");
        assert_eq!(serde_json::from_str::<Line>(&text).ok().as_ref(), Some(&line));
        match line {
            Line::Log(log) => {
                verifier = Verifier::new(Trust::default(), log.log, &log.keys, log.whole);
            }
            Line::Key(statement) => verifier.key(&statement),
            Line::Pruned(prune) => verifier.pruned(&prune),
            Line::Checkpoint(checkpoint) => verifier.checkpoint(&checkpoint),
            Line::Entry { n, prev, entry, .. } => {
                record(&entry.0);
                verifier.entry(n, prev, &entry.0);
            }
            Line::Skipped { n, digests } => verifier.skipped(n, &digests.0),
            Line::End { entries: told, .. } => entries = Some(told),
        }
    }
    let report = verifier.finish(entries);
    let _shown = serde_json::to_string(&report).expect("a report can be written");
}

fuzz_target!(|input: &[u8]| {
    let [which, bytes @ ..] = input else { return };
    match which % 6 {
        0 => record(bytes),
        1 => payload(bytes),
        2 => lines(bytes),
        3 => statement(bytes, Checkpoint::decode, Checkpoint::encode),
        4 => statement(bytes, KeyStatement::decode, KeyStatement::encode),
        _ => statement(bytes, Prune::decode, Prune::encode),
    }
});
