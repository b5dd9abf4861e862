/** From samples to what a benchmark by the clock tells: rows for JSON, a table in Markdown. Pure functions. */
import type { Samples } from './rounds.ts';
import { distinguishable, gapClosed, gapInterval, median, round, spread } from './statistics.ts';

/** Ways that benchmarks by the clock compare. */
export const PATHS = ['host', 'hostK8s', 'overlay', 'xmasq'] as const;
export type PathName = (typeof PATHS)[number];

/** What XMasq is compared with besides the overlay. */
type HostName = 'host' | 'hostK8s';

/** For people. */
export const NAMES: Readonly<Record<PathName, string>> = {
  host: 'host network',
  hostK8s: 'host network, K8s node',
  overlay: 'overlay',
  xmasq: 'XMasq',
};

/** What is told about a figure. */
export interface FigureFacts {
  /** For people. */
  readonly title: string;
  readonly unit: string;
  /** Digits behind the point in tables. */
  readonly digits: number;
}

/** Least and most, percent. */
export type Interval = readonly [number, number];

/** A line of a result. */
export interface Row {
  readonly metric: string;
  readonly unit: string;
  /** Medians. */
  readonly host: number;
  /** The host network of nodes with conntrack and rules as kube-proxy makes them. */
  readonly hostK8s: number;
  readonly overlay: number;
  readonly xmasq: number;
  /** 0 overlay, 100 host network; null: these two are not distinguishable. */
  readonly gapClosedPct: number | null;
  /** The same with the host network of such nodes. */
  readonly gapClosedK8sPct: number | null;
  /** Where the two lie with a probability of 95 %: least and most; null with them. */
  readonly gapIntervalPct: Interval | null;
  readonly gapIntervalK8sPct: Interval | null;
  /** Of the rounds, in `unit`. */
  readonly spread: Readonly<Record<PathName, number>>;
  /** What XMasq's figure is not distinguishable from: closer than three times the greater spread. */
  readonly xmasqLike: readonly Exclude<PathName, 'xmasq'>[];
}

/** What is known of a run besides its figures; build/NAME-run.json. */
export interface Run {
  readonly command: string;
  /** Processors, memory, kernel. */
  readonly machine: string;
  readonly rounds: number;
  readonly secondsEach: number;
  /** Only a try. */
  readonly quick: boolean;
  /** Processes that were running or waiting for a processor on average of the minute before the run, and of its last one. */
  readonly loadBefore: number;
  readonly loadAfter: number;
  readonly elapsedSeconds: number;
  /** Measurements that were repeated because their packets were not on the fast path. */
  readonly repeated: readonly string[];
}

/** Rows of all figures; throws RangeError if one was not measured by every way. */
export function rowsOf<F extends string>(
  samples: Samples<PathName, F>,
  facts: Readonly<Record<F, FigureFacts>>,
): Row[] {
  return (Object.entries(facts) as [F, FigureFacts][]).map(([metric, { unit }]) => {
    const of = (path: PathName): readonly number[] => samples.get(path)?.get(metric) ?? [];
    const medians = byPath((path) => median(of(path)));
    const isGap = (host: HostName): boolean => distinguishable(of(host), of('overlay'));
    const gapTo = (host: HostName): number | null =>
      isGap(host) ? gapClosed(medians[host], medians.overlay, medians.xmasq) : null;
    const intervalTo = (host: HostName): Interval | null =>
      isGap(host) ? gapInterval({ host: of(host), overlay: of('overlay'), xmasq: of('xmasq') }) : null;
    return {
      ...{ metric, unit, ...byPath((path) => round(medians[path])) },
      gapClosedPct: gapTo('host'),
      gapClosedK8sPct: gapTo('hostK8s'),
      gapIntervalPct: intervalTo('host'),
      gapIntervalK8sPct: intervalTo('hostK8s'),
      spread: byPath((path) => round(spread(of(path)))),
      xmasqLike: PATHS.filter((path) => path !== 'xmasq').filter((path) => !distinguishable(of('xmasq'), of(path))),
    };
  });
}

function byPath<T>(of: (path: PathName) => T): Record<PathName, T> {
  return Object.fromEntries(PATHS.map((path) => [path, of(path)])) as Record<PathName, T>;
}

/** The rows as a table in Markdown: medians with their spread. A row without facts is named as in the JSON. */
export function tableOf(rows: readonly Row[], facts: Readonly<Partial<Record<string, FigureFacts>>>): string {
  const head = ['measurement', 'unit', ...PATHS.map((path) => NAMES[path]), 'gap closed', 'gap closed, K8s'];
  const lines = rows.map((row) => {
    const { title, digits } = facts[row.metric] ?? { title: row.metric, digits: 3 };
    const text = (value: number): string =>
      value.toLocaleString('en', { minimumFractionDigits: digits, maximumFractionDigits: digits });
    const cells = PATHS.map((path) => `${text(row[path])} ± ${text(row.spread[path])}`);
    return [title, row.unit, ...cells, gapText(row, 'host'), gapText(row, 'hostK8s')];
  });
  const rule = head.map((_, column) => (column < 2 ? '---' : '---:'));
  return [head, rule, ...lines].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}

type Gaps = Pick<Row, 'gapClosedPct' | 'gapClosedK8sPct' | 'gapIntervalPct' | 'gapIntervalK8sPct' | 'xmasqLike'>;

/** The gap closed in words, with its interval: to the host network, or to that of a Kubernetes node. */
export function gapText(row: Gaps, host: HostName): string {
  const [gap, interval] =
    host === 'host' ? [row.gapClosedPct, row.gapIntervalPct] : [row.gapClosedK8sPct, row.gapIntervalK8sPct];
  if (gap === null) return 'overlay not distinguishable from host';
  const [least, most] = (interval ?? [gap, gap]).map((end) => Math.round(end));
  const like = [host, 'overlay' as const]
    .filter((path) => row.xmasqLike.includes(path))
    .map((path) => (path === 'overlay' ? path : 'host'));
  return `${gap} % (${least} to ${most})${like.length === 0 ? '' : `, not distinguishable from ${like.join(' or ')}`}`;
}

/** A load average before a run from which on others are at work. */
const OTHER_LOAD = 0.5;

/** A run in a sentence or two. */
export function runLine(run: Run): string {
  const { command, rounds, secondsEach } = run;
  return `\`${command}\`: medians of ${rounds} interleaved rounds of ${secondsEach} s for each measurement, ± their spread; ${circumstances(run)}.`;
}

/** Machine and load of a run, and whether it was a try: the end of a sentence, without its full stop. */
export function circumstances(run: Pick<Run, 'machine' | 'loadBefore' | 'loadAfter' | 'quick'>): string {
  const { machine, loadBefore, loadAfter, quick } = run;
  const busy = loadBefore >= OTHER_LOAD ? '; the machine did other work meanwhile, which times by the clock show' : '';
  return (
    `${machine}; load average ${loadBefore} before the run, ${loadAfter} at its end${busy}` +
    (quick ? '; only a try: too few rounds to say anything' : '')
  );
}
