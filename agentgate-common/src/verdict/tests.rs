//! Tables of calls and what becomes of them.

extern crate std;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::*;
use crate::event::Hook;

const NETNS: u64 = 77;

fn settings() -> Settings {
    let mut settings = Settings { dns_port: 53, listener_port: 7879, netns: NETNS, ..Settings::default() };
    settings.gate_ports[0] = 7878;
    settings.loopback_ports[0] = 5432;
    settings.loopback_ports[31] = 6379;
    settings
}

const fn origin() -> Origin {
    Origin { netns: NETNS, device: 0 }
}

fn to(address: &str) -> Endpoint {
    match address.parse().unwrap() {
        SocketAddr::V4(v4) => Endpoint { addr: map_v4(v4.ip().octets()), port: v4.port(), family: INET },
        SocketAddr::V6(v6) => Endpoint { addr: v6.ip().octets(), port: v6.port(), family: INET6 },
    }
}

fn tcp(address: &str) -> Result<Passage, Denial> {
    connect(&settings(), &to(address), STREAM, TCP, origin())
}

#[test]
fn tcp_destinations() {
    use Denial::{GatePort, Loopback};
    use Passage::{Direct, Listener, Resolver};
    let rows: &[(&str, Result<Passage, Denial>)] = &[
        ("203.0.113.7:443", Ok(Listener)),
        ("[2001:db8::7]:443", Ok(Listener)),
        ("[::ffff:203.0.113.7]:443", Ok(Listener)),
        ("[64:ff9b::7f00:1]:443", Ok(Listener)),
        ("[::127.0.0.1]:443", Ok(Listener)),
        ("169.254.169.254:80", Ok(Listener)),
        ("[fd00:ec2::254]:80", Ok(Listener)),
        ("[fe80::1]:443", Ok(Listener)),
        ("192.168.1.1:7878", Ok(Listener)),
        ("126.255.255.255:7878", Ok(Listener)),
        ("128.0.0.0:7878", Ok(Listener)),
        ("0.0.0.1:443", Ok(Listener)),
        ("203.0.113.7:0", Ok(Listener)),
        ("203.0.113.7:5432", Ok(Listener)),
        ("255.255.255.255:443", Ok(Listener)),
        ("127.0.0.1:7878", Err(GatePort)),
        ("127.0.0.1:7879", Err(GatePort)),
        ("127.9.9.9:7879", Err(GatePort)),
        ("0.0.0.0:7878", Err(GatePort)),
        ("[::]:7879", Err(GatePort)),
        ("[::1]:7878", Err(GatePort)),
        ("[::ffff:127.0.0.1]:7878", Err(GatePort)),
        ("[::ffff:0.0.0.0]:7879", Err(GatePort)),
        ("127.0.0.1:8080", Err(Loopback)),
        ("127.255.255.255:8080", Err(Loopback)),
        ("0.0.0.0:8080", Err(Loopback)),
        ("[::1]:8080", Err(Loopback)),
        ("[::]:8080", Err(Loopback)),
        ("[::ffff:127.1.2.3]:8080", Err(Loopback)),
        ("127.0.0.1:0", Err(Loopback)),
        ("127.0.0.1:5432", Ok(Direct)),
        ("[::1]:6379", Ok(Direct)),
        ("0.0.0.0:5432", Ok(Direct)),
        ("[::ffff:127.0.0.1]:6379", Ok(Direct)),
        ("8.8.8.8:53", Ok(Resolver)),
        ("127.0.0.53:53", Ok(Resolver)),
        ("[2001:4860:4860::8888]:53", Ok(Resolver)),
        ("[::1]:53", Ok(Resolver)),
        ("[::ffff:8.8.8.8]:53", Ok(Resolver)),
        ("10.0.0.53:53", Ok(Resolver)),
        ("8.8.8.8:853", Ok(Listener)),
    ];
    for (address, expect) in rows {
        assert_eq!(tcp(address), *expect, "{address}");
    }
}

#[test]
fn udp_destinations() {
    use Denial::Udp as Refused;
    use Passage::{Connected, Resolver};
    type Row = (&'static str, Result<Passage, Denial>, Result<Passage, Denial>);
    let rows: &[Row] = &[
        ("8.8.8.8:53", Ok(Resolver), Ok(Resolver)),
        ("127.0.0.53:53", Ok(Resolver), Ok(Resolver)),
        ("[::ffff:8.8.8.8]:53", Ok(Resolver), Ok(Resolver)),
        ("[2001:db8::1]:53", Ok(Resolver), Ok(Resolver)),
        ("224.0.0.1:53", Ok(Resolver), Ok(Resolver)),
        ("203.0.113.7:443", Err(Refused), Ok(Connected)),
        ("203.0.113.7:0", Err(Refused), Ok(Connected)),
        ("203.0.113.7:7879", Err(Refused), Ok(Connected)),
        ("[2001:db8::7]:443", Err(Refused), Ok(Connected)),
        ("[::ffff:203.0.113.7]:443", Err(Refused), Ok(Connected)),
        ("10.0.0.53:54", Err(Refused), Ok(Connected)),
        ("169.254.169.254:80", Err(Refused), Ok(Connected)),
        ("223.255.255.255:443", Err(Refused), Ok(Connected)),
        ("240.0.0.1:443", Err(Refused), Ok(Connected)),
        ("[fe80::1]:443", Err(Refused), Ok(Connected)),
        ("224.0.0.251:5353", Err(Refused), Err(Refused)),
        ("239.255.255.255:1900", Err(Refused), Err(Refused)),
        ("255.255.255.255:67", Err(Refused), Err(Refused)),
        ("[ff02::fb]:5353", Err(Refused), Err(Refused)),
        ("[::ffff:224.0.0.251]:5353", Err(Refused), Err(Refused)),
        ("127.0.0.1:5432", Err(Refused), Err(Refused)),
        ("127.0.0.1:7879", Err(Refused), Err(Refused)),
        ("127.255.255.255:443", Err(Refused), Err(Refused)),
        ("0.0.0.0:443", Err(Refused), Err(Refused)),
        ("[::1]:0", Err(Refused), Err(Refused)),
        ("[::]:443", Err(Refused), Err(Refused)),
        ("[::ffff:127.0.0.1]:443", Err(Refused), Err(Refused)),
        ("[::ffff:0.0.0.0]:443", Err(Refused), Err(Refused)),
    ];
    for (address, sent, connected) in rows {
        let found = send(&settings(), &to(address), DGRAM, UDP, origin());
        assert_eq!(found, *sent, "send {address}");
        let found = connect(&settings(), &to(address), DGRAM, UDP, origin());
        assert_eq!(found, *connected, "connect {address}");
    }
}

#[test]
fn a_resolver_of_another_port_is_reached_by_the_port_of_dns_only() {
    let settings = Settings { dns_port: 5353, ..settings() };
    for address in ["10.0.0.53:5353", "[::ffff:10.0.0.53]:5353", "[fd00::53]:5353"] {
        assert_eq!(connect(&settings, &to(address), DGRAM, UDP, origin()), Err(Denial::Udp), "{address}");
    }
    assert_eq!(
        connect(&settings, &to("10.0.0.54:5353"), DGRAM, UDP, origin()),
        Ok(Passage::Connected),
        "its neighbour"
    );
}

#[test]
fn what_is_not_set_is_refused() {
    let none = Settings::default();
    let rows: &[(&str, u32, u32, Denial)] = &[
        ("203.0.113.7:443", STREAM, TCP, Denial::NoListener),
        ("[2001:db8::7]:443", STREAM, TCP, Denial::NoListener),
        ("127.0.0.1:0", STREAM, TCP, Denial::GatePort),
        ("127.0.0.1:80", STREAM, TCP, Denial::Loopback),
        ("8.8.8.8:53", DGRAM, UDP, Denial::NoResolver),
        ("[2001:db8::1]:53", DGRAM, UDP, Denial::NoResolver),
        ("8.8.8.8:53", STREAM, TCP, Denial::NoResolver),
    ];
    for (address, kind, protocol, expect) in rows {
        let found = connect(&none, &to(address), *kind, *protocol, Origin { netns: 0, device: 0 });
        assert_eq!(found, Err(*expect), "{address}");
    }
    let deaf = Settings { netns: 0, ..settings() };
    assert_eq!(
        connect(&deaf, &to("203.0.113.7:443"), STREAM, TCP, Origin { netns: 0, device: 0 }),
        Err(Denial::NoListener)
    );
}

#[test]
fn each_family_has_its_own_resolver() {
    let v4_only = Settings { dns6: [0; 16], ..settings() };
    let v6_only = Settings { dns4: [0; 4], ..settings() };
    let portless = Settings { dns_port: 0, ..settings() };
    let rows: &[(&Settings, &str, Result<&str, Denial>)] = &[
        (&v4_only, "8.8.8.8:53", Ok("10.0.0.53:53")),
        (&v4_only, "[::1]:53", Err(Denial::NoResolver)),
        (&v6_only, "[::1]:53", Ok("[fd00::53]:53")),
        (&v6_only, "8.8.8.8:53", Err(Denial::NoResolver)),
        (&v6_only, "[::ffff:8.8.8.8]:53", Err(Denial::NoResolver)),
        (&v4_only, "[::ffff:8.8.8.8]:53", Ok("[::ffff:10.0.0.53]:53")),
        (&portless, "8.8.8.8:53", Err(Denial::NoResolver)),
    ];
    for (settings, address, expect) in rows {
        assert_eq!(resolver(settings, &to(address)), expect.map(to), "{address}");
    }
}

#[test]
fn the_listener_is_of_the_same_family() {
    let rows = [
        ("203.0.113.7:443", "127.0.0.1:7879"),
        ("[2001:db8::7]:443", "[::1]:7879"),
        ("[::ffff:203.0.113.7]:443", "[::ffff:127.0.0.1]:7879"),
    ];
    for (address, expect) in rows {
        assert_eq!(listener(&settings(), &to(address)), to(expect), "{address}");
    }
}

#[test]
fn foreign_namespaces_and_bound_devices() {
    let foreign = Origin { netns: NETNS + 1, device: 0 };
    let bound = Origin { netns: NETNS, device: 2 };
    let lo = Origin { netns: NETNS, device: LOOPBACK_INDEX };
    type Row = (&'static str, u32, u32, Origin, Result<Passage, Denial>);
    let rows: &[Row] = &[
        ("203.0.113.7:443", STREAM, TCP, foreign, Err(Denial::Namespace)),
        ("8.8.8.8:53", DGRAM, UDP, foreign, Err(Denial::Namespace)),
        ("8.8.8.8:53", STREAM, TCP, foreign, Err(Denial::Namespace)),
        ("127.0.0.1:5432", STREAM, TCP, foreign, Ok(Passage::Direct)),
        ("127.0.0.1:7879", STREAM, TCP, foreign, Err(Denial::GatePort)),
        ("203.0.113.7:443", STREAM, TCP, bound, Err(Denial::Device)),
        ("203.0.113.7:443", STREAM, TCP, lo, Ok(Passage::Listener)),
        ("8.8.8.8:53", DGRAM, UDP, bound, Ok(Passage::Resolver)),
        ("203.0.113.7:443", DGRAM, UDP, foreign, Ok(Passage::Connected)),
    ];
    for (address, kind, protocol, origin, expect) in rows {
        assert_eq!(connect(&settings(), &to(address), *kind, *protocol, *origin), *expect, "{address}");
    }
}

#[test]
fn socket_types() {
    let rows: &[(u32, u32, u32, bool, &str)] = &[
        (2, 1, 6, true, "TCP"),
        (10, 1, 6, true, "TCP over IPv6"),
        (2, 1, 262, true, "MPTCP"),
        (2, 2, 17, true, "UDP"),
        (10, 2, 17, true, "UDP over IPv6"),
        (2, 3, 255, false, "raw"),
        (2, 3, 6, false, "raw TCP"),
        (10, 3, 58, false, "raw ICMPv6"),
        (2, 2, 1, false, "ping"),
        (10, 2, 58, false, "ping over IPv6"),
        (2, 2, 136, false, "UDP-Lite"),
        (2, 1, 132, false, "SCTP one-to-one"),
        (2, 5, 132, false, "SCTP one-to-many"),
        (2, 6, 33, false, "DCCP"),
        (2, 2, 115, false, "L2TP"),
        (2, 1, 17, false, "UDP as a stream"),
        (2, 2, 6, false, "TCP as datagrams"),
        (17, 3, 3, false, "packet"),
        (1, 1, 6, false, "unix"),
        (40, 1, 6, false, "vsock"),
        (0, 0, 0, false, "nothing"),
    ];
    for (family, kind, protocol, pass, name) in rows {
        let expect = if *pass { Ok(Passage::Direct) } else { Err(Denial::SocketType) };
        assert_eq!(socket(*family, *kind, *protocol), expect, "{name}");
        if !pass {
            let sent = send(&settings(), &to("8.8.8.8:53"), *kind, *protocol, origin());
            assert_eq!(sent, Err(Denial::SocketType), "send of {name}");
            let found = connect(&settings(), &to("8.8.8.8:53"), *kind, *protocol, origin());
            if (*kind, *protocol) != (1, 6) {
                assert_eq!(found, Err(Denial::SocketType), "connect of {name}");
            }
        }
    }
}

#[test]
fn ports_to_bind() {
    let rows = [(0, true), (1, true), (53, true), (5432, true), (7878, false), (7879, false), (65535, true)];
    for (port, pass) in rows {
        assert_eq!(bind(&settings(), port).is_ok(), pass, "{port}");
    }
    assert!(bind(&Settings::default(), 0).is_ok());
}

#[test]
fn options_that_are_not_set() {
    // SO_BROADCAST; SO_REUSEADDR; others that share one of its numbers.
    for (level, name, swallowed) in [(1, 6, true), (1, 2, false), (6, 6, false), (0, 6, false), (6, 1, false)]
    {
        assert_eq!(is_swallowed(level, name), swallowed, "{level} {name}");
    }
}

#[test]
fn packets_that_leave() {
    use Denial::{Egress, Udp as Datagram};
    type Row = (&'static str, u32, bool, Result<Passage, Denial>, &'static str);
    let dns = Ok(Passage::Resolver);
    let rows: &[Row] = &[
        ("10.0.0.53:53", UDP, true, dns, "DNS"),
        ("10.0.0.53:53", TCP, true, dns, "DNS over TCP"),
        ("[fd00::53]:53", UDP, true, dns, "DNS over IPv6"),
        ("10.0.0.53:53", UDP, false, Err(Egress), "with a source route"),
        ("10.0.0.53:54", UDP, true, Err(Datagram), "another port"),
        ("10.0.0.54:53", UDP, true, Err(Datagram), "another host"),
        ("203.0.113.7:443", UDP, true, Err(Datagram), "QUIC"),
        ("203.0.113.7:443", UDP, false, Err(Egress), "QUIC with a source route"),
        ("[2001:db8::7]:443", UDP, true, Err(Datagram), "QUIC over IPv6"),
        ("127.0.0.1:53", UDP, true, Err(Datagram), "a local server"),
        ("[::1]:5432", UDP, true, Err(Datagram), "an opened port, which is of TCP"),
        ("10.0.0.53:53", 1, true, Err(Egress), "ICMP"),
        ("10.0.0.53:53", 136, true, Err(Egress), "UDP-Lite"),
        ("[fd00::53]:53", 43, true, Err(Egress), "a routing header"),
        ("127.0.0.1:7879", TCP, true, Err(Egress), "the listener through a real interface"),
        ("203.0.113.7:443", TCP, true, Err(Egress), "an answer to a stranger"),
    ];
    for (address, protocol, plain, expect, name) in rows {
        let found =
            packet(&settings(), &Packet { destination: to(address), protocol: *protocol, plain: *plain });
        assert_eq!(found, *expect, "{name}");
    }
    for (protocol, denial) in [(UDP, Datagram), (TCP, Egress)] {
        let unset = Packet { destination: to("0.0.0.0:0"), protocol, plain: true };
        assert_eq!(packet(&Settings::default(), &unset), Err(denial));
    }
}

#[test]
fn only_tcp_is_left_alone_within_the_host() {
    let rows = [
        (LOOPBACK_INDEX, TCP, true),
        (LOOPBACK_INDEX, UDP, false),
        (LOOPBACK_INDEX, 1, false),
        (LOOPBACK_INDEX, 0, false),
        (2, TCP, false),
        (2, UDP, false),
        (0, TCP, false),
    ];
    for (interface, protocol, local) in rows {
        assert_eq!(is_local_stream(interface, protocol), local, "{interface} {protocol}");
    }
}

#[test]
fn numbers_are_distinct_and_in_range() {
    for (i, denial) in Denial::ALL.into_iter().enumerate() {
        assert_eq!(Denial::from_u8(denial as u8), Some(denial));
        assert!(u32::from(denial as u8) < OUTCOMES);
        for other in Denial::ALL.into_iter().skip(i + 1) {
            assert_ne!(denial as u8, other as u8);
            assert_ne!(denial.code(), other.code());
        }
        for passage in [Passage::Direct, Passage::Connected, Passage::Listener, Passage::Resolver] {
            assert_ne!(denial as u8, passage as u8);
            assert!(u32::from(passage as u8) < OUTCOMES);
        }
    }
    assert_eq!(Denial::from_u8(0), None);
    for hook in Hook::ALL {
        assert_eq!(Hook::from_u8(hook as u8), Some(hook));
        assert!(counter(hook, 0) > LOST);
        assert!(counter(hook, 15) < COUNTERS);
    }
}

#[test]
fn mapping_goes_both_ways() {
    for address in [Ipv4Addr::LOCALHOST, Ipv4Addr::UNSPECIFIED, Ipv4Addr::new(203, 0, 113, 7)] {
        assert_eq!(map_v4(address.octets()), address.to_ipv6_mapped().octets());
        assert_eq!(mapped(&map_v4(address.octets())), Some(address.octets()));
    }
    assert_eq!(mapped(&LOOPBACK6), None);
}
