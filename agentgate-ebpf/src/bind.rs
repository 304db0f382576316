//! bind4 and bind6: the gate's own ports are not to be had by those it guards.
//!
//! While no daemon runs, its ports are free: whoever took one would be sent the connections of
//! every other session, and would keep the daemon from coming back.
//!
//! The subflow by which MPTCP listens comes here, and is marked: no socket(2) made it.

use agentgate_common::{
    event::Hook,
    flow::SocketState,
    verdict::{self, Denial, Passage},
};
use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};

use crate::{
    connect::{Family, Inet, Inet6, judged, origin, sk},
    maps,
};

#[cgroup_sock_addr(bind4)]
pub(crate) fn gate_bind4(ctx: SockAddrContext) -> i32 {
    judged::<Inet>(&ctx, Hook::Bind4, try_bind::<Inet>)
}

#[cgroup_sock_addr(bind6)]
pub(crate) fn gate_bind6(ctx: SockAddrContext) -> i32 {
    judged::<Inet6>(&ctx, Hook::Bind6, try_bind::<Inet6>)
}

#[inline(always)]
fn try_bind<F: Family>(
    ctx: &SockAddrContext,
    session: u64,
    state: Option<&mut SocketState>,
) -> Result<Passage, Denial> {
    let settings = maps::settings()?;
    let passage = verdict::bind(settings, F::read(ctx).port)?;
    let netns = origin(ctx, state.as_deref()).netns;
    maps::socket_or_new(state, sk(ctx), session, netns)?;
    Ok(passage)
}
