//! What a connection speaks, judged by its first bytes.

use super::client_hello::{self, ClientHello, InvalidHello};

/// The verdict on some first bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// More bytes are needed.
    Incomplete,
    Tls(ClientHello),
    /// Starts like TLS and cannot be a ClientHello.
    InvalidTls(InvalidHello),
    Http1,
    /// HTTP/2 with prior knowledge (RFC 9113 3.4).
    Http2,
    Other,
}

/// The client connection preface of HTTP/2.
pub const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Longest method that is taken for one; the registry's longest has 17 letters.
const LONGEST_METHOD: usize = 24;

/// Classifies. The answer for a prefix is either `Incomplete` or the answer for the whole.
#[must_use]
pub fn classify(bytes: &[u8]) -> Protocol {
    match bytes.first() {
        None => return Protocol::Incomplete,
        Some(22) => {
            return match bytes.get(1) {
                None => Protocol::Incomplete,
                Some(3) => match client_hello::parse(bytes) {
                    client_hello::Parsed::Incomplete => Protocol::Incomplete,
                    client_hello::Parsed::Complete(hello) => Protocol::Tls(hello),
                    client_hello::Parsed::Invalid(why) => Protocol::InvalidTls(why),
                },
                Some(_) => Protocol::Other,
            };
        }
        Some(_) => {}
    }
    if HTTP2_PREFACE.starts_with(bytes) && bytes.len() < HTTP2_PREFACE.len() {
        return Protocol::Incomplete;
    }
    if bytes.starts_with(HTTP2_PREFACE) {
        return Protocol::Http2;
    }
    http1(bytes)
}

/// `METHOD SP target`: upper-case letters, then a space, then a target's first character.
fn http1(bytes: &[u8]) -> Protocol {
    let method = bytes.iter().take_while(|b| b.is_ascii_uppercase() || **b == b'-' || **b == b'_').count();
    if method > LONGEST_METHOD {
        return Protocol::Other;
    }
    match (method, bytes.get(method), bytes.get(method + 1)) {
        (_, None, _) => Protocol::Incomplete,
        (1.., Some(b' '), None) => Protocol::Incomplete,
        (1.., Some(b' '), Some(b'/' | b'h' | b'H' | b'*')) => Protocol::Http1,
        // authority-form: the HTTP stage refuses CONNECT with an answer that can be read.
        (7, Some(b' '), Some(_)) if bytes.starts_with(b"CONNECT ") => Protocol::Http1,
        _ => Protocol::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_prefix_agrees_with_the_whole() {
        let rows: [(&[u8], Protocol); 12] = [
            (b"GET / HTTP/1.1\r\n", Protocol::Http1),
            (b"POST /v1/messages HTTP/1.1\r\n", Protocol::Http1),
            (b"OPTIONS * HTTP/1.1\r\n", Protocol::Http1),
            (b"GET http://example.com/ HTTP/1.1\r\n", Protocol::Http1),
            (b"CONNECT example.com:443 HTTP/1.1\r\n", Protocol::Http1),
            (b"PROPFIND /dav HTTP/1.1\r\n", Protocol::Http1),
            (HTTP2_PREFACE, Protocol::Http2),
            (b"SSH-2.0-OpenSSH_9.6\r\n", Protocol::Other),
            (b"EHLO example.com\r\n", Protocol::Other),
            (b"PRI * HTTP/2.0\r\n\r\nXX", Protocol::Http1),
            (b"\x16\x04garbage", Protocol::Other),
            (b"\x00\x00\x00\x08\x04\xd2\x16\x2f", Protocol::Other),
        ];
        for (bytes, expect) in rows {
            assert_eq!(classify(bytes), expect, "{:?}", String::from_utf8_lossy(bytes));
            for end in 0..bytes.len() {
                let part = classify(&bytes[..end]);
                assert!(
                    part == Protocol::Incomplete || part == expect,
                    "prefix {end} of {bytes:?}: {part:?}"
                );
            }
        }
    }
}
