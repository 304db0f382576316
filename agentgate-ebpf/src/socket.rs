//! sock_create: socket(2) for IPv4 and IPv6. Other families never come here.

use agentgate_common::{
    event::Hook,
    flow::Endpoint,
    verdict::{self, Passage},
};
use aya_ebpf::{helpers::generated::bpf_get_socket_cookie, macros::cgroup_sock, programs::SockContext};

use crate::{
    emit::{self, Socket},
    error::Refused,
    maps,
};

#[cgroup_sock(sock_create)]
pub(crate) fn gate_create(ctx: SockContext) -> i32 {
    let socket = describe(&ctx);
    match try_create(socket) {
        Ok(passage) => {
            maps::vouch(ctx.sock);
            maps::count(Hook::SockCreate, passage as u8);
            1
        }
        Err(refused) => {
            emit::refuse(&ctx, Hook::SockCreate, socket, &refused);
            0
        }
    }
}

#[inline(always)]
fn try_create(socket: Socket) -> Result<Passage, Refused> {
    let nowhere = Endpoint { addr: [0; 16], port: 0, family: socket.family as u16 };
    verdict::socket(socket.family, socket.kind, socket.protocol).map_err(Refused::at(nowhere))
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
