//! Options of sockets that are taken and not set.

/// `SOL_SOCKET` of include/uapi/asm-generic/socket.h.
const SOCKET: i32 = 1;
/// `SO_BROADCAST` of the same.
const BROADCAST: i32 = 6;
/// `SO_REUSEPORT` of the same.
const REUSEPORT: i32 = 15;

/// `IPPROTO_IP`.
const IP: i32 = 0;
/// `IP_FREEBIND` of include/uapi/linux/in.h.
const FREEBIND: i32 = 15;
/// `IP_TRANSPARENT` of the same.
const TRANSPARENT: i32 = 19;
/// `IP_ADD_MEMBERSHIP` to `MCAST_MSFILTER` of the same, all of which are about groups.
const MEMBERSHIP: [i32; 2] = [35, 48];

/// `IPPROTO_IPV6`.
const IPV6: i32 = 41;
/// `IPV6_JOIN_GROUP` and `IPV6_LEAVE_GROUP` of include/uapi/linux/in6.h.
const MEMBERSHIP6: [i32; 2] = [20, 21];
/// `IPV6_JOIN_ANYCAST` and `IPV6_LEAVE_ANYCAST` of the same.
const ANYCAST6: [i32; 2] = [27, 28];
/// `MCAST_JOIN_GROUP` to `MCAST_MSFILTER` of include/uapi/linux/in.h.
const SOURCES6: [i32; 2] = [42, 48];
/// `IPV6_2292RTHDR`, `IPV6_2292PKTOPTIONS` and `IPV6_RTHDR` of include/uapi/linux/in6.h.
const ROUTING6: [i32; 3] = [5, 6, 57];
/// `IPV6_TRANSPARENT` of include/uapi/linux/in6.h.
const TRANSPARENT6: i32 = 75;
/// `IPV6_FREEBIND` of the same.
const FREEBIND6: i32 = 78;

/// `IPPROTO_TCP`.
const TCP: i32 = 6;
/// `TCP_REPAIR` of include/uapi/linux/tcp.h.
const REPAIR: i32 = 19;

/// Whether setsockopt(2) says that it succeeded and changes nothing.
///
/// - `SO_BROADCAST`: without it the kernel refuses to connect or send to any broadcast address.
/// - `SO_REUSEPORT`: with it the socket that a lookup finds at a port need not be the one that receives,
///   and one of the two could be a stranger's.
/// - Joining groups: the kernel itself reports the group's address, which is data, to the network (IGMP,
///   MLD), by a packet that is nobody's. Leaving them, which would fail where nothing was joined.
/// - Addresses of others as one's own: what comes back, from whomever, goes to them.
/// - Routing headers on each packet of a connection: it begins on loopback, and where segment routing is on
///   for that (`seg6_enabled`) it would go on to where the header says. Of datagrams, egress sees them.
/// - `TCP_REPAIR`: a connection that no packet has opened.
#[must_use]
#[inline(always)]
pub const fn is_swallowed(level: i32, name: i32) -> bool {
    match level {
        SOCKET => name == BROADCAST || name == REUSEPORT,
        IP => name == FREEBIND || name == TRANSPARENT || is_in(MEMBERSHIP, name),
        IPV6 => {
            name == FREEBIND6
                || name == TRANSPARENT6
                || name == ROUTING6[0]
                || name == ROUTING6[1]
                || name == ROUTING6[2]
                || is_in(MEMBERSHIP6, name)
                || is_in(ANYCAST6, name)
                || is_in(SOURCES6, name)
        }
        TCP => name == REPAIR,
        _ => false,
    }
}

#[inline(always)]
const fn is_in([first, last]: [i32; 2], name: i32) -> bool {
    first <= name && name <= last
}
