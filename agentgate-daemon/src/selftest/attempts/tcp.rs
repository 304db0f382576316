//! TCP to an address that no policy names.

use std::{
    io::{Seek as _, Write as _},
    net::{Ipv4Addr, SocketAddr},
    os::fd::OwnedFd,
};

use crate::selftest::{
    orders::{FENCE, LISTENER_PORT, Stop},
    report::Family::Tcp,
    suite::Attempt,
    sys,
    tried::{At as _, Attempted, Try},
};

const REDIRECTED: &str = "connect4/6 redirect it to the gate, which judges it";

pub(super) const ATTEMPTS: &[Attempt] = &[
    Attempt::new(Tcp, "tcp4-connect", "connects over IPv4", REDIRECTED, |t| t.tcp(t.v4(80))),
    Attempt::new(Tcp, "tcp6-connect", "connects over IPv6", REDIRECTED, |t| t.tcp(t.v6(80))),
    Attempt::new(
        Tcp,
        "tcp-mapped",
        "connects an IPv6 socket to an IPv4-mapped address",
        "connect6 redirects it",
        mapped,
    ),
    Attempt::new(Tcp, "tcp4-odd-port", "connects to a port that nobody knows", REDIRECTED, |t| {
        t.tcp(t.v4(9999))
    }),
    Attempt::new(
        Tcp,
        "tcp4-opaque",
        "speaks neither HTTP nor TLS",
        "the gate refuses what it cannot read",
        opaque,
    ),
    Attempt::new(Tcp, "tcp4-fast-open", "sends data with the SYN (MSG_FASTOPEN)", REDIRECTED, |t| {
        let to = t.v4(80);
        fast_open(t, to)
    }),
    Attempt::new(Tcp, "tcp6-fast-open", "the same over IPv6", REDIRECTED, |t| {
        let to = t.v6(80);
        fast_open(t, to)
    }),
    Attempt::new(
        Tcp,
        "tcp4-fast-open-connect",
        "defers the SYN to the first write (TCP_FASTOPEN_CONNECT)",
        REDIRECTED,
        fast_open_connect,
    ),
    Attempt::new(Tcp, "mptcp4-connect", "connects by Multipath TCP", REDIRECTED, |t| mptcp(t, t.v4(80))),
    Attempt::new(Tcp, "mptcp6-connect", "the same over IPv6", REDIRECTED, |t| mptcp(t, t.v6(80))),
    Attempt::new(Tcp, "tcp4-sendfile", "sends a file by sendfile(2)", REDIRECTED, send_file),
    Attempt::new(Tcp, "tcp4-splice", "sends a pipe by splice(2)", REDIRECTED, splice),
    Attempt::new(
        Tcp,
        "tcp4-bind-device",
        "binds to the outer interface (SO_BINDTODEVICE), which a redirect would not follow",
        "connect4 refuses a socket bound to a device",
        |t| bind_device(t, libc::AF_INET, t.v4(80)),
    ),
    Attempt::new(Tcp, "tcp6-bind-device", "the same over IPv6", "connect6 refuses it", |t| {
        bind_device(t, libc::AF_INET6, t.v6(80))
    }),
    Attempt::new(
        Tcp,
        "tcp4-unicast-if",
        "asks for the outer interface by IP_UNICAST_IF",
        REDIRECTED,
        unicast_interface,
    ),
    Attempt::new(
        Tcp,
        "tcp4-transparent",
        "uses a foreign source address (IP_TRANSPARENT)",
        REDIRECTED,
        foreign_source,
    )
    .root(),
    Attempt::new(
        Tcp,
        "tcp4-foreign-source",
        "uses a foreign source address (IP_TRANSPARENT), so that the gate's SYN-ACK goes there",
        "egress refuses foreign sources",
        |t| {
            let socket = stream(libc::AF_INET)?;
            sys::set_int(&socket, libc::IPPROTO_IP, libc::IP_TRANSPARENT, 1).at("IP_TRANSPARENT")?;
            sys::bind(&socket, &sys::sockaddr(t.v4(4444))).at("bind to a foreign address")?;
            t.tcp_on(&socket, SocketAddr::from((crate::selftest::orders::WORLD_V4, 80)))
        },
    )
    .root(),
    Attempt::new(
        Tcp,
        "tcp6-foreign-source",
        "uses a foreign source address (IPV6_FREEBIND), so that the gate's SYN-ACK goes there",
        "egress refuses foreign sources",
        |t| {
            let socket = stream(libc::AF_INET6)?;
            sys::set_int(&socket, libc::IPPROTO_IPV6, libc::IPV6_FREEBIND, 1).at("IPV6_FREEBIND")?;
            sys::bind(&socket, &sys::sockaddr(t.v6(4444))).at("bind to a foreign address")?;
            t.tcp_on(&socket, SocketAddr::from((crate::selftest::orders::WORLD_V6, 80)))
        },
    ),
    Attempt::new(Tcp, "tcp4-mark", "marks its packets for other routes (SO_MARK)", REDIRECTED, mark).root(),
    Attempt::new(
        Tcp,
        "tcp4-source-route",
        "prescribes a route by IPv4 options (LSRR)",
        "egress drops packets with options on their way out",
        source_route,
    )
    .root(),
    Attempt::new(
        Tcp,
        "tcp6-routing-header",
        "prescribes a route by an IPv6 routing header",
        "egress drops packets with extension headers",
        routing_header,
    ),
    Attempt::new(
        Tcp,
        "tcp4-bind-first",
        "binds to the interface's address before it connects",
        REDIRECTED,
        bind_first,
    ),
    Attempt::new(
        Tcp,
        "tcp4-reconnect",
        "connects, dissolves the connection by AF_UNSPEC and connects elsewhere",
        REDIRECTED,
        reconnect,
    ),
    Attempt::new(
        Tcp,
        "tcp4-connect-twice",
        "calls connect(2) again with another address while the first is under way",
        "the kernel ignores it; the first is redirected",
        connect_twice,
    ),
    Attempt::new(
        Tcp,
        "tcp4-repair",
        "puts a socket into ESTABLISHED without a handshake (TCP_REPAIR) and sends",
        "egress drops TCP that was not redirected",
        repair,
    )
    .root(),
    Attempt::new(
        Tcp,
        "tcp4-simultaneous-open",
        "binds a port and connects from it with SO_REUSEPORT, as if it were a server",
        REDIRECTED,
        from_reused_port,
    ),
    Attempt::new(
        Tcp,
        "tcp4-steal-listener",
        "binds the gate's own port (SO_REUSEPORT) to take other sessions' connections",
        "bind4 refuses the gate's ports",
        steal_listener,
    ),
    Attempt::new(Tcp, "tcp4-urgent", "sends a byte out of band first (MSG_OOB)", REDIRECTED, urgent),
    Attempt::new(Tcp, "tcp4-zerocopy", "sends by MSG_ZEROCOPY", REDIRECTED, zero_copy),
];

fn stream(domain: i32) -> Result<OwnedFd, Stop> {
    sys::socket(domain, libc::SOCK_STREAM, 0).at("socket(SOCK_STREAM)")
}

fn mapped(tried: &mut Try) -> Attempted {
    let socket = stream(libc::AF_INET6)?;
    tried.tcp_on(&socket, tried.mapped(80))
}

fn opaque(tried: &mut Try) -> Attempted {
    let socket = stream(libc::AF_INET)?;
    let to = tried.v4(9999);
    sys::connect(&socket, &sys::sockaddr(to)).at("connect")?;
    sys::send(&socket, &tried.payload(), 0).at("send")?;
    tried.hear(&socket)
}

fn fast_open(tried: &mut Try, to: SocketAddr) -> Attempted {
    let socket = stream(if to.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 })?;
    let request = tried.request(&to.ip().to_string());
    sys::send_to(&socket, &request, libc::MSG_FASTOPEN, &sys::sockaddr(to)).at("sendto(MSG_FASTOPEN)")?;
    tried.hear(&socket)
}

fn fast_open_connect(tried: &mut Try) -> Attempted {
    let socket = stream(libc::AF_INET)?;
    sys::set_int(&socket, libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, 1).at("TCP_FASTOPEN_CONNECT")?;
    tried.tcp_on(&socket, tried.v4(80))
}

fn mptcp(tried: &mut Try, to: SocketAddr) -> Attempted {
    let domain = if to.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let socket = sys::socket(domain, libc::SOCK_STREAM, libc::IPPROTO_MPTCP).at("socket(IPPROTO_MPTCP)")?;
    tried.tcp_on(&socket, to)
}

fn send_file(tried: &mut Try) -> Attempted {
    let mut file = std::fs::File::from(memory_file()?);
    let request = tried.request("203.0.113.1");
    file.write_all(&request).and_then(|()| file.rewind()).at("write a memory file")?;
    let socket = stream(libc::AF_INET)?;
    sys::connect(&socket, &sys::sockaddr(tried.v4(80))).at("connect")?;
    sys::send_file(&file, &socket, request.len()).at("sendfile")?;
    tried.hear(&socket)
}

fn memory_file() -> Result<OwnedFd, Stop> {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    rustix::fs::memfd_create("selftest", flags).map_err(std::io::Error::from).at("memfd_create")
}

fn splice(tried: &mut Try) -> Attempted {
    let (out, into) = std::io::pipe().at("pipe")?;
    let request = tried.request("203.0.113.1");
    (&into).write_all(&request).at("write")?;
    let socket = stream(libc::AF_INET)?;
    sys::connect(&socket, &sys::sockaddr(tried.v4(80))).at("connect")?;
    sys::splice(&OwnedFd::from(out), &socket, request.len()).at("splice")?;
    tried.hear(&socket)
}

fn bind_device(tried: &mut Try, domain: i32, to: SocketAddr) -> Attempted {
    let socket = stream(domain)?;
    sys::set_option(&socket, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, b"gate0\0").at("SO_BINDTODEVICE")?;
    tried.tcp_on(&socket, to)
}

fn unicast_interface(tried: &mut Try) -> Attempted {
    let socket = stream(libc::AF_INET)?;
    let index = sys::interface(c"gate0").at("if_nametoindex")?;
    sys::set_option(&socket, libc::IPPROTO_IP, libc::IP_UNICAST_IF, &index.to_be_bytes())
        .at("IP_UNICAST_IF")?;
    tried.tcp_on(&socket, tried.v4(80))
}

fn foreign_source(tried: &mut Try) -> Attempted {
    let socket = stream(libc::AF_INET)?;
    sys::set_int(&socket, libc::IPPROTO_IP, libc::IP_TRANSPARENT, 1).at("setsockopt")?;
    let source = SocketAddr::from((Ipv4Addr::new(198, 51, 100, 66), 0));
    sys::bind(&socket, &sys::sockaddr(source)).at("bind to a foreign address")?;
    tried.tcp_on(&socket, tried.v4(80))
}

fn mark(tried: &mut Try) -> Attempted {
    let socket = stream(libc::AF_INET)?;
    sys::set_int(&socket, libc::SOL_SOCKET, libc::SO_MARK, 0x1234).at("SO_MARK")?;
    tried.tcp_on(&socket, tried.v4(80))
}

/// Loose source routing by way of this run's address to one that is routed the same way.
fn source_route(tried: &mut Try) -> Attempted {
    let socket = stream(libc::AF_INET)?;
    // Type 131, length 7, pointer 4, one hop (RFC 791 3.1), padded to a word.
    let mut options = vec![131, 7, 4];
    options.extend(tried.orders.v4.octets());
    options.push(0);
    sys::set_option(&socket, libc::IPPROTO_IP, libc::IP_OPTIONS, &options).at("IP_OPTIONS")?;
    tried.tcp_on(&socket, SocketAddr::from((FENCE, 80))).or_else(|stop| {
        tried.note::<()>(Err(stop));
        let socket = stream(libc::AF_INET)?;
        sys::set_option(&socket, libc::IPPROTO_IP, libc::IP_OPTIONS, &options).at("IP_OPTIONS")?;
        tried.tcp_on(&socket, tried.v4(80))
    })
}

fn routing_header(tried: &mut Try) -> Attempted {
    let socket = stream(libc::AF_INET6)?;
    // Type 4 (RFC 8754), one segment, which is the destination itself.
    let mut header = vec![0, 2, 4, 0, 0, 0, 0, 0];
    header.extend(tried.orders.v6.octets());
    sys::set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_RTHDR, &header).at("IPV6_RTHDR")?;
    tried.tcp_on(&socket, tried.v6(80))
}

fn bind_first(tried: &mut Try) -> Attempted {
    let socket = stream(libc::AF_INET)?;
    let source = SocketAddr::from((crate::selftest::orders::HOST_V4, 0));
    sys::bind(&socket, &sys::sockaddr(source)).at("bind")?;
    tried.tcp_on(&socket, tried.v4(80))
}

fn reconnect(tried: &mut Try) -> Attempted {
    let socket = stream(libc::AF_INET)?;
    let to = tried.v4(80);
    sys::connect(&socket, &sys::sockaddr(to)).at("connect")?;
    let mut unspecified = sys::family(libc::AF_UNSPEC).to_vec();
    unspecified.extend([0; 14]);
    sys::connect(&socket, &unspecified).at("connect(AF_UNSPEC)")?;
    tried.tcp_on(&socket, tried.v4(8080))
}

fn connect_twice(tried: &mut Try) -> Attempted {
    let socket = stream(libc::AF_INET)?;
    sys::set_nonblocking(&socket, true).at("fcntl")?;
    for port in [80, 8080] {
        let result = sys::connect(&socket, &sys::sockaddr(tried.v4(port))).at("connect");
        tried.note(result);
    }
    sys::writable(&socket, 500).at("poll")?;
    sys::set_nonblocking(&socket, false).at("fcntl")?;
    tried.speak(&socket, "203.0.113.1")
}

/// `TCP_REPAIR` of linux/tcp.h.
const REPAIR: i32 = 19;

fn repair(tried: &mut Try) -> Attempted {
    let socket = stream(libc::AF_INET)?;
    sys::set_int(&socket, libc::IPPROTO_TCP, REPAIR, 1).at("TCP_REPAIR")?;
    let source = SocketAddr::from((crate::selftest::orders::HOST_V4, 40_000));
    sys::bind(&socket, &sys::sockaddr(source)).at("bind")?;
    sys::connect(&socket, &sys::sockaddr(tried.v4(80))).at("connect in repair mode")?;
    sys::set_int(&socket, libc::IPPROTO_TCP, REPAIR, 0).at("TCP_REPAIR off")?;
    tried.speak(&socket, "203.0.113.1")
}

fn from_reused_port(tried: &mut Try) -> Attempted {
    let server = stream(libc::AF_INET)?;
    let client = stream(libc::AF_INET)?;
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    for socket in [&server, &client] {
        sys::set_int(socket, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1).at("SO_REUSEPORT")?;
    }
    sys::bind(&server, &sys::sockaddr(any)).at("bind")?;
    let port = sys::local_port(&server).at("getsockname")?;
    sys::bind(&client, &sys::sockaddr(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))).at("bind")?;
    sys::listen(&server).at("listen")?;
    tried.tcp_on(&client, tried.v4(80))
}

/// Takes the gate's port and waits for a connection of its own making that was meant for elsewhere.
fn steal_listener(tried: &mut Try) -> Attempted {
    let server = stream(libc::AF_INET)?;
    sys::set_int(&server, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1).at("SO_REUSEADDR")?;
    sys::set_int(&server, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1).at("SO_REUSEPORT")?;
    // Another loopback address than the gate's, so that outside, where the gate has its port, it works.
    let at = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 9), LISTENER_PORT));
    sys::bind(&server, &sys::sockaddr(at)).at("bind to the gate's port")?;
    sys::listen(&server).at("listen")?;
    tried.report.reached = Some("it listens on the gate's port".to_owned());
    Ok(())
}

fn urgent(tried: &mut Try) -> Attempted {
    let socket = stream(libc::AF_INET)?;
    sys::connect(&socket, &sys::sockaddr(tried.v4(80))).at("connect")?;
    sys::send(&socket, b"!", libc::MSG_OOB).at("send(MSG_OOB)")?;
    tried.speak(&socket, "203.0.113.1")
}

fn zero_copy(tried: &mut Try) -> Attempted {
    let socket = stream(libc::AF_INET)?;
    sys::set_int(&socket, libc::SOL_SOCKET, libc::SO_ZEROCOPY, 1).at("SO_ZEROCOPY")?;
    sys::connect(&socket, &sys::sockaddr(tried.v4(80))).at("connect")?;
    let request = tried.request("203.0.113.1");
    sys::send(&socket, &request, libc::MSG_ZEROCOPY).at("send(MSG_ZEROCOPY)")?;
    tried.hear(&socket)
}
