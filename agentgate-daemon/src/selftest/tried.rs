//! An attempt's own process: enters the cgroup where it is told to, does the attempt, tells what it saw.

use std::{
    fs,
    io::{self, Write as _},
    net::SocketAddr,
    os::fd::OwnedFd,
    path::Path,
};

use super::{
    orders::{Orders, Report, SINK, Stop},
    report::Identity,
    suite,
    sys::{self, process},
};

/// How long an attempt waits for an answer, in milliseconds. What counts is what arrives, and that is
/// seen elsewhere; the answer only tells who spoke.
const ANSWER: i32 = 700;

/// How an attempt ends: at its end, or where it could go no further.
pub(super) type Attempted = Result<(), Stop>;

/// An attempt under way.
#[derive(Debug)]
pub(super) struct Try {
    pub(super) orders: Orders,
    pub(super) report: Report,
}

/// Names the call that failed.
pub(super) trait At<T> {
    /// Gives the error its call.
    fn at(self, call: &str) -> Result<T, Stop>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, call: &str) -> Result<T, Stop> {
        self.map_err(|error| Stop::Refused {
            call: call.to_owned(),
            error: error.to_string(),
            errno: error.raw_os_error().unwrap_or_default(),
        })
    }
}

impl Try {
    /// Notes something.
    pub(super) fn saw(&mut self, what: impl Into<String>) {
        self.report.saw.push(what.into());
    }

    /// Goes on after a call that may fail, and notes how it ended.
    pub(super) fn note<T>(&mut self, result: Result<T, Stop>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(stop) => {
                self.saw(describe(&stop));
                None
            }
        }
    }

    /// The bytes that an attempt sends: its token, and enough around it for any parser.
    pub(super) fn payload(&self) -> Vec<u8> {
        format!("payload {}\n", self.orders.token).into_bytes()
    }

    /// A forbidden destination of this run.
    pub(super) fn v4(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.orders.v4.into(), port)
    }

    /// The same over IPv6.
    pub(super) fn v6(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.orders.v6.into(), port)
    }

    /// The same IPv4 destination as an IPv6 socket names it.
    pub(super) fn mapped(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.orders.v4.to_ipv6_mapped().into(), port)
    }

    /// A plain request that carries the token.
    pub(super) fn request(&self, host: &str) -> Vec<u8> {
        let token = &self.orders.token;
        format!("GET /{token} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").into_bytes()
    }

    /// Sends a request over a connected stream and notes who answers.
    pub(super) fn speak(&mut self, stream: &OwnedFd, host: &str) -> Attempted {
        let request = self.request(host);
        sys::send(stream, &request, 0).at("send")?;
        self.hear(stream)
    }

    /// Notes who answers on a stream, if anybody does.
    pub(super) fn hear(&mut self, stream: &OwnedFd) -> Attempted {
        if !sys::readable(stream, ANSWER).at("poll")? {
            self.saw("no answer");
            return Ok(());
        }
        let mut buffer = [0; 4096];
        let length = sys::receive(stream, &mut buffer).at("recv")?;
        self.heard(buffer.get(..length).unwrap_or_default());
        Ok(())
    }

    /// Notes an answer.
    pub(super) fn heard(&mut self, answer: &[u8]) {
        let text = String::from_utf8_lossy(answer);
        let first = text.lines().next().unwrap_or_default().chars().take(60).collect::<String>();
        if text.contains(SINK) {
            self.report.reached = Some(format!("a sink answered: {first}"));
        } else if ["HTTP/1.1 403", "HTTP/1.1 421"].iter().any(|status| text.starts_with(status)) {
            self.report.judged = true;
            self.saw(format!("the gate answered: {first}"));
        } else if answer.is_empty() {
            self.saw("the connection was closed");
        } else {
            self.saw(format!("answer: {}", first.escape_debug()));
        }
    }

    /// TCP to a destination, with a request.
    pub(super) fn tcp(&mut self, to: SocketAddr) -> Attempted {
        let domain = if to.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        let stream = sys::socket(domain, libc::SOCK_STREAM, 0).at("socket(SOCK_STREAM)")?;
        self.tcp_on(&stream, to)
    }

    /// The same on a socket that exists.
    pub(super) fn tcp_on(&mut self, stream: &OwnedFd, to: SocketAddr) -> Attempted {
        sys::set_nonblocking(stream, true).at("fcntl")?;
        match sys::connect(stream, &sys::sockaddr(to)) {
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {
                if !sys::writable(stream, 2 * ANSWER).at("poll")? {
                    self.saw(format!("connect to {to}: no answer"));
                    return Ok(());
                }
                sys::take_error(stream).at(&format!("connect to {to}"))?;
            }
            other => other.at(&format!("connect to {to}"))?,
        }
        sys::set_nonblocking(stream, false).at("fcntl")?;
        self.speak(stream, &to.ip().to_string())
    }

    /// One datagram to a destination.
    pub(super) fn udp(&mut self, to: SocketAddr) -> Attempted {
        let domain = if to.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        let socket = sys::socket(domain, libc::SOCK_DGRAM, 0).at("socket(SOCK_DGRAM)")?;
        let payload = self.payload();
        sys::send_to(&socket, &payload, 0, &sys::sockaddr(to)).at(&format!("sendto {to}")).map(drop)
    }

    /// Stays for some milliseconds, so that somebody who looks now and then finds it.
    pub(super) fn stay(&mut self, milliseconds: i32) -> Attempted {
        let (quiet, _kept) = io::pipe().at("pipe")?;
        sys::readable(&quiet.into(), milliseconds).at("poll").map(drop)
    }

    /// What anybody would try first, from wherever the caller is: TCP and UDP, both families. One that
    /// is refused does not keep the others from being tried.
    pub(super) fn probe(&mut self) {
        for to in [self.v4(80), self.v6(80)] {
            let tried = self.tcp(to);
            self.note(tried);
        }
        for to in [self.v4(9999), self.v6(9999)] {
            let tried = self.udp(to);
            self.note(tried);
        }
    }
}

/// A stop in one line.
pub(super) fn describe(stop: &Stop) -> String {
    match stop {
        Stop::Refused { call, error, .. } => format!("{call}: {error}"),
        Stop::Absent(what) => what.clone(),
    }
}

/// Does the attempt of these orders and writes the report to standard output, as one line of JSON.
///
/// # Errors
/// Where the orders are none, or the cgroup cannot be entered: then nothing was tried.
pub fn run(orders: &str) -> io::Result<()> {
    let orders: Orders = serde_json::from_str(orders)?;
    let attempt = suite::find(&orders.attempt).ok_or_else(|| io::Error::other("no such attempt"))?;
    if let Some(directory) = &orders.join {
        enter(directory)?;
        if orders.identity == Identity::User {
            process::become_nobody()?;
        }
    }
    let mut tried = Try { orders, report: Report::default() };
    tried.report.stop = (attempt.run)(&mut tried).err();
    let mut line = serde_json::to_vec(&tried.report)?;
    line.push(b'\n');
    io::stdout().write_all(&line)
}

/// Moves this process into a cgroup, which takes root.
fn enter(directory: &Path) -> io::Result<()> {
    fs::write(directory.join("cgroup.procs"), "0")
}
