//! Names of questions: as text for people and records, and as what policy knows.

use hickory_proto::rr::Name;

use crate::{model::Host, policy::Queried};

/// Lower case, without the trailing dot, escaped as in zone files (RFC 1035 5.1, RFC 4343 2.1); the root
/// is `.`.
pub(super) fn text(name: &Name) -> String {
    let mut text = String::with_capacity(name.len());
    for label in name.iter() {
        if !text.is_empty() {
            text.push('.');
        }
        for byte in label {
            match byte.to_ascii_lowercase() {
                special @ (b'.' | b'\\' | b'"' | b';' | b'(' | b')' | b'@' | b'$') => {
                    text.push('\\');
                    text.push(char::from(special));
                }
                plain @ b'!'..=b'~' => text.push(char::from(plain)),
                other => text.push_str(&format!("\\{other:03}")),
            }
        }
    }
    if text.is_empty() { ".".to_owned() } else { text }
}

/// What a name is to policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Host(Host),
    Below(Host),
    Other,
}

impl Asked {
    /// Of a name in the form of [`text`].
    pub(super) fn of(text: &str) -> Self {
        if let Some(host) = host(text) {
            return Self::Host(host);
        }
        // An escaped dot is no boundary between labels, but what follows it is then no host either,
        // because the escape before it is not part of one.
        let mut parents = text.match_indices('.').filter(|(dot, _)| !text.get(..*dot).is_some_and(escapes));
        let parent = parents.find_map(|(dot, _)| text.get(dot + 1..).and_then(host));
        parent.map_or(Self::Other, Self::Below)
    }

    pub(super) fn queried(&self) -> Queried<'_> {
        match self {
            Self::Host(host) => Queried::Host(host),
            Self::Below(host) => Queried::Below(host),
            Self::Other => Queried::Other,
        }
    }

    /// The host that answers are judged for: itself, or the one it is below.
    pub(super) fn named(&self) -> Option<&Host> {
        match self {
            Self::Host(host) | Self::Below(host) => Some(host),
            Self::Other => None,
        }
    }

    /// The host that answers are remembered for.
    pub(super) fn host(&self) -> Option<&Host> {
        match self {
            Self::Host(host) => Some(host),
            Self::Below(_) | Self::Other => None,
        }
    }
}

/// Whether what stands after `before` is escaped by it.
fn escapes(before: &str) -> bool {
    before.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1
}

/// A host that is written as it is compared, and is no address: `127.0.0.1` as a name has four labels
/// that nobody should have.
fn host(text: &str) -> Option<Host> {
    Host::parse(text).ok().filter(|host| host.as_str() == text && host.as_ip().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_words() {
        for (labels, expect, asked) in [
            (&[&b"API"[..], b"Example", b"com"][..], "api.example.com", "host"),
            (&[b"_srv", b"_tcp", b"example", b"com"], "_srv._tcp.example.com", "host"),
            (&[], ".", "other"),
            (&[b"*", b"example", b"com"], "*.example.com", "below example.com"),
            (&[b"a b", b"example", b"com"], "a\\032b.example.com", "below example.com"),
            (&[b"a.b", b"example", b"com"], "a\\.b.example.com", "below example.com"),
            (&[b"a", b"x.evil", b"com"], "a.x\\.evil.com", "below com"),
            (&[b"a\\", b"example", b"com"], "a\\\\.example.com", "below example.com"),
            (&[b"\xff\0", b"com"], "\\255\\000.com", "below com"),
            (&[b"127", b"0", b"0", b"1"], "127.0.0.1", "other"),
            (&[b"x", b"0x7f"], "x.0x7f", "other"),
            (&[b"xn--", b"com"], "xn--.com", "below com"),
            (&[b"::1"], "::1", "other"),
        ] {
            let name = Name::from_labels(labels.iter().copied()).unwrap();
            assert_eq!(text(&name), expect);
            let got = match Asked::of(&text(&name)) {
                Asked::Host(host) => {
                    assert_eq!(host.as_str(), expect);
                    "host".to_owned()
                }
                Asked::Below(host) => format!("below {host}"),
                Asked::Other => "other".to_owned(),
            };
            assert_eq!(got, asked, "{expect}");
        }
    }
}
