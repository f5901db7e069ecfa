/** Which other runs are drawn beside one, and by which settings they can be told from one another. */

import { element } from "../elements/element.js";
import { settingsApart } from "../graph/settings_diff.js";
import { t } from "../language/words.js";
import { Metrics } from "./metrics.js";

const MOST = 5; // beside the run itself: as many colours as there are
const MOST_SETTINGS = 4;

export class Comparison {
  #others = new Map(); // by run: its metrics
  #prompts = new Map(); // by run: what was executed, null where nobody knows
  #apart = new Map();
  #own = "";

  /**
   * @param {import("../server/backend.js").Backend} backend
   * @param {() => void} changed
   */
  constructor(backend, changed) {
    this.backend = backend;
    this.changed = changed;
    this.summary = element("summary.rollout-button", { title: t("Compare with other runs") });
    this.list = element("div.rollout-compare-list", {});
    this.element = element("details.rollout-compare", { ontoggle: () => this.element.open && this.#fill(), onkeydown: (event) => this.#close(event) }, this.summary, this.list);
    this.#tell();
  }

  /** @returns {[string, Metrics][]} by run */
  get others() {
    return [...this.#others].filter(([run]) => run !== this.#own);
  }

  /** The run that the others are compared with. */
  set own(run) {
    if (run === this.#own) return;
    this.#own = run;
    this.#tellApart();
  }

  /** What a run's settings are where they differ from the others', in one short line and in full. */
  labelOf(run) {
    const told = this.#apart.get(run) ?? [];
    const more = told.length > MOST_SETTINGS ? ` +${told.length - MOST_SETTINGS}` : "";
    return { short: told.slice(0, MOST_SETTINGS).join(" · ") + more, full: [run, ...told].join("\n") };
  }

  async add(run) {
    if (this.#others.has(run) || this.others.length >= MOST) return;
    const metrics = new Metrics();
    this.#others.set(run, metrics);
    try {
      metrics.add(await this.backend.rows(run));
    } catch {
      this.#others.delete(run); // it was deleted meanwhile
    }
    await this.#tellApart();
  }

  async remove(run) {
    this.#others.delete(run);
    await this.#tellApart();
  }

  async #tellApart() {
    this.#tell();
    this.changed();
    const runs = [...new Set([this.#own, ...this.#others.keys()])].filter(Boolean);
    if (runs.length < 2) return this.#apart.clear();
    await Promise.all(runs.map(async (run) => {
      if (!this.#prompts.has(run)) this.#prompts.set(run, await this.backend.viewJson({ filename: "prompt.json", subfolder: `rollout/${run}` }).catch(() => null));
    }));
    this.#apart = settingsApart(new Map(runs.map((run) => [run, this.#prompts.get(run)]).filter(([, prompt]) => prompt)));
    this.changed();
  }

  #tell() {
    const count = this.others.length;
    this.summary.textContent = count ? t("compared with {count}", { count }) : t("compare with …");
    const isFull = count >= MOST;
    for (const box of this.list.querySelectorAll?.("input") ?? []) {
      box.checked = this.#others.has(box.value);
      box.disabled = isFull && !box.checked;
    }
  }

  async #fill() {
    const runs = await this.backend.runs().catch(() => null);
    const known = new Set(runs?.map(({ name }) => name));
    for (const run of this.#others.keys()) if (runs && !known.has(run)) this.#others.delete(run);
    const earlier = (runs ?? []).filter(({ name }) => name !== this.#own);
    const box = (name) => element("input", { type: "checkbox", value: name, onchange: ({ target }) => (target.checked ? this.add(name) : this.remove(name)) });
    const rows = earlier.map(({ name, tags = [] }) => element("label", {}, box(name), ` ${name} `, tags.length > 0 && element("span.rollout-note", {}, tags.join(", "))));
    this.list.replaceChildren(...(rows.length ? rows : [element("span.rollout-note", {}, runs ? t("no earlier runs") : t("no list of runs on this server"))]));
    this.#tell();
  }

  #close(event) {
    if (event.key !== "Escape" || !this.element.open) return;
    event.stopPropagation();
    this.element.open = false;
    this.summary.focus();
  }
}
