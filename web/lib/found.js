/** What a node found or did, in its own words, on the node: counts, captions, memory, where a file is. */

import { element } from "./element.js";

const MOST_LINES = 5;
const LINE = 15, ROOM = 10; // pixels
const KEPT = 3; // folders of a path, the file included
const LONG = 40; // letters that surely fit on one line of a node of ordinary width

export class Found {
  #shown = "";
  height = 0;

  constructor() {
    this.element = element("div.rollout-found");
  }

  /** @param {string[]} lines returns whether anything changed */
  show(lines) {
    const key = lines.join("\n");
    if (key === this.#shown) return false;
    this.#shown = key;
    const shown = lines.slice(0, MOST_LINES).map(shortened);
    this.element.title = key;
    this.element.replaceChildren(...shown.map((line) => element("p", {}, line)));
    this.height = shown.length ? ROOM + LINE * Math.min(MOST_LINES + 3, shown.reduce((sum, line) => sum + Math.ceil(line.length / LONG), 0)) : 0;
    return true;
  }
}

/** A line whose paths are cut from the left: where a file is, its last folders tell; the title has all of it. */
export function shortened(line) {
  return line.replace(/(?:[A-Za-z]:\\|~?\/)[^\s,;:"']+/g, (path) => {
    const parts = path.split(/[\\/]/).filter(Boolean);
    return parts.length > KEPT ? `…/${parts.slice(-KEPT).join("/")}` : path;
  });
}

/** The lines among what a node returned for the eye. */
export function linesOf(output) {
  const text = output?.text;
  const lines = Array.isArray(text) ? text : typeof text === "string" ? [text] : [];
  return lines.filter((line) => typeof line === "string" && line.trim()).flatMap((line) => line.split("\n"));
}
