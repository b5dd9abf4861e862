import { beforeEach, describe, expect, test } from '@jest/globals';
import { Degradations } from '../../../src/dataplane/degradations.ts';
import { DestKind, PeerFlag } from '../../../src/dataplane/layout.ts';
import type { Notes } from '../../../src/dataplane/notes.ts';
import { parsePrefix, Peers } from '../../../src/dataplane/peers.ts';
import { formatIpv4, parseIpv4 } from '../../../src/netlink/ip.ts';
import type { ClusterNode, ClusterState } from '../../../src/state/cluster.ts';
import { FakeClock, fakeNotes, FakeTables, quiet } from './fakes.ts';

let tables: FakeTables;
let notes: Notes;
let clock: FakeClock;

const make = (): Peers =>
  new Peers({ tables, notes, degradations: new Degradations(quiet), log: quiet, now: clock.now });

function node(n: number, over: Partial<ClusterNode> = {}): ClusterNode {
  return {
    name: `n${n}`,
    address: `172.30.0.${n}`,
    podCIDRs: [`10.10.${n}.0/24`],
    capability: { protocol: 1, incarnation: 'a' },
    ...over,
  };
}

function state(...nodes: ClusterNode[]): ClusterState {
  return { own: node(1), nodes: [node(1), ...nodes] };
}

const destinations = (): string[] =>
  [...tables.destinations.entries()]
    .map(([prefix, { kind, peer }]) => `${formatIpv4(prefix.addr)}/${prefix.prefixlen} ${kind} ${peer}`)
    .sort();

beforeEach(() => {
  tables = new FakeTables();
  notes = fakeNotes();
  clock = new FakeClock();
});

describe('peers', () => {
  test('other nodes become peers; gateways and the own pods are no destinations', () => {
    const peers = make();
    peers.update(state(node(2), node(3, { capability: { protocol: 99, incarnation: 'x' } })));
    expect(tables.peers.get(1)).toMatchObject({
      addr4: parseIpv4('172.30.0.2'),
      flags: PeerFlag.PRESENT | PeerFlag.CAPABLE,
    });
    expect(tables.peers.get(2).flags).toBe(PeerFlag.PRESENT);
    expect(tables.peerByAddr.get(parseIpv4('172.30.0.3'))).toBe(2);
    expect(destinations()).toEqual([
      `10.10.2.0/24 ${DestKind.PEER} 1`,
      `10.10.2.1/32 ${DestKind.NONE} 0`,
      `10.10.3.0/24 ${DestKind.PEER} 2`,
      `10.10.3.1/32 ${DestKind.NONE} 0`,
    ]);
    expect(peers.list(new Map([[1, 5]]))).toMatchObject([
      { nodeName: 'n2', capable: true, alive: false, flows: 5, id: 1 },
      { nodeName: 'n3', capable: false, flows: 0, id: 2 },
    ]);
  });

  test('nothing is written when nothing changes', () => {
    const peers = make();
    peers.update(state(node(2)));
    const writes = tables.peers.writes.length;
    peers.update(state(node(2)));
    expect(tables.peers.writes.length).toBe(writes);
  });

  test.each([
    ['incarnation', { capability: { protocol: 1, incarnation: 'b' } }],
    ['capability', { capability: { protocol: 2, incarnation: 'a' } }],
    ['address', { address: '172.30.0.99' }],
    ['pod CIDRs', { podCIDRs: ['10.10.77.0/24'] }],
  ])('another %s makes the flows invalid', (_what, over) => {
    const peers = make();
    peers.update(state(node(2)));
    const { epoch } = tables.peers.get(1);
    peers.update(state(node(2, over)));
    expect(tables.peers.get(1).epoch).toBeGreaterThan(epoch);
    expect(tables.peerByAddr.entries()).toEqual([[parseIpv4(peers.list(new Map())[0]?.address ?? ''), 1]]);
    expect(destinations().length).toBe(2);
  });

  test('two nodes that swap addresses never stand for each other', () => {
    const peers = make();
    peers.update(state(node(2), node(3)));
    peers.update(state(node(2, { address: '172.30.0.3' }), node(3, { address: '172.30.0.2' })));
    expect(tables.peerByAddr.get(parseIpv4('172.30.0.3'))).toBe(1);
    expect(tables.peerByAddr.get(parseIpv4('172.30.0.2'))).toBe(2);
    expect(tables.peers.get(1).addr4).toBe(parseIpv4('172.30.0.3'));
  });

  test('a number goes to another node without the signs of life of the one before', () => {
    const peers = make();
    peers.update(state(node(2)));
    tables.peerState.set(1, { lastLife: clock.time, lastConfirmed: clock.time, rejectWindow: 0n, rejectCount: 0n });
    expect(peers.alive).toBe(1);
    clock.seconds(6);
    expect(peers.alive).toBe(0);
    peers.update(state());
    expect(tables.peers.get(1).flags).toBe(0);
    expect(destinations()).toEqual([]);
    expect(peers.count).toBe(0);
    tables.peerState.set(2, { lastLife: clock.time, lastConfirmed: clock.time, rejectWindow: 0n, rejectCount: 0n });
    peers.update(state(node(4)));
    expect(peers.idOf('n4')).toBe(2);
    expect(tables.peerState.get(2).lastLife).toBe(0n);
  });

  test('a new start keeps numbers and epochs, and notices what changed meanwhile', () => {
    make().update(state(node(2), node(3)));
    const before = [tables.peers.get(1).epoch, tables.peers.get(2).epoch];
    const peers = make();
    peers.update(state(node(2), node(3, { capability: { protocol: 1, incarnation: 'rebooted' } })));
    expect(tables.peers.get(1).epoch).toBe(before[0]);
    expect(tables.peers.get(2).epoch).toBeGreaterThan(before[1] ?? 0);
    make().update(state(node(3, { capability: { protocol: 1, incarnation: 'rebooted' } })));
    expect(destinations().length).toBe(2);
    expect(tables.peers.get(1).flags).toBe(0);
  });

  test('prefixes are masked, wrong ones refused', () => {
    expect(parsePrefix('10.1.2.3/16')).toEqual({ prefixlen: 16, addr: parseIpv4('10.1.0.0') });
    expect(parsePrefix('1.2.3.4/0')).toEqual({ prefixlen: 0, addr: 0 });
    expect(parsePrefix('255.255.255.255/32').addr).toBe(0xffffffff);
    for (const wrong of ['10.1.2.3', '10.1.2.3/33', 'x/8', 'fd00::/64'])
      expect(() => parsePrefix(wrong)).toThrow(RangeError);
  });
});
