"""What an agent might send, from several threads and without end: each request with a target of its own, so that
what an origin saw and what the log holds can be laid side by side. Rests on a line `rest`, goes on with one `go`, and ends with
its input; then says how often each thread asked, and how often it was answered whole."""

import http.client
import random
import ssl
import subprocess
import sys
import threading

HOST = "open.example"
stop = threading.Event()
go = threading.Event()
tried, answered = {}, {}


def noise(rng, length):
    return rng.randbytes(length).hex()[:length].encode()


class Worker(threading.Thread):
    """A thread with connections of its own; `ask` does request number `n` and reads its answer to the end."""

    keeps = True

    def __init__(self, name, seed):
        super().__init__(daemon=True)
        self.title = name
        self.rng = random.Random(f"{seed} {name}")
        self.connection = None

    def connect(self):
        return http.client.HTTPSConnection(HOST, timeout=20, context=CONTEXT)

    def tag(self, n):
        return f"kill={self.title}-{n}"

    def run(self):
        n = 0
        while not stop.is_set():
            go.wait()
            n += 1
            tried[self.title] = n
            try:
                if self.connection is None:
                    self.connection = self.connect()
                self.ask(n)
                answered[self.title] = answered.get(self.title, 0) + 1
                if self.keeps:
                    continue
            except (OSError, http.client.HTTPException):
                # So that a gate that is gone is not asked a thousand times a second.
                stop.wait(0.02)
            if self.connection is not None:
                self.connection.close()
                self.connection = None

    def exchange(self, method, target, body=None, **more):
        self.connection.request(method, target, body=body, **more)
        self.connection.getresponse().read()


class Get(Worker):
    def ask(self, n):
        self.exchange("GET", f"/bytes/{self.rng.randrange(20000)}?{self.tag(n)}")


class Post(Worker):
    """A connection for each; head and body in pieces of their own."""

    keeps = False

    def ask(self, n):
        body = noise(self.rng, self.rng.randrange(1, 20000))
        self.connection.putrequest("POST", f"/bytes/{self.rng.randrange(2000)}?{self.tag(n)}")
        self.connection.putheader("content-type", "text/plain")
        self.connection.putheader("content-length", str(len(body)))
        self.connection.endheaders()
        cut = self.rng.randrange(len(body))
        self.connection.send(body[:cut])
        self.connection.send(body[cut:])
        self.connection.getresponse().read()


class Chunked(Worker):
    def ask(self, n):
        pieces = [noise(self.rng, self.rng.randrange(1, 4000)) for _ in range(self.rng.randrange(1, 6))]
        headers = {"content-type": "text/plain", "transfer-encoding": "chunked"}
        self.exchange("PUT", f"/bytes/10?{self.tag(n)}", iter(pieces), headers=headers, encode_chunked=True)


class Large(Worker):
    def ask(self, n):
        self.exchange("POST", f"/bytes/10?{self.tag(n)}", noise(self.rng, self.rng.randrange(50000, 300000)))


class Stream(Worker):
    def ask(self, n):
        count = self.rng.randrange(1, 12)
        body = noise(self.rng, 300) if n % 2 else None
        self.exchange("POST" if body else "GET", f"/sse?n={count}&ms=10&{self.tag(n)}", body)


class Plain(Worker):
    def connect(self):
        return http.client.HTTPConnection(HOST, 8080, timeout=20)

    def ask(self, n):
        body = noise(self.rng, self.rng.randrange(1, 3000)) if n % 2 else None
        self.exchange("POST" if body else "GET", f"/bytes/300?{self.tag(n)}", body)


class Parallel(Worker):
    """Streams of one HTTP/2 connection."""

    def connect(self):
        return None

    def ask(self, n):
        command = ["curl", "-sS", "--http2", "--parallel", "--max-time", "20", "-o", "/dev/null"]
        if n % 2:
            command += ["--data-binary", noise(self.rng, self.rng.randrange(1, 5000)).decode()]
        command.append(f"https://{HOST}/bytes/[1-5]?{self.tag(n)}")
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if done.returncode:
            raise OSError(done.returncode)


CONTEXT = ssl.create_default_context()
workers = [kind(kind.__name__.lower(), sys.argv[1]) for kind in (Get, Post, Chunked, Large, Stream, Plain, Parallel)]
go.set()
for worker in workers:
    worker.start()
print("begun", flush=True)
for line in sys.stdin:
    go.set() if line.strip() == "go" else go.clear()
stop.set()
go.set()
for worker in workers:
    worker.join(30)
print(" ".join(f"{name}={answered.get(name, 0)}/{count}" for name, count in sorted(tried.items())))
