/**
 * Mode encap: pod packets leave in a copy of the header that the slow path's own tunnel device writes, so that a node without
 * XMasq cannot tell, and those that arrive go to the pod past the tunnel device.
 */
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { sleep } from '../lab/lab.ts';
import type { Lab, LabOptions, Node, OffloadFlags, Pod } from '../lab/lab.ts';
import { freshPort } from '../lab/measure.ts';
import { up } from '../lab/native/native.ts';
import { IPPROTO } from '../lab/packet.ts';
import type { CapturedPacket } from '../lab/pcap.ts';
import { EMULATED, stretched } from '../lab/scale.ts';
import type { Counters, LabSidecars } from '../lab/sidecar.ts';
import { carriages } from './support/carriage.ts';
import { ENDS_OF_A_CONNECTION, watchCounters, watchReasons } from './support/counters.ts';
import { rawInput, udpFrame } from './support/frames.ts';
import { atLeast } from './support/matchers.ts';
import { carriedBy, flowsOf, startInMode, waitCarried } from './support/modes.ts';
import { exchange, nextHopMac, observe, ping } from './support/traffic.ts';
import type { Observation, Traffic } from './support/traffic.ts';
import { comparable, headerKind, innerFrame, tunnelled } from './support/tunnel.ts';
import type { WireFlow } from './support/wire.ts';

const OFF: OffloadFlags = { tso: false, gso: false, gro: false, tx: false, 'tx-udp-segmentation': false };
const ON: OffloadFlags = { tx: true, sg: true, tso: true, gso: true, gro: true, 'tx-udp-segmentation': true };
/** UDP is admitted once conntrack calls it assured: two seconds. */
const FAST_SECONDS = EMULATED ? 15 : 4;
const PATIENCE_MS = String(stretched(1000));

let lab: Lab;
let a: Pod;
let b: Pod;

async function build(options: LabOptions): Promise<void> {
  lab = await up(options);
  a = lab.node(0).pod(0);
  b = lab.node(1).pod(0);
  // ECN in use, and what a TCP server sends has the DSCP of what it is sent from the first packet on.
  const sysctls = 'echo 1 >/proc/sys/net/ipv4/tcp_ecn; echo 1 >/proc/sys/net/ipv4/tcp_reflect_tos';
  await Promise.all([a, b].map((pod) => pod.sh(sysctls)));
  await a.exec(['ping', '-c', '1', '-w', '10', '-q', b.address]);
}

/* ---- the traffic ---- */

type Make = (seconds: number) => Traffic;

function fresh(proto: WireFlow['proto']): WireFlow {
  return { from: a, to: b, proto, port: freshPort() };
}

function tcpSmall(tos = '0'): Make {
  return (seconds) => {
    const flow = fresh('tcp');
    const common = ['--tcp', '--port', String(flow.port), '--size', '100'];
    const client = ['--seconds', String(seconds), '--interval-us', '5000', '--timeout-ms', PATIENCE_MS, '--json'];
    const run = async (): Promise<void> =>
      expect(await exchange(lab, 'rr', flow, { common, client })).toMatchObject({ errors: 0, corrupt: 0 });
    return { name: `TCP, small, TOS ${tos}`, flow, run };
  };
}

function tcpBulk(sendSize: number, tos: string): Make {
  return (seconds) => {
    const flow = fresh('tcp');
    const common = ['--tcp', '--port', String(flow.port)];
    const size = String(seconds * 500_000);
    const client = ['--up', size, '--down', size, '--rate', '500000', '--send-size', String(sendSize), '--tos', tos];
    const run = async (): Promise<void> =>
      expect(await exchange(lab, 'stream', flow, { common, client })).toMatchObject({
        ...{ complete: true, corrupt: 0, peerCorrupt: 0 },
      });
    return { name: `TCP, sends of ${sendSize} bytes, TOS ${tos}`, flow, run };
  };
}

function udp(args: readonly string[], server: readonly string[] = []): Make {
  return (seconds) => {
    const flow = fresh('udp');
    const common = ['--udp', '--port', String(flow.port)];
    const client = ['--reply', '--rate', '200', '--seconds', String(seconds), ...args];
    const run = async (): Promise<void> =>
      expect(await exchange(lab, 'stream', flow, { common, server, client })).toMatchObject({
        peer: { lost: 0, corrupt: 0 },
        echo: { lost: 0, corrupt: 0 },
      });
    return { name: `UDP ${args.join(' ')}`, flow, run };
  };
}

let icmpId = 5000;

function icmp(args: readonly string[]): Make {
  return (seconds) => {
    icmpId += 1;
    const flow = { from: a, to: b, proto: 'icmp', port: icmpId } as const;
    const run = (): Promise<void> => ping(a, b, { id: flow.port, count: Math.round(seconds * 45), args });
    return { name: `ICMP ${args.join(' ')}`, flow, run };
  };
}

function allSizes(): Make[] {
  return [
    tcpSmall(),
    tcpBulk(65536, '0xb8'),
    udp(['--size', '100']),
    udp(['--size', String(b.mtu - 28), '--df', 'do', '--tos', '0xa2']),
    udp(['--size', '333', '--df', 'dont', '--tos', '0x39'], ['--df', 'dont']),
    icmp(['-s', '56']),
    icmp(['-s', String(b.mtu - 28), '-M', 'do', '-Q', '0x40', '-t', '33']),
  ];
}

/** Every ECN, of the same flow that is fast, and packets that no socket sends: no checksum, no DF. */
async function sendOdd(flow: WireFlow, hop: string): Promise<void> {
  const headers = [
    ...[0, 1, 2, 3].map((tos) => ({ tos })),
    { df: false, id: 77 },
    { id: 0x1234 },
    { checksum: false },
    { df: false, id: 9, checksum: false },
  ];
  const frames = headers.flatMap((header, i) =>
    [0, 1, 99, b.mtu - 28].map((size) =>
      udpFrame({
        ...{ srcMac: a.mac, dstMac: hop, src: a.address, dst: b.address },
        ...{ sport: flow.sport ?? 0, dport: flow.port, payload: Buffer.alloc(size, `${i} ${size} odd `) },
        ...header,
      }),
    ),
  );
  await a.exec([lab.tool('raw'), 'send', '--dev', a.device, '--rate', '1000'], { input: rawInput(frames) });
}

/** Packets that left an uplink in the tunnel while all of this traffic was fast, and the counters of both nodes meanwhile. */
interface Sample {
  readonly out: readonly (readonly CapturedPacket[])[];
  readonly counters: readonly Counters[];
}

/** Runs the traffic, and captures what leaves each node's uplink for a while once all of it is encapsulated by us. */
async function whileFast(
  sidecars: Pick<LabSidecars, 'nodes'>,
  makes: readonly Make[],
  meanwhile: (traffic: readonly Traffic[]) => Promise<void> = () => sleep(stretched(600)),
): Promise<Sample> {
  const traffic = makes.map((make) => make(FAST_SECONDS + 2));
  const running = Promise.all(traffic.map((each) => each.run()));
  const sampling = (async () => {
    await Promise.all(
      traffic.map(({ flow: { proto, port } }) => waitCarried(sidecars, { proto: IPPROTO[proto], port }, 'encap', 8000)),
    );
    const watch = await watchCounters(sidecars as LabSidecars);
    const places: readonly Node[] = sidecars.nodes.map(({ node }) => node);
    const captures = await Promise.all(
      places.map((node) => node.capture({ direction: 'out', filter: `udp dst port ${node.tunnel.port}` })),
    );
    await meanwhile(traffic);
    const results = await Promise.all(captures.map((capture) => capture.stop()));
    const counters = await watch.since();
    expect(results.map(({ dropped }) => dropped)).toEqual(places.map(() => 0));
    return { out: results.map(({ packets }) => packets), counters };
  })();
  const [sample] = await Promise.all([sampling, running]);
  return sample;
}

/** Every kind of packet once: at most `limit` with different lengths, protocols, traffic classes. */
function diverse(packets: readonly CapturedPacket[], limit: number): CapturedPacket[] {
  const kinds = Map.groupBy(packets, ({ inner }) => [inner?.ip?.proto, inner?.ip?.length, inner?.ip?.tos].join());
  const each = Math.max(1, Math.floor(limit / kinds.size));
  return [...kinds.values()].flatMap((same) => same.slice(0, each)).slice(0, 3 * limit);
}

/** Each frame is what the tunnel's device makes of the same inner frame. Returns how many were compared. */
async function expectSlowPathsOwn(node: Node, packets: readonly CapturedPacket[]): Promise<number> {
  const chosen = diverse(packets, 100).filter(({ wireLength }) => wireLength <= node.mtu + 14);
  const own = await tunnelled(lab, node, node.tunnelDevices[0] ?? '', chosen.map(innerFrame));
  for (const frame of chosen) {
    const reference = own.get(innerFrame(frame));
    if (reference === undefined) throw new Error(`the tunnel's device has not sent ${innerFrame(frame)}`);
    expect(comparable(frame)).toBe(comparable(reference));
    expect([frame.ip?.checksumValid, frame.l4?.checksumValid]).toEqual([true, reference.l4?.checksumValid]);
  }
  return chosen.length;
}

describe('between two nodes with XMasq', () => {
  let sidecars: LabSidecars;
  let reference: ReadonlyMap<string, Observation>;

  beforeAll(async () => {
    await build({ router: true, podsPerNode: 2 });
    await lab.offload(OFF);
    reference = await observe(
      lab,
      allSizes().map((make) => make(1)),
    );
    sidecars = await startInMode(lab, 'encap');
  }, 60_000);
  afterAll(async () => {
    await sidecars.down();
    await lab.down();
  });

  test('what we encapsulate is byte for byte what the tunnel’s own device makes of the same inner frame', async () => {
    await lab.offload(OFF);
    const hop = await nextHopMac(a, b);
    const sport = 9200;
    const raw: Make = (seconds) => {
      const flow = { ...fresh('udp'), sport };
      const common = ['--udp', '--port', String(flow.port)];
      const client = [
        ...['--seconds', String(seconds), '--interval-us', '5000', '--timeout-ms', PATIENCE_MS],
        ...['--sport', String(sport), '--json'],
      ];
      const run = async (): Promise<void> => {
        await exchange(lab, 'rr', flow, { common, client });
      };
      return { name: 'UDP, raw frames', flow, run };
    };
    const { out, counters } = await whileFast(sidecars, [...allSizes(), raw], async (traffic) => {
      const flow = traffic.at(-1)?.flow;
      if (flow !== undefined) await sendOdd(flow, hop);
      await sleep(stretched(300));
    });
    for (const [i, node] of lab.nodes.entries()) {
      const packets = out[i] ?? [];
      // All of it was ours, in both directions. Captures start and end a little apart from the counters.
      expect(counters[i]).toMatchObject({ slow_tx: 0, fast_encap: atLeast(packets.length), announced: 0 });
      expect(packets.length).toEqual(atLeast(300));
      expect(await expectSlowPathsOwn(node, packets)).toEqual(atLeast(30));
    }
  }, 60_000);

  test.each([
    ['cut on the uplink', { ...ON, 'tx-udp-segmentation': true }, { tso: false }],
    ['left whole', ON, {}],
  ] as const)(
    'segments of large packets, %s, too',
    async (name, all, uplink) => {
      await lab.offload(all);
      await Promise.all(lab.nodes.map((node) => node.offload(uplink)));
      const bulk = [tcpBulk(65536, '0'), tcpBulk(65536, '0x28')];
      const { out, counters } = await whileFast(sidecars, bulk);
      for (const [i, node] of lab.nodes.entries()) {
        const packets = out[i] ?? [];
        expect(counters[i]).toMatchObject({ slow_tx: 0, fast_encap: atLeast(5) });
        const largest = Math.max(...packets.map(({ wireLength }) => wireLength));
        if (name === 'left whole') {
          expect(largest).toBeGreaterThan(node.mtu + 14);
          // The device's own header of the small ones is the large ones', but for the lengths.
          const kinds = Map.groupBy(packets, (packet) => packet.wireLength > node.mtu + 14);
          const [large, small] = [true, false].map((big) => new Set(kinds.get(big)?.map(headerKind) ?? []));
          for (const kind of large ?? []) expect([...(small ?? [])]).toContain(kind);
          for (const { ip, inner } of packets) expect(ip?.length).toBe((inner?.ip?.length ?? 0) + 50);
        } else {
          expect(largest).toBe(node.mtu + 14);
        }
        expect(await expectSlowPathsOwn(node, packets)).toEqual(atLeast(3));
      }
      await lab.offload(ON);
    },
    60_000,
  );

  test('the receiving node takes them to the pod itself, and pods see what they see by the slow path', async () => {
    await lab.offload(OFF);
    const counters = await watchCounters(sidecars);
    const fast = await observe(
      lab,
      allSizes().map((make) => make(FAST_SECONDS)),
    );
    const [here, there] = await counters.since();
    for (const [name, { forward, backward, crossings }] of fast) {
      const before = reference.get(name);
      for (const [way, slow] of [
        [forward, before?.forward],
        [backward, before?.backward],
      ] as const) {
        expect({ name, ...way }).toMatchObject({
          ...{ name, strays: [], unmatched: 0, lost: 0, wrongChecksums: 0, marked: 0 },
          ...{ changes: slow?.changes, headers: slow?.headers },
        });
      }
      expect(new Set(crossings.map(({ path }) => path))).toEqual(new Set(['slow']));
    }
    // Most of it: UDP is slow for two of four seconds. How the slow path delivers is learned from a packet or two of each flow.
    for (const [sender, receiver] of [
      [here, there],
      [there, here],
    ]) {
      expect(sender?.fast_encap).toEqual(atLeast(1000));
      expect(receiver?.decapsulated).toEqual(atLeast((sender?.fast_encap ?? 0) - 5 * allSizes().length));
      expect((sender?.fast_tx ?? 0) + (sender?.restored ?? 0)).toBe(0);
    }
  }, 60_000);

  test.each([
    ['all offloads', ON],
    ['no offload', OFF],
  ])('with %s streams arrive whole', async (_name, offloads) => {
    await lab.offload(offloads);
    const counters = await watchCounters(sidecars);
    const reasons = await watchReasons(sidecars.node(0));
    const flow = fresh('tcp');
    const common = ['--tcp', '--port', String(flow.port)];
    const client = ['--up', '20M', '--down', '20M'];
    expect(await exchange(lab, 'stream', flow, { common, client })).toMatchObject({
      ...{ complete: true, corrupt: 0, peerCorrupt: 0, peerReceived: 20e6, received: 20e6 },
    });
    for (const each of await counters.since()) {
      expect(each).toMatchObject({ fast_encap: atLeast(20), decapsulated: atLeast(20) });
    }
    expect(ENDS_OF_A_CONNECTION).toEqual(expect.arrayContaining(await reasons.since()));
  });

  test('congestion marks of the underlay reach the pod as through the tunnel device', async () => {
    await lab.offload(OFF);
    await lab.underlay.addRules(['ip ecn != not-ect ip ecn set ce']);
    try {
      const marked = ['0x28', '0x29', '0x2a'].map((tos) => udp(['--size', '100', '--tos', tos]));
      const now = await observe(
        lab,
        marked.map((make) => make(FAST_SECONDS)),
      );
      const arrived = [...now.values()].map(({ forward }) => forward.headers);
      expect(arrived).toEqual([['0x28 DF'], ['0x2b DF'], ['0x2b DF']]);
      for (const { forward, backward } of now.values()) {
        expect([forward, backward]).toMatchObject(Array(2).fill({ unmatched: 0, lost: 0, wrongChecksums: 0 }));
      }
    } finally {
      await lab.underlay.clear();
    }
  }, 30_000);

  test('a deny rule leaves what is established, and what it denies is never encapsulated by us', async () => {
    await lab.offload(ON);
    const established = tcpSmall()(FAST_SECONDS + 2);
    const { proto, port } = established.flow;
    const running = established.run();
    await waitCarried(sidecars, { proto: IPPROTO.tcp, port }, 'encap');
    await lab.policy.deny({ srcPod: a, dstPod: b, proto: 'tcp', nodes: [lab.node(1)] });
    const denied = { ...fresh('tcp'), port: freshPort() };
    const capture = await lab.node(0).capture({ direction: 'out', snapLength: 200 });
    const before = await watchCounters(sidecars);
    await expect(
      exchange(lab, 'rr', denied, {
        common: ['--tcp', '--port', String(denied.port)],
        client: ['--seconds', '1', '--timeout-ms', '500', '--json'],
      }),
    ).rejects.toThrow();
    const [here] = await before.since();
    const crossed = await capture.stop();
    expect(await carriedBy(sidecars.node(0), { proto: IPPROTO.tcp, port })).toEqual(['encap']);
    expect(await flowsOf(sidecars.node(0), { proto: IPPROTO.tcp, port: denied.port })).toEqual([]);
    const others = carriages(crossed, { from: a, to: b, proto, port }).filter(({ forward }) => forward);
    expect(carriages(crossed, denied).map(({ packet }) => packet.l4?.flags)).toEqual(atLeastOneSyn());
    // Every packet that we encapsulated was of the other connection. (The counters were read within the capture.)
    expect(here?.fast_encap).toBeLessThanOrEqual(others.length);
    expect(here?.fast_encap).toEqual(atLeast(50));
    await running;
    await lab.policy.clear();
  }, 30_000);
});

/** Nothing but SYNs, and at least one. */
function atLeastOneSyn(): unknown {
  return expect.arrayContaining([0xc2]);
}

describe('to a node without XMasq', () => {
  let sidecars: LabSidecars;

  beforeAll(async () => {
    await build({ podsPerNode: 1 });
    sidecars = await startInMode(lab, 'encap');
    const plain = sidecars.node(1);
    sidecars.setCapability(plain.node, undefined);
    await plain.stop();
    await plain.cleanup('--force');
    await sleep(stretched(2500));
  }, 60_000);
  afterAll(async () => {
    await sidecars.down();
    await lab.down();
  });

  test('all of it arrives, is answered, and looks as by the slow path', async () => {
    await lab.offload(OFF);
    const with_ = { nodes: [sidecars.node(0)] };
    const { stdout } = await lab.node(1).exec(['bpftool', 'net', 'show']);
    expect(stdout).not.toMatch(/pod_|uplink_/);
    const { out, counters } = await whileFast(with_, allSizes());
    expect(counters[0]).toMatchObject({ slow_tx: 0, slow_rx: 0, fast_encap: atLeast(300), decapsulated: atLeast(300) });
    expect(await expectSlowPathsOwn(lab.node(0), out[0] ?? [])).toEqual(atLeast(20));
    const observed = await observe(
      lab,
      allSizes().map((make) => make(FAST_SECONDS)),
    );
    for (const [name, { forward, backward }] of observed) {
      // The IDs of what a node without XMasq sends are its pods' own.
      expect(forward.marked).toBe(0);
      for (const way of [forward, backward]) {
        expect({ name, ...way }).toMatchObject({
          ...{ name, unmatched: 0, lost: 0, wrongChecksums: 0 },
          changes: [expect.stringMatching(/^from [0-9a-f:]{17}, to [0-9a-f:]{17}, TTL -2$/)],
        });
      }
    }
  }, 60_000);

  test('a stream with segments to be cut, too', async () => {
    await lab.offload(ON);
    const flow = fresh('tcp');
    const common = ['--tcp', '--port', String(flow.port)];
    expect(await exchange(lab, 'stream', flow, { common, client: ['--up', '20M', '--down', '20M'] })).toMatchObject({
      complete: true,
      corrupt: 0,
      peerCorrupt: 0,
    });
    const status = await sidecars.node(0).status();
    expect(status.counters).toMatchObject({ fast_encap: atLeast(20), decapsulated: atLeast(20), fast_tx: 0 });
  });
});

describe('with UDP checksums and another port for the tunnel', () => {
  let sidecars: LabSidecars;
  const PORT = 14789;

  beforeAll(async () => {
    await build({ podsPerNode: 1, tunnel: { type: 'vxlan', port: PORT, checksum: true } });
    sidecars = await startInMode(lab, 'encap');
  }, 60_000);
  afterAll(async () => {
    await sidecars.down();
    await lab.down();
  });

  test.each([
    ['no offload', OFF],
    ['checksums left to the device', { ...OFF, tx: true }],
  ])(
    'single packets are fast, with the right checksum: %s',
    async (_name, offloads) => {
      await lab.offload(offloads);
      const { out, counters } = await whileFast(sidecars, allSizes());
      for (const [i, node] of lab.nodes.entries()) {
        const packets = out[i] ?? [];
        expect(counters[i]).toMatchObject({ slow_tx: 0, fast_encap: atLeast(300), decapsulated: atLeast(300) });
        expect(new Set(packets.map(({ l4 }) => l4?.dport))).toEqual(new Set([PORT]));
        if (_name === 'no offload') {
          expect(packets.filter(({ l4 }) => l4?.checksumValid !== true)).toEqual([]);
          expect(await expectSlowPathsOwn(node, packets)).toEqual(atLeast(20));
        }
      }
    },
    60_000,
  );

  test('what has to be cut into segments is slow, and says why', async () => {
    await lab.offload(ON);
    const before = (await sidecars.node(0).status()).reasons.tunnel_checksum;
    const flow = fresh('tcp');
    const common = ['--tcp', '--port', String(flow.port)];
    expect(await exchange(lab, 'stream', flow, { common, client: ['--up', '5M', '--down', '5M'] })).toMatchObject({
      complete: true,
      corrupt: 0,
      peerCorrupt: 0,
    });
    expect((await sidecars.node(0).status()).reasons.tunnel_checksum - before).toEqual(atLeast(20));
  });
});
