/** The pipeline for IPv6, in a lab whose pods have both families, and XMasq beside it. */
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { eventually, sleep } from '../lab/lab.ts';
import type { Pod } from '../lab/lab.ts';
import { freshPort, withServer } from '../lab/measure.ts';
import type { OvsState } from '../lab/ovs/node.ts';
import { residue, up } from '../lab/ovs/ovs.ts';
import type { OvsLab } from '../lab/ovs/ovs.ts';
import { startSidecars } from '../lab/sidecar.ts';
import type { LabSidecars } from '../lab/sidecar.ts';
import { withTransfer } from '../specs/support/streams.ts';
import { connections } from './support/connections.ts';

const ZONE = 65510;
/** Geneve over IPv6; libpcap knows ports of IPv6 packets without extension headers only, which these are. */
const TUNNELLED = 'ip6 and udp port 6081';
/** The hop limit is the eighth byte of the header. */
const hopLimit = (value: number): string => `ip6[7] = ${value}`;
/** A stream that is ended when the test has what it wants. */
const PACED = ['--seconds', '600', '--rate', '100000', '--send-size', '1000'];

let lab: OvsLab;
let a: Pod;
let neighbour: Pod;
let b: Pod;

beforeAll(async () => {
  lab = await up({ ipv6: true });
  [a, neighbour, b] = [lab.node(0).pod(0), lab.node(0).pod(1), lab.node(1).pod(0)];
}, 240_000);
afterAll(async () => {
  await lab.down();
  expect(residue(lab)).toEqual([]);
});

describe('the pipeline', () => {
  test('across nodes: hop limit 62, Geneve over IPv6, tracked in zone 65510 with the marks of IPv4', async () => {
    const port = freshPort();
    const wire = await lab.node(1).capture({ filter: TUNNELLED });
    const inPod = await b.capture({ filter: `ip6 and tcp dst port ${port}`, direction: 'in' });
    const expected = await b.capture({ filter: `ip6 and tcp dst port ${port} and ${hopLimit(62)}`, direction: 'in' });
    await transfer(a, b, port);
    expect((await wire.stop()).packets.length).toBeGreaterThan(10);
    const arrived = (await inPod.stop()).packets.length;
    expect(arrived).toBeGreaterThan(5);
    expect((await expected.stop()).packets).toHaveLength(arrived);
    await expectMarks(port, [0x03, 0x01]);
  });

  test('within a node: nothing changes', async () => {
    const port = freshPort();
    const filter = `ip6 and tcp dst port ${port}`;
    const all = await neighbour.capture({ filter, direction: 'in' });
    const same = await neighbour.capture({
      filter: `${filter} and ${hopLimit(64)} and ether src ${a.mac} and ether dst ${neighbour.mac}`,
      direction: 'in',
    });
    await transfer(a, neighbour, port);
    const count = (await all.stop()).packets.length;
    expect(count).toBeGreaterThan(5);
    expect((await same.stop()).packets).toHaveLength(count);
    await expectMarks(port, [0x03]);
  });

  test.each([
    ['another node', () => b],
    ['the same node', () => neighbour],
  ] as const)('a Service, endpoint on %s', async (_where, endpoint) => {
    const [port, clusterIp] = [freshPort(), 'fd96::10'];
    const service = { clusterIp, port: 80 + port, endpoints: [{ address: address6(endpoint()), port }] };
    await lab.node(0).addService({ ...service, protocol: 'tcp' });
    const server = [lab.tool('rr'), 'server', '--tcp', '--port', String(port), '--bind', address6(endpoint())];
    await withServer(endpoint(), server, async () => {
      const client = ['--tcp', '--to', clusterIp, '--port', String(service.port), '--count', '5', '--json'];
      const { stdout } = await a.exec([lab.tool('rr'), 'client', ...client], { timeoutMs: 30_000 });
      expect(JSON.parse(stdout)).toMatchObject({ errors: 0, timeouts: 0 });
    });
    const tracked = await connections(lab.node(0), service.port, ZONE);
    expect(tracked.map(({ mark }) => mark)).toEqual([0x13]);
  });

  test('UDP', async () => {
    const port = freshPort();
    await transfer(a, b, port, ['-u', '-b', '100K']);
    await transfer(a, neighbour, freshPort(), ['-u', '-b', '100K']);
  });

  test('ICMPv6 echo, to pods and to the gateway; neighbour discovery is not tracked', async () => {
    for (const to of [b, neighbour]) await ping(a, address6(to));
    await ping(a, address6(a).replace(/[^:]*$/, '1'));
    await ping(lab.node(0), address6(a));
    const { stdout } = await a.exec(['ip', '-6', 'neigh', 'show', address6(neighbour)]);
    expect(stdout).toContain(neighbour.mac);
    const tracked = await lab.node(0).ovs.appctl(['dpctl/dump-conntrack', `zone=${ZONE}`]);
    expect(tracked).toMatch(/icmpv6,.*type=128/);
    expect(tracked).not.toMatch(/type=13[56]/);
  });

  test('spoof guard: an address that is not the pod’s gets nowhere', async () => {
    await a.exec(['ip', '-6', 'address', 'add', 'fd10:1::99/64', 'dev', a.device, 'nodad']);
    const capture = await b.capture({ filter: 'ip6 and src host fd10:1::99' });
    const { code } = await a.exec(['ping', '-c', '1', '-W', '3', '-I', 'fd10:1::99', address6(b)], { check: false });
    await a.exec(['ip', '-6', 'address', 'del', 'fd10:1::99/64', 'dev', a.device]);
    expect(code).not.toBe(0);
    expect((await capture.stop()).packets).toEqual([]);
  });

  test('the database has both addresses', async () => {
    const ids = await lab.node(0).ovs.vsctl(['get', 'Port', a.endpoint.ifName, 'external_ids']);
    expect(ids).toContain(`ip-address="${a.address},${address6(a)}"`);
  });
});

describe('with XMasq', () => {
  let sidecars: LabSidecars;
  let untouched: readonly OvsState[];

  beforeAll(async () => {
    untouched = await states();
    sidecars = await startSidecars(lab, { withoutPods: true, ovsdb: (node) => ovsNode(node).ovs.database });
    for (const sidecar of sidecars.nodes) {
      await eventually('pods of the database', async () => (await sidecar.status()).endpoints === 2);
    }
  }, 180_000);
  afterAll(async () => {
    await sidecars.down();
  });

  test.each([
    ['ipv4', 'ip', 'ip[8] = 62'],
    ['ipv6', 'ip6', hopLimit(62)],
  ] as const)('%s between pods of two nodes is masqueraded, hop limit and all', async (family, protocol, limit) => {
    await withTransfer(lab, { from: a, to: b, family }, PACED, async ({ port }) => {
      await sidecars.waitFast({ proto: 'tcp', port }, 20_000);
      // In the tunnel the ports would not be where libpcap looks for them.
      const wire = await lab.node(1).capture({ filter: `${protocol} and tcp port ${port}` });
      const filter = `${protocol} and tcp dst port ${port}`;
      const inPod = await b.capture({ filter, direction: 'in' });
      const changed = await b.capture({ filter: `${filter} and not ${limit}`, direction: 'in' });
      await sleep(2000);
      expect((await wire.stop()).packets.length).toBeGreaterThan(10);
      expect((await inPod.stop()).packets.length).toBeGreaterThan(5);
      expect((await changed.stop()).packets).toEqual([]);
    });
  });

  test('UDP and ICMPv6, across nodes and within one', async () => {
    for (const to of [b, neighbour]) {
      await transfer(a, to, freshPort(), ['-u', '-b', '100K']);
      await ping(a, address6(to));
    }
    await sleep(1000);
  });

  test('nobody has written to Open vSwitch', async () => {
    const now = await states();
    now.forEach((state, i) => expect(state).toEqual(untouched[i]));
  });
});

function states(): Promise<OvsState[]> {
  return Promise.all(lab.nodes.map((node) => node.ovsState()));
}

function ovsNode({ index }: { readonly index: number }): OvsLab['nodes'][number] {
  return lab.node(index - 1);
}

function address6(pod: Pod): string {
  if (pod.address6 === undefined) throw new Error(`${pod.name} has no IPv6 address`);
  return pod.address6;
}

/** Sends for a second, which must succeed. TCP segments are as long as the tunnel lets them be. */
async function transfer(from: Pod, to: Pod, port: number, args: readonly string[] = []): Promise<void> {
  await withServer(
    to,
    ['iperf3', '-s', '-1', '--forceflush', '-p', String(port)],
    async () => {
      const client = ['iperf3', '-6', '-c', address6(to), '-p', String(port), '-t', '1', ...args];
      await from.exec(client, { timeoutMs: 30_000 });
    },
    /listening/,
  );
}

async function ping(from: { exec: Pod['exec'] }, address: string): Promise<void> {
  await from.exec(['ping', '-6', '-c', '2', '-i', '0.3', '-W', '5', address]);
}

/** The mark of the connections to a port, on the nodes that have one. iperf3's TCP has two, of which one may be reset and soon gone. */
async function expectMarks(port: number, expected: readonly number[]): Promise<void> {
  for (const [i, mark] of expected.entries()) {
    const entries = await connections(lab.node(i), port, ZONE);
    expect([...new Set(entries.map((entry) => entry.mark))]).toEqual([mark]);
    expect(await connections(lab.node(i), port)).toEqual([]);
  }
}
