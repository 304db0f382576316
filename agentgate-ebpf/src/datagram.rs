//! sendmsg4/6 and recvmsg4/6: datagrams of sockets that are not connected.
//!
//! Connected UDP is for connect(2) and the egress program to judge. It comes here only with ancillary
//! data, and then without an address, which is said as port 0: no address given has that one. A mapped
//! destination of an IPv6 socket goes through sendmsg4, its answers through recvmsg6.

use agentgate_common::{
    event::Hook,
    flow::{Endpoint, INET6, SocketState},
    settings::Settings,
    verdict::{self, Denial, Passage},
};
use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};

use crate::{
    connect::{Family, Inet, Inet6, describe, judged, origin, settle, sk},
    emit,
    facts::OfCall,
    maps,
};

#[cgroup_sock_addr(sendmsg4)]
pub(crate) fn gate_sendmsg4(ctx: SockAddrContext) -> i32 {
    judged::<Inet>(&ctx, Hook::SendMsg4, try_send::<Inet>)
}

#[cgroup_sock_addr(sendmsg6)]
pub(crate) fn gate_sendmsg6(ctx: SockAddrContext) -> i32 {
    judged::<Inet6>(&ctx, Hook::SendMsg6, try_send::<Inet6>)
}

#[cgroup_sock_addr(recvmsg4)]
pub(crate) fn gate_recvmsg4(ctx: SockAddrContext) -> i32 {
    restore::<Inet>(&ctx)
}

#[cgroup_sock_addr(recvmsg6)]
pub(crate) fn gate_recvmsg6(ctx: SockAddrContext) -> i32 {
    restore::<Inet6>(&ctx)
}

#[inline(always)]
fn try_send<F: Family>(
    ctx: &SockAddrContext,
    session: u64,
    state: Option<&mut SocketState>,
) -> Result<Passage, Denial> {
    let mut destination = F::read(ctx);
    let settings = maps::settings()?;
    let socket = describe(ctx);
    if let Some(state) = &state
        && let Some(passage) = to_own_peer(state, settings, socket.family, &destination)
    {
        return Ok(passage);
    }
    let unspecified = settle(&mut destination);
    let origin = origin(ctx, state.as_deref());
    let facts = OfCall::new(ctx, socket.protocol, session);
    let passage = verdict::send(settings, &destination, socket.kind, socket.protocol, origin, &facts)?;
    match passage {
        Passage::Resolver => {
            let target = verdict::resolver(settings, &destination)?;
            let state = maps::socket_or_new(state, sk(ctx), session, origin.netns)?;
            // As it was named: an answer seems to come from there.
            remember(state, F::read(ctx));
            state.flow.cookie = socket.cookie;
            emit::current(&mut state.flow.task, session);
            F::write(ctx, &target);
        }
        // Each packet is judged once more; an unspecified address goes where it was judged to go.
        Passage::Own | Passage::Listed | Passage::Connected | Passage::Direct | Passage::Listener => {
            maps::socket_or_new(state, sk(ctx), session, origin.netns)?;
            if unspecified {
                F::write(ctx, &destination);
            }
        }
    }
    Ok(passage)
}

/// What connect(2) made of a socket that sends to its peer, which is then for the egress program to
/// judge. An IPv6 socket that is connected to a mapped address comes here with every send(2): the
/// kernel passes it on to IPv4 together with its address, which is the one written at connect(2).
#[inline(always)]
fn to_own_peer(
    state: &SocketState,
    settings: &Settings,
    socket_family: u32,
    destination: &Endpoint,
) -> Option<Passage> {
    let passed_on = socket_family == u32::from(INET6) && verdict::mapped(&destination.addr).is_some();
    let unnamed = destination.port == 0;
    if state.passage == Passage::Resolver as u32 {
        return (unnamed || verdict::is_resolver(settings, destination)).then_some(Passage::Resolver);
    }
    let peer = &state.flow.original;
    let named =
        verdict::words(&peer.addr) == verdict::words(&destination.addr) && peer.port == destination.port;
    let passage = match state.passage {
        number if number == Passage::Connected as u32 => Passage::Connected,
        number if number == Passage::Own as u32 => Passage::Own,
        number if number == Passage::Listed as u32 => Passage::Listed,
        _ => return None,
    };
    (unnamed || passed_on && named).then_some(passage)
}

/// Keeps where a question was meant to go.
#[inline(always)]
pub(crate) fn remember(state: &mut SocketState, destination: Endpoint) {
    if verdict::mapped(&destination.addr).is_some() {
        state.sent4 = destination;
    } else {
        state.sent6 = destination;
    }
}

/// Shows an answer of the resolver as coming from where the question was meant to go. Always 1: the
/// kernel admits no other answer from this hook.
#[inline(always)]
fn restore<F: Family>(ctx: &SockAddrContext) -> i32 {
    if let Some(original) = original(ctx, &F::read(ctx)) {
        F::write(ctx, &original);
    }
    1
}

#[inline(always)]
fn original(ctx: &SockAddrContext, source: &Endpoint) -> Option<Endpoint> {
    let settings = maps::settings().ok()?;
    if !verdict::is_resolver(settings, source) {
        return None;
    }
    let state = maps::socket(sk(ctx))?;
    let sent = if verdict::mapped(&source.addr).is_some() { state.sent4 } else { state.sent6 };
    // The family of this call decides how the address is written, not that of the question.
    (sent.port != 0).then_some(Endpoint { family: source.family, ..sent })
}
