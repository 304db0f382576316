//! connect4 and connect6: every connect(2), of TCP and of UDP, and TCP Fast Open.
//!
//! The kernel calls these once per attempt: not for a repeated connect(2) on a socket that is
//! still connecting, nor for `AF_UNSPEC`. What an earlier attempt left on the socket is overwritten
//! or forgotten, so a flow never names an older destination.

use agentgate_common::{
    event::Hook,
    flow::{Endpoint, INET, INET6},
    verdict::{self, Denial, Origin, Passage, STREAM},
};
use aya_ebpf::{
    bindings::{bpf_sock, bpf_sock_addr},
    helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie},
    macros::cgroup_sock_addr,
    programs::SockAddrContext,
};

use crate::{
    datagram::remember,
    emit::{self, Socket},
    error::Refused,
    facts::OfCall,
    maps,
};

#[cgroup_sock_addr(connect4)]
pub(crate) fn gate_connect4(ctx: SockAddrContext) -> i32 {
    judged::<Inet>(&ctx, Hook::Connect4, try_connect::<Inet>)
}

#[cgroup_sock_addr(connect6)]
pub(crate) fn gate_connect6(ctx: SockAddrContext) -> i32 {
    judged::<Inet6>(&ctx, Hook::Connect6, try_connect::<Inet6>)
}

/// Judges a call of the current session and tells the kernel: 1 goes on with the address as it stands,
/// 0 is EPERM.
#[inline(always)]
pub(crate) fn judged<F: Family>(
    ctx: &SockAddrContext,
    hook: Hook,
    judge: impl FnOnce(&SockAddrContext, u64) -> Result<Passage, Denial>,
) -> i32 {
    let session = maps::session();
    let result = judge(ctx, session);
    let outcome = match result {
        Ok(passage) => passage as u8,
        Err(denial) => denial as u8,
    };
    maps::count(hook, outcome, session);
    match result {
        Ok(_) => 1,
        Err(denial) => {
            // Read once more: the stack has no room to keep it. What is refused is not rewritten.
            let refused = Refused { destination: F::read(ctx), denial };
            emit::refuse(ctx, hook, session, describe(ctx), &refused);
            0
        }
    }
}

#[inline(always)]
fn try_connect<F: Family>(ctx: &SockAddrContext, session: u64) -> Result<Passage, Denial> {
    let mut destination = F::read(ctx);
    let unspecified = settle(&mut destination);
    let settings = maps::settings()?;
    let socket = describe(ctx);
    let origin = origin(ctx);
    let facts = OfCall::new(ctx, socket.protocol, session);
    let passage = verdict::connect(settings, &destination, socket.kind, socket.protocol, origin, &facts)?;
    // The first packet is judged too, but of its loss the caller would hear after minutes.
    if socket.kind == STREAM
        && let Some(source) = bound_address(ctx, socket.family)
    {
        verdict::source(settings, &source, origin.netns, &facts)?;
    }
    let state = maps::socket_or_new(sk(ctx), session, origin.netns)?;
    state.passage = passage as u32;
    state.flow.cookie = socket.cookie;
    state.flow.connected_ns = emit::boot_ns();
    emit::current(&mut state.flow.task, session);
    state.flow.original = destination;
    // A refused packet to this destination is worth a record, whatever was sent before.
    state.reported = 0;
    match passage {
        // An unspecified address goes where it was judged to go.
        Passage::Own | Passage::Listed | Passage::Connected | Passage::Direct => {
            if unspecified {
                F::write(ctx, &destination);
            }
        }
        Passage::Listener => F::write(ctx, &verdict::listener(settings, &destination)),
        Passage::Resolver => {
            // As it was named, for who asks for the peer.
            state.flow.original = F::read(ctx);
            remember(state, state.flow.original);
            F::write(ctx, &verdict::resolver(settings, &destination)?);
        }
    }
    Ok(passage)
}

/// Replaces an unspecified address by the one that it comes to, and says whether it was one.
#[inline(always)]
pub(crate) fn settle(destination: &mut Endpoint) -> bool {
    let settled = verdict::settled(destination.addr);
    let unspecified = verdict::words(&settled) != verdict::words(&destination.addr);
    if unspecified {
        destination.addr = settled;
    }
    unspecified
}

/// The socket behind a call.
#[inline(always)]
pub(crate) fn sk(ctx: &SockAddrContext) -> *mut bpf_sock {
    // SAFETY: the context is valid while the program runs; all arms of the union are the pointer.
    unsafe { (*ctx.sock_addr).__bindgen_anon_1.sk }
}

/// Identity and type of the socket.
#[inline(always)]
pub(crate) fn describe(ctx: &SockAddrContext) -> Socket {
    let raw = ctx.sock_addr;
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

/// What a socket is bound to: unspecified and 0 where it is not.
pub(crate) struct Bound {
    pub(crate) ip4: u32,
    pub(crate) ip6: [u32; 4],
    /// Host byte order.
    pub(crate) port: u16,
}

impl Bound {
    /// Of a socket of the context, not null. All is read, whatever is needed: the verifier forbids the
    /// arithmetic that the compiler makes of a choice between fields.
    #[inline(always)]
    pub(crate) fn of(sk: *mut bpf_sock) -> Self {
        // SAFETY: as said; volatile keeps the loads four bytes wide.
        let (ip4, ip6, port) = unsafe {
            (
                (&raw const (*sk).src_ip4).read_volatile(),
                [
                    (&raw const (*sk).src_ip6[0]).read_volatile(),
                    (&raw const (*sk).src_ip6[1]).read_volatile(),
                    (&raw const (*sk).src_ip6[2]).read_volatile(),
                    (&raw const (*sk).src_ip6[3]).read_volatile(),
                ],
                (&raw const (*sk).src_port).read_volatile(),
            )
        };
        Self { ip4, ip6, port: port as u16 }
    }
}

/// The address that a socket of this family is bound to, `None` where it is bound to none.
#[inline(always)]
fn bound_address(ctx: &SockAddrContext, family: u32) -> Option<[u8; 16]> {
    let sk = sk(ctx);
    if sk.is_null() {
        return None;
    }
    let Bound { ip4, ip6, .. } = Bound::of(sk);
    if family == u32::from(INET) {
        return (ip4 != 0).then(|| verdict::map_v4(ip4.to_ne_bytes()));
    }
    (ip6[0] | ip6[1] | ip6[2] | ip6[3] != 0).then(|| verdict::bytes(ip6))
}

/// Network namespace and interface of the socket.
#[inline(always)]
pub(crate) fn origin(ctx: &SockAddrContext) -> Origin {
    let sk = sk(ctx);
    // SAFETY: the context is valid while the program runs, and so is its socket.
    unsafe {
        Origin {
            netns: bpf_get_netns_cookie(ctx.sock_addr.cast()),
            device: if sk.is_null() { 0 } else { (*sk).bound_dev_if },
        }
    }
}

/// The family of a call: a hook may touch the address of its own family only, which the verifier
/// has to see without knowing any value.
pub(crate) trait Family {
    /// The address of a call.
    fn read(ctx: &SockAddrContext) -> Endpoint;
    /// Replaces the address of a call.
    fn write(ctx: &SockAddrContext, endpoint: &Endpoint);
}

/// Calls of IPv4 sockets.
pub(crate) struct Inet;
/// Calls of IPv6 sockets.
pub(crate) struct Inet6;

impl Family for Inet {
    #[inline(always)]
    fn read(ctx: &SockAddrContext) -> Endpoint {
        let raw = ctx.sock_addr;
        // SAFETY: the context is valid while the program runs; volatile keeps the loads four bytes
        // wide, as the verifier wants them.
        let (ip, port) = unsafe {
            ((&raw const (*raw).user_ip4).read_volatile(), (&raw const (*raw).user_port).read_volatile())
        };
        Endpoint { addr: verdict::map_v4(ip.to_ne_bytes()), port: u16::from_be(port as u16), family: INET }
    }

    #[inline(always)]
    fn write(ctx: &SockAddrContext, endpoint: &Endpoint) {
        let raw: *mut bpf_sock_addr = ctx.sock_addr;
        let [.., v4] = verdict::words(&endpoint.addr);
        // SAFETY: as in `read`.
        unsafe {
            (&raw mut (*raw).user_ip4).write_volatile(v4);
            (&raw mut (*raw).user_port).write_volatile(u32::from(endpoint.port.to_be()));
        }
    }
}

impl Family for Inet6 {
    #[inline(always)]
    fn read(ctx: &SockAddrContext) -> Endpoint {
        let raw = ctx.sock_addr;
        // SAFETY: as for IPv4.
        let (words, port) = unsafe {
            (
                [
                    (&raw const (*raw).user_ip6[0]).read_volatile(),
                    (&raw const (*raw).user_ip6[1]).read_volatile(),
                    (&raw const (*raw).user_ip6[2]).read_volatile(),
                    (&raw const (*raw).user_ip6[3]).read_volatile(),
                ],
                (&raw const (*raw).user_port).read_volatile(),
            )
        };
        Endpoint { addr: verdict::bytes(words), port: u16::from_be(port as u16), family: INET6 }
    }

    #[inline(always)]
    fn write(ctx: &SockAddrContext, endpoint: &Endpoint) {
        let raw: *mut bpf_sock_addr = ctx.sock_addr;
        let [a, b, c, d] = verdict::words(&endpoint.addr);
        // SAFETY: as for IPv4.
        unsafe {
            (&raw mut (*raw).user_ip6[0]).write_volatile(a);
            (&raw mut (*raw).user_ip6[1]).write_volatile(b);
            (&raw mut (*raw).user_ip6[2]).write_volatile(c);
            (&raw mut (*raw).user_ip6[3]).write_volatile(d);
            (&raw mut (*raw).user_port).write_volatile(u32::from(endpoint.port.to_be()));
        }
    }
}
