// Clients of phoenix.js, unmodified, as tests tell them what to do: in Node.js and in browsers.
//
// What each Presence announces is kept in a log until it is looked at:
// ["join", key, refs], ["leave", key, refs], ["sync", {key: refs}].

let Socket, Presence, LongPoll, Place;
const clients = new Map();

/** Say which phoenix.js it is, and how a client joins a topic, if not by a channel of its own. */
export function use(library, place = Room) {
  ({ Socket, Presence, LongPoll } = library);
  Place = place;
}

/** What session storage is in a browser: without one the fallback is not remembered. */
class Storage {
  items = new Map();
  getItem(key) { return this.items.get(key) ?? null; }
  setItem(key, value) { this.items.set(key, value); }
}

/** Version 1 of the protocol, as old clients speak it: phoenix.js takes any encoding. */
const VERSION_1 = {
  vsn: "1.0.0",
  encode: (message, callback) => callback(JSON.stringify(message)),
  decode: (text, callback) => callback(JSON.parse(text)),
};

const refsOf = (metas) => metas.map((meta) => meta.phx_ref);

class Room {
  constructor(client, topic, payload) {
    this.payload = payload;
    this.log = [];
    this.received = [];
    this.joins = 0;
    this.states = 0;
    // phoenix.js asks for the payload anew with each join, so an update is not lost on the way.
    this.channel = client.socket.channel(topic, () => this.payload);
    this.presence = new Presence(this.channel);
    this.presence.onJoin((key, current, { metas }) => {
      const known = client.mergedJoins && current ? refsOf(current.metas) : [];
      const refs = refsOf(metas).filter((ref) => !known.includes(ref));
      this.log.push(["join", key, refs]);
    });
    this.presence.onLeave((key, _, { metas }) => this.log.push(["leave", key, refsOf(metas)]));
    this.presence.onSync(() => {
      const listed = this.presence.list((key, { metas }) => [key, refsOf(metas)]);
      this.log.push(["sync", Object.fromEntries(listed)]);
    });
    this.channel.onMessage = (event, payload) => {
      if (event === "presence_state") this.states += 1;
      if (!/^(phx_|chan_|presence_)/.test(event)) this.received.push([event, plain(payload)]);
      return payload;
    };
  }

  join() {
    const push = this.channel.join();
    push.receive("ok", (response) => { this.joins += 1; this.response = response; });
    return settled(push);
  }

  push(event, payload) { return settled(this.channel.push(event, payload)); }

  leave() { return settled(this.channel.leave()); }

  look() {
    const log = this.log;
    this.log = [];
    return {
      state: this.presence.state,
      list: this.presence.list((key, presence) => [key, presence]),
      status: this.channel.state,
      joins: this.joins,
      states: this.states,
      response: this.response ?? null,
      received: this.received,
      log,
    };
  }
}

class Client {
  rooms = new Map();
  opens = 0;
  closes = [];
  errors = 0;

  /**
   * `pauseMs` is the time until each attempt to connect again, if it is not to grow; `mergedJoins`
   * says that this phoenix.js announces the metas before with those that join.
   */
  constructor({ url, params, transport, version1, pauseMs, mergedJoins, ...options }) {
    this.mergedJoins = mergedJoins;
    this.socket = new Socket(url, {
      params,
      // As phoenix.js does it, in less time: so are tests.
      reconnectAfterMs: (tries) => pauseMs ?? Math.min(20 * tries, 200),
      rejoinAfterMs: (tries) => Math.min(20 * tries, 200),
      sessionStorage: globalThis.sessionStorage ?? new Storage(),
      ...(transport === "longpoll" ? { transport: LongPoll } : {}),
      ...(version1 ? VERSION_1 : {}),
      ...options,
    });
    this.socket.onOpen(() => { this.opens += 1; });
    this.socket.onClose((event) => { this.closes.push(event?.code ?? null); });
    this.socket.onError(() => { this.errors += 1; });
    this.socket.connect();
  }

  look() {
    const { socket, opens, closes, errors } = this;
    return {
      status: socket.connectionState(),
      transport: socket.transport === LongPoll ? "LongPoll" : "WebSocket",
      opens,
      closes,
      errors,
      rooms: Object.fromEntries([...this.rooms].map(([topic, room]) => [topic, room.look()])),
    };
  }
}

/** Bytes as JSON can carry them. */
function plain(value) {
  if (!(value instanceof ArrayBuffer)) return value;
  return { bytes: btoa(String.fromCharCode(...new Uint8Array(value))) };
}

function unpacked(base64) {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0)).buffer;
}

export function settled(push) {
  return new Promise((resolve) => {
    for (const status of ["ok", "error", "timeout"]) {
      push.receive(status, (response) => resolve({ status, response: plain(response) }));
    }
  });
}

function roomOf({ client, topic }) {
  const room = clients.get(client)?.rooms.get(topic);
  if (!room) throw new Error(`${client} is not on ${topic}`);
  return room;
}

/** What a client can be told to do; every one takes an object. */
export const COMMANDS = {
  connect({ client, ...how }) {
    clients.set(client, new Client(how));
  },
  /** The joining of a channel; "waits: false" does not wait for the reply. */
  join({ client, topic, payload, waits = true }) {
    const room = new Place(clients.get(client), topic, payload);
    clients.get(client).rooms.set(topic, room);
    const joined = room.join();
    return waits ? joined : null;
  },
  push({ event, payload, bytes, waits = true, ...where }) {
    const body = bytes === undefined ? payload : unpacked(bytes);
    const pushed = roomOf(where).push(event, body);
    return waits ? pushed : null;
  },
  /** Another meta, which lasts over reconnects. */
  update({ meta, waits = true, ...where }) {
    const room = roomOf(where);
    room.payload = { ...room.payload, meta };
    const pushed = room.push("update", meta);
    return waits ? pushed : null;
  },
  leave({ waits = true, ...where }) {
    const left = roomOf(where).leave();
    clients.get(where.client).rooms.delete(where.topic);
    return waits ? left : null;
  },
  disconnect: ({ client }) => new Promise((resolve) => {
    clients.get(client).socket.disconnect(() => resolve(null));
  }),
  reconnect({ client }) {
    clients.get(client).socket.connect();
  },
  forget({ client }) {
    clients.get(client).socket.disconnect();
    clients.delete(client);
  },
  look: () => Object.fromEntries([...clients].map(([name, client]) => [name, client.look()])),
};
