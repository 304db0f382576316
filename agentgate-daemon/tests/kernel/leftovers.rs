//! What an earlier call leaves on a socket, and the less usual ways of sending: each packet is judged for
//! itself.

use std::io::ErrorKind;

use agentgate::kernel::{Kernel, UdpRange};
use agentgate_common::settings::Settings;
use serde_json::{Value, json};

use crate::lab::{Far, Resolver, in_namespaces};

/// Sends to a port that policy does not name, by sockets that were let pass elsewhere before.
const TRIES: &str = "
import ctypes, fcntl
libc = ctypes.CDLL(None, use_errno=True)
OPEN, SHUT, DNS, OWN = ('203.0.113.7', 9998), ('203.0.113.7', 9999), ('8.8.8.8', 53), ('127.0.0.1', 3000)
SHUT6, MAPPED = ('2001:db8::7', 9999), ('::ffff:203.0.113.7', 9999)
receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
receiver.bind(OWN)
listener = socket.create_server(OWN)
def udp(*connects, family=socket.AF_INET, options=()):
    s = socket.socket(family, socket.SOCK_DGRAM)
    for option in options: s.setsockopt(*option)
    for address in connects:
        if address is None: libc.connect(s.fileno(), struct.pack('H14x', 0), 16)
        else: s.connect(address)
    return s
def raw_address(family, address):
    return struct.pack('=H', family) + struct.pack('>H', address[1]) + socket.inet_aton(address[0]) + bytes(8)
def unspecified(s, address):
    raw = raw_address(0, address)
    n = libc.sendto(s.fileno(), b'secret', 6, 0, raw, len(raw))
    return n if n >= 0 else errno.errorcode[ctypes.get_errno()]
class Message(ctypes.Structure):
    _fields_ = [('name', ctypes.c_char_p), ('namelen', ctypes.c_uint), ('iov', ctypes.c_void_p),
                ('iovlen', ctypes.c_size_t), ('control', ctypes.c_void_p), ('controllen', ctypes.c_size_t),
                ('flags', ctypes.c_int), ('sent', ctypes.c_uint)]
def many(s, *addresses):
    data = ctypes.create_string_buffer(b'secret')
    iov = (ctypes.c_size_t * 2)(ctypes.addressof(data), 6)
    messages = (Message * len(addresses))()
    for m, address in zip(messages, addresses):
        m.name, m.namelen, m.iov, m.iovlen = raw_address(2, address), 16, ctypes.addressof(iov), 1
    n = libc.sendmmsg(s.fileno(), messages, len(addresses), 0)
    return n if n >= 0 else errno.errorcode[ctypes.get_errno()]
def device(s):
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'v0')
    return attempt(s.send, b'secret')
def form(address):
    s = udp(('::ffff:203.0.113.7', 9998), family=socket.AF_INET6)
    changed = attempt(s.setsockopt, 41, 1, socket.AF_INET)
    raw = raw_address(2, address)
    n = libc.sendto(s.fileno(), b'secret', 6, 0, raw, len(raw))
    return [changed, n if n >= 0 else errno.errorcode[ctypes.get_errno()]]
big = bytes(3000)
";

#[test]
#[ignore = "needs root; run by cargo xtask test"]
fn what_an_earlier_call_left_opens_nothing() {
    in_namespaces(|lab| {
        let far = Far::start();
        let kernel = lab.start();
        kernel.configure(&Settings { loopback_own: 1, ..lab.settings() }).unwrap();
        kernel
            .set_host_addresses(&["198.51.100.1".parse().unwrap(), "2001:db8:1::1".parse().unwrap()])
            .unwrap();
        let net = "203.0.113.0/24".parse().unwrap();
        kernel.set_udp(&[UdpRange { net, ports: vec![(9998, 9998)] }]).unwrap();
        let _resolver = Resolver::start(([127, 0, 0, 1], crate::lab::RESOLVER).into());
        let refused = || json!("EPERM");
        let rows: Vec<(&str, Value)> = vec![
            // Connected to what passes, sent elsewhere.
            ("attempt(udp(OPEN).sendto, b'secret', SHUT)", refused()),
            ("attempt(udp(DNS).sendto, b'secret', SHUT)", refused()),
            ("attempt(udp(OWN).sendto, b'secret', SHUT)", refused()),
            // Connected once more, or to nothing.
            ("attempt(udp(OPEN, SHUT).send, b'secret')", refused()),
            ("attempt(udp(DNS, None, SHUT).send, b'secret')", refused()),
            ("attempt(udp(SHUT, None).sendto, b'secret', SHUT)", refused()),
            ("attempt(udp(OPEN, None).sendto, b'secret', SHUT)", refused()),
            ("attempt(udp(MAPPED, None, family=socket.AF_INET6).sendto, b'secret', MAPPED)", refused()),
            ("attempt(udp(MAPPED, family=socket.AF_INET6).sendto, b'secret', MAPPED)", refused()),
            // An address of no family is one of IPv4 to IPv4.
            ("unspecified(udp(), SHUT)", refused()),
            ("unspecified(udp(OPEN), SHUT)", refused()),
            // Several at once: the second is refused, so one is sent.
            ("many(udp(), OPEN, SHUT)", json!(1)),
            ("many(udp(), SHUT, OPEN)", refused()),
            // In pieces: of the kernel's making, and of the interface's.
            ("attempt(udp(SHUT, options=[(17, 103, 1000)]).send, big)", refused()),
            ("attempt(udp(options=[(17, 103, 1000)]).sendto, big, SHUT)", refused()),
            ("attempt(udp(SHUT).send, big)", refused()),
            ("attempt(udp(SHUT6, family=socket.AF_INET6).send, big)", refused()),
            ("attempt(udp(SHUT6, family=socket.AF_INET6, options=[(41, 33, 1)]).send, b'secret')", refused()),
            // Another interface once it is connected, to which the kernel finds no route from loopback.
            ("device(udp(DNS))", json!("EINVAL")),
            ("device(udp(OWN))", json!("EINVAL")),
            ("device(udp(SHUT))", refused()),
            // From IPv6 to IPv4.
            ("form(SHUT)", json!(["ok", "EPERM"])),
        ];
        let script: String = rows.iter().map(|(call, _)| format!("r.append({call})\n")).collect();
        let (seen, _) = lab.agent(&format!("{TRIES}\nr = []\n{script}show(seen=r)"));
        for ((call, expect), seen) in rows.iter().zip(seen["seen"].as_array().unwrap()) {
            assert_eq!(seen, expect, "{call}");
        }
        for sink in &far.sinks {
            sink.set_nonblocking(true).unwrap();
            assert_eq!(sink.recv(&mut [0; 64]).unwrap_err().kind(), ErrorKind::WouldBlock);
        }
        lab.balanced(&kernel);
    });
}
