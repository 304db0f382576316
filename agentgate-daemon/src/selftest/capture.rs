//! The detector on the wire: every packet that comes into the world, through an AF_PACKET socket.
//!
//! Excused are only the protocols of the link itself, the daemon's own questions to its resolver as long
//! as they carry no token, and TCP to the allowed origin, where the sinks read what was sent. Anything
//! else is a sighting: a lone SYN, a ping, a report of group membership.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::OwnedFd,
    sync::Arc,
};

use super::{
    evidence::{Evidence, Segment, tokens},
    orders::{ALLOWED_V4, ALLOWED_V6, FENCE, HOST_V4, HOST_V6, RESOLVER_V4, RESOLVER_V6, WORLD_V4, WORLD_V6},
    sys::{self, message},
};

/// `ETH_P_ALL`.
const ALL: u16 = 3;
/// `PACKET_OUTGOING` of linux/if_packet.h: what this namespace itself sends.
const OUTGOING: u8 = 4;
/// `PACKET_LOOPBACK`.
const LOOPBACK: u8 = 5;
/// Longest frame that is looked at, in bytes: more than any device of the world carries.
const FRAME: usize = 66_000;

/// An open capture of everything in the calling thread's network namespace.
pub(super) fn open() -> io::Result<OwnedFd> {
    let protocol = i32::from(ALL.to_be());
    let socket = sys::socket(libc::AF_PACKET, libc::SOCK_DGRAM, protocol)?;
    // Attempts may send floods; what does not fit the buffer is lost, and with it a fence.
    sys::set_int(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 16 << 20)?;
    Ok(socket)
}

/// Reads packets until the socket fails.
pub(super) fn read(socket: &Arc<OwnedFd>, evidence: &Evidence) -> io::Result<()> {
    let mut buffer = vec![0; FRAME];
    loop {
        let (length, kind, protocol) = message::receive_packet(socket, &mut buffer)?;
        if kind == OUTGOING || kind == LOOPBACK {
            continue;
        }
        note(protocol, buffer.get(..length).unwrap_or_default(), evidence);
    }
}

fn note(protocol: u16, packet: &[u8], evidence: &Evidence) {
    match classify(protocol, packet) {
        Class::Excused => {}
        Class::Fence(number) => evidence.pass(number),
        Class::Joined(groups) => {
            for group in groups {
                evidence.see(format!("report of membership in {group}"), Some(group), packet, false);
            }
        }
        Class::Seen { what, to, question } => {
            evidence.see_segment(what, to, packet, question, segment(protocol, packet));
        }
    }
}

/// The connection of a plain TCP segment.
fn segment(ethertype: u16, packet: &[u8]) -> Option<Segment> {
    let (header, addresses) = match ethertype {
        0x0800 => (ipv4(packet)?, packet.get(12..20)?),
        0x86dd => (ipv6(packet)?, packet.get(8..40)?),
        _ => return None,
    };
    if header.protocol != 6 || !header.plain {
        return None;
    }
    // RFC 9293 3.1: SYN is bit 1, ACK bit 4 of the fourteenth byte.
    let opens = header.payload.get(13)? & 0b1_0010 == 0b10;
    Some(Segment { ends: [addresses, header.payload.get(..4)?].concat(), opens })
}

/// What a packet is to the test.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Class {
    Excused,
    Fence(u64),
    /// Groups that somebody joined or left, one report for all; none where they are the host's own.
    Joined(Vec<IpAddr>),
    Seen {
        what: String,
        to: Option<IpAddr>,
        question: bool,
    },
}

/// What is read of an IP header.
struct Header<'a> {
    to: IpAddr,
    protocol: u8,
    payload: &'a [u8],
    /// IPv4 options or IPv6 extension headers.
    plain: bool,
}

fn classify(ethertype: u16, packet: &[u8]) -> Class {
    let marked = !tokens(packet).is_empty();
    let seen = |what: String, to, question| Class::Seen { what, to, question };
    let header = match ethertype {
        0x0800 => ipv4(packet),
        0x86dd => ipv6(packet),
        // ARP is the link's own.
        0x0806 if !marked => return Class::Excused,
        other => return seen(format!("frame of type {other:#06x} on the wire"), None, false),
    };
    let Some(header) = header else {
        return seen("malformed IP packet on the wire".to_owned(), None, false);
    };
    let port = matches!(header.protocol, 6 | 17)
        .then(|| header.payload.get(2..4).and_then(|bytes| bytes.try_into().ok()))
        .flatten()
        .map_or(0, u16::from_be_bytes);
    if header.to == IpAddr::V4(FENCE) {
        let number = header.payload.get(8..16).and_then(|bytes| bytes.try_into().ok());
        return Class::Fence(number.map_or(0, u64::from_be_bytes));
    }
    let own = [IpAddr::V4(HOST_V4), WORLD_V4.into(), HOST_V6.into(), WORLD_V6.into()].contains(&header.to);
    let resolver = [IpAddr::V4(RESOLVER_V4), RESOLVER_V6.into()].contains(&header.to);
    let origin = [IpAddr::V4(ALLOWED_V4), ALLOWED_V6.into()].contains(&header.to);
    // The kernel's answer to a resolver that answers a closed socket quotes the question.
    if resolver && matches!((header.protocol, header.payload.first()), (1, Some(3)) | (58, Some(1))) {
        return if marked {
            seen(format!("error to {} that quotes the token", header.to), Some(header.to), true)
        } else {
            Class::Excused
        };
    }
    if let Some(joined) = joined(&header) {
        return Class::Joined(joined);
    }
    if header.plain {
        if resolver && matches!((header.protocol, port), (6 | 17, 53)) {
            if !marked {
                return Class::Excused;
            }
            return seen(format!("DNS question to {} with the token", header.to), Some(header.to), true);
        }
        if origin && matches!((header.protocol, port), (6, 80 | 443)) {
            return Class::Excused;
        }
    }
    if !marked && is_links_own(&header, own) {
        return Class::Excused;
    }
    let name = protocol_name(header.protocol);
    let what = if port == 0 {
        format!("{name} packet to {}", header.to)
    } else {
        format!("{name} packet to {}", std::net::SocketAddr::new(header.to, port))
    };
    seen(what, Some(header.to), false)
}

/// Neighbour discovery and router solicitation, which a kernel sends by itself; errors in answer to the
/// world's own packets.
fn is_links_own(header: &Header<'_>, own: bool) -> bool {
    let IpAddr::V6(_) = header.to else {
        return own && matches!(header.protocol, 1) && header.payload.first() == Some(&3);
    };
    let Some(kind) = (header.protocol == 58).then(|| header.payload.first()).flatten() else {
        return false;
    };
    match kind {
        133..=137 => true,
        1 => own,
        _ => false,
    }
}

/// The groups that a membership report is about, but for those that a host's own addresses and its part
/// as a router bring with them; `None` where it is no such report (IGMP: RFC 3376 4.2 and RFC 2236; MLD:
/// RFC 3810 5.2 and RFC 2710).
fn joined(header: &Header<'_>) -> Option<Vec<IpAddr>> {
    let report = header.payload;
    let groups: Vec<IpAddr> = match (header.protocol, *report.first()?) {
        (2, 0x22) => records(report, 4)
            .into_iter()
            .filter_map(|group| <[u8; 4]>::try_from(group).ok())
            .map(|group| Ipv4Addr::from(group).into())
            .collect(),
        (2, 0x12 | 0x16 | 0x17) => {
            let group: [u8; 4] = report.get(4..8)?.try_into().ok()?;
            vec![Ipv4Addr::from(group).into()]
        }
        (58, 143) => records(report, 16)
            .into_iter()
            .filter_map(|group| <[u8; 16]>::try_from(group).ok())
            .map(|group| Ipv6Addr::from(group).into())
            .collect(),
        (58, 131 | 132) => {
            let group: [u8; 16] = report.get(8..24)?.try_into().ok()?;
            vec![Ipv6Addr::from(group).into()]
        }
        _ => return None,
    };
    Some(groups.into_iter().filter(|group| !is_hosts_own_group(*group)).collect())
}

/// The addresses of group records, each of `size` bytes.
fn records(report: &[u8], size: usize) -> Vec<&[u8]> {
    let mut found = Vec::new();
    let mut rest = report.get(8..).unwrap_or_default();
    while let Some((record, after)) = rest.split_at_checked(4 + size) {
        found.push(record.get(4..).unwrap_or_default());
        let sources = record.get(2..4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u16::from_be_bytes);
        let words = usize::from(record.get(1).copied().unwrap_or_default());
        rest = after.get(usize::from(sources) * size + words * 4..).unwrap_or_default();
    }
    found
}

/// Solicited-node groups (RFC 4291 2.7.1), all routers, and all snoopers, which forwarding brings with it.
fn is_hosts_own_group(group: IpAddr) -> bool {
    match group {
        IpAddr::V4(v4) => v4.octets() == [224, 0, 0, 2],
        IpAddr::V6(v6) => {
            matches!(v6.segments(), [0xff02, 0, 0, 0, 0, 1, high, _] if high >> 8 == 0xff)
                || matches!(v6.segments(), [0xff01 | 0xff02 | 0xff05, 0, 0, 0, 0, 0, 0, 2 | 0x6a])
        }
    }
}

fn ipv4(packet: &[u8]) -> Option<Header<'_>> {
    let length = usize::from(packet.first()? & 15) * 4;
    let to: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
    let fragment = u16::from_be_bytes(packet.get(6..8)?.try_into().ok()?) & 0x1fff;
    Some(Header {
        to: Ipv4Addr::from(to).into(),
        protocol: *packet.get(9)?,
        payload: packet.get(length..)?,
        plain: length == 20 && fragment == 0,
    })
}

/// Steps over a hop-by-hop header, which listener reports have.
fn ipv6(packet: &[u8]) -> Option<Header<'_>> {
    let to: [u8; 16] = packet.get(24..40)?.try_into().ok()?;
    let to = Ipv6Addr::from(to).into();
    let (mut protocol, mut payload, mut plain) = (*packet.get(6)?, packet.get(40..)?, true);
    if protocol == 0 {
        protocol = *payload.first()?;
        payload = payload.get(usize::from(*payload.get(1)?) * 8 + 8..)?;
        plain = false;
    }
    Some(Header { to, protocol, payload, plain })
}

fn protocol_name(number: u8) -> String {
    match number {
        1 => "ICMP".to_owned(),
        2 => "IGMP".to_owned(),
        6 => "TCP".to_owned(),
        17 => "UDP".to_owned(),
        58 => "ICMPv6".to_owned(),
        132 => "SCTP".to_owned(),
        136 => "UDP-Lite".to_owned(),
        other => format!("IP protocol {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(to: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0, 192, 0, 2, 1];
        packet.extend(to.octets());
        packet.extend(payload);
        packet
    }

    fn v6(to: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 0, next, 64];
        packet.extend(HOST_V6.octets());
        packet.extend(to.octets());
        packet.extend(payload);
        packet
    }

    fn ports(to: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x90, 0];
        bytes.extend(to.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend(payload);
        bytes
    }

    const TOKEN: &[u8] = b"agst0123456789abcdef";

    #[test]
    fn a_lone_packet_to_a_forbidden_address_is_seen() {
        let forbidden = Ipv4Addr::new(203, 0, 113, 7);
        for (protocol, payload) in [(6, ports(443, b"")), (17, ports(9, b"")), (1, vec![8]), (132, vec![])] {
            let class = classify(0x0800, &v4(forbidden, protocol, &payload));
            assert!(matches!(class, Class::Seen { to: Some(to), .. } if to == forbidden), "{class:?}");
        }
        let class = classify(0x86dd, &v6("2001:db8:bad::7".parse().unwrap(), 6, &ports(443, b"")));
        assert!(matches!(class, Class::Seen { .. }));
    }

    #[test]
    fn segments_are_of_their_connection() {
        let to = Ipv4Addr::new(203, 0, 113, 7);
        let with = |flags: u8| {
            let mut bytes = ports(443, &[0; 12]);
            bytes[13] = flags;
            segment(0x0800, &v4(to, 6, &bytes)).unwrap()
        };
        assert!(with(2).opens && !with(18).opens && !with(17).opens);
        assert_eq!(with(2).ends, with(17).ends);
        assert_eq!(segment(0x0800, &v4(to, 17, &ports(443, &[0; 12]))), None);
        assert_eq!(segment(0x0800, &v4(to, 6, &ports(443, b""))), None, "cut off");
    }

    #[test]
    fn only_what_must_be_is_excused() {
        let question = ports(53, b"question");
        let marked = [ports(53, b""), TOKEN.to_vec()].concat();
        let rows = [
            (classify(0x0806, b"arp"), true),
            (classify(0x0806, TOKEN), false),
            (classify(0x88cc, b"lldp"), false),
            (classify(0x0800, &v4(RESOLVER_V4, 17, &question)), true),
            (classify(0x0800, &v4(RESOLVER_V4, 17, &marked)), false),
            (classify(0x0800, &v4(RESOLVER_V4, 6, &ports(853, b""))), false),
            (classify(0x0800, &v4(ALLOWED_V4, 6, &ports(443, TOKEN))), true),
            (classify(0x0800, &v4(ALLOWED_V4, 17, &ports(443, b""))), false),
            (classify(0x0800, &v4(ALLOWED_V4, 6, &ports(22, b""))), false),
            // A source route, though its next hop is the resolver.
            (classify(0x0800, &[&[0x46], &v4(RESOLVER_V4, 17, &question)[1..]].concat()), false),
            (classify(0x86dd, &v6("ff02::1:ff00:2".parse().unwrap(), 58, &[135, 0])), true),
            (classify(0x86dd, &v6("ff02::1".parse().unwrap(), 58, &[128, 0])), false),
            (classify(0x86dd, &v6(RESOLVER_V6, 17, &question)), true),
            (classify(0x0800, b"short"), false),
        ];
        for (at, (class, excused)) in rows.into_iter().enumerate() {
            assert_eq!(class == Class::Excused, excused, "row {at}: {class:?}");
        }
    }

    #[test]
    fn a_group_that_an_agent_joins_is_no_business_of_the_link() {
        let report = |group: Ipv6Addr| {
            let mut payload = vec![58, 0, 5, 2, 0, 0, 1, 0, 143, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0];
            payload.extend(group.octets());
            v6("ff02::16".parse().unwrap(), 0, &payload)
        };
        assert_eq!(classify(0x86dd, &report("ff02::1:ff00:1".parse().unwrap())), Class::Joined(vec![]));
        let group: Ipv6Addr = "ff15::dead:beef".parse().unwrap();
        let class = classify(0x86dd, &report(group));
        assert_eq!(class, Class::Joined(vec![group.into()]));
        let old = v4(Ipv4Addr::new(239, 1, 2, 3), 2, &[0x16, 0, 0, 0, 239, 1, 2, 3]);
        assert_eq!(classify(0x0800, &old), Class::Joined(vec![Ipv4Addr::new(239, 1, 2, 3).into()]));
        let new = [&[0x22_u8, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0][..], &[239, 1, 2, 3]].concat();
        let class = classify(0x0800, &v4(Ipv4Addr::new(224, 0, 0, 22), 2, &new));
        assert_eq!(class, Class::Joined(vec![Ipv4Addr::new(239, 1, 2, 3).into()]));
    }

    #[test]
    fn a_fence_is_known_by_its_number() {
        let packet = v4(FENCE, 17, &ports(9, &7_u64.to_be_bytes()));
        assert_eq!(classify(0x0800, &packet), Class::Fence(7));
    }
}
