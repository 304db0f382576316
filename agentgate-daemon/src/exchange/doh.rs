//! DNS over HTTPS (RFC 8484) is HTTPS and judged as such; that it carries names, which nobody here
//! judges, is flagged.

use http::{
    HeaderMap,
    header::{ACCEPT, CONTENT_TYPE, HeaderName},
    request::Parts,
};

use crate::model::{Flag, Severity};

/// Media types of DNS in HTTP: RFC 8484, the JSON form that public resolvers offer, and RFC 9230.
const TYPES: [&str; 3] =
    ["application/dns-message", "application/dns-json", "application/oblivious-dns-message"];

/// The flag of a request that is, or asks for, DNS.
pub(super) fn flag(head: &Parts) -> Option<Flag> {
    let seen = if let Some(found) = media_type(&head.headers, &CONTENT_TYPE) {
        format!("content-type: {found}")
    } else if let Some(found) = media_type(&head.headers, &ACCEPT) {
        format!("accept: {found}")
    } else if is_query(head) {
        "a question in the query of /dns-query".to_owned()
    } else {
        return None;
    };
    Some(Flag::new("dns_over_https", Severity::Medium, seen))
}

fn media_type(headers: &HeaderMap, name: &HeaderName) -> Option<&'static str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let mut named =
        values.flat_map(|value| value.split(',')).map(|part| part.split(';').next().unwrap_or(part));
    named.find_map(|part| TYPES.into_iter().find(|known| known.eq_ignore_ascii_case(part.trim())))
}

/// `GET /dns-query?dns=…`, at any depth, and the `name=` of the JSON form.
fn is_query(head: &Parts) -> bool {
    let asks =
        |query: &str| query.split('&').any(|pair| pair.starts_with("dns=") || pair.starts_with("name="));
    head.uri.path().ends_with("/dns-query") && head.uri.query().is_some_and(asks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_is_told_from_other_requests() {
        for (target, header, flagged) in [
            ("/dns-query?dns=AAABAAABAAAAAAAAA3d3dwdleGFtcGxlA2NvbQAAAQAB", None, true),
            ("/x/dns-query?a=1&dns=AAAB", None, true),
            ("/dns-query?name=example.com&type=A", None, true),
            ("/dns-query", Some(("content-type", "application/dns-message")), true),
            ("/any", Some(("content-type", "Application/DNS-Message; charset=x")), true),
            ("/any", Some(("accept", "*/*, application/dns-message;q=0.5")), true),
            ("/resolve?name=example.com", Some(("accept", "application/dns-json")), true),
            ("/any", Some(("content-type", "application/oblivious-dns-message")), true),
            ("/dns-query", None, false),
            ("/dns-query?x=1", None, false),
            ("/search?dns=1", None, false),
            ("/any", Some(("accept", "application/json, text/plain")), false),
            ("/any", Some(("content-type", "application/dns-message-not")), false),
            ("/any", Some(("x-other", "application/dns-message")), false),
        ] {
            let mut request = http::Request::builder().uri(target);
            if let Some((name, value)) = header {
                request = request.header(name, value);
            }
            let (head, ()) = request.body(()).unwrap().into_parts();
            assert_eq!(flag(&head).is_some(), flagged, "{target} {header:?}");
        }
    }
}
