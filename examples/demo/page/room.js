// One server's room, followed over one WebSocket: who is here is the sum of all diffs so far.

const RETRY_MS = 300;

export class Room {
  /**
   * @param {string} node   the server's name
   * @param {object} you    {id, name, status}; read when joining
   * @param {object} report {changed(), log(kind, text, key)}
   */
  constructor(node, you, report) {
    this.node = node;
    this.you = you;
    this.report = report;
    this.people = new Map(); // key -> Map of ref -> meta
    this.members = [];
    this.connected = false;
    this.joined = false; // whether you want to be here; a lost connection does not change that
    this.socket = null;
    this.address = null; // null while there is no process to talk to
  }

  /** Connect while there is an address, and again whenever the connection is lost. */
  follow(address) {
    this.address = address;
    if (address && !this.socket) this.connect();
  }

  connect() {
    const socket = (this.socket = new WebSocket(this.address));
    socket.onmessage = (event) => this.receive(JSON.parse(event.data));
    socket.onclose = () => {
      if (this.connected) this.report.log("system", "connection lost");
      this.socket = null;
      this.connected = false;
      this.report.changed();
      setTimeout(() => this.follow(this.address), RETRY_MS);
    };
  }

  send(command) {
    if (this.connected) this.socket.send(JSON.stringify(command));
  }

  join() {
    this.joined = true;
    this.send({ do: "join", ...this.you });
  }

  update() {
    if (this.joined) this.send({ do: "update", ...this.you });
  }

  leave() {
    this.joined = false;
    this.send({ do: "leave" });
  }

  receive(message) {
    if (message.type === "hello") this.welcome(message.present);
    else if (message.type === "diff") this.merge(message);
    else if (message.type === "members") this.members = message.members;
    else if (message.type === "error") this.report.log("system", message.message);
    this.report.changed();
  }

  /** A new connection: the first diff says who is here. */
  welcome(present) {
    this.people.clear();
    this.members = [];
    this.connected = true;
    this.fresh = true;
    const people = present === 1 ? "1 person" : `${present} people`;
    this.report.log("system", `connected; ${present ? people : "nobody"} here`);
    if (this.joined) this.join();
  }

  merge({ joins, leaves, updates }) {
    const quiet = this.fresh;
    this.fresh = false;
    for (const [key, meta] of flatten(leaves)) {
      const metas = this.people.get(key);
      metas?.delete(meta.phx_ref);
      const gone = !metas?.size;
      if (gone) this.people.delete(key);
      this.report.log("leave", `${meta.name} ${gone ? "left" : "lost a connection"}`, meta.node);
    }
    for (const [key, meta] of flatten(updates)) {
      const metas = this.people.get(key) ?? this.people.set(key, new Map()).get(key);
      const before = metas.get(meta.phx_ref_prev);
      metas.delete(meta.phx_ref_prev);
      metas.set(meta.phx_ref, meta);
      this.report.log("update", difference(before, meta), meta.node);
    }
    for (const [key, meta] of flatten(joins)) {
      const come = !this.people.has(key);
      if (come) this.people.set(key, new Map());
      this.people.get(key).set(meta.phx_ref, meta);
      if (!quiet) this.report.log("join", `${meta.name} joined${come ? "" : " here, too"}`, meta.node);
    }
  }
}

function* flatten(entries) {
  for (const [key, { metas }] of Object.entries(entries)) for (const meta of metas) yield [key, meta];
}

function difference(before, after) {
  if (before && before.name !== after.name) return `${before.name} is now ${after.name}`;
  if (before && before.status === after.status) return `${after.name} changed`;
  return after.status === "away" ? `${after.name} is away` : `${after.name} is back`;
}
