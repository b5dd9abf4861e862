/** Ways in which pod traffic crosses the underlay without XMasq: families of the outer header, its options, no tunnel. */
import { describe, expect, test } from '@jest/globals';
import { ANTREA, addressOf } from './lab.ts';
import type { Family, LabOptions, Pod } from './lab.ts';
import { freshPort, iperf } from './measure.ts';
import { up, withLab } from './native/native.ts';
import type { NativeLab } from './native/native.ts';
import { network } from './packet.ts';
import { splitTunnel } from './pcap.ts';
import type { CapturedPacket } from './pcap.ts';

/** Echo requests and replies. */
const ECHO: ReadonlySet<number | undefined> = new Set([0, 8, 128, 129]);
const ZONES = { ipv4: ANTREA.zone, ipv6: ANTREA.zone6 } as const;

/** What the second node's uplink sees of three echo requests, full size, and their replies. */
async function echoes(lab: NativeLab, family: Family): Promise<CapturedPacket[]> {
  const [a, b] = [lab.node(0).pod(0), lab.node(1).pod(0)];
  const size = a.mtu - (family === 'ipv4' ? 28 : 48);
  const capture = await lab.node(1).capture();
  const ping = ['ping', '-c3', '-i0.05', '-W1', '-M', 'do', '-s', String(size), addressOf(b, family)];
  expect((await a.exec(ping, { check: false })).stdout).toMatch(/3 received/);
  const { packets } = await capture.stop();
  return packets.filter((packet) => ECHO.has((packet.inner ?? packet).l4?.icmpType));
}

/** What both nodes' conntrack has of a TCP connection from pod to pod: zones and marks. */
async function marks(lab: NativeLab, family: Family): Promise<unknown> {
  const [from, to] = [lab.node(0).pod(0), lab.node(1).pod(0)];
  const port = freshPort();
  await iperf({ from, to, family }, { port, bytes: 100_000 });
  const lists = await Promise.all(lab.nodes.map((node) => node.conntrack.list({ family, proto: 'tcp', dport: port })));
  return lists.map((list) => list.map(({ zone, mark, assured }) => ({ zone, mark, assured })));
}

function twice<T>(value: T): T[] {
  return [value, value];
}

describe.each<[NonNullable<LabOptions['underlay']>, boolean, Family, Family]>([
  ['ipv6', false, 'ipv4', 'ipv6'],
  ['ipv6', true, 'ipv4', 'ipv6'],
  ['ipv6', true, 'ipv6', 'ipv6'],
  ['ipv4', true, 'ipv6', 'ipv4'],
  ['dual', false, 'ipv4', 'ipv4'],
])('underlay %s, pods with IPv6: %s', (underlay, ipv6, family, outer) => {
  test(`${family} pod traffic is inside ${outer}`, async () => {
    await withLab({ underlay, ipv6, podsPerNode: 1 }, async (lab) => {
      expect(lab.node(0).pod(0).mtu).toBe(1430);
      const packets = await echoes(lab, family);
      expect(packets).toHaveLength(6);
      for (const packet of packets) {
        expect(packet.ip6 === undefined ? 'ipv4' : 'ipv6').toBe(outer);
        expect(network(packet)).toMatchObject({ ttl: 64, tos: 0 });
        expect(network(packet.inner ?? packet)?.ttl).toBe(63);
      }
      const addresses = lab.nodes.map((node) => addressOf(node, outer));
      const [first] = packets.map((packet) => network(packet));
      expect([first?.src, first?.dst]).toEqual(addresses);
      expect(await marks(lab, family)).toEqual([
        twice({ zone: ZONES[family], mark: ANTREA.markFromPod, assured: true }),
        twice({ zone: ZONES[family], mark: ANTREA.markFromTunnel, assured: true }),
      ]);
    });
  });
});

describe.each([[false], [true]])('without a tunnel, router: %s', (router) => {
  test.each<[Family]>([['ipv4'], ['ipv6']])('%s pod traffic is routed, and marked as the gateway’s', async (family) => {
    await withLab({ ipv6: true, encapMode: 'noEncap', router, podsPerNode: 1 }, async (lab) => {
      const [a, b] = [lab.node(0).pod(0), lab.node(1).pod(0)];
      expect([a.mtu, lab.node(0).tunnelDevices]).toEqual([1500, []]);
      const inPod = await b.capture({ direction: 'in' });
      const packets = await echoes(lab, family);
      const arrived = (await inPod.stop()).packets.filter(({ l4 }) => ECHO.has(l4?.icmpType));
      expect(packets.map((packet) => [packet.inner, network(packet)?.src])).toEqual(
        [a, b, a, b, a, b].map((pod) => [undefined, addressOf(pod, family)]),
      );
      expect(arrived.map((packet) => network(packet)?.ttl)).toEqual(Array(3).fill(router ? 61 : 62));
      expect(await marks(lab, family)).toEqual([
        twice({ zone: ZONES[family], mark: ANTREA.markFromPod, assured: true }),
        twice({ zone: ZONES[family], mark: ANTREA.markFromGateway, assured: true }),
      ]);
      await denied(lab, a, b, family);
    });
  });
});

async function denied(lab: NativeLab, a: Pod, b: Pod, family: Family): Promise<void> {
  await lab.policy.deny({ srcPod: a, nodes: [lab.node(1)] });
  const ping = ['ping', '-c1', '-W1', addressOf(b, family)];
  expect((await a.exec(ping, { check: false })).stdout).toMatch(/0 received/);
  await lab.policy.clear();
  expect((await a.exec(ping)).stdout).toMatch(/1 received/);
}

test.each([[false], [true]])(
  'port, network identifier and checksum of the tunnel (%s) are as told',
  async (checksum) => {
    const tunnel = { type: 'vxlan', port: 8472, vni: 0, checksum } as const;
    await withLab({ ipv6: true, tunnel, podsPerNode: 1 }, async (lab) => {
      await lab.offload({ tx: false, tso: false, gso: false });
      expect(lab.node(0).tunnel).toEqual({ type: 'vxlan', port: 8472 });
      for (const family of ['ipv4', 'ipv6'] as const) {
        const packets = await echoes(lab, family);
        expect(packets).toHaveLength(6);
        for (const { vni, l4, inner } of packets) {
          const judged = checksum ? true : undefined;
          expect([vni, l4?.dport, l4?.checksumValid, inner?.l4?.checksumValid]).toEqual([0, 8472, judged, true]);
        }
      }
      for (const node of lab.nodes) expect(await node.conntrack.list({ zone: 0, proto: 'udp' })).toEqual([]);
    });
  },
);

test('a tunnel packet can be taken apart: what is inside is what the pod gets, but for MAC addresses and hop', async () => {
  await withLab({ ipv6: true, podsPerNode: 1 }, async (lab) => {
    const b = lab.node(1).pod(0);
    const inPod = await b.capture({ direction: 'in', filter: 'icmp6[0] = 128' });
    const requests = (await echoes(lab, 'ipv6')).filter(({ inner }) => inner?.l4?.icmpType === 128);
    const arrived = (await inPod.stop()).packets;
    const parts = requests.map(splitTunnel);
    // Ethernet, IPv6, UDP, VXLAN.
    expect(parts.map((part) => part?.outer.length)).toEqual(Array(3).fill(14 + 40 + 8 + 8));
    const hop = 14 + 7;
    const compared = (frame: Buffer | undefined): unknown => [frame?.subarray(12, hop), frame?.subarray(hop + 1)];
    expect(parts.map((part) => compared(part?.inner))).toEqual(arrived.map(({ bytes }) => compared(bytes)));
  });
});

test('what cannot be built is refused', async () => {
  await expect(up({ encapMode: 'noEncap', underlay: 'ipv6' })).rejects.toThrow(/need a tunnel/);
  await expect(up({ ipv6: true, mtu: 1300 })).rejects.toThrow(/1230 is not.*1280/);
  await expect(up({ tunnel: { type: 'vxlan', port: 0 } })).rejects.toThrow(/tunnel.port/);
});
