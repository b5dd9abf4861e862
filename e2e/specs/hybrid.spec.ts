/**
 * Antrea's hybrid mode: pod packets to nodes of the same subnet cross as they are, those to others as with a tunnel. Each family
 * by itself: nodes may be near for the one and far for the other.
 */
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { OFFLOADS_OFF, addressOf } from '../lab/lab.ts';
import type { Family, Lab, Pod } from '../lab/lab.ts';
import { freshPort } from '../lab/measure.ts';
import { up } from '../lab/native/native.ts';
import type { LabSidecars } from '../lab/sidecar.ts';
import { carriages } from './support/carriage.ts';
import type { Carriage } from './support/carriage.ts';
import { watchCounters } from './support/counters.ts';
import { protocolNumber } from './support/delivery.ts';
import { atLeast } from './support/matchers.ts';
import { startInMode, waitCarried } from './support/modes.ts';
import { observe, exchange, ping } from './support/traffic.ts';
import type { Observation, Traffic } from './support/traffic.ts';
import type { WireFlow } from './support/wire.ts';

type Protocol = 'tcp' | 'udp' | 'icmp';
const PROTOCOLS: readonly Protocol[] = ['tcp', 'udp', 'icmp'];
const FAMILIES: readonly Family[] = ['ipv4', 'ipv6'];
/** UDP is admitted once conntrack calls it assured: two seconds. */
const FAST_SECONDS = 4;
/** Source nibbles of a connection's mark on the node of its server: by the tunnel, by the gateway. */
const MARKS = { far: 1, near: 2 } as const;

let icmpId = 8500;

describe.each<{ readonly what: string; readonly router: boolean; readonly apart?: Family }>([
  { what: 'in one subnet', router: false },
  { what: 'behind a router', router: true },
  { what: 'in one IPv4 subnet, and two of IPv6', router: false, apart: 'ipv6' },
  { what: 'in one IPv6 subnet, and two of IPv4', router: false, apart: 'ipv4' },
])('nodes $what', ({ router, apart }) => {
  let lab: Lab;
  let sidecars: LabSidecars | undefined;
  let a: Pod;
  let b: Pod;
  let reference: ReadonlyMap<string, Observation>;

  function near(family: Family): boolean {
    return !router && apart !== family;
  }

  function running(): LabSidecars {
    if (sidecars === undefined) throw new Error('the sidecars are not running yet');
    return sidecars;
  }

  function traffic(proto: Protocol, family: Family, seconds: number): Traffic {
    icmpId += 1;
    const flow: WireFlow = { from: a, to: b, proto, port: proto === 'icmp' ? icmpId : freshPort(), family };
    const common = [`--${proto}`, '--port', String(flow.port)];
    const size = String(Math.round(seconds * 200_000));
    const client =
      proto === 'tcp'
        ? ['--up', size, '--down', size, '--rate', '200000', '--send-size', '9000']
        : ['--reply', '--rate', '100', '--seconds', String(seconds), '--size', '300'];
    return {
      name: `${proto} ${family}`,
      flow,
      run: async () => {
        if (proto === 'icmp') await ping(a, b, { id: flow.port, count: Math.round(seconds * 40), family });
        else {
          const expected = { tcp: { complete: true, corrupt: 0 }, udp: { peer: { lost: 0 }, echo: { lost: 0 } } };
          expect(await exchange(lab, 'stream', flow, { common, client })).toMatchObject(expected[proto]);
        }
      },
    };
  }

  function mix(seconds: number): Traffic[] {
    return FAMILIES.flatMap((family) => PROTOCOLS.map((proto) => traffic(proto, family, seconds)));
  }

  beforeAll(async () => {
    lab = await up({
      ipv6: true,
      encapMode: 'hybrid',
      podsPerNode: 1,
      router,
      ...(apart === undefined ? {} : { apart }),
    });
    [a, b] = [lab.node(0).pod(0), lab.node(1).pod(0)];
    await lab.offload(OFFLOADS_OFF);
    reference = await observe(lab, mix(0.7));
    sidecars = await startInMode(lab, 'masquerade');
  }, 60_000);
  afterAll(async () => {
    await sidecars?.down();
    await lab.down();
  });

  test('near ones are reached as they are, far ones masqueraded, and pods cannot tell', async () => {
    const all = mix(FAST_SECONDS);
    const counters = await watchCounters(running());
    const capture = await lab.node(0).capture();
    const [observed] = await Promise.all([
      observe(lab, all),
      ...all.map(({ flow: { proto, port, family = 'ipv4' } }) =>
        waitCarried(
          running(),
          { proto: protocolNumber(proto, family), port },
          near(family) ? 'direct' : 'masquerade',
          FAST_SECONDS * 1000,
        ),
      ),
    ]);
    const uplink = await capture.stop();
    for (const { name, flow } of all) {
      const [fast, slow] = [observed.get(name), reference.get(name)];
      for (const [way, before] of [
        [fast?.forward, slow?.forward],
        [fast?.backward, slow?.backward],
      ]) {
        expect({ name, ...way }).toMatchObject({
          ...{ name, strays: [], unmatched: 0, lost: 0, wrongChecksums: 0 },
          ...{ received: atLeast(50), changes: before?.changes, headers: before?.headers },
        });
      }
      const { family = 'ipv4' } = flow;
      const ways = new Map<Carriage['how'], number>();
      for (const { how } of carriages(uplink, flow)) ways.set(how, (ways.get(how) ?? 0) + 1);
      expect({ name, ways: Object.fromEntries(ways) }).toEqual({
        name,
        ways: near(family)
          ? { plain: atLeast(100) }
          : { masqueraded: atLeast(100), ...(ways.has('tunnel') ? { tunnel: atLeast(1) } : {}) },
      });
    }
    const expected = { fast_direct: FAMILIES.some(near), fast_tx: FAMILIES.some((family) => !near(family)) };
    for (const each of await counters.since()) {
      expect({ fast_direct: each.fast_direct > 200, fast_tx: each.fast_tx > 200 }).toEqual(expected);
    }
  }, 60_000);

  test.each(FAMILIES)('%s: the receiving node’s entry has the mark of its way', async (family) => {
    const tcp = traffic('tcp', family, 1.5);
    const { flow } = tcp;
    const talk = tcp.run();
    const mode = near(family) ? 'direct' : 'masquerade';
    await waitCarried(running(), { proto: protocolNumber('tcp', family), port: flow.port }, mode);
    const filter = { family, proto: 'tcp', src: addressOf(a, family), dport: flow.port } as const;
    const entries = await lab.node(1).conntrack.list(filter);
    const marks = entries.filter(({ zone }) => zone !== 0).map(({ mark }) => mark & 0xf);
    expect(marks).toEqual([near(family) ? MARKS.near : MARKS.far]);
    await talk;
  });

  test('the command line tells each family’s way', async () => {
    const { json } = await running().node(0).cli(['peers', '-o', 'json']);
    const { peers } = json as { peers: { paths: { family: number; mode: string }[] }[] };
    const modes = peers.flatMap(({ paths }) => paths.map(({ family, mode }) => `${family} ${mode}`));
    expect(new Set(modes)).toEqual(
      new Set(FAMILIES.map((family) => `${family.slice(-1)} TRANSMIT_MODE_${near(family) ? 'DIRECT' : 'MASQUERADE'}`)),
    );
  });
});
