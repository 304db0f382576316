//! `log.format` as the daemon's own log shows it: a start that fails, in text and in JSON.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

/// The last line that a daemon logs whose cgroup is none.
fn last_line(format: &str) -> String {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("agentgate.toml");
    let text = format!(
        "[gate]\ncgroup = \"/no/such/hierarchy\"\n[dns]\nlisten_port = 0\nresolvers = [\"127.0.0.1\"]\n[log]\nformat = \"{format}\"\n"
    );
    std::fs::write(&file, text).unwrap();
    let mut daemon = Command::new(env!("CARGO_BIN_EXE_agentgated"));
    let ended = daemon.arg("--root").arg(root.path()).arg("--config").arg(&file).output().unwrap();
    assert_eq!(ended.status.code(), Some(1));
    let said = String::from_utf8(ended.stderr).unwrap();
    said.lines().last().unwrap().to_owned()
}

#[test]
fn is_what_the_settings_say() {
    let json: serde_json::Value = serde_json::from_str(&last_line("json")).unwrap();
    assert_eq!(json["level"], "ERROR");
    assert!(json["fields"]["message"].as_str().unwrap().contains("/no/such/hierarchy"), "{json}");
    let text = last_line("text");
    assert!(text.contains("ERROR") && text.contains("/no/such/hierarchy"), "{text}");
}
