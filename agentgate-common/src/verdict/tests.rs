//! Tables of calls and what becomes of them.

extern crate std;

use std::net::{Ipv4Addr, SocketAddr};

use super::*;
use crate::event::Hook;

const NETNS: u64 = 77;
/// Another network namespace, with doors of the gate.
const ADMITTED: u64 = 78;
/// One without.
const FOREIGN: u64 = 79;

/// What the maps and the kernel would say.
#[derive(Clone, Copy, Debug, Default)]
struct World {
    /// Every lookup fails the test: the judgement has to do without.
    blind: bool,
}

impl World {
    fn asked(self) {
        assert!(!self.blind, "a lookup that costs and decides nothing");
    }
}

impl Facts for World {
    fn is_host(&self, addr: &[u8; 16]) -> bool {
        self.asked();
        ["192.0.2.1:0", "[2001:db8:1::1]:0"].iter().any(|host| to(host).addr == *addr)
    }
    fn is_own(&self, destination: &Endpoint) -> bool {
        self.asked();
        assert_eq!(settled(destination.addr), destination.addr, "asked for what is reached");
        // Whatever the address: the lookup does not know which addresses are the host's.
        matches!(destination.port, 3000 | 53 | 853 | 7878 | 7879 | 7880)
    }
    fn admits_udp(&self, destination: &Endpoint) -> bool {
        self.asked();
        // A range as wide as a policy could make it by mistake.
        matches!(destination.port, 4433 | 53 | 853)
    }
    fn admits_namespace(&self, netns: u64) -> bool {
        self.asked();
        netns == ADMITTED
    }
}

const WORLD: World = World { blind: false };
const BLIND: World = World { blind: true };

fn settings() -> Settings {
    let mut settings = Settings {
        dns_port: 7880,
        listener_port: 7879,
        netns: NETNS,
        loopback_own: 1,
        ..Settings::default()
    };
    settings.gate_ports[0] = 7878;
    settings.loopback_ports[0] = 5432;
    settings.loopback_ports[31] = 6379;
    settings
}

const fn origin() -> Origin {
    from(NETNS)
}

const fn from(netns: u64) -> Origin {
    Origin { netns, device: 0 }
}

fn to(address: &str) -> Endpoint {
    match address.parse().unwrap() {
        SocketAddr::V4(v4) => Endpoint { addr: map_v4(v4.ip().octets()), port: v4.port(), family: INET },
        SocketAddr::V6(v6) => Endpoint { addr: v6.ip().octets(), port: v6.port(), family: INET6 },
    }
}

/// As the hooks prepare it.
fn toward(address: &str) -> Endpoint {
    let named = to(address);
    Endpoint { addr: settled(named.addr), ..named }
}

fn tcp(address: &str) -> Result<Passage, Denial> {
    connect(&settings(), &toward(address), STREAM, TCP, origin(), &WORLD)
}

#[test]
fn tcp_destinations() {
    use Denial::{DnsOverTls, GatePort, Loopback};
    use Passage::{Listed, Listener, Own, Resolver};
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
        ("203.0.113.7:3000", Ok(Listener)),
        ("192.0.2.2:3000", Ok(Listener)),
        ("255.255.255.255:443", Ok(Listener)),
        ("127.0.0.1:7878", Err(GatePort)),
        ("127.0.0.1:7879", Err(GatePort)),
        ("127.0.0.1:7880", Err(GatePort)),
        ("127.9.9.9:7879", Err(GatePort)),
        ("0.0.0.0:7878", Err(GatePort)),
        ("[::]:7879", Err(GatePort)),
        ("[::1]:7878", Err(GatePort)),
        ("[::ffff:127.0.0.1]:7878", Err(GatePort)),
        ("[::ffff:0.0.0.0]:7879", Err(GatePort)),
        ("192.0.2.1:7879", Err(GatePort)),
        ("[2001:db8:1::1]:7880", Err(GatePort)),
        ("127.0.0.1:8080", Err(Loopback)),
        ("127.255.255.255:8080", Err(Loopback)),
        ("0.0.0.0:8080", Err(Loopback)),
        ("[::1]:8080", Err(Loopback)),
        ("[::]:8080", Err(Loopback)),
        ("[::ffff:127.1.2.3]:8080", Err(Loopback)),
        ("127.0.0.1:0", Err(Loopback)),
        ("192.0.2.1:8080", Err(Loopback)),
        ("[::ffff:192.0.2.1]:8080", Err(Loopback)),
        ("[2001:db8:1::1]:443", Err(Loopback)),
        ("127.0.0.1:5432", Ok(Listed)),
        ("[::1]:6379", Ok(Listed)),
        ("0.0.0.0:5432", Ok(Listed)),
        ("[::ffff:127.0.0.1]:6379", Ok(Listed)),
        ("192.0.2.1:5432", Ok(Listed)),
        ("127.0.0.1:3000", Ok(Own)),
        ("127.1.2.3:3000", Ok(Own)),
        ("[::1]:3000", Ok(Own)),
        ("0.0.0.0:3000", Ok(Own)),
        ("[::]:3000", Ok(Own)),
        ("[::ffff:0.0.0.0]:3000", Ok(Own)),
        ("[::ffff:127.0.0.1]:3000", Ok(Own)),
        ("192.0.2.1:3000", Ok(Own)),
        ("[2001:db8:1::1]:3000", Ok(Own)),
        ("8.8.8.8:53", Ok(Resolver)),
        ("127.0.0.53:53", Ok(Resolver)),
        ("192.0.2.1:53", Ok(Resolver)),
        ("0.0.0.0:53", Ok(Resolver)),
        ("[2001:4860:4860::8888]:53", Ok(Resolver)),
        ("[::1]:53", Ok(Resolver)),
        ("[::ffff:8.8.8.8]:53", Ok(Resolver)),
        ("10.0.0.53:53", Ok(Resolver)),
        ("8.8.8.8:853", Err(DnsOverTls)),
        ("[2001:db8::7]:853", Err(DnsOverTls)),
        ("127.0.0.1:853", Err(DnsOverTls)),
        ("192.0.2.1:853", Err(DnsOverTls)),
    ];
    for (address, expect) in rows {
        assert_eq!(tcp(address), *expect, "{address}");
    }
}

#[test]
fn udp_destinations() {
    use Denial::{GatePort, Loopback, Udp as Refused};
    use Passage::{Connected, Listed, Own, Resolver};
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
        ("203.0.113.7:853", Err(Refused), Ok(Connected)),
        ("203.0.113.7:3000", Err(Refused), Ok(Connected)),
        ("[2001:db8::7]:443", Err(Refused), Ok(Connected)),
        ("[::ffff:203.0.113.7]:443", Err(Refused), Ok(Connected)),
        ("10.0.0.53:54", Err(Refused), Ok(Connected)),
        ("169.254.169.254:80", Err(Refused), Ok(Connected)),
        ("223.255.255.255:443", Err(Refused), Ok(Connected)),
        ("240.0.0.1:443", Err(Refused), Ok(Connected)),
        ("[fe80::1]:443", Err(Refused), Ok(Connected)),
        ("203.0.113.7:4433", Ok(Listed), Ok(Listed)),
        ("[2001:db8::7]:4433", Ok(Listed), Ok(Listed)),
        ("[::ffff:203.0.113.7]:4433", Ok(Listed), Ok(Listed)),
        ("224.0.0.251:5353", Err(Refused), Err(Refused)),
        ("224.0.0.251:4433", Err(Refused), Err(Refused)),
        ("239.255.255.255:1900", Err(Refused), Err(Refused)),
        ("255.255.255.255:67", Err(Refused), Err(Refused)),
        ("255.255.255.255:4433", Err(Refused), Err(Refused)),
        ("[ff02::fb]:5353", Err(Refused), Err(Refused)),
        ("[ff02::fb]:4433", Err(Refused), Err(Refused)),
        ("[::ffff:224.0.0.251]:5353", Err(Refused), Err(Refused)),
        ("127.0.0.1:4433", Err(Loopback), Ok(Connected)),
        ("192.0.2.1:4433", Err(Loopback), Ok(Connected)),
        ("127.0.0.1:5432", Err(Loopback), Ok(Connected)),
        ("127.255.255.255:443", Err(Loopback), Ok(Connected)),
        ("127.0.0.1:853", Ok(Own), Ok(Own)),
        ("127.0.0.1:3000", Ok(Own), Ok(Own)),
        ("0.0.0.0:3000", Ok(Own), Ok(Own)),
        ("[::]:3000", Ok(Own), Ok(Own)),
        ("[::1]:3000", Ok(Own), Ok(Own)),
        ("[::ffff:127.0.0.1]:3000", Ok(Own), Ok(Own)),
        ("192.0.2.1:3000", Ok(Own), Ok(Own)),
        ("0.0.0.0:443", Err(Loopback), Ok(Connected)),
        ("[::1]:0", Err(Loopback), Ok(Connected)),
        ("[::]:443", Err(Loopback), Ok(Connected)),
        ("[::ffff:127.0.0.1]:443", Err(Loopback), Ok(Connected)),
        ("[::ffff:0.0.0.0]:443", Err(Loopback), Ok(Connected)),
        ("127.0.0.1:7878", Err(GatePort), Err(GatePort)),
        ("127.0.0.1:7879", Err(GatePort), Err(GatePort)),
        ("127.0.0.1:7880", Err(GatePort), Err(GatePort)),
        ("[::1]:7880", Err(GatePort), Err(GatePort)),
        ("[::ffff:127.0.0.1]:7880", Err(GatePort), Err(GatePort)),
        ("0.0.0.0:7880", Err(GatePort), Err(GatePort)),
        ("192.0.2.1:7880", Err(GatePort), Err(GatePort)),
    ];
    for (address, sent, connected) in rows {
        let found = send(&settings(), &toward(address), DGRAM, UDP, origin(), &WORLD);
        assert_eq!(found, *sent, "send {address}");
        let found = connect(&settings(), &toward(address), DGRAM, UDP, origin(), &WORLD);
        assert_eq!(found, *connected, "connect {address}");
    }
}

#[test]
fn what_a_session_listens_on_is_nothing_where_policy_says_so() {
    let settings = Settings { loopback_own: 0, ..settings() };
    for address in ["127.0.0.1:3000", "[::1]:3000", "192.0.2.1:3000"] {
        let to = toward(address);
        let found = connect(&settings, &to, STREAM, TCP, origin(), &WORLD);
        assert_eq!(found, Err(Denial::Loopback), "{address}");
        let found = send(&settings, &to, DGRAM, UDP, origin(), &WORLD);
        assert_eq!(found, Err(Denial::Loopback), "{address}");
        assert_eq!(opening(&settings, &to, &WORLD), Err(Denial::Loopback), "{address}");
    }
}

#[test]
fn no_lookup_is_made_that_decides_nothing() {
    let rows: &[(&str, u32, u32)] = &[
        ("8.8.8.8:53", STREAM, TCP),
        ("8.8.8.8:53", DGRAM, UDP),
        ("8.8.8.8:853", STREAM, TCP),
        ("127.0.0.1:7879", STREAM, TCP),
        ("127.0.0.1:5432", STREAM, TCP),
        ("224.0.0.251:5353", DGRAM, UDP),
    ];
    for (address, kind, protocol) in rows {
        let _judged = connect(&settings(), &to(address), *kind, *protocol, origin(), &BLIND);
    }
    let question = Packet { destination: to("127.0.0.1:7880"), asked: true, ..datagram_packet() };
    assert_eq!(packet(&settings(), &question, &BLIND), Ok(Passage::Resolver));
}

#[test]
fn what_is_not_set_is_refused() {
    let none = Settings::default();
    let rows: &[(&str, u32, u32, Denial)] = &[
        ("203.0.113.7:443", STREAM, TCP, Denial::NoListener),
        ("[2001:db8::7]:443", STREAM, TCP, Denial::NoListener),
        ("127.0.0.1:0", STREAM, TCP, Denial::GatePort),
        ("127.0.0.1:80", STREAM, TCP, Denial::Loopback),
        ("127.0.0.1:3000", STREAM, TCP, Denial::Loopback),
        ("8.8.8.8:53", DGRAM, UDP, Denial::NoResolver),
        ("[2001:db8::1]:53", DGRAM, UDP, Denial::NoResolver),
        ("8.8.8.8:53", STREAM, TCP, Denial::NoResolver),
    ];
    for (address, kind, protocol, expect) in rows {
        let found = connect(&none, &to(address), *kind, *protocol, from(0), &WORLD);
        assert_eq!(found, Err(*expect), "{address}");
    }
    let deaf = Settings { netns: 0, ..settings() };
    let rows: &[(&str, u32, u32)] =
        &[("203.0.113.7:443", STREAM, TCP), ("8.8.8.8:53", STREAM, TCP), ("8.8.8.8:53", DGRAM, UDP)];
    for (address, kind, protocol) in rows {
        let found = connect(&deaf, &to(address), *kind, *protocol, from(0), &WORLD);
        assert_eq!(found, Err(Denial::NoListener), "{address}");
    }
    let found = send(&deaf, &to("203.0.113.7:4433"), DGRAM, UDP, from(0), &WORLD);
    assert_eq!(found, Err(Denial::NoListener));
}

#[test]
fn the_resolver_is_of_the_same_family() {
    let portless = Settings { dns_port: 0, ..settings() };
    let rows = [
        ("8.8.8.8:53", "127.0.0.1:7880"),
        ("[2001:db8::1]:53", "[::1]:7880"),
        ("[::ffff:8.8.8.8]:53", "[::ffff:127.0.0.1]:7880"),
    ];
    for (address, expect) in rows {
        assert_eq!(resolver(&settings(), &to(address)), Ok(to(expect)), "{address}");
        assert_eq!(resolver(&portless, &to(address)), Err(Denial::NoResolver), "{address}");
        assert!(is_resolver(&settings(), &to(expect)), "{expect}");
        assert!(!is_resolver(&settings(), &to(address)), "{address}");
    }
    for other in ["127.0.0.2:7880", "127.0.0.1:7879", "[::]:7880", "[::1]:0", "[::ffff:127.0.0.2]:7880"] {
        assert!(!is_resolver(&settings(), &to(other)), "{other}");
    }
    assert!(!is_resolver(&portless, &to("127.0.0.1:0")));
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
fn other_namespaces_and_bound_devices() {
    use Denial::{Device, GatePort, Loopback, Namespace};
    use Passage::{Connected, Listed, Listener, Own, Resolver};
    let bound = Origin { netns: NETNS, device: 2 };
    let lo = Origin { netns: NETNS, device: LOOPBACK_INDEX };
    let foreign = from(FOREIGN);
    let admitted = from(ADMITTED);
    type Row = (&'static str, u32, u32, Origin, Result<Passage, Denial>);
    let rows: &[Row] = &[
        ("203.0.113.7:443", STREAM, TCP, foreign, Err(Namespace)),
        ("8.8.8.8:53", DGRAM, UDP, foreign, Err(Namespace)),
        ("8.8.8.8:53", STREAM, TCP, foreign, Err(Namespace)),
        ("127.0.0.1:5432", STREAM, TCP, foreign, Err(Namespace)),
        ("127.0.0.1:7879", STREAM, TCP, foreign, Err(GatePort)),
        ("127.0.0.1:3000", STREAM, TCP, foreign, Ok(Own)),
        ("127.0.0.1:8080", STREAM, TCP, foreign, Err(Loopback)),
        ("192.0.2.1:3000", STREAM, TCP, foreign, Err(Loopback)),
        ("192.0.2.1:5432", STREAM, TCP, foreign, Err(Loopback)),
        ("203.0.113.7:443", DGRAM, UDP, foreign, Ok(Connected)),
        ("203.0.113.7:4433", DGRAM, UDP, foreign, Ok(Connected)),
        ("203.0.113.7:443", STREAM, TCP, admitted, Ok(Listener)),
        ("8.8.8.8:53", DGRAM, UDP, admitted, Ok(Resolver)),
        ("8.8.8.8:53", STREAM, TCP, admitted, Ok(Resolver)),
        ("127.0.0.1:5432", STREAM, TCP, admitted, Ok(Listed)),
        ("127.0.0.1:3000", STREAM, TCP, admitted, Ok(Own)),
        ("192.0.2.1:3000", STREAM, TCP, admitted, Err(Loopback)),
        ("192.0.2.1:5432", STREAM, TCP, admitted, Err(Loopback)),
        ("192.0.2.1:3000", DGRAM, UDP, admitted, Ok(Connected)),
        ("203.0.113.7:4433", DGRAM, UDP, admitted, Ok(Listed)),
        ("203.0.113.7:443", STREAM, TCP, bound, Err(Device)),
        ("203.0.113.7:443", STREAM, TCP, lo, Ok(Listener)),
        ("8.8.8.8:53", DGRAM, UDP, bound, Err(Device)),
        ("8.8.8.8:53", STREAM, TCP, bound, Err(Device)),
        ("8.8.8.8:53", DGRAM, UDP, lo, Ok(Resolver)),
        ("203.0.113.7:4433", DGRAM, UDP, bound, Ok(Listed)),
    ];
    for (address, kind, protocol, origin, expect) in rows {
        let found = connect(&settings(), &to(address), *kind, *protocol, *origin, &WORLD);
        assert_eq!(found, *expect, "{address} {origin:?}");
    }
    let rows: &[(&str, Origin, Result<Passage, Denial>)] = &[
        ("203.0.113.7:4433", foreign, Err(Namespace)),
        ("203.0.113.7:4433", admitted, Ok(Listed)),
        ("192.0.2.1:3000", admitted, Err(Loopback)),
        ("127.0.0.1:3000", foreign, Ok(Own)),
    ];
    for (address, origin, expect) in rows {
        let found = send(&settings(), &to(address), DGRAM, UDP, *origin, &WORLD);
        assert_eq!(found, *expect, "{address} {origin:?}");
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
            let sent = send(&settings(), &to("8.8.8.8:53"), *kind, *protocol, origin(), &WORLD);
            assert_eq!(sent, Err(Denial::SocketType), "send of {name}");
            let found = connect(&settings(), &to("8.8.8.8:53"), *kind, *protocol, origin(), &WORLD);
            if (*kind, *protocol) != (1, 6) {
                assert_eq!(found, Err(Denial::SocketType), "connect of {name}");
            }
        }
    }
}

#[test]
fn ports_to_bind() {
    let rows = [
        (0, true),
        (1, true),
        (53, true),
        (5432, true),
        (7878, false),
        (7879, false),
        (7880, false),
        (65535, true),
    ];
    for (port, pass) in rows {
        assert_eq!(bind(&settings(), port).is_ok(), pass, "{port}");
    }
    assert!(bind(&Settings::default(), 0).is_ok());
}

#[test]
fn options_that_are_not_set() {
    let rows: &[(i32, &[i32])] = &[
        // SO_BROADCAST, SO_REUSEPORT.
        (1, &[6, 15]),
        // IP_FREEBIND, IP_TRANSPARENT, and all about groups.
        (0, &[15, 19, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48]),
        // The same, anycast, and routing headers.
        (41, &[5, 6, 20, 21, 27, 28, 42, 43, 44, 45, 46, 47, 48, 57, 75, 78]),
        // TCP_REPAIR.
        (6, &[19]),
        // UDP has none, nor have levels that are none.
        (17, &[]),
        (-1, &[]),
    ];
    for (level, swallowed) in rows {
        for name in -1..300 {
            assert_eq!(is_swallowed(*level, name), swallowed.contains(&name), "{level} {name}");
        }
    }
}

#[test]
fn sources_within_the_host() {
    let (ours, theirs) = (Ok(()), Err(Denial::Source));
    // In the daemon's network namespace, and in another one with doors.
    let rows = [
        ("127.0.0.1:0", ours, ours),
        ("127.9.9.9:0", ours, ours),
        ("[::1]:0", ours, ours),
        ("[::ffff:127.0.0.1]:0", ours, ours),
        ("192.0.2.1:0", ours, theirs),
        ("[2001:db8:1::1]:0", ours, theirs),
        ("192.0.2.2:0", theirs, theirs),
        ("203.0.113.7:0", theirs, theirs),
        ("[2001:db8::7]:0", theirs, theirs),
        ("[::2]:0", theirs, theirs),
        ("[ff02::1]:0", theirs, theirs),
        ("255.255.255.255:0", theirs, theirs),
    ];
    for (address, here, elsewhere) in rows {
        let from = to(address);
        assert_eq!(source(&settings(), &from.addr, NETNS, &WORLD), here, "{address}");
        assert_eq!(source(&settings(), &from.addr, ADMITTED, &WORLD), elsewhere, "{address} elsewhere");
        // Packets that would pass.
        for destination in ["127.0.0.1:7880", "127.0.0.1:3000", "[::1]:7880"] {
            let spoken =
                Packet { source: from, destination: to(destination), asked: true, ..datagram_packet() };
            let judged = packet(&settings(), &spoken, &WORLD);
            assert_eq!(
                judged == Err(Denial::Source),
                here.is_err(),
                "{address} to {destination}: {judged:?}"
            );
        }
    }
    assert_eq!(source(&settings(), &to("127.0.0.1:0").addr, NETNS, &BLIND), Ok(()));
}

/// An ordinary packet of UDP on loopback.
fn datagram_packet() -> Packet {
    Packet {
        source: to("127.0.0.1:40000"),
        destination: to("127.0.0.1:0"),
        protocol: UDP,
        plain: true,
        interface: LOOPBACK_INDEX,
        asked: false,
        netns: NETNS,
    }
}

#[test]
fn packets_within_the_host() {
    use Denial::{Egress, GatePort, Loopback, Udp as Datagram};
    type Row = (&'static str, u32, bool, bool, Result<Passage, Denial>, &'static str);
    let dns = Ok(Passage::Resolver);
    let rows: &[Row] = &[
        ("127.0.0.1:7880", UDP, true, true, dns, "DNS"),
        ("[::1]:7880", UDP, true, true, dns, "DNS over IPv6"),
        ("127.0.0.1:7880", UDP, true, false, Err(GatePort), "not by the port of DNS"),
        ("[::1]:7880", UDP, true, false, Err(GatePort), "not by the port of DNS, over IPv6"),
        ("127.0.0.1:7880", UDP, false, true, Err(Egress), "with a source route"),
        ("127.0.0.2:7880", UDP, true, true, Err(GatePort), "another address"),
        ("127.0.0.1:3000", UDP, true, false, Ok(Passage::Own), "its own"),
        ("[::1]:3000", UDP, true, false, Ok(Passage::Own), "its own over IPv6"),
        ("192.0.2.1:3000", UDP, true, false, Ok(Passage::Own), "its own at an address of the host"),
        ("127.0.0.1:3000", UDP, false, false, Err(Egress), "its own with a source route"),
        ("203.0.113.7:3000", UDP, true, false, Err(Datagram), "what is not of this host"),
        ("203.0.113.7:4433", UDP, true, false, Err(Datagram), "what policy names elsewhere"),
        ("127.0.0.1:4433", UDP, true, false, Err(Loopback), "a wide range"),
        ("127.0.0.1:5432", UDP, true, false, Err(Loopback), "an opened port, which is of TCP"),
        ("192.0.2.1:9", UDP, true, true, Err(Loopback), "a stranger at an address of the host"),
        ("127.0.0.1:3000", 1, true, false, Err(Egress), "ICMP"),
        ("127.0.0.1:3000", 136, true, false, Err(Egress), "UDP-Lite"),
        ("[::1]:3000", 43, true, false, Err(Egress), "a routing header"),
    ];
    for (address, protocol, plain, asked, expect, name) in rows {
        let judged = Packet {
            destination: to(address),
            protocol: *protocol,
            plain: *plain,
            asked: *asked,
            ..datagram_packet()
        };
        assert_eq!(packet(&settings(), &judged, &WORLD), *expect, "{name}");
    }
    let own = Packet { destination: to("127.0.0.1:3000"), ..datagram_packet() };
    let off = Settings { loopback_own: 0, ..settings() };
    assert_eq!(packet(&off, &own, &WORLD), Err(Loopback));
    let question = Packet { destination: to("127.0.0.1:0"), asked: true, ..datagram_packet() };
    assert_eq!(packet(&Settings::default(), &question, &WORLD), Err(GatePort));
    assert_eq!(opening(&settings(), &to("127.0.0.1:3000"), &WORLD), Ok(Passage::Own));
    assert_eq!(opening(&settings(), &to("127.0.0.1:8080"), &WORLD), Err(Loopback));
}

#[test]
fn packets_that_leave() {
    use Denial::{Egress, Namespace, Udp as Datagram};
    type Row = (&'static str, u32, bool, u64, Result<Passage, Denial>, &'static str);
    let listed = Ok(Passage::Listed);
    let rows: &[Row] = &[
        ("203.0.113.7:4433", UDP, true, NETNS, listed, "named by policy"),
        ("[2001:db8::7]:4433", UDP, true, NETNS, listed, "named by policy, IPv6"),
        ("203.0.113.7:4433", UDP, true, ADMITTED, listed, "from a namespace with doors"),
        ("203.0.113.7:4433", UDP, true, FOREIGN, Err(Namespace), "from one without"),
        ("203.0.113.7:4433", UDP, true, 0, Err(Namespace), "from nobody knows where"),
        ("203.0.113.7:4433", UDP, false, NETNS, Err(Egress), "with a source route"),
        ("203.0.113.7:443", UDP, true, NETNS, Err(Datagram), "QUIC"),
        ("203.0.113.7:443", UDP, false, NETNS, Err(Egress), "QUIC with a source route"),
        ("[2001:db8::7]:443", UDP, true, NETNS, Err(Datagram), "QUIC over IPv6"),
        ("203.0.113.7:53", UDP, true, NETNS, Err(Datagram), "DNS that was not redirected"),
        ("203.0.113.7:853", UDP, true, NETNS, Err(Datagram), "DNS over QUIC"),
        ("224.0.0.251:4433", UDP, true, NETNS, Err(Datagram), "a group"),
        ("[ff02::fb]:4433", UDP, true, NETNS, Err(Datagram), "a group of IPv6"),
        ("127.0.0.1:4433", UDP, true, NETNS, Err(Datagram), "loopback by an interface"),
        ("192.0.2.1:4433", UDP, true, ADMITTED, Err(Datagram), "the host from a container"),
        ("127.0.0.1:7880", UDP, true, NETNS, Err(Datagram), "the resolver by an interface"),
        ("127.0.0.1:3000", UDP, true, NETNS, Err(Datagram), "its own by an interface"),
        ("127.0.0.1:7880", TCP, true, NETNS, Err(Egress), "the resolver by an interface, TCP"),
        ("127.0.0.1:7879", TCP, true, NETNS, Err(Egress), "the listener by an interface"),
        ("203.0.113.7:443", TCP, true, NETNS, Err(Egress), "an answer to a stranger"),
        ("203.0.113.7:4433", 1, true, NETNS, Err(Egress), "ICMP"),
        ("203.0.113.7:4433", 136, true, NETNS, Err(Egress), "UDP-Lite"),
        ("[2001:db8::7]:4433", 43, true, NETNS, Err(Egress), "a routing header"),
    ];
    for (address, protocol, plain, netns, expect, name) in rows {
        let judged = Packet {
            destination: to(address),
            protocol: *protocol,
            plain: *plain,
            interface: 2,
            asked: true,
            netns: *netns,
            ..datagram_packet()
        };
        assert_eq!(packet(&settings(), &judged, &WORLD), *expect, "{name}");
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
        for passage in Passage::ALL {
            assert_ne!(denial as u8, passage as u8);
            assert!(u32::from(passage as u8) < OUTCOMES);
        }
    }
    assert_eq!(Denial::from_u8(0), None);
    for hook in Hook::ALL {
        assert_eq!(Hook::from_u8(hook as u8), Some(hook));
        assert!(counter(hook, 0) > LOST && counter(hook, 0) > UNTALLIED);
        assert!(counter(hook, 31) < COUNTERS);
    }
    let all: std::vec::Vec<_> = outcomes().collect();
    assert_eq!(all.len(), Denial::ALL.len() + Passage::ALL.len() + 1);
    for (i, (number, name)) in all.iter().enumerate() {
        assert!(u32::from(*number) < OUTCOMES);
        assert!(all.iter().skip(i + 1).all(|(other, code)| other != number && code != name), "{name}");
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

#[test]
fn unspecified_addresses_settle() {
    let rows = [
        ("0.0.0.0:1", "127.0.0.1:1"),
        ("[::]:1", "[::1]:1"),
        ("[::ffff:0.0.0.0]:1", "[::ffff:127.0.0.1]:1"),
        ("127.1.2.3:1", "127.1.2.3:1"),
        ("[::1]:1", "[::1]:1"),
        ("[2001:db8::7]:1", "[2001:db8::7]:1"),
        ("0.0.0.1:1", "0.0.0.1:1"),
    ];
    for (named, reached) in rows {
        assert_eq!(settled(to(named).addr), to(reached).addr, "{named}");
    }
}
