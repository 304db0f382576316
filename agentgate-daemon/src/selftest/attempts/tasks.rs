//! The same probes (TCP and UDP, both families) from other kinds of tasks, and through io_uring.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsRawFd as _, OwnedFd},
    process::Command,
};

use crate::selftest::{
    orders::Stop,
    report::Family::Tasks,
    suite::Attempt,
    sys::{
        self, process,
        ring::{self, Ring},
    },
    tried::{At as _, Attempted, Try},
};

const INHERITED: &str = "children inherit the cgroup, and the programs are on the guarded one above them";
const URING: &str = "the hooks are below io_uring; seccomp of agentctl run refuses io_uring_setup";

pub(super) const ATTEMPTS: &[Attempt] = &[
    Attempt::new(Tasks, "thread", "probes from another thread", INHERITED, thread),
    Attempt::new(Tasks, "fork", "probes from a child", INHERITED, |t| in_fork(t, |_| Ok(()))),
    Attempt::new(Tasks, "vfork-exec", "probes from a program started by vfork(2)", INHERITED, |t| {
        exec(t, "tcp4-connect")
    }),
    Attempt::new(
        Tasks,
        "daemon",
        "probes from a daemon: forked twice, in a session of its own",
        INHERITED,
        |t| {
            in_fork(t, |t| {
                process::new_session().at("setsid")?;
                in_fork(t, |_| Ok(()))
            })
        },
    ),
    Attempt::new(Tasks, "child-cgroup", "probes from a child of the guarded cgroup", INHERITED, child_cgroup)
        .root(),
    Attempt::new(Tasks, "user-namespace", "probes as root of a user namespace", INHERITED, |t| {
        in_fork(t, |_| process::unshare(libc::CLONE_NEWUSER).at("unshare(CLONE_NEWUSER)"))
    }),
    Attempt::new(
        Tasks,
        "user-namespace-raw",
        "makes a user and a network namespace and opens a raw socket in it",
        "sock_create refuses raw sockets in every namespace",
        |t| in_own_network(t, libc::AF_INET, libc::IPPROTO_ICMP),
    ),
    Attempt::new(
        Tasks,
        "user-namespace-packet",
        "makes a user and a network namespace and opens a packet(7) socket in it",
        "seccomp of agentctl run; LSM socket_create (kernels with BPF LSM)",
        |t| in_own_network(t, libc::AF_PACKET, 0),
    )
    .needs_launch(super::families::MOVED),
    Attempt::new(Tasks, "cgroup-namespace", "probes from a cgroup namespace of its own", INHERITED, |t| {
        in_fork(t, |_| process::unshare(libc::CLONE_NEWCGROUP).at("unshare(CLONE_NEWCGROUP)"))
    })
    .root(),
    Attempt::new(Tasks, "chroot", "probes after chroot(2)", INHERITED, |t| {
        in_fork(t, |_| process::change_root(c"/proc").at("chroot"))
    })
    .root(),
    Attempt::new(Tasks, "uring-connect", "connects and sends by io_uring", URING, |t| uring(t, false)),
    Attempt::new(Tasks, "uring-socket", "makes the socket by io_uring too", URING, |t| uring(t, true)),
    Attempt::new(Tasks, "uring-udp", "sends UDP by io_uring", URING, uring_udp),
];

/// Prepares a forked child, probes in it, and takes over what it saw.
fn in_fork(tried: &mut Try, prepare: impl FnOnce(&mut Try) -> Attempted) -> Attempted {
    let (mut out, into) = io::pipe().at("pipe")?;
    let forked = process::in_fork(|| {
        let prepared = prepare(tried);
        if tried.note(prepared).is_some() {
            tried.probe();
        }
        let sent = serde_json::to_writer(&into, &tried.report).map_err(io::Error::from);
        u8::from(sent.is_err())
    });
    drop(into);
    forked.at("fork")?;
    let told = io::read_to_string(&mut out).at("read what the child saw")?;
    match serde_json::from_str(&told) {
        Ok(report) => {
            tried.report = report;
            Ok(())
        }
        Err(error) => Err(Stop::Absent(format!("the child ended without a word: {error}"))),
    }
}

/// Opens a raw socket as root of namespaces of its own: what it can be used for depends on who wires
/// them, so having it is what counts.
fn in_own_network(tried: &mut Try, domain: i32, protocol: i32) -> Attempted {
    process::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET).at("unshare")?;
    let _socket = sys::socket(domain, libc::SOCK_RAW, protocol).at("socket(SOCK_RAW)")?;
    tried.report.reached = Some(format!("a raw socket of family {domain} was made"));
    Ok(())
}

fn thread(tried: &mut Try) -> Attempted {
    std::thread::scope(|scope| scope.spawn(|| tried.probe()).join())
        .map_err(|_| io::ErrorKind::Other.into())
        .at("thread")
}

/// Runs another attempt in a program of its own, with the same orders.
fn exec(tried: &mut Try, attempt: &str) -> Attempted {
    let mut orders = tried.orders.clone();
    attempt.clone_into(&mut orders.attempt);
    orders.join = None;
    let argument = serde_json::to_string(&orders).map_err(io::Error::from).at("orders")?;
    let output = Command::new(&orders.program).args(["selftest-attempt", &argument]).output().at("execve")?;
    tried.report = serde_json::from_slice(&output.stdout).map_err(io::Error::from).at("its report")?;
    Ok(())
}

fn child_cgroup(tried: &mut Try) -> Attempted {
    let own = std::fs::read_to_string("/proc/self/cgroup").at("/proc/self/cgroup")?;
    let name = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default().to_owned();
    // Beside the cgroup outside stands the guarded one; both are below the same mount.
    let top = tried.orders.outside.ancestors().find(|at| at.join(&name).is_dir() && !name.is_empty());
    let own = top.map(|top| top.join(&name)).ok_or_else(|| Stop::Absent("its own cgroup".to_owned()))?;
    let below = own.join("below");
    std::fs::create_dir(&below).at("mkdir in its own cgroup")?;
    let done = in_fork(tried, |_| std::fs::write(below.join("cgroup.procs"), "0").at("enter it"));
    std::fs::remove_dir(&below).at("rmdir")?;
    done
}

fn uring(tried: &mut Try, socket_too: bool) -> Attempted {
    let mut ring = Ring::new().at("io_uring_setup")?;
    let socket = if socket_too {
        by_ring(&mut ring)?
    } else {
        sys::socket(libc::AF_INET, libc::SOCK_STREAM, 0).at("socket")?
    };
    let to = sys::sockaddr(tried.v4(80));
    let connect = ring::Request {
        operation: ring::CONNECT,
        fd: socket.as_raw_fd(),
        bytes: &to,
        len: 0,
        offset: to.len() as u64,
    };
    ring.run(&connect).at("io_uring connect")?;
    let request = tried.request("203.0.113.1");
    send_by_ring(&mut ring, &socket, &request)?;
    tried.hear(&socket)
}

fn by_ring(ring: &mut Ring) -> Result<OwnedFd, Stop> {
    let request = ring::Request {
        operation: ring::SOCKET,
        fd: libc::AF_INET,
        bytes: &[],
        len: 0,
        offset: u64::from(libc::SOCK_STREAM.unsigned_abs()),
    };
    let number = ring.run(&request).at("io_uring socket")?;
    sys::duplicate(number).at("the descriptor")
}

fn send_by_ring(ring: &mut Ring, socket: &OwnedFd, bytes: &[u8]) -> Attempted {
    let len = u32::try_from(bytes.len()).unwrap_or_default();
    let send = ring::Request { operation: ring::SEND, fd: socket.as_raw_fd(), bytes, len, offset: 0 };
    ring.run(&send).at("io_uring send").map(drop)
}

fn uring_udp(tried: &mut Try) -> Attempted {
    let mut ring = Ring::new().at("io_uring_setup")?;
    let socket = sys::socket(libc::AF_INET, libc::SOCK_DGRAM, 0).at("socket")?;
    let to: SocketAddr = tried.v4(9999);
    sys::connect(&socket, &sys::sockaddr(to)).at("connect")?;
    let payload = tried.payload();
    send_by_ring(&mut ring, &socket, &payload)
}
