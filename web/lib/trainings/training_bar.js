/** The training that goes on, in one line over the canvas, whichever workflow is on it; in the end, how it ended. */

import { factsOf } from "../curves/loss_card.js";
import { element, iconButton } from "../elements/element.js";
import { t } from "../language/words.js";

export class TrainingBar {
  /**
   * @param {() => HTMLElement} home what the line is over
   * @param {{stop: () => void, show: () => void, announcer?: import("./announcer.js").Announcer}} actions ``show`` brings
   *   the training's workflow or node into view
   */
  constructor(home, { stop, show, announcer }) {
    this.home = home;
    this.announcer = announcer;
    this.bell = iconButton("bell", t("Tell me when it has ended, also where I look at something else"), () => announcer.ask().then(() => (this.bell.hidden = !announcer.mayAsk)));
    this.title = element("button.rollout-bar-title", { type: "button", onclick: show, title: t("Show it on the canvas") });
    this.facts = element("span.rollout-bar-facts");
    this.filled = element("span");
    this.track = element("span.rollout-track", { role: "progressbar" }, this.filled);
    this.stop = iconButton("stop-circle", t("Stop the run; it saves what it has learnt"), stop, t("Stop"));
    this.close = iconButton("times", t("Close"), () => this.hide());
    this.buttons = element("span.rollout-bar-buttons");
    this.element = element("div.rollout-bar", { hidden: true, role: "status" }, this.title, this.facts, this.track, this.buttons, this.bell, this.stop, this.close);
    this.room = element("div.rollout-bar-room", {}, this.element);
  }

  hide() {
    this.element.hidden = true;
  }

  /** @param {import("./recordings.js").Recording} recording of the trainer */
  showTraining(title, recording) {
    const { metrics, total } = recording, done = metrics.lastStep + 1;
    this.#show("training", title, factsOf(recording).join(" · "));
    const share = total ? done / total : 0;
    this.track.setAttribute("aria-valuenow", Math.round(share * 100));
    this.track.setAttribute("aria-label", title);
    this.filled.style.transform = `scaleX(${share})`;
    this.track.hidden = !total;
    this.stop.hidden = false;
    this.bell.hidden = !this.announcer?.mayAsk;
    this.close.hidden = true;
  }

  /** @param {"finished"|"stopped"|"failed"} kind */
  showEnd(kind, title, facts, ...buttons) {
    this.#show(kind, title, facts);
    this.track.hidden = this.stop.hidden = this.bell.hidden = true;
    this.close.hidden = false;
    this.buttons.replaceChildren(...buttons.filter(Boolean));
  }

  #show(kind, title, facts) {
    const home = this.home(); // which the frontend may have made after us
    if (this.room.parentElement !== home) home.append(this.room);
    this.element.hidden = false;
    this.element.dataset.kind = kind;
    if (this.title.textContent !== title) this.title.textContent = title;
    if (this.facts.textContent !== facts) this.facts.textContent = facts;
    this.buttons.replaceChildren();
  }
}
