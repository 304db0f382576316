//! What a row says.

use super::{
    line::{colour, row},
    *,
};
use crate::model::{
    Action, Authority, Failure as Fault, Host, Kind, Question, Record, RecordId, RequestHead, ResponseHead,
    SessionId, Subject, Verdict,
};

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
fn a_line_fits_the_terminal() {
    let plain = |_: Colour, text: &str| text.to_owned();
    let same_day = Timestamp(1_763_625_600_000_000 + 3_600_000_000);
    let mut record = exchange();
    record.authority = Some(Authority { host: Host::parse("a.example").unwrap(), port: 443 });
    record.request.as_mut().unwrap().target = "/a/path/longer/than/what/is/left/of/it".into();
    let line = |record: &Record, columns, now| Layout::Fitting(columns).line(record, now, &plain);
    let short = line(&record, 80, same_day);
    assert_eq!(short, "12     08:00:00    allow   200      a.example            GET /a/path/longer/tha…");
    assert_eq!(short.chars().count(), 80);
    let long = line(&record, 120, Timestamp(0));
    assert!(long.starts_with("12     11-20 08:00 allow") && long.ends_with("left/of/it"), "{long}");
    record.state = State::Failed;
    record.failure =
        Some(Fault { blame: "origin".into(), code: "origin_reset".into(), detail: "reset".into() });
    assert!(line(&record, 80, same_day).ends_with("failed   a.example            origin_reset: GET /a/p…"));
    let mut note = Record::new(Kind::Control, same_day);
    note.note = Some("mode audit".into());
    assert_eq!(line(&note, 80, same_day), "0      09:00:00    -       open     mode audit");
    // Where nothing fits, nothing is lost but the end.
    assert!(line(&record, 10, same_day).ends_with('…'));
    let marked = |_: Colour, text: &str| format!("<{text}>");
    let wide = Layout::of(None).line(&exchange(), same_day, &marked);
    assert!(
        wide.contains("<allow      >") && wide.contains("<200       >") && !wide.contains("<GET"),
        "{wide}"
    );
    assert_eq!(Layout::of(Some(80)), Layout::Fitting(80));
    assert_eq!((Layout::of(Some(200)), Layout::of(None)), (Layout::Whole, Layout::Whole));
    assert_eq!(
        Layout::of(Some(80)).heading(),
        "id     time        verdict status   host                 what"
    );
}

#[test]
fn every_field_is_in_the_help_and_the_help_fits() {
    let text = language();
    for help in HELP {
        assert!(text.contains(help.example), "{help:?}");
    }
    let long: Vec<&str> = text.lines().filter(|line| line.chars().count() > 79).collect();
    assert!(long.is_empty(), "{long:?}");
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
