//! Heads of HTTP/1.1: what is accepted has one reading, and goes on as the bytes that it came as.

#![no_main]

use agentgate::http::h1::{
    Framing, RawHead,
    head::{Edit, empty_lines, end_of_head, request, response},
};
use bytes::BytesMut;
use http::Method;
use libfuzzer_sys::fuzz_target;

const MOST: usize = 16 * 1024;

/// What every head keeps to.
fn raw(head: &RawHead, bytes: &[u8]) {
    assert_eq!(head.bytes(), bytes, "a head is kept as it came");
    assert_eq!(head.edited(|_, _| Edit::Keep, ""), bytes, "nothing edited, nothing changed");
    let lines = bytes.split(|byte| *byte == b'\n').count();
    // Start line, fields, empty line, and the nothing after the last LF.
    assert_eq!(head.fields().count() + 3, lines, "a field is a line");
    let dropped = head.edited(|_, _| Edit::Drop, "");
    assert_eq!(dropped.split(|byte| *byte == b'\n').count(), 3);
    for (name, value) in head.fields() {
        assert!(!name.is_empty() && !name.contains([' ', '\t', ':']));
        assert!(!value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
    }
}

fn count(head: &RawHead, field: &str) -> usize {
    head.fields().filter(|(name, _)| name.eq_ignore_ascii_case(field)).count()
}

fuzz_target!(|input: &[u8]| {
    let input = &input[empty_lines(input)..];
    let whole = end_of_head(input, 0, MOST);
    // Looked at again with each byte that comes, it ends where it ends in one piece.
    let mut scanned = 0;
    for end in (0..=input.len()).step_by(input.len() / 200 + 1) {
        let part = end_of_head(&input[..end], scanned, MOST);
        assert!(part == Ok(None) || part == whole, "{end}: {part:?}, whole: {whole:?}");
        if part != Ok(None) {
            break;
        }
        scanned = end;
    }
    let Ok(Some(end)) = whole else { return };
    let bytes = &input[..end];
    assert!(bytes.ends_with(b"\r\n\r\n"));
    if let Ok(read) = request(BytesMut::from(bytes)) {
        let head = read.parts.extensions.get::<RawHead>().expect("a request has its head with it");
        raw(head, bytes);
        let (lengths, codings) = (count(head, "content-length"), count(head, "transfer-encoding"));
        assert!(lengths + codings <= 1, "one framing");
        match read.framing {
            Framing::Empty => assert_eq!(codings, 0),
            Framing::Length(length) => assert!(length > 0 && lengths == 1),
            Framing::Chunked => assert_eq!(codings, 1),
            Framing::UntilClose => panic!("a request does not end with its connection"),
        }
    }
    for method in [Method::GET, Method::HEAD] {
        if let Ok(read) = response(BytesMut::from(bytes), &method) {
            raw(&read.raw, bytes);
            assert!(read.framing == Framing::Empty || method != Method::HEAD);
            assert!(!read.keep_alive || read.framing != Framing::UntilClose);
        }
    }
});
