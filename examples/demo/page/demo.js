// The page: you and your devices, the servers, the network, and what the supervisor measured.

import { Column } from "./column.js";
import { Device } from "./device.js";
import { $, soon } from "./dom.js";
import { EngineStrip } from "./engine.js";
import { Frames } from "./frames.js";
import * as incidents from "./incidents.js";
import { Strip } from "./network.js";

const NAMES = ["Ann", "Ben", "Cleo", "Dev", "Emil", "Fay", "Gus", "Hana", "Ivo", "June"];
const NUMBERS = { 2: "Two", 3: "Three", 4: "Four", 5: "Five", 6: "Six" };
const KINDS = ["phone", "laptop", "tablet"];

const columns = new Map();
const devices = [];
const frames = new Frames();
let state = null; // what the supervisor said last
let strip = null;

// You.

const you = remembered() ?? {
  id: random(),
  name: NAMES[Math.floor(Math.random() * NAMES.length)],
  kinds: [],
};

function remembered() {
  try {
    return JSON.parse(sessionStorage.getItem("you"));
  } catch {
    return null;
  }
}

function remember() {
  you.kinds = devices.map(({ kind }) => kind);
  sessionStorage.setItem("you", JSON.stringify(you));
}

function random() {
  return Math.random().toString(36).slice(2, 10);
}

$("name").value = you.name;
$("name").oninput = () => drawYou();
$("you").onsubmit = (event) => {
  event.preventDefault();
  const name = $("name").value.trim();
  if (!name) return;
  you.name = name;
  remember();
  for (const device of devices) device.tell();
  drawYou();
};

// Your devices.

const forDevices = {
  servers: () => state.nodes,
  start: () => free().name,
  changed: soon(() => drawYou()),
  closed: (device) => {
    devices.splice(devices.indexOf(device), 1);
    frames.forget(device);
    remember();
    drawYou();
    $("open").focus();
  },
  did,
  frames,
};

/** A server for a new device: one that none of yours is connected to, if there is one. */
function free() {
  const running = state.nodes.filter(({ state }) => state === "running");
  const used = devices.map(({ wanted }) => wanted);
  return running.find(({ name }) => !used.includes(name)) ?? running[0] ?? state.nodes[0];
}

function openDevice(kind) {
  const device = new Device(`${kind}-${random().slice(0, 4)}`, you, forDevices);
  devices.push(device);
  $("devices").insertBefore(device.element, $("more"));
  remember();
  drawYou();
  return device;
}

function nextKind() {
  return KINDS.find((kind) => !devices.some((device) => device.kind === kind));
}

$("open").onclick = () => {
  const device = openDevice(nextKind());
  if (devices.length > 1) did("second", device);
  device.element.querySelector("input").focus({ preventScroll: true });
};

function drawYou() {
  const name = $("name").value.trim();
  $("rename").disabled = !name || name === you.name;
  const kind = nextKind();
  $("more").hidden = !kind;
  $("more").classList.toggle("is-first", !devices.length);
  $("open").textContent = devices.length ? `Open a ${kind}, too` : "Join the room";
  $("invite").textContent = devices.length
    ? `You are one person, with ${devices.length === 1 ? "1 device" : `${devices.length} devices`}.`
    : "You are not here yet. Nobody sees you, and you see everybody.";
  const phone = devices[0]?.room.node ?? devices[0]?.wanted ?? state?.nodes[0].name;
  for (const place of document.querySelectorAll("[data-victim]")) {
    place.textContent = place.dataset.node = phone ?? "";
  }
}

// The supervisor.

function listen() {
  const source = new EventSource("/events");
  source.onmessage = (event) => receive(JSON.parse(event.data));
  source.onerror = () => {
    $("banner").hidden = false;
    document.body.classList.add("ended");
    for (const { room } of [...columns.values(), ...devices]) room.socket.disconnect();
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, 1000);
  };
}

function receive(news) {
  if (state && state.cluster !== news.cluster) return location.reload();
  const first = !state;
  state = news;
  $("banner").hidden = true;
  document.body.classList.remove("ended");
  if (first) build();
  incidents.draw(news, columns);
  state.nodes.forEach((node, index) => {
    const beyond = Boolean(state.cut) && state.nodes[index - 1]?.name === state.cut;
    columns.get(node.name).update(node);
    columns.get(node.name).element.classList.toggle("is-beyond", beyond);
  });
  for (const device of devices) device.update();
  strip.draw(state);
}

function build() {
  const names = state.nodes.map(({ name }) => name);
  $("tagline").textContent = `${NUMBERS[names.length]} servers, one room, no database`;
  strip = state.engine ? buildEngine(names) : buildNetwork(names);
  for (const name of names) {
    columns.set(name, new Column(name, { act, you, downAfter: () => state.down_after }));
    $("columns").append(columns.get(name).element);
  }
  for (const kind of you.kinds) openDevice(kind);
  drawYou();
}

function buildNetwork(names) {
  return new Strip($("network"), names, { split: (name) => ask(`network/split/${name}`, "cut"), heal });
}

/** The links run over an engine: that can be killed, and there is no network to cut. */
function buildEngine(names) {
  $("tagline").textContent += `, over ${state.engine.program}`;
  for (const place of document.querySelectorAll("[data-engine]")) place.textContent = state.engine.program;
  for (const step of ["cut", "heal", "outage", "return"]) {
    document.querySelector(`[data-step="${step}"]`).hidden = ["cut", "heal"].includes(step);
  }
  $("about-cuts").hidden = true;
  return new EngineStrip($("network"), names, {
    kill: () => ask("engine/kill", "outage"),
    start: () => ask("engine/start", "return"),
  });
}

function act(name, action) {
  return ask(`nodes/${name}/${action}`, action, name);
}

function heal() {
  return ask("network/heal", "heal");
}

async function ask(path, step, name) {
  did(step);
  const answer = await fetch(`/${path}`, { method: "POST" }).catch(() => null);
  if (answer && !answer.ok) columns.get(name ?? state.nodes[0].name).log("system", (await answer.json()).error);
}

/** Tick off what the visitor was invited to try. */
function did(step) {
  document.querySelector(`[data-step="${step}"]`)?.classList.add("done");
}

$("source").ontoggle = async () => {
  $("code").textContent ||= await (await fetch("/app.py")).text();
};

setInterval(() => {
  if (!state) return;
  incidents.tick();
  for (const column of columns.values()) column.tick();
}, 100);

drawYou();
listen();
