//! The judgements that the kernel makes without a name: pure functions of settings and call.
//!
//! Everything a hook decides is decided here, so that it is tested on the host. Addresses are the
//! sixteen bytes of [`Endpoint::addr`]: an IPv4 address is judged the same whether it came through
//! an IPv4 socket or, mapped, through an IPv6 one.

use crate::{
    flow::{Endpoint, INET, INET6},
    settings::Settings,
};

mod address;
mod option;
mod outcome;

pub use address::{LOOPBACK4, LOOPBACK6, bytes, is_group, is_loopback, map_v4, mapped, settled, words};
pub use option::is_swallowed;
pub use outcome::{
    COUNTERS, Denial, LOST, OUTCOMES, Passage, REPLACED, REPLACED_CODE, UNBOOKED, UNTALLIED, counter,
    outcomes,
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
/// The port of DNS over TLS and over QUIC (RFC 7858 3.1, RFC 9250 4.1.1).
pub const DNS_OVER_TLS_PORT: u16 = 853;
/// The interface index of `lo`: the first interface of every network namespace.
pub const LOOPBACK_INDEX: u32 = 1;

/// What judgements ask of the maps and of the kernel, where it matters: each answer costs a lookup.
pub trait Facts {
    /// Whether it is one of the host's own addresses, besides loopback.
    fn is_host(&self, addr: &[u8; 16]) -> bool;
    /// Whether the socket that would receive there is one of the caller's own session.
    fn is_own(&self, destination: &Endpoint) -> bool;
    /// Whether policy lets UDP pass to there.
    fn admits_udp(&self, destination: &Endpoint) -> bool;
    /// Whether the gate has doors in a network namespace besides the daemon's.
    fn admits_namespace(&self, netns: u64) -> bool;
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
    /// Whether the doors of the gate are in the socket's network namespace.
    #[inline(always)]
    fn has_doors(self, settings: &Settings, facts: &impl Facts) -> Result<(), Denial> {
        if settings.netns == 0 {
            return Err(Denial::NoListener);
        }
        if self.netns != settings.netns && !facts.admits_namespace(self.netns) {
            return Err(Denial::Namespace);
        }
        Ok(())
    }

    /// Whether a rewritten destination means to this socket what it means to the daemon.
    #[inline(always)]
    fn shares_routes(self, settings: &Settings, facts: &impl Facts) -> Result<(), Denial> {
        self.has_doors(settings, facts)?;
        // The route would follow the interface, not the loopback address.
        if self.device > LOOPBACK_INDEX {
            return Err(Denial::Device);
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

/// Whether a port is one of the gate's own.
#[inline(always)]
fn is_gate_port(settings: &Settings, port: u16) -> bool {
    port == settings.listener_port || port == settings.dns_port || names(&settings.gate_ports, port)
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
    Ok(door(destination, settings.dns_port))
}

/// Whether an address is that of the resolver of its family.
#[must_use]
#[inline(always)]
pub fn is_resolver(settings: &Settings, endpoint: &Endpoint) -> bool {
    settings.dns_port != 0
        && endpoint.port == settings.dns_port
        && words(&endpoint.addr) == words(&door(endpoint, 0).addr)
}

/// The listener's address for a destination of this family.
#[must_use]
#[inline(always)]
pub fn listener(settings: &Settings, destination: &Endpoint) -> Endpoint {
    door(destination, settings.listener_port)
}

#[inline(always)]
fn door(destination: &Endpoint, port: u16) -> Endpoint {
    let addr = if mapped(&destination.addr).is_some() { map_v4(LOOPBACK4) } else { LOOPBACK6 };
    Endpoint { addr, port, family: destination.family }
}

/// Judges connect(2) by the socket's type and protocol. The destination is [`settled`].
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
    facts: &impl Facts,
) -> Result<Passage, Denial> {
    match (kind, protocol) {
        (STREAM, TCP | MPTCP) => stream(settings, destination, origin, facts),
        (DGRAM, UDP) => associate(settings, destination, origin, facts),
        _ => Err(Denial::SocketType),
    }
}

/// Judges a TCP destination.
#[inline(always)]
fn stream(
    settings: &Settings,
    destination: &Endpoint,
    origin: Origin,
    facts: &impl Facts,
) -> Result<Passage, Denial> {
    // DNS first: the stub resolver of many hosts is a loopback address.
    if destination.port == DNS_PORT {
        return dns(settings, destination, origin, facts);
    }
    if destination.port == DNS_OVER_TLS_PORT {
        return Err(Denial::DnsOverTls);
    }
    if is_local(&destination.addr, facts) {
        return local(settings, destination, TCP, origin, facts);
    }
    if settings.listener_port == 0 {
        return Err(Denial::NoListener);
    }
    origin.shares_routes(settings, facts)?;
    Ok(Passage::Listener)
}

/// Whether an address is one of this host.
#[inline(always)]
fn is_local(addr: &[u8; 16], facts: &impl Facts) -> bool {
    is_loopback(addr) || facts.is_host(addr)
}

/// Judges an address of this host.
#[inline(always)]
fn local(
    settings: &Settings,
    destination: &Endpoint,
    protocol: u32,
    origin: Origin,
    facts: &impl Facts,
) -> Result<Passage, Denial> {
    if is_gate_port(settings, destination.port) {
        return Err(Denial::GatePort);
    }
    // Seen from another network namespace the host's addresses are elsewhere, and whoever listens on
    // the same port of that namespace is not who would be reached.
    if origin.netns != settings.netns && !is_loopback(&destination.addr) {
        return Err(Denial::Loopback);
    }
    if protocol == TCP && names(&settings.loopback_ports, destination.port) {
        // Who listens there in a namespace that the gate does not know, policy cannot have meant.
        origin.has_doors(settings, facts)?;
        return Ok(Passage::Listed);
    }
    if settings.loopback_own == 1 && facts.is_own(destination) {
        return Ok(Passage::Own);
    }
    Err(Denial::Loopback)
}

/// Judges sendmsg(2) on a socket that is not connected, by its type and protocol: UDP-Lite sockets
/// pass the same hook. The destination is [`settled`].
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
    facts: &impl Facts,
) -> Result<Passage, Denial> {
    match (kind, protocol) {
        (DGRAM, UDP) => datagram(settings, destination, origin, facts),
        _ => Err(Denial::SocketType),
    }
}

/// Judges connect(2) of UDP, by which nothing is sent.
#[inline(always)]
fn associate(
    settings: &Settings,
    destination: &Endpoint,
    origin: Origin,
    facts: &impl Facts,
) -> Result<Passage, Denial> {
    let judged = datagram(settings, destination, origin, facts);
    // No egress program sees the copy that IPv4 makes of a packet to a group for this host's own
    // sockets.
    if destination.port == DNS_PORT || is_group(&destination.addr) {
        return judged;
    }
    match judged {
        Err(Denial::GatePort) => Err(Denial::GatePort),
        Err(_) => Ok(Passage::Connected),
        passage => passage,
    }
}

/// Judges a UDP destination.
#[inline(always)]
fn datagram(
    settings: &Settings,
    destination: &Endpoint,
    origin: Origin,
    facts: &impl Facts,
) -> Result<Passage, Denial> {
    if destination.port == DNS_PORT {
        return dns(settings, destination, origin, facts);
    }
    if is_group(&destination.addr) {
        return Err(Denial::Udp);
    }
    if is_local(&destination.addr, facts) {
        return local(settings, destination, UDP, origin, facts);
    }
    if !is_listed(destination, facts) {
        return Err(Denial::Udp);
    }
    origin.has_doors(settings, facts)?;
    Ok(Passage::Listed)
}

/// Whether policy names a UDP destination. Names are asked of the gate alone.
#[inline(always)]
fn is_listed(destination: &Endpoint, facts: &impl Facts) -> bool {
    destination.port != DNS_PORT && destination.port != DNS_OVER_TLS_PORT && facts.admits_udp(destination)
}

#[inline(always)]
fn dns(
    settings: &Settings,
    destination: &Endpoint,
    origin: Origin,
    facts: &impl Facts,
) -> Result<Passage, Denial> {
    resolver(settings, destination)?;
    origin.shares_routes(settings, facts)?;
    Ok(Passage::Resolver)
}

/// Judges bind(2) by the port, whatever the address and the protocol.
///
/// # Errors
/// [`Denial::GatePort`] for the gate's own ports.
#[inline(always)]
pub fn bind(settings: &Settings, port: u16) -> Result<Passage, Denial> {
    // Port 0 asks the kernel for any free port.
    if port != 0 && is_gate_port(settings, port) {
        return Err(Denial::GatePort);
    }
    Ok(Passage::Direct)
}

/// Judges the address that a connection within the host is made from, or a packet on loopback says it
/// comes from: one of this host, since whatever answers, the gate among them, answers to there. What is
/// the host's own in another network namespace than the daemon's is not known.
///
/// # Errors
/// [`Denial::Source`].
#[inline(always)]
pub fn source(settings: &Settings, addr: &[u8; 16], netns: u64, facts: &impl Facts) -> Result<(), Denial> {
    if is_loopback(addr) || netns == settings.netns && facts.is_host(addr) {
        Ok(())
    } else {
        Err(Denial::Source)
    }
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

/// Whether a packet is of TCP within the host, which was judged when it connected.
#[must_use]
#[inline(always)]
pub const fn is_local_stream(interface: u32, socket_protocol: u32) -> bool {
    interface == LOOPBACK_INDEX && socket_protocol == TCP
}

/// Judges the first packet of a connection that passed as [`Passage::Own`]: it may leave long after
/// connect(2) (TCP Fast Open, repeated attempts), when somebody else has the port.
///
/// # Errors
/// [`Denial::Loopback`].
#[inline(always)]
pub fn opening(settings: &Settings, destination: &Endpoint, facts: &impl Facts) -> Result<Passage, Denial> {
    if settings.loopback_own == 1 && facts.is_own(destination) {
        Ok(Passage::Own)
    } else {
        Err(Denial::Loopback)
    }
}

/// Judges a packet on its way out of any interface, unless [`is_local_stream`]: DNS to the gate,
/// datagrams within the session, and what policy names; and not by a route that the packet itself
/// prescribes.
///
/// # Errors
/// [`Denial::Egress`] for what is no ordinary packet of UDP; else why it is refused.
#[inline(always)]
pub fn packet(settings: &Settings, packet: &Packet, facts: &impl Facts) -> Result<Passage, Denial> {
    let destination = &packet.destination;
    if packet.protocol != UDP || !packet.plain {
        return Err(Denial::Egress);
    }
    if packet.interface != LOOPBACK_INDEX {
        return leaving(settings, packet, facts);
    }
    // Only by way of the port of DNS.
    if packet.asked && is_resolver(settings, destination) {
        source(settings, &packet.source.addr, packet.netns, facts)?;
        return Ok(Passage::Resolver);
    }
    if is_gate_port(settings, destination.port) {
        return Err(Denial::GatePort);
    }
    if !is_local(&destination.addr, facts) {
        return Err(Denial::Udp);
    }
    if settings.loopback_own == 1 && facts.is_own(destination) {
        source(settings, &packet.source.addr, packet.netns, facts)?;
        return Ok(Passage::Own);
    }
    Err(Denial::Loopback)
}

/// Judges an ordinary packet of UDP that leaves the host.
#[inline(always)]
fn leaving(settings: &Settings, packet: &Packet, facts: &impl Facts) -> Result<Passage, Denial> {
    let destination = &packet.destination;
    let addr = &destination.addr;
    if !is_listed(destination, facts) || is_group(addr) || is_local(addr, facts) {
        return Err(Denial::Udp);
    }
    Origin { netns: packet.netns, device: 0 }.has_doors(settings, facts)?;
    Ok(Passage::Listed)
}

/// What the egress hook knows of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Address and port that it says it comes from.
    pub source: Endpoint,
    /// Address and port of the packet itself, which may be the first hop of a source route. The port
    /// is 0 where it is not where it is expected.
    pub destination: Endpoint,
    /// IP protocol that follows the fixed header.
    pub protocol: u32,
    /// No IPv4 options, no later fragment: the port is where it is expected.
    pub plain: bool,
    /// Index of the interface that it leaves by.
    pub interface: u32,
    /// Whether its socket was sent to the gate's DNS server by a hook before.
    pub asked: bool,
    /// Cookie of its socket's network namespace; 0 where that is unknown.
    pub netns: u64,
}

#[cfg(test)]
mod tests;
