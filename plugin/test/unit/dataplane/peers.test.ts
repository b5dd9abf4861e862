import { beforeEach, describe, expect, test } from '@jest/globals';
import { BpfError } from '../../../src/bpf/errors.ts';
import { Degradations } from '../../../src/dataplane/degradations.ts';
import { DestKind, MAX_PEERS, PeerFlag, PROTOCOL_VERSION } from '../../../src/dataplane/layout.ts';
import type { Notes } from '../../../src/dataplane/notes.ts';
import { pathIndex, UNHEARD, UNKNOWN_PATH } from '../../../src/dataplane/paths.ts';
import { parsePrefix, peerOfPod, Peers } from '../../../src/dataplane/peers.ts';
import { formatIpv4, parseIpv4 } from '../../../src/netlink/ip.ts';
import type { HashTable } from '../../../src/dataplane/ports.ts';
import type { ClusterDiff, ClusterNode, ClusterState } from '../../../src/state/cluster.ts';
import { diffCluster } from '../../../src/state/cluster-diff.ts';
import { FakeArray, FakeClock, fakeNotes, FakeTables, quiet } from './fakes.ts';

let tables: FakeTables;
let notes: Notes;
let clock: FakeClock;

let degradations: Degradations;

const make = (): Peers => new Peers({ tables, notes, degradations, log: quiet, now: clock.now });
const told = (): string[] => degradations.list().map(({ what }) => what);

function node(n: number, over: Partial<ClusterNode> = {}): ClusterNode {
  return {
    name: `n${n}`,
    addresses: [`172.30.0.${n}`],
    podCIDRs: [`10.10.${n}.0/24`],
    capability: { protocol: PROTOCOL_VERSION, incarnation: 'a' },
    ...over,
  };
}

function state(...nodes: ClusterNode[]): ClusterState {
  return { own: node(1), nodes: [node(1), ...nodes] };
}

const destinations = (): string[] =>
  [...tables.destinations.entries()]
    .map(([prefix, { kind, peer }]) => `${prefix.addr}/${prefix.prefixlen} ${kind} ${peer}`)
    .sort();

beforeEach(() => {
  tables = new FakeTables();
  notes = fakeNotes();
  clock = new FakeClock();
  degradations = new Degradations(quiet);
});

describe('peers', () => {
  test('other nodes become peers; gateways and the own pods are no destinations', () => {
    const peers = make();
    peers.update(state(node(2), node(3, { capability: { protocol: 99, incarnation: 'x' } })));
    expect(tables.peers.get(1)).toMatchObject({
      addr4: '172.30.0.2',
      flags: PeerFlag.PRESENT | PeerFlag.CAPABLE,
    });
    expect(tables.peers.get(2).flags).toBe(PeerFlag.PRESENT);
    expect(tables.peerByAddr.get('172.30.0.3')).toBe(2);
    expect(destinations()).toEqual([
      `10.10.2.0/120 ${DestKind.PEER} 1`,
      `10.10.2.1/128 ${DestKind.NONE} 0`,
      `10.10.3.0/120 ${DestKind.PEER} 2`,
      `10.10.3.1/128 ${DestKind.NONE} 0`,
    ]);
    expect(peers.list(new Map([[1, 5]]))).toMatchObject([
      { nodeName: 'n2', capable: true, alive: false, flows: 5, id: 1 },
      { nodeName: 'n3', capable: false, flows: 0, id: 2 },
    ]);
  });

  test('a peer has an address of each family, and pods of both', () => {
    const peers = make();
    peers.update(state(node(2, { addresses: ['172.30.0.2', 'fd30::2'], podCIDRs: ['10.10.2.0/24', 'fd10:2::/64'] })));
    expect(tables.peers.get(1)).toMatchObject({ addr4: '172.30.0.2', addr6: 'fd30::2' });
    expect([tables.peerByAddr.get('172.30.0.2'), tables.peerByAddr.get('fd30::2')]).toEqual([1, 1]);
    expect(destinations()).toEqual([
      `10.10.2.0/120 ${DestKind.PEER} 1`,
      `10.10.2.1/128 ${DestKind.NONE} 0`,
      `fd10:2::/64 ${DestKind.PEER} 1`,
      `fd10:2::1/128 ${DestKind.NONE} 0`,
    ]);
    expect(peerOfPod(tables, 'fd10:2::')).toBeUndefined();
    // A new start takes it over; one without the second address forgets that.
    const epoch = tables.peers.get(1).epoch;
    const later = make();
    expect([later.nameOf(1), tables.peers.get(1).epoch]).toEqual(['n2', epoch]);
    later.update(state(node(2)));
    expect(tables.peerByAddr.entries()).toEqual([['172.30.0.2', 1]]);
    expect(tables.peers.get(1)).toMatchObject({ addr6: '' });
  });

  test('what was found out about the way to a peer is not another address’s', () => {
    const index = pathIndex(1, 6, 2);
    const peers = make();
    peers.update(state(node(2)));
    tables.paths.set(index, { ...UNKNOWN_PATH, changes: 4 });
    peers.update(state(node(2, { capability: { protocol: PROTOCOL_VERSION, incarnation: 'b' } })));
    expect(tables.paths.get(index).changes).toBe(4);
    peers.update(state(node(2, { addresses: ['172.30.0.9'] })));
    expect(tables.paths.get(index)).toEqual(UNKNOWN_PATH);
    tables.paths.set(index, { ...UNKNOWN_PATH, changes: 4 });
    peers.forgetPaths();
    expect(tables.paths.get(index)).toEqual(UNKNOWN_PATH);
  });

  test('peers that Antrea routes to are marked; their flows end when that changes', () => {
    const peers = make();
    peers.update(state(node(2), node(3)));
    const { epoch } = tables.peers.get(1);
    peers.setRouting(({ name }) => name === 'n2');
    expect(tables.peers.get(1)).toMatchObject({
      flags: PeerFlag.PRESENT | PeerFlag.CAPABLE | PeerFlag.DIRECT4 | PeerFlag.DIRECT6,
      epoch: epoch + 1,
    });
    expect(tables.peers.get(2).flags).toBe(PeerFlag.PRESENT | PeerFlag.CAPABLE);
    peers.update(state(node(2), node(3)));
    peers.setRouting(({ name }) => name === 'n2');
    expect(tables.peers.get(1).epoch).toBe(epoch + 1);
    peers.setRouting(({ name }, family) => name === 'n2' && family === 6);
    expect(tables.peers.get(1)).toMatchObject({
      flags: PeerFlag.PRESENT | PeerFlag.CAPABLE | PeerFlag.DIRECT6,
      epoch: epoch + 2,
    });
  });

  test('nothing is masqueraded to a peer whose addresses found no room', () => {
    const { peerByAddr } = tables;
    const set = peerByAddr.set.bind(peerByAddr);
    Object.assign(peerByAddr, {
      set: (address: string, id: number) => {
        if (address === 'fd30::2') throw new BpfError('update', 7);
        set(address, id);
      },
    });
    const peers = make();
    peers.update(state(node(2, { addresses: ['172.30.0.2', 'fd30::2'] })));
    expect(tables.peers.get(1).flags).toBe(PeerFlag.PRESENT);
    expect(told()).toEqual(['transport addresses of 1 nodes found no room in the table of peers']);
    peers.update(state(node(2)));
    expect(tables.peers.get(1).flags).toBe(PeerFlag.PRESENT | PeerFlag.CAPABLE);
    expect(told()).toEqual([]);
  });

  test('nothing is written when nothing changes', () => {
    const peers = make();
    peers.update(state(node(2)));
    const writes = tables.peers.writes.length;
    peers.update(state(node(2)));
    expect(tables.peers.writes.length).toBe(writes);
  });

  test.each([
    ['incarnation', { capability: { protocol: PROTOCOL_VERSION, incarnation: 'b' } }],
    ['capability', { capability: { protocol: 1, incarnation: 'a' } }],
    ['address', { addresses: ['172.30.0.99'] }],
    ['pod CIDRs', { podCIDRs: ['10.10.77.0/24'] }],
  ])('another %s makes the flows invalid', (_what, over) => {
    const peers = make();
    peers.update(state(node(2)));
    const { epoch } = tables.peers.get(1);
    peers.update(state(node(2, over)));
    expect(tables.peers.get(1).epoch).toBeGreaterThan(epoch);
    expect(tables.peerByAddr.entries()).toEqual([[peers.list(new Map())[0]?.addresses[0], 1]]);
    expect(destinations().length).toBe(2);
  });

  test('two nodes that swap addresses never stand for each other', () => {
    const peers = make();
    peers.update(state(node(2), node(3)));
    peers.update(state(node(2, { addresses: ['172.30.0.3'] }), node(3, { addresses: ['172.30.0.2'] })));
    expect(tables.peerByAddr.get('172.30.0.3')).toBe(1);
    expect(tables.peerByAddr.get('172.30.0.2')).toBe(2);
    expect(tables.peers.get(1).addr4).toBe('172.30.0.3');
  });

  test('a number goes to another node without the signs of life of the one before', () => {
    const peers = make();
    peers.update(state(node(2)));
    tables.peerState.set(1, { ...UNHEARD, lastLife: clock.time, lastConfirmed: clock.time });
    expect(peers.alive).toBe(1);
    clock.seconds(6);
    expect(peers.alive).toBe(0);
    peers.update(state());
    expect(tables.peers.get(1).flags).toBe(0);
    expect(destinations()).toEqual([]);
    expect(peers.count).toBe(0);
    tables.peerState.set(2, { ...UNHEARD, lastLife: clock.time, lastConfirmed: clock.time });
    peers.update(state(node(4)));
    expect(peers.idOf('n4')).toBe(2);
    expect(tables.peerState.get(2).lastLife).toBe(0n);
  });

  test('a new start keeps numbers and epochs, and notices what changed meanwhile', () => {
    make().update(state(node(2), node(3)));
    const before = [tables.peers.get(1).epoch, tables.peers.get(2).epoch];
    const peers = make();
    peers.update(state(node(2), node(3, { capability: { protocol: PROTOCOL_VERSION, incarnation: 'rebooted' } })));
    expect(tables.peers.get(1).epoch).toBe(before[0]);
    expect(tables.peers.get(2).epoch).toBeGreaterThan(before[1] ?? 0);
    make().update(state(node(3, { capability: { protocol: PROTOCOL_VERSION, incarnation: 'rebooted' } })));
    expect(destinations().length).toBe(2);
    expect(tables.peers.get(1).flags).toBe(0);
  });

  test('prefixes are masked, wrong ones refused', () => {
    expect(parsePrefix('10.1.2.3/16')).toEqual({ prefixlen: 112, addr: '10.1.0.0' });
    expect(parsePrefix('1.2.3.4/0')).toEqual({ prefixlen: 96, addr: '0.0.0.0' });
    expect(parsePrefix('255.255.255.255/32').addr).toBe('255.255.255.255');
    expect(parsePrefix('FD00:0::5/64')).toEqual({ prefixlen: 64, addr: 'fd00::' });
    for (const wrong of ['10.1.2.3', '10.1.2.3/33', 'x/8', '10.1/16', 'fd00::/129', 'fe80::1%eth0/64'])
      expect(() => parsePrefix(wrong)).toThrow(RangeError);
  });
});

describe('peers by differences', () => {
  const change = (before: ClusterNode, after: ClusterNode): ClusterDiff => ({
    added: [],
    changed: [{ before, after }],
    removed: [],
  });

  /** Writes to all tables since the last call. */
  function counter(): () => number {
    let count = 0;
    for (const table of [tables.peerByAddr, tables.destinations] as HashTable<unknown, unknown>[]) {
      const set = table.set.bind(table);
      const remove = table.delete.bind(table);
      table.set = (...args) => {
        count++;
        set(...args);
      };
      table.delete = (key) => {
        count++;
        return remove(key);
      };
    }
    let before = 0;
    return () => {
      const all = count + tables.peers.writes.length + tables.peerState.writes.length;
      const since = all - before;
      before = all;
      return since;
    };
  }

  test('leads to the same tables as whole states do', () => {
    const states = [
      [node(2), node(3), node(4)],
      [node(2, { capability: { protocol: PROTOCOL_VERSION, incarnation: 'b' } }), node(3), node(4)],
      [node(3, { addresses: ['172.30.0.4'] }), node(4, { addresses: ['172.30.0.3'] })],
      [node(2, { podCIDRs: ['10.10.3.0/24'] }), node(3, { podCIDRs: ['10.10.2.0/24'] }), node(5)],
      [node(5, { podCIDRs: ['10.10.64.0/18'] })],
      [],
    ].map((nodes) => state(...nodes));
    const whole = { tables, peers: make() };
    tables = new FakeTables();
    notes = fakeNotes();
    const parts = { tables, peers: make() };
    let former: ClusterState | undefined;
    for (const next of states) {
      whole.peers.update(next);
      if (former === undefined) parts.peers.update(next);
      else parts.peers.apply(diffCluster(former, next), 'n1');
      former = next;
      const entries = [whole, parts].map(({ tables: { destinations, peerByAddr }, peers }) => ({
        destinations: [...destinations.entries()].map((entry) => JSON.stringify(entry)).sort(),
        addresses: [...peerByAddr.entries()].sort(([a], [b]) => (a < b ? -1 : 1)),
        peers: peers.list(new Map()).map((peer) => ({ ...peer, epoch: peer.epoch > 0 })),
      }));
      expect(entries[1]).toEqual(entries[0]);
    }
  });

  test('one change costs the same among 2 and among 40 nodes', () => {
    const costs = [2, 40].map((size) => {
      tables = new FakeTables();
      notes = fakeNotes();
      const peers = make();
      const nodes = Array.from({ length: size }, (_, index) => node(index + 2));
      peers.update(state(...nodes));
      const writes = counter();
      writes();
      const reborn = node(2, { capability: { protocol: PROTOCOL_VERSION, incarnation: 'b' } });
      peers.apply(change(node(2), reborn), 'n1');
      const changed = writes();
      peers.apply({ added: [], changed: [], removed: [reborn] }, 'n1');
      const removed = writes();
      peers.apply({ added: [node(2)], changed: [], removed: [] }, 'n1');
      return [changed, removed, writes()];
    });
    expect(costs[1]).toEqual(costs[0]);
    expect(Math.max(...costs.flat())).toBeLessThan(10);
  });

  test('this node is no peer, and what does not concern the tables writes nothing', () => {
    const peers = make();
    peers.update(state(node(2)));
    const writes = counter();
    writes();
    peers.apply(change(node(1), node(1, { capability: { protocol: PROTOCOL_VERSION, incarnation: 'c' } })), 'n1');
    expect(writes()).toBe(0);
    expect(peers.count).toBe(1);
  });

  test('prefixes without room get it when others go', () => {
    const peers = make();
    const set = tables.destinations.set.bind(tables.destinations);
    tables.destinations.set = (...args) => {
      if (tables.destinations.size >= 4) throw new BpfError('update', 7);
      set(...args);
    };
    peers.update(state(node(2), node(3)));
    peers.apply({ added: [node(4)], changed: [], removed: [] }, 'n1');
    expect(destinations().some((text) => text.startsWith('10.10.4.'))).toBe(false);
    expect(told()).toEqual(['2 pod CIDRs found no room in the table of destinations']);
    peers.apply({ added: [], changed: [], removed: [node(2)] }, 'n1');
    expect(destinations().filter((text) => text.startsWith('10.10.4.'))).toHaveLength(2);
    expect(told()).toEqual([]);
  });

  test('more nodes than there is room for are told, and become peers when others go', () => {
    for (const name of ['peers', 'peerState'] as const) {
      const [zero] = [tables[name].get(0)];
      Object.assign(tables, { [name]: new FakeArray<unknown>(MAX_PEERS, zero) });
    }
    Object.assign(tables, { paths: new FakeArray(pathIndex(MAX_PEERS, 4, 0), UNKNOWN_PATH) });
    const many = Array.from({ length: MAX_PEERS + 1 }, (_, index) =>
      node(2, {
        name: `far-${index}`,
        addresses: [formatIpv4(parseIpv4('172.31.0.1') + index)],
        podCIDRs: [`${formatIpv4(parseIpv4('11.0.0.0') + index * 256)}/24`],
      }),
    );
    const peers = make();
    peers.update(state(...many));
    expect(peers.count).toBe(MAX_PEERS - 1);
    expect(told()).toEqual([`2 nodes are not peers: there is room for ${MAX_PEERS - 1}`]);
    peers.apply({ added: [], changed: [], removed: many.slice(0, 2) }, 'n1');
    expect([peers.count, told()]).toEqual([MAX_PEERS - 1, []]);
  });
});
