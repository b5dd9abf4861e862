import { beforeEach, describe, expect, test } from '@jest/globals';
import {
  flowKeyOfSlot,
  flowKeyOfTuple,
  oppositeKey,
  oppositeKeyOf,
  slotKeyOf,
  tupleOf,
} from '../../../src/dataplane/flow-key.ts';
import { countFlows, listFlows, transmission, type FlowNames } from '../../../src/dataplane/flows.ts';
import { EVERYTHING, flowsOfEndpoint, flowsWithPeer, flush } from '../../../src/dataplane/flush.ts';
import { FlowFlag, Mode, Reason, SlotState, type Flow } from '../../../src/dataplane/layout.ts';
import type { FlowInfo, Pod } from '../../../src/grpc/backend.ts';
import { FakeClock, FakeTables, flow, key, reversed, slot } from './fakes.ts';

const icmp = { ...key, proto: 1, sport: 4711, dport: 8 };
const slotKey = slotKeyOf(flow());
let tables: FakeTables;
let clock: FakeClock;

beforeEach(() => {
  tables = new FakeTables();
  clock = new FakeClock();
});

describe('keys', () => {
  test('a flow and its slot lead to each other', () => {
    expect(slotKey).toEqual({ peer: '172.30.0.2', sport: 2000, dport: 1000, proto: 17 });
    expect(flowKeyOfSlot(slotKey, slot())).toEqual(key);
    const icmpSlot = slotKeyOf({ out: icmp, nodeDaddr: '172.30.0.2', proto: 1 });
    expect(icmpSlot).toEqual({ peer: '172.30.0.2', sport: 4711, dport: 0, proto: 1 });
    expect(flowKeyOfSlot(icmpSlot, slot({ sport: 4711 }))).toEqual(icmp);
  });

  test('a flow to a Service has the slot of the endpoint’s ports, which leads back to it', () => {
    const out = { saddr: key.saddr, daddr: '10.10.9.9', sport: key.sport, dport: 8080 };
    const ofEndpoint = slotKeyOf(flow({ out }));
    expect(ofEndpoint).toEqual({ peer: '172.30.0.2', sport: 8080, dport: 1000, proto: 17 });
    expect(flowKeyOfSlot(ofEndpoint, slot({ saddr: key.daddr, sport: key.dport }))).toEqual(key);
    // Within a node the endpoint answers from its own address.
    expect(oppositeKeyOf(flow({ out, outIfindex: 99 }))).toEqual({
      ...{ saddr: '10.10.9.9', daddr: key.saddr, sport: 8080, dport: 1000 },
      ...{ ifindex: 99, proto: 17 },
    });
  });

  const echo6 = { ...icmp, saddr: 'fd00::2', daddr: 'fd00:1::2', proto: 58, dport: 128 };

  test('ICMPv6 echo has types of its own', () => {
    expect(oppositeKey(echo6, 9)).toMatchObject({ saddr: 'fd00:1::2', sport: 4711, dport: 129, ifindex: 9 });
    expect(tupleOf(echo6)).toEqual({
      ...{ family: 6, src: 'fd00::2', dst: 'fd00:1::2', proto: 58 },
      ...{ icmpType: 128, icmpCode: 0, icmpId: 4711 },
    });
    expect(flowKeyOfTuple(tupleOf({ ...echo6, dport: 135 }), 7)).toBeUndefined();
    expect(slotKeyOf({ out: echo6, nodeDaddr: 'fd30::2', proto: 58 })).toEqual({
      ...{ peer: 'fd30::2', sport: 4711, dport: 129, proto: 58 },
    });
  });

  test('the opposite of the opposite is the same', () => {
    for (const one of [key, icmp, echo6]) expect(oppositeKey(oppositeKey(one, 99), one.ifindex)).toEqual(one);
  });

  test("conntrack's tuples become flows of either side", () => {
    for (const one of [key, icmp, { ...icmp, dport: 0 }, echo6, { ...echo6, dport: 129 }]) {
      expect(flowKeyOfTuple(tupleOf(one), 7)).toEqual(one);
      expect(flowKeyOfTuple(reversed(tupleOf(one)), 9)).toEqual(oppositeKey(one, 9));
    }
    expect(flowKeyOfTuple(tupleOf({ ...icmp, dport: 3 }), 7)).toBeUndefined();
  });
});

describe('flows for people', () => {
  const pod = { namespace: 'default', name: 'client' } as Pod;
  const names: FlowNames = {
    nodeName: 'n1',
    podsByIfindex: new Map([[7, pod]]),
    addresses: new Map([[key.saddr, 7]]),
    peers: new Map([[1, { name: 'n2' }]]),
  };
  const all = async (): Promise<FlowInfo[]> => {
    const flows: FlowInfo[] = [];
    for await (const one of listFlows(tables, names, clock.now)) flows.push(one);
    return flows;
  };

  test('a flow to a Service: its endpoint, and names by the endpoint’s address', async () => {
    const out = { ...flow().out, daddr: '10.10.2.3', dport: 8080 };
    tables.flows.set(key, flow({ out, flags: 14 | FlowFlag.SERVICE }));
    const asked: unknown[] = [];
    const words = (flowKey: unknown): undefined => void asked.push(flowKey);
    const found: FlowInfo[] = [];
    for await (const one of listFlows(tables, { ...names, words }, clock.now)) found.push(one);
    const [only] = found;
    expect(only).toMatchObject({ destinationIp: '10.10.2.2', endpoint: { ip: '10.10.2.3', port: 8080 }, path: 'fast' });
    expect(asked).toEqual([{ ...key, ...out }]);
  });

  test('a same-node flow to a Service is slow until it is learned how it is delivered', () => {
    expect(transmission(flow({ flags: 15 | FlowFlag.SERVICE | FlowFlag.UNLEARNED }), clock.time).reason).toBe(
      Reason.KEY_EXCHANGE,
    );
    expect(transmission(flow({ flags: 15 | FlowFlag.SERVICE }), clock.time).reason).toBe(Reason.NONE);
  });

  test('a fast flow with what came back', async () => {
    tables.flows.set(key, flow({ lastTx: clock.time - 2_000_000_000n, admittedAt: clock.time - 9_000_000_000n }));
    tables.slots.set(slotKey, slot({ lastRx: clock.time - 1_000_000_000n }));
    expect(await all()).toEqual([
      expect.objectContaining({
        sourceIp: '10.10.1.2',
        destinationPort: 2000,
        peer: 'n2',
        path: 'fast',
        reason: 0,
        admitted: true,
        rxPackets: 3n,
        ageMs: 9000,
        idleMs: 1000,
        lastRxMs: 1000,
        sourcePod: { namespace: 'default', name: 'client' },
      }),
    ]);
  });

  test('what flow records say is added; pods that the node knows count more', async () => {
    tables.flows.set(key, flow());
    const other = { namespace: 'data', name: 'db-0' };
    const said = { sourcePod: other, destinationPod: other, service: 'data/db:sql', egressPolicy: 'ACNP allow' };
    const words: FlowNames = { ...names, words: (asked) => (asked.sport === key.sport ? said : undefined) };
    for await (const one of listFlows(tables, words, clock.now)) {
      expect(one).toMatchObject({ ...said, sourcePod: { namespace: 'default', name: 'client' } });
      expect(one).not.toHaveProperty('ingressPolicy');
    }
  });

  test("another flow's slot says nothing of this one", async () => {
    tables.flows.set(key, flow());
    tables.slots.set(slotKey, slot({ gen: 12 }));
    expect((await all())[0]).toMatchObject({ rxPackets: 0n });
  });

  test('a refused flow with its reason, and an ICMP one', async () => {
    tables.refusals.set(key, { until: 0n, backoff: 0n, packets: 9n, tries: 1, reason: Reason.CT_STATE });
    tables.flows.set(icmp, flow({ blocked: Reason.BLACK_HOLE }));
    expect(await all()).toMatchObject([
      { icmp: { id: 4711, type: 8 }, sourcePort: 0, path: 'slow', reason: Reason.BLACK_HOLE, blocked: true },
      { admitted: false, reason: Reason.CT_STATE, slowPackets: 9n, path: 'slow' },
    ]);
  });

  test('why an admitted flow is slow', () => {
    expect(transmission(flow(), 0n).reason).toBe(Reason.NONE);
    expect(transmission(flow({ flags: FlowFlag.ANNOUNCED }), 0n).reason).toBe(Reason.KEY_EXCHANGE);
    expect(transmission(flow({ flags: FlowFlag.ANNOUNCED, rejectUntil: 5n }), 4n).reason).toBe(Reason.KEY_REJECTED);
    expect(transmission(flow({ blocked: Reason.DRAINING }), 0n).reason).toBe(Reason.DRAINING);
  });

  test.each([
    ['masqueraded', {}, 'masquerade', 'fast', Reason.NONE],
    ['in the header of the tunnel', { blocked: Reason.UNPROVEN, mode: Mode.ENCAP }, 'encap', 'fast', Reason.UNPROVEN],
    [
      'without keys, not looked at yet',
      { flags: 0, unkeyed: Reason.PEER_NOT_CAPABLE, mode: Mode.SLOW },
      'slow',
      'slow',
      Reason.PEER_NOT_CAPABLE,
    ],
    [
      'routed',
      { flags: FlowFlag.DIRECT, unkeyed: Reason.MODE, blocked: Reason.MODE, mode: Mode.DIRECT },
      'direct',
      'fast',
      Reason.NONE,
    ],
    ['held back', { blocked: Reason.BLACK_HOLE, mode: Mode.SLOW }, 'slow', 'slow', Reason.BLACK_HOLE],
  ])('%s', async (_what, over: Partial<Flow>, mode, path, reason) => {
    tables.flows.set(key, flow(over));
    expect(await all()).toMatchObject([{ mode, path, reason, blocked: path === 'slow' && over.blocked !== undefined }]);
  });

  test('what came fast without masquerade is added to what was restored', async () => {
    tables.flows.set(key, flow({ rxPackets: 5n, rxBytes: 500n, lastRx: clock.time - 2_000_000n, lastTx: 1n }));
    tables.slots.set(slotKey, slot({ lastRx: 1n }));
    expect(await all()).toMatchObject([{ rxPackets: 8n, rxBytes: 800n, idleMs: 2, lastRxMs: 2 }]);
    tables.flows.set(key, flow({ rxPackets: 5n, rxBytes: 500n, flags: FlowFlag.DIRECT }));
    expect(await all()).toMatchObject([{ rxPackets: 5n, rxBytes: 500n }]);
  });

  test('counts', async () => {
    tables.flows.set(key, flow());
    tables.flows.set(icmp, flow({ flags: 15, peer: 1 }));
    const { total, byEndpoint, byPeer } = await countFlows(tables);
    expect([total, byEndpoint.get(1), byPeer.get(1)]).toEqual([2, 2, 1]);
  });
});

describe('flush', () => {
  const other = { ...key, saddr: `${key.saddr}1`, ifindex: 8 };

  beforeEach(() => {
    tables.flows.set(key, flow());
    tables.slots.set(slotKey, slot());
    tables.flows.set(other, flow({ endpoint: 2, peer: 2, slotGen: 99 }));
    tables.refusals.set(key, { until: 0n, backoff: 0n, packets: 1n, tries: 1, reason: 1 });
    tables.refusals.set(other, { until: 0n, backoff: 0n, packets: 1n, tries: 1, reason: 1 });
  });

  test('everything: slots keep their keys as tombstones', async () => {
    expect(await flush(tables, EVERYTHING, clock.now)).toEqual({ flows: 2n, slots: 1n });
    expect(tables.flows.size + tables.refusals.size).toBe(0);
    expect(tables.slots.get(slotKey)).toMatchObject({ state: SlotState.TOMBSTONE, key: 2, freedAt: clock.time });
    expect(tables.slots.get(slotKey)?.gen).not.toBe(10);
  });

  test('one pod', async () => {
    expect(await flush(tables, flowsOfEndpoint(1, key.ifindex, [key.saddr]), clock.now)).toEqual({
      flows: 1n,
      slots: 1n,
    });
    expect(tables.flows.get(other)).toBeDefined();
    expect(tables.refusals.size).toBe(1);
  });

  test('one peer', async () => {
    expect(
      await flush(
        tables,
        flowsWithPeer(2, () => false),
        clock.now,
      ),
    ).toEqual({ flows: 1n, slots: 0n });
    expect(tables.flows.get(key)).toBeDefined();
  });

  test('a slot that a new flow has claimed is left to it', async () => {
    tables.slots.set(slotKey, slot({ gen: 12 }));
    tables.flows.set(key, flow({ slotGen: 10 }));
    const result = await flush(tables, { ...EVERYTHING, slot: () => false }, clock.now);
    expect(result.slots).toBe(0n);
    expect(tables.slots.get(slotKey)?.state).toBe(SlotState.ACTIVE);
  });
});
