//! Each operation on the disk fails once, in each of several ways: the log refuses and says why, loses nothing
//! that it acknowledged, also where the power fails afterwards, and goes on by itself when the disk does.

use std::path::Path;

use super::*;
use crate::store::failing::{Drive, Fault, Random};

/// Runs at one time.
const TOGETHER: usize = 8;

/// What was acknowledged: bytes of body, and whether its end was written too.
type Acknowledged = BTreeMap<u64, (usize, bool)>;

struct Run {
    drive: Drive,
    store: Arc<Store>,
    audit: Audit,
    thread: AuditThread,
    acknowledged: Acknowledged,
    /// What was refused, with the fault that was in force.
    refused: Vec<String>,
}

impl Run {
    fn new(files: [Vec<u8>; 2], path: &Path) -> Self {
        let drive = Drive::with(files);
        let store = Arc::new(drive.open(path.to_owned()).unwrap());
        // The tables are written after each group, in the order of the script.
        let options = AuditOptions { lag: Duration::ZERO, ..small(16) };
        let (audit, thread) = Audit::start(store.clone(), options);
        Self { drive, store, audit, thread, acknowledged: BTreeMap::new(), refused: Vec::new() }
    }

    /// Notes, opens, keeps bodies and reads, and goes on whatever is refused.
    async fn script(&mut self) {
        for turn in 0..3_usize {
            let noted = self.audit.note(with_body(40 + turn)).await;
            if let Some(id) = self.granted(noted).await {
                self.acknowledged.insert(id.0, (40 + turn, true));
            }
            let opened = self.audit.open(with_body(0)).await;
            let Some(mut entry) = self.granted(opened).await else { continue };
            let id = entry.id().0;
            self.acknowledged.insert(id, (0, false));
            let length = 700 * turn;
            let body = Captured { total: length as u64, truncated: false, bytes: vec![9; length].into() };
            if let Some(keeping) = entry.keep(body) {
                let kept = keeping.await;
                if self.granted(kept).await.is_some() {
                    entry.kept();
                    self.acknowledged.insert(id, (length, false));
                }
            }
            entry.finish(State::Done);
            let (bytes, _) = self.acknowledged[&id];
            // The end is written when it can be, and nobody waits for it.
            self.acknowledged.insert(id, (bytes.max(length), true));
            // Whoever reads has the tables written first.
            if turn % 2 == 0 {
                drop(self.store.get(RecordId(id)));
            }
        }
    }

    /// What was asked for; where it is refused, the disk is mended and the log has to find that out.
    async fn granted<T>(&mut self, asked: Result<T, AuditError>) -> Option<T> {
        match asked {
            Ok(granted) => Some(granted),
            Err(error) => {
                assert_eq!(error.code(), "audit_unavailable");
                self.refused.push(error.to_string());
                assert!(self.drive.has_failed(), "refused with a disk that works: {error}");
                self.drive.mend();
                self.until_well().await;
                None
            }
        }
    }

    /// The script, and what is there then, also after a power cut; gives what was refused.
    async fn run_out(mut self, when: &str, seed: u64, path: &Path) -> Vec<String> {
        let mut random = Random(seed);
        self.script().await;
        // Until it is in the tables, or cannot be brought there.
        drop(self.store.tallies());
        self.drive.mend();
        self.until_well().await;
        // The power fails at one of three moments; each opening of a store takes its time.
        let cut = seed % 3;
        if cut == 0 {
            let lost = self.drive.lose(&mut random).open(path.to_owned()).unwrap();
            check(&lost, &self.acknowledged, false, &format!("{when}, mended, then a power cut"));
        }
        let granted = self.audit.note(with_body(3)).await.unwrap();
        self.acknowledged.insert(granted.0, (3, true));
        if cut == 1 {
            let lost = self.drive.lose(&mut random).open(path.to_owned()).unwrap();
            check(&lost, &self.acknowledged, false, &format!("{when}, one more, then a power cut"));
        }
        assert_eq!(self.thread.drain(PATIENCE).await, Drained::default(), "{when}");
        check(&self.store, &self.acknowledged, true, when);
        if cut == 2 {
            let lost = self.drive.lose(&mut random).open(path.to_owned()).unwrap();
            check(&lost, &self.acknowledged, true, &format!("{when}, a drain, a power cut"));
        }
        self.refused
    }

    async fn until_well(&self) {
        let mut trouble = self.audit.shared().trouble.subscribe();
        let wait = trouble.wait_for(Option::is_none);
        drop(tokio::time::timeout(PATIENCE, wait).await.unwrap().unwrap());
    }
}

/// Everything that was acknowledged is in the store.
fn check(store: &Store, acknowledged: &Acknowledged, ended: bool, when: &str) {
    for (&id, &(bytes, over)) in acknowledged {
        let found = store.get(RecordId(id)).unwrap();
        let found = found.unwrap_or_else(|| panic!("{when}: record {id} was acknowledged and is gone"));
        let interrupted = found.failure.as_ref().is_some_and(|failure| failure.code == "interrupted");
        assert!(found.state == State::Done || !(ended && over) && interrupted, "{when}: {found:?}");
        if found.state == State::Done {
            let kept = store.body(RecordId(id), Side::Request).unwrap().unwrap_or_default();
            assert_eq!(kept.len(), bytes, "{when}: body of record {id}");
        }
    }
}

fn used(path: &Path) -> [Vec<u8>; 2] {
    let drive = Drive::default();
    drop(drive.open(path.to_owned()).unwrap());
    drive.contents()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_operation_fails_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.redb");
    let files = used(&path);
    let mut whole = Run::new(files.clone(), &path);
    let first = whole.drive.operations();
    whole.script().await;
    whole.thread.drain(PATIENCE).await;
    check(&whole.store, &whole.acknowledged, true, "no fault");
    let operations = whole.drive.operations() - first;
    assert!(operations > 40 && whole.refused.is_empty(), "{operations}");

    for fault in [Fault::Full, Fault::Short, Fault::Once] {
        let mut runs = tokio::task::JoinSet::new();
        let mut reasons = BTreeSet::new();
        for at in 1..=operations {
            let (files, path) = (files.clone(), path.clone());
            runs.spawn(async move {
                let run = Run::new(files, &path);
                run.drive.plan(first + at, fault);
                let when = format!("{fault:?} at {at} of {operations}");
                run.run_out(&when, at, &path).await
            });
            // They mostly wait, for time-outs of theirs and for one another.
            while runs.len() >= TOGETHER {
                reasons.extend(runs.join_next().await.unwrap().unwrap());
            }
        }
        while let Some(ended) = runs.join_next().await {
            reasons.extend(ended.unwrap());
        }
        let number = if fault == Fault::Once { "os error 5" } else { "os error 28" };
        assert!(reasons.iter().any(|reason| reason.contains(number)), "{fault:?}: {reasons:?}");
    }
}

#[test]
fn each_operation_of_the_opening_fails_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.redb");
    let source = Drive::with(used(&path));
    let store = source.open(path.clone()).unwrap();
    let mut opened = with_body(5);
    opened.id = RecordId(1);
    let entries = [store::Entry::open(&opened)];
    store.log(entries.iter()).unwrap();
    drop(store);
    let files = source.contents();
    let whole = Drive::with(files.clone());
    drop(whole.open(path.clone()).unwrap());
    let operations = whole.operations();
    for fault in [Fault::Full, Fault::Short, Fault::Once] {
        for at in 1..=operations {
            let drive = Drive::with(files.clone());
            drive.plan(at, fault);
            match drive.open(path.clone()) {
                // Closing it is part of the count.
                Ok(store) => drop(store),
                Err(error) => assert_eq!(error.code(), "store_io", "{fault:?} at {at}: {error}"),
            }
            drive.mend();
            let store = drive.open(path.clone()).unwrap_or_else(|error| panic!("{fault:?} at {at}: {error}"));
            check(&store, &BTreeMap::from([(1, (0, false))]), true, "opened again");
            assert_eq!(store.next_id(), RecordId(2));
        }
    }
}

/// Who waits is told when it is on the disk and not before, however long that takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_disk_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.redb");
    let mut run = Run::new(used(&path), &path);
    run.drive.hold(true);
    let mut waiting: Vec<_> = (0..20).map(|_| Box::pin(run.audit.note(with_body(6)))).collect();
    assert!(waiting.iter_mut().all(|note| poll_once(note.as_mut()).is_pending()));
    let held = run.drive.clone();
    tokio::task::spawn_blocking(move || held.until_held()).await.unwrap();
    assert!(waiting.iter_mut().all(|note| poll_once(note.as_mut()).is_pending()), "a sync is under way");
    assert!(run.audit.health().ok, "slow is no fault");
    run.drive.hold(false);
    for note in waiting {
        let id = tokio::time::timeout(PATIENCE, note).await.unwrap().unwrap();
        run.acknowledged.insert(id.0, (6, true));
    }
    assert_eq!(run.thread.drain(PATIENCE).await, Drained::default());
    check(&run.store, &run.acknowledged, true, "a slow disk");
}
