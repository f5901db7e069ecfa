/** What is asked of the server. ``api`` is the frontend's; it is given, so that this file can be read without one. */

import { TRAINER, isOurs } from "../graph/nodes.js";

export class Backend {
  /** Whether the server has our own routes; a plain ComfyUI does not, and is asked once only. */
  #isOurs = true;

  constructor(api) {
    this.api = api;
  }

  /** The address of a file in the output folder; the same in ComfyUI and in our server. ``job``: who wrote it last. */
  view(place) {
    return this.api.apiURL(`/view?${queryOf(place)}`);
  }

  /** The address of a small copy, at most ``side`` pixels long: 96, 192, 384 or 1024. */
  thumbnail(place, side) {
    if (!this.#isOurs) return this.view(place);
    return this.api.apiURL(`/rollout/thumbnail?${queryOf(place)}&side=${side}`);
  }

  async viewJson(place) {
    return (await this.#view(place)).json();
  }

  async viewImage(place) {
    return createImageBitmap(await (await this.#view(place)).blob());
  }

  /** Asks the server whether the browser's copy is still the file: a run's name may come back after it was deleted. */
  async #view(place) {
    const reply = await fetch(this.view(place), { cache: "no-cache" });
    if (!reply.ok) throw Object.assign(new Error(`${place.filename}: ${reply.status} ${reply.statusText}`), { status: reply.status });
    return reply;
  }

  /** The runs, newest first; null where the server keeps no list, as a plain ComfyUI does not. */
  async runs() {
    return (await this.#ours("/runs"))?.runs ?? null;
  }

  /** The facts of one run; null where the server does not tell. */
  run(run) {
    return this.#ours(`/runs/${encodeURIComponent(run)}`);
  }

  /** All rows of a run's metrics; empty if there are none. */
  async rows(run) {
    const rows = [];
    for (let after = -1, more = true; more; ) {
      const part = await this.#ours(`/runs/${encodeURIComponent(run)}/metrics?after=${after}`);
      if (part === null) return this.#rowsOfFile(run);
      rows.push(...part.rows);
      more = part.more && part.rows.length > 0;
      after = rows.at(-1)?.step;
    }
    return rows;
  }

  async #rowsOfFile(run) {
    const reply = await fetch(this.view({ filename: "metrics.jsonl", subfolder: `rollout/${run}` }), { cache: "no-cache" });
    if (!reply.ok) return [];
    return parseLines(await reply.text());
  }

  /** The files of a run; null where the server cannot list them. */
  async files(run) {
    return (await this.#ours(`/runs/${encodeURIComponent(run)}/files`))?.files ?? null;
  }

  /** The workflow that a run was started with. */
  async workflow(run) {
    return this.viewJson({ filename: "workflow.json", subfolder: `rollout/${run}` });
  }

  /** Writes tags and note of a run; ``conflict`` is what somebody else wrote meanwhile, and then nothing is written. */
  async saveNotes(run, notes, was) {
    const reply = await this.api.fetchApi(`/rollout/runs/${encodeURIComponent(run)}/notes`, { method: "PUT", body: JSON.stringify({ ...notes, was }) });
    if (reply.status === 409) return { conflict: (await reply.json()).now };
    if (!reply.ok) throw new Error(await reasonOf(reply));
    return {};
  }

  async delete(run) {
    const reply = await this.api.fetchApi(`/rollout/runs/${encodeURIComponent(run)}`, { method: "DELETE" });
    if (!reply.ok) throw new Error(await reasonOf(reply));
  }

  /**
   * A job as the gate wants it; undefined if the server does not say.
   * @returns {Promise<import("./gate.js").Job|undefined>}
   */
  async job(promptId) {
    const found = await this.#get(`/jobs/${promptId}`);
    if (!found) return undefined;
    const prompt = found.workflow?.prompt ?? {};
    const nodes = Object.keys(prompt);
    const those = (test) => new Set(nodes.filter((id) => test(prompt[id]?.class_type ?? "")));
    return { home: found.workflow_id ?? "", nodes, trainers: those((name) => name === TRAINER), ours: those(isOurs) };
  }

  /**
   * The newest job of a workflow: what was executed, and what its nodes gave for the eye; null if there is none.
   * @returns {Promise<{id: string, prompt: Record<string, any>, outputs: Record<string, any>}|null>}
   */
  async newestJob(workflowId) {
    const query = new URLSearchParams({ workflow_id: workflowId, sort_by: "created_at", sort_order: "desc", limit: 1 });
    const newest = (await this.#get(`/jobs?${query}`))?.jobs?.[0], found = newest && (await this.#get(`/jobs/${newest.id}`));
    return found ? { id: newest.id, prompt: found.workflow?.prompt ?? {}, outputs: found.outputs ?? {} } : null;
  }

  /** The workflow of the job that runs now, for the canvas; null if there is none. */
  async runningWorkflow() {
    const running = (await this.#get("/jobs?status=in_progress&limit=1"))?.jobs?.[0];
    if (!running) return null;
    return (await this.#get(`/jobs/${running.id}`))?.workflow?.extra_data?.extra_pnginfo?.workflow ?? null;
  }

  /** All data sets in the studio's folder; null where the server keeps none. */
  async datasets() {
    return (await this.#ours("/datasets"))?.datasets ?? null;
  }

  /** With ``first`` only so many of its pictures, at once. */
  dataset(name, first = 0) {
    const path = `/datasets/${encodeURIComponent(name)}`;
    return this.#ours(first ? `${path}?first=${first}` : path);
  }

  /** The address of a picture of a data set; with ``side`` that of a small copy. */
  picture(name, path, side = 0) {
    const place = `/rollout${placeIn(name, path)}`;
    return this.api.apiURL(side ? `${place}?side=${side}` : place);
  }

  createDataset(name) {
    return this.#send("POST", "/datasets", JSON.stringify({ name }));
  }

  /** @returns {Promise<"added"|"same">} */
  async addFile(name, path, file, signal) {
    return (await this.#send("PUT", placeIn(name, path), file, signal)).result;
  }

  addArchive(name, file, signal) {
    return this.#send("PUT", `/datasets/${encodeURIComponent(name)}/archive`, file, signal);
  }

  /** @param {{picture: string, caption: string, was: string}[]} changes returns what is there now */
  async editCaptions(name, changes) {
    return (await this.#send("PUT", `/datasets/${encodeURIComponent(name)}/captions`, JSON.stringify({ changes }))).captions;
  }

  async #send(method, path, body, signal) {
    const reply = await this.api.fetchApi(`/rollout${path}`, { method, body, signal });
    if (!reply.ok) throw new Error(await reasonOf(reply));
    return reply.json();
  }

  async #ours(path) {
    if (!this.#isOurs) return null;
    const found = await this.#get(`/rollout${path}`);
    if (found === null && path === "/runs") this.#isOurs = false;
    return found;
  }

  async #get(path) {
    const reply = await this.api.fetchApi(path);
    if (reply.status === 404) return null;
    if (!reply.ok) throw new Error(await reasonOf(reply));
    return reply.json();
  }
}

const queryOf = ({ filename, subfolder, type = "output", job = "" }) => new URLSearchParams({ filename, subfolder, type, ...(job && { rand: job }) });

const placeIn = (name, path) => `/datasets/${encodeURIComponent(name)}/files/${path.split("/").map(encodeURIComponent).join("/")}`;

async function reasonOf(reply) {
  const text = await reply.text();
  try {
    const { error } = JSON.parse(text);
    return typeof error === "string" ? error : (error?.message ?? text);
  } catch {
    return text || `${reply.status} ${reply.statusText}`;
  }
}

/** The JSON objects of a file with one a line; a line that is still being written is left out. */
export function parseLines(text) {
  return text.split("\n").flatMap((line) => {
    try {
      return line ? [JSON.parse(line)] : [];
    } catch {
      return [];
    }
  });
}
