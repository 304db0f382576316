//! UDP that policy lets pass, as the kernel looks it up: a trie of ranges, each with its ports.

/// Most ports, or ranges of ports, of one range of addresses.
pub const UDP_PORTS: usize = 16;

/// Data of a trie key: an address in network byte order, IPv4 mapped. The prefix counts from the first
/// of its 128 bits.
pub type UdpKey = [u8; 16];

/// Ports of one range. A range that is more specific replaces the wider one around it, so that an entry
/// without ports closes a hole in it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UdpPorts {
    /// First and last port of each range, host byte order; 0 and 0 where unused.
    pub ranges: [[u16; 2]; UDP_PORTS],
}

impl UdpPorts {
    /// Whether `port` is in one of the ranges.
    #[must_use]
    #[inline(always)]
    pub fn has(&self, port: u16) -> bool {
        for [first, last] in &self.ranges {
            if port != 0 && *first <= port && port <= *last {
                return true;
            }
        }
        false
    }
}
