//! What a row says.

use super::*;
use crate::model::{Authority, Host, RecordId, RequestHead, ResponseHead, SessionId, Subject, Verdict};

fn given(words: &[&str]) -> Result<(String, Filter), Failure> {
    #[derive(clap::Parser)]
    struct Whole {
        #[command(flatten)]
        args: Args,
    }
    let whole = <Whole as clap::Parser>::try_parse_from(std::iter::once(&"logs").chain(words)).unwrap();
    filter(&whole.args)
}

#[test]
fn flags_are_shorthands() {
    let rows: [(&[&str], &str); 8] = [
        (&[], ""),
        (&["host:*.github.com verdict:deny since:2h"], "host:*.github.com verdict:deny since:2h"),
        (&["host:a.test", "status:5xx"], "host:a.test status:5xx"),
        (&["--host", "github", "--verdict", "deny"], "verdict:deny host:*github*"),
        (&["--host", "*.github.com", "--kind", "flow"], "kind:flow host:*.github.com"),
        (&["--session", "a b@1", "--since", "2h"], "session:\"a b@1\" since:2h"),
        (&["a or b", "--until", "2026-11-20"], "until:2026-11-20 (a or b)"),
        (&["a sort:duration", "--host", "x"], "host:*x* a sort:duration"),
    ];
    for (words, expect) in rows {
        assert_eq!(given(words).unwrap().0, expect);
    }
    assert_eq!(given(&["a", "--sort", "bytes"]).unwrap().1.sort, Some(Sort::Bytes));
    for (words, expect) in [
        (
            &["a hots:b"][..],
            "the filter, column 3: `hots` is no field; did you mean `host:`?\n  a hots:b\n    ^^^^",
        ),
        (
            &["sort:oldest", "--sort", "bytes"],
            "the filter, column 13: `sort:` is no condition; write it once, and without `-`\n  sort:oldest sort:bytes\n              ^^^^^^^^^^",
        ),
    ] {
        let failure = given(words).unwrap_err();
        assert_eq!((failure.to_string().as_str(), failure.exit_code()), (expect, 2));
    }
}

#[test]
fn limits_and_words() {
    assert_eq!(limit("1000"), Ok(1000));
    assert!(limit("0").is_err() && limit("1001").is_err() && limit("x").is_err());
    assert_eq!(condition("verdict", "DENY"), Ok("verdict:DENY".into()));
    assert_eq!(condition("kind", "flows"), Err("did you mean `flow`?".into()));
    assert!(condition("since", "yesterday").unwrap_err().contains("7d"));
    assert!(condition("since", "").is_err() && sort("largest").is_err());
}

fn exchange() -> Record {
    let mut record = Record::new(Kind::Exchange, Timestamp(1_763_625_600_000_000));
    record.id = RecordId(12);
    record.state = State::Done;
    record.finished = Some(Timestamp(record.started.0 + 42_500));
    record.authority = Some(Authority { host: Host::parse("api.example.com").unwrap(), port: 443 });
    record.verdict = Some(Verdict { action: Action::Allow, rule: "allow:*".into(), reason: "listed".into() });
    record.request = Some(RequestHead {
        method: "GET".into(),
        target: "/\u{1b}[2J\u{202e}".into(),
        ..RequestHead::default()
    });
    let mut response = ResponseHead { status: 200, ..ResponseHead::default() };
    response.body.total = 12_345;
    record.response = Some(response);
    record.subject = Some(
        Subject {
            comm: "curl".into(),
            cgroup: "/agent.slice/run-1-0.scope".into(),
            ..Subject::unknown(SessionId("run-1-0.scope@5".into()), 99, 1000)
        }
        .into(),
    );
    record
}

#[test]
fn a_row_says_all_and_obeys_nothing() {
    let row = row(&exchange());
    let expect = [
        "12",
        "2025-11-20T08:00:00.000Z",
        "allow",
        "api.example.com:443",
        r"GET /\u{1b}[2J\u{202e}",
        "200",
        "0/12k",
        "42ms",
        "99 curl",
    ];
    assert_eq!(row, expect.map(str::to_owned));
    assert_eq!(colour(&exchange()), Some(Colour::Green));
}

#[test]
fn records_without_a_request_show_what_they_have() {
    let mut record = Record::new(Kind::Control, Timestamp(0));
    record.note = Some("mode audit".into());
    assert_eq!(row(&record)[3..7], ["-", "mode audit", "open", "-"].map(str::to_owned));
    record.state = State::Refused;
    assert_eq!(colour(&record), Some(Colour::Red));
}

#[test]
fn a_question_shows_its_name_and_what_was_given() {
    let mut record = Record::new(Kind::Dns, Timestamp(0));
    record.state = State::Done;
    record.times = 3;
    record.question = Some(Question {
        name: "a.example".into(),
        kind: "A".into(),
        code: "NOERROR".into(),
        addresses: vec!["203.0.113.7".parse().unwrap()],
        ..Question::default()
    });
    let expect = ["a.example", "A 203.0.113.7 (3 times)", "NOERROR", "-"];
    assert_eq!(row(&record)[3..7], expect.map(str::to_owned));
}

#[test]
fn sizes_and_times() {
    for (bytes, expect) in
        [(0, "0"), (9_999, "9999"), (10_000, "10k"), (10_000_000, "10M"), (u64::MAX, "18446744073G")]
    {
        assert_eq!(size(bytes), expect);
    }
    assert_eq!((took(999), took(1_500), took(61_000_000)), ("0ms".into(), "1ms".into(), "61s".into()));
}
