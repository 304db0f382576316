//! Rows say what the last entries say.

use redb::{ReadableTable as _, ReadableTableMetadata as _};

use super::{
    super::{Entry, Store, Write, read::Reader},
    *,
};
use crate::{
    filter::tests::exchange,
    model::{Flag, Record, Severity, Timestamp},
};

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("audit.redb")).unwrap();
    (dir, store)
}

fn record(id: u64) -> Record {
    let mut record = exchange();
    record.id = RecordId(id);
    record.started = Timestamp(i64::try_from(id).unwrap() * 1000);
    record.finished = Some(Timestamp(record.started.0 + 7));
    record
}

fn begun(id: u64) -> Record {
    let mut record = record(id);
    record.state = State::Open;
    record.finished = None;
    record.response = None;
    record.failure = None;
    record.flags.clear();
    record
}

/// Every row of `postings`, as (id, text or number of the term).
fn rows(store: &Store) -> Vec<(u64, u64)> {
    let transaction = store.read().unwrap();
    let mut found = Vec::new();
    for row in transaction.open_table(POSTINGS).unwrap().iter().unwrap() {
        let (key, value) = row.unwrap();
        let (block, term) = key.value();
        let bits = Bits::read(value.value()).unwrap();
        assert!(!bits.is_empty(), "no row is empty");
        found.extend(bits.rising().map(|at| ((block << bits::SHIFT) + at as u64, term)));
    }
    found.sort_unstable();
    found
}

/// What the rows must be: the terms of each record's last entry.
fn expected(store: &Store, ids: impl Iterator<Item = u64>) -> Vec<(u64, u64)> {
    let transaction = store.begin_write().unwrap();
    let mut table = transaction.open_table(TERMS).unwrap();
    let mut known = Known::default();
    let mut reader = Reader::of(&store.snapshot().unwrap()).unwrap();
    let mut found = Vec::new();
    for id in ids {
        let version = reader.get(id).unwrap().unwrap();
        let encoded = version.encoded().unwrap();
        let seen = Glance::at(encoded).unwrap();
        let mut dictionary = Dictionary { table: &mut table, known: &mut known };
        found.extend(dictionary.terms(encoded, &seen).unwrap().0.into_iter().map(|term| (id, term)));
    }
    drop(table);
    transaction.abort().unwrap();
    found
}

fn begun_rows(store: &Store) -> u64 {
    store.read().unwrap().open_table(BEGUN).unwrap().len().unwrap()
}

#[test]
fn rows_follow_the_last_entry() {
    let (_dir, store) = store();
    let records: Vec<_> = (1..=10).map(begun).collect();
    store.apply(&records.iter().map(Write::Open).collect::<Vec<_>>()).unwrap();
    assert_eq!(begun_rows(&store), 10);
    assert_eq!(rows(&store), expected(&store, 1..=10));
    // Ended in the next transaction, in the same, and in one that has both.
    let last = record(3);
    store.apply(&[Write::Final(&last)]).unwrap();
    let (open, ended) = (begun(11), record(11));
    store.apply(&[Write::Open(&open), Write::Final(&ended)]).unwrap();
    let (mut changed, again) = (begun(4), record(4));
    changed.flags = vec![Flag::new("first", Severity::Low, "")];
    store.apply(&[Write::Open(&changed), Write::Final(&again)]).unwrap();
    store.apply(&[Write::Open(&changed)]).unwrap();
    assert_eq!(begun_rows(&store), 9);
    assert_eq!(rows(&store), expected(&store, 1..=11));
    // What is over changes again: nothing is known of it but its rows.
    let mut other = record(3);
    other.flags = vec![Flag::new("second", Severity::Low, "")];
    other.verdict = None;
    store.apply(&[Write::Final(&other)]).unwrap();
    assert_eq!(rows(&store), expected(&store, 1..=11));
}

#[test]
fn many_records_are_written_in_steps() {
    let (_dir, store) = store();
    let count = 2 * HELD as u64 + 100;
    let records: Vec<_> = (1..=count).map(|id| if id % 3 == 0 { begun(id) } else { record(id) }).collect();
    let mut writes: Vec<_> = records
        .iter()
        .map(|record| match record.state {
            State::Open => Write::Open(record),
            State::Done | State::Refused | State::Failed | State::Cancelled => Write::Final(record),
        })
        .collect();
    let ends: Vec<_> = (1..=count).filter(|id| id % 3 == 0).map(record).collect();
    // Begun before a step and ended after it, in one transaction.
    writes.extend(ends.iter().take(ends.len() / 2).map(Write::Final));
    store.apply(&writes).unwrap();
    assert_eq!(rows(&store), expected(&store, 1..=count));
    assert_eq!(begun_rows(&store), (ends.len() - ends.len() / 2) as u64);
}

#[test]
fn a_transaction_that_fails_gives_no_numbers() {
    let (_dir, store) = store();
    let first = record(1);
    store.apply(&[Write::Final(&first)]).unwrap();
    let mut named = Entry::last(&{
        let mut record = record(2);
        record.protocol = "lost".into();
        record
    });
    let broken = Entry { encoded: vec![1, 8, 0], ..named.clone() };
    store.commit(&[named.clone(), broken], 0, None).unwrap_err();
    named.set_id(RecordId(2));
    let mut other = record(2);
    other.protocol = "other".into();
    store.apply(&[Write::Final(&other)]).unwrap();
    store
        .commit(
            &[{
                named.set_id(RecordId(3));
                named
            }],
            0,
            None,
        )
        .unwrap();
    assert_eq!(rows(&store), expected(&store, 1..=3));
    let terms = store.read().unwrap().open_table(TERMS).unwrap();
    let mut numbers: Vec<_> = terms.iter().unwrap().skip(1).map(|row| row.unwrap().1.value() << 8).collect();
    numbers.sort_unstable();
    let all = numbers.len();
    numbers.dedup();
    assert_eq!(numbers.len(), all, "each text has a number of its own");
}

#[test]
fn what_is_gone_is_taken_out() {
    let (_dir, store) = store();
    let records: Vec<_> = (1..=9000).map(|id| if id == 8999 { begun(id) } else { record(id) }).collect();
    store
        .apply(
            &records
                .iter()
                .map(|r| if r.state == State::Open { Write::Open(r) } else { Write::Final(r) })
                .collect::<Vec<_>>(),
        )
        .unwrap();
    for first_kept in [1, 5, 5000, 8192, 8999, 9000] {
        let transaction = store.begin_write().unwrap();
        let mut postings = Postings::open(&transaction, Memory::default()).unwrap();
        postings.forget(&(1..first_kept).collect::<Vec<_>>()).unwrap();
        postings.finish().unwrap();
        transaction.commit().unwrap();
        assert_eq!(rows(&store), expected(&store, first_kept..=9000), "{first_kept}");
        let columns = store.read().unwrap().open_table(COLUMNS).unwrap();
        let block = block_of(first_kept);
        assert_eq!(columns.first().unwrap().unwrap().0.value().0, block);
        let started = columns.get((block, kind::STARTED)).unwrap().unwrap();
        let started = Column::read(started.value(), true).unwrap();
        assert_eq!(started.has.rising().next(), Some(offset_of(first_kept)));
    }
    assert_eq!(begun_rows(&store), 0);
}

#[test]
fn long_texts_are_cut_and_marked() {
    let mut out = Vec::new();
    for (field, text, expect) in [
        (terms::field::HOST, "Api.Example".to_owned(), ("api.example".to_owned(), false)),
        (terms::field::EXE, "/Bin/ü".to_owned(), ("/bin/ü".to_owned(), false)),
        (terms::field::RULE, "a".repeat(1024), ("a".repeat(1024), false)),
        (terms::field::RULE, "a".repeat(1025), ("a".repeat(1024), true)),
        (terms::field::HOST, format!("x{}", "a".repeat(1024)), ("a".repeat(1024), true)),
    ] {
        terms::key(field, text.as_bytes(), &mut out);
        let (text, cut) = terms::unkey(&out);
        assert_eq!((String::from_utf8(text).unwrap(), cut), expect);
    }
}
