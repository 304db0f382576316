//! Who is at the other end of a control connection, and whether it is an agent.
//!
//! Credentials come from the kernel (SO_PEERCRED), the process by a pidfd, so that a pid that was given
//! out again is never taken for the process that connected. Whatever cannot be read is an error, which
//! the server answers with a refusal.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    path::Path,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec},
    process::{Pid, PidfdFlags},
};
use tokio::net::UnixStream;

/// `SO_PEERPIDFD` of asm-generic/socket.h (Linux 6.5); the libc crate does not name it.
const SO_PEERPIDFD: libc::c_int = 77;

/// Bytes of a procfs file that are read at most. A line of `/proc/PID/cgroup` holds a path of up to
/// PATH_MAX bytes, and a v1 hierarchy adds a line each.
const PROC_CAP: u64 = 64 << 10;

/// Why it is unknown who is asking.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The kernel gave no pid: the peer lives in a pid namespace that this one cannot see.
    #[error("the peer has no process id here")]
    NoPid,
    /// It ended while it was looked at.
    #[error("process {pid} is gone")]
    Gone {
        /// The process.
        pid: u32,
    },
    /// procfs has no cgroup v2 line for it.
    #[error("process {pid} has no cgroup v2 path")]
    NoCgroup {
        /// The process.
        pid: u32,
    },
    /// A system call.
    #[error("{what}: {source}")]
    Io {
        /// What was being read.
        what: String,
        #[source]
        source: io::Error,
    },
}

/// One process, held by a pidfd: stays this process however pids are reused.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    handle: OwnedFd,
}

impl Process {
    /// The process with id `pid` at this moment.
    ///
    /// # Errors
    /// [`PeerError::Gone`] where there is none.
    pub fn open(pid: u32) -> Result<Self, PeerError> {
        let id = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(PeerError::NoPid)?;
        match rustix::process::pidfd_open(id, PidfdFlags::empty()) {
            Ok(handle) => Ok(Self { pid, handle }),
            Err(rustix::io::Errno::SRCH) => Err(PeerError::Gone { pid }),
            Err(e) => Err(PeerError::Io { what: format!("pidfd_open({pid})"), source: e.into() }),
        }
    }

    /// Its id in the daemon's pid namespace.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Its pidfd.
    #[must_use]
    pub fn handle(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }

    /// Whether it runs still; a zombie does not.
    ///
    /// # Errors
    /// When the pidfd cannot be polled.
    pub fn is_alive(&self) -> Result<bool, PeerError> {
        let mut fds = [PollFd::new(&self.handle, PollFlags::IN)];
        let ready = rustix::event::poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))
            .map_err(|e| PeerError::Io { what: format!("poll(pidfd of {})", self.pid), source: e.into() })?;
        Ok(ready == 0)
    }

    /// Its cgroup v2 path. Read by pid and then checked against the pidfd: while the process lives its
    /// pid is nobody else's, so the path was its own.
    ///
    /// # Errors
    /// Where it ended, or where there is no such path.
    pub fn cgroup(&self) -> Result<String, PeerError> {
        let text = self.read("cgroup")?;
        if !self.is_alive()? {
            return Err(PeerError::Gone { pid: self.pid });
        }
        unified_path(&text).map(str::to_owned).ok_or(PeerError::NoCgroup { pid: self.pid })
    }

    /// Resolved path of its executable, where that can be read.
    #[must_use]
    pub fn exe(&self) -> Option<String> {
        let exe = fs::read_link(format!("/proc/{}/exe", self.pid)).ok()?;
        Some(exe.to_string_lossy().into_owned())
    }

    /// Its thread name, empty where it cannot be read.
    #[must_use]
    pub fn comm(&self) -> String {
        self.read("comm").map(|text| text.trim_end_matches('\n').to_owned()).unwrap_or_default()
    }

    fn read(&self, file: &str) -> Result<String, PeerError> {
        let path = format!("/proc/{}/{file}", self.pid);
        let read = || -> io::Result<Vec<u8>> {
            let mut bytes = Vec::new();
            io::Read::read_to_end(&mut io::Read::take(fs::File::open(&path)?, PROC_CAP), &mut bytes)?;
            Ok(bytes)
        };
        match read() {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(PeerError::Gone { pid: self.pid }),
            // A process that ends between open and read gives ESRCH.
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => Err(PeerError::Gone { pid: self.pid }),
            Err(source) => Err(PeerError::Io { what: path, source }),
        }
    }
}

/// The other end of a control connection, as it was when it connected.
#[derive(Debug)]
pub struct Peer {
    pub process: Process,
    pub uid: u32,
    pub gid: u32,
}

impl Peer {
    /// The peer of `stream`.
    ///
    /// # Errors
    /// [`PeerError`]; refuse.
    pub fn of(stream: &UnixStream) -> Result<Self, PeerError> {
        let io = |what: &str| {
            let what = what.to_owned();
            move |source| PeerError::Io { what, source }
        };
        let cred = stream.peer_cred().map_err(io("SO_PEERCRED"))?;
        let pid = cred
            .pid()
            .and_then(|pid| u32::try_from(pid).ok())
            .filter(|pid| *pid != 0)
            .ok_or(PeerError::NoPid)?;
        let process = match peer_pidfd(stream.as_fd()) {
            Ok(handle) => Process { pid, handle },
            // Before Linux 6.5 only the pid is to be had. Whoever wanted to be mistaken for another would
            // have to connect, end, and have its pid come round before the next accept.
            Err(e) if e.raw_os_error() == Some(libc::ENOPROTOOPT) => Process::open(pid)?,
            Err(e) if matches!(e.raw_os_error(), Some(libc::ESRCH | libc::EINVAL | libc::ENODATA)) => {
                return Err(PeerError::Gone { pid });
            }
            Err(source) => {
                return Err(PeerError::Io { what: "SO_PEERPIDFD".into(), source });
            }
        };
        Ok(Self { process, uid: cred.uid(), gid: cred.gid() })
    }
}

#[expect(unsafe_code, reason = "no crate in use offers SO_PEERPIDFD")]
fn peer_pidfd(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut fd: libc::c_int = -1;
    let mut length: libc::socklen_t = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: `fd` and `length` are live for the call, and `length` is the size of `fd`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PEERPIDFD,
            std::ptr::from_mut(&mut fd).cast(),
            std::ptr::from_mut(&mut length),
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: on success the kernel has installed a descriptor that nobody else owns (unix(7)).
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The cgroup v2 path in the text of `/proc/PID/cgroup`: its `0::` line (cgroups(7)).
#[must_use]
pub fn unified_path(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("0::")).filter(|path| path.starts_with('/'))
}

/// Whether `cgroup` is `guarded` or below it. Compared by whole components, so `/agent.slice-x` is not
/// inside `/agent.slice`.
#[must_use]
pub fn is_inside(cgroup: &str, guarded: &Path) -> bool {
    Path::new(cgroup).starts_with(guarded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_v2_line() {
        let rows = [
            ("0::/agent.slice/run-u2.service\n", Some("/agent.slice/run-u2.service")),
            ("9:name=systemd:/\n1:cpu:/x\n0::/\n", Some("/")),
            ("0::/a:b\n", Some("/a:b")),
            ("10::/x\n", None),
            ("1:cpu:/agent.slice\n", None),
            ("0::relative\n", None),
            ("", None),
        ];
        for (text, expect) in rows {
            assert_eq!(unified_path(text), expect, "{text:?}");
        }
    }

    #[test]
    fn inside_means_whole_components() {
        let rows = [
            ("/agent.slice", "/agent.slice", true),
            ("/agent.slice/run-1-0.scope", "/agent.slice", true),
            ("/agent.slice/a/b", "/agent.slice/a", true),
            ("/agent.slice-x/a", "/agent.slice", false),
            ("/", "/agent.slice", false),
            ("/user.slice/agent.slice", "/agent.slice", false),
            ("/../agent.slice", "/agent.slice", false),
            ("/anything", "/", true),
        ];
        for (cgroup, guarded, expect) in rows {
            assert_eq!(is_inside(cgroup, Path::new(guarded)), expect, "{cgroup} in {guarded}");
        }
    }

    #[test]
    fn a_process_that_ended_is_gone_though_its_zombie_is_still_there() {
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let process = Process::open(child.id()).unwrap();
        assert!(process.is_alive().unwrap());
        assert!(process.cgroup().unwrap().starts_with('/'));
        assert!(process.exe().is_some());
        drop(child.stdin.take());
        // Wait for the end without reaping: the pidfd becomes readable.
        rustix::event::poll(&mut [PollFd::new(&process.handle, PollFlags::IN)], None).unwrap();
        assert!(!process.is_alive().unwrap());
        assert!(matches!(process.cgroup(), Err(PeerError::Gone { .. })));
        child.wait().unwrap();
        assert!(matches!(process.cgroup(), Err(PeerError::Gone { .. })));
    }

    #[tokio::test]
    async fn the_peer_of_a_socket_pair_is_this_process() {
        let (a, _b) = UnixStream::pair().unwrap();
        let peer = Peer::of(&a).unwrap();
        assert_eq!(peer.process.pid(), std::process::id());
        assert_eq!(peer.uid, rustix::process::geteuid().as_raw());
        assert!(peer.process.is_alive().unwrap());
    }
}
