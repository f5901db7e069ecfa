/** The loss at a glance, on the Optimizer Step node. */

import { element, emptyState, iconButton } from "../elements/element.js";
import { formatDuration, formatNumber } from "../language/amounts.js";
import { t } from "../language/words.js";
import { decimate, pathString, smooth } from "./curve.js";
import { extent, linear, padded } from "./scale.js";

const SIZE = [300, 60]; // of the drawing; it is stretched to the node's width
const SVG = "http://www.w3.org/2000/svg";

export class LossCard {
  constructor({ open }) {
    this.number = element("b.rollout-loss");
    this.facts = element("span.rollout-note");
    this.drawing = document.createElementNS(SVG, "svg");
    this.drawing.setAttribute("viewBox", `0 0 ${SIZE.join(" ")}`);
    this.drawing.setAttribute("preserveAspectRatio", "none");
    this.paths = ["rollout-raw", "rollout-smoothed"].map((name) => {
      const path = document.createElementNS(SVG, "path");
      path.setAttribute("class", name);
      return this.drawing.appendChild(path);
    });
    this.empty = emptyState(t("Run the workflow to see the loss here"));
    this.body = element(
      "div.rollout-loss-body", {},
      element("div.rollout-line", {}, element("label", {}, t("loss")), this.number, element("span.rollout-grow"), iconButton("chart-line", t("Open all curves"), open)),
      this.drawing, this.facts,
    );
    this.element = element("div.rollout-card", {}, this.empty, this.body);
    this.show(undefined);
  }

  /** @param {import("../trainings/recordings.js").Recording|undefined} recording */
  show(recording) {
    const metrics = recording?.metrics;
    const isEmpty = !metrics?.steps.length;
    this.empty.hidden = !isEmpty;
    this.body.hidden = isEmpty;
    if (isEmpty) return;
    const losses = metrics.columns.get("loss") ?? [];
    this.number.textContent = formatNumber(smooth(losses.slice(-200), 0.9).at(-1));
    this.#draw(metrics.steps, losses);
    this.facts.textContent = factsOf(recording).join(" · ");
  }

  #draw(steps, losses) {
    const range = [steps[0], Math.max(steps[0] + 1, steps.at(-1))];
    const smoothed = decimate(steps, smooth(losses, 0.9), range, SIZE[0]), raw = decimate(steps, losses, range, SIZE[0]);
    const heights = extent(smoothed.map(([, value]) => value)) ?? [0, 1];
    const x = linear(range, [1, SIZE[0] - 1]), y = linear(padded(heights, 0.25), [SIZE[1] - 1, 1]);
    [raw, smoothed].forEach((points, index) => {
      const places = points.map(([step, value]) => [x.map(step), value === null ? null : y.map(value)]);
      this.paths[index].setAttribute("d", pathString(places));
    });
  }
}

/** Step, speed and time left, as far as they are known. */
export function factsOf({ metrics, total, running, message }) {
  const done = metrics.lastStep + 1;
  const [step, steps] = [done, total].map((count) => count.toLocaleString("en-US"));
  const facts = [total ? t("step {step} of {steps}", { step, steps }) : t("step {step}", { step })];
  const pace = metrics.pace;
  if (pace) facts.push(pace >= 1 ? `${formatNumber(pace)} it/s` : `${formatNumber(1 / pace)} s/it`);
  if (running && total > done) facts.push(t("{time} left", { time: formatDuration(metrics.remaining(total)) }));
  else if (!running) facts.push(t(message || "finished"));
  return facts;
}
