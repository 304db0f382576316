"""websockets: with permessage-deflate and without, fragments, pings, closing."""

import asyncio

import shown
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus


async def talk(compression):
    async with connect("wss://open.example/ws/echo", compression=compression, open_timeout=15) as ws:
        print(ws.response.status_code, sorted(name.lower() for name, _ in ws.response.headers.raw_items()))
        print([type(extension).__name__ for extension in ws.protocol.extensions])
        for message in ["hello", "ä" * 1000, "hello", b"\x00\xff" * 70_000, "", "x" * 200_000]:
            await ws.send(message)
            answer = await ws.recv()
            print(type(answer).__name__, answer == message)
            shown.body(answer)
        await ws.send(["in ", "three ", "pieces"])
        print(await ws.recv())
        pong = await ws.ping(b"are you there")
        await asyncio.wait_for(pong, 10)
        print("pong")
    print("closed", ws.close_code, ws.close_reason)


async def deflate():
    await talk("deflate")


async def plain():
    await talk(None)


async def refused():
    """An origin that does not know the path answers in HTTP."""
    try:
        async with connect("wss://open.example/status/403", open_timeout=15):
            print("open")
    except InvalidStatus as error:
        print(error, error.response.body)


asyncio.run(shown.chosen(globals())())
