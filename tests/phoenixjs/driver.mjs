// Any number of phoenix.js clients in one Node.js process, told what to do line by line.
//
// The arguments are the path of phoenix.js, and that of @absinthe/socket if that is tested. Each line of standard input is a JSON object with `id`,
// `do` and what that needs, see clients.mjs; each is answered by a line with the same `id` and
// either `value` or `error`.

import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";
import { subscriptions } from "./absinthe.mjs";
import { COMMANDS, use } from "./clients.mjs";
import { FetchedRequest } from "./xhr.mjs";

// phoenix.js tells it of answers that are no JSON, and standard output is for ours.
console.log = () => {};
// Browsers have both. The newest phoenix.js does without them, as it may run elsewhere.
if (process.env.BROWSER) Object.assign(globalThis, { self: globalThis, XMLHttpRequest: FetchedRequest });
const [phoenix, absinthe] = await Promise.all(process.argv.slice(2).map(load));
use(phoenix, absinthe && subscriptions(absinthe));

/** A library, whichever kind of module it is. */
async function load(path) {
  const library = await import(pathToFileURL(path));
  return library.default ?? library;
}

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
