/** A person's tags and note on a run, edited on its card. */

import { element, iconButton } from "../elements/element.js";
import { t } from "../language/words.js";

/** ``good, face`` as a list; no tag twice, however it is written. */
export function tagsIn(text) {
  const tags = text.split(",").map((tag) => tag.trim().replace(/\s+/g, " ")).filter(Boolean);
  return tags.filter((tag, place) => tags.findIndex((other) => other.toLowerCase() === tag.toLowerCase()) === place);
}

/** All tags of these runs, each once, in the order of people. */
export function tagsOf(runs) {
  const known = new Map(runs.flatMap(({ tags = [] }) => tags).map((tag) => [tag.toLowerCase(), tag]));
  return [...known.values()].sort((a, b) => a.localeCompare(b));
}

/** Whether a run has a tag; every run has none in particular. */
export function hasTag({ tags = [] }, tag) {
  return !tag || tags.some((one) => one.toLowerCase() === tag.toLowerCase());
}

export class NotesEditor {
  #seen;

  /**
   * @param {{name: string, tags: string[], note: string}} run
   * @param {{save: (notes: object, was: object) => Promise<{conflict?: object, failed?: boolean}>, close: () => void}} actions ``save`` tells of what somebody else wrote meanwhile
   */
  constructor({ name, tags = [], note = "" }, actions) {
    this.#seen = { tags, note };
    this.actions = actions;
    const submit = (event) => {
      event.preventDefault();
      return this.#save();
    };
    this.tags = element("input.rollout-input", { type: "text", value: tags.join(", "), placeholder: t("tags, separated by commas") });
    this.tags.setAttribute("aria-label", t("Tags of {run}", { run: name }));
    this.note = element("textarea.rollout-caption-text", { rows: 3, value: note, placeholder: t("note") });
    this.note.setAttribute("aria-label", t("Note on {run}", { run: name }));
    this.clash = element("span.rollout-note.rollout-wraps", { role: "status", hidden: true });
    const save = iconButton("check", t("Save tags and note"), () => {}, t("Save"));
    save.type = "submit";
    this.element = element(
      "form.rollout-notes", { onsubmit: submit, onkeydown: ({ key }) => { if (key === "Escape") this.actions.close(); } }, this.tags, this.note, this.clash,
      element("div.rollout-line", {}, save, iconButton("times", t("Leave tags and note as they were"), () => this.actions.close(), t("Cancel"))),
    );
  }

  async #save() {
    const { conflict, failed } = await this.actions.save({ tags: tagsIn(this.tags.value), note: this.note.value }, this.#seen);
    if (failed) return; // it was told; what is written here stays
    if (!conflict) return this.actions.close();
    this.#seen = conflict; // who saves again has read it
    this.clash.textContent = `${t("Changed elsewhere")}: ${[conflict.tags.join(", "), conflict.note].filter(Boolean).join(" · ") || t("empty")}`;
    this.clash.hidden = false;
  }
}
