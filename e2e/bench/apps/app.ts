/** An application as `bench-apps` sees it: a real server that goes on, and a client that loads it for some seconds. */
import { execTimed, processorSeconds } from '../../lab/processor-time.ts';
import type { Proc } from '../../lab/lab.ts';
import { LabError } from '../../lab/lab.ts';
import { clientTarget, serverAddress } from '../../lab/measure.ts';
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
  /** Where the server listens, TCP. */
  readonly port: number;
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

/** What the client connects to: the server itself, or a Service whose only endpoint it is. */
export const TARGETS = ['server', 'service'] as const;
export type Target = (typeof TARGETS)[number];

/** Of the metrics. */
const PREFIX: Readonly<Record<Target, string>> = { server: '', service: 'service_' };
const BY: Readonly<Record<Target, string>> = { server: '', service: ', by ClusterIP' };

/** Address of the Service of all applications, in the labs' range. */
const CLUSTER_IP = '10.96.0.80';
/** Where there are pods. A node's own connections to a Service go through no overlay: its client asks the server itself. */
const WITH_SERVICES: readonly PathName[] = ['overlay', 'xmasq'];

/** Names and units of what is measured with an application. */
export function factsOf({ name, title, operation, latencies }: App, target: Target): Record<string, FigureFacts> {
  const WORDS: Readonly<Record<Latency, string>> = { mean: 'mean', p50: 'median', p99: 'p99' };
  const [prefix, what] = [`${name}_${PREFIX[target]}`, `${title}${BY[target]}`];
  const latencyFacts = latencies.map((latency) => [
    `${prefix}${latency}`,
    { title: `${what}: latency, ${WORDS[latency]}`, unit: 'us', digits: 0 },
  ]);
  return {
    [`${prefix}rate`]: { title: `${what}: ${operation}s`, unit: '1/s', digits: 0 },
    ...(Object.fromEntries(latencyFacts) as Record<string, FigureFacts>),
    [`${prefix}cpu`]: { title: `${what}: processor time per ${operation}`, unit: 'us', digits: 1 },
  };
}

/** Makes the applications' servers endpoints of a Service, for the clients in pods. */
export async function addServices(apps: readonly App[], ways: Readonly<Record<PathName, Way>>): Promise<void> {
  for (const path of WITH_SERVICES) {
    const way = ways[path];
    const services = apps.map(({ port }) => ({
      ...{ clusterIp: CLUSTER_IP, protocol: 'tcp' as const, port },
      endpoints: [{ address: addressOfServer(way), port }],
    }));
    await way.lab.node(0).setServices(services);
  }
}

interface Running {
  readonly server: Proc;
  readonly directory: string;
  readonly to: Readonly<Record<Target, Way>>;
}

/** Starts the application's server by every way and returns the tests that load it. */
export async function testsOf(
  app: App,
  ways: Readonly<Record<PathName, Way>>,
  seconds: number,
  removal: Removal,
  newDirectory: (name: string) => string,
): Promise<Test<string>[]> {
  const running = new Map<Way, Running>();
  for (const [path, way] of Object.entries(ways) as [PathName, Way][]) {
    const directory = newDirectory(`${app.name}-${path}`);
    const server = await removal.add(
      () => onOneCpu(() => app.start(way, directory)),
      (proc) => proc.stop(app.stopSignal, STOP_GRACE_MS),
    );
    await app.ready(way, server);
    const service = WITH_SERVICES.includes(path) ? { ...way, pair: { ...way.pair, via: CLUSTER_IP } } : way;
    running.set(way, { server, directory, to: { server: way, service } });
  }
  return TARGETS.map((target) => ({
    title: `${app.title}${BY[target]}`,
    run: async (way) => {
      const { server, directory, to } = running.get(way) ?? {};
      if (server === undefined || directory === undefined || to === undefined) {
        throw new LabError(`${app.title} does not run`);
      }
      const before = processorSeconds(server.pid);
      const limit = { timeoutMs: seconds * 1000 + CLIENT_GRACE_MS };
      const client = await onOneCpu(() => execTimed(way.pair.from, app.client(to[target], seconds, directory), limit));
      const load = app.result(client.stdout, directory);
      const busySeconds = client.processorSeconds + processorSeconds(server.pid) - before;
      return figures(app, target, load, busySeconds);
    },
  }));
}

function figures(app: App, target: Target, load: Load, busySeconds: number): Record<string, number> {
  const latency = (which: Latency): number => {
    const value = load[`${which}Us`];
    if (value === undefined) throw new LabError(`${app.title}: the client told no ${which} latency`);
    return value;
  };
  const prefix = `${app.name}_${PREFIX[target]}`;
  return {
    [`${prefix}rate`]: load.rate,
    ...Object.fromEntries(app.latencies.map((which) => [`${prefix}${which}`, latency(which)])),
    [`${prefix}cpu`]: (busySeconds / load.operations) * 1e6,
  };
}

/** Where the server listens. */
export function addressOfServer(way: Way): string {
  return serverAddress(way.pair);
}

/** Where the client finds it. */
export function addressToAsk(way: Way): string {
  return clientTarget(way.pair);
}
