// The network as a strip: the servers, and between two of them a place to cut, or to heal.

import { chip, element } from "./dom.js";

export class Strip {
  /**
   * @param {HTMLElement} place
   * @param {string[]} names  the servers, in order
   * @param {object} page     split(name), heal()
   */
  constructor(place, names, page) {
    this.names = names;
    this.page = page;
    this.chips = new Map(names.map((name) => [name, chip(name)]));
    this.cuts = new Map();
    names.forEach((name, index) => {
      if (index) place.append(this.makeCut(names[index - 1], name));
      place.append(this.chips.get(name));
    });
  }

  makeCut(before, after) {
    const button = element("button", "cut");
    button.type = "button";
    button.append(element("i"), element("span", "word"));
    button.onclick = () => (this.cut === before ? this.page.heal() : this.page.split(before));
    this.cuts.set(before, { button, after });
    return button;
  }

  draw({ cut, nodes }) {
    this.cut = cut;
    for (const { name, state } of nodes) this.chips.get(name).dataset.state = state;
    for (const [before, { button, after }] of this.cuts) {
      const here = cut === before;
      button.classList.toggle("is-cut", here);
      button.disabled = Boolean(cut) && !here;
      button.querySelector(".word").textContent = here ? "Heal" : "Cut";
      const what = here ? "Heal the network" : "Cut the network";
      button.setAttribute("aria-label", `${what} between ${before} and ${after}`);
    }
  }
}
