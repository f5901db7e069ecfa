/** What the extension knows of every workflow's nodes: metrics and films, as the server's events bring them. */

import { Metrics } from "../curves/metrics.js";
import { runOf, thinned } from "../rollouts/film.js";

/** One training of one node. */
export class Recording {
  metrics = new Metrics();
  /** @type {import("../rollouts/film.js").Frames[]} by training step */
  films = [];
  /** The name of the run's folder, once it is known. */
  run = "";
  /** Training steps in all, once the server said so. */
  total = 0;
  running = false;
  /** What happened in words, if it ended early. */
  message = "";

  /** @param {import("../rollouts/film.js").Frames} frames */
  addFrames({ step, subfolder, image, data, job }) {
    this.run = runOf(subfolder) || this.run;
    const others = this.films.filter((film) => film.step !== step);
    this.films = thinned([...others, { step, subfolder, image, data, job }].sort((a, b) => a.step - b.step));
  }
}

/**
 * Recordings by workflow and node. A page may hold several workflows whose nodes have equal ids, so each job belongs
 * to a workflow: the one on the canvas when it began, until the server says better.
 */
export class Recordings extends EventTarget {
  /** @type {Map<string, Map<string, Recording>>} */
  #workflows = new Map();
  /** @type {Map<string, Recording>} of the running job */
  #job = new Map();
  /** @type {Map<string, Map<string, string[]>>} what nodes said, by workflow and node */
  #words = new Map();
  /** @type {Map<string, string[]>} of the running job */
  #said = new Map();
  /** @type {Map<string, string[]>} what its workflow's nodes said before */
  #before = new Map();
  /** @type {Set<string>|null} nodes that the running job takes as they were */
  #cached = null;
  /** @type {Map<string, number>} training steps of the running job, by node: they may be told before anything else */
  #totals = new Map();
  #jobId = null;
  #home = "";

  /** A job has begun. A server tells that again to a page that lost its connection: then nothing begins anew. */
  begin(jobId, workflowId) {
    if (jobId === this.#jobId) return false;
    this.end();
    this.#jobId = jobId;
    this.#home = workflowId;
    this.#job = new Map();
    this.#said = new Map();
    this.#cached = null;
    this.#before = new Map();
    this.#totals = new Map();
    return true;
  }

  /** The running job belongs to that workflow. */
  settle(jobId, workflowId) {
    if (jobId !== this.#jobId) return;
    for (const [node, recording] of this.#job) {
      if (this.#workflows.get(this.#home)?.get(node) === recording) this.#workflows.get(this.#home).delete(node);
      this.#keep(workflowId, node, recording);
    }
    this.#home = workflowId;
    this.#before = this.#words.get(workflowId) ?? new Map();
    this.#keepWords();
    this.#words.set(workflowId, this.#said);
    this.#changed();
  }

  /** What these nodes said is still so: they are not asked again. The server tells it once, as a job begins. */
  takeAsTheyWere(jobId, nodes) {
    if (jobId !== this.#jobId || this.#cached) return;
    this.#cached = new Set(nodes.map(String));
    this.#keepWords();
  }

  #keepWords() {
    for (const [node, lines] of this.#before) {
      if (this.#cached?.has(node) && !this.#said.has(node)) this.#said.set(node, lines);
    }
  }

  /** The lines that a node of a job has to say of what it found. */
  addWords(jobId, node, lines) {
    if (jobId !== this.#jobId) return;
    this.#said.set(String(node), lines);
    this.#changed(node);
  }

  /** What an earlier job's node said, for a page that was opened later. */
  restoreWords(workflowId, node, lines) {
    if (!this.#words.has(workflowId)) this.#words.set(workflowId, new Map());
    const known = this.#words.get(workflowId);
    if (!known.has(node)) known.set(node, lines);
    this.#changed(node);
  }

  /** @returns {string[]} */
  wordsOf(workflowId, node) {
    return this.#words.get(workflowId)?.get(String(node)) ?? [];
  }

  /** The running job is over. */
  end(message = "") {
    for (const recording of this.#job.values()) Object.assign(recording, { running: false, message });
    this.#changed();
  }

  /** What trains now, or did last: its node, its recording, and the workflow it belongs to; undefined before that. */
  get training() {
    const found = [...this.#job].find(([, { metrics }]) => metrics.steps.length);
    return found && { node: found[0], recording: found[1], home: this.#home, job: this.#jobId };
  }

  /** How far a run is, as this page sees it: steps that are done, and seconds that are left. */
  progressOf(run) {
    const found = this.training?.recording;
    return found?.run === run ? { done: found.metrics.lastStep + 1, left: found.metrics.remaining(found.total) } : { done: 0, left: null };
  }

  addRows(node, rows, now) {
    this.#running(node).metrics.add(rows, now);
    this.#changed(node);
  }

  addFrames(node, frames) {
    const recording = this.#running(node);
    recording.addFrames({ ...frames, job: this.#jobId ?? undefined });
    for (const other of this.#job.values()) other.run ||= recording.run;
    this.#changed(node);
  }

  setTotal(node, total) {
    this.#totals.set(node, total);
    const recording = this.#job.get(node);
    if (recording) recording.total = total;
  }

  /** A finished node told where its pictures are. */
  setRun(node, run) {
    const recording = this.#job.get(node);
    if (recording && run) recording.run = run;
  }

  /** Before any job is heard of, events belong to the workflow on the canvas: a job may have begun before this page. */
  adopt(workflowId) {
    if (this.#jobId === null && !this.#job.size) this.#home = workflowId;
  }

  /** What a page that was opened later found out about a node; what it heard itself meanwhile is newer. */
  restore(workflowId, node, found) {
    const known = this.of(workflowId, node);
    if (!known) this.#keep(workflowId, node, found);
    else if (!known.run || known.run === found.run) {
      for (const film of found.films) if (!known.films.some(({ step }) => step === film.step)) known.addFrames(film);
      known.run = found.run;
      known.total ||= found.total;
      if (found.metrics.lastStep >= known.metrics.lastStep) known.metrics = found.metrics;
    }
    this.#changed(node);
  }

  /** @returns {Recording|undefined} */
  of(workflowId, node) {
    return this.#workflows.get(workflowId)?.get(String(node));
  }

  #running(node) {
    if (!this.#job.has(node)) {
      const known = this.#jobId === null ? this.of(this.#home, node) : undefined;
      const recording = known ?? new Recording();
      recording.running = true;
      recording.total = this.#totals.get(node) ?? recording.total;
      recording.run ||= [...this.#job.values()].find(({ run }) => run)?.run ?? "";
      this.#job.set(node, recording);
      this.#keep(this.#home, node, recording);
    }
    return this.#job.get(node);
  }

  #keep(workflowId, node, recording) {
    if (!this.#workflows.has(workflowId)) this.#workflows.set(workflowId, new Map());
    this.#workflows.get(workflowId).set(String(node), recording);
  }

  #changed(node) {
    this.dispatchEvent(new CustomEvent("change", { detail: { node } }));
  }
}

/** The lines among what a node returned for the eye. */
export function linesOf(output) {
  const text = output?.text;
  const lines = Array.isArray(text) ? text : typeof text === "string" ? [text] : [];
  return lines.filter((line) => typeof line === "string" && line.trim()).flatMap((line) => line.split("\n"));
}
