//! sock_create: socket(2) for IPv4 and IPv6. Other families never come here.
//!
//! Each socket is marked as made under guard, with the session that made it: what lacks the mark in the
//! hands of a guarded task is from elsewhere, and what a session listens on is its own.

use agentgate_common::{
    event::Hook,
    flow::Endpoint,
    verdict::{self, Passage},
};
use aya_ebpf::{
    helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie},
    macros::cgroup_sock,
    programs::SockContext,
};

use crate::{
    emit::{self, Socket},
    error::{Refused, outcome},
    maps,
};

#[cgroup_sock(sock_create)]
pub(crate) fn gate_create(ctx: SockContext) -> i32 {
    let socket = describe(&ctx);
    let session = maps::session();
    let result = try_create(&ctx, session, socket);
    maps::count(Hook::SockCreate, outcome(&result), session);
    match result {
        Ok(_) => 1,
        Err(refused) => {
            emit::refuse(&ctx, Hook::SockCreate, session, socket, &refused);
            0
        }
    }
}

#[inline(always)]
fn try_create(ctx: &SockContext, session: u64, socket: Socket) -> Result<Passage, Refused> {
    let nowhere = Endpoint { addr: [0; 16], port: 0, family: socket.family as u16 };
    let refused = Refused::at(nowhere);
    let passage = verdict::socket(socket.family, socket.kind, socket.protocol).map_err(&refused)?;
    // SAFETY: the context is valid while the program runs.
    let netns = unsafe { bpf_get_netns_cookie(ctx.sock.cast()) };
    maps::mark(ctx.sock, session, netns).map_err(&refused)?;
    Ok(passage)
}

#[inline(always)]
fn describe(ctx: &SockContext) -> Socket {
    let raw = ctx.sock;
    // SAFETY: the context is valid while the program runs.
    unsafe {
        Socket {
            cookie: bpf_get_socket_cookie(raw.cast()),
            family: (*raw).family,
            kind: (*raw).type_,
            protocol: (*raw).protocol,
        }
    }
}
