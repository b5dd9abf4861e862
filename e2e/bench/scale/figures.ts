/** What `bench-scale` measures, and from samples to what it tells: rows for JSON, a table in Markdown. Pure functions. */
import { circumstances } from '../result.ts';
import type { FigureFacts, Run } from '../result.ts';
import { distinguishable, median, round, spread } from '../statistics.ts';

/** Peers of the largest cluster that is looked at. */
export const PEERS = 5000;
/** Pods of a full node: Kubernetes' own limit. */
export const PODS = 110;

/** Flows and peers that are in the maps together. */
export interface NamedPopulation {
  /** Ends the names of figures. */
  readonly name: string;
  readonly title: string;
  readonly flows: number;
  readonly peers: number;
  /** The population whose cost per packet this one's is told in. */
  readonly base?: string;
}

export const POPULATIONS = [
  { name: '1k', title: '1,000 flows', flows: 1000, peers: 1 },
  { name: '10k', title: '10,000 flows', flows: 10_000, peers: 1, base: '1k' },
  { name: '100k', title: '100,000 flows', flows: 100_000, peers: 1, base: '1k' },
  { name: '1m', title: '1,000,000 flows', flows: 1_000_000, peers: 1, base: '1k' },
  { name: '100k_peers', title: '100,000 flows, 5,000 peers', flows: 100_000, peers: PEERS, base: '100k' },
] as const satisfies readonly NamedPopulation[];

/** Of which instructions are counted: the goals are about them. */
export const COUNTED: readonly NamedPopulation[] = POPULATIONS.filter(({ name }) => name !== '10k');

/** A figure of the guest: of a packet. */
export interface Instructions {
  readonly program: string;
  /** Of the population. */
  readonly name: string;
  readonly instructions: number;
}

/** What a figure should be; undefined where there is no goal. */
export type Goal =
  | { readonly ratioAtMost: number }
  | { readonly like: 'base' }
  | { readonly within: number }
  | { readonly below: number }
  | { readonly atLeast: number };

/** What is told about a figure of this benchmark. */
export interface ScaleFacts extends FigureFacts {
  /** The figure that it is told in. */
  readonly base?: string;
  readonly goal?: Goal;
}

/** Goals, in the figures' units. */
const MOST_RATIO = 1.3;
/** Instructions are counted to some 0.3 % (docs/performance.md). */
const NOTHING = 0.005;

/** By the clock; `like` the base is what 5,000 peers should be. */
function perPacket(program: string): [string, ScaleFacts][] {
  return POPULATIONS.map(({ name, title, peers, ...rest }: NamedPopulation) => [
    `${program}_${name}`,
    {
      ...{ title: `\`${program}\`: a packet, ${title}`, unit: 'ns', digits: 0 },
      ...(rest.base === undefined ? {} : { base: `${program}_${rest.base}` }),
      ...(peers === PEERS ? { goal: { like: 'base' } } : {}),
    },
  ]);
}

/** The figure of a count. */
export const countedMetric = (program: string, name: string): string => `${program}_${name}_instructions`;

function counted(program: string): [string, ScaleFacts][] {
  return COUNTED.map(({ name, title, base, peers, flows }) => {
    const goal: Goal | undefined =
      peers === PEERS ? { within: NOTHING } : flows === 1_000_000 ? { ratioAtMost: MOST_RATIO } : undefined;
    return [
      countedMetric(program, name),
      {
        ...{ title: `\`${program}\`: a packet, ${title}`, unit: 'instructions', digits: 0 },
        ...(base === undefined ? {} : { base: countedMetric(program, base) }),
        ...(goal === undefined ? {} : { goal }),
      },
    ];
  });
}

/** Every figure, in the order of the table. */
export const FACTS: Readonly<Record<string, ScaleFacts>> = Object.fromEntries([
  ...perPacket('pod_egress'),
  ...perPacket('uplink_ingress'),
  ...counted('pod_egress'),
  ...counted('uplink_ingress'),
  ...POPULATIONS.flatMap(({ name, title }): [string, ScaleFacts][] => [
    [`fill_${name}`, { title: `maps: filled, ${title}`, unit: 'ms', digits: 0 }],
    [`memory_${name}`, { title: `maps: memory, ${title}`, unit: 'MB', digits: 1 }],
  ]),
  ['ready', { title: 'sidecar: ready from its start', unit: 'ms', digits: 0 }],
  ['attach', { title: `sidecar: ${PODS} pods attached`, unit: 'ms', digits: 0, goal: { below: 1000 } }],
  ['attach_expedited', { title: `sidecar: ${PODS} pods attached, grace periods expedited`, unit: 'ms', digits: 0 }],
  ['rss', { title: 'sidecar: memory (RSS)', unit: 'MB', digits: 0, goal: { below: 200 } }],
  ['cpu', { title: 'sidecar: processor at rest', unit: '% of a core', digits: 2, goal: { below: 1 } }],
  ['cpu_no_pods', { title: 'sidecar: processor at rest, no pods', unit: '% of a core', digits: 2 }],
  ['cpu_alone', { title: 'sidecar: processor at rest, no pods and no cluster', unit: '% of a core', digits: 2 }],
  ['records', { title: 'flow export: records', unit: '1/s of a core', digits: 0, goal: { atLeast: 30_000 } }],
]);

/** A line of the result. What other benchmarks compare is null: nobody but XMasq is measured. */
export interface ScaleRow {
  readonly metric: string;
  readonly unit: string;
  readonly host: null;
  readonly hostK8s: null;
  readonly overlay: null;
  /** Median. */
  readonly xmasq: number;
  readonly gapClosedPct: null;
  readonly gapClosedK8sPct: null;
  readonly spread: { readonly xmasq: number };
  /** Measurements. */
  readonly samples: number;
  /** The median by that of the figure it is told in. */
  readonly ratio: number | null;
  /** The goal in words, and whether it is met. */
  readonly goal: string | null;
  readonly met: boolean | null;
}

/** A run of this benchmark; build/bench-scale-run.json. */
export interface ScaleRun extends Omit<Run, 'rounds' | 'secondsEach' | 'repeated'> {
  readonly rounds: { readonly packets: number; readonly sidecar: number; readonly flowExport: number };
  /** Samples that count packets of idle flows, by what was measured: the machine was too slow or did something else. */
  readonly late: Readonly<Record<string, number>>;
}

/** Rows of all that was measured (a try leaves some out), in the order of FACTS. */
export function rowsOf(samples: ReadonlyMap<string, readonly number[]>): ScaleRow[] {
  for (const metric of samples.keys()) if (!(metric in FACTS)) throw new RangeError(`no figure ${metric}`);
  return Object.entries(FACTS).flatMap(([metric, facts]) => {
    const values = samples.get(metric);
    if (values === undefined) return [];
    const base = facts.base === undefined ? undefined : samples.get(facts.base);
    const ratio = base === undefined ? null : round(median(values) / median(base), 2);
    return [
      {
        ...{ metric, unit: facts.unit, host: null, hostK8s: null, overlay: null, xmasq: round(median(values)) },
        ...{ gapClosedPct: null, gapClosedK8sPct: null },
        ...{ spread: { xmasq: round(spread(values)) }, samples: values.length, ratio },
        ...(facts.goal === undefined ? { goal: null, met: null } : judged(facts.goal, values, base)),
      },
    ];
  });
}

function judged(
  goal: Goal,
  values: readonly number[],
  base: readonly number[] | undefined,
): { readonly goal: string; readonly met: boolean | null } {
  const figure = median(values);
  if ('below' in goal) return { goal: `below ${goal.below.toLocaleString('en')}`, met: figure < goal.below };
  if ('atLeast' in goal) return { goal: `at least ${goal.atLeast.toLocaleString('en')}`, met: figure >= goal.atLeast };
  if ('ratioAtMost' in goal) {
    return {
      goal: `at most ${goal.ratioAtMost} ×`,
      met: base === undefined ? null : figure <= goal.ratioAtMost * median(base),
    };
  }
  if ('within' in goal) {
    const met = base === undefined ? null : figure <= (1 + goal.within) * median(base);
    return { goal: 'nothing measurable', met };
  }
  // A single sample each is never distinguishable: it says nothing.
  const said = base !== undefined && Math.min(values.length, base.length) > 1;
  return {
    goal: 'nothing measurable',
    met: said ? !distinguishable(values, base) || figure <= median(base) : null,
  };
}

/** The rows as a table in Markdown: medians with their spread, what they are told in, and goals. */
export function tableOf(rows: readonly ScaleRow[]): string {
  const head = ['measurement', 'unit', 'XMasq', 'compared', 'goal'];
  const lines = rows.map(({ metric, unit, xmasq, spread: { xmasq: apart }, ratio, goal, met }) => {
    const { title, digits, base } = FACTS[metric] ?? { title: metric, digits: 3 };
    const text = (value: number): string =>
      value.toLocaleString('en', { minimumFractionDigits: digits, maximumFractionDigits: digits });
    const compared = ratio === null || base === undefined ? '' : `${ratio.toFixed(2)} × ${nameOf(base)}`;
    const verdict = met === null ? 'not judged' : met ? 'met' : 'missed';
    return [title, unit, `${text(xmasq)} ± ${text(apart)}`, compared, goal === null ? '' : `${goal}: ${verdict}`];
  });
  const rule = head.map((_, column) => (column === 2 || column === 3 ? '---:' : '---'));
  return [head, rule, ...lines].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}

/** The population of a figure of packets, for people. */
function nameOf(metric: string): string {
  const population = POPULATIONS.find(({ name }) => metric.replace(/_instructions$/, '').endsWith(`_${name}`));
  return population?.title ?? metric;
}

/** A run in a few sentences. */
export function scaleLine(run: ScaleRun): string {
  const { packets, sidecar, flowExport } = run.rounds;
  const late = Object.entries(run.late).map(([what, count]) => `${what} ${count}`);
  const lateText = late.length === 0 ? '' : `; samples that count idle flows: ${late.join(', ')}`;
  return (
    `\`${run.command}\`: medians, ± their spread, of ${packets} interleaved rounds for packets, of ${sidecar} starts ` +
    `of the sidecar and of ${flowExport} runs of the flow export; ${circumstances(run)}${lateText}.`
  );
}
