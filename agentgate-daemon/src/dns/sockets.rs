//! The four sockets of the DNS server: UDP and TCP on 127.0.0.1 and ::1, all on one port.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsFd,
};

use tokio::net::{TcpListener, UdpSocket};

use crate::{
    handover::{self, Wanted},
    kernel::since_boot_ns,
};

/// How often a port that is free for one socket may be taken for another before that is an error.
const ATTEMPTS: usize = 16;

/// The sockets, bound. On a host without IPv6 only those of IPv4 exist, and the kernel programs send
/// questions of IPv6 sockets to a port where nobody listens.
#[derive(Debug)]
pub struct Sockets {
    pub udp: Vec<UdpSocket>,
    pub tcp: Vec<TcpListener>,
    port: u16,
    since_ns: u64,
}

/// A socket could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("{address}: {source}; is another agentgated running, or dns.listen_port taken?")]
pub struct BindError {
    address: SocketAddr,
    #[source]
    source: io::Error,
}

impl Sockets {
    /// Binds all of them on `port` (0: any that is free, the same for all), or takes over what `handed`
    /// holds; has them kept for the next daemon.
    ///
    /// # Errors
    /// [`BindError`].
    pub async fn bind(port: u16, handed: &mut handover::Sockets) -> Result<Self, BindError> {
        let mut attempts = if port == 0 { ATTEMPTS } else { 1 };
        loop {
            attempts -= 1;
            match Self::bind_all(port, handed).await {
                // The kernel chose a port that is free for TCP over IPv4; the others may have it taken.
                Err(error) if attempts > 0 && error.source.kind() == io::ErrorKind::AddrInUse => {}
                bound => return bound,
            }
        }
    }

    async fn bind_all(port: u16, handed: &mut handover::Sockets) -> Result<Self, BindError> {
        let four = IpAddr::from(Ipv4Addr::LOCALHOST);
        let tcp4 = tcp("dns-tcp4", four, port, handed).await?;
        let address = SocketAddr::new(four, port);
        let port = tcp4.socket.local_addr().map_err(|source| BindError { address, source })?.port();
        let udp4 = udp("dns-udp4", four, port, handed).await?;
        let (mut tcps, mut udps) = (vec![tcp4], vec![udp4]);
        let six = IpAddr::from(Ipv6Addr::LOCALHOST);
        match tcp("dns-tcp6", six, port, handed).await {
            Ok(tcp6) => {
                udps.push(udp("dns-udp6", six, port, handed).await?);
                tcps.push(tcp6);
            }
            Err(error)
                if matches!(error.source.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT)) =>
            {
                tracing::warn!("this host has no IPv6 loopback: questions over IPv6 will not be answered");
            }
            Err(error) => return Err(error),
        }
        let ages = tcps.iter().map(|bound| bound.since_ns).chain(udps.iter().map(|bound| bound.since_ns));
        let since_ns = ages.max().unwrap_or(0);
        Ok(Self {
            udp: udps.into_iter().map(|bound| bound.kept(handed)).collect(),
            tcp: tcps.into_iter().map(|bound| bound.kept(handed)).collect(),
            port,
            since_ns,
        })
    }

    /// The port of all of them.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// When the youngest of them was bound, in nanoseconds since boot: what was meant for them is not
    /// older.
    #[must_use]
    pub fn since_ns(&self) -> u64 {
        self.since_ns
    }
}

/// One socket.
struct Bound<S> {
    name: &'static str,
    socket: S,
    since_ns: u64,
    /// Not handed over, so it is not kept yet.
    fresh: bool,
}

impl<S: AsFd> Bound<S> {
    fn kept(self, handed: &handover::Sockets) -> S {
        if self.fresh {
            handed.keep(self.name, self.socket.as_fd(), self.since_ns);
        }
        self.socket
    }
}

async fn tcp(
    name: &'static str,
    ip: IpAddr,
    port: u16,
    handed: &mut handover::Sockets,
) -> Result<Bound<TcpListener>, BindError> {
    let address = SocketAddr::new(ip, port);
    let fault = |source| BindError { address, source };
    if let Some((socket, since_ns)) = handed.take(name, Wanted::Listener(address)) {
        let socket = std::net::TcpListener::from(socket);
        socket.set_nonblocking(true).map_err(fault)?;
        let socket = TcpListener::from_std(socket).map_err(fault)?;
        return Ok(Bound { name, socket, since_ns, fresh: false });
    }
    let since_ns = since_boot_ns();
    let socket = TcpListener::bind(address).await.map_err(fault)?;
    Ok(Bound { name, socket, since_ns, fresh: true })
}

async fn udp(
    name: &'static str,
    ip: IpAddr,
    port: u16,
    handed: &mut handover::Sockets,
) -> Result<Bound<UdpSocket>, BindError> {
    let address = SocketAddr::new(ip, port);
    let fault = |source| BindError { address, source };
    if let Some((socket, since_ns)) = handed.take(name, Wanted::Datagrams(address)) {
        let socket = std::net::UdpSocket::from(socket);
        socket.set_nonblocking(true).map_err(fault)?;
        let socket = UdpSocket::from_std(socket).map_err(fault)?;
        return Ok(Bound { name, socket, since_ns, fresh: false });
    }
    let since_ns = since_boot_ns();
    let socket = UdpSocket::bind(address).await.map_err(fault)?;
    Ok(Bound { name, socket, since_ns, fresh: true })
}
