/** The numbers of one training run as columns, as they arrive. */

import { lowerBound } from "./curve.js";

const MOST_ROWS = 40_000; // beyond it every second one of the older half is dropped
const PACE_SECONDS = 20;
const SELDOM = new Set(["validation_loss"]);

export class Metrics {
  /** @type {number[]} training steps, ascending */
  steps = [];
  /** @type {Map<string, (number|null)[]>} */
  columns = new Map();
  /** @type {Map<string, number>} seconds by node id, since the start */
  seconds = new Map();
  /** @type {Map<string, {steps: number[], values: number[]}>} what is measured now and then only */
  readings = new Map();
  #arrivals = [];

  /**
   * Rows of an event, oldest first. What is known already is skipped: a server tells late comers everything again.
   * @param {Record<string, any>[]} rows
   * @param {number} [now] seconds
   */
  add(rows, now) {
    let last = this.lastStep;
    for (const row of rows) {
      if (!(row.step > last)) continue;
      last = row.step;
      this.#append(row);
    }
    if (now !== undefined && rows.length) this.#note(last, now);
    while (this.steps.length > MOST_ROWS) this.#thin();
  }

  #append(row) {
    const place = this.steps.length;
    this.steps.push(row.step);
    for (const [name, value] of Object.entries(row)) {
      if (name === "step" || SELDOM.has(name) || (value !== null && typeof value !== "number")) continue;
      if (!this.columns.has(name)) this.columns.set(name, new Array(place).fill(null));
      this.columns.get(name).push(value);
    }
    for (const column of this.columns.values()) if (column.length === place) column.push(null);
    for (const [name, value] of Object.entries({ ...row.machine, ...Object.fromEntries([...SELDOM].map((name) => [name, row[name]])) })) {
      if (typeof value === "number") this.#read(name, row.step, value);
    }
    for (const [node, seconds] of Object.entries(row.seconds ?? {})) {
      this.seconds.set(node, (this.seconds.get(node) ?? 0) + seconds);
    }
  }

  #read(name, step, value) {
    if (!this.readings.has(name)) this.readings.set(name, { steps: [], values: [] });
    const reading = this.readings.get(name);
    reading.steps.push(step);
    reading.values.push(value);
    if (reading.steps.length <= MOST_ROWS) return;
    for (const part of ["steps", "values"]) reading[part] = reading[part].filter((_, index) => index % 2 === 0);
  }

  /** Where a number was measured, and what it was; null where it never was. */
  line(name) {
    const reading = this.readings.get(name), values = this.columns.get(name);
    if (reading) return { xs: reading.steps, ys: reading.values };
    return values ? { xs: this.steps, ys: values } : null;
  }

  #thin() {
    const middle = this.steps.length >> 1;
    const kept = (_, index) => index >= middle || index % 2 === 0;
    this.steps = this.steps.filter(kept);
    for (const [name, column] of this.columns) this.columns.set(name, column.filter(kept));
  }

  #note(step, now) {
    this.#arrivals.push([step, now]);
    while (this.#arrivals.length > 2 && now - this.#arrivals[1][1] > PACE_SECONDS) this.#arrivals.shift();
  }

  get lastStep() {
    return this.steps.length ? this.steps[this.steps.length - 1] : -1;
  }

  /** The newest value of a column that is not missing. */
  last(name) {
    return (this.columns.get(name) ?? []).findLast((value) => value !== null) ?? null;
  }

  /** The value of a column at a training step, null where there is none. */
  at(name, step) {
    const place = lowerBound(this.steps, step);
    return this.steps[place] === step ? (this.columns.get(name)?.[place] ?? null) : null;
  }

  /** Training steps per second of the clock on the wall: with samples and checkpoints, unlike ``steps_per_second``. */
  get pace() {
    const [first, last] = [this.#arrivals[0], this.#arrivals.at(-1)];
    if (!first || last[1] - first[1] < 0.5) return this.last("steps_per_second");
    return (last[0] - first[0]) / (last[1] - first[1]);
  }

  /** Seconds until ``steps`` are done; null where nobody can know. */
  remaining(steps) {
    const pace = this.pace;
    return pace > 0 && steps ? Math.max(0, steps - this.lastStep - 1) / pace : null;
  }

  /** The training steps whose loss is far above those before, as the run itself has marked them. */
  get spikes() {
    const marks = this.columns.get("spike") ?? [];
    return this.steps.filter((_, place) => marks[place]);
  }

  /** The loss and its parts: "loss_flow" and "loss_anti_drift" of ReflexFlow, say. */
  get losses() {
    return [...this.columns.keys()].filter((name) => name === "loss" || name.startsWith("loss_")).sort();
  }
}

/**
 * Who took how much of the step, the largest first; what is too small to see is put together.
 * @param {Map<string, number>} seconds by node id, or ``<node id>.<part>``
 * @param {(nodeId: string) => string} titleOf
 * @returns {{name: string, share: number}[]}
 */
export function shares(seconds, titleOf, least = 0.01) {
  const total = [...seconds.values()].reduce((sum, value) => sum + value, 0);
  if (!(total > 0)) return [];
  const named = [...seconds].map(([key, value]) => ({ name: nameOf(key, titleOf), share: value / total }));
  const seen = named.filter((part) => part.share >= least).sort((a, b) => b.share - a.share);
  const rest = 1 - seen.reduce((sum, part) => sum + part.share, 0);
  return rest > 1e-3 ? [...seen, { name: "other", share: rest }] : seen;
}

function nameOf(key, titleOf) {
  const [node, part] = key.split(".");
  return part ? `${titleOf(node)}: ${part}` : titleOf(node);
}
