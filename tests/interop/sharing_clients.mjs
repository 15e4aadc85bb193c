// Many clients of the official TypeScript SDKs at the same time, each over a TCP connection of its own: of version 2 for
// the modern era, of version 1 for the one before.
//
// Usage: sharing_clients.mjs HOST PORT MODERN LEGACY: this many clients of either era. MCP_NODE_MODULES is where the SDKs
// are. What the clients do and what is printed is as in `sharing_clients.py`.

import { connect } from "node:net";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const from = (file) =>
    import(pathToFileURL(`${process.env.MCP_NODE_MODULES}/@modelcontextprotocol/${file}`).href);
const { Client: ModernClient } = await from("client/dist/index.mjs");
const { Client: LegacyClient } = await from("sdk/dist/esm/client/index.js");

const ROUNDS = 3;
const TIMEOUT = 300_000;

// The framing of stdio, over one TCP connection.
class TcpTransport {
    constructor(host, port) {
        Object.assign(this, { host, port, progress: [] });
    }

    start() {
        return new Promise((resolve, reject) => {
            this.socket = connect(this.port, this.host, resolve).on("error", reject);
            this.socket.on("close", () => this.onclose?.());
            createInterface({ input: this.socket }).on("line", (line) => this.take(JSON.parse(line)));
        });
    }

    // The clients do not report progress that comes in one read with the answer, so it is noted here.
    take(message) {
        if (message.method === "notifications/progress") {
            this.progress.push(message.params);
        }
        this.onmessage?.(message);
    }

    async send(message) {
        this.socket.write(`${JSON.stringify(message)}\n`);
    }

    async close() {
        this.socket.end();
    }
}

function same(seen, expected, what) {
    const [one, other] = [JSON.stringify(seen), JSON.stringify(expected)];
    if (one !== other) {
        throw new Error(`${what}: ${one} instead of ${other}`);
    }
}

async function until(isTrue, what) {
    for (const deadline = Date.now() + TIMEOUT; !isTrue(); ) {
        same(Date.now() < deadline, true, what);
        await new Promise((resolve) => setTimeout(resolve, 5));
    }
}

async function open(transport, isModern) {
    const name = { name: "mcp-tcp-proxy-tests", version: "1" };
    let version;
    transport.setProtocolVersion = (agreed) => (version = agreed);
    if (!isModern) {
        const client = new LegacyClient(name);
        await client.connect(transport, { timeout: TIMEOUT });
        const call = (params, options) =>
            client.callTool(params, undefined, { timeout: TIMEOUT, ...options });
        return { client, call, version };
    }
    const client = new ModernClient(name, {
        capabilities: { elicitation: { form: {} } },
        versionNegotiation: { mode: { pin: "2026-07-28" } },
    });
    await client.connect(transport, { timeout: TIMEOUT });
    const call = (params, options) => client.callTool(params, { timeout: TIMEOUT, ...options });
    return { client, call, version: client.getNegotiatedProtocolVersion() };
}

// What only modern clients do.
async function askAndListen(client, call, number, text, seen) {
    client.setRequestHandler("elicitation/create", ({ params }) => {
        same(params.message, text, "another's question");
        return { action: "accept", content: { text: `says ${number}` } };
    });
    const answered = await call({ name: "ask", arguments: { question: text } });
    same(answered.structuredContent.result, `${text} says ${number}`, "another's answer");
    seen.asked += 1;

    // All listen to the same lists, and each to a resource of its own: clients of other SDKs are at the same servers.
    const [own, updated] = [`test://typescript/${number}`, []];
    client.setNotificationHandler("notifications/resources/updated", ({ params }) => {
        updated.push(params.uri);
    });
    const filters = [{ toolsListChanged: true }, { resourceSubscriptions: [own] }];
    const listens = await Promise.all(filters.map((filter) => client.listen(filter)));
    await call({ name: "touch", arguments: { uri: own } });
    await until(() => updated.length > 0, "nothing is heard");
    same(updated, [own], "another's resource");
    seen.heard += 1;
    await Promise.all(listens.map((listen) => listen.close()));
}

async function beAClient(host, port, number, isModern, seen) {
    const transport = new TcpTransport(host, port);
    const { client, call, version } = await open(transport, isModern);
    for (let turn = 0; turn < ROUNDS; turn += 1) {
        const text = `client ${number}, turn ${turn}`;
        const echoed = await call({ name: "echo", arguments: { text } });
        same(echoed.structuredContent.result, text, "another's answer");
        seen.answers += 1;

        // Everyone counts to another number, so the progress of another would be noticed.
        const steps = 3 + number;
        transport.progress = [];
        await call({ name: "count", arguments: { steps } }, { onprogress: () => {} });
        const expected = Array.from({ length: steps }, (_, step) => step + 1);
        same(transport.progress.map((params) => params.progress), expected, "another's progress");
        const tokens = new Set(transport.progress.map((params) => params.progressToken));
        same(tokens.size, 1, "other tokens");
        seen.progress += transport.progress.length;

        const abort = new AbortController();
        const slow = call({ name: "slow", arguments: { seconds: 60 } }, { signal: abort.signal });
        setTimeout(() => abort.abort(), 50);
        const outcome = await slow.then(() => "answered", () => "cancelled");
        same(outcome, "cancelled", "what was taken back");
        seen.cancelled += 1;
        if (isModern) {
            await askAndListen(client, call, number, text, seen);
        }
    }
    seen.versions.add(version);
    await client.close();
}

const [host, ...numbers] = process.argv.slice(2);
const [port, modern, legacy] = numbers.map(Number);
const seen = { answers: 0, progress: 0, cancelled: 0, asked: 0, heard: 0, versions: new Set() };
const clients = Array.from({ length: modern + legacy }, (_, number) =>
    beAClient(host, port, number, number < modern, seen),
);
await Promise.all(clients);
process.stdout.write(`${JSON.stringify({ ...seen, versions: [...seen.versions].sort() })}\n`);
