// The engine that carries the links, among the servers: a place to kill it, or to start it again.

import { chip, element, setText } from "./dom.js";

export class EngineStrip {
  /**
   * @param {HTMLElement} place
   * @param {string[]} names  the servers, in order
   * @param {object} page     kill(), start()
   */
  constructor(place, names, page) {
    this.chips = new Map(names.map((name) => [name, chip(name)]));
    this.button = element("button", "cut");
    this.button.type = "button";
    this.button.id = "engine";
    this.button.append(element("i"), element("span", "word"));
    this.button.onclick = () => (this.running ? page.kill() : page.start());
    place.setAttribute("aria-label", "The engine that carries the links");
    place.append(...this.chips.values(), this.button);
  }

  draw({ engine, nodes }) {
    this.running = engine.state === "running";
    for (const { name, state } of nodes) this.chips.get(name).dataset.state = state;
    this.button.classList.toggle("is-cut", !this.running);
    this.button.disabled = engine.state === "starting";
    setText(this.button.querySelector(".word"), `${this.running ? "Kill" : "Start"} ${engine.program}`);
  }
}
