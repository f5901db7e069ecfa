/**
 * The samples of a run over its training: prompts by steps, one of them large, and any two side by side. Its recorded
 * rollouts are looked at in the same way, and so is what a graph without a training drew: prompts by strengths, say.
 */

import { element, emptyState, fillSelect, iconButton, select, slider } from "../elements/element.js";
import { Wipe } from "../elements/wipe.js";
import { t } from "../language/words.js";
import { spread } from "../rollouts/item_history.js";
import { Images, drawCells } from "./images.js";
import { filmSeries, seriesOf, sheetAt, triesOf } from "./sheets.js";

const MOST_COLUMNS = 16;
const LOOK_AGAIN_MS = 3000;
export const TRIED = "tried:"; // in place of a run: what the newest job of the workflow on the canvas drew

export class Gallery {
  #run = "";
  #series = [];
  #at = { series: 0, item: 0, step: null }; // step null follows the newest
  #other = ""; // "", "step:250" of the same run, or "run:<name>"
  #others = new Map(); // the series of other runs
  #images = new Images();
  #drawn = "";
  #wanted = ""; // what the large picture is to show
  #isLive = false; // whether the run goes on
  #listed = []; // the names of all runs
  #timer = 0;

  /**
   * @param {import("../server/backend.js").Backend} backend
   * @param {() => string} workflowId of the workflow on the canvas
   */
  constructor(backend, workflowId = () => "") {
    this.backend = backend;
    this.workflowId = workflowId;
    this.runs = select(t("Which run"), [], "", (run) => this.open(run));
    this.nodes = select(t("Which samples"), [], "0", (place) => this.#go({ series: Number(place), item: 0 }));
    this.compare = select(t("Compare with"), [], "", (other) => this.#compareWith(other));
    this.facts = element("span.rollout-note");
    this.scrubber = slider(t("Training step"), (place) => this.#go({ step: this.#sheets[place]?.step ?? null }));
    this.along = element("label");
    this.stepText = element("span.rollout-value");
    this.prompt = element("figcaption.rollout-prompt");
    this.wipe = new Wipe();
    this.large = element(
      "figure.rollout-sample", { tabIndex: 0, onkeydown: (event) => this.#key(event) }, this.prompt, this.wipe.element,
      element("div.rollout-line", {}, this.along, this.scrubber, this.stepText, iconButton("expand", t("Full size (Enter)"), () => this.#full())),
    );
    this.large.setAttribute("aria-label", t("Sample: arrow keys walk steps and prompts"));
    this.grid = element("div.rollout-samples-grid");
    this.dialog = element("dialog.rollout-dialog", { onclose: () => this.body.prepend(this.large) });
    this.body = element("div.rollout-samples", {}, this.large, this.grid);
    this.toolbar = element("div.rollout-line.rollout-toolbar", {}, this.runs, this.nodes, this.facts, element("span.rollout-grow"), this.compare);
    this.empty = emptyState(t("No samples yet"), t("Wire Sample Prompts or Sample Images into Optimizer Step: here you see what the model makes of the same noise, step by step."));
    this.element = element("div.rollout-panel", {}, this.toolbar, this.empty, this.body, this.dialog);
  }

  /** Shows a run, or what was ``TRIED``; without a name what was shown, or the newest. */
  async open(run = "") {
    const [tried, runs] = await Promise.all([this.#tried(), this.backend.runs().catch(() => null)]);
    const listed = runs ?? (run && run !== TRIED ? [{ name: run }] : []);
    const known = (name) => name && (name !== TRIED || tried.length > 0);
    const wanted = [run, this.#run, listed[0]?.name, tried.length ? TRIED : ""].find(known) ?? "";
    if (wanted !== this.#run) {
      this.#at = { series: 0, item: 0, step: null };
      this.#other = wanted === TRIED && tried[0].sheets.length > 1 ? "step:0" : ""; // without what was learnt
    }
    this.#run = wanted;
    fillSelect(this.runs, [...(tried.length ? [[TRIED, t("on the canvas")]] : []), ...listed.map(({ name }) => [name, name])], wanted);
    this.#isLive = listed.find(({ name }) => name === wanted)?.status === "running";
    this.#listed = listed.map(({ name }) => name);
    await this.refresh();
  }

  /** A training goes on, and may have left new samples. */
  expect() {
    this.#timer ||= setTimeout(() => this.open(), LOOK_AGAIN_MS);
  }

  async refresh() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    const run = this.#run;
    const series = run ? await this.#read(run) : [];
    if (run !== this.#run) return;
    this.#series = series;
    const isEmpty = !this.#current;
    this.empty.hidden = !isEmpty;
    this.body.hidden = isEmpty;
    if (!isEmpty) this.#show();
    if (this.#isLive && this.element.isConnected) this.#timer = setTimeout(() => this.refresh(), LOOK_AGAIN_MS);
  }

  /** What the workflow on the canvas drew when it ran last. */
  async #tried() {
    return triesOf(await this.backend.newestJob(this.workflowId()).catch(() => null));
  }

  async #read(run) {
    if (run === TRIED) return this.#tried();
    const [files, prompt] = await Promise.all([
      this.backend.files(run).catch(() => null), this.backend.viewJson({ filename: "prompt.json", subfolder: `rollout/${run}` }).catch(() => ({})),
    ]);
    const facts = ({ subfolder, data }) => this.backend.viewJson({ filename: data, subfolder });
    return [...seriesOf(files ?? [], prompt), ...(await filmSeries(files ?? [], prompt, facts).catch(() => []))];
  }

  get #current() {
    return this.#series[this.#at.series];
  }

  get #sheets() {
    return this.#current?.sheets ?? [];
  }

  get #place() {
    const found = this.#at.step === null ? -1 : this.#sheets.findIndex(({ step }) => step === this.#at.step);
    return found < 0 ? this.#sheets.length - 1 : found;
  }

  #go(change) {
    if (change.series !== undefined && change.series !== this.#at.series) Object.assign(this.#at, { step: null });
    Object.assign(this.#at, change);
    this.#show();
  }

  #key(event) {
    const items = this.#current.items.length, place = this.#place;
    const step = (to) => ({ step: this.#sheets[Math.min(this.#sheets.length - 1, Math.max(0, to))].step });
    const item = (to) => ({ item: Math.min(items - 1, Math.max(0, to)) });
    const ways = {
      ArrowLeft: () => step(place - 1), ArrowRight: () => step(place + 1), Home: () => step(0), End: () => ({ step: null }),
      ArrowUp: () => item(this.#at.item - 1), ArrowDown: () => item(this.#at.item + 1),
    };
    if (event.target !== this.large) return;
    if (event.key === "Enter") this.#full();
    else if (ways[event.key]) this.#go(ways[event.key]());
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  #full() {
    if (this.dialog.open) return this.dialog.close();
    this.dialog.replaceChildren(this.large);
    this.dialog.showModal();
    this.large.focus();
  }

  async #compareWith(other) {
    this.#other = other;
    const run = other.startsWith("run:") ? other.slice(4) : "";
    if (run && !this.#others.has(run)) this.#others.set(run, await this.#read(run));
    this.#show();
  }

  /** The sheet and item right of the line. */
  get #right() {
    const [kind, ...rest] = this.#other.split(":"), name = rest.join(":");
    if (kind === "step") {
      const sheet = this.#sheets.find(({ step }) => step === Number(name));
      return sheet && { series: this.#current, sheet, name: this.#nameOf(sheet) };
    }
    if (kind !== "run") return null;
    const theirs = this.#others.get(name) ?? [];
    const { node, items } = this.#current, series = theirs.find((one) => one.node === node) ?? theirs.find((one) => one.items.length === items.length);
    const sheet = series && sheetAt(series.sheets, this.#sheets[this.#place].step);
    return sheet && { series, sheet, name: `${name} · ${this.#nameOf(sheet)}` };
  }

  #nameOf({ name, step }) {
    return name ?? t("step {step}", { step: step.toLocaleString("en-US") });
  }

  #show() {
    const { items, facts, title } = this.#current, sheet = this.#sheets[this.#place];
    this.#at.item = Math.min(this.#at.item, items.length - 1);
    fillSelect(this.nodes, this.#series.map(({ title: name }, place) => [String(place), name]), String(this.#at.series));
    this.nodes.hidden = this.#series.length < 2;
    fillSelect(this.compare, [
      ["", t("compare with …")], ...this.#sheets.map((one) => [`step:${one.step}`, this.#nameOf(one)]),
      ...(this.#run === TRIED ? [] : this.#listed).filter((name) => name !== this.#run).map((name) => [`run:${name}`, name]),
    ], this.#other);
    this.facts.textContent = facts;
    this.along.textContent = this.#run === TRIED ? t("tried") : t("training");
    this.scrubber.max = this.#sheets.length - 1;
    this.scrubber.value = this.#place;
    this.stepText.textContent = `${this.#nameOf(sheet)} · ${this.#place + 1}/${this.#sheets.length}`;
    this.prompt.textContent = items[this.#at.item].name;
    this.prompt.title = title;
    this.#showLarge(sheet);
    this.#showGrid();
  }

  async #showLarge(sheet) {
    const right = this.#right, wanted = JSON.stringify([this.#run, this.#at, sheet.view, this.#other]);
    this.#wanted = wanted;
    const pictures = await Promise.all([this.#images.get(this.backend.view(sheet.view)), right?.sheet && this.#images.get(this.backend.view(right.sheet.view))]).catch(() => null);
    if (this.#wanted !== wanted || !pictures) return;
    const draw = (series, image) => (canvas) => drawCells(canvas, image, series.items[Math.min(this.#at.item, series.items.length - 1)]);
    const other = right?.sheet && { name: right.name, draw: draw(right.series, pictures[1]) };
    this.wipe.show({ name: other ? this.#nameOf(sheet) : "", draw: draw(this.#current, pictures[0]) }, other || null);
  }

  #showGrid() {
    const { node, items, sheets } = this.#current;
    const shown = spread(sheets, MOST_COLUMNS);
    const key = JSON.stringify([this.#run, node, shown]);
    if (key !== this.#drawn) {
      this.#drawn = key;
      this.grid.style.setProperty("--rollout-columns", shown.length);
      const head = shown.map(({ step, name }) => element("span.rollout-caption", {}, name ?? step.toLocaleString("en-US")));
      const rows = items.flatMap((item, row) => [
        element("span.rollout-row-name", { title: item.name }, item.name), ...shown.map((sheet) => this.#cell(item, row, sheet)),
      ]);
      this.grid.replaceChildren(element("span"), ...head, ...rows);
    }
    const step = this.#sheets[this.#place].step;
    for (const cell of this.grid.querySelectorAll("button")) {
      const isCurrent = Number(cell.dataset.step) === step && Number(cell.dataset.item) === this.#at.item;
      cell.classList.toggle("rollout-current", isCurrent);
    }
  }

  #cell(item, row, sheet) {
    const canvas = element("canvas");
    const label = `${item.name}, ${this.#nameOf(sheet)}`;
    const button = element("button.rollout-sample-cell", { type: "button", title: `${label}\n${t("Shift-click: compare with it")}`, onclick: (event) => {
      if (event.shiftKey) this.#compareWith(`step:${sheet.step}`);
      else this.#go({ item: row, step: sheet.step });
    } }, canvas);
    button.setAttribute("aria-label", label);
    Object.assign(button.dataset, { step: sheet.step, item: row });
    this.#images.get(this.backend.thumbnail(sheet.view, 1024)).then((image) => drawCells(canvas, image, { places: (size) => item.places(size).slice(0, 1) }), () => {});
    return button;
  }

}
