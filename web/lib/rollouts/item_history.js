/** One item of the inspector over the training: what the model made of the same latents at step 100, 500, 1000. */

import { element } from "../elements/element.js";
import { formatNumber } from "../language/amounts.js";
import { t } from "../language/words.js";
import { cellAt, difference, keyOf, largestDifference } from "./film.js";

const MOST_FILMS = 10;

/** At most so many of a list, evenly chosen; its ends are among them. */
export function spread(list, most) {
  if (list.length <= most) return list;
  return Array.from({ length: most }, (_, place) => list[Math.round((place * (list.length - 1)) / (most - 1))]);
}

/** A canvas of one picture of a film, shown pixel by pixel if it is tiny. */
export function picture(kind, [width, height]) {
  const smooth = Math.max(width, height) >= 64 ? ".rollout-smooth" : "";
  return element(`canvas.rollout-cell.rollout-${kind}${smooth}`, { width, height });
}

export function paint(canvas, pixels) {
  canvas.getContext("2d").putImageData(new ImageData(pixels, canvas.width, canvas.height), 0, 0);
}

/** The two states of an item, and what differs. */
export function picturesOf({ facts, pixels }, state, item, gain) {
  const teacher_forced = pixels(cellAt(facts, "teacher_forced", state, item));
  const rolled_out = pixels(cellAt(facts, "rolled_out", state, item));
  return { teacher_forced, rolled_out, difference: difference(teacher_forced, rolled_out, gain) };
}

/** The gain that makes the largest difference of the target states use all of the range. */
export function fullGain({ facts, pixels }) {
  const last = facts.states - 1;
  const differences = Array.from({ length: facts.items }, (_, item) => largestDifference(
    pixels(cellAt(facts, "teacher_forced", last, item)), pixels(cellAt(facts, "rolled_out", last, item))));
  return Math.min(32, Math.max(1, 255 / Math.max(1, ...differences)));
}

export class ItemHistory {
  #films = [];
  #key = "";

  constructor(reader) {
    this.reader = reader;
    this.title = element("b");
    this.grid = element("div.rollout-history-grid");
    this.element = element("div.rollout-history", {}, this.title, this.grid);
  }

  /** @param {import("./film.js").Frames[]} frames all of the node, oldest first */
  async load(frames) {
    const chosen = spread(frames, MOST_FILMS);
    const key = JSON.stringify(chosen.map(keyOf));
    if (key === this.#key) return false;
    this.#key = key;
    const read = await Promise.allSettled(chosen.map((one) => this.reader.read(one)));
    if (this.#key !== key) return false; // newer ones came meanwhile
    this.#films = read.flatMap(({ value }) => value ?? []);
    return true;
  }

  draw(item, state, gain, current) {
    this.title.textContent = t("Item {item} over the training", { item: item + 1 });
    this.grid.style.setProperty("--rollout-films", this.#films.length);
    this.grid.replaceChildren(...this.#films.flatMap((film) => this.#column(film, item, Math.min(state, film.facts.states - 1), gain, current)));
  }

  #column(film, item, state, gain, current) {
    const { facts } = film;
    if (item >= facts.items) return [];
    const shown = picturesOf(film, state, item, gain);
    const canvases = ["rolled_out", "difference"].map((kind) => {
      const canvas = picture(kind, facts.cell);
      paint(canvas, shown[kind]);
      return canvas;
    });
    const caption = element(
      "span.rollout-caption", {}, element("b", {}, facts.step.toLocaleString("en-US")), element("span", {}, t("drift {drift}", { drift: formatNumber(facts.drift[state][item], 2) })),
    );
    return [element(`div.rollout-history-column${facts.step === current ? ".rollout-current" : ""}`, {}, ...canvases, caption)];
  }
}
