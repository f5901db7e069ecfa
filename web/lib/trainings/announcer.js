/** Tells a person who looks elsewhere that a training has ended: in the page's title, and by the browser if they allowed it. */

const MARKS = { finished: "✓", stopped: "■", failed: "✗" };

export class Announcer {
  #mark = "";

  /** @param {Document} page */
  constructor(page, Notice = globalThis.Notification) {
    this.page = page;
    this.Notice = Notice;
    this.observer = new MutationObserver(() => this.#keep()); // the frontend writes the title, too
    for (const event of ["focus", "pointerdown", "keydown"]) page.defaultView.addEventListener(event, () => this.#seen(), { capture: true });
    page.addEventListener("visibilitychange", () => !page.hidden && page.hasFocus() && this.#seen());
  }

  /** Whether the browser would have to ask the person first. */
  get mayAsk() {
    return this.Notice?.permission === "default";
  }

  /** Asks the person; only from within a click. */
  async ask() {
    return (await this.Notice.requestPermission()) === "granted";
  }

  /** @param {"finished"|"stopped"|"failed"} kind */
  tell(kind, title, body) {
    if (!this.page.hidden && this.page.hasFocus()) return;
    this.#mark = `${MARKS[kind]} ${title} · `;
    this.observer.observe(this.page.head, { subtree: true, childList: true, characterData: true });
    this.#keep();
    if (this.Notice?.permission !== "granted") return;
    const notice = new this.Notice(title, { body, tag: "rollout-ended" });
    notice.onclick = () => this.page.defaultView.focus();
  }

  #keep() {
    if (this.#mark && !this.page.title.startsWith(this.#mark)) this.page.title = this.#mark + this.page.title;
  }

  #seen() {
    if (!this.#mark) return;
    this.observer.disconnect();
    if (this.page.title.startsWith(this.#mark)) this.page.title = this.page.title.slice(this.#mark.length);
    this.#mark = "";
  }
}
