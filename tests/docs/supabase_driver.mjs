// Clients of realtime-js in one Node.js process, told what to do line by line.
//
// The arguments are the paths of the library and of the commands. Each line of standard input is a
// JSON object with `id`, `do` and what that needs, see the commands; each is answered by a line with
// the same `id` and either `value` or `error`.

import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const [library, commands] = process.argv.slice(2).map((path) => pathToFileURL(path));
const { COMMANDS, use } = await import(commands);

// Standard output is for answers.
console.log = () => {};
use(await import(library));

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
