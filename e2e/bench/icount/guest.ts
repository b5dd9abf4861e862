/**
 * Measures all paths inside the micro-VM, whose clock counts instructions (see main.ts). Prints a figure per line as JSON
 * behind FIGURE, and what it is doing on standard error.
 */
import { LabError, OFFLOADS_ON } from '../../lab/lab.ts';
import type { Lab, LabOptions, OffloadFlags } from '../../lab/lab.ts';
import { requestResponse, transfer } from '../../lab/measure.ts';
import type { Pair, RequestResponseOptions, RequestResponseResult } from '../../lab/measure.ts';
import { up as upNative } from '../../lab/native/native.ts';
import { up as upOvs } from '../../lab/ovs/ovs.ts';
import { startSidecars } from '../../lab/sidecar.ts';
import type { LabSidecars, SidecarSettings } from '../../lab/sidecar.ts';
import { median, midmean } from '../statistics.ts';
import { WRITTEN, nodeToNode, podToPod } from '../labs.ts';
import { NS_PER_INSTRUCTION, printFigure } from './counting.ts';
import { KUBE_PROXY_RULES } from '../kube-proxy.ts';
import { METRICS, MODES, MODE_METRICS, REQUESTS } from './paths.ts';
import type { Figure, Metric, ModeName, PathName } from './paths.ts';

/**
 * Labs that each way is measured in, one after another, of which the median counts: in some one of twenty all requests by UDP
 * cost 3,400 more, whatever way they go. Most likely they have found another rhythm with the scheduler.
 */
const LABS = 3;
const TRANSACTIONS = 2000;
const CONNECTIONS = 2000;
const STREAM_BYTES = 6_000_000;
/**
 * Streams, of which the middle half counts: some wait for a timer. With receive buffers of one size: where the kernel enlarges
 * them, a stream has 180 to 800 acknowledgements, by chance, and costs a percent more or less.
 */
const STREAMS = 11;
const ONE_BUFFER = 'echo 0 >/proc/sys/net/ipv4/tcp_moderate_rcvbuf';
/** UDP is admitted when conntrack calls it assured, two seconds after its first reply. */
const UDP_WARMUP_S = 4;
const TCP_WARMUP_S = 0.5;
/** A connection's first requests are slow, see docs/design.md, "Short connections": at most so many. */
const SLOW_REQUESTS = 5;
/** The first connections cost a percent more, until tables have the size that they keep. */
const CONNECTIONS_WARMUP_S = 2;
/** Of the packets of a measurement by XMasq's path at least so many have to be fast, or it says nothing. */
const FAST_SHARE = 0.98;

const NO_SEGMENTATION: OffloadFlags = { tso: false, gso: false, gro: false, 'tx-udp-segmentation': false };

/** What to measure, of main.ts: comma-separated, all if empty. */
const PATHS_WANTED = process.env['XMASQ_BENCH_PATHS'] ?? '';
const METRICS_WANTED = process.env['XMASQ_BENCH_METRICS'] ?? '';
const CONNECTION_REQUESTS = Number(process.env['XMASQ_BENCH_REQUESTS'] || REQUESTS);

function wanted(list: string, name: string): boolean {
  return list === '' || list.split(',').includes(name);
}

/** How a path is made, in a lab of its own. */
interface Course {
  readonly path: PathName | ModeName;
  /** Two nodes, with one pod each. */
  readonly up: () => Promise<Lab>;
  /** For nft, on both nodes. */
  readonly rules?: string;
  /** From node to node. Default: from pod to pod. */
  readonly betweenNodes?: boolean;
  /** Of the sidecars that have to carry the packets. Default: there are none. */
  readonly settings?: SidecarSettings;
  /** What counts the packets that go as they shall. Default: masqueraded. */
  readonly counter?: 'fast_tx' | 'fast_encap' | 'fast_direct';
  /** Of all devices where nothing else is wanted. Default OFFLOADS_ON. */
  readonly offloads?: OffloadFlags;
}

/** A path that is there. */
interface Way extends Course {
  readonly lab: Lab;
  readonly pair: Pair;
  readonly sidecars?: LabSidecars;
}

/** Of a time of the guest's clock, microseconds. */
const instructions = (us: number): number => (us * 1000) / NS_PER_INSTRUCTION;

/** Packets that the client's node has sent as they shall go. */
async function sentFast({ sidecars, counter = 'fast_tx' }: Way): Promise<number> {
  return (await sidecars?.node(0).status())?.counters[counter] ?? 0;
}

/**
 * Runs a measurement; by XMasq's path the client's node has to send at least so many packets fast meanwhile. The sidecars
 * are stopped: on so slow a machine what they do at rest would be a good part of every figure.
 */
async function fastly<T>(way: Way, packets: number, measure: () => Promise<T>): Promise<T> {
  const { sidecars } = way;
  const before = await sentFast(way);
  signal(sidecars, 'SIGSTOP');
  let result: T;
  try {
    result = await measure();
  } finally {
    signal(sidecars, 'SIGCONT');
  }
  const sent = (await sentFast(way)) - before;
  if (sidecars !== undefined && sent < packets * FAST_SHARE) {
    throw new LabError(`only ${sent} of ${packets} packets were fast`);
  }
  return result;
}

function signal(sidecars: LabSidecars | undefined, name: NodeJS.Signals): void {
  for (const { proc } of sidecars?.nodes ?? []) process.kill(proc.pid, name);
}

async function transactions(way: Way, proto: 'tcp' | 'udp'): Promise<number> {
  const warmupSeconds = proto === 'udp' ? UDP_WARMUP_S : TCP_WARMUP_S;
  const { p50Us } = await requests(way, TRANSACTIONS, { proto, count: TRANSACTIONS, warmupSeconds });
  return instructions(p50Us);
}

/**
 * With their ends: whether the server's part of one is over before the next connection has its answer depends on the scheduler.
 * It orders them in many ways of nearly equal shares, so that the median of some thousand moves by percents, and their mean by
 * a tenth of that.
 */
async function connections(way: Way, each: number): Promise<number> {
  const options = { crr: true, whole: true, requests: each, count: CONNECTIONS, warmupSeconds: CONNECTIONS_WARMUP_S };
  const fast = CONNECTIONS * Math.max(0, each - SLOW_REQUESTS);
  const { meanUs } = await requests(way, fast, { proto: 'tcp', ...options });
  return instructions(meanUs);
}

/** @throws LabError if something went wrong */
async function requests(way: Way, packets: number, options: RequestResponseOptions): Promise<RequestResponseResult> {
  const result = await fastly(way, packets, () =>
    requestResponse(way.lab, way.pair, { ...options, timeoutMs: 60_000 }),
  );
  const { errors, timeouts, corrupt, lastError } = result;
  if (errors + timeouts + corrupt > 0) throw new LabError(`${errors} errors, ${timeouts} timeouts: ${lastError}`);
  return result;
}

async function stream(way: Way): Promise<number> {
  const { lab, pair, offloads = OFFLOADS_ON } = way;
  await lab.offload({ ...offloads, ...NO_SEGMENTATION });
  for (const end of [pair.from, pair.to]) await end.exec(['sh', '-c', ONE_BUFFER]);
  const costs: number[] = [];
  for (let i = 0; i < STREAMS; i++) {
    const result = await fastly(way, STREAM_BYTES / 1500, () =>
      transfer(lab, pair, ['--up', String(STREAM_BYTES), '--down', '0'], { limitSeconds: 600 }),
    );
    if (!result.complete || result.corrupt + result.peerCorrupt > 0) throw new LabError(`transfer: ${result.error}`);
    costs.push(instructions(result.seconds * 1e6) / (STREAM_BYTES / 1024));
  }
  await lab.offload(offloads);
  return midmean(costs);
}

const MEASURE: Readonly<Record<Metric, (way: Way) => Promise<number>>> = {
  tcp_rr: (way) => transactions(way, 'tcp'),
  udp_rr: (way) => transactions(way, 'udp'),
  tcp_stream: stream,
  // Connections last: see measureOnce.
  tcp_crr: (way) => connections(way, 1),
  tcp_connection: (way) => connections(way, CONNECTION_REQUESTS),
};

/** Adds a figure of each metric that is wanted to `figures`. */
async function measureAll(way: Way, figures: Map<Metric, number[]>): Promise<void> {
  const { path } = way;
  // Who asks first resolves neighbours and fills caches, for whatever follows.
  await requestResponse(way.lab, way.pair, { proto: 'tcp', count: 50, timeoutMs: 60_000 });
  for (const [metric, measure] of Object.entries(MEASURE) as [Metric, (way: Way) => Promise<number>][]) {
    if (!metricsOf(path).includes(metric)) continue;
    const cost = await measure(way);
    console.error(`${path}: ${metric} ${Math.round(cost)}`);
    figures.set(metric, [...(figures.get(metric) ?? []), cost]);
  }
}

/** What is to be measured of a way. */
function metricsOf(path: PathName | ModeName): readonly string[] {
  const all: readonly string[] = (MODES as readonly string[]).includes(path) ? MODE_METRICS : Object.keys(METRICS);
  return all.filter((metric) => wanted(METRICS_WANTED, metric));
}

async function nft(lab: Lab, rules: string): Promise<void> {
  await Promise.all(lab.nodes.map((node) => node.exec(['nft', '-f', '-'], { input: rules })));
}

const ovs = (): Promise<Lab> => upOvs({ podsPerNode: 1 });
const native =
  (options: LabOptions = {}) =>
  (): Promise<Lab> =>
    upNative({ ...options, podsPerNode: 1 });
/** The lab's own rules are those of an overlay. */
const WITHOUT_RULES = 'flush ruleset\n';

const COURSES: readonly Course[] = [
  { path: 'host', up: native(), betweenNodes: true, rules: WITHOUT_RULES },
  { path: 'hostK8s', up: native(), betweenNodes: true, rules: WITHOUT_RULES + KUBE_PROXY_RULES },
  { path: 'overlay', up: ovs },
  { path: 'overlayK8s', up: ovs, rules: KUBE_PROXY_RULES },
  { path: 'xmasq', up: ovs, settings: {} },
  { path: 'xmasqK8s', up: ovs, rules: KUBE_PROXY_RULES, settings: {} },
  { path: 'encap', up: ovs, settings: { transmitMode: 'encap' }, counter: 'fast_encap' },
  // In the native lab, which has nodes without a tunnel and whose devices XDP takes.
  { path: 'direct', up: native({ encapMode: 'noEncap' }), settings: {}, counter: 'fast_direct' },
  { path: 'tcWritten', up: native(), settings: { xdp: 'off' }, offloads: WRITTEN },
  { path: 'xdpWritten', up: native(), settings: { xdp: 'native' }, offloads: WRITTEN },
];

/**
 * Nothing that was measured before plays a part: Open vSwitch's kernel datapath orders its masks by their use and finds
 * them by what it remembers of the last packets' hashes (net/openvswitch/flow_table.c, Linux 6.12), so that after some
 * thousand connections a request meets more masks, or not, by chance.
 */
async function measureOnce(course: Course, figures: Map<Metric, number[]>): Promise<void> {
  const { up, rules, betweenNodes = false, settings, offloads } = course;
  const lab = await up();
  if (rules !== undefined) await nft(lab, rules);
  const sidecars = settings === undefined ? undefined : await startSidecars(lab, settings);
  if (offloads !== undefined) await lab.offload(offloads);
  const between = betweenNodes ? nodeToNode(lab) : podToPod(lab);
  await measureAll({ ...course, ...between, ...(sidecars === undefined ? {} : { sidecars }) }, figures);
  if (settings?.xdp === 'native' && sidecars !== undefined) await requireXdp(sidecars);
  await sidecars?.down();
  await lab.down();
}

async function measureCourse(course: Course): Promise<void> {
  const figures = new Map<Metric, number[]>();
  for (let i = 0; i < LABS; i++) await measureOnce(course, figures);
  for (const [metric, all] of figures) {
    const figure: Figure = { path: course.path, metric, instructions: median(all) };
    printFigure(figure);
  }
}

async function requireXdp(sidecars: LabSidecars): Promise<void> {
  const { restored, restored_xdp } = (await sidecars.node(1).status()).counters;
  if (restored_xdp < restored * FAST_SHARE) throw new LabError(`XDP restored ${restored_xdp} of ${restored} packets`);
}

async function main(): Promise<void> {
  for (const course of COURSES) {
    if (wanted(PATHS_WANTED, course.path) && metricsOf(course.path).length > 0) await measureCourse(course);
  }
}

main().then(
  () => process.exit(0),
  (error: unknown) => {
    console.error(error instanceof Error ? error.stack : String(error));
    process.exit(1);
  },
);
