/** What `bench-micro` measures: streams and request/response with more and more flows. */
import { iperf, requestResponse, requireSound } from '../../lab/measure.ts';
import { onOneCpu } from '../cpu.ts';
import type { Plot } from '../plot.ts';
import type { FigureFacts } from '../result.ts';
import type { Test } from '../rounds.ts';

const STREAM_FLOWS = [1, 2, 4, 8, 16] as const;
const RR_FLOWS = [1, 4, 8, 16, 64] as const;
/** For connecting, first packets on the slow path, caches. */
const WARMUP_S = 0.3;
/** A UDP flow is admitted after two seconds of traffic both ways. */
const UDP_FAST_S = 4;
/** Fits into a packet of a pod, and of the host network all the more. */
const DATAGRAM_BYTES = 1400;
/** UDP flows come back by the same ports, below the ephemeral range, while conntrack remembers them: they stay admitted. */
const UDP_STREAM = { port: 7003, sport: 8000 } as const;
const UDP_RR = { port: 7004, sport: 9000 } as const;

/** A test with what is told about its figures. */
export interface MicroTest extends Test<string> {
  readonly facts: Readonly<Record<string, FigureFacts>>;
}

/** All tests, of so many whole seconds each. */
export function testsOf(seconds: number): MicroTest[] {
  return [
    ...STREAM_FLOWS.map((flows) => stream('tcp', flows, seconds)),
    ...STREAM_FLOWS.map((flows) => stream('udp', flows, seconds)),
    ...RR_FLOWS.map((flows) => exchange('tcp_rr', flows, seconds)),
    ...RR_FLOWS.map((flows) => exchange('udp_rr', flows, seconds)),
    ...RR_FLOWS.map((flows) => exchange('tcp_crr', flows, seconds)),
  ];
}

function stream(proto: 'tcp' | 'udp', flows: number, seconds: number): MicroTest {
  const name = `${proto}_stream_${flows}`;
  const title = `${proto.toUpperCase()} stream, ${count(flows)}`;
  const options = { proto, streams: flows, ...(proto === 'udp' ? { ...UDP_STREAM, sendSize: DATAGRAM_BYTES } : {}) };
  return {
    title,
    facts: {
      [name]: { title, unit: 'Gbit/s', digits: 2 },
      [`${name}_cpu`]: { title: `${title}: processor time`, unit: 's/GB', digits: 2 },
    },
    run: async ({ pair }) => {
      const { gbitPerS, processorPerGb } = await iperf(pair, { ...options, seconds });
      return { [name]: gbitPerS, [`${name}_cpu`]: processorPerGb };
    },
    ...(proto === 'udp' && {
      prepare: async ({ pair }) => {
        await iperf(pair, { ...options, seconds: UDP_FAST_S });
        // iperf3's server answers at the beginning only: this answer is the first that tells the key.
        await iperf(pair, { ...options, seconds: 1 });
      },
    }),
  };
}

const EXCHANGES = {
  tcp_rr: { title: 'TCP request/response', options: { proto: 'tcp' } },
  udp_rr: { title: 'UDP request/response', options: { proto: 'udp', ...UDP_RR } },
  tcp_crr: { title: 'TCP connect-request-response', options: { proto: 'tcp', crr: true } },
} as const;

function exchange(name: keyof typeof EXCHANGES, flows: number, seconds: number): MicroTest {
  const { title: kind, options } = EXCHANGES[name];
  const title = `${kind}, ${count(flows)}`;
  const metric = `${name}_${flows}`;
  const fact = (what: string, unit: string): FigureFacts => ({ title: `${title}: ${what}`, unit, digits: 1 });
  return {
    title,
    // Its connections have a handful of packets each.
    staysSlow: name === 'tcp_crr',
    facts: {
      [metric]: { title, unit: '1/s', digits: 0 },
      [`${metric}_p50`]: fact('median', 'us'),
      [`${metric}_p99`]: fact('p99', 'us'),
      [`${metric}_p999`]: fact('p99.9', 'us'),
      // Per transaction in microseconds is the same as per million transactions in seconds.
      [`${metric}_cpu`]: fact('processor time', 's/million'),
    },
    run: async ({ lab, pair }) => {
      const measured = { ...options, flows, seconds, warmupSeconds: WARMUP_S, processorTime: true };
      const result = await onOneCpu(() => requestResponse(lab, pair, measured));
      requireSound(title, pair, result);
      return {
        [metric]: result.rate,
        [`${metric}_p50`]: result.p50Us,
        [`${metric}_p99`]: result.p99Us,
        [`${metric}_p999`]: result.p999Us,
        [`${metric}_cpu`]: result.processorUs,
      };
    },
    ...(name === 'udp_rr' && {
      prepare: async ({ lab, pair }) => {
        await requestResponse(lab, pair, { ...options, flows, seconds: UDP_FAST_S });
      },
    }),
  };
}

function count(flows: number): string {
  return flows === 1 ? '1 flow' : `${flows} flows`;
}

/** What is told about the figures of all tests. */
export const FACTS: Readonly<Record<string, FigureFacts>> = Object.fromEntries(
  testsOf(1).flatMap(({ facts }) => Object.entries(facts)),
);

export const PLOTS: readonly Plot[] = [
  { name: 'bench-micro-rate', title: 'Rates, pod to pod on two nodes', shows: (metric) => /_\d+$/.test(metric) },
  { name: 'bench-micro-latency', title: 'Median latency', shows: (metric) => metric.endsWith('_p50') },
  { name: 'bench-micro-cpu', title: 'Processor time of client and server', shows: (metric) => metric.endsWith('_cpu') },
];
