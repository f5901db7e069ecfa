/** The Data tab of the sidebar: bring pictures in, see them as they are trained on, write their captions. */

import { bringIn, toldOf } from "./bring_in.js";
import { cutOf } from "./buckets.js";
import { History, changesOf, chosen, isLong } from "./caption_edits.js";
import { filesChosen, filesOf, legible } from "./dropped.js";
import { formatBytes } from "./duration.js";
import { element, emptyState, fillSelect, iconButton, select } from "./element.js";
import { VirtualList } from "./virtual_list.js";
import { say, t } from "./words.js";

const ROW = 112; // pixels
const FIRST = 60; // pictures that are shown before all are known
const MUCH = 0.1; // of a picture that is cut away
const FLAGS = { "no caption": "no caption", small: "small", oblong: "very oblong", duplicate: "duplicate", unreadable: "cannot be read", mask: "has a mask", long: "longer than 75 tokens", linked: "caption lies elsewhere" };
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
   * @param {import("./backend.js").Backend} backend
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
    this.#makeBulk();
    this.tools = element("div.rollout-data-tools", {},
      element("div.rollout-line.rollout-wrap", {}, this.search, this.flag, this.sort), element("div.rollout-line.rollout-wrap", {}, this.operation, this.word, this.other, this.apply, this.undo));
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

  #makeBulk() {
    const operations = [["first", t("add in front")], ["last", t("add at the end")], ["remove", t("remove word")], ["replace", t("replace word")]];
    const change = () => this.#tellBulk();
    this.operation = select(t("What to do with all shown captions"), operations, "first", change);
    this.word = element("input.rollout-input", { type: "text", placeholder: t("word"), oninput: change });
    this.word.setAttribute("aria-label", t("Word"));
    this.other = element("input.rollout-input", { type: "text", placeholder: t("by"), oninput: change });
    this.other.setAttribute("aria-label", t("Replace by"));
    this.apply = iconButton("check", t("Change all shown captions"), () => this.#bulk(), t("Change"));
    this.undo = iconButton("undo", t("Undo the last change of captions"), () => this.#try(() => this.#undo()));
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
    if (this.element.isConnected) this.#fill();
  }

  get #shown() {
    return chosen([...this.#entries.values()], this.#wish);
  }

  #filter(change) {
    Object.assign(this.#wish, change);
    this.list.show(this.#shown);
    this.#tellBulk();
  }

  #tellBulk() {
    this.other.hidden = this.operation.value !== "replace";
    const count = changesOf(this.#shown, this.operation.value, this.word.value, this.other.value).length;
    this.apply.lastChild.textContent = t("Change {count}", { count });
    this.apply.setAttribute("aria-label", `${this.apply.lastChild.textContent}: ${this.apply.title}`);
    this.apply.disabled = !count;
    this.undo.disabled = !this.#history.length;
  }

  #row(entry, old) {
    const row = old ?? this.#newRow(entry);
    const { picture, width, height, caption, flags } = entry;
    const { text, facts, cut, mask, flagged, conflict } = row.parts;
    const clash = this.#conflicts.get(picture), shown = clash?.mine ?? caption;
    text.readOnly = flags.includes("linked");
    if (document.activeElement !== text && text.value !== shown) text.value = shown;
    const crop = this.#settings && cutOf([width, height], this.#settings.size, this.#settings.buckets);
    const lost = crop && crop.lost > MUCH ? [t("loses {percent}%", { percent: Math.round(crop.lost * 100) })] : [];
    facts.textContent = `${legible(picture)} · ${width}×${height} · ${formatBytes(entry.bytes)}${crop ? ` → ${crop.size.join("×")}` : ""}`;
    facts.title = facts.textContent;
    flagged.replaceChildren(...[...flags.map((flag) => t(FLAGS[flag] ?? flag)), ...lost].map((word) => element("span.rollout-flag", { title: word === t(FLAGS.duplicate) ? t("the same as {picture}", { picture: entry.same_as }) : word }, word)));
    mask.hidden = !entry.mask;
    cut.hidden = !crop || crop.lost < 0.005;
    if (crop) Object.assign(cut.style, this.#outline(entry, crop.share));
    conflict.hidden = !clash;
    if (clash) conflict.firstChild.textContent = `${t("Changed elsewhere")}: ${clash.theirs || t("empty")} `;
    return row;
  }

  /** Where the middle cut lies on the thumbnail, which shows the whole picture in a square. */
  #outline({ width, height }, [across, down]) {
    const longer = Math.max(width, height), w = (width / longer) * across, h = (height / longer) * down;
    return { left: `${50 - w * 50}%`, top: `${50 - h * 50}%`, width: `${w * 100}%`, height: `${h * 100}%` };
  }

  #newRow({ picture, mask: maskFile }) {
    const at = (path, side) => this.backend.picture(this.#name, path, side);
    const text = element("textarea.rollout-caption-text", { rows: 3, spellcheck: true, placeholder: t("no caption"), onchange: () => this.#try(() => this.#write([[picture, text.value]])) });
    text.setAttribute("aria-label", t("Caption of {picture}", { picture }));
    const image = element("img", { src: at(picture, 192), alt: picture, loading: "lazy", onerror: () => image.replaceWith(element("i.pi.pi-image", { role: "img", ariaLabel: picture })) });
    const cut = element("span.rollout-cut", { title: t("what is trained on") }), facts = element("span.rollout-note"), flagged = element("span.rollout-flags");
    const settle = (label, action) => element("button.rollout-button", { type: "button", onclick: () => this.#try(action) }, label);
    const conflict = element("div.rollout-conflict", { hidden: true }, element("span"),
      settle(t("Keep mine"), () => this.#settle(picture, text.value)), settle(t("Take theirs"), () => this.#settle(picture, null)));
    const mask = element("img.rollout-mask", { src: maskFile ? at(maskFile, 192) : "", alt: t("its mask: white is trained"), title: t("its mask: white is trained"), hidden: !maskFile });
    const row = element("article.rollout-picture", { role: "listitem" },
      element("a.rollout-picture-image", { href: at(picture), target: "_blank", rel: "noopener" }, image, mask, cut),
      element("div.rollout-picture-text", {}, facts, text, flagged, conflict));
    row.parts = { text, facts, cut, mask, flagged, conflict };
    return row;
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

  #bulk() {
    return this.#try(async () => {
      const changes = changesOf(this.#shown, this.operation.value, this.word.value, this.other.value);
      await this.#send(changes, true);
      this.status.textContent = t("{count} captions changed", { count: changes.length });
    });
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
