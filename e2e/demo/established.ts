/** Flows that go on in the background of the XMasq lab until they are on the fast path, and as long as somebody looks. */
import { LabError } from '../lab/lab.ts';
import type { Lab, Proc } from '../lab/lab.ts';
import { IPPROTO } from '../lab/packet.ts';
import type { FlowFilter, LabSidecars } from '../lab/sidecar.ts';
import type { WireFlow } from '../lab/wire.ts';

/** Ports of the flows: below the ephemeral range, and of nothing else in the demo. */
const TCP_PORT = 7001;
const FIRST_TCP_SPORT = 7201;
/** The same for every measurement: a UDP flow is admitted after two seconds of traffic both ways, then stays. */
export const UDP = { port: 7002, sport: 7102 } as const;

/** TCP needs some packets. */
const TCP_FAST_MS = 8000;
/** Conntrack calls UDP assured after 2 s; refused flows are looked at again after up to 1 s. */
const UDP_FAST_MS = 15_000;
/** Bytes per second, requests per second: enough to see, little enough for a capture. */
const STREAM_RATE = 10_000_000;
const REQUEST_INTERVAL_US = 1000;
const LIFETIME_S = 60;

/** Two flows from pod to pod, both fast on both nodes. */
export interface Established {
  readonly flows: readonly WireFlow[];
  /** Picks the TCP flow. */
  readonly sample: FlowFilter;
  stop(): Promise<void>;
}

/**
 * Starts a paced TCP transfer and UDP requests, and waits until both are on the fast path on both nodes. A LabError says
 * which is not and why.
 */
export async function establish(lab: Lab, sidecars: LabSidecars): Promise<Established> {
  // The ports of a connection that was closed are in use for a minute.
  const tcp = { port: TCP_PORT, sport: FIRST_TCP_SPORT + started } as const;
  started += 1;
  const client = lab.node(0).pod(0);
  const server = lab.node(1).pod(0);
  const procs: Proc[] = [];
  const stop = async (): Promise<void> => {
    await Promise.all(procs.map((proc) => proc.stop()));
  };
  const seconds = ['--seconds', String(LIFETIME_S)];
  const start = async (
    tool: 'stream' | 'rr',
    proto: 'tcp' | 'udp',
    ports: { readonly port: number; readonly sport: number },
    pace: readonly string[],
  ): Promise<void> => {
    const common = [`--${proto}`, '--port', String(ports.port), ...seconds];
    const serving = await server.spawn([lab.tool(tool), 'server', ...common, '--bind', server.address]);
    procs.push(serving);
    await serving.waitFor(/^ready/);
    const to = ['--to', server.address, '--sport', String(ports.sport)];
    procs.push(await client.spawn([lab.tool(tool), 'client', ...common, ...to, ...pace]));
  };
  try {
    await start('stream', 'tcp', tcp, ['--rate', String(STREAM_RATE)]);
    await start('rr', 'udp', UDP, ['--interval-us', String(REQUEST_INTERVAL_US)]);
    await Promise.all([
      requireFast(sidecars, 'TCP', { proto: 'tcp', port: tcp.sport }, TCP_FAST_MS),
      requireFast(sidecars, 'UDP', { proto: 'udp', port: UDP.port }, UDP_FAST_MS),
    ]);
  } catch (error) {
    await stop();
    throw error;
  }
  const wireFlow = (proto: number, ports: { readonly port: number; readonly sport: number }): WireFlow => ({
    proto,
    client: { pod: client, node: client.node, port: ports.sport },
    server: { pod: server, node: server.node, port: ports.port },
  });
  return {
    flows: [wireFlow(IPPROTO.tcp, tcp), wireFlow(IPPROTO.udp, UDP)],
    sample: { proto: 'tcp', port: tcp.sport },
    stop,
  };
}

/** Calls of `establish` so far. */
let started = 0;

async function requireFast(sidecars: LabSidecars, what: string, filter: FlowFilter, timeoutMs: number): Promise<void> {
  try {
    await sidecars.waitFast(filter, timeoutMs);
  } catch (error) {
    const detail = error instanceof Error ? error.message : String(error);
    throw new LabError(`the ${what} flow did not get onto the fast path: ${detail}`);
  }
}
