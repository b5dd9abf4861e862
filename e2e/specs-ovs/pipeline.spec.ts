/** The lab on Open vSwitch behaves as Antrea does (docs/ovs-lab.md has the table); no sidecar runs here. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { ANTREA, eventually, sleep } from '../lab/lab.ts';
import type { Pod } from '../lab/lab.ts';
import { freshPort, reaches, requestResponse, transfer, withServer } from '../lab/measure.ts';
import { residue, up } from '../lab/ovs/ovs.ts';
import type { OvsLab } from '../lab/ovs/ovs.ts';
import { connections } from './support/connections.ts';

const NIBBLE = 0xf;
const SERVICE = { clusterIp: '10.96.0.10', protocol: 'tcp', port: 80 } as const;

let lab: OvsLab;
let a: Pod;
let neighbour: Pod;
let b: Pod;

beforeAll(async () => {
  lab = await up();
  a = lab.node(0).pod(0);
  neighbour = lab.node(0).pod(1);
  b = lab.node(1).pod(0);
});
afterAll(async () => {
  await lab.down();
  expect(residue(lab)).toEqual([]);
});
beforeEach(async () => {
  await Promise.all([lab.policy.clear(), lab.policy.clearMarks(), lab.policy.clearZones()]);
});

describe('forwarding', () => {
  test('across nodes: Geneve without a VNI, TTL 62, MAC addresses of the gateway, not tracked by the nodes', async () => {
    const port = freshPort();
    const [wire, inPod] = await Promise.all([lab.node(1).capture(), b.capture({ filter: `tcp port ${port}` })]);
    const result = await requestResponse(lab, { from: a, to: b }, { proto: 'tcp', count: 20, port, size: 20 });
    const outer = await wire.stop();
    const inner = await inPod.stop();
    expect(result).toMatchObject({ transactions: 20, errors: 0, corrupt: 0 });

    const tunnelled = outer.packets.filter((packet) => packet.inner?.l4?.dport === port);
    expect(tunnelled.length).toBeGreaterThanOrEqual(20);
    for (const packet of tunnelled) {
      expect(packet).toMatchObject({
        vni: 0,
        ip: { src: lab.node(0).address, dst: lab.node(1).address, ttl: 64, tos: 0, df: true },
        l4: { dport: lab.node(0).tunnel.port },
        inner: { dstMac: ANTREA.virtualMac, ip: { src: a.address, dst: b.address, ttl: 63 } },
      });
    }
    const requests = inner.packets.filter((packet) => packet.l4?.dport === port);
    expect(new Set(requests.map((packet) => packet.ip?.ttl))).toEqual(new Set([62]));
    expect(new Set(requests.map((packet) => packet.srcMac))).toEqual(new Set([await gatewayMac(1)]));
    expect(new Set(requests.map((packet) => packet.dstMac))).toEqual(new Set([b.mac]));
    for (const node of lab.nodes) {
      expect(await node.conntrack.list({ zone: 0, proto: 'udp', dport: node.tunnel.port })).toEqual([]);
    }
  });

  test('within a node: nothing changes', async () => {
    const capture = await neighbour.capture({ filter: 'icmp', direction: 'in' });
    await ping(a, neighbour.address);
    const { packets } = await capture.stop();
    expect(packets.length).toBeGreaterThan(0);
    for (const packet of packets)
      expect(packet).toMatchObject({ srcMac: a.mac, dstMac: neighbour.mac, ip: { ttl: 64 } });
  });

  test('gateway: the node and its pods reach each other, pods reach other nodes with the node address', async () => {
    await ping(a, lab.node(0).gateway);
    await ping(lab.node(0), a.address);
    await ping(a, lab.node(1).address);
    expect(await lab.node(0).conntrack.list({ zone: 0, proto: 'icmp', dst: lab.node(1).address })).toMatchObject([
      { original: { src: a.address }, reply: { dst: lab.node(0).address } },
    ]);
    const fromNode = await lab.node(0).conntrack.list({ zone: ANTREA.zone, proto: 'icmp', dst: a.address });
    expect(fromNode).toMatchObject([{ mark: ANTREA.markFromGateway }]);
  });

  test('bulk transfers arrive whole', async () => {
    const result = await transfer(lab, { from: a, to: b }, ['--up', '1M', '--down', '1M']);
    expect(result).toMatchObject({ complete: true, corrupt: 0, peerCorrupt: 0 });
  });

  test('spoof guard: what is not from the address of the pod is dropped', async () => {
    const capture = await b.capture({ filter: 'udp dst port 7' });
    const frame = (src: string, mac: string): string[] => [
      ...[lab.tool('raw'), 'sweep', '--dev', a.device, '--src-mac', mac, '--dst-mac', ANTREA.virtualMac],
      ...['--src', src, '--dst', b.address, '--proto', 'udp', '--sport', '6', '--dport', '7', '--to', '0'],
    ];
    await a.exec(frame(neighbour.address, a.mac));
    await a.exec(frame(a.address, neighbour.mac));
    await a.exec(frame(a.address, a.mac));
    await sleep(1000);
    expect((await capture.stop()).packets.map((packet) => packet.ip?.src)).toEqual([a.address]);
  });
});

describe('conntrack and policy', () => {
  test('an allowed connection: zone 65520, mark 3 at its source and 1 behind the tunnel', async () => {
    const port = freshPort();
    await requestResponse(lab, { from: a, to: b }, { proto: 'tcp', count: 3, port });
    expect(await connections(lab.node(0), port)).toMatchObject([{ mark: ANTREA.markFromPod, assured: true }]);
    expect(await connections(lab.node(1), port)).toMatchObject([{ mark: ANTREA.markFromTunnel, assured: true }]);
  });

  test('rules that allow write their numbers into the label', async () => {
    const port = freshPort();
    const egress = await lab.policy.allow({ srcPod: a, proto: 'tcp', port }, 'egress');
    const ingress = await lab.policy.allow({ dstPod: neighbour, proto: 'tcp', port }, 'ingress');
    await requestResponse(lab, { from: a, to: neighbour }, { proto: 'tcp', count: 3, port });
    expect(await connections(lab.node(0), port)).toMatchObject([
      { mark: ANTREA.markFromPod, egressRule: egress, ingressRule: ingress },
    ]);
  });

  test('allowed by an egress rule, denied at ingress: there is an entry, and its nibble is 0', async () => {
    const port = freshPort();
    const rule = { srcPod: a, dstPod: neighbour, proto: 'tcp', port } as const;
    const number = await lab.policy.allow(rule, 'egress');
    await lab.policy.deny(rule, ['ingress']);
    await withServer(neighbour, rrServer(port), async () => {
      expect(await reaches(lab, a, neighbour, port)).toBe(false);
    });
    expect(await connections(lab.node(0), port)).toMatchObject([{ mark: 0, egressRule: number, assured: false }]);
  });

  test('denied after its translation for a Service: there is an entry, and its nibble is 0', async () => {
    const endpoint = freshPort();
    const service = { ...SERVICE, clusterIp: '10.96.0.11', endpoints: [{ address: b.address, port: endpoint }] };
    await lab.node(0).addService(service);
    await lab.policy.deny({ srcPod: a, dstPod: b, proto: 'tcp', port: endpoint }, ['egress']);
    await withServer(b, rrServer(endpoint), async () => {
      expect(await reaches(lab, a, { address: service.clusterIp }, SERVICE.port)).toBe(false);
    });
    const entries = (await connections(lab.node(0), SERVICE.port)).filter(({ text }) =>
      text.includes(service.clusterIp),
    );
    expect(entries).toMatchObject([{ mark: 0x10, assured: false }]);
    expect(await connections(lab.node(1), endpoint)).toEqual([]);
  });

  test('denied by a rule without having been committed before: there is no entry', async () => {
    const port = freshPort();
    await lab.policy.deny({ dstPod: b, proto: 'tcp', port });
    await withServer(b, rrServer(port), async () => {
      expect(await reaches(lab, a, b, port)).toBe(false);
    });
    expect(await connections(lab.node(1), port)).toEqual([]);
  });

  test('a Service: translated, mark 0x13, the endpoint in the reply; TTL 62 there and back', async () => {
    const endpoint = freshPort();
    await lab.node(0).addService({ ...SERVICE, endpoints: [{ address: b.address, port: endpoint }] });
    const capture = await b.capture({ filter: `tcp dst port ${endpoint}` });
    await withServer(b, rrServer(endpoint), async () => {
      expect(await reaches(lab, a, { address: SERVICE.clusterIp }, SERVICE.port)).toBe(true);
    });
    const { packets } = await capture.stop();
    expect(new Set(packets.map((packet) => packet.ip?.ttl))).toEqual(new Set([62]));
    const entries = await lab.node(0).conntrack.list({ zone: ANTREA.zone, proto: 'tcp', dst: SERVICE.clusterIp });
    expect(entries).toMatchObject([{ mark: 0x13, reply: { src: b.address, sport: endpoint, dst: a.address } }]);
    expect(await connections(lab.node(1), endpoint)).toMatchObject([{ mark: ANTREA.markFromTunnel }]);
  });

  test('a Service on the same node is routed: TTL 63, MAC address of the gateway, both ways', async () => {
    const endpoint = freshPort();
    const service = {
      ...SERVICE,
      clusterIp: '10.96.0.12',
      endpoints: [{ address: neighbour.address, port: endpoint }],
    };
    await lab.node(0).addService(service);
    const captures = await Promise.all([
      neighbour.capture({ filter: `tcp dst port ${endpoint}`, direction: 'in' }),
      a.capture({ filter: `src host ${service.clusterIp}`, direction: 'in' }),
    ]);
    await withServer(neighbour, rrServer(endpoint), async () => {
      expect(await reaches(lab, a, { address: service.clusterIp }, SERVICE.port)).toBe(true);
    });
    for (const capture of captures) {
      const { packets } = await capture.stop();
      expect(packets.length).toBeGreaterThan(2);
      const mac = await gatewayMac(0);
      for (const packet of packets) expect(packet).toMatchObject({ srcMac: mac, ip: { ttl: 63 } });
    }
  });

  test('an established connection is not judged again, a new one is', async () => {
    const port = freshPort();
    await withServer(b, rrServer(port), async () => {
      const common = ['--tcp', '--to', b.address, '--port', String(port), '--json', '--timeout-ms', '5000'];
      const rr = [lab.tool('rr'), 'client', ...common, '--seconds', '15', '--interval-us', '50000'];
      const old = await a.spawn(rr);
      await eventually('the old connection', async () => (await connections(lab.node(1), port))[0]?.assured === true);
      await lab.policy.deny({ srcPod: a, dstPod: b, proto: 'tcp', port });
      expect(await reaches(lab, a, b, port)).toBe(false);
      expect(await old.json(60_000)).toMatchObject({ errors: 0, timeouts: 0 });
    });
  });

  test('one-way UDP is judged with every packet', async () => {
    const port = freshPort();
    const args = ['--udp', '--to', b.address, '--port', String(port), '--rate', '20', '--seconds', '20'];
    const capture = await b.capture({ filter: `udp dst port ${port}` });
    const sending = await a.spawn([lab.tool('stream'), 'client', ...args]);
    await eventually('an entry', async () => (await connections(lab.node(1), port)).length > 0);
    await sleep(2000);
    await lab.policy.deny({ srcPod: a, dstPod: b, proto: 'udp', port });
    // The datapath's cached flows are revalidated within moments.
    await sleep(3000);
    const during = await b.capture({ filter: `udp dst port ${port}` });
    await sleep(3000);
    expect((await during.stop()).packets).toHaveLength(0);
    expect(sending.running).toBe(true);
    expect((await capture.stop()).packets.length).toBeGreaterThan(10);
    await sending.stop();
  });

  test('marks and zones by port, for tests of admission', async () => {
    const port = freshPort();
    await lab.policy.markPort(port, 0x43);
    await lab.policy.zonePort(port + 5000, 77);
    await lab.policy.markProtocol('icmp', 0);
    await requestResponse(lab, { from: a, to: b }, { proto: 'udp', count: 3, port });
    await requestResponse(lab, { from: a, to: b }, { proto: 'tcp', count: 3, port: port + 5000 });
    await ping(neighbour, b.address);
    for (const node of lab.nodes) {
      expect(await node.conntrack.list({ dport: port })).toMatchObject([{ zone: ANTREA.zone, mark: 0x43 }]);
      expect(await node.conntrack.list({ dport: port + 5000 })).toMatchObject([{ zone: 77, assured: true }]);
      const pinged = await node.conntrack.list({ proto: 'icmp', src: neighbour.address, dst: b.address });
      expect(pinged).toMatchObject([{ zone: ANTREA.zone, mark: 0 }]);
      expect((pinged[0]?.mark ?? -1) & NIBBLE).toBe(0);
    }
  });
});

describe('pods and database', () => {
  test('ports have the external ids that antrea-agent gives them', async () => {
    const show = async (what: string, row: string): Promise<string> =>
      (await lab.node(0).ovs.vsctl(['get', what, row, 'external_ids'])).trim();
    expect(await show('Bridge', 'br-int')).toBe('{roundNum="1"}');
    expect(await show('Port', 'antrea-gw0')).toBe('{antrea-type=gateway}');
    expect(await show('Port', 'antrea-tun0')).toBe('{antrea-type=tunnel}');
    const { containerId, ifName } = a.endpoint;
    // Quotes are where a value is no word, as most container ids are, but not all.
    const ids = (await show('Port', ifName)).replaceAll('"', '');
    for (const part of [
      'antrea-type=container',
      `attached-mac=${a.mac}`,
      `container-id=${containerId}`,
      `ip-address=${a.address}`,
      `pod-name=${a.name}`,
      'pod-namespace=default',
      'net-ns=/host/var/run/netns/',
    ]) {
      expect(ids).toContain(part);
    }
    const settings = await lab.node(0).ovs.vsctl(['get', 'Open_vSwitch', '.', 'other_config']);
    expect(settings).not.toContain('flow-restore-wait');
  });

  test('a pod is deleted and its address given to a new one', async () => {
    const node = lab.node(1);
    const old = node.pod(1);
    await ping(a, old.address);
    await node.deletePod(old);
    expect(await node.ovs.vsctl(['list-ports', 'br-int'])).not.toContain(old.endpoint.ifName);
    const fresh = await node.addPod({ ip: old.address, name: old.name });
    await ping(a, fresh.address);
  });
});

/** Pings once a time until an answer comes: the first packets of a path are slow. */
async function ping(from: { exec: Pod['exec'] }, address: string): Promise<void> {
  await from.exec(['ping', '-c', '2', '-i', '0.3', '-W', '5', address]);
}

function rrServer(port: number): string[] {
  return [lab.tool('rr'), 'server', '--tcp', '--port', String(port)];
}

async function gatewayMac(node: number): Promise<string> {
  const { stdout } = await lab.node(node).exec(['ip', '-j', 'link', 'show', lab.node(node).gatewayDevice]);
  const [link] = JSON.parse(stdout) as { address: string }[];
  return link?.address ?? '';
}
