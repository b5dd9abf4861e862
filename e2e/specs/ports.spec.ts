/** Masqueraded packets of two pod pairs may look alike: those of one never reach the other, nor do old ones a new owner. */
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { SlotState } from '../../plugin/src/dataplane/layout.ts';
import { ANTREA, eventually } from '../lab/lab.ts';
import type { Pod } from '../lab/lab.ts';
import { freshPort } from '../lab/measure.ts';
import { up } from '../lab/native/native.ts';
import type { NativeLab } from '../lab/native/native.ts';
import { EMULATED } from '../lab/scale.ts';
import { startSidecars } from '../lab/sidecar.ts';
import type { LabSidecars } from '../lab/sidecar.ts';
import { atLeast } from './support/matchers.ts';
import { recordPacket, replay, slotOf } from './support/replay.ts';
import type { ReplayFlow } from './support/replay.ts';
import { Strangers, ambiguous, race, startPair, waitAll } from './support/same-ports.ts';
import type { Connections, RunningPair, TaggedPair } from './support/same-ports.ts';
import { withDatagrams } from './support/streams.ts';

/** Connections of a pair that comes first, and of each pair that starts with another. */
const COUNT = EMULATED ? 40 : 150;
const RACING = EMULATED ? 80 : 300;

describe('identical ports between the same two nodes', () => {
  let lab: NativeLab;
  let sidecars: LabSidecars;
  let first: TaggedPair;
  let second: TaggedPair;

  beforeAll(async () => {
    lab = await up();
    sidecars = await startSidecars(lab);
    first = { from: lab.node(0).pod(0), to: lab.node(1).pod(0), tag: 'A' };
    second = { from: lab.node(0).pod(1), to: lab.node(1).pod(1), tag: 'B' };
  });
  afterAll(async () => {
    await sidecars.down();
    await lab.down();
  });

  test.each([['tcp' as const], ['udp' as const]])(
    'a second pair on taken %s ports stays slow, and nothing mixes',
    async (proto) => {
      const connections: Connections = { proto, port: freshPort(), sport: 10_000, count: COUNT };
      const strangers = await Strangers.watch([first, second]);
      const running: RunningPair[] = [];
      try {
        running.push(await startPair(lab, first, connections));
        await waitAll(sidecars, first, connections, 'first pair fast', (flow) => flow.path === 'fast', 15_000);
        running.push(await startPair(lab, second, connections));
        await waitAll(
          sidecars,
          second,
          connections,
          'second pair refused',
          (flow) => !flow.admitted && flow.path === 'slow' && flow.reason === 'slot_taken',
          15_000,
        );
        // At once natively; a connection that emulation holds up for seconds goes slow until its peer is heard of again.
        const atOnce = EMULATED ? 10_000 : 1;
        await waitAll(sidecars, first, connections, 'first pair still fast', (flow) => flow.path === 'fast', atOnce);
        const reports = await Promise.all(running.map((pair) => pair.finish()));
        const clean = { transactions: atLeast(COUNT), errors: 0, timeouts: 0, corrupt: 0 };
        expect(reports).toMatchObject([clean, clean]);
        expect(await strangers.found()).toEqual([]);
      } finally {
        await Promise.all(running.map((pair) => pair.stop()));
      }
    },
    60_000,
  );

  test('each connection of two pairs that start together is fast for one of them at most', async () => {
    const connections: Connections = { proto: 'tcp', port: freshPort(), sport: 11_000, count: RACING };
    const outcome = await race(lab, sidecars, [first, second], connections, 3000);
    const clean = { transactions: atLeast(RACING), errors: 0, timeouts: 0, corrupt: 0, connections: RACING };
    expect(outcome).toMatchObject({ reports: [clean, clean], ambiguous: [], strangers: [] });
    const [a = 0, b = 0] = outcome.fast;
    expect(a + b).toBeGreaterThan(0);
    expect(a + b).toBeLessThanOrEqual(RACING);
  }, 30_000);

  describe('a slot that is used again takes no packet of its former flow', () => {
    // A packet is recorded with its checksum, not with what a device would make of it.
    beforeAll(() => lab.offload({ tx: false }));

    /** Runs numbered datagrams of a pair on fixed ports; resolves with how many the server got twice. */
    async function withFlow(flow: ReplayFlow, use: () => Promise<void>): Promise<number> {
      return withDatagrams(
        lab,
        flow,
        ['--reply', '--rate', '100', '--seconds', '600', '--sport', String(flow.sport)],
        async ({ client }) => {
          await use();
          await client.stop('SIGTERM', 5000);
          const report = (await client.json()) as { peer: { duplicates: number }; foreign: number };
          expect(report.foreign).toBe(0);
          return report.peer.duplicates;
        },
        flow.port,
      );
    }

    /** Ends the flow as conntrack's own time-out would. */
    async function end(flow: ReplayFlow): Promise<void> {
      for (const node of lab.nodes) {
        await node.conntrack.delete({ zone: ANTREA.zone, proto: 'udp', dport: flow.port });
      }
      await eventually(
        'flow ended',
        async () => {
          const flows = await Promise.all(sidecars.nodes.map((sidecar) => sidecar.flows({ port: flow.port })));
          return flows.flat().every(({ admitted }) => !admitted);
        },
        5000,
      );
    }

    const fast = (port: number): Promise<unknown> => sidecars.waitFast({ proto: 'udp', port }, 10_000);

    /** Old packets are dropped and counted, and no pod sees one. */
    async function expectDropped(flow: ReplayFlow, packet: Awaited<ReturnType<typeof recordPacket>>): Promise<void> {
      const pods: Pod[] = [...lab.node(0).pods, ...lab.node(1).pods];
      const { copies, counters, seen } = await replay(lab, sidecars, packet, flow, pods);
      expect(seen).toEqual(pods.map(() => 0));
      expect(counters).toMatchObject({ unknown_key: copies, unknown_passed: 0 });
    }

    test('freed, given to the same pods, and to others', async () => {
      const flow: ReplayFlow = { from: first.from, to: first.to, sport: freshPort() - 10_000, port: freshPort() };
      const other: ReplayFlow = { ...flow, from: second.from, to: second.to };
      let packet = undefined as Awaited<ReturnType<typeof recordPacket>> | undefined;
      let key: number | undefined;

      // That a copy does arrive while the flow lives shows that this way of sending one works.
      const taken = await withFlow(flow, async () => {
        await fast(flow.port);
        packet = await recordPacket(flow);
        key = slotOf(lab, sidecars, flow)?.key;
        const { copies, counters, seen } = await replay(lab, sidecars, packet, flow, [flow.to]);
        expect(seen).toEqual([copies]);
        expect(counters).toMatchObject({ unknown_key: 0, restored: atLeast(copies) });
      });
      expect(taken).toBe(20);
      if (packet === undefined) throw new Error('no packet');
      const old = packet;

      await end(flow);
      expect(slotOf(lab, sidecars, flow)).toMatchObject({ state: SlotState.TOMBSTONE, key });
      await expectDropped(flow, old);

      const again = await withFlow(flow, async () => {
        await fast(flow.port);
        const slot = slotOf(lab, sidecars, flow);
        expect(slot).toMatchObject({ state: SlotState.ACTIVE });
        expect(slot?.key).not.toBe(key);
        await expectDropped(flow, old);
      });
      expect(again).toBe(0);
      await end(flow);

      // Other pods wait 120 s for it, on either node.
      const others = await withFlow(other, async () => {
        await eventually(
          'others refused',
          async () => {
            const flows = await Promise.all(sidecars.nodes.map((sidecar) => sidecar.flows({ port: flow.port })));
            return flows.every((list) => list.some(({ reason }) => reason === 'slot_recent'));
          },
          10_000,
        );
        await expectDropped(flow, old);
        const flows = (await Promise.all(sidecars.nodes.map((sidecar) => sidecar.flows({ port: flow.port })))).flat();
        expect(flows.map(({ path, reason, admitted }) => ({ path, reason, admitted }))).toEqual([
          { path: 'slow', reason: 'slot_recent', admitted: false },
          { path: 'slow', reason: 'slot_recent', admitted: false },
        ]);
        expect(slotOf(lab, sidecars, flow)).toMatchObject({ state: SlotState.TOMBSTONE });
      });
      expect(others).toBe(0);
      expect((await Promise.all(sidecars.nodes.map((sidecar) => sidecar.flows()))).flatMap(ambiguous)).toEqual([]);
    }, 60_000);
  });
});
