//! One record of each kind, for tests.

use bytes::Bytes;

use super::Row;
use crate::model::{
    Action, Ancestor, Authority, Captured, Fact, FactValue, Failure, Flag, Flow, HeaderFields, Host, Kind,
    OriginalDestination, Question, Record, RecordId, RequestHead, ResponseHead, SessionId, Severity, State,
    Subject, Timestamp, Tls, Verdict,
};

/// 2026-11-20T08:00:00.000001Z.
const START: i64 = 1_795_161_600_000_001;

fn base(id: u64, kind: Kind) -> Record {
    let mut record = Record::new(kind, Timestamp(START));
    record.id = RecordId(id);
    record.state = State::Done;
    record.finished = Some(Timestamp(START + 250_000));
    record.subject = Some(
        Subject {
            exe: Some("/usr/bin/curl".into()),
            comm: "curl".into(),
            cmdline: vec!["curl".into(), "-d".into(), "a b".into()],
            ancestors: vec![
                Ancestor { pid: 1, exe: "/sbin/init".into() },
                Ancestor { pid: 0, exe: String::new() },
            ],
            cgroup: "/agent.slice/run-1.scope".into(),
            ..Subject::unknown(SessionId("run-1.scope@77".into()), 4242, 1000)
        }
        .into(),
    );
    record.flow = Some(
        Flow {
            cookie: 99,
            original: OriginalDestination("203.0.113.7:443".parse().unwrap()),
            pid: 4242,
            uid: 1000,
            gid: 1000,
            comm: "curl".into(),
            cgroup: 77,
            session: 77,
            netns: 1,
            connected_ns: 5,
        }
        .into(),
    );
    record.authority = Some(Authority { host: Host::parse("api.example.com").unwrap(), port: 443 });
    record
}

fn row(record: Record) -> Row {
    Row { n: record.id.0 + 100, record }
}

fn verdict(action: Action) -> Option<Verdict> {
    Some(Verdict { action, rule: "allow:api.example.com".into(), reason: "it is on the list".into() })
}

fn captured(bytes: &[u8], total: u64) -> Captured {
    let truncated = total > bytes.len() as u64;
    Captured { total, truncated, bytes: Bytes::copy_from_slice(bytes) }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A request with a JSON body, answered by a coded event stream.
pub(crate) fn exchange() -> Row {
    let mut record = base(7, Kind::Exchange);
    record.parent = Some(RecordId(6));
    record.protocol = "http/1".into();
    record.verdict = verdict(Action::Allow);
    let body = b"{\"model\":\"m\"}";
    record.request = Some(RequestHead {
        method: "POST".into(),
        scheme: "https".into(),
        target: "/v1/messages?beta=true".into(),
        version: "HTTP/1.1".into(),
        headers: HeaderFields::from(vec![("Content-Type", "application/json"), ("User-Agent", "curl/8")]),
        body: captured(body, body.len() as u64),
    });
    let coded = gzip(b"data: hello\n\n");
    record.response = Some(ResponseHead {
        status: 200,
        version: "HTTP/1.1".into(),
        headers: HeaderFields::from(vec![
            ("content-type", "text/event-stream"),
            ("content-encoding", "gzip"),
        ]),
        body: captured(&coded, coded.len() as u64),
        first_byte_us: 120_000,
    });
    row(record)
}

/// A response that is not text, of which a part was kept.
pub(crate) fn binary() -> Row {
    let mut found = exchange();
    found.record.id = RecordId(8);
    if let Some(response) = &mut found.record.response {
        response.headers = HeaderFields::from(vec![("content-type", "application/octet-stream")]);
        response.body = captured(&[0xff, 0, 0xfe], 1 << 20);
    }
    found
}

/// A request that policy refused.
pub(crate) fn refused() -> Row {
    let mut found = exchange();
    found.record.id = RecordId(9);
    found.record.state = State::Refused;
    found.record.response = None;
    found.record.verdict = verdict(Action::Deny);
    found.record.flags = vec![Flag::new("host_not_allowlisted", Severity::High, "it is not on a list")];
    found
}

/// A question to the DNS server.
pub(crate) fn question() -> Row {
    let mut record = base(10, Kind::Dns);
    record.protocol = "dns".into();
    record.verdict = verdict(Action::Allow);
    record.question = Some(Question {
        name: "api.example.com".into(),
        kind: "A".into(),
        transport: "udp".into(),
        code: "NOERROR".into(),
        addresses: vec!["203.0.113.7".parse().unwrap(), "2001:db8::7".parse().unwrap()],
        answers: vec!["api.example.com. 60 IN CNAME edge.example.net.".into()],
        took_us: 3_000,
    });
    row(record)
}

/// One of each.
pub(crate) fn all() -> Vec<Row> {
    let mut flow = base(11, Kind::Flow);
    flow.protocol = "tls".into();
    flow.verdict = verdict(Action::Passthrough);
    (flow.bytes_up, flow.bytes_down) = (1000, 2000);
    flow.tls = Some(Box::new(Tls {
        sni: Some("api.example.com".into()),
        ja4: "t13d1516h2_8daaf6152771_02713d6af862".into(),
        version: Some("TLS 1.3".into()),
        cipher: Some("TLS13_AES_128_GCM_SHA256".into()),
        ..Tls::default()
    }));
    let mut failed = base(12, Kind::Flow);
    failed.state = State::Failed;
    failed.failure = Some(Failure {
        blame: "origin".into(),
        code: "origin_unreachable".into(),
        detail: "no route".into(),
    });
    let mut kernel = base(13, Kind::Kernel);
    kernel.state = State::Refused;
    kernel.verdict = verdict(Action::Deny);
    kernel.authority = None;
    kernel.protocol = "udp".into();
    kernel.times = 1000;
    let mut control = Record::new(Kind::Control, Timestamp(START));
    control.id = RecordId(14);
    control.state = State::Done;
    control.note = Some("the gate started".into());
    failed.facts = vec![
        Fact::text("model", "m-1"),
        Fact::text("tool", "search"),
        Fact::text("tool", "fetch"),
        Fact { name: "tokens".into(), value: FactValue::Integer(1200) },
        Fact { name: "cost".into(), value: FactValue::Micros(1_250_000) },
    ];
    let mut guard = base(15, Kind::Guard);
    guard.note = Some("left the guarded cgroup".into());
    let mut open = base(16, Kind::Flow);
    (open.state, open.finished) = (State::Open, None);
    let mut rows = vec![exchange(), binary(), refused(), question()];
    rows.extend([flow, failed, kernel, control, guard, open].map(row));
    rows
}
