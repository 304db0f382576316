//! Heads that may be read, and those that may not.

use super::*;

fn asked(text: &str) -> Result<RequestHead, BadHead> {
    let end = end_of_head(text.as_bytes(), 0, 4096)?.expect("a whole head");
    assert_eq!(end, text.len(), "{text:?}");
    request(BytesMut::from(text))
}

fn answered(text: &str, method: &Method) -> Result<ResponseHead, BadHead> {
    response(BytesMut::from(text), method)
}

#[test]
fn the_end_is_found_wherever_the_bytes_are_cut() {
    let text = b"GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\nbody\n\r\n\r\n";
    let end = text.len() - 9;
    for cut in 0..=text.len() {
        let first = end_of_head(&text[..cut], 0, 100);
        assert_eq!(first, Ok((cut >= end).then_some(end)), "{cut}");
        if first == Ok(None) {
            assert_eq!(end_of_head(text, cut, 100), Ok(Some(end)), "{cut}");
        }
    }
    assert_eq!(end_of_head(&[b'a'; 100], 0, 100), Err(BadHead::TooLarge(100)));
    assert_eq!(end_of_head(text, 0, 20), Err(BadHead::TooLarge(20)));
    for bare in ["GET / HTTP/1.1\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\n\n", "\n"] {
        assert!(matches!(end_of_head(bare.as_bytes(), 0, 100), Err(BadHead::Syntax(_))), "{bare:?}");
    }
}

#[test]
fn two_empty_lines_may_come_before_a_request_and_no_third() {
    let lines = "\r\n".repeat(3) + "GET / HTTP/1.1\r\n\r\n";
    assert_eq!(empty_lines(lines.as_bytes()), 4);
    assert!(matches!(end_of_head(&lines.as_bytes()[4..], 0, 100), Err(BadHead::Syntax(_))));
    assert!(matches!(end_of_head(b"\r\n\r\nGET", 0, 100), Err(BadHead::Syntax(_))));
}

#[test]
fn requests_are_framed_in_one_way_or_not_at_all() {
    let head = |more: &str| asked(&format!("POST /x HTTP/1.1\r\nHost: a.example\r\n{more}\r\n"));
    for (more, framing) in [
        ("", Framing::Empty),
        ("Content-Length: 0\r\n", Framing::Empty),
        ("content-length:5\r\n", Framing::Length(5)),
        ("Content-Length: \t 5 \r\n", Framing::Length(5)),
        ("Transfer-Encoding: Chunked\r\n", Framing::Chunked),
    ] {
        assert_eq!(head(more).unwrap().framing, framing, "{more:?}");
    }
    for more in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -5\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 5a\r\n",
        "Content-Length:\r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Content-Length : 5\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "X: a\r\n folded\r\n",
        "X: a\r\n\tfolded\r\n",
        " Content-Length: 5\r\n",
        "X: a\rb\r\n",
        "X: a\0b\r\n",
        "X\r\n",
        ": x\r\n",
        "X Y: x\r\n",
        "X\u{b}: x\r\n",
        "Connection: host\r\n",
        "Connection: close , Content-Length\r\n",
        "Connection: close\r\nConnection: TRANSFER-ENCODING\r\n",
    ] {
        assert!(matches!(head(more), Err(BadHead::Syntax(_))), "{more:?}: {:?}", head(more));
    }
    for coding in
        ["gzip, chunked", "identity", "chunked, chunked", "xchunked", "chunked;q=1", "\"chunked\"", ""]
    {
        let more = format!("Transfer-Encoding: {coding}\r\n");
        assert!(matches!(head(&more), Err(BadHead::Coding)), "{coding:?}");
    }
    let old = asked("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert!(matches!(old, Err(BadHead::Syntax(_))), "{old:?}");
    for line in [
        "GET / HTTP/2.0",
        "GET / HTTP/1.2",
        "GET  / HTTP/1.1",
        "GET /",
        "GET / HTTP/1.1 ",
        "G T / HTTP/1.1",
        "\r\nGET / HTTP/1.1",
        "GET /a#b HTTP/1.1",
        "GET http://a#@b/ HTTP/1.1",
        "",
    ] {
        let bad = request(BytesMut::from(format!("{line}\r\nHost: a\r\n\r\n").as_str()));
        assert!(matches!(bad, Err(BadHead::Syntax(_))), "{line:?}: {bad:?}");
    }
}

#[test]
fn every_byte_of_a_head_is_kept() {
    let text =
        "PoST http://a.example/%41?b=c HTTP/1.1\r\nhOST:a.example\r\nx-A:  1 \r\nB: 2\r\nX-a:\t3\r\n\r\n";
    let head = asked(text).unwrap();
    assert_eq!(head.parts.method.as_str(), "PoST");
    assert_eq!(head.parts.uri, "http://a.example/%41?b=c");
    let raw = head.parts.extensions.get::<RawHead>().unwrap();
    assert_eq!(raw.bytes(), text.as_bytes());
    assert_eq!(raw.target(), "http://a.example/%41?b=c");
    let fields: Vec<_> = raw.fields().map(|(n, v)| (n, std::str::from_utf8(v).unwrap())).collect();
    assert_eq!(fields, [("hOST", "a.example"), ("x-A", "1"), ("B", "2"), ("X-a", "3")]);
    let edit = |name: &str, _: &[u8]| match name {
        "B" => Edit::Drop,
        "X-a" => Edit::Value("4".to_owned()),
        _ => Edit::Keep,
    };
    let expect =
        "PoST http://a.example/%41?b=c HTTP/1.1\r\nhOST:a.example\r\nx-A:  1 \r\nX-a: 4\r\nNew: 5\r\n\r\n";
    assert_eq!(raw.edited(edit, "New: 5\r\n"), expect.as_bytes());
    assert_eq!(raw.edited(|_, _| Edit::Keep, ""), text.as_bytes());
}

#[test]
fn connections_end_when_either_side_says_so() {
    for (version, connection, keeps) in [
        ("1.1", "", true),
        ("1.1", "Connection: keep-alive\r\n", true),
        ("1.1", "Connection: Close\r\n", false),
        ("1.1", "Connection: te, close\r\n", false),
        ("1.1", "Connection: x\r\nConnection: close\r\n", false),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
    ] {
        let head = asked(&format!("GET / HTTP/{version}\r\n{connection}\r\n")).unwrap();
        assert_eq!(head.keep_alive, keeps, "{version} {connection:?}");
    }
}

#[test]
fn responses_are_framed_by_what_they_answer() {
    for (method, status, more, framing) in [
        ("GET", "200 OK", "Content-Length: 5\r\n", Framing::Length(5)),
        ("GET", "200 OK", "Transfer-Encoding: chunked\r\n", Framing::Chunked),
        ("GET", "200 ", "", Framing::UntilClose),
        ("GET", "200", "", Framing::UntilClose),
        ("HEAD", "200 OK", "Content-Length: 5\r\n", Framing::Empty),
        ("HEAD", "200 OK", "Transfer-Encoding: chunked\r\n", Framing::Empty),
        ("GET", "204 No Content", "Content-Length: 5\r\n", Framing::Empty),
        ("GET", "304 Not Modified", "Content-Length: 5\r\n", Framing::Empty),
        ("GET", "100 Continue", "", Framing::Empty),
        ("GET", "599 A reason with  spaces", "Content-Length: 0\r\n", Framing::Empty),
    ] {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let head = answered(&format!("HTTP/1.1 {status}\r\n{more}\r\n"), &method).unwrap();
        assert_eq!(head.framing, framing, "{method} {status}");
        assert_eq!(head.keep_alive, framing != Framing::UntilClose);
    }
    for more in
        ["Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "Content-Length: 1\r\nContent-Length: 2\r\n"]
    {
        let bad = answered(&format!("HTTP/1.1 200 OK\r\n{more}\r\n"), &Method::GET);
        assert!(matches!(bad, Err(BadHead::Syntax(_))), "{more:?}");
    }
}

#[test]
fn a_target_is_what_everybody_reads() {
    let bad = request(BytesMut::from(&b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n"[..]));
    assert!(matches!(bad, Err(BadHead::Syntax(_))), "{bad:?}");
    let head = asked("GET /\u{e9}?\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(head.parts.extensions.get::<RawHead>().unwrap().target(), "/\u{e9}?\u{e9}");
}
