//! The texts of a record: what of it free text is looked for in.
//!
//! URL, host, headers, names and addresses of DNS, the note, who acted, why it was refused or failed; and
//! the bodies, their content codings undone. Command lines are not among them: they may hold secrets. Nor
//! are bodies that are no text, or of a coding that nobody knows.

use std::borrow::Cow;

use super::{
    deltas,
    needle::{Matcher, Needle},
    scan::{Form, Token, each},
};
use crate::{
    inspect::{self, Limits},
    model::{FactValue, HeaderFields, Record},
};

/// Most bytes that a body is decoded to; words after these are not found.
pub const DECODED_CAP: u64 = 4 << 20;
/// Bytes that are looked at to see whether a body is text.
const SAMPLE: usize = 4096;

/// The captured bytes of request and response, as they were on the wire.
pub type Bodies<'b> = [Option<&'b [u8]>; 2];

/// Whether a record has all of `needles` in its heads or in `bodies`.
#[must_use]
pub fn contains(record: &Record, bodies: Bodies<'_>, needles: &[Needle]) -> bool {
    let mut matcher = Matcher::new(needles);
    look(record, bodies, &mut matcher);
    matcher.is_done()
}

/// Which of `needles` a record has: each body is decoded once for all of them.
#[must_use]
pub fn found(record: &Record, bodies: Bodies<'_>, needles: &[Needle]) -> Vec<bool> {
    let mut matcher = Matcher::new(needles);
    look(record, bodies, &mut matcher);
    matcher.found()
}

fn look(record: &Record, bodies: Bodies<'_>, matcher: &mut Matcher<'_>) {
    in_heads(record, &mut |token| matcher.take(token));
    if !matcher.is_done() {
        in_bodies(record, bodies, &mut |token| matcher.take(token));
    }
}

/// Gives the words of everything but the bodies.
pub(crate) fn in_heads(record: &Record, sink: &mut impl FnMut(Token<'_>)) {
    heads(record, &mut |_, text| {
        sink(Token::Gap);
        each(text.as_bytes(), Form::Plain, sink);
    });
}

/// What of a record a text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Of what `path` and `url` of the filter language look at, all there is.
    Address,
    Other,
}

/// Gives the texts of everything but the bodies, all plain.
pub(crate) fn heads(record: &Record, see: &mut impl FnMut(Part, &str)) {
    let host = record.authority.as_ref().map_or("", |authority| authority.host.as_str());
    if record.authority.is_some() {
        see(Part::Address, host);
    }
    let mut other = |text: &str| see(Part::Other, text);
    if let Some(flow) = &record.flow {
        other(&flow.original.0.to_string());
    }
    let headers = [
        record.request.as_ref().map(|head| &head.headers),
        record.response.as_ref().map(|head| &head.headers),
    ];
    for (name, value) in headers.into_iter().flatten().flat_map(HeaderFields::iter) {
        other(name);
        other(value);
    }
    if let Some(question) = &record.question {
        other(&question.kind);
        other(&question.code);
        for answer in &question.answers {
            other(answer);
        }
        for address in &question.addresses {
            other(&address.to_string());
        }
    }
    if let Some(subject) = &record.subject {
        other(&subject.session.0);
        other(&subject.comm);
        other(subject.exe.as_deref().unwrap_or_default());
    }
    if let Some(tls) = &record.tls {
        other(tls.sni.as_deref().unwrap_or_default());
    }
    if let Some(verdict) = &record.verdict {
        other(&verdict.rule);
        other(&verdict.reason);
    }
    for flag in &record.flags {
        other(&flag.code);
        other(&flag.evidence);
    }
    if let Some(failure) = &record.failure {
        other(&failure.code);
        other(&failure.detail);
    }
    for fact in &record.facts {
        other(&fact.name);
        if let FactValue::Text(text) = &fact.value {
            other(text);
        }
    }
    other(record.note.as_deref().unwrap_or_default());
    if let Some(question) = &record.question {
        see(Part::Address, &question.name);
    }
    if let Some(head) = &record.request {
        request(&head.method, &head.scheme, host, &head.target, see);
    }
}

/// The texts of a request's line.
pub(crate) fn request(
    method: &str,
    scheme: &str,
    host: &str,
    target: &str,
    see: &mut impl FnMut(Part, &str),
) {
    see(Part::Other, method);
    // In one piece, so that an address is found as it is written.
    let meant = unescaped(target.as_bytes());
    if matches!(meant, Cow::Owned(_)) {
        see(Part::Address, target);
    }
    see(Part::Address, &format!("{scheme}://{host}{}", String::from_utf8_lossy(&meant)));
}

/// Gives the words of the bodies.
pub(crate) fn in_bodies(record: &Record, bodies: Bodies<'_>, sink: &mut impl FnMut(Token<'_>)) {
    let headers = [
        record.request.as_ref().map(|head| &head.headers),
        record.response.as_ref().map(|head| &head.headers),
    ];
    for (headers, bytes) in headers.into_iter().zip(bodies) {
        if let (Some(headers), Some(bytes)) = (headers, bytes) {
            in_body(headers, record.websocket.is_some(), bytes, &mut |text, form| {
                sink(Token::Gap);
                each(text, form, sink);
            });
        }
    }
}

/// Gives the texts of a body: what it is, and what was said in it piece by piece.
pub(crate) fn in_body(
    headers: &HeaderFields,
    transcript: bool,
    bytes: &[u8],
    see: &mut impl FnMut(&[u8], Form),
) {
    // The transcript of a WebSocket is the gate's own, and has no coding.
    let text = if transcript {
        Cow::Borrowed(bytes.get(..DECODED_CAP as usize).unwrap_or(bytes))
    } else {
        match decoded(headers, bytes) {
            Some(text) => text,
            None => return,
        }
    };
    if bytes.is_empty() || !is_text(&text) {
        return;
    }
    let form = form(headers, &text);
    let text = if form == Form::Plain && is_form(headers) { unescaped(&text) } else { text };
    see(&text, form);
    if is_stream(headers) {
        deltas::joined(&text, &mut |said| see(said, Form::Json));
    }
}

/// `None`: in a coding that nobody knows.
fn decoded<'b>(headers: &HeaderFields, bytes: &'b [u8]) -> Option<Cow<'b, [u8]>> {
    let codings = inspect::recorded(headers).ok()?;
    if codings.is_identity() {
        return Some(Cow::Borrowed(bytes.get(..DECODED_CAP as usize).unwrap_or(bytes)));
    }
    Some(Cow::Owned(inspect::decode(&codings, bytes, Limits::of(DECODED_CAP)).bytes))
}

/// Whether the start has what text has not: a zero, or many control characters.
fn is_text(bytes: &[u8]) -> bool {
    let sample = bytes.get(..SAMPLE).unwrap_or(bytes);
    let control = |byte: &&u8| **byte < 0x20 && !matches!(**byte, b'\t' | b'\n' | b'\r' | 0x0c | 0x1b);
    !sample.contains(&0) && sample.iter().filter(control).count() * 16 <= sample.len()
}

fn kind(headers: &HeaderFields) -> &str {
    headers.get("content-type").unwrap_or_default()
}

/// What clients call JSON, and what looks like it.
fn form(headers: &HeaderFields, text: &[u8]) -> Form {
    let kind = kind(headers);
    let start = text.trim_ascii_start();
    let json = kind.contains("json")
        || kind.contains("event-stream")
        || matches!(start.first(), Some(b'{' | b'['))
        || start.starts_with(b"data:")
        || start.starts_with(b"event:");
    if json { Form::Json } else { Form::Plain }
}

/// Whether events follow each other in it.
fn is_stream(headers: &HeaderFields) -> bool {
    let kind = kind(headers);
    kind.contains("event-stream") || kind.contains("ndjson") || kind.contains("jsonl")
}

fn is_form(headers: &HeaderFields) -> bool {
    kind(headers).contains("x-www-form-urlencoded")
}

/// What is written with `%` and `+` as it is meant.
fn unescaped(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b'%') {
        return Cow::Borrowed(text);
    }
    let digit = |at: usize| text.get(at).and_then(|digit| char::from(*digit).to_digit(16));
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Authority, Captured, Host, Kind, RequestHead, ResponseHead, Timestamp, WebSocket};

    fn exchange(target: &str, request: &[(&str, &str)], response: &[(&str, &str)]) -> Record {
        let mut record = Record::new(Kind::Exchange, Timestamp(0));
        record.authority = Host::parse("api.example.com").ok().map(|host| Authority { host, port: 443 });
        record.request = Some(RequestHead {
            method: "POST".into(),
            scheme: "https".into(),
            target: target.into(),
            headers: request.iter().copied().collect(),
            ..RequestHead::default()
        });
        record.response = Some(ResponseHead {
            status: 200,
            headers: response.iter().copied().collect(),
            body: Captured::default(),
            ..ResponseHead::default()
        });
        record
    }

    fn has(record: &Record, bodies: Bodies<'_>, needle: &str) -> bool {
        contains(record, bodies, &[Needle::parse(needle).unwrap()])
    }

    #[test]
    fn heads_are_looked_into() {
        let mut record = exchange("/v1/f%C3%BCr%20alle?q=a+b", &[("x-request-id", "req_011CX")], &[]);
        record.note = Some("Said so".into());
        for (needle, expect) in [
            ("api.example.com", true),
            ("example.org", false),
            ("für alle", true),
            ("a b", true),
            ("f%C3%BCr%20alle", true),
            ("C3%BDr", false),
            ("req_011cx", true),
            ("x-request-id", true),
            ("said", true),
            ("id req", false),
        ] {
            assert_eq!(has(&record, [None, None], needle), expect, "{needle}");
        }
    }

    #[test]
    fn bodies_are_looked_into_as_they_are_meant() {
        let json = [("content-type", "application/json")];
        let events = [("content-type", "text/event-stream; charset=utf-8")];
        let gzip = [("content-encoding", "gzip")];
        let unknown = [("content-encoding", "snappy")];
        let form = [("content-type", "application/x-www-form-urlencoded")];
        let coded = miniz_oxide::deflate::compress_to_vec_zlib(b"secret plan", 6);
        let deflate = [("content-encoding", "deflate")];
        /// Headers of the response, body, needle, whether it is there.
        type Row<'r> = (&'r [(&'r str, &'r str)], &'r [u8], &'r str, bool);
        let rows: [Row<'_>; 12] = [
            (&json, br#"{"text":"one\ntwo"}"#, "two", true),
            (&[], br#"{"text":"one\ntwo"}"#, "one two", true),
            (&[], br"C:\new", "new", true),
            (&[], b"data: {\"a\":\"x\\ty\"}\n\n", "x y", true),
            (&deflate, &coded, "secret plan", true),
            (&gzip, b"not gzip at all", "gzip", false),
            (&unknown, b"plain", "plain", false),
            (&form, b"name=J%C3%BCrgen+M", "jürgen m", true),
            (&[], b"\0\x01binary words", "words", false),
            (&[], b"", "words", false),
            (
                &events,
                b"data: {\"text\":\"unbel\"}\n\ndata: {\"text\":\"ievable\"}\n\n",
                "unbelievable",
                true,
            ),
            (&json, b"{\"text\":\"unbel\"}\n{\"text\":\"ievable\"}", "unbelievable", false),
        ];
        for (headers, body, needle, expect) in rows {
            let mut record = exchange("/", &[], headers);
            // What the heads say is not what is looked for.
            record.response.as_mut().unwrap().status = 200;
            let without = has(&record, [None, None], needle);
            assert!(!without || needle == "gzip", "{needle}");
            let body = contains(&record, [None, Some(body)], &[Needle::parse(needle).unwrap()]);
            assert_eq!(body, expect || without, "{needle}");
        }
    }

    #[test]
    fn a_transcript_is_a_body() {
        let mut record = exchange("/socket", &[("content-encoding", "gzip")], &[]);
        record.websocket = Some(Box::new(WebSocket::default()));
        let line = br#"{"number":1,"from":"client","kind":"text","text":"hello\nworld"}"#;
        assert!(has(&record, [Some(line), None], "hello world"));
    }

    #[test]
    fn each_of_several_is_told() {
        let record = exchange("/one", &[], &[]);
        let needles = ["one", "two", "tw*"].map(|needle| Needle::parse(needle).unwrap());
        assert_eq!(found(&record, [None, Some(b"three two")], &needles), [true, true, true]);
        assert_eq!(found(&record, [None, Some(b"three")], &needles), [true, false, false]);
    }

    #[test]
    fn words_after_the_cap_are_not_found() {
        let record = exchange("/", &[], &[]);
        let mut body = vec![b' '; DECODED_CAP as usize - 4];
        body.extend_from_slice(b"last over");
        assert!(has(&record, [None, Some(&body)], "last"));
        assert!(!has(&record, [None, Some(&body)], "over"));
    }
}
