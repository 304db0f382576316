//! What ordinary web servers do beside answering: parts of a file, other places, cookies, content codings,
//! lines of JSON.

use std::time::Duration;

use http::{HeaderValue, header};
use hyper::{Response, StatusCode};

use crate::{
    body::{Body, whole},
    encoding::Coding,
    origin::Arrival,
    routes::{Received, event_stream, pattern, respond},
};

/// Size of the file that is served in parts.
const FILE: usize = 100_000;
/// Between two lines.
const PAUSE: Duration = Duration::from_millis(20);

/// The answer, where the path is one of these.
pub(crate) fn answer(arrival: &Arrival, id: u64, received: &Received) -> Option<Response<Body>> {
    let mut parts = received.path.trim_start_matches('/').splitn(2, '/');
    let (first, rest) = (parts.next()?, parts.next().unwrap_or_default());
    match first {
        "file" => Some(file(received)),
        "encoded" => encoded(rest),
        "redirect" => redirect(rest),
        "cookies" => Some(cookies()),
        "lines" => {
            let lines = (0..5).map(|n| format!("{{\"n\":{n}}}\n")).collect();
            let mut response = event_stream(arrival.clone(), id, lines, PAUSE);
            set(&mut response, header::CONTENT_TYPE, "application/x-ndjson");
            Some(response)
        }
        _ => None,
    }
}

fn set(response: &mut Response<Body>, name: header::HeaderName, value: &'static str) {
    response.headers_mut().insert(name, HeaderValue::from_static(value));
}

/// A file with an entity tag, whole, in one part (RFC 9110, section 14), or not at all.
fn file(received: &Received) -> Response<Body> {
    const TAG: &str = "\"fake-1\"";
    let bytes = pattern(FILE);
    let field = |name| received.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let mut response = if field(header::IF_NONE_MATCH) == Some(TAG) {
        let mut response = Response::new(whole(Vec::new()));
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else if let Some((from, to)) = field(header::RANGE).and_then(range) {
        let part = bytes.get(from..=to).unwrap_or_default().to_vec();
        let mut response = respond(StatusCode::PARTIAL_CONTENT, "application/octet-stream", whole(part));
        if let Ok(told) = HeaderValue::try_from(format!("bytes {from}-{to}/{FILE}")) {
            response.headers_mut().insert(header::CONTENT_RANGE, told);
        }
        response
    } else {
        respond(StatusCode::OK, "application/octet-stream", whole(bytes))
    };
    set(&mut response, header::ETAG, TAG);
    set(&mut response, header::ACCEPT_RANGES, "bytes");
    response
}

/// One range, both ends included.
fn range(value: &str) -> Option<(usize, usize)> {
    let (from, to) = value.strip_prefix("bytes=")?.split_once('-')?;
    let from: usize = from.parse().ok()?;
    let to: usize = if to.is_empty() { FILE - 1 } else { to.parse().ok()? };
    (from <= to && to < FILE).then_some((from, to))
}

/// Text in the codings that the path names, the innermost first, whatever the client asked for.
fn encoded(codings: &str) -> Option<Response<Body>> {
    let mut bytes = "Every word of this is said twice. ".repeat(400).into_bytes();
    let mut names = Vec::new();
    for coding in codings.split(',') {
        let coding = Coding::named(coding)?;
        bytes = coding.encode(&bytes).ok()?;
        names.push(coding.name());
    }
    let mut response = respond(StatusCode::OK, "text/plain; charset=utf-8", whole(bytes));
    response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::try_from(names.join(", ")).ok()?);
    Some(response)
}

/// To the root of this site, or with `away` of another, by the status of that number.
fn redirect(rest: &str) -> Option<Response<Body>> {
    let (number, place) = rest.split_once('/').unwrap_or((rest, ""));
    let status = StatusCode::from_bytes(number.as_bytes()).ok().filter(StatusCode::is_redirection)?;
    let place = if place == "away" { "https://unlisted.example/echo" } else { "/echo" };
    let mut response = respond(status, "text/plain", whole("elsewhere\n"));
    set(&mut response, header::LOCATION, place);
    Some(response)
}

/// Fields of one name, in an order that matters, with others between them.
fn cookies() -> Response<Body> {
    let mut response = respond(StatusCode::OK, "text/plain", whole("two cookies\n"));
    for cookie in ["one=1; Path=/", "two=\"2\"; Path=/; Secure; HttpOnly"] {
        response.headers_mut().append(header::SET_COOKIE, HeaderValue::from_static(cookie));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_within_the_file() {
        let rows = [
            ("bytes=0-0", Some((0, 0))),
            ("bytes=500-", Some((500, FILE - 1))),
            ("bytes=0-100000", None),
            ("bytes=9-8", None),
            ("bytes=-5", None),
            ("lines=1-2", None),
        ];
        for (value, expect) in rows {
            assert_eq!(range(value), expect, "{value}");
        }
    }
}
