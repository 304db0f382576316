//! Going into a network namespace and binding doors there. setns(2) moves one thread, and sockets belong
//! to the namespace of the thread that makes them: so this is done on a thread that ends with it.

use std::{
    fs::File,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    os::fd::AsFd as _,
    path::Path,
    thread,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::look::NamespaceId;
use crate::kernel::netns_cookie;

/// Connections that may wait to be accepted, as at the doors outside.
const BACKLOG: i32 = 1024;

/// Ports of the doors: the same in every namespace, because the kernel programs know one of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    pub listener: u16,
    pub dns: u16,
}

/// Doors that stand in a namespace, not yet opened to anybody.
#[derive(Debug)]
pub struct Opened {
    /// The namespace's cookie, as the kernel programs see it.
    pub netns: u64,
    /// At 127.0.0.1 and, where the namespace has it, ::1.
    pub listeners: Vec<TcpListener>,
    pub dns_udp: Vec<UdpSocket>,
    pub dns_tcp: Vec<TcpListener>,
}

/// Why there are no doors.
#[derive(Debug, thiserror::Error)]
pub(super) enum EnterError {
    /// The thread that it was seen at ended, or went elsewhere.
    #[error("it is gone")]
    Gone,
    #[error("opening it: {0}")]
    Open(#[source] io::Error),
    #[error("entering it (setns): {0}")]
    Enter(#[source] io::Error),
    /// Binding may succeed without it (`inet_addr_type` of a namespace without any routes), but nobody
    /// would come to the doors.
    #[error("its loopback interface is down")]
    Down,
    #[error("{address}: {source}{}", hint(.source))]
    Bind {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    /// IPv4 stands; IPv6 may be on its way, because the two come up one after the other.
    #[error("it has no ::1 yet")]
    NoIpv6,
    #[error("{0}")]
    Cookie(#[from] crate::kernel::KernelError),
    #[error("no thread to enter it with: {0}")]
    Thread(#[source] io::Error),
    #[error("the thread that entered it panicked")]
    Panic,
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; somebody in it has taken the gate's port",
        _ => "",
    }
}

/// Binds doors in the namespace `id` that `link` shows. Without `ipv4_alone` the doors of IPv6 have to
/// stand too.
pub(super) fn open(
    id: NamespaceId,
    link: &Path,
    ports: Ports,
    ipv4_alone: bool,
) -> Result<Opened, EnterError> {
    let namespace = File::open(link).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => EnterError::Gone,
        _ => EnterError::Open(error),
    })?;
    // The number may be another thread's by now.
    let now = namespace.metadata().map_err(EnterError::Open)?;
    if NamespaceId::of(&now) != id {
        return Err(EnterError::Gone);
    }
    let inside = move || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|error| EnterError::Enter(error.into()))?;
        bind(ports, ipv4_alone)
    };
    let thread = thread::Builder::new().name("doors".into()).spawn(inside).map_err(EnterError::Thread)?;
    thread.join().map_err(|_panic| EnterError::Panic)?
}

fn bind(ports: Ports, ipv4_alone: bool) -> Result<Opened, EnterError> {
    // Sends nothing, but needs a route.
    let routed = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
        .and_then(|socket| socket.connect((Ipv4Addr::LOCALHOST, ports.dns)));
    routed.map_err(|_unreachable| EnterError::Down)?;
    let mut opened =
        Opened { netns: netns_cookie()?, listeners: Vec::new(), dns_udp: Vec::new(), dns_tcp: Vec::new() };
    for ip in [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)] {
        match opened.add(ip, ports) {
            Err(EnterError::Bind { source, .. })
                if ip.is_ipv6()
                    && matches!(source.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT)) =>
            {
                if !ipv4_alone {
                    return Err(EnterError::NoIpv6);
                }
            }
            added => added?,
        }
    }
    Ok(opened)
}

impl Opened {
    fn add(&mut self, ip: IpAddr, ports: Ports) -> Result<(), EnterError> {
        let listener = listener((ip, ports.listener).into())?;
        let dns_tcp = self::listener((ip, ports.dns).into())?;
        let address = SocketAddr::new(ip, ports.dns);
        let dns_udp = UdpSocket::bind(address)
            .and_then(|socket| socket.set_nonblocking(true).map(|()| socket))
            .map_err(|source| EnterError::Bind { address, source })?;
        self.listeners.push(listener);
        self.dns_tcp.push(dns_tcp);
        self.dns_udp.push(dns_udp);
        Ok(())
    }
}

fn listener(address: SocketAddr) -> Result<TcpListener, EnterError> {
    let bound = TcpListener::bind(address).and_then(|listener| {
        rustix::net::listen(&listener, BACKLOG)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    bound.map_err(|source| EnterError::Bind { address, source })
}
