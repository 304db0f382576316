//! The addresses of the host's interfaces, and notice of their changes, by rtnetlink (rtnetlink(7)).
//!
//! Reads only what the kernel says: a message from another process is passed over.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::OwnedFd,
    time::Duration,
};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, netlink::SocketAddrNetlink,
        recvfrom, send, socket_with, sockopt,
    },
};
use tokio::io::{Interest, unix::AsyncFd};

/// `RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR` of include/uapi/linux/rtnetlink.h.
const ADDRESS_CHANGES: u32 = 0x10 | 0x100;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
/// `NLM_F_REQUEST | NLM_F_DUMP` of include/uapi/linux/netlink.h.
const DUMP: u16 = 0x1 | 0x300;
/// `NLM_F_DUMP_INTR`: the addresses changed while they were told.
const INTERRUPTED: u16 = 0x10;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
/// Size of `nlmsghdr`.
const HEADER: usize = 16;
/// Size of `ifaddrmsg`.
const IFADDRMSG: usize = 8;

/// Room for one answer: the kernel fills at most 32 KiB at a time.
const BUFFER: usize = 32 * 1024;
/// How often a reading that changes interrupted is begun again.
const READINGS: usize = 8;
/// The kernel answers while the call runs; this only keeps a fault of it from becoming a hang.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is wrong with what the kernel said.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Malformed {
    #[error("a message of rtnetlink is cut off")]
    CutOff,
    #[error("rtnetlink refuses: {0}")]
    Refused(io::ErrorKind),
}

/// Where a reading stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Reading {
    done: bool,
    interrupted: bool,
}

/// Notices of changes; those before it was opened are not told.
#[derive(Debug)]
pub(super) struct Notices(AsyncFd<OwnedFd>);

impl Notices {
    pub(super) fn open() -> io::Result<Self> {
        let socket = netlink(SocketFlags::NONBLOCK)?;
        bind(&socket, &SocketAddrNetlink::new(0, ADDRESS_CHANGES))?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe and asks that the descriptor stay open and the same, which an OwnedFd promises by its type"
        )]
        Ok(Self(AsyncFd::with_interest(socket, Interest::READABLE)?))
    }

    /// Waits for a change. All that are waiting count as one.
    pub(super) async fn changed(&self) -> io::Result<()> {
        let mut buffer = vec![0; BUFFER];
        loop {
            let mut ready = self.0.readable().await?;
            let mut changed = false;
            loop {
                match recvfrom(self.0.get_ref(), &mut buffer[..], RecvFlags::empty()) {
                    Ok((_, _, from)) => changed |= is_kernel(from),
                    // More than the socket could hold: what was lost is a change as well.
                    Err(Errno::NOBUFS) => changed = true,
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => break,
                    Err(error) => return Err(error.into()),
                }
            }
            ready.clear_ready();
            if changed {
                return Ok(());
            }
        }
    }
}

/// Every address of every interface in this thread's network namespace, in order, each once.
pub(super) fn read() -> io::Result<Vec<IpAddr>> {
    for _ in 0..READINGS {
        let mut found = BTreeSet::new();
        if !read_once(&mut found)? {
            return Ok(found.into_iter().collect());
        }
    }
    Err(io::Error::other("the addresses of the interfaces change faster than they can be read"))
}

/// Whether it was interrupted.
fn read_once(found: &mut BTreeSet<IpAddr>) -> io::Result<bool> {
    let socket = netlink(SocketFlags::empty())?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE))?;
    send(&socket, &question(), SendFlags::empty())?;
    let mut buffer = vec![0; BUFFER];
    let mut interrupted = false;
    loop {
        let (_, length, from) = recvfrom(&socket, &mut buffer[..], RecvFlags::empty())?;
        if !is_kernel(from) {
            continue;
        }
        let answer = buffer.get(..length).ok_or_else(|| io::Error::other(Malformed::CutOff))?;
        let reading = answered(answer, found).map_err(io::Error::other)?;
        interrupted |= reading.interrupted;
        if reading.done {
            return Ok(interrupted);
        }
    }
}

fn netlink(flags: SocketFlags) -> io::Result<OwnedFd> {
    // No protocol is NETLINK_ROUTE.
    Ok(socket_with(AddressFamily::NETLINK, SocketType::RAW, flags | SocketFlags::CLOEXEC, None)?)
}

fn is_kernel(from: Option<rustix::net::SocketAddrAny>) -> bool {
    from.and_then(|from| SocketAddrNetlink::try_from(from).ok()).is_some_and(|from| from.pid() == 0)
}

/// `RTM_GETADDR` for every family and interface.
fn question() -> [u8; HEADER + IFADDRMSG] {
    let mut bytes = [0; HEADER + IFADDRMSG];
    let length = u32::try_from(bytes.len()).unwrap_or(0).to_ne_bytes();
    let fields = length.into_iter().chain(RTM_GETADDR.to_ne_bytes()).chain(DUMP.to_ne_bytes());
    for (slot, byte) in bytes.iter_mut().zip(fields) {
        *slot = byte;
    }
    bytes
}

/// Reads the messages of one answer.
fn answered(mut bytes: &[u8], found: &mut BTreeSet<IpAddr>) -> Result<Reading, Malformed> {
    let mut reading = Reading::default();
    while !bytes.is_empty() {
        let length = u32_at(bytes, 0).and_then(|length| usize::try_from(length).ok());
        let length = length.filter(|length| *length >= HEADER).ok_or(Malformed::CutOff)?;
        let message = bytes.get(..length).ok_or(Malformed::CutOff)?;
        let kind = u16_at(message, 4).ok_or(Malformed::CutOff)?;
        reading.interrupted |= u16_at(message, 6).ok_or(Malformed::CutOff)? & INTERRUPTED != 0;
        match kind {
            NLMSG_DONE => {
                reading.done = true;
                return Ok(reading);
            }
            NLMSG_ERROR => {
                let errno = u32_at(message, HEADER).ok_or(Malformed::CutOff)?.cast_signed();
                let error = io::Error::from_raw_os_error(errno.saturating_neg());
                return Err(Malformed::Refused(error.kind()));
            }
            RTM_NEWADDR => found.extend(address(message)?),
            _ => {}
        }
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
    }
    Ok(reading)
}

/// The interface's own address in one `RTM_NEWADDR`: where there is a peer, `IFA_ADDRESS` is the peer's.
fn address(message: &[u8]) -> Result<Option<IpAddr>, Malformed> {
    let mut attributes = message.get(HEADER + IFADDRMSG..).ok_or(Malformed::CutOff)?;
    let (mut own, mut other) = (None, None);
    while !attributes.is_empty() {
        let length = u16_at(attributes, 0).map(usize::from).filter(|length| *length >= 4);
        let length = length.ok_or(Malformed::CutOff)?;
        let attribute = attributes.get(..length).ok_or(Malformed::CutOff)?;
        let value = attribute.get(4..).unwrap_or_default();
        match u16_at(attribute, 2) {
            Some(IFA_LOCAL) => own = ip(value),
            Some(IFA_ADDRESS) => other = ip(value),
            Some(_) | None => {}
        }
        attributes = attributes.get(aligned(length)..).unwrap_or_default();
    }
    Ok(own.or(other))
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?))),
        16 => Some(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)).to_canonical()),
        _ => None,
    }
}

/// Messages and attributes begin at multiples of four.
fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER + body.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(body);
        bytes.resize(aligned(bytes.len()), 0);
        bytes
    }

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = u16::try_from(4 + value.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(aligned(bytes.len()), 0);
        bytes
    }

    fn new_address(attributes: &[Vec<u8>]) -> Vec<u8> {
        message(RTM_NEWADDR, 2, &[vec![0; IFADDRMSG], attributes.concat()].concat())
    }

    #[test]
    fn own_addresses_are_told_from_peers() {
        let name = attribute(3, b"eth0\0");
        let v6 = "2001:db8::5".parse::<Ipv6Addr>().unwrap().octets();
        let answer = [
            new_address(&[
                attribute(IFA_ADDRESS, &[10, 0, 0, 1]),
                attribute(IFA_LOCAL, &[10, 0, 0, 1]),
                name,
            ]),
            new_address(&[attribute(IFA_ADDRESS, &[10, 9, 9, 9]), attribute(IFA_LOCAL, &[10, 0, 0, 2])]),
            new_address(&[attribute(IFA_ADDRESS, &v6)]),
            new_address(&[attribute(IFA_ADDRESS, &[1, 2, 3])]),
            message(16, 0, b"something else"),
            message(NLMSG_DONE, 2, &[0; 4]),
            b"never read".to_vec(),
        ]
        .concat();
        let mut found = BTreeSet::new();
        assert_eq!(answered(&answer, &mut found), Ok(Reading { done: true, interrupted: false }));
        let found: Vec<String> = found.iter().map(IpAddr::to_string).collect();
        assert_eq!(found, ["10.0.0.1", "10.0.0.2", "2001:db8::5"]);
    }

    #[test]
    fn what_is_cut_off_is_no_answer() {
        let whole = new_address(&[attribute(IFA_LOCAL, &[10, 0, 0, 1])]);
        for end in 1..whole.len() {
            let mut found = BTreeSet::new();
            assert_eq!(answered(&whole[..end], &mut found), Err(Malformed::CutOff), "{end}");
        }
        // Lengths that would never end.
        let mut endless = whole.clone();
        endless[..4].copy_from_slice(&0_u32.to_ne_bytes());
        assert_eq!(answered(&endless, &mut BTreeSet::new()), Err(Malformed::CutOff));
        let mut endless = whole;
        endless[HEADER + IFADDRMSG..HEADER + IFADDRMSG + 2].copy_from_slice(&0_u16.to_ne_bytes());
        assert_eq!(answered(&endless, &mut BTreeSet::new()), Err(Malformed::CutOff));
    }

    #[test]
    fn refusals_and_interruptions_are_seen() {
        let refused = message(NLMSG_ERROR, 0, &(-1_i32).to_ne_bytes());
        let found = answered(&refused, &mut BTreeSet::new());
        assert_eq!(found, Err(Malformed::Refused(io::ErrorKind::PermissionDenied)));
        let interrupted = message(NLMSG_DONE, INTERRUPTED, &[0; 4]);
        let found = answered(&interrupted, &mut BTreeSet::new());
        assert_eq!(found, Ok(Reading { done: true, interrupted: true }));
        assert_eq!(answered(&[], &mut BTreeSet::new()), Ok(Reading::default()), "there is more to come");
    }

    #[test]
    fn this_machine_has_a_loopback_address() {
        assert!(read().unwrap().contains(&IpAddr::V4(Ipv4Addr::LOCALHOST)));
    }
}
