//! Sockets from elsewhere in the hands of guarded processes, and everybody else's, which are left alone.
#![expect(unsafe_code, reason = "unshare(2) in the lab")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "foreign/lab.rs"]
mod lab;

use std::{io::Read as _, net::TcpListener, sync::Arc};

use agentgate::{
    audit::{Audit, AuditOptions},
    drain::Drain,
    kernel::{Attached, GuardedCgroup, Kernel as _, LayerState, Layers, Options, detach},
    model::{Kind, State},
    sentry::{self, Enrolled},
    session::Sessions,
    store::Store,
};
use lab::{LISTENER, in_namespaces, is_on};
use serde_json::json;

/// The least that has to be in force for an attempt to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// The programs above the guarded cgroup, on every kernel.
    Watch,
    /// The packet program, or LSM.
    Packets,
    /// LSM alone.
    Lsm,
}

impl By {
    fn is_there(self, layers: &Layers) -> bool {
        match self {
            Self::Watch => is_on(&layers.watch),
            Self::Packets => is_on(&layers.watch_packets) || is_on(&layers.lsm),
            Self::Lsm => is_on(&layers.lsm),
        }
    }
}

const WAYS: [&str; 4] = ["inherited", "moved", "scm", "pidfd"];

/// Attempts with a place for the way, and what stops them.
const ATTEMPTS: [(&str, By); 14] = [
    ("tcp_fresh(socket.AF_INET, WAY)", By::Watch),
    ("tcp_fresh(socket.AF_INET6, WAY)", By::Watch),
    ("udp(socket.AF_INET, WAY, False)", By::Watch),
    ("udp(socket.AF_INET6, WAY, False)", By::Watch),
    ("tcp_connected(socket.AF_INET, WAY)", By::Packets),
    ("tcp_connected(socket.AF_INET6, WAY)", By::Packets),
    ("tcp_accepted(socket.AF_INET, WAY)", By::Packets),
    ("udp(socket.AF_INET, WAY, True)", By::Packets),
    ("udp(socket.AF_INET6, WAY, True)", By::Packets),
    ("udp_options(WAY)", By::Packets),
    ("tcp_connected(socket.AF_INET, WAY, socket.MSG_MORE)", By::Lsm),
    ("tcp_connected(socket.AF_INET6, WAY, socket.MSG_MORE)", By::Lsm),
    ("raw(WAY)", By::Packets),
    ("packet(WAY)", By::Lsm),
];

#[test]
#[ignore = "needs root; run by cargo xtask test"]
fn nothing_leaves_by_a_socket_made_elsewhere() {
    in_namespaces(|lab| {
        let kernel = lab.start();
        let layers = kernel.layers();
        assert!(is_on(&layers.watch), "{layers:?}");
        let mut wrong = Vec::new();
        for (attempt, by) in ATTEMPTS {
            let calls: Vec<String> =
                WAYS.iter().map(|way| attempt.replace("WAY", &format!("Way.{way}"))).collect();
            let seen = lab.outside(&format!("show([{}])", calls.join(", ")));
            for (call, seen) in calls.iter().zip(seen.as_array().unwrap()) {
                let arrived = seen[1].as_bool().unwrap();
                eprintln!("{} {call}: {}", if arrived { "LEAKED " } else { "stopped" }, seen[0]);
                // What is said to leak has to leak: the table in the documentation says so.
                if arrived == by.is_there(&layers) {
                    wrong.push(format!("{call}: {seen}, stopped by {by:?}"));
                }
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
        let counted = kernel.counters().unwrap();
        assert!(
            counted.iter().any(|c| c.hook == "watch" && c.outcome == "foreign_socket" && c.count >= 16),
            "{counted:?}"
        );
    });
}

/// Everybody's packets leave in interrupts, and interrupts come while guarded processes run.
#[test]
#[ignore = "needs root; run by cargo xtask test"]
fn nobody_elses_sockets_are_touched_under_load() {
    in_namespaces(|lab| {
        let kernel = lab.start();
        let seen = lab.outside(
            "pumps = [Pump(f, d) for f in (socket.AF_INET, socket.AF_INET6) for d in (False, True)]\n\
             for p in pumps: p.start()\n\
             asked = guarded_server(6)\n\
             for p in pumps: p.on = False\n\
             for p in pumps: p.join(20)\n\
             show({'asked': asked, 'rounds': [p.rounds for p in pumps], 'faults': [p.fault for p in pumps]})",
        );
        eprintln!("{seen}");
        assert_eq!(seen["faults"], json!([null, null, null, null]), "{seen}");
        assert!(seen["asked"].as_u64().is_some_and(|asked| asked > 20), "{seen}");
        assert!(
            seen["rounds"].as_array().unwrap().iter().all(|rounds| rounds.as_u64().unwrap() > 10),
            "{seen}"
        );
        let counters = kernel.counters().unwrap();
        assert!(counters.iter().all(|counter| counter.outcome != "foreign_socket"), "{counters:?}");
    });
}

#[test]
#[ignore = "needs root; run by cargo xtask test"]
fn a_guarded_process_uses_its_own_sockets() {
    in_namespaces(|lab| {
        let kernel = lab.start();
        let listeners = ["127.0.0.1", "::1"].map(|ip| TcpListener::bind((ip, LISTENER)).unwrap());
        // MPTCP's subflows are made by the kernel, not by socket(2).
        let seen = lab.outside(
            "def go():\n\
             \x20   enter()\n\
             \x20   def one(family, address, protocol):\n\
             \x20       s = socket.socket(family, socket.SOCK_STREAM, protocol)\n\
             \x20       s.settimeout(5)\n\
             \x20       s.connect(address)\n\
             \x20       s.sendall(b'hello')\n\
             \x20   rows = [(socket.AF_INET, ('203.0.113.8', 8443)), (socket.AF_INET6, ('2001:db8::8', 8443))]\n\
             \x20   a, b = socket.socketpair()\n\
             \x20   a.send(b'x')\n\
             \x20   netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).close()\n\
             \x20   return [attempt(one, f, a, p) for f, a in rows for p in (0, 262)]\n\
             show(child(go))",
        );
        assert_eq!(seen, json!(["ok", "ok", "ok", "ok"]));
        for listener in &listeners {
            for _ in 0..2 {
                let (mut stream, _) = listener.accept().unwrap();
                let mut text = String::new();
                stream.read_to_string(&mut text).unwrap();
                assert_eq!(text, "hello");
            }
        }
        let counters = kernel.counters().unwrap();
        assert!(counters.iter().all(|counter| counter.outcome != "foreign_socket"), "{counters:?}");
    });
}

#[test]
#[ignore = "needs root; run by cargo xtask test"]
fn other_families_are_refused_by_lsm() {
    in_namespaces(|lab| {
        let kernel = lab.start();
        // AF_PACKET, AF_VSOCK, AF_ALG and AF_XDP, where the kernel has them at all.
        let seen = lab.outside(
            "families = [(17, 2, 0), (40, 1, 0), (38, 5, 0), (44, 3, 0)]\n\
             make = lambda f: attempt(lambda: socket.socket(*f).close())\n\
             free = [make(f) for f in families]\n\
             def go():\n\
             \x20   enter()\n\
             \x20   return [make(f) for f in families]\n\
             show({'free': free, 'guarded': child(go)})",
        );
        eprintln!("{seen}");
        assert_eq!(seen["free"][0], "ok", "{seen}");
        let refused = is_on(&kernel.layers().lsm);
        for (free, guarded) in
            seen["free"].as_array().unwrap().iter().zip(seen["guarded"].as_array().unwrap())
        {
            let expect = if refused { &json!("EPERM") } else { free };
            assert_eq!(guarded, expect, "{seen}");
        }
        let counted = kernel.counters().unwrap().iter().any(|c| c.hook == "lsm_socket_create" && c.count > 0);
        assert_eq!(counted, refused);
    });
}

#[test]
#[ignore = "needs root; run by cargo xtask test"]
fn layers_outlive_the_daemon_are_replaced_in_place_and_go_with_detach() {
    in_namespaces(|lab| {
        let fresh = "show(tcp_fresh(socket.AF_INET, Way.inherited))";
        drop(lab.start());
        assert_eq!(lab.outside(fresh), json!(["EPERM", false]), "no daemon, no way out");
        let kernel = lab.start();
        kernel.verify().unwrap();
        assert_eq!(lab.outside(fresh), json!(["EPERM", false]));
        drop(kernel);
        let unwatched = Options { watch: None, ..lab.options.clone() };
        let kernel = Attached::start(&unwatched).unwrap();
        assert!(matches!(kernel.layers().watch, LayerState::Absent(why) if why.contains("gate.watch")));
        assert!(!unwatched.pin_dir.join("watch_connect4").exists());
        if !is_on(&kernel.layers().lsm) {
            assert_eq!(lab.outside(fresh), json!(["ok", true]), "nothing watches");
        }
        drop(kernel);
        let kernel = lab.start();
        assert_eq!(lab.outside(fresh), json!(["EPERM", false]));
        kernel.verify().unwrap();
        drop(kernel);
        detach(&lab.options).unwrap();
        assert!(!lab.options.pin_dir.exists());
        assert_eq!(lab.outside(fresh), json!(["ok", true]));
    });
}

#[test]
#[ignore = "needs root; run by cargo xtask test"]
fn the_sentry_ends_what_the_programs_do_not_see() {
    in_namespaces(|lab| {
        let kernel = Arc::new(lab.start());
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(directory.path().join("audit.redb")).unwrap());
        let (audit, _thread) = Audit::start(store, AuditOptions::default());
        let guarded = GuardedCgroup::find(lab.options.cgroup.to_str().unwrap()).unwrap();
        let sessions = Arc::new(Sessions::new(guarded.clone()));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let mut live = audit.live();
        let drain = Drain::default();
        let task = sentry::run(kernel, guarded, Enrolled::default(), sessions, audit, drain.watch());
        let running = runtime.spawn(task);
        // A process that came in with a connection, waits for the sentry, and leaves.
        let seen = lab.outside(
            "sink = tcp_sink(socket.AF_INET)\n\
             s = socket.socket()\n\
             s.connect(sink.getsockname())\n\
             conn, _ = sink.accept()\n\
             raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, 253)\n\
             def go():\n\
             \x20   sink.close()\n\
             \x20   conn.close()\n\
             \x20   time.sleep(2.5)\n\
             \x20   enter()\n\
             \x20   ended = select.select([s], [], [], 20)[0] == [s] and attempt(s.getpeername)\n\
             \x20   with open(os.path.dirname(os.path.dirname(SESSION)) + '/host/cgroup.procs', 'w') as f:\n\
             \x20       f.write('0')\n\
             \x20   time.sleep(4)\n\
             \x20   return ended\n\
             ended = child(go)\n\
             show([ended, attempt(conn.recv, 10)])",
        );
        assert_eq!(seen, json!(["ENOTCONN", "ECONNRESET"]));
        drain.start();
        runtime.block_on(running).unwrap();
        let mut codes = Vec::new();
        while let Ok(record) = live.try_recv() {
            assert_eq!(record.kind, Kind::Guard);
            eprintln!("{}", record.note.clone().unwrap());
            codes.extend(record.flags.iter().map(|flag| (flag.code.clone(), record.state)));
        }
        // Raw sockets cannot be taken anything: that is said.
        let expect = [
            ("moved_in", State::Done),
            ("foreign_socket", State::Refused),
            ("foreign_socket", State::Failed),
            ("left_cgroup", State::Done),
        ];
        assert_eq!(codes, expect.map(|(code, state)| (code.to_owned(), state)));
    });
}
