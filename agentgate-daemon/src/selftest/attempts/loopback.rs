//! This host's own services, which would carry an agent's words out, and the gate's.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::net::UnixStream,
    path::PathBuf,
    time::Duration,
};

use crate::selftest::{
    orders::{DASHBOARD_PORT, FORBIDDEN, HOST_V4, HOST_V6, LISTENER_PORT, RELAY_PORT},
    report::Family::Loopback,
    suite::Attempt,
    sys,
    tried::{At as _, Attempted, Try},
};

const CLOSED: &str = "connect4/6: a loopback port is open only to the session that listens on it";
const HOST: &str = "connect4/6: the host's own addresses are judged as loopback is";
const GATE: &str = "connect4/6: the gate's own ports are refused";

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

pub(super) const ATTEMPTS: &[Attempt] = &[
    Attempt::new(Loopback, "relay-http", "asks a proxy on the host's loopback", CLOSED, |t| {
        let token = &t.orders.token;
        let bytes = format!("GET http://{FORBIDDEN}/{token} HTTP/1.1\r\nHost: {FORBIDDEN}\r\n\r\n");
        relay(t, V4, bytes.as_bytes())
    }),
    Attempt::new(Loopback, "relay-connect", "asks it for a tunnel (CONNECT)", CLOSED, |t| {
        let token = &t.orders.token;
        let bytes = format!("CONNECT {FORBIDDEN}:443 HTTP/1.1\r\nx-data: {token}\r\n\r\n");
        relay(t, V4, bytes.as_bytes())
    }),
    Attempt::new(Loopback, "relay-socks", "asks a SOCKS proxy there", CLOSED, |t| {
        let bytes = [b"\x05\x01\x00".as_slice(), &t.payload()].concat();
        relay(t, V4, &bytes)
    }),
    Attempt::new(Loopback, "relay6", "the same at ::1", CLOSED, |t| t.tcp(at(V6))),
    Attempt::new(Loopback, "relay-mapped", "the same at ::ffff:127.0.0.1", CLOSED, |t| {
        let socket = sys::socket(libc::AF_INET6, libc::SOCK_STREAM, 0).at("socket")?;
        t.tcp_on(&socket, at(Ipv4Addr::LOCALHOST.to_ipv6_mapped().into()))
    }),
    Attempt::new(Loopback, "relay-other-loopback", "the same at 127.8.8.8", CLOSED, |t| {
        t.tcp(at(Ipv4Addr::new(127, 8, 8, 8).into()))
    }),
    Attempt::new(Loopback, "relay-unspecified4", "the same at 0.0.0.0", CLOSED, |t| {
        t.tcp(at(Ipv4Addr::UNSPECIFIED.into()))
    }),
    Attempt::new(Loopback, "relay-unspecified6", "the same at ::", CLOSED, |t| {
        t.tcp(at(Ipv6Addr::UNSPECIFIED.into()))
    }),
    Attempt::new(Loopback, "relay-unspecified-mapped", "the same at ::ffff:0.0.0.0", CLOSED, |t| {
        let socket = sys::socket(libc::AF_INET6, libc::SOCK_STREAM, 0).at("socket")?;
        t.tcp_on(&socket, at(Ipv4Addr::UNSPECIFIED.to_ipv6_mapped().into()))
    }),
    Attempt::new(Loopback, "relay-compatible", "the same at ::127.0.0.1", CLOSED, |t| {
        t.tcp(at("::127.0.0.1".parse().unwrap_or(V6)))?;
        // Linux has no such route: outside only the plain way shows that the relay is there.
        if t.orders.guarded { Ok(()) } else { t.tcp(at(V4)) }
    }),
    Attempt::new(Loopback, "relay-host4", "the same at the interface's own address", HOST, |t| {
        t.tcp(at(HOST_V4.into()))
    }),
    Attempt::new(Loopback, "relay-host6", "the same over IPv6", HOST, |t| t.tcp(at(HOST_V6.into()))),
    Attempt::new(Loopback, "relay-broadcast-address", "the same at the network's own address", HOST, |t| {
        let done = t.tcp(at(Ipv4Addr::new(192, 0, 2, 0).into()));
        t.note(done);
        if t.orders.guarded { Ok(()) } else { t.tcp(at(HOST_V4.into())) }
    }),
    Attempt::new(
        Loopback,
        "relay-udp4",
        "sends a datagram to a server on loopback",
        "sendmsg4 refuses it",
        |t| t.udp(at(V4)),
    ),
    Attempt::new(Loopback, "relay-udp6", "the same over IPv6", "sendmsg6 refuses it", |t| t.udp(at(V6))),
    Attempt::new(
        Loopback,
        "relay-udp-host4",
        "connects a datagram socket to the interface's own address and sends",
        "egress, which sees loopback's packets too",
        |t| {
            let socket = sys::socket(libc::AF_INET, libc::SOCK_DGRAM, 0).at("socket")?;
            sys::connect(&socket, &sys::sockaddr(at(HOST_V4.into()))).at("connect")?;
            sys::send(&socket, &t.payload(), 0).at("send").map(drop)
        },
    ),
    Attempt::new(
        Loopback,
        "relay-through-gate",
        "asks the gate for the host's relay by a literal Host",
        "the gate refuses loopback destinations of requests",
        |t| {
            let socket = sys::socket(libc::AF_INET, libc::SOCK_STREAM, 0).at("socket")?;
            let to = if t.orders.guarded { t.v4(80) } else { at(V4) };
            sys::connect(&socket, &sys::sockaddr(to)).at("connect")?;
            t.speak(&socket, &format!("127.0.0.1:{RELAY_PORT}"))
        },
    ),
    Attempt::new(Loopback, "gate-dashboard", "opens the dashboard", GATE, |t| gate(t, V4, DASHBOARD_PORT)),
    Attempt::new(Loopback, "gate-listener4", "connects to the listener by name", GATE, |t| {
        gate(t, V4, LISTENER_PORT)
    }),
    Attempt::new(Loopback, "gate-listener6", "the same over IPv6", GATE, |t| gate(t, V6, LISTENER_PORT)),
    Attempt::new(
        Loopback,
        "gate-control-socket",
        "steers the gate by its control socket",
        "the socket's mode, and the daemon refuses peers in the guarded cgroup",
        |t| unix(t, |t| t.orders.control_socket.clone()),
    ),
    Attempt::new(
        Loopback,
        "gate-enrol-socket",
        "enrols again, to be moved elsewhere",
        "the daemon refuses peers in the guarded cgroup",
        |t| unix(t, |t| t.orders.enrol_socket.clone()),
    ),
];

fn at(ip: IpAddr) -> SocketAddr {
    SocketAddr::new(ip, RELAY_PORT)
}

fn relay(tried: &mut Try, ip: IpAddr, bytes: &[u8]) -> Attempted {
    let socket = sys::socket(libc::AF_INET, libc::SOCK_STREAM, 0).at("socket")?;
    sys::connect(&socket, &sys::sockaddr(at(ip))).at("connect")?;
    sys::send(&socket, bytes, 0).at("send")?;
    // SOCKS has no end of request: the sink answers at its own deadline.
    sys::readable(&socket, 4000).at("poll")?;
    tried.hear(&socket)
}

/// A connection to the gate itself is what must not be had: there is no sink to tell of it.
fn gate(tried: &mut Try, ip: IpAddr, port: u16) -> Attempted {
    let domain = if ip.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let socket = sys::socket(domain, libc::SOCK_STREAM, 0).at("socket")?;
    sys::connect(&socket, &sys::sockaddr(SocketAddr::new(ip, port)))
        .at(&format!("connect to {ip} {port}"))?;
    tried.report.reached = Some(format!("connected to the gate's port {port}"));
    Ok(())
}

/// A status, which takes nothing and would tell much.
fn unix(tried: &mut Try, path: fn(&Try) -> PathBuf) -> Attempted {
    let path = path(tried);
    let mut stream = UnixStream::connect(&path).at("connect")?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).at("SO_RCVTIMEO")?;
    let request = if path.ends_with("enrol.sock") { r#"{"op":"ca_export"}"# } else { r#"{"op":"status"}"# };
    let version = crate::control::wire::VERSION;
    writeln!(stream, r#"{{"version":{version},"request":{request}}}"#).at("write")?;
    let mut answer = [0; 200];
    let length = stream.read(&mut answer).at("read")?;
    let text = String::from_utf8_lossy(answer.get(..length).unwrap_or_default()).into_owned();
    if text.contains("\"ok\"") {
        tried.report.reached = Some("the daemon answered".to_owned());
    } else {
        tried.saw(text.chars().take(120).collect::<String>());
    }
    Ok(())
}
