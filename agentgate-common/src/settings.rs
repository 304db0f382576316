//! What the daemon tells the kernel programs: one entry of one array map.

/// How many of the gate's own ports can be named.
pub const GATE_PORTS: usize = 8;
/// How many loopback ports policy can open.
pub const LOOPBACK_PORTS: usize = 32;

/// Settings of the programs. Zero means "not set" for every port and address, and what is not set
/// is refused.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Cookie of the daemon's network namespace (`SO_NETNS_COOKIE`): only there are the listener
    /// and the resolver what they seem to be. The kernel module fills it in.
    pub netns: u64,
    /// Where DNS goes over IPv4, network byte order.
    pub dns4: [u8; 4],
    /// Where DNS goes over IPv6, network byte order.
    pub dns6: [u8; 16],
    /// Port of both resolvers, host byte order.
    pub dns_port: u16,
    /// Port of the listener on 127.0.0.1 and ::1, host byte order. 0: nothing passes.
    pub listener_port: u16,
    /// Ports of the gate that agents may never reach at a loopback address; 0 where unused.
    pub gate_ports: [u16; GATE_PORTS],
    /// Loopback TCP ports that agents may reach directly; 0 where unused.
    pub loopback_ports: [u16; LOOPBACK_PORTS],
}
