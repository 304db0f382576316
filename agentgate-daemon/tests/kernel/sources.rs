//! Where packets say that they come from, and groups: what the kernel itself would carry out of the host.

use std::{fs, net::SocketAddr};

use agentgate::kernel::Kernel;
use agentgate_common::{event::Hook, settings::Settings, verdict::Denial};
use serde_json::json;

use crate::lab::{Far, RESOLVER, Resolver, events, in_namespaces};

/// Binds and sends with a source address; one of one's own for each datagram, too.
const SOURCES: &str = "
def udp(source, address, connected=False):
    family = socket.AF_INET6 if ':' in source else socket.AF_INET
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.settimeout(5)
    s.bind((source, 0))
    if connected:
        s.connect(address)
        s.send(b'question')
    else:
        s.sendto(b'question', address)
    return s.recv(100).decode()
def once(source, address):
    s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    s.settimeout(5)
    info = socket.inet_pton(socket.AF_INET6, source) + bytes(4)
    s.sendmsg([b'question'], [(socket.IPPROTO_IPV6, 50, info)], 0, address)
    return s.recv(100).decode()
def stream(source, address, protocol=0):
    family = socket.AF_INET6 if ':' in source else socket.AF_INET
    return attempt(tcp, family, address, protocol, (source, 0))
";

/// Addresses of others as the own ones: the gate would answer, or shake hands, with anybody.
#[test]
#[ignore = "needs root; run by cargo xtask test"]
fn the_gate_answers_to_this_host_alone() {
    in_namespaces(|lab| {
        let _far = Far::start();
        // As on hosts whose addresses move: so anybody may bind to any address, whatever the options are.
        for family in ["ipv4", "ipv6"] {
            fs::write(format!("/proc/sys/net/{family}/ip_nonlocal_bind"), "1").unwrap();
        }
        let kernel = lab.start();
        kernel.configure(&Settings { loopback_own: 1, ..lab.settings() }).unwrap();
        kernel
            .set_host_addresses(&["198.51.100.1".parse().unwrap(), "2001:db8:1::1".parse().unwrap()])
            .unwrap();
        let [v4, v6] = lab.listeners();
        let (dns4, dns6): (SocketAddr, SocketAddr) =
            (([127, 0, 0, 1], RESOLVER).into(), (std::net::Ipv6Addr::LOCALHOST, RESOLVER).into());
        let _resolvers = [Resolver::start(dns4), Resolver::start(dns6)];
        let (seen, _) = lab.agent(&format!(
            "{SOURCES}\n\
             there, dns, own = ('2001:db8::7', 443), ('2001:db8::53', 53), ('::1', 3000)\n\
             receiver = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)\n\
             receiver.bind(own)\n\
             server = socket.create_server(own, family=socket.AF_INET6)\n\
             foreign = '2001:db8::66'\n\
             show(ask=attempt(udp, foreign, dns), connected=attempt(udp, foreign, dns, True),\n\
             \x20   once=attempt(once, foreign, dns), datagram=attempt(udp, foreign, own),\n\
             \x20   connect=stream(foreign, there), mptcp=stream(foreign, there, 262), local=stream(foreign, own),\n\
             \x20   tcp_dns=stream(foreign, dns), mapped=stream('::ffff:203.0.113.66', ('::ffff:203.0.113.7', 443)),\n\
             \x20   v4=stream('203.0.113.66', ('203.0.113.7', 443)),\n\
             \x20   host=stream('198.51.100.1', ('203.0.113.7', 443)), host6=stream('2001:db8:1::1', there),\n\
             \x20   host_ask=attempt(udp, '2001:db8:1::1', dns), host_once=attempt(once, '2001:db8:1::1', dns),\n\
             \x20   any=stream('::', there), loopback=stream('127.0.0.9', ('203.0.113.7', 443)))"
        ));
        for refused in
            ["ask", "connected", "once", "datagram", "connect", "mptcp", "local", "tcp_dns", "mapped", "v4"]
        {
            assert_eq!(seen[refused], "EPERM", "{refused}: {seen}");
        }
        assert_eq!(seen["host"], json!(["203.0.113.7", 443]));
        assert_eq!((&seen["host_ask"], &seen["host_once"]), (&json!("answer"), &json!("answer")));
        for passed in ["host6", "any"] {
            assert_eq!(seen[passed], json!(["2001:db8::7", 443]), "{passed}");
        }
        assert_eq!(seen["loopback"], json!(["203.0.113.7", 443]));
        for (listener, connections) in [(&v4, 2), (&v6, 2)] {
            for _ in 0..connections {
                assert!(lab.taken(&kernel, listener.accept().unwrap().1).is_some());
            }
        }
        assert_eq!(lab.counted(&kernel, "egress", "source_address"), 4);
        // One subflow of MPTCP is a connection of its own.
        assert_eq!(lab.counted(&kernel, "connect6", "source_address"), 5);
        assert_eq!(lab.counted(&kernel, "connect4", "source_address"), 1);
        assert_eq!(lab.counted(&kernel, "sock_ops", "listener"), 4, "{seen}");
        let told = events(&kernel, 10);
        assert!(told.iter().all(|event| event.denial == Denial::Source as u8), "{told:?}");
        assert_eq!(told.iter().filter(|event| event.hook == Hook::Egress as u8).count(), 4);
        lab.balanced(&kernel);
    });
}

/// By the options that let a user bind to a foreign address, and by those that make the kernel tell the
/// network the address of a group.
#[test]
#[ignore = "needs root; run by cargo xtask test"]
fn nobody_joins_groups_or_takes_addresses_by_options() {
    in_namespaces(|lab| {
        let _far = Far::start();
        let _kernel = lab.start();
        let groups = || {
            let v4 = fs::read_to_string("/proc/thread-self/net/igmp").unwrap();
            let v6 = fs::read_to_string("/proc/thread-self/net/igmp6").unwrap();
            // The address of 239.6.6.6 as the kernel writes it.
            v4.contains("060606EF") || v6.contains("ff0e00000000000000000000deadbeef")
        };
        let script = "
import ctypes
index = socket.if_nametoindex('v0')
g4, g6 = socket.inet_aton('239.6.6.6'), socket.inet_pton(socket.AF_INET6, 'ff0e::dead:beef')
v0 = socket.inet_aton('198.51.100.1')
def storage(group):
    if len(group) == 4: return struct.pack('HH4s', socket.AF_INET, 0, group).ljust(128, bytes(1))
    return struct.pack('HHI16sI', socket.AF_INET6, 0, 0, group, 0).ljust(128, bytes(1))
def joined(level, name, value):
    family = socket.AF_INET6 if level == 41 else socket.AF_INET
    s = socket.socket(family, socket.SOCK_DGRAM)
    sockets.append(s)
    return attempt(s.setsockopt, level, name, value)
def request(group): return struct.pack('I4x', index) + storage(group)
def source(group, of): return request(group) + storage(of)
sockets = []
ways = [(0, 35, g4 + v0), (0, 39, g4 + v0 + v0), (0, 42, request(g4)), (0, 46, source(g4, v0)),
        (41, 20, g6 + struct.pack('i', index)), (41, 42, request(g6)), (41, 46, source(g6, bytes(15) + b'x'))]
joins = [joined(*way) for way in ways]
def leave(s):
    if s.family == socket.AF_INET: return attempt(s.setsockopt, 0, 36, g4 + v0)
    return attempt(s.setsockopt, 41, 21, g6 + struct.pack('i', index))
def bound(family, level, name, address):
    s = socket.socket(family, socket.SOCK_STREAM)
    return [attempt(s.setsockopt, level, name, 1), attempt(s.bind, (address, 0))]
binds = [bound(socket.AF_INET, 0, 15, '203.0.113.66'), bound(socket.AF_INET, 0, 19, '203.0.113.66'),
         bound(socket.AF_INET6, 41, 78, '2001:db8::66'), bound(socket.AF_INET6, 41, 75, '2001:db8::66')]
show(joins=joins, binds=binds)
sys.stdin.readline()
show(leaves=[leave(s) for s in sockets])
";
        let mut free = lab.staying(None, script);
        let seen = free.next();
        assert_eq!(seen["joins"], json!(vec!["ok"; 7]), "the attempts are real");
        assert!(groups(), "the attempts are real");
        assert_eq!(seen["binds"], json!(vec![["ok", "ok"]; 4]), "the attempts are real");
        free.go();
        free.next();
        drop(free);
        assert!(!groups());
        let mut guarded = lab.staying(Some(&lab.session("run-1.scope")), script);
        let seen = guarded.next();
        assert_eq!(seen["joins"], json!(vec!["ok"; 7]));
        assert_eq!(seen["binds"], json!(vec![["ok", "EADDRNOTAVAIL"]; 4]));
        assert!(!groups(), "joined under guard");
        guarded.go();
        assert_eq!(guarded.next()["leaves"], json!(vec!["ok"; 7]));
    });
}
