//! What is done to a store is found, and called what it is.

use std::{io::BufReader, path::PathBuf};

use bytes::Bytes;
use redb::Key;

use super::{
    super::{
        bodies::Place,
        retention::{Readers, Rules, Run},
        *,
    },
    lines::verify_lines,
    *,
};
use crate::{
    chain::{Hex, Line, Pruned, PublicKey, digest, first, next},
    model::{Authority, Captured, Host, Kind, RequestHead, State, Timestamp},
};

fn record(id: u64) -> Record {
    let mut record = Record::new(Kind::Exchange, Timestamp(i64::try_from(id).unwrap() * 1_000_000));
    record.id = RecordId(id);
    record.note = Some(format!("note {id}"));
    record
}

fn done(mut record: Record) -> Record {
    record.state = State::Done;
    record.finished = Some(record.started);
    let body = Bytes::from(format!("body of {}", record.id).repeat(3));
    record.request = Some(RequestHead {
        target: "/".into(),
        body: Captured { total: body.len() as u64, truncated: false, bytes: body },
        ..RequestHead::default()
    });
    record
}

fn public(path: &Path) -> PublicKey {
    PublicKey::read(&fs::read_to_string(path.with_extension("pub")).unwrap()).unwrap()
}

fn trust(path: &Path) -> Trust {
    Trust { keys: vec![public(path)], ..Trust::default() }
}

fn check(path: &Path) -> Report {
    verify_file(path, trust(path), &mut |_, _| ()).unwrap()
}

/// `count` records in several transactions and runs; every third is begun first and ended later.
fn filled(count: u64) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.redb");
    for runs in [1..=count / 2, count / 2 + 1..=count] {
        let store = Store::open(&path).unwrap();
        let ids: Vec<u64> = runs.collect();
        for ids in ids.chunks(50) {
            let entries: Vec<_> =
                ids.iter()
                    .map(|id| {
                        if id % 3 == 0 { Entry::open(&record(*id)) } else { Entry::last(&done(record(*id))) }
                    })
                    .collect();
            store.commit(&entries, 0, None).unwrap();
        }
        let late: Vec<_> =
            ids.iter().filter(|id| *id % 3 == 0).map(|id| Entry::last(&done(record(*id)))).collect();
        store.commit(&late, 0, None).unwrap();
    }
    (dir, path)
}

#[test]
fn a_store_that_is_whole_is_found_so() {
    let (_dir, path) = filled(500);
    {
        let store = Store::open(&path).unwrap();
        let mut told = Vec::new();
        let report = store.verify(trust(&path), &mut |done, of| told.push((done, of))).unwrap();
        assert!(report.whole, "{report:?}");
        let entries = 500 + 500 / 3;
        assert_eq!((report.entries, report.bodies), (entries, 500));
        assert_eq!(told.last(), Some(&(2 * entries, 2 * entries)));
        assert!(told.is_sorted(), "{told:?}");
        let busy = verify_file(&path, Trust::default(), &mut |_, _| ()).unwrap_err();
        assert!(matches!(busy, StoreError::Busy { .. }), "{busy}");
    }
    let before = fs::read(&path).unwrap();
    let report = check(&path);
    assert!(report.whole && report.key_given, "{report:?}");
    assert!(before == fs::read(&path).unwrap(), "reading writes nothing");
    let stranger = Trust { keys: vec![Hex([9; 32])], ..Trust::default() };
    let report = verify_file(&path, stranger, &mut |_, _| ()).unwrap();
    assert_eq!(report.findings[0].what, What::UnknownKey);
}

/// An entry as somebody finds it who has the file but not the key.
#[derive(Clone)]
struct Found {
    encoded: Vec<u8>,
    places: [Option<Place>; 2],
    link: [u8; 32],
}

/// Unpacks the log, changes it, and packs it again; with `relink`, all links are computed anew.
fn tamper(path: &Path, relink: bool, change: impl FnOnce(&mut Vec<Found>)) {
    let raw = Database::open(path).unwrap();
    let transaction = raw.begin_write().unwrap();
    {
        let mut groups = transaction.open_table(tables::GROUPS).unwrap();
        let mut links = transaction.open_table(chain::LINKS).unwrap();
        let mut meta = transaction.open_table(META).unwrap();
        let mut found = Vec::new();
        let numbers: Vec<u64> = links.iter().unwrap().map(|row| row.unwrap().0.value()).collect();
        for number in numbers {
            let content = packed::get(&groups, number).unwrap().unwrap().unwrap();
            let row = links.get(number).unwrap().unwrap().value().to_vec();
            for (entry, link) in group::entries(&content).unwrap().iter().zip(row.as_chunks::<32>().0) {
                found.push(Found {
                    encoded: content[entry.record.clone()].to_vec(),
                    places: entry.places,
                    link: *link,
                });
            }
        }
        change(&mut found);
        groups.retain(|_, _| false).unwrap();
        links.retain(|_, _| false).unwrap();
        if relink {
            let log = log_of(&transaction.open_table(MARKS).unwrap()).unwrap().unwrap();
            let mut link = first(&log);
            for entry in &mut found {
                entry.link = link.0;
                link = next(&link, &digest(&entry.encoded));
            }
        }
        let mut packer = packed::Packer::new().unwrap();
        for (at, some) in found.chunks(100).enumerate() {
            let mut tail = group::Tail::at(at as u64 * 100);
            for entry in some {
                tail.push(&entry.encoded, entry.places);
            }
            packer.put(&mut groups, tail.number, &tail.content, 0).unwrap();
            let row: Vec<u8> = some.iter().flat_map(|entry| entry.link).collect();
            links.insert(tail.number, &*row).unwrap();
        }
        meta.insert(ENTRIES, found.len() as u64).unwrap();
    }
    transaction.commit().unwrap();
}

/// What was found of the entries: where groups are packed anew, records are not where the indexes say.
fn said(report: &Report) -> Vec<(What, Option<u64>)> {
    let entries = report.findings.iter().filter(|finding| finding.what != What::Index);
    entries.map(|finding| (finding.what, finding.entry)).collect()
}

#[test]
fn each_entry_is_missed_altered_moved_or_doubled() {
    let (_dir, path) = filled(500);
    let copy = path.with_file_name("copy.redb");
    let tampered = |relink, change: &dyn Fn(&mut Vec<Found>)| {
        fs::copy(&path, &copy).unwrap();
        tamper(&copy, relink, change);
        verify_file(&copy, trust(&path), &mut |_, _| ()).unwrap()
    };
    let report = tampered(true, &|_| ());
    assert_eq!(said(&report), [], "packing anew changes nothing of the log itself: {report:?}");
    for n in [0, 1, 99, 100, 254, 255, 256, 400, 664, 665] {
        let at = usize::try_from(n).unwrap();
        let alter = |all: &mut Vec<Found>| *all[at].encoded.last_mut().unwrap() ^= 1;
        let remove = |all: &mut Vec<Found>| drop(all.remove(at));
        let double = |all: &mut Vec<Found>| all.insert(at, all[at].clone());
        let swap = |all: &mut Vec<Found>| all.swap(at, if at == 665 { 664 } else { at + 1 });
        for relink in [false, true] {
            let near = |report: &Report, what: What| {
                let (found, entry) = said(report)[0];
                let slack = if relink { 256 } else { 1 };
                assert!(
                    found == what && entry.unwrap().abs_diff(n) <= slack,
                    "{what:?} {n} {relink}: {report:?}"
                );
            };
            near(&tampered(relink, &alter), What::Altered);
            near(&tampered(relink, &remove), What::Removed);
            // After the last there is no checkpoint that could say so.
            near(&tampered(relink, &double), if n == 665 { What::Unsigned } else { What::Inserted });
            let report = tampered(relink, &swap);
            // Links computed anew leave ids to tell by, and those of ends do not rise.
            let moved = said(&report)[0].0;
            assert!(moved == What::Moved || relink && moved == What::Altered, "{n} {relink}: {report:?}");
            assert!(said(&report)[0].1.unwrap().abs_diff(n) <= 256, "{n} {relink}: {report:?}");
        }
    }
}

fn change<K: Key + 'static, V: redb::Value + 'static>(
    path: &Path,
    table: redb::TableDefinition<'_, K, V>,
    change: impl FnOnce(&mut redb::Table<'_, K, V>),
) {
    let raw = Database::open(path).unwrap();
    let transaction = raw.begin_write().unwrap();
    change(&mut transaction.open_table(table).unwrap());
    transaction.commit().unwrap();
}

#[test]
fn bodies_and_indexes_are_part_of_it() {
    let (_dir, path) = filled(500);
    let copy = path.with_file_name("copy.redb");
    let told = || {
        let report = verify_file(&copy, trust(&path), &mut |_, _| ()).unwrap();
        let whats: std::collections::BTreeSet<_> =
            report.findings.iter().map(|finding| finding.what.as_str()).collect();
        whats.into_iter().collect::<Vec<_>>()
    };
    let afresh = || assert!(fs::copy(&path, &copy).unwrap() > 0);
    afresh();
    change(&copy, tables::ENDS, |table| drop(table.remove(9).unwrap()));
    assert_eq!(told(), ["index"]);
    afresh();
    change(&copy, tables::ENDS, |table| drop(table.insert(9, 0).unwrap()));
    assert_eq!(told(), ["index"]);
    afresh();
    change(&copy, tables::ENDS, |table| drop(table.insert(10_000, 0).unwrap()));
    assert_eq!(told(), ["index"]);
    afresh();
    change(&copy, tables::SPANS, |table| {
        let mut row = table.get(1).unwrap().unwrap().value();
        row.4 = 0;
        drop(table.insert(1, row).unwrap());
    });
    assert_eq!(told(), ["index"]);
    afresh();
    change(&copy, tables::PACKS, |table| {
        let mut content = packed::get(table, 0).unwrap().unwrap().unwrap();
        content[4] ^= 1;
        packed::Packer::new().unwrap().put(table, 0, &content, 0).unwrap();
    });
    // It is another size, too.
    assert_eq!(told(), ["body_altered", "index"]);
    afresh();
    change(&copy, tables::PACKS, |table| table.retain(|key, _| key.0 != 0).unwrap());
    assert_eq!(told(), ["body_missing", "index"]);
    afresh();
    change(&copy, CHECKPOINTS, |table| drop(table.remove(256).unwrap()));
    assert_eq!(told(), ["checkpoint"]);
    afresh();
    change(&copy, MARKS, |table| drop(table.remove(chain::TAIL).unwrap()));
    assert_eq!(told(), ["unsigned"]);
    afresh();
    change(&copy, META, |table| drop(table.insert(ENTRIES, 700).unwrap()));
    assert_eq!(told(), ["truncated"]);
}

/// Somebody who hides records without touching one: takes them out of what they are found by, or has retention
/// and the next record do it.
#[test]
fn what_hides_a_record_or_has_it_go_is_found_and_mended() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.redb");
    {
        let store = Store::open(&path).unwrap();
        let entries: Vec<_> = (1..=300)
            .map(|id| {
                let mut record = done(record(id));
                record.authority =
                    Some(Authority { host: Host::parse(&format!("h{}.test", id % 7)).unwrap(), port: 443 });
                if id % 50 == 0 {
                    let bytes = Bytes::from(vec![id as u8; 9000]);
                    let body = Captured { total: 9000, truncated: false, bytes };
                    record.request = Some(RequestHead { body, ..RequestHead::default() });
                }
                Entry::last(&record)
            })
            .collect();
        store.commit(&entries, 0, None).unwrap();
        store.commit(&[Entry::open(&record(301)), Entry::open(&record(302))], 0, None).unwrap();
    }
    // Those that are open are ended by whoever opens it: looked at as it was left.
    let report = check(&path);
    assert!(report.whole, "{report:?}");
    let copy = path.with_file_name("copy.redb");
    let hidden: [(&str, &dyn Fn()); 17] = [
        ("a record out of the rows of its host", &|| {
            change(&copy, postings::POSTINGS, |table| {
                let keys: Vec<_> = table.iter().unwrap().map(|row| row.unwrap().0.value()).collect();
                let host = keys.iter().find(|key| key.1 >> 56 == 16).unwrap();
                drop(table.remove(host).unwrap());
            });
        }),
        ("a bit of such a row", &|| {
            change(&copy, postings::POSTINGS, |table| {
                drop(table.insert((0, 1 << 56), [0, 1, 299].map(|n: u64| n as u8).as_slice()).unwrap());
            });
        }),
        ("rows of a block that is not there", &|| {
            change(&copy, postings::POSTINGS, |table| {
                drop(table.insert((9, 1 << 56), [0, 0, 1].as_slice()).unwrap());
            });
        }),
        ("columns", &|| {
            change(&copy, postings::COLUMNS, |table| {
                let row = table.get((0, 2)).unwrap().unwrap().value().to_vec();
                let shorter = &row[..row.len() - 1];
                drop(table.insert((0, 2), shorter).unwrap());
            });
        }),
        ("bounds of a block", &|| {
            change(&copy, postings::COLUMNS, |table| drop(table.insert((0, 0), [2, 2].as_slice()).unwrap()));
        }),
        ("a text", &|| {
            change(&copy, postings::TERMS, |table| {
                let key = table.iter().unwrap().map(|row| row.unwrap().0.value().to_vec()).nth(2).unwrap();
                drop(table.remove(key.as_slice()).unwrap());
            });
        }),
        ("two texts that are one", &|| {
            change(&copy, postings::TERMS, |table| {
                let rows: Vec<_> = table
                    .iter()
                    .unwrap()
                    .map(|row| row.unwrap())
                    .map(|(k, n)| (k.value().to_vec(), n.value()))
                    .collect();
                drop(table.insert([20, b'x'].as_slice(), rows[1].1).unwrap());
            });
        }),
        ("the number of the next text", &|| {
            change(&copy, postings::TERMS, |table| drop(table.insert([].as_slice(), 1).unwrap()));
        }),
        ("terms of one that is under way", &|| {
            change(&copy, postings::BEGUN, |table| drop(table.remove(301).unwrap()));
        }),
        ("one that is under way", &|| {
            change(&copy, tables::UNDERWAY, |table| drop(table.remove(301).unwrap()));
        }),
        ("one that is over", &|| {
            change(&copy, tables::UNDERWAY, |table| drop(table.insert(7, 1).unwrap()));
        }),
        ("bodies that would go early", &|| {
            change(&copy, uses::USES, |table| drop(table.insert(0, 0).unwrap()));
        }),
        ("bodies that would not go", &|| {
            change(&copy, uses::USES, |table| drop(table.insert(10_000, 0).unwrap()));
        }),
        ("a large body that is another", &|| {
            change(&copy, tables::CONTENTS, |table| {
                let key = *table.iter().unwrap().next().unwrap().unwrap().0.value();
                drop(table.insert(&key, 0).unwrap());
            });
        }),
        ("an id that would be given again", &|| {
            change(&copy, META, |table| drop(table.insert(tables::LAST_ID, 300).unwrap()));
        }),
        ("a pack that would be written over", &|| {
            change(&copy, META, |table| drop(table.insert(tables::NEXT_PACK, 1).unwrap()));
        }),
        ("a weight that retention would act on", &|| {
            change(&copy, META, |table| drop(table.insert(tables::WEIGHT, 1 << 50).unwrap()));
        }),
    ];
    for (what, hide) in hidden {
        fs::copy(&path, &copy).unwrap();
        hide();
        let report = verify_file(&copy, trust(&path), &mut |_, _| ()).unwrap();
        let whats: Vec<_> = report.findings.iter().map(|finding| finding.what).collect();
        assert!(!whats.is_empty() && whats.iter().all(|what| *what == What::Index), "{what}: {report:?}");
        // Making the indexes anew mends it, where it is an index.
        fs::copy(path.with_extension("key"), copy.with_extension("key")).unwrap();
        let Ok(store) = Store::open(&copy) else { continue };
        store.reindex().unwrap();
        let report = store.verify(trust(&path), &mut |_, _| ()).unwrap();
        assert!(report.whole, "{what}: {report:?}");
    }
}

/// Making the indexes anew does not sign what was changed.
#[test]
fn reindexing_covers_nothing_up() {
    let (_dir, path) = filled(100);
    tamper(&path, true, |all| *all[40].encoded.last_mut().unwrap() ^= 1);
    change(&path, META, |table| drop(table.insert(SCHEMA, 2).unwrap()));
    for _ in 0..2 {
        let store = Store::open(&path).unwrap();
        store.commit(&[Entry::last(&done(record(store.next_id().0)))], 0, None).unwrap();
        assert!(!store.verify(trust(&path), &mut |_, _| ()).unwrap().whole);
    }
    assert!(!check(&path).whole);
}

#[test]
fn a_change_of_keys_is_followed_both_ways() {
    let (_dir, path) = filled(100);
    let before = public(&path);
    {
        let store = Store::open(&path).unwrap();
        let statement = store.rotate_key().unwrap();
        assert_eq!((statement.previous, statement.key), (Some(before), public(&path)));
        store.commit(&[Entry::last(&done(record(101)))], 0, None).unwrap();
    }
    drop(Store::open(&path).unwrap());
    for key in [before, public(&path)] {
        let given = Trust { keys: vec![key], ..Trust::default() };
        let report = verify_file(&path, given, &mut |_, _| ()).unwrap();
        assert!(report.whole && report.keys.len() == 2, "{report:?}");
    }
    // A crash before the key was put in its place: the one that the tables name is taken.
    fs::rename(path.with_extension("key"), path.with_extension("key.next")).unwrap();
    drop(Store::open(&path).unwrap());
    assert!(check(&path).whole);
    // The key is lost: another goes on, and whoever goes by the one before is told.
    let lost = trust(&path);
    fs::remove_file(path.with_extension("key")).unwrap();
    {
        let store = Store::open(&path).unwrap();
        store.commit(&[Entry::last(&done(record(102)))], 0, None).unwrap();
    }
    let report = verify_file(&path, lost, &mut |_, _| ()).unwrap();
    assert_eq!(report.findings[0].what, What::UnknownKey, "{report:?}");
}

#[test]
fn what_was_pruned_is_on_record_and_the_rest_whole() {
    let (_dir, path) = filled(900);
    let whole = check(&path);
    let prune = |rules: Rules| {
        let store = Store::open(&path).unwrap();
        let mut run = Run::default();
        while store.retain(&rules, &Readers::default(), &mut run, Timestamp::now()).unwrap().more {}
    };
    for records in [700, 500] {
        prune(Rules { records: Some(records), ..Rules::default() });
        let report = check(&path);
        assert!(report.whole && report.first > 0 && report.end >= whole.end, "{report:?}");
        assert_eq!(report.entries, report.end - report.first);
    }
    assert_eq!(check(&path).pruned.len(), 2);
    let before = check(&path);
    prune(Rules { body_age: Some(std::time::Duration::from_secs(1)), ..Rules::default() });
    let report = check(&path);
    assert!(report.whole && report.bodies < before.bodies, "{report:?}");
    assert_eq!(report.pruned.last().map(|prune| prune.what), Some(Pruned::Bodies));
    let store = Store::open(&path).unwrap();
    store.commit(&[Entry::last(&done(record(901)))], 0, None).unwrap();
    let first = store.walk().unwrap().stretch(0).unwrap().unwrap().entries[0].id();
    for id in [first, RecordId(901)] {
        let report = check_lines(&text(&store.prove(id).unwrap().unwrap()), trust(&path));
        assert!(report.whole && report.entries == 1, "{report:?}");
    }
    // Making the indexes anew leaves it as it is.
    drop(store);
    change(&path, META, |table| drop(table.insert(SCHEMA, 2).unwrap()));
    drop(Store::open(&path).unwrap());
    assert!(check(&path).whole);
    // A statement that is not what was signed.
    change(&path, PRUNES, |table| {
        let mut prune = table.get(0).unwrap().unwrap().value().to_vec();
        prune[70] ^= 1;
        drop(table.insert(0, &*prune).unwrap());
    });
    assert!(check(&path).findings.iter().any(|finding| finding.what == What::Statement));
}

fn text(lines: &[Line]) -> Vec<String> {
    lines.iter().map(|line| serde_json::to_string(line).unwrap()).collect()
}

fn check_lines(lines: &[String], trust: Trust) -> Report {
    verify_lines(BufReader::new(lines.join("\n").as_bytes()), trust, &mut |_, _| ()).unwrap()
}

#[test]
fn one_record_is_proven() {
    let (_dir, path) = filled(500);
    let store = Store::open(&path).unwrap();
    assert_eq!(store.prove(RecordId(501)).unwrap(), None);
    for id in [1, 3, 100, 250, 251, 499, 500] {
        let lines = text(&store.prove(RecordId(id)).unwrap().unwrap());
        let report = check_lines(&lines, trust(&path));
        assert!(report.whole && report.entries == 1 && report.skipped < 256, "{id}: {report:?}");
        let at = lines.iter().position(|line| line.contains("\"type\":\"entry\"")).unwrap();
        for (from, to) in [
            (format!("note {id}"), "note 9".to_owned()),
            ("\"entry\":\"AQ".into(), "\"entry\":\"Ag".into()),
            ("\"n\":".into(), "\"n\":1".into()),
            ("\"prev\":\"".into(), "\"prev\":\"0".into()),
        ] {
            let mut altered = lines.clone();
            altered[at] = altered[at].replacen(&from, &to, 1);
            assert_ne!(altered[at], lines[at]);
            assert!(!check_lines(&altered, trust(&path)).whole, "{id} {from}");
        }
        for gone in 0..lines.len() {
            let mut cut = lines.clone();
            let line = cut.remove(gone);
            let report = check_lines(&cut, trust(&path));
            // The checkpoint before it is a convenience where the log's first link does as well.
            assert!(!report.whole, "{id}: without {line}: {report:?}");
        }
    }
}

/// Every row there is, and every record.
fn dump(path: &Path) -> Option<blake3::Hash> {
    let file = fs::File::open(path).unwrap();
    let length = file.metadata().unwrap().len();
    let rows = catch_unwind(AssertUnwindSafe(|| -> Result<blake3::Hash, StoreError> {
        fn rows<K: Key + 'static, V: redb::Value + 'static>(
            snapshot: &ReadTransaction,
            table: redb::TableDefinition<'_, K, V>,
            into: &mut blake3::Hasher,
        ) -> Result<(), StoreError> {
            for row in snapshot.open_table(table)?.iter()? {
                let (key, value) = row?;
                into.update(K::as_bytes(&key.value()).as_ref());
                into.update(V::as_bytes(&value.value()).as_ref());
            }
            Ok(())
        }
        let database = Database::builder().create_with_backend(Overlay::new(file, length))?;
        let snapshot = database.begin_read()?;
        let mut into = blake3::Hasher::new();
        rows(&snapshot, META, &mut into)?;
        rows(&snapshot, tables::GROUPS, &mut into)?;
        rows(&snapshot, tables::SPANS, &mut into)?;
        rows(&snapshot, tables::ENDS, &mut into)?;
        rows(&snapshot, tables::UNDERWAY, &mut into)?;
        rows(&snapshot, tables::PACKS, &mut into)?;
        rows(&snapshot, tables::CONTENTS, &mut into)?;
        rows(&snapshot, chain::LINKS, &mut into)?;
        rows(&snapshot, CHECKPOINTS, &mut into)?;
        rows(&snapshot, KEYS, &mut into)?;
        rows(&snapshot, PRUNES, &mut into)?;
        rows(&snapshot, MARKS, &mut into)?;
        Ok(into.finalize())
    }));
    rows.ok()?.ok()
}

/// Flips a bit of every `step`th byte: verification says so, or nothing that is read is another.
fn flip(step: usize) {
    let (_dir, path) = filled(12);
    let whole = fs::read(&path).unwrap();
    let expect = dump(&path).unwrap();
    let trust = trust(&path);
    let copy = path.with_file_name("copy.redb");
    fs::write(&copy, &whole).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&copy).unwrap();
    let mut found = 0;
    for at in (0..whole.len()).step_by(step) {
        use std::os::unix::fs::FileExt as _;
        file.write_all_at(&[whole[at] ^ (1 << (at % 8))], at as u64).unwrap();
        let says = verify_file(&copy, trust.clone(), &mut |_, _| ());
        if says.is_ok_and(|report| report.whole) {
            assert_eq!(
                dump(&copy),
                Some(expect),
                "byte {at} of {} is another and nobody says so",
                whole.len()
            );
        } else {
            found += 1;
        }
        file.write_all_at(&whole[at..=at], at as u64).unwrap();
    }
    assert!(found > whole.len() / step / 1000, "{found} of {}", whole.len() / step);
}

#[test]
fn a_flipped_byte_is_found_or_of_no_matter() {
    flip(1009);
}

#[test]
#[ignore = "takes long: every byte of a store"]
fn every_flipped_byte_is_found_or_of_no_matter() {
    flip(1);
}

#[test]
fn whatever_a_file_holds_is_no_reason_to_fall_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.redb");
    for bytes in [Vec::new(), vec![0; 9000], b"redb\x1a\x0a\xa9\x0d\x0a".repeat(1000)] {
        fs::write(&path, &bytes).unwrap();
        let said = verify_file(&path, Trust::default(), &mut |_, _| ());
        assert!(!said.is_ok_and(|report| report.whole), "{}", bytes.len());
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }
    for lines in ["", "{}", "\n\n", "{\"type\":\"end\",\"entries\":0}"] {
        assert!(!check_lines(&[lines.to_owned()], Trust::default()).whole, "{lines}");
    }
}

/// The example of the page from which others write their verifiers.
#[test]
fn the_example_on_paper_is_one() {
    let page = include_str!("../../../../docs/record.md");
    let mut example = Record::new(Kind::Control, Timestamp(1_000_000));
    (example.id, example.state, example.finished) = (RecordId(7), State::Done, Some(Timestamp(1_000_000)));
    let entry = Entry::last(&example).encoded;
    let (_, block) = page.split_once("01 08 07").unwrap();
    let block = format!("01 08 07{}", block.split_once("```").unwrap().0);
    let on_paper: Vec<u8> = block
        .lines()
        .flat_map(|line| line.split("  ").next().unwrap_or_default().split(' '))
        .filter_map(|byte| u8::from_str_radix(byte, 16).ok())
        .collect();
    assert_eq!(on_paper, entry);
    assert!(page.contains(&format!("these {} bytes", entry.len())));
    assert!(page.contains(&digest(&entry).to_string()));
}
