//! Sockets that outlive the daemon: kept by the service manager's file descriptor store
//! (sd_pid_notify_with_fds(3), FDSTORE=1) and given back at the next start (sd_listen_fds(3)), so that
//! whoever connects meanwhile waits in the backlog instead of being refused.
//!
//! What is given back is looked at before it is used: kind, family, address, network namespace and state
//! must be those that the settings want, and its age possible, or it is closed, taken from the store, and said. A stop of the service, unlike a
//! restart, empties the store: then nobody listens, and every connection is refused.

mod fdstore;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::net::{AddressFamily, SocketType, getpeername, getsockname, sockopt};

pub use fdstore::Manager;

use crate::kernel::{KernelError, netns_cookie, netns_cookie_of, since_boot_ns};

/// What a socket has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// TCP, listening there; port 0 for any.
    Listener(SocketAddr),
    /// UDP, bound there; port 0 for any.
    Datagrams(SocketAddr),
}

/// Why a socket that was given back is not the one that is wanted.
#[derive(Debug, thiserror::Error)]
enum Mismatch {
    #[error("it cannot be asked: {0}")]
    Unknown(#[from] rustix::io::Errno),
    #[error(transparent)]
    Kernel(#[from] KernelError),
    #[error("it is of another kind or family")]
    Kind,
    #[error("it does not listen")]
    Deaf,
    #[error("it is connected to one peer")]
    Connected,
    #[error("it is of another network namespace")]
    Namespace,
    #[error("it says that it was bound in the future")]
    Future,
    #[error("it is bound to {0:?}")]
    Elsewhere(Option<SocketAddr>),
}

impl Wanted {
    fn check(self, socket: BorrowedFd<'_>, since_ns: u64) -> Result<(), Mismatch> {
        let own = netns_cookie()?;
        // Everything older than its socket is refused as nobody's: that would be everything.
        if since_ns > since_boot_ns() {
            return Err(Mismatch::Future);
        }
        let (kind, wanted) = match self {
            Self::Listener(wanted) => (SocketType::STREAM, wanted),
            Self::Datagrams(wanted) => (SocketType::DGRAM, wanted),
        };
        let family = match wanted.ip() {
            IpAddr::V4(_) => AddressFamily::INET,
            IpAddr::V6(_) => AddressFamily::INET6,
        };
        if sockopt::socket_type(socket)? != kind || sockopt::socket_domain(socket)? != family {
            return Err(Mismatch::Kind);
        }
        if kind == SocketType::STREAM && !sockopt::socket_acceptconn(socket)? {
            return Err(Mismatch::Deaf);
        }
        if kind == SocketType::DGRAM && getpeername(socket).is_ok_and(|peer| peer.is_some()) {
            return Err(Mismatch::Connected);
        }
        // The service's may have changed: what is bound in the one before hears nobody.
        if netns_cookie_of(socket)? != own {
            return Err(Mismatch::Namespace);
        }
        let bound = SocketAddr::try_from(getsockname(socket)?).ok();
        let there = bound.is_some_and(|bound| {
            bound.ip() == wanted.ip() && (wanted.port() == 0 || bound.port() == wanted.port())
        });
        if there { Ok(()) } else { Err(Mismatch::Elsewhere(bound)) }
    }
}

/// A socket as it was given back.
struct Given {
    name: String,
    since_ns: u64,
    socket: OwnedFd,
}

/// The sockets of the daemon before, and the way to keep those of this one.
pub struct Sockets {
    given: Vec<Given>,
    manager: Option<Manager>,
}

impl fmt::Debug for Sockets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.given.iter().map(|given| given.name.as_str()).collect();
        f.debug_struct("Sockets").field("given", &names).field("manager", &self.manager).finish()
    }
}

impl Sockets {
    /// None given, none kept.
    #[must_use]
    pub fn none() -> Self {
        Self { given: Vec::new(), manager: None }
    }

    /// What the service manager gave this process. To be called once, first of all.
    #[must_use]
    pub fn received() -> Self {
        let manager = Manager::of_this_process();
        let given = fdstore::given().into_iter();
        Self::with(manager, given)
    }

    fn with(manager: Option<Manager>, given: impl Iterator<Item = (String, OwnedFd)>) -> Self {
        let mut sockets = Self { given: Vec::new(), manager };
        for (full, socket) in given {
            match parse(&full) {
                Some((name, since_ns)) => {
                    sockets.given.push(Given { name: name.to_owned(), since_ns, socket });
                }
                None => {
                    tracing::warn!(
                        name = full,
                        "a socket from the service manager has no name of ours: closed"
                    );
                    sockets.forget(&full);
                }
            }
        }
        sockets
    }

    /// The socket of this name, and since when it is bound (nanoseconds since boot): what was meant for it
    /// may be as old. `None` where there is none, or not the one that is wanted.
    pub fn take(&mut self, name: &str, wanted: Wanted) -> Option<(OwnedFd, u64)> {
        let at = self.given.iter().position(|given| given.name == name)?;
        let given = self.given.swap_remove(at);
        match wanted.check(given.socket.as_fd(), given.since_ns) {
            Ok(()) => Some((given.socket, given.since_ns)),
            Err(why) => {
                tracing::warn!(name, %why, "a socket from the service manager is not the one that is wanted: closed");
                self.forget(&full(name, given.since_ns));
                None
            }
        }
    }

    /// Has the service manager keep a socket that was bound at `since_ns`. Where it cannot, connections
    /// are refused while the daemon restarts, which is said.
    pub fn keep(&self, name: &str, socket: BorrowedFd<'_>, since_ns: u64) {
        let Some(manager) = &self.manager else { return };
        let states = format!("FDSTORE=1\nFDNAME={}\nFDPOLL=0\n", full(name, since_ns));
        if let Err(error) = manager.tell(&states, Some(socket)) {
            tracing::warn!(%error, name, "the service manager does not keep a socket: a restart will refuse connections");
        }
    }

    /// Closes what nobody took, here and in the store.
    pub fn close_rest(&mut self) {
        for given in std::mem::take(&mut self.given) {
            tracing::info!(
                name = given.name,
                "a socket from the service manager is of no use any more: closed"
            );
            self.forget(&full(&given.name, given.since_ns));
        }
    }

    fn forget(&self, full: &str) {
        let Some(manager) = &self.manager else { return };
        // A name with a line break in it would be another command.
        if full.contains('\n') {
            return;
        }
        if let Err(error) = manager.tell(&format!("FDSTOREREMOVE=1\nFDNAME={full}\n"), None) {
            tracing::warn!(%error, name = full, "the service manager keeps a socket that is not wanted");
        }
    }
}

/// The name in the store. A colon would end it in LISTEN_FDNAMES.
fn full(name: &str, since_ns: u64) -> String {
    format!("{name}.{since_ns}")
}

fn parse(full: &str) -> Option<(&str, u64)> {
    let (name, since) = full.rsplit_once('.')?;
    Some((name, since.parse().ok()?))
}

#[cfg(test)]
mod tests;
