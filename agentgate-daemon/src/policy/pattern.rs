//! Host patterns as people write them: `example.com`, `*.example.com`, `*`, addresses, each with an
//! optional `:port`.

use std::{borrow::Cow, fmt, net::IpAddr, str::FromStr};

use crate::model::Host;

/// Longest pattern that is read, in bytes: a name of 253 with a wildcard and port fits many times
/// over, so that what is longer is no pattern.
const LONGEST: usize = 1024;

/// Which names a pattern covers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NamePattern {
    /// `*`: every name and address.
    Any,
    /// `*.example.com`: names below, at any depth, but not the name itself.
    Below(Host),
    /// One name or address.
    Exact(Host),
}

/// A name pattern and, where given, the only port it holds for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPattern {
    pub name: NamePattern,
    /// `None`: every port.
    pub port: Option<u16>,
}

/// The text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}; {hint}")]
pub struct InvalidPattern {
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub hint: String,
}

impl HostPattern {
    /// Reads one pattern; surrounding blanks are cut.
    ///
    /// # Errors
    /// [`InvalidPattern`], with what would be right.
    pub fn parse(text: &str) -> Result<Self, InvalidPattern> {
        let text = text.trim();
        refuse_lookalikes(text)?;
        let invalid = |hint: &str| InvalidPattern {
            message: format!("{:?} is not a host pattern", shown(text)),
            hint: hint.to_owned(),
        };
        let (name, port) =
            split_port(text).ok_or_else(|| invalid("write the port as a number from 1 to 65535"))?;
        let name = match name {
            "*" => NamePattern::Any,
            _ => match name.strip_prefix("*.") {
                Some(parent) => {
                    let parent = Host::parse(parent)
                        .ok()
                        .filter(|parent| parent.as_ip().is_none())
                        .ok_or_else(|| invalid("after `*.` stands a name, as in *.example.com"))?;
                    NamePattern::Below(parent)
                }
                None if name.contains('*') => {
                    return Err(invalid("`*` stands alone or first, as in *.example.com"));
                }
                None => NamePattern::Exact(Host::parse(name).map_err(|_| {
                    invalid("write a name, *.name, an address or *, each with an optional :port")
                })?),
            },
        };
        Ok(Self { name, port })
    }

    /// As it is written.
    pub(super) fn text(&self) -> Cow<'_, str> {
        match (&self.name, self.port) {
            (NamePattern::Exact(host), None) => Cow::Borrowed(host.as_str()),
            (NamePattern::Any, None) => Cow::Borrowed("*"),
            (NamePattern::Any | NamePattern::Below(_) | NamePattern::Exact(_), _) => {
                Cow::Owned(self.to_string())
            }
        }
    }
}

/// What people paste that is not a host, each with its own hint.
fn refuse_lookalikes(text: &str) -> Result<(), InvalidPattern> {
    let refuse = |message: &str, hint: String| {
        Err(InvalidPattern { message: format!("{:?} {message}", shown(text)), hint })
    };
    if text.is_empty() {
        return Err(InvalidPattern {
            message: "an empty host pattern".to_owned(),
            hint: "write a name, *.name, an address or *".to_owned(),
        });
    }
    if text.len() > LONGEST {
        return refuse("is too long for a host pattern", "names have at most 253 characters".to_owned());
    }
    if text.contains(char::is_whitespace) {
        return refuse("is more than one word", "write one pattern per line or string".to_owned());
    }
    if let Some((_, rest)) = text.split_once("://") {
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        return refuse("is a URL", format!("write the host alone: {:?}", shown(host)));
    }
    if text.parse::<ipnet::IpNet>().is_ok() {
        return refuse(
            "is an address range",
            "ranges go to policy.toml: cidrs = [{ allow = \"10.1.2.0/24\" }] under [network]".to_owned(),
        );
    }
    if let Some((host, _)) = text.split_once('/') {
        return refuse("has a path", format!("write the host alone: {:?}", shown(host)));
    }
    if let Some(name) = text.strip_prefix('.') {
        return refuse("begins with a dot", format!("names below one are \"*.{}\"", shown(name)));
    }
    Ok(())
}

/// `text` cut to a length that fits a message.
fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

/// Splits `host[:port]`, where the host may be an IPv6 address (bracketed when a port follows). The
/// host is not looked at further. `None` where the port is not one.
pub(super) fn split_port(text: &str) -> Option<(&str, Option<u16>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (inside, after) = rest.split_once(']')?;
        // Only IPv6 stands in brackets (RFC 3986 3.2.2).
        inside.parse::<std::net::Ipv6Addr>().ok()?;
        return match after {
            "" => Some((inside, None)),
            _ => Some((inside, Some(port(after.strip_prefix(':')?)?))),
        };
    }
    match text.rsplit_once(':') {
        // More than one: an address, or nothing.
        Some((host, _)) if host.contains(':') && text.parse::<IpAddr>().is_ok() => Some((text, None)),
        Some((host, digits)) => Some((host, Some(port(digits)?))),
        None => Some((text, None)),
    }
}

/// A port in decimal digits, nothing else: `u16::from_str` would take a sign as well.
fn port(digits: &str) -> Option<u16> {
    if digits.len() > 5 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().filter(|port| *port != 0)
}

/// The pattern on one line of a list file, `None` on a blank or comment line.
#[must_use]
pub fn list_entry(line: &str) -> Option<&str> {
    // No pattern has a `#`, so a comment may follow one on its line.
    let entry = line.split('#').next().unwrap_or_default().trim();
    (!entry.is_empty()).then_some(entry)
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            NamePattern::Any => f.write_str("*")?,
            NamePattern::Below(parent) => write!(f, "*.{parent}")?,
            NamePattern::Exact(host) => match (host.as_ip(), self.port) {
                (Some(IpAddr::V6(ip)), Some(_)) => write!(f, "[{ip}]")?,
                (Some(_) | None, _) => write!(f, "{host}")?,
            },
        }
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

impl FromStr for HostPattern {
    type Err = InvalidPattern;
    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_normalises() {
        for (text, expect) in [
            ("example.com", "example.com"),
            (" API.Example.COM. ", "api.example.com"),
            ("*.Example.com.", "*.example.com"),
            ("*.bücher.example:8443", "*.xn--bcher-kva.example:8443"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("*", "*"),
            ("*:443", "*:443"),
            ("203.0.113.7:80", "203.0.113.7:80"),
            ("2001:DB8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8:0::1]:443", "[2001:db8::1]:443"),
            ("::ffff:203.0.113.7", "203.0.113.7"),
            ("[::ffff:203.0.113.7]:80", "203.0.113.7:80"),
            ("localhost", "localhost"),
            ("*.com", "*.com"),
            ("a.example:00443", "a.example:443"),
        ] {
            let pattern = HostPattern::parse(text).unwrap();
            assert_eq!(pattern.to_string(), expect, "{text:?}");
            assert_eq!(HostPattern::parse(expect).unwrap(), pattern, "what is shown reads back: {text:?}");
        }
    }

    #[test]
    fn refuses_with_a_hint() {
        for (text, hint) in [
            ("", "write a name"),
            ("https://example.com/x", "\"example.com\""),
            ("example.com/x", "\"example.com\""),
            ("10.0.0.0/8", "cidrs"),
            ("2001:db8::/32", "cidrs"),
            (".example.com", "*.example.com"),
            ("a.example b.example", "one pattern per line"),
            ("foo*.example.com", "stands alone or first"),
            ("*.*.example.com", "after `*.`"),
            ("**", "stands alone or first"),
            ("*.", "after `*.`"),
            ("*.203.0.113.7", "after `*.`"),
            ("example.com:0", "from 1 to 65535"),
            ("example.com:65536", "from 1 to 65535"),
            ("example.com:+443", "from 1 to 65535"),
            ("example.com:", "from 1 to 65535"),
            ("[203.0.113.7]:80", "from 1 to 65535"),
            ("[example.com]", "from 1 to 65535"),
            ("user@example.com", "write a name"),
            ("exa$mple.com", "write a name"),
            ("0x7f.1", "write a name"),
            ("2130706433", "write a name"),
        ] {
            let error = HostPattern::parse(text).unwrap_err();
            assert!(error.hint.contains(hint), "{text:?} gave {error}");
        }
        assert!(HostPattern::parse(&"a".repeat(LONGEST + 1)).is_err());
    }

    #[test]
    fn list_lines() {
        for (line, expect) in [
            ("", None),
            ("   ", None),
            ("# comment", None),
            ("example.com", Some("example.com")),
            ("\texample.com  # why", Some("example.com")),
            ("example.com\r", Some("example.com")),
        ] {
            assert_eq!(list_entry(line), expect, "{line:?}");
        }
    }
}
