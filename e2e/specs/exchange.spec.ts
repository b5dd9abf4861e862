/** The key exchange under loss, reordering and loss of state: dozens of flows become fast again once that ends. */
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { eventually, sleep } from '../lab/lab.ts';
import type { Pod, Proc } from '../lab/lab.ts';
import { datagramResult, freshPort, transferResult } from '../lab/measure.ts';
import { up } from '../lab/native/native.ts';
import type { NativeLab } from '../lab/native/native.ts';
import { seeded } from '../lab/random.ts';
import { EMULATED } from '../lab/scale.ts';
import { describeFlow, startSidecars } from '../lab/sidecar.ts';
import type { LabSidecars, SidecarFlow } from '../lab/sidecar.ts';
import { atLeast } from './support/matchers.ts';

/** Moments and victims; a failure names it. */
const SEED = 20_251;
const FAULTS_MS = EMULATED ? 20_000 : 10_000;
/** Until the last flow is fast again: one that met black holes or rejections pauses 1, 2, 4 or 8 s after the last one. */
const BOUND_MS = 15_000;
/** Request/response flows of each protocol, that go on until they are fast again. */
const CONNECTIONS = EMULATED ? 4 : 20;
/** Streams of each protocol besides, through the faults. */
const STREAMS = EMULATED ? 2 : 6;
/** Between two requests of a flow. */
const INTERVAL_US = EMULATED ? 100_000 : 20_000;
/** Longer than all of it. */
const SECONDS = EMULATED ? '1200' : '300';
/** When a TCP connection that hears nothing has failed. */
const TCP_PATIENCE_S = EMULATED ? 120 : 20;
/** When a datagram is given up. */
const UDP_PATIENCE_MS = EMULATED ? 2000 : 300;

/** One client and its server. */
interface Running {
  readonly client: Proc;
  readonly server: Proc;
}

describe('the key exchange under faults', () => {
  let lab: NativeLab;
  let sidecars: LabSidecars;
  let a: Pod;
  let b: Pod;
  let running: Running[];

  beforeAll(async () => {
    lab = await up({ router: true, podsPerNode: 1 });
    sidecars = await startSidecars(lab);
    a = lab.node(0).pod(0);
    b = lab.node(1).pod(0);
    running = [];
  });
  afterAll(async () => {
    await Promise.all(running.flatMap(({ client, server }) => [client.stop(), server.stop()]));
    await sidecars.down();
    await lab.down();
  });

  async function start(
    tool: 'rr' | 'stream',
    common: readonly string[],
    args: readonly string[],
    port = freshPort(),
  ): Promise<Proc> {
    const where = [...common, '--port', String(port)];
    const server = await b.spawn([lab.tool(tool), 'server', ...where, '--bind', b.address]);
    await server.waitFor(/^ready/);
    const client = await a.spawn([lab.tool(tool), 'client', ...where, '--to', b.address, ...args]);
    running.push({ client, server });
    return client;
  }

  /** Waits until all flows of these ports are fast on both nodes. */
  async function waitAllFast(ports: readonly number[], timeoutMs: number): Promise<void> {
    const flowsOf = async (port: number): Promise<SidecarFlow[][]> =>
      Promise.all(sidecars.nodes.map((sidecar) => sidecar.flows({ port })));
    const all = async (): Promise<SidecarFlow[][]> => (await Promise.all(ports.map(flowsOf))).flat();
    const isFast = ({ path }: SidecarFlow): boolean => path === 'fast';
    try {
      await eventually(
        'all flows fast',
        async () => (await all()).every((list) => list.filter(isFast).length === CONNECTIONS),
        timeoutMs,
        200,
      );
    } catch (error) {
      const slow = (await all()).map((list) => list.filter((flow) => !isFast(flow)).map(describeFlow));
      throw new Error(`seed ${SEED}: not all flows are fast: ${JSON.stringify(slow, undefined, 1)}`, { cause: error });
    }
  }

  test('converges after 5 % loss, reordering and state wiped at random moments, with all data intact', async () => {
    const random = seeded(SEED);
    const rr = ['--json', '--flows', String(CONNECTIONS), '--interval-us', String(INTERVAL_US), '--seconds', SECONDS];
    const ports = [freshPort(), freshPort()];
    const tcp = await start(
      'rr',
      ['--tcp', '--size', '200'],
      [...rr, '--timeout-ms', String(TCP_PATIENCE_S * 1000)],
      ports[0],
    );
    const udp = await start(
      'rr',
      ['--udp', '--size', '200'],
      [...rr, '--timeout-ms', String(UDP_PATIENCE_MS)],
      ports[1],
    );
    await waitAllFast(ports, 15_000);
    const transfers: Proc[] = [];
    const datagrams: Proc[] = [];
    for (let i = 0; i < STREAMS; i++) {
      const pace = ['--rate', '100000', '--send-size', '3000', '--stall-s', String(1.5 * TCP_PATIENCE_S)];
      const both = ['--up', '1M', '--down', '1M', ...pace];
      transfers.push(await start('stream', ['--tcp'], both));
      datagrams.push(await start('stream', ['--udp'], ['--seconds', SECONDS, '--reply', '--rate', '50']));
    }

    await lab.underlay.setLoss(5);
    await lab.underlay.setReorder(20, 3);
    const end = Date.now() + FAULTS_MS;
    const wiped = [0, 0];
    while (Date.now() < end) {
      await sleep(random.between(20, 900));
      const victim = random.between(0, 2);
      for (const node of victim === 2 ? [0, 1] : [victim]) {
        wiped[node] = (wiped[node] ?? 0) + sidecars.node(node).maps.wipe().flows;
      }
    }
    expect(Math.min(...wiped)).toBeGreaterThan(2 * CONNECTIONS);
    await lab.underlay.clear();
    await waitAllFast(ports, BOUND_MS);

    for (const client of [tcp, udp, ...datagrams]) await client.stop('SIGTERM', 10_000);
    expect(await tcp.json()).toMatchObject({
      connections: CONNECTIONS,
      errors: 0,
      corrupt: 0,
      transactions: atLeast(1),
    });
    expect(await udp.json()).toMatchObject({ errors: 0, corrupt: 0, transactions: atLeast(1) });
    for (const client of datagrams) {
      expect(datagramResult(await client.json())).toMatchObject({
        foreign: 0,
        peer: { corrupt: 0, duplicates: 0 },
        echo: { corrupt: 0, duplicates: 0 },
      });
    }
    for (const client of transfers) {
      const report = transferResult(await client.json(60_000));
      expect(report).toMatchObject({ complete: true, corrupt: 0, peerCorrupt: 0, error: '' });
      expect(report.peerReceived).toBe(report.sent);
    }
  }, 120_000);
});
