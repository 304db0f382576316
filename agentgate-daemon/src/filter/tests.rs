//! The language: what is read, what is refused and how, and what matches.

use std::sync::Arc;

use super::*;
use crate::model::{
    Authority, Captured, Fact, Failure, Flag, HeaderFields, Host, Question, RecordId, RequestHead,
    ResponseHead, SessionId, Severity, Subject, Verdict,
};

const NOW: Timestamp = Timestamp(1_700_000_000_000_000);

fn parse(text: &str) -> Filter {
    Filter::parse(text, NOW).unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

/// An exchange with something in every field.
pub(crate) fn exchange() -> Record {
    let mut record = Record::new(Kind::Exchange, Timestamp(NOW.0 - 60_000_000));
    record.id = RecordId(17);
    record.parent = Some(RecordId(16));
    record.state = State::Done;
    record.finished = Some(Timestamp(record.started.0 + 2_500_000));
    record.subject = Some(Arc::new(Subject {
        exe: Some("/usr/bin/node".into()),
        comm: "Agent-Main".into(),
        ..Subject::unknown(SessionId("run-u2.service@1234".into()), 4242, 1000)
    }));
    record.authority = Some(Authority { host: Host::parse("api.github.com").unwrap(), port: 443 });
    record.protocol = "http/2".into();
    record.verdict = Some(Verdict {
        action: Action::Allow,
        rule: "allow:*.github.com".into(),
        reason: "api.github.com is on the list".into(),
    });
    record.flags = vec![Flag::new("slow_origin", Severity::Low, "took long")];
    record.request = Some(RequestHead {
        method: "POST".into(),
        scheme: "https".into(),
        target: "/v1/Messages?trace=77".into(),
        version: "HTTP/2".into(),
        headers: HeaderFields::from(vec![("user-agent", "node/22.1.0")]),
        body: Captured { total: 1000, truncated: false, bytes: "{\"prompt\":\"Grüße an Ada\"}".into() },
    });
    record.response = Some(ResponseHead {
        status: 503,
        body: Captured { total: 500, ..Captured::default() },
        ..ResponseHead::default()
    });
    record.failure =
        Some(Failure { blame: "origin".into(), code: "origin_reset".into(), detail: "reset by peer".into() });
    record.facts = vec![
        Fact::text("model", "Claude-4"),
        Fact::text("tool", "bash"),
        Fact::text("tool", "read"),
        Fact::micros("cost", 120_000),
        Fact::integer("tokens", 512),
    ];
    record
}

#[test]
fn records_match_or_not() {
    let record = exchange();
    let rows = [
        ("", true),
        ("  ", true),
        ("host:api.github.com", true),
        ("host:API.GitHub.com", true),
        ("host:github.com", false),
        ("host:*.github.com", true),
        ("host:*github*", true),
        ("host:api.github.co?", true),
        ("host:example.com,api.github.com", true),
        ("-host:api.github.com", false),
        ("not host:example.com", true),
        ("--host:api.github.com", true),
        ("session:run-u2.service", true),
        ("session:run-u2.service@1234", true),
        ("session:run-u2.service@1235", false),
        ("session:run-*", true),
        ("agent:node", true),
        ("agent:agent-main", true),
        ("agent:/usr/bin/node", false),
        ("exe:/usr/bin/node", true),
        ("exe:*/node", true),
        ("pid:4242", true),
        ("pid:>4242", false),
        ("pid:4000..5000", true),
        ("verdict:allow", true),
        ("action:ALLOW", true),
        ("verdict:deny,passthrough", false),
        ("flag:slow_origin", true),
        ("flag:*", true),
        ("flag:other", false),
        ("status:503", true),
        ("status:5xx", true),
        ("status:4XX", false),
        ("status:>=500", true),
        ("status>=500", true),
        ("status<500", false),
        ("status:400..499,503", true),
        ("status:504..", false),
        ("method:post", true),
        ("kind:exchange", true),
        ("kind:flow,dns", false),
        ("state:done", true),
        ("rule:allow:*.github.com", true),
        ("rule:\"allow:*.github.com\"", true),
        ("rule:\"allow:*\"", false),
        ("rule:allow:\\*.github.com", true),
        ("protocol:http/2", true),
        ("code:origin_*", true),
        ("id:17", true),
        ("id:1..16", false),
        ("parent:16", true),
        ("since:2m", true),
        ("since:30s", false),
        ("until:30s", true),
        ("until:2m", false),
        ("since:2023-11-14 until:2023-11-15", true),
        ("since:2023-11-14T22:12:20Z", true),
        ("since:2023-11-14T22:12:21Z", false),
        ("duration:>2s", true),
        ("duration:2500", true),
        ("duration:<2.5s", false),
        ("duration:2s..3s", true),
        ("bytes:1500", true),
        ("bytes:>1.5k", false),
        ("size:>=1.5k", true),
        ("bytes:<1KiB", false),
        ("path:/v1/messages*", true),
        ("path:\"/v1/messages?trace=77\"", true),
        ("path:\"/v1/messages\"?trace=77", true),
        ("url:https://api.github.com/v1/*", true),
        ("url:http:*", false),
        ("model:claude-4", true),
        ("model:claude-*", true),
        ("tool:read", true),
        ("tool:write", false),
        ("-tool:write", true),
        ("cost:>0.1", true),
        ("cost>0.12", false),
        ("cost:0.12", true),
        ("cost:*", true),
        ("pii:*", false),
        ("fact.tokens:512", true),
        ("fact.tokens:>1000", false),
        ("fact.Model:claude-4", true),
        ("messages", true),
        ("message", false),
        ("messag*", true),
        ("\"v1 messages\"", true),
        ("v1/messages", true),
        ("messages v1", true),
        ("\"messages v1\"", false),
        ("https://api.github.com/v1/messages", true),
        ("api.github.com:443", false),
        ("prompt", true),
        ("text:grüße", true),
        ("GRÜSSE", false),
        ("\"an ada\"", true),
        ("verdict:deny or status:503", true),
        ("verdict:deny OR status:200", false),
        ("host:nowhere or verdict:allow status:200", false),
        ("(host:nowhere or verdict:allow) status:503", true),
        ("host:nowhere and verdict:allow", false),
        ("-(host:nowhere or status:200)", true),
        ("-(host:nowhere or status:503)", false),
        ("host:api.github.com sort:duration", true),
        ("host:nowhere or sort:oldest", false),
        ("\"or\"", false),
    ];
    for (text, expect) in rows {
        assert_eq!(parse(text).matches(&record), expect, "{text}");
    }
}

#[test]
fn what_is_not_there_does_not_match() {
    let bare = Record::new(Kind::Kernel, NOW);
    for text in [
        "host:*",
        "session:*",
        "agent:*",
        "exe:*",
        "pid:>=0",
        "flag:*",
        "status:>=0",
        "method:*",
        "rule:*",
        "protocol:*",
        "code:*",
        "parent:>=0",
        "duration:>=0",
        "path:*",
        "url:*",
        "model:*",
        "cost:>=0",
        "a*",
    ] {
        assert!(!parse(text).matches(&bare), "{text}");
        assert!(parse(&format!("-{text}")).matches(&bare), "-{text}");
    }
    let mut asked = Record::new(Kind::Dns, NOW);
    let question = Question { name: "a.example".into(), code: "NXDOMAIN".into(), ..Question::default() };
    asked.question = Some(question);
    assert!(parse("host:a.example code:nxdomain -duration:>=0 bytes:0").matches(&asked));
}

#[test]
fn what_cannot_be_read_is_told() {
    let rows = [
        ("hots:a", "column 1: `hots` is no field; did you mean `host:`?"),
        ("a -verdic:deny", "column 4: `verdic` is no field; did you mean `verdict:`?"),
        ("verdict:dney", "column 9: `dney` is not what can stand here; did you mean `deny`?"),
        ("verdict:no", "column 9: `no` is not what can stand here; expected allow, deny, passthrough"),
        ("kind:flow,dsn", "column 11: `dsn` is not what can stand here; did you mean `dns`?"),
        (
            "status:5x",
            "column 8: `5x` is not what can stand here; expected a status such as 500, 5xx, >=400 or 400..499",
        ),
        (
            "since:yesterday",
            "column 7: `yesterday` is not what can stand here; expected a time span such as 15m, 2h or 7d, or a time such as 2026-11-20 or 2026-11-20T08:00:00Z",
        ),
        ("host:", "column 1: `host:` needs a value; such as `host:*.github.com`"),
        ("verdict:deny,", "column 1: `verdict:` needs a value; such as `verdict:deny`"),
        ("fact.size:", "column 1: `fact.size:` needs a value; such as `fact.server:github`"),
        ("\"abc", "column 1: this quotation does not end; close it with `\"`"),
        ("ü \"abc", "column 3: this quotation does not end; close it with `\"`"),
        ("(a", "column 1: this bracket is not closed; add `)`"),
        ("a)", "column 2: there is no bracket to close here; take it out, or quote it"),
        ("()", "column 2: a condition is missing here; such as `host:example.com`, or a word"),
        ("a or", "column 5: a condition is missing here; such as `host:example.com`, or a word"),
        ("or a", "column 1: a condition is missing here; such as `host:example.com`, or a word"),
        ("a - b", "column 3: nothing follows the `-`; write `-host:example.com`, or quote it"),
        ("not", "column 4: a condition is missing here; such as `host:example.com`, or a word"),
        ("...", "column 1: there is no word in it to look for; words are letters and digits"),
        ("a*b", "column 1: `*` stands at the end of a word only; or in quotes, to mean nothing"),
        ("-sort:oldest", "column 2: `sort:` is no condition; write it once, and without `-`"),
        ("sort:oldest sort:newest", "column 13: `sort:` is no condition; write it once, and without `-`"),
        ("sort:old", "column 6: `old` is not what can stand here; did you mean `oldest`?"),
        ("a\\", "column 2: nothing follows the backslash; write `\\\\` for a backslash"),
        (
            "cost:>x",
            "column 6: `>x` is not what can stand here; expected a text, or a comparison such as >0.5 with up to 6 decimals",
        ),
    ];
    for (text, expect) in rows {
        assert_eq!(Filter::parse(text, NOW).unwrap_err().to_string(), expect, "{text}");
    }
    let fault = Filter::parse("zzzzz:1", NOW).unwrap_err();
    assert!(fault.hint.starts_with("fields are host, session,"), "{fault}");
    assert_eq!(Filter::parse("ü\thots:a", NOW).unwrap_err().pointed("ü\thots:a"), "ü hots:a\n  ^^^^");
    for (text, parts) in [
        ("ü hots:a", ("ü ", "hots", ":a")),
        ("ü \"é", ("ü ", "\"é", "")),
        ("a or", ("a or", "", "")),
        ("-sort:oldest", ("-", "sort:oldest", "")),
    ] {
        assert_eq!(Filter::parse(text, NOW).unwrap_err().parts(text), parts);
    }
}

#[test]
fn length_terms_and_depth_are_capped() {
    let long = "a".repeat(LENGTH_CAP + 1);
    let many = "a ".repeat(TERMS_CAP + 1);
    let listed = format!("pid:{}", vec!["1"; TERMS_CAP + 1].join(","));
    let deep = format!("{}a{}", "(".repeat(DEPTH_CAP + 1), ")".repeat(DEPTH_CAP + 1));
    let negated = format!("{}a", "-".repeat(DEPTH_CAP + 1));
    let row = format!("\"{}\"", "a ".repeat(65));
    for text in [long, many, listed, deep, negated, row] {
        let fault = Filter::parse(&text, NOW).unwrap_err();
        assert!(fault.hint.contains("at most"), "{fault}");
    }
    parse(&format!("{}a{}", "(".repeat(DEPTH_CAP), ")".repeat(DEPTH_CAP)));
    parse(&"a ".repeat(TERMS_CAP));
}

#[test]
fn no_text_makes_it_panic() {
    let mut state = 7_u64;
    let pieces = [
        "host",
        ":",
        "-",
        "(",
        ")",
        "\"",
        "\\",
        ",",
        " ",
        "or",
        "not",
        "and",
        "*",
        "?",
        ">",
        "<",
        "=",
        "..",
        "status",
        "since",
        "2h",
        "cost",
        "fact.",
        "x",
        "ü",
        "5xx",
        "9999999999999999999999",
        "sort",
        "\u{0}",
    ];
    let record = exchange();
    for _ in 0..20_000 {
        let mut text = String::new();
        for _ in 0..12 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            text.push_str(pieces[usize::try_from(state >> 33).unwrap() % pieces.len()]);
        }
        match Filter::parse(&text, NOW) {
            Ok(filter) => {
                let _ = filter.matches(&record);
            }
            Err(fault) => {
                let marks = fault.pointed(&text);
                assert!(fault.column <= text.chars().count() + 1, "{text:?} {marks}");
            }
        }
    }
}

#[test]
fn patterns_go_back_to_the_last_star_only() {
    let rows = [
        ("a*b*c", "axxbyyc", true),
        ("a*b*c", "axxbyy", false),
        ("*", "", true),
        ("?", "", false),
        ("a?c", "abc", true),
        ("**a**", "xxa", true),
        ("a", "A", true),
        ("a", "ab", false),
    ];
    for (pattern, text, expect) in rows {
        assert_eq!(Pattern::whole(pattern).matches(text), expect, "{pattern} on {text}");
    }
    assert!(Pattern::new("git").matches("api.github.com"));
    assert!(!Pattern::new("git*").matches("api.github.com"));
    assert!(Pattern::whole(&"*a".repeat(500)).matches(&"a".repeat(60_000)));
    assert!(!Pattern::whole(&"a".repeat(1025)).matches(&"a".repeat(1025)));
    assert_eq!(Pattern::whole("Api.*.com").prefix(), b"api.");
    assert_eq!(Pattern::whole("*.Git.com").suffix_reversed(), b"moc.tig.");
}

#[test]
fn shorthands_mean_what_was_typed() {
    let record = exchange();
    let rows = [
        (shorthand::exact("path", "//a/b"), "path:\"//a/b\"", false),
        (shorthand::part("host", "github"), "host:*github*", true),
        (shorthand::part("host", "*.github.com"), "host:*.github.com", true),
        (shorthand::part("host", "a\" or b"), "host:*\"a\\\" or b\"*", false),
        (shorthand::part("host", "a b*"), "host:\"a b\"*", false),
        (shorthand::exact("session", "run-u2.service"), "session:run-u2.service", true),
        (shorthand::exact("session", "a*"), "session:\"a*\"", false),
        (shorthand::exact("kind", ""), "", true),
        (shorthand::joined(["", "verdict:allow", " "]), "verdict:allow", true),
        (
            shorthand::joined(["status:200 or host:*", "verdict:deny"]),
            "(status:200 or host:*) verdict:deny",
            false,
        ),
        (
            shorthand::joined(["(host:*)or(status:200)", "verdict:deny"]),
            "((host:*)or(status:200)) verdict:deny",
            false,
        ),
    ];
    for (text, expect, matches) in rows {
        assert_eq!(text, expect);
        assert_eq!(parse(&text).matches(&record), matches, "{text}");
    }
    assert_ne!(parse("path:\"//a/b\"").expression, parse("\"path://a/b\"").expression);
    assert_eq!(parse("path://a/b").expression, parse("\"path://a/b\"").expression);
    assert_eq!(parse(&shorthand::joined(["a or b sort:oldest", "c"])).sort, Some(Sort::Oldest));
    assert_eq!(shorthand::joined(["(a or b) \"or\"", "c"]), "(a or b) \"or\" c");
    for (text, expect) in [
        ("", "host:x"),
        ("a host:x", "a host:x"),
        ("a or host:x", "(a or host:x) host:x"),
        ("(a or host:x)", "(a or host:x) host:x"),
        ("a -host:x", "a -host:x host:x"),
        ("not host:x", "not host:x host:x"),
        ("host:xx", "host:xx host:x"),
    ] {
        assert_eq!(shorthand::narrowed(text, "host:x"), expect);
    }
    for (text, expect) in [
        ("a sort:oldest  b", "a  b"),
        ("SORT:bytes", ""),
        ("a or b sort:bytes", "a or b"),
        ("(a sort:bytes) b", "(a) b"),
        ("sort:bytes and host:x", "host:x"),
        ("a and sort:bytes AND b", "a AND b"),
        ("a or sort:bytes", "a"),
        ("(a or sort:bytes) b", "(a) b"),
        ("a \"and\" sort:bytes", "a \"and\""),
        ("(sort:bytes) a", "(sort:bytes) a"),
        ("\"sort:bytes\" text:sort:bytes", "\"sort:bytes\" text:sort:bytes"),
        ("\"not a filter sort:bytes", "\"not a filter sort:bytes"),
    ] {
        assert_eq!(shorthand::unsorted(text), expect);
    }
}

#[test]
fn a_fact_is_found_by_what_is_said_of_it() {
    let rows = [
        (Fact::text("model", "claude-4"), "model", "claude-4"),
        (Fact::integer("tokens", -812), "fact.tokens", "-812"),
        (Fact::micros("cost", 12_500), "cost", "0.0125"),
        (Fact::micros("cost", 3_000_000), "cost", "3"),
        (Fact::micros("cost", 0), "cost", "0"),
        (Fact::micros("balance", -1_000_001), "fact.balance", "-1.000001"),
    ];
    for (fact, field, value) in rows {
        assert_eq!((&*fact_field(&fact.name), &*fact_value(&fact.value)), (field, value));
        let mut record = exchange();
        record.facts = vec![fact];
        assert!(parse(&shorthand::exact(field, value)).matches(&record), "{field}:{value}");
    }
}

#[test]
fn coded_bodies_are_read() {
    let mut record = exchange();
    let head = record.response.as_mut().unwrap();
    head.headers = HeaderFields::from(vec![("content-encoding", "deflate")]);
    head.body.bytes = stored(b"the quick brown fox").into();
    assert!(parse("\"quick brown\"").matches(&record));
    assert!(!parse("\"brown quick\"").matches(&record));
}

/// zlib without compression (RFC 1950, RFC 1951 3.2.4).
fn stored(text: &[u8]) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap();
    let mut out = vec![0x78, 0x01, 1];
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&(!length).to_le_bytes());
    out.extend_from_slice(text);
    let (mut a, mut b) = (1_u32, 0_u32);
    for byte in text {
        a = (a + u32::from(*byte)) % 65_521;
        b = (b + a) % 65_521;
    }
    out.extend_from_slice(&(b << 16 | a).to_be_bytes());
    out
}
