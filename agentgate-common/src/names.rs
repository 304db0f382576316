//! Names of programs, maps and pins, written once.

/// Map of [`crate::settings::Settings`], one entry.
pub const SETTINGS: &str = "SETTINGS";
/// Map from [`crate::flow::FlowKey`] to [`crate::flow::KernelFlow`].
pub const FLOWS: &str = "FLOWS";
/// Ring buffer of [`crate::event::KernelEvent`].
pub const EVENTS: &str = "EVENTS";
/// Per-CPU counters, indexed by [`crate::verdict::counter`].
pub const COUNTERS: &str = "COUNTERS";
/// Socket storage of [`crate::flow::SocketState`].
pub const SOCKETS: &str = "SOCKETS";
/// Map from [`crate::flow::FlowKey`] to the original [`crate::flow::Endpoint`], for sockets whose
/// storage getpeername(2) cannot reach (MPTCP).
pub const PEERS: &str = "PEERS";

/// Map from [`crate::flow::FlowKey`] of a UDP socket to the [`crate::flow::KernelFlow`] of its last
/// question to the gate's DNS server.
pub const ASKERS: &str = "ASKERS";
/// Map from an address (sixteen bytes, IPv4 mapped) to 1: the host's own addresses besides loopback.
pub const HOST: &str = "HOST";
/// Trie of [`crate::rules::UdpKey`] to [`crate::rules::UdpPorts`]: UDP that policy lets pass.
pub const UDP: &str = "UDP";
/// Map from a network namespace's cookie to 1: namespaces besides the daemon's in which the gate has
/// doors.
pub const NAMESPACES: &str = "NAMESPACES";
/// Map from [`crate::tally::Tally`] to a number.
pub const TALLIES: &str = "TALLIES";

/// Map from [`crate::tally::Booked`] to a number.
pub const BOOKS: &str = "BOOKS";

/// The maps that are pinned, each under its own name.
pub const PINNED_MAPS: [&str; 12] =
    [SETTINGS, FLOWS, PEERS, ASKERS, EVENTS, COUNTERS, SOCKETS, HOST, UDP, NAMESPACES, TALLIES, BOOKS];

/// Entries of [`FLOWS`]: connections that are between connect(2) and accept(2) at one time.
pub const FLOWS_CAPACITY: u32 = 65_536;
/// Entries of [`ASKERS`].
pub const ASKERS_CAPACITY: u32 = 16_384;
/// Entries of [`HOST`].
pub const HOST_CAPACITY: u32 = 4096;
/// Entries of [`UDP`].
pub const UDP_CAPACITY: u32 = 2048;
/// Entries of [`NAMESPACES`].
pub const NAMESPACES_CAPACITY: u32 = 64;
/// Entries of [`TALLIES`].
pub const TALLIES_CAPACITY: u32 = 65_536;
/// Entries of [`BOOKS`]. The daemon takes out those that are balanced; without one, hours of refusals fit.
pub const BOOKS_CAPACITY: u32 = 65_536;
/// Entries of [`PEERS`].
pub const PEERS_CAPACITY: u32 = 65_536;
/// Size of [`EVENTS`] in bytes: a power of two and a multiple of the page size.
pub const EVENTS_BYTES: u32 = 256 * 1024;

/// Programs on the guarded cgroup, or above it, that a kernel may lack the means for: each link is pinned
/// under the same name.
pub const LAYERS: [&str; 8] = [
    "watch_connect4",
    "watch_connect6",
    "watch_sendmsg4",
    "watch_sendmsg6",
    "watch_egress",
    "lsm_socket",
    "lsm_receive",
    "lsm_send",
];

/// Where the running kernel has what the programs of [`LAYERS`] read, each a global of type `u32` that the
/// daemon fills in from the kernel's BTF, in bytes: `struct socket`'s `sk` and `file`.
pub const SOCKET_SK: &str = "SOCKET_SK";
/// See [`SOCKET_SK`].
pub const SOCKET_FILE: &str = "SOCKET_FILE";
/// `struct sock`'s `sk_family`.
pub const SOCK_FAMILY: &str = "SOCK_FAMILY";
/// `struct sock`'s `sk_lock.owned`.
pub const SOCK_OWNED: &str = "SOCK_OWNED";
/// `struct sock`'s `sk_allocation`.
pub const SOCK_ALLOCATION: &str = "SOCK_ALLOCATION";
/// The byte of `struct sock` that has `sk_kern_sock`.
pub const SOCK_KERNEL: &str = "SOCK_KERNEL";
/// The bit in that byte.
pub const SOCK_KERNEL_BIT: &str = "SOCK_KERNEL_BIT";

/// The programs, by their function names; each link is pinned under the same name.
pub const PROGRAMS: [&str; 14] = [
    "gate_connect4",
    "gate_connect6",
    "gate_sockops",
    "gate_getpeer4",
    "gate_getpeer6",
    "gate_sendmsg4",
    "gate_sendmsg6",
    "gate_recvmsg4",
    "gate_recvmsg6",
    "gate_create",
    "gate_egress",
    "gate_bind4",
    "gate_bind6",
    "gate_option",
];
