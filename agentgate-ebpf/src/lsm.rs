//! LSM hooks on cgroups, where the kernel runs BPF LSM: what no cgroup program of the network sees.
//!
//! socket(2) of every address family, descriptors that another process hands over, and each write to a
//! socket. 1 lets a call go on, 0 is EPERM (kernel/bpf/cgroup.c, `bpf_prog_run_array_cg`).

use agentgate_common::{
    event::Hook,
    flow::{Endpoint, INET, INET6},
    verdict::Denial,
};
use aya_ebpf::{
    bindings::file, helpers::generated::bpf_sock_from_file, macros::lsm_cgroup, programs::LsmContext,
};

use crate::{
    emit::{self, Socket},
    error::Refused,
    layout::{KernelSock, KernelSocket},
    maps,
    watch::{guarded_caller, is_marked},
};

/// `AF_UNSPEC`, which makes no socket.
const UNSPEC: u16 = 0;
/// `AF_UNIX`.
const UNIX: u16 = 1;
/// `AF_NETLINK`, which speaks to the kernel only, with the rights of who made the socket.
const NETLINK: u16 = 16;

/// socket(2) and socketpair(2) of the guarded cgroup.
#[lsm_cgroup(hook = "socket_create")]
pub(crate) fn lsm_socket(ctx: LsmContext) -> i32 {
    let (family, kind, protocol, kernel): (i32, i32, i32, i32) =
        (ctx.arg(0), ctx.arg(1), ctx.arg(2), ctx.arg(3));
    let family = family as u16;
    // What the kernel makes for itself while a guarded task waits is not the task's.
    if kernel != 0 || matches!(family, UNSPEC | UNIX | INET | INET6 | NETLINK) {
        return 1;
    }
    let socket =
        Socket { cookie: 0, family: u32::from(family), kind: kind as u32, protocol: protocol as u32 };
    refuse(&ctx, Hook::LsmSocket, maps::session(), socket, Denial::Family)
}

/// A descriptor that comes in: `SCM_RIGHTS`, pidfd_getfd(2), seccomp's notifications.
#[lsm_cgroup(hook = "file_receive")]
pub(crate) fn lsm_receive(ctx: LsmContext) -> i32 {
    let file: *mut file = ctx.arg(0);
    // SAFETY: the hook's own argument; the helper gives null for a file that is no socket.
    let socket = unsafe { bpf_sock_from_file(file) };
    if socket.is_null() {
        return 1;
    }
    let Some(sock) = KernelSocket::new(socket).sock() else {
        return 1;
    };
    let family = sock.family();
    if is_harmless(family) || is_known(sock) {
        return 1;
    }
    let socket = Socket { cookie: 0, family: u32::from(family), kind: 0, protocol: 0 };
    refuse(&ctx, Hook::LsmReceive, maps::session(), socket, Denial::Foreign)
}

/// Each write to a socket of the host; of interest are those of guarded tasks.
#[lsm_cgroup(hook = "socket_sendmsg")]
pub(crate) fn lsm_send(ctx: LsmContext) -> i32 {
    let Some(session) = guarded_caller() else {
        return 1;
    };
    let socket: *const u8 = ctx.arg(0);
    let socket = KernelSocket::new(socket);
    let Some(sock) = socket.sock() else {
        return 1;
    };
    let family = sock.family();
    if is_harmless(family) || !socket.has_file() || sock.is_kernels() || is_known(sock) {
        return 1;
    }
    let socket = Socket { cookie: 0, family: u32::from(family), kind: 0, protocol: 0 };
    refuse(&ctx, Hook::Watch, session, socket, Denial::Foreign)
}

#[inline(always)]
fn is_harmless(family: u16) -> bool {
    matches!(family, UNIX | NETLINK)
}

#[inline(always)]
fn is_known(sock: KernelSock) -> bool {
    is_marked(maps::socket(sock.as_ptr().cast_mut().cast()).as_deref())
}

#[inline(always)]
fn refuse(ctx: &LsmContext, hook: Hook, session: u64, socket: Socket, denial: Denial) -> i32 {
    let nowhere = Endpoint { addr: [0; 16], port: 0, family: socket.family as u16 };
    maps::count(hook, denial as u8, session);
    emit::refuse(ctx, hook, session, socket, &Refused { destination: nowhere, denial });
    0
}
