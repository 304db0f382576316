//! Round trips of every message, and lines that are none.

use super::*;
use crate::model::{Authority, Flag, Host, Severity, Verdict};

fn record() -> Record {
    let mut record = Record::new(Kind::Exchange, Timestamp(1_700_000_000_000_000));
    record.id = RecordId(7);
    record.authority = Some(Authority { host: Host::parse("api.example.com").unwrap(), port: 443 });
    record.verdict =
        Some(Verdict { action: Action::Deny, rule: "mode:enforce".into(), reason: "a\nline".into() });
    record.flags = vec![Flag::new("host_not_allowlisted", Severity::Low, "\u{1b}[31m")];
    record
}

fn policy() -> PolicyStatus {
    PolicyStatus {
        generation: 4,
        summary: crate::policy::Policy::closed().summary(),
        mode_overridden: true,
        loaded_at: None,
        tried_at: Timestamp(1),
        errors: vec!["policy.toml:3:7: unknown key".into()],
    }
}

fn round_trip<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(message: T) {
    let line = encode(&message).unwrap();
    assert_eq!(line.iter().filter(|b| **b == b'\n').count(), 1, "one line: {message:?}");
    assert_eq!(line.last(), Some(&b'\n'));
    assert_eq!(decode::<T>(&line).unwrap(), message);
}

#[test]
fn requests_survive() {
    let filter = LogFilter {
        host: Some("*.example.com".into()),
        verdict: Some(Action::Passthrough),
        kind: Some(Kind::Kernel),
        session: Some("run-1-0.scope@9".into()),
        since: Some(Timestamp(5)),
        text: "status:5xx \"ü\"".into(),
        limit: 50,
    };
    let rows = [
        Request::Status,
        Request::Enrol,
        Request::Logs { filter: filter.clone(), follow: true },
        Request::Count { filter },
        Request::Logs { filter: LogFilter::default(), follow: false },
        Request::AuditExport { ask: ExportAsk { from: 9, bodies: true, ..ExportAsk::default() } },
        Request::Show { id: RecordId(3) },
        Request::Body { id: RecordId(3), side: Side::Response },
        Request::PolicyReload,
        Request::ModeGet,
        Request::ModeSet { mode: Some(Mode::Audit) },
        Request::ModeSet { mode: None },
        Request::ListEdit { list: List::Deny, edit: Edit::Remove, host: "a\nb".into() },
        Request::CaExport,
        Request::Dashboard,
        Request::Reconcile { recount: true },
    ];
    for request in rows {
        round_trip(Envelope::from(request));
    }
}

#[test]
fn replies_survive() {
    let gate = GateReport {
        version: "0.1.0".into(),
        pid: 1,
        started: Timestamp(2),
        guarded: "/agent.slice".into(),
        listen: vec!["127.0.0.1:7879".parse().unwrap()],
        programs: vec!["connect4".into()],
        layers: None,
        lost_events: 0,
        unbooked: 0,
        counters: vec![HookCount { hook: "connect4".into(), outcome: "listener".into(), count: 3 }],
        connections: 4,
        dashboard: Some("127.0.0.1:7878".parse().unwrap()),
        draining: false,
        checkpoints: Vec::new(),
    };
    let audit = AuditReport {
        healthy: false,
        error: Some("disk full".into()),
        queued: 1,
        written: 2,
        mirror: None,
        pace: None,
    };
    let payloads = [
        Payload::Status(Box::new(StatusReport { gate, policy: policy(), audit })),
        Payload::Enrolled(Enrolled {
            cgroup: "/a/b".into(),
            guarded: "/a".into(),
            bundle: "/run/b.pem".into(),
            hidden: Hidden { places: vec!["docker".into()], sockets: vec!["/run/c.sock".into()] },
            system_bundle: true,
        }),
        Payload::Record(Box::new(record())),
        Payload::Policy(policy()),
        Payload::Mode { mode: Mode::Enforce },
        Payload::List { list: List::Allow, host: "example.com".into(), changed: true },
        Payload::Ca { pem: "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n".into() },
        Payload::Dashboard {
            listen: "127.0.0.1:7878".parse().unwrap(),
            url: "http://127.0.0.1:7878/?token=x".into(),
        },
    ];
    for payload in payloads {
        round_trip(Reply::ok(payload));
    }
    for item in [
        Item::Record(Box::new(record())),
        Item::Searched { down_to: RecordId(3) },
        Item::Listed,
        Item::Missed { updates: 9 },
        Item::Body { hex: "00ff".into() },
        Item::Rows { text: "{\"n\":1".into() },
        Item::Walked(Turned { next: 7, ..Default::default() }),
    ] {
        round_trip(Reply::item(item));
    }
    round_trip(Reply::End);
    round_trip(Reply::Error(ErrorReply::new(ErrorCode::Guarded, "no").hint("yes")));
}

#[test]
fn what_is_no_request_is_refused() {
    let rows = [
        "",
        "{}",
        "null",
        r#"{"version":1}"#,
        r#"{"version":1,"request":{"op":"nope"}}"#,
        r#"{"version":1,"request":{"op":"show"}}"#,
        r#"{"version":1,"request":{"op":"show","id":-1}}"#,
        r#"{"version":1,"request":{"op":"show","id":1,"extra":2}}"#,
        r#"{"version":1,"request":{"op":"mode_set","mode":"open"}}"#,
        r#"{"version":1,"request":{"op":"logs","filter":{"limit":1,"hots":"x"},"follow":false}}"#,
        r#"{"version":1,"request":{"op":"status"}} {}"#,
    ];
    for line in rows {
        assert!(decode::<Envelope>(line.as_bytes()).is_err(), "{line}");
    }
}

#[test]
fn a_later_error_code_still_reads() {
    let reply: Reply = decode(br#"{"error":{"code":"on_fire","message":"m","hint":""}}"#).unwrap();
    assert_eq!(reply, Reply::Error(ErrorReply::new(ErrorCode::Other, "m")));
}

#[test]
fn long_lines_are_refused_both_ways() {
    assert!(matches!(encode(&"x".repeat(LINE_CAP)), Err(WireError::TooLong { .. })));
    assert!(encode(&"x".repeat(LINE_CAP - 2)).is_ok());
    assert!(matches!(decode::<String>(&vec![b' '; LINE_CAP + 2]), Err(WireError::TooLong { .. })));
}

#[test]
fn hex_round_trips() {
    let all: Vec<u8> = (0..=255).collect();
    assert_eq!(from_hex(&to_hex(&all)), Some(all));
    for bad in ["0", "0g", "+1", " 1", "é"] {
        assert_eq!(from_hex(bad), None, "{bad}");
    }
    assert_eq!(to_hex(&vec![0; BODY_CHUNK]).len(), BODY_CHUNK * 2);
}
