//! Sockets that somebody outside made: handed over, taken, inherited, and brought along.

use std::{
    io,
    net::{SocketAddr, SocketAddrV4},
    os::fd::OwnedFd,
    os::unix::net::UnixStream,
};

use crate::selftest::{
    accomplice::{self, Wanted},
    orders::Stop,
    report::Family::Sockets,
    suite::{Attempt, Inherits},
    sys::{self, message, process},
    tried::{At as _, Attempted, Try},
};

const FOREIGN: &str = "the watch programs refuse a foreign socket in a guarded task's hands; packets of connected \
                       ones need egress on the watched cgroup (6.4 and later) or LSM file_receive";
const HELD: &str = "what waits to be sent is sent by the kernel later, when no guarded task is on the processor; \
                    the sentry ends the socket within 3 s";
const RUN: &str = "agentctl run closes what it was started with; enrolment refuses who holds network sockets";

pub(super) const ATTEMPTS: &[Attempt] = &[
    Attempt::new(
        Sockets,
        "handed-tcp",
        "is handed a fresh TCP socket (SCM_RIGHTS) and connects it",
        FOREIGN,
        |t| {
            let (socket, _held) = handed(t, Wanted::Tcp, 80)?;
            t.tcp_on(&socket, t.v4(80))
        },
    ),
    Attempt::new(
        Sockets,
        "handed-tcp-connected",
        "is handed a connected TCP socket and writes to it",
        FOREIGN,
        |t| {
            let (socket, _held) = handed(t, Wanted::TcpConnected, 80)?;
            t.speak(&socket, "203.0.113.1")
        },
    )
    .marked(),
    Attempt::new(
        Sockets,
        "handed-tcp-more",
        "is handed a connected TCP socket and writes with MSG_MORE, so that the kernel sends it later",
        "LSM socket_sendmsg",
        |t| {
            let (socket, _held) = handed(t, Wanted::TcpConnected, 80)?;
            let request = t.request("203.0.113.1");
            sys::send(&socket, &request, libc::MSG_MORE).at("send")?;
            until_looked_at(t, &socket)
        },
    )
    .marked()
    .needs_lsm(HELD),
    Attempt::new(
        Sockets,
        "handed-tcp-cork",
        "is handed a connected TCP socket and corks it (TCP_CORK), to the same end",
        "LSM socket_sendmsg",
        |t| {
            let (socket, _held) = handed(t, Wanted::TcpConnected, 80)?;
            sys::set_int(&socket, libc::IPPROTO_TCP, libc::TCP_CORK, 1).at("TCP_CORK")?;
            let request = t.request("203.0.113.1");
            sys::send(&socket, &request, 0).at("send")?;
            until_looked_at(t, &socket)
        },
    )
    .marked()
    .needs_lsm(HELD),
    Attempt::new(Sockets, "handed-udp", "is handed a UDP socket and sends from it", FOREIGN, |t| {
        let (socket, _held) = handed(t, Wanted::Udp, 9999)?;
        sys::send_to(&socket, &t.payload(), 0, &sys::sockaddr(t.v4(9999))).at("sendto").map(drop)
    }),
    Attempt::new(
        Sockets,
        "handed-udp-connected",
        "is handed a connected UDP socket and writes to it",
        FOREIGN,
        |t| {
            let (socket, _held) = handed(t, Wanted::UdpConnected, 9999)?;
            sys::send(&socket, &t.payload(), 0).at("send").map(drop)
        },
    ),
    Attempt::new(
        Sockets,
        "handed-udp-write",
        "is handed a connected UDP socket and uses write(2)",
        FOREIGN,
        |t| {
            let (socket, _held) = handed(t, Wanted::UdpConnected, 9999)?;
            io::Write::write_all(&mut std::fs::File::from(socket), &t.payload()).at("write")
        },
    ),
    Attempt::new(
        Sockets,
        "handed-listener",
        "is handed a listening socket, and speaks to whoever connected to it",
        FOREIGN,
        |t| {
            let (socket, _held) = handed(t, Wanted::Listening, 9999)?;
            let peer = sys::accept(&socket).at("accept")?;
            sys::send(&peer, &t.payload(), 0).at("send")?;
            // The accomplice passes it on; it closes when it has.
            sys::readable(&peer, 1500).at("poll").map(drop)
        },
    ),
    Attempt::new(Sockets, "handed-packet", "is handed a packet(7) socket", FOREIGN, |t| {
        let (socket, _held) = handed(t, Wanted::Packet, 0)?;
        send_packet(t, &socket)
    })
    .needs_lsm("no program sees what goes through a packet(7) socket; whoever hands one over is privileged"),
    Attempt::new(Sockets, "handed-raw", "is handed a raw ICMP socket", FOREIGN, |t| {
        let (socket, _held) = handed(t, Wanted::Raw, 0)?;
        let mut echo = vec![8, 0, 0, 0, 0, 1, 0, 1];
        echo.extend(t.payload());
        sys::send_to(&socket, &echo, 0, &sys::sockaddr(t.v4(0))).at("sendto").map(drop)
    }),
    Attempt::new(
        Sockets,
        "taken-udp-connected",
        "takes a connected socket from a process outside (pidfd_getfd)",
        "ptrace rules for a user; LSM file_receive and the watch programs for root",
        |t| {
            let socket = taken(t, Wanted::UdpConnected, 9999)?;
            sys::send(&socket, &t.payload(), 0).at("send").map(drop)
        },
    )
    .root(),
    Attempt::new(
        Sockets,
        "taken-tcp-connected",
        "takes a connected TCP socket by pidfd_getfd",
        "ptrace rules for a user; LSM file_receive and the watch programs for root",
        |t| {
            let socket = taken(t, Wanted::TcpConnected, 80)?;
            t.speak(&socket, "203.0.113.1")
        },
    )
    .marked()
    .root(),
    Attempt::new(
        Sockets,
        "reopened",
        "opens the socket of a process outside by /proc/PID/fd",
        "the kernel: a socket cannot be opened by its link (ENXIO)",
        reopen,
    )
    .root(),
    Attempt::new(Sockets, "inherited-tcp", "is started with a TCP socket open", RUN, |t| {
        let socket = sys::duplicate(super::INHERITED).at("inherited descriptor")?;
        t.tcp_on(&socket, t.v4(80))
    })
    .inherits(Inherits::Tcp),
    Attempt::new(Sockets, "inherited-udp", "is started with a connected UDP socket open", RUN, |t| {
        let socket = sys::duplicate(super::INHERITED).at("inherited descriptor")?;
        sys::send(&socket, &t.payload(), 0).at("send").map(drop)
    })
    .inherits(Inherits::Udp),
    Attempt::new(
        Sockets,
        "inherited-input",
        "is started with a connected UDP socket as standard input",
        RUN,
        |t| {
            let socket = sys::duplicate(0).at("standard input")?;
            sys::send(&socket, &t.payload(), 0).at("send").map(drop)
        },
    )
    .inherits(Inherits::Input),
    Attempt::new(
        Sockets,
        "inbound-tcp",
        "listens on the host's address, and speaks to a stranger who connects from outside",
        "egress drops answers to strangers, the SYN-ACK first",
        |t| inbound(t, libc::SOCK_STREAM),
    ),
    Attempt::new(
        Sockets,
        "inbound-udp",
        "waits for a stranger's datagram and answers it",
        "sendmsg4 refuses the answer",
        |t| inbound(t, libc::SOCK_DGRAM),
    ),
    Attempt::new(
        Sockets,
        "handed-out-and-back",
        "hands its own socket to somebody outside, who hands it back: the mark stays",
        "the socket keeps its mark and its cgroup",
        own_back,
    ),
];

/// Hears the answer, and where somebody takes care stays until the sentry has looked at everybody's sockets.
fn until_looked_at(tried: &mut Try, socket: &OwnedFd) -> Attempted {
    let heard = tried.hear(socket);
    tried.note(heard);
    if tried.orders.guarded { tried.stay(4000) } else { Ok(()) }
}

fn target(tried: &Try, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(tried.orders.v4, port)
}

/// A socket from the accomplice, and the stream that keeps it waiting.
fn handed(tried: &mut Try, wanted: Wanted, port: u16) -> Result<(OwnedFd, UnixStream), Stop> {
    let asked = accomplice::ask(&tried.orders.accomplice, wanted, target(tried, port));
    let (stream, _) = asked.at("ask the accomplice")?;
    let socket = message::take(&stream).at("receive the descriptor")?;
    Ok((socket, stream))
}

fn taken(tried: &mut Try, wanted: Wanted, port: u16) -> Result<OwnedFd, Stop> {
    let asked = accomplice::ask(&tried.orders.accomplice, wanted, target(tried, port));
    let (stream, number) = asked.at("ask the accomplice")?;
    let stolen = process::steal(tried.orders.accomplice_pid, number).at("pidfd_getfd");
    drop(stream);
    stolen
}

fn send_packet(tried: &mut Try, socket: &OwnedFd) -> Attempted {
    let index = sys::interface(c"gate0").at("if_nametoindex")?;
    let mut address = sys::family(libc::AF_PACKET).to_vec();
    address.extend(0x0800_u16.to_be_bytes());
    address.extend(index.to_ne_bytes());
    address.extend([0, 0, 0, 6, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]);
    let mut packet = vec![0x45, 0, 0, 60, 0, 0, 0, 0, 64, 253, 0, 0, 192, 0, 2, 1];
    packet.extend(tried.orders.v4.octets());
    packet.extend(tried.payload());
    sys::send_to(socket, &packet, 0, &address).at("sendto").map(drop)
}

fn reopen(tried: &mut Try) -> Attempted {
    let asked = accomplice::ask(&tried.orders.accomplice, Wanted::UdpConnected, target(tried, 9999));
    let (_stream, number) = asked.at("ask the accomplice")?;
    let path = format!("/proc/{}/fd/{number}", tried.orders.accomplice_pid);
    let opened = std::fs::File::options().write(true).open(path).at("open /proc/PID/fd");
    if tried.note(opened).is_some() {
        tried.report.reached = Some("a socket was opened by its link".to_owned());
    }
    // The kernel refuses it to everybody, so that outside only the plain way shows that the sink is there.
    if tried.orders.guarded {
        return Ok(());
    }
    tried.udp(tried.v4(9999))
}

/// A pair of unix sockets plays the one outside: what counts is that the descriptor has been on its way.
fn own_back(tried: &mut Try) -> Attempted {
    let (here, there) = UnixStream::pair().at("socketpair")?;
    let own = sys::socket(libc::AF_INET, libc::SOCK_DGRAM, 0).at("socket")?;
    message::give(&here, std::os::fd::AsRawFd::as_raw_fd(&own)).at("SCM_RIGHTS")?;
    drop(own);
    let back = message::take(&there).at("SCM_RIGHTS")?;
    let to: SocketAddr = tried.v4(9999);
    sys::connect(&back, &sys::sockaddr(to)).at("connect")?;
    sys::send(&back, &tried.payload(), 0).at("send").map(drop)
}

/// A server that a stranger in the world is sent to.
fn inbound(tried: &mut Try, kind: i32) -> Attempted {
    let server = sys::socket(libc::AF_INET, kind, 0).at("socket")?;
    let any = SocketAddr::from((std::net::Ipv4Addr::UNSPECIFIED, 0));
    sys::bind(&server, &sys::sockaddr(any)).at("bind")?;
    let port = sys::local_port(&server).at("getsockname")?;
    if kind == libc::SOCK_STREAM {
        sys::listen(&server).at("listen")?;
    }
    let wanted = if kind == libc::SOCK_STREAM { Wanted::Visitor } else { Wanted::Caller };
    accomplice::ask(&tried.orders.accomplice, wanted, target(tried, port)).at("ask for a visitor")?;
    if !sys::readable(&server, 1500).at("poll")? {
        tried.saw("nobody comes through");
        return Ok(());
    }
    let payload = tried.payload();
    if kind == libc::SOCK_STREAM {
        let peer = sys::accept(&server).at("accept")?;
        return sys::send(&peer, &payload, 0).at("send").map(drop);
    }
    let mut hello = [0; 64];
    let from = sys::receive_from(&server, &mut hello).at("recvfrom")?;
    sys::send_to(&server, &payload, 0, &from).at("sendto").map(drop)
}
