//! What the kernel tells the daemon through the ring buffer.

use crate::{flow::Endpoint, subject::Task};

/// A call that the kernel refused, or let pass with a remark.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelEvent {
    /// Socket cookie, 0 where the hook has none.
    pub cookie: u64,
    /// Nanoseconds since boot (`CLOCK_BOOTTIME`).
    pub at_ns: u64,
    /// Who called.
    pub task: Task,
    /// Where to; zero for socket creation.
    pub destination: Endpoint,
    /// Socket family (`AF_*`).
    pub family: u16,
    /// Socket type (`SOCK_*`).
    pub kind: u16,
    /// IP protocol (`IPPROTO_*`).
    pub protocol: u16,
    /// [`Hook`] as a number.
    pub hook: u8,
    /// [`crate::verdict::Denial`] as a number.
    pub denial: u8,
}

/// Which program spoke.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    Connect4 = 1,
    Connect6 = 2,
    SendMsg4 = 3,
    SendMsg6 = 4,
    SockCreate = 5,
    SockOps = 6,
}
