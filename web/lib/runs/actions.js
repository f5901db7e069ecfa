/** What can be done with a run: have it on the canvas, go on with it, try what it learnt. */

import { newId } from "../graph/canvas.js";
import { TRAINER } from "../graph/nodes.js";
import { arrange, tryIt } from "../graph/try_it.js";
import { widgetOf } from "../graph/widgets.js";
import { t } from "../language/words.js";
import { STATUS } from "./run_facts.js";

export class RunActions {
  #hasWatched = false;

  /**
   * @param {{canvas: import("../graph/canvas.js").Canvas, sight: import("../graph/sight.js").Sight, memory: import("../trainings/memory.js").Memory,
   *   backend: import("../server/backend.js").Backend, loaded: (run: string) => void, tell: (severity: string, text: string, summary?: string) => void}} world
   *   ``loaded``: a run that is over is on the canvas
   */
  constructor({ canvas, sight, memory, backend, loaded, tell }) {
    Object.assign(this, { canvas, sight, memory, backend, loaded, tell });
  }

  /** Puts a run's workflow on the canvas with all that is kept of the run: curves, rollouts, samples. */
  async load(run) {
    const [workflow, facts] = await Promise.all([this.backend.workflow(run), this.backend.run(run).catch(() => null)]);
    const isOver = facts && facts.status !== "running";
    const id = isOver ? newId() : workflow.id; // one that goes on is heard of under its own id
    await this.canvas.load({ ...workflow, id }, run);
    this.sight.clear();
    if (!isOver) return;
    await this.memory.restoreRun({ run, total: facts.steps ?? 0, message: STATUS[facts.status] ?? "" });
    this.loaded(run);
  }

  /** Puts a run's workflow on the canvas, set to go on with it, and queues it if there are steps left. */
  async resume({ name: run, node, steps, steps_done: done = 0 }) {
    await this.load(run);
    const trainer = this.canvas.nodeAt(node ?? this.canvas.idsOf(TRAINER)[0]);
    const widget = widgetOf(trainer, "resume");
    if (!widget) throw new Error(t("The workflow of {run} has no Optimizer Step that could go on", { run }));
    widget.value = run;
    if (done < steps) await this.canvas.queue();
    else this.tell("info", t("{run} has done all its {steps} steps: set steps of {title} to more, then press Run.", { run, steps, title: trainer.title }));
  }

  /** Puts a graph on the canvas that draws without and with what a run learnt. */
  async tryIt(run, path = "") {
    const prompt = await this.backend.viewJson({ filename: "prompt.json", subfolder: `rollout/${run}` });
    const graph = tryIt(prompt, path || `rollout/${run}`, run);
    if (!graph) throw new Error(t("This run has no Sample Prompts or Sample Images to try it with"));
    await this.canvas.loadPrompt(graph, t("Try {run}", { run }));
    arrange(this.canvas.root, (name) => globalThis.LiteGraph.createNode(name));
    this.sight.clear();
    this.canvas.tries = run;
    this.sight.lookAtCorner(this.canvas.root);
    const both = Object.keys(graph).length > 2; // of a model that was trained whole there is no "without"
    this.tell("info", both ? t("Press Run: the same prompts from the same noise, without and with what was learnt.") : t("Press Run: images of what was learnt."), t("Try it"));
  }

  /** A page that is opened while something runs shows what runs, once: a training that was started elsewhere is watched. */
  async watch() {
    const isFirst = !this.#hasWatched;
    this.#hasWatched = true;
    if (!isFirst || !this.canvas.isEmpty) return;
    const workflow = await this.backend.runningWorkflow().catch(() => null);
    if (!workflow || !this.canvas.isEmpty) return;
    await this.canvas.load(workflow, t("running"));
    document.activeElement?.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape", bubbles: true })); // the templates
  }
}
