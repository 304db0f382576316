//! The judgements that the kernel makes without a name: pure functions of settings and call.

/// Why a call was refused.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// One of the gate's own ports.
    GatePort = 1,
    /// A loopback address that policy does not open.
    Loopback = 2,
    /// A cloud metadata address.
    Metadata = 3,
    /// UDP that is not DNS.
    Udp = 4,
    /// DNS while no resolver of that family is set.
    NoResolver = 5,
    /// A socket type or protocol other than TCP and UDP.
    SocketType = 6,
    /// The daemon has not said where its listener is.
    NoListener = 7,
    /// The flow could not be stored, so the listener could not have judged it.
    NoFlow = 8,
}
