// Clients of @supabase/realtime-js, unmodified, as tests tell them what to do.

let RealtimeClient;
const clients = new Map();

/** Say which version of the library it is. */
export function use(library) {
  RealtimeClient = library.RealtimeClient ?? library.default.RealtimeClient;
}

/** A value as JSON has it: bytes are an object, and presences have no refs. */
function plain(value) {
  if (value instanceof ArrayBuffer) return { bytes: [...new Uint8Array(value)] };
  if (Array.isArray(value)) return value.map(plain);
  if (value === null || typeof value !== "object") return value;
  const entries = Object.entries(value).filter(([name]) => name !== "presence_ref");
  return Object.fromEntries(entries.map(([name, each]) => [name, plain(each)]));
}

class Topic {
  constructor(client, name, config, meta, table) {
    this.statuses = [];
    this.errors = [];
    this.broadcasts = [];
    this.presences = [];
    this.system = [];
    this.meta = meta;
    this.channel = client.channel(name, { config });
    this.channel.on("broadcast", { event: "*" }, ({ event, payload }) =>
      this.broadcasts.push([event, plain(payload)]));
    this.channel.on("presence", { event: "sync" }, () => this.presences.push(["sync"]));
    this.channel.on("presence", { event: "join" }, ({ key, newPresences }) =>
      this.presences.push(["join", key, plain(newPresences)]));
    this.channel.on("presence", { event: "leave" }, ({ key, leftPresences }) =>
      this.presences.push(["leave", key, plain(leftPresences)]));
    this.channel.on("system", {}, (payload) => this.system.push(plain(payload)));
    if (table) this.channel.on("postgres_changes", { event: "*", schema: "public", table }, () => {});
  }

  /** Subscribe; the presence is tracked at each time that this succeeds. */
  subscribe() {
    return new Promise((resolve) => this.channel.subscribe((status, error) => {
      this.statuses.push(status);
      if (error) this.errors.push(error.message);
      if (status === "SUBSCRIBED" && this.meta) this.channel.track(this.meta);
      resolve(status);
    }));
  }

  look() {
    const { statuses, errors, broadcasts, presences, system } = this;
    const state = plain(this.channel.presenceState());
    const subscribed = statuses.filter((status) => status === "SUBSCRIBED").length;
    return { statuses, subscribed, errors, broadcasts, presences, system, state };
  }
}

const topic = ({ client, topic }) => clients.get(client).topics.get(topic);

export const COMMANDS = {
  connect({ client, url, apikey, token }) {
    const made = new RealtimeClient(url, { params: { apikey } });
    clients.set(client, { made, topics: new Map() });
    if (token) made.setAuth(token);
    made.connect();
  },
  connected: ({ client }) => clients.get(client).made.isConnected(),
  subscribe({ client, topic, config = {}, meta, table }) {
    const { made, topics } = clients.get(client);
    topics.set(topic, new Topic(made, topic, config, meta, table));
    return topics.get(topic).subscribe();
  },
  send({ event, payload, bytes, ...where }) {
    const sent = bytes ? new Uint8Array(bytes).buffer : payload;
    return topic(where).channel.send({ type: "broadcast", event, payload: sent });
  },
  track: ({ meta, ...where }) => topic(where).channel.track(meta),
  untrack: (where) => topic(where).channel.untrack(),
  authorise: ({ client, token }) => void clients.get(client).made.setAuth(token),
  leave: ({ client, ...where }) =>
    clients.get(client).made.removeChannel(topic({ client, ...where }).channel),
  look: (where) => topic(where).look(),
  close({ client }) {
    clients.get(client).made.disconnect();
  },
};
