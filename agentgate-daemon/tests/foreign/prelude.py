import ctypes, errno, json, os, select, signal, socket, sys, threading, time
signal.alarm(100)
libc = ctypes.CDLL(None, use_errno=True)
V4, V6 = "127.0.0.1", "::1"

def attempt(f, *a):
    try:
        r = f(*a)
        return "ok" if r is None else r
    except OSError as e:
        return errno.errorcode.get(e.errno, str(e))

def enter():
    """Moves this process into the session's cgroup."""
    with open(SESSION + "/cgroup.procs", "w") as f:
        f.write("0")

def child(f):
    """Runs f in a child process and gives its result."""
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(w, json.dumps(f()).encode())
            os._exit(0)
        except BaseException as e:
            print("child:", repr(e), file=sys.stderr)
            os._exit(1)
    os.close(w)
    with os.fdopen(r) as f:
        text = f.read()
    status = os.waitpid(pid, 0)[1]
    if status != 0:
        sys.exit("a child failed")
    return json.loads(text)

def address(family):
    return V4 if family == socket.AF_INET else V6

def tcp_sink(family):
    s = socket.socket(family, socket.SOCK_STREAM)
    s.bind((address(family), 0))
    s.listen(8)
    return s

def udp_sink(family):
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.bind((address(family), 0))
    return s

class Way:
    """How a socket of `make` comes into the hands of a guarded process, and what `use` does with it."""
    @staticmethod
    def inherited(make, use):
        s = make()
        def go():
            enter()
            return attempt(use, s)
        return child(go)
    @staticmethod
    def moved(make, use):
        def go():
            s = make()
            enter()
            return attempt(use, s)
        return child(go)
    @staticmethod
    def scm(make, use):
        s = make()
        a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        socket.send_fds(a, [b"x"], [s.fileno()])
        def go():
            enter()
            _, fds, flags, _ = socket.recv_fds(b, 1, 1)
            if not fds:
                return "not received"
            return attempt(use, socket.socket(fileno=fds[0]))
        return child(go)
    @staticmethod
    def pidfd(make, use):
        s = make()
        me = os.getpid()
        def go():
            enter()
            fd = libc.syscall(438, os.pidfd_open(me), s.fileno(), 0)
            if fd < 0:
                return "not received"
            s.close()
            return attempt(use, socket.socket(fileno=fd))
        return child(go)

def tcp_fresh(family, way):
    sink = tcp_sink(family)
    def use(s):
        s.settimeout(2)
        s.connect(sink.getsockname())
        s.sendall(b"secret")
    said = way(lambda: socket.socket(family, socket.SOCK_STREAM), use)
    return [said, arrived_at(sink)]

def arrived_at(sink):
    sink.settimeout(0)
    try:
        conn, _ = sink.accept()
    except BlockingIOError:
        return False
    return has_data(conn)

def has_data(conn, patience=1.0):
    conn.settimeout(patience)
    try:
        return conn.recv(100) != b""
    except OSError:
        return False

def tcp_connected(family, way, flags=0):
    sink = tcp_sink(family)
    def make():
        s = socket.socket(family, socket.SOCK_STREAM)
        s.connect(sink.getsockname())
        return s
    def use(s):
        s.send(b"secret", flags)
        # The kernel sends again, and later, what it could not send: not as long as this one is open.
        time.sleep(0.7)
    said = way(make, use)
    conn, _ = sink.accept()
    return [said, has_data(conn)]

def tcp_accepted(family, way):
    """A listener from outside, on which the guarded process accepts."""
    sink = tcp_sink(family)
    client = socket.socket(family, socket.SOCK_STREAM)
    client.connect(sink.getsockname())
    def use(s):
        s.settimeout(2)
        conn, _ = s.accept()
        conn.send(b"secret")
        time.sleep(0.7)
    said = way(lambda: sink, use)
    return [said, has_data(client)]

def udp(family, way, connected):
    sink = udp_sink(family)
    def make():
        s = socket.socket(family, socket.SOCK_DGRAM)
        if connected:
            s.connect(sink.getsockname())
        return s
    def use(s):
        s.send(b"secret") if connected else s.sendto(b"secret", sink.getsockname())
    said = way(make, use)
    return [said, has_data(sink, 0.2)]

def udp_options(way):
    """Connected, with an IPv6 header of its own before UDP's."""
    sink = udp_sink(socket.AF_INET6)
    def make():
        s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_DSTOPTS, bytes([0, 0, 1, 4, 0, 0, 0, 0]))
        s.connect(sink.getsockname())
        return s
    return [way(make, lambda s: s.send(b"secret")), has_data(sink, 0.2)]

def raw(way):
    sink = socket.socket(socket.AF_INET, socket.SOCK_RAW, 253)
    make = lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 253)
    said = way(make, lambda s: s.sendto(b"secret", (V4, 0)))
    return [said, has_data(sink, 0.2)]

def packet(way):
    sink = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x88b5))
    make = lambda: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
    said = way(make, lambda s: s.sendto(b"secret", ("lo", 0x88b5)))
    return [said, has_data(sink, 0.2)]

def show(value):
    print(json.dumps(value), flush=True)

class Pump(threading.Thread):
    """Somebody else's traffic over loopback, both ways, until told to stop."""
    def __init__(self, family, datagrams):
        super().__init__(daemon=True)
        self.family, self.datagrams = family, datagrams
        self.rounds, self.fault, self.on = 0, None, True
        if datagrams:
            self.far, self.near = udp_sink(family), udp_sink(family)
            self.far.connect(self.near.getsockname())
            self.near.connect(self.far.getsockname())
        else:
            sink = tcp_sink(family)
            self.near = socket.socket(family, socket.SOCK_STREAM)
            self.near.connect(sink.getsockname())
            self.far, _ = sink.accept()
        for s in (self.far, self.near):
            s.settimeout(20)
    def run(self):
        try:
            while self.on:
                for a, b in ((self.near, self.far), (self.far, self.near)):
                    data = os.urandom(20000)
                    # Queued, and sent in an interrupt.
                    a.send(data[:100], 0 if self.datagrams else socket.MSG_MORE)
                    got = b.recv(100) if self.datagrams else b""
                    if not self.datagrams:
                        a.sendall(data[100:])
                        while len(got) < len(data):
                            got += b.recv(65536)
                    if got != (data[:100] if self.datagrams else data):
                        self.fault = "other bytes"
                self.rounds += 1
        except OSError as e:
            self.fault = repr(e)

def guarded_server(seconds):
    """A guarded process that answers on loopback as fast as it is asked, by outside clients."""
    ready, told = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        enter()
        sink = tcp_sink(socket.AF_INET)
        sink.listen(64)
        told.send(str(sink.getsockname()[1]).encode())
        end = time.monotonic() + seconds
        conns = []
        sink.settimeout(0.2)
        while time.monotonic() < end:
            for s in select.select([sink] + conns, [], [], 0.2)[0]:
                if s is sink:
                    conns.append(sink.accept()[0])
                    continue
                data = s.recv(65536)
                if data:
                    s.sendall(data)
                else:
                    conns.remove(s)
                    s.close()
        os._exit(0)
    port = int(ready.recv(16))
    asked = 0
    end = time.monotonic() + seconds - 1
    while time.monotonic() < end:
        client = socket.create_connection((V4, port), 5)
        for _ in range(20):
            data = os.urandom(30000)
            client.sendall(data)
            got = b""
            while len(got) < len(data):
                more = client.recv(65536)
                if not more:
                    return "cut short"
                got += more
            if got != data:
                return "other bytes"
            asked += 1
        client.close()
    os.waitpid(pid, 0)
    return asked
