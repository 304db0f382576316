//! Heads on their way: as they came, but for what is between the gate and its two neighbours, and heads of
//! the gate's own.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version,
    header::{CONNECTION, HOST, TE, UPGRADE},
    request::Parts,
};

use crate::{
    http::{
        h1::{BadHead, Framing, RawHead, ResponseHead, head::Edit},
        refusal::Answer,
    },
    policy::Destination,
};

/// True where an option of a list field is `word`.
fn lists(headers: &HeaderMap, name: HeaderName, word: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|option| option.trim().eq_ignore_ascii_case(word))
}

/// True for a request to switch to WebSocket (RFC 6455 4.1), as it goes to the origin.
pub(super) fn is_websocket(head: &Parts) -> bool {
    head.method == Method::GET
        && head.version == Version::HTTP_11
        && lists(&head.headers, UPGRADE, "websocket")
        && !lists(&head.headers, UPGRADE, "h2c")
}

/// The extensions that a WebSocket is asked for with.
pub(super) fn extensions(head: &Parts) -> Vec<HeaderValue> {
    head.headers.get_all(super::EXTENSIONS).iter().cloned().collect()
}

/// The head as it goes to the origin. Left out are `close`, because whether the origin's connection goes
/// on is the gate's affair; an offer to switch to HTTP/2; and transfer codings that the gate does not
/// carry. An empty `Host` is put right, so that the origin reads the name that was judged. `None` where the
/// head is not one of HTTP/1.
pub(super) fn outgoing(head: &Parts, destination: &Destination) -> Option<Bytes> {
    let raw = head.extensions.get::<RawHead>()?;
    let close = head.version == Version::HTTP_11 && lists(&head.headers, CONNECTION, "close");
    let http2 = lists(&head.headers, UPGRADE, "h2c");
    let codings =
        head.headers.get_all(TE).iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"trailers"));
    let nameless = head.headers.get(HOST).is_some_and(HeaderValue::is_empty);
    if !(close || http2 || codings || nameless) {
        return Some(raw.bytes().clone());
    }
    let gone = |option: &str| {
        (close && option.eq_ignore_ascii_case("close"))
            || (http2 && ["upgrade", "http2-settings"].iter().any(|o| option.eq_ignore_ascii_case(o)))
            || (codings && option.eq_ignore_ascii_case("te"))
    };
    Some(raw.edited(
        |name, value| {
            if name.eq_ignore_ascii_case("connection") {
                without(value, gone)
            } else if (http2 && ["upgrade", "http2-settings"].iter().any(|n| name.eq_ignore_ascii_case(n)))
                || (codings && name.eq_ignore_ascii_case("te"))
            {
                Edit::Drop
            } else if nameless && name.eq_ignore_ascii_case("host") {
                let named = head.uri.authority().map(|authority| authority.as_str().to_owned());
                Edit::Value(named.unwrap_or_else(|| destination.authority.to_string()))
            } else {
                Edit::Keep
            }
        },
        "",
    ))
}

/// A list without the options that are `gone`.
fn without(value: &[u8], gone: impl Fn(&str) -> bool) -> Edit {
    let Ok(value) = std::str::from_utf8(value) else { return Edit::Keep };
    let options = || value.split(',').map(str::trim);
    if !options().any(&gone) {
        return Edit::Keep;
    }
    let kept: Vec<&str> = options().filter(|option| !gone(option)).collect();
    if kept.is_empty() { Edit::Drop } else { Edit::Value(kept.join(", ")) }
}

/// The head as it goes to the agent; where the connection ends with this response and the origin did not
/// say so, because its own does not, the agent is told.
pub(super) fn incoming(head: &ResponseHead, keep_alive: bool) -> Bytes {
    let told = !head.keep_alive || head.framing == Framing::UntilClose;
    let switches = head.status == StatusCode::SWITCHING_PROTOCOLS;
    if keep_alive || told || switches {
        return head.raw.bytes().clone();
    }
    head.raw.edited(
        |name, _| {
            let one_of = ["connection", "keep-alive"];
            if one_of.iter().any(|n| name.eq_ignore_ascii_case(n)) { Edit::Drop } else { Edit::Keep }
        },
        "Connection: close\r\n",
    )
}

/// An answer of the gate's own.
pub(super) fn answer(answer: &Answer, method: &Method, stay: bool) -> Bytes {
    let Answer { status, headers, body } = answer;
    let mut out = Vec::with_capacity(256 + body.len());
    out.extend_from_slice(format!("HTTP/1.1 {} {}\r\n", status.as_str(), reason(*status)).as_bytes());
    for (name, value) in headers {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(format!("content-length: {}\r\n", body.len()).as_bytes());
    if !stay {
        out.extend_from_slice(b"connection: close\r\n");
    }
    out.extend_from_slice(b"\r\n");
    if *method != Method::HEAD {
        out.extend_from_slice(body);
    }
    out.into()
}

/// The answer to what is not HTTP as it must be.
pub(super) fn bad(bad: BadHead) -> Bytes {
    let status = match bad {
        BadHead::Syntax(_) => StatusCode::BAD_REQUEST,
        BadHead::Coding => StatusCode::NOT_IMPLEMENTED,
        BadHead::TooLarge(_) | BadHead::TooManyFields => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
    };
    let mut headers = HeaderMap::new();
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    let body = Bytes::from(format!("agentgate: {bad}\n"));
    answer(&Answer { status, headers, body }, &Method::GET, false)
}

fn reason(status: StatusCode) -> &'static str {
    status.canonical_reason().unwrap_or("Refused")
}
