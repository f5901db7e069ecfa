/** A long list of rows of equal height, of which only those in sight exist. */

import { element } from "./element.js";
import { onceAFrame } from "./once_a_frame.js";

const MARGIN = 3; // rows beyond the edges

/** The first and last place (exclusive) of the rows to make. */
export function inSight(top, height, rowHeight, count) {
  const first = Math.max(0, Math.floor(top / rowHeight) - MARGIN);
  return [first, Math.min(count, Math.ceil((top + height) / rowHeight) + MARGIN)];
}

export class VirtualList {
  #items = [];
  #rows = new Map(); // by key

  /**
   * @param {number} rowHeight in pixels
   * @param {(item: any) => string} keyOf
   * @param {(item: any, old?: HTMLElement) => HTMLElement} rowOf makes a row, or brings an old one of the same key up to date
   */
  constructor(rowHeight, keyOf, rowOf) {
    Object.assign(this, { rowHeight, keyOf, rowOf });
    this.room = element("div.rollout-virtual-room", { role: "list" });
    const redraw = onceAFrame(() => this.#draw());
    this.element = element("div.rollout-virtual", { onscroll: redraw }, this.room);
    new ResizeObserver(redraw).observe(this.element);
  }

  show(items) {
    this.#items = items;
    this.room.style.height = `${items.length * this.rowHeight}px`;
    this.#draw();
  }

  #draw() {
    const [first, end] = inSight(this.element.scrollTop, this.element.clientHeight, this.rowHeight, this.#items.length);
    const seen = new Map();
    for (const item of this.#items.slice(first, end)) seen.set(this.keyOf(item), this.rowOf(item, this.#rows.get(this.keyOf(item))));
    for (const [key, row] of this.#rows) if (seen.get(key) !== row) row.remove();
    let here = this.room.firstElementChild, place = first; // keys and readers of screens walk the rows as they are seen
    for (const row of seen.values()) {
      row.style.transform = `translateY(${place++ * this.rowHeight}px)`;
      if (row === here) here = here.nextElementSibling;
      else this.room.insertBefore(row, here);
    }
    this.#rows = seen;
  }
}
