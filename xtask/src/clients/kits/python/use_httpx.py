"""httpx, over HTTP/1.1 and HTTP/2 (second argument)."""

import asyncio
import sys

import httpx
import shown

OPEN = "https://open.example"
HTTP2 = sys.argv[2] == "2"


def show(answer):
    shown.head(answer.status_code, answer.reason_phrase, answer.http_version, answer.headers.multi_items())
    shown.body(answer.content)


def plain():
    with httpx.Client(http2=HTTP2, follow_redirects=True, timeout=20) as client:
        show(client.get(f"{OPEN}/echo", params={"q": "ä"}, headers={"X-MiXed": "1"}))
        show(client.post(f"{OPEN}/echo", json={"a": 1}))
        show(client.put(f"{OPEN}/echo", content=(b"piece" * 1000 for _ in range(20))))
        show(client.get(f"{OPEN}/redirect/303"))
        show(client.get(f"{OPEN}/cookies"))
        show(client.head(f"{OPEN}/bytes/77"))
        show(client.get(f"{OPEN}/file", headers={"Range": "bytes=100-199"}))
        show(client.get(f"{OPEN}/file", headers={"If-None-Match": '"fake-1"'}))
        for name in ["gzip", "br", "zstd", "deflate"]:
            show(client.get(f"{OPEN}/encoded/{name}"))


def events():
    with httpx.Client(http2=HTTP2, timeout=20) as client:
        with client.stream("GET", f"{OPEN}/sse?n=5&ms=20") as answer:
            print(answer.http_version, answer.status_code)
            for line in answer.iter_lines():
                print(line)


def at_once():
    async def run():
        async with httpx.AsyncClient(http2=HTTP2, timeout=20) as client:
            answers = await asyncio.gather(*(client.get(f"{OPEN}/bytes/{1000 * n}") for n in range(1, 13)))
            for answer in answers:
                show(answer)

    asyncio.run(run())


def left():
    """Goes away in the middle of an answer."""
    with httpx.Client(http2=HTTP2, timeout=20) as client:
        with client.stream("GET", f"{OPEN}/sse?n=1000&ms=20") as answer:
            for number, line in enumerate(answer.iter_lines()):
                print(line)
                if number == 5:
                    break


shown.chosen(globals())()
