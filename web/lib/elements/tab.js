/** A tab of the frontend's panels: what is in it is made when it is first shown. */

export class Tab {
  #made = null;

  /** @param {() => {element: HTMLElement}} make the part of the page */
  constructor(make) {
    this.make = make;
  }

  get part() {
    return (this.#made ??= this.make());
  }

  /** The part, while it is on the page; else null. */
  get shown() {
    return this.#made?.element.isConnected ? this.#made : null;
  }

  /** @param {HTMLElement} place that the frontend gives */
  render(place) {
    place.classList.add("rollout-place");
    if (this.part.element.parentElement !== place) place.replaceChildren(this.part.element);
  }
}
