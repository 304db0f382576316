//! UDP, in all the ways in which a datagram can be sent.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
};

use crate::selftest::{
    orders::{Stop, group_v4, group_v6},
    report::Family::Udp,
    suite::Attempt,
    sys::{
        self,
        message::{self, Ancillary},
    },
    tried::{At as _, Attempted, Try},
};

const SENDMSG: &str = "sendmsg4/6 refuse it";
const EGRESS: &str = "egress drops each packet of a connected socket";

pub(super) const ATTEMPTS: &[Attempt] = &[
    Attempt::new(Udp, "udp4-sendto", "sends a datagram over IPv4", SENDMSG, |t| t.udp(t.v4(9999))),
    Attempt::new(Udp, "udp6-sendto", "sends a datagram over IPv6", SENDMSG, |t| t.udp(t.v6(9999))),
    Attempt::new(Udp, "udp-mapped", "sends from an IPv6 socket to a mapped address", SENDMSG, |t| {
        let socket = datagram(libc::AF_INET6)?;
        send_to(t, &socket, t.mapped(9999))
    }),
    Attempt::new(Udp, "udp4-connected", "connects, then sends", EGRESS, |t| connected(t, t.v4(9999))),
    Attempt::new(Udp, "udp6-connected", "the same over IPv6", EGRESS, |t| connected(t, t.v6(9999))),
    Attempt::new(Udp, "udp-mapped-connected", "connects an IPv6 socket to a mapped address", EGRESS, |t| {
        let to = t.mapped(9999);
        let socket = datagram(libc::AF_INET6)?;
        sys::connect(&socket, &sys::sockaddr(to)).at("connect")?;
        sys::send(&socket, &t.payload(), 0).at("send").map(drop)
    }),
    Attempt::new(Udp, "udp4-quic", "sends to port 443 as QUIC does", SENDMSG, |t| t.udp(t.v4(443))),
    Attempt::new(
        Udp,
        "udp4-sendmsg-source",
        "sendmsg(2) with the source in ancillary data (IP_PKTINFO)",
        SENDMSG,
        |t| ancillary(t, Some(t.v4(9999)), packet_information()?),
    ),
    Attempt::new(
        Udp,
        "udp4-connected-sendmsg",
        "sendmsg(2) with ancillary data and no address on a connected socket",
        EGRESS,
        |t| ancillary(t, None, packet_information()?),
    ),
    Attempt::new(
        Udp,
        "udp4-sendmsg-options",
        "sendmsg(2) with a source route in ancillary data (IP_RETOPTS)",
        SENDMSG,
        |t| {
            let mut data = vec![131, 7, 4];
            data.extend(t.orders.v4.octets());
            data.push(0);
            ancillary(t, None, Ancillary { level: libc::IPPROTO_IP, kind: libc::IP_RETOPTS, data })
        },
    )
    .root(),
    Attempt::new(Udp, "udp4-sendmmsg", "sends by sendmmsg(2)", SENDMSG, |t| {
        let socket = datagram(libc::AF_INET)?;
        let payload = t.payload();
        message::send_many(&socket, &payload, &sys::sockaddr(t.v4(9999))).at("sendmmsg").map(drop)
    }),
    Attempt::new(Udp, "udp4-segment", "sends many datagrams as one (UDP_SEGMENT)", EGRESS, |t| {
        let socket = datagram(libc::AF_INET)?;
        sys::set_int(&socket, libc::IPPROTO_UDP, libc::UDP_SEGMENT, 28).at("UDP_SEGMENT")?;
        sys::connect(&socket, &sys::sockaddr(t.v4(9999))).at("connect")?;
        let payload = t.payload().repeat(4);
        sys::send(&socket, &payload, 0).at("send").map(drop)
    }),
    Attempt::new(
        Udp,
        "udp4-cork",
        "collects under UDP_CORK for one address and lets go on another",
        EGRESS,
        cork,
    ),
    Attempt::new(Udp, "udp4-more", "collects by MSG_MORE after connecting", EGRESS, |t| {
        let socket = datagram(libc::AF_INET)?;
        sys::connect(&socket, &sys::sockaddr(t.v4(9999))).at("connect")?;
        let payload = t.payload();
        sys::send(&socket, &payload, libc::MSG_MORE).at("send(MSG_MORE)")?;
        sys::send(&socket, b"end", 0).at("send").map(drop)
    }),
    Attempt::new(
        Udp,
        "udp4-connected-elsewhere",
        "connects to the resolver's port and sends to another address",
        SENDMSG,
        |t| {
            let socket = datagram(libc::AF_INET)?;
            sys::connect(&socket, &sys::sockaddr(t.v4(53))).at("connect")?;
            send_to(t, &socket, t.v4(9999))
        },
    ),
    Attempt::new(
        Udp,
        "udp4-bind-device",
        "binds to the outer interface and sends to port 53 there",
        "sendmsg4 redirects it to loopback, which that interface does not reach",
        |t| {
            let socket = datagram(libc::AF_INET)?;
            let name = b"gate0\0";
            sys::set_option(&socket, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, name).at("SO_BINDTODEVICE")?;
            send_to(t, &socket, t.v4(53))
        },
    ),
    Attempt::new(
        Udp,
        "udp4-broadcast",
        "broadcasts on the host's own network",
        "SO_BROADCAST has no effect",
        |t| broadcast(t, Ipv4Addr::new(192, 0, 2, 255)),
    ),
    Attempt::new(
        Udp,
        "udp4-broadcast-all",
        "broadcasts to 255.255.255.255",
        "SO_BROADCAST has no effect",
        |t| broadcast(t, Ipv4Addr::BROADCAST),
    ),
    Attempt::new(Udp, "udp4-multicast", "sends to an IPv4 group", SENDMSG, |t| {
        t.udp(SocketAddr::from((Ipv4Addr::new(239, 1, 2, 3), 9999)))
    }),
    Attempt::new(Udp, "udp6-multicast", "sends to an IPv6 group", SENDMSG, |t| multicast6(t, false)),
    Attempt::new(Udp, "udp6-multicast-connected", "connects to an IPv6 group and sends", EGRESS, |t| {
        multicast6(t, true)
    }),
    Attempt::new(
        Udp,
        "igmp-join",
        "joins an IPv4 group whose address is data: the kernel reports it to the network",
        "the setsockopt program refuses to join groups; the report itself is the kernel's packet",
        igmp_join,
    ),
    Attempt::new(
        Udp,
        "igmp-join-i386",
        "joins an IPv4 group by a system call of 32 bit programs",
        "seccomp of agentctl run, SystemCallArchitectures= of the unit: the kernel asks no setsockopt program",
        igmp_join_i386,
    )
    .needs_launch("for calls of 32 bit programs the kernel asks no setsockopt program")
    .past_lsm(),
    Attempt::new(
        Udp,
        "mld-join",
        "joins an IPv6 group whose address is data",
        "the setsockopt program refuses to join groups; the report itself is the kernel's packet",
        mld_join,
    ),
    Attempt::new(
        Udp,
        "udp4-errqueue",
        "asks a router for an answer by a small TTL (traceroute)",
        EGRESS,
        |t| {
            let socket = datagram(libc::AF_INET)?;
            sys::set_int(&socket, libc::IPPROTO_IP, libc::IP_TTL, 1).at("IP_TTL")?;
            sys::connect(&socket, &sys::sockaddr(t.v4(33_434))).at("connect")?;
            sys::send(&socket, &t.payload(), 0).at("send").map(drop)
        },
    ),
];

fn datagram(domain: i32) -> Result<OwnedFd, Stop> {
    sys::socket(domain, libc::SOCK_DGRAM, 0).at("socket(SOCK_DGRAM)")
}

fn send_to(tried: &mut Try, socket: &OwnedFd, to: SocketAddr) -> Attempted {
    sys::send_to(socket, &tried.payload(), 0, &sys::sockaddr(to)).at(&format!("sendto {to}")).map(drop)
}

fn connected(tried: &mut Try, to: SocketAddr) -> Attempted {
    let socket = datagram(if to.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 })?;
    sys::connect(&socket, &sys::sockaddr(to)).at("connect")?;
    sys::send(&socket, &tried.payload(), 0).at("send").map(drop)
}

/// `struct in_pktinfo` with the outer interface.
fn packet_information() -> Result<Ancillary, Stop> {
    let index = sys::interface(c"gate0").at("if_nametoindex")?;
    let mut data = index.to_ne_bytes().to_vec();
    data.extend([0; 8]);
    Ok(Ancillary { level: libc::IPPROTO_IP, kind: libc::IP_PKTINFO, data })
}

fn ancillary(tried: &mut Try, to: Option<SocketAddr>, piece: Ancillary) -> Attempted {
    let socket = datagram(libc::AF_INET)?;
    let address = match to {
        Some(to) => sys::sockaddr(to),
        None => {
            sys::connect(&socket, &sys::sockaddr(tried.v4(9999))).at("connect")?;
            Vec::new()
        }
    };
    message::send(&socket, &tried.payload(), &address, &[piece], 0).at("sendmsg").map(drop)
}

fn cork(tried: &mut Try) -> Attempted {
    let socket = datagram(libc::AF_INET)?;
    sys::connect(&socket, &sys::sockaddr(tried.v4(9999))).at("connect")?;
    sys::set_int(&socket, libc::IPPROTO_UDP, libc::UDP_CORK, 1).at("UDP_CORK")?;
    sys::send(&socket, &tried.payload(), 0).at("send")?;
    // Disconnected between collecting and sending.
    let mut unspecified = sys::family(libc::AF_UNSPEC).to_vec();
    unspecified.extend([0; 14]);
    let dissolved = sys::connect(&socket, &unspecified).at("connect(AF_UNSPEC)");
    tried.note(dissolved);
    sys::set_int(&socket, libc::IPPROTO_UDP, libc::UDP_CORK, 0).at("UDP_CORK off")
}

fn broadcast(tried: &mut Try, to: Ipv4Addr) -> Attempted {
    let socket = datagram(libc::AF_INET)?;
    sys::set_int(&socket, libc::SOL_SOCKET, libc::SO_BROADCAST, 1).at("SO_BROADCAST")?;
    send_to(tried, &socket, SocketAddr::from((to, 9999)))
}

fn multicast6(tried: &mut Try, connect: bool) -> Attempted {
    let socket = datagram(libc::AF_INET6)?;
    let index = sys::interface(c"gate0").at("if_nametoindex")?;
    let index = i32::try_from(index).unwrap_or_default();
    sys::set_int(&socket, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_IF, index).at("IPV6_MULTICAST_IF")?;
    let to = SocketAddr::from((Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0, 0x1234), 9999));
    if connect {
        sys::connect(&socket, &sys::sockaddr(to)).at("connect")?;
        return sys::send(&socket, &tried.payload(), 0).at("send").map(drop);
    }
    send_to(tried, &socket, to)
}

/// The group's address names the run, as data would: 28 bits of it are free.
fn igmp_join(tried: &mut Try) -> Attempted {
    let socket = datagram(libc::AF_INET)?;
    let mut request = group_v4(tried.orders.run).octets().to_vec();
    request.extend([0; 4]);
    request.extend(sys::interface(c"gate0").at("if_nametoindex")?.to_ne_bytes());
    sys::set_option(&socket, libc::IPPROTO_IP, libc::IP_ADD_MEMBERSHIP, &request).at("IP_ADD_MEMBERSHIP")?;
    wait_for_report(tried, socket)
}

fn igmp_join_i386(tried: &mut Try) -> Attempted {
    let socket = datagram(libc::AF_INET)?;
    let mut request = group_v4(tried.orders.run).octets().to_vec();
    request.extend([0; 4]);
    request.extend(sys::interface(c"gate0").at("if_nametoindex")?.to_ne_bytes());
    sys::i386::set_option(&socket, libc::IPPROTO_IP, libc::IP_ADD_MEMBERSHIP, &request)
        .at("IP_ADD_MEMBERSHIP by int 0x80")?;
    wait_for_report(tried, socket)
}

fn mld_join(tried: &mut Try) -> Attempted {
    let socket = datagram(libc::AF_INET6)?;
    let mut request = group_v6(tried.orders.run).octets().to_vec();
    request.extend(sys::interface(c"gate0").at("if_nametoindex")?.to_ne_bytes());
    sys::set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_ADD_MEMBERSHIP, &request)
        .at("IPV6_ADD_MEMBERSHIP")?;
    wait_for_report(tried, socket)
}

/// The kernel sends a report within a second of its choice (RFC 3376 8.11); holding the membership meanwhile keeps it from being
/// taken back.
fn wait_for_report(tried: &mut Try, socket: OwnedFd) -> Attempted {
    sys::readable(&socket, 1300).at("poll")?;
    tried.saw("joined");
    Ok(())
}
