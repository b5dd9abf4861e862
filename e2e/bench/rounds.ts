/** The measurements: rounds in which every way gets its turn at every test. */
import type { CounterName } from '../lab/admin.ts';
import { LabError, sleep } from '../lab/lab.ts';
import type { LabSidecars, SidecarStatus } from '../lab/sidecar.ts';
import type { Way } from './labs.ts';

/** A measurement counts for XMasq if so much of what each node's pods sent went fast; connecting always goes slow. */
const LEAST_FAST_SHARE = 0.9;
/** Less of all packets than that is no answer, but the control connection of one-way traffic. */
const LEAST_SENT_SHARE = 0.01;
const ATTEMPTS = 3;
/** Flows that were slow for good reason (a stall of the machine looks like a black hole) recover in a second. */
const RECOVERY_MS = 1500;

/** What one measurement gives. */
export type Values<F extends string> = Partial<Record<F, number>>;

/** A measurement, the same by every way. */
export interface Test<F extends string> {
  readonly title: string;
  readonly run: (way: Way) => Promise<Values<F>>;
  /** Before each measurement by XMasq, uncounted: what makes its flows fast. */
  readonly prepare?: (way: Way) => Promise<void>;
  /** Its connections end before they are fast: nothing to check. Default false. */
  readonly staysSlow?: boolean;
}

/** Figures of every round, by way. */
export type Samples<P extends string, F extends string> = ReadonlyMap<P, ReadonlyMap<F, readonly number[]>>;

/** How many rounds, and when to stop before. */
export interface RoundOptions {
  readonly most: number;
  /** Asked before each round with the duration of the longest one so far, milliseconds (0: none yet). */
  readonly goOn: (rounds: number, longestMs: number) => boolean;
  readonly progress: (round: number, what: string) => void;
}

/** What the rounds gave. */
export interface Rounds<P extends string, F extends string> {
  readonly samples: Samples<P, F>;
  readonly rounds: number;
  /** Measurements that were repeated because their packets were not on the fast path. */
  readonly repeated: readonly string[];
}

/** Measures round by round. The order of the ways changes from round to round, so that a drift hits all alike. */
export async function measureRounds<P extends string, F extends string>(
  ways: Readonly<Record<P, Way>>,
  tests: readonly Test<F>[],
  options: RoundOptions,
): Promise<Rounds<P, F>> {
  const all = Object.entries(ways) as [P, Way][];
  const samples = new Map(all.map(([path]) => [path, new Map<F, number[]>()] as const));
  const repeated: string[] = [];
  let rounds = 0;
  let longestMs = 0;
  while (rounds < options.most && options.goOn(rounds, longestMs)) {
    const start = Date.now();
    const first = rounds % all.length;
    for (const test of tests) {
      for (const [path, way] of [...all.slice(first), ...all.slice(0, first)]) {
        options.progress(rounds + 1, `${test.title}, ${way.title}`);
        record(samples.get(path), await measureOne(test, way, repeated));
      }
    }
    rounds += 1;
    longestMs = Math.max(longestMs, Date.now() - start);
  }
  return { samples, rounds, repeated };
}

function record<F extends string>(into: Map<F, number[]> | undefined, values: Values<F>): void {
  for (const [figure, value] of Object.entries(values) as [F, number][]) {
    const list = into?.get(figure);
    if (list === undefined) into?.set(figure, [value]);
    else list.push(value);
  }
}

/** Measures XMasq and makes sure that it was XMasq: the programs' counters tell. */
async function measureOne<F extends string>(test: Test<F>, way: Way, repeated: string[]): Promise<Values<F>> {
  const { sidecars } = way;
  if (sidecars === undefined || test.staysSlow === true) return test.run(way);
  let problem = '';
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    if (attempt > 0) {
      repeated.push(`${test.title}: ${problem}`);
      await sleep(RECOVERY_MS);
    }
    await test.prepare?.(way);
    const before = await statusOfAll(sidecars);
    const values = await test.run(way);
    const after = await statusOfAll(sidecars);
    problem = slowNodes(before, after, way.counter);
    if (problem === '') return values;
  }
  throw new LabError(`${test.title} did not stay on the fast path: ${problem}`);
}

function statusOfAll(sidecars: LabSidecars): Promise<SidecarStatus[]> {
  return Promise.all(sidecars.nodes.map((sidecar) => sidecar.status()));
}

/** What is wrong between two looks at the counters of all nodes; empty: nothing. */
export function slowNodes(
  before: readonly Pick<SidecarStatus, 'counters' | 'reasons'>[],
  after: readonly Pick<SidecarStatus, 'counters' | 'reasons' | 'nodeName'>[],
  counter: CounterName = 'fast_tx',
): string {
  const sent = after.flatMap((now, i) => {
    const then = before[i];
    if (then === undefined) return [];
    const fast = now.counters[counter] - then.counters[counter];
    const slow = now.counters.slow_tx - then.counters.slow_tx;
    return [{ now, then, fast, slow, all: fast + slow }];
  });
  const total = sent.reduce((sum, { all }) => sum + all, 0);
  if (total === 0) return 'no pod sent anything';
  return sent
    .filter(({ all, fast }) => all >= LEAST_SENT_SHARE * total && fast < LEAST_FAST_SHARE * all)
    .map(({ now, then, fast, slow }) => {
      const reasons = (Object.keys(now.reasons) as (keyof typeof now.reasons)[])
        .map((name) => ({ name, packets: now.reasons[name] - then.reasons[name] }))
        .filter(({ packets }) => packets > 0)
        .map(({ name, packets }) => `${name} ${packets}`);
      return `${now.nodeName} sent ${fast} packets fast, ${slow} slow (${reasons.join(', ')})`;
    })
    .join('; ');
}
