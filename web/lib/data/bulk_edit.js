/** One change for all captions that are shown: a word is put in front or at the end, removed or replaced. */

import { element, iconButton, select } from "../elements/element.js";
import { t } from "../language/words.js";
import { changesOf } from "./caption_edits.js";

export class BulkEdit {
  /**
   * @param {{shown: () => object[], change: (changes: object[]) => void, undo: () => void}} actions ``shown``: the pictures
   *   whose captions are changed
   */
  constructor({ shown, change, undo }) {
    this.shown = shown;
    const operations = [["first", t("add in front")], ["last", t("add at the end")], ["remove", t("remove word")], ["replace", t("replace word")]];
    this.operation = select(t("What to do with all shown captions"), operations, "first", () => this.#tell());
    this.word = this.#field(t("word"), t("Word"));
    this.other = this.#field(t("by"), t("Replace by"));
    this.apply = iconButton("check", t("Change all shown captions"), () => change(this.#changes), t("Change"));
    this.undo = iconButton("undo", t("Undo the last change of captions"), undo);
    this.element = element("div.rollout-line.rollout-wrap", {}, this.operation, this.word, this.other, this.apply, this.undo);
  }

  #field(placeholder, label) {
    const field = element("input.rollout-input", { type: "text", placeholder, oninput: () => this.#tell() });
    field.setAttribute("aria-label", label);
    return field;
  }

  /** Other pictures or captions are shown. */
  show(canUndo) {
    this.undo.disabled = !canUndo;
    this.#tell();
  }

  get #changes() {
    return changesOf(this.shown(), this.operation.value, this.word.value, this.other.value);
  }

  /** The button says how many captions it would change. */
  #tell() {
    this.other.hidden = this.operation.value !== "replace";
    const count = this.#changes.length;
    this.apply.lastChild.textContent = t("Change {count}", { count });
    this.apply.setAttribute("aria-label", `${this.apply.lastChild.textContent}: ${this.apply.title}`);
    this.apply.disabled = !count;
  }
}
