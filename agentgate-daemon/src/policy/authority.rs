//! Whom a request says it is for: absolute form or `:authority`, else `Host`, and never two answers.

use http::{HeaderValue, Method, Version, header::HOST, request::Parts};

use super::{pattern::split_port, permit::Scheme, refusal};
use crate::model::{Host, Refusal, Severity};

/// The name in a request's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) host: Host,
    /// As written; `None` where the head leaves it out.
    pub(super) port: Option<u16>,
}

/// A head that cannot be judged.
#[derive(Debug)]
pub(super) struct Misnamed {
    pub(super) refusal: Refusal,
    /// The name it has nonetheless, for the record.
    pub(super) named: Option<Named>,
}

/// Reads the name of `head`, which came over `scheme`.
pub(super) fn read(head: &Parts, scheme: Scheme) -> Result<Named, Box<Misnamed>> {
    let boxed = |refusal, named| Box::new(Misnamed { refusal, named });
    let misnamed = |code, severity, status, reason: &str| {
        boxed(refusal::invariant(code, severity, status, reason), None)
    };
    let target = match head.uri.authority() {
        Some(authority) => Some(parse(authority.as_str()).ok_or_else(|| {
            misnamed("invalid_host", Severity::Medium, 400, "the request's target has no valid host")
        })?),
        None => None,
    };
    let mut hosts = head.headers.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        let mut misnamed =
            misnamed("duplicate_host", Severity::High, 400, "the request has more than one Host header");
        misnamed.named = target;
        return Err(misnamed);
    }
    let host = match host.filter(|value| !value.is_empty()) {
        Some(value) => Some(parse_header(value).ok_or_else(|| {
            misnamed("invalid_host", Severity::Medium, 400, "the request's Host header is not a valid host")
        })?),
        None => None,
    };
    let named = match (target, host) {
        (Some(target), Some(host)) if !agree(&target, &host, scheme) => {
            let refusal = refusal::mismatch(&target.host, &format!("its own Host header, {}", host.host));
            return Err(boxed(refusal, Some(target)));
        }
        (Some(named), _) | (None, Some(named)) => named,
        (None, None) => {
            return Err(misnamed("missing_host", Severity::Medium, 400, "the request names no host"));
        }
    };
    if let Some(other) = head.uri.scheme_str().filter(|other| *other != scheme.as_str()) {
        let refusal = refusal::mismatch(&named.host, &format!("{}, its target for {other}", scheme.as_str()));
        return Err(boxed(refusal, Some(named)));
    }
    if asks_for_a_tunnel(head) {
        // What follows a CONNECT is not HTTP, so nothing after it could be judged or recorded.
        let reason = "CONNECT asks for a tunnel, which cannot be judged";
        let refusal = refusal::invariant("connect", Severity::High, 403, reason);
        return Err(boxed(refusal, Some(named)));
    }
    Ok(named)
}

/// Plain CONNECT. The extended one of HTTP/2 (RFC 8441) has a scheme and a path, and is an ordinary
/// request to an ordinary origin.
fn asks_for_a_tunnel(head: &Parts) -> bool {
    head.method == Method::CONNECT && (head.version < Version::HTTP_2 || head.uri.scheme().is_none())
}

fn agree(target: &Named, host: &Named, scheme: Scheme) -> bool {
    let default = match scheme {
        Scheme::Http => 80,
        Scheme::Https => 443,
    };
    target.host == host.host && target.port.unwrap_or(default) == host.port.unwrap_or(default)
}

fn parse_header(value: &HeaderValue) -> Option<Named> {
    parse(value.to_str().ok()?)
}

/// `host[:port]`; user information, paths and everything else that is not a host makes it invalid.
fn parse(text: &str) -> Option<Named> {
    let (host, port) = split_port(text)?;
    Some(Named { host: Host::parse(host).ok()?, port })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(method: &str, uri: &str, version: Version, hosts: &[&[u8]]) -> Parts {
        let mut request = http::Request::builder().method(method).uri(uri).version(version).body(()).unwrap();
        for host in hosts {
            request.headers_mut().append(HOST, HeaderValue::from_bytes(host).unwrap());
        }
        request.into_parts().0
    }

    #[test]
    fn names() {
        let h1 = Version::HTTP_11;
        let h2 = Version::HTTP_2;
        // method, target, version, Host headers: name or code
        type Row<'a> = (&'a str, &'a str, Version, &'a [&'a [u8]], &'a str);
        let rows: [Row<'_>; 33] = [
            ("GET", "/", h1, &[b"a.test"], "a.test"),
            ("GET", "/", h1, &[b"A.Test."], "a.test"),
            ("GET", "/", h1, &[b"a.test:8443"], "a.test:8443"),
            ("GET", "/", h1, &[b"[2001:db8::1]:443"], "2001:db8::1:443"),
            ("GET", "/", h1, &[b"[2001:db8::1]"], "2001:db8::1"),
            ("OPTIONS", "*", h1, &[b"a.test"], "a.test"),
            ("GET", "/", h1, &[], "invariant:missing_host"),
            ("GET", "/", h1, &[b""], "invariant:missing_host"),
            ("GET", "/", h1, &[b"a.test", b"a.test"], "invariant:duplicate_host"),
            ("GET", "/", h1, &[b"a.test", b"b.test"], "invariant:duplicate_host"),
            ("GET", "/", h1, &[b"a.test", b""], "invariant:duplicate_host"),
            ("GET", "/", h1, &[b"user:pass@a.test"], "invariant:invalid_host"),
            ("GET", "/", h1, &[b"a.test/x"], "invariant:invalid_host"),
            ("GET", "/", h1, &[b"a.test, b.test"], "invariant:invalid_host"),
            ("GET", "/", h1, &[b"a.test:"], "invariant:invalid_host"),
            ("GET", "/", h1, &[b"a.test:0"], "invariant:invalid_host"),
            ("GET", "/", h1, &[b"a.test:99999"], "invariant:invalid_host"),
            ("GET", "/", h1, &[b"[a.test]"], "invariant:invalid_host"),
            ("GET", "/", h1, &[b"2001:db8::zz"], "invariant:invalid_host"),
            ("GET", "/", h1, &[b"b\xc3\xbccher.test"], "invariant:invalid_host"),
            ("GET", "/", h1, &[b"a%2etest"], "invariant:invalid_host"),
            ("GET", "/", h1, &[b"2130706433"], "invariant:invalid_host"),
            ("GET", "https://a.test/", h1, &[b"a.test"], "a.test"),
            ("GET", "https://a.test/", h1, &[b"a.test:443"], "a.test"),
            ("GET", "https://a.test/", h1, &[b"b.test"], "invariant:destination_mismatch"),
            ("GET", "https://a.test/", h1, &[b"a.test:8443"], "invariant:destination_mismatch"),
            ("GET", "http://a.test/", h1, &[b"a.test"], "invariant:destination_mismatch"),
            ("GET", "https://a.test/", h2, &[], "a.test"),
            ("GET", "https://u:p@a.test/", h2, &[], "invariant:invalid_host"),
            ("CONNECT", "a.test:443", h1, &[b"a.test:443"], "invariant:connect"),
            ("CONNECT", "a.test:443", h2, &[], "invariant:connect"),
            ("CONNECT", "https://a.test/", h1, &[b"a.test"], "invariant:connect"),
            ("CONNECT", "https://a.test/chat", h2, &[], "a.test"),
        ];
        for (method, uri, version, hosts, expect) in rows {
            let found = match read(&head(method, uri, version, hosts), Scheme::Https) {
                Ok(Named { host, port: Some(port) }) => format!("{host}:{port}"),
                Ok(Named { host, port: None }) => host.to_string(),
                Err(misnamed) => misnamed.refusal.verdict.rule,
            };
            assert_eq!(found, expect, "{method} {uri} {hosts:?}");
        }
    }

    #[test]
    fn credentials_in_a_host_are_not_repeated() {
        let misnamed =
            read(&head("GET", "/", Version::HTTP_11, &[b"u:secret@a.test"]), Scheme::Http).unwrap_err();
        assert!(!format!("{misnamed:?}").contains("secret"));
    }
}
