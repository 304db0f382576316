//! What is shown of records and bodies.

use super::*;
use crate::model::{Flag, HeaderFields, Kind, Question, RequestHead, ResponseHead, Timestamp, WebSocket};

#[test]
fn a_question_is_shown_with_its_answer() {
    let mut record = Record::new(Kind::Dns, Timestamp(0));
    record.times = 2;
    record.question = Some(Question {
        name: "a.example".into(),
        kind: "HTTPS".into(),
        transport: "tcp".into(),
        code: "NOERROR".into(),
        addresses: vec!["203.0.113.7".parse().unwrap()],
        answers: vec!["left out 10.0.0.1: a private address".into()],
        took_us: 4_200,
    });
    let lines = lines(&record);
    for (label, value) in [
        ("question", "a.example HTTPS over tcp"),
        ("answer", "NOERROR, took 4ms"),
        ("given", "203.0.113.7"),
        ("answered", "left out 10.0.0.1: a private address"),
        ("times", "2"),
    ] {
        assert!(lines.contains(&Line::Field(label, value.into())), "{label}: {lines:?}");
    }
}

#[test]
fn tls_is_shown_in_two_lines() {
    let mut record = Record::new(Kind::Flow, Timestamp(0));
    let ja4 = "t13d1516h2_8daaf6152771_e5627efa2ab1".to_owned();
    let offered = vec!["h2".to_owned(), "http/1.1".to_owned()];
    record.tls = Some(Box::new(Tls { ja4: ja4.clone(), offered, ..Tls::default() }));
    assert!(lines(&record).contains(&Line::Field("tls", "unread, offered h2 http/1.1".into())));
    assert!(lines(&record).contains(&Line::Field("ja4", ja4)));
    record.tls = Some(Box::new(Tls {
        version: Some("TLS 1.3".into()),
        cipher: Some("TLS13_AES_128_GCM_SHA256".into()),
        alpn: Some("h2".into()),
        resumed: true,
        origin_version: Some("TLS 1.2".into()),
        origin_resumed: true,
        ..Tls::default()
    }));
    let line = "TLS 1.3, TLS13_AES_128_GCM_SHA256, h2, resumed, to the origin TLS 1.2 resumed";
    assert!(lines(&record).contains(&Line::Field("tls", line.into())), "{:?}", lines(&record));
}

#[test]
fn shows_what_there_is_and_no_more() {
    let mut record = Record::new(Kind::Exchange, Timestamp(0));
    record.id = RecordId(3);
    let bare = lines(&record);
    assert_eq!(bare.len(), 2, "{bare:?}");
    assert_eq!(bare[0], Line::Field("record", "3 exchange (open)".into()));
    record.flags = vec![Flag::new("would_block", Severity::Medium, "x")];
    record.request = Some(RequestHead {
        method: "GET".into(),
        scheme: "https".into(),
        target: "/a".into(),
        version: "HTTP/1.1".into(),
        headers: vec![("authorization", "Bearer ****abcd")].into(),
        body: Captured { total: 5, truncated: true, ..Captured::default() },
    });
    let full = lines(&record);
    assert!(full.contains(&Line::Flag(Severity::Medium, "would_block (medium): x".into())));
    assert!(full.contains(&Line::Heading("GET /a HTTP/1.1".into())));
    assert!(full.contains(&Line::Header("authorization".into(), "Bearer ****abcd".into())));
    assert_eq!(full.last(), Some(&Line::Body("request", "5 bytes, beginning kept".into())));
}

#[test]
fn a_websocket_is_shown_with_its_messages() {
    let mut record = Record::new(Kind::Exchange, Timestamp(0));
    let client = Passed { messages: 2, bytes: 10, decoded: 25, controls: 1, unseen: 0 };
    let closed = Some(Closed { by: Sender::Client, code: Some(1000), reason: "bye".into() });
    record.websocket = Some(Box::new(WebSocket { client, closed, left_out: 1, ..WebSocket::default() }));
    let shown = lines(&record);
    for (label, value) in [
        ("from agent", "2 messages, 10 bytes, inflated 25, 1 control frames"),
        ("from origin", "0 messages, 0 bytes, 0 control frames"),
        ("closed", "by the agent, code 1000: bye"),
        ("left out", "1 messages"),
    ] {
        assert!(shown.contains(&Line::Field(label, value.into())), "{label}: {shown:?}");
    }
    let line = TranscriptLine {
        number: 3,
        at: Timestamp(5_000),
        from: Sender::Client,
        kind: "text".into(),
        length: 11,
        text: "hello".into(),
        truncated: true,
    };
    let stored = serde_json::to_vec(&line).unwrap();
    let (text, note) = readable(&record, Side::Request, &stored).unwrap();
    assert_eq!(String::from_utf8(text).unwrap(), "#3 after 5ms, text, 11 bytes, the beginning\nhello\n");
    assert!(note.contains("1 of both sides"), "{note}");
}

#[test]
fn a_body_is_shown_decoded_with_how_far_that_went() {
    let mut record = Record::new(Kind::Exchange, Timestamp(0));
    let headers = HeaderFields::from(vec![("Content-Encoding", "deflate")]);
    let coded = miniz_oxide::deflate::compress_to_vec_zlib(&[b'a'; 5000], 6);
    let total = coded.len() as u64;
    let body = Captured { total, truncated: false, ..Captured::default() };
    record.response = Some(ResponseHead { headers, body, ..ResponseHead::default() });
    let (text, note) = readable(&record, Side::Response, &coded).unwrap();
    assert_eq!((text, note.as_str()), (vec![b'a'; 5000], "deflate undone: 5000 bytes"));
    let (text, note) = readable(&record, Side::Response, &coded[..coded.len() - 1]).unwrap();
    assert!(text.len() <= 5000 && note.ends_with("not all of the body"), "{note}");
    let (_, note) = readable(&record, Side::Response, b"hello").unwrap();
    assert!(note.starts_with("sent as deflate: deflate data is corrupt"), "{note}");
    record.response.as_mut().unwrap().headers.truncate(0);
    assert_eq!(readable(&record, Side::Response, &coded), None);
}
