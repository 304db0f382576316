//! sendmsg(2) with ancillary data, and descriptors over unix sockets.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};

use super::{length, outcome};

/// One piece of ancillary data.
#[derive(Clone, Debug)]
pub(in crate::selftest) struct Ancillary {
    pub(in crate::selftest) level: i32,
    pub(in crate::selftest) kind: i32,
    pub(in crate::selftest) data: Vec<u8>,
}

/// Room for ancillary data, aligned as the kernel wants it.
#[repr(align(16))]
struct Room([u8; 1024]);

/// sendmsg(2); an empty address is none.
pub(in crate::selftest) fn send(
    fd: &OwnedFd,
    bytes: &[u8],
    address: &[u8],
    ancillary: &[Ancillary],
    flags: i32,
) -> io::Result<usize> {
    let mut room = Room([0; 1024]);
    let used = fill(&mut room, ancillary)?;
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let header = header(&mut part, address, &mut room, used);
    // SAFETY: every pointer in the header lives until the call returns, with the lengths given.
    length(unsafe { libc::sendmsg(fd.as_raw_fd(), &raw const header, flags | libc::MSG_NOSIGNAL) })
}

/// sendmmsg(2) with one message.
pub(in crate::selftest) fn send_many(fd: &OwnedFd, bytes: &[u8], address: &[u8]) -> io::Result<usize> {
    let mut room = Room([0; 1024]);
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut message = libc::mmsghdr { msg_hdr: header(&mut part, address, &mut room, 0), msg_len: 0 };
    // SAFETY: as in `send`; one message, as it is told.
    let sent = outcome(unsafe { libc::sendmmsg(fd.as_raw_fd(), &raw mut message, 1, libc::MSG_NOSIGNAL) })?;
    if sent == 1 { Ok(bytes.len()) } else { Err(io::Error::other("no message was sent")) }
}

/// Hands a descriptor to the peer of a unix socket.
pub(in crate::selftest) fn give(socket: &impl AsRawFd, given: RawFd) -> io::Result<()> {
    let mut room = Room([0; 1024]);
    let ancillary =
        Ancillary { level: libc::SOL_SOCKET, kind: libc::SCM_RIGHTS, data: given.to_ne_bytes().to_vec() };
    let used = fill(&mut room, &[ancillary])?;
    let bytes = [0_u8];
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: 1 };
    let header = header(&mut part, &[], &mut room, used);
    // SAFETY: as in `send`.
    length(unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, libc::MSG_NOSIGNAL) }).map(drop)
}

/// Takes a descriptor from the peer of a unix socket.
///
/// # Errors
/// Where a message came without one: the kernel drops what a security hook refuses.
pub(in crate::selftest) fn take(socket: &impl AsRawFd) -> io::Result<OwnedFd> {
    let mut room = Room([0; 1024]);
    let mut bytes = [0_u8];
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: 1 };
    let space = room.0.len();
    let mut header = header(&mut part, &[], &mut room, space);
    // SAFETY: as in `send`; what is written stays within the lengths given.
    length(unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, libc::MSG_CMSG_CLOEXEC) })?;
    // SAFETY: the header describes `room`, which the kernel filled.
    let first = unsafe { libc::CMSG_FIRSTHDR(&raw const header) };
    if first.is_null() {
        return Err(io::Error::from_raw_os_error(libc::EACCES));
    }
    // SAFETY: not null, and within `room`.
    let (level, kind) = unsafe { ((*first).cmsg_level, (*first).cmsg_type) };
    if (level, kind) != (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
        return Err(io::Error::other("other ancillary data than a descriptor"));
    }
    // SAFETY: SCM_RIGHTS carries at least one descriptor, which belongs to this process alone.
    Ok(unsafe { OwnedFd::from_raw_fd(libc::CMSG_DATA(first).cast::<RawFd>().read_unaligned()) })
}

/// Receives one packet of a packet(7) socket: its length, `sll_pkttype` and `sll_protocol`.
pub(in crate::selftest) fn receive_packet(fd: &OwnedFd, buffer: &mut [u8]) -> io::Result<(usize, u8, u16)> {
    // struct sockaddr_ll: family 2, protocol 2 (big-endian), index 4, hatype 2, pkttype 1, …
    let mut address = [0_u8; 20];
    let mut size: libc::socklen_t = 20;
    // SAFETY: the kernel writes at most the lengths given.
    let received = length(unsafe {
        libc::recvfrom(
            fd.as_raw_fd(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            0,
            address.as_mut_ptr().cast(),
            &raw mut size,
        )
    })?;
    Ok((received, address[10], u16::from_be_bytes([address[2], address[3]])))
}

fn header(part: &mut libc::iovec, address: &[u8], room: &mut Room, used: usize) -> libc::msghdr {
    // SAFETY: all zeros is a valid msghdr: null pointers and no lengths.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = part;
    header.msg_iovlen = 1;
    if !address.is_empty() {
        header.msg_name = address.as_ptr().cast_mut().cast();
        header.msg_namelen = libc::socklen_t::try_from(address.len()).unwrap_or_default();
    }
    if used > 0 {
        header.msg_control = room.0.as_mut_ptr().cast();
        header.msg_controllen = used as _;
    }
    header
}

/// Writes ancillary data as cmsg(3) lays it out; gives the bytes used.
fn fill(room: &mut Room, ancillary: &[Ancillary]) -> io::Result<usize> {
    let align = size_of::<usize>();
    let head = size_of::<libc::cmsghdr>().next_multiple_of(align);
    let mut at = 0;
    for piece in ancillary {
        let whole = head + piece.data.len();
        let next = at + whole.next_multiple_of(align);
        let place = room.0.get_mut(at..next).ok_or_else(|| io::Error::other("too much ancillary data"))?;
        place[..align].copy_from_slice(&whole.to_ne_bytes());
        place[align..align + 4].copy_from_slice(&piece.level.to_ne_bytes());
        place[align + 4..align + 8].copy_from_slice(&piece.kind.to_ne_bytes());
        place[head..whole].copy_from_slice(&piece.data);
        at = next;
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        os::unix::net::UnixStream,
    };

    use super::*;

    #[test]
    fn a_descriptor_changes_hands() {
        let (left, right) = UnixStream::pair().unwrap();
        let (mut kept, given) = UnixStream::pair().unwrap();
        give(&left, given.as_raw_fd()).unwrap();
        let mut taken = UnixStream::from(take(&right).unwrap());
        taken.write_all(b"x").unwrap();
        let mut byte = [0];
        kept.read_exact(&mut byte).unwrap();
        assert_eq!(byte, *b"x");
    }

    #[test]
    fn a_message_without_a_descriptor_is_an_error() {
        let (mut left, right) = UnixStream::pair().unwrap();
        left.write_all(b"x").unwrap();
        assert_eq!(take(&right).unwrap_err().raw_os_error(), Some(libc::EACCES));
    }
}
