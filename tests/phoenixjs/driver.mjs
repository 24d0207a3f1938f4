// Any number of phoenix.js clients in one Node.js process, told what to do line by line.
//
// The argument is the path of phoenix.mjs. Each line of standard input is a JSON object with `id`,
// `do` and what that needs, see clients.mjs; each is answered by a line with the same `id` and
// either `value` or `error`.

import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";
import { COMMANDS, use } from "./clients.mjs";

// phoenix.js tells it of answers that are no JSON, and standard output is for ours.
console.log = () => {};
use(await import(pathToFileURL(process.argv[2])));

async function answer({ id, do: command, ...how }) {
  try {
    return { id, value: (await COMMANDS[command](how)) ?? null };
  } catch (error) {
    return { id, error: String(error.stack ?? error) };
  }
}

process.stdout.write(JSON.stringify({ id: 0, value: process.version }) + "\n");
const lines = createInterface({ input: process.stdin });
lines.on("line", async (line) => {
  process.stdout.write(JSON.stringify(await answer(JSON.parse(line))) + "\n");
});
lines.on("close", () => process.exit(0));
