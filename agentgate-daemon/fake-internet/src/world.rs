//! Who there is: names, addresses and what each answers. Addresses are of the documentation ranges
//! (RFC 5737, RFC 3849), plus a private one, and one of a well-known resolver that must never hear anything.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What a TLS origin presents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presents {
    /// A leaf for its own name under the root.
    Valid,
    /// The same, out of date since 2001.
    Expired,
    /// A leaf under the root for another name.
    WrongName,
    /// A leaf for its own name that signed itself.
    SelfSigned,
}

/// What listens at a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// HTTP over TLS; HTTP/1.1 always, HTTP/2 by ALPN where `h2`.
    Https { certificate: Presents, h2: bool },
    /// HTTP/1.1 in the clear.
    Http,
    /// HTTP/1.1 over TLS, with answers as no server's library sends them.
    Raw,
    /// Takes any bytes, counts them and answers nothing.
    TcpSink,
    /// Speaks first, as an SSH server does, and hangs up when its peer has said something twice.
    Greets,
    /// Counts datagrams and answers nothing.
    UdpSink,
}

/// One listening port of a site.
#[derive(Clone, Copy, Debug)]
pub struct Service {
    pub port: u16,
    pub kind: Kind,
}

/// A name with its addresses and services.
#[derive(Clone, Copy, Debug)]
pub struct Site {
    pub name: &'static str,
    pub v4: Ipv4Addr,
    pub v6: Option<Ipv6Addr>,
    pub services: &'static [Service],
}

impl Site {
    /// Its addresses, IPv4 first.
    pub fn ips(&self) -> impl Iterator<Item = IpAddr> {
        std::iter::once(IpAddr::V4(self.v4)).chain(self.v6.map(IpAddr::V6))
    }
}

/// The name server's addresses.
pub const NAME_SERVERS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, 53)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x53)),
];

/// An ordinary origin: TLS with HTTP/2, and plain HTTP on 80 and 8080.
pub const OPEN: &str = "open.example";
/// The Anthropic-like provider.
pub const ANTHROPIC: &str = "api.anthropic.com";
/// The OpenAI-like provider.
pub const OPENAI: &str = "api.openai.com";
/// The same behind a person's login, as Codex uses it.
pub const CHATGPT: &str = "chatgpt.com";
/// The Gemini-like provider.
pub const GEMINI: &str = "generativelanguage.googleapis.com";
/// A registry of packages that command lines ask for their newest version.
pub const NPM: &str = "registry.npmjs.org";
/// Code, releases and lists that command lines ask for; nothing of what they want is there.
pub const CODE: [&str; 3] = ["github.com", "api.github.com", "raw.githubusercontent.com"];
/// A list of models, which is not there either.
pub const MODELS: &str = "models.opencode.ai";
/// Where command lines send what they count: each takes anything.
pub const TELEMETRY: [&str; 2] = ["ab.chatgpt.com", "play.googleapis.com"];
/// For deny lists.
pub const DENIED: &str = "denied.example";
/// In no list.
pub const UNLISTED: &str = "unlisted.example";
/// For passthrough lists.
pub const PASSTHROUGH: &str = "passthrough.example";
/// Its certificate is out of date.
pub const EXPIRED: &str = "expired.example";
/// Its certificate is for another name.
pub const WRONG_NAME: &str = "wrongname.example";
/// Its certificate is self-signed.
pub const SELF_SIGNED: &str = "selfsigned.example";
/// Speaks HTTP/1.1 only.
pub const OLD: &str = "old.example";
/// Its answers are bytes by hand.
pub const RAW: &str = "raw.example";
/// Resolves, but nothing listens there.
pub const ABSENT: &str = "absent.example";
/// TCP 9000 and UDP 9999 that swallow all.
pub const SINK: &str = "sink.example";
/// A public name at a private address, as a rebinding attack has it.
pub const REBOUND: &str = "rebound.example";
/// A resolver that an agent might ask behind the gate's back: counts UDP and TCP on port 53.
pub const OUTSIDE_RESOLVER: &str = "dns.google";

const VALID: Kind = Kind::Https { certificate: Presents::Valid, h2: true };
const TLS: Service = Service { port: 443, kind: VALID };
const PLAIN: Service = Service { port: 80, kind: Kind::Http };
const SSH: Service = Service { port: 22, kind: Kind::Greets };
const ODD: Service = Service { port: 8080, kind: Kind::Http };

const fn bad(certificate: Presents) -> Kind {
    Kind::Https { certificate, h2: true }
}

const fn v6(last: u16) -> Option<Ipv6Addr> {
    Some(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last))
}

const fn site(name: &'static str, v4: [u8; 4], v6: Option<Ipv6Addr>, services: &'static [Service]) -> Site {
    Site { name, v4: Ipv4Addr::new(v4[0], v4[1], v4[2], v4[3]), v6, services }
}

/// Every site.
pub const SITES: &[Site] = &[
    site(OPEN, [198, 51, 100, 10], v6(0x10), &[TLS, PLAIN, ODD, SSH]),
    site(ANTHROPIC, [198, 51, 100, 20], v6(0x20), &[TLS]),
    site(OPENAI, [198, 51, 100, 21], v6(0x21), &[TLS]),
    site(CHATGPT, [198, 51, 100, 22], v6(0x22), &[TLS]),
    site(GEMINI, [198, 51, 100, 23], v6(0x23), &[TLS]),
    site(NPM, [198, 51, 100, 24], v6(0x24), &[TLS]),
    site(CODE[0], [198, 51, 100, 25], v6(0x25), &[TLS]),
    site(CODE[1], [198, 51, 100, 26], v6(0x26), &[TLS]),
    site(CODE[2], [198, 51, 100, 27], v6(0x27), &[TLS]),
    site(MODELS, [198, 51, 100, 28], v6(0x28), &[TLS]),
    site(TELEMETRY[0], [203, 0, 113, 21], None, &[TLS]),
    site(TELEMETRY[1], [203, 0, 113, 22], None, &[TLS]),
    site(DENIED, [198, 51, 100, 30], v6(0x30), &[TLS, PLAIN]),
    site(UNLISTED, [203, 0, 113, 40], v6(0x40), &[TLS]),
    site(PASSTHROUGH, [203, 0, 113, 50], None, &[TLS]),
    site(EXPIRED, [203, 0, 113, 60], None, &[Service { port: 443, kind: bad(Presents::Expired) }]),
    site(WRONG_NAME, [203, 0, 113, 61], None, &[Service { port: 443, kind: bad(Presents::WrongName) }]),
    site(SELF_SIGNED, [203, 0, 113, 62], None, &[Service { port: 443, kind: bad(Presents::SelfSigned) }]),
    site(
        OLD,
        [203, 0, 113, 70],
        None,
        &[Service { port: 443, kind: Kind::Https { certificate: Presents::Valid, h2: false } }],
    ),
    site(RAW, [203, 0, 113, 71], None, &[Service { port: 443, kind: Kind::Raw }]),
    site(ABSENT, [203, 0, 113, 99], None, &[]),
    site(REBOUND, [10, 77, 0, 7], None, &[TLS, PLAIN]),
    site(
        SINK,
        [203, 0, 113, 80],
        v6(0x80),
        &[Service { port: 9000, kind: Kind::TcpSink }, Service { port: 9999, kind: Kind::UdpSink }],
    ),
    site(
        OUTSIDE_RESOLVER,
        [8, 8, 8, 8],
        None,
        &[Service { port: 53, kind: Kind::UdpSink }, Service { port: 53, kind: Kind::TcpSink }],
    ),
];

/// The site of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Site> {
    SITES.iter().find(|site| site.name.eq_ignore_ascii_case(name))
}

/// Every address a namespace needs for [`crate::Placement::Public`].
pub fn public_ips() -> impl Iterator<Item = IpAddr> {
    SITES.iter().flat_map(Site::ips).chain(NAME_SERVERS)
}
