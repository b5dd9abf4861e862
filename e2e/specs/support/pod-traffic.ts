/** Verified TCP and UDP between two pods, on the fast path, while a test does things to the nodes. */
import type { Lab, Pod, Proc } from '../../lab/lab.ts';
import { datagramResult, freshPort, withServer } from '../../lab/measure.ts';
import type { DatagramResult } from '../../lab/measure.ts';
import { EMULATED, stretched } from '../../lab/scale.ts';
import type { LabSidecars } from '../../lab/sidecar.ts';

/** The flows: client and server, and the ports that TCP and UDP both use. */
export interface PodFlows {
  readonly from: Pod;
  readonly to: Pod;
  readonly sport: number;
  readonly port: number;
}

/** What came of it. */
export interface PodTraffic<T> {
  readonly value: T;
  /** Undefined: the client was stuck. */
  readonly udp: DatagramResult | undefined;
  /** Undefined: the client was stuck, waiting for an answer. */
  readonly tcp: PodExchanges | undefined;
  /**
   * UDP packets that one node has sent masqueraded and the other restored, in each direction. More restored than sent:
   * somebody else's were taken for the flow's.
   */
  readonly masqueraded: { readonly forward: SentRestored; readonly backward: SentRestored };
}

export interface SentRestored {
  readonly sent: number;
  readonly restored: number;
}

/** Request/response over one TCP connection; every answer is compared with what was sent. */
export interface PodExchanges {
  readonly transactions: number;
  readonly errors: number;
  readonly corrupt: number;
  /** The longest one, milliseconds. */
  readonly maxMs: number;
}

/** Neither lost nor damaged, nor anything of somebody else's. */
export const UNDISTURBED = {
  udp: { answered: true, foreign: 0, peer: { lost: 0, corrupt: 0, duplicates: 0 }, echo: { lost: 0, corrupt: 0 } },
  tcp: { errors: 0, corrupt: 0 },
} as const;

/** Datagrams per second, each answered. */
const UDP_RATE = EMULATED ? 50 : 500;
const TCP_INTERVAL_US = stretched(2000);
const TCP_SIZE = 500;
/** A client tells its results within this. */
const STOP_MS = 3000;
/** Until both UDP flows are fast: conntrack calls them a stream after two seconds. */
const FAST_MS = 8000;

/** Starts the traffic, waits until it is fast both ways, runs `use` during it and ends it. */
export async function besidePods<T>(
  lab: Lab,
  sidecars: LabSidecars,
  { from, to }: Pick<PodFlows, 'from' | 'to'>,
  use: (flows: PodFlows) => Promise<T>,
): Promise<PodTraffic<T>> {
  const flows: PodFlows = { from, to, sport: freshPort(), port: freshPort() };
  const where = ['--port', String(flows.port)];
  const client = ['--to', to.address, '--bind', from.address, '--sport', String(flows.sport), ...where];
  const server = ['--bind', to.address, ...where];
  const [stream, rr, size] = [lab.tool('stream'), lab.tool('rr'), ['--size', String(TCP_SIZE)]];
  return withServer(to, [stream, 'server', '--udp', ...server], () =>
    withServer(to, [rr, 'server', '--tcp', ...server, ...size], async () => {
      const udp = await from.spawn(
        [stream, 'client', '--udp', ...client, '--reply', '--rate', String(UDP_RATE), '--seconds', '600'],
        { name: `${from.name}-udp` },
      );
      const tcp = await from.spawn(
        [
          ...[rr, 'client', '--tcp', ...client],
          ...[
            ...size,
            '--interval-us',
            String(TCP_INTERVAL_US),
            '--timeout-ms',
            String(stretched(20_000)),
            '--seconds',
            '600',
            '--json',
          ],
        ],
        { name: `${from.name}-tcp` },
      );
      try {
        for (const proto of ['udp', 'tcp'] as const) await sidecars.waitFast({ proto, port: flows.port }, FAST_MS);
        const value = await use(flows);
        const [udpResult, tcpResult] = await Promise.all([ending(udp, datagramResult), ending(tcp, exchanges)]);
        return { value, udp: udpResult, tcp: tcpResult, masqueraded: await masqueraded(sidecars, flows) };
      } finally {
        await Promise.all([udp.stop(), tcp.stop()]);
      }
    }),
  );
}

/* A client that was stuck in the middle had to be killed and says nothing. */
async function ending<T>(client: Proc, decode: (report: unknown) => T): Promise<T | undefined> {
  await client.stop('SIGTERM', STOP_MS);
  const { signal } = await client.exited;
  return signal === null ? decode(await client.json()) : undefined;
}

function exchanges(value: unknown): PodExchanges {
  const report = value as { transactions: number; errors: number; corrupt: number; maxUs: number };
  const { transactions, errors, corrupt, maxUs } = report;
  return { transactions, errors, corrupt, maxMs: maxUs / 1000 };
}

/* Nothing is under way when this is read: the clients have ended. UDP knows no end, so its flows are still there. */
async function masqueraded(sidecars: LabSidecars, flows: PodFlows): Promise<PodTraffic<unknown>['masqueraded']> {
  const find = async (pod: Pod): Promise<{ tx: number; rx: number }> => {
    const sidecar = sidecars.nodes.find(({ node }) => node === pod.node);
    if (sidecar?.proc.running !== true) return { tx: NaN, rx: NaN };
    const [flow] = await sidecar.flows({ proto: 'udp', port: flows.port, sourceIp: pod.address });
    return { tx: flow?.txPackets ?? NaN, rx: flow?.rxPackets ?? NaN };
  };
  const [client, server] = [await find(flows.from), await find(flows.to)];
  return {
    forward: { sent: client.tx, restored: server.rx },
    backward: { sent: server.tx, restored: client.rx },
  };
}
