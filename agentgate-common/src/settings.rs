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
    /// Cookie of the daemon's network namespace (`SO_NETNS_COOKIE`): there, and in the namespaces of the
    /// map NAMESPACES, the doors of the gate are what they seem to be. The kernel module fills it in.
    pub netns: u64,
    /// Id of the guarded cgroup. The kernel module fills it in.
    pub guarded: u64,
    /// Its depth in the hierarchy, the root being 0: a session is an ancestor one deeper. The kernel
    /// module fills it in.
    pub depth: u32,
    /// 1: a guarded process reaches the loopback ports that its own session listens on.
    pub loopback_own: u16,
    /// Port of the gate's DNS server on 127.0.0.1 and ::1, host byte order. 0: no DNS passes.
    pub dns_port: u16,
    /// Port of the listener on 127.0.0.1 and ::1, host byte order. 0: nothing passes.
    pub listener_port: u16,
    /// Ports of the gate that agents may never reach at a loopback address; 0 where unused.
    pub gate_ports: [u16; GATE_PORTS],
    /// Loopback TCP ports that agents may reach directly; 0 where unused.
    pub loopback_ports: [u16; LOOPBACK_PORTS],
    /// Keeps the size a multiple of eight without padding.
    pub reserved: [u16; 3],
}
