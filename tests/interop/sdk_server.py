"""A small server on the official Python SDK, for the interop tests: six tools, stdio only."""

import asyncio

from mcp.server.mcpserver import Context, MCPServer

server = MCPServer("interop", instructions="Serves the interop tests of mcp-tcp-proxy.")


@server.tool()
def echo(text: str) -> str:
    """Returns the text unchanged."""
    return text


@server.tool()
def add(a: int, b: int) -> int:
    """Adds two integers."""
    return a + b


@server.tool()
async def slow(seconds: float) -> str:
    """Answers after this many seconds, at most 60."""
    await asyncio.sleep(min(seconds, 60))
    return "done"


@server.tool()
async def count(steps: int, ctx: Context) -> str:
    """Counts up to this number, and tells each time how far it got."""
    for step in range(1, steps + 1):
        await ctx.report_progress(step, steps)
    return "counted"


# What a server must not do that is to be shared.
remembered = "nothing"


@server.tool()
def remember(text: str) -> str:
    """Keeps the text, for whoever asks next."""
    global remembered
    remembered = text
    return "remembered"


@server.tool()
def recall() -> str:
    """Returns what was kept."""
    return remembered


if __name__ == "__main__":
    server.run("stdio")
