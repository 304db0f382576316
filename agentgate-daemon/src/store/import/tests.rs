//! Entries in an order that no gate writes: records are found all the same, and retention takes them out.

use std::time::Duration;

use super::*;
use crate::{
    chain::Trust,
    model::Kind,
    store::{
        Query,
        retention::{Rules, Run},
        verify::verify_file,
    },
};

const HOUR: i64 = 3_600_000_000;

fn record(id: u64) -> Record {
    let mut record = Record::new(Kind::Exchange, Timestamp(i64::try_from(id % 100_000).unwrap() * HOUR));
    (record.id, record.state) = (RecordId(id), State::Done);
    record
}

/// Ends of records as they come, some long after their neighbours, and some of which are not there.
fn shuffled(count: u64) -> Vec<u64> {
    let mut dice = 88_172_645_463_325_252_u64;
    let mut ids: Vec<(u64, u64)> = (1..=count)
        .filter(|id| id % 11 != 3 && !(300..420).contains(id))
        .map(|id| {
            dice ^= dice << 13;
            dice ^= dice >> 7;
            dice ^= dice << 17;
            let late = if dice.is_multiple_of(17) { 700 } else { 60 };
            (id + dice % late, id)
        })
        .collect();
    ids.sort_unstable();
    ids.into_iter().map(|(_, id)| id).collect()
}

fn listed(store: &Store) -> Vec<u64> {
    let mut query = Query { limit: 500, ..Query::default() };
    let mut found = Vec::new();
    loop {
        let page = store.query(&query).unwrap();
        found.extend(page.records.iter().map(|record| record.id.0));
        query.before = page.next;
        if query.before.is_none() {
            found.reverse();
            return found;
        }
    }
}

#[test]
fn records_in_any_order_are_found_and_go_when_their_time_is_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.redb");
    let mut importer = Importer::new(Store::open(&path).unwrap()).unwrap();
    importer.begin(None);
    let order = shuffled(4000);
    for id in &order {
        assert!(importer.record(&record(*id)).unwrap().unwrap().begins, "{id}");
    }
    for id in [order[0], order[order.len() / 2], order[order.len() - 1]] {
        let refusal = importer.record(&record(id)).unwrap().unwrap_err();
        assert!(matches!(refusal, Refusal::Twice { source_at: 0, .. }), "{refusal}");
    }
    let next = importer.finish(&mut [record(0)]).unwrap();
    assert_eq!(next, RecordId(4002));
    let report = verify_file(&path, Trust::default(), &mut |_, _| {}).unwrap();
    assert!(report.whole, "{report:?}");
    let mut ids = order.clone();
    ids.sort_unstable();
    ids.push(4001);
    let store = Store::open(&path).unwrap();
    assert_eq!(store.next_id(), next);
    assert_eq!(listed(&store), ids);
    // Later ones, as a gate writes them.
    let more: Vec<_> = (4002..4600).map(|id| Entry::last(&record(id))).collect();
    store.commit(&more, 0, None).unwrap();
    ids.extend(4002..4600);
    for age in [3900, 3000, 1500, 700] {
        let rules = Rules { age: Some(Duration::from_hours(age)), ..Rules::default() };
        let mut run = Run::default();
        let now = Timestamp(4600 * HOUR);
        while store.retain(&rules, &crate::store::retention::Readers::default(), &mut run, now).unwrap().more
        {
        }
        let left = listed(&store);
        assert!(left.len() < ids.len(), "{age}");
        let oldest = 4600 - age;
        // Nothing goes before its time.
        assert!(ids.iter().filter(|id| **id > oldest).all(|id| left.contains(id)), "{age}");
        for id in 1..4600 {
            assert_eq!(store.get(RecordId(id)).unwrap().is_some(), left.contains(&id), "{age}: {id}");
        }
        let report = store.verify(Trust::default(), &mut |_, _| {}).unwrap();
        assert!(report.whole, "{age}: {report:?}");
        store.reindex().unwrap();
        assert_eq!(listed(&store), left, "{age}");
        let report = store.verify(Trust::default(), &mut |_, _| {}).unwrap();
        assert!(report.whole, "{age}: {report:?}");
        ids = left;
    }
}

#[test]
fn a_record_may_end_in_a_later_source_of_its_log_only() {
    let dir = tempfile::tempdir().unwrap();
    let mut importer = Importer::new(Store::open(dir.path().join("audit.redb")).unwrap()).unwrap();
    let encoded = |id, state| {
        let mut record = record(id);
        record.state = state;
        Entry::last(&record).encoded
    };
    let (one, other) = (Some(crate::chain::Hex([1; 16])), Some(crate::chain::Hex([2; 16])));
    importer.begin(one);
    for id in 1..=3 {
        importer.entry(encoded(id, State::Open), [None, None]).unwrap().unwrap();
    }
    importer.begin(one);
    assert!(!importer.entry(encoded(1, State::Done), [None, None]).unwrap().unwrap().begins);
    importer.begin(other);
    for id in 1..=2 {
        let refusal = importer.entry(encoded(id, State::Done), [None, None]).unwrap().unwrap_err();
        let expect = if id == 1 { 1 } else { 0 };
        assert!(matches!(refusal, Refusal::Twice { source_at, .. } if source_at == expect), "{refusal:?}");
    }
    importer.flush().unwrap();
    let refusal = importer.entry(encoded(1, State::Done), [None, None]).unwrap().unwrap_err();
    assert!(matches!(refusal, Refusal::Twice { source_at: 1, .. }), "{refusal:?}");
    for id in [0, HIGHEST + 1, u64::MAX] {
        let refusal = importer.entry(encoded(id, State::Done), [None, None]).unwrap().unwrap_err();
        assert!(matches!(refusal, Refusal::Id(_)), "{refusal}");
    }
    importer.entry(encoded(HIGHEST, State::Done), [None, None]).unwrap().unwrap();
    // Its id is not where the log looks for it.
    for wrong in [&b""[..], b"\x02\x01\x04\x03\x01\x02", b"\x01\x07\x01\x00\x00\x00\x00\x00\x00"] {
        let refusal = importer.entry(wrong.to_vec(), [None, None]).unwrap().unwrap_err();
        assert!(matches!(refusal, Refusal::Malformed(_)), "{refusal}");
    }
    let mut twice = vec![1, 8, 7, 0, 0, 0, 0, 0, 0, 0];
    twice.extend(encoded(8, State::Done));
    let refusal = importer.entry(twice, [None, None]).unwrap().unwrap_err();
    assert!(matches!(refusal, Refusal::Malformed(_)), "{refusal}");
    assert_eq!(importer.finish(&mut []).unwrap(), RecordId(HIGHEST + 1));
}

#[test]
fn times_and_ids_at_their_bounds_are_taken() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.redb");
    let mut importer = Importer::new(Store::open(&path).unwrap()).unwrap();
    importer.begin(None);
    let times = [i64::MAX, i64::MIN, 0, -1, i64::MIN, i64::MAX];
    let ids = [HIGHEST, HIGHEST - 9000, HIGHEST - 5000, HIGHEST - 4999, HIGHEST - 9002, HIGHEST - 1];
    for (id, time) in ids.into_iter().zip(times) {
        let mut record = record(id);
        (record.started, record.finished) = (Timestamp(time), Some(Timestamp(time.wrapping_neg())));
        (record.bytes_up, record.times) = (u64::MAX, u64::MAX);
        importer.record(&record).unwrap().unwrap();
    }
    importer.finish(&mut [record(0)]).unwrap();
    let report = verify_file(&path, Trust::default(), &mut |_, _| {}).unwrap();
    assert!(report.whole, "{report:?}");
    let store = Store::open(&path).unwrap();
    assert_eq!(listed(&store).len(), 7);
    let rules = Rules { age: Some(Duration::from_hours(1)), ..Rules::default() };
    let mut run = Run::default();
    while store
        .retain(&rules, &crate::store::retention::Readers::default(), &mut run, Timestamp::now())
        .unwrap()
        .more
    {}
    assert!(store.verify(Trust::default(), &mut |_, _| {}).unwrap().whole);
}
