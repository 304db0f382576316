//! Cloud metadata, in the spellings in which it can be reached.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::dns;
use crate::selftest::{
    orders::TUNNEL,
    report::Family::Metadata,
    suite::Attempt,
    sys,
    tried::{At as _, Attempted, Try},
};

const JUDGED: &str = "redirected; the gate refuses metadata addresses in every spelling";

/// Amazon's, Google's, Azure's and most others' (link-local).
const COMMON: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

pub(super) const ATTEMPTS: &[Attempt] = &[
    Attempt::new(Metadata, "metadata4", "169.254.169.254", JUDGED, |t| t.tcp(http(COMMON.into()))),
    Attempt::new(Metadata, "metadata-mapped", "::ffff:169.254.169.254", JUDGED, |t| {
        let socket = sys::socket(libc::AF_INET6, libc::SOCK_STREAM, 0).at("socket")?;
        t.tcp_on(&socket, http(COMMON.to_ipv6_mapped().into()))
    }),
    Attempt::new(Metadata, "metadata-nat64", "64:ff9b::a9fe:a9fe, by NAT64", JUDGED, |t| {
        t.tcp(http(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0xa9fe, 0xa9fe).into()))
    }),
    Attempt::new(Metadata, "metadata-6to4", "2002:a9fe:a9fe::, by 6to4", JUDGED, |t| {
        t.tcp(http(Ipv6Addr::new(0x2002, 0xa9fe, 0xa9fe, 0, 0, 0, 0, 0).into()))
    }),
    Attempt::new(Metadata, "metadata-aws6", "fd00:ec2::254, Amazon's over IPv6", JUDGED, |t| {
        t.tcp(http(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254).into()))
    }),
    Attempt::new(Metadata, "metadata-aws-ecs", "169.254.170.2, a container's credentials", JUDGED, |t| {
        t.tcp(http(Ipv4Addr::new(169, 254, 170, 2).into()))
    }),
    Attempt::new(Metadata, "metadata-aws-eks", "169.254.170.23, a pod's credentials", JUDGED, |t| {
        t.tcp(http(Ipv4Addr::new(169, 254, 170, 23).into()))
    }),
    Attempt::new(Metadata, "metadata-alibaba", "100.100.100.200, Alibaba's", JUDGED, |t| {
        t.tcp(http(Ipv4Addr::new(100, 100, 100, 200).into()))
    }),
    Attempt::new(Metadata, "metadata-azure-wire", "168.63.129.16, Azure's wire server", JUDGED, |t| {
        t.tcp(http(Ipv4Addr::new(168, 63, 129, 16).into()))
    }),
    Attempt::new(Metadata, "metadata-oracle", "192.0.0.192, Oracle's", JUDGED, |t| {
        t.tcp(http(Ipv4Addr::new(192, 0, 0, 192).into()))
    }),
    Attempt::new(Metadata, "metadata-link-local", "169.254.1.1, anybody else's link-local", JUDGED, |t| {
        t.tcp(http(Ipv4Addr::new(169, 254, 1, 1).into()))
    }),
    Attempt::new(Metadata, "metadata-port", "169.254.169.254 at another port", JUDGED, |t| {
        t.tcp(SocketAddr::from((COMMON, 8080)))
    }),
    Attempt::new(Metadata, "metadata-decimal", "Host: 2852039166, a number", JUDGED, |t| {
        host(t, "2852039166")
    }),
    Attempt::new(Metadata, "metadata-hex", "Host: 0xa9fea9fe", JUDGED, |t| host(t, "0xa9fea9fe")),
    Attempt::new(Metadata, "metadata-octal", "Host: 0251.0376.0251.0376", JUDGED, |t| {
        host(t, "0251.0376.0251.0376")
    }),
    Attempt::new(Metadata, "metadata-short", "Host: 169.254.43518", JUDGED, |t| host(t, "169.254.43518")),
    Attempt::new(
        Metadata,
        "metadata-literal-host",
        "Host: 169.254.169.254 at a foreign address",
        JUDGED,
        |t| host(t, "169.254.169.254"),
    ),
    Attempt::new(Metadata, "metadata-bracketed", "Host: [::ffff:169.254.169.254]", JUDGED, |t| {
        host(t, "[::ffff:169.254.169.254]")
    }),
    Attempt::new(Metadata, "metadata-google-name", "metadata.google.internal", JUDGED, |t| {
        named(t, "metadata.google.internal")
    }),
    Attempt::new(
        Metadata,
        "metadata-rebinding",
        "an allowed name that leads to 169.254.169.254",
        "the gate's resolver drops such answers; the gate refuses such names",
        |t| named(t, &format!("metadata.{TUNNEL}")),
    ),
    Attempt::new(
        Metadata,
        "metadata-rebinding-mapped",
        "an allowed name with the mapped address in an AAAA record",
        "the gate's resolver drops such answers; the gate refuses such names",
        |t| {
            let socket = sys::socket(libc::AF_INET, libc::SOCK_STREAM, 0).at("socket")?;
            sys::connect(&socket, &sys::sockaddr(t.v4(80))).at("connect")?;
            t.speak(&socket, &format!("mapped.{TUNNEL}"))
        },
    ),
    Attempt::new(Metadata, "metadata-udp", "a datagram to 169.254.169.254", "sendmsg4 refuses it", |t| {
        t.udp(SocketAddr::from((COMMON, 9999)))
    }),
    Attempt::new(
        Metadata,
        "metadata-dns",
        "asks 169.254.169.253, Amazon's resolver",
        "every question goes to the gate's resolver",
        |t| {
            let name = format!("{}.{}", t.orders.token, crate::selftest::orders::FORBIDDEN);
            let socket = sys::socket(libc::AF_INET, libc::SOCK_DGRAM, 0).at("socket")?;
            let server = SocketAddr::from((Ipv4Addr::new(169, 254, 169, 253), 53));
            let question = crate::selftest::zone::question(9, &name, 1);
            sys::send_to(&socket, &question, 0, &sys::sockaddr(server)).at("sendto").map(drop)
        },
    ),
];

fn http(ip: IpAddr) -> SocketAddr {
    SocketAddr::new(ip, 80)
}

/// A request to this run's own address for a host that means the metadata service to a proxy that
/// resolves it. Outside it arrives at that address.
fn host(tried: &mut Try, host: &str) -> Attempted {
    let socket = sys::socket(libc::AF_INET, libc::SOCK_STREAM, 0).at("socket")?;
    sys::connect(&socket, &sys::sockaddr(tried.v4(80))).at("connect")?;
    tried.speak(&socket, host)
}

/// By a name: to the address that it resolves to, and by way of the gate's own resolution.
fn named(tried: &mut Try, name: &str) -> Attempted {
    for address in dns::resolve(tried, name)? {
        let done = tried.tcp(http(address));
        tried.note(done);
    }
    host(tried, name)
}
