//! setsockopt: `SO_BROADCAST` is taken and not set.
//!
//! IPv4 hands this host a copy of each packet to a broadcast address before the egress program sees
//! the packet, so a connected UDP socket would reach every local server that way. Which addresses
//! are broadcast ones no program can know, but without the option the kernel lets no socket near
//! them. Go and Java set it on every socket they make, so it is not an error to ask for it.

use agentgate_common::verdict;
use aya_ebpf::{macros::cgroup_sockopt, programs::SockoptContext};

/// What the kernel takes for "done", instead of setting the option itself.
const DONE: i32 = -1;
/// What makes the kernel take the caller's own value, however long.
const UNCHANGED: i32 = 0;

#[cgroup_sockopt(setsockopt)]
pub(crate) fn gate_option(ctx: SockoptContext) -> i32 {
    let raw = ctx.sockopt;
    // SAFETY: the context is valid while the program runs; volatile keeps each access to one field.
    unsafe {
        let (level, name) =
            ((&raw const (*raw).level).read_volatile(), (&raw const (*raw).optname).read_volatile());
        let length = if verdict::is_swallowed(level, name) { DONE } else { UNCHANGED };
        (&raw mut (*raw).optlen).write_volatile(length);
    }
    1
}
