/**
 * IPv6 pods: masqueraded with the key in the flow label, beside IPv4 ones; what stays slow; and pods of a family that the
 * underlay does not have. (The matrix has every protocol and target in both families.)
 */
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { ANTREA, addressOf, sleep } from '../lab/lab.ts';
import type { Family, Lab, LabOptions, Pod } from '../lab/lab.ts';
import { freshPort } from '../lab/measure.ts';
import { up } from '../lab/native/native.ts';
import { IPPROTO } from '../lab/packet.ts';
import type { CapturedPacket } from '../lab/pcap.ts';
import { stretched } from '../lab/scale.ts';
import type { LabSidecars } from '../lab/sidecar.ts';
import { measure } from '../matrix/judge.ts';
import { runCells, setOffloads } from '../matrix/run.ts';
import type { Cell, Protocol } from '../matrix/cells.ts';
import { carriages } from './support/carriage.ts';
import type { Carriage } from './support/carriage.ts';
import { watchCounters } from './support/counters.ts';
import { protocolNumber } from './support/delivery.ts';
import { atLeast } from './support/matchers.ts';
import { startInMode, waitCarried } from './support/modes.ts';
import type { Mode } from './support/modes.ts';
import { captured, exchange, observe, ping } from './support/traffic.ts';
import type { Observation, Traffic } from './support/traffic.ts';
import { MARKER6, TCP } from './support/wire.ts';
import type { WireFlow } from './support/wire.ts';

const OFF = { tso: false, gso: false, gro: false, tx: false, 'tx-udp-segmentation': false } as const;
/** UDP is admitted once conntrack calls it assured: two seconds. */
const FAST_SECONDS = 4;

let lab: Lab;
let sidecars: LabSidecars | undefined;
let a: Pod;
let b: Pod;
let neighbour: Pod;

async function build(options: LabOptions): Promise<void> {
  lab = await up(options);
  a = lab.node(0).pod(0);
  neighbour = lab.node(0).pod(1);
  b = lab.node(1).pod(0);
  const sysctls = 'echo 1 >/proc/sys/net/ipv4/tcp_ecn; echo 1 >/proc/sys/net/ipv4/tcp_reflect_tos';
  await Promise.all([a, b, neighbour].map((pod) => pod.sh(sysctls)));
}

function running(): LabSidecars {
  if (sidecars === undefined) throw new Error('the sidecars are not running yet');
  return sidecars;
}

async function down(): Promise<void> {
  await sidecars?.down();
  sidecars = undefined;
  await lab.down();
}

/* ---- the traffic ---- */

type Make = (seconds: number) => Traffic;

function tcp(family: Family, tos: string, to: () => Pod = () => b): Make {
  return (seconds) => {
    const flow = { from: a, to: to(), proto: 'tcp', port: freshPort(), family } as const;
    const common = ['--tcp', '--port', String(flow.port)];
    const size = String(Math.round(seconds * 300_000));
    const client = ['--up', size, '--down', size, '--rate', '300000', '--send-size', '9000', '--tos', tos];
    const run = async (): Promise<void> =>
      expect(await exchange(lab, 'stream', flow, { common, client })).toMatchObject({
        ...{ complete: true, corrupt: 0, peerCorrupt: 0 },
      });
    return { name: `TCP ${family} > ${flow.to.name}, TOS ${tos}`, flow, run };
  };
}

function udp(family: Family, args: readonly string[], to: () => Pod = () => b): Make {
  return (seconds) => {
    const flow = { from: a, to: to(), proto: 'udp', port: freshPort(), family } as const;
    const common = ['--udp', '--port', String(flow.port)];
    const client = ['--reply', '--rate', '150', '--seconds', String(seconds), ...args];
    const run = async (): Promise<void> =>
      expect(await exchange(lab, 'stream', flow, { common, client })).toMatchObject({
        ...{ peer: { lost: 0, corrupt: 0 }, echo: { lost: 0, corrupt: 0 } },
      });
    return { name: `UDP ${family} > ${flow.to.name} ${args.join(' ')}`, flow, run };
  };
}

let icmpId = 7000;

function icmp(family: Family, args: readonly string[], to: () => Pod = () => b): Make {
  return (seconds) => {
    icmpId += 1;
    const flow = { from: a, to: to(), proto: 'icmp', port: icmpId, family } as const;
    const run = (): Promise<void> => ping(a, flow.to, { id: flow.port, count: Math.round(seconds * 40), args, family });
    return { name: `ICMP ${family} > ${flow.to.name} ${args.join(' ')}`, flow, run };
  };
}

/** Neither what opens and closes, nor what followed the end. */
function established(all: readonly Carriage[]): readonly Carriage[] {
  const end = all.findIndex(({ packet }) => ((packet.l4?.flags ?? 0) & (TCP.fin | TCP.rst)) !== 0);
  return end < 0 ? all : all.slice(0, end);
}

describe('between nodes with both families', () => {
  let mix: readonly Make[];
  let reference: ReadonlyMap<string, Observation>;
  let fast: ReadonlyMap<string, Observation>;
  let crossed: ReadonlyMap<string, readonly Carriage[]>;

  beforeAll(async () => {
    await build({ ipv6: true, router: true });
    await lab.offload(OFF);
    const large = String(b.mtu - 48);
    mix = [
      tcp('ipv6', '0'),
      tcp('ipv6', '0xb8'),
      udp('ipv6', ['--size', '25']),
      udp('ipv6', ['--size', large, '--tos', '0xa2']),
      udp('ipv6', ['--size', '99', '--tos', '0x39', '--ttl', '200']),
      icmp('ipv6', ['-s', '56']),
      icmp('ipv6', ['-s', large, '-Q', '0x40', '-t', '33']),
      tcp('ipv6', '0', () => neighbour),
      udp('ipv6', ['--size', '333', '--ttl', '7'], () => neighbour),
      icmp('ipv6', ['-s', '100'], () => neighbour),
      tcp('ipv4', '0x28'),
      udp('ipv4', ['--size', '333']),
      icmp('ipv4', ['-s', '56']),
    ];
    reference = await observe(
      lab,
      mix.map((make) => make(0.7)),
    );
    sidecars = await startInMode(lab, 'masquerade');
    const traffic = mix.map((make) => make(FAST_SECONDS));
    const capture = await lab.node(0).capture();
    fast = await observe(lab, traffic);
    const uplink = await capture.stop();
    crossed = new Map(traffic.map(({ name, flow }) => [name, carriages(uplink, flow)]));
  }, 90_000);
  afterAll(down);

  test('pods of both families see the same on both paths', () => {
    expect(fast.size).toBe(mix.length);
    for (const [name, { forward, backward, flow }] of fast) {
      const before = reference.get(name);
      for (const [way, slow] of [
        [forward, before?.forward],
        [backward, before?.backward],
      ] as const) {
        expect({ name, ...way }).toMatchObject({
          ...{ name, strays: [], unmatched: 0, lost: 0, wrongChecksums: 0 },
          ...{ received: atLeast(50), changes: slow?.changes, headers: slow?.headers },
          ...(flow.from.node === flow.to.node ? {} : { marked: 0 }),
        });
      }
    }
  });

  test('they cross as packets between the nodes, those of IPv6 with the key in the flow label', () => {
    for (const [name, all] of crossed) {
      const flow = fast.get(name)?.flow;
      if (flow === undefined || flow.to === neighbour) {
        expect(all).toEqual([]);
        continue;
      }
      const { family = 'ipv4' } = flow;
      for (const forward of [true, false]) {
        const way = established(all).filter((each) => each.forward === forward);
        const masqueraded = way.filter(({ how }) => how === 'masqueraded');
        expect({ name, forward, packets: masqueraded.length }).toEqual({ name, forward, packets: atLeast(60) });
        const settled = (masqueraded[0]?.time ?? Infinity) + stretched(0.1);
        expect(way.filter(({ how, time }) => how !== 'masqueraded' && time > settled)).toEqual([]);
        if (family !== 'ipv6') continue;
        const [from, to] = forward ? [flow.from, flow.to] : [flow.to, flow.from];
        const headers = masqueraded.map(({ frame: { ip6, l4 } }) => [
          ...[ip6?.src, ip6?.dst, ip6?.hopLimit, (ip6?.trafficClass ?? 0) >> 2, ip6?.extensions.length],
          ...[((ip6?.flowLabel ?? 0) & MARKER6) !== 0, l4?.checksumValid],
        ]);
        // Captured on the first node's uplink: the router has taken one from what comes in.
        const expected = [from.node.address6, to.node.address6, forward ? 64 : 63, 0, 0, true, true];
        expect({ name, headers: [...new Set(headers.map(String))] }).toEqual({ name, headers: [String(expected)] });
        // One key each way for as long as the flow lasts.
        expect(new Set(masqueraded.map(({ frame }) => ((frame.ip6?.flowLabel ?? 0) >> 10) & 0xff)).size).toBe(1);
      }
    }
  });

  test('what the router says of the traffic class reaches the pod', async () => {
    await lab.underlay.addRules(['ip6 ecn != not-ect ip6 ecn set ce']);
    try {
      const marked = ['0x28', '0x29', '0x2a'].map((tos) => udp('ipv6', ['--size', '100', '--tos', tos]));
      const now = await observe(
        lab,
        marked.map((make) => make(FAST_SECONDS)),
      );
      expect([...now.values()].map(({ forward }) => forward.headers)).toEqual([['0x28'], ['0x2b'], ['0x2b']]);
    } finally {
      await lab.underlay.clear();
    }
  }, 30_000);

  test('extension headers and fragments stay slow and as they are, and leave the flow fast', async () => {
    const flow: WireFlow = { from: a, to: b, proto: 'udp', port: freshPort(), sport: 9301, family: 'ipv6' };
    const [a6, b6] = [addressOf(a, 'ipv6'), addressOf(b, 'ipv6')];
    const frame = ['--dev', a.device, '--src-mac', a.mac, '--dst-mac', ANTREA.virtualMac, '--src', a6, '--dst', b6];
    const odd = [...frame, '--proto', 'udp', '--sport', '9301', '--dport', String(flow.port), '--payload', 'c0ffee'];
    const sweep = (...args: string[]): Promise<unknown> =>
      a.exec([lab.tool('raw'), 'sweep', ...odd, '--from', '0xabcde', '--to', '0xabcdf', ...args]);
    const inside = await b.capture({ direction: 'in', filter: `ip6 src ${a6}` });
    const { uplink } = await captured(lab, [], async () => {
      const common = ['--udp', '--port', String(flow.port)];
      const client = [
        ...['--sport', '9301', '--seconds', '4.5', '--interval-us', '5000', '--timeout-ms', '1000', '--json'],
      ];
      const traffic = exchange(lab, 'rr', flow, { common, client });
      await waitCarried(running(), { proto: IPPROTO.udp, port: flow.port }, 'masquerade');
      const before = (await running().node(0).status()).reasons;
      await sweep('--options');
      await sweep('--mf', '--size', '64');
      await sweep('--mf', '--frag-offset', '64', '--size', '64');
      const after = (await running().node(0).status()).reasons;
      expect([after.ip_options - before.ip_options, after.fragment - before.fragment]).toEqual([2, 4]);
      await traffic;
    });
    const { packets } = await inside.stop();
    // The nodes' conntrack puts fragments together to judge them: of those that are no whole packet nothing arrives.
    const options = packets.filter(({ ip6 }) => ip6?.extensions.includes(60) === true);
    expect(options.map(({ ip6, l4 }) => [ip6?.extensions, l4?.payloadLength, l4?.checksumValid])).toEqual(
      Array(2).fill([[60], 3, true]),
    );
    const onWire = uplink.packets.filter(({ inner }) => inner?.ip6?.extensions.includes(60) === true);
    expect(onWire).toHaveLength(2);
    const masqueraded = uplink.packets.filter(
      ({ ip6, inner }) => inner === undefined && (ip6?.extensions.length ?? 0) > 0,
    );
    expect(masqueraded).toEqual([]);
  }, 30_000);

  test('large packets that the pod cuts into fragments arrive whole', async () => {
    const id = 7900;
    const capture = await lab.node(0).capture({ filter: 'ip6' });
    await ping(a, b, { id, count: 60, args: ['-s', '4000'], family: 'ipv6' });
    const { packets } = await capture.stop();
    expect(packets.filter(({ inner }) => inner?.ip6?.fragment !== undefined).length).toEqual(atLeast(300));
    expect(packets.filter(({ inner, ip6 }) => inner === undefined && ip6?.fragment !== undefined)).toEqual([]);
  });

  test('neighbour discovery goes its way untouched while flows are fast', async () => {
    const traffic = [udp('ipv6', ['--size', '100']), udp('ipv6', ['--size', '50'], () => neighbour)].map((make) =>
      make(FAST_SECONDS + 1),
    );
    const done = Promise.all(traffic.map((each) => each.run()));
    for (const { flow } of traffic) {
      const how = flow.to === neighbour ? 'local' : 'masquerade';
      const nodes = flow.to === neighbour ? [running().node(0)] : running().nodes;
      await waitCarried({ nodes }, { proto: IPPROTO.udp, port: flow.port }, how);
    }
    const filter = 'icmp6 and (ip6[40] == 135 or ip6[40] == 136)';
    const places = [a, neighbour];
    const captures = await Promise.all(places.map((pod) => pod.capture({ filter })));
    for (const pod of places) await pod.exec(['ip', '-6', 'neigh', 'flush', 'dev', pod.device]);
    await sleep(stretched(600));
    const [here = [], there = []] = (await Promise.all(captures.map((each) => each.stop()))).map(
      ({ packets }) => packets,
    );
    const text = (packets: readonly CapturedPacket[]): string[] => packets.map(({ bytes }) => bytes.toString('hex'));
    const between = [a, neighbour].map(({ mac }) => mac);
    const exchanged = here.filter(({ srcMac, dstMac }) => between.includes(srcMac) && between.includes(dstMac));
    // Advertisements to each other, byte for byte as they were sent; solicitations go to a group.
    expect(exchanged.length).toEqual(atLeast(1));
    for (const frame of text(exchanged)) expect(text(there)).toContain(frame);
    await done;
    expect((await a.exec(['ip', '-6', 'neigh', 'show', addressOf(neighbour, 'ipv6')])).stdout).toContain(neighbour.mac);
  }, 30_000);

  test('what a pod writes into the flow label cannot pass for a key', async () => {
    const [a6, b6] = [addressOf(a, 'ipv6'), addressOf(b, 'ipv6')];
    const frame = ['--dev', a.device, '--src-mac', a.mac, '--dst-mac', ANTREA.virtualMac, '--src', a6, '--dst', b6];
    const labels = ['--from', '0xfff00', '--to', '0xfffff', '--payload', 'c0ffee', '--sport', '9', '--dport', '9'];
    const counters = await watchCounters(running());
    const { uplink, atPod } = await captured(lab, [b], () =>
      a.exec([lab.tool('raw'), 'sweep', ...frame, '--proto', 'udp', ...labels]),
    );
    const sent = uplink.packets.filter(({ inner }) => inner?.ip6?.src === a6 && inner.l4?.dport === 9);
    expect(sent).toHaveLength(256);
    expect(sent.filter(({ inner }) => ((inner?.ip6?.flowLabel ?? 0) & MARKER6) !== 0)).toEqual([]);
    const arrived = atPod.get(b)?.packets.filter(({ ip6, l4 }) => ip6?.src === a6 && l4?.dport === 9) ?? [];
    expect(arrived).toHaveLength(256);
    const [here, there] = await counters.since();
    expect(here).toMatchObject({ marker_cleared: atLeast(256) });
    expect(there).toMatchObject({ key_learned: 0 });
  });
});

describe.each([
  ['IPv4 pods over an IPv6-only underlay', 'ipv6', 'ipv4', 'on'],
  ['IPv6 pods over an IPv4-only underlay', 'ipv4', 'ipv6', 'off'],
] as const)('%s', (_name, underlay, family, offloads) => {
  const protocols: readonly Protocol[] = ['tcp', 'udp', 'icmp', 'sctp'];
  const SECONDS = { tcp: 5, udp: 5, icmp: 5, sctp: 2.5 };
  const REFERENCE = { tcp: 1, udp: 1, icmp: 1, sctp: 0.4 };
  const other: Family = family === 'ipv4' ? 'ipv6' : 'ipv4';

  function cells(mode: Exclude<Mode, 'auto'>, of: Family): Cell[] {
    const setup = { family: of, mode, xdp: false, offloads };
    return protocols.map((protocol) => ({ protocol, ...setup, target: 'pod on another node' }));
  }

  beforeAll(async () => {
    await build({ ipv6: true, underlay });
  });
  afterAll(down);

  test('by encapsulation, both families at the same time, and to the pods as by the slow path', async () => {
    await setOffloads(lab, offloads);
    const wanted = [
      ...cells('encap', family),
      ...cells('masquerade', other).filter(({ protocol }) => protocol !== 'sctp'),
    ];
    const reference = await runCells(lab, wanted, REFERENCE);
    sidecars = await startInMode(lab, 'auto');
    const results = await runCells(lab, wanted, SECONDS, sidecars);
    for (const [i, result] of results.entries()) {
      const { row, problems } = measure(result, reference[i], 'native');
      expect({ ...row, problems }).toMatchObject({ path: 'fast', identical: true, problems: [] });
      if (row.family === family) expect(result.flow).toMatchObject({ mode: 'encap', reason: 'mode' });
    }
  }, 90_000);

  test('each in the outer header of the underlay’s family', async () => {
    const flow: WireFlow = { from: a, to: b, proto: 'udp', port: freshPort(), family };
    const common = ['--udp', '--port', String(flow.port)];
    const { uplink } = await captured(lab, [], async () => {
      const traffic = exchange(lab, 'rr', flow, {
        common,
        client: ['--seconds', '4', '--interval-us', '5000', '--json'],
      });
      await waitCarried(running(), { proto: protocolNumber('udp', family), port: flow.port }, 'encap');
      await traffic;
    });
    const all = carriages(uplink, flow);
    expect(all.length).toEqual(atLeast(300));
    const outer = all.map(({ how, frame: { ip, ip6 } }) => [how, ip?.src ?? ip6?.src, ip6 !== undefined].join());
    const [here, there] = lab.nodes.map((node) => addressOf(node, underlay));
    const is6 = underlay === 'ipv6';
    expect(new Set(outer)).toEqual(new Set([`tunnel,${here},${is6}`, `tunnel,${there},${is6}`]));
  }, 30_000);
});
