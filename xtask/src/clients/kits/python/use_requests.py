"""requests."""

import requests
import shown

OPEN = "https://open.example"


def show(answer):
    shown.head(answer.status_code, answer.reason, answer.raw.version, answer.headers.items())
    shown.body(answer.content)


def get():
    show(requests.get(f"{OPEN}/echo", params={"q": "ä b", "r": ["1", "2"]}, headers={"X-MiXed": "a", "x-second": "b"}, timeout=20))


def post_json():
    show(requests.post(f"{OPEN}/echo", json={"a": [1, 2, "ü"]}, timeout=20))


def upload_stream():
    def pieces():
        for number in range(20):
            yield f"piece {number}\n".encode() * 500

    show(requests.put(f"{OPEN}/echo", data=pieces(), timeout=20))


def files():
    form = {"note": (None, "text"), "file": ("a.txt", b"file\n" * 100, "text/plain")}
    show(requests.post(f"{OPEN}/echo", files=form, timeout=20))


def session():
    with requests.Session() as session:
        show(session.get(f"{OPEN}/cookies", timeout=20))
        print(sorted(session.cookies.items()))
        show(session.get(f"{OPEN}/redirect/302", timeout=20))
        show(session.post(f"{OPEN}/redirect/307/away", data={"a": "1"}, auth=("user", "pass"), timeout=20))
        show(session.delete(f"{OPEN}/status/204", timeout=20))
        show(session.head(f"{OPEN}/bytes/5000", timeout=20))
        show(session.options(f"{OPEN}/echo", timeout=20))


def encoded():
    for name in ["gzip", "deflate", "br", "gzip,br"]:
        show(requests.get(f"{OPEN}/encoded/{name}", timeout=20))


def stream():
    with requests.get(f"{OPEN}/lines", stream=True, timeout=20) as answer:
        for line in answer.iter_lines():
            print(line)
    with requests.get(f"{OPEN}/bytes/3000000", stream=True, timeout=20) as answer:
        shown.body(b"".join(answer.iter_content(65536)))


def broken():
    try:
        requests.get(f"{OPEN}/truncate", timeout=20)
    except requests.exceptions.ChunkedEncodingError as error:
        print(type(error).__name__, error)
    except requests.exceptions.RequestException as error:
        print("other", type(error).__name__, error)


shown.chosen(globals())()
