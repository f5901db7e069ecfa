/** A line chart on a canvas: axes, curves, a reading under the pointer, zoom by wheel, moved by dragging. */

import { element } from "../elements/element.js";
import { onceAFrame } from "../elements/once_a_frame.js";
import { formatNumber } from "../language/amounts.js";
import { t } from "../language/words.js";
import { decimate, nearest, shifted, zoomed } from "./curve.js";
import { extent, linear, logarithmic, padded, paddedLog } from "./scale.js";

const MARGIN = { left: 46, right: 10, top: 8, bottom: 20 };

/** @typedef {{name: string, title?: string, xs: number[], ys: (number|null)[], raw?: (number|null)[], color: string, dashed?: boolean, marks?: [number, number][]}} Line */

/** What several charts look at together: the range of training steps, and where the pointer is. */
export class View extends EventTarget {
  /** @type {[number, number]|null} null shows everything */
  range = null;
  /** @type {number|null} */
  pointer = null;

  set(range, pointer = this.pointer) {
    this.range = range;
    this.pointer = pointer;
    this.dispatchEvent(new Event("change"));
  }
}

export class Chart {
  /** @type {Line[]} */
  #lines = [];
  #log = false;
  #drag = null;

  /**
   * @param {string} title
   * @param {View} view
   */
  constructor(title, view) {
    this.view = view;
    this.canvas = element("canvas");
    this.legend = element("div.rollout-legend");
    this.area = element("div.rollout-plot", {}, this.canvas);
    this.element = element("figure.rollout-chart", {}, element("figcaption", {}, element("b", {}, title), this.legend), this.area);
    this.redraw = onceAFrame(() => this.#draw());
    new ResizeObserver(this.redraw).observe(this.area);
    view.addEventListener("change", this.redraw);
    this.#listen();
  }

  /** @param {Line[]} lines */
  show(lines, { log = false } = {}) {
    this.#lines = lines;
    this.#log = log;
    this.redraw();
  }

  get #full() {
    const ends = this.#lines.filter((line) => line.xs.length).map((line) => [line.xs[0], line.xs.at(-1)]);
    const range = extent(ends.flat()) ?? [0, 1];
    return range[0] === range[1] ? [range[0], range[0] + 1] : range;
  }

  get #range() {
    const full = this.#full;
    return this.view.range ? [Math.max(full[0], this.view.range[0]), Math.min(full[1], this.view.range[1])] : full;
  }

  #listen() {
    const stepAt = (event) => {
      const box = this.canvas.getBoundingClientRect();
      const share = (event.clientX - box.left) / (box.width || 1); // the canvas itself may be scaled
      return linear(this.#range, [MARGIN.left, this.canvas.clientWidth - MARGIN.right]).invert(share * this.canvas.clientWidth);
    };
    this.canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      event.stopPropagation();
      const full = this.#full;
      const range = zoomed(this.#range, stepAt(event), 2 ** (event.deltaY / 300), full, 4);
      this.view.set(range[0] <= full[0] && range[1] >= full[1] ? null : range);
    }, { passive: false });
    this.canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      this.canvas.setPointerCapture(event.pointerId);
      this.#drag = { step: stepAt(event), range: this.#range };
    });
    this.canvas.addEventListener("pointermove", (event) => {
      if (!this.#drag) return this.view.set(this.view.range, stepAt(event));
      const box = this.canvas.getBoundingClientRect();
      const scale = linear(this.#drag.range, [MARGIN.left, this.canvas.clientWidth - MARGIN.right]);
      const now = scale.invert(((event.clientX - box.left) / box.width) * this.canvas.clientWidth);
      if (this.view.range) this.view.set(shifted(this.#drag.range, this.#drag.step - now, this.#full), null);
    });
    this.canvas.addEventListener("pointerup", () => (this.#drag = null));
    this.canvas.addEventListener("pointercancel", () => (this.#drag = null));
    this.canvas.addEventListener("pointerleave", () => this.view.set(this.view.range, null));
    this.canvas.addEventListener("dblclick", () => this.view.set(null));
    this.canvas.title = t("wheel: zoom · drag: move · double-click: all");
  }

  #draw() {
    const { clientWidth: width, clientHeight: height } = this.area;
    if (!width || !height) return;
    const ratio = window.devicePixelRatio || 1;
    if (this.canvas.width !== Math.round(width * ratio) || this.canvas.height !== Math.round(height * ratio)) {
      this.canvas.width = Math.round(width * ratio);
      this.canvas.height = Math.round(height * ratio);
    }
    const context = this.canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    const style = getComputedStyle(this.element), range = this.#range;
    const x = linear(range, [MARGIN.left, width - MARGIN.right]);
    const columns = Math.max(10, Math.round(width - MARGIN.left - MARGIN.right));
    const drawn = this.#lines.map((line) => ({
      line, color: style.getPropertyValue(line.color).trim() || line.color,
      points: decimate(line.xs, line.ys, range, columns),
      raw: line.raw && decimate(line.xs, line.raw, range, columns),
    }));
    const y = this.#axis(drawn, height);
    const text = style.color, grid = style.getPropertyValue("--border-color").trim() || "#888";
    context.font = "11px system-ui, sans-serif";
    this.#axes(context, { x, y, width, height, text, grid });
    context.save();
    context.beginPath();
    context.rect(MARGIN.left, MARGIN.top, width - MARGIN.left - MARGIN.right, height - MARGIN.top - MARGIN.bottom);
    context.clip();
    for (const { line, color, points, raw } of drawn.toReversed()) { // the first, the most important, on top
      if (raw) stroke(context, raw, x, y, color, { alpha: 0.25 });
      stroke(context, points, x, y, color, { width: 1.6, dashed: line.dashed });
    }
    const red = style.getPropertyValue("--rollout-color-spike").trim() || "#dc2626";
    for (const [step, value] of this.#lines.flatMap((line) => line.marks ?? [])) mark(context, x.map(step), Math.max(MARGIN.top + 6, y.map(value)), red);
    context.restore();
    this.#read(context, drawn, { x, y, height, grid });
  }

  #axis(drawn, height) {
    const inside = ({ points }) => points.map(([, value]) => value);
    const found = extent(drawn.flatMap(inside), this.#log);
    const place = [height - MARGIN.bottom, MARGIN.top];
    if (this.#log && found) return logarithmic(paddedLog(found), place);
    return linear(padded(found ?? [0, 1]), place);
  }

  #axes(context, { x, y, width, height, text, grid }) {
    context.lineWidth = 1;
    context.textBaseline = "middle";
    context.textAlign = "right";
    for (const tick of y.ticks(Math.max(2, Math.floor(height / 34)))) {
      const place = Math.round(y.map(tick)) + 0.5;
      if (place < MARGIN.top - 1 || place > height - MARGIN.bottom + 1) continue;
      context.globalAlpha = 0.6;
      line(context, grid, MARGIN.left, place, width - MARGIN.right, place);
      context.globalAlpha = 0.75;
      context.fillStyle = text;
      context.fillText(formatNumber(tick), MARGIN.left - 6, place);
    }
    context.textBaseline = "alphabetic";
    context.textAlign = "center";
    for (const tick of x.ticks(Math.max(2, Math.floor(width / 80))).filter(Number.isInteger)) {
      context.fillText(tick.toLocaleString("en-US"), Math.max(MARGIN.left + 4, Math.min(width - 16, x.map(tick))), height - 5);
    }
    context.globalAlpha = 1;
  }

  /** The legend tells the values under the pointer, or the newest ones. */
  #read(context, drawn, { x, y, height, grid }) {
    const at = this.view.pointer;
    let step = null;
    const entries = drawn.map(({ line: curve, color }) => {
      const place = at === null ? curve.xs.length - 1 : nearest(curve.xs, at);
      const value = curve.ys[place] ?? null;
      if (at !== null && place >= 0) {
        step ??= curve.xs[place];
        if (value !== null) dot(context, x.map(curve.xs[place]), y.map(value), color);
      }
      return element(
        "span", { title: t(curve.title ?? curve.name) }, element(`i.rollout-swatch${curve.dashed ? ".rollout-dashed" : ""}`, { style: `--swatch: ${color}` }),
        curve.name && `${t(curve.name)} `, element("b", {}, value === null ? "–" : formatNumber(value)),
      );
    });
    if (step !== null) {
      const place = Math.round(x.map(step)) + 0.5;
      line(context, grid, place, MARGIN.top, place, height - MARGIN.bottom);
      entries.unshift(element("span", {}, t("step {step}", { step: step.toLocaleString("en-US") })));
    }
    this.legend.replaceChildren(...entries);
  }
}

function stroke(context, points, x, y, color, { width = 1, alpha = 1, dashed = false }) {
  context.beginPath();
  let pen = false;
  for (const [step, value] of points) {
    const place = value === null ? NaN : y.map(value);
    if (!Number.isFinite(place)) {
      pen = false;
      continue;
    }
    if (pen) context.lineTo(x.map(step), place);
    else context.moveTo(x.map(step), place);
    pen = true;
  }
  context.strokeStyle = color;
  context.lineWidth = width;
  context.lineJoin = "round";
  context.globalAlpha = alpha;
  context.setLineDash(dashed ? [4, 3] : []);
  context.stroke();
  context.setLineDash([]);
  context.globalAlpha = 1;
}

function line(context, color, x1, y1, x2, y2) {
  context.strokeStyle = color;
  context.beginPath();
  context.moveTo(x1, y1);
  context.lineTo(x2, y2);
  context.stroke();
}

/** A small triangle that points at a place from above. */
function mark(context, x, y, color) {
  if (!Number.isFinite(y)) return;
  context.fillStyle = color;
  context.beginPath();
  context.moveTo(x, y);
  context.lineTo(x - 4, y - 6);
  context.lineTo(x + 4, y - 6);
  context.fill();
}

function dot(context, x, y, color) {
  if (!Number.isFinite(y)) return;
  context.fillStyle = color;
  context.beginPath();
  context.arc(x, y, 3, 0, 2 * Math.PI);
  context.fill();
}
