/** What the server tells while a workflow runs: the recordings keep it, and the page does what follows from it. */

import { TRAINER, isOurs } from "../graph/nodes.js";
import { giveReason } from "../language/faults.js";
import { runOf } from "../rollouts/film.js";
import { Gate } from "../server/gate.js";
import { linesOf } from "./recordings.js";

export class Events {
  #runs = new Map(); // by trainer, of what it has just shown
  #succeeded = ""; // the newest job that ended well

  /**
   * @param {EventTarget} api the frontend's
   * @param {{canvas: import("../graph/canvas.js").Canvas, recordings: import("./recordings.js").Recordings,
   *   memory: import("./memory.js").Memory, backend: import("../server/backend.js").Backend}} world
   * @param {{draws: (nodeId: string) => boolean, trains: () => void, queueChanged: () => void, grown: () => void,
   *   resumed: (text: string) => void, ended: (kind: string, why?: string) => void, tried: () => void}} page ``draws``:
   *   whether a node on the canvas shows its pictures by itself; ``grown``: nodes may be higher than before; ``tried``:
   *   the graph on the canvas drew what was learnt
   */
  constructor(api, { canvas, recordings, memory, backend }, page) {
    Object.assign(this, { api, canvas, recordings, memory, page });
    this.gate = new Gate(api, {
      lookUp: (jobId) => backend.job(jobId),
      onCanvas: () => canvas.workflowId,
      settled: (jobId, home) => recordings.settle(jobId, home),
      draws: page.draws,
      hears: (detail) => this.#hear(detail),
    });
  }

  listen() {
    this.gate.listen();
    this.#listenToJobs();
    this.#listenToTraining();
    this.#listenToEnds();
  }

  #on(type, action) {
    this.api.addEventListener(type, ({ detail }) => action(detail));
  }

  /** What a node gave, before the frontend hears of it. */
  #hear({ prompt_id: job, node, output }) {
    this.recordings.addWords(job, node, linesOf(output));
    const isTrainer = output?.images?.some(({ filename }) => filename === "loss.png");
    if (!isTrainer) return;
    this.#runs.set(node, runOf(output.images[0].subfolder));
    output.images = []; // the curve is drawn on the node, and better; the samples are on the node that makes them
  }

  #listenToJobs() {
    const { recordings, memory, page } = this;
    this.#on("status", page.queueChanged);
    this.#on("execution_start", ({ prompt_id: job }) => recordings.begin(job, ""));
    this.#on("execution_cached", ({ prompt_id: job, isCounted, taken, nodes }) => isCounted || recordings.takeAsTheyWere(job, taken ?? nodes ?? []));
    this.#on("progress_state", ({ nodes }) => {
      for (const [node, { max }] of Object.entries(nodes)) recordings.setTotal(node, max);
    });
    for (const type of ["executed", "b_preview_with_metadata"]) this.#on(type, page.grown); // a picture makes a node higher
    this.#on("executed", ({ node, output }) => {
      const run = this.#runs.get(node) ?? runOf(output?.images?.[0]?.subfolder);
      this.#runs.delete(node);
      if (!run) return;
      recordings.setRun(node, run);
      memory.keep(node);
    });
  }

  #listenToTraining() {
    const { canvas, recordings, memory, page } = this;
    this.#on("rollout.metrics", ({ node, rows }) => {
      recordings.addRows(node, rows, performance.now() / 1000);
      page.trains();
    });
    this.#on("rollout.frames", async (frames) => {
      recordings.addFrames(frames.node, frames);
      if (frames.step > 0 && memory.of(frames.node)?.films.length === 1) await memory.joinEarlierFilms(frames.node);
      for (const node of [frames.node, ...canvas.idsOf(TRAINER)]) memory.keep(node);
    });
    this.#on("rollout.resumed", ({ text }) => page.resumed(text));
  }

  #listenToEnds() {
    const { canvas, recordings, memory, page, gate } = this;
    this.#on("execution_success", ({ prompt_id: job }) => {
      this.#succeeded = job;
      page.ended("finished");
    });
    this.#on("executing", async (node) => {
      const isFiled = node === null; // now the server knows what came of the job
      if (!isFiled || !(await gate.isOfCanvas(this.#succeeded))) return;
      await memory.restoreWords(); // nodes whose results were there from another workflow have told this page nothing
      if (canvas.tries) page.tried();
    });
    this.#on("execution_interrupted", () => page.ended("stopped"));
    this.#on("execution_error", ({ prompt_id: job, node_id: node, node_type: classId, exception_message: message }) => {
      const why = message.trim();
      if (why && isOurs(classId)) {
        recordings.addWords(job, node, [`✗ ${why}`]);
        gate.isOfCanvas(job).then((isHere) => isHere && giveReason(document, why));
      }
      page.ended("failed", why);
    });
  }
}
