/**
 * Measures all paths inside the micro-VM, whose clock counts instructions (see main.ts). Prints a figure per line as JSON
 * behind FIGURE, and what it is doing on standard error.
 */
import { LabError, OFFLOADS_ON } from '../../lab/lab.ts';
import type { Lab, LabOptions, OffloadFlags } from '../../lab/lab.ts';
import { requestResponse, transfer } from '../../lab/measure.ts';
import type { Pair } from '../../lab/measure.ts';
import { up as upNative } from '../../lab/native/native.ts';
import { up as upOvs } from '../../lab/ovs/ovs.ts';
import { startSidecars } from '../../lab/sidecar.ts';
import type { LabSidecars, SidecarSettings } from '../../lab/sidecar.ts';
import { median } from '../statistics.ts';
import { WRITTEN } from '../labs.ts';
import { NS_PER_INSTRUCTION, printFigure } from './counting.ts';
import { KUBE_PROXY_RULES, NO_KUBE_PROXY_RULES } from '../kube-proxy.ts';
import { METRICS, MODES, MODE_METRICS } from './paths.ts';
import type { Figure, Metric, ModeName, PathName } from './paths.ts';

const TRANSACTIONS = 2000;
const CONNECTIONS = 2000;
const STREAM_BYTES = 6_000_000;
/** Streams, of which the median counts: one has a timer or a delayed acknowledgement more than another. */
const STREAMS = 7;
/** UDP is admitted when conntrack calls it assured, two seconds after its first reply. */
const UDP_WARMUP_S = 6;
const TCP_WARMUP_S = 0.5;
/** Of the packets of a measurement by XMasq's path at least so many have to be fast, or it says nothing. */
const FAST_SHARE = 0.98;

const NO_SEGMENTATION: OffloadFlags = { tso: false, gso: false, gro: false, 'tx-udp-segmentation': false };

/** What to measure, of main.ts: comma-separated, all if empty. */
const PATHS_WANTED = process.env['XMASQ_BENCH_PATHS'] ?? '';
const METRICS_WANTED = process.env['XMASQ_BENCH_METRICS'] ?? '';

function wanted(list: string, name: string): boolean {
  return list === '' || list.split(',').includes(name);
}

/** Two places of a lab, and the sidecars that have to carry their packets, if any. */
interface Way {
  readonly lab: Lab;
  readonly pair: Pair;
  readonly sidecars?: LabSidecars;
  /** What counts the packets that go as they shall. Default: masqueraded. */
  readonly counter?: 'fast_tx' | 'fast_encap' | 'fast_direct';
  /** Of all devices where nothing else is wanted. Default OFFLOADS_ON. */
  readonly offloads?: OffloadFlags;
}

const say = (figure: Figure): void => printFigure(figure);

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

async function transactions(way: Way, proto: 'tcp' | 'udp', crr = false): Promise<number> {
  const options = crr
    ? { proto, crr, count: CONNECTIONS }
    : { proto, count: TRANSACTIONS, warmupSeconds: proto === 'udp' ? UDP_WARMUP_S : TCP_WARMUP_S };
  // A connection of few packets stays slow.
  const { p50Us, errors, timeouts, corrupt, lastError } = await fastly(way, crr ? 0 : TRANSACTIONS, () =>
    requestResponse(way.lab, way.pair, { ...options, timeoutMs: 60_000 }),
  );
  if (errors + timeouts + corrupt > 0) throw new LabError(`${errors} errors, ${timeouts} timeouts: ${lastError}`);
  return (p50Us * 1000) / NS_PER_INSTRUCTION;
}

async function stream(way: Way): Promise<number> {
  const { lab, pair, offloads = OFFLOADS_ON } = way;
  await lab.offload({ ...offloads, ...NO_SEGMENTATION });
  const costs: number[] = [];
  for (let i = 0; i < STREAMS; i++) {
    const result = await fastly(way, STREAM_BYTES / 1500, () =>
      transfer(lab, pair, ['--up', String(STREAM_BYTES), '--down', '0'], { limitSeconds: 600 }),
    );
    if (!result.complete || result.corrupt + result.peerCorrupt > 0) throw new LabError(`transfer: ${result.error}`);
    costs.push((result.seconds * 1e9) / NS_PER_INSTRUCTION / (STREAM_BYTES / 1024));
  }
  await lab.offload(offloads);
  return median(costs);
}

const MEASURE: Readonly<Record<Metric, (way: Way) => Promise<number>>> = {
  tcp_rr: (way) => transactions(way, 'tcp'),
  udp_rr: (way) => transactions(way, 'udp'),
  tcp_crr: (way) => transactions(way, 'tcp', true),
  tcp_stream: stream,
};

async function measureAll(path: PathName | ModeName, way: Way): Promise<void> {
  if (!wanted(PATHS_WANTED, path)) return;
  // Who asks first resolves neighbours and fills caches, for whatever follows.
  await requestResponse(way.lab, way.pair, { proto: 'tcp', count: 50, timeoutMs: 60_000 });
  for (const [metric, measure] of Object.entries(MEASURE) as [Metric, (way: Way) => Promise<number>][]) {
    if (!wanted(METRICS_WANTED, metric) || !metricsOf(path).includes(metric)) continue;
    const instructions = await measure(way);
    console.error(`${path}: ${metric} ${Math.round(instructions)}`);
    say({ path, metric, instructions });
  }
}

function metricsOf(path: PathName | ModeName): readonly string[] {
  return (MODES as readonly string[]).includes(path) ? MODE_METRICS : Object.keys(METRICS);
}

async function nft(lab: Lab, rules: string): Promise<void> {
  await Promise.all(lab.nodes.map((node) => node.exec(['nft', '-f', '-'], { input: rules })));
}

/** Both with and without rules on the nodes. */
async function measureBoth(path: 'host' | 'overlay' | 'xmasq', way: Way): Promise<void> {
  await measureAll(path, way);
  await nft(way.lab, KUBE_PROXY_RULES);
  await measureAll(`${path}K8s`, way);
  await nft(way.lab, NO_KUBE_PROXY_RULES);
}

async function measureHost(): Promise<void> {
  const bare = await upNative({ podsPerNode: 1 });
  // The lab's own rules are those of an overlay.
  await nft(bare, 'flush ruleset\n');
  await measureBoth('host', { lab: bare, pair: { from: bare.node(0), to: bare.node(1) } });
  await bare.down();
}

/** In the native lab, which has nodes without a tunnel and whose devices XDP takes. */
async function measureNative(): Promise<void> {
  if (wanted(PATHS_WANTED, 'direct')) {
    await withNative({ encapMode: 'noEncap' }, {}, (way) => measureAll('direct', { ...way, counter: 'fast_direct' }));
  }
  for (const [path, xdp] of [['tcWritten', 'off'] as const, ['xdpWritten', 'native'] as const]) {
    if (!wanted(PATHS_WANTED, path)) continue;
    await withNative({}, { xdp }, async (way) => {
      await way.lab.offload(WRITTEN);
      await measureAll(path, { ...way, offloads: WRITTEN });
      const { restored, restored_xdp } = (await way.sidecars.node(1).status()).counters;
      if (xdp === 'native' && restored_xdp < restored * FAST_SHARE) {
        throw new LabError(`XDP restored ${restored_xdp} of ${restored} packets`);
      }
    });
  }
}

async function withNative(
  options: LabOptions,
  settings: SidecarSettings,
  work: (way: Way & { readonly sidecars: LabSidecars }) => Promise<void>,
): Promise<void> {
  const lab = await upNative({ ...options, podsPerNode: 1 });
  const sidecars = await startSidecars(lab, settings);
  await work({ lab, pair: { from: lab.node(0).pod(0), to: lab.node(1).pod(0) }, sidecars });
  await sidecars.down();
  await lab.down();
}

async function main(): Promise<void> {
  if (['host', 'hostK8s'].some((path) => wanted(PATHS_WANTED, path))) await measureHost();
  const lab = await upOvs({ podsPerNode: 1 });
  const pair = { from: lab.node(0).pod(0), to: lab.node(1).pod(0) };
  await measureBoth('overlay', { lab, pair });
  console.error('xmasq: the sidecars start');
  const sidecars = await startSidecars(lab);
  await measureBoth('xmasq', { lab, pair, sidecars });
  await sidecars.down();
  if (wanted(PATHS_WANTED, 'encap')) {
    const others = await startSidecars(lab, { transmitMode: 'encap' });
    await measureAll('encap', { lab, pair, sidecars: others, counter: 'fast_encap' });
    await others.down();
  }
  await lab.down();
  await measureNative();
}

main().then(
  () => process.exit(0),
  (error: unknown) => {
    console.error(error instanceof Error ? error.stack : String(error));
    process.exit(1);
  },
);
