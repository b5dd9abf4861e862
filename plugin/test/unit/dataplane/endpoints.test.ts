import { beforeEach, describe, expect, test } from '@jest/globals';
import { BpfError } from '../../../src/bpf/errors.ts';
import { Degradations } from '../../../src/dataplane/degradations.ts';
import { Endpoints } from '../../../src/dataplane/endpoints.ts';
import { EndpointFlag, Reason } from '../../../src/dataplane/layout.ts';
import type { Notes } from '../../../src/dataplane/notes.ts';
import type { Pod } from '../../../src/grpc/backend.ts';
import type { Link } from '../../../src/netlink/rtnetlink.ts';
import { FakeAttacher, FakeClock, fakeNotes, FakeTables, link, program, quiet } from './fakes.ts';

let tables: FakeTables;
let attacher: FakeAttacher;
let notes: Notes;
let degradations: Degradations;
let links: Link[];
let clock: FakeClock;

function make(): Endpoints {
  return new Endpoints({
    tables,
    attacher,
    programs: { pod_egress: program('pod_egress'), pod_ingress: program('pod_ingress') },
    links: { byName: (name) => links.find((entry) => entry.name === name), all: () => links },
    notes,
    degradations,
    log: quiet,
    now: clock.now,
  });
}

function pod(n: number, over: Partial<Pod> = {}): Pod {
  const two = n.toString(16).padStart(2, '0');
  return {
    namespace: 'default',
    name: `p${n}`,
    containerId: `c${n}`,
    ifName: `veth${n}`,
    ips: [`10.10.1.${n}`],
    mac: `02:00:00:00:00:${two}`,
    ...over,
  };
}

const address = (n: number): string => `10.10.1.${n}`;

beforeEach(() => {
  tables = new FakeTables();
  attacher = new FakeAttacher();
  notes = fakeNotes();
  degradations = new Degradations(quiet);
  links = Array.from({ length: 20 }, (_, i) => link(`veth${i}`, 100 + i));
  clock = new FakeClock();
});

describe('endpoints', () => {
  test('both programs are attached before the endpoint is present', async () => {
    const endpoints = make();
    attacher.onAttach = () => {
      expect(tables.endpoints.writes.some(([, entry]) => (entry.flags & EndpointFlag.PRESENT) !== 0)).toBe(false);
      expect(tables.endpointByAddr.size + tables.endpointByIfindex.size).toBe(0);
    };
    await endpoints.added(pod(2));
    expect(attacher.journal).toEqual(['attach pod_egress-102', 'attach pod_ingress-102']);
    expect(tables.endpoints.get(1)).toMatchObject({ ifindex: 102, addr4: address(2), flags: 1, epoch: 1 });
    expect(tables.endpointByAddr.get(address(2))).toBe(1);
    expect(tables.endpointByIfindex.get(102)).toBe(1);
    expect(endpoints.list(new Map([[1, 4]]))[0]).toMatchObject({ pod: 'p2', attached: true, id: 1, flows: 4 });
  });

  test('an excluded pod keeps its hooks, and its flows end', async () => {
    const endpoints = make();
    await endpoints.added(pod(2));
    const exclusion = { pod: { namespace: pod(2).namespace, name: 'p2' }, reason: Reason.BANDWIDTH, detail: 'limit' };
    const excluded = new Map([[`${pod(2).namespace}/p2`, exclusion]]);
    endpoints.setExclusions(excluded);
    expect(tables.endpoints.get(1)).toMatchObject({ flags: 1, excluded: Reason.BANDWIDTH, epoch: 2 });
    expect(attacher.attached.size).toBe(2);
    const [info] = endpoints.list(new Map());
    expect(info).toMatchObject({ attached: true, exclusion: { reason: Reason.BANDWIDTH, detail: 'limit' } });
    endpoints.setExclusions(excluded);
    expect(tables.endpoints.get(1).epoch).toBe(2);
    endpoints.setExclusions(new Map(), false);
    expect(tables.endpoints.get(1)).toMatchObject({ excluded: Reason.BANDWIDTH, epoch: 2 });
    endpoints.setExclusions(new Map());
    expect(tables.endpoints.get(1)).toMatchObject({ excluded: 0, epoch: 3 });
    expect(endpoints.list(new Map())[0]).not.toHaveProperty('exclusion');
  });

  test('a pod that is excluded before it appears never is without', async () => {
    const endpoints = make();
    const exclusion = { pod: { namespace: pod(2).namespace, name: 'p2' }, reason: Reason.BANDWIDTH, detail: 'limit' };
    endpoints.setExclusions(new Map([[`${pod(2).namespace}/p2`, exclusion]]));
    await endpoints.added(pod(2));
    const present = tables.endpoints.writes.filter(([, entry]) => (entry.flags & EndpointFlag.PRESENT) !== 0);
    expect(present).toHaveLength(1);
    expect(present[0]?.[1].excluded).toBe(Reason.BANDWIDTH);
  });

  test('removal makes the flows invalid before anything else', async () => {
    const endpoints = make();
    await endpoints.added(pod(2));
    await endpoints.removed(pod(2));
    expect(tables.endpoints.get(1)).toMatchObject({ flags: 0, epoch: 2 });
    expect(tables.endpointByAddr.size + tables.endpointByIfindex.size + attacher.attached.size).toBe(0);
    expect(endpoints.list(new Map())).toEqual([]);
  });

  test('an address that goes to another pod never leads to the old one', async () => {
    const endpoints = make();
    await endpoints.added(pod(2));
    const seen: (number | undefined)[] = [];
    attacher.onAttach = () => seen.push(tables.endpointByAddr.get(address(2)));
    await endpoints.added(pod(3, { ips: ['10.10.1.2'] }));
    expect(seen).toEqual([undefined, undefined]);
    expect(tables.endpointByAddr.get(address(2))).toBe(2);
    expect(tables.endpoints.get(1)).toMatchObject({ flags: 0, epoch: 2 });
    expect(endpoints.list(new Map()).find((entry) => entry.pod === 'p2')?.problem).toContain('p3 claims');
    await endpoints.removed(pod(3));
    expect(endpoints.list(new Map())).toMatchObject([{ pod: 'p2', attached: true }]);
  });

  test('numbers are given out again as late as possible, with another epoch', async () => {
    const endpoints = make();
    for (let round = 0; round < 1030; round++) {
      await endpoints.added(pod(2, { containerId: `c${round}` }));
      await endpoints.removed(pod(2, { containerId: `c${round}` }));
    }
    expect(tables.endpoints.get(1023).epoch).toBe(2);
    expect(tables.endpoints.get(7).epoch).toBe(4);
    expect(tables.endpoints.get(8).epoch).toBe(2);
  });

  test('a changed MAC or address is a new endpoint', async () => {
    const endpoints = make();
    await endpoints.added(pod(2));
    await endpoints.changed(pod(2, { mac: '02:00:00:00:00:99' }));
    expect(tables.endpoints.get(1).flags).toBe(0);
    expect(tables.endpoints.get(2)).toMatchObject({ flags: 1, mac: Uint8Array.of(2, 0, 0, 0, 0, 0x99) });
  });

  test('a snapshot removes what it does not name', async () => {
    const endpoints = make();
    await endpoints.snapshot([pod(2), pod(3)]);
    await endpoints.snapshot([pod(3), pod(4)]);
    expect(endpoints.list(new Map()).map((entry) => entry.pod)).toEqual(['p3', 'p4']);
    expect(tables.endpoints.get(2)).toMatchObject({ flags: 1, epoch: 1 });
  });

  test('a pod waits for its interface, and is shown as trouble only after a while', async () => {
    links = [];
    const endpoints = make();
    await endpoints.added(pod(2));
    expect(endpoints.list(new Map())[0]).toMatchObject({
      attached: false,
      ifindex: 0,
      problem: expect.stringContaining('does not exist'),
    });
    expect(degradations.size).toBe(0);
    clock.seconds(4);
    endpoints.verify();
    expect(degradations.list()[0]?.what).toContain('default/p2');
    links = [link('veth2', 55)];
    endpoints.linkAppeared('veth2');
    expect(degradations.size).toBe(0);
    expect(tables.endpointByIfindex.get(55)).toBe(1);
  });

  test('a deleted interface ends the endpoint at once; a new one of that name begins another', async () => {
    const endpoints = make();
    await endpoints.added(pod(2));
    links = [];
    endpoints.linkDeleted(102);
    expect(tables.endpoints.get(1)).toMatchObject({ flags: 0, epoch: 2 });
    links = [link('veth2', 300)];
    endpoints.linkAppeared('veth2');
    expect(tables.endpointByIfindex.get(300)).toBe(2);
  });

  test('a failed attachment leaves nothing behind', async () => {
    const endpoints = make();
    attacher.onAttach = (name) => {
      if (name === 'pod_ingress') throw new BpfError('attach', 1);
    };
    await endpoints.added(pod(2));
    expect(attacher.attached.size).toBe(0);
    expect(tables.endpoints.get(1).flags).toBe(0);
    expect(degradations.size).toBe(1);
    attacher.onAttach = () => undefined;
    endpoints.verify();
    expect(degradations.size).toBe(0);
    expect(tables.endpointByAddr.get(address(2))).toBe(2);
  });

  test('a pod has an address of each family, or of one', async () => {
    const endpoints = make();
    await endpoints.added(pod(2, { ips: ['fd00::2', '10.10.1.2', '10.10.9.9'] }));
    await endpoints.added(pod(3, { ips: ['fd00::3'] }));
    expect(tables.endpoints.get(1)).toMatchObject({ addr4: '10.10.1.2', addr6: 'fd00::2' });
    expect(tables.endpoints.get(2)).toMatchObject({ addr4: '', addr6: 'fd00::3' });
    expect(tables.endpointByAddr.entries().sort()).toEqual([
      ['10.10.1.2', 1],
      ['fd00::2', 1],
      ['fd00::3', 2],
    ]);
    expect(endpoints.find({ namespace: 'default', name: 'p2' })?.addresses).toEqual(['10.10.1.2', 'fd00::2']);
    // A new start takes over both; one address that is another now makes it another endpoint.
    expect(make().count).toBe(2);
    await endpoints.added(pod(2, { ips: ['fd00::22', '10.10.1.2'] }));
    expect(tables.endpointByAddr.get('fd00::2')).toBeUndefined();
    expect(tables.endpointByAddr.get('fd00::22')).toBe(tables.endpointByAddr.get('10.10.1.2'));
    // Whoever claims either address later has it.
    await endpoints.added(pod(3, { containerId: 'later', ips: ['10.10.1.4', 'fd00::22'] }));
    expect(tables.endpointByAddr.get('10.10.1.2')).toBeUndefined();
  });

  test('a full table is told, not hidden', async () => {
    const endpoints = make();
    links = Array.from({ length: 1024 }, (_, i) => link(`v${i}`, 1000 + i));
    const many = Array.from({ length: 1024 }, (_, i) =>
      pod(5, { containerId: `m${i}`, ifName: `v${i}`, ips: [`10.10.${i >> 8}.${i & 255}`] }),
    );
    await endpoints.snapshot(many);
    expect(endpoints.count).toBe(1023);
    expect(degradations.list()[0]?.what).toContain('all 1023 endpoint numbers');
  });

  test('a new start takes everything over as it is', async () => {
    await make().snapshot([pod(2), pod(3)]);
    const writes = tables.endpoints.writes.length;
    const endpoints = make();
    expect(tables.endpoints.writes.length).toBe(writes);
    expect(endpoints.list(new Map()).map(({ pod: name, id, attached }) => [name, id, attached])).toEqual([
      ['p2', 1, true],
      ['p3', 2, true],
    ]);
    await endpoints.snapshot([pod(2), pod(3)]);
    expect(tables.endpoints.writes.length).toBe(writes);
  });

  test('a new start drops what changed meanwhile', async () => {
    await make().snapshot([pod(2), pod(3), pod(4)]);
    links = [link('veth2', 102), link('veth3', 999)];
    tables.endpointByAddr.set('10.9.9.9', 1);
    const endpoints = make();
    expect(endpoints.count).toBe(1);
    expect(tables.endpoints.get(2)).toMatchObject({ flags: 0, epoch: 2 });
    expect(tables.endpointByAddr.entries()).toEqual([[address(2), 1]]);
    expect([...attacher.attached.keys()]).toEqual(['pod_egress-102', 'pod_ingress-102']);
  });

  test('a program that somebody detached comes back, under a new number', async () => {
    const endpoints = make();
    await endpoints.added(pod(2));
    attacher.attached.delete('pod_ingress-102');
    endpoints.verify();
    expect(attacher.attached.has('pod_ingress-102')).toBe(true);
    expect(tables.endpoints.get(1).flags).toBe(0);
    expect(tables.endpointByIfindex.get(102)).toBe(2);
  });
});
