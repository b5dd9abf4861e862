/** The measurements: rounds in which every way gets its turn at every test. */
import { LabError, sleep } from '../lab/lab.ts';
import { iperf, requestResponse } from '../lab/measure.ts';
import type { RequestResponseResult } from '../lab/measure.ts';
import type { LabSidecars, SidecarStatus } from '../lab/sidecar.ts';
import { onOneCpu } from './cpu.ts';
import { UDP } from './established.ts';
import { PATHS } from './report.ts';
import type { Figure, PathName, Samples } from './report.ts';
import type { Way } from './ways.ts';

/** Seconds of each measurement; whole, as iperf3 wants. */
const SECONDS = 1;
/** Of request/response; the uncounted part is for connecting, first packets on the slow path, caches. */
const DURATION = { seconds: SECONDS, warmupSeconds: 0.2 } as const;
/** A measurement counts for XMasq if so much of what each node's pods sent went fast; connecting always goes slow. */
const LEAST_FAST_SHARE = 0.9;
const ATTEMPTS = 3;
/** Flows that were slow for good reason (a stall of the machine looks like a black hole) recover in a second. */
const RECOVERY_MS = 1500;

type Values = Partial<Record<Figure, number>>;
interface Test {
  readonly title: string;
  readonly run: (way: Way) => Promise<Values>;
}

const TESTS: readonly Test[] = [
  {
    title: 'TCP stream',
    run: async ({ pair }) => ({ tcpStream: (await iperf(pair, { seconds: SECONDS })).gbitPerS }),
  },
  {
    title: 'TCP request/response',
    run: async ({ lab, pair }) => {
      const result = await onOneCpu(() => requestResponse(lab, pair, { proto: 'tcp', ...DURATION }));
      requireSound('TCP', pair.from.name, result);
      return { tcpRate: result.rate, tcpP50: result.p50Us, tcpP99: result.p99Us };
    },
  },
  {
    title: 'UDP request/response',
    run: async ({ lab, pair }) => {
      const result = await onOneCpu(() => requestResponse(lab, pair, { proto: 'udp', ...DURATION, ...UDP }));
      requireSound('UDP', pair.from.name, result);
      return { udpRate: result.rate, udpP50: result.p50Us, udpP99: result.p99Us };
    },
  },
];

/** How many rounds, and when to stop before. */
export interface RoundOptions {
  readonly most: number;
  /** Asked before each round with the duration of the longest one so far, milliseconds (0: none yet). */
  readonly goOn: (rounds: number, longestMs: number) => boolean;
  readonly progress: (round: number, what: string) => void;
}

/** What the rounds gave. */
export interface Rounds {
  readonly samples: Samples;
  readonly rounds: number;
  /** Measurements that were repeated because their packets were not on the fast path. */
  readonly repeated: readonly string[];
}

/** Measures round by round. The order of the ways changes from round to round, so that a drift hits all alike. */
export async function measureRounds(
  ways: Readonly<Record<PathName, Way>>,
  sidecars: LabSidecars,
  options: RoundOptions,
): Promise<Rounds> {
  const samples = new Map(PATHS.map((path) => [path, new Map<Figure, number[]>()] as const));
  const repeated: string[] = [];
  let rounds = 0;
  let longestMs = 0;
  while (rounds < options.most && options.goOn(rounds, longestMs)) {
    const start = Date.now();
    for (const test of TESTS) {
      for (let i = 0; i < PATHS.length; i++) {
        const path = PATHS[(i + rounds) % PATHS.length] ?? 'host';
        options.progress(rounds + 1, `${test.title}, ${LABELS[path]}`);
        const values =
          path === 'xmasq' ? await onFastPath(test, ways[path], sidecars, repeated) : await test.run(ways[path]);
        record(samples.get(path), values);
      }
    }
    rounds += 1;
    longestMs = Math.max(longestMs, Date.now() - start);
  }
  return { samples, rounds, repeated };
}

const LABELS: Readonly<Record<PathName, string>> = {
  host: 'host network',
  overlay: 'overlay',
  xmasq: 'XMasq',
  hostBesideXmasq: 'host network beside XMasq',
};

function record(into: Map<Figure, number[]> | undefined, values: Values): void {
  for (const [figure, value] of Object.entries(values) as [Figure, number][]) {
    const list = into?.get(figure);
    if (list === undefined) into?.set(figure, [value]);
    else list.push(value);
  }
}

/** Measures XMasq and makes sure that it was XMasq: the programs' counters tell. */
async function onFastPath(test: Test, way: Way, sidecars: LabSidecars, repeated: string[]): Promise<Values> {
  let problem = '';
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    if (attempt > 0) {
      repeated.push(`${test.title}: ${problem}`);
      await sleep(RECOVERY_MS);
    }
    const before = await statusOfAll(sidecars);
    const values = await test.run(way);
    const after = await statusOfAll(sidecars);
    problem = slowNode(before, after);
    if (problem === '') return values;
  }
  throw new LabError(`the ${test.title} did not stay on the fast path: ${problem}`);
}

function statusOfAll(sidecars: LabSidecars): Promise<SidecarStatus[]> {
  return Promise.all(sidecars.nodes.map((sidecar) => sidecar.status()));
}

/** What is wrong between two looks at the counters; empty: nothing. */
function slowNode(before: readonly SidecarStatus[], after: readonly SidecarStatus[]): string {
  return after
    .flatMap((now, i) => {
      const then = before[i];
      if (then === undefined) return [];
      const fast = now.counters.fast_tx - then.counters.fast_tx;
      const slow = now.counters.slow_tx - then.counters.slow_tx;
      if (fast > 0 && fast >= LEAST_FAST_SHARE * (fast + slow)) return [];
      const reasons = (Object.keys(now.reasons) as (keyof typeof now.reasons)[])
        .map((name) => ({ name, packets: now.reasons[name] - then.reasons[name] }))
        .filter(({ packets }) => packets > 0)
        .map(({ name, packets }) => `${name} ${packets}`);
      return [`${now.nodeName} sent ${fast} packets fast, ${slow} slow (${reasons.join(', ')})`];
    })
    .join('; ');
}

function requireSound(proto: string, from: string, result: RequestResponseResult): void {
  if (result.transactions > 0 && result.errors === 0 && result.corrupt === 0) return;
  throw new LabError(`${proto} request/response from ${from} went wrong: ${JSON.stringify(result)}`);
}
