//! What is made anew is what was there.

use redb::{Database, ReadableDatabase as _, ReadableTable as _};

use super::super::{
    Store, Write,
    postings::{BEGUN, COLUMNS, POSTINGS, TERMS},
    tables::{ENDS, META, NAMES, SCHEMA, SPANS, SpanRow, UNDERWAY},
};
use crate::{
    chain::Trust,
    model::{Authority, Host, Kind, Record, RecordId, State, Timestamp},
};

/// Every row of the tables that derive from entries.
#[derive(Debug, Default, PartialEq, Eq)]
struct Derived {
    spans: Vec<(u64, SpanRow)>,
    ends: Vec<(u64, u64)>,
    underway: Vec<(u64, u64)>,
    terms: Vec<(Vec<u8>, u64)>,
    postings: Vec<((u64, u64), Vec<u8>)>,
    columns: Vec<((u64, u8), Vec<u8>)>,
    begun: Vec<(u64, Vec<u8>)>,
}

fn derived(store: &Store) -> Derived {
    let transaction = store.read().unwrap();
    let rows = |table| {
        let table = transaction.open_table::<u64, u64>(table).unwrap();
        let rows = table.iter().unwrap().map(|row| row.map(|(key, value)| (key.value(), value.value())));
        rows.collect::<Result<_, _>>().unwrap()
    };
    Derived {
        spans: transaction
            .open_table(SPANS)
            .unwrap()
            .iter()
            .unwrap()
            .map(|row| row.map(|(key, value)| (key.value(), value.value())).unwrap())
            .collect(),
        ends: rows(ENDS),
        underway: rows(UNDERWAY),
        terms: transaction
            .open_table(TERMS)
            .unwrap()
            .iter()
            .unwrap()
            .map(|row| row.map(|(key, value)| (key.value().to_vec(), value.value())).unwrap())
            .collect(),
        postings: transaction
            .open_table(POSTINGS)
            .unwrap()
            .iter()
            .unwrap()
            .map(|row| row.map(|(key, value)| (key.value(), value.value().to_vec())).unwrap())
            .collect(),
        columns: transaction
            .open_table(COLUMNS)
            .unwrap()
            .iter()
            .unwrap()
            .map(|row| row.map(|(key, value)| (key.value(), value.value().to_vec())).unwrap())
            .collect(),
        begun: transaction
            .open_table(BEGUN)
            .unwrap()
            .iter()
            .unwrap()
            .map(|row| row.map(|(key, value)| (key.value(), value.value().to_vec())).unwrap())
            .collect(),
    }
}

fn record(id: u64, host: &str) -> Record {
    let mut record = Record::new(Kind::Exchange, Timestamp(i64::try_from(id).unwrap()));
    record.id = RecordId(id);
    record.authority = Some(Authority { host: Host::parse(host).unwrap(), port: 443 });
    record
}

/// Records over several groups: late ends, in other groups and under other hosts, and one that is open.
fn fill(store: &Store) {
    let begun: Vec<_> = (1..=300).map(|id| record(id, &format!("h{}.test", id % 7))).collect();
    store.apply(&begun.iter().map(Write::Open).collect::<Vec<_>>()).unwrap();
    for slice in [1..=100, 101..=120, 121..=299] {
        let ended: Vec<_> = slice
            .map(|id: u64| {
                let mut record = record(id, &format!("e{}.test", id % 11));
                record.state = State::Done;
                record
            })
            .collect();
        store.apply(&ended.iter().map(Write::Final).collect::<Vec<_>>()).unwrap();
    }
}

#[test]
fn a_log_of_schema_2_has_its_tables_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.redb");
    let (before, records) = {
        let store = Store::open(&path).unwrap();
        fill(&store);
        drop(store);
        // What was open is ended when it is opened again.
        let store = Store::open(&path).unwrap();
        let records: Vec<_> = (1..=300).map(|id| store.get(RecordId(id)).unwrap().unwrap()).collect();
        (derived(&store), records)
    };
    assert!(
        before.spans.len() > 2
            && before.ends.len() > 200
            && before.terms.len() > 14
            && before.postings.len() > 14,
        "{before:?}"
    );
    let raw = Database::open(&path).unwrap();
    let transaction = raw.begin_write().unwrap();
    transaction.open_table(META).unwrap().insert(SCHEMA, 2).unwrap();
    transaction.delete_table(SPANS).unwrap();
    transaction.delete_table(ENDS).unwrap();
    // A row that no entry accounts for.
    transaction.open_table(NAMES).unwrap().insert(("nobody.test", 1), ()).unwrap();
    transaction.commit().unwrap();
    drop(raw);
    let store = Store::open(&path).unwrap();
    assert_eq!(derived(&store), before);
    for record in &records {
        assert_eq!(store.get(record.id).unwrap().as_ref(), Some(record));
    }
    assert_eq!(store.next_id(), RecordId(301));
    let whole = || store.verify(Trust::default(), &mut |_, _| ()).unwrap();
    assert!(whole().whole, "{:?}", whole());
    store.reindex().unwrap();
    assert_eq!(derived(&store), before);
    assert!(whole().whole, "{:?}", whole());
    drop(store);
    let raw = Database::open(&path).unwrap();
    let meta = raw.begin_read().unwrap().open_table(META).unwrap();
    assert_eq!(meta.get(SCHEMA).unwrap().unwrap().value(), 3);
}
