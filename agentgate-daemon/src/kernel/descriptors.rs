//! Sockets that a process holds and that were not made under guard: found, told, ended.
//!
//! A duplicate of each descriptor is asked. The last one of a socket may linger at close(2) for as long
//! as its owner likes (`SO_LINGER`), so duplicates are made in a thread with a table of descriptors of
//! its own, and go with it: a thread that ends waits for nobody (net/ipv4/af_inet.c, `inet_release`).
//!
//! A thread may have a table of its own too (`unshare(CLONE_FILES)`), and the first thread may have ended
//! before the others: every table of a process is looked at.
#![expect(unsafe_code, reason = "unshare(2) of the table of descriptors")]

use std::{
    collections::HashSet,
    fs, io,
    mem::ManuallyDrop,
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, Shutdown, SocketType, connect_unspec, getpeername, getsockname, shutdown,
        sockopt::{socket_domain, socket_protocol, socket_type},
    },
    process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open},
    thread::{UnshareFlags, unshare_unsafe},
};

use super::Kernel;

/// Descriptors of one process that are looked at: a hundred times what agents have.
const DESCRIPTORS: usize = 16_384;
/// Threads of one process that are looked at.
const THREADS: usize = 16_384;
/// Sockets of one process that are duplicated at a time, well below what a daemon may have open.
const DUPLICATES: usize = 512;

/// A socket from elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignSocket {
    /// Its number in the process.
    pub descriptor: i32,
    /// Inode number on sockfs, which names it while it lives.
    pub inode: u64,
    /// Type and addresses, in one line for people.
    pub what: String,
    /// Whom it was connected to.
    pub peer: Option<SocketAddr>,
    /// Whether nothing can be sent by it any more.
    pub ended: bool,
}

/// What a look at one process gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Descriptors {
    pub foreign: Vec<ForeignSocket>,
    /// There were more than are looked at, or some that this kernel does not let anybody look at: those of
    /// threads with a table of their own, before Linux 6.9.
    pub cut: bool,
}

/// The sockets of a process that were not made under guard, besides UNIX, netlink and crypto ones; with
/// `end` they are ended. Blocks for some microseconds a socket. Inodes in `known` are passed over, and
/// those that are under guard are added.
///
/// # Errors
/// When the process is gone or cannot be looked into.
pub fn foreign_sockets(
    kernel: &dyn Kernel,
    pid: u32,
    end: bool,
    known: &mut HashSet<u64>,
) -> io::Result<Descriptors> {
    // First the process is held, so that the lists read after it are those of the same one.
    let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let number = number.ok_or(io::ErrorKind::InvalidInput)?;
    let process = pidfd_open(number, PidfdFlags::empty())?;
    let (tables, mut cut) = tables_of(number)?;
    let mut found = Descriptors::default();
    let mut left = DESCRIPTORS;
    for thread in tables {
        // A thread that has ended meanwhile has none.
        let Ok(sockets) = sockets_of(number, thread, &mut left) else { continue };
        cut |= left == 0;
        let mut fresh: Vec<(i32, u64)> = Vec::new();
        let mut asked = HashSet::new();
        for (descriptor, inode) in sockets {
            if !known.contains(&inode) && asked.insert(inode) {
                fresh.push((descriptor, inode));
            }
        }
        if fresh.is_empty() {
            continue;
        }
        let own;
        let handle = match handle_of(thread) {
            Ok(handle) => {
                own = handle;
                own.as_fd()
            }
            // The kernel has handles of processes only, and those stand for the first thread.
            Err(Errno::INVAL) if thread == number => process.as_fd(),
            Err(Errno::INVAL) => {
                cut = true;
                continue;
            }
            Err(_) => continue,
        };
        for some in fresh.chunks(DUPLICATES) {
            let (guarded, foreign) = in_own_table(|| examine(kernel, handle, some, end))?;
            known.extend(guarded);
            for socket in foreign {
                if !found.foreign.iter().any(|told| told.inode == socket.inode) {
                    found.foreign.push(socket);
                }
            }
        }
    }
    found.cut = cut;
    Ok(found)
}

/// A handle of one thread, since Linux 6.9.
fn handle_of(thread: Pid) -> Result<OwnedFd, Errno> {
    /// `PIDFD_THREAD` of linux/pidfd.h.
    const THREAD: PidfdFlags = PidfdFlags::from_bits_retain(libc::O_EXCL.cast_unsigned());
    pidfd_open(thread, THREAD)
}

/// One thread for each table of descriptors that a process has, and whether there were more threads than
/// are looked at. The first thread's is the first, where it has not ended.
fn tables_of(process: Pid) -> io::Result<(Vec<Pid>, bool)> {
    let mut tables: Vec<Pid> = Vec::new();
    let mut cut = false;
    for (n, entry) in fs::read_dir(format!("/proc/{}/task", process.as_raw_pid()))?.enumerate() {
        if n == THREADS {
            cut = true;
            break;
        }
        let name = entry?.file_name();
        let Some(thread) = name.to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw) else {
            continue;
        };
        if !tables.iter().any(|known| is_shared(*known, thread)) {
            tables.push(thread);
        }
    }
    Ok((tables, cut))
}

/// Whether two threads have the same table. Where the kernel does not tell, each counts as its own, which
/// costs time and misses nothing.
fn is_shared(one: Pid, other: Pid) -> bool {
    /// `KCMP_FILES` of linux/kcmp.h.
    const FILES: libc::c_int = 2;
    // SAFETY: the call takes numbers and touches no memory of this process.
    let order = unsafe { libc::syscall(libc::SYS_kcmp, one.as_raw_pid(), other.as_raw_pid(), FILES, 0, 0) };
    order == 0
}

/// Descriptors of a thread that are sockets, with their inodes; no more than `left`, which it lowers.
fn sockets_of(process: Pid, thread: Pid, left: &mut usize) -> io::Result<Vec<(i32, u64)>> {
    let mut found = Vec::new();
    let directory = format!("/proc/{}/task/{}/fd", process.as_raw_pid(), thread.as_raw_pid());
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        *left = left.saturating_sub(1);
        if *left == 0 {
            break;
        }
        // Closed in the meantime, which is as good as not there.
        let Ok(link) = fs::read_link(entry.path()) else { continue };
        let inode =
            link.to_str().and_then(|link| link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
        let descriptor = entry.file_name().to_str().and_then(|name| name.parse().ok());
        found.extend(descriptor.zip(inode));
    }
    Ok(found)
}

/// Runs `work` where descriptors are nobody else's, and go without waiting.
fn in_own_table<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("descriptors".to_owned());
        let running = thread.spawn_scoped(scope, || {
            // SAFETY: this thread takes no descriptor from others and gives none away; those that it has
            // by copy mean what they meant.
            unsafe { unshare_unsafe(UnshareFlags::FILES) }?;
            Ok(work())
        })?;
        running.join().unwrap_or_else(|_panic| Err(io::Error::other("the look at descriptors panicked")))
    })
}

/// Inodes of sockets under guard, and the foreign sockets.
fn examine(
    kernel: &dyn Kernel,
    process: BorrowedFd<'_>,
    sockets: &[(i32, u64)],
    end: bool,
) -> (Vec<u64>, Vec<ForeignSocket>) {
    let (mut guarded, mut foreign) = (Vec::new(), Vec::new());
    for (descriptor, inode) in sockets {
        let Ok(copy) = pidfd_getfd(process, *descriptor, PidfdGetfdFlags::empty()) else { continue };
        // Closed by the end of the thread.
        let copy: ManuallyDrop<OwnedFd> = ManuallyDrop::new(copy);
        let socket = copy.as_fd();
        // The number may be another file's by then.
        let Ok(family) = socket_domain(socket) else { continue };
        if is_harmless(family) {
            continue;
        }
        match kernel.is_guarded(socket) {
            Ok(true) => guarded.push(*inode),
            Ok(false) => foreign.push(foreign_socket(socket, family, *descriptor, *inode, end)),
            Err(error) => tracing::warn!(%error, "a socket cannot be asked where it was made"),
        }
    }
    (guarded, foreign)
}

/// Families by which nothing leaves the host.
fn is_harmless(family: AddressFamily) -> bool {
    /// `AF_ALG` of include/linux/socket.h: the kernel's ciphers.
    const ALG: AddressFamily = AddressFamily::from_raw(38);
    [AddressFamily::UNIX, AddressFamily::NETLINK, ALG].contains(&family)
}

fn foreign_socket(
    socket: BorrowedFd<'_>,
    family: AddressFamily,
    descriptor: i32,
    inode: u64,
    end: bool,
) -> ForeignSocket {
    let local = getsockname(socket).ok().and_then(|address| SocketAddr::try_from(address).ok());
    let peer = getpeername(socket).ok().flatten().and_then(|address| SocketAddr::try_from(address).ok());
    let mut what = kind(socket, family);
    for (word, address) in [("at", local), ("to", peer)] {
        if let Some(address) = address.filter(|address| address.port() != 0) {
            what.push_str(&format!(" {word} {address}"));
        }
    }
    let ended = end && end_socket(socket, family);
    ForeignSocket { descriptor, inode, what, peer, ended }
}

fn kind(socket: BorrowedFd<'_>, family: AddressFamily) -> String {
    let inet = family == AddressFamily::INET || family == AddressFamily::INET6;
    let protocol = socket_protocol(socket).ok().flatten().map_or(0, |protocol| protocol.as_raw().get());
    match socket_type(socket) {
        Ok(SocketType::STREAM) if inet && protocol == 262 => "MPTCP".to_owned(),
        Ok(SocketType::STREAM) if inet && protocol == 6 => "TCP".to_owned(),
        Ok(SocketType::DGRAM) if inet && protocol == 17 => "UDP".to_owned(),
        Ok(SocketType::RAW) if inet => format!("raw socket of protocol {protocol}"),
        Ok(_) | Err(_) if family == AddressFamily::PACKET => "packet socket".to_owned(),
        Ok(kind) => {
            format!("socket of family {} type {} protocol {protocol}", family.as_raw(), kind.as_raw())
        }
        Err(_) => format!("socket of family {}", family.as_raw()),
    }
}

/// Takes a socket its peer, with a reset and without what was queued, and then its voice: writes fail
/// from here on (net/core/sock.c, `sock_alloc_send_pskb`; net/ipv4/tcp.c). Whether both hold. Raw and
/// packet sockets know neither.
fn end_socket(socket: BorrowedFd<'_>, family: AddressFamily) -> bool {
    // Fails where there is no peer, or the family has none; what counts is what is asked afterwards.
    let _no_peer = connect_unspec(socket);
    let quiet = match shutdown(socket, Shutdown::Both) {
        // IPv4 and IPv6 take the order also where they say that there is no peer.
        Ok(()) | Err(Errno::NOTCONN) => true,
        Err(_) => false,
    };
    let can_be = family != AddressFamily::PACKET && socket_type(socket) != Ok(SocketType::RAW);
    quiet && can_be && !matches!(getpeername(socket), Ok(Some(_)))
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _,
        net::{TcpListener, TcpStream, UdpSocket},
        os::fd::AsRawFd as _,
    };

    use super::*;
    use crate::kernel::fake::FakeKernel;

    /// Of this very process, whose other sockets belong to other tests.
    fn foreign(inode: u64, end: bool) -> Option<ForeignSocket> {
        let kernel = FakeKernel::default();
        kernel.guard_nothing();
        let own = rustix::process::getpid();
        let all = sockets_of(own, own, &mut usize::MAX.clone()).unwrap();
        let mut known: HashSet<u64> = all.into_iter().map(|(_, inode)| inode).collect();
        known.remove(&inode);
        let found = foreign_sockets(&kernel, std::process::id(), end, &mut known).unwrap();
        assert!(!found.cut);
        found.foreign.into_iter().find(|socket| socket.inode == inode)
    }

    fn inode(socket: &impl AsFd) -> u64 {
        rustix::fs::fstat(socket).unwrap().st_ino
    }

    #[test]
    fn sockets_are_told_with_number_and_addresses() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let found = foreign(inode(&client), false).unwrap();
        let (local, peer) = (client.local_addr().unwrap(), listener.local_addr().unwrap());
        let expect = ForeignSocket {
            descriptor: client.as_raw_fd(),
            inode: inode(&client),
            what: format!("TCP at {local} to {peer}"),
            peer: Some(peer),
            ended: false,
        };
        assert_eq!(found, expect);
        assert_eq!(foreign(inode(&listener), false).unwrap().what, format!("TCP at {peer}"));
        let (pair, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(foreign(inode(&pair), false), None);
        // Whoever looks changes nothing.
        (&client).write_all(b"still there").unwrap();
    }

    #[test]
    fn what_is_ended_sends_no_more() {
        let listener = TcpListener::bind("[::1]:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        assert!(foreign(inode(&client), true).unwrap().ended);
        assert!((&client).write_all(b"x").is_err());
        let mut buffer = [0; 8];
        let seen = io::Read::read(&mut &server, &mut buffer).unwrap_err();
        assert_eq!(seen.kind(), io::ErrorKind::ConnectionReset);

        assert!(foreign(inode(&listener), true).unwrap().ended);
        assert!(TcpStream::connect(listener.local_addr().unwrap()).is_err() || listener.accept().is_err());

        let sink = UdpSocket::bind("127.0.0.1:0").unwrap();
        for connected in [true, false] {
            let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
            if connected {
                sender.connect(sink.local_addr().unwrap()).unwrap();
            }
            assert!(foreign(inode(&sender), true).unwrap().ended, "{connected}");
            assert!(sender.send_to(b"x", sink.local_addr().unwrap()).is_err(), "{connected}");
        }
    }

    #[test]
    fn a_socket_in_a_threads_own_table_is_found() {
        use std::sync::mpsc::channel;
        let (told, tell) = (channel(), channel::<()>());
        let thread = std::thread::spawn(move || {
            in_own_table(move || {
                let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                socket.connect("127.0.0.1:9").unwrap();
                told.0.send((inode(&socket), socket.as_raw_fd())).unwrap();
                let _closed = tell.1.recv();
                socket.send(b"x").is_err()
            })
            .unwrap()
        });
        let (inode, descriptor) = told.1.recv().unwrap();
        if handle_of(rustix::process::getpid()).is_err() {
            let kernel = FakeKernel::default();
            kernel.guard_nothing();
            assert!(foreign_sockets(&kernel, std::process::id(), false, &mut HashSet::new()).unwrap().cut);
            return;
        }
        let found = foreign(inode, true).unwrap();
        assert_eq!((found.descriptor, found.ended), (descriptor, true));
        drop(tell.0);
        assert!(thread.join().unwrap(), "it still sends");
    }

    #[test]
    fn a_lingering_socket_keeps_nobody_waiting() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (_server, _) = listener.accept().unwrap();
        // Nobody reads, so that there is something left to send for the time of the test.
        client.set_nonblocking(true).unwrap();
        while (&client).write(&[0; 65_536]).is_ok() {}
        let minute = std::time::Duration::from_secs(60);
        rustix::net::sockopt::set_socket_linger(&client, Some(minute)).unwrap();
        let began = std::time::Instant::now();
        let (copied, is_copied) = std::sync::mpsc::channel();
        let (closed, is_closed) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            in_own_table(move || {
                copied.send(()).unwrap();
                is_closed.recv().unwrap();
            })
        });
        is_copied.recv().unwrap();
        // From here on the copy is the last one.
        drop(client);
        closed.send(()).unwrap();
        thread.join().unwrap().unwrap();
        assert!(began.elapsed() < minute / 2);
    }

    #[test]
    fn a_process_that_is_gone_is_an_error() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        let kernel = FakeKernel::default();
        assert!(foreign_sockets(&kernel, child.id(), true, &mut HashSet::new()).is_err());
        assert!(foreign_sockets(&kernel, 0, true, &mut HashSet::new()).is_err());
    }
}
