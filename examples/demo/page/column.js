// One column of the page: what one server knows, and the buttons that are unkind to it.

import { chip, clock, element, fromTemplate, icon, soon } from "./dom.js";
import { lastOf, secondsLeft } from "./incidents.js";
import { Room, kindOf } from "./room.js";

const LOG_LINES = 60;
const STATUS = { self: "this one", up: "up", suspect: "suspect", down: "down", left: "left" };

export class Column {
  /**
   * @param {string} name  the server's name
   * @param {object} page  what columns ask of the page: act(), you, downAfter()
   */
  constructor(name, page) {
    this.name = name;
    this.page = page;
    this.state = {};
    this.element = fromTemplate("column");
    this.draw = soon(() => this.redraw());
    // Without a user it only looks on: it sees the room, and nobody sees it.
    this.room = new Room({
      choose: () => `ws://${location.hostname}:${this.state.port}`,
      changed: this.draw,
      log: (kind, text, node) => this.log(kind, text, node),
      lost: () => this.log("system", "connection lost"),
    });
    this.build();
  }

  $(selector) {
    return this.element.querySelector(selector);
  }

  build() {
    this.element.dataset.node = this.name;
    this.element.setAttribute("aria-label", `Server ${this.name}`);
    this.$(".name").textContent = this.name;
    for (const self of this.element.querySelectorAll(".self")) self.textContent = this.name;
    this.$(".actions").setAttribute("aria-label", `Do to ${this.name}`);
    this.$(".log").setAttribute("aria-label", `Log of ${this.name}`);
    for (const button of this.element.querySelectorAll("[data-action]")) {
      button.setAttribute("aria-label", `${button.textContent} ${this.name}`);
      button.onclick = () => this.page.act(this.name, button.dataset.action);
    }
    this.$(".revive").onclick = () => this.page.act(this.name, "restart");
  }

  /** What the supervisor says of this server. */
  update(state) {
    this.state = state;
    if (state.state === "running" || state.state === "paused") this.room.connect();
    else this.room.socket.disconnect();
    this.draw();
  }

  redraw() {
    const { state, pid, port } = this.state;
    this.element.dataset.state = state;
    this.$(".state").textContent = state;
    this.$(".process").textContent = pid ? `pid ${pid} · port ${port}` : `port ${port}`;
    const active = document.activeElement;
    const focused = this.element.contains(active) ? active : null;
    this.drawActions(state);
    this.drawNotice(state);
    this.keepFocus(focused);
    this.$(".live").hidden = !["running", "paused"].includes(state) || !(this.room.node || state === "paused");
    this.drawPeople();
    this.drawMembers();
    this.drawTraffic();
  }

  /** A button that goes away hands the keyboard's focus to the next one that comes. */
  keepFocus(focused) {
    if (focused && !focused.checkVisibility()) this.orphaned = true;
    const heir = [...this.element.querySelectorAll("button")].find((button) => button.checkVisibility());
    if (!this.orphaned || !heir) return;
    this.orphaned = false;
    if (document.activeElement === document.body) heir.focus({ preventScroll: true });
  }

  drawActions(state) {
    const shown = { running: ["pause", "kill", "restart"], paused: ["resume", "kill"] }[state] ?? [];
    for (const button of this.element.querySelectorAll("[data-action]")) {
      button.hidden = !shown.includes(button.dataset.action);
    }
  }

  /** Why the column is not as it should be, and what to do about it. */
  drawNotice(state) {
    const text = this.explain(state);
    this.$(".notice").hidden = !text;
    if (!text) return;
    this.$(".headline").textContent = text[0];
    this.$(".detail").textContent = text[1];
    const revive = this.$(".revive");
    revive.hidden = state !== "dead";
    revive.textContent = `Restart ${this.name}`;
    this.tick();
  }

  explain(state) {
    const name = this.name;
    if (state === "paused") {
      return [`${name} is paused`, "It stands still and does not know it. What you see is the last that it told."];
    }
    if (state === "starting") return [`${name} is starting`, "A new process, with an empty memory."];
    if (state === "stopping") return [`${name} is ending`, "It says goodbye, so nobody has to find out."];
    if (state === "dead") {
      return [`${name} is dead`, `Ended by ${this.state.reason}. What it knew is gone; the others carry on.`];
    }
    return this.room.node ? null : [`Connecting to ${name}`, "It runs, but your browser is not connected yet."];
  }

  /** The countdown until silence counts as death, and what came of it. */
  tick() {
    const incident = this.state.state === "paused" ? lastOf(this.name) : null;
    const waiting = Boolean(incident?.waiting.length);
    this.$(".bar").hidden = !waiting;
    this.$(".until").hidden = !incident;
    if (!incident) return;
    const left = secondsLeft(incident);
    this.$(".bar i").style.width = `${(100 * left) / this.page.downAfter()}%`;
    this.$(".until").textContent = waiting
      ? `The others will notice within ${left.toFixed(1)} s.`
      : "The others have noticed, and carry on without it.";
  }

  drawPeople() {
    const people = this.room.people();
    this.$(".people").replaceChildren(...people.map((person) => this.person(person)));
    this.$(".count").textContent = people.length || "";
    this.$(".empty").hidden = people.length > 0;
  }

  person({ key, name, devices }) {
    const you = key === `visitor:${this.page.you.id}`;
    const away = devices.every(({ status }) => status === "away");
    const typing = devices.some(({ status }) => status === "typing");
    const row = element("li", `person${away ? " is-away" : ""}${you ? " is-you" : ""}`);
    const face = element("span", key.startsWith("robot:") ? "face robot" : "face", initial(name));
    face.dataset.node = devices[0].node;
    face.setAttribute("aria-hidden", "true");
    row.append(face, element("span", "who", name));
    if (you) row.append(element("span", "tag", "you"));
    if (typing) row.append(dots());
    else if (away) row.append(element("span", "tag", "away"));
    const through = element("span", "through");
    for (const device of devices) through.append(place(device));
    row.append(through);
    const bubble = this.room.bubbles.get(key);
    if (bubble) row.append(element("span", "bubble", bubble.text));
    return row;
  }

  drawMembers() {
    const rows = this.room.members.map((member) => {
      const row = element("tr");
      const name = element("th", "");
      name.scope = "row";
      name.append(chip(member.name));
      const status = element("td", "status", STATUS[member.status] ?? member.status);
      status.dataset.status = member.status;
      row.append(name, status, element("td", "number", member.entries), element("td", "number", member.lag));
      return row;
    });
    this.$("tbody").replaceChildren(...rows);
  }

  /** Which servers answer the requests of this one. */
  drawTraffic() {
    const servers = Object.keys(this.room.answered).filter(Boolean).sort();
    const rows = servers.map((name) => {
      const row = element("li", "");
      row.dataset.node = name;
      const bar = element("i");
      bar.style.width = `${10 * this.room.answered[name]}%`;
      const track = element("span", "track");
      track.append(bar);
      row.append(chip(name), track, element("span", "number", `${this.room.answered[name]}/s`));
      return row;
    });
    const failed = this.room.answered[""];
    if (failed) rows.push(element("li", "failed", `${failed}/s without an answer`));
    this.$(".traffic").replaceChildren(...rows);
  }

  log(kind, text, node) {
    const line = element("li", kind);
    line.append(element("time", "", clock(Date.now())), element("span", "", text));
    if (node) line.append(chip(node));
    const log = this.$(".log");
    log.prepend(line);
    while (log.children.length > LOG_LINES) log.lastElementChild.remove();
  }
}

/** A device, and the server that it is connected through. */
function place({ device, node, status }) {
  const kind = kindOf(device);
  const made = element("span", status === "away" ? "at is-away" : "at");
  made.title = `${kind}, ${status}, connected through ${node}`;
  if (kind !== "robot") made.append(icon(kind));
  made.append(chip(node));
  return made;
}

function dots() {
  const made = element("span", "tag typing", "typing");
  made.append(element("i"), element("i"), element("i"));
  return made;
}

function initial(name) {
  return [...name.replace(/^guest /, "")][0].toUpperCase();
}
