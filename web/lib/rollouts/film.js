/** A recorded rollout: where on its sheet each picture is, and what differs between two of them. */

/**
 * @typedef {{step: number, node: string, items: number, states: number, cell: [number, number], lengths: number[],
 *   solver_steps: number[], timesteps: number[][], sigmas: number[][], drift: number[][], sampler: string}} Facts
 *   as written beside the sheet; the tables are [state][item]
 * @typedef {{step: number, subfolder: string, image: string, data: string, job?: string}} Frames where a film is kept
 */

const MOST_FILMS = 64; // as in runs/pictures/kept.py

/** What tells a film from all others: a run that was deleted may have had the same name. */
export const keyOf = ({ job = "", subfolder, data }) => `${job}/${subfolder}/${data}`;

/** The place of one picture: the teacher-forced states come first, the rolled-out ones after them. */
export function cellAt(facts, row, state, item) {
  const [width, height] = facts.cell;
  const line = (row === "rolled_out" ? facts.states : 0) + state;
  return { x: item * width, y: line * height, width, height };
}

/**
 * What rolling out changed: mid-grey is no difference. All arrays hold RGBA bytes.
 * @param {Uint8ClampedArray} forced
 * @param {Uint8ClampedArray} rolled
 */
export function difference(forced, rolled, gain) {
  const result = new Uint8ClampedArray(forced.length);
  for (let index = 0; index < forced.length; index++) {
    result[index] = index % 4 === 3 ? 255 : 127.5 + (gain / 2) * (rolled[index] - forced[index]);
  }
  return result;
}

/** The largest difference of two pictures, in 0..255. */
export function largestDifference(forced, rolled) {
  let largest = 0;
  for (let index = 0; index < forced.length; index++) {
    if (index % 4 !== 3) largest = Math.max(largest, Math.abs(rolled[index] - forced[index]));
  }
  return largest;
}

/** The solver step that an item has done when the film is at ``state``: one that has arrived stays. */
export function solverStep(facts, state, item) {
  return Math.min(facts.solver_steps[state], facts.lengths[item]);
}

/** The films of a node among the files of a run, oldest first. */
export function framesAmong(files, nodeId) {
  const name = `${nodeId.replaceAll(":", "-")}_step_`;
  return files
    .filter(({ view }) => view.filename.startsWith(name) && /^\d+_frames\.json$/.test(view.filename.slice(name.length)))
    .map(({ view }) => ({
      step: parseInt(view.filename.slice(name.length), 10),
      subfolder: view.subfolder,
      image: view.filename.replace(/\.json$/, ".png"),
      data: view.filename,
    }))
    .sort((a, b) => a.step - b.step);
}

/** The films of a node that are still there: of a long run those that are closest together are taken away. */
export function thinned(films) {
  const kept = [...films];
  while (kept.length > MOST_FILMS) kept.splice(mostCrowded(kept.map(({ step }) => step)), 1);
  return kept;
}

/** The place of the moment whose neighbours are closest to each other, the oldest of several; never an end. */
export function mostCrowded(moments) {
  const gaps = moments.slice(2).map((after, place) => after - moments[place]);
  return 1 + gaps.indexOf(Math.min(...gaps));
}

/** The name of the run that keeps files in ``rollout/<run>/...``; empty if it is no such folder. */
export function runOf(subfolder) {
  return /^rollout[/\\]([^/\\]+)/.exec(subfolder ?? "")?.[1] ?? "";
}
