/**
 * A job paints the nodes of its own workflow, and no others. The frontend finds nodes by their id alone, and two
 * workflows have the same ids: what a job says of its nodes is held back until the server told whose it is, and then
 * goes to the nodes on the canvas, or to none.
 *
 * It listens before the frontend does (capture), and changes what the events say rather than the frontend.
 */

const NOWHERE = "-1"; // an id that no node has
const MOST_WAITING = 2000;

/** The kinds of events that paint nodes, and how each is turned away from the canvas. */
const PAINTING = {
  progress_state: (detail) => {
    detail.nodes = Object.fromEntries(Object.entries(detail.nodes).map(([id, node]) => [away(id), { ...node, display_node_id: away(id) }]));
  },
  executed: (detail) => {
    detail.display_node = away(detail.node); // `node` stays: the frontend files the output with its own workflow by it
  },
  b_preview_with_metadata: (detail) => {
    detail.displayNodeId = away(detail.displayNodeId);
  },
};

const away = (id) => `${NOWHERE}:${id}`;

/**
 * @typedef {{home: string, nodes: string[], trainers: Set<string>, ours: Set<string>}} Job ``home`` is the id of its
 *   workflow, "" if it has none; ``nodes`` are the ids of all its nodes, ``ours`` those of our pack, ``trainers`` those
 *   that train
 */

export class Gate {
  /** @type {{id: string, job?: Job, waiting: [string, object][], held: object[], counted: Set<string>}|null} the newest job */
  #newest = null;

  /**
   * @param {EventTarget & {dispatchCustomEvent: (type: string, detail: object) => void}} api the frontend's
   * @param {{lookUp: (jobId: string) => Promise<Job|undefined>, onCanvas: () => string, settled: (jobId: string, home: string) => void,
   *   draws: (nodeId: string) => boolean}} world ``draws``: whether a node on the canvas shows its pictures by itself
   */
  constructor(api, { lookUp, onCanvas, settled, draws }) {
    Object.assign(this, { api, lookUp, onCanvas, settled, draws });
  }

  listen() {
    const early = { capture: true };
    this.api.addEventListener("execution_start", ({ detail }) => this.#begin(detail.prompt_id), early);
    for (const type of Object.keys(PAINTING)) this.api.addEventListener(type, (event) => this.#pass(type, event), early);
    for (const type of ["execution_success", "execution_error", "execution_interrupted"]) {
      this.api.addEventListener(type, ({ detail }) => this.#end(detail.prompt_id), early);
    }
  }

  /** Whether the newest job is this one, and of the workflow on the canvas. */
  isOfCanvas(id) {
    return this.#entry(id)?.job?.home === this.onCanvas();
  }

  async #begin(id) {
    if (this.#newest?.id === id) return; // told again after a lost connection
    const entry = (this.#newest = { id, waiting: [], held: [], counted: new Set() });
    const shown = this.onCanvas();
    const found = await this.lookUp(id).catch(() => undefined);
    entry.job = found ?? { home: shown, nodes: [], trainers: new Set(), ours: new Set() }; // a server that does not say tells only us
    this.settled(id, entry.job.home);
    for (const [type, detail] of entry.waiting.splice(0)) this.api.dispatchCustomEvent(type, detail);
  }

  /** What a job that is over still has waiting: its pictures and words are shown, its progress is no longer true. */
  #end(id) {
    const entry = this.#entry(id);
    if (!entry) return;
    entry.waiting = entry.waiting.filter(([type]) => type === "executed");
    this.#release(entry, Infinity);
  }

  #entry(id) {
    return this.#newest?.id === id ? this.#newest : null;
  }

  #pass(type, event) {
    const { detail } = event;
    const entry = this.#entry(detail.prompt_id ?? detail.jobId);
    if (!entry) return;
    if (!entry.job) {
      event.stopImmediatePropagation();
      if (entry.waiting.length < MOST_WAITING) entry.waiting.push([type, detail]);
      return;
    }
    if (type === "executed" && this.#holds(entry, detail)) return event.stopImmediatePropagation();
    if (type === "progress_state") {
      detail.nodes = focused(detail.nodes, entry.job.trainers);
      this.#release(entry, Math.floor(shareOf(detail.nodes, entry.job.trainers) * entry.job.nodes.length));
    }
    const isDrawn = type === "b_preview_with_metadata" && this.draws(String(detail.displayNodeId));
    if (isDrawn || entry.job.home !== this.onCanvas()) PAINTING[type](detail);
  }

  /**
   * The frontend counts the nodes that are done, and most of a training's are done before it begins. So that its total
   * is true, the words of our nodes, which it does not draw, are handed on as the training advances.
   */
  #holds({ job, held, counted }, detail) {
    const id = String(detail.node);
    const isLate = job.trainers.size && job.ours.has(id) && !detail.output?.images?.length && !counted.has(id);
    if (isLate) held.push(detail);
    else counted.add(id);
    return isLate;
  }

  /** Lets the frontend count up to so many nodes as done: those that told something, then the others. */
  #release(entry, done) {
    const { job, held, counted } = entry;
    while (held.length && counted.size < done) {
      const detail = held.shift();
      counted.add(String(detail.node));
      this.api.dispatchCustomEvent("executed", detail);
    }
    const others = job ? job.nodes.filter((id) => !counted.has(id)).slice(0, Math.max(0, done - counted.size)) : [];
    if (!others.length || done === Infinity) return;
    for (const id of others) counted.add(id);
    this.api.dispatchCustomEvent("execution_cached", { prompt_id: entry.id, nodes: others, timestamp: Date.now() });
  }
}

/** While a trainer trains, the nodes that it pulls do no work of their own, and are not the "current node". */
export function focused(nodes, trainers) {
  const trainer = Object.entries(nodes).find(([id, node]) => trainers.has(id) && node.state === "running" && node.value > 0);
  if (!trainer) return nodes;
  const [trainerId, { value, max }] = trainer;
  const isPulled = (id, node) => id !== trainerId && node.state === "running" && (node.value === 0 || (node.value === value && node.max === max));
  return Object.fromEntries(Object.entries(nodes).map(([id, node]) => [id, isPulled(id, node) ? { ...node, state: "finished" } : node]));
}

/** How much of its training a job has done, of all its trainers, in 0..1. */
export function shareOf(nodes, trainers) {
  const shares = [...trainers].map((id) => (nodes[id]?.max > 0 ? nodes[id].value / nodes[id].max : 0));
  return shares.length ? shares.reduce((sum, share) => sum + share, 0) / shares.length : 0;
}
