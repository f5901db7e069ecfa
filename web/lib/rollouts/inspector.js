/**
 * The rollout inspector: the same few items, teacher-forced and rolled out, with what differs. One slider goes along
 * the solver's steps, the other along the training. Small on the node, large in the panel.
 */

import { element, emptyState, fillSelect, iconButton, select, slider } from "../elements/element.js";
import { formatNumber } from "../language/amounts.js";
import { say, t } from "../language/words.js";
import { keyOf, solverStep } from "./film.js";
import { fullGain, ItemHistory, paint, picture, picturesOf } from "./item_history.js";

const ROWS = [
  ["teacher_forced", "teacher-forced", "perfectly noised to the level of this solver step"],
  ["rolled_out", "rolled out", "denoised by the model itself, from its source down to this solver step"],
  ["difference", "difference", "rolled out minus teacher-forced; mid-grey is no difference"],
];
const GAINS = [["auto", "auto"], ...[1, 2, 4, 8, 16, 32].map((gain) => [String(gain), `×${gain}`])];
const FRAME_MS = 350;

export class Inspector {
  #film = null;
  #frames = [];
  #shown = ""; // which film is on the screen
  #gone = new Set(); // films that are no longer there: thinned out in a long run, or deleted with it
  #step = null; // the training step that was chosen; null follows the newest
  #state = null; // the solver state that was chosen; null is the target
  #gain = "auto";
  #item = -1; // whose history is shown; by default the cleanest
  #timer = 0;

  /**
   * @param {import("./film_reader.js").FilmReader} reader
   * @param {{large?: boolean, open?: () => void}} [options] ``open`` shows the large one
   */
  constructor(reader, { large = false, open } = {}) {
    this.reader = reader;
    this.large = large;
    this.history = large ? new ItemHistory(reader) : null;
    this.cells = element("div.rollout-cells");
    this.solver = slider(t("Solver step, from source to target"), (state) => this.#scrub(state));
    this.training = slider(t("Training step"), (place) => this.#choose(place));
    this.play = iconButton("play", t("Play the rollout from source to target"), () => this.#toggle());
    this.gain = select(t("Gain of the difference"), GAINS.map(([key, text]) => [key, t(text)]), "auto", (gain) => ((this.#gain = gain), this.#draw()));
    this.solverText = element("span.rollout-value");
    this.trainingText = element("span.rollout-value");
    this.note = element("span.rollout-note");
    this.controls = element(
      "div.rollout-controls", {},
      element("div.rollout-line", {}, this.play, element("label", {}, t("solver")), this.solver, this.solverText),
      element(
        "div.rollout-line", {},
        open ? iconButton("expand", t("Open the inspector large"), open) : element("span.rollout-button-space"),
        element("label", {}, t("training")), this.training, this.trainingText,
      ),
      element("div.rollout-line.rollout-line-end", {}, this.note, element("label", {}, t("gain")), this.gain),
    );
    this.stage = element("div.rollout-stage", {}, this.cells, this.history?.element);
    this.empty = emptyState(t("Run the workflow to see rollouts here"), "");
    this.element = element(`div.rollout-inspector${large ? ".rollout-large" : ""}`, {}, this.empty, this.stage, this.controls);
    this.#setEmpty(true);
  }

  /** What is shown before the first film. */
  setHint(title, hint = "") {
    this.empty.replaceWith((this.empty = emptyState(title, hint)));
    this.#setEmpty(!this.#film);
  }

  /** @param {import("./film.js").Frames[]} frames all films of the node, oldest first */
  async show(frames) {
    this.#frames = frames.filter((one) => !this.#gone.has(keyOf(one)));
    if (this.#frames.length) return this.#load();
    this.#film = null;
    this.#shown = "";
    if (frames.length) this.setHint(t("These rollouts are gone"), t("Their run was deleted."));
    else this.#step = null;
    this.#setEmpty(true);
  }

  /** Ends what would go on by itself. */
  stop() {
    clearInterval(this.#timer);
    this.#timer = 0;
    this.play.firstChild.className = "pi pi-play";
  }

  #setEmpty(isEmpty) {
    this.empty.hidden = !isEmpty;
    this.stage.hidden = this.controls.hidden = isEmpty;
    if (isEmpty) this.stop();
  }

  /** The film of the chosen training step, or the newest. */
  get #current() {
    const chosen = this.#step === null ? -1 : this.#frames.findLastIndex((frames) => frames.step <= this.#step);
    return chosen < 0 ? this.#frames.length - 1 : chosen;
  }

  async #load() {
    const place = this.#current, frames = this.#frames[place];
    this.training.max = this.#frames.length - 1;
    this.training.value = place;
    this.trainingText.textContent = t("step {step}", { step: frames.step.toLocaleString("en-US") });
    this.#loadHistory();
    const key = keyOf(frames);
    if (key === this.#shown) return;
    this.#shown = key;
    try {
      const film = await this.reader.read(frames);
      if (this.#shown !== key) return; // the user went on meanwhile
      this.#film = film;
      this.#setEmpty(false);
      this.#build();
      this.#draw();
    } catch (error) {
      if (this.#shown !== key) return;
      this.#shown = "";
      if (error.status === 404) {
        this.#gone.add(key);
        await this.show(this.#frames);
      } else {
        this.#film = null;
        this.setHint(t("These rollouts cannot be read"), say(String(error.message ?? error)));
      }
    }
  }

  async #loadHistory() {
    if (await this.history?.load(this.#frames)) this.#drawHistory();
  }

  #choose(place) {
    this.#step = place === this.#frames.length - 1 ? null : this.#frames[place].step;
    this.#load();
  }

  #scrub(state) {
    this.stop();
    this.#state = state === this.#film.facts.states - 1 ? null : state;
    this.#draw();
  }

  #toggle() {
    if (this.#timer) return this.stop();
    const last = this.#film.facts.states - 1;
    if (this.#shownState === last) this.#state = 0;
    this.#draw();
    this.play.firstChild.className = "pi pi-pause";
    this.#timer = setInterval(() => {
      if (!this.element.isConnected) return this.stop();
      const next = this.#shownState + 1;
      this.#state = next >= last ? null : next;
      this.#draw();
      if (next >= last) this.stop();
    }, Math.max(40, Math.min(FRAME_MS, 3000 / last)));
  }

  get #shownState() {
    const last = this.#film.facts.states - 1;
    return this.#state === null ? last : Math.min(this.#state, last);
  }

  /** The grid of canvases: one column an item, a line for each kind of picture, captions below. */
  #build() {
    const { items, cell, states } = this.#film.facts;
    this.solver.max = states - 1;
    const shape = `${items}x${cell}`;
    if (this.cells.dataset.shape === shape) return;
    this.cells.dataset.shape = shape;
    this.cells.style.setProperty("--rollout-items", items);
    const line = ([kind, title, meaning]) => [
      element("span.rollout-row-name", { title: t(meaning) }, t(title)),
      ...Array.from({ length: items }, (_, item) => Object.assign(picture(kind, cell), { ariaHidden: "true", onclick: () => this.#select(item) })),
    ];
    const captions = Array.from({ length: items }, (_, item) => element("button.rollout-caption", {
      type: "button", title: t("Item {item} over the training", { item: item + 1 }), onclick: () => this.#select(item),
    })); // for the keyboard: the pictures above are for the pointer
    this.cells.replaceChildren(...ROWS.flatMap(line), ...(this.large ? [element("span.rollout-row-name"), ...captions] : []));
    this.captions = captions;
  }

  #select(item) {
    this.#item = item;
    this.#drawHistory();
  }

  #draw() {
    const film = this.#film, { facts } = film, state = this.#shownState, gain = this.#shownGain;
    for (let item = 0; item < facts.items; item++) {
      const shown = picturesOf(film, state, item, gain), title = this.#describe(state, item);
      for (const [kind] of ROWS) {
        const canvas = this.cells.querySelectorAll(`.rollout-${kind}`)[item];
        paint(canvas, shown[kind]);
        canvas.title = title;
      }
      if (this.large) this.#caption(state, item);
    }
    this.solver.value = state;
    this.solverText.textContent = t("{step} of {steps}", { step: facts.solver_steps[state], steps: facts.solver_steps.at(-1) });
    const levels = facts.sigmas[state];
    this.note.textContent = `${facts.sampler} · σ ${formatNumber(Math.min(...levels), 2)} – ${formatNumber(Math.max(...levels), 2)}`;
    fillSelect(this.gain, GAINS.map(([key, text]) => [key, key === "auto" ? t("auto ×{gain}", { gain: formatNumber(gain, 2) }) : text]), this.#gain);
    this.#drawHistory();
  }

  #drawHistory() {
    if (!this.history || !this.#film) return;
    const { items, step } = this.#film.facts;
    const item = this.#item < 0 || this.#item >= items ? items - 1 : this.#item;
    this.history.draw(item, this.#shownState, this.#shownGain, step);
    this.captions.forEach((caption, place) => {
      caption.classList.toggle("rollout-chosen", place === item);
      caption.setAttribute("aria-pressed", place === item);
    });
  }

  get #shownGain() {
    return this.#gain === "auto" ? (this.#film.gain ??= fullGain(this.#film)) : Number(this.#gain);
  }

  #describe(state, item) {
    const { timesteps, sigmas, drift, lengths } = this.#film.facts;
    return [
      t("solver step {step} of {steps}", { step: solverStep(this.#film.facts, state, item), steps: lengths[item] }),
      t("timestep {timestep}, σ {sigma}", { timestep: formatNumber(timesteps[state][item]), sigma: formatNumber(sigmas[state][item]) }),
      t("drift {drift} (root mean square)", { drift: formatNumber(drift[state][item]) }),
    ].join("\n");
  }

  #caption(state, item) {
    const { timesteps, sigmas, drift, lengths } = this.#film.facts;
    const step = solverStep(this.#film.facts, state, item);
    this.captions[item].classList.toggle("rollout-arrived", step === lengths[item]);
    this.captions[item].replaceChildren(
      element("b", {}, t("step {step} of {steps}", { step, steps: lengths[item] })),
      element("span", {}, `t ${formatNumber(timesteps[state][item])}`),
      element("span", {}, `σ ${formatNumber(sigmas[state][item], 2)}`),
      element("span", {}, t("drift {drift}", { drift: formatNumber(drift[state][item], 2) })),
    );
  }
}
