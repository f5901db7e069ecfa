/** The files of a run: all of them as a list, the picture that says most, and the trained weights. */

import { element } from "../elements/element.js";
import { formatBytes } from "../language/amounts.js";
import { t } from "../language/words.js";

const PICTURE = /\.(png|jpe?g|webp)$/i;

/** The picture that says most about a run: its newest samples, or its newest rollout. */
export function thumbnailOf(files) {
  const newest = (folder) => files
    .filter(({ path, view }) => path.startsWith(folder) && PICTURE.test(path) && !view.filename.includes("_frames"))
    .sort((a, b) => a.modified - b.modified || a.path.localeCompare(b.path)).at(-1);
  return (newest("samples/") ?? newest("rollouts/"))?.view ?? null;
}

export class RunFiles {
  #pictures = new Map(); // by run: [the run's last sign of life, the picture]

  /** @param {import("../server/backend.js").Backend} backend */
  constructor(backend) {
    this.backend = backend;
  }

  /** Puts the newest picture of a run into its place; a run without one is still a run. */
  async fillPicture({ name, modified }, place) {
    try {
      if (this.#pictures.get(name)?.[0] !== modified) this.#pictures.set(name, [modified, thumbnailOf(await this.#of(name))]);
    } catch {
      return;
    }
    const view = this.#pictures.get(name)[1];
    if (view) place.replaceChildren(element("img", { src: this.backend.view(view), alt: t("newest picture of {run}", { run: name }), loading: "lazy" }));
  }

  async fillList(name, place) {
    place.replaceChildren(...(await this.#of(name)).map(({ path, size, view }) => element(
      "a", { href: this.backend.view(view), target: "_blank", rel: "noopener", title: path },
      element(`i.pi.pi-${PICTURE.test(path) ? "image" : "file"}`), element("span.rollout-grow", {}, path), element("span.rollout-note", {}, formatBytes(size)),
    )));
  }

  /** Saves the trained weights on this computer: of an adapter its file, of a whole model its largest. */
  async download(name) {
    const weights = (await this.#of(name)).filter(({ path }) => /^model\/.*\.safetensors$/.test(path)).sort((a, b) => b.size - a.size);
    if (!weights.length) throw new Error(t("{run} has no weights yet", { run: name }));
    element("a", { href: this.backend.view(weights[0].view), download: `${name}.safetensors` }).click();
  }

  async #of(name) {
    return (await this.backend.files(name)) ?? [];
  }
}
