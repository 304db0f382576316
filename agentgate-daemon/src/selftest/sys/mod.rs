//! The system calls that attempts are made of, as safe functions: raw descriptors, raw addresses, raw
//! options, and whatever the kernel says.
//!
//! Nothing here judges, retries or hides an error: an attempt wants to see the kernel's own answer.

#![expect(unsafe_code, reason = "bypass attempts need system calls that no safe wrapper offers")]

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

pub(super) mod i386;
pub(super) mod message;
pub(super) mod process;
pub(super) mod ring;

/// What a system call gave, as a result.
fn outcome(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The same for calls that give a length.
fn length(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// An address as the kernel takes it: `struct sockaddr_in` or `sockaddr_in6`.
pub(super) fn sockaddr(address: SocketAddr) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(28);
    match address.ip() {
        IpAddr::V4(v4) => {
            bytes.extend(family(libc::AF_INET));
            bytes.extend(address.port().to_be_bytes());
            bytes.extend(v4.octets());
            bytes.extend([0; 8]);
        }
        IpAddr::V6(v6) => {
            bytes.extend(family(libc::AF_INET6));
            bytes.extend(address.port().to_be_bytes());
            bytes.extend([0; 4]);
            bytes.extend(v6.octets());
            bytes.extend([0; 4]);
        }
    }
    bytes
}

/// `sa_family_t` of an address.
pub(super) fn family(number: i32) -> [u8; 2] {
    u16::try_from(number).unwrap_or_default().to_ne_bytes()
}

/// socket(2), close-on-exec.
pub(super) fn socket(domain: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed.
    let fd = outcome(unsafe { libc::socket(domain, kind | libc::SOCK_CLOEXEC, protocol) })?;
    // SAFETY: the descriptor was made this moment and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// connect(2).
pub(super) fn connect(fd: &OwnedFd, address: &[u8]) -> io::Result<()> {
    // SAFETY: the kernel reads as many bytes of the slice as it is told.
    let result = unsafe { libc::connect(fd.as_raw_fd(), address.as_ptr().cast(), size(address)?) };
    outcome(result).map(drop)
}

/// bind(2).
pub(super) fn bind(fd: &OwnedFd, address: &[u8]) -> io::Result<()> {
    // SAFETY: as in `connect`.
    outcome(unsafe { libc::bind(fd.as_raw_fd(), address.as_ptr().cast(), size(address)?) }).map(drop)
}

/// listen(2).
pub(super) fn listen(fd: &OwnedFd) -> io::Result<()> {
    // SAFETY: no memory is passed.
    outcome(unsafe { libc::listen(fd.as_raw_fd(), 8) }).map(drop)
}

/// accept(2).
pub(super) fn accept(fd: &OwnedFd) -> io::Result<OwnedFd> {
    // SAFETY: null: the peer's address is not asked for.
    let made = unsafe {
        libc::accept4(fd.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut(), libc::SOCK_CLOEXEC)
    };
    let made = outcome(made)?;
    // SAFETY: made this moment.
    Ok(unsafe { OwnedFd::from_raw_fd(made) })
}

/// getsockname(2) of an internet socket: its port.
pub(super) fn local_port(fd: &OwnedFd) -> io::Result<u16> {
    let mut address = [0_u8; 28];
    let mut length: libc::socklen_t = 28;
    // SAFETY: the kernel writes at most `length` bytes.
    let result = unsafe { libc::getsockname(fd.as_raw_fd(), address.as_mut_ptr().cast(), &raw mut length) };
    outcome(result)?;
    Ok(u16::from_be_bytes([address[2], address[3]]))
}

/// send(2), never with SIGPIPE.
pub(super) fn send(fd: &OwnedFd, bytes: &[u8], flags: i32) -> io::Result<usize> {
    let flags = flags | libc::MSG_NOSIGNAL;
    // SAFETY: the kernel reads as many bytes as the slice has.
    length(unsafe { libc::send(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) })
}

/// sendto(2), never with SIGPIPE.
pub(super) fn send_to(fd: &OwnedFd, bytes: &[u8], flags: i32, address: &[u8]) -> io::Result<usize> {
    let (flags, size) = (flags | libc::MSG_NOSIGNAL, size(address)?);
    // SAFETY: as in `send` and `connect`.
    length(unsafe {
        libc::sendto(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags, address.as_ptr().cast(), size)
    })
}

/// recv(2).
pub(super) fn receive(fd: &OwnedFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the kernel writes at most as many bytes as the slice has.
    length(unsafe { libc::recv(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) })
}

/// recvfrom(2): the address that a datagram came from.
pub(super) fn receive_from(fd: &OwnedFd, buffer: &mut [u8]) -> io::Result<Vec<u8>> {
    let mut address = vec![0_u8; 28];
    let mut size: libc::socklen_t = 28;
    // SAFETY: the kernel writes at most the lengths given.
    length(unsafe {
        libc::recvfrom(
            fd.as_raw_fd(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            0,
            address.as_mut_ptr().cast(),
            &raw mut size,
        )
    })?;
    address.truncate(usize::try_from(size).unwrap_or_default());
    Ok(address)
}

/// setsockopt(2).
pub(super) fn set_option(fd: &OwnedFd, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    let size = size(value)?;
    // SAFETY: the kernel reads as many bytes as it is told.
    outcome(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, value.as_ptr().cast(), size) }).map(drop)
}

/// setsockopt(2) of an `int`.
pub(super) fn set_int(fd: &OwnedFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    set_option(fd, level, name, &value.to_ne_bytes())
}

/// Whether there is something to read within so many milliseconds: data, an end or an error.
pub(super) fn readable(fd: &OwnedFd, milliseconds: i32) -> io::Result<bool> {
    poll(fd, libc::POLLIN, milliseconds)
}

/// The same for writing.
pub(super) fn writable(fd: &OwnedFd, milliseconds: i32) -> io::Result<bool> {
    poll(fd, libc::POLLOUT, milliseconds)
}

fn poll(fd: &OwnedFd, events: i16, milliseconds: i32) -> io::Result<bool> {
    let mut entry = libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 };
    // SAFETY: one entry, as it is told.
    Ok(outcome(unsafe { libc::poll(&raw mut entry, 1, milliseconds) })? > 0)
}

/// The pending error of a socket, which reading takes away.
pub(super) fn take_error(fd: &OwnedFd) -> io::Result<()> {
    let mut error: libc::c_int = 0;
    let mut size = libc::socklen_t::try_from(size_of::<libc::c_int>()).map_err(io::Error::other)?;
    // SAFETY: the kernel writes at most `size` bytes, the size of the value.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ERROR,
            (&raw mut error).cast(),
            &raw mut size,
        )
    };
    outcome(result)?;
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}

/// Sets or clears `O_NONBLOCK`.
pub(super) fn set_nonblocking(fd: &OwnedFd, on: bool) -> io::Result<()> {
    // SAFETY: no memory is passed.
    let flags = outcome(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) })?;
    let flags = if on { flags | libc::O_NONBLOCK } else { flags & !libc::O_NONBLOCK };
    // SAFETY: no memory is passed.
    outcome(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags) }).map(drop)
}

/// A descriptor of this process by its number, duplicated.
///
/// # Errors
/// `EBADF` where there is none.
pub(super) fn duplicate(number: i32) -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed.
    outcome(unsafe { libc::fcntl(number, libc::F_GETFD) })?;
    // SAFETY: it is open, as the line above has seen, and nothing else runs in an attempt's process.
    unsafe { BorrowedFd::borrow_raw(number) }.try_clone_to_owned()
}

/// splice(2) from a pipe into a socket.
pub(super) fn splice(from: &OwnedFd, into: &OwnedFd, bytes: usize) -> io::Result<usize> {
    let null = std::ptr::null_mut();
    // SAFETY: null: both ends have no offsets.
    length(unsafe { libc::splice(from.as_raw_fd(), null, into.as_raw_fd(), null, bytes, 0) })
}

/// sendfile(2) from the beginning of a file into a socket.
pub(super) fn send_file(from: &impl AsRawFd, into: &OwnedFd, bytes: usize) -> io::Result<usize> {
    // SAFETY: null: the file's own position is used.
    length(unsafe { libc::sendfile(into.as_raw_fd(), from.as_raw_fd(), std::ptr::null_mut(), bytes) })
}

/// Index of a network interface in the caller's namespace.
pub(super) fn interface(name: &std::ffi::CStr) -> io::Result<u32> {
    // SAFETY: a string with its NUL.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}

fn size(bytes: &[u8]) -> io::Result<libc::socklen_t> {
    libc::socklen_t::try_from(bytes.len()).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_the_kernels_layout() {
        let v4 = sockaddr("203.0.113.7:443".parse().unwrap());
        assert_eq!(v4.len(), size_of::<libc::sockaddr_in>());
        assert_eq!(&v4[2..8], [1, 187, 203, 0, 113, 7]);
        let v6 = sockaddr("[2001:db8::7]:53".parse().unwrap());
        assert_eq!(v6.len(), size_of::<libc::sockaddr_in6>());
        assert_eq!(&v6[2..12], [0, 53, 0, 0, 0, 0, 0x20, 1, 0x0d, 0xb8]);
    }

    #[test]
    fn the_kernels_own_answer_is_seen() {
        let fd = socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
        bind(&fd, &sockaddr("127.0.0.1:0".parse().unwrap())).unwrap();
        let taken = local_port(&fd).unwrap();
        let other = socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
        let error = connect(&other, &sockaddr(SocketAddr::from(([127, 0, 0, 1], taken)))).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));
        assert_eq!(duplicate(-1).unwrap_err().raw_os_error(), Some(libc::EBADF));
    }
}
