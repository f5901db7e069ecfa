/** Two pictures in one place, one on each side of a line that is moved over them. */

import { t } from "../language/words.js";
import { element } from "./element.js";

export class Wipe {
  constructor() {
    this.below = element("canvas");
    this.above = element("canvas.rollout-wipe-above");
    this.line = element("span.rollout-wipe-line");
    this.labels = [element("span.rollout-wipe-label"), element("span.rollout-wipe-label.rollout-wipe-right")];
    this.slider = element("input.rollout-slider", { type: "range", min: 0, max: 100, value: 50, oninput: () => this.#place(Number(this.slider.value)) });
    this.slider.setAttribute("aria-label", t("How much of A is shown before B"));
    this.picture = element("div.rollout-wipe-picture", { onpointermove: (event) => this.#follow(event) }, this.below, this.above, this.line, ...this.labels);
    this.element = element("div.rollout-wipe", {}, element("div.rollout-wipe-stage", {}, this.picture), this.slider);
    this.#place(50);
  }

  /** @param {{name: string, draw: (canvas: HTMLCanvasElement) => void}} a left of the line, and ``b`` right of it, or null */
  show(a, b) {
    a.draw(this.below);
    if (b) b.draw(this.above);
    this.picture.style.setProperty("--rollout-ratio", this.below.width / (this.below.height || 1)); // the line ends where the picture does
    for (const part of [this.above, this.line, this.slider, this.labels[1]]) part.hidden = !b;
    this.labels[0].textContent = a.name;
    this.labels[1].textContent = b?.name ?? "";
  }

  #follow({ buttons, pointerType, clientX }) {
    if (this.slider.hidden || (pointerType !== "mouse" && !buttons)) return;
    const { left, width } = this.picture.getBoundingClientRect();
    this.slider.value = ((clientX - left) / (width || 1)) * 100;
    this.#place(Number(this.slider.value));
  }

  #place(percent) {
    this.above.style.clipPath = `inset(0 0 0 ${percent}%)`;
    this.line.style.left = `${percent}%`;
  }
}
