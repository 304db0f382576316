//! The four sockets of the DNS server: UDP and TCP on 127.0.0.1 and ::1, all on one port.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use tokio::net::{TcpListener, UdpSocket};

/// How often a port that is free for one socket may be taken for another before that is an error.
const ATTEMPTS: usize = 16;

/// The sockets, bound. On a host without IPv6 only those of IPv4 exist, and the kernel programs send
/// questions of IPv6 sockets to a port where nobody listens.
#[derive(Debug)]
pub struct Sockets {
    pub udp: Vec<UdpSocket>,
    pub tcp: Vec<TcpListener>,
    port: u16,
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
    /// Binds all of them on `port`; 0: any that is free, the same for all.
    ///
    /// # Errors
    /// [`BindError`].
    pub async fn bind(port: u16) -> Result<Self, BindError> {
        let mut attempts = if port == 0 { ATTEMPTS } else { 1 };
        loop {
            attempts -= 1;
            match Self::bind_all(port).await {
                // The kernel chose a port that is free for TCP over IPv4; the others may have it taken.
                Err(error) if attempts > 0 && error.source.kind() == io::ErrorKind::AddrInUse => {}
                bound => return bound,
            }
        }
    }

    async fn bind_all(port: u16) -> Result<Self, BindError> {
        let four = IpAddr::from(Ipv4Addr::LOCALHOST);
        let (tcp4, port) = tcp(four, port).await?;
        let udp4 = udp(four, port).await?;
        let mut bound = Self { udp: vec![udp4], tcp: vec![tcp4], port };
        let six = IpAddr::from(Ipv6Addr::LOCALHOST);
        match tcp(six, port).await {
            Ok((tcp6, _)) => {
                bound.udp.push(udp(six, port).await?);
                bound.tcp.push(tcp6);
            }
            Err(error)
                if matches!(error.source.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT)) =>
            {
                tracing::warn!("this host has no IPv6 loopback: questions over IPv6 will not be answered");
            }
            Err(error) => return Err(error),
        }
        Ok(bound)
    }

    /// The port of all of them.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

async fn tcp(ip: IpAddr, port: u16) -> Result<(TcpListener, u16), BindError> {
    let address = SocketAddr::new(ip, port);
    let fault = |source| BindError { address, source };
    let listener = TcpListener::bind(address).await.map_err(fault)?;
    let port = listener.local_addr().map_err(fault)?.port();
    Ok((listener, port))
}

async fn udp(ip: IpAddr, port: u16) -> Result<UdpSocket, BindError> {
    let address = SocketAddr::new(ip, port);
    UdpSocket::bind(address).await.map_err(|source| BindError { address, source })
}
