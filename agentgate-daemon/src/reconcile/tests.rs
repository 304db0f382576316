//! The balance over a kernel that counts by hand and a real log.

use std::net::SocketAddr;

use agentgate_common::verdict::{Denial, Passage};

use super::*;
use crate::{
    audit::{AuditOptions, AuditThread},
    kernel::{GuardedCgroup, fake::FakeKernel},
    model::{Action, Flow, OriginalDestination, Verdict},
    store::{Query, Write},
};

const LISTENER: u8 = Passage::Listener as u8;
const UDP: u8 = Denial::Udp as u8;
const SECOND: u64 = 1_000_000_000;
/// Long after every window that is used here.
const LATER: u64 = 100 * SECOND;

struct Scene {
    _dir: tempfile::TempDir,
    kernel: Arc<FakeKernel>,
    store: Arc<Store>,
    audit: Audit,
    _thread: AuditThread,
    books: Arc<Reconciler>,
}

fn flow(session: u64, connected_ns: u64) -> Flow {
    Flow {
        cookie: connected_ns,
        original: OriginalDestination("192.0.2.1:443".parse().unwrap()),
        pid: u32::MAX,
        uid: 0,
        gid: 0,
        comm: String::new(),
        cgroup: session,
        session,
        netns: 0,
        connected_ns,
    }
}

fn flow_record(session: u64, connected_ns: u64) -> Record {
    let mut record = Record::new(Kind::Flow, Timestamp::now());
    record.flow = Some(flow(session, connected_ns).into());
    record
}

fn refusal(session: u64, at_ns: u64, times: u64) -> Record {
    let mut record = Record { kind: Kind::Kernel, times, ..flow_record(session, at_ns) };
    record.verdict = Some(Verdict { action: Action::Deny, rule: "kernel:udp".into(), reason: String::new() });
    record
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(dir.path().join("audit.redb")).unwrap());
        let (audit, thread) = Audit::start(store.clone(), AuditOptions::default());
        let kernel = Arc::new(FakeKernel::default());
        let sessions = Arc::new(Sessions::new(GuardedCgroup::find("agentgate-nobody.slice").unwrap()));
        let mut books = Arc::into_inner(
            Reconciler::begin(kernel.clone(), store.clone(), audit.clone(), sessions).unwrap(),
        )
        .unwrap();
        books.began = 1;
        audit.books().tell_until(LATER);
        Self { _dir: dir, kernel, store, audit, _thread: thread, books: Arc::new(books) }
    }

    fn difference(&self) -> i64 {
        self.books.balance_at(LATER).unwrap().total.iter().map(|row| row.difference).sum()
    }

    /// Two looks: what is seen once may be a race.
    async fn settle(&self) {
        for _ in 0..3 {
            self.books.settle(LATER).await.unwrap();
        }
    }

    fn causes(&self) -> Vec<(String, u64)> {
        let query = Query { kind: Some(Kind::Kernel), limit: 100, ..Query::default() };
        let page = self.store.query(&query).unwrap();
        let mut found: Vec<_> =
            page.records.into_iter().filter_map(|r| r.loss.map(|loss| (loss.cause, r.times))).collect();
        found.sort();
        found
    }
}

#[tokio::test]
async fn what_is_recorded_balances_and_is_put_away() {
    let scene = Scene::new();
    scene.kernel.book(9, 2, LISTENER, 1);
    scene.kernel.book(9, 2, UDP, 23);
    scene.audit.note(flow_record(9, 9 * SECOND)).await.unwrap();
    assert_eq!(scene.difference(), 23);
    scene.audit.note(refusal(9, 10 * SECOND, 23)).await.unwrap();
    assert_eq!(scene.difference(), 0);
    scene.settle().await;
    assert!(scene.store.tallies().unwrap().iter().all(|row| row.window == CLOSED));
    assert!(scene.kernel.booked().unwrap().is_empty());
    assert_eq!(scene.difference(), 0);
    assert!(scene.causes().is_empty());
}

#[tokio::test]
async fn what_an_earlier_daemon_lost_is_declared_and_what_this_one_lost_is_a_failure() {
    let scene = Scene::new();
    scene.kernel.book(9, 1, LISTENER, 5);
    scene.audit.note(flow_record(9, 5 * SECOND)).await.unwrap();
    scene.settle().await;
    assert_eq!(scene.causes(), [("restart".to_owned(), 4)]);
    assert_eq!(scene.difference(), 0);
    scene.kernel.book(9, 2, LISTENER, 3);
    scene.settle().await;
    assert_eq!(scene.causes().len(), 1, "nothing explains it, so nothing is declared");
    assert_eq!(scene.difference(), 3);
    assert!(!scene.books.balance_at(LATER).unwrap().balanced);
    scene.settle().await;
    assert_eq!(scene.difference(), 3, "and it stays");
}

#[tokio::test]
async fn events_that_found_the_buffer_full_are_declared_up_to_their_number() {
    let scene = Scene::new();
    scene.kernel.book(9, 2, UDP, 100);
    scene.audit.note(refusal(9, 10 * SECOND, 60)).await.unwrap();
    scene.kernel.lose(30);
    scene.settle().await;
    assert_eq!(scene.causes(), [("ring_full".to_owned(), 30)]);
    assert_eq!(scene.difference(), 10, "the buffer lost thirty and no more");
    scene.kernel.lose(40);
    scene.kernel.book(9, 3, UDP, 10);
    scene.settle().await;
    assert_eq!(scene.causes(), [("ring_full".to_owned(), 10), ("ring_full".to_owned(), 30)]);
}

#[tokio::test]
async fn a_record_too_many_is_a_failure_too() {
    let scene = Scene::new();
    scene.audit.note(flow_record(9, 9 * SECOND)).await.unwrap();
    scene.settle().await;
    assert_eq!(scene.difference(), 1, "totals do not tell one sign from the other");
    assert_eq!(scene.books.balance_at(LATER).unwrap().rows[0].difference, -1);
}

#[tokio::test]
async fn what_is_on_its_way_is_pending() {
    let scene = Scene::new();
    scene.kernel.book(9, 2, LISTENER, 2);
    scene.kernel.book(9, 2, UDP, 4);
    let peer: SocketAddr = "127.0.0.1:5000".parse().unwrap();
    scene.kernel.declare(peer, flow(9, 9 * SECOND));
    let taken = scene.audit.books().take(&flow(9, 9 * SECOND + 1));
    let row = |what: &str, told_until| {
        let Look { numbers, .. } = scene.books.numbers(Store::tallies).unwrap();
        balance::rows(&numbers, LATER, told_until).into_iter().find(|row| row.what == what).unwrap()
    };
    assert_eq!((row("flows", 0).pending, row("flows", 0).difference), (2, 0));
    assert_eq!((row("udp", 9 * SECOND).pending, row("udp", 9 * SECOND).difference), (4, 0));
    assert_eq!((row("udp", LATER).pending, row("udp", LATER).difference), (0, 4));
    scene.settle().await;
    assert!(scene.causes().is_empty(), "a window with something on its way is not judged");
    drop(taken);
    scene.books.look(false).await.unwrap();
    assert_eq!(scene.causes(), [("unrecorded".to_owned(), 1)]);
}

#[tokio::test]
async fn abandoned_connections_are_recorded_by_their_number() {
    let scene = Scene::new();
    for n in 0..30_u64 {
        let peer = SocketAddr::from(([127, 0, 0, 1], 5000 + n as u16));
        scene.kernel.declare(peer, flow(9, 9 * SECOND + n));
    }
    let mut question = flow(9, 9 * SECOND + 50);
    question.original = OriginalDestination("192.0.2.1:53".parse().unwrap());
    scene.kernel.declare("127.0.0.1:6000".parse().unwrap(), question);
    scene.kernel.declare("127.0.0.1:6001".parse().unwrap(), flow(9, LATER));
    scene.kernel.book(9, 2, LISTENER, 30);
    scene.kernel.book(9, 23, LISTENER, 1);
    scene.books.record_abandoned(Why::NoListener { before_ns: LATER }).await.unwrap();
    let rows = scene.books.balance_at(LATER).unwrap().rows;
    assert_eq!(rows.iter().map(|row| (row.abandoned, row.difference)).collect::<Vec<_>>(), [(30, 0)]);
    let flows = scene.store.query(&Query { kind: Some(Kind::Flow), limit: 100, ..Query::default() }).unwrap();
    assert_eq!(flows.records.len(), 10);
    assert_eq!(flows.records.iter().map(|record| record.times).sum::<u64>(), 30);
    assert_eq!(scene.kernel.pending_flows().unwrap().len(), 1, "the one that is young stays");
}

#[tokio::test]
async fn a_log_that_was_tampered_with_does_not_balance() {
    let scene = Scene::new();
    scene.kernel.book(9, 2, UDP, 20);
    let id = scene.audit.note(refusal(9, 9 * SECOND, 20)).await.unwrap();
    let balance = scene.books.balance(true).await.unwrap();
    assert!(balance.balanced, "{balance:?}");
    let mut changed = refusal(9, 9 * SECOND, 1);
    changed.id = id;
    scene.store.apply(&[Write::Final(&changed)]).unwrap();
    let balance = scene.books.balance(true).await.unwrap();
    assert!(!balance.balanced);
    let miscount = &balance.miscounts.unwrap()[0];
    assert_eq!((miscount.summed, miscount.counted, miscount.what.as_str()), (20, 1, "udp"));
}

#[tokio::test]
async fn a_record_that_was_taken_out_is_missed_with_its_sums_or_without() {
    for sums_too in [false, true] {
        let scene = Scene::new();
        scene.kernel.book(9, 2, UDP, 20);
        let id = scene.audit.note(refusal(9, 9 * SECOND, 20)).await.unwrap();
        assert!(scene.books.balance(true).await.unwrap().balanced);
        scene.store.tamper(id, sums_too).unwrap();
        let difference = if sums_too { 20 } else { 0 };
        assert_eq!(scene.difference(), difference);
        let recounted = scene.books.completed(scene.books.balance_at(LATER).unwrap(), true).unwrap();
        assert!(!recounted.balanced, "{recounted:?}");
        assert_eq!(recounted.miscounts.unwrap().is_empty(), sums_too);
        scene.settle().await;
        assert!(scene.causes().is_empty(), "a loss without a cause is not declared");
        assert_eq!(scene.difference(), difference, "and it stays");
    }
}

#[tokio::test]
async fn what_the_kernel_could_not_count_is_no_balance() {
    let scene = Scene::new();
    assert!(scene.books.balance_at(LATER).unwrap().balanced);
    scene.kernel.unbook(1);
    let balance = scene.books.balance_at(LATER).unwrap();
    assert_eq!((balance.balanced, balance.unbooked), (false, 1));
}

/// A connection whose agent gave up may be on its way for a minute. Meanwhile the books said that what a
/// killed daemon had lost in the same seconds was a difference that nothing explains.
#[tokio::test]
async fn a_connection_on_its_way_does_not_hold_up_what_was_lost_besides() {
    let scene = Scene::new();
    let peer: SocketAddr = "127.0.0.1:5000".parse().unwrap();
    scene.kernel.declare(peer, flow(9, 5 * SECOND));
    scene.kernel.book(9, 1, LISTENER, 3);
    scene.kernel.book(9, 1, UDP, 7);
    scene.audit.note(flow_record(9, 6 * SECOND)).await.unwrap();
    scene.settle().await;
    assert_eq!(scene.causes(), [("restart".to_owned(), 1), ("restart".to_owned(), 7)]);
    assert!(scene.books.balance_at(LATER).unwrap().balanced);
    assert!(!scene.kernel.booked().unwrap().is_empty(), "its window stays open");
    scene.books.record_abandoned(Why::NoListener { before_ns: LATER }).await.unwrap();
    scene.settle().await;
    assert!(scene.kernel.booked().unwrap().is_empty());
    assert_eq!(scene.difference(), 0);
    assert_eq!(scene.causes().len(), 2);
}

#[tokio::test]
async fn connections_whose_place_another_took_are_declared_as_that() {
    let scene = Scene::new();
    scene.kernel.book(9, 2, LISTENER, 5);
    scene.kernel.book(9, 2, agentgate_common::verdict::REPLACED, 2);
    scene.audit.note(flow_record(9, 9 * SECOND)).await.unwrap();
    scene.audit.note(flow_record(9, 9 * SECOND)).await.unwrap();
    scene.settle().await;
    assert_eq!(scene.causes(), [("replaced".to_owned(), 2)]);
    assert_eq!(scene.difference(), 1, "and nothing explains the third");
}
