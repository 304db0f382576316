//! Refusals on their way to the daemon, and the caller's identity.

use agentgate_common::{
    event::{Hook, KernelEvent},
    subject::{NOBODY, Task},
};
use aya_ebpf::{
    EbpfContext,
    helpers::generated::{
        bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_uid_gid,
        bpf_ktime_get_boot_ns,
    },
};
use aya_log_ebpf::debug;

use crate::{
    error::Refused,
    maps::{EVENTS, book, count_lost},
};

/// What a hook knows of the socket.
#[derive(Clone, Copy)]
pub(crate) struct Socket {
    pub(crate) cookie: u64,
    pub(crate) family: u32,
    pub(crate) kind: u32,
    pub(crate) protocol: u32,
}

/// Nanoseconds since boot.
#[inline(always)]
pub(crate) fn boot_ns() -> u64 {
    // SAFETY: no arguments.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// The session as it is shown: 0 where there is none to tell.
#[inline(always)]
fn shown(session: u64) -> u64 {
    if session == NOBODY { 0 } else { session }
}

/// Writes the calling task into `task`, in place because the stack has 512 bytes.
#[inline(always)]
pub(crate) fn current(task: &mut Task, session: u64) {
    // SAFETY: no arguments.
    let (cgroup, pid_tgid, uid_gid) =
        unsafe { (bpf_get_current_cgroup_id(), bpf_get_current_pid_tgid(), bpf_get_current_uid_gid()) };
    task.cgroup = cgroup;
    task.session = shown(session);
    task.pid = (pid_tgid >> 32) as u32;
    task.tid = pid_tgid as u32;
    task.uid = uid_gid as u32;
    task.gid = (uid_gid >> 32) as u32;
    // SAFETY: the buffer is ours and of the length given; on failure the helper zeroes it.
    unsafe { bpf_get_current_comm(task.comm.as_mut_ptr().cast(), 16) };
}

/// Reports a refusal by the calling task, of this session.
#[inline(always)]
pub(crate) fn refuse(ctx: &impl EbpfContext, hook: Hook, session: u64, socket: Socket, refused: &Refused) {
    report(hook, session, socket, refused, |task| current(task, session));
    debug!(
        ctx,
        "refused: hook {}, denial {}, protocol {}, port {}",
        hook as u8,
        refused.denial as u8,
        socket.protocol,
        refused.destination.port
    );
}

/// Books a refusal and puts it into the ring buffer; `who` fills in the task, which is of this session.
#[inline(always)]
pub(crate) fn report(
    hook: Hook,
    session: u64,
    socket: Socket,
    refused: &Refused,
    who: impl FnOnce(&mut Task),
) {
    let now = boot_ns();
    // Also where there is no room for the event: the daemon finds it missing.
    book(session, now, refused.denial as u8);
    let Some(mut entry) = EVENTS.reserve::<KernelEvent>(0) else {
        count_lost();
        return;
    };
    let event = entry.as_mut_ptr();
    // SAFETY: the entry is ours until submitted, of the type's size, and every field is written:
    // its memory may hold anything.
    unsafe {
        (*event).cookie = socket.cookie;
        (*event).at_ns = now;
        who(&mut (*event).task);
        (*event).destination = refused.destination;
        (*event).family = socket.family as u16;
        (*event).kind = socket.kind as u16;
        (*event).protocol = socket.protocol as u16;
        (*event).hook = hook as u8;
        (*event).denial = refused.denial as u8;
        (*event).reserved = 0;
    }
    entry.submit(0);
}
