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

use crate::{
    connect::{Bound, sk},
    maps,
};

/// Bytes of a tuple of IPv4: the kernel tells the family by the length.
const TUPLE4: u32 = 12;
/// Bytes of a tuple of IPv6.
const TUPLE6: u32 = 36;

/// The kernel as connect(2) or sendmsg(2) on a socket sees it.
pub(crate) struct OfCall {
    ctx: *mut c_void,
    sk: *mut bpf_sock,
    protocol: u32,
    /// The session that asks.
    session: u64,
}

/// The kernel as a packet sees it.
pub(crate) struct OfPacket<'a> {
    ctx: *mut c_void,
    protocol: u32,
    /// Where a datagram comes from; `None` for TCP, since a listener does not care.
    source: Option<&'a Endpoint>,
    /// The session of its socket.
    session: u64,
}

impl OfCall {
    #[inline(always)]
    pub(crate) fn new(ctx: &SockAddrContext, protocol: u32, session: u64) -> Self {
        Self { ctx: ctx.sock_addr.cast(), sk: sk(ctx), protocol, session }
    }
}

impl<'a> OfPacket<'a> {
    #[inline(always)]
    pub(crate) fn new(
        ctx: &SkBuffContext,
        protocol: u32,
        source: Option<&'a Endpoint>,
        session: u64,
    ) -> Self {
        Self { ctx: ctx.skb.skb.cast(), protocol, source, session }
    }
}

/// A tuple for the lookup: from nowhere to the destination.
#[inline(always)]
fn tuple(destination: &Endpoint) -> ([u32; TUPLE6 as usize / 4], u32) {
    let to = verdict::words(&destination.addr);
    let ports = ports(0, destination.port);
    if verdict::mapped(&destination.addr).is_some() {
        ([0, to[3], ports, 0, 0, 0, 0, 0, 0], TUPLE4)
    } else {
        ([0, 0, 0, 0, to[0], to[1], to[2], to[3], ports], TUPLE6)
    }
}

/// Both ports as the tuple holds them.
#[inline(always)]
fn ports(from: u16, to: u16) -> u32 {
    let ([a, b], [c, d]) = (from.to_be_bytes(), to.to_be_bytes());
    u32::from_ne_bytes([a, b, c, d])
}

/// Whether the socket that would receive is of a session.
#[inline(always)]
fn receives(
    ctx: *mut c_void,
    protocol: u32,
    tuple: &mut [u32; TUPLE6 as usize / 4],
    length: u32,
    session: u64,
) -> bool {
    let tuple: *mut bpf_sock_tuple = ptr::from_mut(tuple).cast();
    let netns = i64::from(BPF_F_CURRENT_NETNS).cast_unsigned();
    // SAFETY: the context is valid while the program runs, and the tuple is ours and long enough.
    let sk = unsafe {
        if protocol == UDP {
            bpf_sk_lookup_udp(ctx, tuple, length, netns, 0)
        } else {
            bpf_sk_lookup_tcp(ctx, tuple, length, netns, 0)
        }
    };
    if sk.is_null() {
        return false;
    }
    let own = match maps::socket(sk) {
        Some(state) => state.guarded == 1 && state.owner == session,
        None => false,
    };
    // SAFETY: a socket that the lookup gave, and that is not used any more.
    unsafe { bpf_sk_release(sk.cast()) };
    own
}

impl Facts for OfCall {
    #[inline(always)]
    fn is_host(&self, addr: &[u8; 16]) -> bool {
        maps::is_host(addr)
    }

    #[inline(always)]
    fn is_own(&self, destination: &Endpoint) -> bool {
        if self.session == NOBODY {
            return false;
        }
        let (mut tuple, length) = tuple(destination);
        // A connected socket receives from its peer alone. Where the sender is not bound to an address,
        // this host sends from the one that it sends to.
        if self.protocol == UDP && !self.sk.is_null() {
            let Bound { ip4, ip6, port } = Bound::of(self.sk);
            let ports = ports(port, destination.port);
            if length == TUPLE4 {
                tuple[0] = if ip4 == 0 { tuple[1] } else { ip4 };
                tuple[2] = ports;
            } else {
                let unbound = ip6[0] | ip6[1] | ip6[2] | ip6[3] == 0;
                for word in 0..4 {
                    tuple[word] = if unbound { tuple[word + 4] } else { ip6[word] };
                }
                tuple[8] = ports;
            }
        }
        receives(self.ctx, self.protocol, &mut tuple, length, self.session)
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

impl Facts for OfPacket<'_> {
    #[inline(always)]
    fn is_host(&self, addr: &[u8; 16]) -> bool {
        maps::is_host(addr)
    }

    #[inline(always)]
    fn is_own(&self, destination: &Endpoint) -> bool {
        if self.session == NOBODY {
            return false;
        }
        let (mut tuple, length) = tuple(destination);
        if let Some(source) = self.source {
            let from = verdict::words(&source.addr);
            let ports = ports(source.port, destination.port);
            if length == TUPLE4 {
                tuple[0] = from[3];
                tuple[2] = ports;
            } else {
                tuple[0] = from[0];
                tuple[1] = from[1];
                tuple[2] = from[2];
                tuple[3] = from[3];
                tuple[8] = ports;
            }
        }
        receives(self.ctx, self.protocol, &mut tuple, length, self.session)
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
