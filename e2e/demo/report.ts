/** From samples to the demo's table and JSON. Pure functions. */
import type { Samples as SamplesOf } from '../bench/rounds.ts';
import { gapClosed, median, round } from '../bench/statistics.ts';
import type { WireCount } from '../lab/wire.ts';

/** Ways from one machine to the other that are measured. */
export const PATHS = ['host', 'overlay', 'xmasq', 'hostBesideXmasq'] as const;
export type PathName = (typeof PATHS)[number];

/** What one measurement gives. Rates are per second, latencies of a whole transaction in microseconds. */
export const FIGURES = ['tcpStream', 'tcpRate', 'tcpP50', 'tcpP99', 'udpRate', 'udpP50', 'udpP99'] as const;
export type Figure = (typeof FIGURES)[number];

/** Samples of every round. */
export type Samples = SamplesOf<PathName, Figure>;

/** A row of build/demo.json. */
export interface Metric {
  readonly name: string;
  readonly unit: string;
  /** Node to node, no XMasq program attached. Medians. */
  readonly host: number;
  /** Pod to pod, no XMasq program attached; null: does not apply (node-to-node rows). */
  readonly overlay: number | null;
  /** Pod to pod with XMasq; in node-to-node rows: node to node with XMasq's programs attached. */
  readonly xmasq: number;
  /** 0 overlay, 100 host; null: does not apply, or host and overlay cannot be told apart. */
  readonly gapClosedPct: number | null;
}

/** What build/demo.json holds. */
export interface DemoResult {
  readonly metrics: readonly Metric[];
  readonly wire: { readonly masqueraded: number; readonly encapsulated: number };
}

interface FigureFacts {
  readonly name: string;
  readonly title: string;
  /** In the rows about node-to-node traffic. */
  readonly costTitle?: string;
  readonly unit: string;
  readonly digits: number;
  readonly lowerIsBetter?: true;
}

const FACTS: Readonly<Record<Figure, FigureFacts>> = {
  tcpStream: { name: 'tcp_stream', title: 'TCP stream', costTitle: 'TCP stream', unit: 'Gbit/s', digits: 2 },
  tcpRate: { name: 'tcp_rr_rate', title: 'TCP request/response', unit: '1/s', digits: 0 },
  tcpP50: {
    name: 'tcp_rr_p50',
    title: '  latency, median',
    costTitle: 'TCP latency',
    unit: 'us',
    digits: 1,
    lowerIsBetter: true,
  },
  tcpP99: { name: 'tcp_rr_p99', title: '  latency, p99', unit: 'us', digits: 1, lowerIsBetter: true },
  udpRate: { name: 'udp_rr_rate', title: 'UDP request/response', unit: '1/s', digits: 0 },
  udpP50: {
    name: 'udp_rr_p50',
    title: '  latency, median',
    costTitle: 'UDP latency',
    unit: 'us',
    digits: 1,
    lowerIsBetter: true,
  },
  udpP99: { name: 'udp_rr_p99', title: '  latency, p99', unit: 'us', digits: 1, lowerIsBetter: true },
};

/** Figures that XMasq's cost to node-to-node traffic is shown by. */
const COST_FIGURES: readonly Figure[] = ['tcpStream', 'tcpP50', 'udpP50'];

/** Host and overlay closer than this part of the host's figure: their difference is noise, and so a share of it. */
const LEAST_GAP = 0.01;

/** How much of the way from overlay to host XMasq goes, in percent; null where the two cannot be told apart. */
export function gapClosedPct(host: number, overlay: number, xmasq: number): number | null {
  if (Math.abs(host - overlay) < LEAST_GAP * Math.abs(host)) return null;
  return gapClosed(host, overlay, xmasq);
}

/** The JSON result. */
export function demoResult(samples: Samples, wire: WireCount): DemoResult {
  return {
    metrics: [
      ...FIGURES.map((figure) => pathMetric(samples, figure)),
      ...COST_FIGURES.map((f) => costMetric(samples, f)),
    ],
    wire: { masqueraded: wire.masqueraded, encapsulated: wire.encapsulated },
  };
}

/** The table for people. */
export function demoTable(samples: Samples): string {
  const header = ['', 'UNIT', 'HOST NETWORK', 'OVERLAY', 'XMASQ', 'GAP CLOSED'];
  const pathRows = FIGURES.map((figure) => {
    const { title, unit } = FACTS[figure];
    const { gapClosedPct: gap } = pathMetric(samples, figure);
    return [
      title,
      unit,
      ...(['host', 'overlay', 'xmasq'] as const).map((path) => cell(samples, path, figure)),
      gap === null ? 'n/a' : `${gap.toFixed(0)} %`,
    ];
  });
  const costRows = COST_FIGURES.map((figure) => {
    const { costTitle, unit, lowerIsBetter } = FACTS[figure];
    const { host, xmasq } = costMetric(samples, figure);
    const worse = lowerIsBetter === true ? xmasq - host : host - xmasq;
    return [
      `Node to node beside XMasq: ${costTitle ?? ''}`,
      unit,
      cell(samples, 'host', figure),
      '-',
      cell(samples, 'hostBesideXmasq', figure),
      `cost ${((worse / host) * 100).toFixed(1)} %`,
    ];
  });
  return align([header, ...pathRows, ...costRows]);
}

function pathMetric(samples: Samples, figure: Figure): Metric {
  const [host, overlay, xmasq] = (['host', 'overlay', 'xmasq'] as const).map((path) =>
    median(values(samples, path, figure)),
  );
  if (host === undefined || overlay === undefined || xmasq === undefined)
    throw new RangeError(`no samples of ${figure}`);
  const gap = gapClosedPct(host, overlay, xmasq);
  const { name, unit } = FACTS[figure];
  return {
    name,
    unit,
    host: round(host),
    overlay: round(overlay),
    xmasq: round(xmasq),
    gapClosedPct: gap,
  };
}

function costMetric(samples: Samples, figure: Figure): Metric {
  return {
    name: `node_to_node_${FACTS[figure].name}`,
    unit: FACTS[figure].unit,
    host: round(median(values(samples, 'host', figure))),
    overlay: null,
    xmasq: round(median(values(samples, 'hostBesideXmasq', figure))),
    gapClosedPct: null,
  };
}

function values(samples: Samples, path: PathName, figure: Figure): readonly number[] {
  return samples.get(path)?.get(figure) ?? [];
}

/** Median, and the least and greatest round. */
function cell(samples: Samples, path: PathName, figure: Figure): string {
  const all = values(samples, path, figure);
  const { digits } = FACTS[figure];
  const text = (value: number): string => value.toFixed(digits);
  return `${text(median(all))} (${text(Math.min(...all))}-${text(Math.max(...all))})`;
}

/** First two columns left, others right. */
function align(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => (row[column] ?? '').length)));
  const lines = rows.map((row) =>
    row
      .map((text, column) => {
        const width = widths[column] ?? 0;
        return column < 2 ? text.padEnd(width) : text.padStart(width);
      })
      .join('  ')
      .trimEnd(),
  );
  return `${lines.join('\n')}\n`;
}
