/** The netlink modules against the kernel: two namespaces joined by a veth, conntrack in zone 65520 in the first. */
import { execFileSync, spawn } from 'node:child_process';
import type { ChildProcessWithoutNullStreams } from 'node:child_process';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { isDeepStrictEqual } from 'node:util';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { CtSctpState, CtStatus, CtTcpState, reverseTuple } from '../../src/netlink/ctnetlink.ts';
import type { CtEntry, CtTuple } from '../../src/netlink/ctnetlink.ts';
import type { Link, LinkAddress, TcFilter } from '../../src/netlink/rtnetlink.ts';
import type { ProbeCommand } from './netlink-probe.ts';

const ZONE = 65520;
const near = `xn-a-${process.pid}`;
const far = `xn-b-${process.pid}`;
const NEAR_IP = '10.77.0.1';
const FAR_IP = '10.77.0.2';
const probePath = fileURLToPath(new URL('netlink-probe.ts', import.meta.url));

function run(command: string, ...args: string[]): string {
  return execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], timeout: 10_000 });
}

function inside(namespace: string, command: string, ...args: string[]): string {
  return run('nsenter', `--net=/run/netns/${namespace}`, command, ...args);
}

/** A process in a namespace that carries out commands one after the other. */
class Probe {
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #answers: AsyncIterator<string>;
  readonly exited: Promise<number | null>;

  constructor(namespace: string) {
    this.#child = spawn('nsenter', [`--net=/run/netns/${namespace}`, process.execPath, probePath]);
    this.#answers = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]();
    this.#child.stderr.pipe(process.stderr);
    this.exited = new Promise((resolve) => this.#child.once('exit', resolve));
  }

  async ask<T>(command: ProbeCommand): Promise<T> {
    this.#child.stdin.write(`${JSON.stringify(command)}\n`);
    const line = await this.#answers.next();
    if (line.done === true) throw new Error(`the probe ended at ${command.op}`);
    const answer = JSON.parse(line.value) as { value: T; error?: string };
    if (answer.error !== undefined) throw new Error(answer.error);
    return answer.value;
  }

  /** Ends its input; it should exit by itself. */
  end(): void {
    this.#child.stdin.end();
  }

  kill(): void {
    this.#child.kill('SIGKILL');
  }
}

function tuple(proto: number, sport: number, dport: number): CtTuple {
  return { family: 4, src: NEAR_IP, dst: FAR_IP, proto, sport, dport };
}

function reverse(of: CtTuple): CtTuple {
  const reversed = reverseTuple(of);
  if (reversed === undefined) throw new Error('the tuple has no reverse');
  return reversed;
}

const RULES = `
table inet xn {
  chain pre { type filter hook prerouting priority raw; ct zone set ${ZONE}; }
  chain out {
    type filter hook output priority raw;
    udp dport 9 ct original zone set 9 accept
    ct zone set ${ZONE};
  }
  chain post { type filter hook postrouting priority 0; udp dport 5001 ct mark set 0x3; tcp dport 5002 ct mark set 0x23; }
}`;

let probe: Probe;
const probes: Probe[] = [];
const namespaces: string[] = [];

/** Events of the probe's watches, gathered until they satisfy the predicate, for five seconds at most. */
async function eventsUntil<T>(enough: (seen: T[]) => boolean): Promise<T[]> {
  const seen: T[] = [];
  for (const deadline = Date.now() + 5_000; Date.now() < deadline && !enough(seen);) {
    await sleep(50);
    seen.push(...(await probe.ask<T[]>({ op: 'events' })));
  }
  return seen;
}

beforeAll(async () => {
  for (const namespace of [near, far]) {
    run('ip', 'netns', 'add', namespace);
    namespaces.push(namespace);
  }
  run('ip', 'link', 'add', 'xnv0', 'netns', near, 'type', 'veth', 'peer', 'name', 'xnv1', 'netns', far);
  for (const [namespace, device, address] of [
    [near, 'xnv0', NEAR_IP],
    [far, 'xnv1', FAR_IP],
  ] as const) {
    inside(namespace, 'ip', 'address', 'add', `${address}/24`, 'dev', device);
    inside(namespace, 'ip', 'link', 'set', device, 'up');
    inside(namespace, 'ip', 'link', 'set', 'lo', 'up');
  }
  inside(near, 'nft', RULES);
  probe = new Probe(near);
  const server = new Probe(far);
  probes.push(probe, server);
  await server.ask({ op: 'udpEcho', port: 5001 });
  await server.ask({ op: 'tcpServe', port: 5002 });
}, 30_000);

afterAll(async () => {
  for (const each of probes) each.kill();
  await Promise.all(probes.map(({ exited }) => exited));
  for (const namespace of namespaces) run('ip', 'netns', 'delete', namespace);
}, 30_000);

afterEach(async () => {
  await probe.ask({ op: 'unwatch' });
  await probe.ask({ op: 'events' });
});

describe('conntrack', () => {
  const udp = tuple(17, 4001, 5001);
  const tcp = tuple(6, 4002, 5002);

  test('finds UDP by either tuple under either attribute, and in its zone only', async () => {
    expect(await probe.ask({ op: 'udpSend', from: 4001, to: FAR_IP, port: 5001, times: 3 })).toBe(3);
    const entry = await probe.ask<CtEntry>({ op: 'get', tuple: udp, zone: ZONE });
    expect(entry).toMatchObject({ origin: udp, reply: reverse(udp), protocol: 17, zone: ZONE, mark: 3 });
    expect(entry.status & (CtStatus.confirmed | CtStatus.seenReply)).toBe(CtStatus.confirmed | CtStatus.seenReply);
    expect(entry.timeoutSeconds).toBeGreaterThan(20);
    for (const direction of ['orig', 'reply'] as const) {
      for (const asked of [udp, reverse(udp)]) {
        const found = await probe.ask<CtEntry | null>({ op: 'get', tuple: asked, zone: ZONE, direction });
        expect(found).toMatchObject({ id: entry.id, origin: udp });
      }
    }
    expect(await probe.ask({ op: 'get', tuple: udp, zone: 0 })).toBeNull();
    expect(await probe.ask({ op: 'get', tuple: tuple(17, 4001, 5003), zone: ZONE })).toBeNull();
  });

  test('reads TCP through its states as conntrack(8) does', async () => {
    await probe.ask({ op: 'tcpConnect', from: 4002, to: FAR_IP, port: 5002 });
    const entry = await probe.ask<CtEntry>({ op: 'get', tuple: tcp, zone: ZONE });
    expect(entry).toMatchObject({ origin: tcp, tcpState: CtTcpState.established, mark: 0x23 });
    expect(entry.status & CtStatus.assured).not.toBe(0);
    const listed = inside(near, 'conntrack', '-L', '-p', 'tcp', '--zone', `${ZONE}`);
    expect(listed).toMatch(/^tcp +6 \d+ ESTABLISHED src=10\.77\.0\.1 .* \[ASSURED\] mark=35 zone=65520/m);
    await probe.ask({ op: 'tcpClose' });
    let closed = entry;
    for (let round = 0; round < 100 && closed.tcpState !== CtTcpState.timeWait; round++) {
      await sleep(20);
      closed = await probe.ask<CtEntry>({ op: 'get', tuple: tcp, zone: ZONE });
    }
    expect(closed.tcpState).toBe(CtTcpState.timeWait);
  });

  test('finds ICMP echo by request and by reply, and says that errors are not tracked', async () => {
    inside(near, 'ping', '-c', '1', '-W', '1', '-e', '77', FAR_IP);
    const echo: CtTuple = {
      family: 4,
      src: NEAR_IP,
      dst: FAR_IP,
      proto: 1,
      icmpType: 8,
      icmpCode: 0,
      icmpId: 77,
    };
    const entry = await probe.ask<CtEntry>({ op: 'get', tuple: echo, zone: ZONE });
    expect(entry).toMatchObject({ origin: echo, reply: reverse(echo), protocol: 1 });
    expect(await probe.ask({ op: 'get', tuple: reverse(echo), zone: ZONE })).toMatchObject({ id: entry.id });
    await expect(probe.ask({ op: 'get', tuple: { ...echo, icmpType: 3 }, zone: ZONE })).rejects.toThrow('EINVAL');
  });

  test('finds ICMPv6 echo', async () => {
    inside(near, 'ping', '-c', '1', '-W', '1', '::1');
    const entries = await probe.ask<CtEntry[]>({ op: 'dump', filter: { zone: ZONE, family: 6 } });
    const echo = entries.find(({ protocol }) => protocol === 58);
    if (echo === undefined) throw new Error('no ICMPv6 entry');
    expect(await probe.ask({ op: 'get', tuple: echo.origin, zone: ZONE })).toMatchObject({ id: echo.id, protocol: 58 });
    expect(await probe.ask({ op: 'delete', tuple: echo.origin, zone: ZONE })).toBe(true);
  });

  test('finds SCTP, GRE and a protocol that conntrack does not know', async () => {
    const common = ['-I', '-s', NEAR_IP, '-d', FAR_IP, '-t', '60', '-w', `${ZONE}`];
    const sctp = ['--sport', '7', '--dport', '8', '--orig-vtag', '1', '--reply-vtag', '2', '--state', 'ESTABLISHED'];
    inside(near, 'conntrack', ...common, '-p', 'sctp', ...sctp);
    inside(near, 'conntrack', ...common, '-p', 'gre', '--srckey', '5', '--dstkey', '6');
    inside(near, 'conntrack', ...common, '-p', '253');
    for (const [asked, state] of [
      [tuple(132, 7, 8), { sctpState: CtSctpState.established }],
      [tuple(47, 5, 6), {}],
      [tuple(253, 0, 0), {}],
    ] as const) {
      const entry = await probe.ask<CtEntry>({ op: 'get', tuple: asked, zone: ZONE });
      expect(entry).toMatchObject({ origin: asked, protocol: asked.proto, ...state });
      expect(await probe.ask({ op: 'get', tuple: reverse(asked), zone: ZONE })).toMatchObject({ id: entry.id });
      expect(await probe.ask({ op: 'delete', tuple: reverse(asked), zone: ZONE })).toBe(true);
    }
  });

  test('does not take an entry that has the zone in one direction only', async () => {
    await probe.ask({ op: 'udpSend', from: 4009, to: FAR_IP, port: 9, times: 1 });
    expect(inside(near, 'conntrack', '-L', '-p', 'udp')).toMatch(/dport=9 .*zone-orig=9/);
    expect(await probe.ask({ op: 'get', tuple: tuple(17, 4009, 9), zone: 9 })).toBeNull();
    expect(await probe.ask({ op: 'dump', filter: { zone: 9 } })).toEqual([]);
  });

  test('dumps by zone and mark', async () => {
    inside(near, 'conntrack', '-I', '-p', '253', '-s', '10.1.0.1', '-d', '10.1.0.2', '-t', '60', '-w', '5', '-m', '3');
    await probe.ask({ op: 'udpSend', from: 4001, to: FAR_IP, port: 5001, times: 1 });
    const protocols = async (filter: Extract<ProbeCommand, { op: 'dump' }>['filter']): Promise<number[]> => {
      const entries = await probe.ask<CtEntry[]>({ op: 'dump', filter });
      return [...new Set(entries.map(({ protocol }) => protocol))].sort((a, b) => a - b);
    };
    expect(await protocols({ zone: 5 })).toEqual([253]);
    expect(await protocols({ mark: 3 })).toEqual([17, 253]);
    expect(await protocols({ zone: ZONE, mark: 3 })).toEqual([17]);
    expect(await protocols({ zone: ZONE, mark: 3, markMask: 0xf })).toEqual([6, 17]);
    expect(await protocols({ zone: 6 })).toEqual([]);
    const all = await probe.ask<CtEntry[]>({ op: 'dump', filter: { zone: ZONE } });
    const listed = inside(near, 'conntrack', '-L', '--zone', `${ZONE}`).trim().split('\n');
    expect(all.filter(({ origin }) => origin.family === 4)).toHaveLength(listed.length);
  });

  test('sets timeouts by either tuple; makes and touches nothing else', async () => {
    await probe.ask({ op: 'udpSend', from: 4001, to: FAR_IP, port: 5001, times: 1 });
    for (const [asked, seconds] of [
      [udp, 5_000],
      [reverse(udp), 3],
    ] as const) {
      expect(await probe.ask({ op: 'setTimeout', tuple: asked, zone: ZONE, seconds })).toBe(true);
      const entry = await probe.ask<CtEntry>({ op: 'get', tuple: udp, zone: ZONE });
      expect(seconds - (entry.timeoutSeconds ?? 0)).toBeLessThanOrEqual(1);
      expect(entry.mark).toBe(3);
    }
    const before = inside(near, 'conntrack', '-C');
    expect(await probe.ask({ op: 'setTimeout', tuple: udp, zone: 77, seconds: 10 })).toBe(false);
    expect(inside(near, 'conntrack', '-C')).toBe(before);
    await expect(probe.ask({ op: 'setTimeout', tuple: udp, zone: ZONE, seconds: 0 })).rejects.toThrow('RangeError');
    await sleep(3_200);
    expect(await probe.ask({ op: 'get', tuple: udp, zone: ZONE })).toBeNull();
  });

  test('deletes one entry, and tells whether there was one', async () => {
    await probe.ask({ op: 'udpSend', from: 4001, to: FAR_IP, port: 5001, times: 1 });
    const entry = await probe.ask<CtEntry>({ op: 'get', tuple: udp, zone: ZONE });
    const others = (await probe.ask<CtEntry[]>({ op: 'dump', filter: {} })).length - 1;
    const wrongId = (entry.id ^ 1) >>> 0;
    expect(await probe.ask({ op: 'delete', tuple: udp, zone: 77 })).toBe(false);
    expect(await probe.ask({ op: 'delete', tuple: udp, zone: ZONE, id: wrongId })).toBe(false);
    expect(await probe.ask({ op: 'delete', tuple: udp, zone: ZONE, id: entry.id })).toBe(true);
    expect(await probe.ask({ op: 'delete', tuple: udp, zone: ZONE })).toBe(false);
    expect(await probe.ask({ op: 'dump', filter: {} })).toHaveLength(others);
  });

  test('tells of the end of entries of the watched zone, by deletion and by timeout', async () => {
    await probe.ask({ op: 'watchDestroy', zones: [ZONE] });
    inside(near, 'conntrack', '-I', '-p', '253', '-s', '10.1.0.3', '-d', '10.1.0.4', '-t', '60', '-w', '6');
    await probe.ask({ op: 'udpSend', from: 4003, to: FAR_IP, port: 5001, times: 1 });
    await probe.ask({ op: 'udpSend', from: 4004, to: FAR_IP, port: 5001, times: 1 });
    await probe.ask({ op: 'setTimeout', tuple: tuple(17, 4004, 5001), zone: ZONE, seconds: 1 });
    inside(near, 'conntrack', '-D', '--zone', '6');
    inside(near, 'conntrack', '-D', '-p', 'udp', '--orig-port-src', '4003');
    await sleep(1_200);
    // The lookup of an expired entry makes the kernel remove it now rather than at its next sweep.
    expect(await probe.ask({ op: 'get', tuple: tuple(17, 4004, 5001), zone: ZONE })).toBeNull();
    const seen = await eventsUntil<CtEntry>(({ length }) => length >= 2);
    expect(seen.map(({ origin, zone, mark }) => ({ origin, zone, mark }))).toEqual([
      { origin: tuple(17, 4003, 5001), zone: ZONE, mark: 3 },
      { origin: tuple(17, 4004, 5001), zone: ZONE, mark: 3 },
    ]);
  });

  test('may be silent about entries older than the first listener where nf_conntrack_events is 2', async () => {
    const { events } = await probe.ask<{ events: string }>({ op: 'sysctl' });
    if (events !== 'listened') return;
    await probe.ask({ op: 'udpSend', from: 4005, to: FAR_IP, port: 5001, times: 1 });
    await probe.ask({ op: 'watchDestroy', zones: [ZONE] });
    await probe.ask({ op: 'udpSend', from: 4006, to: FAR_IP, port: 5001, times: 1 });
    for (const from of [4005, 4006]) await probe.ask({ op: 'delete', tuple: tuple(17, from, 5001), zone: ZONE });
    const seen = await eventsUntil<CtEntry>((all) =>
      all.some(({ origin }) => 'sport' in origin && origin.sport === 4006),
    );
    // The kernel notices late that the last listener is gone: the older entry may still be told of.
    expect(seen.map(({ origin }) => origin)).toContainEqual(tuple(17, 4006, 5001));
  });

  test('goes on in the next turn when a turn has read its share', async () => {
    await probe.ask({ op: 'watchDestroy', zones: [ZONE], readsPerTurn: 1 });
    await probe.ask({ op: 'udpSend', from: 4007, to: FAR_IP, port: 6000, times: 1, targets: 100 });
    expect(await probe.ask({ op: 'deleteAll', zone: ZONE })).toBeGreaterThanOrEqual(100);
    const began = Date.now();
    const seen = await eventsUntil<unknown>(({ length }) => length >= 100);
    expect(seen.length).toBeGreaterThanOrEqual(100);
    // On the timer alone it would take 100 turns of 50 ms.
    expect(Date.now() - began).toBeLessThan(3_000);
    expect(seen).not.toContain('overrun');
  });

  test('survives lost events, says so, and hears the next one', async () => {
    await probe.ask({ op: 'watchDestroy', zones: [ZONE], receiveBufferBytes: 4096 });
    await probe.ask({ op: 'udpSend', from: 4007, to: FAR_IP, port: 6000, times: 1, targets: 300 });
    expect(await probe.ask({ op: 'deleteAll', zone: ZONE })).toBeGreaterThanOrEqual(300);
    const seen = await eventsUntil<unknown>((all) => all.includes('overrun'));
    expect(seen).toContain('overrun');
    expect(seen.length).toBeLessThan(300);
    await probe.ask({ op: 'udpSend', from: 4008, to: FAR_IP, port: 5001, times: 1 });
    await probe.ask({ op: 'delete', tuple: tuple(17, 4008, 5001), zone: ZONE });
    expect(await eventsUntil(({ length }) => length >= 1)).toMatchObject([{ origin: tuple(17, 4008, 5001) }]);
  });

  test('a dump of many entries is whole, one left early leaks nothing', async () => {
    await probe.ask({ op: 'udpSend', from: 4010, to: FAR_IP, port: 10_000, times: 1, targets: 2_000 });
    const descriptors = await probe.ask<number>({ op: 'descriptors' });
    const entries = await probe.ask<CtEntry[]>({ op: 'dump', filter: { zone: ZONE } });
    const ports = new Set(entries.map(({ origin }) => ('dport' in origin ? origin.dport : 0)));
    expect(Array.from({ length: 2_000 }, (_, index) => 10_000 + index).filter((port) => !ports.has(port))).toEqual([]);
    for (let round = 0; round < 20; round++) {
      expect(await probe.ask({ op: 'dumpFirst', filter: { zone: ZONE } })).toMatchObject({ zone: ZONE });
    }
    expect(await probe.ask({ op: 'descriptors' })).toBe(descriptors);
    await probe.ask({ op: 'deleteAll', zone: ZONE });
  });

  test('reads the timeouts of its namespace', async () => {
    inside(near, 'sysctl', '-q', 'net.netfilter.nf_conntrack_udp_timeout_stream=5');
    expect(await probe.ask({ op: 'sysctl' })).toMatchObject({ timeouts: { udpStream: 5, tcpClose: 10 } });
  });
});

describe('links', () => {
  async function link(by: string | number): Promise<Link> {
    const found = await probe.ask<Link | null>({ op: 'link', by });
    if (found === null) throw new Error(`no link ${by}`);
    return found;
  }

  test('are listed as ip(8) lists them', async () => {
    const shown = JSON.parse(inside(near, 'ip', '-j', 'link', 'show')) as { ifindex: number; ifname: string }[];
    const listed = await probe.ask<Link[]>({ op: 'links' });
    expect(listed.map(({ ifindex, name }) => ({ ifindex, ifname: name }))).toEqual(
      shown.map(({ ifindex, ifname }) => ({ ifindex, ifname })),
    );
    const veth = await link('xnv0');
    expect(veth).toMatchObject({ kind: 'veth', mtu: 1500, up: true, carrier: true });
    expect(veth.linkIfindex).toBeGreaterThan(0);
    expect(veth.linkNetnsId).toBeGreaterThanOrEqual(0);
    expect(await link(veth.ifindex)).toEqual(veth);
    for (const by of ['nosuch', '', 'a name that is far too long', 4_242, 0]) {
      expect(await probe.ask({ op: 'link', by })).toBeNull();
    }
  });

  test('have addresses', async () => {
    const { ifindex } = await link('xnv0');
    const addresses = await probe.ask<LinkAddress[]>({ op: 'addresses' });
    expect(addresses).toContainEqual({ ifindex, family: 4, address: NEAR_IP, prefixLength: 24, scope: 0 });
    expect(addresses).toContainEqual({ ifindex: 1, family: 6, address: '::1', prefixLength: 128, scope: 254 });
  });

  test('are watched: new, gone, addresses; leaving a bridge is not being gone', async () => {
    await probe.ask({ op: 'watchLinks' });
    inside(near, 'ip', 'link', 'add', 'xnw0', 'type', 'veth', 'peer', 'name', 'xnw1');
    inside(near, 'ip', 'address', 'add', '10.78.0.1/24', 'dev', 'xnw0');
    inside(near, 'ip', 'address', 'del', '10.78.0.1/24', 'dev', 'xnw0');
    inside(near, 'ip', 'link', 'add', 'xnbr', 'type', 'bridge');
    inside(near, 'ip', 'link', 'set', 'xnw0', 'master', 'xnbr');
    inside(near, 'ip', 'link', 'set', 'xnw0', 'nomaster');
    const removed = { address: '10.78.0.1', deleted: true };
    const isRemoval = (event: unknown): boolean => isDeepStrictEqual(event, removed);
    const seen = await eventsUntil<unknown>((all) => all.some(isRemoval));
    await sleep(200);
    seen.push(...(await probe.ask<unknown[]>({ op: 'events' })));
    expect(seen).toContainEqual({ link: 'xnw0' });
    expect(seen).toContainEqual({ address: '10.78.0.1', deleted: false });
    expect(seen).toContainEqual(removed);
    expect(seen).not.toContainEqual({ linkDeleted: 'xnw0' });
    inside(near, 'ip', 'link', 'del', 'xnw0');
    inside(near, 'ip', 'link', 'del', 'xnbr');
    const isLast = (event: unknown): boolean => isDeepStrictEqual(event, { linkDeleted: 'xnbr' });
    const after = await eventsUntil<unknown>((all) => all.some(isLast));
    for (const name of ['xnw0', 'xnw1', 'xnbr']) expect(after).toContainEqual({ linkDeleted: name });
  });

  test('a storm of link events is survived and reported', async () => {
    await probe.ask({ op: 'watchLinks', receiveBufferBytes: 4096 });
    const batch = Array.from({ length: 40 }, (_, index) => `link add xns${index} type veth peer name xnt${index}`);
    execFileSync('nsenter', [`--net=/run/netns/${near}`, 'ip', '-batch', '-'], { input: batch.join('\n') });
    expect(await eventsUntil<unknown>((all) => all.includes('overrun'))).toContain('overrun');
    const names = (await probe.ask<Link[]>({ op: 'links' })).map(({ name }) => name);
    expect(names.filter((name) => name.startsWith('xns'))).toHaveLength(40);
    const undo = Array.from({ length: 40 }, (_, index) => `link del xns${index}`);
    execFileSync('nsenter', [`--net=/run/netns/${near}`, 'ip', '-batch', '-'], { input: undo.join('\n') });
  });

  test('show the filters of their clsact hooks in running order', async () => {
    const { ifindex } = await link('xnv0');
    const tc = (): Promise<{ qdiscs: string[]; ingress: TcFilter[]; egress: TcFilter[] }> =>
      probe.ask({ op: 'tc', ifindex });
    expect((await tc()).qdiscs).not.toContain('clsact');
    expect((await tc()).egress).toEqual([]);
    inside(near, 'tc', 'qdisc', 'add', 'dev', 'xnv0', 'clsact');
    for (const priority of ['5', '2']) {
      const filter = ['prio', priority, 'bpf', 'bytecode', '1,6 0 0 4294967295'];
      inside(near, 'tc', 'filter', 'add', 'dev', 'xnv0', 'egress', ...filter);
    }
    const shown = await tc();
    expect(shown.qdiscs).toContain('clsact');
    expect(shown.ingress).toEqual([]);
    expect(shown.egress.map(({ priority, kind, handle }) => [priority, kind, handle])).toEqual([
      [2, 'bpf', 1],
      [5, 'bpf', 1],
    ]);
    inside(near, 'tc', 'qdisc', 'del', 'dev', 'xnv0', 'clsact');
    expect(await probe.ask({ op: 'tc', ifindex: 4_242 })).toEqual({ qdiscs: [], ingress: [], egress: [] });
  });
});

test('open watches keep no process from ending', async () => {
  const other = new Probe(near);
  await other.ask({ op: 'watchDestroy' });
  await other.ask({ op: 'watchLinks' });
  other.end();
  const code = await Promise.race([other.exited, sleep(5_000, 'still running', { ref: false })]);
  other.kill();
  expect(code).toBe(0);
});
