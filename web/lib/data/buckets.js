/** To what size a picture is cut, as data/buckets.py does it; sizes are [width, height] in pixels. */

const STEP = 64, MOST_OBLONG = 2;

/** All buckets of at most ``size * size`` pixels. */
export function bucketSizes(size) {
  const square = Math.floor(size / STEP) * STEP, largest = new Map([[1, [square, square]]]);
  for (let short = STEP; short <= size; short += STEP) {
    const long = Math.floor(Math.min(Math.floor((size * size) / short), MOST_OBLONG * short) / STEP) * STEP;
    if (long > short) largest.set(short / long, [short, long]).set(long / short, [long, short]);
  }
  return [...largest.values()];
}

/** The part of a picture that is trained on: ``size`` it is brought to, and its share of width and height. */
export function cutOf([width, height], size, buckets = false) {
  if (!width || !height || !size) return null;
  const ratio = ([w, h]) => h / w;
  const distance = (bucket) => Math.abs(Math.log(ratio(bucket) / ratio([width, height])));
  const target = buckets && size >= STEP ? bucketSizes(size).reduce((best, bucket) => (distance(bucket) < distance(best) ? bucket : best)) : [size, size];
  const scale = Math.max(target[0] / width, target[1] / height);
  const share = [Math.min(1, target[0] / (width * scale)), Math.min(1, target[1] / (height * scale))];
  return { size: target, share, lost: 1 - share[0] * share[1] };
}
