//! The audit log against a store, a full queue and a failing disk.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    path::PathBuf,
    pin::Pin,
    sync::atomic::Ordering,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use super::*;
use crate::{
    model::{Captured, Kind, RequestHead},
    store::{
        Query, Side,
        failing::{self, Faults},
    },
};

mod faults;
mod kill;
mod unawaited;

/// Long enough for any machine; only reached when something is wrong.
const PATIENCE: Duration = Duration::from_secs(60);

struct Scene {
    _dir: tempfile::TempDir,
    path: PathBuf,
    faults: Arc<Faults>,
    store: Arc<Store>,
    audit: Audit,
    thread: Option<AuditThread>,
}

impl Scene {
    fn new(options: AuditOptions) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.redb");
        let faults = Arc::new(Faults::default());
        let store = Arc::new(failing::store(path.clone(), faults.clone()).unwrap());
        let (audit, thread) = Audit::start(store.clone(), options);
        Self { _dir: dir, path, faults, store, audit, thread: Some(thread) }
    }

    async fn drain(&mut self, within: Duration) -> Drained {
        self.thread.take().unwrap().drain(within).await
    }

    fn states(&self) -> BTreeMap<u64, State> {
        let mut query = Query { limit: 1000, ..Query::default() };
        let mut states = BTreeMap::new();
        loop {
            let page = self.store.query(&query).unwrap();
            states.extend(page.records.iter().map(|record| (record.id.0, record.state)));
            match page.next {
                Some(next) => query.before = Some(next),
                None => return states,
            }
        }
    }

    /// Waits until the log says that it is well, or that it is not.
    async fn until_ok(&self, ok: bool) {
        let mut trouble = self.audit.shared().trouble.subscribe();
        let wait = trouble.wait_for(|error| error.is_none() == ok);
        drop(tokio::time::timeout(PATIENCE, wait).await.unwrap().unwrap());
    }
}

fn record() -> Record {
    Record::new(Kind::Exchange, Timestamp(1))
}

fn with_body(bytes: usize) -> Record {
    let mut record = record();
    let body = Captured { total: bytes as u64, truncated: false, bytes: Bytes::from(vec![7; bytes]) };
    record.request = Some(RequestHead { body, ..RequestHead::default() });
    record
}

fn small(capacity: usize) -> AuditOptions {
    AuditOptions { capacity, retry: Duration::from_millis(5), ..AuditOptions::default() }
}

fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[tokio::test]
async fn open_is_on_disk_and_the_end_is_written_once() {
    fn is_send<T: Send>(value: T) -> T {
        value
    }
    let mut scene = Scene::new(AuditOptions::default());
    let mut live = scene.audit.live();
    let mut entry = is_send(scene.audit.open(record())).await.unwrap();
    assert_eq!(entry.id(), RecordId(1));
    assert_eq!(scene.store.get(RecordId(1)).unwrap().unwrap().state, State::Open);
    let dropped = scene.audit.open(record()).await.unwrap();
    let unended = scene.audit.open(record()).await.unwrap();
    let noted = scene.audit.note(with_body(9)).await.unwrap();
    assert_eq!(noted, RecordId(4));
    assert_eq!(scene.audit.health().pending, 3);

    *entry.record() = with_body(5000);
    entry.record().id = RecordId(77);
    entry.finish(State::Done);
    drop(dropped);
    unended.finish(State::Open);
    assert_eq!(scene.drain(PATIENCE).await, Drained::default());

    let expect =
        BTreeMap::from([(1, State::Done), (2, State::Cancelled), (3, State::Cancelled), (4, State::Done)]);
    assert_eq!(scene.states(), expect);
    for id in 1..=4 {
        assert!(scene.store.get(RecordId(id)).unwrap().unwrap().finished.is_some());
    }
    assert_eq!(scene.store.body(RecordId(1), Side::Request).unwrap().unwrap().len(), 5000);
    assert_eq!(scene.store.body(RecordId(4), Side::Request).unwrap().unwrap().len(), 9);
    let mut seen = Vec::new();
    while let Ok(record) = live.try_recv() {
        assert!(
            record.request.as_ref().is_none_or(|head| head.body.bytes.is_empty()),
            "no bodies on the feed"
        );
        seen.push((record.id.0, record.state));
    }
    let opened = [(1, State::Open), (2, State::Open), (3, State::Open), (4, State::Done)];
    let ended = [(1, State::Done), (2, State::Cancelled), (3, State::Cancelled)];
    assert_eq!(seen, [&opened[..], &ended[..]].concat());
    let health = scene.audit.health();
    assert_eq!((health.written, health.queued, health.pending), (7, 0, 0));
    assert_eq!(scene.audit.open(record()).await.unwrap_err(), AuditError::Closed);
    assert_eq!(scene.audit.note(record()).await.unwrap_err(), AuditError::Closed);
}

#[tokio::test]
async fn an_open_given_up_ends_as_cancelled() {
    let mut scene = Scene::new(AuditOptions::default());
    for _ in 0..50 {
        let mut opening = Box::pin(scene.audit.open(record()));
        // The message is sent; whether its answer is there does not matter.
        drop(poll_once(opening.as_mut()));
        drop(opening);
    }
    assert_eq!(scene.drain(PATIENCE).await, Drained::default());
    let states = scene.states();
    assert_eq!(states.len(), 50);
    assert!(states.values().all(|state| *state == State::Cancelled), "{states:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_at_once() {
    let mut scene = Scene::new(small(40));
    let mut live = scene.audit.live();
    let watch = tokio::spawn(async move {
        let mut writes: BTreeMap<u64, Vec<State>> = BTreeMap::new();
        loop {
            match live.recv().await {
                Ok(record) => writes.entry(record.id.0).or_default().push(record.state),
                Err(RecvError::Closed) => return writes,
                Err(RecvError::Lagged(count)) => panic!("missed {count}"),
            }
        }
    });
    let tasks: Vec<_> = (0..64)
        .map(|task: usize| {
            let audit = scene.audit.clone();
            tokio::spawn(async move {
                let mut ends = Vec::new();
                for turn in 0..12 {
                    let entry = audit.open(with_body(task)).await.unwrap();
                    let id = entry.id().0;
                    assert!(ends.last().is_none_or(|(before, _)| *before < id), "ids rise");
                    let state =
                        [State::Done, State::Refused, State::Failed, State::Cancelled][(task + turn) % 4];
                    if state == State::Cancelled {
                        drop(entry)
                    } else {
                        entry.finish(state)
                    }
                    ends.push((id, state));
                    tokio::task::yield_now().await;
                }
                ends
            })
        })
        .collect();
    let mut expect = BTreeMap::new();
    for task in tasks {
        expect.extend(task.await.unwrap());
    }
    assert_eq!(
        expect.keys().copied().collect::<Vec<_>>(),
        (1..=64 * 12).collect::<Vec<_>>(),
        "no gap, no repeat"
    );
    assert_eq!(scene.drain(PATIENCE).await, Drained::default());
    assert_eq!(scene.states(), expect);
    // The feed ends with the last handle.
    let Scene { audit, .. } = scene;
    drop(audit);
    let writes = watch.await.unwrap();
    let once: BTreeMap<_, _> = expect.into_iter().map(|(id, state)| (id, vec![State::Open, state])).collect();
    assert_eq!(writes, once);
}

#[tokio::test]
async fn full_slots_slow_open_and_nothing_else() {
    let mut scene = Scene::new(small(2));
    let first = scene.audit.open(record()).await.unwrap();
    let second = scene.audit.open(record()).await.unwrap();
    let audit = scene.audit.clone();
    let mut third = Box::pin(audit.open(record()));
    assert!(poll_once(third.as_mut()).is_pending());
    assert_eq!(scene.audit.health().pending, 2);
    first.finish(State::Done);
    let third = tokio::time::timeout(PATIENCE, third).await.unwrap().unwrap();
    assert_eq!(third.id(), RecordId(3));
    drop((second, third));
    assert_eq!(scene.drain(PATIENCE).await, Drained::default());
    assert_eq!(scene.states().len(), 3);
}

#[tokio::test]
async fn captured_bytes_slow_open() {
    let mut scene = Scene::new(AuditOptions { pending_bytes: 1000, ..AuditOptions::default() });
    let entry = scene.audit.open(record()).await.unwrap();
    // As if the disk were 1,001 bytes behind.
    scene.audit.shared().pending_bytes.fetch_add(1001, Ordering::SeqCst);
    let audit = scene.audit.clone();
    let mut waiting = Box::pin(audit.open(record()));
    assert!(poll_once(waiting.as_mut()).is_pending());
    assert_eq!(scene.audit.health().pending, 1, "it waits before it takes a slot");
    let mut over = record();
    over.id = RecordId(1);
    over.state = State::Done;
    let finished = Pending {
        entry: store::Entry::last(&over),
        open: false,
        bytes: 1001,
        slot: audit.shared().slots.clone().try_acquire_owned().ok(),
        connection: None,
        began: None,
        shown: None,
        reply: None,
    };
    audit.shared().queue.push(Message::Write(Box::new(finished)), false).unwrap();
    let waiting = tokio::time::timeout(PATIENCE, waiting).await.unwrap().unwrap();
    drop((entry, waiting));
    assert_eq!(scene.drain(PATIENCE).await, Drained::default());
    assert_eq!(scene.audit.shared().pending_bytes.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_full_disk_refuses_keeps_and_recovers() {
    let mut scene = Scene::new(small(8));
    let kept = scene.audit.open(record()).await.unwrap();
    let dropped = scene.audit.open(record()).await.unwrap();
    let before = scene.audit.health();
    assert!(before.ok);

    scene.faults.full.store(true, Ordering::SeqCst);
    let error = scene.audit.open(record()).await.unwrap_err();
    assert_eq!(error.code(), "audit_unavailable");
    assert!(error.to_string().contains("space"), "{error}");
    let health = scene.audit.health();
    assert!(!health.ok && health.error.unwrap().contains("space"));
    assert_eq!(scene.audit.note(record()).await.unwrap_err().code(), "audit_unavailable");
    assert_eq!(health.pending, 2, "a refused record keeps no slot");

    kept.finish(State::Done);
    drop(dropped);
    assert_eq!(scene.audit.health().pending, 2, "what ends while nothing can be written keeps its slot");
    assert_eq!(scene.audit.open(record()).await.unwrap_err().code(), "audit_unavailable");

    scene.faults.full.store(false, Ordering::SeqCst);
    scene.until_ok(true).await;
    let next = scene.audit.open(record()).await.unwrap();
    assert_eq!(next.id(), RecordId(3), "no gap");
    next.finish(State::Done);
    assert_eq!(scene.drain(PATIENCE).await, Drained::default());
    assert_eq!(scene.states(), BTreeMap::from([(1, State::Done), (2, State::Cancelled), (3, State::Done)]));
}

#[tokio::test]
async fn a_sync_that_fails_uses_no_id_twice() {
    let mut scene = Scene::new(small(8));
    scene.audit.note(record()).await.unwrap();
    scene.faults.sync_in.store(1, Ordering::SeqCst);
    let error = scene.audit.open(record()).await.unwrap_err();
    assert_eq!(error.code(), "audit_unavailable");
    scene.until_ok(true).await;
    let entry = scene.audit.open(record()).await.unwrap();
    assert_eq!(entry.id(), RecordId(2));
    entry.finish(State::Done);
    assert_eq!(scene.drain(PATIENCE).await, Drained::default());
    assert_eq!(scene.states(), BTreeMap::from([(1, State::Done), (2, State::Done)]));
}

#[tokio::test]
async fn tables_that_cannot_be_written_refuse_and_lose_nothing() {
    for durability in [Durability::BeforeForward, Durability::Backpressure] {
        // Of the tables' two syncs the second is the last of a commit: all was written by then.
        for trip in [1, 2] {
            let mut scene = Scene::new(AuditOptions { durability, retry: PATIENCE, ..small(8) });
            scene.audit.note(record()).await.unwrap();
            let kept = scene.audit.open(record()).await.unwrap();
            assert_eq!(scene.states(), BTreeMap::from([(1, State::Done), (2, State::Open)]));
            scene.audit.note(with_body(10)).await.unwrap();
            // Where nobody waited for it, one may be the journal's.
            scene.faults.sync_in.store(trip, Ordering::SeqCst);
            drop(scene.store.get(RecordId(1)));
            scene.until_ok(false).await;
            assert_eq!(scene.audit.open(record()).await.unwrap_err().code(), "audit_unavailable");
            assert_eq!(scene.store.tallies().unwrap_err().code(), "store_behind");
            kept.finish(State::Done);
            assert_eq!(scene.drain(Duration::ZERO).await, Drained::default(), "{durability:?} {trip}");
            let expect = BTreeMap::from([(1, State::Done), (2, State::Done), (3, State::Done)]);
            assert_eq!(scene.states(), expect, "{durability:?} {trip}");
            assert_eq!(scene.store.body(RecordId(3), Side::Request).unwrap().unwrap().len(), 10);
        }
    }
}

#[tokio::test]
async fn who_waits_for_a_slot_learns_of_the_failure() {
    let scene = Scene::new(small(1));
    let entry = scene.audit.open(record()).await.unwrap();
    let audit = scene.audit.clone();
    let mut waiting = Box::pin(audit.open(record()));
    assert!(poll_once(waiting.as_mut()).is_pending());
    scene.faults.full.store(true, Ordering::SeqCst);
    entry.finish(State::Done);
    let error = tokio::time::timeout(PATIENCE, waiting).await.unwrap().unwrap_err();
    assert_eq!(error.code(), "audit_unavailable");
    scene.faults.full.store(false, Ordering::SeqCst);
    scene.until_ok(true).await;
    assert_eq!(scene.audit.open(record()).await.unwrap().id(), RecordId(2));
}

#[tokio::test]
async fn a_file_that_cannot_be_reopened_is_tried_again() {
    let mut scene = Scene::new(small(8));
    let entry = scene.audit.open(record()).await.unwrap();
    scene.faults.unopenable.store(true, Ordering::SeqCst);
    scene.faults.full.store(true, Ordering::SeqCst);
    assert_eq!(scene.store.get(RecordId(1)).unwrap_err().code(), "store_io");
    scene.until_ok(false).await;
    entry.finish(State::Done);
    scene.faults.full.store(false, Ordering::SeqCst);
    // Trouble is renewed by each attempt: two more have failed at the reopening.
    let mut trouble = scene.audit.shared().trouble.subscribe();
    for _ in 0..2 {
        tokio::time::timeout(PATIENCE, trouble.changed()).await.unwrap().unwrap();
    }
    assert!(scene.audit.health().error.unwrap().contains("cannot open"));
    assert_eq!(scene.store.get(RecordId(1)).unwrap_err().code(), "store_closed");
    scene.faults.unopenable.store(false, Ordering::SeqCst);
    scene.until_ok(true).await;
    assert_eq!(scene.drain(PATIENCE).await, Drained::default());
    assert_eq!(scene.states(), BTreeMap::from([(1, State::Done)]));
}

#[tokio::test]
async fn a_reader_that_fails_refuses_nobody() {
    let mut scene = Scene::new(small(600));
    // More than the cache holds, so that a read meets the file.
    for n in 0..300_u64 {
        let mut record = with_body(0);
        let noise = blake3::Hasher::new().update(&n.to_le_bytes()).finalize_xof();
        let mut bytes = vec![0; 3000];
        let mut noise = noise;
        noise.fill(&mut bytes);
        record.request.as_mut().unwrap().body.bytes = bytes.into();
        scene.audit.note(record).await.unwrap();
    }
    assert!(scene.store.body(RecordId(300), Side::Request).unwrap().is_some());
    scene.faults.unreadable.store(true, Ordering::SeqCst);
    scene.store.body(RecordId(1), Side::Request).unwrap_err();
    scene.faults.unreadable.store(false, Ordering::SeqCst);
    assert_eq!(
        scene.store.body(RecordId(1), Side::Request).unwrap_err().code(),
        "store_io",
        "redb stays shut"
    );
    assert_eq!(scene.audit.note(record()).await.unwrap(), RecordId(301));
    assert!(scene.audit.health().ok);
    assert!(scene.store.body(RecordId(1), Side::Request).unwrap().is_some());
    assert_eq!(scene.drain(PATIENCE).await, Drained::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drain_waits_for_what_is_open() {
    let mut scene = Scene::new(AuditOptions { batch: 7, ..AuditOptions::default() });
    let mut entries = Vec::new();
    for _ in 0..100 {
        entries.push(scene.audit.open(with_body(100)).await.unwrap());
    }
    let finishing = tokio::spawn(async move {
        for entry in entries {
            entry.finish(State::Done);
            tokio::task::yield_now().await;
        }
    });
    assert_eq!(scene.drain(PATIENCE).await, Drained::default());
    finishing.await.unwrap();
    let states = scene.states();
    assert_eq!(states.len(), 100);
    assert!(states.values().all(|state| *state == State::Done));
}

/// Of two records one is over when it drains, and the other ends too late.
async fn leaves_one_open(scene: &mut Scene) {
    let left = scene.audit.open(record()).await.unwrap();
    let ended = scene.audit.open(record()).await.unwrap();
    ended.finish(State::Done);
    assert_eq!(scene.drain(Duration::from_millis(1)).await, Drained { left_open: 1, unwritten: 0 });
    left.finish(State::Done);
    assert_eq!(scene.states(), BTreeMap::from([(1, State::Open), (2, State::Done)]));
}

#[tokio::test]
async fn drain_says_what_it_left() {
    let mut scene = Scene::new(small(8));
    leaves_one_open(&mut scene).await;
    assert!(!scene.audit.health().ok);
    let Scene { path, store, _dir, audit, .. } = scene;
    drop((store, audit));
    let store = Store::open(&path).unwrap();
    assert_eq!(store.get(RecordId(1)).unwrap().unwrap().failure.unwrap().code, "interrupted");
}

#[tokio::test]
async fn drain_of_a_full_disk_ends_at_its_deadline() {
    let mut scene = Scene::new(small(8));
    let entry = scene.audit.open(record()).await.unwrap();
    scene.faults.full.store(true, Ordering::SeqCst);
    entry.finish(State::Done);
    assert_eq!(scene.drain(Duration::from_millis(30)).await, Drained { left_open: 0, unwritten: 1 });
    // And one that heals in time loses nothing.
    let mut scene = Scene::new(small(8));
    let entry = scene.audit.open(record()).await.unwrap();
    scene.faults.full.store(true, Ordering::SeqCst);
    entry.finish(State::Done);
    scene.until_ok(false).await;
    let faults = scene.faults.clone();
    let (drained, ()) =
        tokio::join!(scene.drain(PATIENCE), async { faults.full.store(false, Ordering::SeqCst) });
    assert_eq!(drained, Drained::default());
    assert_eq!(scene.states(), BTreeMap::from([(1, State::Done)]));
}

#[tokio::test]
async fn viewers_lag_without_holding_anybody_up() {
    let scene = Scene::new(AuditOptions { live: 4, ..AuditOptions::default() });
    let mut live = scene.audit.live();
    for _ in 0..10 {
        scene.audit.note(record()).await.unwrap();
    }
    // The last is published after its answer.
    let mut seen = BTreeSet::new();
    let missed = match live.recv().await {
        Err(RecvError::Lagged(missed)) => missed,
        other => panic!("{other:?}"),
    };
    while seen.len() as u64 + missed < 10 {
        match live.recv().await {
            Ok(record) => assert!(seen.insert(record.id.0)),
            // The tenth arrived meanwhile.
            Err(RecvError::Lagged(1)) => assert!(seen.insert(0)),
            Err(error) => panic!("{error}"),
        }
    }
    assert!(seen.contains(&10));
    assert!(matches!(live.try_recv(), Err(TryRecvError::Empty)));
}

#[tokio::test]
async fn the_thread_ends_with_its_last_handle() {
    let mut scene = Scene::new(AuditOptions::default());
    let entry = scene.audit.open(record()).await.unwrap();
    let AuditThread { audit, thread } = scene.thread.take().unwrap();
    let Scene { audit: other, store, _dir, .. } = scene;
    drop((audit, other));
    drop(entry);
    thread.unwrap().join().unwrap();
    assert_eq!(store.get(RecordId(1)).unwrap().unwrap().state, State::Cancelled);
}

fn body(bytes: usize) -> Captured {
    with_body(bytes).request.unwrap().body
}

#[tokio::test]
async fn what_is_kept_is_on_disk_before_the_end() {
    let mut scene = Scene::new(AuditOptions::default());
    let mut entry = scene.audit.open(with_body(0)).await.unwrap();
    assert!(entry.keep(Captured::default()).is_none(), "there is nothing to keep");
    let before = scene.audit.health().written;
    entry.keep(body(3000)).unwrap().await.unwrap();
    entry.kept();
    assert_eq!(scene.audit.health().written, before + 1);
    assert!(entry.keep(body(3000)).is_none(), "it is kept already");
    let open = scene.store.get(entry.id()).unwrap().unwrap();
    assert_eq!((open.state, open.request.unwrap().body.total), (State::Open, 3000));
    assert_eq!(scene.store.body(entry.id(), Side::Request).unwrap().unwrap().len(), 3000);
    entry.finish(State::Done);
    // What begins with its body has it on disk.
    let mut whole = scene.audit.open(with_body(10)).await.unwrap();
    assert!(whole.keep(body(10)).is_none());
    drop(whole);
    // Given up before it was durable, and before anybody heard of it.
    let mut entry = scene.audit.open(with_body(0)).await.unwrap();
    drop(entry.keep(body(77)));
    drop(entry);
    assert_eq!(scene.drain(PATIENCE).await, Drained::default());
    let expect = [(1, State::Done), (2, State::Cancelled), (3, State::Cancelled)];
    assert_eq!(scene.states(), BTreeMap::from(expect));
    for (id, length) in [(1, 3000), (2, 10)] {
        assert_eq!(scene.store.body(RecordId(id), Side::Request).unwrap().unwrap().len(), length);
    }
    assert_eq!(scene.audit.shared().pending_bytes.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn who_waits_for_nothing_keeps_with_the_end() {
    let mut scene = Scene::new(AuditOptions { durability: Durability::Backpressure, ..small(8) });
    let mut entry = scene.audit.open(with_body(0)).await.unwrap();
    assert!(entry.keep(body(3000)).is_none());
    entry.record().request.as_mut().unwrap().body = body(3000);
    entry.finish(State::Done);
    assert_eq!(scene.drain(PATIENCE).await, Drained::default());
    assert_eq!(scene.store.body(RecordId(1), Side::Request).unwrap().unwrap().len(), 3000);
}

#[tokio::test]
async fn what_cannot_be_kept_is_told_and_comes_with_the_end() {
    let mut scene = Scene::new(small(8));
    let mut entry = scene.audit.open(with_body(0)).await.unwrap();
    scene.faults.full.store(true, Ordering::SeqCst);
    let keeping = entry.keep(body(3000)).unwrap();
    assert_eq!(
        tokio::time::timeout(PATIENCE, keeping).await.unwrap().unwrap_err().code(),
        "audit_unavailable"
    );
    entry.finish(State::Failed);
    scene.faults.full.store(false, Ordering::SeqCst);
    scene.until_ok(true).await;
    assert_eq!(scene.drain(PATIENCE).await, Drained::default());
    assert_eq!(scene.states(), BTreeMap::from([(1, State::Failed)]));
    assert_eq!(scene.store.body(RecordId(1), Side::Request).unwrap().unwrap().len(), 3000);
    assert!(scene.audit.open(record()).await.is_err());
    let mut closed =
        Entry::new(Opened { id: RecordId(9), ending: None }, with_body(0), store::Known::default());
    assert!(closed.keep(body(1)).is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_the_journal_does_not_wait_for_the_tables() {
    const MIB: usize = 1 << 20;
    let mut scene = Scene::new(AuditOptions { lag: Duration::ZERO, ..AuditOptions::default() });
    scene.audit.note(record()).await.unwrap();
    let kept = scene.audit.open(record()).await.unwrap();
    let (store, held) = (scene.store.clone(), scene.store.hold_tables());
    // Half of what may gather, however often the tables are due.
    for n in 0..8 {
        let noted = scene.audit.note(with_body(MIB));
        let id = tokio::time::timeout(PATIENCE, noted).await.expect("nobody waits for the tables").unwrap();
        assert_eq!(id, RecordId(n + 3));
    }
    // A record that is with the tables' thread can be given up, and can end.
    let mut opening = Box::pin(scene.audit.open(record()));
    drop(poll_once(opening.as_mut()));
    drop(opening);
    kept.finish(State::Done);
    // And no more than that.
    let audit = scene.audit.clone();
    let mut more = tokio::spawn(async move {
        for _ in 0..40 {
            audit.note(with_body(MIB)).await.unwrap();
        }
    });
    assert!(tokio::time::timeout(Duration::from_secs(2), &mut more).await.is_err(), "it has a bound");
    assert!(scene.audit.health().ok);
    held.abort().unwrap();
    tokio::time::timeout(PATIENCE, more).await.expect("it goes on").unwrap();
    assert_eq!(scene.drain(PATIENCE).await, Drained::default());
    let states = scene.states();
    assert_eq!(states.len(), 51);
    assert_eq!((states[&2], states[&11]), (State::Done, State::Cancelled));
    assert_eq!(store.body(RecordId(50), Side::Request).unwrap().unwrap().len(), MIB);
}
