/** All curves of a run, large: losses, learning rate, rollouts, drift, speed, and who takes the time. */

import { Chart, View } from "./chart.js";
import { smooth } from "./curve.js";
import { element, emptyState, fillSelect, iconButton, select } from "./element.js";
import { factsOf } from "./loss_card.js";
import { Metrics, shares } from "./metrics.js";
import { t } from "./words.js";

/** Title, columns (null: the loss and its parts), and whether a logarithmic axis makes sense. */
const CHARTS = [
  ["loss", null, true],
  ["drift", ["drift"], true],
  ["rollouts", ["rollout_probability", "rollout_share"], false],
  ["rollout length", ["rollout_length"], false],
  ["gradient norm", ["gradient_norm"], true],
  ["learning rate", ["learning_rate"], true],
  ["steps per second", ["steps_per_second"], false],
];
const COLORS = 6;
const SMOOTHINGS = [["0", "as measured"], ["0.8", "a little"], ["0.95", "smooth"], ["0.99", "very smooth"]];

export class CurvesPanel {
  #recording;
  #smoothing = 0.8;
  #log = false;
  #compared = "";
  #other = null; // the metrics of the run to compare with

  /** @param {import("./backend.js").Backend} backend */
  constructor(backend, titleOf) {
    this.backend = backend;
    this.titleOf = titleOf;
    this.view = new View();
    this.charts = CHARTS.map(([title]) => new Chart(t(title), this.view));
    this.bar = element("div.rollout-shares");
    this.names = element("div.rollout-legend");
    this.facts = element("span.rollout-note");
    this.compare = select(t("Compare with an earlier run"), [["", t("compare with …")]], "", (run) => this.#compareWith(run));
    this.compare.addEventListener("pointerdown", () => this.#listRuns());
    this.compare.addEventListener("focus", () => this.#listRuns());
    const log = element("input", { type: "checkbox", onchange: () => ((this.#log = log.checked), this.#draw()) });
    this.toolbar = element(
      "div.rollout-line.rollout-toolbar", {}, this.facts, element("span.rollout-grow"),
      element("label", {}, `${t("smoothing")} `, select(t("Smoothing"), SMOOTHINGS.map(([value, name]) => [value, t(name)]), "0.8", (value) => ((this.#smoothing = Number(value)), this.#draw()))),
      element("label", { title: t("Shows late, small changes") }, log, ` ${t("log scale")}`), this.compare,
      iconButton("arrows-h", t("Show all steps again (double-click does it, too)"), () => this.view.set(null)),
    );
    this.empty = emptyState(t("Run the workflow to see curves here"), t("They are drawn while the model trains."));
    const time = element("figure.rollout-chart.rollout-time", {}, element("figcaption", {}, element("b", {}, t("share of time"))), this.bar, this.names);
    this.body = element("div.rollout-charts", {}, ...this.charts.map((chart) => chart.element), time);
    this.element = element("div.rollout-panel", {}, this.toolbar, this.empty, this.body);
    this.show(undefined);
  }

  /** @param {import("./recordings.js").Recording|undefined} recording */
  show(recording) {
    this.#recording = recording;
    const isEmpty = !recording?.metrics.steps.length;
    this.empty.hidden = !isEmpty;
    this.toolbar.hidden = this.body.hidden = isEmpty;
    if (!isEmpty) this.#draw();
  }

  destroy() {
    for (const chart of this.charts) chart.destroy();
  }

  #draw() {
    const { metrics } = this.#recording;
    this.facts.textContent = [this.#recording.run, ...factsOf(this.#recording)].filter(Boolean).join(" · ");
    CHARTS.forEach(([, columns, canBeLog], index) => {
      const chart = this.charts[index], names = columns ?? metrics.losses;
      const lines = names.flatMap((name, place) => this.#lines(name, place, columns === null));
      if (names.length === 1 && lines.length) lines[0].name = ""; // the chart's title says it
      chart.element.hidden = !lines.length;
      chart.show(lines, { log: this.#log && canBeLog });
    });
    this.#drawShares();
  }

  #lines(name, place, isLoss) {
    const { metrics } = this.#recording;
    const color = `--rollout-color-${(place % COLORS) + 1}`;
    const lines = [];
    const jagged = name !== "learning_rate" && name !== "rollout_probability";
    for (const [source, dashed] of [[metrics, false], [this.#other, true]]) {
      const values = source?.columns.get(name);
      if (!values) continue;
      const smoothed = jagged ? smooth(values, this.#smoothing) : values;
      const shown = name.replaceAll("_", " ");
      lines.push({
        name: dashed ? "" : shown, title: dashed ? `${shown} of ${this.#compared}` : shown, xs: source.steps, ys: smoothed, color, dashed,
        raw: jagged && this.#smoothing && !dashed && !(isLoss && place) ? values : undefined,
        marks: name === "loss" && !dashed ? marked(source) : undefined,
      });
    }
    return lines;
  }

  #drawShares() {
    const parts = shares(this.#recording.metrics.seconds, this.titleOf);
    const color = (place, name) => (name === "other" ? "var(--rollout-color-rest)" : `var(--rollout-color-${(place % COLORS) + 1})`);
    const percent = (share) => `${Math.round(share * 100)}%`;
    this.bar.replaceChildren(...parts.map(({ name, share }, place) =>
      element("span", { style: `flex-grow: ${share}; background: ${color(place, name)}`, title: `${name} ${percent(share)}` })));
    this.names.replaceChildren(...parts.map(({ name, share }, place) =>
      element("span", {}, element("i.rollout-swatch", { style: `--swatch: ${color(place, name)}` }), `${name} `, element("b", {}, percent(share)))));
  }

  async #listRuns() {
    let runs;
    try {
      runs = await this.backend.runs();
    } catch {
      runs = null;
    }
    if (runs === null) {
      fillSelect(this.compare, [["", "no list of runs on this server"]], "");
      return;
    }
    const earlier = runs.filter(({ name }) => name !== this.#recording?.run).map(({ name }) => [name, name]);
    fillSelect(this.compare, [["", earlier.length ? t("compare with …") : t("no earlier runs")], ...earlier], this.#compared);
  }

  async #compareWith(run) {
    this.#compared = run;
    this.#other = null;
    if (run) {
      const other = new Metrics();
      try {
        other.add(await this.backend.rows(run));
      } catch {
        this.#compared = ""; // it was deleted meanwhile
      }
      if (this.#compared === run) this.#other = other;
    }
    if (this.#recording) this.#draw();
  }
}

/** @returns {[number, number][]} the steps of spikes with their losses as measured */
function marked(metrics) {
  return metrics.spikes.map((step) => [step, metrics.at("loss", step)]);
}
