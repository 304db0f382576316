//! What is exported verifies, whole or in part, and what was changed in it is found.

use std::sync::Arc;

use super::*;
use crate::{
    chain::{Report, Trust},
    filter::Filter,
    model::{Captured, Kind, Record, RecordId, RequestHead, State, Timestamp},
    store::{Store, Write, verify::lines::verify_lines},
};

fn record(id: u64, state: State) -> Record {
    let mut record = Record::new(Kind::Exchange, Timestamp(i64::try_from(id).unwrap() * 1_000));
    (record.id, record.state) = (RecordId(id), state);
    let body = format!("body {id}");
    record.request = Some(RequestHead {
        method: if id.is_multiple_of(50) { "PUT" } else { "GET" }.into(),
        body: Captured { total: body.len() as u64, truncated: false, bytes: body.into_bytes().into() },
        ..RequestHead::default()
    });
    record
}

fn log() -> (tempfile::TempDir, Arc<Store>) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("audit.redb")).unwrap();
    for id in 1..=700 {
        let begun = record(id, State::Open);
        let done = record(id, State::Done);
        store.apply(&[Write::Open(&begun), Write::Final(&done)]).unwrap();
    }
    (dir, Arc::new(store))
}

fn export(store: &Arc<Store>, filter: &str, bodies: bool, from: u64) -> Vec<Line> {
    let wanted = Wanted { filter: Filter::parse(filter, Timestamp(0)).unwrap(), bodies, ..Wanted::default() };
    let mut chain = Chained::new(From::Store(store.clone()), wanted, filter.to_owned(), from);
    let mut lines = Vec::new();
    loop {
        let turned = chain
            .step(|line| {
                lines.push(line.clone());
                Ok::<_, StoreError>(())
            })
            .unwrap();
        if turned.is_over() {
            lines.push(chain.end());
            return lines;
        }
    }
}

fn verify(lines: &[Line]) -> Report {
    let text: String = lines.iter().map(|line| serde_json::to_string(line).unwrap() + "\n").collect();
    verify_lines(text.as_bytes(), Trust::default(), &mut |_, _| {}).unwrap()
}

fn numbers(lines: &[Line]) -> Vec<u64> {
    let number = |line: &Line| match line {
        Line::Entry { n, .. } => Some(*n),
        Line::Log(_)
        | Line::Pruned(_)
        | Line::Checkpoint(_)
        | Line::Key(_)
        | Line::Skipped { .. }
        | Line::End { .. } => None,
    };
    lines.iter().filter_map(number).collect()
}

#[test]
fn a_whole_export_verifies_and_a_part_of_it_does_not_pass_for_it() {
    let (_dir, store) = log();
    for bodies in [false, true] {
        let lines = export(&store, "", bodies, 0);
        let report = verify(&lines);
        assert!(report.whole, "{report:?}");
        assert_eq!(numbers(&lines), (0..1400).collect::<Vec<_>>());
        assert!(matches!(&lines[0], Line::Log(head) if head.whole));
        assert!(
            matches!(lines.last(), Some(Line::End { entries: 1400, next: Some(next) }) if next == "1400")
        );
        // Each kind of line, taken out.
        for at in [1, 400, lines.len() - 2] {
            let mut cut = lines.clone();
            cut.remove(at);
            assert!(!verify(&cut).whole, "{at}: {:?}", lines[at]);
        }
    }
}

#[test]
fn what_a_filter_finds_verifies_with_no_more_than_digests_of_the_rest() {
    let (_dir, store) = log();
    let lines = export(&store, "method:PUT id:>300", true, 0);
    let report = verify(&lines);
    assert!(report.whole, "{report:?}");
    let found = numbers(&lines);
    assert_eq!(found.len(), 16, "both versions of each");
    let text = serde_json::to_string(&lines).unwrap();
    assert!(!text.contains("\"method\":\"GET\""));
    // The first pieces hold nothing that was asked for, and are left out.
    assert!(matches!(&lines[1], Line::Checkpoint(first) if first.entries > 0));
    let entry = lines.iter().position(|line| matches!(line, Line::Entry { .. })).unwrap();
    for at in [1, entry, entry + 1] {
        let mut cut = lines.clone();
        cut.remove(at);
        assert!(!verify(&cut).whole, "{at}");
    }
}

#[test]
fn what_comes_later_is_a_part_that_verifies() {
    let (_dir, store) = log();
    for from in [1, 255, 256, 257, 1399] {
        let lines = export(&store, "", false, from);
        let report = verify(&lines);
        assert!(report.whole, "{from}: {report:?}");
        assert_eq!(numbers(&lines), (from..1400).collect::<Vec<_>>());
    }
    let nothing = export(&store, "", false, 1400);
    assert!(numbers(&nothing).is_empty());
    assert!(verify(&nothing).whole);
}

/// Goes on with what is left of an export, as whoever writes it does: behind its last checkpoint.
fn go_on(store: &Arc<Store>, left: &[Line], filter: &str) -> Result<Vec<Line>, StoreError> {
    let Line::Log(head) = &left[0] else { panic!("{:?}", left[0]) };
    let is_checkpoint = |line: &Line| matches!(line, Line::Checkpoint(_));
    let last = left.iter().rposition(is_checkpoint).unwrap();
    let Line::Checkpoint(checkpoint) = left[last] else { unreachable!() };
    let mut lines = left[..=last].to_vec();
    let later = lines.iter().filter(|line| matches!(line, Line::Key(_))).count();
    let had = Had { log: head.log, keys: (head.keys.len() + later) as u64, checkpoint };
    let wanted = Wanted { filter: Filter::parse(filter, Timestamp(0)).unwrap(), ..Wanted::default() };
    let mut chain = Chained::resumed(From::Store(store.clone()), wanted, filter.to_owned(), had);
    loop {
        let turned = chain.step(|line| {
            lines.push(line.clone());
            Ok::<_, StoreError>(())
        })?;
        if turned.is_over() {
            let entries = numbers(&lines).len() as u64;
            lines.push(Line::End { entries, next: None });
            return Ok(lines);
        }
    }
}

#[test]
fn an_export_that_was_cut_goes_on_and_verifies_whatever_came_between() {
    let (_dir, store) = log();
    let before = export(&store, "", false, 0);
    let part = export(&store, "method:PUT", false, 0);
    store.rotate_key().unwrap();
    for id in 701..=1000 {
        store.apply(&[Write::Final(&record(id, State::Done))]).unwrap();
    }
    store.rotate_key().unwrap();
    store.apply(&[Write::Final(&record(1001, State::Done))]).unwrap();
    for cut in [300, 777, before.len() - 1, before.len()] {
        let joined = go_on(&store, &before[..cut], "").unwrap();
        let report = verify(&joined);
        assert!(report.whole, "{cut}: {report:?}");
        assert_eq!(report.keys.len(), 3);
        assert!(report.keys.iter().all(|key| key.trusted), "{:?}", report.keys);
        assert_eq!(numbers(&joined), (0..1701).collect::<Vec<_>>());
        // Without the statement of a key what it signed is not believed.
        for at in (0..joined.len()).filter(|at| matches!(joined[*at], Line::Key(_))) {
            let mut changed = joined.clone();
            changed.remove(at);
            assert!(!verify(&changed).whole, "{at}");
        }
        let at = joined.iter().position(|line| matches!(line, Line::Key(_))).unwrap();
        let mut changed = joined.clone();
        let statement = changed.remove(at);
        changed.insert(changed.len() - 2, statement);
        assert!(!verify(&changed).whole, "after what it signs");
    }
    let joined = go_on(&store, &part, "method:PUT").unwrap();
    assert!(verify(&joined).whole, "{:?}", verify(&joined));
    assert!(numbers(&joined).iter().any(|n| *n >= 1400));
}

#[test]
fn an_export_is_not_gone_on_with_from_another_log() {
    let (_dir, store) = log();
    let lines = export(&store, "", false, 0);
    let (_other_dir, other) = log();
    assert!(matches!(go_on(&other, &lines, ""), Err(StoreError::Resumed(_))));
    // The same log, with others than it has behind the place.
    let mut changed = lines.clone();
    for line in &mut changed {
        if let Line::Checkpoint(checkpoint) = line {
            checkpoint.link.0[0] ^= 1;
        }
    }
    assert!(matches!(go_on(&store, &changed, ""), Err(StoreError::Resumed(_))));
}
