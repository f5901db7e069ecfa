/** Sheets of samples as decoded pictures, and the cells of one drawn. */

const MOST_KEPT = 32;
const GAP = 4; // pixels between two cells

export class Images {
  #kept = new Map();

  /** A decoded picture; those that were not looked at for longest are let go. */
  get(url) {
    const found = this.#kept.get(url) ?? load(url);
    this.#kept.delete(url);
    this.#kept.set(url, found);
    found.catch(() => this.#kept.delete(url));
    if (this.#kept.size > MOST_KEPT) this.#kept.delete(this.#kept.keys().next().value);
    return found;
  }
}

async function load(url) {
  const image = new Image();
  image.src = url;
  await image.decode();
  return image;
}

/** Draws the images of an item beside each other, pixel by pixel if they are tiny. */
export function drawCells(canvas, image, item) {
  const places = item.places({ width: image.naturalWidth, height: image.naturalHeight });
  const [{ width, height }] = places;
  canvas.width = places.length * (width + GAP) - GAP;
  canvas.height = height;
  canvas.classList.toggle("rollout-pixels", Math.max(width, height) < 96);
  const context = canvas.getContext("2d");
  places.forEach((place, at) => context.drawImage(image, place.x, place.y, width, height, at * (width + GAP), 0, width, height));
}
