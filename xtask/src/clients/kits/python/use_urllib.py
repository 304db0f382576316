"""The standard library."""

import http.client
import ssl
import urllib.error
import urllib.request

import shown

OPEN = "https://open.example"


def show(answer):
    shown.head(answer.status, answer.reason, answer.version, answer.getheaders())
    shown.body(answer.read())


def get():
    request = urllib.request.Request(f"{OPEN}/echo?q=1", headers={"X-Lower-mixed": "1"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        show(answer)


def post():
    with urllib.request.urlopen(f"{OPEN}/echo", data=b"a=1&b=2", timeout=20) as answer:
        show(answer)


def error():
    try:
        urllib.request.urlopen(f"{OPEN}/status/418", timeout=20)
    except urllib.error.HTTPError as error:
        print(error.code, error.reason, error.read())


def keep_alive():
    connection = http.client.HTTPSConnection("open.example", timeout=20, context=ssl.create_default_context())
    for path in ["/", "/status/404", "/trailers", "/bytes/10"]:
        connection.putrequest("GET", path, skip_accept_encoding=True)
        connection.putheader("x-one", "1")
        connection.putheader("X-Two", "2")
        connection.putheader("x-one", "3")
        connection.endheaders()
        show(connection.getresponse())
    connection.request("POST", "/echo", body=iter([b"one", b"two"]), headers={"Transfer-Encoding": "chunked"}, encode_chunked=True)
    show(connection.getresponse())
    connection.close()


def answers_by_hand():
    connection = http.client.HTTPSConnection("raw.example", timeout=20)
    for path in ["/case", "/chunks", "/wordless", "/latin", "/empty", "/unchanged", "/close", "/old"]:
        connection.request("GET", path)
        show(connection.getresponse())


shown.chosen(globals())()
