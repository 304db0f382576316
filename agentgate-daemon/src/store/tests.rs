//! The store: what is written is read, also after a crash.

use std::{
    os::unix::fs::PermissionsExt as _,
    sync::{Arc, atomic::Ordering},
};

use redb::{Database, ReadableDatabase as _, ReadableTableMetadata as _, TableHandle as _};

use super::{failing::Faults, *};
use crate::{
    filter::Filter,
    model::{
        Authority, Captured, Flow, Host, Kind, OriginalDestination, RequestHead, ResponseHead, SessionId,
        State, Subject, Timestamp, Verdict, verdict::Action,
    },
};

mod damage;
mod power;

fn record(id: u64) -> Record {
    let mut record = Record::new(Kind::Exchange, Timestamp(i64::try_from(id).unwrap() * 1_000_000));
    record.id = RecordId(id);
    record
}

fn to(mut record: Record, host: &str) -> Record {
    record.authority = Some(Authority { host: Host::parse(host).unwrap(), port: 443 });
    record
}

fn judged(mut record: Record, action: Action) -> Record {
    record.verdict = Some(Verdict { action, rule: "mode:enforce".into(), reason: "because".into() });
    record
}

fn by(mut record: Record, session: &str) -> Record {
    record.subject = Some(
        Subject {
            session: SessionId(session.into()),
            pid: 7,
            uid: 1000,
            start: None,
            comm: "curl".into(),
            exe: None,
            cmdline: vec![],
            ancestors: vec![],
            cgroup: "/agent.slice".into(),
            privileges: Vec::new(),
        }
        .into(),
    );
    record
}

fn done(mut record: Record) -> Record {
    record.state = State::Done;
    record.finished = Some(Timestamp(record.started.0 + 5));
    record
}

fn scratch() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.redb");
    (dir, path)
}

fn put(store: &Store, records: &[Record]) {
    let writes: Vec<_> = records.iter().map(Write::Final).collect();
    store.apply(&writes).unwrap();
}

fn ids(page: &Page) -> Vec<u64> {
    page.records.iter().map(|r| r.id.0).collect()
}

#[test]
fn keeps_records_and_bodies() {
    let (_dir, path) = scratch();
    let mut full = judged(by(to(done(record(1)), "api.example.com"), "run-u1.service@9"), Action::Allow);
    full.request = Some(RequestHead {
        method: "POST".into(),
        target: "/v1/messages".into(),
        body: Captured { total: 9, truncated: true, bytes: Bytes::from_static(b"\0\xffbody") },
        ..RequestHead::default()
    });
    full.response = Some(ResponseHead { status: 200, ..ResponseHead::default() });
    {
        let store = Store::open(&path).unwrap();
        assert_eq!(store.next_id(), RecordId(1));
        store.apply(&[Write::Open(&full)]).unwrap();
        assert_eq!(store.body(RecordId(1), Side::Request).unwrap(), None);
        store.apply(&[Write::Final(&full)]).unwrap();
    }
    let store = Store::open(&path).unwrap();
    assert_eq!(store.next_id(), RecordId(2));
    let mut expect = full;
    expect.request.as_mut().unwrap().body.bytes = Bytes::new();
    assert_eq!(store.get(RecordId(1)).unwrap(), Some(expect));
    assert_eq!(store.get(RecordId(2)).unwrap(), None);
    assert_eq!(store.body(RecordId(1), Side::Request).unwrap().unwrap(), &b"\0\xffbody"[..]);
    assert_eq!(store.body(RecordId(1), Side::Response).unwrap(), None);
}

#[test]
fn file_is_private_and_exclusive() {
    let (_dir, path) = scratch();
    fs::write(&path, b"").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let store = Store::open(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    let second = Store::open(&path).unwrap_err();
    assert!(matches!(second, StoreError::Busy { .. }), "{second}");
    assert!(second.to_string().contains("in use"), "{second}");
    drop(store);
    Store::open(&path).unwrap();
}

#[test]
fn refuses_what_it_cannot_open() {
    let (dir, path) = scratch();
    // sysfs takes no files, not even root's: what a read-only file system answers.
    for bad in ["/sys/kernel/audit.redb".into(), dir.path().to_owned(), dir.path().join("absent/audit.redb")]
    {
        let error = Store::open(&bad).unwrap_err();
        assert!(matches!(error, StoreError::File { .. }), "{bad:?}: {error}");
        assert!(error.to_string().contains(bad.to_str().unwrap()), "{error}");
    }
    fs::write(&path, vec![7_u8; 9000]).unwrap();
    let error = Store::open(&path).unwrap_err();
    assert_eq!(error.code(), "store_io", "{error}");
    assert_eq!(fs::read(&path).unwrap(), vec![7_u8; 9000], "a file that is no log is left alone");
}

#[test]
fn refuses_a_later_schema() {
    let (_dir, path) = scratch();
    put(&Store::open(&path).unwrap(), &[done(record(1))]);
    let raw = Database::open(&path).unwrap();
    let txn = raw.begin_write().unwrap();
    txn.open_table(tables::META).unwrap().insert(tables::SCHEMA, 4).unwrap();
    txn.commit().unwrap();
    drop(raw);
    let error = Store::open(&path).unwrap_err();
    assert!(matches!(error, StoreError::Newer { found: 4, known: 3 }), "{error}");
}

#[test]
fn a_record_that_cannot_be_read_is_told_and_passed_over() {
    let (_dir, path) = scratch();
    {
        let store = Store::open(&path).unwrap();
        // Of a kind that a later version has.
        let mut later = Entry::last(&by(done(record(2)), "x@1"));
        assert_eq!(later.encoded[10..12], [2, 1]);
        later.encoded[12] = 99;
        store.commit(&[Entry::last(&to(done(record(1)), "a.example")), later], 0, None).unwrap();
    }
    {
        // Another group.
        let store = Store::open(&path).unwrap();
        put(&store, &[to(done(record(3)), "a.example"), done(record(4))]);
        store.apply(&[Write::Open(&record(5))]).unwrap();
    }
    let all = Query { limit: 10, ..Query::default() };
    {
        let store = Store::open(&path).unwrap();
        assert_eq!(store.get(RecordId(2)).unwrap_err().code(), "store_unreadable");
        let page = store.query(&all).unwrap();
        assert_eq!((ids(&page), page.unreadable), (vec![5, 4, 3, 1], 1));
    }
    let raw = Database::open(&path).unwrap();
    let txn = raw.begin_write().unwrap();
    txn.open_table(tables::GROUPS).unwrap().insert((2, 0), [9_u8, 1, 2].as_slice()).unwrap();
    txn.commit().unwrap();
    drop(raw);
    let store = Store::open(&path).unwrap();
    let page = store.query(&all).unwrap();
    assert_eq!((ids(&page), page.unreadable), (vec![5, 1], 3));
    let page = store.query(&Query { host: Some("a.example".into()), ..all }).unwrap();
    // Of the damaged ones the index has one under this host.
    assert_eq!((ids(&page), page.unreadable), (vec![1], 1));
    put(&store, &[done(record(6))]);
}

#[test]
fn ends_what_was_left_open() {
    let (_dir, path) = scratch();
    {
        let store = Store::open(&path).unwrap();
        let (one, two, three) = (to(record(1), "a.example"), record(2), to(record(3), "c.example"));
        store.apply(&[Write::Open(&one), Write::Open(&two), Write::Open(&three)]).unwrap();
        put(&store, &[done(two)]);
    }
    for _ in 0..2 {
        let store = Store::open(&path).unwrap();
        for id in [1, 3] {
            let record = store.get(RecordId(id)).unwrap().unwrap();
            assert_eq!(record.state, State::Failed);
            assert!(record.finished.is_some());
            let failure = record.failure.unwrap();
            assert_eq!((failure.blame.as_str(), failure.code.as_str()), ("gate", "interrupted"));
        }
        assert_eq!(store.get(RecordId(2)).unwrap().unwrap().state, State::Done);
        assert_eq!(store.next_id(), RecordId(4));
        assert_eq!(store.read().unwrap().open_table(tables::UNDERWAY).unwrap().len().unwrap(), 0);
    }
}

fn flow(mut record: Record) -> Record {
    record.flow = Some(
        Flow {
            cookie: 1,
            original: OriginalDestination("203.0.113.7:443".parse().unwrap()),
            pid: 1,
            uid: 0,
            gid: 0,
            comm: "curl".into(),
            cgroup: 1,
            session: 0,
            netns: 0,
            connected_ns: 1,
        }
        .into(),
    );
    record
}

#[test]
fn index_follows_the_host() {
    let (_dir, path) = scratch();
    let store = Store::open(&path).unwrap();
    let begun = flow(record(1));
    store.apply(&[Write::Open(&begun)]).unwrap();
    let found = |host: &str| {
        ids(&store.query(&Query { host: Some(host.into()), limit: 9, ..Query::default() }).unwrap())
    };
    assert_eq!(found("203.0.113.7"), [1]);
    put(&store, &[to(done(begun), "api.example.com")]);
    assert_eq!(found("203.0.113.7"), [0_u64; 0]);
    assert_eq!(found("API.example"), [1]);
}

#[test]
fn host_patterns() {
    let rows = [
        ("example", "api.example.com", true),
        ("EXAMPLE.com", "api.example.com", true),
        ("", "anything", true),
        ("example.org", "api.example.com", false),
        ("*.example.com", "api.example.com", true),
        ("*.example.com", "example.com", false),
        ("*.example.com", "api.example.com.evil.test", false),
        ("api.*.com", "api.example.com", true),
        ("a?i.example.com", "api.example.com", true),
        ("a?i.example.com", "ai.example.com", false),
        ("*", "", true),
        ("?*", "", false),
        ("*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaac", false),
    ];
    for (pattern, host, expect) in rows {
        assert_eq!(HostPattern::new(pattern).matches(host), expect, "{pattern} on {host}");
    }
}

fn filter(text: &str) -> Filter {
    Filter::parse(text, Timestamp(0)).unwrap()
}

/// Twelve records over three hosts, two sessions, three verdicts and two kinds.
fn sample() -> Vec<Record> {
    (1..=12)
        .map(|id| {
            let host = ["a.example", "b.example", "c.test"][(id % 3) as usize];
            let action = [Action::Allow, Action::Deny, Action::Passthrough, Action::Allow][(id % 4) as usize];
            let session = if id <= 6 { "one@1" } else { "two@2" };
            let mut record = by(judged(to(done(record(id)), host), action), session);
            record.kind = if id % 5 == 0 { Kind::Flow } else { Kind::Exchange };
            record.request = Some(RequestHead { target: format!("/v1/Item/{id}"), ..RequestHead::default() });
            record
        })
        .collect()
}

#[test]
fn filters() {
    let (_dir, path) = scratch();
    let store = Store::open(&path).unwrap();
    put(&store, &sample());
    let all = Query { limit: 100, ..Query::default() };
    let rows: Vec<(&str, Query, Vec<u64>)> = vec![
        ("all", all.clone(), (1..=12).rev().collect()),
        ("host", Query { host: Some("a.example".into()), ..all.clone() }, vec![12, 9, 6, 3]),
        ("hosts", Query { host: Some("*.example".into()), ..all.clone() }, vec![12, 10, 9, 7, 6, 4, 3, 1]),
        ("no host", Query { host: Some("nowhere".into()), ..all.clone() }, vec![]),
        ("verdict", Query { verdict: Some(Action::Deny), ..all.clone() }, vec![9, 5, 1]),
        ("kind", Query { kind: Some(Kind::Flow), ..all.clone() }, vec![10, 5]),
        ("absent kind", Query { kind: Some(Kind::Kernel), ..all.clone() }, vec![]),
        (
            "session",
            Query { session: Some(SessionId("one@1".into())), ..all.clone() },
            (1..=6).rev().collect(),
        ),
        ("since", Query { since: Some(Timestamp(11_000_000)), ..all.clone() }, vec![12, 11]),
        ("until", Query { until: Some(Timestamp(3_000_000)), ..all.clone() }, vec![2, 1]),
        ("text target", Query { filter: filter("ITEM/1*"), ..all.clone() }, vec![12, 11, 10, 1]),
        ("text host", Query { filter: filter("c.TEST"), ..all.clone() }, vec![11, 8, 5, 2]),
        ("before", Query { before: Some(RecordId(3).into()), ..all.clone() }, vec![2, 1]),
        ("before all", Query { before: Some(RecordId(0).into()), ..all.clone() }, vec![]),
        (
            "before all, host",
            Query { before: Some(RecordId(0).into()), host: Some("a".into()), ..all.clone() },
            vec![],
        ),
        (
            "host and verdict",
            Query { host: Some("a.example".into()), verdict: Some(Action::Deny), ..all.clone() },
            vec![9],
        ),
    ];
    for (name, query, expect) in rows {
        let page = store.query(&query).unwrap();
        assert_eq!(ids(&page), expect, "{name}");
        assert_eq!(page.next, None, "{name}");
    }
}

/// Follows cursors to the end; every page but the last must have one.
fn paged(store: &Store, query: &Query) -> (Vec<u64>, usize) {
    let (mut seen, mut pages, mut query) = (Vec::new(), 0, query.clone());
    loop {
        let page = store.query(&query).unwrap();
        assert!(page.records.len() <= query.limit.clamp(1, LIMIT_CAP));
        seen.extend(ids(&page));
        pages += 1;
        match page.next {
            Some(next) => {
                assert!(query.before.is_none_or(|before| next < before), "the cursor moves");
                query.before = Some(next);
            }
            None => return (seen, pages),
        }
    }
}

#[test]
fn pages_join_without_gap_or_repeat() {
    let (_dir, path) = scratch();
    let store = Store::open(&path).unwrap();
    put(&store, &sample());
    for limit in [0, 1, 2, 3, 5, 12, 13] {
        for host in [None, Some("a.example"), Some("example"), Some("*")] {
            let query = Query { host: host.map(HostPattern::new), limit, ..Query::default() };
            let expect = ids(&store.query(&Query { limit: 100, ..query.clone() }).unwrap());
            assert_eq!(paged(&store, &query).0, expect, "{limit} {host:?}");
        }
    }
}

#[test]
fn large_logs_are_searched_in_bounded_steps() {
    let (_dir, path) = scratch();
    let store = Store::open(&path).unwrap();
    let count = 3 * SCAN_CAP as u64;
    let records: Vec<Record> = (1..=count)
        .map(|id| {
            let host = match id {
                5 | 20_000 => "rare.example".to_owned(),
                _ => format!("h{}.test", id % 100),
            };
            let record = to(done(record(id)), &host);
            if id == 7 { judged(record, Action::Deny) } else { record }
        })
        .collect();
    put(&store, &records);
    let query = Query { limit: 10, ..Query::default() };

    // By host: straight to the rows, one call.
    let rare = Query { host: Some("rare".into()), ..query.clone() };
    assert_eq!(paged(&store, &rare), (vec![20_000, 5], 1));
    // Blocks without such a verdict, or of another time, are passed over.
    assert_eq!(paged(&store, &Query { verdict: Some(Action::Deny), ..query.clone() }), (vec![7], 1));
    let early = Query { until: Some(Timestamp(3_000_000)), ..query.clone() };
    assert_eq!(paged(&store, &early), (vec![2, 1], 1));
    // Nothing helps here: each call stops at the cap and says where.
    let looked = Query { filter: filter("url:*rare*"), ..query.clone() };
    let page = store.query(&looked).unwrap();
    assert_eq!((ids(&page), page.next), (vec![], Some(RecordId(count - SCAN_CAP as u64 + 1).into())));
    assert_eq!(paged(&store, &looked), (vec![20_000, 5], 3));
    // Many hosts match.
    let many = Query { host: Some("*.test".into()), limit: LIMIT_CAP, ..Query::default() };
    assert_eq!(paged(&store, &many).0.len() as u64, count - 2);
}

#[test]
fn an_io_error_needs_recovery_and_loses_nothing() {
    for (name, trip) in [("full", 0), ("first sync", 1), ("second sync", 2)] {
        let (_dir, path) = scratch();
        let faults = Arc::new(Faults::default());
        let store = failing::store(path, faults.clone()).unwrap();
        put(&store, &[done(record(1))]);
        faults.full.store(trip == 0, Ordering::SeqCst);
        faults.sync_in.store(trip, Ordering::SeqCst);

        let begun = [Entry::open(&record(2))];
        store.take(&begun, 1).unwrap_err();
        assert!(store.take(&begun, 1).unwrap_err().needs_reopening(), "{name}");
        if trip == 0 {
            store.reopen().unwrap_err();
        }
        faults.full.store(false, Ordering::SeqCst);

        store.reopen().unwrap();
        // The last sync fails when all is written: the commit reports an error and is kept.
        assert_eq!(store.get(RecordId(2)).unwrap().is_some(), trip == 2, "{name}");
        store.take(&begun, 1).unwrap();
        assert_eq!(store.next_id(), RecordId(3), "{name}");
        put(&store, &[done(record(2)), done(record(3))]);
        let page = store.query(&Query { limit: 9, ..Query::default() }).unwrap();
        let states: Vec<_> = page.records.iter().map(|record| (record.id.0, record.state)).collect();
        assert_eq!(states, [(3, State::Done), (2, State::Done), (1, State::Done)], "{name}");
    }
}

#[test]
fn says_that_it_is_closed_when_it_cannot_reopen() {
    let (_dir, path) = scratch();
    let faults = Arc::new(Faults::default());
    let store = failing::store(path, faults.clone()).unwrap();
    faults.unopenable.store(true, Ordering::SeqCst);
    assert!(matches!(store.reopen().unwrap_err(), StoreError::File { .. }));
    assert!(matches!(store.get(RecordId(1)).unwrap_err(), StoreError::Closed));
    assert!(matches!(store.apply(&[]).unwrap_err(), StoreError::Closed));
    faults.unopenable.store(false, Ordering::SeqCst);
    store.reopen().unwrap();
    put(&store, &[done(record(1))]);
}

/// As the versions before wrote it: a row of JSON for each record, the oldest without tables of the
/// balance and without what came with it.
#[test]
fn a_log_of_schema_1_is_brought_to_this_one() {
    let (_dir, path) = scratch();
    let mut full =
        judged(by(to(done(flow(record(2))), "api.example.com"), "run-u1.service@9"), Action::Allow);
    full.request = Some(RequestHead {
        target: "/v1/messages".into(),
        headers: vec![("accept", "*/*")].into(),
        body: Captured { total: 9, truncated: true, bytes: Bytes::new() },
        ..RequestHead::default()
    });
    let mut oldest = serde_json::to_value(record(1)).unwrap();
    let fields = oldest.as_object_mut().unwrap();
    for absent in ["times", "question", "loss"] {
        fields.remove(absent);
    }
    let database = Database::create(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut meta = transaction.open_table(tables::META).unwrap();
        meta.insert(tables::SCHEMA, 1).unwrap();
        // The last was taken out of the log.
        meta.insert(tables::LAST_ID, 7).unwrap();
        let mut records = transaction.open_table(migrate::RECORDS).unwrap();
        records.insert(1, &*[&[1][..], oldest.to_string().as_bytes()].concat()).unwrap();
        records.insert(2, &*[&[1][..], &serde_json::to_vec(&full).unwrap()].concat()).unwrap();
        transaction.open_table(migrate::BODIES).unwrap().insert((2, 0), &b"\0\xffbody"[..]).unwrap();
        transaction.open_table(migrate::OPEN).unwrap().insert(1, "").unwrap();
        transaction.open_table(migrate::HOSTS).unwrap().insert(("api.example.com", 2), ()).unwrap();
        transaction.open_table(migrate::BLOCKS).unwrap().insert(0, (0, 1, 3)).unwrap();
    }
    transaction.commit().unwrap();
    drop(database);
    for _ in 0..2 {
        let store = Store::open(&path).unwrap();
        let read = store.get(RecordId(1)).unwrap().unwrap();
        assert_eq!((read.times, read.state), (1, State::Failed), "and what was open is ended");
        assert_eq!(store.get(RecordId(2)).unwrap().as_ref(), Some(&full));
        assert_eq!(store.body(RecordId(2), Side::Request).unwrap().unwrap(), &b"\0\xffbody"[..]);
        let page = store.query(&Query { host: Some("api".into()), limit: 9, ..Query::default() }).unwrap();
        assert_eq!(ids(&page), [2]);
        assert!(store.earlier_tallies().unwrap().is_empty() && store.tallies().unwrap().is_empty());
        assert_eq!(store.next_id(), RecordId(8));
    }
    let raw = Database::open(&path).unwrap();
    let names: Vec<_> =
        raw.begin_read().unwrap().list_tables().unwrap().map(|table| table.name().to_owned()).collect();
    assert!(
        !names.iter().any(|name| ["records", "bodies", "open", "hosts", "blocks"].contains(&name.as_str()))
    );
    drop(raw);
    let store = Store::open(&path).unwrap();
    store.enter_epoch("boot/1").unwrap();
    assert!(store.recount().unwrap().is_empty());
}

#[test]
fn a_log_of_schema_1_that_cannot_be_read_is_left_as_it_is() {
    let (_dir, path) = scratch();
    let database = Database::create(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(tables::META).unwrap().insert(tables::SCHEMA, 1).unwrap();
    transaction.open_table(migrate::RECORDS).unwrap().insert(1, &b"\x01{"[..]).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let error = Store::open(&path).unwrap_err();
    assert!(matches!(error, StoreError::Unreadable { id: RecordId(1), .. }), "{error}");
    let raw = Database::open(&path).unwrap();
    let snapshot = raw.begin_read().unwrap();
    assert_eq!(snapshot.open_table(tables::META).unwrap().get(tables::SCHEMA).unwrap().unwrap().value(), 1);
    assert_eq!(snapshot.open_table(migrate::RECORDS).unwrap().len().unwrap(), 1);
}

fn asking(id: u64, body: &[u8]) -> Record {
    let mut record = record(id);
    let bytes = Bytes::copy_from_slice(body);
    let body = Captured { total: bytes.len() as u64, truncated: false, bytes };
    record.request = Some(RequestHead { body, ..RequestHead::default() });
    record
}

#[test]
fn a_request_under_way_has_its_body_and_later_versions_in_the_journal_do_not() {
    for (length, tables) in [(3000, false), (3000, true), (30_000, false), (30_000, true)] {
        let (_dir, path) = scratch();
        let body: Vec<u8> = (0..length).map(|n: u32| ((n * n) >> 3) as u8).collect();
        let store = Store::open(&path).unwrap();
        let mut known = Known::default();
        let begun = Entry::version(&asking(1, &body), &mut known);
        let other = Entry::version(&asking(2, b"another"), &mut Known::default());
        let taken = store.log([&begun, &other].into_iter()).unwrap();
        if tables {
            store.take(&[begun, other], taken).unwrap();
            assert_eq!(store.get(RecordId(1)).unwrap().unwrap().state, State::Open);
            assert_eq!(store.body(RecordId(1), Side::Request).unwrap().unwrap(), body);
        }
        known.durable = true;
        let before = store.journaled();
        let ended = Entry::version(&done(asking(1, &body)), &mut known);
        assert!(ended.kept);
        store.log([&ended].into_iter()).unwrap();
        assert!(store.journaled() - before < 500, "{}", store.journaled() - before);
        // What is in memory is lost.
        drop(store);
        let store = Store::open(&path).unwrap();
        assert_eq!(store.get(RecordId(1)).unwrap().unwrap().state, State::Done);
        assert_eq!(store.body(RecordId(1), Side::Request).unwrap().unwrap(), body, "{length} {tables}");
        // And what nobody ended keeps what it had.
        let interrupted = store.get(RecordId(2)).unwrap().unwrap();
        assert_eq!((interrupted.state, interrupted.request.unwrap().body.total), (State::Failed, 7));
        assert_eq!(store.body(RecordId(2), Side::Request).unwrap().unwrap(), "another");
    }
}
