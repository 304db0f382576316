//! Counters by session: they balance, also when there is no room for them.

use std::os::unix::fs::MetadataExt;

use agentgate::kernel::Kernel;
use agentgate_common::{names, tally::Tally, verdict};
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
