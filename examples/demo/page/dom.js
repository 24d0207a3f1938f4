// Small pieces of the page that more than one part draws.

export const $ = (id) => document.getElementById(id);

export function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== "") made.textContent = text;
  return made;
}

/** Change a text, if it is another one: what did not change is not to be read out again. */
export function setText(place, text) {
  if (place.textContent !== text) place.textContent = text;
}

/** A copy of a template's only element. */
export function fromTemplate(id) {
  return $(id).content.firstElementChild.cloneNode(true);
}

/** The name of a server, in its colour. */
export function chip(node, title = "") {
  const made = element("span", "n", node);
  made.dataset.node = node;
  if (title) made.title = title;
  return made;
}

const NAMES = { phone: "phone", laptop: "laptop", tablet: "tablet", robot: "robot" };

/** The picture of a device; its name is read out. */
export function icon(kind) {
  const known = NAMES[kind] ?? "laptop";
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  svg.setAttribute("class", "icon");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", known);
  use.setAttribute("href", `#icon-${known}`);
  svg.append(use);
  return svg;
}

export function clock(milliseconds) {
  const time = new Date(milliseconds);
  const two = (number) => String(number).padStart(2, "0");
  const three = String(time.getMilliseconds()).padStart(3, "0");
  return `${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}.${three}`;
}

export function duration(ms) {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(2)} s`;
}

/** A function that does its work once, soon, however often it is called until then. */
export function soon(work) {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    setTimeout(() => {
      waiting = false;
      work();
    });
  };
}
