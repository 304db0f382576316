//! The walk gives each entry once, in its place, whatever the groups are.

use redb::ReadableDatabase as _;

use super::*;
use crate::{
    model::{Captured, Kind, RequestHead, State},
    store::Write,
};

fn record(id: u64, state: State) -> Record {
    let mut record = Record::new(Kind::Exchange, Timestamp(i64::try_from(id).unwrap() * 1_000));
    record.id = RecordId(id);
    record.state = state;
    record
}

fn with_body(mut record: Record, body: &str) -> Record {
    let body =
        Captured { total: body.len() as u64, truncated: false, bytes: body.as_bytes().to_vec().into() };
    record.request = Some(RequestHead { method: "POST".into(), body, ..RequestHead::default() });
    record
}

fn positions(walk: &Walk, mut from: u64) -> (Vec<u64>, u64) {
    let (mut found, mut pruned) = (Vec::new(), 0);
    while let Some(stretch) = walk.stretch(from).unwrap() {
        assert!(stretch.next > from);
        pruned += stretch.pruned;
        found.extend(stretch.entries.iter().map(|entry| entry.n));
        from = stretch.next;
    }
    (found, pruned)
}

#[test]
fn every_entry_is_met_once_from_any_position() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("a.redb")).unwrap();
    for id in 1..=150 {
        store.apply(&[Write::Open(&record(id, State::Open))]).unwrap();
    }
    for id in 1..=150 {
        store.apply(&[Write::Final(&with_body(record(id, State::Done), &format!("body {id}")))]).unwrap();
    }
    let mut walk = store.walk().unwrap();
    assert_eq!(walk.end(), 300);
    for from in [0, 1, 127, 128, 129, 255, 256, 299] {
        assert_eq!(positions(&walk, from), ((from..300).collect(), 0), "{from}");
    }
    assert!(walk.stretch(300).unwrap().is_none());
    let stretch = walk.stretch(160).unwrap().unwrap();
    let entry = stretch.entries.first().unwrap();
    assert_eq!((entry.n, entry.id(), entry.record().unwrap().state), (160, RecordId(11), State::Done));
    let bodies = walk.bodies(entry).unwrap();
    assert_eq!(bodies, [Some(Bytes::from_static(b"body 11")), None]);
}

#[test]
fn a_time_leads_to_a_position_that_leaves_nothing_out() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("a.redb")).unwrap();
    store.apply(&[Write::Open(&record(1, State::Open))]).unwrap();
    for id in 2..=500 {
        store.apply(&[Write::Final(&record(id, State::Done))]).unwrap();
    }
    store.apply(&[Write::Final(&record(1, State::Done))]).unwrap();
    let walk = store.walk().unwrap();
    for since in [0, 1_000, 77_000, 128_000, 300_000, 500_000] {
        let from = walk.position_of(Timestamp(since)).unwrap();
        let skipped = positions(&walk, 0).0.into_iter().take_while(|n| *n < from).count();
        assert!(skipped as u64 <= (since as u64) / 1_000, "{since}: {skipped}");
        let stretch = walk.stretch(from).unwrap().unwrap();
        assert!(since < 200_000 || stretch.entries.first().unwrap().n > 0, "{since} skips something");
    }
    assert_eq!(walk.position_of(Timestamp(501_000)).unwrap(), walk.end());
}

#[test]
fn what_is_pruned_or_damaged_is_counted_and_passed() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("a.redb")).unwrap();
    for id in 1..=400 {
        store.apply(&[Write::Final(&record(id, State::Done))]).unwrap();
    }
    let numbers: Vec<Part> = {
        let guard = store.database.read().unwrap();
        let read = guard.as_ref().unwrap().begin_read().unwrap();
        read.open_table(GROUPS).unwrap().iter().unwrap().map(|row| row.unwrap().0.value()).collect()
    };
    let second = numbers.iter().find(|(number, _)| *number == 120).unwrap();
    let third = numbers.iter().find(|(number, _)| *number == 240).unwrap();
    let transaction = store.begin_write().unwrap();
    {
        let mut groups = transaction.open_table(GROUPS).unwrap();
        for part in numbers.iter().filter(|(number, _)| *number == 0) {
            groups.remove(part).unwrap();
        }
        groups.insert(third, b"\x07not a group".as_slice()).unwrap();
    }
    transaction.commit().unwrap();
    let walk = store.walk().unwrap();
    let first = walk.stretch(0).unwrap().unwrap();
    assert_eq!((first.pruned, first.entries.first().unwrap().n, first.next), (120, 120, 240));
    assert_eq!(second.0, 120);
    let damaged = walk.stretch(240).unwrap().unwrap();
    assert_eq!((damaged.unreadable, damaged.next, damaged.entries.len()), (120, 360, 0));
    assert_eq!(positions(&walk, 0), ((120..240).chain(360..400).collect(), 120));
}
