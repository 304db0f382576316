//! Who made a socket, as far as the kernel can say at the moment of the call.

/// The task that made the call. All fields are in host byte order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Task {
    /// Id of the cgroup v2 the task is in (`bpf_get_current_cgroup_id`).
    pub cgroup: u64,
    /// Id of the session's cgroup: the ancestor one level below the guarded cgroup. 0 for a task in the
    /// guarded cgroup itself, or where the kernel does not say.
    pub session: u64,
    /// Process id (thread group id) in the initial pid namespace.
    pub pid: u32,
    /// Thread id in the initial pid namespace.
    pub tid: u32,
    /// Real user id in the initial user namespace.
    pub uid: u32,
    /// Real group id in the initial user namespace.
    pub gid: u32,
    /// Thread name, NUL padded. A hint for people: never match on it.
    pub comm: [u8; 16],
}

/// A session that is nobody's: of a task that is not in the guarded cgroup. Never the same as another.
pub const NOBODY: u64 = u64::MAX;
