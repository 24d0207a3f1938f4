// Clients of socket.io-client, unmodified: each line on the standard input is a command for one.
//
// A command is [name, ...arguments], and is answered by one line ["answer", 0, value], in order.

import { createHash } from "node:crypto";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const { io } = createRequire(`${process.argv[2]}/`)("socket.io-client");
const clients = new Map();

/** Binary data as its length and digest, so that answers stay short. */
function plain(value) {
  if (ArrayBuffer.isView(value)) {
    return { bytes: value.length, sha256: createHash("sha256").update(value).digest("hex") };
  }
  if (Array.isArray(value)) return value.map(plain);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, plain(each)]));
}

function open(name, port) {
  const socket = io(`http://127.0.0.1:${port}`, {
    transports: ["websocket"], forceNew: true, reconnection: false,
  });
  const client = { socket, received: [], ends: [] };
  clients.set(name, client);
  socket.on("disconnect", (reason) => client.ends.push(reason));
  socket.onAny((event, ...values) => {
    const reply = typeof values.at(-1) === "function" ? values.pop() : null;
    client.received.push([event, ...values.map(plain)]);
    if (reply) reply({ by: name, asked: values[0] }, Buffer.from([0, 255]));
  });
  return new Promise((resolve, reject) => {
    socket.on("connect", () => resolve(socket.id));
    socket.on("connect_error", reject);
  });
}

const commands = {
  open,
  ask: async (name, event, ...values) =>
    plain(await clients.get(name).socket.timeout(20000).emitWithAck(event, ...values)),
  sendBytes: async (name, event, room, size) => {
    const data = Buffer.alloc(size, "adsum");
    await clients.get(name).socket.timeout(20000).emitWithAck(event, room, data);
    return plain(data);
  },
  received: (name) => clients.get(name).received,
  ends: (name) => clients.get(name).ends,
  close: (name) => { clients.get(name).socket.disconnect(); clients.delete(name); return null; },
};

const say = (kind, value) => console.log(JSON.stringify([kind, 0, value ?? null]));
say("ready", process.version);
for await (const line of createInterface({ input: process.stdin })) {
  const [command, ...values] = JSON.parse(line);
  try {
    say("answer", await commands[command](...values));
  } catch (error) {
    say("answer", { error: String(error) });
  }
}
process.exit(0);
