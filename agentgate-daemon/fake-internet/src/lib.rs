//! A small internet for tests and the demo: a root CA, origins with names, sinks and a name server.
//!
//! It runs on loopback with ephemeral ports, for tests inside one process, or on the public-looking
//! addresses of [`world`] inside a network namespace of the caller's making. Everything that arrives
//! is written to a [`Journal`], so that a test can say what reached an origin and what did not.
//!
//! It makes no namespace, no route and no policy, and nothing in it is hardened: its peers are tests.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use anyhow::Context as _;
use tokio::{
    net::{TcpListener, UdpSocket},
    task::JoinSet,
};

mod body;
mod control;
mod dns;
mod encoding;
mod ending;
mod git;
mod grpc;
mod heard;
pub mod journal;
mod mcp;
pub mod odd;
mod origin;
mod provider;
mod raw;
pub mod repository;
mod root;
mod routes;
pub mod sink;
mod web;
mod websocket;
mod wire;
pub mod world;

#[cfg(test)]
mod tests;

pub use journal::{Journal, Snapshot};
pub use root::{NAME as ROOT_NAME, Root};
use world::{Kind, Presents, SITES, Site};

/// Where the sites are bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// 127.0.0.1 with ephemeral ports: every name resolves to 127.0.0.1.
    Loopback,
    /// The addresses of [`world`], which must be local to the network namespace.
    Public,
}

/// The running internet; everything stops when it is dropped.
#[derive(Debug)]
pub struct FakeInternet {
    root: Root,
    journal: Arc<Journal>,
    repositories: Arc<OnceLock<PathBuf>>,
    addresses: HashMap<(&'static str, u16), SocketAddr>,
    name_server: SocketAddr,
    tasks: JoinSet<()>,
}

impl FakeInternet {
    /// Everything on 127.0.0.1 with ephemeral ports; [`Self::addr`] says where.
    ///
    /// # Errors
    /// When a socket cannot be bound or a certificate not be made.
    pub async fn start_on_loopback() -> anyhow::Result<Self> {
        Self::start(Placement::Loopback).await
    }

    /// Binds every service of [`world::SITES`] and the name server, then serves.
    ///
    /// # Errors
    /// When a socket cannot be bound or a certificate not be made.
    pub async fn start(placement: Placement) -> anyhow::Result<Self> {
        let root = Root::generate()?;
        let journal = Arc::new(Journal::default());
        let mut internet = Self {
            root,
            journal,
            repositories: Arc::default(),
            addresses: HashMap::new(),
            name_server: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
            tasks: JoinSet::new(),
        };
        for site in SITES {
            internet.start_site(site, placement).await?;
        }
        internet.start_name_server(placement).await?;
        Ok(internet)
    }

    /// The root certificate that origins with a valid certificate chain to.
    #[must_use]
    pub fn root_pem(&self) -> &str {
        self.root.pem()
    }

    /// What arrived.
    #[must_use]
    pub fn journal(&self) -> Arc<Journal> {
        Arc::clone(&self.journal)
    }

    /// Address of the name server, UDP and TCP.
    #[must_use]
    pub fn name_server(&self) -> SocketAddr {
        self.name_server
    }

    /// Where `name`'s service with the port `port` of [`world`] listens: on loopback the ephemeral
    /// address, else the site's IPv4 address and that port.
    #[must_use]
    pub fn addr(&self, name: &str, port: u16) -> Option<SocketAddr> {
        self.addresses.iter().find(|((n, p), _)| *n == name && *p == port).map(|(_, addr)| *addr)
    }

    /// Serves [`Snapshot`]s as JSON on a unix socket, for readers in another process or namespace.
    ///
    /// # Errors
    /// When the socket cannot be bound.
    pub fn serve_snapshots(&mut self, socket: &std::path::Path) -> anyhow::Result<()> {
        let listener =
            tokio::net::UnixListener::bind(socket).with_context(|| format!("bind {}", socket.display()))?;
        self.tasks.spawn(control::serve(listener, Arc::clone(&self.journal)));
        Ok(())
    }

    /// Keeps git's repositories in `dir`, which need not exist: each is made when it is asked for first, at
    /// `/git/NAME.git` of every site. Without it there are none.
    pub fn serve_repositories(&self, dir: PathBuf) {
        // Only the first word counts: repositories do not move.
        let _already = self.repositories.set(dir);
    }

    fn origin(
        &self,
        site: &'static Site,
        port: u16,
        tls: Option<Arc<rustls::ServerConfig>>,
    ) -> origin::Origin {
        let repositories = Arc::clone(&self.repositories);
        origin::Origin { site: site.name, port, tls, journal: self.journal(), repositories }
    }

    async fn start_site(&mut self, site: &'static Site, placement: Placement) -> anyhow::Result<()> {
        for service in site.services {
            let places: Vec<SocketAddr> = match placement {
                Placement::Loopback => vec![SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0)],
                Placement::Public => site.ips().map(|ip| SocketAddr::new(ip, service.port)).collect(),
            };
            for place in places {
                let bound = self.start_service(site, service.port, service.kind, place).await?;
                let known = self.addresses.entry((site.name, service.port)).or_insert(bound);
                if bound.is_ipv4() {
                    *known = bound;
                }
            }
        }
        Ok(())
    }

    async fn start_service(
        &mut self,
        site: &'static Site,
        port: u16,
        kind: Kind,
        place: SocketAddr,
    ) -> anyhow::Result<SocketAddr> {
        let naming = || format!("bind {} ({}) at {place}", site.name, port);
        if kind == Kind::UdpSink {
            let socket = UdpSocket::bind(place).await.with_context(naming)?;
            let bound = socket.local_addr()?;
            self.tasks.spawn(sink::count_datagrams(socket, site.name, port, self.journal()));
            return Ok(bound);
        }
        let listener = TcpListener::bind(place).await.with_context(naming)?;
        let bound = listener.local_addr()?;
        match kind {
            Kind::Https { certificate, h2 } => {
                let tls = self.root.server_config(site, certificate, h2)?;
                let origin = self.origin(site, port, Some(tls));
                self.tasks.spawn(origin::serve(listener, Arc::new(origin)));
            }
            Kind::Http => {
                let origin = self.origin(site, port, None);
                self.tasks.spawn(origin::serve(listener, Arc::new(origin)));
            }
            Kind::Raw => {
                let tls = self.root.server_config(site, Presents::Valid, false)?;
                self.tasks.spawn(raw::serve(listener, site.name, port, tls, self.journal()));
            }
            Kind::TcpSink => {
                self.tasks.spawn(sink::swallow_streams(listener, site.name, port, self.journal()));
            }
            Kind::Greets => {
                self.tasks.spawn(sink::greet(listener, site.name, port, self.journal()));
            }
            Kind::UdpSink => {}
        }
        Ok(bound)
    }

    async fn start_name_server(&mut self, placement: Placement) -> anyhow::Result<()> {
        let places = match placement {
            Placement::Loopback => vec![SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0)],
            Placement::Public => world::NAME_SERVERS.iter().map(|ip| SocketAddr::new(*ip, 53)).collect(),
        };
        let zone = Arc::new(dns::Zone::new(placement));
        for (index, place) in places.into_iter().enumerate() {
            let (udp, tcp) =
                dns::bind(place).await.with_context(|| format!("bind name server at {place}"))?;
            if index == 0 {
                self.name_server = udp.local_addr()?;
            }
            self.tasks.spawn(dns::serve_udp(udp, Arc::clone(&zone), self.journal()));
            self.tasks.spawn(dns::serve_tcp(tcp, Arc::clone(&zone), self.journal()));
        }
        Ok(())
    }
}
