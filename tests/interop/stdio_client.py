"""The official Python SDK's stdio client, which does what it is told.

Usage: stdio_client.py MODE COMMAND…, where COMMAND is the server that it starts and MODE is `legacy` (the initialize
handshake) or `auto` (the client finds out). Takes a command in JSON a line on stdin, and says what came of it in a line
on stdout; what it does and says is the same as with `stdio_client.mjs`:

    (at the start)                             {"version": the protocol version}
    {"do": "list"}                             {"tools": [names]}
    {"do": "call", "name": …, "arguments": …}  {"text": …, "progress": how many notifications came}
                                               or {"error": {"code": …, "reason": …}}
"""

import json
import sys

import anyio
import anyio.to_thread
from mcp import Client, MCPError, StdioServerParameters, stdio_client


def say(message: dict) -> None:
    print(json.dumps(message), flush=True)


async def call(client: Client, name: str, arguments: dict) -> dict:
    progress = 0

    async def count(*_: object) -> None:
        nonlocal progress
        progress += 1

    try:
        result = await client.call_tool(name, arguments, progress_callback=count)
    except MCPError as error:
        return {"error": {"code": error.code, "reason": (error.data or {}).get("reason")}}
    return {"text": result.content[0].text, "progress": progress}


async def main(mode: str, command: str, *arguments: str) -> None:
    server = stdio_client(StdioServerParameters(command=command, args=list(arguments)))
    async with Client(server, mode=mode) as client:
        say({"version": client.protocol_version})
        while line := await anyio.to_thread.run_sync(sys.stdin.readline):
            order = json.loads(line)
            if order["do"] == "list":
                tools = await client.list_tools()
                say({"tools": [tool.name for tool in tools.tools]})
            else:
                say(await call(client, order["name"], order["arguments"]))


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:])
