//! Python scripts that agents run: what no ordinary client would do on its own.

/// One HTTPS request with the standard library.
pub(super) const URLLIB: &str = "
import urllib.request
with urllib.request.urlopen('https://open.example/', timeout=20) as response:
    print(response.status, response.read(20).decode())
";

/// A raw ICMP socket.
pub(super) const RAW: &str = "
import socket
try:
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    print('opened')
except PermissionError:
    print('not permitted')
";

/// A name of several addresses, then a call that is refused: what was told before it has come.
pub(super) const LOOKUP: &str = "
import socket
found = {a[4][0] for a in socket.getaddrinfo('open.example', 443)}
print(len(found), 'addresses')
try:
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
except PermissionError:
    pass
";

/// A UDP-Lite socket: a datagram of another protocol number.
pub(super) const UDP_LITE: &str = "
import socket
try:
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 136)
    s.sendto(b'secret', ('203.0.113.80', 9999))
    print('sent')
except PermissionError:
    print('not permitted')
";

/// Plain HTTP over Multipath TCP.
pub(super) const MPTCP: &str = r"
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
s.settimeout(20)
s.connect(('198.51.100.10', 80))
s.sendall(b'GET / HTTP/1.1\r\nhost: open.example\r\nconnection: close\r\n\r\n')
data = b''
while chunk := s.recv(65536):
    data += chunk
print(data.split(b'\r\n')[0].decode())
";

/// A datagram to the sink, unconnected.
pub(super) const UDP: &str = "
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
try:
    s.sendto(b'secret', ('203.0.113.80', 9999))
    print('sent')
except PermissionError:
    print('not permitted')
";

/// The same on a connected socket, over IPv6: connect(2) sends nothing and passes.
pub(super) const UDP_CONNECTED: &str = "
import socket
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.connect(('2001:db8::80', 9999))
try:
    s.send(b'secret')
    print('sent')
except PermissionError:
    print('not permitted')
";

/// A question to another resolver, and who seems to answer.
pub(super) const DNS: &str = r"
import socket
q = b'\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x04open\x07example\x00\x00\x01\x00\x01'
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(10)
s.sendto(q, ('8.8.8.8', 53))
answer, peer = s.recvfrom(512)
print(peer[0], 'says', socket.inet_ntoa(answer[-4:]))
";

/// The question alone.
pub(super) const DNS_ONE_WAY: &str = r"
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.sendto(b'\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x04open\x07example\x00\x00\x01\x00\x01', ('8.8.8.8', 53))
";

/// Plain HTTP to an IPv4-mapped address.
pub(super) const MAPPED: &str = r"
import socket
s = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
s.settimeout(20)
s.connect(('::ffff:198.51.100.10', 80))
s.sendall(b'GET / HTTP/1.1\r\nhost: open.example\r\nconnection: close\r\n\r\n')
data = b''
while chunk := s.recv(65536):
    data += chunk
print(data.split(b'\r\n')[0].decode())
";

/// Bytes of no protocol to a raw port.
pub(super) const OPAQUE: &str = r"
import socket
s = socket.create_connection(('203.0.113.80', 9000), 20)
try:
    s.sendall(b'\x00\x01\x02 this is no HTTP')
    s.shutdown(socket.SHUT_WR)
    print('closed' if s.recv(10) == b'' else 'answered')
except OSError as error:
    print(type(error).__name__)
";

/// What raw bytes sent to a TLS port bring: an alert, an end or a reset are all one refusal.
macro_rules! refused_after {
    ($bytes:literal) => {
        concat!(
            "
import socket
s = socket.create_connection(('198.51.100.10', 443), 20)
s.settimeout(30)
try:
    s.sendall(",
            $bytes,
            ")
    answer = s.recv(100)
    print('refused' if answer == b'' or answer[0] == 21 else answer)
except ConnectionError:
    print('refused')
"
        )
    };
}

/// Half a ClientHello: 508 bytes of handshake are announced, 40 come.
pub(super) const HALF_HELLO: &str =
    refused_after!(r"b'\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03' + b'\x5a' * 40");

/// A whole record that is no ClientHello.
pub(super) const BROKEN_HELLO: &str = refused_after!(r"b'\x16\x03\x01\x00\x06\x01\x00\x00\x02\x03\x03'");

/// A complete connection, then nothing.
pub(super) const SILENCE: &str = refused_after!("b''");

/// TLS without a server name.
pub(super) const NO_SNI: &str = r"
import socket, ssl
context = ssl.create_default_context()
context.check_hostname = False
try:
    s = context.wrap_socket(socket.create_connection(('198.51.100.10', 443), 20))
    s.sendall(b'GET / HTTP/1.1\r\nhost: open.example\r\nconnection: close\r\n\r\n')
    print(s.recv(100).split(b'\r\n')[0].decode())
except OSError:
    print('refused')
";

/// A request with a header of 1 MiB.
pub(super) const LONG_HEADER: &str = "
import http.client
connection = http.client.HTTPSConnection('open.example', timeout=20)
try:
    connection.request('GET', '/', headers={'x-long': 'a' * 1048576})
    status = connection.getresponse().status
    print('refused' if status >= 400 else status)
except (OSError, http.client.HTTPException):
    print('refused')
";

/// A body that stops in the middle.
pub(super) const HALF_BODY: &str = r"
import socket, ssl
s = ssl.create_default_context().wrap_socket(
    socket.create_connection(('open.example', 443), 20), server_hostname='open.example')
s.sendall(b'POST /echo HTTP/1.1\r\nhost: open.example\r\ncontent-length: 1000\r\n\r\n0123456789')
s.close()
print('left')
";
