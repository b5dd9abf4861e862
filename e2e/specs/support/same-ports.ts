/** Two pod pairs that use the same ports between the same two nodes: who got the fast path, and whether anything mixed. */
import { eventually } from '../../lab/lab.ts';
import type { Capture, Lab, Pod, Proc } from '../../lab/lab.ts';
import { stretched } from '../../lab/scale.ts';
import type { LabSidecars, SidecarFlow } from '../../lab/sidecar.ts';

/** A client and a server; the server answers with its tag, and the client takes no other. */
export interface TaggedPair {
  readonly from: Pod;
  readonly to: Pod;
  /** One character. */
  readonly tag: string;
}

/** Connections that each pair opens: from `sport`, `sport` + 1, ... to `port`. */
export interface Connections {
  readonly proto: 'tcp' | 'udp';
  readonly port: number;
  readonly sport: number;
  readonly count: number;
}

/** What a client found, all its connections together. */
export interface TaggedReport {
  readonly transactions: number;
  readonly errors: number;
  /** UDP only: requests without an answer. */
  readonly timeouts: number;
  /** Answers with a wrong tag, or that answer somebody else's request. */
  readonly corrupt: number;
  readonly connections: number;
}

/** A pair whose traffic is under way. */
export interface RunningPair {
  /** Ends the client and says what it found. */
  finish(): Promise<TaggedReport>;
  /** Ends whatever runs; may be called twice. */
  stop(): Promise<void>;
}

/** Least time between two requests of a connection. */
const INTERVAL_US = stretched(100_000);
/** Bytes; enough for a tag and for content of the connection's own. */
const SIZE = 40;

/** Starts the pair's server and client; the client goes on until `finish`. */
export async function startPair(lab: Lab, pair: TaggedPair, connections: Connections): Promise<RunningPair> {
  const { proto, port, sport, count } = connections;
  const common = [`--${proto}`, '--port', String(port), '--size', String(SIZE)];
  const rr = lab.tool('rr');
  const server = await pair.to.spawn([rr, 'server', ...common, '--bind', pair.to.address, '--tag', pair.tag]);
  let client: Proc | undefined;
  const stop = async (): Promise<void> => {
    await client?.stop();
    await server.stop();
  };
  try {
    await server.waitFor(/^ready/);
    client = await pair.from.spawn([
      ...[rr, 'client', ...common, '--to', pair.to.address, '--expect', pair.tag, '--json', '--seconds', '600'],
      ...['--sport', String(sport), '--flows', String(count), '--interval-us', String(INTERVAL_US)],
      ...['--timeout-ms', String(stretched(10_000))],
    ]);
  } catch (error) {
    await stop();
    throw error;
  }
  const running = client;
  return {
    stop,
    async finish() {
      await running.stop('SIGTERM', 10_000);
      const report = (await running.json()) as TaggedReport;
      await stop();
      return report;
    },
  };
}

/** Captures that see only what a pod must not: packets of the connections' ports to or from anyone but its partner. */
export class Strangers {
  readonly #captures: readonly Capture[];

  private constructor(captures: readonly Capture[]) {
    this.#captures = captures;
  }

  static async watch(pairs: readonly TaggedPair[]): Promise<Strangers> {
    const ends = pairs.flatMap(({ from, to }) => [
      { pod: from, partner: to },
      { pod: to, partner: from },
    ]);
    return new Strangers(
      await Promise.all(
        ends.map(({ pod, partner }) => pod.capture({ filter: `(tcp or udp) and not host ${partner.address}` })),
      ),
    );
  }

  /** Ends the captures; one line for each packet of a stranger, none if all is well. */
  async found(): Promise<string[]> {
    const results = await Promise.all(this.#captures.map((capture) => capture.stop()));
    return results.flatMap(({ packets, dropped }) => [
      ...(dropped > 0 ? [`a capture lost ${dropped} packets`] : []),
      ...packets.map(({ ip, l4 }) => `${ip?.src ?? ''}:${l4?.sport ?? ''} > ${ip?.dst ?? ''}:${l4?.dport ?? ''}`),
    ]);
  }
}

/** The flows of one pair's connections on every node, in the order of the nodes. */
export async function flowsOf(
  sidecars: LabSidecars,
  { from, to }: TaggedPair,
  { port }: Connections,
): Promise<SidecarFlow[][]> {
  const ends = [from.address, to.address];
  return Promise.all(
    sidecars.nodes.map(async (sidecar) =>
      (await sidecar.flows({ port })).filter(
        (flow) => ends.includes(flow.sourceIp) && ends.includes(flow.destinationIp),
      ),
    ),
  );
}

/** Waits until every connection of the pair is a flow on both nodes that is as wanted. */
export async function waitAll(
  sidecars: LabSidecars,
  pair: TaggedPair,
  connections: Connections,
  what: string,
  wanted: (flow: SidecarFlow) => boolean,
  timeoutMs: number,
): Promise<void> {
  let counts: number[] = [];
  try {
    await eventually(
      what,
      async () => {
        counts = (await flowsOf(sidecars, pair, connections)).map((flows) => flows.filter(wanted).length);
        return counts.every((count) => count === connections.count);
      },
      timeoutMs,
      250,
    );
  } catch (error) {
    const others = (await flowsOf(sidecars, pair, connections)).flat().filter((flow) => !wanted(flow));
    const states = new Set(others.map((flow) => `${flow.path} ${flow.reason}`));
    throw new Error(`${what}: ${counts.join(' and ')} of ${connections.count}; others are ${[...states].join(', ')}`, {
      cause: error,
    });
  }
}

/**
 * Admitted flows of one node whose remote end, ports and protocol are those of another admitted flow: their masqueraded
 * packets would look alike. Always none.
 */
export function ambiguous(flows: readonly SidecarFlow[]): string[] {
  const seen = new Set<string>();
  return flows
    .filter((flow) => flow.admitted && !flow.sameNode)
    .map((flow) => `${flow.peer} ${flow.protocol} ${flow.sourcePort} ${flow.destinationPort}`)
    .filter((claim) => (seen.has(claim) ? true : (seen.add(claim), false)));
}

/** Outcome of both pairs opening the same connections at the same time. */
export interface Race {
  readonly reports: readonly TaggedReport[];
  /** See `ambiguous`; seen at any moment of the race. */
  readonly ambiguous: readonly string[];
  /** Connections of each pair that were fast on both nodes at the end. */
  readonly fast: readonly number[];
  readonly strangers: readonly string[];
}

/** Lets pairs open the same connections, all at once, for a while. */
export async function race(
  lab: Lab,
  sidecars: LabSidecars,
  pairs: readonly TaggedPair[],
  connections: Connections,
  durationMs: number,
): Promise<Race> {
  const strangers = await Strangers.watch(pairs);
  const running: RunningPair[] = [];
  try {
    for (const started of await Promise.allSettled(pairs.map((pair) => startPair(lab, pair, connections)))) {
      if (started.status === 'rejected') throw started.reason;
      running.push(started.value);
    }
    const end = Date.now() + stretched(durationMs);
    const clashes: string[] = [];
    await eventually(
      'end of the race',
      async () => {
        for (const sidecar of sidecars.nodes) {
          clashes.push(...ambiguous(await sidecar.flows({ port: connections.port })));
        }
        return Date.now() >= end;
      },
      durationMs + 10_000,
      200,
    );
    const fast = await Promise.all(pairs.map((pair) => fastOnBoth(sidecars, pair, connections)));
    const reports = await Promise.all(running.map((pair) => pair.finish()));
    return { reports, ambiguous: clashes, fast, strangers: await strangers.found() };
  } finally {
    await Promise.all(running.map((pair) => pair.stop()));
  }
}

async function fastOnBoth(sidecars: LabSidecars, pair: TaggedPair, connections: Connections): Promise<number> {
  const client = (flow: SidecarFlow): number =>
    flow.destinationPort === connections.port ? flow.sourcePort : flow.destinationPort;
  const [first = [], ...others] = (await flowsOf(sidecars, pair, connections)).map((flows) =>
    flows.filter((flow) => flow.path === 'fast').map(client),
  );
  return first.filter((port) => others.every((ports) => ports.includes(port))).length;
}
