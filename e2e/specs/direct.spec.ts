/**
 * Antrea's noEncap: pod packets cross the underlay as they are. Past bridge and routes on both nodes, with the TTL that the
 * slow path gives them, and only those of connections that Antrea has allowed.
 */
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { OFFLOADS_OFF, OFFLOADS_ON, addressOf } from '../lab/lab.ts';
import type { Family, Lab, Pod } from '../lab/lab.ts';
import { freshPort } from '../lab/measure.ts';
import { up } from '../lab/native/native.ts';
import { network } from '../lab/packet.ts';
import { PATIENCE_MS } from '../lab/scale.ts';
import type { LabSidecars } from '../lab/sidecar.ts';
import { carriages } from './support/carriage.ts';
import type { Carriage } from './support/carriage.ts';
import { ENDS_OF_A_CONNECTION, watchCounters, watchReasons } from './support/counters.ts';
import { protocolNumber } from './support/delivery.ts';
import { atLeast } from './support/matchers.ts';
import { carriedBy, flowsOf, startInMode, waitCarried } from './support/modes.ts';
import { captured, exchange, observe, ping } from './support/traffic.ts';
import type { Observation, Traffic } from './support/traffic.ts';
import { TCP } from './support/wire.ts';
import type { WireFlow } from './support/wire.ts';

const FAMILIES: readonly Family[] = ['ipv4', 'ipv6'];
/** UDP is admitted once conntrack calls it assured: two seconds. */
const FAST_SECONDS = 4;
/** Source nibble of a connection's mark: Antrea's words for "from the gateway" and "from a pod of this node". */
const FROM_GATEWAY = 2;
const FROM_POD = 3;

type Make = (seconds: number) => Traffic;

let icmpId = 8000;

describe.each([
  ['on one segment', false],
  ['behind a router', true],
])('nodes %s', (_name, router) => {
  let lab: Lab;
  let sidecars: LabSidecars | undefined;
  let a: Pod;
  let b: Pod;
  let reference: ReadonlyMap<string, Observation>;
  let referenceWire: ReadonlyMap<string, readonly Carriage[]>;
  let mix: readonly Make[];

  function running(): LabSidecars {
    if (sidecars === undefined) throw new Error('the sidecars are not running yet');
    return sidecars;
  }

  function fresh(proto: WireFlow['proto'], family: Family): WireFlow {
    icmpId += 1;
    return { from: a, to: b, proto, port: proto === 'icmp' ? icmpId : freshPort(), family };
  }

  function tcp(family: Family, args: readonly string[]): Make {
    return (seconds) => {
      const flow = fresh('tcp', family);
      const common = ['--tcp', '--port', String(flow.port)];
      const size = String(Math.round(seconds * 300_000));
      const client = ['--up', size, '--down', size, '--rate', '300000', '--send-size', '9000', ...args];
      const run = async (): Promise<void> =>
        expect(await exchange(lab, 'stream', flow, { common, client })).toMatchObject({ complete: true, corrupt: 0 });
      return { name: `TCP ${family} ${args.join(' ')}`, flow, run };
    };
  }

  function udp(family: Family, args: readonly string[]): Make {
    return (seconds) => {
      const flow = fresh('udp', family);
      const common = ['--udp', '--port', String(flow.port)];
      const client = ['--reply', '--rate', '150', '--seconds', String(seconds), ...args];
      const run = async (): Promise<void> =>
        expect(await exchange(lab, 'stream', flow, { common, client })).toMatchObject({
          ...{ peer: { lost: 0, corrupt: 0 }, echo: { lost: 0, corrupt: 0 } },
        });
      return { name: `UDP ${family} ${args.join(' ')}`, flow, run };
    };
  }

  function icmp(family: Family, args: readonly string[]): Make {
    return (seconds) => {
      const flow = fresh('icmp', family);
      const run = (): Promise<void> => ping(a, b, { id: flow.port, count: Math.round(seconds * 40), args, family });
      return { name: `ICMP ${family} ${args.join(' ')}`, flow, run };
    };
  }

  /** Runs the traffic; what the pods saw, and what crossed. */
  async function run(seconds: number): Promise<[Map<string, Observation>, Map<string, readonly Carriage[]>]> {
    const traffic = mix.map((make) => make(seconds));
    const capture = await lab.node(0).capture();
    const observed = await observe(lab, traffic);
    const uplink = await capture.stop();
    return [observed, new Map(traffic.map(({ name, flow }) => [name, carriages(uplink, flow)]))];
  }

  beforeAll(async () => {
    lab = await up({ ipv6: true, encapMode: 'noEncap', router, podsPerNode: 1 });
    [a, b] = [lab.node(0).pod(0), lab.node(1).pod(0)];
    await lab.offload(OFFLOADS_OFF);
    mix = FAMILIES.flatMap((family) => [
      tcp(family, ['--tos', '0xb8']),
      udp(family, ['--size', '100', '--ttl', '200']),
      udp(family, ['--size', String(b.mtu - 48), '--tos', '0x39']),
      icmp(family, ['-s', '56', '-t', '33']),
    ]);
    const tos = 'echo 1 >/proc/sys/net/ipv4/tcp_reflect_tos';
    await Promise.all([a, b].map((pod) => pod.sh(tos)));
    [reference, referenceWire] = await run(0.7);
    sidecars = await startInMode(lab, 'direct');
  }, 60_000);
  afterAll(async () => {
    await sidecars?.down();
    await lab.down();
  });

  test('packets cross with the pods’ addresses and the TTL of the slow path, and pods cannot tell', async () => {
    await lab.offload(OFFLOADS_OFF);
    const counters = await watchCounters(running());
    const [fast, wire] = await run(FAST_SECONDS);
    const [here, there] = await counters.since();
    for (const [name, { forward, backward }] of fast) {
      const before = reference.get(name);
      for (const [way, slow] of [
        [forward, before?.forward],
        [backward, before?.backward],
      ] as const) {
        expect({ name, ...way }).toMatchObject({
          ...{ name, strays: [], unmatched: 0, lost: 0, wrongChecksums: 0 },
          ...{ received: atLeast(50), changes: slow?.changes, headers: slow?.headers },
        });
      }
      // Also the MAC addresses are the slow path's: next hop and own.
      const kinds = (all: readonly Carriage[] | undefined): string[] => [
        ...new Set(
          all?.map(({ how, forward: way, frame, packet }) =>
            [how, way, frame.srcMac, frame.dstMac, network(packet)?.ttl, network(packet)?.tos].join(),
          ),
        ),
      ];
      expect({ name, kinds: kinds(wire.get(name)).sort() }).toEqual({
        name,
        kinds: kinds(referenceWire.get(name)).sort(),
      });
    }
    for (const [sender, receiver] of [
      [here, there],
      [there, here],
    ]) {
      expect(sender?.fast_direct).toEqual(atLeast(1500));
      expect(receiver?.direct_rx).toEqual(atLeast((sender?.fast_direct ?? 0) - 5 * mix.length));
      expect((sender?.fast_tx ?? 0) + (sender?.fast_encap ?? 0) + (sender?.announced ?? 0)).toBe(0);
    }
  }, 60_000);

  test.each([
    ['all offloads', OFFLOADS_ON],
    ['no offload', OFFLOADS_OFF],
  ] as const)('with %s streams of both families arrive whole', async (_offloads, offloads) => {
    await lab.offload(offloads);
    const counters = await watchCounters(running());
    const reasons = await watchReasons(running().node(0));
    for (const family of FAMILIES) {
      const flow = fresh('tcp', family);
      const common = ['--tcp', '--port', String(flow.port)];
      expect(await exchange(lab, 'stream', flow, { common, client: ['--up', '10M', '--down', '10M'] })).toMatchObject({
        complete: true,
        corrupt: 0,
        peerCorrupt: 0,
      });
    }
    for (const each of await counters.since()) {
      expect(each).toMatchObject({ fast_direct: atLeast(100), direct_rx: atLeast(100) });
    }
    expect(ENDS_OF_A_CONNECTION).toEqual(expect.arrayContaining(await reasons.since()));
  });

  test.each(FAMILIES)('%s: the receiving node’s entry has the mark of the gateway, and is accepted', async (family) => {
    const flow = fresh('tcp', family);
    const common = ['--tcp', '--port', String(flow.port)];
    const traffic = exchange(lab, 'rr', flow, {
      common,
      client: ['--seconds', '2', '--interval-us', '5000', '--json'],
    });
    const ends = { proto: protocolNumber('tcp', family), port: flow.port };
    await waitCarried(running(), ends, 'direct');
    const filter = { family, proto: 'tcp', src: addressOf(a, family), dport: flow.port } as const;
    const marks = await Promise.all(
      lab.nodes.map(async ({ conntrack }) => {
        const entries = (await conntrack.list(filter)).filter(({ zone }) => zone !== 0);
        return entries.map(({ mark }) => mark & 0xf);
      }),
    );
    expect(marks.map((each) => [...new Set(each)])).toEqual([[FROM_POD], [FROM_GATEWAY]]);
    await traffic;
  });

  test.each(FAMILIES)(
    '%s: policy holds',
    async (family) => {
      await lab.offload(OFFLOADS_ON);
      const established = fresh('tcp', family);
      const common = ['--tcp', '--port', String(established.port)];
      const client = ['--seconds', '4', '--interval-us', '5000', '--timeout-ms', PATIENCE_MS, '--json'];
      const traffic = exchange(lab, 'rr', established, { common, client });
      const ends = { proto: protocolNumber('tcp', family), port: established.port };
      await waitCarried(running(), ends, 'direct');
      await lab.policy.deny({ srcPod: a, dstPod: b, proto: 'tcp', nodes: [lab.node(1)] });
      try {
        const denied = fresh('tcp', family);
        const { uplink } = await captured(lab, [], async () => {
          await expect(
            exchange(lab, 'rr', denied, {
              common: ['--tcp', '--port', String(denied.port)],
              client: ['--seconds', '1', '--timeout-ms', '500', '--json'],
            }),
          ).rejects.toThrow();
        });
        expect(await carriedBy(running().node(0), ends)).toEqual(['direct']);
        expect(await flowsOf(running().node(0), { ...ends, port: denied.port })).toEqual([]);
        const flags = carriages(uplink, denied).map(({ packet }) => (packet.l4?.flags ?? 0) & (TCP.syn | TCP.ack));
        expect(new Set(flags)).toEqual(new Set([TCP.syn]));
        expect(await traffic).toMatchObject({ errors: 0, corrupt: 0 });
      } finally {
        await lab.policy.clear();
      }
    },
    30_000,
  );
});
