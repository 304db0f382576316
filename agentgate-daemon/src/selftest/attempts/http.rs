//! TLS and HTTP that lie about their destination.

use std::net::SocketAddr;

use super::tls;
use crate::selftest::{
    orders::{ALLOWED, ALLOWED_V4, ALLOWED_V6, FORBIDDEN},
    report::Family::Http,
    suite::Attempt,
    sys,
    tried::{At as _, Attempted, Try},
};

const AGREE: &str = "the gate: SNI, Host or :authority and the approved name must agree (421)";
const OWN: &str = "the gate dials its own resolution of the name, and refuses an address it never gave";

pub(super) const ATTEMPTS: &[Attempt] = &[
    Attempt::new(Http, "fronting-host", "allowed SNI, another Host (domain fronting)", AGREE, |t| {
        tls::request(t, origin(443), ALLOWED, FORBIDDEN)
    }),
    Attempt::new(Http, "fronting-host6", "the same over IPv6", AGREE, |t| {
        tls::request(t, SocketAddr::from((ALLOWED_V6, 443)), ALLOWED, FORBIDDEN)
    }),
    Attempt::new(Http, "fronting-second-request", "an allowed request, then another Host", AGREE, |t| {
        let first = format!("GET / HTTP/1.1\r\nHost: {ALLOWED}\r\n\r\n").into_bytes();
        let bytes = [first, t.request(FORBIDDEN)].concat();
        tls::raw(t, origin(443), ALLOWED, &[b"http/1.1"], &bytes)?;
        // The sinks answer the first request alone: outside the second goes by a connection of its own.
        if t.orders.guarded { Ok(()) } else { tls::request(t, origin(443), ALLOWED, FORBIDDEN) }
    }),
    Attempt::new(Http, "fronting-absolute", "allowed Host, another name in the request line", AGREE, |t| {
        let token = &t.orders.token;
        let bytes =
            format!("GET http://{FORBIDDEN}/{token} HTTP/1.1\r\nHost: {ALLOWED}\r\n\r\n").into_bytes();
        tls::raw(t, origin(443), ALLOWED, &[b"http/1.1"], &bytes)
    }),
    Attempt::new(Http, "fronting-two-hosts", "two Host headers", AGREE, |t| {
        let token = &t.orders.token;
        let bytes =
            format!("GET /{token} HTTP/1.1\r\nHost: {FORBIDDEN}\r\nHost: {ALLOWED}\r\n\r\n").into_bytes();
        tls::raw(t, origin(443), ALLOWED, &[b"http/1.1"], &bytes)
    }),
    Attempt::new(Http, "fronting-h2-authority", "allowed SNI, another :authority in HTTP/2", AGREE, |t| {
        if !t.orders.guarded {
            // The sinks speak HTTP/1 alone; the same lie in its words.
            return tls::request(t, origin(443), ALLOWED, FORBIDDEN);
        }
        let bytes = http2(FORBIDDEN, &t.orders.token);
        tls::raw(t, origin(443), ALLOWED, &[b"h2"], &bytes)
    }),
    Attempt::new(Http, "smuggled-request", "hides a request in the body of an allowed one", AGREE, |t| {
        if !t.orders.guarded {
            return tls::request(t, origin(443), ALLOWED, FORBIDDEN);
        }
        let hidden = String::from_utf8_lossy(&t.request(FORBIDDEN)).into_owned();
        let bytes = format!(
            "POST / HTTP/1.1\r\nHost: {ALLOWED}\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"
        );
        tls::raw(t, origin(443), ALLOWED, &[b"http/1.1"], bytes.as_bytes())
    }),
    Attempt::new(Http, "forged-sni4", "an allowed SNI to a foreign address", OWN, |t| {
        tls::request(t, t.v4(443), ALLOWED, ALLOWED)
    }),
    Attempt::new(Http, "forged-sni6", "the same over IPv6", OWN, |t| {
        tls::request(t, t.v6(443), ALLOWED, ALLOWED)
    }),
    Attempt::new(Http, "no-sni", "TLS without a server name", "the gate refuses what names nobody", |t| {
        tls::request(t, t.v4(443), "", ALLOWED)
    }),
    Attempt::new(Http, "forged-sni-not-http", "an allowed SNI, then something that is no HTTP", OWN, |t| {
        let bytes = t.payload();
        tls::raw(t, t.v4(443), ALLOWED, &[b"selftest"], &bytes)
    }),
    Attempt::new(Http, "encrypted-hello", "a ClientHello with a grease ECH extension", OWN, |t| {
        let socket = sys::socket(libc::AF_INET, libc::SOCK_STREAM, 0).at("socket")?;
        sys::connect(&socket, &sys::sockaddr(t.v4(443))).at("connect")?;
        let hello = hello_with_ech(&t.orders.token);
        sys::send(&socket, &hello, 0).at("send")?;
        t.hear(&socket)
    }),
    Attempt::new(Http, "plain-forged-host", "plain HTTP to a foreign address, allowed Host", OWN, |t| {
        let socket = sys::socket(libc::AF_INET, libc::SOCK_STREAM, 0).at("socket")?;
        sys::connect(&socket, &sys::sockaddr(t.v4(80))).at("connect")?;
        t.speak(&socket, ALLOWED)
    }),
    Attempt::new(Http, "plain-forged-host6", "the same over IPv6", OWN, |t| {
        let socket = sys::socket(libc::AF_INET6, libc::SOCK_STREAM, 0).at("socket")?;
        sys::connect(&socket, &sys::sockaddr(t.v6(80))).at("connect")?;
        t.speak(&socket, ALLOWED)
    }),
    Attempt::new(Http, "plain-absolute", "plain HTTP, absolute form with another name", AGREE, |t| {
        let token = &t.orders.token;
        let bytes =
            format!("GET http://{FORBIDDEN}/{token} HTTP/1.1\r\nHost: {ALLOWED}\r\n\r\n").into_bytes();
        plain(t, &bytes)
    }),
    Attempt::new(Http, "plain-connect", "asks the allowed origin to be a proxy (CONNECT)", AGREE, |t| {
        let token = &t.orders.token;
        let bytes =
            format!("CONNECT {FORBIDDEN}:443 HTTP/1.1\r\nHost: {FORBIDDEN}:443\r\nx-data: {token}\r\n\r\n");
        plain(t, bytes.as_bytes())
    }),
    Attempt::new(Http, "upgrade-websocket", "upgrades to a WebSocket at a foreign name", AGREE, |t| {
        let token = &t.orders.token;
        let bytes = format!(
            "GET /{token} HTTP/1.1\r\nHost: {FORBIDDEN}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        );
        plain(t, bytes.as_bytes())
    }),
    Attempt::new(Http, "forbidden-name", "an honest request for a name that is not allowed", AGREE, |t| {
        tls::request(t, t.v4(443), FORBIDDEN, FORBIDDEN)
    }),
];

fn origin(port: u16) -> SocketAddr {
    SocketAddr::from((ALLOWED_V4, port))
}

/// Plain HTTP to the allowed origin.
fn plain(tried: &mut Try, bytes: &[u8]) -> Attempted {
    let socket = sys::socket(libc::AF_INET, libc::SOCK_STREAM, 0).at("socket")?;
    sys::connect(&socket, &sys::sockaddr(origin(80))).at("connect")?;
    sys::send(&socket, bytes, 0).at("send")?;
    tried.hear(&socket)
}

/// A connection of HTTP/2 with one request: preface, settings, headers (RFC 9113, RFC 7541 without
/// tables or Huffman codes).
fn http2(authority: &str, token: &str) -> Vec<u8> {
    let path = format!("/{token}");
    let mut block = Vec::new();
    for (name, value) in
        [(":method", "GET"), (":scheme", "https"), (":authority", authority), (":path", path.as_str())]
    {
        // A literal without indexing, with a new name.
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap_or(u8::MAX >> 1));
            block.extend(text.as_bytes());
        }
    }
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
    let length = u16::try_from(block.len()).unwrap_or_default().to_be_bytes();
    // HEADERS of stream 1, END_STREAM and END_HEADERS.
    bytes.extend([0, length[0], length[1], 1, 5, 0, 0, 0, 1]);
    bytes.extend(block);
    bytes
}

/// A ClientHello without a server name in the open, but with `encrypted_client_hello` (0xfe0d).
fn hello_with_ech(token: &str) -> Vec<u8> {
    let secret = token.as_bytes();
    let short = |n: usize| u16::try_from(n).unwrap_or_default().to_be_bytes();
    let mut extensions = Vec::new();
    extensions.extend([0xfe, 0x0d]);
    extensions.extend(short(secret.len()));
    extensions.extend(secret);
    // supported_versions: TLS 1.3.
    extensions.extend([0, 43, 0, 3, 2, 3, 4]);
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.push(0);
    body.extend([0, 2, 0x13, 1, 1, 0]);
    body.extend(short(extensions.len()));
    body.extend(extensions);
    let mut handshake = vec![1, 0];
    handshake.extend(short(body.len()));
    handshake.extend(body);
    let mut record = vec![22, 3, 1];
    record.extend(short(handshake.len()));
    record.extend(handshake);
    record
}
