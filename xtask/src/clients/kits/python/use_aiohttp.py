"""aiohttp: HTTP and WebSocket."""

import asyncio
import ssl

import aiohttp
import shown

OPEN = "https://open.example"


async def show(answer):
    fields = [(name.decode(), value.decode("latin-1")) for name, value in answer.raw_headers]
    shown.head(answer.status, answer.reason, answer.version, fields)
    shown.body(await answer.read())


async def plain():
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{OPEN}/echo", params={"q": "ä"}, headers={"X-MiXed": "1"}) as answer:
            await show(answer)
        async with session.post(f"{OPEN}/echo", json={"a": 1}) as answer:
            await show(answer)

        async def pieces():
            for _ in range(20):
                yield b"piece" * 1000

        async with session.put(f"{OPEN}/echo", data=pieces()) as answer:
            await show(answer)
        async with session.post(f"{OPEN}/echo", data=b"x" * 5000, expect100=True) as answer:
            await show(answer)
        async with session.get(f"{OPEN}/encoded/br") as answer:
            await show(answer)
        async with session.get(f"{OPEN}/redirect/301") as answer:
            await show(answer)
        async with session.get("https://raw.example/case") as answer:
            await show(answer)


async def events():
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{OPEN}/sse?n=5&ms=20") as answer:
            async for line in answer.content:
                print(line)


async def socket():
    async with aiohttp.ClientSession() as session:
        async with session.ws_connect("wss://open.example/ws/echo", compress=15) as ws:
            print("compressed", ws.compress)
            for text in ["hello", "ä" * 1000, "x" * 100_000]:
                await ws.send_str(text)
                shown.body((await ws.receive_str()).encode())
            await ws.send_bytes(bytes(range(256)))
            shown.body(await ws.receive_bytes())


asyncio.run(shown.chosen(globals())())
