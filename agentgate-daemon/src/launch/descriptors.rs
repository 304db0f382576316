//! Which open files a command inherits: the first three, and what is asked for; none through which it
//! could leave unjudged.

use std::{
    fs, io,
    os::fd::{BorrowedFd, RawFd},
};

use rustix::{
    fs::{FileType, OFlags, fcntl_getfl, fstat},
    io::{Errno, FdFlags, fcntl_setfd},
    net::{AddressFamily, sockopt},
};

/// First descriptor that is closed unless asked for.
const FIRST: libc::c_int = 3;

/// Why a descriptor must not be inherited.
#[derive(Debug, thiserror::Error)]
pub enum DescriptorError {
    /// Sockets that exist already are judged by the cgroup they were made in, so the command could
    /// reconnect this one and leave unjudged.
    #[error("descriptor {0} is a network socket, which a guarded command must not inherit; redirect it")]
    NetworkSocket(RawFd),
    /// A way to paths of the mount namespace that the command is not to see.
    #[error(
        "descriptor {0} is a directory, through which a guarded command could reach what is hidden from it"
    )]
    Directory(RawFd),
    /// Makes sockets that no filter sees, without a system call where the kernel polls it.
    #[error("descriptor {0} is an io_uring, which a guarded command must not inherit")]
    Ring(RawFd),
    /// `--keep-fd` of what is not open.
    #[error("--keep-fd {0}: no such descriptor is open")]
    Closed(RawFd),
    /// `--keep-fd` of one of the first three, which are kept.
    #[error("--keep-fd {0}: the first three are always kept")]
    Kept(RawFd),
    /// A system call.
    #[error("descriptor {0}: {1}")]
    Io(RawFd, #[source] io::Error),
}

/// Looks at the descriptors that the command will have: the first three, where open, and `kept`.
///
/// # Errors
/// [`DescriptorError`]: the command must not run.
pub(super) fn check(kept: &[RawFd]) -> Result<(), DescriptorError> {
    for fd in 0..FIRST {
        look(fd)
            .or_else(|error| if matches!(error, DescriptorError::Closed(_)) { Ok(()) } else { Err(error) })?;
    }
    for fd in kept {
        if (0..FIRST).contains(fd) {
            return Err(DescriptorError::Kept(*fd));
        }
        look(*fd)?;
    }
    Ok(())
}

fn look(number: RawFd) -> Result<(), DescriptorError> {
    let Some(fd) = borrow(number) else { return Err(DescriptorError::Closed(number)) };
    let flags = match fcntl_getfl(fd) {
        Ok(flags) => flags,
        Err(Errno::BADF) => return Err(DescriptorError::Closed(number)),
        Err(error) => return Err(DescriptorError::Io(number, error.into())),
    };
    let stat = fstat(fd).map_err(|error| DescriptorError::Io(number, error.into()))?;
    // O_PATH reaches sockets and directories alike, and answers nothing else that is asked here.
    if flags.contains(OFlags::PATH) || FileType::from_raw_mode(stat.st_mode).is_dir() {
        return Err(DescriptorError::Directory(number));
    }
    match sockopt::socket_domain(fd) {
        Ok(AddressFamily::UNIX) | Err(Errno::NOTSOCK) => {}
        Ok(_) => return Err(DescriptorError::NetworkSocket(number)),
        Err(error) => return Err(DescriptorError::Io(number, error.into())),
    }
    match fs::read_link(format!("/proc/self/fd/{number}")) {
        Ok(link) if link.as_os_str() == "anon_inode:[io_uring]" => Err(DescriptorError::Ring(number)),
        Ok(_) => Ok(()),
        Err(error) => Err(DescriptorError::Io(number, error)),
    }
}

/// Has every descriptor from the third on closed when the command begins, but for `kept`.
///
/// # Errors
/// Where the kernel refuses: before Linux 5.11.
pub(super) fn keep_only(kept: &[RawFd]) -> io::Result<()> {
    close_on_exec()?;
    for fd in kept.iter().filter_map(|number| borrow(*number)) {
        fcntl_setfd(fd, FdFlags::empty())?;
    }
    Ok(())
}

#[expect(unsafe_code, reason = "close_range(2) has no wrapper in the crates in use")]
fn close_on_exec() -> io::Result<()> {
    // SAFETY: with CLOEXEC nothing is closed at this moment, so no descriptor that Rust owns goes away.
    let result =
        unsafe { libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `None` for what is no descriptor's number.
#[expect(unsafe_code, reason = "descriptors that were inherited have no owner in this process")]
fn borrow(number: RawFd) -> Option<BorrowedFd<'static>> {
    // SAFETY: nobody in this process closes it; where it is not open, calls answer EBADF.
    (number >= 0).then(|| unsafe { BorrowedFd::borrow_raw(number) })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn what_leads_outside_is_not_inherited() {
        let file = fs::File::open("/dev/null").unwrap();
        let (unix, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(check(&[file.as_raw_fd(), unix.as_raw_fd()]).is_ok());
        let inet = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(matches!(check(&[inet.as_raw_fd()]), Err(DescriptorError::NetworkSocket(_))));
        let directory = fs::File::open("/").unwrap();
        assert!(matches!(check(&[directory.as_raw_fd()]), Err(DescriptorError::Directory(_))));
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let path = rustix::fs::open("/dev/null", flags, rustix::fs::Mode::empty()).unwrap();
        assert!(matches!(check(&[path.as_raw_fd()]), Err(DescriptorError::Directory(_))));
        assert!(matches!(check(&[1 << 19]), Err(DescriptorError::Closed(_))));
        assert!(matches!(check(&[-1]), Err(DescriptorError::Closed(_))));
        assert!(matches!(check(&[2]), Err(DescriptorError::Kept(2))));
    }
}
