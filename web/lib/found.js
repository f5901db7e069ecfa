/** What a node found or did, in its own words, on the node: counts, captions, memory, where a file is. */

import { element } from "./element.js";
import { say } from "./words.js";

const MOST_LINES = 5;
const LINE = 15, ROOM = 6, MARGIN = 10; // pixels: of a line, around all of them, and what the canvas leaves around a panel
const KEPT = 3; // folders of a path, the file included
const LONG = 40; // letters that surely fit on one line of a node of ordinary width

export class Found {
  #shown = "";
  height = 0;

  constructor() {
    this.element = element("div.rollout-found");
  }

  /** @param {string[]} found returns whether anything changed */
  show(found) {
    const lines = found.map(say), key = lines.join("\n");
    if (key === this.#shown) return false;
    this.#shown = key;
    const shown = lines.slice(0, MOST_LINES).map(shortened);
    this.element.title = key;
    this.element.replaceChildren(...shown.map((line) => element("p", {}, line)));
    this.height = shown.length && heightOf(shown);
    return true;
  }
}

/** Pixels of the panel that holds these lines, as the canvas counts: with the margin that it leaves around it. */
export function heightOf(lines) {
  return 2 * MARGIN + ROOM + LINE * lines.reduce((sum, line) => sum + rowsOf(line), 0);
}

/** Rows that a line takes where no more than ``LONG`` letters stand beside each other. */
function rowsOf(line) {
  let rows = 0, room = 0; // letters that are free on the last row
  for (const { length } of line.split(" ")) {
    const own = length > room ? Math.ceil(length / LONG) : 0;
    rows += own;
    room = (own ? LONG * own : room) - length - 1;
  }
  return rows;
}

/** A line whose paths are cut from the left: where a file is, its last folders tell; the title has all of it. */
export function shortened(line) {
  return line.replace(/(?:[A-Za-z]:\\|~?\/)[^\s,;:"']+/g, (path) => lastOf(path, KEPT));
}

/** ``…/datasets/my cat``: a path, cut from the left to so many folders. */
export function lastOf(path, kept) {
  const parts = path.split(/[\\/]/).filter(Boolean);
  return parts.length > kept ? `…/${parts.slice(-kept).join("/")}` : path;
}

/** The lines among what a node returned for the eye. */
export function linesOf(output) {
  const text = output?.text;
  const lines = Array.isArray(text) ? text : typeof text === "string" ? [text] : [];
  return lines.filter((line) => typeof line === "string" && line.trim()).flatMap((line) => line.split("\n"));
}
