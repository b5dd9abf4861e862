/** Arithmetic of figures that were measured in rounds. */
import { describe, expect, test } from '@jest/globals';
import {
  distinguishable,
  gapClosed,
  gapInterval,
  median,
  midmean,
  quantile,
  spread,
} from '../../../../e2e/bench/statistics.ts';
import { seeded } from '../../../../e2e/lab/random.ts';

describe('median', () => {
  test.each([
    [[3], 3],
    [[3, 1, 2], 2],
    [[4, 1, 2, 3], 2.5],
  ])('of %j is %d', (values, expected) => expect(median(values)).toBe(expected));

  test('of nothing is an error', () => expect(() => median([])).toThrow(RangeError));
});

describe('spread', () => {
  test('is that of the middle: one disturbed round does not count', () => {
    expect(spread([9, 10, 11])).toBeCloseTo(1.4826, 9);
    expect(spread([9, 10, 11, 10, 1000])).toBeCloseTo(1.4826, 9);
    expect(spread([5, 5, 5])).toBe(0);
  });

  test('is the standard deviation of what is distributed normally', () => {
    // Quantiles of the normal distribution with deviation 2, by Box and Muller on a grid.
    const values = Array.from({ length: 60 }, (_, i) => (i + 0.5) / 60).flatMap((a) =>
      Array.from(
        { length: 60 },
        (_, i) => 7 + 2 * Math.sqrt(-2 * Math.log(a)) * Math.cos((2 * Math.PI * (i + 0.5)) / 60),
      ),
    );
    expect(spread(values)).toBeGreaterThan(1.9);
    expect(spread(values)).toBeLessThan(2.1);
  });
});

describe('medians are distinguishable', () => {
  test('from three times the greater spread on', () => {
    const around = (middle: number, distance: number): number[] => [middle - distance, middle, middle + distance];
    expect(distinguishable(around(100, 1), around(104.4, 0.5))).toBe(false);
    expect(distinguishable(around(100, 1), around(104.5, 0.5))).toBe(true);
    expect(distinguishable(around(104.5, 0.5), around(100, 1))).toBe(true);
    expect(distinguishable(around(100, 0.5), around(104.4, 1))).toBe(false);
  });

  test('not where they are equal, nor after one round, which has no spread', () => {
    expect(distinguishable([5, 5, 5], [5, 5, 5])).toBe(false);
    expect(distinguishable([5], [6])).toBe(false);
  });
});

describe('gap closed', () => {
  test.each([
    ['as the overlay', 10, 6, 6, 0],
    ['as the host network', 10, 6, 10, 100],
    ['a rate half-way', 10, 6, 8, 50],
    ['a latency beyond the host network', 20, 40, 18, 110],
    ['worse than the overlay', 10, 6, 5, -25],
    ['two thirds, with one digit', 9, 6, 8, 66.7],
  ])('%s', (_, host, overlay, xmasq, expected) => expect(gapClosed(host, overlay, xmasq)).toBe(expected));
});

test('a quantile is one of the values', () => {
  const values = [5, 1, 4, 2, 3];
  expect([0, 0.2, 0.5, 0.99, 1].map((share) => quantile(values, share))).toEqual([1, 1, 3, 5, 5]);
  expect(() => quantile([], 0.5)).toThrow(RangeError);
});

test('the mean of the middle half leaves out what is far off', () => {
  expect(midmean([7])).toBe(7);
  expect(midmean([1, 2])).toBe(1.5);
  expect(midmean([1000, 3, 1, 4])).toBe(3.5);
  expect(midmean([9, 0, 4, 5, 6, 1000, 3])).toBe(5.4);
  expect(() => midmean([])).toThrow('midmean of nothing');
});

describe('the interval of the gap closed', () => {
  const BETWEEN = { host: 200, overlay: 100, xmasq: 180 };
  type Rounds = Parameters<typeof gapInterval>[0];
  const rounds = (of: (path: keyof typeof BETWEEN, round: number) => number, count = 7): Rounds => {
    const all = (path: keyof typeof BETWEEN): number[] => Array.from({ length: count }, (_, round) => of(path, round));
    return { host: all('host'), overlay: all('overlay'), xmasq: all('xmasq') };
  };

  test('is a point where the rounds are equal, and wider the more they differ', () => {
    expect(gapInterval(rounds((path) => BETWEEN[path]))).toEqual([80, 80]);
    const apart = (by: number): readonly [number, number] =>
      gapInterval(rounds((path, round) => BETWEEN[path] + (path === 'xmasq' ? by * (round - 3) : 0))) ?? [0, 0];
    expect(apart(1)).toEqual([78, 82]);
    expect(apart(3)).toEqual([74, 86]);
  });

  test('does not grow by what slows all ways of a round alike', () => {
    expect(gapInterval(rounds((path, round) => BETWEEN[path] * (1 + round / 10)))).toEqual([80, 80]);
  });

  test('holds the gap of all rounds in some 95 of 100 runs', () => {
    const RUNS = 80;
    const random = seeded(7);
    const near = (middle: number): number => middle + (random.between(-1000, 1000) + random.between(-1000, 1000)) / 150;
    const held = Array.from({ length: RUNS }, () => gapInterval(rounds((path) => near(BETWEEN[path]), 9))).filter(
      (interval) => interval !== null && interval[0] <= 80 && interval[1] >= 80,
    ).length;
    expect(held / RUNS).toBeGreaterThan(0.9);
    expect(held / RUNS).toBeLessThan(1);
  });

  test('is the same again, and none where there is no gap', () => {
    const some = rounds((path, round) => BETWEEN[path] + ((round * 7) % 5));
    expect(gapInterval(some)).toEqual(gapInterval(some));
    expect(gapInterval(rounds(() => 5))).toBeNull();
  });
});
