//! Connected UDP: connect(2) sends nothing and passes, packets do not.

use std::{
    io::{ErrorKind, Write},
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use agentgate::{
    kernel::Kernel,
    model::flow::{comm, socket_addr},
};
use agentgate_common::{
    event::{Hook, KernelEvent},
    settings::Settings,
    verdict::Denial,
};
use serde_json::json;

use crate::lab::{self, Far, OPENED, RESOLVER, Resolver, in_namespaces, run};

/// What each agent here begins with.
const UDP: &str = "
def udp(address, *options):
    s = socket.socket(socket.AF_INET6 if ':' in address[0] else socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(5)
    for option in options: s.setsockopt(*option)
    s.connect(address)
    return s
";

/// Servers of this host, outside the cgroup.
struct Near([UdpSocket; 5]);

impl Near {
    const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);

    fn start() -> Self {
        let addresses =
            ["0.0.0.0:9997", "198.51.100.1:9998", "127.0.0.1:9998", "[2001:db8:1::1]:9998", "[::1]:9998"];
        let servers = addresses.map(|address| UdpSocket::bind(address).unwrap());
        servers[0].join_multicast_v4(&Self::GROUP, &Ipv4Addr::new(198, 51, 100, 1)).unwrap();
        Self(servers)
    }
}

/// Whether what is sent outside the cgroup, and nothing before that, comes to each server.
fn only_the_free_arrive(near: &Near, far: &Far) {
    let v4 = UdpSocket::bind("0.0.0.0:0").unwrap();
    let v6 = UdpSocket::bind("[::]:0").unwrap();
    v4.set_broadcast(true).unwrap();
    let group = [SocketAddr::from((Near::GROUP, 9997)), "198.51.100.255:9997".parse().unwrap()];
    let group = group.map(|address| (&near.0[0], address));
    let single = near.0.iter().skip(1).chain(&far.sinks);
    let single = single.map(|server| (server, server.local_addr().unwrap()));
    for (server, address) in group.into_iter().chain(single) {
        let mut buffer = [0; 64];
        let free = if address.is_ipv4() { &v4 } else { &v6 };
        free.send_to(b"free", address).unwrap();
        server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let length = server.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"free", "{address}");
        server.set_nonblocking(true).unwrap();
        assert_eq!(server.recv(&mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock, "{address}");
        server.set_nonblocking(false).unwrap();
    }
}

/// Hook, denial and destination of an event.
fn told(event: &KernelEvent) -> (Hook, Denial, String) {
    let destination = socket_addr(&event.destination).to_string();
    (Hook::from_u8(event.hook).unwrap(), Denial::from_u8(event.denial).unwrap(), destination)
}

#[test]
#[ignore = "needs root; run by cargo xtask test"]
fn connected_udp_sends_nothing_and_is_told_once() {
    in_namespaces(|lab| {
        let far = Far::start();
        let near = Near::start();
        let kernel = lab.start();
        // Each socket connects, sends three times, and gives its peer; family of the socket.
        let rows = [
            ("203.0.113.7", 9999, "203.0.113.7:9999", 2),
            ("2001:db8::7", 9999, "[2001:db8::7]:9999", 10),
            ("::ffff:203.0.113.7", 9999, "203.0.113.7:9999", 10),
            ("198.51.100.1", 9998, "198.51.100.1:9998", 2),
            ("198.51.100.1", 9997, "198.51.100.1:9997", 2),
            ("::ffff:198.51.100.1", 9998, "198.51.100.1:9998", 10),
            ("2001:db8:1::1", 9998, "[2001:db8:1::1]:9998", 10),
        ];
        let script: String = rows
            .iter()
            .map(|(address, port, ..)| {
                format!(
                    "s = udp(('{address}', {port}))\n\
                     r.append([attempt(s.send, b'secret') for _ in range(3)] + [s.getpeername()[0]])\n"
                )
            })
            .collect();
        let (seen, pid) = lab.agent(&format!("{UDP}\nr = []\n{script}\nshow(seen=r)"));
        for ((address, port, ..), seen) in rows.iter().zip(seen["seen"].as_array().unwrap()) {
            assert_eq!(*seen, json!(["EPERM", "EPERM", "EPERM", address]), "{address} {port}");
        }
        only_the_free_arrive(&near, &far);
        assert_eq!(lab.counted(&kernel, "connect4", "connected"), 3);
        assert_eq!(lab.counted(&kernel, "connect6", "connected"), 4);
        assert_eq!(lab.counted(&kernel, "egress", "udp"), 3 * 7);
        let events = lab::events(&kernel, rows.len());
        assert_eq!(events.len(), rows.len(), "{events:#?}");
        for ((address, _, destination, family), event) in rows.iter().zip(&events) {
            assert_eq!(told(event), (Hook::Egress, Denial::Udp, (*destination).to_owned()), "{address}");
            assert_eq!((event.kind, event.protocol, event.family), (2, 17, *family), "{address}");
            assert_eq!((event.task.pid, event.task.uid), (pid, 0), "{address}");
            assert_eq!(comm(&event.task.comm), "python3", "{address}");
            assert!(event.cookie != 0 && event.task.cgroup != 0, "{address}");
        }
    });
}

/// What an agent tries, what it sees, and what is told of it.
type Row = (&'static str, &'static str, serde_json::Value, Option<(Hook, Denial, &'static str)>);

#[test]
#[ignore = "needs root; run by cargo xtask test"]
fn no_way_of_sending_gets_past_the_egress_program() {
    const FAR: Option<(Hook, Denial, &str)> = Some((Hook::Egress, Denial::Udp, Far::V4));
    in_namespaces(|lab| {
        let far = Far::start();
        let near = Near::start();
        let kernel = lab.start();
        let refused = || json!("EPERM");
        let connect4 = |address| Some((Hook::Connect4, Denial::Udp, address));
        let connect6 = |address| Some((Hook::Connect6, Denial::Udp, address));
        let packet = |address| Some((Hook::Egress, Denial::Loopback, address));
        let gate = |address| Some((Hook::Connect4, Denial::GatePort, address));
        let rows: Vec<Row> = vec![
            ("write", "written(os.write, b'secret')", refused(), FAR),
            ("writev", "written(os.writev, [b'sec', b'ret'])", refused(), FAR),
            ("sendmsg", "attempt(udp(F).sendmsg, [b'secret'])", refused(), FAR),
            ("empty", "attempt(udp(F).send, b'')", refused(), FAR),
            ("fragments", "attempt(udp(F).send, b's' * 5000)", refused(), FAR),
            (
                "fragments v6",
                "attempt(udp(F6).send, b's' * 5000)",
                refused(),
                Some((Hook::Egress, Denial::Udp, Far::V6)),
            ),
            ("GSO", "attempt(udp(F, (17, 103, 100)).send, b's' * 1000)", refused(), FAR),
            ("MSG_MORE", "more()", json!([6, "EPERM"]), FAR),
            ("UDP_CORK", "cork()", json!([6, "ok"]), FAR),
            ("MSG_ZEROCOPY", "attempt(udp(F, (1, 60, 1)).send, b'secret', 0x4000000)", refused(), FAR),
            ("marked", "marked(F, (0, 1))", json!(["EPERM", "EPERM"]), FAR),
            (
                "marked v6",
                "marked(F6, (41, 67))",
                json!(["EPERM", "EPERM"]),
                Some((Hook::Egress, Denial::Udp, Far::V6)),
            ),
            ("splice", "splice()", refused(), FAR),
            // Told for each destination that a socket is connected to; sending to another one, or
            // when connected no more, is for the sendmsg hook.
            ("reconnect", "again()", json!(["EPERM", "EPERM"]), FAR),
            ("", "", json!(null), Some((Hook::Egress, Denial::Udp, "198.51.100.1:9998"))),
            (
                "explicit",
                "attempt(udp(F).sendto, b'secret', F)",
                refused(),
                Some((Hook::SendMsg4, Denial::Udp, Far::V4)),
            ),
            ("dissolved", "dissolved()", json!([0, "EPERM"]), Some((Hook::SendMsg4, Denial::Udp, Far::V4))),
            // By a first hop of its own choice, which may be a group.
            (
                "routed",
                "routed(203, 0, 113, 7)",
                refused(),
                Some((Hook::Egress, Denial::Egress, "203.0.113.7:0")),
            ),
            (
                "group routed",
                "routed(224, 0, 0, 251)",
                refused(),
                Some((Hook::Egress, Denial::Egress, "224.0.0.251:0")),
            ),
            ("headers", "headers()", refused(), Some((Hook::Egress, Denial::Egress, "[2001:db8::7]:0"))),
            ("multicast", "attempt(udp, ('224.0.0.251', 9997))", refused(), connect4("224.0.0.251:9997")),
            ("multicast v6", "attempt(udp, ('ff02::1', 9997))", refused(), connect6("[ff02::1]:9997")),
            (
                "all",
                "attempt(udp, ('255.255.255.255', 9997), B)",
                refused(),
                connect4("255.255.255.255:9997"),
            ),
            // The option is not set, so the kernel itself refuses.
            ("broadcast", "attempt(udp, ('198.51.100.255', 9997), B)", json!("EACCES"), None),
            ("broadcast mapped", "attempt(udp, ('::ffff:198.51.100.255', 9997), B)", json!("EACCES"), None),
            ("loopback", "sent('127.0.0.1')", refused(), packet("127.0.0.1:9998")),
            ("loopback 2", "sent('127.1.2.3')", refused(), packet("127.1.2.3:9998")),
            ("opened", "sent('127.0.0.1', 5432)", refused(), packet("127.0.0.1:5432")),
            ("0.0.0.0", "sent('0.0.0.0')", refused(), packet("127.0.0.1:9998")),
            ("::1", "sent('::1')", refused(), packet("[::1]:9998")),
            ("::", "sent('::')", refused(), packet("[::1]:9998")),
            ("mapped", "sent('::ffff:127.0.0.1')", refused(), packet("127.0.0.1:9998")),
            ("mapped 0", "sent('::ffff:0.0.0.0')", refused(), packet("127.0.0.1:9998")),
            ("listener", "sent('127.0.0.1', 7879)", refused(), gate("127.0.0.1:7879")),
            ("resolver", "sent('127.0.0.1', 5353)", refused(), gate("127.0.0.1:5353")),
        ];
        let tries: String =
            rows.iter().filter(|row| !row.1.is_empty()).map(|row| format!("r.append({})\n", row.1)).collect();
        let (seen, _) = lab.agent(&format!(
            "{UDP}
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
F, F6, B = ('203.0.113.7', 9999), ('2001:db8::7', 9999), (socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
def written(write, data):
    s = udp(F)
    return attempt(write, s.fileno(), data)
def sent(host, port=9998):
    return attempt(lambda: udp((host, port)).send(b'secret'))
def more():
    s = udp(F)
    return [attempt(s.send, b'secret', socket.MSG_MORE), attempt(s.send, b'secret')]
def cork():
    s = udp(F, (17, 1, 1))
    return [attempt(s.send, b'secret'), attempt(s.setsockopt, 17, 1, 0)]
def marked(address, option):
    s = udp(address)
    return [attempt(s.sendmsg, [b'secret'], [(*option, struct.pack('i', 1))]) for _ in range(2)]
def splice():
    r, w = os.pipe()
    os.write(w, b'secret')
    s = udp(F)
    n = libc.splice(r, None, s.fileno(), None, ctypes.c_size_t(6), 0)
    return n if n >= 0 else errno.errorcode[ctypes.get_errno()]
def again():
    s = udp(F)
    r = [attempt(s.send, b'secret')]
    s.connect(('198.51.100.1', 9998))
    return r + [attempt(s.send, b'secret')]
def dissolved():
    s = udp(F)
    return [libc.connect(s.fileno(), struct.pack('H14x', 0), 16), attempt(s.sendto, b'secret', F)]
def routed(*hop):
    s = udp(('198.51.100.1', 9998), (socket.IPPROTO_IP, socket.IP_OPTIONS, bytes([131, 7, 4, *hop, 0])))
    return attempt(s.send, b'secret')
def headers():
    return attempt(udp(F6).sendmsg, [b'secret'], [(41, 59, bytes([0, 0, 1, 4, 0, 0, 0, 0]))])
r = []
{tries}
show(seen=r)"
        ));
        let tried = rows.iter().filter(|row| !row.1.is_empty());
        for ((name, _, expect, _), seen) in tried.zip(seen["seen"].as_array().unwrap()) {
            assert_eq!(seen, expect, "{name}");
        }
        only_the_free_arrive(&near, &far);
        let expected: Vec<_> = rows.iter().filter_map(|row| row.3.map(|told| (row.0, told))).collect();
        let events = lab::events(&kernel, expected.len());
        for ((name, (hook, denial, destination)), event) in expected.iter().zip(&events) {
            assert_eq!(told(event), (*hook, *denial, (*destination).to_owned()), "{name}");
        }
        assert_eq!(events.len(), expected.len());
    });
}

#[test]
#[ignore = "needs root; run by cargo xtask test"]
fn looking_up_a_name_leaves_no_event() {
    in_namespaces(|lab| {
        let _far = Far::start();
        let kernel = lab.start();
        let mut hosts = tempfile::NamedTempFile::new().unwrap();
        hosts
            .write_all(b"203.0.113.7 dual.example\n203.0.113.8 dual.example\n2001:db8::7 dual.example\n")
            .unwrap();
        run("chmod", &["644", hosts.path().to_str().unwrap()]);
        run("mount", &["--bind", hosts.path().to_str().unwrap(), "/etc/hosts"]);
        let (seen, _) = lab.agent(
            "found = [a[4][0] for a in socket.getaddrinfo('dual.example', 443, type=socket.SOCK_STREAM)]\n\
             show(found=sorted(found), marker=make(socket.AF_INET, socket.SOCK_RAW, 6))",
        );
        assert_eq!(seen, json!({"found": ["2001:db8::7", "203.0.113.7", "203.0.113.8"], "marker": "EPERM"}));
        assert_eq!(lab.counted(&kernel, "connect4", "connected"), 2, "glibc asks for the source of each");
        assert_eq!(lab.counted(&kernel, "connect6", "connected"), 1);
        let events = lab::events(&kernel, 1);
        let hooks: Vec<_> = events.iter().map(told).map(|(hook, ..)| hook).collect();
        assert_eq!(hooks, [Hook::SockCreate]);
        run("umount", &["/etc/hosts"]);
    });
}

#[test]
#[ignore = "needs root; run by cargo xtask test"]
fn on_loopback_there_is_dns_and_tcp_alone() {
    in_namespaces(|lab| {
        let far = Far::start();
        let near = Near::start();
        let kernel = lab.start();
        let resolver = Resolver::start(("127.0.0.1".parse::<Ipv4Addr>().unwrap(), RESOLVER).into());
        let opened = std::net::TcpListener::bind(("::1", OPENED)).unwrap();
        let (seen, _) = lab.agent(
            "s = socket.create_connection(('::1', 5432))\n\
             s.sendall(b's' * 300000)\n\
             s.close()\n\
             s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
             s.settimeout(5)\n\
             s.connect(('8.8.4.4', 53))\n\
             s.sendmsg([b'question'], [(socket.IPPROTO_IP, socket.IP_TOS, struct.pack('i', 1))])\n\
             show(dns=ask(('127.0.0.53', 53)), connected=ask(('8.8.8.8', 53), connected=True), \
             marked=s.recv(100).decode())",
        );
        let answers = json!({"dns": ["answer", ["127.0.0.53", 53]], "connected": ["answer", ["8.8.8.8", 53]], "marked": "answer"});
        assert_eq!(seen, answers);
        let (mut stream, _) = opened.accept().unwrap();
        assert_eq!(std::io::copy(&mut stream, &mut std::io::sink()).unwrap(), 300_000);
        // Nobody at the resolver's port: the kernel's own word for it comes through.
        drop(resolver);
        let (seen, _) = lab.agent("show(connected=ask(('8.8.8.8', 53), connected=True))");
        assert_eq!(seen["connected"], "ECONNREFUSED");
        assert_eq!(lab.counted(&kernel, "egress", "udp"), 0);
        // A socket connected to the resolver of before: its packets are no DNS any more.
        kernel.configure(&Settings { dns_port: 9998, ..lab.settings() }).unwrap();
        let changed = lab.settings();
        let gate = std::net::TcpListener::bind(("127.0.0.1", OPENED)).unwrap();
        let (seen, _) = std::thread::scope(|scope| {
            let agent = scope.spawn(|| {
                lab.agent(
                    "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
                     s.connect(('8.8.8.8', 53))\n\
                     socket.create_connection(('127.0.0.1', 5432)).recv(1)\n\
                     show(sent=attempt(s.send, b'secret'))",
                )
            });
            let (mut stream, _) = gate.accept().unwrap();
            kernel.configure(&changed).unwrap();
            stream.write_all(b"g").unwrap();
            agent.join().unwrap()
        });
        assert_eq!(seen["sent"], "EPERM");
        only_the_free_arrive(&near, &far);
        let events = lab::events(&kernel, 1);
        assert_eq!(
            events.iter().map(told).collect::<Vec<_>>(),
            [(Hook::Egress, Denial::Loopback, "127.0.0.1:9998".to_owned())]
        );
    });
}

#[test]
#[ignore = "needs root; run by cargo xtask test"]
fn options_that_are_taken_reach_the_kernel_whole() {
    in_namespaces(|lab| {
        let _kernel = lab.start();
        // Values of all lengths reach the kernel: longer than a page is more than a program is shown.
        let script = "\
            t, u = socket.socket(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
            def put(s, level, name, value, length=0):\n\
            \x20   done = attempt(s.setsockopt, level, name, value)\n\
            \x20   got = s.getsockopt(level, name, length) if length else s.getsockopt(level, name)\n\
            \x20   return [done, list(got) if length else got]\n\
            show(broadcast=[put(s, socket.SOL_SOCKET, socket.SO_BROADCAST, 1) for s in (t, u)],\n\
            \x20   shared=[put(s, socket.SOL_SOCKET, socket.SO_REUSEPORT, 1) for s in (t, u)],\n\
            \x20   flag=put(t, socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), tos=put(u, socket.IPPROTO_IP, socket.IP_TOS, 8),\n\
            \x20   linger=put(t, socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 7), 8),\n\
            \x20   name=put(t, socket.IPPROTO_TCP, socket.TCP_CONGESTION, b'reno', 16),\n\
            \x20   long=[attempt(t.setsockopt, socket.IPPROTO_TCP, socket.TCP_CONGESTION, bytes(n)) for n in (10, 4096, 4097, 9000)],\n\
            \x20   bad=attempt(u.setsockopt, socket.SOL_SOCKET, 9999, 1))";
        let (guarded, _) = lab.agent(script);
        let (mut free, _) = lab.process(None, script);
        for swallowed in ["broadcast", "shared"] {
            assert_eq!(free[swallowed], json!([["ok", 1], ["ok", 1]]));
            free[swallowed] = json!([["ok", 0], ["ok", 0]]);
        }
        assert_eq!(guarded, free);
        assert_eq!(guarded["linger"], json!(["ok", [1, 0, 0, 0, 7, 0, 0, 0]]));
        assert!(!guarded["long"].as_array().unwrap().contains(&json!("EFAULT")), "{guarded}");
    });
}
