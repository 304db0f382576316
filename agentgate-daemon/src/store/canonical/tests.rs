//! Encodings: the same record, the same bytes, and back.

use std::{net::SocketAddrV6, sync::Arc};

use bytes::Bytes;

use super::{fields::take_number, *};
use crate::model::{
    Ancestor, HeaderFields, Host, Inspected, OriginalDestination, RecordId, SessionId, WebSocket,
    websocket::{Closed, Passed, Sender},
};

/// A record with every field, `n` of whatever there may be many of.
pub(crate) fn full(n: usize) -> Record {
    let text = |what: &str| format!("{what} ü {}", "x".repeat(n * 50));
    let mut record = Record::new(Kind::Guard, Timestamp(-5));
    record.id = RecordId(u64::MAX - 7);
    record.state = State::Refused;
    record.finished = Some(Timestamp(i64::MAX));
    record.parent = Some(RecordId(0));
    record.subject = Some(Arc::new(Subject {
        session: SessionId(text("session")),
        pid: u32::MAX,
        uid: 0,
        start: Some(0),
        comm: text("comm"),
        exe: Some(String::new()),
        cmdline: vec![String::new(); n],
        ancestors: vec![Ancestor { pid: 1, exe: text("exe") }; n],
        cgroup: text("cgroup"),
        privileges: vec![text("CAP"); n],
    }));
    let scoped = SocketAddrV6::new("fe80::1".parse().unwrap(), 443, 1, 2);
    record.flow = Some(Arc::new(Flow {
        cookie: u64::MAX,
        original: OriginalDestination(SocketAddr::V6(scoped)),
        pid: 1,
        uid: 2,
        gid: 3,
        comm: text("c"),
        cgroup: 4,
        session: 5,
        netns: 6,
        connected_ns: 7,
    }));
    record.authority = Some(Authority { host: Host::parse("api.example.com").unwrap(), port: 443 });
    record.protocol = text("tls");
    record.tls = Some(Box::new(crate::model::Tls {
        sni: Some(text("name")),
        ja4: text("t13d"),
        offered: vec![text("h2"); n],
        ech: true,
        version: Some(text("TLS 1.3")),
        cipher: None,
        alpn: Some(text("h2")),
        resumed: true,
        origin_version: Some(String::new()),
        origin_resumed: true,
    }));
    record.verdict =
        Some(Verdict { action: Action::Passthrough, rule: text("rule"), reason: text("reason") });
    record.flags = vec![Flag::new("code", Severity::High, text("evidence")); n];
    let body = Captured { total: 1 << 40, truncated: true, bytes: Bytes::new() };
    let headers = HeaderFields::from(vec![(text("name"), text("value")), (String::new(), String::new())]);
    record.request = Some(RequestHead {
        method: "GET".into(),
        scheme: "https".into(),
        target: text("/"),
        version: "HTTP/2".into(),
        headers: headers.clone(),
        body: body.clone(),
    });
    record.response = Some(ResponseHead { status: 999, version: text("v"), headers, body, first_byte_us: 9 });
    record.bytes_up = 1;
    record.bytes_down = u64::MAX;
    record.failure = Some(Failure { blame: text("b"), code: text("c"), detail: text("d") });
    record.question = Some(Question {
        name: text("n"),
        kind: "A".into(),
        transport: "udp".into(),
        code: "NOERROR".into(),
        addresses: vec!["192.0.2.1".parse().unwrap(), "::ffff:192.0.2.1".parse().unwrap()],
        answers: vec![text("answer"); n],
        took_us: 1,
    });
    record.loss = Some(Loss { session: 1, window: u32::MAX, what: text("w"), cause: text("c") });
    record.times = 0;
    record.note = Some(String::new());
    let passed = Passed { messages: 1, bytes: u64::MAX, decoded: 2, controls: 3, unseen: 4 };
    record.websocket = Some(Box::new(WebSocket {
        client: passed,
        server: Passed::default(),
        closed: Some(Closed { by: Sender::Server, code: Some(0), reason: text("bye") }),
        left_out: 5,
        faults: vec![text("fault"); n],
    }));
    let encoding = text("gzip");
    let inspected = Inspected {
        captured: 1,
        total: 1 << 40,
        decoded: Some(0),
        truncated: true,
        encoding,
        fault: Some(String::new()),
    };
    record.request_seen = Some(Box::new(inspected));
    record.response_seen = Some(Box::default());
    let facts = [
        Fact::text("model", text("m")),
        Fact::text("", ""),
        Fact::integer("tokens", i64::MIN),
        Fact::micros("cost", -1),
        Fact::micros("cost", i64::MAX),
    ];
    record.facts = facts.into_iter().cycle().take(n * 5).collect();
    record
}

fn encoded(record: &Record) -> Vec<u8> {
    let mut out = Vec::new();
    encode(record, [None, None], &mut out);
    out
}

#[test]
fn whatever_is_in_a_record_comes_back() {
    for n in [0, 1, 3, 400] {
        let record = full(n);
        let bytes = encoded(&record);
        assert_eq!(decode(&bytes).unwrap(), (record.clone(), [None, None]), "{n}");
        assert_eq!(encoded(&record), bytes);
        let seen = Glance::at(&bytes).unwrap();
        assert_eq!((seen.id, seen.kind, seen.state), (record.id.0, Some(record.kind), Some(record.state)));
        assert_eq!((seen.host, seen.times, seen.started), ("api.example.com", 0, record.started));
    }
    let least = Record::new(Kind::Flow, Timestamp(0));
    assert_eq!(decode(&encoded(&least)).unwrap().0, least);
    assert_eq!(encoded(&least), [1, 8, 0, 0, 0, 0, 0, 0, 0, 0, 2, 1, 1, 3, 1, 1, 4, 1, 0]);
}

#[test]
fn digests_are_kept_with_the_length_of_what_they_are_of() {
    let mut record = full(1);
    record.request.as_mut().unwrap().body.bytes = Bytes::from_static(b"abc");
    let mut bytes = Vec::new();
    encode(&record, [Some([7; 32]), None], &mut bytes);
    let (_, digests) = decode(&bytes).unwrap();
    assert_eq!(digests, [Some((3, [7; 32])), None]);
    assert_eq!(Glance::at(&bytes).unwrap().digests, [Some([7; 32]), None]);
}

#[test]
fn another_end_leaves_all_else_as_it_is() {
    let failure = Failure { blame: "gate".into(), code: "interrupted".into(), detail: "x".repeat(200) };
    for n in [0, 5] {
        let mut record = full(n);
        let mut bytes = encoded(&record);
        // A field of a later version.
        bytes.extend_from_slice(&[100, 3, b'n', b'e', b'w']);
        let ended = ended(&bytes, State::Failed, Timestamp(3), Some(&failure)).unwrap();
        record.state = State::Failed;
        record.finished = Some(Timestamp(3));
        record.failure = Some(failure.clone());
        let mut expect = encoded(&record);
        expect.extend_from_slice(&[100, 3, b'n', b'e', b'w']);
        assert_eq!(ended, expect);
    }
}

#[test]
fn ids_are_filled_in_last() {
    let mut record = full(1);
    let mut bytes = encoded(&record);
    record.id = RecordId(0x0102_0304);
    set_id(&mut bytes, record.id.0);
    assert_eq!(bytes, encoded(&record));
}

#[test]
fn whatever_is_cut_or_damaged_is_refused_or_another_record() {
    let bytes = encoded(&full(2));
    for end in 0..bytes.len() {
        // Between two fields a shorter record may end; that it is shorter is for others to see.
        if let Ok((record, _)) = decode(&bytes[..end]) {
            assert_ne!(record, full(2), "{end}");
        }
    }
    for at in 0..bytes.len() {
        let mut other = bytes.clone();
        other[at] ^= 0x55;
        if let Ok((record, _)) = decode(&other) {
            assert_ne!(record, full(2), "{at}");
        }
    }
}

#[test]
fn numbers_have_one_form() {
    for number in [0, 1, 127, 128, 16_383, 16_384, u64::MAX - 1, u64::MAX] {
        let mut bytes = Vec::new();
        put_number(&mut bytes, number);
        let mut left = bytes.as_slice();
        assert_eq!((take_number(&mut left), left), (Ok(number), &[][..]));
    }
    for bad in [
        &[][..],
        &[0x80],
        &[0x80, 0],
        &[0xff; 11],
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2],
    ] {
        let mut left = bad;
        assert!(take_number(&mut left).is_err(), "{bad:?}");
    }
}

#[test]
fn however_much_is_left_for_a_length_it_is_the_same() {
    for length in [0, 1, 126, 127, 128, 129, 300, 16_383, 16_384, 20_000, 1 << 21] {
        let payload: Vec<u8> = (0..length).map(|at: u32| at as u8).collect();
        let mut expect = vec![7, 9];
        put_number(&mut expect, payload.len() as u64);
        expect.extend_from_slice(&payload);
        let mut found = [vec![7], vec![7], vec![7]];
        let [one, two, three] = &mut found;
        sized::<1>(one, 9, |out| out.extend_from_slice(&payload));
        sized::<2>(two, 9, |out| out.extend_from_slice(&payload));
        sized::<3>(three, 9, |out| out.extend_from_slice(&payload));
        assert!(found.iter().all(|found| *found == expect), "{length}");
    }
    for number in [0, 1, 127, 128, 16_383, 16_384, u64::MAX >> 1, u64::MAX] {
        let mut out = Vec::new();
        put_number(&mut out, number);
        assert_eq!(out.len(), width(number), "{number}");
    }
}
