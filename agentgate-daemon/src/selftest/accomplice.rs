//! Somebody outside the guarded cgroup who hands sockets to whoever asks: over a unix socket by
//! SCM_RIGHTS, and by leaving them open where pidfd_getfd(2) finds them.
//!
//! It stands for any daemon of the host that can be talked into it.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::{
            fs::PermissionsExt as _,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    SelftestError,
    orders::HOST_V4,
    step,
    sys::{self, message, process},
};

/// How long an asker may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// What can be asked for: one byte, then the IPv4 address and port it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// A TCP socket that is not connected.
    Tcp,
    /// A TCP socket connected to the address.
    TcpConnected,
    /// A UDP socket that is not connected.
    Udp,
    /// A UDP socket connected to the address.
    UdpConnected,
    /// A TCP socket that listens on the address of the host, with somebody connecting to it.
    Listening,
    /// A packet(7) socket.
    Packet,
    /// A raw socket of ICMP.
    Raw,
    /// No socket: somebody in the world who connects to the port at the host's address, and listens.
    Visitor,
    /// No socket: somebody in the world who sends a datagram to the port at the host's address.
    Caller,
}

impl Wanted {
    const ALL: [Self; 9] = [
        Self::Tcp,
        Self::TcpConnected,
        Self::Udp,
        Self::UdpConnected,
        Self::Listening,
        Self::Packet,
        Self::Raw,
        Self::Visitor,
        Self::Caller,
    ];

    fn code(self) -> u8 {
        match self {
            Self::Tcp => 1,
            Self::TcpConnected => 2,
            Self::Udp => 3,
            Self::UdpConnected => 4,
            Self::Listening => 5,
            Self::Packet => 6,
            Self::Raw => 7,
            Self::Visitor => 8,
            Self::Caller => 9,
        }
    }
}

/// Serves on a unix socket, on a thread of its own; visitors come from the network namespace `world`.
pub(super) fn serve(at: &Path, world: &Path) -> Result<(), SelftestError> {
    let world = world.to_owned();
    let listener = UnixListener::bind(at).map_err(step("the accomplice's socket"))?;
    std::fs::set_permissions(at, std::fs::Permissions::from_mode(0o666))
        .map_err(step("the accomplice's socket"))?;
    std::thread::Builder::new()
        .name("accomplice".to_owned())
        .spawn(move || {
            for stream in listener.incoming().flatten() {
                // Who breaks off gets nothing; the next is served all the same.
                let _ended = attend(stream, &world);
            }
        })
        .map_err(step("start the accomplice"))?;
    Ok(())
}

/// Hands over the socket and its number, and keeps it open until the asker is done.
fn attend(mut stream: UnixStream, world: &Path) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut asked = [0; 7];
    stream.read_exact(&mut asked)?;
    let [code, a, b, c, d, high, low] = asked;
    let wanted = Wanted::ALL.into_iter().find(|wanted| wanted.code() == code);
    let wanted = wanted.ok_or_else(|| io::Error::other("asked for nothing known"))?;
    let to = SocketAddr::from((Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([high, low])));
    if matches!(wanted, Wanted::Visitor | Wanted::Caller) {
        visit(world.to_owned(), to.port(), wanted == Wanted::Visitor)?;
        return stream.write_all(&0_i32.to_be_bytes());
    }
    let made = make(wanted, to)?;
    stream.write_all(&made.as_raw_fd().to_be_bytes())?;
    message::give(&stream, made.as_raw_fd())?;
    // Until the asker has gone: it may be taking the descriptor by its number.
    let _end = stream.read(&mut asked);
    Ok(())
}

fn make(wanted: Wanted, to: SocketAddr) -> io::Result<OwnedFd> {
    let socket = |kind| sys::socket(libc::AF_INET, kind, 0);
    match wanted {
        Wanted::Tcp => socket(libc::SOCK_STREAM),
        Wanted::Udp => socket(libc::SOCK_DGRAM),
        Wanted::TcpConnected | Wanted::UdpConnected => {
            let kind = if wanted == Wanted::TcpConnected { libc::SOCK_STREAM } else { libc::SOCK_DGRAM };
            let made = socket(kind)?;
            sys::connect(&made, &sys::sockaddr(to))?;
            Ok(made)
        }
        Wanted::Listening => {
            let made = socket(libc::SOCK_STREAM)?;
            sys::bind(&made, &sys::sockaddr(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))))?;
            sys::listen(&made)?;
            let port = sys::local_port(&made)?;
            relay(port, to)?;
            Ok(made)
        }
        Wanted::Packet => {
            let made = sys::socket(libc::AF_PACKET, libc::SOCK_DGRAM, 0)?;
            Ok(made)
        }
        Wanted::Raw => sys::socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP),
        Wanted::Visitor | Wanted::Caller => Err(io::Error::other("a visitor is no socket")),
    }
}

/// Comes from the world to a port of the host, by TCP or by UDP: the wire sees whatever answers.
fn visit(world: PathBuf, port: u16, stream: bool) -> io::Result<()> {
    std::thread::Builder::new().name("visitor".to_owned()).spawn(move || -> io::Result<()> {
        process::enter_network(&std::fs::File::open(world)?)?;
        let host = SocketAddr::from((HOST_V4, port));
        if !stream {
            let datagram = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            datagram.send_to(b"hello", host)?;
            datagram.set_read_timeout(Some(PATIENCE))?;
            return datagram.recv(&mut [0; 512]).map(drop);
        }
        let mut stream = std::net::TcpStream::connect_timeout(&host, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"hello")?;
        let mut said = [0; 512];
        stream.read(&mut said).map(drop)
    })?;
    Ok(())
}

/// Connects to a port of the host and passes on to `to` whatever is said there.
fn relay(port: u16, to: SocketAddr) -> io::Result<()> {
    let mut from = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    std::thread::Builder::new().name("relay".to_owned()).spawn(move || {
        let mut bytes = [0; 512];
        // Nobody spoke: nothing to pass on.
        let _said =
            from.set_read_timeout(Some(PATIENCE)).and_then(|()| from.read(&mut bytes)).and_then(|length| {
                let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
                socket.send_to(bytes.get(..length).unwrap_or_default(), to)
            });
    })?;
    Ok(())
}

/// Asks the accomplice for a socket: what it handed over, if anything arrived, and the number by which it
/// has it itself. The stream keeps it open there.
pub(super) fn ask(at: &Path, wanted: Wanted, to: SocketAddrV4) -> io::Result<(UnixStream, i32)> {
    let mut stream = UnixStream::connect(at)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let [a, b, c, d] = to.ip().octets();
    let [high, low] = to.port().to_be_bytes();
    stream.write_all(&[wanted.code(), a, b, c, d, high, low])?;
    let mut number = [0; 4];
    stream.read_exact(&mut number)?;
    Ok((stream, i32::from_be_bytes(number)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_handed_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("accomplice.sock");
        serve(&path, Path::new("/proc/self/ns/net")).unwrap();
        let sink = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let to = SocketAddrV4::new(Ipv4Addr::LOCALHOST, sink.local_addr().unwrap().port());
        let (stream, number) = ask(&path, Wanted::UdpConnected, to).unwrap();
        assert!(number > 2);
        let socket = message::take(&stream).unwrap();
        sys::send(&socket, b"out", 0).unwrap();
        let mut bytes = [0; 3];
        sink.recv(&mut bytes).unwrap();
        assert_eq!(&bytes, b"out");
    }
}
