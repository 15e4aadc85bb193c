"""A small server on the official Python SDK, for the interop tests: eight tools, stdio only."""

import asyncio

from mcp.server.mcpserver import Context, MCPServer
from mcp.types import ElicitRequest, ElicitRequestFormParams, InputRequiredResult

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


@server.tool()
async def ask(question: str, ctx: Context) -> str | InputRequiredResult:
    """Asks the user of whoever calls, and returns question and answer. For modern clients."""
    if ctx.input_responses is None:
        schema = {"type": "object", "properties": {"text": {"type": "string"}}}
        params = ElicitRequestFormParams(message=question, requested_schema=schema)
        return InputRequiredResult(input_requests={"answer": ElicitRequest(params=params)}, request_state=question)
    return f"{ctx.request_state} {ctx.input_responses['answer'].content['text']}"


@server.tool()
async def touch(uri: str, ctx: Context) -> str:
    """Tells whoever listens that this resource has changed."""
    await ctx.notify_resource_updated(uri)
    return "touched"


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
