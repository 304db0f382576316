//! Sockets from elsewhere in the hands of guarded processes, and everybody else's, which are left alone.
#![expect(unsafe_code, reason = "unshare(2) in the lab")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "foreign/lab.rs"]
mod lab;

use agentgate::kernel::{Kernel as _, Layers};
use lab::{in_namespaces, is_on};

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
    ("raw(WAY)", By::Lsm),
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
