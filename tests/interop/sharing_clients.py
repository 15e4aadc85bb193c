"""Many clients of the official Python SDK at the same time, each over a TCP connection of its own.

Usage: sharing_clients.py HOST PORT MODERN LEGACY: this many clients of either era. Each makes sure that all it hears is its
own: answers, progress, and nothing of a call that it has taken back; modern ones also what they are asked and what they
listen to. Prints what was seen as JSON.
"""

import json
import sys

import anyio
from mcp import Client, types
from sdk_client import tcp_client

ROUNDS = 3


async def be_a_client(host: str, port: int, number: int, mode: str, seen: dict) -> None:
    async def answer(_: object, params: types.ElicitRequestParams) -> types.ElicitResult:
        assert params.message.startswith(f"client {number},"), (number, params.message)
        return types.ElicitResult(action="accept", content={"text": f"says {number}"})

    async with Client(tcp_client(host, port), mode=mode, elicitation_callback=answer) as client:
        for turn in range(ROUNDS):
            text = f"client {number}, turn {turn}"
            result = await client.call_tool("echo", {"text": text})
            assert result.structured_content["result"] == text, (text, result)
            seen["answers"] += 1

            # Everyone counts to another number, so the progress of another would be noticed.
            steps, progress = 3 + number, []

            async def note(done: float, total: float | None, _: str | None) -> None:
                progress.append((done, total))

            await client.call_tool("count", {"steps": steps}, progress_callback=note)
            assert progress == [(step, steps) for step in range(1, steps + 1)], (number, progress)
            seen["progress"] += len(progress)

            with anyio.move_on_after(0.05) as scope:
                await client.call_tool("slow", {"seconds": 60})
            assert scope.cancelled_caught
            seen["cancelled"] += 1
            if mode == "legacy":
                continue

            result = await client.call_tool("ask", {"question": text})
            assert result.structured_content["result"] == f"{text} says {number}", (text, result)
            seen["asked"] += 1

            # All listen to the same lists, and each to a resource of its own.
            own = f"test://python/{number}"
            async with client.listen(tools_list_changed=True), client.listen(resource_subscriptions=[own]) as events:
                await client.call_tool("touch", {"uri": own})
                async for event in events:
                    assert event.uri == own, (own, event)
                    seen["heard"] += 1
                    break
        assert client.protocol_version is not None
        seen["versions"].add(client.protocol_version)


async def main(host: str, port: int, modern: int, legacy: int) -> None:
    seen = {"answers": 0, "progress": 0, "cancelled": 0, "asked": 0, "heard": 0, "versions": set()}
    async with anyio.create_task_group() as tasks:
        for number in range(modern + legacy):
            mode = "2026-07-28" if number < modern else "legacy"
            tasks.start_soon(be_a_client, host, port, number, mode, seen)
    print(json.dumps(seen | {"versions": sorted(seen["versions"])}))


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], *map(int, sys.argv[2:5]))
