/** What `make bench` says at its end about all benchmarks. Pure functions. */
import { median, round } from './statistics.ts';

/** A benchmark of `make bench`. */
export interface Member {
  /** Target, and name of its result in build/. */
  readonly name: string;
  /** Knows QUICK=1; others are left out of a try. */
  readonly hasTry: boolean;
  /** Its result is a list of rows in build/NAME.json. */
  readonly hasRows: boolean;
}

/** In the order in which they run. */
export const MEMBERS: readonly Member[] = [
  { name: 'bench-icount', hasTry: false, hasRows: true },
  { name: 'bench-micro', hasTry: true, hasRows: true },
  { name: 'bench-modes', hasTry: true, hasRows: true },
  { name: 'bench-apps', hasTry: true, hasRows: true },
  { name: 'bench-scale', hasTry: true, hasRows: true },
  { name: 'bench-flow', hasTry: false, hasRows: false },
];

/** What the rows of all benchmarks have, as far as it is summed up. */
export interface SummedRow {
  readonly metric: string;
  /** Null: there is no gap, or nothing to compare with. */
  readonly gapClosedPct: number | null;
  /** Of rows with a goal. */
  readonly goal?: string | null;
  readonly met?: boolean | null;
}

/** How a benchmark ended. */
export interface Ended {
  readonly name: string;
  /** Exit code; null: left out. */
  readonly code: number | null;
  readonly seconds: number;
  /** Of this run; undefined where it left no rows. */
  readonly rows?: readonly SummedRow[];
}

/** A line per benchmark as a table in Markdown. */
export function summaryOf(all: readonly Ended[]): string {
  const lines = all.map(({ name, code, seconds, rows }) => [
    name,
    code === null ? 'left out' : code === 0 ? 'ok' : `FAILED (${code})`,
    code === null ? '' : `${Math.round(seconds)} s`,
    code === null ? 'knows no try' : figuresOf(rows ?? []),
  ]);
  const head = ['benchmark', 'outcome', 'time', 'figures'];
  return [head, ['---', '---', '---:', '---'], ...lines].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}

/** Rows in a few words: gaps closed, and goals. */
export function figuresOf(rows: readonly SummedRow[]): string {
  const gaps = rows.flatMap(({ gapClosedPct }) => (gapClosedPct === null ? [] : [gapClosedPct]));
  const goals = rows.filter(({ goal, met }) => typeof goal === 'string' && typeof met === 'boolean');
  const missed = goals.filter(({ met }) => met === false).map(({ metric }) => metric);
  const said: string[] = [];
  if (gaps.length > 0) {
    const [least, most] = [Math.min(...gaps), Math.max(...gaps)];
    said.push(`gap closed: ${least} to ${most} %, median ${round(median(gaps), 1)} % of ${gaps.length}`);
  }
  if (goals.length > 0) {
    const which = missed.length === 0 ? '' : ` (missed: ${missed.join(', ')})`;
    said.push(`goals met: ${goals.length - missed.length} of ${goals.length}${which}`);
  }
  return said.join('; ');
}

/** The exit code of all: 1 if one failed. */
export function exitCodeOf(all: readonly Ended[]): number {
  return all.every(({ code }) => code === null || code === 0) ? 0 : 1;
}
