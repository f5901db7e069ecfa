/** What the page knows of the nodes on the canvas; what a reload forgot, it has again from the server. */

import { ROLLOUT, TRAINER } from "../graph/nodes.js";
import { framesAmong } from "../rollouts/film.js";
import { Recording, linesOf } from "./recordings.js";
import { recall, remember } from "./remembered.js";

export class Memory {
  /**
   * @param {{canvas: import("../graph/canvas.js").Canvas, recordings: import("./recordings.js").Recordings,
   *   backend: import("../server/backend.js").Backend, storage: Storage}} world
   */
  constructor({ canvas, recordings, backend, storage }) {
    Object.assign(this, { canvas, recordings, backend, storage });
  }

  /** @returns {import("./recordings.js").Recording|undefined} of a node on the canvas */
  of(node) {
    return this.recordings.of(this.canvas.workflowId, node);
  }

  /** What a node on the canvas said. */
  wordsOf(node) {
    return this.recordings.wordsOf(this.canvas.workflowId, node);
  }

  /** The run that the trainer on the canvas made last; empty if there is none. */
  get run() {
    return this.canvas.idsOf(TRAINER).map((id) => this.of(id)?.run).find(Boolean) ?? "";
  }

  /** Keeps over a reload which run a node's pictures came from. */
  keep(node) {
    const recording = this.of(node);
    if (recording?.run) remember(this.storage, this.canvas.workflowId, node, recording);
  }

  /** Brings back what a reload forgot: from the run that this page saw last, or that is running now. */
  async restore() {
    const id = this.canvas.workflowId;
    this.recordings.adopt(id);
    await this.restoreWords();
    const known = recall(this.storage, id);
    const running = Object.keys(known).length ? "" : await this.#runningRun(id);
    for (const [node, classId] of this.#recorded()) {
      const told = known[node] ?? { run: running };
      if (!told.run || this.of(node)?.metrics.steps.length) continue;
      const found = await this.#read(node, classId, told).catch(() => null); // the run may be gone
      if (found) this.recordings.restore(id, node, found);
    }
  }

  /** The nodes on the canvas have made this run: all that is kept of it is theirs. */
  async restoreRun(told) {
    for (const [node, classId] of this.#recorded()) {
      this.recordings.restore(this.canvas.workflowId, node, await this.#read(node, classId, told));
      this.keep(node);
    }
  }

  /** What a run recorded before this page heard of it, or before it was resumed, comes before what is heard now. */
  async joinEarlierFilms(node) {
    const { run } = this.of(node);
    const films = await this.#filmsOf(run, node).catch(() => null);
    if (films) this.recordings.restore(this.canvas.workflowId, node, Object.assign(new Recording(), { run, films }));
  }

  /** The nodes that are recorded: their ids and classes. */
  #recorded() {
    return this.canvas.nodes().map(([id, { comfyClass }]) => [id, comfyClass]).filter(([, classId]) => [ROLLOUT, TRAINER].includes(classId));
  }

  async #read(node, classId, told) {
    const found = Object.assign(new Recording(), told);
    if (classId === TRAINER) found.metrics.add(await this.backend.rows(found.run));
    else found.films = (await this.#filmsOf(found.run, node)) ?? found.films; // what this page remembers may be thinned out
    return found;
  }

  /** The films of a node that its run keeps; null where the server cannot list them. */
  async #filmsOf(run, node) {
    const files = await this.backend.files(run);
    return files && framesAmong(files, node);
  }

  /** Brings back what the nodes said in the newest job of this workflow. */
  async restoreWords() {
    const id = this.canvas.workflowId;
    const { outputs = {} } = (await this.backend.newestJob(id).catch(() => null)) ?? {};
    for (const [node, output] of Object.entries(outputs)) this.recordings.restoreWords(id, node, linesOf(output));
  }

  /** The run that was started from this workflow and is still going on. */
  async #runningRun(id) {
    const run = (await this.backend.runs().catch(() => null))?.find(({ status }) => status === "running")?.name;
    if (!run) return "";
    const workflow = await this.backend.workflow(run).catch(() => null);
    return workflow?.id === id ? run : "";
  }
}
