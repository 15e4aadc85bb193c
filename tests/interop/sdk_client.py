"""The official Python SDK's client over TCP: connects, lists the tools and calls one, then prints what it saw as JSON.

Usage: sdk_client.py HOST PORT MODE, where MODE is `legacy` (the initialize handshake), a modern protocol version such as
`2026-07-28`, or `auto` (the client finds out).
"""

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio.streams.buffered import BufferedByteReceiveStream
from mcp import Client, types
from mcp.shared.message import SessionMessage

# The longest line that this client takes, in bytes.
MAX_LINE_BYTES = 10 * 1024 * 1024


@asynccontextmanager
async def tcp_client(host: str, port: int) -> AsyncIterator[tuple]:
    """A transport for the SDK's client: the framing of stdio, over one TCP connection."""
    to_session, incoming = anyio.create_memory_object_stream(0)
    outgoing, from_session = anyio.create_memory_object_stream(0)

    async with await anyio.connect_tcp(host, port) as socket, anyio.create_task_group() as tasks:

        async def read() -> None:
            lines = BufferedByteReceiveStream(socket)
            async with to_session:
                while True:
                    try:
                        line = await lines.receive_until(b"\n", MAX_LINE_BYTES)
                    except (anyio.EndOfStream, anyio.IncompleteRead):
                        return
                    message = types.jsonrpc_message_adapter.validate_json(line, by_name=False)
                    await to_session.send(SessionMessage(message))

        async def write() -> None:
            async with from_session:
                async for item in from_session:
                    line = item.message.model_dump_json(by_alias=True, exclude_unset=True)
                    await socket.send(line.encode() + b"\n")

        tasks.start_soon(read)
        tasks.start_soon(write)
        try:
            yield incoming, outgoing
        finally:
            tasks.cancel_scope.cancel()


async def main(host: str, port: int, mode: str) -> None:
    async with Client(tcp_client(host, port), mode=mode) as client:
        tools = await client.list_tools()
        result = await client.call_tool("add", {"a": 19, "b": 23})
        seen = {
            "tools": [tool.name for tool in tools.tools],
            "sum": result.structured_content["result"],
            "version": client.protocol_version,
        }
        print(json.dumps(seen))


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], int(sys.argv[2]), sys.argv[3])
