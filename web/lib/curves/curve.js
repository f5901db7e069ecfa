/** What is done to a series of measurements before it is drawn. A measurement that is missing is null. */

/**
 * Exponential moving average. The first values count no more than the others; gaps stay gaps.
 * @param {(number|null)[]} values
 * @param {number} amount 0 = as measured, towards 1 = smoother
 */
export function smooth(values, amount) {
  if (!(amount > 0)) return values;
  let sum = 0, weight = 0;
  return values.map((value) => {
    if (!Number.isFinite(value)) return null;
    sum = amount * sum + (1 - amount) * value;
    weight = amount * weight + (1 - amount);
    return sum / weight;
  });
}

/** The index of the first of the ascending numbers that is not below ``x``; their count if all are. */
export function lowerBound(xs, x) {
  let low = 0, high = xs.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (xs[middle] < x) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The index of the ascending numbers that is nearest to ``x``; -1 if there are none. */
export function nearest(xs, x) {
  const after = lowerBound(xs, x);
  if (after === 0) return xs.length ? 0 : -1;
  if (after === xs.length) return after - 1;
  return x - xs[after - 1] <= xs[after] - x ? after - 1 : after;
}

/**
 * As many points as a screen can show: of each pixel column the first, lowest, highest and last, so that no spike is
 * lost. The neighbours outside the range are kept too: the line leaves the picture where it should.
 * @param {number[]} xs ascending
 * @param {(number|null)[]} ys
 * @param {[number, number]} range of x
 * @param {number} columns
 * @returns {[number, number|null][]}
 */
export function decimate(xs, ys, [low, high], columns) {
  const from = Math.max(0, lowerBound(xs, low) - 1);
  const to = Math.min(xs.length, lowerBound(xs, high) + 2);
  const points = [];
  if (to - from <= 4 * columns || !(high > low)) {
    for (let index = from; index < to; index++) points.push([xs[index], finite(ys[index])]);
    return points;
  }
  const width = (high - low) / columns;
  for (let index = from; index < to; ) {
    const column = Math.floor((xs[index] - low) / width);
    let end = index;
    while (end < to && Math.floor((xs[end] - low) / width) === column) end++;
    for (const kept of outline(ys, index, end)) points.push([xs[kept], finite(ys[kept])]);
    index = end;
  }
  return points;
}

/** The indices of the first, lowest, highest and last value in between, in order, each once. */
function outline(ys, from, to) {
  let lowest = -1, highest = -1;
  for (let index = from; index < to; index++) {
    if (!Number.isFinite(ys[index])) continue;
    if (lowest < 0 || ys[index] < ys[lowest]) lowest = index;
    if (highest < 0 || ys[index] > ys[highest]) highest = index;
  }
  const kept = new Set([from, lowest, highest, to - 1].filter((index) => index >= 0));
  return [...kept].sort((a, b) => a - b);
}

const finite = (value) => (Number.isFinite(value) ? value : null);

/** Points on the screen as the ``d`` of an SVG path; a gap lifts the pen. */
export function pathString(points) {
  let pen = "M", path = "";
  for (const [x, y] of points) {
    if (y === null) {
      pen = "M";
      continue;
    }
    path += `${pen}${round(x)} ${round(y)}`;
    pen = "L";
  }
  return path;
}

const round = (value) => Math.round(value * 10) / 10;

/**
 * A range after turning the wheel: ``factor`` below 1 comes nearer; the place under the pointer stays where it is.
 * Never beyond ``full``, never below ``least``.
 */
export function zoomed([low, high], at, factor, full, least = 1) {
  const span = Math.min(full[1] - full[0], Math.max(least, (high - low) * factor));
  const share = high > low ? (at - low) / (high - low) : 0.5;
  return shifted([at - share * span, at - share * span + span], 0, full);
}

/** A range moved by ``distance``, but not out of ``full``. */
export function shifted([low, high], distance, full) {
  const span = high - low;
  const start = Math.max(full[0], Math.min(full[1] - span, low + distance));
  return [start, start + span];
}
