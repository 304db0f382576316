//! What is dumped is what is loaded; what is not a dump is no file.

use redb::{Database, ReadableDatabase as _, TableHandle as _};

use super::*;
use crate::model::{Captured, Kind, Record, RecordId, RequestHead, State, Timestamp};

fn record(id: u64) -> Record {
    let mut record = Record::new(Kind::Exchange, Timestamp(i64::try_from(id).unwrap()));
    record.id = RecordId(id);
    record.state = State::Done;
    // What does not compress.
    let mut state = id * 0x9e37_79b9;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    let body: Vec<u8> = (0..(id * 97) % 20_000).map(next).collect();
    record.request = Some(RequestHead {
        method: "POST".into(),
        target: format!("/{id}"),
        body: Captured { total: body.len() as u64, truncated: false, bytes: body.into() },
        ..RequestHead::default()
    });
    record
}

fn filled(path: &Path) -> Store {
    let store = Store::open(path).unwrap();
    store.enter_epoch("boot/1").unwrap();
    let records: Vec<_> = (1..=700).map(record).collect();
    for some in records.chunks(50) {
        store.apply(&some.iter().map(super::super::Write::Final).collect::<Vec<_>>()).unwrap();
    }
    store.add_up("all", "tokens", 3, Timestamp(1)).unwrap();
    store
}

fn stream(store: &Store) -> (Vec<u8>, Dumped) {
    let mut bytes = Vec::new();
    let mut pieces = 0;
    let dumped = store
        .dump(|piece| {
            assert!(piece.len() < PIECE + (64 << 10), "a piece of {}", piece.len());
            pieces += 1;
            bytes.extend_from_slice(&piece);
            true
        })
        .unwrap()
        .unwrap();
    assert!(pieces > 3, "one piece is no test");
    assert_eq!(dumped.bytes, bytes.len() as u64);
    (bytes, dumped)
}

#[test]
fn every_table_is_on_the_list() {
    struct Names(Vec<String>);
    impl Visitor for Names {
        fn visit<K: Key + 'static, V: Value + 'static>(
            &mut self,
            table: TableDefinition<'static, K, V>,
            _role: Role,
        ) -> Result<(), StoreError> {
            self.0.push(table.name().to_owned());
            Ok(())
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let store = filled(&dir.path().join("audit.redb"));
    let mut names = Names(Vec::new());
    every::table(&mut names).unwrap();
    let snapshot = store.read().unwrap();
    let there: Vec<_> = snapshot.list_tables().unwrap().map(|table| table.name().to_owned()).collect();
    let missing: Vec<_> = there.iter().filter(|name| !names.0.contains(name)).collect();
    assert!(missing.is_empty(), "in no backup: {missing:?}");
    assert!(there.len() >= 12, "{there:?}");
}

#[test]
fn what_is_loaded_is_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(&dir.path().join("audit.redb"));
    let (bytes, dumped) = stream(&store);
    for size in [1 << 20, 4099, 7] {
        let path = dir.path().join(format!("copy-{size}.redb"));
        let mut loader = Loader::create(&path).unwrap();
        // A few bytes at a time take long, and are enough at the start.
        let (slow, rest) = bytes.split_at(if size < 4096 { 9000 } else { 0 });
        slow.chunks(size).for_each(|piece| loader.feed(piece).unwrap());
        rest.chunks(size.max(4099)).for_each(|piece| loader.feed(piece).unwrap());
        assert_eq!(loader.rows(), dumped.rows);
        assert_eq!(loader.finish(&path).unwrap(), dumped);
        assert_eq!(rows(&path).unwrap(), dumped.rows);
        let copy = Store::open(&path).unwrap();
        for id in 1..=700 {
            let (one, other) = (store.get(RecordId(id)).unwrap(), copy.get(RecordId(id)).unwrap());
            assert_eq!(one, other);
            let side = crate::store::Side::Request;
            assert_eq!(copy.body(RecordId(id), side).unwrap(), store.body(RecordId(id), side).unwrap());
        }
        assert_eq!(copy.counters("all").unwrap(), store.counters("all").unwrap());
        assert_eq!(copy.next_id(), store.next_id());
    }
}

#[test]
fn a_stream_that_is_not_whole_is_no_backup() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(&dir.path().join("audit.redb"));
    let (bytes, _) = stream(&store);
    let load = |bytes: &[u8]| {
        let path = dir.path().join("bad.redb");
        remove(&path).unwrap();
        let mut loader = Loader::create(&path)?;
        loader.feed(bytes)?;
        loader.finish(&path)
    };
    load(&bytes).unwrap();
    for end in [0, 5, 17, 18, 5000, bytes.len() - 1] {
        let error = load(&bytes[..end]).unwrap_err();
        assert!(matches!(error, StoreError::NotADump(_)), "{end}: {error}");
    }
    for at in [0, 17, 300, bytes.len() / 2, bytes.len() - 40, bytes.len() - 1] {
        let mut bad = bytes.clone();
        bad[at] ^= 1;
        load(&bad).unwrap_err();
    }
    load(&[bytes.as_slice(), b"x"].concat()).unwrap_err();
}

#[test]
fn whoever_leaves_ends_it_and_nobody_else_is_let_in_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(&dir.path().join("audit.redb"));
    let mut pieces = 0;
    let ended = store.dump(|_| {
        assert!(matches!(store.dump(|_| true), Err(StoreError::Upkeep)));
        pieces += 1;
        pieces < 3
    });
    assert_eq!((ended.unwrap(), pieces), (None, 3));
    assert!(store.dump(|_| true).unwrap().is_some());
}

#[test]
fn a_file_that_is_there_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("there.redb");
    fs::write(&path, b"x").unwrap();
    assert!(matches!(Loader::create(&path).unwrap_err(), StoreError::File { .. }));
    assert_eq!(fs::read(&path).unwrap(), b"x");
    // Nor is a database taken for a log that a program of another kind made.
    let other = dir.path().join("other.redb");
    drop(Database::create(&other).unwrap());
    assert_eq!(rows(&other).unwrap(), 0);
    drop(redb::Builder::new().open(&other).unwrap().begin_read().unwrap());
}
