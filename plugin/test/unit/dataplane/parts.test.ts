/** The small parts: configuration map, drain, uplink, ids, probes, degradations. */
import { beforeEach, describe, expect, test } from '@jest/globals';
import { ConfigMap } from '../../../src/dataplane/config-map.ts';
import { Degradations } from '../../../src/dataplane/degradations.ts';
import { Drain, DRAINED_NS } from '../../../src/dataplane/drain.ts';
import { Events } from '../../../src/dataplane/events.ts';
import { IdPool } from '../../../src/dataplane/ids.ts';
import { EventType, INTERPRET_NS, LAYOUT_VERSION, Reason, type Event } from '../../../src/dataplane/layout.ts';
import type { PinLayout } from '../../../src/dataplane/pins.ts';
import { hzBetween, missingCapabilities, readTimed, snapHz } from '../../../src/dataplane/probe.ts';
import { Throttle } from '../../../src/dataplane/throttle.ts';
import { ACTIVE_FLAGS, findUplink, Uplink, type UplinkSearch } from '../../../src/dataplane/uplink.ts';
import { UplinkXdp, xdpPlace } from '../../../src/dataplane/uplink-xdp.ts';
import type { LinkAddress } from '../../../src/netlink/rtnetlink.ts';
import { FakeAttacher, FakeArray, FakeClock, fakeNotes, key, link, program, quiet, zeroConfig } from './fakes.ts';

let clock: FakeClock;
let config: ConfigMap;
let table: FakeArray<typeof zeroConfig>;

beforeEach(() => {
  clock = new FakeClock();
  table = new FakeArray(1, zeroConfig);
  config = new ConfigMap(table, clock.now);
});

describe('configuration map', () => {
  test('a first start makes a magic; later ones keep it', () => {
    const first = config.get();
    expect(first.layoutVersion).toBe(LAYOUT_VERSION);
    expect(first.stateSince).toBe(clock.time);
    expect(first.magic.every((word) => word !== 0)).toBe(true);
    clock.seconds(9);
    expect(new ConfigMap(table, clock.now).get()).toEqual(first);
  });

  test('flags are set and cleared one by one, and nothing is written without a change', () => {
    config.setFlags(ACTIVE_FLAGS);
    config.setFlags(4, 1);
    expect(config.get().flags).toBe(6);
    expect([config.has(2), config.has(ACTIVE_FLAGS)]).toEqual([true, false]);
    const writes = table.writes.length;
    config.setFlags(4);
    config.update({ hz: 0 });
    expect(table.writes.length).toBe(writes);
  });
});

describe('drain', () => {
  test('stops sending at once, and is over when peers no longer interpret', () => {
    const notes = fakeNotes();
    config.setFlags(ACTIVE_FLAGS);
    const drain = new Drain(config, notes, clock.now);
    expect([drain.state, drain.remainingMs]).toEqual(['off', 0]);
    drain.start();
    expect(config.get().flags).toBe(0);
    expect(DRAINED_NS).toBeGreaterThan(INTERPRET_NS);
    clock.seconds(30);
    expect(drain.state).toBe('draining');
    // Another process, e.g. cleanup, sees the same.
    const later = new Drain(config, notes, clock.now);
    expect(later.remainingMs).toBe(2000);
    later.start();
    clock.seconds(2.1);
    expect([drain.state, later.state]).toEqual(['drained', 'drained']);
    drain.stop();
    expect(new Drain(config, notes, clock.now).active).toBe(false);
  });

  test('a note that cannot be read waits longer, not shorter', () => {
    const notes = fakeNotes();
    notes.set('draining', 'x');
    expect(new Drain(config, notes, clock.now).state).toBe('draining');
  });
});

describe('finding the uplink', () => {
  const links = [link('lo', 1), link('eth0', 2), link('eth1', 3)];
  const on = (ifindex: number, address: string): LinkAddress => ({
    ifindex,
    address,
    family: 4,
    prefixLength: 24,
    scope: 0,
  });

  test('by the address, or by name and address', () => {
    const found = { device: 'eth0', ifindex: 2, address: '10.0.0.1', prefixLength: 24, mtu: 1500 };
    const search = { family: 4, found };
    expect(findUplink(4, '10.0.0.1', [], links, [on(2, '10.0.0.1'), on(3, '10.0.0.2')])).toEqual(search);
    expect(findUplink(4, '10.0.0.1', ['eth0'], links, [on(2, '10.0.0.1'), on(3, '10.0.0.1')])).toEqual(search);
    expect(findUplink(6, 'fd00::1', ['eth0', 'eth1'], links, [on(3, 'fd00::1')])).toMatchObject({
      found: { device: 'eth1' },
    });
  });

  test.each([
    ['no device has it', [], [], 'no device has'],
    ['the device does not have it', ['eth1'], [on(2, '10.0.0.1')], 'eth1 does not have'],
    ['there is no such device', ['eth9'], [on(2, '10.0.0.1')], 'eth9 does not exist'],
    ['none of them has it', ['eth1', 'eth9'], [on(2, '10.0.0.1')], 'none of the uplinks eth1, eth9 has'],
    ['two have it', [], [on(2, '10.0.0.1'), on(3, '10.0.0.1')], "eth0 and eth1 both have the node's transport address"],
  ])('says what is wrong: %s', (_what, devices, addresses, problem) => {
    const result = findUplink(4, '10.0.0.1', devices, links, addresses);
    expect(result.found).toBeUndefined();
    expect('problem' in result && result.problem).toContain(problem);
  });
});

describe('uplink', () => {
  const at = (device: string, ifindex: number, address: string): UplinkSearch => ({
    family: address.includes(':') ? 6 : 4,
    found: { device, ifindex, address, prefixLength: 24, mtu: 1500 },
  });
  const eth0 = [at('eth0', 2, '10.0.0.1')];
  const eth1 = [at('eth1', 3, '10.0.0.1')];
  const lost: UplinkSearch[] = [{ family: 4, problem: 'gone', action: 'x' }];
  let attacher: FakeAttacher;
  let degradations: Degradations;
  let draining: boolean;
  let moves: number;

  function make(): Uplink {
    return new Uplink({
      config,
      attacher,
      programs: { uplink_ingress: program('uplink_ingress'), uplink_egress: program('uplink_egress') },
      reload: (name) => ({ name, fd: 4, id: 200 }),
      degradations,
      log: quiet,
      now: clock.now,
      startHold: 10,
      draining: () => draining,
      moved: () => moves++,
    });
  }

  beforeEach(() => {
    attacher = new FakeAttacher();
    degradations = new Degradations(quiet);
    draining = false;
    moves = 0;
  });

  test('ingress first, then egress, then a hold, then the node takes part', () => {
    const uplink = make();
    uplink.update(eth0);
    expect(attacher.journal).toEqual(['attach uplink_ingress-2', 'attach uplink_egress-2']);
    expect(config.get()).toMatchObject({ uplinkIfindex4: 2, uplinkAddr4: '10.0.0.1' });
    clock.seconds(9.9);
    uplink.tick();
    expect([config.has(ACTIVE_FLAGS), uplink.holding]).toEqual([false, true]);
    clock.seconds(0.2);
    uplink.tick();
    expect([config.has(ACTIVE_FLAGS), uplink.holding]).toEqual([true, false]);
  });

  test('looking again does not prolong the hold', () => {
    const uplink = make();
    uplink.update(eth0);
    for (let second = 0; second <= 10; second++) {
      clock.seconds(1);
      uplink.update(eth0);
      uplink.tick();
    }
    expect(config.has(ACTIVE_FLAGS)).toBe(true);
  });

  test('a new start with everything in place goes on without a hold', () => {
    make().update(eth0);
    config.setFlags(ACTIVE_FLAGS);
    const uplink = make();
    uplink.update(eth0);
    expect([config.has(ACTIVE_FLAGS), uplink.holding]).toEqual([true, false]);
  });

  test('a new start that finds a hook missing does not', () => {
    make().update(eth0);
    config.setFlags(ACTIVE_FLAGS);
    attacher.attached.delete('uplink_egress-2');
    const uplink = make();
    uplink.update(eth0);
    expect([config.has(ACTIVE_FLAGS), uplink.holding]).toEqual([false, true]);
  });

  test('another uplink: the old one is left, and the hold begins anew', () => {
    const uplink = make();
    uplink.update(eth0);
    config.setFlags(ACTIVE_FLAGS);
    uplink.update(eth1);
    expect([...attacher.attached.keys()]).toEqual(['uplink_ingress-3', 'uplink_egress-3']);
    expect(config.get()).toMatchObject({ uplinkIfindex4: 3, flags: 0 });
  });

  test('another address: told before the programs know it, and the hold begins anew; the first one and another device are none', () => {
    const uplink = make();
    uplink.update(eth0);
    uplink.update([...eth0, at('eth0', 2, 'fd00::1')]);
    uplink.update([...eth1, at('eth1', 3, 'fd00::1')]);
    clock.seconds(10);
    uplink.tick();
    expect([moves, config.has(ACTIVE_FLAGS)]).toEqual([0, true]);
    uplink.update(lost);
    uplink.update([at('eth1', 3, '10.0.0.1'), at('eth1', 3, 'fd00::2')]);
    expect([moves, config.has(ACTIVE_FLAGS)]).toEqual([1, false]);
    expect(config.get()).toMatchObject({ uplinkAddr4: '10.0.0.1', uplinkAddr6: 'fd00::2' });
  });

  test('an address that comes back as another one, after a while without: so it is told, too', () => {
    const uplink = make();
    const gone: UplinkSearch = { family: 6, problem: 'no device has fd00::1', action: 'x' };
    uplink.update([...eth0, at('eth0', 2, 'fd00::1')]);
    clock.seconds(10);
    uplink.tick();
    uplink.update([...eth0, gone]);
    uplink.update([...eth0, at('eth0', 2, 'fd00::1')]);
    expect([moves, config.has(ACTIVE_FLAGS)]).toEqual([0, true]);
    uplink.update([...eth0, gone]);
    uplink.update([...eth0, at('eth0', 2, 'fd00::2')]);
    expect([moves, config.has(ACTIVE_FLAGS)]).toEqual([1, false]);
  });

  test('each family may have a device of its own; both have the programs', () => {
    const uplink = make();
    const both = [...eth0, at('eth1', 3, 'fd00::1')];
    uplink.update(both);
    expect(attacher.journal).toEqual([
      'attach uplink_ingress-2',
      'attach uplink_ingress-3',
      'attach uplink_egress-2',
      'attach uplink_egress-3',
    ]);
    expect(config.get()).toMatchObject({
      ...{ uplinkIfindex4: 2, uplinkAddr4: '10.0.0.1' },
      ...{ uplinkIfindex6: 3, uplinkAddr6: 'fd00::1' },
    });
    expect(uplink.devices.map(({ device }) => device)).toEqual(['eth0', 'eth1']);
    config.setFlags(ACTIVE_FLAGS);
    // Of one that goes, the other one does not suffer; its programs leave the device.
    uplink.update([...eth0, { family: 6, problem: 'no device has fd00::1', action: 'x' }]);
    expect(config.get()).toMatchObject({ uplinkIfindex6: 0, uplinkAddr6: '' });
    expect(config.has(ACTIVE_FLAGS)).toBe(true);
    expect([...attacher.attached.keys()]).toEqual(['uplink_ingress-2', 'uplink_egress-2']);
    expect(degradations.list()).toMatchObject([{ what: 'no device has fd00::1' }]);
    // One that comes, on a device without programs, makes all wait.
    uplink.update(both);
    expect([config.has(ACTIVE_FLAGS), degradations.size]).toEqual([false, 0]);
  });

  test('a further address of a device that has the programs makes nobody wait', () => {
    const uplink = make();
    uplink.update(eth0);
    config.setFlags(ACTIVE_FLAGS);
    uplink.update([...eth0, at('eth0', 2, 'fd00::1')]);
    expect(config.get()).toMatchObject({ uplinkIfindex6: 2, uplinkAddr6: 'fd00::1' });
    expect(config.has(ACTIVE_FLAGS)).toBe(true);
    uplink.update([...eth0, at('eth0', 2, 'fd00::2')]);
    expect(config.has(ACTIVE_FLAGS)).toBe(false);
  });

  test('a program that is displaced on one device is moved there', () => {
    const uplink = make();
    uplink.update([...eth0, at('eth1', 3, 'fd00::1')]);
    attacher.displaced.add('uplink_egress');
    uplink.tick();
    expect(attacher.journal.filter((line) => line.startsWith('move'))).toEqual(['move uplink_egress-2']);
    expect(degradations.size).toBe(1);
    uplink.tick();
    expect(degradations.size).toBe(0);
  });

  test('without an uplink the node does not take part', () => {
    const uplink = make();
    uplink.update(eth0);
    config.setFlags(ACTIVE_FLAGS);
    uplink.update(lost);
    expect(config.has(ACTIVE_FLAGS)).toBe(false);
    expect(degradations.list()).toMatchObject([{ what: 'gone' }]);
    uplink.update(eth0);
    expect([degradations.size, uplink.holding]).toEqual([0, true]);
  });

  test('a failure to attach is told and ends the part', () => {
    config.setFlags(ACTIVE_FLAGS);
    attacher.onAttach = () => {
      throw new Error('EPERM');
    };
    make().update(eth0);
    expect(degradations.list()[0]?.what).toBe('the programs cannot be attached to the uplink: EPERM');
  });

  test('a drained node stays out after the hold and after a restart', () => {
    draining = true;
    const uplink = make();
    uplink.update(eth0);
    clock.seconds(11);
    uplink.tick();
    expect(config.has(ACTIVE_FLAGS)).toBe(false);
    draining = false;
    uplink.resume();
    expect(config.has(ACTIVE_FLAGS)).toBe(true);
  });

  test.each(['uplink_ingress', 'uplink_egress'] as const)('%s is put first again, ever less eagerly', (name) => {
    const uplink = make();
    uplink.update(eth0);
    let moves = 0;
    for (let second = 0; second < 300; second++) {
      attacher.displaced.add(name);
      uplink.tick();
      moves = attacher.journal.filter((line) => line.startsWith(`move ${name}`)).length;
      if (second === 0) expect(moves).toBe(1);
    }
    expect(moves).toBeGreaterThan(5);
    expect(moves).toBeLessThan(15);
    expect(degradations.list()[0]?.what).toContain(`another program runs before ${name}: `);
    attacher.displaced.clear();
    uplink.tick();
    expect(degradations.size).toBe(0);
    expect(uplink.displaced).toBe(moves);
  });

  test.each(['uplink_ingress', 'uplink_egress'])('a detached %s comes back, with a hold', (name) => {
    const uplink = make();
    uplink.update(eth0);
    clock.seconds(11);
    uplink.tick();
    attacher.attached.delete(`${name}-2`);
    uplink.tick();
    expect(attacher.attached.has(`${name}-2`)).toBe(true);
    expect([config.has(ACTIVE_FLAGS), uplink.holding]).toEqual([false, true]);
  });
});

describe('XDP', () => {
  const links = [link('eth0', 2), { ...link('eth0.7', 5), vlanId: 7, linkIfindex: 2 }];

  test('belongs below a VLAN', () => {
    expect(xdpPlace(2, links)).toEqual({ ifindex: 2, vlan: 0 });
    expect(xdpPlace(5, links)).toEqual({ ifindex: 2, vlan: 7 });
  });

  test('what does not work is told, and over when nothing is wanted', () => {
    const degradations = new Degradations(quiet);
    const pins = { list: () => [], link: () => '/nonexistent/link' } as unknown as PinLayout;
    const xdp = new UplinkXdp({
      program: { name: 'uplink_xdp', fd: -1, id: 1 },
      pins,
      config,
      degradations,
      log: quiet,
    });
    xdp.update([xdpPlace(2, links), xdpPlace(3, links)]);
    expect(degradations.list()).toMatchObject([{ what: 'uplink_xdp serves one uplink, and this node has two' }]);
    // One device with both addresses is one place.
    xdp.update([xdpPlace(5, links), xdpPlace(5, links)]);
    expect(degradations.list()[0]?.what).toMatch(/^uplink_xdp cannot be attached: /);
    expect(config.get().xdpVlan).toBe(7);
    xdp.update([]);
    expect(degradations.size).toBe(0);
  });
});

describe('ids', () => {
  test('the one that is free for longest comes first', () => {
    const pool = new IdPool(3);
    expect([pool.take(), pool.take()]).toEqual([1, 2]);
    pool.release(1);
    pool.release(1);
    expect([pool.take(), pool.take(), pool.take()]).toEqual([3, 1, undefined]);
    expect(pool.used).toBe(3);
    pool.release(2);
    expect(pool.take()).toBe(2);
  });

  test('after a restart, the least used first', () => {
    const pool = new IdPool(4, [2], (id) => (id === 1 ? 7 : 0));
    expect([pool.take(), pool.take(), pool.take()]).toEqual([3, 4, 1]);
  });
});

describe('probes', () => {
  test.each([
    [55, 220, 250],
    [56, 220, 250],
    [66, 220, 300],
    [22, 220, 100],
    [23, 220, 100],
    [219, 220, 1000],
  ])('%d jiffies in %d ms are HZ %d', (jiffies, ms, hz) => expect(snapHz(jiffies, ms)).toBe(hz));

  test('nonsense is refused', () => {
    for (const jiffies of [0, 10, 35, 120, 500]) expect(() => snapHz(jiffies, 220)).toThrow(RangeError);
  });

  test('a reading counts whose time is known, not one that the process was stopped at', () => {
    const times = [0n, 45_000_000n, 50_000_000n, 50_000_200n];
    const values = [7, 18];
    expect(
      readTimed(
        () => values.shift() ?? NaN,
        () => times.shift() ?? 0n,
      ),
    ).toEqual({ value: 18, at: 50_000_100n, within: 200n });
  });

  test('of readings that all take long the quickest counts', () => {
    let [clock, reads] = [0n, 0];
    const reading = readTimed(
      () => reads++,
      () => (clock += reads === 5 ? 2_000_000n : 9_000_000n),
    );
    expect(reading).toMatchObject({ within: 2_000_000n });
    expect(reads).toBe(10);
  });

  test('HZ is not told from readings whose times are not known', () => {
    const first = { value: 0x7ffffff0, at: 5_000_000n, within: 1_000_000n };
    // 55 jiffies on, over the end of what is read.
    const second = { value: 0x27, at: 225_000_000n, within: 1_000_000n };
    expect(hzBetween(first, second)).toBe(250);
    expect(() => hzBetween(first, { ...second, within: 11_000_000n })).toThrow(RangeError);
  });

  test('missing capabilities are named', () => {
    const status = (bits: bigint): string => `Name:\tx\nCapEff:\t${bits.toString(16).padStart(16, '0')}\n`;
    expect(missingCapabilities(status(0n))).toEqual(['CAP_BPF', 'CAP_NET_ADMIN', 'CAP_PERFMON']);
    expect(missingCapabilities(status((1n << 39n) | (1n << 12n) | (1n << 38n)))).toEqual([]);
    expect(missingCapabilities(status((1n << 21n) | (1n << 12n)))).toEqual([]);
    expect(missingCapabilities(status(1n << 21n))).toEqual(['CAP_NET_ADMIN']);
  });
});

describe('degradations', () => {
  test('the list is bounded', () => {
    const degradations = new Degradations(quiet);
    for (let i = 0; i < 300; i++) degradations.set(`k${i}`, { what: `w${i}`, where: 'x', action: 'y' });
    expect(degradations.list().length).toBe(100);
    expect(degradations.list().at(-1)?.what).toBe('201 more problems');
    for (let i = 0; i < 300; i++) degradations.clear(`k${i}`);
    expect(degradations.list()).toEqual([]);
  });
});

describe('throttle', () => {
  test('lets one of a key through per interval', () => {
    const throttle = new Throttle(clock.now, 10);
    expect([throttle.allows('a'), throttle.allows('a'), throttle.allows('b')]).toEqual([true, false, true]);
    clock.seconds(10);
    expect(throttle.allows('a')).toBe(true);
  });
});

describe('events', () => {
  test('they reach who has to act, and the log is bounded', () => {
    const calls: string[] = [];
    let lines = 0;
    const log = { ...quiet, warn: () => lines++, debug: () => lines++ };
    const events = new Events(
      {
        wantApproval: () => calls.push('want'),
        reset: () => calls.push('reset'),
        peerName: (id) => `n${id}`,
      },
      log,
      clock.now,
    );
    const event = (type: number): Event => ({ time: 0n, type, reason: 0, flow: key, peer: 0 });
    events.handle(event(EventType.WANT_APPROVAL));
    events.handle(event(EventType.RESET));
    expect(calls).toEqual(['want', 'reset']);
    for (let i = 0; i < 100; i++) events.handle(event(EventType.BLACK_HOLE));
    expect(lines).toBe(7);
    clock.seconds(1);
    events.handle(event(EventType.BLACK_HOLE));
    expect(lines).toBe(8);
    expect(events.counts.get('black_hole')).toBe(101);
  });

  test('a way to a peer that changes is told with the name of the peer, as a warning if it is for the worse', () => {
    const lines: unknown[] = [];
    const line =
      (level: string) =>
      (fields: object, message: string): void =>
        void lines.push([level, message, fields]);
    const log = { ...quiet, info: line('info'), warn: line('warn') };
    const sink = { wantApproval: () => undefined, reset: () => undefined, peerName: (id: number) => `n${id}` };
    const events = new Events(sink, log, clock.now);
    const flow6 = { ...key, saddr: 'fd00::2', daddr: 'fd00:1::2', proto: 6 };
    const changed = { time: 0n, type: EventType.PATH_CHANGED, flow: flow6, peer: 2 };
    events.handle({ ...changed, reason: Reason.BLACK_HOLE });
    events.handle({ ...changed, reason: Reason.NONE });
    expect(lines).toEqual([
      [
        'warn',
        'packets to the peer are not masqueraded any more',
        expect.objectContaining({ peer: 'n2', reason: 'black_hole', flow: '6 [fd00::2]:1000 > [fd00:1::2]:2000' }),
      ],
      ['info', 'packets to the peer are masqueraded', expect.objectContaining({ peer: 'n2', reason: 'none' })],
    ]);
  });
});
