//! Addresses as the programs compare them: sixteen bytes, four words.

use crate::pod;

/// The four words of an address, each holding its bytes in network order.
#[must_use]
#[inline(always)]
pub const fn words(addr: &[u8; 16]) -> [u32; 4] {
    pod::words(*addr)
}

/// The reverse of [`words`].
#[must_use]
#[inline(always)]
pub const fn bytes(words: [u32; 4]) -> [u8; 16] {
    pod::address(words)
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

/// The address that an unspecified one comes to: Linux takes `0.0.0.0` and `::` for loopback, or, where
/// the socket is bound, for the address that it is bound to. What is judged has to be what is reached.
#[must_use]
#[inline(always)]
pub const fn settled(addr: [u8; 16]) -> [u8; 16] {
    match words(&addr) {
        [0, 0, 0, 0] => LOOPBACK6,
        [0, 0, MAPPED, 0] => map_v4(LOOPBACK4),
        _ => addr,
    }
}
