//! A connection as the kernel saw it begin.

use crate::subject::Task;

/// `AF_INET`.
pub const INET: u16 = 2;
/// `AF_INET6`.
pub const INET6: u16 = 10;

/// An address and port. IPv4 is held as IPv4-mapped IPv6 (`::ffff:a.b.c.d`, RFC 4291 2.5.5.2);
/// `family` says which socket family it came through.
///
/// Aligned to four bytes, which changes no layout, so that the programs compare words: the BPF
/// target reads what may be unaligned byte by byte.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// Address in network byte order.
    pub addr: [u8; 16],
    /// Port in host byte order.
    pub port: u16,
    /// [`INET`] or [`INET6`]: the family of the socket, not of the address.
    pub family: u16,
}

/// What the gate looks a flow up by: the agent's own end of a redirected connection or question, and
/// which door of the gate it came to.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowKey {
    /// Cookie of the network namespace: addresses of loopback are the same in all of them.
    pub netns: u64,
    /// Local address and port of the agent's socket. `family` is [`INET`] for any IPv4 address,
    /// also when it came through an IPv6 socket, because that is how the listener sees it.
    pub local: Endpoint,
    /// Port of the gate's own end, host byte order: one local port may hold a connection to each.
    pub towards: u16,
    /// [`crate::verdict::TCP`] or [`crate::verdict::UDP`].
    pub protocol: u16,
}

/// One redirected TCP connection, or question to the gate's DNS server.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelFlow {
    /// Socket cookie (`bpf_get_socket_cookie`), unique while the host is up.
    pub cookie: u64,
    /// When connect(2) was called or the question was sent: nanoseconds since boot, suspend included
    /// (`CLOCK_BOOTTIME`).
    pub connected_ns: u64,
    /// Cookie of the socket's network namespace.
    pub netns: u64,
    /// Who called connect(2).
    pub task: Task,
    /// Where the agent meant to go.
    pub original: Endpoint,
    /// Keeps the size a multiple of eight without padding.
    pub reserved: u32,
}

/// What the programs remember of one socket for as long as it lives.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketState {
    /// The last connect(2) that was not refused; its `netns` is that of the socket from the beginning,
    /// and its `task` that of the last question to the gate's DNS server where there was one since.
    pub flow: KernelFlow,
    /// Where the last IPv4 (also mapped) datagram of DNS was meant to go.
    pub sent4: Endpoint,
    /// Where the last IPv6 datagram of DNS was meant to go.
    pub sent6: Endpoint,
    /// [`crate::verdict::Passage`] of the last connect(2) as a number; 0 where there was none.
    pub passage: u32,
    /// 1 once a refused packet of this socket has been reported since UDP was last connected, so
    /// that a stranger's packets to a guarded socket cannot fill the record.
    pub reported: u32,
    /// 1 for a socket that was made under guard: set at socket(2), so that a socket from elsewhere is
    /// known by lacking it.
    pub guarded: u32,
    /// 1 for a socket that no socket(2) made, such as a subflow of MPTCP: what it connects to is kept in
    /// PEERS for the socket that its user holds.
    pub inner: u32,
    /// 1 for a socket that was made elsewhere and that a guarded task has written to: nothing of it
    /// leaves any more, whoever sends it.
    pub tainted: u32,
    /// Keeps `owner` aligned without padding.
    pub reserved: u32,
    /// [`Task::session`] of who made it, [`crate::subject::NOBODY`] where that could not be told.
    pub owner: u64,
}
