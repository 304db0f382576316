//! Other protocols over IP.

use std::net::SocketAddr;

use crate::selftest::{
    report::Family::Raw,
    suite::Attempt,
    sys,
    tried::{At as _, Attempted, Try},
};

const CREATE: &str = "sock_create refuses the type or protocol";

/// `IPPROTO_MPTCP`'s neighbours that libc has no name for, linux/in.h and in6.h.
const L2TP: i32 = 115;

pub(super) const ATTEMPTS: &[Attempt] = &[
    Attempt::new(Raw, "udplite4", "sends a datagram by UDP-Lite", CREATE, |t| {
        datagram(t, t.v4(9999), libc::SOCK_DGRAM, libc::IPPROTO_UDPLITE)
    }),
    Attempt::new(Raw, "udplite6", "the same over IPv6", CREATE, |t| {
        datagram(t, t.v6(9999), libc::SOCK_DGRAM, libc::IPPROTO_UDPLITE)
    }),
    Attempt::new(Raw, "ping4", "sends an echo request by a ping socket", CREATE, |t| {
        echo(t, t.v4(0), libc::SOCK_DGRAM, libc::IPPROTO_ICMP, 8)
    }),
    Attempt::new(Raw, "ping6", "the same over IPv6", CREATE, |t| {
        echo(t, t.v6(0), libc::SOCK_DGRAM, libc::IPPROTO_ICMPV6, 128)
    }),
    Attempt::new(Raw, "raw4-icmp", "sends an echo request by a raw socket", CREATE, |t| {
        echo(t, t.v4(0), libc::SOCK_RAW, libc::IPPROTO_ICMP, 8)
    })
    .root(),
    Attempt::new(Raw, "raw6-icmp", "the same over IPv6", CREATE, |t| {
        echo(t, t.v6(0), libc::SOCK_RAW, libc::IPPROTO_ICMPV6, 128)
    })
    .root(),
    Attempt::new(Raw, "raw4-header", "writes the IP header itself (IPPROTO_RAW)", CREATE, |t| {
        header(t, true)
    })
    .root(),
    Attempt::new(Raw, "raw6-header", "the same over IPv6", CREATE, |t| header(t, false)).root(),
    Attempt::new(Raw, "raw4-udp", "makes UDP by hand on a raw socket", CREATE, |t| {
        datagram(t, t.v4(0), libc::SOCK_RAW, libc::IPPROTO_UDP)
    })
    .root(),
    Attempt::new(Raw, "raw4-tcp", "makes TCP by hand on a raw socket", CREATE, |t| {
        datagram(t, t.v4(0), libc::SOCK_RAW, libc::IPPROTO_TCP)
    })
    .root(),
    Attempt::new(Raw, "raw4-protocol-253", "sends an experimental IP protocol (RFC 3692)", CREATE, |t| {
        datagram(t, t.v4(0), libc::SOCK_RAW, 253)
    })
    .root(),
    Attempt::new(Raw, "raw4-gre", "tunnels in GRE by hand", CREATE, |t| {
        datagram(t, t.v4(0), libc::SOCK_RAW, libc::IPPROTO_GRE)
    })
    .root(),
    Attempt::new(Raw, "sctp4", "opens an association by SCTP", CREATE, |t| {
        stream(t, t.v4(9999), libc::SOCK_STREAM, libc::IPPROTO_SCTP)
    }),
    Attempt::new(Raw, "sctp6", "the same over IPv6", CREATE, |t| {
        stream(t, t.v6(9999), libc::SOCK_SEQPACKET, libc::IPPROTO_SCTP)
    }),
    Attempt::new(Raw, "dccp4", "connects by DCCP", CREATE, |t| {
        stream(t, t.v4(9999), libc::SOCK_DCCP, libc::IPPROTO_DCCP)
    }),
    Attempt::new(Raw, "l2tp4", "sends by L2TP over IP", CREATE, |t| {
        datagram(t, t.v4(0), libc::SOCK_DGRAM, L2TP)
    }),
    Attempt::new(Raw, "smc4", "connects by SMC over TCP (protocol 256)", CREATE, |t| {
        // IPPROTO_SMC of linux/in.h, since Linux 6.10.
        stream(t, t.v4(80), libc::SOCK_STREAM, 256)
    }),
];

fn domain(to: SocketAddr) -> i32 {
    if to.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 }
}

fn datagram(tried: &mut Try, to: SocketAddr, kind: i32, protocol: i32) -> Attempted {
    let socket = sys::socket(domain(to), kind, protocol).at(&format!("socket(protocol {protocol})"))?;
    sys::send_to(&socket, &tried.payload(), 0, &sys::sockaddr(to)).at("sendto").map(drop)
}

fn stream(tried: &mut Try, to: SocketAddr, kind: i32, protocol: i32) -> Attempted {
    let socket = sys::socket(domain(to), kind, protocol).at(&format!("socket(protocol {protocol})"))?;
    tried.tcp_on(&socket, to)
}

/// An echo request; for ping sockets the kernel writes identifier and checksum.
fn echo(tried: &mut Try, to: SocketAddr, kind: i32, protocol: i32, request: u8) -> Attempted {
    let socket = sys::socket(domain(to), kind, protocol).at("socket(ICMP)")?;
    let mut message = vec![request, 0, 0, 0, 0, 1, 0, 1];
    message.extend(tried.payload());
    sys::send_to(&socket, &message, 0, &sys::sockaddr(to)).at("sendto").map(drop)
}

fn header(tried: &mut Try, v4: bool) -> Attempted {
    let payload = tried.payload();
    let (to, packet) = if v4 {
        let to = tried.v4(0);
        // The kernel fills in length, identifier, checksum and source.
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 253, 0, 0, 0, 0, 0, 0];
        packet.extend(tried.orders.v4.octets());
        packet.extend(payload);
        (to, packet)
    } else {
        let to = tried.v6(0);
        let length = u16::try_from(payload.len()).unwrap_or_default().to_be_bytes();
        let mut packet = vec![0x60, 0, 0, 0, length[0], length[1], 253, 64];
        packet.extend(crate::selftest::orders::HOST_V6.octets());
        packet.extend(tried.orders.v6.octets());
        packet.extend(payload);
        (to, packet)
    };
    let socket = sys::socket(domain(to), libc::SOCK_RAW, libc::IPPROTO_RAW).at("socket(IPPROTO_RAW)")?;
    sys::send_to(&socket, &packet, 0, &sys::sockaddr(to)).at("sendto").map(drop)
}
