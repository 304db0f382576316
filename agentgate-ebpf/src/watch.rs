//! The watch: programs above the guarded cgroup, for sockets that were made elsewhere.
//!
//! The kernel runs cgroup programs by the cgroup of a socket's maker. A socket that a guarded task was
//! handed, inherited or brought along passes those of the guarded cgroup by, but not those above it, so
//! these run for every socket of the host and look at who calls. Whoever is not guarded has passed after
//! a few instructions, and nothing is refused, changed or counted for him.
//!
//! connect(2) and sendto(2) run in their caller's name. A packet may not: it may leave in an interrupt
//! while a guarded task happens to run. So a packet is laid to the caller only where the socket itself
//! shows that a process is writing: TCP that a call holds, and datagrams, which nothing else sends. What
//! a call only queues (`MSG_MORE`) leaves later, unseen from here: that is for the LSM layer, and for the
//! daemon, which looks for such sockets and ends them.

use agentgate_common::{
    event::Hook,
    flow::{Endpoint, INET, SocketState},
    subject::Task,
    verdict::{self, DGRAM, Denial, STREAM, TCP, UDP},
};
use aya_ebpf::{
    bindings::{BPF_TCP_LISTEN, bpf_sock},
    helpers::generated::{
        bpf_get_current_cgroup_id, bpf_get_current_pid_tgid, bpf_get_socket_cookie, bpf_sk_fullsock,
        bpf_skb_ancestor_cgroup_id, bpf_skb_load_bytes, bpf_skc_to_tcp_sock,
    },
    macros::{cgroup_skb, cgroup_sock_addr},
    programs::{SkBuffContext, SockAddrContext},
};

use crate::{
    connect::{Family, Inet, Inet6, describe, sk},
    emit::{self, Socket},
    error::Refused,
    layout::KernelSock,
    maps,
};

/// UDP-Lite, whose header begins as that of UDP does.
const UDP_LITE: u32 = 136;
/// `SOCK_RAW`.
const RAW: u32 = 3;
/// `IPPROTO_RAW`: its users write the headers, of whatever protocol.
const ANY_PROTOCOL: u32 = 255;
/// `IPPROTO_ESP`, `IPPROTO_AH` and `IPPROTO_COMP`.
const IPSEC: [u32; 3] = [50, 51, 108];
/// `IPPROTO_ICMP` and `IPPROTO_ICMPV6`.
const PING: [u32; 2] = [1, 58];
/// IPv6 headers that a socket puts between the fixed one and its own: options, routing, destination.
const EXTENSIONS: [u32; 3] = [0, 43, 60];

#[cgroup_sock_addr(connect4)]
pub(crate) fn watch_connect4(ctx: SockAddrContext) -> i32 {
    judge::<Inet>(&ctx)
}

#[cgroup_sock_addr(connect6)]
pub(crate) fn watch_connect6(ctx: SockAddrContext) -> i32 {
    judge::<Inet6>(&ctx)
}

#[cgroup_sock_addr(sendmsg4)]
pub(crate) fn watch_sendmsg4(ctx: SockAddrContext) -> i32 {
    judge::<Inet>(&ctx)
}

#[cgroup_sock_addr(sendmsg6)]
pub(crate) fn watch_sendmsg6(ctx: SockAddrContext) -> i32 {
    judge::<Inet6>(&ctx)
}

/// The session of the calling task, where that is guarded: for all others, who are the most, one helper
/// call says so. The daemon loads these programs only where it knows the depth.
#[inline(always)]
pub(crate) fn guarded_caller() -> Option<u64> {
    let settings = maps::settings().ok()?;
    let inside = settings.guarded != 0 && maps::ancestor(settings.depth as i32) == settings.guarded;
    inside.then(|| maps::ancestor(settings.depth as i32 + 1))
}

/// Whether a socket was made under guard. The guarded cgroup's programs run before these (a cgroup's own
/// come before its parents'), so what they let pass is marked by now.
#[inline(always)]
pub(crate) fn is_marked(state: Option<&SocketState>) -> bool {
    state.is_some_and(|state| state.guarded == 1)
}

#[inline(always)]
fn judge<F: Family>(ctx: &SockAddrContext) -> i32 {
    let Some(session) = guarded_caller() else {
        return 1;
    };
    if is_marked(maps::socket(sk(ctx)).as_deref()) {
        return 1;
    }
    let refused = Refused { destination: F::read(ctx), denial: Denial::Foreign };
    maps::count(Hook::Watch, refused.denial as u8, session);
    emit::refuse(ctx, Hook::Watch, session, describe(ctx), &refused);
    0
}

#[cgroup_skb(egress)]
pub(crate) fn watch_egress(ctx: SkBuffContext) -> i32 {
    // SAFETY: the context is valid while the program runs; all arms of the union are the pointer.
    let any: *mut bpf_sock = unsafe { (*ctx.skb.skb).__bindgen_anon_2.sk };
    if any.is_null() {
        return 1;
    }
    // SAFETY: not null; the helper gives null for a socket that is not a full one.
    let sk = unsafe { bpf_sk_fullsock(any) };
    if sk.is_null() {
        return 1;
    }
    if let Some(session) = guarded_caller() {
        if is_made_under_guard(&ctx) {
            return 1;
        }
        if is_callers(&ctx, sk) {
            drop_foreign(&ctx, sk, session);
            return 0;
        }
    }
    match maps::socket(sk) {
        Some(state) if state.tainted == 1 => {
            maps::count(Hook::Watch, Denial::Foreign as u8, state.owner);
            0
        }
        Some(_) | None => 1,
    }
}

/// By the cgroup of a socket's maker, which the kernel hands on to accepted sockets and subflows.
#[inline(always)]
fn is_made_under_guard(ctx: &SkBuffContext) -> bool {
    maps::settings().is_ok_and(|settings| {
        // SAFETY: the context is valid while the program runs.
        unsafe { bpf_skb_ancestor_cgroup_id(ctx.skb.skb, settings.depth as i32) == settings.guarded }
    })
}

/// Whether a packet of this socket can only be sent by the calling task.
#[inline(always)]
fn is_callers(ctx: &SkBuffContext, sk: *mut bpf_sock) -> bool {
    // SAFETY: a full socket, which lives as long as its packet; volatile keeps the loads as wide as the
    // verifier wants them.
    let (kind, protocol, state, port) = unsafe {
        (
            (&raw const (*sk).type_).read_volatile(),
            (&raw const (*sk).protocol).read_volatile(),
            (&raw const (*sk).state).read_volatile(),
            (&raw const (*sk).src_port).read_volatile(),
        )
    };
    match (kind, protocol) {
        // Answers to those who connect are sent in interrupts, whoever holds the listener.
        (STREAM, TCP) if state != BPF_TCP_LISTEN => {
            // SAFETY: a full socket; the helper gives null for what is not TCP.
            let tcp = unsafe { bpf_skc_to_tcp_sock(sk.cast()) };
            if tcp.is_null() {
                return false;
            }
            let tcp = KernelSock::new(tcp);
            tcp.is_held() && !tcp.is_kernels()
        }
        (DGRAM, UDP | UDP_LITE) => {
            is_own_header(ctx, protocol, Some(port)) && !KernelSock::is_kernels_own(sk)
        }
        (DGRAM, _) if PING.contains(&protocol) => {
            is_own_header(ctx, protocol, None) && !KernelSock::is_kernels_own(sk)
        }
        // The kernel answers by such sockets of its own (ICMP, resets) to what a task just sent.
        (RAW, _) => is_own_header(ctx, protocol, None) && !KernelSock::is_kernels_own(sk),
        _ => false,
    }
}

/// Whether a packet is as a datagram's sender made it. One that IPsec has wrapped may have waited for its
/// keys or for its cipher, and goes on in an interrupt.
#[inline(always)]
fn is_own_header(ctx: &SkBuffContext, protocol: u32, port: Option<u32>) -> bool {
    let Some([first]) = load::<1>(ctx, 0) else {
        return false;
    };
    let (found, at) = match first >> 4 {
        4 => match load::<1>(ctx, 9) {
            Some([found]) => (u32::from(found), u32::from(first & 0x0f) * 4),
            None => return false,
        },
        _ => match load::<1>(ctx, 6) {
            Some([found]) if EXTENSIONS.contains(&u32::from(found)) => return true,
            Some([found]) => (u32::from(found), 40),
            None => return false,
        },
    };
    let expected = if protocol == ANY_PROTOCOL { !IPSEC.contains(&found) } else { found == protocol };
    if !expected {
        return false;
    }
    match (port, load::<2>(ctx, at)) {
        (Some(port), Some(source)) => u32::from(u16::from_be_bytes(source)) == port,
        (None, _) => true,
        (Some(_), None) => false,
    }
}

#[inline(always)]
fn load<const N: usize>(ctx: &SkBuffContext, offset: u32) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    // SAFETY: the buffer is ours and of the length given.
    let result =
        unsafe { bpf_skb_load_bytes(ctx.skb.skb.cast(), offset, bytes.as_mut_ptr().cast(), N as u32) };
    (result == 0).then_some(bytes)
}

/// Counts every packet, reports the first of a socket. TCP sends again what was dropped, in interrupts:
/// nothing of that socket leaves any more.
#[inline(always)]
fn drop_foreign(ctx: &SkBuffContext, sk: *mut bpf_sock, session: u64) {
    maps::count(Hook::Watch, Denial::Foreign as u8, session);
    // SAFETY: as in `is_callers`.
    let (family, kind, protocol) = unsafe {
        (
            (&raw const (*sk).family).read_volatile(),
            (&raw const (*sk).type_).read_volatile(),
            (&raw const (*sk).protocol).read_volatile(),
        )
    };
    let first = match maps::any_socket_or_new(sk) {
        Ok(state) => {
            let first = state.reported == 0;
            state.reported = 1;
            // Not its maker's, but that of the first that was caught with it.
            state.owner = session;
            if kind == STREAM {
                state.tainted = 1;
            }
            first
        }
        // This packet is dropped all the same.
        Err(_) => false,
    };
    if !first {
        return;
    }
    let refused = Refused { destination: peer(sk, family), denial: Denial::Foreign };
    // SAFETY: the context is valid while the program runs.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.skb.skb.cast()) };
    let socket = Socket { cookie, family, kind, protocol };
    emit::report(Hook::Watch, session, socket, &refused, |task| caller(task, session));
}

/// The calling task, as far as Linux 6.12 tells a packet program of it: not its user, nor its name.
#[inline(always)]
fn caller(task: &mut Task, session: u64) {
    // SAFETY: no arguments.
    let (cgroup, pid_tgid) = unsafe { (bpf_get_current_cgroup_id(), bpf_get_current_pid_tgid()) };
    *task = Task {
        cgroup,
        session,
        pid: (pid_tgid >> 32) as u32,
        tid: pid_tgid as u32,
        uid: u32::MAX,
        gid: u32::MAX,
        comm: [0; 16],
    };
}

/// Whom a socket is connected to.
#[inline(always)]
fn peer(sk: *mut bpf_sock, family: u32) -> Endpoint {
    // SAFETY: as in `is_callers`.
    let (port, ip4, words) = unsafe {
        (
            (&raw const (*sk).dst_port).read_volatile(),
            (&raw const (*sk).dst_ip4).read_volatile(),
            [
                (&raw const (*sk).dst_ip6[0]).read_volatile(),
                (&raw const (*sk).dst_ip6[1]).read_volatile(),
                (&raw const (*sk).dst_ip6[2]).read_volatile(),
                (&raw const (*sk).dst_ip6[3]).read_volatile(),
            ],
        )
    };
    let addr =
        if family == u32::from(INET) { verdict::map_v4(ip4.to_ne_bytes()) } else { verdict::bytes(words) };
    Endpoint { addr, port: u16::from_be(port), family: family as u16 }
}
