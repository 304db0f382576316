//! Records that nobody waits for: written when the thread comes by, and once where they are over by then.

use super::*;

fn unawaited(capacity: usize) -> AuditOptions {
    AuditOptions { durability: Durability::Backpressure, ..small(capacity) }
}

async fn until(what: impl Fn() -> bool) {
    let wait = async {
        while !what() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap();
}

#[tokio::test]
async fn one_that_is_over_in_time_is_written_once() {
    const COUNT: u64 = 400;
    let mut scene = Scene::new(unawaited(1000));
    let mut live = scene.audit.live();
    let begun = Instant::now();
    for n in 1..=COUNT {
        let mut entry = scene.audit.open(with_body(5)).await.unwrap();
        assert_eq!(entry.id(), RecordId(n));
        entry.record().id = RecordId(77);
        entry.record().request.as_mut().unwrap().body = body(300);
        if n % 2 == 0 {
            entry.finish(State::Done);
        } else {
            drop(entry);
        }
    }
    assert_eq!(scene.drain(PATIENCE).await, Drained::default());
    let health = scene.audit.health();
    // One at a time was open, so each stroke met at most one, which was written twice.
    let strokes = u64::try_from(begun.elapsed().as_millis()).unwrap() / 20 + 2;
    assert!((COUNT..=COUNT + strokes).contains(&health.written), "{health:?} {strokes}");
    assert_eq!((health.queued, health.pending), (0, 0));
    assert_eq!(scene.audit.shared().pending_bytes.load(Ordering::SeqCst), 0);
    let end = |n: u64| if n.is_multiple_of(2) { State::Done } else { State::Cancelled };
    assert_eq!(scene.states(), (1..=COUNT).map(|n| (n, end(n))).collect());
    assert_eq!(scene.store.body(RecordId(COUNT), Side::Request).unwrap().unwrap().len(), 300);
    // Viewers see all begin, and end.
    let mut seen: BTreeMap<u64, Vec<State>> = BTreeMap::new();
    while let Ok(record) = live.try_recv() {
        seen.entry(record.id.0).or_default().push(record.state);
    }
    assert_eq!(seen, (1..=COUNT).map(|n| (n, vec![State::Open, end(n)])).collect());
}

#[tokio::test]
async fn one_that_goes_on_is_on_disk_within_50_ms() {
    let mut scene = Scene::new(unawaited(100));
    let mut entries = Vec::new();
    let mut fastest = Duration::MAX;
    for n in 1..=20 {
        let begun = Instant::now();
        let mut entry = scene.audit.open(record()).await.unwrap();
        entry.record().note = Some("so far".to_owned());
        entries.push(entry);
        until(|| scene.audit.health().written == n).await;
        fastest = fastest.min(begun.elapsed());
    }
    // Of many, because others are at work on this machine.
    assert!(fastest < Duration::from_millis(50), "{fastest:?}");
    let open = scene.store.get(RecordId(20)).unwrap().unwrap();
    assert_eq!((open.state, open.note.as_deref()), (State::Open, Some("so far")));
    assert_eq!(scene.audit.health().pending, 20);
    for mut entry in entries {
        entry.record().note = Some("all of it".to_owned());
        entry.finish(State::Done);
    }
    assert_eq!(scene.drain(PATIENCE).await, Drained::default());
    assert_eq!(scene.audit.health().written, 40);
    let over = scene.store.get(RecordId(20)).unwrap().unwrap();
    assert_eq!((over.state, over.note.as_deref()), (State::Done, Some("all of it")));
}

#[tokio::test]
async fn what_is_kept_while_the_disk_is_stuck_is_written_after() {
    let mut scene = Scene::new(unawaited(8));
    let kept = scene.audit.open(record()).await.unwrap();
    until(|| scene.audit.health().written == 1).await;
    scene.faults.full.store(true, Ordering::SeqCst);
    // Begun before anybody knew, and over before and after.
    let [over, late] = [scene.audit.open(record()).await.unwrap(), scene.audit.open(record()).await.unwrap()];
    over.finish(State::Done);
    scene.until_ok(false).await;
    late.finish(State::Refused);
    drop(kept);
    assert_eq!(scene.audit.open(record()).await.unwrap_err().code(), "audit_unavailable");
    assert_eq!(scene.audit.health().pending, 3, "none has lost its slot");
    scene.faults.full.store(false, Ordering::SeqCst);
    scene.until_ok(true).await;
    assert_eq!(scene.drain(PATIENCE).await, Drained::default());
    let expect = [(1, State::Cancelled), (2, State::Done), (3, State::Refused)];
    assert_eq!(scene.states(), BTreeMap::from(expect));
}

#[tokio::test]
async fn slots_are_freed_once_each() {
    let mut scene = Scene::new(unawaited(3));
    for _ in 0..50 {
        let entries = [
            scene.audit.open(record()).await.unwrap(),
            scene.audit.open(record()).await.unwrap(),
            scene.audit.open(record()).await.unwrap(),
        ];
        let audit = scene.audit.clone();
        let mut more = Box::pin(audit.open(record()));
        assert!(poll_once(more.as_mut()).is_pending(), "there are three");
        drop(more);
        drop(entries);
    }
    until(|| scene.audit.health().pending == 0).await;
    assert_eq!(scene.audit.shared().slots.available_permits(), 3);
    assert_eq!(scene.drain(PATIENCE).await, Drained::default());
    assert_eq!(scene.states().len(), 150);
}

#[tokio::test]
async fn a_drain_takes_what_is_over_and_says_what_is_not() {
    let mut scene = Scene::new(unawaited(8));
    leaves_one_open(&mut scene).await;
    assert_eq!(scene.audit.open(record()).await.unwrap_err(), AuditError::Closed);
}

/// The end of a record, as it is sent.
fn end() -> Box<Pending> {
    let entry = store::Entry::last(&record());
    Box::new(Pending {
        entry,
        open: false,
        bytes: 3,
        slot: None,
        connection: None,
        began: None,
        shown: None,
        reply: None,
    })
}

fn due() -> running::Shared {
    running::Shared::due(record(), Due { bytes: 4, ..Due::default() })
}

#[test]
fn the_first_to_come_by_writes() {
    // Over before the thread: it finds all of it.
    let running = due();
    let begun = running.begun(RecordId(5));
    assert!(running.locked().over(end()).is_ok_and(|record| record.id == RecordId(5)));
    let whole = begun.take().unwrap();
    assert_eq!((whole.open, whole.bytes), (false, 7));
    // The thread before: its end is sent.
    let running = due();
    let open = running.begun(RecordId(6)).take().unwrap();
    assert_eq!((open.open, open.bytes, open.entry.id()), (true, 4, RecordId(6)));
    assert!(running.locked().over(end()).is_err());
    // A thread that is gone: likewise, so that who ends it is told.
    let running = due();
    drop(running.begun(RecordId(7)));
    assert!(running.locked().over(end()).is_err());
}
