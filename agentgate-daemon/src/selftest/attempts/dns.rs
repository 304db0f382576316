//! Names, and data in names.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
};

use super::tls;
use crate::selftest::{
    orders::{FORBIDDEN, RESOLVER_V4, RESOLVER_V6, Stop, TUNNEL},
    report::Family::Dns,
    suite::Attempt,
    sys::{
        self,
        message::{self, Ancillary},
    },
    tried::{At as _, Attempted, Try},
    zone,
};

const A: u16 = 1;
const NULL: u16 = 10;
const TXT: u16 = 16;
const AAAA: u16 = 28;
const HTTPS: u16 = 65;
const ANY: u16 = 255;

const RESOLVER: &str = "every question goes to the gate's resolver, which asks nobody about a refused name";
const PORT: &str = "the packet's port is no DNS port: refused as any UDP";

pub(super) const ATTEMPTS: &[Attempt] = &[
    Attempt::new(Dns, "dns4-any-server", "asks a server of its own over UDP", RESOLVER, |t| {
        ask(t, t.v4(53), A)
    }),
    Attempt::new(Dns, "dns6-any-server", "the same over IPv6", RESOLVER, |t| ask(t, t.v6(53), AAAA)),
    Attempt::new(Dns, "dns-mapped-server", "the same by a mapped address", RESOLVER, |t| {
        let socket = sys::socket(libc::AF_INET6, libc::SOCK_DGRAM, 0).at("socket")?;
        ask_on(t, &socket, t.mapped(53), A)
    }),
    Attempt::new(Dns, "dns4-connected", "asks from a connected socket", RESOLVER, |t| {
        let socket = sys::socket(libc::AF_INET, libc::SOCK_DGRAM, 0).at("socket")?;
        sys::connect(&socket, &sys::sockaddr(t.v4(53))).at("connect")?;
        let question = marked(t, FORBIDDEN, A);
        sys::send(&socket, &question, 0).at("send")?;
        hear(t, &socket)
    }),
    Attempt::new(Dns, "dns4-tcp", "asks a server of its own over TCP", RESOLVER, |t| ask_tcp(t, t.v4(53))),
    Attempt::new(Dns, "dns6-tcp", "the same over IPv6", RESOLVER, |t| ask_tcp(t, t.v6(53))),
    Attempt::new(
        Dns,
        "dns-tunnel-host-resolver",
        "puts data into a refused name and asks the host's own resolver",
        RESOLVER,
        |t| ask(t, SocketAddr::from((RESOLVER_V4, 53)), A),
    ),
    Attempt::new(Dns, "dns-tunnel-txt", "puts data into a refused name of type TXT", RESOLVER, |t| {
        ask(t, SocketAddr::from((RESOLVER_V4, 53)), TXT)
    }),
    Attempt::new(Dns, "dns-tunnel-null", "puts data into a refused name of type NULL", RESOLVER, |t| {
        ask(t, SocketAddr::from((RESOLVER_V4, 53)), NULL)
    }),
    Attempt::new(Dns, "dns-tunnel-https", "puts data into a refused name of type HTTPS", RESOLVER, |t| {
        ask(t, SocketAddr::from((RESOLVER_V4, 53)), HTTPS)
    }),
    Attempt::new(Dns, "dns-tunnel-any", "puts data into a refused name of type ANY", RESOLVER, |t| {
        ask(t, SocketAddr::from((RESOLVER_V4, 53)), ANY)
    }),
    Attempt::new(
        Dns,
        "dns-tunnel-unknown-suffix",
        "puts data into a name that nobody has heard of",
        RESOLVER,
        |t| {
            let question = marked(t, "nowhere.invalid", A);
            send(t, SocketAddr::from((RESOLVER_V4, 53)), &question)
        },
    ),
    Attempt::new(
        Dns,
        "dns-tunnel-behind-question",
        "puts data behind an allowed question, in the additional section",
        "the gate's resolver makes questions of its own and copies nothing",
        |t| {
            let mut question = zone::question(7, crate::selftest::orders::ALLOWED, A);
            // One additional record: an EDNS option that holds the token (RFC 6891).
            question[11] = 1;
            let token = t.payload();
            let length = u16::try_from(token.len()).unwrap_or_default();
            question.extend([0, 0, 41, 16, 0, 0, 0, 0, 0]);
            question.extend((length + 4).to_be_bytes());
            question.extend(65_001_u16.to_be_bytes());
            question.extend(length.to_be_bytes());
            question.extend(token);
            send(t, SocketAddr::from((RESOLVER_V4, 53)), &question)
        },
    ),
    Attempt::new(
        Dns,
        "dns-tunnel-allowed-txt",
        "puts data into TXT questions below a name that policy allows",
        "nothing: policy allows it; the record is flagged",
        tunnel_allowed,
    )
    .flagged(),
    Attempt::new(
        Dns,
        "dns6-foreign-source",
        "asks from a foreign source address (IPV6_FREEBIND), so that the gate itself answers to it",
        "egress refuses foreign sources; else the gate's answer would carry the name out",
        |t| {
            let socket = sys::socket(libc::AF_INET6, libc::SOCK_DGRAM, 0).at("socket")?;
            sys::set_int(&socket, libc::IPPROTO_IPV6, libc::IPV6_FREEBIND, 1).at("IPV6_FREEBIND")?;
            sys::bind(&socket, &sys::sockaddr(t.v6(4444))).at("bind to a foreign address")?;
            ask_on(t, &socket, SocketAddr::from((RESOLVER_V6, 53)), AAAA)
        },
    ),
    Attempt::new(
        Dns,
        "dns6-foreign-source-once",
        "the same for one datagram (IPV6_PKTINFO)",
        "egress refuses foreign sources",
        |t| {
            let socket = sys::socket(libc::AF_INET6, libc::SOCK_DGRAM, 0).at("socket")?;
            sys::set_int(&socket, libc::IPPROTO_IPV6, libc::IPV6_FREEBIND, 1).at("IPV6_FREEBIND")?;
            let mut data = t.orders.v6.octets().to_vec();
            data.extend([0; 4]);
            let source = Ancillary { level: libc::IPPROTO_IPV6, kind: libc::IPV6_PKTINFO, data };
            let question = marked(t, FORBIDDEN, AAAA);
            let server = sys::sockaddr(SocketAddr::from((RESOLVER_V6, 53)));
            message::send(&socket, &question, &server, &[source], 0).at("sendmsg")?;
            hear(t, &socket)
        },
    ),
    Attempt::new(
        Dns,
        "dns4-foreign-source-once",
        "the same over IPv4 (IP_TRANSPARENT, IP_PKTINFO)",
        "egress refuses foreign sources",
        |t| {
            let socket = sys::socket(libc::AF_INET, libc::SOCK_DGRAM, 0).at("socket")?;
            sys::set_int(&socket, libc::IPPROTO_IP, libc::IP_TRANSPARENT, 1).at("IP_TRANSPARENT")?;
            // struct in_pktinfo: index, the source, what the kernel tells.
            let mut data = vec![0; 4];
            data.extend(t.orders.v4.octets());
            data.extend([0; 4]);
            let source = Ancillary { level: libc::IPPROTO_IP, kind: libc::IP_PKTINFO, data };
            let question = marked(t, FORBIDDEN, A);
            let server = sys::sockaddr(SocketAddr::from((RESOLVER_V4, 53)));
            message::send(&socket, &question, &server, &[source], 0).at("sendmsg")?;
            hear(t, &socket)
        },
    )
    .root(),
    Attempt::new(
        Dns,
        "dns4-foreign-source",
        "the same over IPv4 (IP_TRANSPARENT)",
        "the kernel: loopback does not answer to other addresses; egress",
        |t| {
            let socket = sys::socket(libc::AF_INET, libc::SOCK_DGRAM, 0).at("socket")?;
            sys::set_int(&socket, libc::IPPROTO_IP, libc::IP_TRANSPARENT, 1).at("IP_TRANSPARENT")?;
            sys::bind(&socket, &sys::sockaddr(t.v4(4444))).at("bind to a foreign address")?;
            ask_on(t, &socket, SocketAddr::from((RESOLVER_V4, 53)), A)
        },
    )
    .root(),
    Attempt::new(Dns, "dns-over-tls", "asks by DNS over TLS (port 853)", "connect4/6 refuse port 853", |t| {
        tls::raw(t, t.v4(853), FORBIDDEN, &[b"dot"], &t.request("dot"))
    }),
    Attempt::new(Dns, "dns-over-tls6", "the same over IPv6", "connect6 refuses port 853", |t| {
        tls::raw(t, t.v6(853), FORBIDDEN, &[b"dot"], &t.request("dot"))
    }),
    Attempt::new(Dns, "dns-over-quic", "asks by DNS over QUIC (UDP 853)", PORT, |t| t.udp(t.v4(853))),
    Attempt::new(
        Dns,
        "dns-over-https-literal",
        "asks by DNS over HTTPS at a literal address",
        "it is HTTPS to an address that policy does not name",
        |t| {
            let to = t.v4(443);
            let host = to.ip().to_string();
            tls::request(t, to, "", &host)
        },
    ),
    Attempt::new(Dns, "mdns4", "asks its neighbours by multicast DNS", PORT, |t| {
        let question = marked(t, "local", A);
        send(t, SocketAddr::from((Ipv4Addr::new(224, 0, 0, 251), 5353)), &question)
    }),
    Attempt::new(Dns, "mdns6", "the same over IPv6", PORT, |t| {
        let question = marked(t, "local", A);
        let socket = sys::socket(libc::AF_INET6, libc::SOCK_DGRAM, 0).at("socket")?;
        let index = i32::try_from(sys::interface(c"gate0").at("if_nametoindex")?).unwrap_or_default();
        sys::set_int(&socket, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_IF, index).at("IPV6_MULTICAST_IF")?;
        let to = SocketAddr::from((Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb), 5353));
        sys::send_to(&socket, &question, 0, &sys::sockaddr(to)).at("sendto").map(drop)
    }),
    Attempt::new(Dns, "llmnr4", "asks its neighbours by LLMNR", PORT, |t| {
        let question = marked(t, "local", A);
        send(t, SocketAddr::from((Ipv4Addr::new(224, 0, 0, 252), 5355)), &question)
    }),
    Attempt::new(
        Dns,
        "dns-multicast-53",
        "asks a group at port 53",
        "sendmsg4 redirects it to the gate's resolver",
        |t| {
            let question = marked(t, FORBIDDEN, A);
            send(t, SocketAddr::from((Ipv4Addr::new(239, 1, 2, 3), 53)), &question)
        },
    ),
    Attempt::new(
        Dns,
        "dns-rebinding-loopback",
        "resolves an allowed name that leads to loopback and asks there",
        "the gate's resolver drops such answers; the gate refuses such names",
        |t| rebound(t, "loopback"),
    ),
    Attempt::new(
        Dns,
        "dns-rebinding-host",
        "resolves an allowed name that leads to the host's own address",
        "the gate's resolver drops such answers; the gate refuses such names",
        |t| rebound(t, "host"),
    ),
];

/// A question about a name that holds the token.
fn marked(tried: &Try, suffix: &str, kind: u16) -> Vec<u8> {
    zone::question(0x1234, &format!("{}.{suffix}", tried.orders.token), kind)
}

fn ask(tried: &mut Try, server: SocketAddr, kind: u16) -> Attempted {
    let question = marked(tried, FORBIDDEN, kind);
    send(tried, server, &question)
}

fn send(tried: &mut Try, server: SocketAddr, question: &[u8]) -> Attempted {
    let domain = if server.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let socket = sys::socket(domain, libc::SOCK_DGRAM, 0).at("socket")?;
    sys::send_to(&socket, question, 0, &sys::sockaddr(server)).at(&format!("sendto {server}"))?;
    hear(tried, &socket)
}

fn ask_on(tried: &mut Try, socket: &OwnedFd, server: SocketAddr, kind: u16) -> Attempted {
    let question = marked(tried, FORBIDDEN, kind);
    sys::send_to(socket, &question, 0, &sys::sockaddr(server)).at("sendto")?;
    hear(tried, socket)
}

fn ask_tcp(tried: &mut Try, server: SocketAddr) -> Attempted {
    let socket =
        sys::socket(if server.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 }, libc::SOCK_STREAM, 0)
            .at("socket")?;
    sys::connect(&socket, &sys::sockaddr(server)).at("connect")?;
    let question = marked(tried, FORBIDDEN, A);
    let length = u16::try_from(question.len()).unwrap_or_default().to_be_bytes();
    sys::send(&socket, &[&length, question.as_slice()].concat(), 0).at("send")?;
    hear(tried, &socket)
}

/// Notes the code of an answer, if one comes.
fn hear(tried: &mut Try, socket: &OwnedFd) -> Attempted {
    if !sys::readable(socket, 500).at("poll")? {
        tried.saw("no answer");
        return Ok(());
    }
    let mut buffer = [0; 1500];
    let length = sys::receive(socket, &mut buffer).at("recv")?;
    let code = buffer.get(3).map_or(0, |flags| flags & 15);
    tried.saw(format!("an answer of {length} bytes, code {code}"));
    Ok(())
}

/// As a tunnel does: name after name, each as full as a name can be.
fn tunnel_allowed(tried: &mut Try) -> Attempted {
    let filler = "q7xk2mzt9wbf4hjc6rpd3vny8sgl5a0e1iou".repeat(2);
    let filler: String = filler.chars().take(60).collect();
    for number in 0..4 {
        let name = format!("{}.{filler}{number}.{filler}{number}.{TUNNEL}", tried.orders.token);
        send(tried, SocketAddr::from((RESOLVER_V4, 53)), &zone::question(number, &name, TXT))?;
    }
    Ok(())
}

/// Asks the host's resolver for an address.
pub(super) fn resolve(tried: &mut Try, name: &str) -> Result<Vec<IpAddr>, Stop> {
    let socket = sys::socket(libc::AF_INET, libc::SOCK_DGRAM, 0).at("socket")?;
    let server = sys::sockaddr(SocketAddr::from((RESOLVER_V4, 53)));
    sys::send_to(&socket, &zone::question(7, name, A), 0, &server).at("ask for a name")?;
    // The gate asks its own resolver first: longer than for an answer from the wire.
    if !sys::readable(&socket, 3000).at("poll")? {
        tried.saw(format!("no answer about {name}"));
        return Ok(Vec::new());
    }
    let mut buffer = [0; 1500];
    let length = sys::receive(&socket, &mut buffer).at("recv")?;
    let found = zone::addresses(buffer.get(..length).unwrap_or_default());
    tried.saw(format!("{name} is {found:?}"));
    Ok(found)
}

/// Goes where an allowed name leads, to the relay's port.
fn rebound(tried: &mut Try, label: &str) -> Attempted {
    let name = format!("{label}.{TUNNEL}");
    for address in resolve(tried, &name)? {
        let to = SocketAddr::new(address, crate::selftest::orders::RELAY_PORT);
        let done = tried.tcp(to);
        tried.note(done);
    }
    // By name through the gate as well, which resolves it itself.
    let socket = sys::socket(libc::AF_INET, libc::SOCK_STREAM, 0).at("socket")?;
    sys::connect(&socket, &sys::sockaddr(tried.v4(crate::selftest::orders::RELAY_PORT))).at("connect")?;
    tried.speak(&socket, &format!("{name}:{}", crate::selftest::orders::RELAY_PORT))
}
