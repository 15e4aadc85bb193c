"""A modern MCP server that needs nothing but the standard library, of the size that interpreters have."""

import asyncio  # noqa: F401  What servers of this kind have loaded, too.
import http.client  # noqa: F401
import json
import ssl  # noqa: F401
import sys

for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    result = {"resultType": "complete", "tools": [], "ttlMs": 0, "cacheScope": "public"}
    if message["method"] == "server/discover":
        result = {"resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}
    response = {"jsonrpc": "2.0", "id": message["id"], "result": result}
    print(json.dumps(response, separators=(",", ":")), flush=True)
