import { beforeEach, describe, expect, test } from '@jest/globals';
import { EndReason, numbered, record, request, type Connection, type Flow } from '../../../../e2e/flowgen/records.ts';
import { AgeList, type Aged } from '../../../src/flowexport/age-list.ts';
import { decodeExport } from '../../../src/flowexport/decode.ts';
import { FlowNames } from '../../../src/flowexport/flow-names.ts';
import { NamesCache } from '../../../src/flowexport/names-cache.ts';
import type { FlowRecord } from '../../../src/flowexport/record.ts';
import { isLive, RecordStore } from '../../../src/flowexport/store.ts';
import { flowWords } from '../../../src/flowexport/words.ts';

const names = new NamesCache();

export function decoded(flow: Flow): FlowRecord {
  const records: FlowRecord[] = [];
  decodeExport(request(flow), names, (one) => records.push(one));
  return records[0] as FlowRecord;
}

const connection: Connection = {
  source: '10.244.1.5',
  destination: '10.244.2.9',
  sourcePort: 41000,
  destinationPort: 8080,
  start: 1_000_000,
  end: 1_005_000,
  service: { ip: '10.96.0.10', port: 80, name: 'shop/db:http' },
};
const flow = { saddr: '10.244.1.5', daddr: '10.244.2.9', sport: 41000, dport: 8080, proto: 6 };
const toService = { ...flow, daddr: '10.96.0.10', dport: 80 };
const answer = { saddr: flow.daddr, daddr: flow.saddr, sport: flow.dport, dport: flow.sport, proto: 6 };

let store: RecordStore;
const put = (change: Partial<Connection> = {}): string => store.put(decoded(record({ ...connection, ...change })));

beforeEach(() => {
  store = new RecordStore(100);
});

describe('news and repetitions', () => {
  test('a record, its successor, and both again', () => {
    const next = { end: 1_010_000, packets: [20, 10], bytes: [2000, 1000] } as const;
    expect(put()).toBe('new');
    expect(put()).toBe('duplicate');
    expect(put(next)).toBe('update');
    expect(put()).toBe('stale');
    expect(put(next)).toBe('duplicate');
    expect(store.counts).toEqual({ new: 1, update: 1, duplicate: 2, stale: 1, gaps: 0, evicted: 0 });
  });

  test('the end of a flow with the same totals is news', () => {
    put();
    expect(put({ endReason: EndReason.FLOW_END_REASON_END_OF_FLOW })).toBe('update');
  });

  test('another connection on the same ports', () => {
    put();
    expect(put({ start: 2_000_000, end: 2_001_000, packets: [1, 1], bytes: [40, 40] })).toBe('new');
    expect(put({ end: 1_010_000 })).toBe('stale');
  });

  test('a clock that was set back', () => {
    put();
    expect(put({ end: 900_000, packets: [20, 10], bytes: [2000, 1000] })).toBe('update');
    expect(put({ start: 800_000, end: 900_001 })).toBe('new');
  });

  test('lost records are noticed by the deltas', () => {
    put();
    put({ end: 1_020_000, packets: [40, 10], bytes: [4000, 1000] });
    expect(store.counts.gaps).toBe(1);
    // An agent that starts anew tells all since the beginning.
    put({ end: 1_030_000, packets: [50, 50], bytes: [5000, 5000] });
    expect(store.counts.gaps).toBe(1);
  });
});

describe('bounds', () => {
  test('the longest silent connection goes', () => {
    for (let number = 0; number < 100; number++) store.put(decoded(record(numbered(number))));
    store.put(decoded(record(numbered(0, 1))));
    store.put(decoded(record(numbered(100))));
    expect(store.size).toBe(100);
    expect(store.counts.evicted).toBe(1);
    expect(store.namesOf(decoded(record(numbered(0))))).toBeDefined();
    expect(store.namesOf(decoded(record(numbered(1))))).toBeUndefined();
  });

  test('nothing is left of what went', () => {
    put();
    for (let number = 0; number < 100; number++) store.put(decoded(record(numbered(number))));
    expect(new FlowNames(store).lookup(toService)).toBeUndefined();
  });
});

describe('names', () => {
  test('of the flow, to the endpoint and to the Service', () => {
    put();
    const lookup = new FlowNames(store);
    for (const one of [flow, toService]) {
      expect(lookup.lookup(one)).toEqual({
        reply: false,
        flowType: 'inter-node',
        sourcePod: { namespace: 'shop', name: 'client-10.244.1.5' },
        sourceNode: 'node-1',
        service: { name: 'shop/db:http', address: '10.96.0.10', port: 80 },
        egressPolicy: { type: 'ACNP', namespace: '', name: 'allow-shop', rule: 'to-db' },
      });
    }
  });

  test('of the flow that answers it, turned round', () => {
    put();
    expect(new FlowNames(store).lookup(answer)).toMatchObject({
      reply: true,
      destinationPod: { namespace: 'shop', name: 'client-10.244.1.5' },
      destinationNode: 'node-1',
    });
    expect(new FlowNames(store).lookup(answer)).not.toHaveProperty('sourcePod');
  });

  test('in words', () => {
    put();
    expect(flowWords(new FlowNames(store))(toService)).toEqual({
      sourcePod: { namespace: 'shop', name: 'client-10.244.1.5' },
      service: 'shop/db:http',
      egressPolicy: 'ACNP allow-shop:to-db',
    });
    expect(flowWords(new FlowNames(store))({ ...flow, proto: 1 })).toBeUndefined();
  });

  test('not of another one', () => {
    put();
    const lookup = new FlowNames(store);
    for (const other of [{ sport: 1 }, { dport: 1 }, { proto: 17 }, { saddr: '10.0.0.1' }, { daddr: '10.0.0.1' }]) {
      expect(lookup.lookup({ ...flow, ...other })).toBeUndefined();
    }
  });

  test('of ICMP, whose records have no identifier', () => {
    put({ protocol: 1, sourcePort: 0, destinationPort: 0 });
    expect(new FlowNames(store).lookup({ ...flow, proto: 1, sport: 4711, dport: 8 })).toMatchObject({ reply: false });
    expect(new FlowNames(store).lookup({ ...answer, proto: 1, sport: 4711, dport: 0 })).toMatchObject({ reply: true });
  });

  test('two connections to one Service endpoint by the same ports, one after the other', () => {
    put();
    put({ destination: '10.244.2.10', start: 2_000_000, end: 2_001_000 });
    store.put(
      decoded(record({ ...connection, end: 1_009_000, service: { ip: '10.96.0.11', port: 80, name: 'shop/x:y' } })),
    );
    expect(new FlowNames(store).lookup(toService)?.service?.name).toBe('shop/db:http');
  });
});

test('a flow lives until its record says otherwise', () => {
  expect(isLive(decoded(record(connection)))).toBe(true);
  expect(isLive(decoded(record({ ...connection, endReason: EndReason.FLOW_END_REASON_END_OF_FLOW })))).toBe(false);
  expect(isLive(decoded(record({ ...connection, tcpState: 'TIME_WAIT' })))).toBe(false);
  expect(isLive(decoded(record({ ...connection, protocol: 17 })))).toBe(true);
});

test('a list by age keeps its order, whatever is used and removed', () => {
  interface Member extends Aged<Member> {
    readonly id: number;
  }
  const list = new AgeList<Member>();
  const members = Array.from({ length: 20 }, (...[, id]): Member => ({ id, older: undefined, newer: undefined }));
  let expected: Member[] = [];
  for (let step = 0; step < 5000; step++) {
    const member = members[(step * 7919 + (step >> 3)) % members.length] as Member;
    expected = expected.filter((one) => one !== member);
    if (step % 3 === 0) {
      list.remove(member);
    } else {
      list.use(member);
      expected.push(member);
    }
    const order: Member[] = [];
    for (let one = list.oldest; one !== undefined; one = one.newer) order.push(one);
    expect(order.map(({ id }) => id)).toEqual(expected.map(({ id }) => id));
  }
});
