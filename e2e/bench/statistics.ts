/** Arithmetic of figures that were measured in rounds. Pure functions. */
import { seeded } from '../lab/random.ts';

/** Of normally distributed figures: standard deviation / median of the absolute deviations. */
const DEVIATION = 1.4826;
/** So many times their spread two medians must lie apart, or their difference says nothing. */
const LEAST_SPREADS = 3;

/** Median of at least one number. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle];
  const lower = sorted[sorted.length % 2 === 0 ? middle - 1 : middle];
  if (upper === undefined || lower === undefined) throw new RangeError('median of nothing');
  return (lower + upper) / 2;
}

/**
 * Mean of the middle half of at least one number (interquartile mean): nearer to that of another run than the
 * median where figures scatter, and what is far off plays no part either.
 */
export function midmean(values: readonly number[]): number {
  const cut = Math.floor(values.length / 4);
  const middle = values.toSorted((a, b) => a - b).slice(cut, values.length - cut);
  if (middle.length === 0) throw new RangeError('midmean of nothing');
  return middle.reduce((sum, value) => sum + value, 0) / middle.length;
}

/**
 * How far the rounds lie apart, in their unit: median of the distances from the median, scaled so that it is the standard
 * deviation where they are distributed normally. One round that something disturbed does not count.
 */
export function spread(values: readonly number[]): number {
  const middle = median(values);
  return DEVIATION * median(values.map((value) => Math.abs(value - middle)));
}

/** Whether the medians are further apart than chance puts them. A single round each says nothing. */
export function distinguishable(a: readonly number[], b: readonly number[]): boolean {
  if (Math.min(a.length, b.length) < 2) return false;
  const gap = Math.abs(median(a) - median(b));
  return gap > 0 && gap >= LEAST_SPREADS * Math.max(spread(a), spread(b));
}

/**
 * How much of the way from overlay to host network XMasq goes, in percent with one digit behind the point: 0 overlay, 100
 * host network. Not finite where these two are the same.
 */
export function gapClosed(host: number, overlay: number, xmasq: number): number {
  return round(((overlay - xmasq) / (overlay - host)) * 100, 1);
}

/** Figures of one measurement by three ways: one of each in every round, in the order of the rounds. */
export interface Compared {
  readonly host: readonly number[];
  readonly overlay: readonly number[];
  readonly xmasq: readonly number[];
}

const RESAMPLES = 2000;

/**
 * Where the gap closed lies with a probability of 95 %, both ends in percent with one digit behind the point: of so many sets
 * of rounds, drawn from these with replacement and always the same, the middle 95 % of what they give (percentile bootstrap;
 * Efron, Tibshirani: An Introduction to the Bootstrap, 1993, chapter 13). A round is drawn whole: what slowed all ways alike
 * plays no part. Sets in which host and overlay are the same are left out; nothing is left where all are.
 */
export function gapInterval({ host, overlay, xmasq }: Compared): readonly [number, number] | null {
  const random = seeded(1);
  const gaps: number[] = [];
  for (let i = 0; i < RESAMPLES; i++) {
    const rounds = host.map(() => random.between(0, host.length - 1));
    const of = (values: readonly number[]): number => median(rounds.map((round) => values[round] ?? NaN));
    const gap = gapClosed(of(host), of(overlay), of(xmasq));
    if (Number.isFinite(gap)) gaps.push(gap);
  }
  return gaps.length === 0 ? null : [quantile(gaps, 0.025), quantile(gaps, 0.975)];
}

/** Value at this share (0 to 1) of at least one number, by the nearest rank. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  const value = sorted[Math.min(sorted.length - 1, Math.max(0, Math.ceil(share * sorted.length) - 1))];
  if (value === undefined) throw new RangeError('quantile of nothing');
  return value;
}

export function round(value: number, digits = 3): number {
  return Number(value.toFixed(digits));
}
