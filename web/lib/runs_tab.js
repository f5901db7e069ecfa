/** The Runs tab of the sidebar: what was trained, what came of it, and what can be done with it. */

import { formatAgo, formatBytes, formatDuration } from "./duration.js";
import { element, emptyState, iconButton } from "./element.js";

const LOOK_AGAIN_MS = 4000; // while something runs
const SOON_MS = 500;
const PICTURE = /\.(png|jpe?g|webp)$/i;
const STATUS = { running: "running", finished: "finished", interrupted: "stopped", stopped: "ended without a word", failed: "failed" };

/** Steps, time and age of a run in one line. ``seen`` is how far the live curve has come, for a run that is going on. */
export function summaryOf(run, now, seen = 0) {
  const done = Math.max(run.steps_done ?? 0, run.status === "running" ? seen : 0);
  const started = Date.parse(run.started);
  const parts = [];
  if (run.steps) parts.push(run.status === "finished" ? `${run.steps.toLocaleString("en-US")} steps` : `${done.toLocaleString("en-US")} of ${run.steps.toLocaleString("en-US")} steps`);
  if (run.seconds) parts.push(formatDuration(run.seconds));
  else if (run.status === "running" && started) parts.push(formatDuration((now - started) / 1000));
  if (started) parts.push(formatAgo(started, now));
  return parts.join(" · ");
}

/** The picture that says most about a run: its newest samples, or its newest rollout. */
export function thumbnailOf(files) {
  const newest = (folder) => files
    .filter(({ path, view }) => path.startsWith(folder) && PICTURE.test(path) && !view.filename.includes("_frames"))
    .sort((a, b) => a.modified - b.modified || a.path.localeCompare(b.path)).at(-1);
  return (newest("samples/") ?? newest("rollouts/"))?.view ?? null;
}

export class RunsTab {
  #timer = 0;
  #isAbsent = false; // a plain ComfyUI keeps no list
  #opened = new Set();
  #pictures = new Map(); // by run: [the run's last sign of life, the picture]
  #shown = "";

  /**
   * @param {import("./backend.js").Backend} backend
   * @param {{load: (run: string) => Promise<void>, resume: (run: object) => Promise<void>, stop: () => Promise<void>, confirm: (run: string) => Promise<boolean>,
   *   seen: (run: string) => number, tell: (severity: string, text: string) => void}} actions
   */
  constructor(backend, actions) {
    this.backend = backend;
    this.actions = actions;
    this.list = element("div.rollout-runs-list");
    this.element = element(
      "div.rollout-runs", {},
      element("div.rollout-line.rollout-runs-head", {}, element("b", {}, "Training runs"), element("span.rollout-grow"), iconButton("refresh", "Look again", () => this.refresh(true))),
      this.list,
    );
  }

  async refresh(anew = false) {
    clearTimeout(this.#timer);
    this.#timer = 0;
    if (anew) this.#shown = "";
    let runs;
    try {
      runs = await this.backend.runs();
    } catch (error) {
      this.#shown = "";
      this.list.replaceChildren(emptyState("The runs cannot be listed", String(error.message ?? error)));
      return;
    }
    if (runs === null) return this.#absent();
    const now = Date.now();
    const shown = JSON.stringify([runs, runs.map((run) => summaryOf(run, now, this.actions.seen(run.name)))]);
    if (shown !== this.#shown) {
      this.#shown = shown;
      this.list.replaceChildren(...(runs.length ? runs.map((run) => this.#entry(run, now)) : [emptyState("No runs yet", "Each training leaves a folder here: curves, samples, rollouts and the model.")]));
    }
    if (this.element.isConnected && runs.some(({ status }) => status === "running")) {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.refresh(), LOOK_AGAIN_MS);
    }
  }

  /** Something runs, and may not be in the list yet. */
  expect() {
    if (this.element.isConnected && !this.#isAbsent) this.#timer ||= setTimeout(() => this.refresh(), SOON_MS);
  }

  #absent() {
    this.#isAbsent = true;
    this.#shown = "";
    this.list.replaceChildren(element(
      "div.rollout-empty.rollout-left", {},
      element("strong", {}, "This server keeps no list of runs"),
      element("span", {}, "ComfyUI itself does not look into the folders that a training leaves. What works here all the same:"),
      element(
        "ul", {},
        element("li", {}, "Every run has its folder below rollout in ComfyUI's output folder."),
        element("li", {}, "Rollouts and curves of what is running are on the nodes and in the panel below."),
        element("li", {}, "Drop a run's model/diffusion_pytorch_model.safetensors on the canvas to get its workflow."),
      ),
      element("span", {}, "comfyui-rollout serve, the same editor on our own runner, has the list."),
    ));
  }

  #entry(run, now) {
    const { name, status } = run, running = status === "running";
    const picture = element("div.rollout-thumbnail", {}, element("i.pi.pi-image"));
    this.#fillPicture(run, picture);
    const act = (icon, text, label, action) => iconButton(icon, label, () => this.#try(action), text);
    const folder = element("div.rollout-files", { hidden: !this.#opened.has(name) });
    if (this.#opened.has(name)) this.#fillFolder(name, folder);
    return element(
      "article.rollout-run", {},
      picture,
      element(
        "div.rollout-run-text", {},
        element("div.rollout-line", {}, element("b.rollout-run-name", { title: name }, name)),
        element("span.rollout-note", {}, element(`span.rollout-status.rollout-status-${status}`, {}, STATUS[status] ?? status ?? "unknown"), ` ${summaryOf(run, now, this.actions.seen(name))}`),
        run.message && status === "failed" && element("span.rollout-message", { title: run.message }, run.message),
        element(
          "div.rollout-line", {},
          act("folder-open", "Files", "Show the run's files", () => this.#open(name, folder)),
          run.has_workflow && act("sitemap", "Load", "Load the run's workflow on the canvas", () => this.actions.load(name)),
          run.can_resume && act("play", "Resume", "Go on with the run where it was", () => this.actions.resume(run)),
          running && act("stop-circle", "Stop", "Stop the run; it saves what it has learnt", () => this.actions.stop()),
          !running && act("trash", "Delete", "Delete the run and all its files", () => this.#delete(name)),
        ),
      ),
      folder,
    );
  }

  async #fillPicture({ name, modified }, picture) {
    try {
      if (this.#pictures.get(name)?.[0] !== modified) this.#pictures.set(name, [modified, thumbnailOf((await this.backend.files(name)) ?? [])]);
    } catch {
      return; // a run without a picture is still a run
    }
    const view = this.#pictures.get(name)[1];
    if (view) picture.replaceChildren(element("img", { src: this.backend.view(view), alt: `newest picture of ${name}`, loading: "lazy" }));
  }

  async #open(name, folder) {
    if (this.#opened.delete(name)) {
      folder.hidden = true;
      return;
    }
    this.#opened.add(name);
    folder.hidden = false;
    await this.#fillFolder(name, folder);
  }

  async #fillFolder(name, folder) {
    const files = (await this.backend.files(name)) ?? [];
    folder.replaceChildren(...files.map(({ path, size, view }) => element(
      "a", { href: this.backend.view(view), target: "_blank", rel: "noopener", title: path },
      element(`i.pi.pi-${PICTURE.test(path) ? "image" : "file"}`), element("span.rollout-grow", {}, path), element("span.rollout-note", {}, formatBytes(size)),
    )));
  }

  async #delete(name) {
    if (!(await this.actions.confirm(name))) return;
    await this.backend.delete(name);
    this.#opened.delete(name);
  }

  async #try(action) {
    try {
      await action();
    } catch (error) {
      this.actions.tell("error", String(error.message ?? error));
    }
    await this.refresh();
  }
}
