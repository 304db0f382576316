"""The MCP SDK over Streamable HTTP; the second argument names the server's era."""

import asyncio
import sys

from mcp.client.client import Client


async def main():
    async with Client(f"https://open.example/mcp/{sys.argv[1]}") as client:
        tools = await client.list_tools()
        print([tool.name for tool in tools.tools])
        answer = await client.call_tool("add", {"a": 2, "b": 40})
        print(answer.content, answer.is_error)

        async def progress(done, total, message):
            print("progress", done, total, message)

        answer = await client.call_tool("count", {}, progress_callback=progress)
        print(answer.content)
        try:
            await client.call_tool("absent", {})
        except Exception as error:
            print(type(error).__name__, error)


asyncio.run(main())
