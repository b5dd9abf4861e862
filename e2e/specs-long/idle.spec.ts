/** Minutes without the packets that conntrack would need to see: idle connections, and one-way traffic on the fast path. */
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { ANTREA, eventually, sleep } from '../lab/lab.ts';
import type { ConntrackEntry } from '../lab/conntrack.ts';
import { freshPort } from '../lab/measure.ts';
import { up } from '../lab/native/native.ts';
import type { NativeLab } from '../lab/native/native.ts';
import { EMULATED, atLeastNatively, stretched } from '../lab/scale.ts';
import { startSidecars } from '../lab/sidecar.ts';
import type { LabSidecars } from '../lab/sidecar.ts';
import { entries, flowsGone } from '../specs/support/closing.ts';
import { watchCounters } from '../specs/support/counters.ts';
import { serverReport, withDatagrams, withTransfer } from '../specs/support/streams.ts';

/** Longer than conntrack's 300 s for unacknowledged data, and than the sidecar keeps an idle flow. */
const IDLE_MS = 6 * 60_000;
const ONE_WAY_S = 200;
/** Datagrams per second of one-way traffic; seconds of those with an answer before. */
const [ONE_WAY_RATE, ANSWERED_S] = EMULATED ? [20, 40] : [50, 4];
/** What a look at conntrack may take, seconds. */
const LOOK_S = stretched(10);
/** The kernel's own (net.netfilter.nf_conntrack_tcp_timeout_established), seconds. */
const ESTABLISHED_S = 432_000;

let lab: NativeLab;
let sidecars: LabSidecars;

beforeAll(async () => {
  lab = await up({ podsPerNode: 3 });
  sidecars = await startSidecars(lab);
});
afterAll(async () => {
  await sidecars.down();
  await lab.down();
});

/** Each entry must have the time of an established connection left, less the seconds it has been idle. */
function expectEstablished(list: readonly (ConntrackEntry | undefined)[], idleS: number): void {
  expect(list.map((entry) => entry?.state)).toEqual(['ESTABLISHED', 'ESTABLISHED']);
  for (const entry of list) expect(entry?.timeout).toBeGreaterThan(ESTABLISHED_S - idleS - LOOK_S);
}

/** A connection that was fast, says nothing for minutes and goes on; `first` bytes (in writes of `size`) come before. */
async function idle(index: number, first: string, size: string): Promise<void> {
  const pair = { from: lab.node(index).pod(0), to: lab.node(1 - index).pod(0) };
  const pause = ['--pause-after', first, '--pause-ms', String(IDLE_MS), '--send-size', size, '--rate', '2M'];
  const data = ['--up', '2M', '--down', first, '--stall-s', String(IDLE_MS / 1000 + 60)];
  await withTransfer(lab, pair, [...data, ...pause], async ({ port, result }) => {
    await sidecars.waitFast({ port });
    // The pause has begun when nothing is sent any more.
    await eventually(
      `idle ${port}`,
      async () => {
        const flows = (await Promise.all(sidecars.nodes.map((sidecar) => sidecar.flows({ port })))).flat();
        return flows.length === 2 && flows.every(({ idleMs }) => (idleMs ?? 0) > 2000);
      },
      15_000,
    );
    expectEstablished(await entries(lab, port), 20);
    await sleep(IDLE_MS - 30_000);
    expectEstablished(await entries(lab, port), IDLE_MS / 1000);
    const report = await result(90_000);
    expect(report).toMatchObject({ complete: true, error: '', peerReceived: 2_000_000 });
  });
}

/** A connection that is far beyond conntrack's window, says nothing for minutes, and then is aborted. */
async function idleReset(): Promise<void> {
  const pair = { from: lab.node(0).pod(1), to: lab.node(1).pod(1) };
  // Enough bytes for the sidecar to keep the idle flow; the jump makes them as many as conntrack cannot follow.
  const far = ['--jump', String(3 * 2 ** 30), '--up', '80M', '--down', '100k'];
  await withTransfer(lab, pair, [...far, '--rst', '--hold-ms', String(IDLE_MS)], async ({ port, server, result }) => {
    await sidecars.waitFast({ port });
    expect(await result(IDLE_MS + 30_000)).toMatchObject({ complete: true, error: '' });
    expect(await serverReport(server)).toMatchObject({ error: 'at the end: Connection reset by peer' });
    await flowsGone(sidecars, port);
    await eventually('no entry', async () => (await entries(lab, port)).every((entry) => entry === undefined), 15_000);
  });
}

/** Datagrams without an answer, on a connection that once had one. */
async function oneWay(index: number): Promise<void> {
  const pair = { from: lab.node(index).pod(2), to: lab.node(1 - index).pod(2) };
  const port = freshPort();
  const common = ['--sport', String(5000 + index), '--rate', String(ONE_WAY_RATE)];
  await withDatagrams(
    lab,
    pair,
    [...common, '--reply', '--seconds', String(ANSWERED_S)],
    async ({ result }) => {
      await sidecars.waitFast({ port });
      expect(await result()).toMatchObject({ answered: true });
    },
    port,
  );
  await withDatagrams(
    lab,
    pair,
    [...common, '--seconds', String(ONE_WAY_S)],
    async ({ client, result }) => {
      const sender = sidecars.node(index);
      const before = await sender.waitFast({ port });
      const counters = await watchCounters(sidecars);
      for (const end = Date.now() + (ONE_WAY_S - 10) * 1000; Date.now() < end;) {
        await sleep(5000);
        expect(client.running).toBe(true);
        // Alive on both nodes, though conntrack sees nothing of it.
        const filter = { zone: ANTREA.zone, proto: 'udp', dport: port } as const;
        const lists = await Promise.all(lab.nodes.map((node) => node.conntrack.list(filter)));
        expect(lists).toMatchObject([[{ assured: true }], [{ assured: true }]]);
        expect(await sender.flows({ port })).toMatchObject([{ path: 'fast', reason: 'none' }]);
      }
      const report = await result();
      expect(report).toMatchObject({ answered: true, peer: { corrupt: 0 } });
      // A loaded machine may lose a few on its way (softirq backlog), the data plane none.
      expect(report.peer.lost).toBeLessThan(ONE_WAY_S / 10);
      const grown = await counters.since();
      const unharmed = { black_hole: 0, flow_demoted: 0, unknown_key: 0, incomplete: 0 };
      expect(grown).toMatchObject([unharmed, unharmed]);
      // One every 150 ms or, as the sender is slower than that here, with each datagram after 150 ms.
      expect(grown[index]?.ack_received).toBeGreaterThan(atLeastNatively(ONE_WAY_S * 4, ONE_WAY_S));
      const [flow] = await sender.flows({ port });
      expect((flow?.txPackets ?? 0) - before.txPackets).toBeGreaterThan(
        ONE_WAY_S * ONE_WAY_RATE * atLeastNatively(0.95, 0.8),
      );
    },
    port,
  );
}

test('connections live through six idle minutes; one-way UDP stays admitted and fast for 200 s', async () => {
  const parts = {
    'idle after a bulk transfer from node 0': idle(0, '1M', '20000'),
    'idle after a bulk transfer from node 1': idle(1, '1M', '20000'),
    // Hardly fast yet when the pause begins: the last slow packets must not decide the timeout.
    'idle after twelve bytes from node 0': idle(0, '12', '1'),
    'idle after twelve bytes from node 1': idle(1, '12', '1'),
    'idle, then RST': idleReset(),
    'one-way UDP from node 0': oneWay(0),
    'one-way UDP from node 1': oneWay(1),
  };
  const outcomes = await Promise.allSettled(Object.values(parts));
  const failed = Object.keys(parts).flatMap((name, i) => {
    const outcome = outcomes[i];
    return outcome?.status === 'rejected' ? [`${name}: ${String(outcome.reason)}`] : [];
  });
  expect(failed).toEqual([]);
}, 480_000);
