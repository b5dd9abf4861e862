import type { CollectorSample } from './collector.ts';

/** Samples in which a store that fills up does not count. */
const MINIMUM = 8;

/**
 * By which part of itself memory has grown between the second and the last quarter of a run, comparing the highest value of
 * each: garbage collection makes single values jump. Undefined for runs too short to say.
 */
export function memoryGrowth(samples: readonly CollectorSample[]): number | undefined {
  if (samples.length < MINIMUM) return undefined;
  const quarter = Math.floor(samples.length / 4);
  const highest = (part: readonly CollectorSample[]): number => Math.max(...part.map(({ rssBytes }) => rssBytes));
  return highest(samples.slice(-quarter)) / highest(samples.slice(quarter, 2 * quarter)) - 1;
}
