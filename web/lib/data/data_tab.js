/** The Data tab of the sidebar: bring pictures in, see them as they are trained on, write their captions. */

import { element, emptyState, fillSelect, iconButton, select } from "../elements/element.js";
import { VirtualList } from "../elements/virtual_list.js";
import { say, t } from "../language/words.js";
import { bringIn, toldOf } from "./bring_in.js";
import { BulkEdit } from "./bulk_edit.js";
import { History, chosen, isLong } from "./caption_edits.js";
import { filesChosen, filesOf } from "./dropped.js";
import { FLAGS, newRow, showRow } from "./picture_row.js";

const ROW = 112; // pixels
const FIRST = 60; // pictures that are shown before all are known
const TYPES = "image/*,.zip,.txt,.caption";

export class DataTab {
  #name = "";
  #path = "";
  #of = ""; // the data set whose entries these are
  #isElsewhere = false;
  #written = new Set(); // pictures whose captions were written here since the list was asked for
  #entries = new Map(); // by picture
  #conflicts = new Map(); // by picture, what the other wrote and what is in the field here
  #wish = { search: "", flag: "", sort: "name" };
  #history = new History();
  #settings = null; // how the node on the canvas cuts

  /**
   * @param {import("../server/backend.js").Backend} backend
   * @param {{tell: (severity: string, text: string) => void, use: (path: string) => void, settings: (path: string) => {size: number, buckets: boolean}|null}} actions
   */
  constructor(backend, actions) {
    this.backend = backend;
    this.actions = actions;
    this.sets = select(t("Which data set"), [], "", (name) => this.open(name));
    this.useIt = iconButton("check", t("Train on this data set: write its folder into Image Folder Dataset"), () => this.actions.use(this.#path), t("Use"));
    this.add = this.#opener("plus", t("Add"), { multiple: true, accept: TYPES }, true);
    this.status = element("span.rollout-note.rollout-status-line", { role: "status" });
    this.leftOut = element("details.rollout-note.rollout-wraps.rollout-left-out", { hidden: true });
    this.list = new VirtualList(ROW, ({ picture }) => `${this.#of}/${picture}`, (entry, old) => this.#row(entry, old));
    this.search = element("input.rollout-input", { type: "search", placeholder: t("search"), oninput: () => this.#filter({ search: this.search.value }) });
    this.search.setAttribute("aria-label", t("Search in names and captions"));
    this.flag = select(t("Show only"), [], "", (flag) => this.#filter({ flag }));
    const sorts = [["name", t("by name")], ["caption", t("by caption")], ["shortest", t("shortest caption first")], ["smallest", t("smallest first")]];
    this.sort = select(t("Order"), sorts, "name", (sort) => this.#filter({ sort }));
    this.bulk = new BulkEdit({ shown: () => this.#shown, change: (changes) => this.#try(() => this.#change(changes)), undo: () => this.#try(() => this.#undo()) });
    this.tools = element("div.rollout-data-tools", {},
      element("div.rollout-line.rollout-wrap", {}, this.search, this.flag, this.sort), this.bulk.element);
    this.empty = emptyState(t("No data set yet"), t("Drop pictures, a folder or a ZIP here or on the canvas. Captions are text files of the same name."));
    this.element = element(
      "div.rollout-data", { ondragover: (event) => event.preventDefault(), ondrop: (event) => this.#drop(event) },
      element("div.rollout-line.rollout-wrap", {}, element("b", {}, t("Data sets")), element("span.rollout-grow"), this.#opener("images", t("Pictures"), { multiple: true, accept: TYPES }), this.#opener("folder-open", t("Folder"), { webkitdirectory: true })),
      element("div.rollout-line.rollout-wrap", {}, this.sets, this.useIt, this.add),
      this.status, this.leftOut, this.tools, this.empty, this.list.element,
    );
    this.#fill();
  }

  #opener(icon, text, properties, isAdding = false) {
    const input = element("input", { type: "file", hidden: true, ...properties, onchange: () => {
      const files = filesChosen(input);
      input.value = "";
      this.bringIn(files, isAdding ? this.#name : "");
    } });
    const button = iconButton(icon, isAdding ? t("Add pictures to this data set") : t("A new data set from your computer"), () => input.click(), text);
    return element("span", {}, button, input);
  }

  /** Brings files in: into a data set, or by default a new one, which is then shown. Returns it, or undefined. */
  async bringIn(files, into = "") {
    return this.#try(async () => {
      this.status.textContent = t("Looking at the files …");
      const progress = (done, total) => (this.status.textContent = t("{done} of {total} files", { done, total }));
      const told = await bringIn(this.backend, files, { into, progress });
      await this.open(told.name);
      this.status.textContent = toldOf(told);
      this.status.title = told.leftOut.join("\n");
      return told;
    });
  }

  async #drop(event) {
    event.preventDefault();
    event.stopPropagation();
    const files = await filesOf(event.dataTransfer);
    if (files.length) await this.bringIn(files);
  }

  /** Shows a data set; without a name the one that was shown, or the first. */
  async open(name = "") {
    await this.#try(async () => {
      const sets = await this.backend.datasets();
      if (sets === null) return this.#absent();
      const wanted = [name, this.#name, sets[0]?.name].find((one) => sets.some((set) => set.name === one)) ?? "";
      if (wanted !== this.#name) this.#history = new History();
      this.#name = wanted;
      this.#isElsewhere = sets.find((set) => set.name === wanted)?.elsewhere ?? false;
      this.#conflicts.clear();
      this.#written.clear();
      const isShown = wanted && this.#entries.size && this.#of === wanted; // a second look needs no first rows
      for (const first of isShown ? [0] : [FIRST, 0]) {
        const found = wanted ? await this.backend.dataset(wanted, first) : { entries: [], path: "" };
        if (this.#name !== wanted) return;
        this.#take(wanted, found ?? { entries: [], path: "" });
        const count = (set) => (set.name === wanted && !first ? found.entries.length : set.pictures); // masks are no pictures
        const label = (set) => [set.title ?? set.name, count(set) === undefined ? "" : ` (${count(set)})`, set.elsewhere ? ` · ${set.path}` : ""].join("");
        fillSelect(this.sets, sets.map((set) => [set.name, label(set)]), wanted);
        if (!wanted) break;
      }
    });
  }

  /** Shows what was found; a caption that was written here meanwhile is newer. */
  #take(name, found) {
    const before = this.#entries;
    this.#of = name;
    this.#path = found.path;
    this.#entries = new Map(found.entries.map((entry) => {
      const { caption, version } = (this.#written.has(entry.picture) && before.get(entry.picture)) || entry;
      return [entry.picture, marked({ ...entry, caption, version })];
    }));
    this.#tellLeftOut(found.left_out ?? []);
    this.#fill();
  }

  /** Which files are not trained, and why. */
  #tellLeftOut(lines) {
    this.leftOut.hidden = !lines.length;
    this.leftOut.replaceChildren(element("summary", {}, t("Not trained: {count}", { count: lines.length })), ...lines.map((line) => element("div", {}, say(line))));
  }

  #absent() {
    this.empty.replaceWith((this.empty = emptyState(t("This server keeps no data sets"), t("Name the folder of your pictures in Image Folder Dataset."))));
  }

  #fill() {
    const entries = [...this.#entries.values()];
    this.#settings = this.actions.settings(this.#path);
    for (const part of [this.tools, this.list.element]) part.hidden = !entries.length;
    for (const part of [this.sets, this.useIt]) part.hidden = !this.#name;
    this.add.hidden = !this.#name || this.#isElsewhere; // only captions are written there
    this.empty.hidden = entries.length > 0;
    const counts = Object.entries(FLAGS).map(([flag, text]) => [flag, text, entries.filter(({ flags }) => flags.includes(flag)).length]);
    fillSelect(this.flag, [["", t("all")], ...counts.filter(([, , count]) => count).map(([flag, text, count]) => [flag, `${t(text)} (${count})`])], this.#wish.flag);
    if (this.flag.selectedIndex < 0) this.#wish.flag = this.flag.value = "";
    this.#filter({});
  }

  /** The node on the canvas cuts in another way. */
  cutAnew() {
    this.#fill();
  }

  get #shown() {
    return chosen([...this.#entries.values()], this.#wish);
  }

  #filter(change) {
    Object.assign(this.#wish, change);
    this.list.show(this.#shown);
    this.bulk.show(this.#history.length > 0);
  }

  #row(entry, old) {
    const { picture } = entry, at = (path, side) => this.backend.picture(this.#name, path, side);
    const row = old ?? newRow(entry, {
      at, write: (text) => this.#try(() => this.#write([[picture, text]])), settle: (mine) => this.#try(() => this.#settle(picture, mine)),
    });
    return showRow(row, entry, { settings: this.#settings, clash: this.#conflicts.get(picture), at });
  }

  async #settle(picture, mine) {
    this.#conflicts.delete(picture);
    if (mine !== null) return this.#write([[picture, mine]]);
    document.activeElement?.blur?.();
    this.#filter({});
  }

  /** @param {[string, string][]} captions by picture */
  #write(captions) {
    return this.#send(captions.map(([picture, caption]) => ({ picture, caption, was: this.#entries.get(picture).version })), true);
  }

  async #change(changes) {
    await this.#send(changes, true);
    this.status.textContent = t("captions changed: {count}", { count: changes.length });
  }

  async #undo() {
    await this.#send(this.#history.undo((picture) => this.#entries.get(picture)), false);
  }

  async #send(changes, isNoted) {
    if (!changes.length) return this.#filter({});
    const mine = new Map(changes.map(({ picture, caption }) => [picture, caption]));
    const before = new Map(changes.map(({ picture }) => [picture, this.#entries.get(picture).caption]));
    const now = await this.backend.editCaptions(this.#name, changes);
    for (const { picture, caption, version, flags, conflict } of now) {
      const entry = this.#entries.get(picture);
      const kept = entry.flags.filter((flag) => flag === "duplicate");
      this.#written.add(picture);
      Object.assign(entry, { caption, version, flags: [...flags, ...kept] });
      marked(entry);
      if (conflict) this.#conflicts.set(picture, { theirs: caption, mine: mine.get(picture) });
      else this.#conflicts.delete(picture);
    }
    const written = now.filter(({ conflict }) => !conflict);
    if (isNoted) this.#history.note(written.map(({ picture }) => ({ picture, before: before.get(picture) })));
    if (written.length < now.length) this.actions.tell("warn", t("Changed elsewhere meanwhile, and left as they are there: {count}", { count: now.length - written.length }));
    this.#fill();
  }

  async #try(action) {
    try {
      return await action();
    } catch (error) {
      this.status.textContent = "";
      this.actions.tell("error", String(error.message ?? error));
    }
  }
}

/** Adds what the page itself sees of a picture. */
function marked(entry) {
  if (entry.mask) entry.flags.push("mask");
  if (isLong(entry.caption)) entry.flags.push("long");
  return entry;
}
