/** What is on our nodes: a small inspector on Rollout, the loss on Optimizer Step, and what any of them found. */

import { LossCard } from "../curves/loss_card.js";
import { ROLLOUT, TRAINER, isOurs } from "../graph/nodes.js";
import { addPanel, whenChanged, whenRemoved, widgetOf } from "../graph/widgets.js";
import { Inspector } from "../rollouts/inspector.js";
import { showRollouts } from "../rollouts/shown.js";
import { Found } from "./found.js";

const INSPECTOR_HEIGHT = 210, LOSS_HEIGHT = 220; // pixels

export class NodeViews {
  #views = new Map(); // by node: an inspector or a loss card
  #founds = new Map(); // by node: its words

  /**
   * @param {{canvas: import("../graph/canvas.js").Canvas, sight: import("../graph/sight.js").Sight, memory: import("../trainings/memory.js").Memory,
   *   reader: import("../rollouts/film_reader.js").FilmReader}} world
   * @param {import("./bottom_panel.js").BottomPanel} panel shows the same large
   * @param {() => void} refresh shows what is known now, soon
   */
  constructor({ canvas, sight, memory, reader }, panel, refresh) {
    Object.assign(this, { canvas, sight, memory, reader, panel, refresh });
  }

  /** A node is made. */
  add(node) {
    if (node.comfyClass === ROLLOUT) this.#addInspector(node);
    if (node.comfyClass === TRAINER) this.#add(node, "rollout_loss", new LossCard({ open: () => this.panel.openCurves(node) }), LOSS_HEIGHT);
    if (this.#views.has(node)) this.refresh();
  }

  /** Whether a node on the canvas shows its pictures by itself. */
  draws(id) {
    return this.#views.get(this.canvas.nodeAt(id)) instanceof Inspector;
  }

  /** Shows what is known now. */
  show() {
    for (const [id, node] of this.canvas.nodes()) {
      const view = this.#views.get(node), recording = this.memory.of(id);
      if (view instanceof Inspector) showRollouts(view, node, recording);
      else view?.show(recording);
      if (isOurs(node.comfyClass)) this.#showFound(node, this.memory.wordsOf(id));
    }
  }

  #addInspector(node) {
    this.#add(node, "rollout_inspector", new Inspector(this.reader, { open: () => this.panel.openRollouts(node) }), INSPECTOR_HEIGHT);
    const offset = widgetOf(node, "max_step_offset");
    if (offset) whenChanged(offset, this.refresh);
  }

  #add(node, name, view, height) {
    addPanel(node, name, view.element, { getMinHeight: () => height });
    this.#views.set(node, view);
    whenRemoved(node, () => {
      view.stop?.();
      this.#views.delete(node);
    });
  }

  /** Writes what a node found on the node; the place for it is made when there is something to say. */
  #showFound(node, lines) {
    if (!lines.length && !this.#founds.has(node)) return;
    if (!this.#founds.has(node)) this.#addFound(node);
    if (!this.#founds.get(node).show(lines)) return;
    const needed = node.computeSize();
    if (node.size[1] < needed[1]) node.setSize([node.size[0], needed[1]]);
    this.sight.standApart();
  }

  #addFound(node) {
    const found = new Found(), height = () => found.height;
    addPanel(node, "rollout_found", found.element, { getMinHeight: height, getMaxHeight: height });
    this.#founds.set(node, found);
    whenRemoved(node, () => this.#founds.delete(node));
  }
}
