//! What needs root or a capability.
//!
//! Some of it nothing stops, as the documentation says: a process with CAP_SYS_ADMIN or CAP_NET_ADMIN can
//! change the rules it is under. Those attempts are listed as not defended, with what tells of them.

use std::{
    fs,
    io::{self, Write as _},
    net::SocketAddr,
    process::{Command, Stdio},
};

use crate::selftest::{
    orders::{LISTENER_PORT, Stop},
    report::Family::Privilege,
    suite::Attempt,
    sys::{self, process},
    tried::{At as _, Attempted, Try},
};

const NETWORK: &str =
    "root with CAP_NET_ADMIN rewrites or copies packets below every hook; run agents as users";
const SYSTEM: &str = "root with CAP_SYS_ADMIN can move itself; run agents as users";
const TUNNEL: &str = "sendmsg4 and egress judge the inner packet; the outer one is the kernel's";

pub(super) const ATTEMPTS: &[Attempt] = &[
    Attempt::new(
        Privilege,
        "user-leaves-cgroup",
        "an ordinary user writes itself into another cgroup",
        "the cgroup's owner is root: EACCES",
        |t| leave(t, true),
    )
    .user(),
    Attempt::new(
        Privilege,
        "user-enters-world",
        "an ordinary user enters another network namespace",
        "setns(2) wants CAP_SYS_ADMIN",
        |t| enter_world(t, true),
    )
    .user(),
    Attempt::new(
        Privilege,
        "root-leaves-cgroup",
        "writes itself into another cgroup",
        "nothing for root; the sentry records it",
        |t| leave(t, false),
    )
    .root()
    .undefended(SYSTEM),
    Attempt::new(
        Privilege,
        "root-enters-world",
        "enters the network namespace of the world and connects there",
        "connect4 refuses sockets of namespaces in which the gate has no doors",
        |t| enter_world(t, false),
    )
    .root(),
    Attempt::new(
        Privilege,
        "root-unshares-network",
        "makes a network namespace, wires it to the host's and connects from it",
        "connect4 refuses sockets of namespaces in which the gate has no doors",
        |t| wired(t, false),
    )
    .root()
    .undo(&["ip link delete agst0", "sysctl -q -w net.ipv4.ip_forward=0"]),
    Attempt::new(
        Privilege,
        "root-unshares-network-raw",
        "the same, with a raw socket made there",
        "sock_create refuses raw sockets in every namespace",
        |t| wired(t, true),
    )
    .root()
    .undo(&["ip link delete agst0", "sysctl -q -w net.ipv4.ip_forward=0"]),
    Attempt::new(Privilege, "root-gre", "makes a GRE tunnel and sends into it", TUNNEL, |t| tunnel(t, "gre"))
        .root()
        .undo(&["ip link delete agst1"]),
    Attempt::new(Privilege, "root-ipip", "makes an IPIP tunnel and sends into it", TUNNEL, |t| {
        tunnel(t, "ipip")
    })
    .root()
    .undo(&["ip link delete agst1"]),
    Attempt::new(Privilege, "root-vxlan", "makes a VXLAN and sends into it", TUNNEL, |t| tunnel(t, "vxlan"))
        .root()
        .undo(&["ip link delete agst1"]),
    Attempt::new(Privilege, "root-wireguard", "makes a WireGuard tunnel and sends into it", TUNNEL, |t| {
        tunnel(t, "wireguard")
    })
    .root()
    .undo(&["ip link delete agst1"]),
    Attempt::new(
        Privilege,
        "root-tun",
        "puts packets into the host by a tun device, which forwards them",
        "nothing for root: forwarded packets have no socket",
        tun,
    )
    .root()
    .undefended(NETWORK)
    .undo(&["ip link delete agst2", "sysctl -q -w net.ipv4.ip_forward=0"]),
    Attempt::new(
        Privilege,
        "root-nft-redirect",
        "sends the way to the listener elsewhere by nftables",
        "egress drops TCP on its way out that was not redirected",
        nft,
    )
    .root()
    .undo(&["nft delete table ip agst"]),
    Attempt::new(
        Privilege,
        "root-tc-mirror",
        "copies loopback's packets to the wire by tc",
        "nothing for root: the copy has passed every hook",
        tc,
    )
    .root()
    .undefended(NETWORK)
    .undo(&["tc qdisc delete dev lo clsact"]),
    Attempt::new(
        Privilege,
        "root-route-to-wire",
        "routes the listener's own address to the wire",
        "loopback addresses do not leave by another interface; egress drops what would",
        route,
    )
    .root()
    .undo(&["ip route delete table 77 default", "ip rule delete priority 1"]),
    Attempt::new(
        Privilege,
        "root-mptcp-join",
        "has its own MPTCP server announce an address outside, which the kernel then joins by itself",
        "egress drops TCP on its way out that was not redirected",
        join_elsewhere,
    )
    .root()
    .undo(&["ip mptcp endpoint flush", "ip mptcp limits set subflows 2 add_addr_accepted 0"]),
];

/// Runs a program of the host's; `Absent` where there is none.
fn run(program: &str, arguments: &[&str], input: &str) -> Attempted {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Stop::Absent(format!("{program} is not installed")));
        }
        other => other.at(program)?,
    };
    if let Some(mut pipe) = child.stdin.take() {
        pipe.write_all(input.as_bytes()).at("tell it what to do")?;
    }
    let output = child.wait_with_output().at(program)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Stop::Refused { call: format!("{program} {}", arguments.join(" ")), error: said, errno: 0 })
}

/// Leaves the cgroup, or tries to, and probes.
fn leave(tried: &mut Try, user: bool) -> Attempted {
    let procs = tried.orders.outside.join("cgroup.procs");
    let left = fs::write(procs, "0").at("write cgroup.procs");
    tried.note(left);
    // Outside an ordinary user may not either, and is where it wanted to be.
    tried.saw(if user { "as a user" } else { "as root" });
    tried.probe();
    if tried.orders.guarded && !user {
        // The sentry looks every second: one that stays is found.
        return tried.stay(2500);
    }
    Ok(())
}

fn enter_world(tried: &mut Try, user: bool) -> Attempted {
    let opened = fs::File::open(&tried.orders.world).at("open /proc/PID/ns/net");
    let entered = opened.and_then(|namespace| process::enter_network(&namespace).at("setns"));
    let inside = tried.note(entered).is_some();
    if inside || user {
        tried.probe();
        return Ok(());
    }
    Ok(())
}

/// A veth pair from a namespace of its own into the host's, which forwards.
fn wired(tried: &mut Try, raw: bool) -> Attempted {
    let pid = std::process::id().to_string();
    let host = fs::File::open("/proc/self/ns/net").at("/proc/self/ns/net")?;
    process::unshare(libc::CLONE_NEWNET).at("unshare(CLONE_NEWNET)")?;
    let inner = fs::File::open("/proc/self/ns/net").at("/proc/self/ns/net")?;
    process::enter_network(&host).at("setns back")?;
    let id = std::os::fd::AsRawFd::as_raw_fd(&inner);
    run("sysctl", &["-q", "-w", "net.ipv4.ip_forward=1"], "")?;
    run("ip", &["link", "add", "agst0", "type", "veth", "peer", "name", "agst9"], "")?;
    run("ip", &["link", "set", "agst9", "netns", &format!("/proc/{pid}/fd/{id}")], "")?;
    run("ip", &["-batch", "-"], "link set agst0 up\naddr add 192.0.3.1/24 dev agst0\n")?;
    process::enter_network(&inner).at("setns")?;
    run(
        "ip",
        &["-batch", "-"],
        "link set lo up\nlink set agst9 up\naddr add 192.0.3.2/24 dev agst9\nroute add default via 192.0.3.1\n",
    )?;
    if raw {
        // Until the neighbour is known a packet waits, and would go down with the namespace.
        let met = tried.tcp(SocketAddr::from(([192, 0, 3, 1], 9)));
        tried.note(met);
        let socket = sys::socket(libc::AF_INET, libc::SOCK_RAW, 253).at("socket(SOCK_RAW)")?;
        return sys::send_to(&socket, &tried.payload(), 0, &sys::sockaddr(tried.v4(0)))
            .at("sendto")
            .map(drop);
    }
    for done in [tried.tcp(tried.v4(80)), tried.udp(tried.v4(9999))] {
        tried.note(done);
    }
    Ok(())
}

/// A tunnel to this run's address, with everything of a private network routed into it.
fn tunnel(tried: &mut Try, kind: &str) -> Attempted {
    let to = tried.orders.v4.to_string();
    let mut make = vec!["link", "add", "agst1", "type", kind];
    match kind {
        "vxlan" => make.extend(["id", "7", "remote", &to, "dstport", "4789", "dev", "gate0"]),
        "wireguard" => {}
        _ => make.extend(["remote", &to, "local", "192.0.2.1"]),
    }
    run("ip", &make, "")?;
    // Or the kernel greets its neighbours through it, by itself and at times of its own.
    run("sysctl", &["-q", "-w", "net.ipv6.conf.agst1.disable_ipv6=1"], "")?;
    if kind == "wireguard" {
        // Without wg(8) no peer can be named by command: that it can be made is noted, and no more.
        run("wg", &["show", "agst1"], "")?;
    }
    run("ip", &["-batch", "-"], "link set agst1 up\naddr add 192.0.3.1/24 dev agst1\nneigh add 192.0.3.2 lladdr 02:00:00:00:00:07 dev agst1\n")
        .or_else(|_| run("ip", &["-batch", "-"], "link set agst1 up\naddr replace 192.0.3.1/24 dev agst1\n"))?;
    let inside = SocketAddr::from(([192, 0, 3, 2], 9999));
    for done in [tried.udp(inside), tried.tcp(inside)] {
        tried.note(done);
    }
    Ok(())
}

fn tun(tried: &mut Try) -> Attempted {
    let mut device =
        fs::File::options().read(true).write(true).open("/dev/net/tun").at("open /dev/net/tun")?;
    process::make_tun(&device, c"agst2").at("TUNSETIFF")?;
    run("ip", &["-batch", "-"], "link set agst2 up\naddr add 192.0.3.1/24 dev agst2\n")?;
    run("sysctl", &["-q", "-w", "net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=0"], "")?;
    let payload = tried.payload();
    let length = u16::try_from(20 + payload.len()).unwrap_or_default().to_be_bytes();
    let mut packet = vec![0x45, 0, length[0], length[1], 0, 1, 0, 0, 64, 253, 0, 0, 192, 0, 3, 2];
    packet.extend(tried.orders.v4.octets());
    let sum = checksum(&packet).to_be_bytes();
    packet[10..12].copy_from_slice(&sum);
    packet.extend(payload);
    device.write_all(&packet).at("write a packet")
}

/// Of an IPv4 header (RFC 1071).
fn checksum(header: &[u8]) -> u16 {
    let sum: u32 = header.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap_or_default()
}

/// Where the listener is, this run's address is to be.
fn nft(tried: &mut Try) -> Attempted {
    let to = tried.orders.v4;
    let rules = format!(
        "add table ip agst\n\
         add chain ip agst out {{ type nat hook output priority -100; }}\n\
         add rule ip agst out tcp dport {LISTENER_PORT} dnat to {to}:80\n\
         add chain ip agst post {{ type nat hook postrouting priority 100; }}\n\
         add rule ip agst post ip daddr {to} masquerade\n"
    );
    run("nft", &["-f", "-"], &rules)?;
    for port in [LISTENER_PORT, 80] {
        let target = if port == 80 { tried.v4(80) } else { SocketAddr::from(([127, 0, 0, 1], port)) };
        let done = tried.tcp(target);
        tried.note(done);
    }
    Ok(())
}

fn tc(tried: &mut Try) -> Attempted {
    run("tc", &["qdisc", "add", "dev", "lo", "clsact"], "")?;
    run(
        "tc",
        &[
            "filter", "add", "dev", "lo", "egress", "matchall", "action", "mirred", "egress", "mirror",
            "dev", "gate0",
        ],
        "",
    )?;
    // To the gate, or outside to the relay: either way over loopback.
    let to = if tried.orders.guarded {
        tried.v4(80)
    } else {
        SocketAddr::from(([127, 0, 0, 1], crate::selftest::orders::RELAY_PORT))
    };
    tried.tcp(to)
}

/// A connection within loopback that grows a second path: no call of the agent's names its address.
fn join_elsewhere(tried: &mut Try) -> Attempted {
    let announced = tried.orders.v4.to_string();
    run("ip", &["mptcp", "limits", "set", "subflows", "4", "add_addr_accepted", "4"], "")?;
    run("ip", &["mptcp", "endpoint", "add", &announced, "signal"], "")?;
    let make = || sys::socket(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_MPTCP).at("socket(MPTCP)");
    let server = make()?;
    sys::bind(&server, &sys::sockaddr(SocketAddr::from(([127, 0, 0, 1], 0)))).at("bind")?;
    sys::listen(&server).at("listen")?;
    let port = sys::local_port(&server).at("getsockname")?;
    let client = make()?;
    sys::connect(&client, &sys::sockaddr(SocketAddr::from(([127, 0, 0, 1], port)))).at("connect")?;
    let peer = sys::accept(&server).at("accept")?;
    // Both ends have to hear of each other before a path is added.
    let mut said = [0; 64];
    for (from, to) in [(&client, &peer), (&peer, &client)] {
        sys::send(from, &tried.payload(), 0).at("send")?;
        sys::receive(to, &mut said).at("recv")?;
    }
    sys::readable(&client, 700).at("poll")?;
    Ok(())
}

/// Policy routing before the local table, for what is sent to the listener's address.
fn route(tried: &mut Try) -> Attempted {
    run(
        "ip",
        &["-batch", "-"],
        "route add default via 192.0.2.2 table 77\nrule add priority 1 to 127.0.0.1 table 77\n",
    )?;
    for to in [tried.v4(80), SocketAddr::from(([127, 0, 0, 1], LISTENER_PORT))] {
        let done = tried.tcp(to);
        tried.note(done);
    }
    Ok(())
}
