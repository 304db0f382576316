//! Heads carried from one side to the other: what belongs to one connection stays on it, everything
//! else goes on as it came.

use http::{
    HeaderMap, HeaderValue, Uri, Version,
    header::{CONNECTION, CONTENT_LENGTH, COOKIE, HOST, HeaderName, TE, TRANSFER_ENCODING, UPGRADE},
    request, response,
    uri::PathAndQuery,
};

use crate::policy::Destination;

/// Fields that describe one connection (RFC 9110 7.6.1) besides those that `Connection` names.
const HOP_BY_HOP: [HeaderName; 5] = [
    CONNECTION,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Keeps the fields that `keep` accepts, in their order (`HeaderMap::remove` would move the last one
/// into the gap).
fn retain(headers: &mut HeaderMap, keep: impl Fn(&HeaderName, &HeaderValue) -> bool) {
    if headers.iter().all(|(name, value)| keep(name, value)) {
        return;
    }
    let mut kept = HeaderMap::with_capacity(headers.keys_len());
    for (name, value) in &*headers {
        if keep(name, value) {
            kept.append(name.clone(), value.clone());
        }
    }
    *headers = kept;
}

fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        // A client must not be able to drop what routing and framing depend on.
        .filter(|name| ![HOST, CONTENT_LENGTH, TE].contains(name))
        .collect();
    retain(headers, |name, value| {
        !HOP_BY_HOP.contains(name) && !named.contains(name) && (name != TE || value.as_bytes() == b"trailers")
    });
}

/// The target cannot be written as a URI to the approved destination.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the request target cannot be carried to the origin")]
pub struct BadTarget;

/// Makes a judged head fit for a connection that speaks `version` to `destination`.
///
/// # Errors
/// [`BadTarget`].
pub fn to_origin(
    head: &mut request::Parts,
    destination: &Destination,
    version: Version,
) -> Result<(), BadTarget> {
    let authority = head.uri.authority().map(|a| a.as_str().to_owned());
    let path = head.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    strip(&mut head.headers);
    let came_as = std::mem::replace(&mut head.version, version);
    if version == Version::HTTP_2 {
        let host = match head.headers.get(HOST).filter(|value| !value.is_empty()) {
            Some(value) => value.to_str().map_err(|_| BadTarget)?.to_owned(),
            None => authority.ok_or(BadTarget)?,
        };
        retain(&mut head.headers, |name, _| name != HOST);
        head.uri = Uri::builder()
            .scheme(destination.scheme.as_str())
            .authority(host)
            .path_and_query(path)
            .build()
            .map_err(|_| BadTarget)?;
        return Ok(());
    }
    if head.headers.get(HOST).is_none_or(HeaderValue::is_empty) {
        let host = authority.ok_or(BadTarget)?;
        head.headers.insert(HOST, HeaderValue::from_str(&host).map_err(|_| BadTarget)?);
    }
    // RFC 9113 8.2.3: crumbs of a cookie are joined again where they meet HTTP/1.
    let crumbs: Vec<HeaderValue> = head.headers.get_all(COOKIE).iter().cloned().collect();
    if came_as == Version::HTTP_2 && crumbs.len() > 1 {
        let joined = crumbs.iter().map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b"; "[..]);
        head.headers.insert(COOKIE, HeaderValue::from_bytes(&joined).map_err(|_| BadTarget)?);
    }
    head.uri = path.into();
    Ok(())
}

/// True with a transfer coding besides `chunked` (RFC 9112 7): hyper unwraps only that, and a body
/// still coded must not pass as plain.
#[must_use]
pub fn has_other_coding(headers: &HeaderMap) -> bool {
    let codings = headers.get_all(TRANSFER_ENCODING).iter();
    codings
        .flat_map(|value| value.as_bytes().split(|b| *b == b','))
        .any(|coding| !coding.trim_ascii().eq_ignore_ascii_case(b"chunked"))
}

/// Makes an origin's head fit for the agent's connection.
pub fn to_agent(head: &mut response::Parts, version: Version) {
    strip(&mut head.headers);
    head.version = version;
}

/// The word for the record.
#[must_use]
pub fn version_str(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_11 => "HTTP/1.1",
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_3 => "HTTP/3",
        _ => "HTTP/?",
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::{
        model::{Authority, Host},
        policy::Scheme,
    };

    fn destination() -> Destination {
        let authority = Authority { host: Host::parse("api.example.com").unwrap(), port: 443 };
        Destination { scheme: Scheme::Https, authority }
    }

    fn head(request: request::Builder) -> request::Parts {
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn http1_to_http2_and_back() {
        let mut one = head(
            Request::get("/a?b=c")
                .header("host", "api.example.com")
                .header("connection", "close, x-private, host")
                .header("x-private", "1")
                .header("te", "trailers")
                .header("x-kept", "2"),
        );
        to_origin(&mut one, &destination(), Version::HTTP_2).unwrap();
        assert_eq!(one.uri, "https://api.example.com/a?b=c");
        let names: Vec<&str> = one.headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["te", "x-kept"]);

        let mut two = head(
            Request::get("https://api.example.com/a?b=c")
                .version(Version::HTTP_2)
                .header("cookie", "a=1")
                .header("cookie", "b=2"),
        );
        to_origin(&mut two, &destination(), Version::HTTP_11).unwrap();
        assert_eq!(two.uri, "/a?b=c");
        assert_eq!(two.headers["host"], "api.example.com");
        assert_eq!(two.headers["cookie"], "a=1; b=2");
    }

    #[test]
    fn an_absolute_target_becomes_origin_form() {
        let mut head = head(Request::get("http://api.example.com/x").header("host", "api.example.com"));
        to_origin(&mut head, &destination(), Version::HTTP_11).unwrap();
        assert_eq!(head.uri, "/x");
    }
}
