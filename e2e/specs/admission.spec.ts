/** Nothing is on the fast path that conntrack does not allow, and nothing for longer than conntrack allows it. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { ANTREA, eventually, sleep } from '../lab/lab.ts';
import type { ConntrackEntry } from '../lab/conntrack.ts';
import type { Lab, Node, Pod } from '../lab/lab.ts';
import type { ReasonName } from '../lab/admin.ts';
import { freshPort } from '../lab/measure.ts';
import { up } from '../lab/native/native.ts';
import { ADMISSION, EMULATED, PATIENCE_MS, groups, stretched } from '../lab/scale.ts';
import { describeFlow, startSidecars } from '../lab/sidecar.ts';
import type { LabSidecars, Reasons, SidecarFlow } from '../lab/sidecar.ts';
import { rawInput, udpFrame } from './support/frames.ts';
import type { UdpFrame } from './support/frames.ts';
import { atLeast } from './support/matchers.ts';
import { captured, exchange, nextHopMac, ping } from './support/traffic.ts';
import { STAYS_FAST, beforeClose, crossings, direction, longestFast } from './support/wire.ts';
import type { Crossing, WireFlow } from './support/wire.ts';

/** How long conntrack and admission take at most with the traffic of these tests. UDP: assured after two seconds. */
const ADMITTED_SECONDS = EMULATED ? 40 : 3.5;
const LEASE_SECONDS = EMULATED ? 10 : 3;
/** How much longer traffic goes on that somebody does something to. */
const LONGER = EMULATED ? 10 : 1;
/** Between two requests of a flow. */
const INTERVAL_US = stretched(10_000);
/** Per second: pings, and messages of an SCTP association. */
const PINGS = EMULATED ? 9 : 45;
const MESSAGES = EMULATED ? 10 : 50;
/** Seconds from the end of an entry or approval to the last fast packet. */
const LEFT_WITHIN = EMULATED ? 10 : 1.5;
/** The programs look at each flow's conntrack entry or approval so often. */
const RECHECK_SECONDS = 1;

/** Seconds of traffic in which flows become fast, lose their entries, and are seen without: with other emulators beside, a minute was short. */
const WITHOUT_ENTRIES = EMULATED ? 100 : 6;

/** Seconds after which entries expire where they are to. */
const EXPIRY = EMULATED ? 10 : 3;
/** Per second and flow. */
const DATAGRAMS = EMULATED ? 20 : 100;
const TRACED = EMULATED
  ? ['--up', '20k', '--down', '20k', '--rate', '10k']
  : ['--up', '200k', '--down', '200k', '--rate', '100k'];

/** The least number of packets where natively there are this many. */
function least(natively: number): number {
  return EMULATED ? Math.min(natively, Math.max(2, Math.ceil(natively / 10))) : natively;
}

/** Why a flow is refused that conntrack does not allow: in approvals mode there is nothing but approvals. */
function refusal(byConntrack: ReasonName): ReasonName {
  return ADMISSION === 'conntrack' ? byConntrack : 'no_approval';
}

let lab: Lab;
let sidecars: LabSidecars;
let a: Pod;
let b: Pod;
let neighbour: Pod;

beforeAll(async () => {
  lab = await up();
  a = lab.node(0).pod(0);
  neighbour = lab.node(0).pod(1);
  b = lab.node(1).pod(0);
  // What a TCP server sends has the DSCP of what it is sent, from the first packet on.
  await b.sh('echo 1 >/proc/sys/net/ipv4/tcp_reflect_tos');
  sidecars = await startSidecars(lab, { approvals: { lease: LEASE_SECONDS } });
});
afterAll(async () => {
  await sidecars.down();
  await lab.down();
});
beforeEach(async () => {
  await Promise.all([lab.policy.clear(), lab.policy.clearMarks(), lab.policy.clearZones()]);
});

/** Cases at the same time under emulation: of more, the first have ended before the last have begun. */
const TOGETHER = 4;

describe('never admitted', () => {
  const MARKS: readonly (readonly [number, ReasonName])[] = [
    [0x00, 'ct_not_allowed'],
    [0x10, 'ct_not_allowed'],
    [0x80, 'ct_not_allowed'],
    [0x23, 'ct_snat'],
    [0x21, 'ct_snat'],
    [0x43, 'ct_hairpin'],
    [0x83, 'ct_l7'],
    [0x13, 'ct_service'],
    [0x02, 'ct_source'],
    [0x04, 'ct_source'],
  ];

  test('connections whose mark says anything but "allowed, pod to pod"', async () => {
    const cases: Case[] = [];
    for (const [i, [mark, reason]] of MARKS.entries()) {
      // Half as many under emulation.
      for (const proto of (['tcp', 'udp'] as const).filter((_, j) => !EMULATED || (i + j) % 2 === 0)) {
        const each = requests(`${proto} with mark 0x${mark.toString(16)}`, proto);
        await lab.policy.markPort(each.flow.port, mark);
        cases.push({ ...each, reasons: [refusal(reason), refusal(reason)] });
      }
    }
    const allowed = [
      [0x01, 'tcp'],
      [0x03, 'udp'],
    ] as const;
    for (const [mark, proto] of allowed) {
      const each = requests(`${proto} with mark 0x${mark.toString(16)}`, proto);
      await lab.policy.markPort(each.flow.port, mark);
      cases.push({ ...each, reasons: 'fast' });
    }
    await judge(cases);
  }, 30_000);

  test('pings and SCTP whose mark says so: they get no approval', async () => {
    const cases: Case[] = [];
    const started: Promise<void>[] = [];
    await captureAndJudge(cases, async () => {
      const refused = (EMULATED ? MARKS.slice(0, 4) : MARKS).map(([mark]) => mark);
      // The allowed one first: a connection with the bit of a translated source is new to Open vSwitch's second zone with each
      // packet, and takes the mark that is set then.
      for (const mark of [ANTREA.markFromPod, ...refused]) {
        await lab.policy.markProtocol('icmp', mark);
        const each: Case = {
          ...pings(`ICMP with mark 0x${mark.toString(16)}`, ADMITTED_SECONDS),
          reasons: mark === ANTREA.markFromPod ? 'fast' : ['no_approval', 'no_approval'],
        };
        cases.push(each);
        started.push(each.run(), reasonsSeen([each]));
        // Until the first reply each request is a new connection's, and gives it the mark that is set then.
        const entry = { proto: 'icmp', sport: each.flow.port } as const;
        await eventually(each.name, async () => {
          const found = await Promise.all(lab.nodes.map((node) => node.conntrack.list(entry)));
          return found.every(([first, ...more]) => first?.replied === true && more.length === 0);
        });
      }
      await lab.policy.markProtocol('sctp', 0x23);
      const sctp: Case = {
        ...associations('SCTP with mark 0x23', ADMITTED_SECONDS),
        reasons: ['no_approval', 'no_approval'],
      };
      cases.push(sctp);
      await Promise.all([...started, sctp.run(), reasonsSeen([sctp])]);
    });
  }, 30_000);

  test('connections in another zone, and connections that conntrack does not know', async () => {
    const zones = [requests('TCP in zone 77', 'tcp'), requests('UDP in zone 77', 'udp')];
    for (const { flow } of zones) await lab.policy.zonePort(flow.port, 77);
    const denied = { ...requests('UDP that is denied', 'udp'), oneWay: true, packets: 2 };
    await lab.policy.deny({ proto: 'udp', port: denied.flow.port, nodes: [lab.node(1)] });
    await judge([
      ...zones.map((each): Case => ({ ...each, reasons: [refusal('ct_missing'), refusal('ct_missing')] })),
      { ...denied, reasons: [refusal('ct_unreplied'), undefined] },
    ]);
    expect(await lab.node(1).conntrack.list({ dport: denied.flow.port })).toEqual([]);

    const unknown = { ...requests('UDP that nobody tracks', 'udp'), oneWay: true, packets: 2 };
    await lab.policy.deny({ proto: 'udp', port: unknown.flow.port });
    await judge([{ ...unknown, packets: 0, reasons: [refusal('ct_missing'), undefined] }]);
    expect(await lab.node(0).conntrack.list({ dport: unknown.flow.port })).toEqual([]);
  }, 30_000);

  test('one-way UDP', async () => {
    const flow = { from: a, to: b, proto: 'udp', port: freshPort() } as const;
    const run = async (): Promise<void> => {
      const client = ['--rate', String(DATAGRAMS), '--seconds', String(ADMITTED_SECONDS)];
      await exchange(lab, 'stream', flow, { common: ['--udp', '--port', String(flow.port)], client });
    };
    await judge([{ name: 'one-way UDP', flow, run, oneWay: true, reasons: [refusal('ct_unreplied'), undefined] }]);
  }, 20_000);

  test('DNS: what comes from port 53 goes slow, and so does what is sent there', async () => {
    const before = await reasonCounts();
    const cases = (['tcp', 'udp'] as const).map((proto) => requests(`${proto} to port 53`, proto, 53));
    await judge([
      ...cases.map((each): Case => ({ ...each, reasons: [undefined, undefined] })),
      // A sign of life of the peer: without it the others would wait for that.
      { ...requests('TCP to another port', 'tcp'), reasons: 'fast' },
    ]);
    const [here, there] = await reasonCounts(before);
    expect([here?.dns_reply, there?.dns_reply]).toEqual([atLeast(least(200)), atLeast(least(200))]);
  }, 20_000);

  test('Traceflow, fragments, and TTL 1 on a node: the packets say no', async () => {
    const before = await reasonCounts();
    const udp = (name: string, args: readonly string[], to = b): Omit<Case, 'reasons'> => {
      const flow = { from: a, to, proto: 'udp', port: freshPort() } as const;
      const common = ['--udp', '--port', String(flow.port)];
      const client = ['--reply', '--rate', String(DATAGRAMS), '--seconds', String(ADMITTED_SECONDS), ...args];
      const run = async (): Promise<void> => {
        const report = await exchange(lab, 'stream', flow, { common, client, server: args.slice(0, 2) });
        expect(report).toMatchObject({ peer: { lost: 0, corrupt: 0 }, echo: { lost: 0, corrupt: 0 } });
      };
      return { name, flow, run };
    };
    const tracing = { from: a, to: b, proto: 'tcp', port: freshPort() } as const;
    const traced = async (): Promise<void> => {
      const common = ['--tcp', '--port', String(tracing.port)];
      const client = [...TRACED, '--send-size', '1000', '--tos', '0x1c'];
      expect(await exchange(lab, 'stream', tracing, { common, client })).toMatchObject({ complete: true });
    };
    const none = [undefined, undefined] as const;
    await judge([
      { name: 'TCP with DSCP 7', flow: tracing, run: traced, reasons: none },
      { ...udp('UDP with DSCP 59', ['--tos', '0xec']), reasons: none },
      { ...udp('UDP in fragments', ['--df', 'dont', '--size', '3000']), reasons: none, packets: 0 },
      { ...udp('UDP with TTL 1', ['--ttl', '1'], neighbour), reasons: none, packets: 0 },
    ]);
    const [here, there] = await reasonCounts(before);
    expect(here).toMatchObject({
      traceflow: atLeast(least(500)),
      fragment: atLeast(least(1000)),
      ttl: atLeast(least(600)),
    });
    expect(there).toMatchObject({ traceflow: atLeast(least(400)), fragment: atLeast(least(1000)), ttl: 0 });
    expect(await sidecars.node(0).flows({ ip: neighbour.address, proto: 'udp' })).toEqual([]);
  }, 30_000);

  test('single packets of a fast flow: fragments, IP options, Traceflow, TTL 1 and 0', async () => {
    const fast = requests('UDP', 'udp', freshPort(), 9300);
    const hop = await nextHopMac(a, b);
    const N = 5;
    const kinds: readonly (readonly [ReasonName, number, Partial<UdpFrame>])[] = [
      ['fragment', 301, { df: false, fragment: 0x2000 }],
      ['fragment', 302, { df: false, fragment: 100 }],
      ['ip_options', 303, { options: Buffer.from([1, 1, 1, 0]) }],
      ['traceflow', 304, { tos: 0x1c }],
      ['ttl', 305, { ttl: 1 }],
      ['ttl', 306, { ttl: 0 }],
    ];
    const frames = kinds.flatMap(([, size, header]) =>
      Array.from({ length: N }, () =>
        udpFrame({ ...addressing(fast.flow, hop), ...header, payload: Buffer.alloc(size) }),
      ),
    );
    let before = await reasonCounts();
    let after = before;
    const { uplink } = await captured(lab, [], async () => {
      const traffic = fast.run();
      await sidecars.waitFast({ port: fast.flow.port });
      before = await reasonCounts();
      await a.exec([lab.tool('raw'), 'send', '--dev', a.device, '--rate', '500'], { input: rawInput(frames) });
      after = await reasonCounts(before);
      expect(await sidecars.node(0).flows({ port: fast.flow.port })).toMatchObject([{ path: 'fast', reason: 'none' }]);
      await traffic;
    });
    expect(after[0]).toMatchObject({ fragment: 2 * N, ip_options: N, traceflow: N, ttl: 2 * N });
    const sizes = new Set(kinds.map(([, size]) => size + 28));
    const odd = crossings(uplink, fast.flow).filter((packet) => packet.forward && sizes.has(packet.ip.length));
    expect(new Set(odd.map(({ path }) => path))).toEqual(new Set(['slow']));
    expect(uplink.packets.filter(({ ip, vni }) => vni === undefined && ip?.headerLength === 24)).toEqual([]);
    // What the flow itself sent stayed fast.
    const isOdd = ({ ip }: Crossing): boolean => ip.length > 300 || ip.fragmentOffset > 0 || ip.headerLength > 20;
    expect(direction(crossings(uplink, fast.flow), true, isOdd)).toMatchObject({
      slowAfter: STAYS_FAST,
      fast: atLeast(least(50)),
    });
  }, 20_000);
});

describe('no longer admitted', () => {
  test('connections removed from conntrack of either node leave the fast path within 1.5 s', async () => {
    for (const node of lab.nodes) {
      // A packet or two of the other node may still meet the slot that this one has given up.
      const tcp = requests('TCP', 'tcp', freshPort(), 9600 + node.index);
      const udp = requests('UDP', 'udp', freshPort(), 9610 + node.index);
      await withoutEntries([tcp, udp, pings('ICMP', WITHOUT_ENTRIES, 3)], node);
    }
  }, 40_000);

  test('policy denies new connections while an old one is fast', async () => {
    const port = freshPort();
    const client = (proto: string, sport: number, seconds: number, check: boolean): Promise<Record<string, unknown>> =>
      exchange(
        lab,
        'rr',
        { from: a, to: b },
        {
          common: [`--${proto}`, '--port', String(sport === 9400 ? port : port + 5000)],
          client: [
            ...['--seconds', String(seconds), '--interval-us', String(INTERVAL_US), '--sport', String(sport)],
            ...['--timeout-ms', String(stretched(500)), '--json'],
          ],
        },
        check,
      );
    const old = { from: a, to: b, proto: 'tcp', port } as const;
    const { uplink } = await captured(lab, [], async () => {
      const running = client('tcp', 9400, EMULATED ? 30 : 3, true);
      await sidecars.waitFast({ port });
      await lab.policy.deny({ srcPod: a, dstPod: b });
      const denied = await Promise.all([client('tcp', 9401, LONGER, false), client('udp', 9402, LONGER, false)]);
      for (const report of denied) expect(report['transactions'] ?? 0).toBe(0);
      expect(await running).toMatchObject({ errors: 0, timeouts: 0, corrupt: 0 });
    });
    expect(direction(beforeClose(crossings(uplink, old)), true)).toMatchObject({
      slowAfter: STAYS_FAST,
      fast: atLeast(least(200)),
    });
    for (const proto of ['tcp', 'udp'] as const) {
      const denied = crossings(uplink, { from: a, to: b, proto, port: port + 5000 });
      expect(denied.filter(({ path }) => path === 'fast')).toEqual([]);
    }
    await lab.policy.clear();
    expect(await client('tcp', 9403, 0.5, true)).toMatchObject({ errors: 0 });
  }, 20_000);

  test('conntrack entries live while their packets are fast, and expire as usual afterwards', async () => {
    const timeouts = { udp: EXPIRY, udpStream: EXPIRY, tcpEstablished: EXPIRY + 1, icmp: EXPIRY };
    await Promise.all(lab.nodes.map((node) => node.conntrack.setTimeouts(timeouts)));
    try {
      const idle = { from: a, to: b, proto: 'tcp', port: freshPort() } as const;
      // Sends as long as the others do, and then says nothing until all entries are gone.
      const pace = ['--rate', String(100_000 / LONGER), '--pause-after', '900k', '--pause-ms', String(30_000 * LONGER)];
      const idling = ['--up', '2M', '--down', '0', ...pace];
      const tool = lab.tool('stream');
      const server = await b.spawn([tool, 'server', '--tcp', '--port', String(idle.port)]);
      await server.waitFor(/^ready/);
      const connection = [tool, 'client', '--tcp', '--to', b.address, '--port', String(idle.port), ...idling];
      const client = await a.spawn([...connection, '--send-size', '2000']);

      const flows = [requests('UDP', 'udp'), pings('ICMP', 9 * LONGER)];
      const silent = requests('UDP, one way', 'udp', freshPort(), 9500);
      const entries = [idle, ...flows.map(({ flow }) => flow), silent.flow];
      const { uplink } = await captured(lab, [], async () => {
        const traffic = [...flows, silent].map((each) => each.run(9 * LONGER, ['--timeout-ms', String(stretched(50))]));
        await Promise.all(entries.map((flow) => waitFast({ name: flow.proto, flow })));
        await silence([silent.flow]);
        const ids = await entryIds(entries);
        const end = Date.now() + EXPIRY * 1000 + 2500;
        while (Date.now() < end) {
          expect(await entryIds(entries)).toEqual(ids);
          await sleep(250);
        }
        await Promise.all(traffic);
        await speak();
      });
      for (const flow of entries) {
        const all = beforeClose(crossings(uplink, flow));
        expect({ flow: flow.proto, kept: longestFast(all) > EXPIRY }).toEqual({ flow: flow.proto, kept: true });
        expect(direction(all, true)).toMatchObject({ slowAfter: STAYS_FAST, fast: atLeast(least(90)) });
      }
      // The connection is open and idle, the others have ended: all entries go in their time.
      expect(client.running).toBe(true);
      for (const flow of entries) {
        await eventually(
          `${flow.proto} entries of port ${flow.port} expire`,
          async () => (await entriesOf(flow)).every((found) => found.length === 0),
          6000,
        );
      }
      await client.stop();
      await server.stop();
    } finally {
      const usual = { udp: 30, udpStream: 120, tcpEstablished: 86400, icmp: 30 };
      await Promise.all(lab.nodes.map((node) => node.conntrack.setTimeouts(usual)));
    }
  }, 40_000);

  test('without sidecars: removed connections leave, approvals end with their lease, the rest stays fast', async () => {
    // In approvals mode nobody else looks at conntrack, and every flow ends with its lease.
    const removed = (ADMISSION === 'conntrack' ? lab.nodes : []).map((node) => [
      requests(`TCP, removed on ${node.name}`, 'tcp', freshPort(), 9700 + node.index),
      requests(`UDP, removed on ${node.name}`, 'udp', freshPort(), 9710 + node.index),
      requests(`UDP one way, removed on ${node.name}`, 'udp', freshPort(), 9720 + node.index),
    ]);
    // Each node has to notice both by what its pod sends and by what comes for it alone.
    const silent = removed.flatMap(([, , oneWay]) => oneWay?.flow ?? []);
    const others = [requests('TCP', 'tcp'), requests('UDP', 'udp')];
    const kept = ADMISSION === 'conntrack' ? others : [];
    const approved = [
      pings('ICMP', 9 * LONGER, 3),
      associations('SCTP', 7 * LONGER),
      ...(ADMISSION === 'approvals' ? others : []),
    ];
    const deleted = new Map<unknown, number>();
    let killedAt = 0;
    const { uplink } = await captured(lab, [], async () => {
      const all = [...removed.flat(), ...kept, ...approved];
      const traffic = all.map((each) =>
        each.run(9 * LONGER, each.flow.proto === 'udp' ? ['--timeout-ms', String(stretched(50))] : []),
      );
      await Promise.all(all.map(waitFast));
      if (silent.length > 0) await silence(silent);
      await Promise.all(sidecars.nodes.map((sidecar) => sidecar.kill9()));
      killedAt = Date.now() / 1000;
      for (const [i, cases] of removed.entries()) {
        for (const [each, at] of await deleteEntries(cases, lab.node(i))) deleted.set(each, at);
      }
      await Promise.all(traffic);
      if (silent.length > 0) await speak();
    });
    await Promise.all(sidecars.nodes.map((sidecar) => sidecar.start()));
    await sidecars.waitReady();

    const lastFast = ({ flow }: Omit<Case, 'reasons'>): number =>
      Math.max(...[true, false].map((forward) => direction(crossings(uplink, flow), forward).lastFast ?? NaN));
    for (const each of removed.flat()) {
      const seconds = lastFast(each) - (deleted.get(each) ?? NaN);
      expect([each.name, seconds < LEFT_WITHIN, seconds]).toEqual([each.name, true, seconds]);
    }
    for (const each of approved) {
      const seconds = lastFast(each) - killedAt;
      const inTime = seconds > 1 && seconds < LEASE_SECONDS + (EMULATED ? 3 : 0.25); // looked at every 100 ms
      expect([each.name, inTime, seconds]).toEqual([each.name, true, seconds]);
      const later = crossings(uplink, each.flow).filter(({ time }) => time > killedAt + seconds);
      expect(later.length).toBeGreaterThan(least(50));
    }
    for (const each of kept) {
      for (const forward of [true, false]) {
        const way = direction(beforeClose(crossings(uplink, each.flow)), forward);
        expect({ name: each.name, ...way }).toMatchObject({
          name: each.name,
          slowAfter: STAYS_FAST,
          fast: atLeast(least(500)),
        });
        expect(way.lastFast).toBeGreaterThan(killedAt + LEASE_SECONDS + 2 * RECHECK_SECONDS);
      }
    }
    // And with them the approvals come again.
    const again = [pings('ICMP', 1.4 * LONGER), associations('SCTP', LONGER)];
    const traffic = again.map((each) => each.run());
    await Promise.all(again.map(waitFast));
    await Promise.all(traffic);
  }, 60_000);
});

/* ---- traffic ---- */

/** Traffic, and what becomes of it. */
interface Case {
  readonly name: string;
  readonly flow: WireFlow;
  /** Nothing comes back. */
  readonly oneWay?: boolean;
  /** Least number of packets in each direction that cross the underlay. Default 50. */
  readonly packets?: number;
  /** Why it is slow on each node's list of flows (undefined: not in it); `fast`: it is not. */
  readonly reasons: 'fast' | readonly [ReasonName | undefined, ReasonName | undefined];
  run(seconds?: number, args?: readonly string[]): Promise<void>;
}

/** Requests and responses, 100 per second. */
function requests(name: string, proto: 'tcp' | 'udp', port = freshPort(), sport?: number): Omit<Case, 'reasons'> {
  const flow = { from: a, to: b, proto, port, ...(sport === undefined ? {} : { sport }) };
  return {
    name,
    flow,
    run: async (seconds = ADMITTED_SECONDS, args = []) => {
      const common = [`--${proto}`, '--port', String(port)];
      const pace = ['--seconds', String(seconds), '--interval-us', String(INTERVAL_US)];
      // Not for UDP, which sends the next datagram after it where no answer comes.
      const patience = proto === 'tcp' ? ['--timeout-ms', PATIENCE_MS] : [];
      const client = [...pace, ...patience, '--json', ...args];
      const from = sport === undefined ? [] : ['--sport', String(sport)];
      await exchange(lab, 'rr', flow, { common, client: [...client, ...from] }, false);
    },
  };
}

let icmpId = 6000;

/** Pings for about so long. */
function pings(name: string, seconds: number, lost = 0): Omit<Case, 'reasons'> {
  icmpId += 1;
  const flow = { from: a, to: b, proto: 'icmp', port: icmpId } as const;
  return { name, flow, run: () => ping(a, b, { id: flow.port, count: Math.round(seconds * PINGS), lost }) };
}

/** One SCTP association that lasts about so long. One at a time in each pod. */
function associations(name: string, seconds: number): Omit<Case, 'reasons'> {
  const flow = { from: a, to: b, proto: 'sctp', port: freshPort() } as const;
  return {
    name,
    flow,
    run: async () => {
      const common = ['--port', String(flow.port)];
      const client = ['--count', String(Math.round(seconds * MESSAGES)), '--interval-ms', String(1000 / MESSAGES)];
      expect(await exchange(lab, 'sctp', flow, { common, client })).toMatchObject({ corrupt: 0, error: '' });
    },
  };
}

/** What a frame of the flow's client carries. */
function addressing(
  { from, to, port, sport }: WireFlow,
  hop: string,
): Pick<UdpFrame, 'srcMac' | 'dstMac' | 'src' | 'dst' | 'sport' | 'dport'> {
  return { srcMac: from.mac, dstMac: hop, src: from.address, dst: to.address, sport: sport ?? 0, dport: port };
}

/** Drops what pod b would answer on these flows. */
async function silence(flows: readonly WireFlow[]): Promise<void> {
  const ports = flows.map(({ port }) => port).join(', ');
  const chain = `chain out { type filter hook output priority 0; udp sport { ${ports} } drop; }`;
  await b.exec(['nft', '-f', '-'], { input: `table ip xmasqspec { ${chain}; }\n` });
}

/** Takes `silence` back. */
async function speak(): Promise<void> {
  await b.exec(['nft', 'delete', 'table', 'ip', 'xmasqspec']);
}

/* ---- judgement ---- */

/** Runs all traffic, as much as the machine bears at once, and judges each case by its packets and by the lists of flows. */
async function judge(cases: readonly Case[]): Promise<void> {
  for (const some of groups(cases, TOGETHER)) {
    await captureAndJudge(some, () => Promise.all([...some.map((each) => each.run()), reasonsSeen(some)]));
  }
}

async function captureAndJudge(cases: readonly Case[], use: () => Promise<unknown>): Promise<void> {
  const { uplink } = await captured(lab, [], use);
  for (const { name, flow, oneWay, packets = 50, reasons } of cases) {
    for (const forward of oneWay === true ? [true] : [true, false]) {
      const { slow, fast } = direction(crossings(uplink, flow), forward);
      if (reasons === 'fast') expect({ name, forward, fast }).toEqual({ name, forward, fast: atLeast(least(20)) });
      else expect({ name, forward, slow, fast }).toEqual({ name, forward, slow: atLeast(least(packets)), fast: 0 });
    }
  }
}

/** Waits until each case's reason was seen on both nodes while its traffic ran. */
async function reasonsSeen(cases: readonly Case[]): Promise<void> {
  await Promise.all(
    cases.map(async ({ name, flow, reasons }) => {
      const expected = reasons === 'fast' ? (['none', 'none'] as const) : reasons;
      await Promise.all(expected.flatMap((reason, i) => (reason === undefined ? [] : [shows(name, flow, i, reason)])));
    }),
  );
}

/** Waits until a node's list of flows has the flow with this reason. */
async function shows(name: string, flow: WireFlow, node: number, reason: ReasonName): Promise<void> {
  let seen: SidecarFlow[] = [];
  const path = reason === 'none' ? 'fast' : 'slow';
  try {
    await eventually(
      reason,
      async () => {
        const now = await flowsOf(flow, node);
        // When its traffic is over, the flow is no longer listed: what it was like is what helps.
        if (now.length > 0) seen = now;
        return now.some((each) => each.reason === reason && each.path === path);
      },
      EMULATED ? 10_000 : (ADMITTED_SECONDS + 0.5) * 1000,
      stretched(200),
    );
  } catch (cause) {
    const flows = seen.map(describeFlow).join('; ');
    const what = `${name} on ${lab.node(node).name}: not ${path} (${reason}): ${flows || 'no flow'}`;
    throw new Error(`${what}; ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
  }
}

/** Waits until the flow is fast on both nodes. */
async function waitFast({ name, flow }: Pick<Case, 'name' | 'flow'>): Promise<void> {
  await Promise.all(lab.nodes.map((_, i) => shows(name, flow, i, 'none')));
}

/** The flow on a node's list. */
async function flowsOf({ proto, port, from, to }: WireFlow, node: number): Promise<SidecarFlow[]> {
  const flows = await sidecars.node(node).flows(proto === 'icmp' ? { proto, ip: to.address } : { proto, port });
  return flows.filter(
    (each) =>
      (proto !== 'icmp' || each.icmpId === port) &&
      [each.sourceIp, each.destinationIp].includes(from.address) &&
      [each.sourceIp, each.destinationIp].includes(to.address),
  );
}

/** Packets left to the slow path by reason, on each node; with `before`: since then. */
async function reasonCounts(before?: readonly Reasons[]): Promise<Reasons[]> {
  const all = await Promise.all(sidecars.nodes.map(async (sidecar) => (await sidecar.status()).reasons));
  return all.map((reasons, i) => {
    const names = Object.keys(reasons) as ReasonName[];
    return Object.fromEntries(names.map((name) => [name, reasons[name] - (before?.[i]?.[name] ?? 0)])) as Reasons;
  });
}

/* ---- conntrack ---- */

/**
 * Deletes the flows' entries on a node; what is tracked anew is not allowed. Returns when each was deleted, seconds since
 * the epoch.
 */
async function deleteEntries<T extends Pick<Case, 'name' | 'flow'>>(
  cases: readonly T[],
  node: Node,
): Promise<Map<T, number>> {
  for (const { flow } of cases) {
    if (flow.proto === 'icmp') await lab.policy.markProtocol('icmp', 0);
    else await lab.policy.markPort(flow.port, 0);
    // Conntrack may take up a connection again by a packet of its server.
    if (flow.sport !== undefined) await lab.policy.markPort(flow.sport, 0);
  }
  const deletedAt = new Map<T, number>();
  const i = lab.nodes.indexOf(node);
  for (const each of cases) {
    const { proto, port, from, to } = each.flow;
    const id = async (): Promise<number | undefined> => (await entriesOf(each.flow))[i]?.[0]?.id;
    const old = await id();
    expect(old).toBeDefined();
    // conntrack(8) deletes no single ping: all between the two pods. It gives up where an entry expires under its hands.
    const entry = proto === 'icmp' ? { src: from.address, dst: to.address } : { dport: port };
    await eventually(`the entry of ${each.name} is deleted`, async () => {
      deletedAt.set(each, Date.now() / 1000);
      await node.conntrack.delete({ zone: ANTREA.zone, proto, ...entry }).catch(() => undefined);
      return (await id()) !== old;
    });
  }
  return deletedAt;
}

/** Runs traffic, deletes its conntrack entries on one node and demands that it is slow 1.5 s later, both ways. */
async function withoutEntries(cases: readonly Omit<Case, 'reasons'>[], node: Node): Promise<void> {
  let deleted = new Map<unknown, number>();
  const { uplink } = await captured(lab, [], async () => {
    const traffic = cases.map((each) => each.run(WITHOUT_ENTRIES));
    await Promise.all(cases.map(waitFast));
    deleted = await deleteEntries(cases, node);
    const i = lab.nodes.indexOf(node);
    for (const { name, flow } of cases) {
      const reason = flow.proto === 'icmp' ? 'no_approval' : refusal('ct_not_allowed');
      await eventually(`${name} on ${node.name}: ${reason}`, async () =>
        (await flowsOf(flow, i)).some((each) => !each.admitted && each.reason === reason),
      );
    }
    await Promise.all(traffic);
  });
  for (const each of cases) {
    const { name, flow } = each;
    const deletedAt = deleted.get(each) ?? NaN;
    for (const forward of [true, false]) {
      const packets = crossings(uplink, flow).filter((packet) => packet.forward === forward);
      const late = packets.filter(({ path, time }) => path === 'fast' && time > deletedAt + LEFT_WITHIN);
      const before = packets.filter(({ path, time }) => path === 'fast' && time < deletedAt);
      const slow = packets.filter(({ path, time }) => path === 'slow' && time > deletedAt);
      const counts = { late: late.length, before: before.length, slow: slow.length };
      expect({ name, forward, ...counts }).toEqual({
        name,
        forward,
        late: 0,
        before: atLeast(5),
        slow: atLeast(least(50)),
      });
    }
  }
  await lab.policy.clearMarks();
}

/** The flow's entries on each node. */
function entriesOf(flow: WireFlow): Promise<ConntrackEntry[][]> {
  const entry = flow.proto === 'icmp' ? { sport: flow.port } : { dport: flow.port };
  return Promise.all(lab.nodes.map((node) => node.conntrack.list({ zone: ANTREA.zone, proto: flow.proto, ...entry })));
}

/** Ids of the entries of these flows, by node. */
async function entryIds(flows: readonly WireFlow[]): Promise<(number | undefined)[][]> {
  const found = await Promise.all(flows.map(entriesOf));
  return found.map((nodes) => nodes.map(([entry]) => entry?.id));
}
