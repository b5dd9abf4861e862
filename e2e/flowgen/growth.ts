import type { CollectorSample } from './collector.ts';

/** Samples in which a store that fills up does not count. */
const MINIMUM = 8;

/**
 * By which part of itself live memory has grown between the second and the last quarter of a run, comparing the highest value
 * of each. Undefined for runs too short to say. The store must be full by the end of the first quarter.
 */
export function memoryGrowth(samples: readonly CollectorSample[]): number | undefined {
  if (samples.length < MINIMUM) return undefined;
  const quarter = Math.floor(samples.length / 4);
  const highest = (part: readonly CollectorSample[]): number => Math.max(...part.map(({ liveBytes }) => liveBytes));
  return highest(samples.slice(-quarter)) / highest(samples.slice(quarter, 2 * quarter)) - 1;
}
