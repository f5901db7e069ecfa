/**
 * A job paints the nodes of its own workflow, and no others. The frontend finds nodes by their id alone, and two
 * workflows have the same ids: what a job says of its nodes is held back until the server told whose it is, and then
 * goes to the nodes on the canvas, or to none.
 *
 * It hears of events before the frontend does, and changes what they say rather than the frontend.
 */

const NOWHERE = "-1"; // an id that no node has
const MOST_WAITING = 2000;
const ENDS = new Set(["execution_success", "execution_error", "execution_interrupted"]);

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
  /** @type {{id: string, job?: Job, waiting: [string, object][], held: object[], counted: Set<string>, cached: string[],
   *   known?: Promise<Job>}|null} the newest job */
  #newest = null;

  /**
   * @param {EventTarget & {dispatchCustomEvent: (type: string, detail: object) => void}} api the frontend's
   * @param {{lookUp: (jobId: string) => Promise<Job|undefined>, onCanvas: () => string, settled: (jobId: string, home: string) => void,
   *   draws: (nodeId: string) => boolean, hears?: (detail: object) => void}} world ``draws``: whether a node on the canvas
   *   shows its pictures by itself; ``hears`` is told what a node gave at once, and may change it
   */
  constructor(api, { lookUp, onCanvas, settled, draws, hears = () => {} }) {
    Object.assign(this, { api, lookUp, onCanvas, settled, draws, hears });
  }

  /** From now on events pass here before anybody hears of them: the frontend's stores listen before an extension can. */
  listen() {
    const tell = this.api.dispatchCustomEvent.bind(this.api);
    this.api.dispatchCustomEvent = (type, detail) => this.#lets(type, detail) && tell(type, detail);
  }

  /** Whether an event goes on, now; what it says may have been changed. */
  #lets(type, detail) {
    if (type === "executed") this.hears(detail);
    if (type === "execution_start") this.#begin(detail.prompt_id);
    else if (Object.hasOwn(PAINTING, type)) return this.#pass(type, detail);
    else if (type === "execution_cached") this.#keepCached(detail);
    else if (ENDS.has(type)) this.#end(detail.prompt_id);
    return true;
  }

  /** Whether the newest job is this one, and of the workflow on the canvas; as soon as that is known. */
  async isOfCanvas(id) {
    const entry = this.#entry(id);
    await entry?.known;
    return entry?.job?.home === this.onCanvas();
  }

  async #begin(id) {
    if (this.#newest?.id === id) return; // told again after a lost connection
    const entry = (this.#newest = { id, waiting: [], held: [], counted: new Set(), cached: [] });
    const shown = this.onCanvas();
    const only = { home: shown, nodes: [], trainers: new Set(), ours: new Set() }; // a server that does not say tells only us
    entry.known = this.lookUp(id).catch(() => undefined).then((found) => (entry.job = found ?? only));
    await entry.known;
    this.settled(id, entry.job.home);
    if (!entry.job.trainers.size) this.#tellDone(entry, entry.cached.splice(0));
    for (const [type, detail] of entry.waiting.splice(0)) this.api.dispatchCustomEvent(type, detail);
  }

  /** What a job that is over still has waiting: its pictures and words are shown, its progress is no longer true. */
  #end(id) {
    const entry = this.#entry(id);
    if (!entry) return;
    entry.waiting = entry.waiting.filter(([type]) => type === "executed");
    this.#release(entry, Infinity);
  }

  /** Nodes that need not run again count as the training advances, like those that have: else nearly all is done at once. */
  #keepCached(detail) {
    const entry = this.#entry(detail.prompt_id);
    if (!entry || detail.isCounted) return;
    detail.taken = (detail.nodes ?? []).map(String);
    detail.nodes = [];
    entry.cached.push(...detail.taken);
    if (entry.job && !entry.job.trainers.size) this.#tellDone(entry, entry.cached.splice(0));
  }

  #tellDone(entry, nodes) {
    if (nodes.length) this.api.dispatchCustomEvent("execution_cached", { prompt_id: entry.id, nodes, timestamp: Date.now(), isCounted: true });
  }

  #entry(id) {
    return this.#newest?.id === id ? this.#newest : null;
  }

  #pass(type, detail) {
    const entry = this.#entry(detail.prompt_id ?? detail.jobId);
    if (!entry) return true;
    if (!entry.job) {
      if (entry.waiting.length < MOST_WAITING) entry.waiting.push([type, detail]);
      return false;
    }
    if (type === "executed" && this.#holds(entry, detail)) return false;
    if (type === "progress_state") {
      detail.nodes = focused(detail.nodes, entry.job.trainers);
      this.#release(entry, Math.floor(shareOf(detail.nodes, entry.job.trainers) * entry.job.nodes.length));
    }
    const isDrawn = type === "b_preview_with_metadata" && this.draws(String(detail.displayNodeId));
    if (isDrawn || entry.job.home !== this.onCanvas()) PAINTING[type](detail);
    return true;
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
    this.#tellDone(entry, others);
  }
}

/** While a trainer trains, the nodes that it pulls do no work of their own, and are not the "current node". */
export function focused(nodes, trainers) {
  const trainer = Object.entries(nodes).find(([id, node]) => trainers.has(id) && node.state === "running" && node.value > 0);
  if (!trainer) return nodes;
  const [trainerId, { value, max }] = trainer;
  const isOfTheTraining = (node) => node.max === max && Math.abs(node.value - value) <= 1; // nodes are told one by one: a step apart
  const isPulled = (id, node) => id !== trainerId && node.state === "running" && (node.value === 0 || isOfTheTraining(node));
  return Object.fromEntries(Object.entries(nodes).map(([id, node]) => [id, isPulled(id, node) ? { ...node, state: "finished" } : node]));
}

/** How much of its training a job has done, of all its trainers, in 0..1. */
export function shareOf(nodes, trainers) {
  const shares = [...trainers].map((id) => (nodes[id]?.max > 0 ? nodes[id].value / nodes[id].max : 0));
  return shares.length ? shares.reduce((sum, share) => sum + share, 0) / shares.length : 0;
}
