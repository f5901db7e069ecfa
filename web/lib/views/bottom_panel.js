/** The bottom panel: rollouts, curves and samples, large; where several nodes could be shown, the user chooses. */

import { CurvesPanel } from "../curves/curves_panel.js";
import { element, fillSelect, select } from "../elements/element.js";
import { Tab } from "../elements/tab.js";
import { ROLLOUT, TRAINER } from "../graph/nodes.js";
import { t } from "../language/words.js";
import { Inspector } from "../rollouts/inspector.js";
import { showRollouts } from "../rollouts/shown.js";
import { Gallery, TRIED } from "../samples/gallery.js";

const ROLLOUTS_TAB = "rollout-inspector";
const CURVES_TAB = "rollout-curves";
const SAMPLES_TAB = "rollout-samples";

export class BottomPanel {
  #chosen = { [ROLLOUT]: "", [TRAINER]: "" }; // which node is shown
  #run = ""; // whose samples are asked for

  /**
   * @param {object} app the frontend's
   * @param {{canvas: import("../graph/canvas.js").Canvas, sight: import("../graph/sight.js").Sight, memory: import("../trainings/memory.js").Memory,
   *   backend: import("../server/backend.js").Backend, reader: import("../rollouts/film_reader.js").FilmReader}} world
   * @param {() => void} refresh shows what is known now, soon
   */
  constructor(app, { canvas, sight, memory, backend, reader }, refresh) {
    Object.assign(this, { app, canvas, sight, memory, refresh });
    this.rollouts = new Tab(() => this.#ofNode(ROLLOUT, new Inspector(reader, { large: true })));
    this.curves = new Tab(() => this.#ofNode(TRAINER, new CurvesPanel(backend, (id) => canvas.titleOf(id))));
    this.samples = new Tab(() => slot(new Gallery(backend, () => canvas.workflowId)));
  }

  /** As the frontend wants them. */
  get tabs() {
    return [
      { id: ROLLOUTS_TAB, title: t("Rollouts"), type: "custom", render: (place) => this.#render(this.rollouts, place), destroy: () => this.rollouts.part.view.stop() },
      { id: CURVES_TAB, title: t("Training curves"), type: "custom", render: (place) => this.#render(this.curves, place) },
      { id: SAMPLES_TAB, title: t("Samples"), type: "custom", render: (place) => this.#renderSamples(place) },
    ];
  }

  /** Shows what is known now in the tab that is open. */
  show(isTraining) {
    const { rollouts, curves, samples } = this;
    if (rollouts.shown) this.#showRollouts(rollouts.part);
    if (curves.shown) curves.part.view.show(this.memory.of(this.#pick(curves.part.choice, TRAINER)));
    if (samples.shown && isTraining) samples.part.view.expect();
  }

  openRollouts(node) {
    this.#open(ROLLOUTS_TAB, ROLLOUT, node);
  }

  openCurves(node) {
    this.#open(CURVES_TAB, TRAINER, node);
  }

  /** Opens the samples of a run; without one those of what is on the canvas. */
  openSamples(run = "") {
    this.#run = run;
    this.samples.shown?.view.open(run);
    this.#showTab(SAMPLES_TAB);
  }

  /** Opens what the graph on the canvas drew when it ran last. */
  openTried() {
    this.openSamples(TRIED);
  }

  /** Draws a run's curves beside those of the run on the canvas, and of others that are drawn already. */
  compare(run) {
    this.#showTab(CURVES_TAB);
    return this.curves.part.view.comparison.add(run);
  }

  #open(tab, classId, node) {
    this.#chosen[classId] = this.canvas.idOf(node) ?? this.#chosen[classId];
    this.#showTab(tab);
    this.refresh();
  }

  #showTab(tab) {
    const { bottomPanel } = this.app.extensionManager;
    if (bottomPanel.activeBottomPanelTabId !== tab || !bottomPanel.bottomPanelVisible) bottomPanel.toggleBottomPanelTab(tab);
    this.sight.clear();
  }

  #render(tab, place) {
    tab.render(place);
    this.refresh();
  }

  #renderSamples(place) {
    this.#render(this.samples, place);
    this.samples.part.view.open(this.#run || this.memory.run || (this.canvas.tries ? TRIED : ""));
    this.#run = "";
  }

  #showRollouts({ view, choice }) {
    const id = this.#pick(choice, ROLLOUT);
    showRollouts(view, this.canvas.nodeAt(id), this.memory.of(id));
  }

  #ofNode(classId, view) {
    const choice = select(t("Which node"), [], "", (id) => ((this.#chosen[classId] = id), this.refresh()));
    return { choice, ...slot(view, choice) };
  }

  /** The node to show: the chosen one, or the first of which something is known. */
  #pick(choice, classId) {
    const ids = this.canvas.idsOf(classId), chosen = this.#chosen;
    if (!ids.includes(chosen[classId])) chosen[classId] = ids.find((id) => this.memory.of(id)) ?? ids[0] ?? "";
    fillSelect(choice, ids.map((id) => [id, `${this.canvas.titleOf(id)} (${id})`]), chosen[classId]);
    choice.hidden = ids.length < 2;
    return chosen[classId];
  }
}

const slot = (view, ...above) => ({ view, element: element("div.rollout-slot", {}, ...above, view.element) });
