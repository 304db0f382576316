//! Files that are not as they were written: damaged, cut, of a later version, or on a disk that takes nothing.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
};

use super::{
    failing::{Drive, Random},
    *,
};

/// A log with records in the tables and one in the journal.
fn sound(path: &Path) -> [Vec<u8>; 2] {
    let drive = Drive::default();
    let store = drive.open(path.to_owned()).unwrap();
    for first in [1, 101, 201] {
        let records: Vec<_> = (first..first + 100).map(some).collect();
        put(&store, &records);
    }
    let last = Entry::last(&some(301));
    store.log([last].iter()).unwrap();
    // As after a crash: nothing is closed in good order.
    drive.contents()
}

fn some(id: u64) -> Record {
    let mut record = to(done(record(id)), &format!("h{}.example", id % 7));
    let bytes: Vec<u8> = (0..id * 13 % 900).map(|n| (n * id % 251) as u8).collect();
    record.request = Some(RequestHead {
        method: "POST".into(),
        target: "/".into(),
        body: Captured { total: bytes.len() as u64, truncated: false, bytes: bytes.into() },
        ..RequestHead::default()
    });
    record
}

/// Reads all entries in their order, with their bodies.
fn walk(store: &Store) -> Result<(), StoreError> {
    let mut walk = store.walk()?;
    walk.position_of(Timestamp(100))?;
    let mut at = 0;
    while let Some(stretch) = walk.stretch(at)? {
        for entry in &stretch.entries {
            walk.bodies(entry)?;
        }
        at = stretch.next;
    }
    Ok(())
}

/// Reads all there is; how many errors it met.
fn read_all(store: &Store) -> usize {
    let mut errors = 0;
    for id in 1..=301 {
        errors += usize::from(store.get(RecordId(id)).is_err());
        errors += usize::from(store.body(RecordId(id), Side::Request).is_err());
    }
    errors += usize::from(store.tallies().is_err());
    errors += usize::from(walk(store).is_err());
    errors += usize::from(store.count(&Query::default()).is_err());
    errors += usize::from(store.stats().is_err());
    errors += usize::from(store.pace().is_err());
    errors += usize::from(store.text_status().is_err());
    errors += usize::from(store.signed().is_err());
    errors += usize::from(store.prove(RecordId(150)).is_err());
    errors += usize::from(store.dump(|_| true).is_err());
    let verified = store.verify(crate::chain::Trust::default(), &mut |_, _| ());
    errors += usize::from(!verified.is_ok_and(|report| report.whole));
    let mut query = Query { filter: filter("url:*nowhere*"), limit: 10, ..Query::default() };
    loop {
        match store.query(&query) {
            Ok(Page { next: Some(next), .. }) => query.before = Some(next),
            Ok(_) => return errors,
            Err(_) => return errors + 1,
        }
    }
}

#[test]
fn damage_is_told_and_nothing_panics() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.redb");
    let files = sound(&path);
    let (mut refused, mut told, mut panics) = (0, 0, BTreeMap::<String, u32>::new());
    for seed in 0..150 {
        let mut random = Random(seed);
        let drive = Drive::with(files.clone());
        drive.damage(|[database, journal]| {
            let file = if random.below(5) == 0 { journal } else { database };
            for _ in 0..=random.below(4) {
                let at = random.below(file.len() as u64) as usize;
                match random.below(4) {
                    0 => file[at] ^= 1 << random.below(8),
                    1 => file[at] = random.below(256) as u8,
                    2 => {
                        let page = at / 4096 * 4096;
                        let end = (page + 4096).min(file.len());
                        file[page..end].fill(0);
                    }
                    _ => {
                        let (from, to) =
                            (at / 4096 * 4096, random.below(file.len() as u64) as usize / 4096 * 4096);
                        let length = 4096.min(file.len() - from.max(to));
                        file.copy_within(from..from + length, to);
                    }
                }
            }
        });
        let ran = catch_unwind(AssertUnwindSafe(|| match drive.open(path.clone()) {
            Ok(store) => {
                let errors = read_all(&store);
                drop(store.apply(&[Write::Final(&some(302))]));
                let rules = retention::Rules { records: Some(20), ..retention::Rules::default() };
                drop(store.retain(
                    &rules,
                    &retention::Readers::default(),
                    &mut retention::Run::default(),
                    Timestamp(0),
                ));
                Ok(errors)
            }
            Err(error) => {
                assert!(!error.to_string().is_empty());
                Err(error)
            }
        }));
        match ran {
            Ok(Ok(errors)) => told += usize::from(errors > 0),
            Ok(Err(_)) => refused += 1,
            Err(panic) => {
                let text = panic
                    .downcast_ref::<String>()
                    .cloned()
                    .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
                *panics.entry(text.unwrap_or_default()).or_default() += 1;
            }
        }
    }
    println!("{refused} refused, {told} told; {panics:?}");
    assert!(panics.is_empty(), "{panics:?}");
    assert!(refused > 5 && told > 5, "{refused} {told}");
}

#[test]
fn a_making_that_was_cut_short_is_made_again() {
    let (dir, path) = scratch();
    fs::write(path.with_extension("redb.new"), vec![0; 70_000]).unwrap();
    put(&Store::open(&path).unwrap(), &[done(record(1))]);
    assert!(Store::open(&path).unwrap().get(RecordId(1)).unwrap().is_some());
    let mut names: Vec<_> =
        fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert!(!names.iter().any(|name| name.to_string_lossy().ends_with(".new")), "{names:?}");
    // While somebody makes one.
    let other = dir.path().join("other.redb");
    let making = fs::File::create(other.with_extension("redb.new")).unwrap();
    making.lock().unwrap();
    assert!(matches!(Store::open(&other).unwrap_err(), StoreError::Busy { .. }));
    drop(making);
    Store::open(&other).unwrap();
}

/// Ids say the order, whatever the clock says; who asks for a time gets what has that time.
#[test]
fn a_clock_that_jumps_back() {
    let (_dir, path) = scratch();
    let at = |id: u64, seconds: i64| {
        let mut record = done(record(id));
        record.started = Timestamp(seconds * 1_000_000);
        record.finished = Some(Timestamp(seconds * 1_000_000 - 5));
        record
    };
    // Over several groups, back and forth, also to before 1970.
    let times: Vec<i64> = (0..600).map(|n| if n < 300 { 5000 + n } else { n - 400 }).collect();
    {
        let store = Store::open(&path).unwrap();
        for (id, seconds) in (1..).zip(&times) {
            put(&store, &[at(id, *seconds)]);
        }
    }
    let store = Store::open(&path).unwrap();
    assert_eq!(store.next_id(), RecordId(601));
    for (since, until) in [(5000, 5300), (-200, 0), (0, 150), (5299, 9000), (150, 5000), (-500, 9000)] {
        let span = Query {
            since: Some(Timestamp(since * 1_000_000)),
            until: Some(Timestamp(until * 1_000_000)),
            limit: 7,
            ..Query::default()
        };
        let mut expect: Vec<u64> =
            (1..).zip(&times).filter(|(_, at)| (since..until).contains(*at)).map(|(id, _)| id).collect();
        expect.reverse();
        assert_eq!(paged(&store, &span).0, expect, "{since} to {until}");
    }
}
