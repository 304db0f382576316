//! What origins answer. The same routes at every name, and the provider's own at its name.

use std::{collections::HashMap, io, path::PathBuf, sync::OnceLock, time::Duration};

use http_body_util::BodyExt as _;
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::{Body as _, Bytes, Frame, Incoming},
    header::{CONTENT_LENGTH, CONTENT_TYPE},
};
use rustls::{SupportedCipherSuite, crypto::hash};
use serde_json::json;

use crate::{
    body::{Body, Sender, streamed, whole},
    ending, git, grpc, journal, mcp,
    origin::Arrival,
    provider, repository, web, websocket,
};

/// Most of a request body that is kept for an echo; the rest is counted and hashed.
const KEPT: usize = 8 << 20;
/// Most of it that the journal keeps.
const JOURNALLED: usize = 1 << 20;
/// Most that `/bytes/N` sends.
const MOST: usize = 64 << 20;

/// A request with its body read.
pub(crate) struct Received {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    version: String,
    target: String,
    pub(crate) query: HashMap<String, String>,
    body_len: u64,
    body_sha256: String,
    trailers: Vec<(String, String)>,
}

/// Reads the request to its end, logs it and answers.
pub(crate) async fn answer(arrival: Arrival, request: Request<Incoming>) -> Response<Body> {
    let journal = arrival.origin.journal.clone();
    let unread = request.method() == Method::HEAD;
    let (id, mut response) = judge(arrival, request).await;
    if unread {
        // hyper would send the body on HTTP/2.
        if let Some(length) = response.body().size_hint().exact() {
            response.headers_mut().insert(CONTENT_LENGTH, length.into());
        }
        *response.body_mut() = whole(Bytes::new());
    }
    let unread = unread || [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&response.status());
    response.map(|body| ending::told(body, journal, id, unread))
}

/// The journal's number of the request, and the answer.
async fn judge(arrival: Arrival, mut request: Request<Incoming>) -> (u64, Response<Body>) {
    let journal = &arrival.origin.journal;
    let id = journal.request(journal::Request {
        id: 0,
        connection: arrival.connection,
        site: arrival.origin.site.to_owned(),
        port: arrival.origin.port,
        method: request.method().to_string(),
        target: request.uri().to_string(),
        version: format!("{:?}", request.version()),
        headers: pairs(request.headers()),
        raw_head: arrival.heard.head(),
        body_len: 0,
        body: Vec::new(),
        body_sha256: String::new(),
        trailers: Vec::new(),
        complete: false,
        answered: false,
        aborted: false,
    });
    if let Some(response) = websocket::accept(&arrival, id, &mut request) {
        return (id, response);
    }
    if grpc::asked(&request) {
        return (id, grpc::answer(&arrival, id, request).await);
    }
    let (head, mut incoming) = request.into_parts();
    let mut received = Received {
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        target: head.uri.to_string(),
        version: format!("{:?}", head.version),
        query: queries(head.uri.query().unwrap_or_default()),
        headers: head.headers,
        body: Vec::new(),
        body_len: 0,
        body_sha256: String::new(),
        trailers: Vec::new(),
    };
    let mut digest = sha256().start();
    while let Some(frame) = incoming.frame().await {
        let Ok(frame) = frame else {
            // The body stopped in the middle: nobody reads an answer.
            journal.update_request(id, |r| r.aborted = true);
            return (id, status(StatusCode::BAD_REQUEST));
        };
        match frame.into_data() {
            Ok(data) => {
                digest.update(&data);
                received.body_len += data.len() as u64;
                let room = KEPT.saturating_sub(received.body.len());
                received.body.extend_from_slice(data.get(..room.min(data.len())).unwrap_or_default());
                journal.update_request(id, |r| r.body_len = received.body_len);
            }
            Err(frame) => received.trailers.extend(frame.trailers_ref().map(pairs).unwrap_or_default()),
        }
    }
    received.body_sha256 = hex(digest.finish().as_ref());
    journal.update_request(id, |r| {
        r.body_sha256.clone_from(&received.body_sha256);
        let kept = received.body.len().min(JOURNALLED);
        r.body = received.body.get(..kept).unwrap_or_default().to_vec();
        r.trailers.clone_from(&received.trailers);
        r.complete = true;
    });
    (id, route(arrival, id, &received).await)
}

async fn route(arrival: Arrival, id: u64, received: &Received) -> Response<Body> {
    let visit = provider::Visit { arrival: &arrival, id, received };
    if let Some(response) = provider::answer(visit) {
        return response;
    }
    let repositories = arrival.origin.repositories.get().map(PathBuf::as_path);
    if let Some(response) = git::answer(repositories, received).await {
        return response;
    }
    let other = web::answer(&arrival, id, received).or_else(|| mcp::answer(&arrival, id, received));
    if let Some(response) = other {
        return response;
    }
    let (first, rest) = received
        .path
        .trim_start_matches('/')
        .split_once('/')
        .unwrap_or((received.path.trim_start_matches('/'), ""));
    match (received.method.as_str(), first) {
        ("GET" | "HEAD", "") => text(StatusCode::OK, page(arrival.origin.site)),
        (_, "bytes") => match rest.parse::<usize>() {
            Ok(n) if n <= MOST => respond(StatusCode::OK, "application/octet-stream", whole(pattern(n))),
            Ok(_) | Err(_) => status(StatusCode::BAD_REQUEST),
        },
        (_, "echo") => respond(StatusCode::OK, "application/json", whole(echo(received))),
        (_, "status") => match rest.parse::<u16>().ok().and_then(|n| StatusCode::from_u16(n).ok()) {
            Some(code) => status(code),
            None => status(StatusCode::BAD_REQUEST),
        },
        (_, "slow") => {
            tokio::time::sleep(Duration::from_millis(received.number("ms", 100))).await;
            text(StatusCode::OK, "slow\n".to_owned())
        }
        ("GET", "tiny.git") => match repository::file(rest) {
            Some(file) => respond(StatusCode::OK, "application/octet-stream", whole(file)),
            None => status(StatusCode::NOT_FOUND),
        },
        (_, "sse") => events(arrival, id, received),
        (_, "reset") => reset(&arrival),
        (_, "truncate") => truncate(),
        (_, "trailers") => trailers(),
        _ => text(StatusCode::NOT_FOUND, "no such page\n".to_owned()),
    }
}

impl Received {
    /// What follows the question mark.
    pub(crate) fn raw_query(&self) -> &str {
        self.target.split_once('?').map_or("", |(_, query)| query)
    }

    fn number(&self, key: &str, otherwise: u64) -> u64 {
        self.query.get(key).and_then(|value| value.parse().ok()).unwrap_or(otherwise)
    }
}

/// Exactly 1 KiB that names the site.
fn page(site: &str) -> String {
    let mut page = format!("This is {site}.\n");
    while page.len() < 1023 {
        page.push('.');
    }
    page.push('\n');
    page
}

/// Bytes that no compressor or line reader leaves alone by chance.
pub(crate) fn pattern(n: usize) -> Vec<u8> {
    (0..n).map(|i| u8::try_from((i * 31 + i / 251) % 256).unwrap_or_default()).collect()
}

fn echo(received: &Received) -> Vec<u8> {
    let mut echoed = pairs(&received.headers);
    // Of the last hop only (RFC 9110, 7.6.1).
    echoed.retain(|(name, value)| name != "connection" || value.eq_ignore_ascii_case("upgrade"));
    json!({
        "method": received.method,
        "target": received.target,
        "version": received.version,
        "headers": echoed,
        "trailers": received.trailers,
        "body_len": received.body_len,
        "body_sha256": received.body_sha256,
        "body": String::from_utf8_lossy(&received.body),
    })
    .to_string()
    .into_bytes()
}

/// `n` events, `ms` apart; the log says so if the peer leaves before the last.
fn events(arrival: Arrival, id: u64, received: &Received) -> Response<Body> {
    let (n, pause) = (received.number("n", 5), Duration::from_millis(received.number("ms", 100)));
    let all = (0..n).map(|i| format!("event: tick\ndata: {{\"n\":{i}}}\n\n")).collect();
    event_stream(arrival, id, all, pause)
}

/// An SSE answer of these events with a pause between two.
pub(crate) fn event_stream(
    arrival: Arrival,
    id: u64,
    events: Vec<String>,
    pause: Duration,
) -> Response<Body> {
    let (sender, body) = streamed();
    tokio::spawn(async move {
        let last = events.len().saturating_sub(1);
        for (n, event) in events.into_iter().enumerate() {
            if !feed(&sender, event).await {
                arrival.origin.journal.update_request(id, |r| r.aborted = true);
                return;
            }
            if n < last {
                tokio::time::sleep(pause).await;
            }
        }
    });
    respond(StatusCode::OK, "text/event-stream", body)
}

async fn feed(sender: &Sender, text: String) -> bool {
    sender.send(Ok(Frame::data(Bytes::from(text)))).await.is_ok()
}

/// Announces a megabyte, sends a kilobyte, then resets the TCP connection.
fn reset(arrival: &Arrival) -> Response<Body> {
    let (sender, body) = streamed();
    let breaker = arrival.breaker.clone();
    tokio::spawn(async move {
        feed(&sender, "x".repeat(1024)).await;
        // The second frame is asked for only after the first was taken; then the wire breaks.
        feed(&sender, "y".to_owned()).await;
        breaker.pull();
        let _gone = sender.send(Err(io::Error::other("reset"))).await;
    });
    with_length(body, 1 << 20)
}

/// Announces a megabyte, sends a kilobyte, then closes in good order.
fn truncate() -> Response<Body> {
    let (sender, body) = streamed();
    tokio::spawn(async move { feed(&sender, "x".repeat(1024)).await });
    with_length(body, 1 << 20)
}

fn trailers() -> Response<Body> {
    let (sender, body) = streamed();
    tokio::spawn(async move {
        if feed(&sender, "body\n".to_owned()).await {
            let mut trailers = HeaderMap::new();
            trailers.insert("x-checksum", http::HeaderValue::from_static("abc123"));
            let _gone = sender.send(Ok(Frame::trailers(trailers))).await;
        }
    });
    let mut response = respond(StatusCode::OK, "text/plain", body);
    response.headers_mut().insert("trailer", http::HeaderValue::from_static("x-checksum"));
    response
}

fn with_length(body: Body, length: u64) -> Response<Body> {
    let mut response = respond(StatusCode::OK, "application/octet-stream", body);
    response.headers_mut().insert(CONTENT_LENGTH, length.into());
    response
}

fn text(code: StatusCode, text: String) -> Response<Body> {
    respond(code, "text/plain; charset=utf-8", whole(text))
}

fn status(code: StatusCode) -> Response<Body> {
    text(code, format!("{code}\n"))
}

pub(crate) fn respond(code: StatusCode, kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

fn pairs(headers: &HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect()
}

fn queries(query: &str) -> HashMap<String, String> {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// SHA-256 as the TLS library has it, so that no other crate is needed.
fn sha256() -> &'static dyn hash::Hash {
    static HASH: OnceLock<&'static dyn hash::Hash> = OnceLock::new();
    *HASH.get_or_init(|| match rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256 {
        SupportedCipherSuite::Tls13(suite) => suite.common.hash_provider,
        SupportedCipherSuite::Tls12(suite) => suite.common.hash_provider,
    })
}

/// SHA-256 in hex.
pub(crate) fn digest(bytes: &[u8]) -> String {
    let mut digest = sha256().start();
    digest.update(bytes);
    hex(digest.finish().as_ref())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
