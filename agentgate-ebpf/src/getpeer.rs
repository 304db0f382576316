//! getpeername4 and getpeername6: a redirected socket shows where it meant to go.

use agentgate_common::{
    flow::{Endpoint, FlowKey, INET, INET6},
    verdict::{self, MPTCP, Passage, TCP},
};
use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};

use crate::{
    connect::{Bound, Family, Inet, Inet6, describe, origin, sk},
    maps,
};

#[cgroup_sock_addr(getpeername4)]
pub(crate) fn gate_getpeer4(ctx: SockAddrContext) -> i32 {
    show::<Inet>(&ctx)
}

#[cgroup_sock_addr(getpeername6)]
pub(crate) fn gate_getpeer6(ctx: SockAddrContext) -> i32 {
    show::<Inet6>(&ctx)
}

/// Always 1: the kernel admits no other answer from this hook.
#[inline(always)]
fn show<F: Family>(ctx: &SockAddrContext) -> i32 {
    let peer = F::read(ctx);
    if let Some(original) = original(ctx, &peer) {
        // An IPv4 call shows IPv4 only, whatever the socket was when it connected
        // (IPV6_ADDRFORM turns one into the other).
        if peer.family == INET6 || verdict::mapped(&original.addr).is_some() {
            F::write(ctx, &original);
        }
    }
    1
}

#[inline(always)]
fn original(ctx: &SockAddrContext, peer: &Endpoint) -> Option<Endpoint> {
    let settings = maps::settings().ok()?;
    let door = peer.port == settings.listener_port || peer.port == settings.dns_port;
    // What accept(2) gives has inherited what its listener did before it listened.
    if !door || !verdict::is_loopback(&peer.addr) {
        return None;
    }
    if describe(ctx).protocol == MPTCP {
        return multipath(ctx, peer);
    }
    let state = maps::socket(sk(ctx))?;
    let redirected = state.passage == Passage::Listener as u32 || state.passage == Passage::Resolver as u32;
    redirected.then_some(state.flow.original)
}

/// The MPTCP socket is not the subflow that connected: found by its own address.
#[inline(always)]
fn multipath(ctx: &SockAddrContext, peer: &Endpoint) -> Option<Endpoint> {
    let sk = sk(ctx);
    if sk.is_null() {
        return None;
    }
    let bound = Bound::of(sk);
    let (addr, family) = if verdict::mapped(&peer.addr).is_some() {
        (verdict::map_v4(bound.ip4.to_ne_bytes()), INET)
    } else {
        (verdict::bytes(bound.ip6), INET6)
    };
    let local = Endpoint { addr, port: bound.port, family };
    maps::peer(&FlowKey { netns: origin(ctx, None).netns, local, towards: peer.port, protocol: TCP as u16 })
}
