/** All curves of a run, large: losses, learning rate, rollouts, drift, speed, and who takes the time. */

import { element, emptyState, iconButton, select } from "../elements/element.js";
import { t } from "../language/words.js";
import { Chart, View } from "./chart.js";
import { Comparison } from "./comparison.js";
import { smooth } from "./curve.js";
import { factsOf } from "./loss_card.js";
import { shares } from "./metrics.js";

/** Title, numbers (null: the loss and its parts), and whether a logarithmic axis makes sense. */
const CHARTS = [
  ["loss", null, true],
  ["validation loss", ["validation_loss"], true],
  ["drift", ["drift"], true],
  ["rollouts", ["rollout_probability", "rollout_share"], false],
  ["rollout length", ["rollout_length"], false],
  ["gradient norm", ["gradient_norm"], true],
  ["learning rate", ["learning_rate"], true],
  ["steps per second", ["steps_per_second"], false],
  ["memory (MiB)", ["memory"], false],
  ["GPU memory (MiB)", ["gpu_memory"], false],
  ["GPU use (%)", ["gpu_use"], false],
  ["GPU temperature (°C)", ["gpu_temperature"], false],
];
const AS_IT_IS = new Set(["learning_rate", "rollout_probability", "memory", "gpu_memory"]); // smoothing would lie
const COLORS = 6;
const SMOOTHINGS = [["0", "as measured"], ["0.8", "a little"], ["0.95", "smooth"], ["0.99", "very smooth"]];

export class CurvesPanel {
  #recording;
  #smoothing = 0.8;
  #log = false;

  /** @param {import("../server/backend.js").Backend} backend */
  constructor(backend, titleOf) {
    this.backend = backend;
    this.titleOf = titleOf;
    this.view = new View();
    this.charts = CHARTS.map(([title]) => new Chart(t(title), this.view));
    this.bar = element("div.rollout-shares");
    this.names = element("div.rollout-legend");
    this.facts = element("span.rollout-note");
    this.comparison = new Comparison(backend, () => this.show(this.#recording));
    const log = element("input", { type: "checkbox", onchange: () => ((this.#log = log.checked), this.#draw()) });
    this.toolbar = element(
      "div.rollout-line.rollout-toolbar", {}, this.facts, element("span.rollout-grow"),
      element("label", {}, `${t("smoothing")} `, select(t("Smoothing"), SMOOTHINGS.map(([value, name]) => [value, t(name)]), "0.8", (value) => ((this.#smoothing = Number(value)), this.#draw()))),
      element("label", { title: t("Shows late, small changes") }, log, ` ${t("log scale")}`), this.comparison.element,
      iconButton("arrows-h", t("Show all steps again (double-click does it, too)"), () => this.view.set(null)),
    );
    this.empty = emptyState(t("Run the workflow to see curves here"), t("They are drawn while the model trains."));
    const time = element("figure.rollout-chart.rollout-time", {}, element("figcaption", {}, element("b", {}, t("share of time"))), this.bar, this.names);
    this.body = element("div.rollout-charts", { tabIndex: 0, role: "region", "aria-label": t("Training curves") }, ...this.charts.map((chart) => chart.element), time);
    this.element = element("div.rollout-panel", {}, this.toolbar, this.empty, this.body);
    this.show(undefined);
  }

  /** @param {import("../trainings/recordings.js").Recording|undefined} recording */
  show(recording) {
    this.#recording = recording;
    this.comparison.own = recording?.run ?? "";
    const isEmpty = !recording?.metrics.steps.length && !this.comparison.others.length;
    this.empty.hidden = !isEmpty;
    this.toolbar.hidden = this.body.hidden = isEmpty;
    if (!isEmpty) this.#draw();
  }

  /** All runs to draw: [run, metrics], the one on the canvas first. */
  get #runs() {
    const own = this.#recording?.metrics.steps.length ? [[this.#recording.run ?? "", this.#recording.metrics]] : [];
    return [...own, ...this.comparison.others];
  }

  #draw() {
    const runs = this.#runs, recording = this.#recording;
    this.facts.textContent = recording ? [recording.run, ...factsOf(recording)].filter(Boolean).join(" · ") : "";
    CHARTS.forEach(([, columns, canBeLog], index) => {
      const chart = this.charts[index];
      const lines = runs.length > 1 ? this.#linesOfRuns(runs, columns ?? ["loss"], columns === null) : this.#linesOfOne(runs[0], columns);
      chart.element.hidden = !lines.length;
      chart.show(lines, { log: this.#log && canBeLog });
    });
    this.#drawShares();
  }

  /** Every number of the only run has a colour. */
  #linesOfOne([, metrics], columns) {
    const names = columns ?? metrics.losses;
    const lines = names.flatMap((name, place) => {
      const withRaw = !(columns === null && place); // of the loss itself, not of its parts
      return this.#line(metrics, name, { name: told(name), title: told(name), color: colour(place), withRaw });
    });
    if (names.length === 1 && lines.length) lines[0].name = ""; // the chart's title says it
    return lines;
  }

  /** Every run has a colour; the legend of the first chart says which, and what its settings are. */
  #linesOfRuns(runs, names, isNamed) {
    return runs.flatMap(([run, metrics], place) => names.flatMap((name, part) => {
      const { short, full } = this.comparison.labelOf(run);
      const title = `${told(name)}: ${full}`, shown = isNamed && !part ? [run, short].filter(Boolean).join(": ") : part ? told(name) : "";
      return this.#line(metrics, name, { name: shown, title, color: colour(place), dashed: part > 0 });
    }));
  }

  #line(metrics, name, { withRaw = false, ...look }) {
    const found = metrics.line(name);
    if (!found) return [];
    const isJagged = !AS_IT_IS.has(name);
    const ys = isJagged ? smooth(found.ys, this.#smoothing) : found.ys;
    const marks = withRaw && name === "loss" ? marked(metrics) : undefined;
    return [{ ...look, xs: found.xs, ys, marks, raw: withRaw && isJagged && this.#smoothing ? found.ys : undefined }];
  }

  #drawShares() {
    const parts = this.#recording ? shares(this.#recording.metrics.seconds, this.titleOf) : [];
    const color = (place, name) => (name === "other" ? "var(--rollout-color-rest)" : `var(--rollout-color-${(place % COLORS) + 1})`);
    const percent = (share) => `${Math.round(share * 100)}%`;
    this.bar.replaceChildren(...parts.map(({ name, share }, place) =>
      element("span", { style: `flex-grow: ${share}; background: ${color(place, name)}`, title: `${t(name)} ${percent(share)}` })));
    this.names.replaceChildren(...parts.map(({ name, share }, place) =>
      element("span", {}, element("i.rollout-swatch", { style: `--swatch: ${color(place, name)}` }), `${t(name)} `, element("b", {}, percent(share)))));
  }
}

/** @returns {[number, number][]} the steps of spikes with their losses as measured */
function marked(metrics) {
  return metrics.spikes.map((step) => [step, metrics.at("loss", step)]);
}

const told = (name) => name.replaceAll("_", " ");
const colour = (place) => `--rollout-color-${(place % COLORS) + 1}`;
