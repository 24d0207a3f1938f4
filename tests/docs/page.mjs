// Runs the script of an example's page in Node.js, with as much of a browser as such pages need.
//
// The argument is a JSON object: `port` and `search` of the address, `cookie` if the page needs one,
// `name` for what it prompts for, and `steps`, done in order: ["see", id, text] waits until an
// element has a text in it, ["type", id, text] types it and presses Enter, ["click", id] clicks.

const {port, search = "", cookie, name, steps} = JSON.parse(process.argv[2])
const site = `http://127.0.0.1:${port}`
const realFetch = fetch
const headers = cookie ? {cookie} : {}

class Element {
  parts = []
  text = ""
  value = ""
  set textContent(text) { this.text = text; this.parts = [] }
  get textContent() { return this.text + this.parts.map(part => part.textContent).join("; ") }
  append(...parts) { this.parts.push(...parts) }
  replaceChildren(...parts) { this.parts = parts }
}

class CookieSocket extends WebSocket {
  constructor(url, protocols) { super(url, {protocols, headers}) }
}

const page = await (await realFetch(`${site}/${search}`, {headers})).text()
const [, script] = page.match(/<script type=module>(.*)<\/script>/s)
const phoenix = await (await realFetch(`${site}/phoenix.mjs`)).text()
const asModule = text => `data:text/javascript;base64,${Buffer.from(text).toString("base64")}`

for (const [, id] of page.matchAll(/\bid=(\w+)/g)) globalThis[id] = new Element()
Object.assign(globalThis, {
  window: globalThis,
  document: {createElement: () => new Element(), hidden: false},
  location: {protocol: "http:", host: `127.0.0.1:${port}`, search},
  prompt: () => name,
  fetch: (path, options) => realFetch(site + path, options),
  WebSocket: CookieSocket,
})
await import(asModule(script.replace("/phoenix.mjs", asModule(phoenix))))

const actions = {
  async see(id, text) {
    const deadline = Date.now() + 10_000
    while (!globalThis[id].textContent.includes(text)) {
      if (Date.now() > deadline) throw new Error(`${id} is ${globalThis[id].textContent}`)
      await new Promise(resolve => setTimeout(resolve, 10))
    }
  },
  type(id, text) {
    globalThis[id].value = text
    globalThis[id].oninput?.()
    globalThis[id].onchange?.()
  },
  click(id) { globalThis[id].onclick() },
}
for (const [action, ...given] of steps) await actions[action](...given)
process.exit(0)
