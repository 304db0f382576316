//! What compiles to what, and what is said of what does not.

use super::*;

fn document(text: &str) -> Result<Policy, Vec<PolicyError>> {
    let policy = Some(Text { file: "policy.toml", text });
    compile(&Texts { policy, ..Texts::default() })
}

fn check(text: &str, expect: &[&str]) {
    let found: Vec<String> = match document(text) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    };
    assert_eq!(found, expect, "{text}");
}

#[test]
fn faults_have_places_and_hints() {
    check("version = 1", &[]);
    check("", &["policy.toml: missing key `version`"]);
    check(
        "version = 2",
        &["policy.toml:1:11: version 2 of the policy language is not known; write version = 1"],
    );
    check("version = 1\nmodes = 'audit'", &["policy.toml:2:1: unknown key `modes`; did you mean `mode`?"]);
    check(
        "version = 1\nmode = 'enforced'",
        &["policy.toml:2:8: `enforced` is not a value of this key; did you mean `enforce`?"],
    );
    check("version = 1\n[hosts]\nalow = []", &["policy.toml:3:1: unknown key `alow`; did you mean `allow`?"]);
    check(
        "version = 1\n[hosts]\nallow = ['ok.example', 'https://x.example/y']\ndeny = ['a b', '.z.example']",
        &[
            "policy.toml:3:24: \"https://x.example/y\" is a URL; write the host alone: \"x.example\"",
            "policy.toml:4:9: \"a b\" is more than one word; write one pattern per line or string",
            "policy.toml:4:16: \".z.example\" begins with a dot; names below one are \"*.z.example\"",
        ],
    );
    check(
        "version = 1\nhosts.allow = [1]",
        &["policy.toml:2:16: invalid type: integer `1`, expected a string"],
    );
    check("version = ", &["policy.toml:1:11: string values must be quoted, expected literal string"]);
    check("version = 1\nversion = 1", &["policy.toml:2:1: duplicate key"]);
}

/// Keys of the language that this version does not enforce must not look as if they were enforced.
#[test]
fn keys_of_later_versions_are_errors() {
    for (text, key) in [
        ("[[rule]]\nid = 'x'", "rule"),
        ("[[agent]]\nname = 'x'", "agent"),
        ("[tools]\ndefault = 'deny'", "tools"),
        ("[network]\nicmp = 'deny'", "icmp"),
    ] {
        let errors = document(&format!("version = 1\n{text}")).unwrap_err();
        assert_eq!(errors.len(), 1);
        assert!(errors[0].message.contains(&format!("unknown key `{key}`")), "{}", errors[0]);
        assert!(errors[0].line >= 2);
    }
    for text in ["udp = 'allow'", "loopback = { default = 'allow' }", "loopback = { default = 'any' }"] {
        let errors = document(&format!("version = 1\n[network]\n{text}")).unwrap_err();
        assert!(errors[0].to_string().contains("deny"), "{}", errors[0]);
    }
}

#[test]
fn network_faults() {
    let network = |line: &str, expect: &[&str]| check(&format!("version = 1\n[network]\n{line}"), expect);
    network(
        "cidrs = [{ allow = '10.1.2.3/24' }]",
        &["policy.toml:3:20: 10.1.2.3/24 has bits set after its prefix; write 10.1.2.0/24"],
    );
    network(
        "cidrs = [{ allow = 'intranet' }]",
        &[
            "policy.toml:3:20: \"intranet\" is not an address range; write an address and a prefix length, as in 10.1.2.0/24",
        ],
    );
    network(
        "cidrs = [{ allow = '10.0.0.0/8', ports = [0, 70000] }]",
        &[
            "policy.toml:3:43: 0 is not a port; ports are 1 to 65535",
            "policy.toml:3:46: 70000 is not a port; ports are 1 to 65535",
        ],
    );
    network(
        "cidrs = [{ allow = '10.0.0.0/8', ports = [] }]",
        &["policy.toml:3:20: an empty list of ports allows nothing; leave `ports` out to allow every port"],
    );
    network(
        "cidrs = [{ deny = '10.0.0.0/8' }]",
        &["policy.toml:3:12: unknown key `deny`; known here: allow, ports"],
    );
    network("loopback = { ports = [0] }", &["policy.toml:3:23: 0 is not a port; ports are 1 to 65535"]);
    let many: Vec<String> = (1..=33).map(|port| port.to_string()).collect();
    network(
        &format!("loopback = {{ ports = [{}] }}", many.join(", ")),
        &["policy.toml:3:23: 33 loopback ports; the kernel's settings have room for 32"],
    );
    let entries = vec!["{ allow = '10.0.0.0/8' }"; MOST_CIDRS + 1].join(", ");
    let errors = document(&format!("version = 1\n[network]\ncidrs = [{entries}]")).unwrap_err();
    assert!(errors[0].to_string().contains("at most 1024"), "{}", errors[0]);
}

#[test]
fn udp_faults() {
    let udp = |line: &str, expect: &[&str]| check(&format!("version = 1\n[network]\n{line}"), expect);
    udp("udp = 'deny'", &[]);
    udp("udp = []", &[]);
    udp("udp = [{ allow = '10.1.2.0/24', ports = [5000, '6000-6010'] }]", &[]);
    for (port, expect) in [
        ("53", "53 has port 53; ports 53 and 853 are DNS, which the gate answers itself: leave them out"),
        (
            "'800-900'",
            "\"800-900\" has port 853; ports 53 and 853 are DNS, which the gate answers itself: leave them out",
        ),
        ("0", "0 is not a port; ports are 1 to 65535, ranges of them as in \"6000-6010\""),
        ("'0-10'", "\"0-10\" is not a port; ports are 1 to 65535, ranges of them as in \"6000-6010\""),
        ("'a-b'", "\"a-b\" is not a port; ports are 1 to 65535, ranges of them as in \"6000-6010\""),
        ("'1-2-3'", "\"1-2-3\" is not a port; ports are 1 to 65535, ranges of them as in \"6000-6010\""),
        ("65536", "65536 is not a port; ports are 1 to 65535, ranges of them as in \"6000-6010\""),
        ("'20-10'", "\"20-10\" ends before it begins; write the lower port first"),
    ] {
        udp(
            &format!("udp = [{{ allow = '10.1.2.0/24', ports = [{port}] }}]"),
            &[&format!("policy.toml:3:42: {expect}")],
        );
    }
    for (net, why) in [
        ("127.0.0.1/32", "is loopback, which `loopback` opens"),
        ("0.0.0.0/8", "is this host"),
        ("::1/128", "holds loopback and IPv4 addresses"),
        ("239.1.0.0/16", "is for groups of hosts"),
        ("ff02::1/128", "is for groups of hosts"),
        ("64:ff9b::a00:0/104", "holds IPv4 addresses"),
        ("2002:a00::/24", "holds IPv4 addresses"),
    ] {
        udp(
            &format!("udp = [{{ allow = '{net}', ports = [1] }}]"),
            &[&format!("policy.toml:3:18: {net} {why}; UDP to it cannot be opened")],
        );
    }
    udp(
        "udp = [{ allow = '10.0.0.0/8', ports = [] }]",
        &[
            "policy.toml:3:18: an empty list of ports allows nothing; write the ports, as in [5000, \"6000-6010\"]",
        ],
    );
    let fault = |line: &str| document(&format!("version = 1\n[network]\n{line}")).unwrap_err()[0].to_string();
    assert!(fault("udp = [{ allow = '10.0.0.0/8' }]").contains("ports"), "ports are asked for");
    assert!(fault("udp = [{ allow = '10.0.0.0/8', ports = [1], port = 1 }]").contains("unknown key `port`"));
    assert!(fault("udp = [{ allow = '10.0.0.0/8', ports = [-1] }]").contains("expected a port"));
    assert!(fault("udp = 'all'").contains("\"deny\" or a list"));
    let ports =
        |from: u16, to: u16| (from..=to).step_by(2).map(|p| p.to_string()).collect::<Vec<_>>().join(",");
    let entry = |net: &str, ports: &str| format!("{{ allow = '{net}', ports = [{ports}] }}");
    assert_eq!(
        fault(&format!("udp = [{}]", entry("10.0.0.0/8", &ports(101, 133)))),
        "policy.toml: udp has 17 ranges of ports for 10.0.0.0/8; at most 16, those of wider ranges counted: \
         write wider ranges of ports"
    );
    // Sixteen here and one around it.
    let wide = entry("10.0.0.0/8", "99");
    let both = format!("udp = [{}, {wide}]", entry("10.1.0.0/16", &ports(101, 131)));
    assert!(fault(&both).contains("17 ranges of ports for 10.1.0.0/16"), "{}", fault(&both));
    let many = vec![wide; MOST_UDP + 1].join(", ");
    assert!(fault(&format!("udp = [{many}]")).contains("at most 256"));
}

#[test]
fn udp_is_told_as_the_kernel_asks() {
    let policy = document(
        "version = 1\n[network]\nudp = [{ allow = '10.1.2.0/24', ports = [7, '5-6', 9] }, \
         { allow = '10.1.2.0/24', ports = [8] }, { allow = '::ffff:10.9.0.1', ports = ['100'] }]",
    )
    .unwrap();
    let told: Vec<(String, Vec<(u16, u16)>)> =
        policy.udp_ranges().iter().map(|range| (range.net.to_string(), range.ports.clone())).collect();
    assert_eq!(
        told,
        [("10.1.2.0/24".to_owned(), vec![(5, 9)]), ("10.9.0.1/32".to_owned(), vec![(100, 100)])]
    );
    assert_eq!(policy.summary().udp, 2);
    let closed = document("version = 1\nnetwork.udp = 'deny'").unwrap();
    assert!(closed.udp_ranges().is_empty());
}

#[test]
fn opaque_faults() {
    let opaque = |line: &str, expect: &[&str]| {
        check(&format!("version = 1\n[network]\nopaque_tcp = [{line}]"), expect);
    };
    opaque("{ host = 'github.com', port = 22 }, { host = '*.example.com', port = 2222 }", &[]);
    opaque(
        "{ host = 'github.com:22', port = 22 }",
        &["policy.toml:3:24: \"github.com:22\" has a port of its own; write `port = 22` beside the host"],
    );
    opaque(
        "{ host = '10.1.2.3', port = 22 }",
        &[
            "policy.toml:3:24: 10.1.2.3 is an address, and opaque_tcp judges by name; write `cidrs = [{ allow = \"10.1.2.3\", ports = [22] }]`",
        ],
    );
    opaque("{ host = 'a.example', port = 0 }", &["policy.toml:3:44: 0 is not a port; ports are 1 to 65535"]);
    opaque(
        "{ host = 'https://x.example/y', port = 22 }",
        &["policy.toml:3:24: \"https://x.example/y\" is a URL; write the host alone: \"x.example\""],
    );
    let without = document("version = 1\n[network]\nopaque_tcp = [{ host = 'a.example' }]").unwrap_err();
    assert!(without[0].message.contains("port"), "{}", without[0]);
}

#[test]
fn the_network_at_a_glance() {
    for (text, expect) in [
        ("", "loopback own, cidrs 0, udp deny, opaque_tcp 0"),
        (
            "loopback = { default = 'deny', ports = [1, 2] }\ncidrs = [{ allow = '10.0.0.0/8' }]\n\
             udp = [{ allow = '10.0.0.0/8', ports = [1] }]\nopaque_tcp = [{ host = 'a.example', port = 22 }]",
            "loopback deny and 2 ports, cidrs 1, udp 1 range, opaque_tcp 1",
        ),
        (
            "loopback.ports = [1]\nudp = [{ allow = '10.0.0.0/8', ports = [1] }, { allow = '10.1.0.0/16', ports = [1] }]",
            "loopback own and 1 port, cidrs 0, udp 2 ranges, opaque_tcp 0",
        ),
    ] {
        let policy = document(&format!("version = 1\n[network]\n{text}")).unwrap();
        assert_eq!(policy.summary().network(), expect);
    }
}

/// Every key of `[network]` makes another policy, or a reload would not put it in force.
#[test]
fn the_digest_covers_the_network() {
    let digest = |text: &str| document(&format!("version = 1\n[network]\n{text}")).unwrap().summary().digest;
    let digests: BTreeSet<String> = [
        "",
        "loopback.default = 'deny'",
        "loopback.ports = [1]",
        "private = 'allow'",
        "udp = [{ allow = '10.0.0.0/8', ports = [1] }]",
        "udp = [{ allow = '10.0.0.0/8', ports = [2] }]",
        "udp = [{ allow = '10.0.0.0/9', ports = [1] }]",
        "opaque_tcp = [{ host = 'a.example', port = 22 }]",
        "opaque_tcp = [{ host = 'a.example', port = 23 }]",
        "cidrs = [{ allow = '10.0.0.0/8' }]",
    ]
    .map(digest)
    .into();
    assert_eq!(digests.len(), 10);
    let (one, other) = ("{ allow = '10.0.0.0/8', ports = [1] }", "{ allow = '10.9.0.0/16', ports = [2] }");
    assert_eq!(digest(&format!("udp = [{one}, {other}]")), digest(&format!("udp = [{other}, {one}]")));
}

#[test]
fn loopback_is_the_sessions_own_unless_denied() {
    for (text, own) in [
        ("", true),
        ("network.loopback.ports = [1]", true),
        ("network.loopback.default = 'own'", true),
        ("network.loopback.default = 'deny'", false),
    ] {
        let policy = document(&format!("version = 1\n{text}")).unwrap();
        assert_eq!(policy.loopback_own(), own, "{text}");
        assert_eq!(policy.summary().loopback_own, own, "{text}");
    }
    assert!(!Policy::closed().loopback_own());
}

#[test]
fn ranges() {
    for (text, expect) in [
        ("10.1.2.0/24", "10.1.2.0/24"),
        ("10.1.2.3", "10.1.2.3/32"),
        ("fd00::/8", "fd00::/8"),
        ("fd00::1", "fd00::1/128"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:10.1.2.3", "10.1.2.3/32"),
    ] {
        assert_eq!(range(text).unwrap().to_string(), expect, "{text}");
    }
    for text in ["", "10.0.0.0/33", "10.0.0/8", "10.0.0.1/8", "host/24", "fd00::1/64", "10.0.0.0/8 "] {
        assert!(range(text).is_err(), "{text:?}");
    }
}

#[test]
fn list_files() {
    let allow = "\u{feff}# ours\n\na.example\r\n  *.b.example:443 # why\n\tb\u{fc}cher.example\n";
    let texts = Texts { allow: vec![Text { file: "allow.txt", text: allow }], ..Texts::default() };
    assert_eq!(compile(&texts).unwrap().summary().allow, 3);

    let deny = "ok.example\n\n  10.0.0.0/8\nfoo*bar\n";
    let texts = Texts { deny: vec![Text { file: "lists/deny.txt", text: deny }], ..Texts::default() };
    let found: Vec<String> = compile(&texts).unwrap_err().iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "lists/deny.txt:3:3: \"10.0.0.0/8\" is an address range; ranges go to policy.toml: cidrs = [{ allow = \"10.1.2.0/24\" }] under [network]",
            "lists/deny.txt:4:1: \"foo*bar\" is not a host pattern; `*` stands alone or first, as in *.example.com",
        ]
    );
}

#[test]
fn faults_of_all_files_come_together_up_to_a_number() {
    let bad = "a/b\n".repeat(MOST_ERRORS + 7);
    let texts = Texts {
        policy: Some(Text { file: "policy.toml", text: "version = 3" }),
        allow: vec![Text { file: "allow.txt", text: &bad }],
        mode: Some(Text { file: "mode", text: "off" }),
        ..Texts::default()
    };
    let errors = compile(&texts).unwrap_err();
    assert_eq!(errors.len(), MOST_ERRORS + 1);
    assert_eq!(errors[0].file, "policy.toml");
    assert_eq!(errors[MOST_ERRORS].message, "and 9 more faults");
}

#[test]
fn modes() {
    let mode = |document: Option<&str>, word: Option<&str>| {
        let texts = Texts {
            policy: document.map(|text| Text { file: "policy.toml", text }),
            mode: word.map(|text| Text { file: "mode", text }),
            ..Texts::default()
        };
        compile(&texts).map(|policy| policy.mode()).map_err(|errors| errors[0].to_string())
    };
    assert_eq!(mode(None, None), Ok(Mode::Enforce));
    assert_eq!(mode(Some("version = 1"), None), Ok(Mode::Enforce));
    assert_eq!(mode(Some("version = 1\nmode = 'audit'"), None), Ok(Mode::Audit));
    assert_eq!(mode(Some("version = 1\nmode = 'audit'"), Some("blocklist\n")), Ok(Mode::Blocklist));
    let unknown = "mode:1:1: \"\" is not a mode; write enforce, blocklist or audit, or remove the file";
    assert_eq!(mode(Some("version = 1"), Some("\n")), Err(unknown.to_owned()));
}

#[test]
fn closed_is_enforce_with_nothing() {
    let closed = Policy::closed();
    assert_eq!(closed.mode(), Mode::Enforce);
    assert_eq!(closed.summary(), compile(&Texts::default()).unwrap().summary());
    assert_eq!(closed.summary().allow + closed.summary().passthrough + closed.summary().cidrs, 0);
    assert!(closed.loopback_ports().is_empty());
}

#[test]
fn digest_tells_what_is_said_not_how() {
    let digest = |text: &str| document(text).unwrap().summary().digest;
    let one = digest("version = 1\nhosts.allow = ['a.example', 'b.example']");
    assert_eq!(one.len(), 64);
    assert_eq!(
        one,
        digest("# why\nversion = 1\n[hosts]\nallow = ['B.example.', 'a.example', 'a.example']\n")
    );
    for other in [
        "version = 1",
        "version = 1\nmode = 'audit'\nhosts.allow = ['a.example', 'b.example']",
        "version = 1\nhosts.deny = ['a.example', 'b.example']",
        "version = 1\nhosts.allow = ['a.example', 'b.example:443']",
        "version = 1\nhosts.allow = ['a.example', 'b.example']\nnetwork.private = 'allow'",
        "version = 1\nhosts.allow = ['a.example', 'b.example']\nnetwork.loopback.ports = [1]",
        "version = 1\nhosts.allow = ['a.example', 'b.example']\nnetwork.cidrs = [{ allow = '10.0.0.0/8' }]",
    ] {
        assert_ne!(one, digest(other), "{other}");
    }
}

#[test]
fn loopback_ports_are_sorted_and_fit_the_kernel() {
    let policy = document("version = 1\nnetwork.loopback.ports = [8080, 5432, 8080]").unwrap();
    assert_eq!(policy.loopback_ports(), [5432, 8080]);
    assert_eq!(MOST_LOOPBACK_PORTS, agentgate_common::settings::LOOPBACK_PORTS);
}
