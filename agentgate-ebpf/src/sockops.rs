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
    error::{Refused, outcome},
    maps,
};

#[sock_ops]
pub(crate) fn gate_sockops(ctx: SockOpsContext) -> u32 {
    if ctx.op() != BPF_SOCK_OPS_TCP_CONNECT_CB {
        return 1;
    }
    let raw: *mut bpf_sock_ops = ctx.ops;
    // SAFETY: the context is valid while the program runs; all arms of the union are the pointer.
    let sk = unsafe { (*raw).__bindgen_anon_2.sk };
    let Some(state) = maps::socket(sk) else {
        return 1;
    };
    let passage = if state.passage == Passage::Listener as u32 {
        Passage::Listener
    } else if state.passage == Passage::Resolver as u32 {
        Passage::Resolver
    } else {
        // Not redirected.
        return 1;
    };
    let flow = &state.flow;
    let result = try_tie(&ctx, flow, state.inner == 1).map(|()| passage).map_err(Refused::at(flow.original));
    maps::count(Hook::SockOps, outcome(&result), flow.task.session);
    if matches!(result, Ok(Passage::Listener)) {
        maps::book(flow.task.session, flow.connected_ns, Passage::Listener as u8);
    }
    if let Err(refused) = result {
        let socket = Socket { cookie: flow.cookie, family: ctx.family(), kind: STREAM, protocol: TCP };
        // Linux 6.1 tells this hook nothing of the caller; connect(2) did.
        emit::report(Hook::SockOps, flow.task.session, socket, &refused, |task| *task = flow.task);
    }
    1
}

#[inline(always)]
fn try_tie(ctx: &SockOpsContext, flow: &KernelFlow, inner: bool) -> Result<(), Denial> {
    let raw: *mut bpf_sock_ops = ctx.ops;
    // The port that connect(2) was given, whatever the settings say by now. In network byte order.
    // SAFETY: as above; volatile keeps the load four bytes wide.
    let towards = u32::from_be(unsafe { (&raw const (*raw).remote_port).read_volatile() }) as u16;
    let key = FlowKey { netns: flow.netns, local: local(ctx), towards, protocol: TCP as u16 };
    maps::tie(&key, flow)?;
    if inner {
        maps::keep_peer(&key, &flow.original);
    }
    Ok(())
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
