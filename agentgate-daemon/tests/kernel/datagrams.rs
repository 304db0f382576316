//! UDP that policy lets pass, by every way of sending, and only that.

use std::{io::ErrorKind, net::UdpSocket, time::Duration};

use agentgate::kernel::{Attached, Kernel, UdpRange};
use serde_json::json;

use crate::lab::{Far, Lab, in_namespaces};

/// Ways of sending to `V4` and `V6`, where 9999 is the port of a server that waits.
const SENDING: &str = "
def unconnected(address):
    s = socket.socket(socket.AF_INET6 if ':' in address[0] else socket.AF_INET, socket.SOCK_DGRAM)
    return attempt(s.sendto, b'listed', address)
def connected(address, *options):
    def go():
        s = socket.socket(socket.AF_INET6 if ':' in address[0] else socket.AF_INET, socket.SOCK_DGRAM)
        for option in options: s.setsockopt(*option)
        s.connect(address)
        return s.send(b'listed')
    return attempt(go)
def marked(address):
    def go():
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.connect(address)
        return s.sendmsg([b'listed'], [(socket.IPPROTO_IP, socket.IP_TOS, struct.pack('i', 1))])
    return attempt(go)
";

fn admit(kernel: &Attached, ranges: &[(&str, &[(u16, u16)])]) {
    let ranges: Vec<UdpRange> = ranges
        .iter()
        .map(|(net, ports)| UdpRange { net: net.parse().unwrap(), ports: ports.to_vec() })
        .collect();
    kernel.set_udp(&ranges).unwrap();
}

/// Takes what has come, of which there has to be so much.
fn arrived(socket: &UdpSocket, count: usize) {
    let mut buffer = [0; 64];
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    for turn in 0..count {
        let length = socket.recv(&mut buffer).unwrap_or_else(|error| panic!("{turn} of {count}: {error}"));
        assert_eq!(&buffer[..length], b"listed");
    }
    socket.set_nonblocking(true).unwrap();
    assert_eq!(socket.recv(&mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock, "more than {count}");
    socket.set_nonblocking(false).unwrap();
}

fn tried(lab: &Lab, calls: &[&str]) -> Vec<serde_json::Value> {
    let script: String = calls.iter().map(|call| format!("r.append({call})\n")).collect();
    let (seen, _) = lab.agent(&format!("{SENDING}\nr = []\n{script}show(seen=r)"));
    seen["seen"].as_array().unwrap().clone()
}

#[test]
#[ignore = "needs root; run by cargo xtask test"]
fn listed_udp_passes_by_every_way_and_nothing_else_does() {
    in_namespaces(|lab| {
        let far = Far::start();
        let kernel = lab.start();
        admit(&kernel, &[("203.0.113.0/24", &[(9990, 9999)]), ("2001:db8::/32", &[(9999, 9999)])]);
        let ways = [
            "unconnected(('203.0.113.7', 9999))",
            "unconnected(('::ffff:203.0.113.7', 9999))",
            "connected(('203.0.113.7', 9999))",
            "connected(('::ffff:203.0.113.7', 9999))",
            "marked(('203.0.113.7', 9999))",
            "connected(('203.0.113.7', 9999), (socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'v0'))",
            "unconnected(('2001:db8::7', 9999))",
            "connected(('2001:db8::7', 9999))",
        ];
        assert_eq!(tried(lab, &ways), vec![json!(6); 8]);
        arrived(&far.sinks[0], 6);
        arrived(&far.sinks[1], 2);
        assert_eq!(lab.counted(&kernel, "egress", "listed"), 8);
        assert_eq!(lab.counted(&kernel, "sendmsg4", "listed"), 4, "two, and two of connected sockets");
        assert_eq!(lab.counted(&kernel, "connect4", "listed"), 3);
        assert_eq!(lab.counted(&kernel, "connect6", "listed"), 2);
        let closed = [
            "unconnected(('203.0.113.7', 10000))",
            "unconnected(('203.0.113.7', 9989))",
            "connected(('203.0.113.7', 10000))",
            "unconnected(('198.51.100.2', 9999))",
            "unconnected(('2001:db9::7', 9999))",
            "connected(('2001:db9::7', 9999))",
            "connected(('203.0.113.7', 9999), \
             (socket.IPPROTO_IP, socket.IP_OPTIONS, bytes([131, 7, 4, 198, 51, 100, 2, 0])))",
        ];
        assert_eq!(tried(lab, &closed), vec![json!("EPERM"); 7]);
        lab.balanced(&kernel);
    });
}

#[test]
#[ignore = "needs root; run by cargo xtask test"]
fn a_narrower_range_replaces_the_wider_and_some_are_never_open() {
    in_namespaces(|lab| {
        let far = Far::start();
        let kernel = lab.start();
        kernel.set_host_addresses(&["198.51.100.1".parse().unwrap()]).unwrap();
        let everything: &[(u16, u16)] = &[(1, 65535)];
        admit(&kernel, &[("0.0.0.0/0", everything), ("::/0", everything), ("203.0.113.7/32", &[])]);
        let server = UdpSocket::bind("127.0.0.1:9999").unwrap();
        let host = UdpSocket::bind("198.51.100.1:9999").unwrap();
        let calls = [
            // A hole.
            "unconnected(('203.0.113.7', 9999))",
            "connected(('203.0.113.7', 9999))",
            // This host.
            "unconnected(('127.0.0.1', 9999))",
            "connected(('127.0.0.1', 9999))",
            "unconnected(('198.51.100.1', 9999))",
            "connected(('198.51.100.1', 9999))",
            // Names are asked of the gate.
            "connected(('203.0.113.8', 853))",
            "unconnected(('203.0.113.8', 853))",
            // Groups.
            "unconnected(('224.0.0.251', 9999))",
            "connected(('224.0.0.251', 9999))",
            "unconnected(('ff02::fb', 9999))",
            "unconnected(('255.255.255.255', 9999))",
        ];
        assert_eq!(tried(lab, &calls), vec![json!("EPERM"); 12]);
        assert_eq!(tried(lab, &["connected(('2001:db8::7', 9999))"]), [json!(6)]);
        arrived(&far.sinks[0], 0);
        arrived(&far.sinks[1], 1);
        arrived(&server, 0);
        arrived(&host, 0);
        // DNS stays the gate's: nobody is there, and nothing leaves.
        assert_eq!(lab.counted(&kernel, "egress", "listed"), 1);
        let _refused_by_nobody = tried(lab, &["unconnected(('203.0.113.8', 53))"]);
        assert_eq!(lab.counted(&kernel, "egress", "listed"), 1);
        assert_eq!(lab.counted(&kernel, "egress", "resolver"), 1);
    });
}

#[test]
#[ignore = "needs root; run by cargo xtask test"]
fn what_policy_closes_is_closed_for_sockets_that_are_open() {
    in_namespaces(|lab| {
        let far = Far::start();
        let kernel = lab.start();
        admit(&kernel, &[("203.0.113.7/32", &[(9999, 9999)])]);
        let mut agent = lab.staying(
            Some(&lab.session("run-1.scope")),
            "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
             u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
             s.connect(('203.0.113.7', 9999))\n\
             for _ in range(3):\n\
             \x20   show(sent=[attempt(s.send, b'listed'), attempt(u.sendto, b'listed', ('203.0.113.7', 9999))])\n\
             \x20   sys.stdin.readline()",
        );
        assert_eq!(agent.next()["sent"], json!([6, 6]));
        admit(&kernel, &[("203.0.113.7/32", &[(9998, 9998)])]);
        agent.go();
        assert_eq!(agent.next()["sent"], json!(["EPERM", "EPERM"]));
        admit(&kernel, &[]);
        agent.go();
        assert_eq!(agent.next()["sent"], json!(["EPERM", "EPERM"]));
        agent.go();
        arrived(&far.sinks[0], 2);
        assert_eq!(lab.counted(&kernel, "egress", "udp"), 2);
        lab.balanced(&kernel);
    });
}
