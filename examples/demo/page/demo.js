// The page: you, the columns, and what the supervisor measured.

import { Column, chip, clock, element } from "./column.js";

const NAMES = ["Ann", "Ben", "Cleo", "Dev", "Emil", "Fay", "Gus", "Hana", "Ivo", "June"];
const NUMBERS = { 2: "Two", 3: "Three", 4: "Four", 5: "Five", 6: "Six" };
const RETRY_MS = 1000;

const $ = (id) => document.getElementById(id);
const columns = new Map();
const logged = new Set(); // which notices stand in the columns' logs already
let state = null; // what the supervisor said last
let ahead = 0; // how many milliseconds its clock is ahead of ours

// You.

const you = remembered() ?? {
  id: Math.random().toString(36).slice(2, 14),
  name: NAMES[Math.floor(Math.random() * NAMES.length)],
  status: "here",
};

function remembered() {
  try {
    return JSON.parse(sessionStorage.getItem("you"));
  } catch {
    return null;
  }
}

function changeYou(change) {
  Object.assign(you, change);
  sessionStorage.setItem("you", JSON.stringify(you));
  for (const column of columns.values()) column.room.update();
  drawYou();
}

function drawYou() {
  const name = $("name").value.trim();
  const away = you.status === "away";
  $("rename").disabled = !name || name === you.name;
  $("away").textContent = away ? "Come back" : "Go away";
  $("away").setAttribute("aria-pressed", String(away));
}

$("name").value = you.name;
$("name").oninput = drawYou;
$("you").onsubmit = (event) => {
  event.preventDefault();
  const name = $("name").value.trim();
  if (name) changeYou({ name });
};
$("away").onclick = () => changeYou({ status: you.status === "away" ? "here" : "away" });

// The supervisor.

function connect() {
  const socket = new WebSocket(`ws://${location.host}/events`);
  socket.onmessage = (event) => receive(JSON.parse(event.data));
  socket.onclose = () => {
    $("banner").hidden = false;
    for (const column of columns.values()) column.room.follow(null);
    document.body.classList.add("ended");
    setTimeout(connect, RETRY_MS);
  };
}

function receive(news) {
  if (state && state.cluster !== news.cluster) return location.reload();
  const first = !state;
  state = news;
  ahead = news.now * 1000 - Date.now();
  $("banner").hidden = true;
  document.body.classList.remove("ended");
  if (first) build();
  for (const node of state.nodes) columns.get(node.name).update(node);
  logNotices(first);
  drawIncidents();
}

function build() {
  $("tagline").textContent = `${NUMBERS[state.nodes.length]} servers, one room, no database`;
  const victim = state.nodes[1].name;
  for (const place of document.querySelectorAll("[data-victim]")) {
    place.textContent = place.dataset.node = victim;
  }
  const page = { act, changed: drawYou, did, lastIncident, secondsLeft, downAfter: () => state.down_after };
  for (const { name } of state.nodes) {
    columns.set(name, new Column(name, you, page));
    $("columns").append(columns.get(name).element);
  }
}

async function act(name, action) {
  did(action, name);
  const answer = await fetch(`/nodes/${name}/${action}`, { method: "POST" }).catch(() => null);
  if (answer && !answer.ok) columns.get(name).log("system", (await answer.json()).error);
}

/** Tick off what the visitor was invited to try. */
function did(step) {
  document.querySelector(`[data-step="${step}"]`)?.classList.add("done");
}

// Incidents.

function lastIncident(name) {
  return state.incidents.findLast((incident) => incident.node === name);
}

function secondsLeft(incident) {
  const since = (Date.now() + ahead) / 1000 - incident.wall;
  return Math.max(0, state.down_after - since);
}

function drawIncidents() {
  const recent = state.incidents.toReversed();
  $("latest").replaceChildren(...(recent.length ? sentence(recent[0]) : ["Nothing has happened yet. All is well."]));
  $("latest").dataset.action = recent[0]?.action ?? "";
  $("history").replaceChildren(
    ...recent.map((incident) => {
      const line = element("li");
      line.append(element("time", "", clock(incident.wall * 1000)), ...sentence(incident));
      return line;
    }),
  );
  document.querySelector(".history").classList.toggle("is-empty", !recent.length);
}

function sentence(incident) {
  const { action, node, ready, noticed, waiting } = incident;
  const parts = [chip(node), element("span", "what", ` ${WHAT[action]}`)];
  const times = Object.entries(noticed);
  if (action === "start" && ready !== null) parts.push(element("span", "ready", `(serving after ${duration(ready)})`));
  for (const [observer, ms] of times) {
    const time = element("span", "time");
    time.append(chip(observer), ` ${NOTICED[action] ?? "noticed in"} `, element("b", "", duration(ms)));
    parts.push(time);
  }
  if (waiting.length) {
    const time = element("span", "time waiting");
    for (const observer of waiting) time.append(chip(observer), " ");
    time.append(...(action === "pause" ? ["wait, ", countdown(incident)] : ["…"]));
    parts.push(time);
  }
  if (!times.length && !waiting.length) parts.push(element("span", "ready", NOBODY[action] ?? ""));
  return parts;
}

const WHAT = {
  kill: "was killed.",
  pause: "was paused.",
  resume: "was resumed.",
  stop: "was asked to stop.",
  start: "was started.",
};
const NOTICED = {
  stop: "saw it leave after",
  resume: "shows its people again after",
  start: "shows its people after",
};
const NOBODY = {
  resume: "Nobody had missed it yet.",
  pause: "It ended before anybody missed it.",
  kill: "There was nobody to notice.",
};

function countdown(incident) {
  const text = element("span", "countdown");
  text.dataset.incident = incident.id;
  text.setAttribute("aria-hidden", "true"); // ten times a second is nothing to read out
  return text;
}

function duration(ms) {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(2)} s`;
}

/** Say in a column what its server noticed, once; nothing of what was before this page. */
function logNotices(first) {
  for (const { id, node, action, noticed } of state.incidents) {
    for (const [observer, ms] of Object.entries(noticed)) {
      const notice = `${id} ${observer}`;
      if (logged.has(notice)) continue;
      logged.add(notice);
      const news = action === "start" || action === "resume" ? "is back after" : "is gone: noticed in";
      if (!first) columns.get(observer)?.log("notice", `${node} ${news} ${duration(ms)}`);
    }
  }
}

setInterval(() => {
  if (!state) return;
  for (const text of document.querySelectorAll(".countdown")) {
    const incident = state.incidents.find(({ id }) => String(id) === text.dataset.incident);
    if (incident) text.textContent = `and give it up within ${secondsLeft(incident).toFixed(1)} s`;
  }
  for (const column of columns.values()) column.tick();
}, 100);

drawYou();
connect();
