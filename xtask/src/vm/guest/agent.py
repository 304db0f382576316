"""An agent that outlives the daemon: one command a line on a unix socket, one line of JSON back.

fetch URL [HOST]: status, or the name of the error. hammer URL [HOST]: the same again and again until stop,
which gives how often each came about. With HOST the request is for that one, whatever the URL says.
"""

import collections
import json
import socketserver
import sys
import threading
import urllib.error
import urllib.request


def fetch(url, host=None):
    request = urllib.request.Request(url, headers={"host": host} if host else {})
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            response.read()
            return str(response.status)
    except urllib.error.HTTPError as error:
        return str(error.code)
    except urllib.error.URLError as error:
        return type(error.reason).__name__
    except Exception as error:
        return type(error).__name__


class Hammer:
    def __init__(self, *what):
        self.came = collections.Counter()
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.run, args=what)
        self.thread.start()

    def run(self, *what):
        while not self.stopped.is_set():
            self.came[fetch(*what)] += 1

    def stop(self):
        self.stopped.set()
        self.thread.join()
        return dict(self.came)


hammers = []


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        command, *what = self.rfile.readline().decode().split()
        if command == "fetch":
            answer = fetch(*what)
        elif command == "hammer":
            hammers.append(Hammer(*what))
            answer = "started"
        else:
            answer = hammers.pop().stop()
        self.wfile.write(json.dumps(answer).encode() + b"\n")


class Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


Server(sys.argv[1], Handler).serve_forever()
