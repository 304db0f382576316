//! sock_ops: ties a redirected connection to its local address before the first packet leaves.
//!
//! `TCP_CONNECT_CB` runs when the kernel has chosen the source port and before it sends the SYN,
//! at connect(2) or, with a deferred TCP Fast Open, at the first write. The listener therefore
//! never sees a connection whose flow is still to come; when no flow could be stored it finds none
//! and refuses.

use agentgate_common::{
    event::Hook,
    flow::{Endpoint, FlowKey, INET, INET6, KernelFlow},
    verdict::{self, Denial, Passage, STREAM, TCP},
};
use aya_ebpf::{
    bindings::{BPF_SOCK_OPS_TCP_CONNECT_CB, bpf_sock_ops},
    macros::sock_ops,
    programs::SockOpsContext,
};

use crate::{
    emit::{self, Socket},
    error::Refused,
    maps,
};

#[sock_ops]
pub(crate) fn gate_sockops(ctx: SockOpsContext) -> u32 {
    if ctx.op() != BPF_SOCK_OPS_TCP_CONNECT_CB {
        return 1;
    }
    match try_tie(&ctx) {
        Ok(Some(passage)) => maps::count(Hook::SockOps, passage as u8),
        Ok(None) => {}
        Err((flow, refused)) => {
            let socket = Socket { cookie: flow.cookie, family: ctx.family(), kind: STREAM, protocol: TCP };
            // Linux 6.1 tells this hook nothing of the caller; connect(2) did.
            emit::report(Hook::SockOps, socket, &refused, |task| *task = flow.task);
        }
    }
    1
}

/// `None` where the connection was not redirected to the listener.
#[inline(always)]
fn try_tie(ctx: &SockOpsContext) -> Result<Option<Passage>, (KernelFlow, Refused)> {
    let raw: *mut bpf_sock_ops = ctx.ops;
    // SAFETY: the context is valid while the program runs; all arms of the union are the pointer.
    let sk = unsafe { (*raw).__bindgen_anon_2.sk };
    let Some(state) = maps::socket(sk) else {
        return Ok(None);
    };
    if state.passage != Passage::Listener as u32 {
        return Ok(None);
    }
    let flow = state.flow;
    let key = FlowKey {
        netns: flow.netns,
        local: local(ctx),
        towards: maps::settings().map_or(0, |settings| settings.listener_port),
        protocol: TCP as u16,
    };
    maps::tie(&key, &flow)
        .map(|()| Some(Passage::Listener))
        .map_err(|denial: Denial| (flow, Refused { destination: flow.original, denial }))
}

/// The agent's end of the connection, in the form in which accept(2) will show it.
#[inline(always)]
fn local(ctx: &SockOpsContext) -> Endpoint {
    let raw: *mut bpf_sock_ops = ctx.ops;
    // SAFETY: the context is valid while the program runs; volatile keeps the loads four bytes wide.
    let (ip4, words, port) = unsafe {
        (
            (&raw const (*raw).local_ip4).read_volatile(),
            [
                (&raw const (*raw).local_ip6[0]).read_volatile(),
                (&raw const (*raw).local_ip6[1]).read_volatile(),
                (&raw const (*raw).local_ip6[2]).read_volatile(),
                (&raw const (*raw).local_ip6[3]).read_volatile(),
            ],
            (&raw const (*raw).local_port).read_volatile(),
        )
    };
    let addr = if ctx.family() == u32::from(INET) {
        verdict::map_v4(ip4.to_ne_bytes())
    } else {
        verdict::bytes(words)
    };
    let family = if verdict::mapped(&addr).is_some() { INET } else { INET6 };
    Endpoint { addr, port: port as u16, family }
}
