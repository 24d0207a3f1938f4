// The drawer with the frames of your devices, as they were on the wire.

import { $, clock, element } from "./dom.js";

const KEPT = 200; // frames of each device
const SHOWN = 2000; // characters of a frame

export class Frames {
  constructor() {
    this.kept = new Map(); // by device, what went and came
    this.device = null;
    $("frames-close").onclick = () => this.close();
    $("frames-clear").onclick = () => this.clear();
    $("frames-beats").onchange = () => this.redraw();
    $("frames-whole").onchange = () => $("frames-list").classList.toggle("is-whole", $("frames-whole").checked);
    $("frames").onkeydown = (event) => event.key === "Escape" && this.close();
  }

  record(device, way, raw) {
    if (!this.kept.has(device)) this.kept.set(device, []);
    const frames = this.kept.get(device);
    const frame = { at: Date.now(), way, parts: JSON.parse(raw) };
    frames.push(frame);
    if (frames.length > KEPT) frames.shift();
    if (device === this.device) this.show(frame);
  }

  forget(device) {
    this.kept.delete(device);
    if (device === this.device) this.switchTo([...this.kept.keys()][0]);
    else this.drawTabs();
  }

  open(device, from) {
    this.from = from;
    $("frames").hidden = false;
    document.body.classList.add("has-drawer");
    this.switchTo(device);
    $("frames-title").focus();
  }

  close() {
    $("frames").hidden = true;
    document.body.classList.remove("has-drawer");
    this.device = null;
    this.from?.focus();
  }

  clear() {
    this.kept.set(this.device, []);
    this.redraw();
  }

  switchTo(device) {
    if (!device) return this.close();
    this.device = device;
    this.drawTabs();
    this.redraw();
  }

  drawTabs() {
    const tabs = [...this.kept.keys()].map((device) => {
      const tab = element("button", "tab", device.kind);
      tab.type = "button";
      tab.setAttribute("aria-pressed", String(device === this.device));
      tab.onclick = () => this.switchTo(device);
      return tab;
    });
    $("frames-tabs").replaceChildren(...tabs);
  }

  redraw() {
    $("frames-list").replaceChildren();
    for (const frame of this.kept.get(this.device) ?? []) this.show(frame);
  }

  show(frame) {
    if (frame.parts[2] === "phoenix" && !$("frames-beats").checked) return; // a heartbeat
    const list = $("frames-list");
    const atEnd = list.scrollTop + list.clientHeight > list.scrollHeight - 30;
    list.append(line(frame));
    while (list.children.length > KEPT) list.firstElementChild.remove();
    if (atEnd || list.children.length === 1) list.scrollTop = list.scrollHeight;
  }
}

function line({ at, way, parts }) {
  const row = element("li", way);
  const arrow = element("span", "way", way === "out" ? "↑" : "↓");
  arrow.setAttribute("role", "img");
  arrow.setAttribute("aria-label", way === "out" ? "to the server" : "from the server");
  row.append(element("time", "", clock(at)), arrow, coloured(parts));
  return row;
}

/** The five parts of a frame: whose it is, then topic, event and payload. */
function coloured([joinRef, ref, topic, event, payload]) {
  const code = element("code");
  code.append("[");
  for (const [name, part] of Object.entries({ joinRef, ref, topic, event })) {
    code.append(element("span", name, JSON.stringify(part)), ",");
  }
  const text = JSON.stringify(payload);
  const shown = text.length > SHOWN ? `${text.slice(0, SHOWN)} …` : text;
  code.append(element("span", "payload", shown), "]");
  return code;
}
