import { beforeEach, describe, expect, test } from '@jest/globals';
import { EndReason, flowsOf, record, type Connection, type Flow } from '../../../../e2e/flowgen/records.ts';
import { FlowFlag } from '../../../src/dataplane/layout.ts';
import { oppositeKey, slotKeyOf } from '../../../src/dataplane/flow-key.ts';
import { FlowAccounting } from '../../../src/flowexport/accounting.ts';
import { AllowedFlows } from '../../../src/flowexport/allowed-flows.ts';
import { BypassMeter, bypassReader, type BypassSample } from '../../../src/flowexport/bypass.ts';
import { decodeExport } from '../../../src/flowexport/decode.ts';
import { NamesCache } from '../../../src/flowexport/names-cache.ts';
import { MessageQueue } from '../../../src/flowexport/message-queue.ts';
import { exportRequest, patchRecord } from '../../../src/flowexport/patch.ts';
import type { FlowRecord } from '../../../src/flowexport/record.ts';
import { policyText } from '../../../src/flowexport/words.ts';
import { antrea_io } from '../../../src/gen/antrea.js';
import { flow, FakeClock, FakeTables, key, slot } from '../dataplane/fakes.ts';

const v1 = antrea_io.antrea.pkg.apis.flow.v1alpha1;
const { FLOW_END_REASON_IDLE_TIMEOUT: IDLE, FLOW_END_REASON_END_OF_FLOW: END } = EndReason;
const ACTIVE = EndReason.FLOW_END_REASON_ACTIVE_TIMEOUT;

function bytesOf(one: Flow): Buffer {
  return Buffer.from(v1.Flow.encode(new v1.Flow(one)).finish());
}

function decoded(raw: Buffer): FlowRecord {
  const records: FlowRecord[] = [];
  decodeExport(exportRequest(raw), new NamesCache(), (seen) => records.push(seen));
  return records[0] as FlowRecord;
}

/** The connection of which `key` in the fakes is one direction: 10.10.1.2:1000 -> :2000, UDP. */
const connection: Connection = {
  source: '10.10.1.2',
  destination: '10.10.2.3',
  sourcePort: 1000,
  destinationPort: 2000,
  protocol: 17,
  start: 1_000_000,
  end: 1_005_000,
};

describe('a patched record', () => {
  const extra = Buffer.from('a2060201ff', 'hex');
  const raw = Buffer.concat([bytesOf(record(connection)), extra]);
  const stats = (packets: number): { packets: number; packetsDelta: number; bytes: number; bytesDelta: number } => ({
    packets,
    packetsDelta: 1,
    bytes: packets * 1e9,
    bytesDelta: 0,
  });

  test('has other numbers, and everything else as it was', () => {
    const patched = patchRecord(raw, { forward: stats(7), reverse: stats(5_000_000), endReason: ACTIVE });
    const [before] = flowsOf(exportRequest(raw));
    const [after] = flowsOf(exportRequest(patched));
    expect(after).toMatchObject({
      stats: { packetTotalCount: 7, packetDeltaCount: 1, octetTotalCount: 7e9 },
      reverseStats: { packetTotalCount: 5_000_000, octetTotalCount: 5e15 },
    });
    expect({ ...after, stats: null, reverseStats: null }).toEqual({ ...before, stats: null, reverseStats: null });
    expect(Buffer.from(patched).includes(extra)).toBe(true);
  });

  test('has another time where it is our own', () => {
    const patched = patchRecord(raw, {
      forward: stats(7),
      reverse: stats(5),
      endReason: ACTIVE,
      endUs: 1_767_225_600_123_456,
    });
    const time = { seconds: 1_767_225_600, nanos: 123_456_000 };
    expect(flowsOf(exportRequest(patched))[0]).toMatchObject({
      endTs: time,
      ipfix: { exportTime: time, observationDomainId: 0x51a2b3c4 },
      startTs: { seconds: 1000 },
    });
  });
});

describe('what the maps say of a connection', () => {
  const tuple = decoded(bytesOf(record({ ...connection, destination: '10.10.2.2' })));
  const reply = {
    ...tuple,
    source: tuple.destination,
    destination: tuple.source,
    sourcePort: 2000,
    destinationPort: 1000,
  };
  let tables: FakeTables;
  beforeEach(() => {
    tables = new FakeTables();
    const slotKey = slotKeyOf(flow());
    tables.flows.set(key, flow({ txPackets: 10n, txBytes: 1000n, admittedAt: 5n, slotGen: 4 }));
    tables.slots.set(slotKey, slot({ rxPackets: 3n, rxBytes: 300n, gen: 4, key: 9 }));
  });

  const mine = (address: string): number | undefined => (address === key.saddr ? key.ifindex : undefined);
  const out = [{ of: 'flow', era: '5', packets: 10n, bytes: 1000n }];
  const plain = { of: 'flow', era: '5', packets: 0n, bytes: 0n };
  const back = [plain, { of: 'slot', era: '9', packets: 3n, bytes: 300n }];

  test('begun by the local pod, or by the other one', () => {
    expect(tuple).toMatchObject({ source: key.saddr, destination: key.daddr });
    expect(bypassReader(tables, mine)(tuple)).toEqual({ forward: out, reverse: back });
    expect(bypassReader(tables, mine)(reply)).toEqual({ forward: back, reverse: out });
  });

  test('between two pods of this node', () => {
    const other = oppositeKey(key, 99);
    tables.flows.set(
      key,
      flow({ txPackets: 10n, txBytes: 1000n, admittedAt: 5n, flags: FlowFlag.LOCAL, outIfindex: 99 }),
    );
    tables.flows.set(other, flow({ txPackets: 4n, txBytes: 400n, admittedAt: 6n, flags: FlowFlag.LOCAL }));
    const both = (address: string): number => (address === key.saddr ? key.ifindex : 99);
    expect(bypassReader(tables, both)(tuple)).toEqual({
      forward: out,
      reverse: [{ of: 'flow', era: '6', packets: 4n, bytes: 400n }],
    });
  });

  test('by a Service: records name the endpoint, and the flow goes to the Service’s address', () => {
    const toService = { ...key, daddr: '10.96.0.10', dport: 80 };
    tables.flows.delete(key);
    tables.flows.set(toService, flow({ txPackets: 10n, txBytes: 1000n, admittedAt: 5n, slotGen: 4 }));
    const service = { name: 'shop/web:http', address: '10.96.0.10', port: 80 };
    expect(bypassReader(tables, mine)({ ...tuple, service })).toEqual({ forward: out, reverse: back });
    expect(bypassReader(tables, mine)(tuple)).toBeUndefined();
  });

  test('nothing, of others', () => {
    expect(bypassReader(tables, () => undefined)(tuple)).toBeUndefined();
    expect(bypassReader(tables, mine)({ ...tuple, sourcePort: 1 })).toBeUndefined();
    expect(bypassReader(tables, mine)({ ...tuple, source: 'fd00::1' })).toBeUndefined();
    tables.slots.set(slotKeyOf(flow()), slot({ gen: 6 }));
    expect(bypassReader(tables, mine)(tuple)).toEqual({ forward: out, reverse: [plain] });
  });

  test('what came encapsulated or routed is counted in the flow, with keys or without', () => {
    const rx = { rxPackets: 7n, rxBytes: 700n };
    const ofFlow = { of: 'flow', era: '5', packets: 7n, bytes: 700n };
    const both = flow({ txPackets: 10n, txBytes: 1000n, admittedAt: 5n, slotGen: 4, ...rx });
    tables.flows.set(key, both);
    expect(bypassReader(tables, mine)(tuple)?.reverse).toEqual([ofFlow, back[1]]);
    tables.flows.set(key, { ...both, flags: FlowFlag.DIRECT });
    expect(bypassReader(tables, mine)(tuple)?.reverse).toEqual([ofFlow]);
  });

  test('of IPv6', () => {
    const ends = { source: 'fd00:10:1::2', destination: 'fd00:10:2::2' };
    const key6 = { ...key, saddr: ends.source, daddr: ends.destination };
    tables.flows.set(key6, flow({ txPackets: 10n, txBytes: 1000n, admittedAt: 5n, flags: FlowFlag.DIRECT }));
    const device = (address: string): number | undefined => (address === ends.source ? key.ifindex : undefined);
    expect(bypassReader(tables, device)({ ...tuple, ...ends })).toEqual({ forward: out, reverse: [plain] });
    expect(bypassReader(tables, device)({ ...tuple, ...ends, protocol: 58 })).toBeUndefined();
  });

  test('the meter goes on where a counter begins anew', () => {
    const meter = new BypassMeter();
    const at = (era: string, packets: bigint): BypassSample => ({
      forward: [{ of: 'flow', era, packets, bytes: packets * 10n }],
    });
    for (const [era, packets] of [
      ['1', 5n],
      ['1', 8n],
      ['2', 1n],
      ['2', 4n],
      ['2', 2n],
    ] as const) {
      meter.add(at(era, packets));
    }
    meter.add(undefined);
    meter.add(at('2', 3n));
    expect(meter.forward).toEqual({ packets: 8 + 4 + 3, bytes: 150 });
    expect(meter.reverse).toEqual({ packets: 0, bytes: 0 });
  });
});

describe('accounting', () => {
  let sample: BypassSample | undefined;
  let now: number;
  let sent: Flow[];
  let accounting: FlowAccounting;
  beforeEach(() => {
    sample = undefined;
    now = 2_000_000;
    sent = [];
    accounting = new FlowAccounting({
      readBypass: () => sample,
      send: (message) => sent.push(...flowsOf(message)),
      now: () => now,
      limit: 2,
    });
  });
  const take = (change: Partial<Connection> = {}): void => {
    const raw = bytesOf(record({ ...connection, ...change }));
    accounting.take(decoded(raw), raw);
  };
  const bypassed = (forward: bigint, reverse: bigint, era = '1'): void => {
    sample = {
      forward: [{ of: 'flow', era, packets: forward, bytes: forward * 100n }],
      reverse: [{ of: 'slot', era, packets: reverse, bytes: reverse * 100n }],
    };
  };

  test('what does not use the fast path is passed on as it is', () => {
    take();
    expect(sent).toEqual(flowsOf(exportRequest(bytesOf(record(connection)))));
    expect(accounting.counts).toEqual({ tracked: 0, relayed: 1, corrected: 0, added: 0, evicted: 0 });
  });

  test('the rest is added, in totals and deltas', () => {
    bypassed(1000n, 500n);
    take({ packets: [10, 10], bytes: [1000, 1000] });
    expect(sent[0]).toMatchObject({
      stats: { packetTotalCount: 1010, packetDeltaCount: 1010, octetTotalCount: 101_000, octetDeltaCount: 101_000 },
      reverseStats: { packetTotalCount: 510, packetDeltaCount: 510 },
      endReason: ACTIVE,
    });
    bypassed(1500n, 600n);
    take({ end: 1_010_000, packets: [12, 2], bytes: [1200, 200] });
    expect(sent[1]).toMatchObject({
      stats: { packetTotalCount: 1512, packetDeltaCount: 502, octetTotalCount: 151_200, octetDeltaCount: 50_200 },
      reverseStats: { packetTotalCount: 612, packetDeltaCount: 102 },
    });
  });

  test('a connection that gets fast later', () => {
    take();
    bypassed(5n, 0n);
    take({ end: 1_010_000, packets: [15, 5], bytes: [1500, 500] });
    expect(sent[1]).toMatchObject({ stats: { packetTotalCount: 20, packetDeltaCount: 10 } });
  });

  test('admitted anew: totals never go back', () => {
    bypassed(1000n, 500n);
    take();
    bypassed(7n, 7n, '2');
    take({ end: 1_010_000, packets: [20, 10] });
    sample = undefined;
    take({ end: 1_015_000, packets: [21, 1] });
    expect(sent.map(({ stats }) => stats?.packetTotalCount)).toEqual([1010, 1027, 1028]);
    expect(sent.map(({ stats }) => stats?.packetDeltaCount)).toEqual([1010, 17, 1]);
  });

  test('busy on the fast path is not idle', () => {
    bypassed(1000n, 500n);
    take();
    bypassed(2000n, 500n);
    take({ end: 1_010_000, endReason: IDLE, packets: [10, 0], bytes: [1000, 0] });
    take({ end: 1_015_000, endReason: IDLE, packets: [10, 0], bytes: [1000, 0] });
    expect(sent.map(({ endReason }) => endReason)).toEqual([ACTIVE, ACTIVE, IDLE]);
  });

  test('where the agent is silent, the sidecar reports', async () => {
    bypassed(1000n, 500n);
    take();
    bypassed(1100n, 500n);
    now += 4000;
    await accounting.tick();
    expect(sent).toHaveLength(1);
    now += 1000;
    await accounting.tick();
    expect(sent[1]).toMatchObject({
      stats: { packetTotalCount: 1110, packetDeltaCount: 100 },
      reverseStats: { packetDeltaCount: 0 },
      endTs: { seconds: 2005 },
      endReason: ACTIVE,
    });
    now += 10_000;
    await accounting.tick();
    expect(sent).toHaveLength(2);
    expect(accounting.counts).toMatchObject({ added: 1, corrected: 1 });
  });

  test('the end of a connection is the end of it here', async () => {
    bypassed(1000n, 500n);
    take();
    take({ end: 1_010_000, endReason: END });
    expect(sent[1]).toMatchObject({ endReason: END, stats: { packetTotalCount: 1010 } });
    expect(accounting.counts.tracked).toBe(0);
    bypassed(2000n, 500n);
    now += 60_000;
    await accounting.tick();
    expect(sent).toHaveLength(2);
  });

  test('a new connection on the same ports begins at 0', () => {
    bypassed(1000n, 500n);
    take();
    bypassed(3n, 3n, '2');
    take({ start: 1_500_000, end: 1_505_000, packets: [1, 1] });
    expect(sent[1]).toMatchObject({ stats: { packetTotalCount: 4, packetDeltaCount: 4 } });
  });

  test('is bounded', () => {
    bypassed(1n, 1n);
    for (const sourcePort of [1, 2, 3]) take({ sourcePort });
    expect(accounting.counts).toMatchObject({ tracked: 2, evicted: 1 });
  });
});

describe('candidates for approvals', () => {
  let wanted: unknown[];
  let clock: FakeClock;
  beforeEach(() => {
    wanted = [];
    clock = new FakeClock();
  });
  const allowed = (over: Partial<ConstructorParameters<typeof AllowedFlows>[0]> = {}): AllowedFlows =>
    new AllowedFlows({
      deviceOf: (address) => (address === '10.10.1.2' ? 7 : undefined),
      isApproved: () => false,
      want: (one) => wanted.push(one),
      now: clock.now,
      ...over,
    });
  const seen = (change: Partial<Connection> = {}): FlowRecord => decoded(bytesOf(record({ ...connection, ...change })));
  const forward = { saddr: '10.10.1.2', daddr: '10.10.2.3', sport: 1000, dport: 2000, ifindex: 7, proto: 17 };

  test('the local pod as client, as server, and of a Service', () => {
    const flows = allowed();
    flows.take(seen());
    flows.take(seen({ source: '10.10.2.3', destination: '10.10.1.2', sourcePort: 5, destinationPort: 6 }));
    flows.take(seen({ service: { ip: '10.96.0.1', port: 53, name: 'a/b:c' } }));
    expect(wanted).toEqual([
      forward,
      { ...forward, sport: 6, dport: 5 },
      { ...forward, daddr: '10.96.0.1', dport: 53 },
    ]);
  });

  test('not what has ended, is approved, or is ICMP', () => {
    allowed().take(seen({ endReason: END }));
    allowed().take(seen({ protocol: 6, tcpState: 'CLOSE' }));
    allowed().take(seen({ protocol: 1 }));
    allowed({ isApproved: () => true }).take(seen());
    allowed({ protocols: new Set([132]) }).take(seen());
    expect(wanted).toEqual([]);
  });

  test('no more than the rate', () => {
    const flows = allowed({ rate: 10 });
    for (let count = 0; count < 30; count++) flows.take(seen());
    expect(flows.counts).toEqual({ wanted: 10, skipped: 20 });
    clock.time += 500_000_000n;
    for (let count = 0; count < 30; count++) flows.take(seen());
    expect(flows.counts.wanted).toBe(15);
  });
});

test('a queue drops the oldest', () => {
  const queue = new MessageQueue(3);
  for (const value of [1, 2, 3, 4, 5]) queue.push(Buffer.from([value]));
  expect([queue.length, queue.dropped]).toEqual([3, 2]);
  expect([queue.shift(), queue.shift(), queue.shift(), queue.shift()].map((one) => one?.[0])).toEqual([
    3,
    4,
    5,
    undefined,
  ]);
});

test('policies in words', () => {
  expect(policyText({ type: 'K8s', namespace: 'data', name: 'db-in', rule: '' })).toBe('K8s data/db-in');
  expect(policyText({ type: 'ACNP', namespace: '', name: 'allow', rule: 'to-db' })).toBe('ACNP allow:to-db');
  expect(policyText({ type: '', namespace: '', name: 'x', rule: '' })).toBe('x');
});
