// One device of yours: a connection of its own to one server, and to another one when that is lost.

import { chip, duration, element, fromTemplate, icon, setText, soon } from "./dom.js";
import { Room, kindOf } from "./room.js";

const TYPING_MS = 1500; // of silence, and nobody thinks any more that you type
// So soon it is found out that a server stands still, before the other servers give it up.
const HEARTBEAT_MS = 2000;

export class Device {
  /**
   * @param {string} name   as "phone-x7f2": no other device is called so
   * @param {object} you    {id, name}
   * @param {object} page   what devices ask of the page: servers(), start(), closed(), frames, did()
   */
  constructor(name, you, page) {
    this.name = name;
    this.kind = kindOf(name);
    this.you = you;
    this.page = page;
    this.away = false;
    this.typing = false;
    this.wanted = page.start(this);
    this.failed = null; // the server that did not answer, or was lost; until one answers
    this.lostAt = null;
    this.tale = "";
    this.draw = soon(() => this.redraw());
    this.element = fromTemplate("device");
    this.build();
    this.room = new Room({
      choose: () => this.choose(),
      user: you.id,
      meta: () => this.meta(),
      heartbeatMs: HEARTBEAT_MS,
      changed: this.draw,
      lost: (node) => this.lost(node),
      joined: (node) => this.joined(node),
      frame: (way, raw) => page.frames.record(this, way, raw),
    });
    this.room.connect();
    this.draw();
  }

  // What the room is told.

  get status() {
    if (this.typing) return "typing";
    return this.away ? "away" : "here";
  }

  meta() {
    this.sent = this.status;
    return { name: this.you.name, device: this.name, status: this.status };
  }

  tell() {
    if (this.room.node) this.room.push("update", this.meta()).receive("error", () => this.tellLater());
    this.draw();
  }

  /** So much was said that the server asked for patience; what counts is how it is in the end. */
  tellLater() {
    clearTimeout(this.later);
    this.later = setTimeout(() => this.tell(), 1000);
  }

  type() {
    clearTimeout(this.pause);
    this.pause = setTimeout(() => this.stopTyping(), TYPING_MS);
    if (this.typing) return;
    this.typing = true;
    this.away = false;
    this.tell();
  }

  stopTyping() {
    clearTimeout(this.pause);
    if (!this.typing) return;
    this.typing = false;
    this.tell();
  }

  say(text) {
    this.room.push("shout", { text });
    this.stopTyping();
  }

  // Where it is connected.

  /** The server to connect to: the one wanted if it runs, and otherwise the next one that does. */
  choose() {
    const servers = this.page.servers();
    const from = servers.findIndex(({ name }) => name === this.wanted);
    const inTurn = [...servers.slice(from), ...servers.slice(0, from)];
    const running = inTurn.filter(({ state }) => state === "running");
    // Whoever has just failed us may be dead, though nobody has told the page yet.
    const chosen = running.find(({ name }) => name !== this.failed) ?? running[0] ?? inTurn[0];
    this.wanted = this.failed = chosen.name;
    return `ws://${location.hostname}:${chosen.port}`;
  }

  move(node) {
    this.wanted = node;
    this.failed = null;
    this.lostAt = performance.now();
    this.moving = true;
    this.room.move();
  }

  lost(node) {
    this.failed = this.moving ? null : node;
    this.lostAt ??= performance.now();
    this.from = node;
    this.draw();
  }

  joined(node) {
    this.wanted = node;
    this.failed = null;
    if (this.lostAt !== null) {
      const time = duration(performance.now() - this.lostAt);
      this.tale = this.moving ? `Moved in ${time}.` : `Lost ${this.from}; here after ${time}.`;
    }
    this.lostAt = null;
    this.moving = false;
    if (this.sent !== this.status) this.tell(); // it changed while the join was under way
    this.page.did("join", this);
  }

  /** Something happened to the servers. */
  update() {
    this.room.connect(); // unless it is
    this.draw();
  }

  close() {
    this.room.close();
    this.element.remove();
    this.page.closed(this);
  }

  // What is seen of it.

  $(selector) {
    return this.element.querySelector(selector);
  }

  build() {
    const title = this.kind[0].toUpperCase() + this.kind.slice(1);
    this.element.setAttribute("aria-label", `Your ${this.kind}`);
    this.$(".title").prepend(icon(this.kind), title);
    this.$(".close").setAttribute("aria-label", `Close your ${this.kind}`);
    this.$(".close").onclick = () => this.close();
    this.$(".away").onclick = () => {
      this.away = !this.away;
      this.typing = false;
      this.tell();
    };
    this.$(".frames").onclick = (event) => this.page.frames.open(this, event.currentTarget);
    const input = this.$("input");
    input.setAttribute("aria-label", `Say something with your ${this.kind}`);
    input.oninput = () => (input.value ? this.type() : this.stopTyping());
    input.onblur = () => this.stopTyping();
    this.$("form").onsubmit = (event) => {
      event.preventDefault();
      const text = input.value.trim();
      if (text) this.say(text);
      input.value = "";
    };
    for (const { name } of this.page.servers()) {
      const button = element("button", "place");
      button.type = "button";
      button.append(chip(name));
      button.dataset.node = name;
      button.onclick = () => this.move(name);
      this.$(".places").append(button);
    }
  }

  redraw() {
    const { node } = this.room;
    this.element.dataset.node = node ?? "";
    this.element.dataset.status = node ? this.status : "lost";
    for (const { name, state } of this.page.servers()) {
      const button = this.$(`.place[data-node="${name}"]`);
      button.disabled = state !== "running" && name !== node;
      button.setAttribute("aria-pressed", String(name === node));
      button.setAttribute("aria-label", name === node ? `connected through ${name}` : `connect through ${name}`);
    }
    this.$(".state").textContent = node ? STATES[this.status] : "connecting …";
    this.$(".away").textContent = this.away ? "Come back" : "Go away";
    this.$(".away").setAttribute("aria-pressed", String(this.away));
    setText(this.$(".tale"), node ? this.tale || `Sees ${this.room.people().length} people.` : "");
    this.page.changed();
  }
}

const STATES = { here: "here", away: "away", typing: "typing" };
