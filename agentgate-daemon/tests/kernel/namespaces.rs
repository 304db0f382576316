//! Other network namespaces: refused, until the gate has doors there.

use std::{
    fs::File,
    net::{IpAddr, TcpListener},
};

use agentgate::kernel::{AgentEnd, Kernel};
use agentgate_common::settings::Settings;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::json;

use crate::lab::{Far, LISTENER, Lab, RESOLVER, Resolver, Staying, in_namespaces};

/// An agent that leaves for a network namespace of its own, then tries whenever it is told to.
fn elsewhere(lab: &Lab) -> Staying {
    lab.staying(
        Some(&lab.session("run-1.scope")),
        "import ctypes, fcntl\n\
         libc = ctypes.CDLL(None)\n\
         libc.unshare(0x40000000)\n\
         s = socket.socket()\n\
         fcntl.ioctl(s, 0x8914, struct.pack('16sH14x', b'lo', 1))\n\
         own = socket.create_server(('0.0.0.0', 3000))\n\
         show(cookie=struct.unpack('Q', s.getsockopt(socket.SOL_SOCKET, 71, 8))[0])\n\
         while sys.stdin.readline():\n\
         \x20   show(far=connect(('203.0.113.7', 443)), far6=connect6(('2001:db8::7', 443)),\n\
         \x20       dns=ask(('8.8.8.8', 53)), own=connect(('127.0.0.1', 3000)), listed=connect(('127.0.0.1', 5432)),\n\
         \x20       host=connect(('198.51.100.1', 3000)), gate=connect(('127.0.0.1', 7879)))",
    )
}

/// Does something in the network namespace of a process.
fn within<T: Send>(agent: &Staying, work: impl FnOnce() -> T + Send) -> T {
    let namespace = File::open(format!("/proc/{}/ns/net", agent.pid())).unwrap();
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), Some(LinkNameSpaceType::Network))
                .unwrap();
            work()
        });
        worker.join().unwrap()
    })
}

#[test]
#[ignore = "needs root; run by cargo xtask test"]
fn a_namespace_is_refused_until_the_gate_has_doors_there() {
    in_namespaces(|lab| {
        let _far = Far::start();
        let kernel = lab.start();
        kernel.configure(&Settings { loopback_own: 1, ..lab.settings() }).unwrap();
        kernel.set_host_addresses(&["198.51.100.1".parse().unwrap()]).unwrap();
        let mut agent = elsewhere(lab);
        let cookie = agent.next()["cookie"].as_u64().unwrap();
        let refused = json!({"far": "EPERM", "far6": "EPERM", "dns": "EPERM", "own": ["127.0.0.1", 3000],
            "listed": "EPERM", "host": "EPERM", "gate": "EPERM"});
        agent.go();
        assert_eq!(agent.next(), refused);

        let (doors, resolver) = within(&agent, || {
            let doors = ["127.0.0.1", "::1"]
                .map(|ip| TcpListener::bind((ip.parse::<IpAddr>().unwrap(), LISTENER)).unwrap());
            (doors, Resolver::start((IpAddr::from([127, 0, 0, 1]), RESOLVER).into()))
        });
        kernel.admit_namespace(cookie).unwrap();
        agent.go();
        let seen = agent.next();
        assert_eq!(seen["far"], json!(["203.0.113.7", 443]));
        assert_eq!(seen["far6"], json!(["2001:db8::7", 443]));
        assert_eq!(seen["dns"], json!(["answer", ["8.8.8.8", 53]]));
        assert_eq!(seen["own"], json!(["127.0.0.1", 3000]));
        assert_eq!(seen["listed"], "ECONNREFUSED", "policy opens it, and nobody is there");
        assert_eq!(seen["host"], "EPERM", "its own listener would answer for the host");
        assert_eq!(seen["gate"], "EPERM");
        for (door, original) in doors.iter().zip(["203.0.113.7:443", "[2001:db8::7]:443"]) {
            let (_, peer) = door.accept().unwrap();
            let end = AgentEnd { netns: Some(cookie), peer, door: LISTENER };
            assert_eq!(lab.taken(&kernel, peer), None, "of the daemon's own namespace");
            let flow = kernel.take_flow(end).unwrap().expect("a flow of that namespace");
            assert_eq!((flow.original.0, flow.netns), (original.parse().unwrap(), cookie));
        }
        let asked = resolver.askers();
        let end = AgentEnd { netns: Some(cookie), ..*asked.first().unwrap() };
        assert_eq!(kernel.asker(end).unwrap().unwrap().netns, cookie);

        kernel.expel_namespace(cookie).unwrap();
        agent.go();
        assert_eq!(agent.next(), refused);
        // The resolver's thread is told to end in the namespace that it is in.
        within(&agent, || drop(resolver));
        drop(agent);
        lab.balanced(&kernel);
    });
}
