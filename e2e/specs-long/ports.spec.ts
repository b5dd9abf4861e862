/** The same as the spec of this name in `specs`, with thousands of connections and the two minutes a slot is kept. */
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { SlotState } from '../../plugin/src/dataplane/layout.ts';
import { ANTREA, eventually } from '../lab/lab.ts';
import { freshPort } from '../lab/measure.ts';
import { up } from '../lab/native/native.ts';
import type { NativeLab } from '../lab/native/native.ts';
import { connections as scaled, rounds } from '../lab/scale.ts';
import { startSidecars } from '../lab/sidecar.ts';
import type { LabSidecars } from '../lab/sidecar.ts';
import { atLeast } from '../specs/support/matchers.ts';
import { recordPacket, replay, slotOf } from '../specs/support/replay.ts';
import type { ReplayFlow } from '../specs/support/replay.ts';
import { race } from '../specs/support/same-ports.ts';
import type { TaggedPair } from '../specs/support/same-ports.ts';
import { withDatagrams } from '../specs/support/streams.ts';

const TOTAL = scaled(10_000);
const WAVES = rounds(20);
const PER_WAVE = TOTAL / WAVES;

describe('identical ports between the same two nodes', () => {
  let lab: NativeLab;
  let sidecars: LabSidecars;
  let first: TaggedPair;
  let second: TaggedPair;

  beforeAll(async () => {
    lab = await up();
    await lab.offload({ tx: false });
    sidecars = await startSidecars(lab);
    first = { from: lab.node(0).pod(0), to: lab.node(1).pod(0), tag: 'A' };
    second = { from: lab.node(0).pod(1), to: lab.node(1).pod(1), tag: 'B' };
  });
  afterAll(async () => {
    await sidecars.down();
    await lab.down();
  });

  test(`${TOTAL} connections of each of two pairs never mix`, async () => {
    const fast = new Map<TaggedPair, number>();
    for (let wave = 0; wave < WAVES; wave++) {
      // Whoever starts first wins more often: they take turns.
      const pairs = wave % 2 === 0 ? [first, second] : [second, first];
      const connections = {
        proto: 'tcp',
        port: freshPort(),
        sport: 10_000 + wave * PER_WAVE,
        count: PER_WAVE,
      } as const;
      const outcome = await race(lab, sidecars, pairs, connections, 2000);
      const clean = { transactions: atLeast(PER_WAVE), errors: 0, timeouts: 0, corrupt: 0, connections: PER_WAVE };
      expect(outcome).toMatchObject({ reports: [clean, clean], ambiguous: [], strangers: [] });
      pairs.forEach((pair, i) => fast.set(pair, (fast.get(pair) ?? 0) + (outcome.fast[i] ?? 0)));
    }
    const [a = 0, b = 0] = fast.values();
    // Both have had their share of the fast path, and never both the same ports.
    expect(Math.min(a, b)).toBeGreaterThan(0);
    expect(a + b).toBeLessThanOrEqual(WAVES * PER_WAVE);
  }, 300_000);

  test('other pods get a slot after 120 s, and no packet of its former flow', async () => {
    const flow: ReplayFlow = { from: first.from, to: first.to, sport: freshPort() - 10_000, port: freshPort() };
    const other: ReplayFlow = { ...flow, from: second.from, to: second.to };
    const stream = (of: ReplayFlow, use: () => Promise<void>): Promise<void> =>
      withDatagrams(
        lab,
        of,
        ['--reply', '--rate', '50', '--seconds', '600', '--sport', String(of.sport)],
        async ({ client }) => {
          await use();
          await client.stop('SIGTERM', 5000);
          expect(await client.json()).toMatchObject({
            answered: true,
            foreign: 0,
            peer: { duplicates: 0, corrupt: 0 },
          });
        },
        of.port,
      );
    let old = undefined as Awaited<ReturnType<typeof recordPacket>> | undefined;
    let key: number | undefined;
    await stream(flow, async () => {
      await sidecars.waitFast({ proto: 'udp', port: flow.port }, 10_000);
      old = await recordPacket(flow);
      key = slotOf(lab, sidecars, flow)?.key;
    });
    const packet = old;
    if (packet === undefined) throw new Error('no packet');
    for (const node of lab.nodes) await node.conntrack.delete({ zone: ANTREA.zone, proto: 'udp', dport: flow.port });
    await eventually('slot freed', () => slotOf(lab, sidecars, flow)?.state === SlotState.TOMBSTONE, 5000);
    const freed = Date.now();
    // A sidecar would remove the old slot, and the new one's key would be any: here the programs are on their own.
    await Promise.all(sidecars.nodes.map((sidecar) => sidecar.stop()));

    await stream(other, async () => {
      await eventually(
        'slot of the other pods',
        () => {
          const slot = slotOf(lab, sidecars, flow);
          return slot?.state === SlotState.ACTIVE && slot.saddr === other.from.address;
        },
        140_000,
        500,
      );
      expect(Date.now() - freed).toBeGreaterThan(119_000);
      const slot = slotOf(lab, sidecars, flow);
      expect(slot).toMatchObject({ saddr: other.from.address, daddr: other.to.address });
      expect(slot?.key).not.toBe(key);
      await Promise.all(sidecars.nodes.map((sidecar) => sidecar.start()));
      await sidecars.waitReady();
      await sidecars.waitFast({ proto: 'udp', port: flow.port }, 10_000);
      const pods = [...lab.node(0).pods, ...lab.node(1).pods];
      const { copies, counters, seen } = await replay(lab, sidecars, packet, flow, pods);
      expect(seen).toEqual(pods.map(() => 0));
      expect(counters).toMatchObject({ unknown_key: copies });
    });
  }, 240_000);
});
