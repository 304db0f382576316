//! The judgements that the kernel makes without a name: pure functions of settings and call.
//!
//! Everything a hook decides is decided here, so that it is tested on the host. Addresses are the
//! sixteen bytes of [`Endpoint::addr`]: an IPv4 address is judged the same whether it came through
//! an IPv4 socket or, mapped, through an IPv6 one.

use crate::{
    flow::{Endpoint, INET, INET6},
    settings::Settings,
};

/// `SOCK_STREAM`.
pub const STREAM: u32 = 1;
/// `SOCK_DGRAM`.
pub const DGRAM: u32 = 2;
/// `IPPROTO_TCP`.
pub const TCP: u32 = 6;
/// `IPPROTO_UDP`.
pub const UDP: u32 = 17;
/// `IPPROTO_MPTCP`: a TCP socket to its user; its subflows are of [`TCP`].
pub const MPTCP: u32 = 262;
/// The port of DNS over UDP and TCP (RFC 1035 4.2).
pub const DNS_PORT: u16 = 53;
/// `SOL_SOCKET` of include/uapi/asm-generic/socket.h.
const SOCKET_LEVEL: i32 = 1;
/// `SO_BROADCAST` of the same.
const BROADCAST: i32 = 6;
/// The interface index of `lo`: the first interface of every network namespace.
pub const LOOPBACK_INDEX: u32 = 1;

/// Why a call was refused.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// One of the gate's own ports.
    GatePort = 1,
    /// A loopback address that policy does not open.
    Loopback = 2,
    /// UDP that is not DNS: the call, or the packet of a connected socket.
    Udp = 4,
    /// DNS while no resolver of that family is set.
    NoResolver = 5,
    /// A socket type or protocol other than TCP and UDP.
    SocketType = 6,
    /// The daemon has not said where its listener is.
    NoListener = 7,
    /// The flow could not be stored, so the listener could not have judged it.
    NoFlow = 8,
    /// A call from a network namespace other than the daemon's, where neither listener nor
    /// resolver is what it seems to be.
    Namespace = 9,
    /// A socket bound to a network interface, which would carry the redirected packet away from
    /// the listener.
    Device = 10,
    /// A packet that was about to leave the host without having been redirected.
    Egress = 11,
    /// DNS over TLS (port 853), which no name could be judged by.
    DnsOverTls = 12,
    /// A socket that was made outside the guarded cgroup, in the hands of a guarded task.
    Foreign = 13,
    /// An address family other than IPv4, IPv6, UNIX and netlink.
    Family = 14,
}

impl Denial {
    /// Every denial.
    pub const ALL: [Self; 13] = [
        Self::GatePort,
        Self::Loopback,
        Self::Udp,
        Self::NoResolver,
        Self::SocketType,
        Self::NoListener,
        Self::NoFlow,
        Self::Namespace,
        Self::Device,
        Self::Egress,
        Self::DnsOverTls,
        Self::Foreign,
        Self::Family,
    ];

    /// The denial behind a number of [`crate::event::KernelEvent::denial`].
    #[must_use]
    pub fn from_u8(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|denial| *denial as u8 == number)
    }

    /// A stable name for records.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::GatePort => "gate_port",
            Self::Loopback => "loopback",
            Self::Udp => "udp",
            Self::NoResolver => "no_resolver",
            Self::SocketType => "socket_type",
            Self::NoListener => "no_listener",
            Self::NoFlow => "no_flow",
            Self::Namespace => "namespace",
            Self::Device => "device",
            Self::Egress => "egress",
            Self::DnsOverTls => "dns_over_tls",
            Self::Foreign => "foreign_socket",
            Self::Family => "address_family",
        }
    }
}

/// What a hook does with a call that is not refused.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// Left as it is.
    Direct = 0,
    /// Left as it is: a loopback port on which the caller's own session listens.
    Own = 27,
    /// Left as it is: policy names the loopback port, or the UDP destination.
    Listed = 28,
    /// UDP connected to where it may not send. By that alone nothing leaves: resolvers connect so
    /// to learn which source address a destination would have. Each packet is judged by [`packet`].
    Connected = 29,
    /// Sent to the listener, which judges it.
    Listener = 30,
    /// Sent to the gate's DNS server.
    Resolver = 31,
}

impl Passage {
    /// Every passage.
    pub const ALL: [Self; 6] =
        [Self::Direct, Self::Own, Self::Listed, Self::Connected, Self::Listener, Self::Resolver];

    /// A stable name for counters.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Own => "own",
            Self::Listed => "listed",
            Self::Connected => "connected",
            Self::Listener => "listener",
            Self::Resolver => "resolver",
        }
    }
}

/// Outcomes that one hook can count: denials and passages as numbers are all below this.
pub const OUTCOMES: u32 = 32;
/// Size of the counters: every hook times every outcome.
pub const COUNTERS: u32 = 16 * OUTCOMES;
/// The counter of events that found the ring buffer full. Hook numbers start at 1, so no outcome
/// has this index.
pub const LOST: u32 = 0;

/// The counter of `outcome` (a [`Denial`] or a [`Passage`] as a number) at a hook.
#[must_use]
#[inline(always)]
pub const fn counter(hook: crate::event::Hook, outcome: u8) -> u32 {
    hook as u32 * OUTCOMES + outcome as u32 % OUTCOMES
}

/// The four words of an address, each holding its bytes in network order.
#[must_use]
#[inline(always)]
pub const fn words(addr: &[u8; 16]) -> [u32; 4] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *addr;
    [
        u32::from_ne_bytes([a, b, c, d]),
        u32::from_ne_bytes([e, f, g, h]),
        u32::from_ne_bytes([i, j, k, l]),
        u32::from_ne_bytes([m, n, o, p]),
    ]
}

/// The reverse of [`words`].
#[must_use]
#[inline(always)]
pub const fn bytes([first, second, third, fourth]: [u32; 4]) -> [u8; 16] {
    let ([a, b, c, d], [e, f, g, h]) = (first.to_ne_bytes(), second.to_ne_bytes());
    let ([i, j, k, l], [m, n, o, p]) = (third.to_ne_bytes(), fourth.to_ne_bytes());
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
}

/// The third word of a mapped address.
const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

/// The IPv4 address of a mapped one, `None` for a native IPv6 address.
#[must_use]
#[inline(always)]
pub const fn mapped(addr: &[u8; 16]) -> Option<[u8; 4]> {
    match words(addr) {
        [0, 0, MAPPED, v4] => Some(v4.to_ne_bytes()),
        _ => None,
    }
}

/// The IPv4-mapped form of an address.
#[must_use]
#[inline(always)]
pub const fn map_v4(v4: [u8; 4]) -> [u8; 16] {
    bytes([0, 0, MAPPED, u32::from_ne_bytes(v4)])
}

/// `::1`.
pub const LOOPBACK6: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
/// `127.0.0.1`.
pub const LOOPBACK4: [u8; 4] = [127, 0, 0, 1];

/// Whether connecting to this address reaches this host's loopback: `127.0.0.0/8`, `::1`, and the
/// unspecified addresses, which Linux takes to mean loopback. Mapped addresses count.
#[must_use]
#[inline(always)]
pub const fn is_loopback(addr: &[u8; 16]) -> bool {
    const ONE: u32 = u32::from_ne_bytes([0, 0, 0, 1]);
    match words(addr) {
        [0, 0, MAPPED, v4] => v4 == 0 || v4.to_ne_bytes()[0] == 127,
        [0, 0, 0, last] => last == 0 || last == ONE,
        _ => false,
    }
}

/// Whether an address means many hosts: IPv4 and IPv6 multicast, and the limited broadcast.
#[must_use]
#[inline(always)]
pub const fn is_group(addr: &[u8; 16]) -> bool {
    match mapped(addr) {
        Some([first, ..]) if first & 0xf0 == 224 => true,
        Some(v4) => u32::from_ne_bytes(v4) == u32::MAX,
        None => addr[0] == 0xff,
    }
}

/// Where the call comes from, beyond its destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// `bpf_get_netns_cookie` of the socket.
    pub netns: u64,
    /// Index of the interface that the socket is bound to, 0 for none.
    pub device: u32,
}

impl Origin {
    /// Whether a rewritten destination means to this socket what it means to the daemon.
    #[inline(always)]
    const fn shares_routes(self, settings: &Settings) -> Result<(), Denial> {
        if settings.netns == 0 {
            return Err(Denial::NoListener);
        }
        if self.netns != settings.netns {
            return Err(Denial::Namespace);
        }
        Ok(())
    }
}

#[inline(always)]
fn names(ports: &[u16], port: u16) -> bool {
    for candidate in ports {
        if *candidate == port && port != 0 {
            return true;
        }
    }
    false
}

/// The gate's DNS server for a destination of this family. IPv4-mapped destinations go by IPv4.
///
/// # Errors
/// [`Denial::NoResolver`] where there is none.
#[inline(always)]
pub fn resolver(settings: &Settings, destination: &Endpoint) -> Result<Endpoint, Denial> {
    if settings.dns_port == 0 {
        return Err(Denial::NoResolver);
    }
    let addr = if mapped(&destination.addr).is_some() { map_v4(LOOPBACK4) } else { LOOPBACK6 };
    Ok(Endpoint { addr, port: settings.dns_port, family: destination.family })
}

/// Whether an address is that of the resolver of its family.
#[must_use]
#[inline(always)]
pub fn is_resolver(settings: &Settings, endpoint: &Endpoint) -> bool {
    match resolver(settings, endpoint) {
        Ok(resolver) => words(&resolver.addr) == words(&endpoint.addr) && resolver.port == endpoint.port,
        Err(_) => false,
    }
}

/// The listener's address for a destination of this family.
#[must_use]
#[inline(always)]
pub fn listener(settings: &Settings, destination: &Endpoint) -> Endpoint {
    let addr = if mapped(&destination.addr).is_some() { map_v4(LOOPBACK4) } else { LOOPBACK6 };
    Endpoint { addr, port: settings.listener_port, family: destination.family }
}

/// Judges connect(2) by the socket's type and protocol.
///
/// # Errors
/// Why it is refused.
#[inline(always)]
pub fn connect(
    settings: &Settings,
    destination: &Endpoint,
    kind: u32,
    protocol: u32,
    origin: Origin,
) -> Result<Passage, Denial> {
    match (kind, protocol) {
        (STREAM, TCP | MPTCP) => stream(settings, destination, origin),
        (DGRAM, UDP) => associate(settings, destination, origin),
        _ => Err(Denial::SocketType),
    }
}

/// Judges a TCP destination.
#[inline(always)]
fn stream(settings: &Settings, destination: &Endpoint, origin: Origin) -> Result<Passage, Denial> {
    // DNS first: the stub resolver of many hosts is a loopback address.
    if destination.port == DNS_PORT {
        return dns(settings, destination, origin);
    }
    if is_loopback(&destination.addr) {
        if destination.port == settings.listener_port || names(&settings.gate_ports, destination.port) {
            return Err(Denial::GatePort);
        }
        if names(&settings.loopback_ports, destination.port) {
            return Ok(Passage::Direct);
        }
        return Err(Denial::Loopback);
    }
    if settings.listener_port == 0 {
        return Err(Denial::NoListener);
    }
    origin.shares_routes(settings)?;
    // The route would follow the interface, not the loopback address.
    if origin.device > LOOPBACK_INDEX {
        return Err(Denial::Device);
    }
    Ok(Passage::Listener)
}

/// Judges sendmsg(2) on a socket that is not connected, by its type and protocol: UDP-Lite sockets
/// pass the same hook.
///
/// # Errors
/// Why it is refused.
#[inline(always)]
pub fn send(
    settings: &Settings,
    destination: &Endpoint,
    kind: u32,
    protocol: u32,
    origin: Origin,
) -> Result<Passage, Denial> {
    match (kind, protocol) {
        (DGRAM, UDP) => datagram(settings, destination, origin),
        _ => Err(Denial::SocketType),
    }
}

/// Judges connect(2) of UDP, by which nothing is sent.
#[inline(always)]
fn associate(settings: &Settings, destination: &Endpoint, origin: Origin) -> Result<Passage, Denial> {
    // No egress program sees the copy that IPv4 makes of a packet to a group for this host's own
    // sockets. The resolver is reached by the port of DNS only, whatever its own.
    let judged_by_packet = !is_loopback(&destination.addr)
        && !is_group(&destination.addr)
        && !is_resolver(settings, destination)
        && destination.port != DNS_PORT;
    if judged_by_packet { Ok(Passage::Connected) } else { datagram(settings, destination, origin) }
}

/// Judges a UDP destination.
#[inline(always)]
fn datagram(settings: &Settings, destination: &Endpoint, origin: Origin) -> Result<Passage, Denial> {
    if destination.port == DNS_PORT { dns(settings, destination, origin) } else { Err(Denial::Udp) }
}

#[inline(always)]
fn dns(settings: &Settings, destination: &Endpoint, origin: Origin) -> Result<Passage, Denial> {
    resolver(settings, destination)?;
    origin.shares_routes(settings)?;
    Ok(Passage::Resolver)
}

/// Judges bind(2) by the port, whatever the address and the protocol.
///
/// # Errors
/// [`Denial::GatePort`] for the listener's port and the gate's others.
#[inline(always)]
pub fn bind(settings: &Settings, port: u16) -> Result<Passage, Denial> {
    // Port 0 asks the kernel for any free port.
    if port != 0 && (port == settings.listener_port || names(&settings.gate_ports, port)) {
        return Err(Denial::GatePort);
    }
    Ok(Passage::Direct)
}

/// Whether setsockopt(2) says that it succeeded and changes nothing: `SO_BROADCAST`, without which
/// the kernel refuses to connect or send to any broadcast address.
#[must_use]
#[inline(always)]
pub const fn is_swallowed(level: i32, name: i32) -> bool {
    level == SOCKET_LEVEL && name == BROADCAST
}

/// Judges socket(2).
///
/// # Errors
/// [`Denial::SocketType`] for all but TCP (with MPTCP) and UDP over IPv4 and IPv6.
#[inline(always)]
pub fn socket(family: u32, kind: u32, protocol: u32) -> Result<Passage, Denial> {
    if family != INET as u32 && family != INET6 as u32 {
        return Err(Denial::SocketType);
    }
    match (kind, protocol) {
        (STREAM, TCP | MPTCP) | (DGRAM, UDP) => Ok(Passage::Direct),
        _ => Err(Denial::SocketType),
    }
}

/// Whether a packet needs no judgement: TCP within the host, which was judged when it connected.
#[must_use]
#[inline(always)]
pub const fn is_local_stream(interface: u32, socket_protocol: u32) -> bool {
    interface == LOOPBACK_INDEX && socket_protocol == TCP
}

/// Judges a packet on its way out of any interface, unless [`is_local_stream`]: all that may leave a
/// guarded socket is DNS to the resolver, and not by a route that the packet itself prescribes.
///
/// # Errors
/// [`Denial::Udp`] for an ordinary packet of UDP, [`Denial::Egress`] for any other.
#[inline(always)]
pub fn packet(settings: &Settings, packet: &Packet) -> Result<Passage, Denial> {
    let known = is_resolver(settings, &packet.destination);
    match packet.protocol {
        TCP | UDP if known && packet.plain => Ok(Passage::Resolver),
        UDP if packet.plain => Err(Denial::Udp),
        _ => Err(Denial::Egress),
    }
}

/// What the egress hook reads of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Address and port of the packet itself, which may be the first hop of a source route. The port
    /// is 0 where it is not where it is expected.
    pub destination: Endpoint,
    /// IP protocol that follows the fixed header.
    pub protocol: u32,
    /// No IPv4 options, no later fragment: the port is where it is expected.
    pub plain: bool,
}

#[cfg(test)]
mod tests;
