//! Counters by session: they balance, also when there is no room for them.

use std::{os::unix::fs::MetadataExt, sync::Arc};

use agentgate::{
    audit::{Audit, AuditOptions},
    drain::Drain,
    kernel::{GuardedCgroup, Kernel, since_boot_ns},
    reconcile::Reconciler,
    session::Sessions,
    store::{Query, Store},
};
use agentgate_common::{
    names,
    tally::{Booked, Tally, window},
    verdict::{self, Denial},
};
use aya::maps::{HashMap, Map, MapData};
use serde_json::json;

use crate::lab::in_namespaces;

#[test]
#[ignore = "needs root; run by cargo xtask test"]
fn every_session_has_its_own_counters() {
    in_namespaces(|lab| {
        let kernel = lab.start();
        let script = "show(gate=connect(('127.0.0.1', 7879)), raw=make(socket.AF_INET, socket.SOCK_RAW, 6))";
        let sessions = ["run-1.scope", "run-2.scope"].map(|name| lab.session(name));
        for (times, session) in [2, 3].into_iter().zip(&sessions) {
            // From below the session too: it is the session's.
            let below = session.join("below");
            std::fs::create_dir(&below).unwrap();
            lab.process(Some(&below), script);
            for _ in 1..times {
                lab.process(Some(session), script);
            }
        }
        lab.process(Some(&lab.options.cgroup), script);
        let tallies = kernel.session_counters().unwrap();
        let ids = sessions.map(|session| std::fs::metadata(session).unwrap().ino());
        for (session, times) in [(ids[0], 2), (ids[1], 3), (0, 1)] {
            for (hook, outcome) in [("connect4", "gate_port"), ("sock_create", "socket_type")] {
                let found: Vec<u64> = tallies
                    .iter()
                    .filter(|tally| tally.session == session)
                    .filter(|tally| (tally.counter.hook, tally.counter.outcome) == (hook, outcome))
                    .map(|tally| tally.counter.count)
                    .collect();
                assert_eq!(found, [times], "{session} {hook} {outcome}");
            }
        }
        assert!(tallies.iter().all(|tally| ids.contains(&tally.session) || tally.session == 0));
        assert_eq!(kernel.untallied().unwrap(), 0);
        lab.balanced(&kernel);
    });
}

#[test]
#[ignore = "needs root; run by cargo xtask test"]
fn many_at_once_lose_no_count() {
    in_namespaces(|lab| {
        let kernel = lab.start();
        let (seen, _) = lab.agent(
            "import threading\n\
             def refused():\n\
             \x20   for _ in range(2000): make(socket.AF_INET, socket.SOCK_RAW, 6)\n\
             threads = [threading.Thread(target=refused) for _ in range(4)]\n\
             pid = os.fork()\n\
             for t in threads: t.start()\n\
             for t in threads: t.join()\n\
             if not pid: os._exit(0)\n\
             show(ended=os.waitpid(pid, 0)[1])",
        );
        assert_eq!(seen, json!({"ended": 0}));
        assert_eq!(lab.counted(&kernel, "sock_create", "socket_type"), 16_000);
        assert_eq!(kernel.untallied().unwrap(), 0);
        lab.balanced(&kernel);
    });
}

#[test]
#[ignore = "needs root; run by cargo xtask test"]
fn what_finds_no_room_is_counted_as_that() {
    in_namespaces(|lab| {
        let kernel = lab.start();
        let pin = lab.options.pin_dir.join(names::TALLIES);
        let map = Map::HashMap(MapData::from_pin(pin).unwrap());
        let mut tallies = HashMap::<_, Tally, u64>::try_from(map).unwrap();
        for session in 0..u64::from(names::TALLIES_CAPACITY) {
            // Sessions that never were, of an outcome that none has.
            let key = Tally { session: u64::MAX - session, hook: 1, outcome: verdict::OUTCOMES };
            tallies.insert(key, 0, 0).unwrap();
        }
        let (seen, _) = lab.agent("show(raw=[make(socket.AF_INET, socket.SOCK_RAW, 6) for _ in range(7)])");
        assert_eq!(seen["raw"].as_array().unwrap().len(), 7);
        assert_eq!(lab.counted(&kernel, "sock_create", "socket_type"), 7);
        assert_eq!(kernel.untallied().unwrap(), 7);
    });
}

/// The pinned map of the books, as somebody with a tool for such maps has it.
fn books(lab: &crate::lab::Lab) -> HashMap<MapData, Booked, u64> {
    let pin = lab.options.pin_dir.join(names::BOOKS);
    HashMap::try_from(Map::HashMap(MapData::from_pin(pin).unwrap())).unwrap()
}

#[test]
#[ignore = "needs root; run by cargo xtask test"]
fn books_without_room_say_how_much_is_not_in_them() {
    in_namespaces(|lab| {
        let kernel = lab.start();
        let mut books = books(lab);
        for session in 0..u64::from(names::BOOKS_CAPACITY) {
            books.insert(Booked { session: u64::MAX - session, window: 0, outcome: 0 }, 0, 0).unwrap();
        }
        lab.agent("show(raw=[make(socket.AF_INET, socket.SOCK_RAW, 6) for _ in range(7)])");
        assert_eq!(kernel.unbooked().unwrap(), 7);
    });
}

#[test]
#[ignore = "needs root; run by cargo xtask test"]
fn a_number_that_was_changed_in_the_kernel_does_not_balance() {
    in_namespaces(|lab| {
        let kernel = Arc::new(lab.start());
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        runtime.block_on(async {
            let store = Arc::new(Store::open(root.join("audit.redb")).unwrap());
            let (audit, _thread) = Audit::start(store.clone(), AuditOptions::default());
            audit.books().tell_until(u64::MAX);
            let guarded = GuardedCgroup::on_mount("/", root, &root.join("guarded")).unwrap();
            let sessions = Arc::new(Sessions::new(guarded));
            let reconciler = Reconciler::begin(kernel.clone(), store.clone(), audit, sessions).unwrap();
            let drain = Drain::default();
            let keeping = tokio::spawn(reconciler.clone().keep(drain.watch()));
            assert!(reconciler.balance(true).await.unwrap().balanced);
            // What is missing from before this daemon an earlier one may have lost.
            let key = Booked { session: 7, window: window(since_boot_ns()) + 1, outcome: Denial::Udp as u32 };
            books(lab).insert(key, 3, 0).unwrap();
            let balance = reconciler.balance(true).await.unwrap();
            assert!(!balance.balanced, "{balance:?}");
            assert_eq!(
                balance.rows.iter().map(|row| (row.session, row.difference)).collect::<Vec<_>>(),
                [(7, 3)]
            );
            let declared = store.query(&Query { limit: 10, ..Query::default() }).unwrap().records;
            assert!(declared.is_empty(), "nothing explains it: {declared:?}");
            drain.start();
            keeping.await.unwrap();
        });
    });
}
