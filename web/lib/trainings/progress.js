/** What the page says of the training, whichever workflow is on the canvas: how far it is, and how it ended. */

import { iconButton } from "../elements/element.js";
import { formatDuration } from "../language/amounts.js";
import { t } from "../language/words.js";
import { buttonsOf, savedIn, viewOf } from "./ended.js";
import { TrainingBar } from "./training_bar.js";

export class Progress {
  #bar = null; // the line over the canvas, once the page is there

  /**
   * @param {{canvas: import("../graph/canvas.js").Canvas, sight: import("../graph/sight.js").Sight, recordings: import("./recordings.js").Recordings,
   *   memory: import("./memory.js").Memory, backend: import("../server/backend.js").Backend, announcer: import("./announcer.js").Announcer}} world
   * @param {{attempt: (action: () => Promise<void>) => () => Promise<void>, load: (run: string) => Promise<void>, stop: () => void,
   *   resume: (run: object) => void, samples: (run: string) => void, tryIt: (run: string, path: string) => void, copy: (text: string) => void}} actions
   *   ``attempt`` says what goes wrong in an action
   */
  constructor({ canvas, sight, recordings, memory, backend, announcer }, actions) {
    Object.assign(this, { canvas, sight, recordings, memory, backend, announcer, actions });
  }

  /** From now on it is said in a line over ``home()``. */
  addBar(home) {
    this.#bar = new TrainingBar(home, { stop: this.actions.stop, show: this.actions.attempt(() => this.#bringIntoView()), announcer: this.announcer });
  }

  show() {
    const training = this.recordings.training;
    if (!training?.recording.running) return;
    const title = this.#isElsewhere(training) ? t("Training in another workflow") : this.canvas.titleOf(training.node);
    this.#bar?.showTraining(title, training.recording);
  }

  /** @param {"finished"|"stopped"|"failed"} kind */
  async end(kind, why = "") {
    this.recordings.end(kind === "finished" ? "" : kind);
    const training = this.recordings.training;
    if (!training) return this.#bar?.hide();
    const { run } = training.recording, facts = run ? await this.backend.run(run).catch(() => null) : null;
    if (this.recordings.training?.recording.running) return; // the next one has begun
    const { title, told, buttons = [] } = this.#outcome(kind, why, training, facts);
    this.announcer.tell(kind, title, told);
    if (kind === "failed" && !this.#isElsewhere(training)) return this.#bar?.hide(); // the frontend itself tells it
    this.#bar?.showEnd(kind, title, told, ...buttons);
  }

  #isElsewhere({ home }) {
    return home !== this.canvas.workflowId;
  }

  /** What is said of an end, and what can be done then. ``facts`` of the run, null where nobody knows them. */
  #outcome(kind, why, training, facts) {
    const steps = (training.recording.metrics.lastStep + 1).toLocaleString("en-US");
    if (kind === "failed") return { title: t("Failed"), told: why };
    if (kind === "finished") return this.#result(training, facts, steps);
    const resume = facts?.can_resume && iconButton("play", t("Go on with the run where it was"), () => this.actions.resume(facts), t("Resume"));
    return { title: facts?.can_resume ? t("Stopped, saved") : t("Stopped"), told: t("after step {step}", { step: steps }), buttons: [resume] };
  }

  #result(training, facts, steps) {
    const saved = this.#isElsewhere(training) ? null : savedIn(this.canvas.nodes(), (id) => this.memory.wordsOf(id));
    const names = saved?.paths.map((path) => path.split(/[\\/]/).at(-1)).join(", ");
    const told = [t("{steps} steps", { steps }), facts?.seconds && formatDuration(facts.seconds), names].filter(Boolean).join(" · ");
    const place = saved && facts && viewOf(saved.paths[0]);
    const buttons = buttonsOf({ saved, run: training.recording.run, view: place && this.backend.view(place), actions: this.actions });
    return { title: t(saved?.title ?? "Trained"), told, buttons };
  }

  /** Brings the node that trains into view, or the workflow that it is in. */
  async #bringIntoView() {
    const training = this.recordings.training;
    if (!training) return;
    if (this.#isElsewhere(training) && training.recording.run) await this.actions.load(training.recording.run);
    const node = this.canvas.nodeAt(training.node);
    if (node) this.sight.show(node);
  }
}
