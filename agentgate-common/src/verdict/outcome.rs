//! What a hook comes to, by number and by name, and where each is counted.

/// Why a call was refused.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// One of the gate's own ports.
    GatePort = 1,
    /// An address of this host, at a port that is neither the caller's own nor opened by policy.
    Loopback = 2,
    /// UDP that is neither DNS nor named by policy: the call, or the packet of a connected socket.
    Udp = 4,
    /// DNS while no resolver of that family is set.
    NoResolver = 5,
    /// A socket type or protocol other than TCP and UDP.
    SocketType = 6,
    /// The daemon has not said where its listener is.
    NoListener = 7,
    /// The flow could not be stored, so the listener could not have judged it.
    NoFlow = 8,
    /// A call from a network namespace in which the gate has no doors, so that neither listener nor
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
    /// A source address that is not the host's own, to which the gate's own answers would go.
    Source = 15,
}

impl Denial {
    /// Every denial.
    pub const ALL: [Self; 14] = [
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
        Self::Source,
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
            Self::Source => "source_address",
        }
    }
}

/// What a hook does with a call that is not refused.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// Left as it is.
    Direct = 0,
    /// Left as it is: an address of this host, at a port on which the caller's own session listens.
    Own = 27,
    /// Left as it is: policy names the loopback port, or the UDP destination.
    Listed = 28,
    /// UDP connected to where it may not send. By that alone nothing leaves: resolvers connect so
    /// to learn which source address a destination would have. Each packet is judged by
    /// [`super::packet`].
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

/// Not an outcome of a call: a redirected connection took the place of one that never came to the
/// listener. sock_ops counts it for the session of the one that is gone, which no record will name.
pub const REPLACED: u8 = 26;
/// The stable name of [`REPLACED`].
pub const REPLACED_CODE: &str = "replaced";

/// Numbers and names of everything that a hook counts.
pub fn outcomes() -> impl Iterator<Item = (u8, &'static str)> {
    let passages = Passage::ALL.into_iter().map(|passage| (passage as u8, passage.code()));
    let denials = Denial::ALL.into_iter().map(|denial| (denial as u8, denial.code()));
    passages.chain(denials).chain(core::iter::once((REPLACED, REPLACED_CODE)))
}

/// Outcomes that one hook can count: denials and passages as numbers are all below this.
pub const OUTCOMES: u32 = 32;
/// Size of the counters: every hook times every outcome.
pub const COUNTERS: u32 = 16 * OUTCOMES;
/// The counter of events that found the ring buffer full. Hook numbers start at 1, so no outcome
/// has this index.
pub const LOST: u32 = 0;
/// The counter of outcomes that found no room in the tallies by session: all tallies and this one
/// together are the sum of all counters of hooks.
pub const UNTALLIED: u32 = 1;

/// The counter of what found no room in the books.
pub const UNBOOKED: u32 = 2;

/// The counter of `outcome` (a [`Denial`] or a [`Passage`] as a number) at a hook.
#[must_use]
#[inline(always)]
pub const fn counter(hook: crate::event::Hook, outcome: u8) -> u32 {
    hook as u32 * OUTCOMES + outcome as u32 % OUTCOMES
}
