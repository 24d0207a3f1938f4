// The room, through one connection: phoenix.js does everything, here it is only told what to say.

import { Presence, Serializer, Socket } from "./phoenix/phoenix.mjs";

const TOPIC = "room:lobby";
const RETRY_MS = [10, 50, 100];
const RETRY_LATER_MS = 500;
const BUBBLE_MS = 6000;

/** A socket that asks where to connect each time it does. */
class RoamingSocket extends Socket {
  constructor(choose, options) {
    super("", options);
    this.choose = choose;
  }

  endPointURL() {
    this.endPoint = `${this.choose()}/socket/websocket`;
    return super.endPointURL();
  }
}

export class Room {
  /**
   * @param {object} options
   *   choose()       the server to connect to, as ws://host:port; asked for each connection
   *   user           who is there; without it one only looks on
   *   meta()         {name, device, status}, asked for each join
   *   heartbeatMs    how often to make sure that the server still answers, if not as usual
   *   changed()      called when there is something to draw
   *   log(kind, text, node)
   *   lost(node)     called when it was joined through a server, and is no more
   *   joined(node)   called when it is joined, and again after each reconnection
   *   frame(way, raw)  called with each frame, "in" or "out"
   */
  constructor({ choose, user, meta, heartbeatMs, changed, log, lost, joined, frame }) {
    this.members = [];
    this.answered = {}; // by server, how many of the last requests it has answered
    this.node = null; // the server that answered the join; null while there is none
    this.bubbles = new Map(); // by user, what was said a moment ago
    this.changed = changed;
    this.log = log ?? (() => {});
    this.socket = new RoamingSocket(choose, {
      params: user ? { user } : {},
      heartbeatIntervalMs: heartbeatMs,
      reconnectAfterMs: (tries) => RETRY_MS[tries - 1] ?? RETRY_LATER_MS,
      rejoinAfterMs: () => RETRY_LATER_MS,
      ...(frame && watched(frame)),
    });
    this.channel = this.socket.channel(TOPIC, meta ?? {});
    this.presence = new Presence(this.channel);
    this.listen();
    this.channel.onError(() => {
      const was = this.node;
      this.node = null;
      this.changed();
      if (was) lost?.(was);
    });
    this.channel.join().receive("ok", ({ node }) => {
      this.node = node;
      this.fresh = true;
      joined?.(node);
      this.changed();
    });
  }

  connect() {
    this.socket.connect();
  }

  /** Connect anew, to where `choose` says now. */
  move() {
    this.socket.disconnect(() => this.socket.connect());
  }

  close() {
    this.channel.leave();
    this.socket.disconnect();
  }

  push(event, payload) {
    return this.channel.push(event, payload);
  }

  listen() {
    this.channel.on("members", ({ members }) => {
      this.members = members;
      this.changed();
    });
    this.channel.on("traffic", ({ answered }) => {
      this.answered = answered;
      this.changed();
    });
    this.channel.on("shout", ({ user, text }) => this.shouted(user, text));
    this.presence.onJoin((key, current, joined) => this.cameOrChanged(current, joined.metas));
    this.presence.onLeave((key, current, left) => this.left(current, left.metas));
    this.presence.onSync(() => {
      if (this.fresh) this.log("system", `connected; ${count(this.people().length)} here`);
      this.fresh = false;
      this.changed();
    });
  }

  /** Who is here: each person once, with each device once. */
  people() {
    const people = this.presence.list((key, { metas }) => {
      // A device that came to another server is for moments in both places; the later one is right.
      const devices = new Map(metas.map((meta) => [meta.device, meta]));
      const sorted = [...devices.values()].sort((a, b) => (a.device < b.device ? -1 : 1));
      return { key, name: metas.at(-1).name, devices: sorted };
    });
    return people.sort((a, b) => a.name.localeCompare(b.name) || (a.key < b.key ? -1 : 1));
  }

  shouted(user, text) {
    const bubble = { text };
    this.bubbles.set(user, bubble);
    const name = this.presence.state[user]?.metas.at(-1).name ?? "Somebody";
    this.log("shout", `${name}: ${text}`);
    setTimeout(() => {
      if (this.bubbles.get(user) === bubble) this.bubbles.delete(user);
      this.changed();
    }, BUBBLE_MS);
    this.changed();
  }

  cameOrChanged(current, metas) {
    if (this.fresh) return; // a first look at who is there is no news
    if (!current) return this.log("join", `${metas[0].name} joined`, metas[0].node);
    for (const meta of metas) {
      const before = current.metas.find(({ phx_ref }) => phx_ref === meta.phx_ref_prev);
      if (!before) this.log("join", `${owned(meta)} joined`, meta.node);
      else if (difference(before, meta)) this.log("update", difference(before, meta), meta.node);
    }
  }

  left(current, metas) {
    if (this.fresh) return;
    if (!current.metas.length) return this.log("leave", `${metas[0].name} left`, metas[0].node);
    const replaced = new Set(current.metas.map(({ phx_ref_prev }) => phx_ref_prev));
    for (const meta of metas) {
      if (!replaced.has(meta.phx_ref)) this.log("leave", `${owned(meta)} left`, meta.node);
    }
  }
}

/** phoenix.js's own serializer, looked over its shoulder. */
function watched(frame) {
  return {
    encode: (message, send) =>
      Serializer.encode(message, (raw) => {
        frame("out", raw);
        send(raw);
      }),
    decode: (raw, take) => {
      frame("in", raw);
      Serializer.decode(raw, take);
    },
  };
}

function difference(before, after) {
  if (before.name !== after.name) return `${before.name} is now ${after.name}`;
  const [was, is] = [before.status === "away", after.status === "away"];
  if (was === is) return null; // typing is shown, and not worth a line
  return is ? `${after.name} is away` : `${after.name} is back`;
}

export const kindOf = (device) => device.split("-")[0];

const owned = ({ name, device }) => `${name}’s ${kindOf(device)}`;
const count = (people) => (people === 1 ? "1 person" : people ? `${people} people` : "nobody");
