//! What every request meets before a page: host check, size limits, strict headers; and the checks
//! that pages and the API ask for: session, bearer token, CSRF.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    extract::{ConnectInfo, FromRequestParts, Request, State},
    http::{Extensions, HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts, uri},
    middleware::Next,
    response::{IntoResponse, Redirect, Response},
};
use http_body_util::LengthLimitError;

use super::{
    Shared,
    auth::{Session, is_name},
    journal::from,
    reply,
    seats::Seat,
    token::same,
};

/// The session cookie, for the session's own host: see `auth`. Not `__Host-`: that asks for TLS, which a
/// loopback address does not have.
pub(super) const COOKIE: &str = "agentgate_session";
/// Longest path and query, in bytes: every filter at its longest, percent-encoded, fits.
const MAX_TARGET: usize = 8 * 1024;

/// Longest body of a request, in bytes: the largest form holds one host name and two tokens.
const MAX_BODY: usize = 8 * 1024;
/// Time for a body to come, once the head is there.
const BODY_DEADLINE: Duration = Duration::from_secs(5);

/// No inline script or style, nothing from elsewhere, no framing.
const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                   connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// Headers of every response, errors too.
const HEADERS: [(&str, &str); 9] = [
    ("content-security-policy", CSP),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("x-content-type-options", "nosniff"),
    ("cache-control", "no-store"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("permissions-policy", "camera=(), geolocation=(), microphone=()"),
    ("x-robots-tag", "noindex"),
];

/// The outermost layer: refuses what is not addressed to this host, and hardens every response.
pub(super) async fn harden(request: Request, next: Next) -> Response {
    let target = request.uri().path_and_query().map_or(0, |t| t.as_str().len());
    let mut response = match called(&request) {
        None => reply::problem(
            StatusCode::MISDIRECTED_REQUEST,
            "The dashboard answers to 127.0.0.1, localhost, [::1] and the names of its sessions only.",
        ),
        Some(_) if target > MAX_TARGET => {
            reply::problem(StatusCode::URI_TOO_LONG, "The address is too long.")
        }
        Some(called) => match whole(request).await {
            Ok(mut request) => {
                request.extensions_mut().insert(called);
                next.run(request).await
            }
            Err(problem) => problem,
        },
    };
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// The request with its whole body in memory: one cap and one deadline for every handler.
async fn whole(request: Request) -> Result<Request, Response> {
    let (parts, body) = request.into_parts();
    let body = tokio::time::timeout(BODY_DEADLINE, axum::body::to_bytes(body, MAX_BODY)).await;
    match body {
        Ok(Ok(bytes)) => Ok(Request::from_parts(parts, bytes.into())),
        Ok(Err(error)) => Err(if error.into_inner().is::<LengthLimitError>() {
            reply::problem(StatusCode::PAYLOAD_TOO_LARGE, "The request is too large.")
        } else {
            reply::problem(StatusCode::BAD_REQUEST, "The request ended early.")
        }),
        Err(_) => Err(reply::problem(StatusCode::REQUEST_TIMEOUT, "The request took too long to come.")),
    }
}

/// What a request called the dashboard by, in `Host`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Called {
    /// First label of a session's host, if it was one; there may be no such session.
    pub(super) session: Option<String>,
    /// The port, which a tunnel may have changed.
    pub(super) port: Option<u16>,
}

/// What the request calls this server, so that no foreign name that was made to resolve to 127.0.0.1
/// (DNS rebinding) is answered. Any port: the browser may come through a tunnel.
fn called(request: &Request) -> Option<Called> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return None;
    };
    let called = host.to_str().ok()?.parse::<uri::Authority>().ok().and_then(|a| name(&a))?;
    // An absolute request target has to agree (RFC 9112, section 3.2.2).
    request.uri().authority().is_none_or(|a| name(a).as_ref() == Some(&called)).then_some(called)
}

fn name(authority: &uri::Authority) -> Option<Called> {
    let port = authority.port_u16();
    // User information is no part of a Host header, and the parser lets any text pass as a port.
    let whole = port.is_some() || authority.as_str() == authority.host();
    if authority.as_str().contains('@') || !whole {
        return None;
    }
    let host = authority.host().to_ascii_lowercase();
    if matches!(host.as_str(), "localhost" | "127.0.0.1" | "[::1]") {
        return Some(Called { session: None, port });
    }
    let label = host.strip_suffix(".localhost").filter(|label| is_name(label))?;
    Some(Called { session: Some(label.to_owned()), port })
}

/// Whether a browser says that this state-changing request comes from our own page. Clients that are
/// no browsers send neither header; they are held by the CSRF token or the bearer token.
pub(super) fn same_origin(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).map(|v: &HeaderValue| v.to_str().unwrap_or("?"));
    match (text(header::HeaderName::from_static("sec-fetch-site")), text(header::ORIGIN)) {
        // With `Referrer-Policy: no-referrer` browsers send `Origin: null` for our own forms (Fetch,
        // "append a request `Origin` header"), so Sec-Fetch-Site has the say where there is one.
        (Some(site), None | Some("null")) => site == "same-origin",
        (Some(site), Some(origin)) => site == "same-origin" && is_own(origin, headers),
        (None, Some(origin)) => is_own(origin, headers),
        (None, None) => true,
    }
}

fn is_own(origin: &str, headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|h| h.to_str().ok());
    origin.strip_prefix("http://").is_some_and(|rest| Some(rest) == host)
}

/// The address of the client, where the server recorded it.
pub(super) fn peer(extensions: &Extensions) -> Option<SocketAddr> {
    extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| *peer)
}

/// The client has shown who it is: its connection gives way to no stranger's.
pub(super) fn keep_seat(extensions: &Extensions) {
    if let Some(seat) = extensions.get::<Arc<Seat>>() {
        seat.keep();
    }
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}

/// `Set-Cookie` for a session, or to forget it.
pub(super) fn set_cookie(id: Option<&str>) -> String {
    match id {
        Some(id) => format!("{COOKIE}={id}; HttpOnly; SameSite=Strict; Path=/"),
        None => format!("{COOKIE}=; HttpOnly; SameSite=Strict; Path=/; Max-Age=0"),
    }
}

/// A logged-in browser.
#[derive(Debug)]
pub(super) struct Viewer {
    pub(super) session: Session,
    pub(super) peer: Option<SocketAddr>,
}

impl Viewer {
    /// Who this is, for the audit log.
    pub(super) fn who(&self) -> String {
        format!("dashboard session {} from {}", self.session.number, from(self.peer))
    }

    /// Whether a form with these headers and this CSRF token is one of this session's own.
    pub(super) fn sent(&self, headers: &HeaderMap, csrf: &str) -> bool {
        let own = same_origin(headers) && same(&self.session.csrf, csrf);
        if !own {
            tracing::warn!(who = self.who(), "dashboard: a form that does not belong to the session");
        }
        own
    }
}

impl FromRequestParts<Arc<Shared>> for Viewer {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, Response> {
        let called = parts.extensions.get::<Called>().and_then(|called| called.session.as_deref());
        let session = match (called, cookie(&parts.headers)) {
            (Some(name), Some(id)) => shared.door.find(name, id, Instant::now()),
            (Some(_) | None, _) => None,
        };
        match session {
            Some(session) => {
                keep_seat(&parts.extensions);
                Ok(Self { session, peer: peer(&parts.extensions) })
            }
            None if parts.method == Method::GET && parts.uri.path() != "/live" => {
                Err(Redirect::to("/login").into_response())
            }
            None => Err(reply::problem(StatusCode::UNAUTHORIZED, "Log in first.")),
        }
    }
}

/// A client of the API: with the bearer token, or, to read only, with a browser's session.
#[derive(Debug)]
pub(super) struct Client {
    /// Who this is, for the audit log.
    pub(super) who: String,
}

impl FromRequestParts<Arc<Shared>> for Client {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, Response> {
        let peer = peer(&parts.extensions);
        let Some(value) = parts.headers.get(header::AUTHORIZATION) else {
            if parts.method == Method::GET
                && let Ok(viewer) = Viewer::from_request_parts(parts, shared).await
            {
                return Ok(Self { who: viewer.who() });
            }
            return Err(reply::api_problem(StatusCode::UNAUTHORIZED, "send Authorization: Bearer TOKEN"));
        };
        let token = value.to_str().ok().and_then(bearer).unwrap_or_default();
        match shared.door.check(token, Instant::now()) {
            Ok(()) => {
                keep_seat(&parts.extensions);
                Ok(Self { who: format!("dashboard API from {}", from(peer)) })
            }
            Err(refused) => {
                let (status, retry) = shared.refused(&refused, peer).await;
                let mut response = reply::api_problem(status, "not the dashboard's token");
                if let Some(seconds) = retry {
                    response.headers_mut().insert(header::RETRY_AFTER, seconds);
                }
                Err(response)
            }
        }
    }
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Refuses a client that is not on this host, should the listener ever be bound elsewhere.
pub(super) async fn loopback_only(
    State(shared): State<Arc<Shared>>,
    request: Request,
    next: Next,
) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip());
    if peer.is_some_and(|ip: IpAddr| !ip.to_canonical().is_loopback()) {
        tracing::warn!(listen = %shared.listen, ?peer, "dashboard: refused a client that is not on this host");
        return reply::problem(StatusCode::FORBIDDEN, "Only clients on this host are served.");
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    #[test]
    fn only_loopback_names_are_ours() {
        const LABEL: &str = "gate-0123456789abcdef01234567";
        let session = format!("{LABEL}.localhost:7878");
        let loud = session.to_uppercase();
        let (plain, named) = (Some(None), Some(Some(LABEL)));
        /// Hosts, target, and the session's label if the name is ours.
        type Row<'a> = (&'a [&'a str], &'a str, Option<Option<&'a str>>);
        let rows: [Row<'_>; 24] = [
            (&["127.0.0.1:7878"], "/", plain),
            (&["localhost"], "/", plain),
            (&["LOCALHOST:9"], "/", plain),
            (&["[::1]:7878"], "/", plain),
            (&["127.0.0.1:7878"], "http://127.0.0.1:7878/", plain),
            (&[&session], "/", named),
            (&[&loud], "/", named),
            (&[&session], "http://localhost:7878/", None),
            (&["localhost:7878"], &format!("http://{session}/"), None),
            (&["gate-0123.localhost"], "/", None),
            (&["other.localhost"], "/", None),
            (&[&format!("a.{session}")], "/", None),
            (&[&format!("{session}.example")], "/", None),
            (&[&format!("{LABEL}.localhost.example")], "/", None),
            (&["localhost:7878.example"], "/", None),
            (&[], "/", None),
            (&["localhost", "localhost"], "/", None),
            (&["rebind.example"], "/", None),
            (&["localhost.rebind.example"], "/", None),
            (&["127.0.0.1.example:7878"], "/", None),
            (&["localhost@rebind.example"], "/", None),
            (&["rebind.example@localhost"], "/", None),
            (&["0.0.0.0:7878"], "/", None),
            (&["localhost"], "http://rebind.example/", None),
        ];
        for (hosts, target, expect) in rows {
            let mut request = Request::builder().uri(target);
            for host in hosts {
                request = request.header("host", *host);
            }
            let called = called(&request.body(Body::empty()).unwrap());
            let found = called.as_ref().map(|called| called.session.as_deref());
            assert_eq!(found, expect, "{hosts:?} {target}");
        }
    }

    #[test]
    fn origins() {
        let rows = [
            (None, None, true),
            (Some("same-origin"), None, true),
            (Some("same-origin"), Some("null"), true),
            (Some("same-origin"), Some("http://localhost:7878"), true),
            (Some("same-origin"), Some("http://evil.example"), false),
            (Some("same-site"), Some("http://localhost:1234"), false),
            (Some("cross-site"), None, false),
            (Some("none"), None, false),
            (None, Some("http://localhost:7878"), true),
            (None, Some("https://localhost:7878"), false),
            (None, Some("http://localhost:1234"), false),
            (None, Some("null"), false),
        ];
        for (site, origin, expect) in rows {
            let mut headers = HeaderMap::new();
            headers.insert("host", HeaderValue::from_static("localhost:7878"));
            if let Some(site) = site {
                headers.insert("sec-fetch-site", HeaderValue::from_static(site));
            }
            if let Some(origin) = origin {
                headers.insert("origin", HeaderValue::from_static(origin));
            }
            assert_eq!(same_origin(&headers), expect, "{site:?} {origin:?}");
        }
    }

    #[test]
    fn cookies_are_found_by_their_whole_name() {
        let rows = [
            ("agentgate_session=abc", Some("abc")),
            ("a=1; agentgate_session=abc; b=2", Some("abc")),
            ("xagentgate_session=abc", None),
            ("agentgate_session2=abc", None),
            ("", None),
        ];
        for (value, expect) in rows {
            let mut headers = HeaderMap::new();
            headers.insert("cookie", HeaderValue::from_static(value));
            assert_eq!(cookie(&headers), expect, "{value:?}");
        }
    }
}
