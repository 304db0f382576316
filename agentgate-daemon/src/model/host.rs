//! Host names as policy compares them: lower case, IDNA, without the trailing dot.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    str::FromStr,
    sync::Arc,
};

use serde::{Deserialize, Serialize};

/// The gate's own name: its DNS server answers for it, its listener answers at it, and nothing is ever
/// forwarded there. `agentctl doctor trust` has each runtime connect to it.
pub const OWN_NAME: &str = "trust.agentgate.internal";
/// What it resolves to: an address for documentation (RFC 5737), which is nobody's.
pub const OWN_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// A DNS name or an IP address, normalised.
///
/// Names are lower case ASCII (UTS 46 to-ASCII), at most 253 bytes, without a trailing dot.
/// IPv6 addresses are held without brackets and IPv4-mapped ones as IPv4, so that two spellings of
/// one address are equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Host(Arc<str>);

/// The text is neither a DNS name nor an IP address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is neither a host name nor an IP address")]
pub struct InvalidHost {
    /// What was given, cut to 80 characters.
    pub text: String,
}

impl Host {
    /// Normalises `text`: a name, an IPv4 address, or an IPv6 address with or without brackets.
    ///
    /// # Errors
    /// [`InvalidHost`] where it is none of them, also for numbers that some resolvers would take for
    /// an IPv4 address (`0x7f.1`, `2130706433`).
    pub fn parse(text: &str) -> Result<Self, InvalidHost> {
        let invalid = || InvalidHost { text: text.chars().take(80).collect() };
        let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
        if let Some(ip) = address(bare) {
            return Ok(Self::from(ip));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        if name.is_empty() || name.len() > 1024 {
            return Err(invalid());
        }
        let ascii =
            idna::domain_to_ascii_cow(name.as_bytes(), idna::AsciiDenyList::EMPTY).map_err(|_| invalid())?;
        let ascii = ascii.strip_suffix('.').unwrap_or(&ascii);
        let label_ok = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        if ascii.len() > 253 || !ascii.split('.').all(label_ok) {
            return Err(invalid());
        }
        // A last label of digits (or 0x…) is an IPv4 address in another spelling: WHATWG URL, "ends in a number".
        let last = ascii.rsplit('.').next().unwrap_or(ascii);
        if last.bytes().all(|b| b.is_ascii_digit()) || is_hex_number(last) {
            return Err(invalid());
        }
        // Nearly all come as they are compared.
        let lower = !ascii.bytes().any(|byte| byte.is_ascii_uppercase());
        Ok(Self(if lower { ascii.into() } else { ascii.to_ascii_lowercase().into() }))
    }

    /// The normalised text; IPv6 without brackets.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The address, if this is one.
    #[must_use]
    pub fn as_ip(&self) -> Option<IpAddr> {
        address(&self.0)
    }
}

/// An address in its usual spelling; nearly every text is none, and is seen to be none at once.
fn address(text: &str) -> Option<IpAddr> {
    let may_be = text.as_bytes().first()?.is_ascii_digit() || text.contains(':');
    may_be.then(|| text.parse().ok()).flatten()
}

fn is_hex_number(label: &str) -> bool {
    label.strip_prefix("0x").is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

impl From<IpAddr> for Host {
    fn from(ip: IpAddr) -> Self {
        Self(ip.to_canonical().to_string().into())
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Host {
    type Err = InvalidHost;
    fn from_str(text: &str) -> Result<Self, InvalidHost> {
        Self::parse(text)
    }
}

impl TryFrom<String> for Host {
    type Error = InvalidHost;
    fn try_from(text: String) -> Result<Self, InvalidHost> {
        Self::parse(&text)
    }
}

impl From<Host> for String {
    fn from(host: Host) -> Self {
        host.0.as_ref().to_owned()
    }
}

/// A host with a port: what a request is addressed to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Authority {
    /// Name or address.
    pub host: Host,
    /// TCP port.
    pub port: u16,
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.as_ip() {
            Some(IpAddr::V6(ip)) => write!(f, "[{ip}]:{}", self.port),
            Some(IpAddr::V4(_)) | None => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalises() {
        let rows = [
            ("API.Example.COM.", Some("api.example.com")),
            ("bücher.example", Some("xn--bcher-kva.example")),
            ("_dmarc.example.com", Some("_dmarc.example.com")),
            ("203.0.113.7", Some("203.0.113.7")),
            ("[2001:DB8::1]", Some("2001:db8::1")),
            ("::ffff:203.0.113.7", Some("203.0.113.7")),
            ("", None),
            (".", None),
            ("a..b", None),
            ("2130706433", None),
            ("0x7f.1", None),
            ("1.2.3", None),
            ("x.0x7f", None),
            ("exa mple.com", None),
            ("example.com/path", None),
            ("example.com\0", None),
            ("a@b", None),
        ];
        for (text, expect) in rows {
            assert_eq!(Host::parse(text).ok().as_ref().map(Host::as_str), expect, "{text:?}");
        }
        assert!(Host::parse(&"a.".repeat(200)).is_err());
    }
}
