// The official TypeScript SDK's stdio client, which does what it is told.
//
// Usage: stdio_client.mjs COMMAND…, where COMMAND is the server that it starts. MCP_SDK is the folder of the SDK. What
// it takes and says is written in `stdio_client.py`.

import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const from = (file) => import(pathToFileURL(`${process.env.MCP_SDK}/dist/esm/${file}`).href);
const { Client } = await from("client/index.js");
const { StdioClientTransport } = await from("client/stdio.js");

const say = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);

// Counted as the transport delivers them: `onprogress` is not called for those that come in one read with the answer,
// with the server's bare pipe neither.
let progress = 0;

async function call(client, { name, arguments: given }) {
    progress = 0;
    const options = { onprogress: () => {}, timeout: 120_000 };
    try {
        const result = await client.callTool({ name, arguments: given }, undefined, options);
        return { text: result.content[0].text, progress };
    } catch (error) {
        return { error: { code: error.code, reason: error.data?.reason ?? String(error) } };
    }
}

const [command, ...args] = process.argv.slice(2);
const transport = new StdioClientTransport({ command, args });
const client = new Client({ name: "mcp-tcp-proxy-tests", version: "1" });
let version;
transport.setProtocolVersion = (agreed) => (version = agreed);
await client.connect(transport);
const { onmessage } = transport;
transport.onmessage = (message, ...more) => {
    progress += message.method === "notifications/progress" ? 1 : 0;
    onmessage(message, ...more);
};
say({ version });
for await (const line of createInterface({ input: process.stdin })) {
    const order = JSON.parse(line);
    if (order.do === "list") {
        const { tools } = await client.listTools();
        say({ tools: tools.map((tool) => tool.name) });
    } else {
        say(await call(client, order));
    }
}
await client.close();
