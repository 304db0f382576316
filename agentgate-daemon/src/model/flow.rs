//! One transport connection as the daemon sees it.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use agentgate_common::flow::{Endpoint, KernelFlow};
use serde::{Deserialize, Serialize};

/// Where the agent meant to go, as the kernel saw it. A role, so that it is never mixed up with the
/// listener's address or with an address that the daemon resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OriginalDestination(pub SocketAddr);

/// A redirected connection: what connect(2) was asked for and by whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// Socket cookie, unique while the host is up.
    pub cookie: u64,
    /// Where the agent meant to go.
    pub original: OriginalDestination,
    /// Process that called connect(2).
    pub pid: u32,
    /// Its real user id.
    pub uid: u32,
    /// Its real group id.
    pub gid: u32,
    /// Its thread's name: a hint for people, never matched on.
    pub comm: String,
    /// Id of its cgroup (the inode number of the cgroup's directory).
    pub cgroup: u64,
    /// Id of its session's cgroup; 0 for the guarded cgroup itself.
    #[serde(default)]
    pub session: u64,
    /// Cookie of the socket's network namespace.
    #[serde(default)]
    pub netns: u64,
    /// When connect(2) was called, nanoseconds since boot.
    pub connected_ns: u64,
}

/// The socket address of an [`Endpoint`], IPv4-mapped addresses as IPv4.
#[must_use]
pub fn socket_addr(endpoint: &Endpoint) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(Ipv6Addr::from(endpoint.addr)).to_canonical(), endpoint.port)
}

/// A thread name from its NUL-padded bytes.
#[must_use]
pub fn comm(bytes: &[u8; 16]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

impl From<&KernelFlow> for Flow {
    fn from(flow: &KernelFlow) -> Self {
        Self {
            cookie: flow.cookie,
            original: OriginalDestination(socket_addr(&flow.original)),
            pid: flow.task.pid,
            uid: flow.task.uid,
            gid: flow.task.gid,
            comm: comm(&flow.task.comm),
            cgroup: flow.task.cgroup,
            session: flow.task.session,
            netns: flow.netns,
            connected_ns: flow.connected_ns,
        }
    }
}
