//! Each rule of tidy with an example that breaks it.

use super::{examine, habits, imports, without_tests};

fn finds(name: &str, text: &str, expect: &str) {
    let findings = examine(name, text);
    assert_eq!(findings.len(), 1, "{name}: {findings:?}");
    assert!(findings[0].contains(expect), "{findings:?}");
}

#[test]
fn a_good_file_passes() {
    let text = "//! Does one thing.\n\nuse crate::model::Host;\n\nfn f() -> Host { crate::model::host() }\n";
    assert_eq!(examine("agentgate-daemon/src/sniff/hello.rs", text), Vec::<String>::new());
}

#[test]
fn breaches_are_found() {
    finds("xtask/src/a.rs", "fn f() {}\n", "header");
    finds("xtask/src/helpers.rs", "//! Things.\n", "says nothing");
    finds("xtask/src/a.rs", &format!("//! x\n{}", "\n".repeat(601)), "600");
    finds("xtask/src/a.rs", concat!("//! x\n// TO", "DO: later\n"), ":2: ");
    finds("xtask/src/a.rs", concat!("//! x\nconst P: &str = \"/ro", "ot/x\";\n"), "one machine");
    finds("xtask/src/a.rs", "//! x\n#![expect(unsafe_code, reason = \"\")]\n", "unsafe");
    finds("agentgate-daemon/src/policy/a.rs", "//! x\nuse tokio::net;\n", "pure");
    finds("agentgate-daemon/src/parse/a.rs", "//! x\nuse crate::store::Store;\n", "parse may not import");
    finds(
        "agentgate-daemon/src/forward/a.rs",
        "//! x\nuse crate::policy::{Permit, Policy};\n",
        "policy::Policy",
    );
    finds("agentgate-daemon/src/strange.rs", "//! x\n", "not in the import table");
    finds("agentgate-daemon/src/listen.rs", "//! x\nuse super::store;\n", "store");
}

#[test]
fn tests_may_import_anything() {
    let text = "//! x\n\n#[cfg(test)]\nmod tests {\n    use crate::store::Store;\n}\n";
    assert!(examine("agentgate-daemon/src/parse/a.rs", text).is_empty());
    assert_eq!(without_tests("a.rs", text), "//! x\n\n");
    assert!(examine("agentgate-daemon/src/parse/tests.rs", "//! x\nuse crate::store::Store;\n").is_empty());
}

#[test]
fn long_files_are_noted() {
    assert_eq!(habits("a.rs", &"\n".repeat(400)), Vec::<String>::new());
    assert_eq!(habits("a.rs", &"\n".repeat(401)).len(), 1);
}

#[test]
fn use_trees_unfold() {
    let rows: [(&str, bool, &[&str]); 9] = [
        ("use crate::a::B;", false, &["a::B"]),
        ("use crate::{a::{B, c::D as E}, f};", false, &["a::B", "a::c::D", "f"]),
        ("use crate::{\n    a::{self, B},\n    c::*,\n};", false, &["a", "a::B", "c"]),
        ("fn f(x: crate::a::B<crate::c::D>) { crate::e::f::<u8>() }", false, &["a::B", "c::D", "e::f"]),
        ("pub(crate) fn f() {}", false, &[]),
        ("// use crate::a::B;", false, &[]),
        ("use other_crate::a; use $crate::b;", false, &[]),
        ("use super::a::B;", true, &["a::B"]),
        ("use super::a::B;", false, &[]),
    ];
    for (code, top, expect) in rows {
        assert_eq!(imports::of(code, top), expect, "{code}");
    }
}

#[test]
fn modules_are_told_by_their_path() {
    let rows = [
        ("agentgate-daemon/src/conn.rs", Some("conn"), true),
        ("agentgate-daemon/src/tls/mod.rs", Some("tls"), true),
        ("agentgate-daemon/src/tls/leaf.rs", Some("tls"), false),
        ("agentgate-daemon/src/dashboard/pages/mod.rs", Some("dashboard"), false),
        ("agentgate-daemon/src/bin/agentctl.rs", None, false),
        ("xtask/src/main.rs", None, false),
    ];
    for (name, module, top) in rows {
        assert_eq!(imports::module(name).as_deref(), module, "{name}");
        if module.is_some() {
            assert_eq!(imports::is_top(name), top, "{name}");
        }
    }
}
