//! What judgements ask: the maps, and whose socket would receive.

use core::ptr;

use agentgate_common::{
    flow::Endpoint,
    subject::NOBODY,
    verdict::{self, Facts, UDP},
};
use aya_ebpf::{
    bindings::{BPF_F_CURRENT_NETNS, bpf_sock, bpf_sock_tuple},
    cty::c_void,
    helpers::generated::{bpf_sk_lookup_tcp, bpf_sk_lookup_udp, bpf_sk_release},
    programs::{SkBuffContext, SockAddrContext},
};

use crate::maps;

/// Bytes of a tuple of IPv4: the kernel tells the family by the length.
const TUPLE4: u32 = 12;
/// Bytes of a tuple of IPv6.
const TUPLE6: u32 = 36;

/// The kernel as one call or packet sees it.
pub(crate) struct Known {
    ctx: *mut c_void,
    protocol: u32,
    /// Where a datagram comes from, which may decide between sockets of one port. Unspecified where that
    /// is not known yet, and for TCP, where a listener does not care.
    source: Endpoint,
    /// The session that asks.
    session: u64,
}

impl Known {
    /// As connect(2) and sendmsg(2) see it.
    #[inline(always)]
    pub(crate) fn of_call(ctx: &SockAddrContext, protocol: u32, session: u64) -> Self {
        let source = Endpoint { addr: [0; 16], port: 0, family: 0 };
        Self { ctx: ctx.sock_addr.cast(), protocol, source, session }
    }

    /// As a packet of a socket of this session sees it.
    #[inline(always)]
    pub(crate) fn of_packet(ctx: &SkBuffContext, protocol: u32, source: Endpoint, session: u64) -> Self {
        Self { ctx: ctx.skb.skb.cast(), protocol, source, session }
    }

    /// The socket that would receive, to be released.
    #[inline(always)]
    fn receiver(&self, destination: &Endpoint) -> *mut bpf_sock {
        let mut tuple = [0_u32; TUPLE6 as usize / 4];
        let ports = [self.source.port.to_be_bytes(), destination.port.to_be_bytes()];
        let ports = u32::from_ne_bytes([ports[0][0], ports[0][1], ports[1][0], ports[1][1]]);
        let (from, to) = (verdict::words(&self.source.addr), verdict::words(&destination.addr));
        let length = if verdict::mapped(&destination.addr).is_some() {
            tuple[0] = from[3];
            tuple[1] = to[3];
            tuple[2] = ports;
            TUPLE4
        } else {
            tuple = [from[0], from[1], from[2], from[3], to[0], to[1], to[2], to[3], ports];
            TUPLE6
        };
        let tuple: *mut bpf_sock_tuple = ptr::from_mut(&mut tuple).cast();
        let netns = i64::from(BPF_F_CURRENT_NETNS).cast_unsigned();
        // SAFETY: the context is valid while the program runs, and the tuple is ours and long enough.
        unsafe {
            if self.protocol == UDP {
                bpf_sk_lookup_udp(self.ctx, tuple, length, netns, 0)
            } else {
                bpf_sk_lookup_tcp(self.ctx, tuple, length, netns, 0)
            }
        }
    }
}

impl Facts for Known {
    #[inline(always)]
    fn is_host(&self, addr: &[u8; 16]) -> bool {
        maps::is_host(addr)
    }

    #[inline(always)]
    fn is_own(&self, destination: &Endpoint) -> bool {
        if self.session == NOBODY {
            return false;
        }
        let sk = self.receiver(destination);
        if sk.is_null() {
            return false;
        }
        let own = match maps::socket(sk) {
            Some(state) => state.guarded == 1 && state.owner == self.session,
            None => false,
        };
        // SAFETY: a socket that the lookup gave, and that is not used any more.
        unsafe { bpf_sk_release(sk.cast()) };
        own
    }

    #[inline(always)]
    fn admits_udp(&self, destination: &Endpoint) -> bool {
        maps::admits_udp(destination)
    }

    #[inline(always)]
    fn admits_namespace(&self, netns: u64) -> bool {
        maps::admits_namespace(netns)
    }
}
