//! `agentctl selftest` on this kernel: that it sees what gets through, and leaves nothing behind.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::{
    path::Path,
    process::{Command, Output},
};

use agentgate::kernel::cgroup2_mount;

fn selftest(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_agentctl"))
        .args(["--json", "selftest"])
        .args(arguments)
        .output()
        .unwrap()
}

fn rows(output: &Output) -> Vec<serde_json::Value> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn leftovers() -> Vec<String> {
    [cgroup2_mount().unwrap().as_path(), Path::new(&std::env::temp_dir())]
        .iter()
        .flat_map(|within| std::fs::read_dir(within).unwrap())
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("agentgate-selftest-"))
        .collect()
}

/// A detector that cannot detect is worth nothing: without a guard every one of these must leak.
#[test]
#[ignore = "needs root"]
fn without_a_guard_everything_leaks() {
    for name in [
        "tcp4-connect",
        "udp6-sendto",
        "dns-tunnel-host-resolver",
        "fronting-host",
        "relay-http",
        "igmp-join",
    ] {
        let output = selftest(&["--unguarded", name]);
        let rows = rows(&output);
        let (summary, attempts) = rows.split_last().expect("a summary");
        assert_eq!(output.status.code(), Some(1), "{name}: {rows:?}");
        assert!(attempts.iter().all(|row| row["verdict"] == "leaked"), "{name}: {rows:?}");
        assert_eq!(summary["summary"]["leaked"], attempts.len(), "{name}");
    }
    assert_eq!(leftovers(), Vec::<String>::new());
}

#[test]
#[ignore = "needs root"]
fn under_guard_plain_attempts_do_not_arrive() {
    for (name, verdict) in
        [("tcp4-connect", "captured"), ("udp6-sendto", "blocked"), ("relay-http", "blocked")]
    {
        let output = selftest(&[name]);
        let rows = rows(&output);
        assert_eq!(output.status.code(), Some(0), "{name}: {rows:?} {output:?}");
        assert!(
            rows.iter().filter(|row| row["attempt"] == name).all(|row| row["verdict"] == verdict),
            "{rows:?}"
        );
    }
    assert_eq!(leftovers(), Vec::<String>::new());
}

#[test]
fn the_suite_is_published() {
    let output = selftest(&["--list"]);
    assert_eq!(output.status.code(), Some(0));
    let rows = rows(&output);
    assert!(rows.len() >= 80, "{} attempts", rows.len());
    assert!(rows.iter().all(|row| row["stopped_by"].as_str().is_some_and(|by| !by.is_empty())));
    assert_eq!(selftest(&["--list", "no-such-attempt"]).status.code(), Some(2));
}
