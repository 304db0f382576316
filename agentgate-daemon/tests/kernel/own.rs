//! Loopback and the host's own addresses: a session reaches what it listens on itself, and nothing else.

use std::{
    io::ErrorKind,
    net::{TcpListener, UdpSocket},
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
};

use agentgate::kernel::{Attached, Kernel, cgroup2_mount};
use agentgate_common::{event::Hook, names, settings::Settings, verdict::Denial};
use aya::maps::{Array, Map, MapData};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use serde_json::{Value, json};

use crate::lab::{self, Far, Lab, Staying, in_namespaces, run};

/// Servers that say hello, over TCP to whoever connects, over UDP to whoever sends.
const SERVERS: &str = "
import threading
def inet(address):
    return socket.AF_INET6 if ':' in address[0] else socket.AF_INET
def serve(address, kind=socket.SOCK_STREAM, protocol=0):
    s = socket.socket(inet(address), kind, protocol)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(address)
    def stream():
        while True:
            c, _ = s.accept()
            with c: c.sendall(b'hello')
    def datagram():
        while True:
            _, peer = s.recvfrom(100)
            attempt(s.sendto, b'hello', peer)
    if kind == socket.SOCK_STREAM: s.listen()
    threading.Thread(target=stream if kind == socket.SOCK_STREAM else datagram, daemon=True).start()
def both(address):
    serve(address)
    serve(address, socket.SOCK_DGRAM)
def reach(host, port, protocol=0):
    def go():
        s = socket.socket(inet((host, port)), socket.SOCK_STREAM, protocol)
        s.settimeout(5)
        s.connect((host, port))
        return s.recv(100).decode()
    return attempt(go)
def ping(host, port, connected=False):
    def go():
        s = socket.socket(inet((host, port)), socket.SOCK_DGRAM)
        s.settimeout(5)
        if connected:
            s.connect((host, port))
            s.send(b'secret')
        else:
            s.sendto(b'secret', (host, port))
        return s.recv(100).decode()
    return attempt(go)
";

/// Servers of a session, or of somebody else.
fn servers(lab: &Lab, cgroup: Option<PathBuf>) -> Staying {
    let mut servers = lab.staying(
        cgroup.as_deref(),
        &format!(
            "{SERVERS}
both(('127.0.0.1', 3000))
both(('::1', 3000))
both(('::', 3001))
both(('198.51.100.1', 3002))
both(('2001:db8:1::1', 3002))
serve(('127.0.0.1', 3003), protocol=262)
serve(('::', 3004), protocol=262)
show(ready=os.getpid())
sys.stdin.read()"
        ),
    );
    servers.next();
    servers
}

/// What reaches these servers by all their addresses.
const CALLS: [&str; 34] = [
    "reach('127.0.0.1', 3000)",
    "reach('0.0.0.0', 3000)",
    "reach('::ffff:127.0.0.1', 3000)",
    "reach('::ffff:0.0.0.0', 3000)",
    "reach('::1', 3000)",
    "reach('::', 3000)",
    "reach('127.0.0.1', 3001)",
    "reach('127.5.5.5', 3001)",
    "reach('::1', 3001)",
    "reach('198.51.100.1', 3001)",
    "reach('198.51.100.1', 3002)",
    "reach('::ffff:198.51.100.1', 3002)",
    "reach('2001:db8:1::1', 3002)",
    "reach('127.0.0.1', 3000, 262)",
    "reach('127.0.0.1', 3003)",
    "reach('127.0.0.1', 3003, 262)",
    "reach('::1', 3004, 262)",
    "reach('127.0.0.1', 3004)",
    "ping('127.0.0.1', 3000)",
    "ping('0.0.0.0', 3000)",
    "ping('::ffff:127.0.0.1', 3000)",
    "ping('::1', 3000)",
    "ping('::', 3000)",
    "ping('127.5.5.5', 3001)",
    "ping('198.51.100.1', 3002)",
    "ping('2001:db8:1::1', 3002)",
    "ping('127.0.0.1', 3000, True)",
    "ping('0.0.0.0', 3000, True)",
    "ping('::ffff:127.0.0.1', 3000, True)",
    "ping('::1', 3000, True)",
    "ping('::', 3000, True)",
    "ping('198.51.100.1', 3002, True)",
    "ping('::ffff:198.51.100.1', 3002, True)",
    "ping('2001:db8:1::1', 3002, True)",
];

/// What each of the calls gives, from a cgroup.
fn called(lab: &Lab, cgroup: &std::path::Path) -> Vec<Value> {
    let script: String = CALLS.iter().map(|call| format!("r.append({call})\n")).collect();
    let (seen, _) = lab.process(Some(cgroup), &format!("{SERVERS}\nr = []\n{script}show(seen=r)"));
    seen["seen"].as_array().unwrap().clone()
}

#[track_caller]
fn all(seen: &[Value], expect: &str, who: &str) {
    for (call, seen) in CALLS.iter().zip(seen) {
        assert_eq!(seen, expect, "{who}: {call}");
    }
    assert_eq!(seen.len(), CALLS.len());
}

/// Guards with the policy that opens a session's own ports; the host has addresses on a wire.
fn start(lab: &Lab) -> (Attached, Far) {
    let far = Far::start();
    let kernel = lab.start();
    kernel.configure(&settings(lab)).unwrap();
    let host = ["198.51.100.1", "2001:db8:1::1"].map(|address| address.parse().unwrap());
    kernel.set_host_addresses(&host).unwrap();
    (kernel, far)
}

fn settings(lab: &Lab) -> Settings {
    Settings { loopback_own: 1, ..lab.settings() }
}

#[test]
#[ignore = "needs root; run by cargo xtask test"]
fn a_session_reaches_what_it_listens_on() {
    in_namespaces(|lab| {
        let (kernel, _far) = start(lab);
        let session = lab.session("run-1.scope");
        let _servers = servers(lab, Some(session.join("below")));
        all(&called(lab, &session), "hello", "the session");
        all(&called(lab, &session.join("below")), "hello", "below it");
        let beside = lab.session("run-1.scope/beside");
        all(&called(lab, &beside), "hello", "beside its servers");
        assert_eq!(lab.counted(&kernel, "egress", "loopback"), 0);
        assert!(lab.counted(&kernel, "connect4", "own") > 0 && lab.counted(&kernel, "sendmsg6", "own") > 0);
        // Others reach them as they do without a guard.
        let (seen, _) = lab.process(None, &format!("{SERVERS}\nshow(seen=reach('127.0.0.1', 3000))"));
        assert_eq!(seen["seen"], "hello");
        lab.balanced(&kernel);
    });
}

#[test]
#[ignore = "needs root; run by cargo xtask test"]
fn no_other_session_reaches_it() {
    in_namespaces(|lab| {
        let (kernel, _far) = start(lab);
        let servers = servers(lab, Some(lab.session("run-1.scope")));
        all(&called(lab, &lab.session("run-2.scope")), "EPERM", "another session");
        all(&called(lab, &lab.options.cgroup), "EPERM", "the guarded cgroup itself");
        // The policy that closes it closes it for the session too.
        kernel.configure(&lab.settings()).unwrap();
        all(&called(lab, &lab.session("run-1.scope")), "EPERM", "the session itself, by policy");
        drop(servers);
        lab.balanced(&kernel);
    });
}

#[test]
#[ignore = "needs root; run by cargo xtask test"]
fn nobody_guarded_reaches_a_server_of_the_host() {
    in_namespaces(|lab| {
        let (kernel, _far) = start(lab);
        let _servers = servers(lab, None);
        let session = lab.session("run-1.scope");
        all(&called(lab, &session), "EPERM", "a session");
        all(&called(lab, &lab.options.cgroup), "EPERM", "the guarded cgroup itself");
        // Nor by sending packets from the port of a server of its own.
        let (seen, _) = lab.process(
            Some(&session),
            "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
             s.bind(('127.0.0.2', 3000))\n\
             show(sent=attempt(s.sendto, b'secret', ('127.0.0.1', 3000)))",
        );
        assert_eq!(seen["sent"], "EPERM");
        lab.balanced(&kernel);
    });
}

#[test]
#[ignore = "needs root; run by cargo xtask test"]
fn the_guarded_cgroup_itself_is_a_session() {
    in_namespaces(|lab| {
        let (kernel, _far) = start(lab);
        let _servers = servers(lab, Some(lab.options.cgroup.clone()));
        all(&called(lab, &lab.options.cgroup), "hello", "the guarded cgroup itself");
        all(&called(lab, &lab.session("run-1.scope")), "EPERM", "a session");
        lab.balanced(&kernel);
    });
}

#[test]
#[ignore = "needs root; run by cargo xtask test"]
fn listed_ports_are_open_at_every_address_of_the_host() {
    in_namespaces(|lab| {
        let (kernel, _far) = start(lab);
        let mut settings = settings(lab);
        settings.loopback_ports = [0; 32];
        settings.loopback_ports[0] = 3000;
        settings.loopback_ports[31] = 3002;
        kernel.configure(&settings).unwrap();
        let _servers = servers(lab, None);
        let seen = called(lab, &lab.session("run-1.scope"));
        for (call, seen) in CALLS.iter().zip(&seen) {
            let open = call.starts_with("reach") && (call.contains("3000") || call.contains("3002"));
            assert_eq!(seen, if open { "hello" } else { "EPERM" }, "{call}");
        }
        assert_eq!(lab.counted(&kernel, "connect4", "own"), 0);
        assert_eq!(lab.counted(&kernel, "connect4", "listed"), 4);
        lab.balanced(&kernel);
    });
}

#[test]
#[ignore = "needs root; run by cargo xtask test"]
fn a_port_that_changes_hands_is_no_longer_its_own() {
    in_namespaces(|lab| {
        let (kernel, _far) = start(lab);
        // The first packet of a connection can wait for its first byte, without a cookie too.
        run("sh", &["-c", "echo 5 > /proc/sys/net/ipv4/tcp_fastopen"]);
        let mut agent = lab.staying(
            Some(&lab.session("run-1.scope")),
            "def server(kind):\n\
             \x20   s = socket.socket(socket.AF_INET, kind)\n\
             \x20   s.bind(('127.0.0.1', 3005))\n\
             \x20   return s\n\
             l, d = server(socket.SOCK_STREAM), server(socket.SOCK_DGRAM)\n\
             l.listen()\n\
             s = socket.socket()\n\
             s.setsockopt(socket.IPPROTO_TCP, 30, 1)\n\
             s.settimeout(1)\n\
             u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
             u.connect(('127.0.0.1', 3005))\n\
             l.setblocking(False)\n\
             seen = [attempt(s.connect, ('127.0.0.1', 3005)), attempt(l.accept), attempt(u.send, b'mine')]\n\
             l.close()\n\
             d.close()\n\
             show(seen=seen)\n\
             sys.stdin.readline()\n\
             attempt(s.send, b'secret')\n\
             show(udp=attempt(u.send, b'secret'))",
        );
        assert_eq!(agent.next()["seen"], json!(["ok", "EAGAIN", 4]));
        let stream = TcpListener::bind("127.0.0.1:3005").unwrap();
        let datagram = UdpSocket::bind("127.0.0.1:3005").unwrap();
        agent.go();
        assert_eq!(agent.next()["udp"], "EPERM");
        drop(agent);
        stream.set_nonblocking(true).unwrap();
        assert_eq!(stream.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        datagram.set_nonblocking(true).unwrap();
        assert_eq!(datagram.recv(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert!(lab.counted(&kernel, "egress", "loopback") >= 2);
        assert!(lab.counted(&kernel, "egress", "own") >= 1);
        let events = lab::events(&kernel, 2);
        for event in &events {
            assert_eq!(Hook::from_u8(event.hook), Some(Hook::Egress));
            assert_eq!(Denial::from_u8(event.denial), Some(Denial::Loopback));
            assert_eq!(event.destination.port, 3005);
            assert_eq!(event.task.session, event.task.cgroup);
        }
        lab.balanced(&kernel);
    });
}

#[test]
#[ignore = "needs root; run by cargo xtask test"]
fn who_left_the_cgroup_owns_nothing_in_it() {
    in_namespaces(|lab| {
        let (kernel, _far) = start(lab);
        let session = lab.session("run-1.scope");
        let _servers = servers(lab, Some(session.clone()));
        let outside = cgroup2_mount().unwrap().join("cgroup.procs");
        let (seen, _) = lab.process(
            Some(&session),
            &format!(
                "s, t = socket.socket(), socket.socket()\n\
                 before = attempt(t.connect, ('127.0.0.1', 3000))\n\
                 with open('{}', 'w') as procs: procs.write(str(os.getpid()))\n\
                 show(before=before, after=attempt(s.connect, ('127.0.0.1', 3000)))",
                outside.display()
            ),
        );
        assert_eq!(seen, json!({"before": "ok", "after": "EPERM"}));
        lab.balanced(&kernel);
    });
}

#[test]
#[ignore = "needs root; run by cargo xtask test"]
fn a_wrong_depth_is_found_out_and_a_wrong_cgroup_owns_nothing() {
    in_namespaces(|lab| {
        let (kernel, _far) = start(lab);
        let pin = lab.options.pin_dir.join(names::SETTINGS);
        let mut map = Array::<_, Settings>::try_from(Map::Array(MapData::from_pin(pin).unwrap())).unwrap();
        let right = map.get(&0, 0).unwrap();
        let session = lab.session("run-1.scope");
        // As where a container shows a part of the hierarchy only.
        for depth in [0, right.depth + 3, u32::MAX] {
            map.set(0, Settings { depth, ..right }, 0).unwrap();
            let _servers = servers(lab, Some(session.clone()));
            all(&called(lab, &session), "hello", "the session");
            all(&called(lab, &lab.session("run-2.scope")), "EPERM", "another session");
        }
        let (_, found) = sessions(&kernel);
        assert_eq!(found, 2, "and counted as such");
        map.set(0, Settings { guarded: 1, ..right }, 0).unwrap();
        let _servers = servers(lab, Some(session.clone()));
        all(&called(lab, &session), "EPERM", "without a guarded cgroup above");
        lab.balanced(&kernel);
    });
}

/// How many outcomes are counted for no session, and how many sessions there are.
fn sessions(kernel: &Attached) -> (u64, usize) {
    let tallies = kernel.session_counters().unwrap();
    let none = tallies.iter().filter(|tally| tally.session == 0).map(|tally| tally.counter.count).sum();
    let mut ids: Vec<u64> = tallies.iter().map(|tally| tally.session).filter(|id| *id != 0).collect();
    ids.sort_unstable();
    ids.dedup();
    (none, ids.len())
}

#[test]
#[ignore = "needs root; run by cargo xtask test"]
fn sockets_know_that_they_were_made_under_guard() {
    in_namespaces(|lab| {
        let (kernel, _far) = start(lab);
        let script = "l = socket.create_server(('127.0.0.1', 3007))\n\
             c = socket.create_connection(('127.0.0.1', 3007))\n\
             a, _ = l.accept()\n\
             u = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)\n\
             m = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)\n\
             show(made=[s.fileno() for s in (l, c, a, u, m)])\n\
             sys.stdin.readline()";
        for (cgroup, guarded) in [(Some(lab.session("run-1.scope")), true), (None, false)] {
            let mut agent = lab.staying(cgroup.as_deref(), script);
            let made = agent.next();
            for (name, fd) in ["listens", "connected", "accepted", "UDP", "MPTCP"]
                .iter()
                .zip(made["made"].as_array().unwrap())
            {
                let socket = duplicate(&agent, fd.as_i64().unwrap());
                assert_eq!(kernel.is_guarded(socket.as_fd()).unwrap(), guarded, "{name}");
            }
        }
    });
}

/// A descriptor of another process.
fn duplicate(agent: &Staying, fd: i64) -> OwnedFd {
    let pid = Pid::from_raw(i32::try_from(agent.pid()).unwrap()).unwrap();
    let process = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    pidfd_getfd(process, i32::try_from(fd).unwrap(), PidfdGetfdFlags::empty()).unwrap()
}
