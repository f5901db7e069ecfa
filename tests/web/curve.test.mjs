import assert from "node:assert/strict";
import { test } from "node:test";
import { decimate, lowerBound, nearest, pathString, shifted, smooth, zoomed } from "../../web/lib/curves/curve.js";

test("smoothing keeps a constant, starts at the first value, and leaves gaps", () => {
  assert.deepEqual(smooth([2, 2, 2], 0.9).map((value) => Math.round(value * 1e9) / 1e9), [2, 2, 2]);
  const values = [4, null, 0, 0];
  assert.equal(smooth(values, 0), values);
  const smoothed = smooth(values, 0.5);
  assert.equal(smoothed[0], 4);
  assert.equal(smoothed[1], null);
  assert.ok(smoothed[2] > smoothed[3] && smoothed[3] > 0);
});

test("the nearest point is found at the ends and between", () => {
  const xs = [0, 10, 20, 40];
  assert.deepEqual([-5, 0, 4, 5.1, 29, 31, 99].map((x) => nearest(xs, x)), [0, 0, 0, 1, 2, 3, 3]);
  assert.equal(nearest([], 1), -1);
  assert.equal(lowerBound(xs, 10), 1);
  assert.equal(lowerBound(xs, 41), 4);
});

test("few points are all drawn", () => {
  assert.deepEqual(decimate([0, 1, 2], [5, null, 7], [0, 2], 100), [[0, 5], [1, null], [2, 7]]);
});

test("many points become at most four a pixel, and no spike is lost", () => {
  const xs = Array.from({ length: 100_000 }, (_, index) => index);
  const ys = xs.map((x) => (x === 54_321 ? 1000 : x === 777 ? -1000 : Math.sin(x / 900)));
  const points = decimate(xs, ys, [0, 99_999], 300);
  assert.ok(points.length <= 4 * 301);
  assert.ok(points.some(([x, y]) => x === 54_321 && y === 1000));
  assert.ok(points.some(([x, y]) => x === 777 && y === -1000));
  assert.ok(points.every(([x], index) => index === 0 || x > points[index - 1][0]));
  assert.deepEqual(points[0], [0, 0]);
  assert.equal(points.at(-1)[0], 99_999);
});

test("a zoomed curve leaves the picture where it should", () => {
  const xs = Array.from({ length: 1000 }, (_, index) => index);
  const points = decimate(xs, xs, [100, 110], 50);
  assert.equal(points[0][0], 99);
  assert.equal(points.at(-1)[0], 111);
});

test("a hundred thousand points are decimated within a frame", () => {
  const xs = Array.from({ length: 100_000 }, (_, index) => index), ys = xs.map(Math.sqrt);
  decimate(xs, ys, [0, 99_999], 800);
  const begun = performance.now();
  for (let index = 0; index < 10; index++) decimate(xs, ys, [0, 99_999], 800);
  assert.ok((performance.now() - begun) / 10 < 50);
});

test("a gap lifts the pen", () => {
  assert.equal(pathString([[0, 1], [2.04, 3], [4, null], [5, 6], [7, 8]]), "M0 1L2 3M5 6L7 8");
  assert.equal(pathString([]), "");
});

test("zooming keeps the place under the pointer and stays within bounds", () => {
  const full = [0, 1000];
  const range = zoomed([0, 1000], 250, 0.5, full);
  assert.deepEqual(range, [125, 625]);
  assert.equal((250 - range[0]) / (range[1] - range[0]), 0.25);
  assert.deepEqual(zoomed(range, 250, 100, full), full);
  assert.deepEqual(zoomed([500, 504], 502, 0.01, full, 4), [500, 504]);
  assert.deepEqual(shifted([100, 200], -500, full), [0, 100]);
  assert.deepEqual(shifted([100, 200], 5000, full), [900, 1000]);
});
