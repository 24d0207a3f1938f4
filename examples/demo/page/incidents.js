// What was done, and how long each server took to notice: the supervisor measures, this tells.

import { $, chip, clock, duration, element } from "./dom.js";

const WHAT = {
  kill: "was killed.",
  pause: "was paused.",
  resume: "was resumed.",
  stop: "was asked to stop.",
  start: "was started.",
  outage: "was killed, and with it all links between the servers.",
  return: "was started again.",
};
const NOTICED = {
  stop: "saw it leave after",
  resume: "shows its people again after",
  start: "shows its people after",
  split: "noticed in",
  heal: "shows all after",
};
const NOBODY = {
  resume: "Nobody had missed it yet.",
  pause: "It ended before anybody missed it.",
  kill: "There was nobody to notice.",
  split: "It was over before anybody missed anybody.",
  heal: "Nobody had missed anybody yet.",
  outage: "Everybody stays listed for 30 s, and changes wait.",
  return: "The servers reconnect, and exchange what changed.",
};
const SILENT = ["pause", "split"]; // what is noticed by silence only, which takes its time

let state = null; // what the supervisor said last
let ahead = 0; // how many milliseconds its clock is ahead of ours
let drawn = null; // the incident that is shown as the latest
const logged = new Set(); // which notices stand in the columns' logs already

/** Draw the news. */
export function draw(news, columns) {
  const first = !state;
  state = news;
  ahead = news.now * 1000 - Date.now();
  const recent = state.incidents.toReversed();
  drawLatest(recent[0]);
  $("history").replaceChildren(
    ...recent.map((incident) => {
      const line = element("li");
      line.append(element("time", "", clock(incident.wall * 1000)), ...sentence(incident));
      return line;
    }),
  );
  document.querySelector(".history").classList.toggle("is-empty", !recent.length);
  logNotices(columns, first);
}

/** What is done last is read out, so it is touched only when it is news. */
function drawLatest(incident) {
  const latest = element("p");
  latest.append(...(incident ? sentence(incident) : ["Nothing has happened yet. All is well."]));
  if (incident && JSON.stringify(incident) === drawn) return;
  drawn = JSON.stringify(incident);
  $("latest").replaceChildren(...latest.childNodes);
}

/** The last thing done to a server. */
export function lastOf(name) {
  return state.incidents.findLast(({ node, action }) => node === name && !["split", "heal"].includes(action));
}

/** How long it may take until silence counts as death. */
export function secondsLeft(incident) {
  const since = (Date.now() + ahead) / 1000 - incident.wall;
  return Math.max(0, state.down_after - since);
}

/** Let the countdowns run. */
export function tick() {
  for (const text of document.querySelectorAll(".countdown")) {
    const incident = state.incidents.find(({ id }) => String(id) === text.dataset.incident);
    if (incident) text.textContent = `within ${secondsLeft(incident).toFixed(1)} s`;
  }
}

function sentence(incident) {
  const { action, ready, noticed, waiting } = incident;
  const parts = subject(incident);
  const times = Object.entries(noticed);
  if (action === "start" && ready !== null) parts.push(element("span", "ready", `(serving after ${duration(ready)})`));
  for (const [observer, ms] of times) {
    const time = element("span", "time");
    time.append(chip(observer), ` ${NOTICED[action] ?? "noticed in"} `, element("b", "", duration(ms)));
    parts.push(time);
  }
  if (waiting.length) parts.push(patience(incident));
  if (!times.length && !waiting.length) parts.push(element("span", "ready", NOBODY[action] ?? ""));
  return parts;
}

function subject({ action, node }) {
  if (action === "heal") return [element("span", "what", "The network was healed.")];
  if (action !== "split") return [chip(node), element("span", "what", ` ${WHAT[action]}`)];
  const names = state.nodes.map(({ name }) => name);
  const after = names.indexOf(node) + 1;
  const sides = element("span", "what", "The network was cut: ");
  sides.append(...names.slice(0, after).flatMap((name) => [chip(name), " "]));
  sides.append(" | ", ...names.slice(after).flatMap((name) => [" ", chip(name)]));
  return [sides];
}

function patience(incident) {
  const time = element("span", "time waiting");
  for (const observer of incident.waiting) time.append(chip(observer), " ");
  if (!SILENT.includes(incident.action)) {
    time.append("…");
    return time;
  }
  const countdown = element("span", "countdown");
  countdown.dataset.incident = incident.id;
  countdown.setAttribute("aria-hidden", "true"); // ten times a second is nothing to read out
  time.append("will notice ", countdown);
  return time;
}

/** Say in a column what its server noticed, once; nothing of what was before this page. */
function logNotices(columns, first) {
  for (const { id, node, action, noticed } of state.incidents) {
    for (const [observer, ms] of Object.entries(noticed)) {
      const notice = `${id} ${observer}`;
      if (logged.has(notice)) continue;
      logged.add(notice);
      if (!first) columns.get(observer)?.log("notice", `${news(action, node)} ${duration(ms)}`);
    }
  }
}

function news(action, node) {
  if (action === "split") return "the other side is gone: noticed in";
  if (action === "heal") return "the other side is back after";
  return ["start", "resume"].includes(action) ? `${node} is back after` : `${node} is gone: noticed in`;
}
