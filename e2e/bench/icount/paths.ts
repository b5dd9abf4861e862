/** What is compared, and what is made of it. */
import { gapClosed } from '../statistics.ts';

/** Metrics; each is the instructions that one unit costs on all processors of both nodes together. */
export const METRICS = {
  /** 1 byte there and back on a TCP connection that is there. */
  tcp_rr: 'instructions per transaction',
  /** The same with UDP. */
  udp_rr: 'instructions per transaction',
  /** Connect, 1 byte there and back, close. */
  tcp_crr: 'instructions per transaction',
  /** Connect, REQUESTS times 1 byte there and back, close: a connection that outlives its admission. */
  tcp_connection: 'instructions per connection',
  /** TCP one way, without segmentation and receive offloads. */
  tcp_stream: 'instructions per KiB',
} as const;

/** Of tcp_connection, where nothing else is wanted. */
export const REQUESTS = 10;

export type Metric = keyof typeof METRICS;

/** The ways of a packet; those that end in K8s with conntrack and rules as kube-proxy has them on both nodes. */
export const PATHS = ['host', 'overlay', 'xmasq', 'hostK8s', 'overlayK8s', 'xmasqK8s'] as const;

export type PathName = (typeof PATHS)[number];

/**
 * Other ways of XMasq's than to masquerade and to restore in tc, on nodes without such rules; a connection that ends at once is
 * by none of them. XDP cannot restore what was sent without a checksum, so with it senders write them; `tcWritten` is tc
 * with such senders.
 */
export const MODES = ['encap', 'direct', 'tcWritten', 'xdpWritten'] as const;

export type ModeName = (typeof MODES)[number];

/** What of the metrics is measured by them. */
export const MODE_METRICS = ['tcp_rr', 'udp_rr', 'tcp_stream'] as const satisfies readonly Metric[];

/** One figure of the guest's: instructions. */
export interface Figure {
  readonly path: PathName | ModeName;
  readonly metric: Metric;
  readonly instructions: number;
}

/** A line of the result. */
export interface Row {
  readonly metric: Metric;
  readonly unit: string;
  readonly host: number;
  readonly hostK8s: number;
  readonly overlay: number;
  readonly xmasq: number;
  readonly overlayK8s: number;
  readonly xmasqK8s: number;
  /** How much of what the overlay costs more than the host network is gone: 0 % = overlay, 100 % = host network. */
  readonly gapClosedPct: number;
  /** The same on nodes with the rules. */
  readonly gapClosedK8sPct: number;
  /** Null where the metric is none of MODE_METRICS. */
  readonly modes: Readonly<Record<ModeName, number>> | null;
}

/** Rows of these metrics, by default of all; throws if a figure is missing. */
export function rowsOf(figures: readonly Figure[], metrics: readonly string[] = Object.keys(METRICS)): Row[] {
  return (Object.keys(METRICS) as Metric[])
    .filter((metric) => metrics.includes(metric))
    .map((metric) => {
      const of = (path: PathName | ModeName): number => {
        const figure = figures.find((each) => each.metric === metric && each.path === path);
        if (figure === undefined) throw new Error(`no figure for ${metric} by ${path}`);
        return Math.round(figure.instructions);
      };
      const [host, overlay, xmasq] = [of('host'), of('overlay'), of('xmasq')];
      const [hostK8s, overlayK8s, xmasqK8s] = [of('hostK8s'), of('overlayK8s'), of('xmasqK8s')];
      return {
        ...{ metric, unit: METRICS[metric], host, hostK8s, overlay, xmasq, overlayK8s, xmasqK8s },
        gapClosedPct: gapClosed(host, overlay, xmasq),
        gapClosedK8sPct: gapClosed(hostK8s, overlayK8s, xmasqK8s),
        modes: (MODE_METRICS as readonly Metric[]).includes(metric)
          ? (Object.fromEntries(MODES.map((mode) => [mode, of(mode)])) as Record<ModeName, number>)
          : null,
      };
    });
}

/** What the figures depend on besides the sources: they are compared only where all of it is equal. */
export interface Versions {
  readonly kernel: string;
  readonly qemu: string;
  readonly compiler: string;
}

/** A result that was kept. */
export interface Kept {
  readonly versions: Versions;
  readonly rows: readonly Row[];
}

/** Whether their figures can be compared. */
export function ofOneKind(one: Kept, other: Kept): boolean {
  return JSON.stringify(one.versions) === JSON.stringify(other.versions);
}

/** The record with these rows instead of its own. @throws Error without a record, or where it is of other versions */
export function withRows(kept: Kept | undefined, { versions, rows }: Kept): Kept {
  if (kept === undefined || !ofOneKind(kept, { versions, rows })) {
    throw new Error(
      'a part is kept beside the rest of a record of the same versions: make bench-icount RECORD=1 makes one',
    );
  }
  const all = [...rows, ...kept.rows];
  return {
    versions,
    rows: (Object.keys(METRICS) as Metric[]).flatMap((metric) => all.find((row) => row.metric === metric) ?? []),
  };
}

/** A change of XMasq's cost by more than this is a failure, or worth a new record: more than two runs of the same differ. */
const TOLERANCE_PCT = 1;

/** What has become dearer since then, in words; nothing where versions differ. */
export function dearer(kept: Kept, now: Kept): string[] {
  if (!ofOneKind(kept, now)) return [];
  return now.rows.flatMap((row) => {
    const before = kept.rows.find(({ metric }) => metric === row.metric);
    return Object.entries(ours(row)).flatMap(([path, cost]) => {
      const was = before === undefined ? Infinity : (ours(before)[path] ?? Infinity);
      const pct = (cost / was - 1) * 100;
      return pct > TOLERANCE_PCT ? [`${row.metric} by ${path}: ${cost}, was ${was} (+${pct.toFixed(1)} %)`] : [];
    });
  });
}

/** What XMasq's ways cost, by their names. */
function ours({ xmasq, xmasqK8s, modes }: Row): Readonly<Record<string, number>> {
  return { xmasq, xmasqK8s, ...modes };
}

/** The rows as a table in Markdown. */
export function tableOf(rows: readonly Row[]): string {
  const head = ['metric', 'unit', ...PATHS, 'gap closed', 'gap closed, K8s'];
  const lines = rows.map((row) => [
    row.metric,
    row.unit,
    ...PATHS.map((path) => row[path].toLocaleString('en')),
    `${row.gapClosedPct} %`,
    `${row.gapClosedK8sPct} %`,
  ]);
  return markdown(head, lines);
}

/** What XMasq's other ways cost, as a table in Markdown. */
export function modesTableOf(rows: readonly Row[]): string {
  const lines = rows.flatMap(({ metric, unit, xmasq, modes }) =>
    modes === null
      ? []
      : [[metric, unit, xmasq.toLocaleString('en'), ...MODES.map((mode) => modes[mode].toLocaleString('en'))]],
  );
  return markdown(['metric', 'unit', 'masquerade', ...Object.values(MODE_TITLES)], lines);
}

const MODE_TITLES: Readonly<Record<ModeName, string>> = {
  encap: 'encap',
  direct: 'direct',
  tcWritten: 'masquerade, checksums written',
  xdpWritten: 'the same, restored in XDP',
};

function markdown(head: readonly string[], lines: readonly (readonly string[])[]): string {
  return [head, head.map(() => '---'), ...lines].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}

/** A record in Markdown, as the document has it. */
export function recordText({ versions, rows }: Kept): string {
  return `${Object.values(versions).join('; ')}.\n\n${tableOf(rows)}\n\n${modesTableOf(rows)}`;
}
