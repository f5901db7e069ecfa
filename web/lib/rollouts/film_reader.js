/** Fetches films and cuts pictures out of their sheets. */

import { keyOf } from "./film.js";

const MOST_KEPT = 80;

export class FilmReader {
  #kept = new Map();

  /** @param {import("../server/backend.js").Backend} backend */
  constructor(backend) {
    this.backend = backend;
  }

  /**
   * @param {import("./film.js").Frames} frames
   * @returns {Promise<{facts: import("./film.js").Facts, pixels: (place: object) => Uint8ClampedArray}>}
   */
  read(frames) {
    const key = keyOf(frames);
    const film = this.#kept.get(key) ?? this.#fetch(frames);
    this.#kept.delete(key); // back in as the newest
    this.#kept.set(key, film);
    film.catch(() => this.#kept.delete(key));
    if (this.#kept.size > MOST_KEPT) this.#kept.delete(this.#kept.keys().next().value);
    return film;
  }

  async #fetch({ subfolder, image, data }) {
    const [facts, sheet] = await Promise.all([
      this.backend.viewJson({ filename: data, subfolder }), this.backend.viewImage({ filename: image, subfolder }),
    ]);
    const canvas = Object.assign(document.createElement("canvas"), { width: sheet.width, height: sheet.height });
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(sheet, 0, 0);
    return { facts, pixels: ({ x, y, width, height }) => context.getImageData(x, y, width, height).data };
  }
}
