// One column of the page: what one server knows, and the buttons that are unkind to it.

import { Room } from "./room.js";

const LOG_LINES = 60;
const STATUS = { self: "this one", up: "up", suspect: "suspect", down: "down", left: "left" };

export class Column {
  /**
   * @param {string} name the server's name
   * @param {object} you  {id, name, status}
   * @param {object} page what columns ask of the page: see build() in demo.js
   */
  constructor(name, you, page) {
    this.name = name;
    this.page = page;
    this.state = {};
    this.element = document.getElementById("column").content.firstElementChild.cloneNode(true);
    this.room = new Room(name, you, {
      changed: () => this.schedule(),
      log: (kind, text, node) => this.log(kind, text, node),
    });
    this.build();
  }

  $(selector) {
    return this.element.querySelector(selector);
  }

  build() {
    this.element.dataset.node = this.name;
    this.element.setAttribute("aria-label", `Server ${this.name}`);
    this.$(".name").textContent = this.$(".self").textContent = this.name;
    this.$(".actions").setAttribute("aria-label", `Do to ${this.name}`);
    this.$(".log").setAttribute("aria-label", `Log of ${this.name}`);
    for (const button of this.element.querySelectorAll("[data-action]")) {
      button.setAttribute("aria-label", `${button.textContent} ${this.name}`);
      button.onclick = () => this.page.act(this.name, button.dataset.action);
    }
    this.$(".revive").onclick = () => this.page.act(this.name, "restart");
    this.$(".join").onclick = () => {
      if (this.room.joined) this.room.leave();
      else this.room.join();
      this.page.did("join", this.name);
      this.page.changed();
    };
  }

  /** What the supervisor says of this server. */
  update(state) {
    this.state = state;
    const alive = state.state === "running" || state.state === "paused";
    this.room.follow(alive ? `ws://${location.hostname}:${state.port}/room` : null);
    this.schedule();
  }

  /** Draw once, however much has changed. */
  schedule() {
    if (this.scheduled) return;
    this.scheduled = true;
    setTimeout(() => {
      this.scheduled = false;
      this.draw();
      this.page.changed();
    });
  }

  draw() {
    const { state, pid, port } = this.state;
    this.element.dataset.state = state;
    this.$(".state").textContent = state;
    this.$(".process").textContent = pid ? `pid ${pid} · port ${port}` : `port ${port}`;
    const active = document.activeElement;
    const focused = this.element.contains(active) ? active : null;
    this.drawActions(state);
    this.drawNotice(state);
    this.keepFocus(focused);
    this.$(".live").hidden = !["running", "paused"].includes(state) || !this.room.connected;
    this.drawPeople();
    this.drawMembers();
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
    const join = this.$(".join");
    join.hidden = state !== "running";
    join.disabled = !this.room.connected;
    join.textContent = this.room.joined ? `Leave ${this.name}` : `Join through ${this.name}`;
    join.classList.toggle("primary", !this.room.joined);
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
      const again = this.room.joined ? " You will be back when it is." : "";
      return [`${name} is dead`, `Ended by ${this.state.reason}. What it knew is gone; the others carry on.${again}`];
    }
    return this.room.connected ? null : [`Connecting to ${name}`, "It runs, but your browser is not connected yet."];
  }

  /** The countdown until silence counts as death, and what came of it. */
  tick() {
    const incident = this.state.state === "paused" ? this.page.lastIncident(this.name) : null;
    const waiting = Boolean(incident?.waiting.length);
    this.$(".bar").hidden = !waiting;
    this.$(".until").hidden = !incident;
    if (!incident) return;
    const left = this.page.secondsLeft(incident);
    this.$(".bar i").style.width = `${(100 * left) / this.page.downAfter()}%`;
    this.$(".until").textContent = waiting
      ? `The others will notice within ${left.toFixed(1)} s.`
      : "The others have noticed, and carry on without it.";
  }

  drawPeople() {
    const people = [...this.room.people].map(([key, metas]) => [key, [...metas.values()]]);
    people.sort(([a, as], [b, bs]) => as[0].name.localeCompare(bs[0].name) || (a < b ? -1 : 1));
    this.$(".people").replaceChildren(...people.map(([key, metas]) => this.person(key, metas)));
    this.$(".count").textContent = people.length || "";
    this.$(".empty").hidden = people.length > 0;
  }

  person(key, metas) {
    const latest = metas.at(-1);
    const you = key === `visitor:${this.room.you.id}`;
    const away = metas.every((meta) => meta.status === "away");
    const row = element("li", `person${away ? " is-away" : ""}${you ? " is-you" : ""}`);
    const face = element("span", latest.robot ? "face robot" : "face", initial(latest.name));
    face.dataset.node = latest.node;
    face.setAttribute("aria-hidden", "true");
    row.append(face, element("span", "who", latest.name));
    if (you) row.append(element("span", "tag", "you"));
    if (latest.robot) row.append(element("span", "tag", "robot"));
    if (away) row.append(element("span", "tag", "away"));
    const through = element("span", "through");
    for (const meta of metas) through.append(chip(meta.node, `connected through ${meta.node}`));
    row.append(through);
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

  log(kind, text, node) {
    const line = element("li", kind);
    line.append(element("time", "", clock(Date.now())), element("span", "", text));
    if (node) line.append(chip(node));
    const log = this.$(".log");
    log.prepend(line);
    while (log.children.length > LOG_LINES) log.lastElementChild.remove();
  }
}

export function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== "") made.textContent = text;
  return made;
}

export function chip(node, title = "") {
  const made = element("span", "n", node);
  made.dataset.node = node;
  if (title) made.title = title;
  return made;
}

export function clock(milliseconds) {
  const time = new Date(milliseconds);
  const two = (number) => String(number).padStart(2, "0");
  const three = String(time.getMilliseconds()).padStart(3, "0");
  return `${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}.${three}`;
}

function initial(name) {
  return [...name.replace(/^guest /, "")][0].toUpperCase();
}
