//! Address families besides IPv4 and IPv6.
//!
//! Where a family cannot carry anything from here to the sinks, that a socket of it can be made is what
//! counts as arriving: whoever has one has left what the gate's programs see.

use crate::selftest::{
    report::Family::Families,
    suite::Attempt,
    sys,
    tried::{At as _, Attempted, Try},
};

const CLOSED: &str = "seccomp of agentctl run; LSM socket_create (kernels with BPF LSM); RestrictAddressFamilies= \
                      in units";

/// `SOCK_PACKET` of linux/net.h.
const OLD_PACKET: i32 = 10;

pub(super) const ATTEMPTS: &[Attempt] = &[
    Attempt::new(Families, "packet-dgram", "sends a packet by AF_PACKET", CLOSED, |t| {
        packet(t, libc::SOCK_DGRAM)
    })
    .root(),
    Attempt::new(Families, "packet-raw", "sends a whole frame by AF_PACKET", CLOSED, |t| {
        packet(t, libc::SOCK_RAW)
    })
    .root(),
    Attempt::new(
        Families,
        "packet-old",
        "opens a packet(7) socket by the obsolete SOCK_PACKET of AF_INET",
        "seccomp of agentctl run; LSM socket_create; units have no CAP_NET_RAW",
        |t| open(t, libc::AF_INET, OLD_PACKET, 0x0300),
    )
    .root(),
    Attempt::new(Families, "vsock", "opens AF_VSOCK, towards the hypervisor", CLOSED, |t| {
        open(t, libc::AF_VSOCK, libc::SOCK_STREAM, 0)
    }),
    Attempt::new(Families, "vsock-dgram", "opens AF_VSOCK for datagrams", CLOSED, |t| {
        open(t, libc::AF_VSOCK, libc::SOCK_DGRAM, 0)
    }),
    Attempt::new(Families, "xdp", "opens AF_XDP, beside the network stack", CLOSED, |t| {
        open(t, libc::AF_XDP, libc::SOCK_RAW, 0)
    })
    .root(),
    Attempt::new(Families, "alg", "opens AF_ALG: no egress, but kernel surface", CLOSED, |t| {
        open(t, libc::AF_ALG, libc::SOCK_SEQPACKET, 0)
    }),
    Attempt::new(Families, "bluetooth", "opens AF_BLUETOOTH", CLOSED, |t| {
        open(t, libc::AF_BLUETOOTH, libc::SOCK_RAW, 1)
    }),
    Attempt::new(Families, "can", "opens AF_CAN", CLOSED, |t| open(t, libc::AF_CAN, libc::SOCK_RAW, 1)),
    Attempt::new(Families, "tipc", "opens AF_TIPC", CLOSED, |t| open(t, libc::AF_TIPC, libc::SOCK_RDM, 0)),
    Attempt::new(Families, "smc", "opens AF_SMC", CLOSED, |t| open(t, 43, libc::SOCK_STREAM, 0)),
    Attempt::new(Families, "rds", "opens AF_RDS", CLOSED, |t| open(t, libc::AF_RDS, libc::SOCK_SEQPACKET, 0)),
    Attempt::new(Families, "qipcrtr", "opens AF_QIPCRTR", CLOSED, |t| open(t, 42, libc::SOCK_DGRAM, 0)),
    Attempt::new(Families, "kcm", "opens AF_KCM", CLOSED, |t| open(t, 41, libc::SOCK_DGRAM, 0)),
    Attempt::new(Families, "pppox", "opens AF_PPPOX", CLOSED, |t| {
        open(t, libc::AF_PPPOX, libc::SOCK_STREAM, 0)
    }),
    Attempt::new(Families, "llc", "opens AF_LLC", CLOSED, |t| open(t, libc::AF_LLC, libc::SOCK_DGRAM, 0)),
    Attempt::new(Families, "mctp", "opens AF_MCTP", CLOSED, |t| open(t, 45, libc::SOCK_DGRAM, 0)),
];

fn open(tried: &mut Try, domain: i32, kind: i32, protocol: i32) -> Attempted {
    let _socket = sys::socket(domain, kind, protocol).at(&format!("socket(family {domain})"))?;
    tried.report.reached = Some(format!("a socket of family {domain} was made"));
    Ok(())
}

/// A packet with the token to the world's end of the wire.
fn packet(tried: &mut Try, kind: i32) -> Attempted {
    let index = sys::interface(c"gate0").at("if_nametoindex")?;
    // IPv4.
    let protocol = 0x0800_u16.to_be();
    let socket = sys::socket(libc::AF_PACKET, kind, i32::from(protocol)).at("socket(AF_PACKET)")?;
    // struct sockaddr_ll: family, protocol, index, hatype, pkttype, halen, address.
    let mut address = sys::family(libc::AF_PACKET).to_vec();
    address.extend(protocol.to_ne_bytes());
    address.extend(index.to_ne_bytes());
    address.extend([0, 0, 0, 6]);
    address.extend([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]);
    let mut frame = Vec::new();
    if kind == libc::SOCK_RAW {
        frame.extend([0xff; 6]);
        frame.extend([2, 0, 0, 0, 0, 1]);
        frame.extend(0x0800_u16.to_be_bytes());
    }
    frame.extend([0x45, 0, 0, 60, 0, 0, 0, 0, 64, 253, 0, 0, 192, 0, 2, 1]);
    frame.extend(tried.orders.v4.octets());
    frame.extend(tried.payload());
    sys::send_to(&socket, &frame, 0, &address).at("sendto").map(drop)
}
