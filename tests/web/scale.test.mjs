import assert from "node:assert/strict";
import { test } from "node:test";
import { formatNumber } from "../../web/lib/language/amounts.js";
import { extent, linear, logarithmic, logTicks, niceTicks, padded, paddedLog } from "../../web/lib/curves/scale.js";

test("a scale maps its ends to the ends and back", () => {
  for (const scale of [linear([2, 6], [100, 0]), logarithmic([0.01, 100], [0, 300])]) {
    const [low, high] = [scale.invert(scale.map(3)), scale.invert(scale.map(0.5))];
    assert.ok(Math.abs(low - 3) < 1e-9 && Math.abs(high - 0.5) < 1e-9);
  }
  assert.equal(linear([2, 6], [100, 0]).map(2), 100);
  assert.equal(linear([2, 6], [100, 0]).map(4), 50);
  assert.equal(Math.round(logarithmic([0.01, 100], [0, 400]).map(1)), 200);
});

test("a range without length is no trap", () => {
  assert.equal(linear([5, 5], [0, 10]).map(5), 0);
  assert.deepEqual(padded([0, 0]), [-0.5, 0.5]);
  const [low, high] = padded([3, 3]);
  assert.ok(low < 3 && high > 3);
});

test("the extent ignores what is no number", () => {
  assert.deepEqual(extent([null, 3, NaN, -1, undefined, Infinity]), [-1, 3]);
  assert.deepEqual(extent([-1, 0, 2, 8], true), [2, 8]);
  assert.equal(extent([null, NaN]), null);
});

test("ticks are round, within the range, and about as many as asked for", () => {
  assert.deepEqual(niceTicks(0, 1, 5), [0, 0.2, 0.4, 0.6, 0.8, 1]);
  assert.deepEqual(niceTicks(-0.3, 0.3, 6), [-0.3, -0.2, -0.1, 0, 0.1, 0.2, 0.3]);
  for (const [low, high] of [[0, 1], [3.7, 1234], [-1e-6, 1e-6], [0.001, 0.0013]]) {
    const ticks = niceTicks(low, high, 5);
    assert.ok(ticks.length >= 2 && ticks.length <= 11, `${low} ${high}: ${ticks}`);
    assert.ok(ticks.every((tick) => tick >= low - 1e-12 && tick <= high + 1e-12));
  }
  assert.deepEqual(niceTicks(1, 1, 5), []);
});

test("ticks of a logarithm are powers of ten, with 2 and 5 where there is room", () => {
  assert.deepEqual(logTicks(0.1, 10, 9), [0.1, 0.2, 0.5, 1, 2, 5, 10]);
  assert.deepEqual(logTicks(1e-4, 1, 4), [1e-4, 1e-3, 1e-2, 0.1, 1]);
  assert.ok(logTicks(1e-12, 1, 4).length <= 5);
  assert.ok(logTicks(0.4, 0.9, 5).length >= 2); // less than a decade
  const [low, high] = paddedLog([1e-3, 1]);
  assert.ok(low > 0 && low < 1e-3 && high > 1);
});

test("numbers are written as a person would", () => {
  const expected = { 0: "0", 0.03124: "0.0312", 12.345: "12.3", 4500.4: "4,500", 0.00002: "2e-5", 1.5e8: "1.5e8", "-0.5": "-0.5", 1e-10: "1e-10" };
  for (const [value, text] of Object.entries(expected)) assert.equal(formatNumber(Number(value)), text);
  assert.equal(formatNumber(null), "–");
  assert.equal(formatNumber(NaN), "–");
});

test("a constant that smoothing has rounded is a constant, and no axis without end", () => {
  for (const value of [0.1, -3, 1e12, 1e-12]) {
    const [low, high] = padded([value, value + Math.abs(value) * 2 ** -52]);
    assert.ok(high - low > Math.abs(value) * 0.1, String(value));
    assert.ok(niceTicks(low, high, 5).length <= 12);
    assert.deepEqual(niceTicks(value, value + Math.abs(value) * 2 ** -52, 5), []);
  }
});
