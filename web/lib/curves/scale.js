/** From numbers to places on a screen: scales and their ticks. */

/** @typedef {{map: (value: number) => number, invert: (place: number) => number, ticks: (count: number) => number[]}} Scale */

/**
 * The smallest and largest of the finite numbers; null if there is none.
 * @param {Iterable<number|null|undefined>} values
 * @param {boolean} positiveOnly leave out what a logarithm cannot show
 * @returns {[number, number]|null}
 */
export function extent(values, positiveOnly = false) {
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    if (!Number.isFinite(value) || (positiveOnly && value <= 0)) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return low <= high ? [low, high] : null;
}

const NOTHING = 1e-9; // a difference, compared with the numbers themselves, that is rounding and no curve

/** Some room above and below, so that no curve runs along the frame; a constant gets a range around it. */
export function padded([low, high], share = 0.06) {
  const room = high - low > NOTHING * Math.max(Math.abs(low), Math.abs(high)) ? (high - low) * share : Math.abs(high) * share || 0.5;
  return [low - room, high + room];
}

/** The same on a logarithmic axis. */
export function paddedLog([low, high], share = 0.06) {
  const [from, to] = padded([Math.log10(low), Math.log10(high)], share);
  return [10 ** from, 10 ** to];
}

/** @returns {Scale} */
export function linear([low, high], [from, to]) {
  const slope = high === low ? 0 : (to - from) / (high - low);
  return {
    map: (value) => from + (value - low) * slope,
    invert: (place) => (slope === 0 ? low : low + (place - from) / slope),
    ticks: (count) => niceTicks(low, high, count),
  };
}

/** @returns {Scale} for numbers above 0 */
export function logarithmic([low, high], range) {
  const inner = linear([Math.log10(low), Math.log10(high)], range);
  return {
    map: (value) => inner.map(Math.log10(value)),
    invert: (place) => 10 ** inner.invert(place),
    ticks: (count) => logTicks(low, high, count),
  };
}

/** About ``count`` round numbers (1, 2 or 5 times a power of ten apart) within the range. */
export function niceTicks(low, high, count) {
  if (!(high - low > NOTHING * Math.max(Math.abs(low), Math.abs(high))) || count < 1) return [];
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999) * power;
  const ticks = [];
  for (let index = Math.ceil(low / step - 1e-9); index * step <= high + step * 1e-9; index++) {
    ticks.push(Number((index * step).toPrecision(12)));
  }
  return ticks;
}

/** Powers of ten, with 2 and 5 between them where there is room; round numbers where the range is below a decade. */
export function logTicks(low, high, count) {
  const decades = Math.log10(high / low);
  if (!(decades > 0)) return [];
  if (decades < 1) return niceTicks(low, high, count).filter((tick) => tick > 0);
  const factors = decades <= count / 3 ? [1, 2, 5] : [1];
  const every = Math.max(1, Math.ceil(decades / count));
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
    if (power % every !== 0) continue;
    for (const factor of factors) {
      const tick = Number((factor * 10 ** power).toPrecision(12));
      if (tick >= low && tick <= high) ticks.push(tick);
    }
  }
  return ticks;
}
