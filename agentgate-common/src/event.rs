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
    /// Who called. A packet ([`Hook::Egress`]) has no caller: what its socket knows of the last
    /// connect(2), else only the cgroup.
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
    /// Keeps the size a multiple of eight without padding.
    pub reserved: u32,
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
    Egress = 7,
    Bind4 = 8,
    Bind6 = 9,
    /// Programs on the root of the hierarchy: a guarded task with a socket made elsewhere.
    Watch = 10,
    /// LSM `socket_create`: every address family.
    LsmSocket = 11,
    /// LSM `file_receive`: descriptors that are passed in.
    LsmReceive = 12,
}

impl Hook {
    /// Every hook that judges.
    pub const ALL: [Self; 12] = [
        Self::Connect4,
        Self::Connect6,
        Self::SendMsg4,
        Self::SendMsg6,
        Self::SockCreate,
        Self::SockOps,
        Self::Egress,
        Self::Bind4,
        Self::Bind6,
        Self::Watch,
        Self::LsmSocket,
        Self::LsmReceive,
    ];

    /// The hook behind a number of [`KernelEvent::hook`].
    #[must_use]
    pub fn from_u8(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|hook| *hook as u8 == number)
    }

    /// A stable name for records: the kernel's name of the hook.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Connect4 => "connect4",
            Self::Connect6 => "connect6",
            Self::SendMsg4 => "sendmsg4",
            Self::SendMsg6 => "sendmsg6",
            Self::SockCreate => "sock_create",
            Self::SockOps => "sock_ops",
            Self::Egress => "egress",
            Self::Bind4 => "bind4",
            Self::Bind6 => "bind6",
            Self::Watch => "watch",
            Self::LsmSocket => "lsm_socket_create",
            Self::LsmReceive => "lsm_file_receive",
        }
    }
}
