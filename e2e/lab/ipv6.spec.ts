/** The laboratory with IPv6, without any sidecar: what specs of the other family take for granted. */
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { ANTREA, addressOf } from './lab.ts';
import type { Pod } from './lab.ts';
import { freshPort, iperf } from './measure.ts';
import { residue, up } from './native/native.ts';
import type { NativeLab } from './native/native.ts';
import { IPPROTO } from './packet.ts';

const PINGS = ['-c', '3', '-i', '0.05', '-W', '1', '-q'];

async function pings(from: Pod, to: string): Promise<number> {
  const { stdout } = await from.exec(['ping', ...PINGS, to], { check: false });
  return Number(/(\d+) received/.exec(stdout)?.[1] ?? -1);
}

describe.each([
  ['on one segment', false],
  ['behind a router', true],
])('nodes with both families %s', (_, router) => {
  let lab: NativeLab;
  let a: Pod;
  let b: Pod;
  let neighbour: Pod;
  let a6: string;
  let b6: string;
  /** Of the outer header, on arrival. */
  const outerHops = router ? 63 : 64;

  beforeAll(async () => {
    lab = await up({ ipv6: true, router });
    a = lab.node(0).pod(0);
    b = lab.node(1).pod(0);
    neighbour = lab.node(0).pod(1);
    [a6, b6] = [addressOf(a, 'ipv6'), addressOf(b, 'ipv6')];
  });
  afterAll(async () => {
    await lab.down();
    expect(residue(lab)).toEqual([]);
  });

  test('pods have both addresses, and room for the larger outer header', async () => {
    expect(a.endpoint.ips).toEqual([a.address, a6]);
    expect(a.mtu).toBe(1430);
    const { stdout } = await a.exec(['ping', '-c1', '-W1', '-M', 'do', '-s', String(a.mtu - 48), b6]);
    expect(stdout).toMatch(/1 received/);
  });

  test('each family crosses in VXLAN over its own, hop limit 62, in its own zone with the marks of Antrea', async () => {
    const port = freshPort();
    const [wire, inPod] = await Promise.all([lab.node(1).capture(), b.capture({ filter: 'ip6' })]);
    expect(await pings(a, b6)).toBe(3);
    expect(await pings(a, b.address)).toBe(3);
    const outer = await wire.stop();
    const inner = await inPod.stop();

    const tunnelled = outer.packets.filter((packet) => packet.inner?.l4?.icmpType === 128);
    expect(tunnelled).toHaveLength(3);
    expect(tunnelled[0]).toMatchObject({
      vni: 1,
      ip6: { src: lab.node(0).address6, dst: lab.node(1).address6, hopLimit: outerHops, trafficClass: 0, flowLabel: 0 },
      l4: { dport: ANTREA.vxlanPort, checksumValid: undefined },
      inner: { ip6: { src: a6, dst: b6, hopLimit: 63 }, l4: { checksumValid: true } },
    });
    // No checksum: the two bytes before the VXLAN header.
    expect(tunnelled.map(({ bytes, innerOffset = 0 }) => bytes.readUInt16BE(innerOffset - 10))).toEqual([0, 0, 0]);
    const other = outer.packets.filter((packet) => packet.inner?.l4?.icmpType === 8);
    expect(other).toHaveLength(3);
    expect(other[0]).toMatchObject({ ip: { dst: lab.node(1).address, df: true }, ip6: undefined });
    const requests = inner.packets.filter((packet) => packet.l4?.icmpType === 128);
    expect(requests.map(({ ip6, srcMac }) => [ip6?.hopLimit, srcMac])).toEqual(Array(3).fill([62, ANTREA.virtualMac]));

    await iperf({ from: a, to: b, family: 'ipv6' }, { port });
    const filter = { zone: ANTREA.zone6, proto: 'tcp', dport: port } as const;
    const [sending, receiving] = await Promise.all(lab.nodes.map((node) => node.conntrack.list(filter)));
    const marked = (mark: number): unknown => ({ mark, assured: true, original: { src: a6, dst: b6 } });
    expect(sending).toMatchObject([marked(ANTREA.markFromPod), marked(ANTREA.markFromPod)]);
    expect(receiving).toMatchObject([marked(ANTREA.markFromTunnel), marked(ANTREA.markFromTunnel)]);
    for (const node of lab.nodes) {
      expect(await node.conntrack.list({ zone: 0, proto: 'udp', dport: ANTREA.vxlanPort })).toEqual([]);
      expect(await node.conntrack.list({ zone: ANTREA.zone, family: 'ipv6' })).toEqual([]);
      expect(await node.conntrack.list({ zone: ANTREA.zone6, family: 'ipv4' })).toEqual([]);
    }
  });

  test('bridges pods of one node with hop limit 64 and the same zone and mark', async () => {
    const to = addressOf(neighbour, 'ipv6');
    const capture = await neighbour.capture({ filter: 'icmp6[0] = 128', direction: 'in' });
    expect(await pings(a, to)).toBe(3);
    const { packets } = await capture.stop();
    expect(packets.map((packet) => [packet.ip6?.hopLimit, packet.srcMac])).toEqual(Array(3).fill([64, a.mac]));
    expect(await lab.node(0).conntrack.list({ zone: ANTREA.zone6, proto: 'icmpv6', dst: to })).toMatchObject([
      { mark: ANTREA.markFromPod, replied: true },
    ]);
  });

  test('the nodes’ own traffic is in zone 0, and so is what pods send them, masqueraded', async () => {
    const node = addressOf(lab.node(1), 'ipv6');
    expect(await pings(a, node)).toBe(3);
    expect(await lab.node(0).conntrack.list({ proto: 'icmpv6', dst: node })).toMatchObject([
      { zone: 0, mark: 0, original: { src: a6 }, reply: { dst: lab.node(0).address6 } },
    ]);
  });

  test('policy denies new connections of both families, neighbour discovery excepted', async () => {
    await lab.policy.deny({ srcPod: a, dstPod: neighbour });
    await a.exec(['ip', 'neigh', 'flush', 'all']);
    const to = addressOf(neighbour, 'ipv6');
    expect([await pings(a, to), await pings(a, neighbour.address)]).toEqual([0, 0]);
    expect((await a.exec(['ip', '-6', 'neigh', 'show', to])).stdout).toContain(neighbour.mac);
    await lab.policy.clear();
    expect([await pings(a, to), await pings(a, neighbour.address)]).toEqual([3, 3]);
    await lab.policy.deny({ proto: 'icmp' });
    expect([await pings(a, b6), await pings(a, b.address)]).toEqual([0, 0]);
    await lab.policy.clear();
    await lab.policy.markProtocol('icmp', 0x43);
    expect(await pings(neighbour, b6)).toBe(3);
    expect(await lab.node(1).conntrack.list({ src: to, dst: b6 })).toMatchObject([{ mark: 0x43 }]);
    await lab.policy.clearMarks();
  });

  test('a ClusterIP is translated to endpoints on both nodes, and marked', async () => {
    const clusterIp = 'fd96::10';
    for (const server of [b, neighbour]) {
      const port = freshPort();
      const endpoints = [{ address: addressOf(server, 'ipv6'), port }];
      await lab.node(0).setServices([{ clusterIp, protocol: 'tcp', port, endpoints }]);
      await iperf({ from: a, to: server, family: 'ipv6', via: clusterIp }, { port });
      const entries = await lab.node(0).conntrack.list({ zone: ANTREA.zone6, dst: clusterIp, dport: port });
      expect(entries.map(({ mark, reply }) => [mark, reply.src])).toEqual(
        Array(2).fill([ANTREA.markFromPod | ANTREA.markService, addressOf(server, 'ipv6')]),
      );
    }
    await lab.node(0).setServices([]);
  });

  test('a capture of the pods’ or the nodes’ devices shows right checksums', async () => {
    await lab.offload({ tx: false, tso: false, gso: false });
    const [wire, inPod] = await Promise.all([lab.node(1).capture(), b.capture({ filter: 'tcp' })]);
    await iperf({ from: a, to: b, family: 'ipv6' }, { port: freshPort(), bytes: 500_000 });
    const results = await Promise.all([wire.stop(), inPod.stop()]);
    for (const { packets } of results) {
      const tcp = packets.map((packet) => packet.inner ?? packet).filter(({ ip6 }) => ip6?.proto === IPPROTO.tcp);
      expect(tcp.length).toBeGreaterThan(100);
      expect(tcp.filter(({ l4 }) => l4?.checksumValid !== true)).toEqual([]);
    }
    await lab.offload({ tx: true, tso: true, gso: true });
  });
});
