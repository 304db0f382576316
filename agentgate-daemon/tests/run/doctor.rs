//! `agentctl doctor` beside a daemon, by who asks.

use std::collections::BTreeMap;

use super::*;

/// Name of each check to its state and what was found.
fn checks(output: &Output) -> BTreeMap<String, (String, String)> {
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |check: &serde_json::Value, key: &str| check[key].as_str().unwrap().to_owned();
    let all = report["checks"].as_array().unwrap().iter();
    all.map(|check| (text(check, "name"), (text(check, "state"), text(check, "found")))).collect()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root; run by cargo xtask test"]
async fn says_what_it_sees_and_what_it_could_not() {
    let daemon = Daemon::start("");
    let ask = |uid: &str| {
        let mut command = Command::new("setpriv");
        command.args([&format!("--reuid={uid}"), &format!("--regid={uid}"), "--clear-groups", "--"]);
        command.arg(&daemon.agentctl).arg("--root").arg(daemon.dir.path()).args(["--json", "doctor"]);
        output(command)
    };
    let root = ask("0").await;
    let seen = checks(&root);
    // The daemon of these tests has attached nothing, and says so.
    assert_eq!(root.status.code(), Some(1), "{root:?}");
    assert!(seen["daemon"].0 == "fail" && seen["daemon"].1.contains("no program"), "{seen:?}");
    for (name, state) in
        [("audit log", "ok"), ("policy in force", "ok"), ("mode", "ok"), ("resolvers", "unseen")]
    {
        assert_eq!(seen[name].0, state, "{name} {seen:?}");
    }
    let user = checks(&ask("1234").await);
    assert!(user["daemon"].0 == "unseen" && user["daemon"].1.starts_with("runs"), "{user:?}");
    assert!(!user.contains_key("mode"), "{user:?}");
    for name in ["kernel", "cgroup2", "seccomp"] {
        assert_eq!(user[name], seen[name], "{name}");
    }
    daemon.stop().await;
}
