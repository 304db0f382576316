use crate::lab::{Far, in_namespaces};

#[test]
#[ignore = "needs root; run by cargo xtask test"]
fn explore() {
    in_namespaces(|lab| {
        let far = Far::start();
        let kernel = lab.start();
        let near: Vec<std::net::UdpSocket> = ["0.0.0.0:9997", "198.51.100.1:9998", "127.0.0.1:9998"].iter().map(|a| { let s = std::net::UdpSocket::bind(a).unwrap(); s.set_nonblocking(true).unwrap(); s }).collect();
        let script = "
def c(a, f=socket.AF_INET, broad=False):
    s = socket.socket(f, socket.SOCK_DGRAM)
    if broad: s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    return [attempt(s.connect, a), attempt(s.send, b'x'), attempt(s.send, b'x')]
def gso():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.connect(('203.0.113.7', 9999))
    s.setsockopt(17, 103, 100)
    return attempt(s.send, b'x' * 1000)
def more():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.connect(('203.0.113.7', 9999))
    return [attempt(s.send, b'x', socket.MSG_MORE), attempt(s.send, b'x', 0), attempt(s.send, b'x' * 5000)]
def cork():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.connect(('203.0.113.7', 9999))
    return [attempt(s.setsockopt, 17, 1, 1), attempt(s.send, b'x'), attempt(s.setsockopt, 17, 1, 0)]
def splice():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.connect(('203.0.113.7', 9999))
    r, w = os.pipe(); os.write(w, b'x')
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    n = libc.splice(r, None, s.fileno(), None, ctypes.c_size_t(1), 0)
    return [n, errno.errorcode.get(ctypes.get_errno())]
show(far=c(('203.0.113.7', 9999)), far6=c(('2001:db8::7', 9999), socket.AF_INET6), mapped=c(('::ffff:203.0.113.7', 9999), socket.AF_INET6),
 lan=c(('198.51.100.1', 9998)), lanmapped=c(('::ffff:198.51.100.1', 9998), socket.AF_INET6), lo=c(('127.0.0.1', 9998)), broad=c(('198.51.100.255', 9997), broad=True), nobroad=c(('198.51.100.255', 9997)), gso=gso(), more=more(), cork=cork(), splice=splice())
";
        let (seen, _) = lab.agent(script);
        println!("{seen:#}");
        for s in &near { let mut b=[0;100]; println!("{:?} {:?}", s.local_addr(), s.recv_from(&mut b)); }
        for s in &far.sinks { s.set_nonblocking(true).unwrap(); let mut b=[0;100]; println!("{:?} {:?}", s.local_addr(), s.recv_from(&mut b)); }
        use agentgate::kernel::Kernel;
        println!("{:?}", kernel.counters().unwrap());
        for e in crate::lab::events(&kernel, 1) { println!("{} {} k{} p{} f{} {:?} {} {}", e.hook, e.denial, e.kind, e.protocol, e.family, agentgate::model::flow::socket_addr(&e.destination), e.task.pid, agentgate::model::flow::comm(&e.task.comm)); }
    });
}
