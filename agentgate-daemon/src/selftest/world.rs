//! The world: a network namespace with every address that is not the host's, on a thread of its own.
//!
//! With the process goes the namespace, and with the namespace the wire.

use std::{
    io::{self, Write as _},
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    process::{Command, Stdio},
    sync::{Arc, mpsc},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use tokio::net::{TcpListener, UdpSocket};

use super::{
    SelftestError, capture,
    evidence::Evidence,
    orders::{
        ALLOWED, FORBIDDEN, HOST_V4, HOST_V6, RELAY_PORT, RESOLVER_V4, RESOLVER_V6, TUNNEL, WORLD_V4,
        WORLD_V6,
    },
    sinks::{self, Place},
    step,
    sys::process::unshare,
};

/// Ports on which the world listens, on every address.
const PORTS: [u16; 7] = [53, 80, 443, 853, 1080, 8080, 9999];
/// What is routed to the world's own servers: documentation addresses, and every spelling of metadata
/// services. Packets to other addresses are seen on the wire all the same.
const HERE: [&str; 12] = [
    "198.51.100.0/24",
    "203.0.0.0/16",
    "169.254.0.0/16",
    "100.100.100.200/32",
    "168.63.129.16/32",
    "192.0.0.192/32",
    "2001:db8:bad::/48",
    "2001:db8:600d::/48",
    "fd00:ec2::/32",
    "64:ff9b::/96",
    "2002::/16",
    "fe80:ec2::/32",
];

/// The world, as long as it is kept.
#[derive(Debug)]
pub(super) struct World {
    /// `/proc/…/ns/net`.
    pub(super) namespace: PathBuf,
    /// What the daemon has to trust, PEM.
    pub(super) root_pem: String,
    /// Dropped first, which ends the thread.
    _stop: tokio::sync::oneshot::Sender<()>,
}

/// Builds the world and both ends of the wire. The calling thread must be in a network namespace of its
/// own.
pub(super) fn build(evidence: &Evidence) -> Result<World, SelftestError> {
    ip("link set lo up\n")?;
    let (tell, hear) = mpsc::channel();
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let seen = evidence.clone();
    let (tls, root_pem) = origin().map_err(step("certificates"))?;
    std::thread::Builder::new()
        .name("world".to_owned())
        .spawn(move || match start(&seen, tls) {
            Ok((runtime, namespace)) => {
                if tell.send(Ok(namespace)).is_ok() {
                    // Told to stop, or whoever could tell is gone: both are the end.
                    let _end = runtime.block_on(stopped);
                }
            }
            Err(error) => drop(tell.send(Err(error))),
        })
        .map_err(step("start the world's thread"))?;
    let gone = |_| SelftestError::CutShort("the world's thread ended".to_owned());
    let namespace = hear.recv().map_err(gone)??;
    ip(&format!(
        "link set gate0 up\n\
         addr add {HOST_V4}/24 dev gate0\n\
         addr add {HOST_V6}/64 dev gate0 nodad\n\
         route add default via {WORLD_V4}\n\
         -6 route add default via {WORLD_V6}\n"
    ))?;
    Ok(World { namespace, root_pem, _stop: stop })
}

fn start(
    evidence: &Evidence,
    tls: Arc<ServerConfig>,
) -> Result<(tokio::runtime::Runtime, PathBuf), SelftestError> {
    let host = std::process::id();
    unshare(libc::CLONE_NEWNET).map_err(step("a network namespace for the world"))?;
    let mut batch = format!(
        "link set lo up\n\
         link add world0 type veth peer name gate0 netns {host}\n\
         link set world0 up\n\
         addr add {WORLD_V4}/24 dev world0\n\
         addr add {WORLD_V6}/64 dev world0 nodad\n"
    );
    // IPv6 wants an address, and not only a route, to bind to.
    batch.push_str(&format!("addr add {RESOLVER_V6}/128 dev lo nodad\n"));
    for net in HERE {
        let family = if net.contains(':') { "-6 " } else { "" };
        batch.push_str(&format!("{family}route add local {net} dev lo\n"));
    }
    ip(&batch)?;
    let socket = Arc::new(capture::open().map_err(step("capture packets (AF_PACKET)"))?);
    let seen = evidence.clone();
    std::thread::Builder::new()
        .name("capture".to_owned())
        .spawn(move || capture::read(&socket, &seen))
        .map_err(step("start the capture's thread"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(step("the world's runtime"))?;
    runtime.block_on(serve(evidence, tls)).map_err(step("the world's sockets"))?;
    let link = std::fs::read_link("/proc/thread-self").map_err(step("/proc/thread-self"))?;
    Ok((runtime, PathBuf::from("/proc").join(link).join("ns/net")))
}

async fn serve(evidence: &Evidence, tls: Arc<ServerConfig>) -> io::Result<()> {
    for port in PORTS {
        // Both families: the socket is not IPv6 only.
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await?;
        tokio::spawn(sinks::stream(listener, Place::World(Arc::clone(&tls)), evidence.clone()));
    }
    for resolver in [IpAddr::V4(RESOLVER_V4), RESOLVER_V6.into()] {
        tokio::spawn(sinks::name_server(UdpSocket::bind((resolver, 53)).await?));
    }
    Ok(())
}

/// Sinks on the host's loopback and interface; they live as long as the runtime they are spawned on.
pub(super) async fn serve_host(evidence: &Evidence) -> io::Result<()> {
    for port in [RELAY_PORT, RELAY_PORT + 1] {
        for address in [IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()] {
            let at = SocketAddr::new(address, port);
            tokio::spawn(sinks::stream(listen_alone(at)?, Place::Host, evidence.clone()));
            tokio::spawn(sinks::datagrams(datagrams_alone(at)?, evidence.clone()));
        }
    }
    Ok(())
}

fn listen_alone(at: SocketAddr) -> io::Result<TcpListener> {
    let socket = alone(at, libc::SOCK_STREAM)?;
    super::sys::listen(&socket)?;
    let listener = std::net::TcpListener::from(socket);
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

fn datagrams_alone(at: SocketAddr) -> io::Result<UdpSocket> {
    let socket = std::net::UdpSocket::from(alone(at, libc::SOCK_DGRAM)?);
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

/// A bound socket of one family, so that the other's wildcard can be bound too.
fn alone(at: SocketAddr, kind: i32) -> io::Result<std::os::fd::OwnedFd> {
    let family = if at.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let socket = super::sys::socket(family, kind, 0)?;
    if at.is_ipv6() {
        super::sys::set_int(&socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)?;
    }
    super::sys::set_int(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    super::sys::bind(&socket, &super::sys::sockaddr(at))?;
    Ok(socket)
}

/// A root and the certificate that every TLS sink shows: that of the allowed name.
fn origin() -> io::Result<(Arc<ServerConfig>, String)> {
    let failed = io::Error::other::<rcgen::Error>;
    let mut params = CertificateParams::new(Vec::<String>::new()).map_err(failed)?;
    params.distinguished_name.push(DnType::CommonName, "agentgate selftest");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().map_err(failed)?;
    let issuer = CertifiedIssuer::self_signed(params, key).map_err(failed)?;
    let names = vec![ALLOWED.to_owned(), format!("*.{TUNNEL}"), FORBIDDEN.to_owned()];
    let mut params = CertificateParams::new(names).map_err(failed)?;
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate().map_err(failed)?;
    let leaf = params.signed_by(&key, &issuer).map_err(failed)?;
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .map_err(io::Error::other)?;
    // HTTP/1 alone: requests are then readable without a decoder.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok((Arc::new(config), issuer.pem()))
}

/// Runs lines of ip(8) in the network namespace of the calling thread.
pub(super) fn ip(batch: &str) -> Result<(), SelftestError> {
    for (family, lines) in [
        (None, batch.lines().filter(|line| !line.starts_with("-6 ")).collect::<Vec<_>>()),
        (Some("-6"), batch.lines().filter_map(|line| line.strip_prefix("-6 ")).collect()),
    ] {
        if !lines.is_empty() {
            run_ip(family, &(lines.join("\n") + "\n"))?;
        }
    }
    Ok(())
}

fn run_ip(family: Option<&str>, batch: &str) -> Result<(), SelftestError> {
    let mut child = Command::new("ip")
        .args(family)
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(step("run ip (package iproute2)"))?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(batch.as_bytes()).map_err(step("tell ip what to do"))?;
    }
    let output = child.wait_with_output().map_err(step("run ip"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(step(format!("ip ({batch})"))(io::Error::other(said)))
}
