import { beforeEach, describe, expect, jest, test } from '@jest/globals';
import { slotKeyOf } from '../../../src/dataplane/flow-key.ts';
import { Janitor } from '../../../src/dataplane/janitor.ts';
import { FlowFlag, SlotState } from '../../../src/dataplane/layout.ts';
import { FakeClock, FakeTables, flow, key, slot, zeroEndpoint, zeroPeer } from './fakes.ts';

const slotKey = slotKeyOf(flow());
let tables: FakeTables;
let clock: FakeClock;
let janitor: Janitor;

/** Time goes by, with a whole pass over every map each second. */
function run(seconds: number): void {
  for (let second = 0; second < seconds; second++) {
    clock.seconds(1);
    janitor.tick();
  }
}

beforeEach(() => {
  tables = new FakeTables();
  clock = new FakeClock();
  janitor = new Janitor(tables, clock.now, 8);
  tables.endpoints.set(1, { ...zeroEndpoint, ifindex: 7, addr4: key.saddr, flags: 1, epoch: 1 });
  tables.peers.set(1, { ...zeroPeer, addr4: flow().nodeDaddr, flags: 3, epoch: 1 });
  tables.flows.set(key, flow({ lastTx: clock.time }));
  tables.slots.set(slotKey, slot({ lastRx: clock.time }));
});

describe('janitor', () => {
  test('a flow in use stays, with its slot', () => {
    for (let round = 0; round < 30; round++) {
      run(10);
      tables.flows.set(key, flow({ lastTx: clock.time }));
    }
    expect(tables.flows.size).toBe(1);
    expect(tables.slots.get(slotKey)?.state).toBe(SlotState.ACTIVE);
    expect(janitor.fill({ flows: 8, slots: 9, approvals: 10, refusals: 11 })).toEqual([
      { name: 'flows', entries: 1, capacity: 8 },
      { name: 'slots', entries: 1, capacity: 9 },
      { name: 'approvals', entries: 0, capacity: 10 },
      { name: 'refusals', entries: 0, capacity: 11 },
    ]);
  });

  test('one that only receives stays, too', () => {
    for (let round = 0; round < 30; round++) {
      run(10);
      tables.slots.set(slotKey, slot({ lastRx: clock.time }));
    }
    expect(tables.flows.size).toBe(1);
  });

  test('an idle flow goes after 180 s, its slot becomes a tombstone and goes 120 s later', () => {
    run(179);
    expect(tables.flows.size).toBe(1);
    run(3);
    expect(tables.flows.size).toBe(0);
    expect(tables.slots.get(slotKey)).toMatchObject({ state: SlotState.TOMBSTONE, key: 2 });
    run(118);
    expect(tables.slots.size).toBe(1);
    run(5);
    expect(tables.slots.size).toBe(0);
    expect(janitor.counts).toMatchObject({ idleFlows: 1, oldSlots: 1 });
  });

  const tcp = { ...key, proto: 6 };
  const tcpSlot = slotKeyOf(flow({ proto: 6 }));
  test.each([
    ['sent', { txBytes: 1n << 26n }, {}],
    ['received', {}, { rxBytes: 1n << 26n }],
  ])('a TCP flow that has %s much is kept when idle, but not in a table that fills up', (_what, sent, received) => {
    tables.flows.delete(key);
    tables.flows.set(tcp, flow({ proto: 6, lastTx: clock.time, ...sent }));
    tables.slots.set(tcpSlot, slot({ lastRx: clock.time, ...received }));
    run(1000);
    expect(tables.flows.size).toBe(1);
    for (let sport = 1; sport <= 4; sport++) tables.flows.set({ ...tcp, sport }, flow({ lastTx: clock.time }));
    run(2);
    expect(tables.flows.get(tcp)).toBeUndefined();
    expect(tables.flows.size).toBe(4);
  });

  test('a UDP flow is not kept, however much it has carried', () => {
    const udp = { ...key, proto: 17 };
    tables.flows.set(udp, flow({ lastTx: clock.time, txBytes: 1n << 40n }));
    run(182);
    expect(tables.flows.get(udp)).toBeUndefined();
  });

  test.each([
    ['endpoint', () => tables.endpoints.set(1, { ...tables.endpoints.get(1), epoch: 2 })],
    ['absent endpoint', () => tables.endpoints.set(1, { ...tables.endpoints.get(1), flags: 0 })],
    ['peer', () => tables.peers.set(1, { ...tables.peers.get(1), epoch: 9 })],
    ['incapable peer', () => tables.peers.set(1, { ...tables.peers.get(1), flags: 1 })],
  ])('a flow of a changed %s goes', (_what, change) => {
    change();
    run(2);
    expect(tables.flows.size).toBe(0);
    expect(tables.slots.get(slotKey)?.state).toBe(SlotState.TOMBSTONE);
  });

  test('a flow within the node outlives the other pod for as long as the programs say', () => {
    const local = flow({ flags: 15, peer: 2, peerEpoch: 4, lastTx: clock.time });
    expect(FlowFlag.LOCAL & 15).toBe(1);
    tables.flows.set(key, local);
    tables.endpoints.set(2, { ...tables.endpoints.get(1), epoch: 5 });
    run(2);
    expect(tables.flows.get(key)?.flags).toBe(15);
    tables.flows.set(key, { ...local, holeUntil: clock.time + 120_000_000_000n });
    run(119);
    expect(tables.flows.size).toBe(1);
    run(3);
    expect(tables.flows.size).toBe(0);
    expect(janitor.counts).toMatchObject({ staleFlows: 1 });
  });

  test('a flow within the node goes with its own pod', () => {
    tables.flows.set(key, flow({ flags: 15, peer: 2, peerEpoch: 4, lastTx: clock.time }));
    tables.endpoints.set(2, { ...tables.endpoints.get(1), epoch: 4 });
    tables.endpoints.set(1, { ...tables.endpoints.get(1), epoch: 2 });
    run(2);
    expect(tables.flows.size).toBe(0);
  });

  test('a slot without a flow is freed in the second pass, not in the first', () => {
    tables.flows.delete(key);
    run(1);
    expect(tables.slots.get(slotKey)?.state).toBe(SlotState.ACTIVE);
    run(1);
    expect(tables.slots.get(slotKey)?.state).toBe(SlotState.TOMBSTONE);
  });

  test('a slot that was claimed anew in between, or is changing, is left alone', () => {
    tables.flows.delete(key);
    run(1);
    tables.slots.set(slotKey, slot({ gen: 12 }));
    run(1);
    expect(tables.slots.get(slotKey)?.state).toBe(SlotState.ACTIVE);
    tables.slots.set(slotKey, slot({ gen: 13 }));
    run(5);
    expect(tables.slots.get(slotKey)?.state).toBe(SlotState.ACTIVE);
    tables.slots.set(slotKey, slot({ gen: 14, lock: 1 }));
    run(5);
    expect(tables.slots.get(slotKey)?.state).toBe(SlotState.ACTIVE);
  });

  test('approvals go after their lease, refusals when nothing more comes', () => {
    tables.approvals.set(key, { expires: clock.time + 5_000_000_000n });
    const refusal = { until: 0n, backoff: 0n, packets: 2n, tries: 2, reason: 26 };
    tables.refusals.set(key, refusal);
    run(14);
    expect(tables.approvals.size).toBe(1);
    run(3);
    expect(tables.approvals.size).toBe(0);
    run(40);
    tables.refusals.set(key, { ...refusal, packets: 3n });
    run(60);
    expect(tables.refusals.size).toBe(1);
    run(30);
    expect(tables.refusals.size).toBe(0);
  });

  test('a map is walked every second, every four where it was empty', () => {
    const walks = { flows: jest.spyOn(tables.flows, 'entries'), approvals: jest.spyOn(tables.approvals, 'entries') };
    run(8);
    expect(walks.flows).toHaveBeenCalledTimes(8);
    expect(walks.approvals).toHaveBeenCalledTimes(2);
    tables.approvals.set(key, { expires: clock.time + 60_000_000_000n });
    run(8);
    expect(walks.approvals).toHaveBeenCalledTimes(10);
  });

  test('one tick does a bounded amount of work', () => {
    for (let port = 0; port < 3000; port++) tables.approvals.set({ ...key, sport: port }, { expires: 1n });
    clock.seconds(1);
    janitor.tick();
    expect(tables.approvals.size).toBe(3000 - 1024);
    janitor.tick();
    janitor.tick();
    expect(tables.approvals.size).toBe(0);
  });
});
