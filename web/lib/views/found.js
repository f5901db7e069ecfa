/** What a node found or did, in its own words, on the node: counts, captions, memory, where a file is. */

import { element } from "../elements/element.js";
import { shortened } from "../language/paths.js";
import { say } from "../language/words.js";

const MOST_LINES = 5;
const LINE = 15, ROOM = 6, MARGIN = 10; // pixels: of a line, around all of them, and what the canvas leaves around a panel
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
