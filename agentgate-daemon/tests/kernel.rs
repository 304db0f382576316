//! The real programs on a real cgroup, attacked.
#![expect(unsafe_code, reason = "unshare(2) in the lab")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "kernel/connected.rs"]
mod connected;
#[path = "kernel/datagrams.rs"]
mod datagrams;
#[path = "kernel/lab.rs"]
mod lab;
#[path = "kernel/leftovers.rs"]
mod leftovers;
#[path = "kernel/namespaces.rs"]
mod namespaces;
#[path = "kernel/own.rs"]
mod own;
#[path = "kernel/sources.rs"]
mod sources;
#[path = "kernel/tallies.rs"]
mod tallies;

use std::{
    net::{IpAddr, SocketAddr, TcpListener},
    os::unix::fs::MetadataExt,
};

use agentgate::{
    kernel::{AgentEnd, Attached, GuardedCgroup, Kernel, KernelError, Options, attached_programs, detach},
    model::flow::{comm, socket_addr},
    session::Sessions,
};
use agentgate_common::{event::Hook, settings::Settings, verdict::Denial};
use lab::{LISTENER, Lab, OPENED, RESOLVER, Resolver, in_namespaces, run};
use serde_json::json;

#[test]
#[ignore = "needs root; run by cargo xtask test"]
fn tcp_comes_to_the_listener_with_its_flow() {
    in_namespaces(|lab| {
        let kernel = lab.start();
        let [v4, v6] = lab.listeners();
        let rows = [
            ("connect(('203.0.113.7', 443))", "203.0.113.7:443", "203.0.113.7", &v4),
            ("connect6(('2001:db8::7', 443))", "[2001:db8::7]:443", "2001:db8::7", &v6),
            ("connect6(('::ffff:203.0.113.7', 443))", "203.0.113.7:443", "::ffff:203.0.113.7", &v4),
            ("connect(('203.0.113.8', 8443), protocol=262)", "203.0.113.8:8443", "203.0.113.8", &v4),
            ("connect6(('2001:db8::8', 8443), protocol=262)", "[2001:db8::8]:8443", "2001:db8::8", &v6),
        ];
        for (call, original, shown, listener) in rows {
            let (seen, pid) = lab.agent(&format!("show(peer={call}, uid=os.getuid())"));
            let (stream, peer) = listener.accept().unwrap();
            drop(stream);
            let flow = lab.taken(&kernel, peer).unwrap_or_else(|| panic!("{call}: no flow of {peer}"));
            assert_eq!(flow.session, flow.cgroup, "{call}");
            assert_eq!(flow.original.0, original.parse().unwrap(), "{call}");
            assert_eq!(seen["peer"], json!([shown, flow.original.0.port()]), "{call}");
            assert_eq!(flow.pid, pid, "{call}");
            assert_eq!(flow.comm, "python3", "{call}");
            assert!(flow.cookie != 0 && flow.connected_ns != 0, "{call}");
            assert_eq!(lab.taken(&kernel, peer), None, "{call}: read once");
        }
    });
}

/// What an agent tries, what it should see, and how often which hook should have refused.
#[test]
#[ignore = "needs root; run by cargo xtask test"]
fn what_cannot_be_judged_is_refused() {
    in_namespaces(|lab| {
        let kernel = lab.start();
        let [v4, _v6] = lab.listeners();
        let opened = TcpListener::bind(("127.0.0.1", OPENED)).unwrap();
        let rows: &[(&str, &str, Refusal)] = &[
            (
                "gate port",
                "connect(('127.0.0.1', 7879))",
                (Hook::Connect4, Denial::GatePort, "127.0.0.1:7879"),
            ),
            (
                "dashboard",
                "connect(('127.0.0.1', 7878))",
                (Hook::Connect4, Denial::GatePort, "127.0.0.1:7878"),
            ),
            (
                "gate 0.0.0.0",
                "connect(('0.0.0.0', 7879))",
                (Hook::Connect4, Denial::GatePort, "0.0.0.0:7879"),
            ),
            (
                "gate 127.1",
                "connect(('127.1.2.3', 7878))",
                (Hook::Connect4, Denial::GatePort, "127.1.2.3:7878"),
            ),
            ("gate ::", "connect6(('::', 7879))", (Hook::Connect6, Denial::GatePort, "[::]:7879")),
            ("gate ::1", "connect6(('::1', 7878))", (Hook::Connect6, Denial::GatePort, "[::1]:7878")),
            (
                "gate mapped",
                "connect6(('::ffff:127.0.0.1', 7878))",
                (Hook::Connect6, Denial::GatePort, "127.0.0.1:7878"),
            ),
            (
                "gate MPTCP",
                "connect(('127.0.0.1', 7879), protocol=262)",
                (Hook::Connect4, Denial::GatePort, "127.0.0.1:7879"),
            ),
            (
                "loopback",
                "connect(('127.0.0.1', 8080))",
                (Hook::Connect4, Denial::Loopback, "127.0.0.1:8080"),
            ),
            ("loopback 0", "connect(('0.0.0.0', 8080))", (Hook::Connect4, Denial::Loopback, "0.0.0.0:8080")),
            ("loopback ::1", "connect6(('::1', 8080))", (Hook::Connect6, Denial::Loopback, "[::1]:8080")),
            ("udp", "sendto(('203.0.113.7', 443))", (Hook::SendMsg4, Denial::Udp, "203.0.113.7:443")),
            (
                "udp loopback",
                "sendto(('127.0.0.1', 5432))",
                (Hook::SendMsg4, Denial::Loopback, "127.0.0.1:5432"),
            ),
            (
                "udp resolver",
                "sendto(('127.0.0.1', 5353))",
                (Hook::SendMsg4, Denial::GatePort, "127.0.0.1:5353"),
            ),
            ("dot", "connect(('203.0.113.7', 853))", (Hook::Connect4, Denial::DnsOverTls, "203.0.113.7:853")),
            ("dot ::1", "connect6(('::1', 853))", (Hook::Connect6, Denial::DnsOverTls, "[::1]:853")),
            ("doq", "sendto(('203.0.113.7', 853))", (Hook::SendMsg4, Denial::Udp, "203.0.113.7:853")),
            (
                "udp multicast",
                "sendto(('224.0.0.251', 5353))",
                (Hook::SendMsg4, Denial::Udp, "224.0.0.251:5353"),
            ),
            (
                "udp v6",
                "sendto(('2001:db8::7', 443), socket.AF_INET6)",
                (Hook::SendMsg6, Denial::Udp, "[2001:db8::7]:443"),
            ),
            (
                "udp mapped",
                "sendto(('::ffff:203.0.113.7', 443), socket.AF_INET6)",
                (Hook::SendMsg4, Denial::Udp, "203.0.113.7:443"),
            ),
            (
                "udp connect",
                "ask(('127.0.0.1', 443), connected=True)",
                (Hook::Egress, Denial::Loopback, "127.0.0.1:443"),
            ),
            (
                "udp connect v6",
                "ask(('::1', 443), socket.AF_INET6, True)",
                (Hook::Egress, Denial::Loopback, "[::1]:443"),
            ),
            (
                "raw",
                "make(socket.AF_INET, socket.SOCK_RAW, 6)",
                (Hook::SockCreate, Denial::SocketType, "[::]:0"),
            ),
            (
                "ping",
                "make(socket.AF_INET, socket.SOCK_DGRAM, 1)",
                (Hook::SockCreate, Denial::SocketType, "[::]:0"),
            ),
            (
                "ping6",
                "make(socket.AF_INET6, socket.SOCK_DGRAM, 58)",
                (Hook::SockCreate, Denial::SocketType, "[::]:0"),
            ),
            (
                "lite",
                "make(socket.AF_INET, socket.SOCK_DGRAM, 136)",
                (Hook::SockCreate, Denial::SocketType, "[::]:0"),
            ),
            (
                "lite6",
                "make(socket.AF_INET6, socket.SOCK_DGRAM, 136)",
                (Hook::SockCreate, Denial::SocketType, "[::]:0"),
            ),
        ];
        // Pings are for everyone here, so that the kernel's own refusal cannot stand in for ours.
        run("sh", &["-c", "echo 0 0 > /proc/sys/net/ipv4/ping_group_range"]);
        let script: String = rows.iter().map(|(_, call, _)| format!("r.append({call})\n")).collect();
        let (seen, pid) = lab.agent(&format!("r = []\n{script}show(seen=r)"));
        for ((name, ..), seen) in rows.iter().zip(seen["seen"].as_array().unwrap()) {
            assert_eq!(seen, "EPERM", "{name}");
        }
        // What policy opens passes without the gate.
        let (seen, _) = lab.agent("show(peer=connect(('127.0.0.1', 5432)))");
        assert_eq!(seen["peer"], json!(["127.0.0.1", OPENED]));
        drop(opened.accept().unwrap());
        assert!(v4.set_nonblocking(true).is_ok() && v4.accept().is_err(), "nothing came to the listener");

        let events = lab::events(&kernel, rows.len());
        assert_eq!(events.len(), rows.len());
        for ((name, _, (hook, denial, destination)), event) in rows.iter().zip(&events) {
            assert_eq!(Hook::from_u8(event.hook), Some(*hook), "{name}");
            assert_eq!(Denial::from_u8(event.denial), Some(*denial), "{name}");
            let destination: SocketAddr = destination.parse().unwrap();
            assert_eq!(socket_addr(&event.destination), destination, "{name}");
            assert_eq!(event.task.pid, pid, "{name}");
            assert_eq!(event.task.uid, 0, "{name}");
            assert_eq!(comm(&event.task.comm), "python3", "{name}");
            assert!(event.at_ns > 0 && event.task.cgroup != 0, "{name}");
        }
        assert!(events.iter().any(|event| event.protocol == 136 && event.kind == 2 && event.family == 10));
        assert_eq!(lab.counted(&kernel, "connect4", "gate_port"), 5);
        assert_eq!(lab.counted(&kernel, "sock_create", "socket_type"), 5);
        assert_eq!(lab.counted(&kernel, "connect4", "listed"), 1);
        assert_eq!(kernel.lost_events().unwrap(), 0);
        lab.balanced(&kernel);
        assert!(lab::log().contains("refused: hook 1, denial 1, protocol 6, port 7879"), "{}", lab::log());
    });
}

#[test]
#[ignore = "needs root; run by cargo xtask test"]
fn dns_goes_to_the_resolver_and_seems_to_come_from_where_it_was_sent() {
    in_namespaces(|lab| {
        let kernel = lab.start();
        let resolvers =
            ["127.0.0.1:5353", "[::1]:5353"].map(|address| Resolver::start(address.parse().unwrap()));
        let over_tcp = TcpListener::bind(("127.0.0.1", RESOLVER)).unwrap();
        let rows = [
            ("ask(('8.8.8.8', 53))", "8.8.8.8"),
            ("ask(('127.0.0.53', 53))", "127.0.0.53"),
            ("ask(('8.8.4.4', 53), connected=True)", "8.8.4.4"),
            ("ask(('2001:4860:4860::8888', 53), socket.AF_INET6)", "2001:4860:4860::8888"),
            ("ask(('2001:4860:4860::8888', 53), socket.AF_INET6, True)", "2001:4860:4860::8888"),
            ("ask(('::ffff:8.8.8.8', 53), socket.AF_INET6)", "::ffff:8.8.8.8"),
            ("ask(('::ffff:8.8.8.8', 53), socket.AF_INET6, True)", "::ffff:8.8.8.8"),
        ];
        let session = std::fs::metadata(lab.session("run-1.scope")).unwrap().ino();
        for (call, address) in rows {
            let (seen, pid) = lab.agent(&format!("show(seen={call})"));
            assert_eq!(seen["seen"], json!(["answer", [address, 53]]), "{call}");
            let askers: Vec<_> = resolvers.iter().flat_map(Resolver::askers).collect();
            let [end] = askers.as_slice() else { panic!("{call}: {askers:?}") };
            let asker = kernel.asker(*end).unwrap().unwrap_or_else(|| panic!("{call}: nobody asked"));
            let meant = SocketAddr::new(address.parse::<IpAddr>().unwrap().to_canonical(), 53);
            assert_eq!((asker.original.0, asker.pid, asker.session), (meant, pid, session), "{call}");
            assert!(asker.cookie != 0 && asker.netns != 0 && asker.connected_ns != 0, "{call}");
            assert_eq!(asker.comm, "python3", "{call}");
            assert_eq!(kernel.asker(*end).unwrap(), Some(asker), "{call}: it stays");
            let elsewhere = AgentEnd { door: LISTENER, ..*end };
            assert_eq!(kernel.asker(elsewhere).unwrap(), None, "{call}: of another door");
        }
        // One socket asks two servers, as musl does; and connects after it asked another.
        let (seen, _) = lab.agent(
            "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
             s.settimeout(5)\n\
             seen = []\n\
             for a in ('1.1.1.1', '9.9.9.9'):\n\
             \x20   s.sendto(b'question', (a, 53))\n\
             \x20   seen.append(s.recvfrom(100)[1][0])\n\
             s.connect(('8.8.8.8', 53))\n\
             s.send(b'question')\n\
             seen.append(s.recvfrom(100)[1][0])\n\
             show(seen=seen)",
        );
        assert_eq!(seen["seen"], json!(["1.1.1.1", "9.9.9.9", "8.8.8.8"]));
        let askers = resolvers[0].askers();
        let last = kernel.asker(*askers.last().unwrap()).unwrap().unwrap();
        assert_eq!((askers.len(), last.original.0), (3, "8.8.8.8:53".parse().unwrap()));
        let (seen, _) = lab.agent("show(peer=connect(('8.8.8.8', 53)))");
        assert_eq!(seen["peer"], json!(["8.8.8.8", 53]));
        let (_, peer) = over_tcp.accept().unwrap();
        assert_eq!(lab.taken(&kernel, peer), None, "no flow of the listener's");
        let end = AgentEnd { netns: None, peer, door: RESOLVER };
        let flow = kernel.take_flow(end).unwrap().expect("a flow of the resolver's");
        assert_eq!(flow.original.0, "8.8.8.8:53".parse().unwrap());

        // Without a resolver names are refused.
        kernel.configure(&Settings { dns_port: 0, ..lab.settings() }).unwrap();
        let (seen, _) = lab.agent(
            "show(v4=ask(('8.8.8.8', 53)), c4=ask(('8.8.8.8', 53), connected=True), \
             v6=ask(('2001:db8::1', 53), socket.AF_INET6), t4=connect(('8.8.8.8', 53)))",
        );
        assert_eq!(seen, json!({"v4": "EPERM", "c4": "EPERM", "v6": "EPERM", "t4": "EPERM"}));
        drop(resolvers);
    });
}

#[test]
#[ignore = "needs root; run by cargo xtask test"]
fn a_flow_never_names_an_older_destination() {
    in_namespaces(|lab| {
        let kernel = lab.start();
        let [v4, _v6] = lab.listeners();
        // The same source port, again and again: a failed attempt, AF_UNSPEC, a repeated connect(2)
        // elsewhere while connecting, Fast Open, a deferred Fast Open, bound to an address.
        let (seen, _) = lab.agent(
            "import select, ctypes\n\
             libc = ctypes.CDLL(None, use_errno=True)\n\
             def bound():\n\
             \x20   s = socket.socket()\n\
             \x20   s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n\
             \x20   s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))\n\
             \x20   s.settimeout(5)\n\
             \x20   s.bind(('127.0.0.1', 40000))\n\
             \x20   return s\n\
             seen = []\n\
             s = bound()\n\
             seen.append(attempt(s.connect, ('127.0.0.1', 8080)))\n\
             seen.append(attempt(s.connect, ('203.0.113.1', 1)))\n\
             unspec = struct.pack('H14x', 0)\n\
             seen.append(libc.connect(s.fileno(), unspec, 16))\n\
             seen.append(attempt(s.connect, ('203.0.113.2', 2)))\n\
             s.close()\n\
             s = bound()\n\
             s.setblocking(False)\n\
             s.connect_ex(('203.0.113.3', 3))\n\
             s.connect_ex(('203.0.113.33', 33))\n\
             select.select([], [s], [], 5)\n\
             seen.append(s.getpeername()[:2])\n\
             s.close()\n\
             s = bound()\n\
             s.settimeout(None)\n\
             s.sendto(b'early', 0x20000000, ('203.0.113.4', 4))\n\
             seen.append(s.getpeername()[:2])\n\
             s.close()\n\
             s = bound()\n\
             s.setsockopt(socket.IPPROTO_TCP, 30, 1)\n\
             s.connect(('203.0.113.5', 5))\n\
             s.send(b'late')\n\
             seen.append(s.getpeername()[:2])\n\
             s.close()\n\
             show(seen=seen)",
        );
        let expect =
            json!(["EPERM", "ok", 0, "ok", ["203.0.113.3", 3], ["203.0.113.4", 4], ["203.0.113.5", 5]]);
        assert_eq!(seen["seen"], expect);
        // All five came from the same address: each flow replaced the one before, so the last is
        // what is found, and only once.
        let mut found = Vec::new();
        for _ in 0..5 {
            let (_, peer) = v4.accept().unwrap();
            assert_eq!(peer, "127.0.0.1:40000".parse().unwrap());
            found.extend(lab.taken(&kernel, peer).map(|flow| flow.original.0.port()));
        }
        assert_eq!(found, [5]);
        assert_eq!(lab.counted(&kernel, "sock_ops", "listener"), 5);
        assert_eq!(lab.counted(&kernel, "sock_ops", "replaced"), 4, "flows that nobody took");
        lab.balanced(&kernel);
        // A connection that passes the gate by leaves no flow of the socket's earlier attempt.
        let opened = TcpListener::bind(("127.0.0.1", OPENED)).unwrap();
        kernel.configure(&Settings { listener_port: 9, ..lab.settings() }).unwrap();
        let (seen, _) = lab.agent(
            "s = socket.socket()\n\
             first = attempt(s.connect, ('203.0.113.6', 6))\n\
             s.connect(('127.0.0.1', 5432))\n\
             show(first=first, peer=s.getpeername()[1], own=s.getsockname()[1])",
        );
        assert_eq!((&seen["first"], &seen["peer"]), (&json!("ECONNREFUSED"), &json!(OPENED)));
        let (_, peer) = opened.accept().unwrap();
        assert_eq!(json!(peer.port()), seen["own"]);
        assert_eq!(lab.taken(&kernel, peer), None);
    });
}

#[test]
#[ignore = "needs root; run by cargo xtask test"]
fn who_is_guarded_and_who_is_not() {
    in_namespaces(|lab| {
        let kernel = lab.start();
        let [v4, _v6] = lab.listeners();
        let free = TcpListener::bind(("127.0.0.1", 8080)).unwrap();
        // Outside: nothing is changed.
        let (seen, _) =
            lab.process(None, "show(peer=connect(('127.0.0.1', 8080)), far=connect(('203.0.113.7', 1)))");
        assert_eq!(seen, json!({"peer": ["127.0.0.1", 8080], "far": "ENETUNREACH"}));
        drop(free);
        // The guarded cgroup itself, and a user who is not root, with a process that moved away.
        let (_, pid) = lab.process(Some(&lab.options.cgroup), "show(peer=connect(('203.0.113.7', 1)))");
        let flow = lab.taken(&kernel, v4.accept().unwrap().1).unwrap();
        assert_eq!((flow.pid, flow.uid), (pid, 0));
        let (seen, _) = lab.agent(
            "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n\
             show(peer=connect(('203.0.113.7', 2)), gate=connect(('127.0.0.1', 7879)))",
        );
        assert_eq!(seen, json!({"peer": ["203.0.113.7", 2], "gate": "EPERM"}));
        let flow = lab.taken(&kernel, v4.accept().unwrap().1).unwrap();
        assert_eq!((flow.uid, flow.gid, flow.original.0.port()), (65534, 65534, 2));
        let sessions = Sessions::new(GuardedCgroup::find(lab.options.cgroup.to_str().unwrap()).unwrap());
        let subject = sessions.subject(&flow);
        assert!(subject.session.0.starts_with("run-1.scope@"), "{subject:?}");
        assert_eq!(subject.session.0.split_once('@').unwrap().1, flow.cgroup.to_string());
        // A network namespace of its own, where another listener could wait.
        let (seen, _) = lab.agent(
            "import ctypes, fcntl\n\
             libc = ctypes.CDLL(None)\n\
             unshared = libc.unshare(0x40000000)\n\
             s = socket.socket()\n\
             fcntl.ioctl(s, 0x8914, struct.pack('16sH14x', b'lo', 1))\n\
             l = socket.socket()\n\
             show(unshared=unshared, bind=attempt(l.bind, ('127.0.0.1', 7879)), peer=connect(('203.0.113.7', 3)), dns=ask(('8.8.8.8', 53)))",
        );
        assert_eq!(seen, json!({"unshared": 0, "bind": "EPERM", "peer": "EPERM", "dns": "EPERM"}));
        assert_eq!(lab.counted(&kernel, "connect4", "namespace"), 1);
        assert_eq!(lab.counted(&kernel, "sendmsg4", "namespace"), 1);
    });
}

#[test]
#[ignore = "needs root; run by cargo xtask test"]
fn nothing_leaves_by_an_interface() {
    in_namespaces(|lab| {
        run("ip", &["link", "add", "v0", "type", "veth", "peer", "name", "v1"]);
        run("ip", &["addr", "add", "198.51.100.1/24", "dev", "v0"]);
        run("ip", &["link", "set", "v0", "up"]);
        run("ip", &["link", "set", "v1", "up"]);
        for host in ["198.51.100.53", "198.51.100.66"] {
            run("ip", &["neigh", "add", host, "lladdr", "02:00:00:00:00:01", "dev", "v0"]);
        }
        run("ip", &["route", "add", "default", "via", "198.51.100.66"]);
        let kernel = lab.start();
        // DNS stays on the host. With a source route, which would carry it to another host, it may not
        // leave; nor may a socket that is bound to the interface, or a datagram that is sent by it.
        let _resolver = Resolver::start("127.0.0.1:5353".parse().unwrap());
        let (seen, _) = lab.agent(
            "def routed(connected):\n\
             \x20   s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
             \x20   s.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, bytes([131, 7, 4, 198, 51, 100, 66, 0]))\n\
             \x20   if connected: s.connect(('8.8.8.8', 53)); return s.send(b'secret')\n\
             \x20   return s.sendto(b'secret', ('8.8.8.8', 53))\n\
             def device():\n\
             \x20   s = socket.socket()\n\
             \x20   s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'v0')\n\
             \x20   s.settimeout(5)\n\
             \x20   s.connect(('203.0.113.7', 443))\n\
             def datagram(connected):\n\
             \x20   s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
             \x20   s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'v0')\n\
             \x20   if connected: return s.connect(('8.8.8.8', 53))\n\
             \x20   return s.sendto(b'secret', ('8.8.8.8', 53))\n\
             def later():\n\
             \x20   s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
             \x20   s.sendto(b'question', ('8.8.8.8', 53))\n\
             \x20   s.setsockopt(socket.IPPROTO_IP, 50, struct.pack('!I', socket.if_nametoindex('v0')))\n\
             \x20   return s.sendto(b'secret', ('8.8.8.8', 53))\n\
             show(plain=ask(('8.8.8.8', 53)), routed=attempt(routed, False), \
             connected=attempt(routed, True), device=attempt(device), datagram=attempt(datagram, False), \
             associated=attempt(datagram, True), later=attempt(later))",
        );
        assert_eq!(seen["plain"], json!(["answer", ["8.8.8.8", 53]]));
        // The kernel finds no route for that one.
        assert_eq!(seen["connected"], "EINVAL");
        for way in ["routed", "device", "datagram", "associated", "later"] {
            assert_eq!(seen[way], "EPERM", "{way}");
        }
        assert_eq!(lab.counted(&kernel, "egress", "resolver"), 2);
        assert_eq!(lab.counted(&kernel, "egress", "egress"), 1);
        assert_eq!(lab.counted(&kernel, "egress", "udp"), 1);
        assert_eq!(lab.counted(&kernel, "connect4", "device"), 2);
        assert_eq!(lab.counted(&kernel, "sendmsg4", "device"), 1);
        let events = lab::events(&kernel, 5);
        let hooks: Vec<_> = events.iter().map(|event| Hook::from_u8(event.hook).unwrap()).collect();
        assert_eq!(hooks, [Hook::Egress, Hook::Connect4, Hook::SendMsg4, Hook::Connect4, Hook::Egress]);
        let first = events.first().unwrap();
        assert_eq!(socket_addr(&first.destination).ip().to_string(), "198.51.100.66");
        assert!(first.task.cgroup != 0);
    });
}

#[test]
#[ignore = "needs root; run by cargo xtask test"]
fn a_restart_leaves_no_gap() {
    in_namespaces(|lab| {
        let first = lab.start();
        let second = Attached::start(&lab.options);
        assert!(matches!(second, Err(KernelError::AlreadyGuarded { .. })), "{second:?}");
        // Other pins do not make another guard of the same cgroup.
        let elsewhere =
            Options { pin_dir: lab.options.pin_dir.with_file_name("elsewhere"), ..lab.options.clone() };
        let third = Attached::start(&elsewhere);
        assert!(matches!(third, Err(KernelError::AlreadyGuarded { .. })), "{third:?}");
        assert!(!elsewhere.pin_dir.exists());
        let other = Options { cgroup: lab.options.cgroup.with_extension("other"), ..lab.options.clone() };

        let listeners = lab.listeners();
        let before = programs(lab);
        drop(listeners);
        drop(first);
        // Refused by the kernel, or by nobody being there: never let out.
        let (seen, _) = lab.agent(
            "show(v4=connect(('203.0.113.7', 443)), v6=connect6(('2001:db8::7', 443)), \
             gate=connect(('127.0.0.1', 7879)), udp=sendto(('203.0.113.7', 443)))",
        );
        assert_eq!(
            seen,
            json!({"v4": "ECONNREFUSED", "v6": "ECONNREFUSED", "gate": "EPERM", "udp": "EPERM"})
        );

        // Nor can the empty place be taken.
        let (seen, _) = lab.agent(
            "def bind(family, address, *kind):\n\
             \x20   s = socket.socket(family, *kind)\n\
             \x20   return attempt(s.bind, address)\n\
             show(v4=bind(socket.AF_INET, ('127.0.0.1', 7879)), any=bind(socket.AF_INET, ('0.0.0.0', 7878)), \
             v6=bind(socket.AF_INET6, ('::1', 7879)), mapped=bind(socket.AF_INET6, ('::ffff:127.0.0.1', 7879)), \
             mptcp=bind(socket.AF_INET, ('127.0.0.1', 7879), socket.SOCK_STREAM, 262), \
             other=bind(socket.AF_INET, ('127.0.0.1', 0)))",
        );
        let refused = "EPERM";
        assert_eq!(
            seen,
            json!({"v4": refused, "any": refused, "v6": refused, "mapped": refused, "mptcp": refused, "other": "ok"})
        );

        let wrong = Attached::start(&other);
        assert!(matches!(&wrong, Err(KernelError::Step { .. })), "{wrong:?}");
        assert!(!other.cgroup.exists(), "made and not removed");
        assert_eq!(programs(lab), before, "an attempt for another cgroup changes nothing");

        let again = Attached::start(&lab.options).expect("starts again");
        let after = programs(lab);
        assert_eq!(before.len(), 14);
        assert_eq!(after.len(), before.len(), "one program a hook, never two in series");
        assert!(after.iter().all(|id| !before.contains(id)), "{before:?} {after:?}");
        again.verify().unwrap();
        // The settings of before hold until others are given.
        let [v4, _v6] = lab.listeners();
        let (seen, _) = lab.agent("show(peer=connect(('203.0.113.7', 443)))");
        assert_eq!(seen["peer"], json!(["203.0.113.7", 443]));
        assert!(lab.taken(&again, v4.accept().unwrap().1).is_some());
        // What was refused while nobody was there is told now.
        let events = lab::events(&again, 7);
        assert_eq!(events.len(), 7);
        // A daemon that runs keeps its guard.
        assert!(matches!(detach(&lab.options), Err(KernelError::AlreadyGuarded { .. })));
    });
}

#[test]
#[ignore = "needs root; run by cargo xtask test"]
fn what_the_ring_buffer_loses_is_counted() {
    in_namespaces(|lab| {
        let kernel = lab.start();
        let (seen, _) = lab
            .agent("show(n=sum(make(socket.AF_INET, socket.SOCK_RAW, 6) == 'EPERM' for _ in range(5000)))");
        assert_eq!(seen["n"], 5000);
        let lost = kernel.lost_events().unwrap();
        assert!(lost > 0 && lost < 5000, "{lost}");
        assert_eq!(lab.counted(&kernel, "sock_create", "socket_type"), 5000, "every refusal is counted");
        let kept = usize::try_from(5000 - lost).unwrap();
        assert_eq!(lab::events(&kernel, kept).len(), kept);
        lab.balanced(&kernel);
    });
}

#[test]
#[ignore = "needs root; run by cargo xtask test"]
fn a_start_that_fails_leaves_nothing_behind() {
    in_namespaces(|lab| {
        // A directory where a link's pin should come: the last program but one cannot be pinned.
        std::fs::create_dir_all(&lab.options.pin_dir).unwrap();
        let obstacle = lab.options.pin_dir.join("gate_connect4");
        run("chmod", &["700", lab.options.pin_dir.to_str().unwrap()]);
        std::fs::create_dir(&obstacle).unwrap();
        let failed = Attached::start(&lab.options);
        assert!(matches!(&failed, Err(KernelError::Step { .. })), "{failed:?}");
        assert!(!lab.options.cgroup.exists());
        let left: Vec<_> =
            std::fs::read_dir(&lab.options.pin_dir).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["gate_connect4"], "only what was there before");
        std::fs::remove_dir(&obstacle).unwrap();
        // The map of another version gives way.
        std::fs::create_dir(&lab.options.cgroup).unwrap();
        let pin = lab.options.pin_dir.join("FLOWS");
        let other = aya::maps::Array::<aya::maps::MapData, u64>::create(1, 0).unwrap();
        other.pin(&pin).unwrap();
        let kernel = lab.start();
        let [v4, _v6] = lab.listeners();
        lab.agent("show(peer=connect(('203.0.113.7', 443)))");
        assert!(lab.taken(&kernel, v4.accept().unwrap().1).is_some());
        // A guarded cgroup that is removed under the daemon is noticed.
        std::fs::remove_dir(lab.options.cgroup.join("run-1.scope")).unwrap();
        std::fs::remove_dir(&lab.options.cgroup).unwrap();
        assert!(kernel.verify().is_err());
        std::fs::create_dir(&lab.options.cgroup).unwrap();
        assert!(kernel.verify().is_err(), "another cgroup of that name");
        drop(kernel);
        let kernel = lab.start();
        kernel.verify().unwrap();
        let (seen, _) = lab.agent("show(gate=connect(('127.0.0.1', 7879)))");
        assert_eq!(seen["gate"], "EPERM");
        // Elsewhere than on a bpffs nothing is pinned.
        let misplaced = Options { pin_dir: "/tmp/agentgate-not-a-bpffs".into(), ..lab.options.clone() };
        let error = Attached::start(&misplaced).unwrap_err();
        assert!(matches!(&error, KernelError::Step { .. }), "{error}");
        assert!(!misplaced.pin_dir.exists());
    });
}

type Refusal = (Hook, Denial, &'static str);

/// Ids of the programs on the guarded cgroup.
fn programs(lab: &Lab) -> Vec<u32> {
    attached_programs(&lab.options).unwrap()
}
