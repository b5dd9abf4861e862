/** An application as `bench-apps` sees it: a real server that goes on, and a client that loads it for some seconds. */
import { execTimed, processorSeconds } from '../../lab/processor-time.ts';
import type { Proc } from '../../lab/lab.ts';
import { LabError } from '../../lab/lab.ts';
import { serverAddress } from '../../lab/measure.ts';
import { onOneCpu } from '../cpu.ts';
import type { Removal, Way } from '../labs.ts';
import type { FigureFacts, PathName } from '../result.ts';
import type { Test } from '../rounds.ts';

/** What a client says about a run: latencies of a whole operation in microseconds. */
export interface Load {
  readonly operations: number;
  /** Operations per second. */
  readonly rate: number;
  readonly meanUs?: number;
  readonly p50Us?: number;
  readonly p99Us?: number;
}

/** What of a latency the client of an application tells. */
export type Latency = 'mean' | 'p50' | 'p99';

export interface App {
  /** In lower case, for names of metrics. */
  readonly name: string;
  readonly title: string;
  /** What an operation is, in one word. */
  readonly operation: string;
  readonly latencies: readonly Latency[];
  /** Ends the server at once and in order. */
  readonly stopSignal: NodeJS.Signals;
  /** Starts the server in `way.pair.to`. @param directory its own, empty, open to every user */
  readonly start: (way: Way, directory: string) => Promise<Proc>;
  /** The server answers; fills it if need be. */
  readonly ready: (way: Way, server: Proc) => Promise<void>;
  /** The client's command. */
  readonly client: (way: Way, seconds: number, directory: string) => readonly string[];
  /** What the client printed (or left in `directory`). @throws Error it failed, also in part */
  readonly result: (stdout: string, directory: string) => Load;
}

/** Milliseconds that a client may need on top of its seconds. */
const CLIENT_GRACE_MS = 30_000;
const STOP_GRACE_MS = 8000;

/** Names and units of what is measured with an application. */
export function factsOf({ name, title, operation, latencies }: App): Record<string, FigureFacts> {
  const WORDS: Readonly<Record<Latency, string>> = { mean: 'mean', p50: 'median', p99: 'p99' };
  const latencyFacts = latencies.map((latency) => [
    `${name}_${latency}`,
    { title: `${title}: latency, ${WORDS[latency]}`, unit: 'us', digits: 0 },
  ]);
  return {
    [`${name}_rate`]: { title: `${title}: ${operation}s`, unit: '1/s', digits: 0 },
    ...(Object.fromEntries(latencyFacts) as Record<string, FigureFacts>),
    [`${name}_cpu`]: { title: `${title}: processor time per ${operation}`, unit: 'us', digits: 1 },
  };
}

/** Starts the application's server by every way and returns the test that loads it. */
export async function testOf(
  app: App,
  ways: Readonly<Record<PathName, Way>>,
  seconds: number,
  removal: Removal,
  newDirectory: (name: string) => string,
): Promise<Test<string>> {
  const running = new Map<Way, { readonly server: Proc; readonly directory: string }>();
  for (const [path, way] of Object.entries(ways)) {
    const directory = newDirectory(`${app.name}-${path}`);
    const server = await removal.add(
      () => onOneCpu(() => app.start(way, directory)),
      (proc) => proc.stop(app.stopSignal, STOP_GRACE_MS),
    );
    await app.ready(way, server);
    running.set(way, { server, directory });
  }
  return {
    title: app.title,
    run: async (way) => {
      const { server, directory } = running.get(way) ?? {};
      if (server === undefined || directory === undefined) throw new LabError(`${app.title} does not run`);
      const before = processorSeconds(server.pid);
      const limit = { timeoutMs: seconds * 1000 + CLIENT_GRACE_MS };
      const client = await onOneCpu(() => execTimed(way.pair.from, app.client(way, seconds, directory), limit));
      const load = app.result(client.stdout, directory);
      const busySeconds = client.processorSeconds + processorSeconds(server.pid) - before;
      return figures(app, load, busySeconds);
    },
  };
}

function figures(app: App, load: Load, busySeconds: number): Record<string, number> {
  const latency = (which: Latency): number => {
    const value = load[`${which}Us`];
    if (value === undefined) throw new LabError(`${app.title}: the client told no ${which} latency`);
    return value;
  };
  return {
    [`${app.name}_rate`]: load.rate,
    ...Object.fromEntries(app.latencies.map((which) => [`${app.name}_${which}`, latency(which)])),
    [`${app.name}_cpu`]: (busySeconds / load.operations) * 1e6,
  };
}

/** Where the client finds the server. */
export function addressOfServer(way: Way): string {
  return serverAddress(way.pair);
}
