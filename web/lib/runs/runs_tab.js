/** The Runs tab of the sidebar: what was trained, what came of it, and what can be done with it. */

import { element, emptyState, fillSelect, iconButton, select } from "../elements/element.js";
import { differences } from "../graph/settings_diff.js";
import { say, t } from "../language/words.js";
import { STATUS, summaryOf } from "./run_facts.js";
import { RunFiles } from "./run_files.js";
import { NotesEditor, hasTag, tagsOf } from "./run_notes.js";

const LOOK_AGAIN_MS = 4000; // while something runs
const SOON_MS = 500;
const MOST_COMPARED = 30; // newest runs that are compared with the one before
const MOST_DIFFERENCES = 4;

export class RunsTab {
  #timer = 0;
  #isAbsent = false; // a plain ComfyUI keeps no list
  #opened = new Set();
  #prompts = new Map(); // by run, what was executed
  #earlier = new Map(); // by run, the name of the one before
  #cards = new Map(); // by run: what it tells and its element
  #editors = new Map(); // by run: tags and note that are being written
  #runs = [];
  #tag = ""; // runs of this tag are shown

  /**
   * @param {import("../server/backend.js").Backend} backend
   * @param {{load: (run: string) => Promise<void>, resume: (run: object) => Promise<void>, stop: () => Promise<void>, confirm: (question: object) => Promise<boolean>,
   *   samples: (run: string) => void, compare: (run: string) => void, tryIt: (run: string) => Promise<void>, seen: (run: string) => {done: number, left: number|null}, tell: (severity: string, text: string) => void}} actions
   */
  constructor(backend, actions) {
    this.backend = backend;
    this.actions = actions;
    this.files = new RunFiles(backend);
    this.list = element("div.rollout-runs-list");
    this.tags = select(t("Show only runs with this tag"), [], "", (tag) => this.#filter(tag));
    this.element = element(
      "div.rollout-runs", {},
      element("div.rollout-line.rollout-runs-head", {}, element("b", {}, t("Training runs")), element("span.rollout-grow"), this.tags, iconButton("refresh", t("Look again"), () => this.refresh(true))),
      this.list,
    );
  }

  async refresh(anew = false) {
    clearTimeout(this.#timer);
    this.#timer = 0;
    if (anew) this.#cards.clear();
    let runs;
    try {
      runs = await this.backend.runs();
    } catch (error) {
      this.#cards.clear();
      this.list.replaceChildren(emptyState(t("The runs cannot be listed"), say(String(error.message ?? error))));
      return;
    }
    if (runs === null) return this.#absent();
    this.#runs = runs;
    this.#earlier = new Map(runs.slice(0, MOST_COMPARED).map(({ name }, place) => [name, runs[place + 1]?.name]));
    this.#draw();
    if (this.element.isConnected && runs.some(({ status }) => status === "running")) {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.refresh(), LOOK_AGAIN_MS);
    }
  }

  #filter(tag) {
    this.#tag = tag;
    this.#draw();
  }

  /** Brings the list up to date; cards that tell what they told stay as they are, with what is being typed in them. */
  #draw() {
    const tags = tagsOf(this.#runs);
    if (!tags.some((tag) => hasTag({ tags: [tag] }, this.#tag))) this.#tag = "";
    this.tags.hidden = !tags.length;
    fillSelect(this.tags, [["", t("all runs")], ...tags.map((tag) => [tag, tag])], this.#tag);
    const now = Date.now(), runs = this.#runs.filter((run) => hasTag(run, this.#tag));
    const wanted = runs.length ? runs.map((run) => this.#card(run, now)) : [emptyState(t("No runs yet"), t("Each training leaves a folder here: curves, samples, rollouts and the model."))];
    const kept = new Set(wanted);
    for (const card of [...this.list.children]) if (!kept.has(card)) card.remove();
    wanted.forEach((card, place) => this.list.children[place] !== card && this.list.insertBefore(card, this.list.children[place] ?? null));
  }

  /** The card of a run, made anew only where it tells something else; the keyboard stays where it was on it. */
  #card(run, now) {
    const told = JSON.stringify([run, this.#tag, this.#earlier.get(run.name), summaryOf(run, now, this.actions.seen(run.name))]);
    const old = this.#cards.get(run.name);
    if (old?.told === told) return old.card;
    const held = old?.card.contains(document.activeElement) ? document.activeElement : null;
    const card = this.#entry(run, now);
    this.#cards.set(run.name, { told, card });
    if (old?.card.parentElement === this.list) old.card.replaceWith(card);
    if (held) (card.contains(held) ? held : [...card.querySelectorAll("button")].find(({ title }) => title === held.title))?.focus();
    return card;
  }

  /** Something runs, and may not be in the list yet. */
  expect() {
    if (this.element.isConnected && !this.#isAbsent) this.#timer ||= setTimeout(() => this.refresh(), SOON_MS);
  }

  #absent() {
    this.#isAbsent = true;
    this.tags.hidden = true;
    this.#cards.clear();
    this.list.replaceChildren(element(
      "div.rollout-empty.rollout-left", {},
      element("strong", {}, t("This server keeps no list of runs")),
      element("span", {}, t("ComfyUI itself does not look into the folders that a training leaves. What works here all the same:")),
      element(
        "ul", {},
        element("li", {}, t("Every run has its folder below rollout in ComfyUI's output folder.")),
        element("li", {}, t("Rollouts and curves of what is running are on the nodes and in the panel below.")),
        element("li", {}, t("Drop a run's model/diffusion_pytorch_model.safetensors on the canvas to get its workflow.")),
      ),
      element("span", {}, t("comfyui-rollout serve, the same editor on our own runner, has the list.")),
    ));
  }

  #entry(run, now) {
    const { name, status } = run, running = status === "running";
    const picture = element("div.rollout-thumbnail", {}, element("i.pi.pi-image"));
    this.files.fillPicture(run, picture);
    const act = (icon, text, label, action) => iconButton(icon, label, () => this.#try(action), text);
    const folder = element("div.rollout-files", { hidden: !this.#opened.has(name) });
    if (this.#opened.has(name)) this.files.fillList(name, folder);
    const changed = element("span.rollout-note.rollout-changed", { hidden: true });
    this.#fillChanged(name, changed);
    const notes = element("div.rollout-run-notes", {}, this.#editors.get(name)?.element);
    const done = Math.max(run.steps_done ?? 0, this.actions.seen(name).done);
    const filled = element("span", { style: `transform: scaleX(${run.steps ? Math.min(1, done / run.steps) : 0})` });
    return element(
      "article.rollout-run", {},
      picture,
      element(
        "div.rollout-run-text", {},
        element("div.rollout-line", {}, element("b.rollout-run-name", { title: name }, name)),
        element("span.rollout-note", {}, element(`span.rollout-status.rollout-status-${status}`, {}, t(STATUS[status] ?? status ?? "unknown")), ` ${summaryOf(run, now, this.actions.seen(name))}`),
        running && element("span.rollout-track", { role: "progressbar", "aria-label": name, "aria-valuenow": Math.round((100 * done) / (run.steps || 1)) }, filled),
        run.message && status === "failed" && element("span.rollout-message", { title: say(run.message) }, say(run.message)),
        changed,
        run.tags?.length > 0 && element("div.rollout-tags", {}, ...run.tags.map((tag) => this.#chip(tag))),
        run.note && element("span.rollout-note.rollout-run-note", {}, run.note),
      ),
      element(
        "div.rollout-run-buttons", {},
        running && act("stop-circle", t("Stop"), t("Stop the run; it saves what it has learnt"), () => this.actions.stop()),
        run.can_resume && act("play", t("Resume"), t("Go on with the run where it was"), () => this.actions.resume(run)),
        run.has_workflow && act("sitemap", t("Load"), t("Load the run's workflow on the canvas, with its curves and pictures"), () => this.actions.load(name)),
        act("images", t("Samples"), t("Samples over the training"), () => this.actions.samples(name)),
        act("chart-line", t("Compare"), t("Draw the run's curves beside those of others"), () => this.actions.compare(name)),
        act("tag", t("Note"), t("Write tags and a note on the run"), () => this.#edit(run)),
        run.has_model && !running && act("bolt", t("Try it"), t("Draw with what was learnt; with a LoRA also without it"), () => this.actions.tryIt(name)),
        run.has_model && !running && act("download", t("Download"), t("Save the trained weights on this computer"), () => this.files.download(name)),
        act("folder-open", t("Files"), t("Show the run's files"), () => this.#open(name, folder)),
        !running && act("trash", t("Delete"), t("Delete the run and all its files"), () => this.#delete(name)),
      ),
      notes, folder,
    );
  }

  #chip(tag) {
    const isChosen = this.#tag !== "" && hasTag({ tags: [tag] }, this.#tag);
    const title = isChosen ? t("Show all runs") : t("Show only runs with this tag");
    return element("button.rollout-flag.rollout-chip", { type: "button", title, "aria-pressed": isChosen, onclick: () => this.#filter(isChosen ? "" : tag) }, tag);
  }

  /** Opens tags and note for writing, or closes them; what is typed stays while the list is brought up to date. */
  #edit({ name, tags, note }) {
    const place = this.#cards.get(name).card.querySelector(".rollout-run-notes");
    const close = () => {
      this.#editors.delete(name);
      const card = this.#cards.get(name)?.card;
      card?.querySelector(".rollout-run-notes").replaceChildren();
      [...(card?.querySelectorAll("button") ?? [])].find(({ title }) => title === t("Write tags and a note on the run"))?.focus();
      return this.refresh();
    };
    if (this.#editors.has(name)) return close();
    const save = (notes, was) => this.backend.saveNotes(name, notes, was).catch((error) => {
      this.actions.tell("error", String(error.message ?? error));
      return { failed: true };
    });
    const editor = new NotesEditor({ name, tags, note }, { save, close });
    this.#editors.set(name, editor);
    place.replaceChildren(editor.element);
    editor.tags.focus();
  }

  /** What differs from the settings of the run before. */
  async #fillChanged(name, changed) {
    const before = this.#earlier.get(name);
    if (!before) return;
    const [earlier, prompt] = await Promise.all([this.#promptOf(before), this.#promptOf(name)]).catch(() => []);
    const told = earlier && prompt ? differences(earlier, prompt) : [];
    if (!told.length) return;
    const more = told.length > MOST_DIFFERENCES ? ` +${told.length - MOST_DIFFERENCES}` : "";
    changed.textContent = told.slice(0, MOST_DIFFERENCES).join(" · ") + more;
    changed.title = `${t("Since {run}", { run: before })}:\n${told.join("\n")}`;
    changed.hidden = false;
  }

  #promptOf(run) {
    if (!this.#prompts.has(run)) this.#prompts.set(run, this.backend.viewJson({ filename: "prompt.json", subfolder: `rollout/${run}` }));
    return this.#prompts.get(run);
  }

  async #open(name, folder) {
    if (this.#opened.delete(name)) {
      folder.hidden = true;
      return;
    }
    this.#opened.add(name);
    folder.hidden = false;
    await this.files.fillList(name, folder);
  }

  async #delete(name) {
    const lost = t("Its folder is removed with everything in it: the trained model, samples, rollouts and curves.");
    if (!(await this.actions.confirm({ title: t("Delete this run?"), message: lost, itemList: [name], type: "delete" }))) return;
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
