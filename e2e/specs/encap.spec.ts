/**
 * Mode encap: pod packets leave in a copy of the header that the slow path's own tunnel device writes, so that a node without
 * XMasq cannot tell, and those that arrive go to the pod past the tunnel device.
 */
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { OFFLOADS_OFF, OFFLOADS_ON, sleep } from '../lab/lab.ts';
import type { Lab, LabOptions, Node, Pod } from '../lab/lab.ts';
import { freshPort } from '../lab/measure.ts';
import { up } from '../lab/native/native.ts';
import { IPPROTO } from '../lab/packet.ts';
import { stretched } from '../lab/scale.ts';
import type { LabSidecars } from '../lab/sidecar.ts';
import { carriages } from './support/carriage.ts';
import { ENDS_OF_A_CONNECTION, watchCounters, watchReasons } from './support/counters.ts';
import { EncapTraffic, FAST_SECONDS, expectSlowPathsOwn } from './support/encap-traffic.ts';
import { attachments } from './support/footprint.ts';
import { atLeast } from './support/matchers.ts';
import { carriedBy, flowsOf, startInMode, waitCarried } from './support/modes.ts';
import { exchange, nextHopMac, observe } from './support/traffic.ts';
import type { Observation } from './support/traffic.ts';
import { headerKind } from './support/tunnel.ts';

let lab: Lab;
let a: Pod;
let b: Pod;

let traffic: EncapTraffic;

async function build(options: LabOptions): Promise<void> {
  lab = await up(options);
  traffic = await EncapTraffic.between(lab);
  a = lab.node(0).pod(0);
  b = lab.node(1).pod(0);
}

function other(i: number): Node {
  return lab.node(1 - i);
}

describe('between two nodes with XMasq', () => {
  let sidecars: LabSidecars;
  let reference: ReadonlyMap<string, Observation>;

  beforeAll(async () => {
    await build({ router: true, podsPerNode: 2 });
    await lab.offload(OFFLOADS_OFF);
    reference = await observe(
      lab,
      traffic.allSizes().map((make) => make(1)),
    );
    sidecars = await startInMode(lab, 'encap');
  }, 60_000);
  afterAll(async () => {
    await sidecars.down();
    await lab.down();
  });

  test('what we encapsulate is byte for byte what the tunnel’s own device makes of the same inner frame', async () => {
    await lab.offload(OFFLOADS_OFF);
    const hop = await nextHopMac(a, b);
    const raw = traffic.udpOnPorts(9200, freshPort());
    const { out, counters } = await traffic.whileFast(sidecars, [...traffic.allSizes(), raw], async (running) => {
      const flow = running.at(-1)?.flow;
      if (flow !== undefined) await traffic.sendFrames(traffic.oddFrames(flow, hop));
      await sleep(stretched(300));
    });
    for (const [i, node] of lab.nodes.entries()) {
      const packets = out[i] ?? [];
      // All of it was ours, in both directions. Captures start and end a little apart from the counters.
      expect(counters[i]).toMatchObject({ slow_tx: 0, fast_encap: atLeast(packets.length), announced: 0 });
      expect(packets.length).toEqual(atLeast(300));
      expect(await expectSlowPathsOwn(node, other(i), packets)).toEqual(atLeast(30));
    }
  }, 60_000);

  test.each([
    ['cut on the uplink', { ...OFFLOADS_ON, 'tx-udp-segmentation': true }, { tso: false }],
    ['left whole', OFFLOADS_ON, {}],
  ] as const)(
    'segments of large packets, %s, too',
    async (name, all, uplink) => {
      await lab.offload(all);
      await Promise.all(lab.nodes.map((node) => node.offload(uplink)));
      const bulk = [traffic.tcpBulk(65536, '0'), traffic.tcpBulk(65536, '0x28')];
      const { out, counters } = await traffic.whileFast(sidecars, bulk);
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
        expect(await expectSlowPathsOwn(node, other(i), packets)).toEqual(atLeast(3));
      }
      await lab.offload(OFFLOADS_ON);
    },
    60_000,
  );

  test('the receiving node takes them to the pod itself, and pods see what they see by the slow path', async () => {
    await lab.offload(OFFLOADS_OFF);
    const counters = await watchCounters(sidecars);
    const fast = await observe(
      lab,
      traffic.allSizes().map((make) => make(FAST_SECONDS)),
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
      expect(receiver?.decapsulated).toEqual(atLeast((sender?.fast_encap ?? 0) - 5 * traffic.allSizes().length));
      expect((sender?.fast_tx ?? 0) + (sender?.restored ?? 0)).toBe(0);
    }
  }, 60_000);

  test.each([
    ['all offloads', OFFLOADS_ON],
    ['no offload', OFFLOADS_OFF],
  ])('with %s streams arrive whole', async (_name, offloads) => {
    await lab.offload(offloads);
    const counters = await watchCounters(sidecars);
    const reasons = await watchReasons(sidecars.node(0));
    const flow = traffic.fresh('tcp');
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
    await lab.offload(OFFLOADS_OFF);
    await lab.underlay.addRules(['ip ecn != not-ect ip ecn set ce']);
    try {
      const marked = ['0x28', '0x29', '0x2a'].map((tos) => traffic.udp(['--size', '100', '--tos', tos]));
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
    await lab.offload(OFFLOADS_ON);
    const established = traffic.tcpSmall()(FAST_SECONDS + 2);
    const { proto, port } = established.flow;
    const running = established.run();
    await waitCarried(sidecars, { proto: IPPROTO.tcp, port }, 'encap');
    await lab.policy.deny({ srcPod: a, dstPod: b, proto: 'tcp', nodes: [lab.node(1)] });
    const denied = { ...traffic.fresh('tcp'), port: freshPort() };
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
    await lab.offload(OFFLOADS_OFF);
    const with_ = { nodes: [sidecars.node(0)] };
    expect(await attachments(lab.node(1))).toEqual([]);
    const { out, counters } = await traffic.whileFast(with_, traffic.allSizes());
    expect(counters[0]).toMatchObject({ slow_tx: 0, slow_rx: 0, fast_encap: atLeast(300), decapsulated: atLeast(300) });
    expect(await expectSlowPathsOwn(lab.node(0), lab.node(1), out[0] ?? [])).toEqual(atLeast(20));
    const observed = await observe(
      lab,
      traffic.allSizes().map((make) => make(FAST_SECONDS)),
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
    await lab.offload(OFFLOADS_ON);
    const flow = traffic.fresh('tcp');
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
    ['no offload', OFFLOADS_OFF],
    ['checksums left to the device', { ...OFFLOADS_OFF, tx: true }],
  ])(
    'single packets are fast, with the right checksum: %s',
    async (_name, offloads) => {
      await lab.offload(offloads);
      const { out, counters } = await traffic.whileFast(sidecars, traffic.allSizes());
      for (const [i, node] of lab.nodes.entries()) {
        const packets = out[i] ?? [];
        expect(counters[i]).toMatchObject({ slow_tx: 0, fast_encap: atLeast(300), decapsulated: atLeast(300) });
        expect(new Set(packets.map(({ l4 }) => l4?.dport))).toEqual(new Set([PORT]));
        if (_name === 'no offload') {
          expect(packets.filter(({ l4 }) => l4?.checksumValid !== true)).toEqual([]);
          expect(await expectSlowPathsOwn(node, other(i), packets)).toEqual(atLeast(20));
        }
      }
    },
    60_000,
  );

  test('what has to be cut into segments is slow, and says why', async () => {
    await lab.offload(OFFLOADS_ON);
    const before = (await sidecars.node(0).status()).reasons.tunnel_checksum;
    const flow = traffic.fresh('tcp');
    const common = ['--tcp', '--port', String(flow.port)];
    expect(await exchange(lab, 'stream', flow, { common, client: ['--up', '5M', '--down', '5M'] })).toMatchObject({
      complete: true,
      corrupt: 0,
      peerCorrupt: 0,
    });
    expect((await sidecars.node(0).status()).reasons.tunnel_checksum - before).toEqual(atLeast(20));
  });
});
