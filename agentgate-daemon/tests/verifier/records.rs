//! Records that between them have every field, and of every field the values that are special.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6},
    sync::Arc,
};

use agentgate::model::{
    Action, Ancestor, Authority, Captured, Fact, Failure, Flag, Flow, HeaderFields, Host, Inspected, Kind,
    Loss, OriginalDestination, Question, Record, RecordId, RequestHead, ResponseHead, SessionId, Severity,
    State, Subject, Timestamp, Tls, Verdict, WebSocket,
    websocket::{Closed, Passed, Sender},
};

/// More than a double holds exactly.
const LARGE: u64 = (1 << 53) + 1;

/// Their `state` is the one in which they are to end.
pub(crate) fn all() -> Vec<Record> {
    vec![flow(), exchange(), talk(), question(), refused_by_the_kernel(), guard(), failed(), empty()]
}

fn record(kind: Kind, state: State, protocol: &str) -> Record {
    let mut record = Record::new(kind, Timestamp(1_000_000_000_000_000));
    (record.state, record.protocol) = (state, protocol.to_owned());
    record
}

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn body(bytes: &[u8]) -> Captured {
    Captured {
        total: bytes.len() as u64 + LARGE,
        truncated: true,
        bytes: bytes::Bytes::copy_from_slice(bytes),
    }
}

fn subject() -> Subject {
    Subject {
        session: SessionId("claude-1".into()),
        pid: 4_194_304,
        uid: 1000,
        start: Some(0),
        comm: "агент \u{1f916}".into(),
        exe: text("/usr/bin/node"),
        cmdline: vec!["node".into(), String::new(), "--größe=1\u{0}\u{1b}\u{2028}".into()],
        ancestors: vec![
            Ancestor { pid: 1, exe: String::new() },
            Ancestor { pid: 77, exe: "/bin/bash".into() },
        ],
        cgroup: "/agents/a".into(),
        privileges: vec!["cap_net_raw".into(), "docker".into()],
    }
}

fn flow() -> Record {
    let mut record = record(Kind::Flow, State::Done, "tls");
    let original = SocketAddrV6::new("fe80::1".parse().unwrap(), 443, 0, 7);
    record.subject = Some(Arc::new(subject()));
    record.flow = Some(Arc::new(Flow {
        cookie: u64::MAX,
        original: OriginalDestination(SocketAddr::V6(original)),
        pid: 12,
        uid: 0,
        gid: 100,
        comm: "curl".into(),
        cgroup: LARGE,
        session: 3,
        netns: 4_026_531_840,
        connected_ns: 127,
    }));
    record.authority = Some(Authority { host: Host::parse("xn--bcher-kva.example").unwrap(), port: 443 });
    record.verdict =
        Some(Verdict { action: Action::Passthrough, rule: "règle".into(), reason: String::new() });
    record.flags = vec![
        Flag::new("pinned", Severity::Info, "😀 \"quoted\" \\ \u{7f}"),
        Flag::new("x", Severity::High, ""),
    ];
    (record.bytes_up, record.bytes_down) = (128, LARGE);
    record.tls = Some(Box::new(Tls {
        sni: text("bücher.example"),
        ja4: "t13d1516h2_8daaf6152771_b186095e22b6".into(),
        offered: vec!["h2".into(), String::new()],
        ech: true,
        version: text("TLS 1.3"),
        cipher: text(""),
        alpn: text("h2"),
        resumed: true,
        origin_version: text("TLS 1.2"),
        origin_resumed: true,
    }));
    record
}

fn exchange() -> Record {
    let mut record = record(Kind::Exchange, State::Refused, "http/2");
    record.parent = Some(RecordId(1));
    let original = "192.0.2.1:8443".parse().unwrap();
    record.flow = Some(Arc::new(Flow {
        cookie: 0,
        original: OriginalDestination(original),
        pid: 0,
        uid: 0,
        gid: 0,
        comm: String::new(),
        cgroup: 0,
        session: 0,
        netns: 0,
        connected_ns: 0,
    }));
    record.authority = Some(Authority { host: Host::from(IpAddr::V6(Ipv6Addr::LOCALHOST)), port: 8443 });
    record.verdict = Some(Verdict { action: Action::Deny, rule: String::new(), reason: "secret".into() });
    record.request = Some(RequestHead {
        method: "PUT".into(),
        scheme: "https".into(),
        target: "/a?b=%C3%BC".into(),
        version: "HTTP/2".into(),
        headers: HeaderFields::from(vec![("x-ü", "\u{e9}\u{301}"), ("", ""), ("a", ""), ("a", "again")]),
        body: body(b"what was sent, \x00\xff"),
    });
    record.response = Some(ResponseHead {
        status: 451,
        version: "HTTP/2".into(),
        headers: HeaderFields::from(vec![("long", "v".repeat(300))]),
        body: body(&[0x80; 5000]),
        first_byte_us: 16_384,
    });
    record.request_seen = Some(Box::new(Inspected {
        captured: 17,
        total: 19,
        decoded: Some(0),
        truncated: true,
        encoding: "gzip, br".into(),
        fault: text("not gzip"),
    }));
    record.response_seen = Some(Box::new(Inspected { fault: text(""), ..Inspected::default() }));
    record.facts = vec![
        Fact::text("model", "größtes"),
        Fact::text("empty", ""),
        Fact::integer("tokens", 0),
        Fact::integer("least", i64::MIN),
        Fact::micros("cost", -1),
        Fact::micros("most", i64::MAX),
    ];
    record
}

fn talk() -> Record {
    let mut record = record(Kind::Exchange, State::Cancelled, "websocket");
    let passed = Passed { messages: 1, bytes: 200, decoded: 300, controls: 4, unseen: 5 };
    let closed = Closed { by: Sender::Server, code: Some(0), reason: "прощай".into() };
    record.websocket = Some(Box::new(WebSocket {
        client: passed,
        server: Passed::default(),
        closed: Some(closed),
        left_out: 9,
        faults: vec!["a frame".into()],
    }));
    record
}

fn question() -> Record {
    let mut record = record(Kind::Dns, State::Done, "udp");
    let addresses = ["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.2", "::"];
    record.question = Some(Question {
        name: "ex\\046ample.com".into(),
        kind: "AAAA".into(),
        transport: "tcp".into(),
        code: "NOERROR".into(),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        answers: vec!["CNAME a.example".into(), String::new()],
        took_us: 1,
    });
    record
}

fn refused_by_the_kernel() -> Record {
    let mut record = record(Kind::Kernel, State::Refused, "udp");
    record.loss =
        Some(Loss { session: 5, window: u32::MAX, what: "flows".into(), cause: "ring_full".into() });
    (record.times, record.note) = (12_345, text("many"));
    record
}

fn guard() -> Record {
    let mut record = record(Kind::Guard, State::Done, "socket");
    // Both are special: a number that has no field where it is 1, and a text that is there and empty.
    (record.times, record.note) = (0, text(""));
    record.subject = Some(Arc::new(Subject::unknown(SessionId(String::new()), 0, 0)));
    record
}

fn failed() -> Record {
    let mut record = record(Kind::Exchange, State::Failed, "http/1");
    record.started = Timestamp(-5);
    record.parent = Some(RecordId(0));
    record.failure =
        Some(Failure { blame: "origin".into(), code: "origin_reset".into(), detail: "it \r\n went".into() });
    record
}

/// Structures with nothing in them.
fn empty() -> Record {
    let mut record = record(Kind::Exchange, State::Done, "");
    record.started = Timestamp(0);
    record.request = Some(RequestHead::default());
    record.response = Some(ResponseHead::default());
    record.tls = Some(Box::default());
    record.websocket = Some(Box::default());
    record.request_seen = Some(Box::default());
    record.question = Some(Question::default());
    record
}
