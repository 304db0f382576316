"""An agent that outlives the daemon: one command a line on a unix socket, one line of JSON back.

fetch URL: status, or the name of the error. hammer URL: connects again and again until stop, which
gives how often each came about.
"""

import collections
import json
import socketserver
import sys
import threading
import urllib.error
import urllib.request


def fetch(url):
    try:
        with urllib.request.urlopen(url, timeout=20) as response:
            response.read()
            return str(response.status)
    except urllib.error.HTTPError as error:
        return str(error.code)
    except urllib.error.URLError as error:
        return type(error.reason).__name__
    except Exception as error:
        return type(error).__name__


class Hammer:
    def __init__(self, url):
        self.came = collections.Counter()
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.run, args=(url,))
        self.thread.start()

    def run(self, url):
        while not self.stopped.is_set():
            self.came[fetch(url)] += 1

    def stop(self):
        self.stopped.set()
        self.thread.join()
        return dict(self.came)


hammers = []


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        command, _, url = self.rfile.readline().decode().strip().partition(" ")
        if command == "fetch":
            answer = fetch(url)
        elif command == "hammer":
            hammers.append(Hammer(url))
            answer = "started"
        else:
            answer = hammers.pop().stop()
        self.wfile.write(json.dumps(answer).encode() + b"\n")


class Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


Server(sys.argv[1], Handler).serve_forever()
