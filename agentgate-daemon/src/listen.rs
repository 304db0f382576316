//! The listener: 127.0.0.1 and ::1 on one port, bound before anything runs, or taken over from the daemon
//! before with those who wait in its backlog.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsFd as _,
    sync::Arc,
    time::Duration,
};

use crate::{
    drain::told,
    handover::{Sockets, Wanted},
    kernel::{AgentEnd, since_boot_ns},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::sleep,
};

/// A connection as accepted.
#[derive(Debug)]
pub struct Accepted {
    pub stream: TcpStream,
    /// The agent's end, and the door that it came to.
    pub end: AgentEnd,
    /// Where a place among the connections that may be open is to be had.
    pub places: Arc<Semaphore>,
    /// Held while the connection waits for its place, and after.
    pub waiting: OwnedSemaphorePermit,
}

/// A place among the connections that may be open, held while the connection lives.
#[derive(Debug)]
pub struct Place {
    pub _waiting: OwnedSemaphorePermit,
    pub _place: OwnedSemaphorePermit,
}

/// Both sockets. On a host without IPv6 only the IPv4 one exists, and the kernel programs send IPv6
/// sockets to a port where nobody listens.
#[derive(Debug)]
pub struct Listeners {
    sockets: Vec<TcpListener>,
    port: u16,
    since_ns: u64,
    places: Places,
}

/// The connections that may be open, at all doors together.
#[derive(Clone, Debug)]
pub struct Places {
    places: Arc<Semaphore>,
    /// Connections accepted, with a place or without: accepting goes on while some wait for a place,
    /// because a flow must be looked up before its port is another's.
    waiting: Arc<Semaphore>,
}

/// A socket could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("{address}: {source}; is another agentgated running, or gate.listen_port taken?")]
pub struct BindError {
    pub address: SocketAddr,
    #[source]
    pub source: io::Error,
}

/// Connections that may wait for a place.
const WAITING: usize = 1024;
/// accept(2) failing for lack of room is tried again after this long.
const NO_ROOM: Duration = Duration::from_millis(50);

impl Listeners {
    /// Binds `port` (0: any, the same on both) for at most `connections` at a time, or takes over what
    /// `sockets` holds; has them kept for the next daemon.
    ///
    /// # Errors
    /// [`BindError`].
    pub async fn bind(port: u16, connections: usize, sockets: &mut Sockets) -> Result<Self, BindError> {
        // Of the youngest: a flow that is older than its socket is nobody's.
        let mut since_ns = 0;
        let mut bind = async |ip: IpAddr, port: u16| {
            let address = SocketAddr::new(ip, port);
            let failed = |source| BindError { address, source };
            let name = if ip.is_ipv4() { "listener4" } else { "listener6" };
            if let Some((socket, since)) = sockets.take(name, Wanted::Listener(address)) {
                since_ns = since_ns.max(since);
                let socket = std::net::TcpListener::from(socket);
                socket.set_nonblocking(true).map_err(failed)?;
                return TcpListener::from_std(socket).map_err(failed);
            }
            let since = since_boot_ns();
            let socket = TcpListener::bind(address).await.map_err(failed)?;
            sockets.keep(name, socket.as_fd(), since);
            since_ns = since_ns.max(since);
            Ok(socket)
        };
        let four = bind(Ipv4Addr::LOCALHOST.into(), port).await?;
        let port = four
            .local_addr()
            .map_err(|source| BindError { address: (Ipv4Addr::LOCALHOST, port).into(), source })?
            .port();
        let mut sockets = vec![four];
        match bind(Ipv6Addr::LOCALHOST.into(), port).await {
            Ok(six) => sockets.push(six),
            Err(error)
                if matches!(error.source.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT)) =>
            {
                tracing::warn!("this host has no IPv6 loopback: IPv6 sockets of agents will be refused");
            }
            Err(error) => return Err(error),
        }
        Ok(Self {
            sockets,
            port,
            since_ns,
            places: Places {
                places: Arc::new(Semaphore::new(connections)),
                waiting: Arc::new(Semaphore::new(connections + WAITING)),
            },
        })
    }

    /// The port of both sockets.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What doors elsewhere take their places of.
    #[must_use]
    pub fn places(&self) -> Places {
        self.places.clone()
    }

    /// When the sockets were bound first, in nanoseconds since boot.
    #[must_use]
    pub fn since_ns(&self) -> u64 {
        self.since_ns
    }

    /// Accepts until `drain` turns true. Once all places are taken and enough connections wait for
    /// one, nothing is accepted: the backlog fills, and agents wait.
    pub async fn run(self, drain: watch::Receiver<bool>, serve: impl Fn(Accepted) + Clone + Send + 'static) {
        let mut tasks = tokio::task::JoinSet::new();
        for socket in self.sockets {
            let (places, door) = (self.places.clone(), self.port);
            tasks.spawn(accept(socket, None, door, places, drain.clone(), serve.clone()));
        }
        while tasks.join_next().await.is_some() {}
    }
}

/// Accepts at one door, in the network namespace with the cookie `netns` where that is not the daemon's
/// own, until `drain` turns true.
pub async fn accept(
    socket: TcpListener,
    netns: Option<u64>,
    door: u16,
    places: Places,
    mut drain: watch::Receiver<bool>,
    serve: impl Fn(Accepted),
) {
    let Places { places, waiting } = places;
    loop {
        let next = async {
            // Accepted first: a permit taken before would be held by a socket where nobody connects.
            let accepted = socket.accept().await;
            (waiting.clone().acquire_owned().await, accepted)
        };
        let (waiting, accepted) = tokio::select! {
            next = next => next,
            () = told(&mut drain) => return,
        };
        let Ok(waiting) = waiting else { return };
        match accepted {
            Ok((stream, peer)) => {
                let end = AgentEnd { netns, peer, door };
                serve(Accepted { stream, end, places: places.clone(), waiting });
            }
            Err(error) => not_accepted(&error, NO_ROOM).await,
        }
    }
}

/// Tells that accept(2) failed, and pauses where that was for lack of descriptors or memory: nothing tells
/// when there is room.
pub async fn not_accepted(error: &io::Error, pause: Duration) {
    tracing::warn!(%error, "accept");
    if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)) {
        sleep(pause).await;
    }
}
