/** From samples to what `bench-modes` tells: rows for JSON, a table in Markdown. Pure functions. */
import { circumstances } from '../result.ts';
import type { FigureFacts, Run } from '../result.ts';
import type { Samples } from '../rounds.ts';
import { distinguishable, gapClosed, median, round, spread } from '../statistics.ts';

/** Ways that are compared: host network, overlay, and XMasq's. */
export const PATHS = ['host', 'overlay', 'masquerade', 'encap', 'direct', 'written', 'xdp'] as const;
export type ModePath = (typeof PATHS)[number];
export type XMasqPath = Exclude<ModePath, 'host' | 'overlay'>;

/** For people. */
export const NAMES: Readonly<Record<ModePath, string>> = {
  host: 'host network',
  overlay: 'overlay',
  masquerade: 'masquerade',
  encap: 'encap',
  direct: 'direct',
  written: 'masquerade, checksums written',
  xdp: 'the same, restored in XDP',
};

/** A line of the result. */
export interface ModeRow {
  readonly metric: string;
  readonly unit: string;
  /** Of the rounds, in `unit`. */
  readonly medians: Readonly<Record<ModePath, number>>;
  readonly spread: Readonly<Record<ModePath, number>>;
  /** 0 overlay, 100 host network; null: these two are not distinguishable. */
  readonly gapClosedByMode: Readonly<Record<XMasqPath, number | null>>;
  /** That of masquerading, as other benchmarks have it. */
  readonly gapClosedPct: number | null;
}

/** Rows of all figures; throws RangeError if one was not measured by every way. */
export function rowsOf(samples: Samples<ModePath, string>, facts: Readonly<Record<string, FigureFacts>>): ModeRow[] {
  return Object.entries(facts).map(([metric, { unit }]) => {
    const of = (path: ModePath): readonly number[] => samples.get(path)?.get(metric) ?? [];
    const byPath = (value: (values: readonly number[]) => number): Record<ModePath, number> =>
      Object.fromEntries(PATHS.map((path) => [path, round(value(of(path)))])) as Record<ModePath, number>;
    const isGap = distinguishable(of('host'), of('overlay'));
    const gap = (path: XMasqPath): number | null =>
      isGap ? gapClosed(median(of('host')), median(of('overlay')), median(of(path))) : null;
    return {
      ...{ metric, unit, medians: byPath(median), spread: byPath(spread), gapClosedPct: gap('masquerade') },
      gapClosedByMode: Object.fromEntries(PATHS.filter(isXMasq).map((path) => [path, gap(path)])) as Record<
        XMasqPath,
        number | null
      >,
    };
  });
}

function isXMasq(path: ModePath): path is XMasqPath {
  return path !== 'host' && path !== 'overlay';
}

/** The rows as a table in Markdown: medians with their spread and, of XMasq's ways, how much of the gap is closed. */
export function tableOf(rows: readonly ModeRow[], facts: Readonly<Partial<Record<string, FigureFacts>>>): string {
  const head = ['measurement', 'unit', ...PATHS.map((path) => NAMES[path])];
  const lines = rows.map((row) => {
    const { title, digits } = facts[row.metric] ?? { title: row.metric, digits: 3 };
    const text = (value: number): string =>
      value.toLocaleString('en', { minimumFractionDigits: digits, maximumFractionDigits: digits });
    const cells = PATHS.map((path) => {
      const gap = isXMasq(path) ? row.gapClosedByMode[path] : null;
      return `${text(row.medians[path])} ± ${text(row.spread[path])}${gap === null ? '' : ` (${gap} %)`}`;
    });
    return [title, row.unit, ...cells];
  });
  const rule = head.map((_, column) => (column < 2 ? '---' : '---:'));
  return [head, rule, ...lines].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}

/** A run in a sentence. */
export function modesLine(run: Run): string {
  const { command, rounds, secondsEach } = run;
  return `\`${command}\`: medians of ${rounds} interleaved rounds of ${secondsEach} s for each measurement, ± their spread, and in brackets how much of the gap is closed; ${circumstances(run)}.`;
}
