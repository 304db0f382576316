//! The index beside a log that is written to, pruned and opened again.

use std::sync::{Arc, atomic::Ordering};

use tempfile::TempDir;

use super::super::{Indexer, Sought, drop_tables, forget, open, table};
use crate::{
    audit::{Audit, AuditOptions},
    model::{
        Captured, Kind, Record, RecordId, RequestHead, ResponseHead, State as RecordState, TextIndex,
        Timestamp,
    },
    store::{Store, Write},
    words::{Needle, contains},
};

struct Scene {
    dir: TempDir,
    store: Arc<Store>,
}

impl Scene {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let store = Arc::new(Store::open(dir.path().join("audit.redb")).unwrap());
        Self { dir, store }
    }

    fn reopen(self) -> Self {
        let Self { dir, store } = self;
        drop(store);
        let store = Arc::new(Store::open(dir.path().join("audit.redb")).unwrap());
        Self { dir, store }
    }

    fn index(&self, mode: TextIndex) -> Indexer {
        let indexer = Indexer::start(self.store.clone(), mode);
        let entries = self.store.text_status().unwrap().entries;
        self.store.text.wait(|state| state.indexed >= entries);
        indexer
    }

    fn candidates(&self, needles: &[&str]) -> Vec<u64> {
        let mut candidates = self.store.text_candidates(sought(needles)).unwrap();
        let mut found = Vec::new();
        let mut below = u64::MAX;
        while let Some(id) = candidates.below(below).unwrap() {
            assert!(id < below, "{id} is not below {below}");
            found.push(id);
            below = id;
        }
        found.reverse();
        let mut again = self.store.text_candidates(sought(needles)).unwrap();
        let last = self.store.next_id().0;
        // In steps from the newest, as a query does.
        let mut among = Vec::new();
        for start in (0..=last / 50).rev() {
            among.splice(0..0, again.among(start * 50..=start * 50 + 49).unwrap());
        }
        assert_eq!(among, found, "{needles:?}");
        found
    }

    /// By looking into every record.
    fn naive(&self, needles: &[&str]) -> Vec<u64> {
        let needles = parsed(needles);
        let mut found = Vec::new();
        for id in 1..self.store.next_id().0 {
            let Some(record) = self.store.get(RecordId(id)).unwrap() else { continue };
            let body = |side| self.store.body(RecordId(id), side).unwrap();
            let bodies = [body(crate::store::Side::Request), body(crate::store::Side::Response)];
            if contains(&record, bodies.each_ref().map(|body| body.as_deref()), &needles) {
                found.push(id);
            }
        }
        found
    }
}

fn sought(needles: &[&str]) -> Vec<Sought> {
    parsed(needles).into_iter().map(Sought::from).collect()
}

fn parsed(needles: &[&str]) -> Vec<Needle> {
    needles.iter().map(|needle| Needle::parse(needle).unwrap()).collect()
}

fn record(id: u64) -> Record {
    let mut record = Record::new(Kind::Exchange, Timestamp(id.cast_signed()));
    record.id = RecordId(id);
    let target = format!("/v1/item{}?trace=t{id}", id % 7);
    record.request = Some(RequestHead { method: "POST".into(), target, ..RequestHead::default() });
    record
}

fn finished(id: u64) -> Record {
    let mut record = record(id);
    record.state = RecordState::Done;
    let body = |text: String| Captured { total: text.len() as u64, truncated: false, bytes: text.into() };
    if let Some(head) = &mut record.request {
        head.body = body(format!(r#"{{"text":"asked\nquestion{} word{}"}}"#, id % 100, id % 13));
    }
    let answer = body(format!(r#"{{"text":"answer{} only{id}"}}"#, id % 10));
    record.response = Some(ResponseHead { status: 200, body: answer, ..ResponseHead::default() });
    record
}

/// Records from `first` to `last`; every third begins first and ends some records later.
fn write(store: &Store, first: u64, last: u64) {
    let mut late = Vec::new();
    for start in (first..=last).step_by(150) {
        let records: Vec<_> = (start..(start + 150).min(last + 1))
            .map(|id| if id % 3 == 0 { record(id) } else { finished(id) })
            .collect();
        let writes = records.iter().map(|record| match record.state {
            RecordState::Open => Write::Open(record),
            RecordState::Done | RecordState::Refused | RecordState::Failed | RecordState::Cancelled => {
                Write::Final(record)
            }
        });
        store.apply(&writes.collect::<Vec<_>>()).unwrap();
        let ended = std::mem::replace(&mut late, records);
        end(store, &ended);
    }
    end(store, &late);
}

fn end(store: &Store, records: &[Record]) {
    let open = records.iter().filter(|record| record.state == RecordState::Open);
    let ended: Vec<_> = open.map(|record| finished(record.id.0)).collect();
    store.apply(&ended.iter().map(Write::Final).collect::<Vec<_>>()).unwrap();
}

const NEEDLES: [&[&str]; 8] = [
    &["only77"],
    &["question5"],
    &["word3", "answer9"],
    &["item4"],
    &["only12*"],
    &["asked question7"],
    &["post"],
    &["nowhere"],
];

#[test]
fn without_an_index_every_record_is_a_candidate() {
    let scene = Scene::new();
    write(&scene.store, 1, 700);
    assert_eq!(scene.candidates(&["only77"]), (1..=700).collect::<Vec<_>>());
    let status = scene.store.text_status().unwrap();
    assert_eq!((status.indexed, status.lag(), status.segments), (0, status.entries, 0));
}

#[test]
fn what_is_under_way_is_found_as_by_looking_into_every_record() {
    let scene = Scene::new();
    write(&scene.store, 1, 700);
    let _indexer = scene.index(TextIndex::Bodies);
    for needles in NEEDLES {
        assert_eq!(scene.candidates(needles), scene.naive(needles), "{needles:?}");
    }
    assert_eq!(scene.store.text_status().unwrap().lag(), 0);
    // And what comes later.
    write(&scene.store, 701, 900);
    let entries = scene.store.text_status().unwrap().entries;
    scene.store.text.wait(|state| state.indexed >= entries);
    assert_eq!(scene.candidates(&["only876"]), [876]);
}

#[test]
fn segments_are_in_the_tables_and_go_on_after_a_restart() {
    let scene = Scene::new();
    write(&scene.store, 1, 7000);
    let indexer = scene.index(TextIndex::Bodies);
    // The segment that is whole goes with the next transaction.
    assert_eq!(scene.store.text_status().unwrap().segments, 0);
    write(&scene.store, 7001, 7100);
    let status = scene.store.text_status().unwrap();
    assert_eq!(status.segments, 1);
    drop(indexer);

    let scene = scene.reopen();
    let status = scene.store.text_status().unwrap();
    assert_eq!((status.indexed, status.segments), (8192, 1));
    assert!(status.bytes > 10_000);
    // What no segment is about is a candidate; all else is found.
    let found = scene.candidates(&["only77"]);
    assert!(found.contains(&77) && found.contains(&7100) && found.len() < 1500, "{}", found.len());
    let indexer = scene.index(TextIndex::Bodies);
    for needles in [&["only77"][..], &["only7050"], &["question5", "word3"], &["only699*"]] {
        assert_eq!(scene.candidates(needles), scene.naive(needles), "{needles:?}");
    }
    drop(indexer);

    // Segments that are only about what is pruned go, others stay.
    let removed = |first| {
        let transaction = scene.store.begin_write().unwrap();
        let removed = forget(&transaction, first).unwrap();
        transaction.commit().unwrap();
        removed
    };
    assert_eq!(removed(8191), 0);
    assert_eq!(removed(8192), 1);
    assert_eq!(scene.store.text_status().unwrap().segments, 0);
}

#[test]
fn segments_without_bodies_do_not_rule_out_bodies() {
    let scene = Scene::new();
    write(&scene.store, 1, 6500);
    let indexer = scene.index(TextIndex::Heads);
    assert_eq!(scene.candidates(&["t77"]), [77]);
    assert_eq!(scene.candidates(&["only77"]), [0_u64; 0]);
    write(&scene.store, 6501, 6510);
    assert_eq!(scene.store.text_status().unwrap().segments, 1);
    drop(indexer);
    let scene = scene.reopen();
    assert!(scene.candidates(&["only77"]).contains(&77));
    let _indexer = scene.index(TextIndex::Bodies);
    assert_eq!(scene.candidates(&["only77"]), [77]);
    // The segment with bodies took the place of the one without.
    write(&scene.store, 6511, 6520);
    assert_eq!(scene.store.text_status().unwrap().segments, 1);
    let entries = scene.store.text_status().unwrap().entries;
    scene.store.text.wait(|state| state.indexed >= entries);
    assert_eq!(scene.candidates(&["only77"]), [77]);
}

#[test]
fn tables_that_were_taken_out_are_made_anew() {
    let scene = Scene::new();
    write(&scene.store, 1, 6500);
    let _indexer = scene.index(TextIndex::Bodies);
    write(&scene.store, 6501, 6510);
    let transaction = scene.store.begin_write().unwrap();
    drop_tables(&transaction).unwrap();
    open(&transaction).unwrap();
    transaction.commit().unwrap();
    scene.store.text.reset();
    let status = scene.store.text_status().unwrap();
    assert_eq!(status.segments, 0);
    scene.store.text.wait(|state| state.indexed >= status.entries);
    assert_eq!(scene.candidates(&["only77"]), [77]);
}

/// Other tables under the thread, by the ways there are: it begins with what they have.
#[test]
fn compaction_and_making_anew_leave_the_index_right() {
    let scene = Scene::new();
    write(&scene.store, 1, 6500);
    let _indexer = scene.index(TextIndex::Bodies);
    write(&scene.store, 6501, 6510);
    let entries = scene.store.text_status().unwrap().entries;
    let compact = || assert!(scene.store.compact(|_| true).unwrap().after > 0);
    let reindex = || scene.store.reindex().unwrap();
    for change in [&compact as &dyn Fn(), &reindex] {
        change();
        scene.store.text.wait(|state| !state.reset && state.indexed >= entries);
        assert_eq!(scene.candidates(&["only77"]), [77]);
        let pace = scene.store.pace().unwrap();
        assert_eq!((pace.unindexed, pace.used > 0), (Some(0), true));
        assert_eq!(scene.store.stats().unwrap().indexed, Some(entries));
    }
}

#[test]
fn the_audit_thread_writes_segments_without_being_asked_to_write_anything_else() {
    let scene = Scene::new();
    write(&scene.store, 1, 6500);
    let (audit, thread) = Audit::start(scene.store.clone(), AuditOptions::default());
    let _indexer = Indexer::start(scene.store.clone(), TextIndex::Bodies);
    let before = scene.store.text.state().commits;
    scene.store.text.wait(|state| state.commits > before && state.whole.is_empty());
    assert_eq!(scene.store.text_status().unwrap().segments, 1);
    drop((audit, thread));
}

/// Everything the thread does stands still in the middle of an entry: nobody else waits for it.
#[test]
fn a_thread_that_does_not_come_to_run_holds_up_nobody() {
    let scene = Scene::new();
    write(&scene.store, 1, 300);
    let indexer = scene.index(TextIndex::Bodies);
    let (is_here, go_on) = scene.store.text.pause.next();
    // A body of which the segment has a part only when it takes what it was given.
    let mut long = finished(301);
    let words: String = (0..20_000).map(|word| format!("w{word} ")).collect();
    if let Some(head) = &mut long.request {
        head.body = Captured { total: words.len() as u64, truncated: false, bytes: words.into() };
    }
    scene.store.apply(&[Write::Final(&long)]).unwrap();
    is_here.recv().unwrap();
    // Once more, so that it stands in the middle of the body.
    let (is_here, go_on_again) = scene.store.text.pause.next();
    drop(go_on);
    is_here.recv().unwrap();

    // Commits go on, and searches, which find what is there.
    write(&scene.store, 302, 600);
    for needles in
        [&["only77"][..], &["only301"], &["only500"], &["w19999"], &["w0"], &["question5", "word3"]]
    {
        let (found, naive) = (scene.candidates(needles), scene.naive(needles));
        assert!(naive.iter().all(|id| found.contains(id)), "{needles:?}: {found:?} lacks some of {naive:?}");
    }
    assert!(!scene.candidates(&["only77"]).contains(&78));
    let status = scene.store.text_status().unwrap();
    assert!(status.lag() > 0, "{status:?}");
    assert!(scene.store.pace().unwrap().unindexed.unwrap() > 0);
    drop(go_on_again);

    let entries = scene.store.text_status().unwrap().entries;
    scene.store.text.wait(|state| state.indexed >= entries);
    for needles in NEEDLES.into_iter().chain([&["w19999"][..], &["only301"]]) {
        assert_eq!(scene.candidates(needles), scene.naive(needles), "{needles:?}");
    }
    drop(indexer);
}

/// A search that meets many entries without an index has the thread hurry up to there, and no further.
#[test]
fn what_is_looked_for_is_indexed_first() {
    let scene = Scene::new();
    write(&scene.store, 1, 300);
    let _indexer = scene.index(TextIndex::Bodies);
    let text = &scene.store.text;
    text.want(super::super::FEW + 1);
    assert_eq!(text.wanted.load(Ordering::SeqCst), 0, "what is indexed is not waited for");
    let end = text.state().indexed + super::super::FEW;
    text.want(end);
    assert_eq!(text.wanted.load(Ordering::SeqCst), 0, "few are looked through");
    text.want(end + 1);
    assert_eq!(text.wanted.load(Ordering::SeqCst), end + 1);
    text.want(end);
    assert_eq!(text.wanted.load(Ordering::SeqCst), end + 1);
}

#[test]
fn a_damaged_index_is_told() {
    let scene = Scene::new();
    write(&scene.store, 1, 6500);
    let indexer = scene.index(TextIndex::Bodies);
    write(&scene.store, 6501, 6510);
    drop(indexer);
    let transaction = scene.store.begin_write().unwrap();
    transaction.open_table(table::WORDS).unwrap().insert((0, 0), [7; 4064].as_slice()).unwrap();
    transaction.commit().unwrap();
    let mut candidates = scene.store.text_candidates(sought(&["answer1"])).unwrap();
    let error = candidates.among(1..=50).unwrap_err();
    assert_eq!(error.code(), "store_unreadable");
    assert!(error.to_string().contains("reindex"), "{error}");
}
