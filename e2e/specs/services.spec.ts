/** Connections by a ClusterIP: translated as AntreaProxy does it, in both directions, on this node and to others. */
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { eventually, sleep } from '../lab/lab.ts';
import type { ClusterIpService, Lab, Node, Pod, Proc } from '../lab/lab.ts';
import { freshPort } from '../lab/measure.ts';
import { up } from '../lab/native/native.ts';
import { IPPROTO } from '../lab/packet.ts';
import type { CaptureResult, CapturedPacket } from '../lab/pcap.ts';
import { EMULATED, atLeastNatively, stretched } from '../lab/scale.ts';
import { startSidecars } from '../lab/sidecar.ts';
import type { LabSidecars, SidecarFlow } from '../lab/sidecar.ts';
import { countWire } from '../lab/wire.ts';
import { atLeast } from './support/matchers.ts';

const VIP = '10.96.0.10';
const SERVICE_PORT = 80;
/** Of the endpoints; another one than the Service's. */
const ENDPOINT_PORT = 8080;
const OFFLOADS = {
  off: { tso: false, gso: false, gro: false, tx: false, 'tx-udp-segmentation': false },
  on: { tx: true, sg: true, tso: true, gso: true, gro: true, 'tx-udp-segmentation': true },
} as const;
type Protocol = 'tcp' | 'udp';
const PROTOCOLS: readonly Protocol[] = ['tcp', 'udp'];
/** Bytes each way, in a second or so. */
const BULK = EMULATED ? 20_000_000 : 100_000_000;
/** A UDP flow is admitted once conntrack calls it assured: two seconds. */
const FAST_MS = 6000;

let lab: Lab;
let sidecars: LabSidecars | undefined;
let client: Pod;
let neighbour: Pod;
let remote: Pod;
let sibling: Pod;

beforeAll(async () => {
  lab = await up({ podsPerNode: 2 });
  client = lab.node(0).pod(0);
  neighbour = lab.node(0).pod(1);
  remote = lab.node(1).pod(0);
  sibling = lab.node(1).pod(1);
});
afterAll(async () => {
  await sidecars?.down();
  await lab.down();
});

function running(): LabSidecars {
  if (sidecars === undefined) throw new Error('the sidecars are not running yet');
  return sidecars;
}

async function setServices(services: readonly ClusterIpService[]): Promise<void> {
  await Promise.all(lab.nodes.map((node) => node.setServices(services)));
}

/** The Service, with these pods as endpoints. */
function service(protocol: Protocol, ...pods: readonly Pod[]): ClusterIpService {
  const endpoints = pods.map(({ address }) => ({ address, port: ENDPOINT_PORT }));
  return { clusterIp: VIP, protocol, port: SERVICE_PORT, endpoints };
}

/** An answering server that names itself by a letter. */
async function serve(pod: Pod, protocol: Protocol, tag = 'x'): Promise<Proc> {
  const where = [`--${protocol}`, '--port', String(ENDPOINT_PORT), '--bind', pod.address];
  const server = await pod.spawn([lab.tool('rr'), 'server', ...where, '--size', '64', '--tag', tag]);
  await server.waitFor(/^ready/);
  return server;
}

interface Ask {
  readonly protocol: Protocol;
  readonly sport: number;
  readonly seconds: number;
  readonly tag?: string;
  readonly size?: number;
  readonly intervalUs?: number;
}

/** Asks the Service on one connection and checks every answer. */
async function ask({ protocol, sport, seconds, tag = 'x', intervalUs = 2000 }: Ask): Promise<Proc> {
  const to = [`--${protocol}`, '--to', VIP, '--port', String(SERVICE_PORT), '--sport', String(sport), '--json'];
  const what = [
    '--size',
    '64',
    '--seconds',
    String(stretched(seconds)),
    '--interval-us',
    String(intervalUs),
    '--expect',
    tag,
  ];
  return client.spawn([lab.tool('rr'), 'client', ...to, ...what]);
}

/** Waits for the end of `ask`: every answer was right, or this many were not. */
async function answered(asking: Proc, { timeouts = 0 } = {}): Promise<void> {
  const report = (await asking.json(60_000)) as Record<string, unknown>;
  expect(report).toMatchObject({ transactions: atLeast(10), errors: 0, corrupt: 0 });
  expect(report['timeouts']).toBeLessThanOrEqual(timeouts);
}

function fast(protocol: Protocol, sport: number): Promise<SidecarFlow> {
  return running().node(0).waitFast({ proto: protocol, sourceIp: client.address, port: sport }, FAST_MS);
}

/** What a pod sees of the packets that it receives on a connection, apart from IP ID, lengths and content. */
function view(capture: CaptureResult, pod: Pod, sport: number): string[] {
  const seen = capture.packets
    .filter(({ l4, dstMac }) => dstMac === pod.mac && (l4?.sport === sport || l4?.dport === sport))
    .filter(({ l4 }) => ((l4?.flags ?? 0) & 0x07) === 0)
    .map(({ srcMac, ip, l4 }: CapturedPacket) => {
      const ends = `${ip?.src}:${l4?.sport === sport ? 'client' : l4?.sport} ${ip?.dst}:${l4?.dport === sport ? 'client' : l4?.dport}`;
      const valid = ip?.checksumValid === true && l4?.checksumValid !== false;
      return `${srcMac} ${ends} TTL ${ip?.ttl} TOS ${ip?.tos}${ip?.df === true ? ' DF' : ''} ${valid ? 'valid' : 'invalid'}`;
    });
  return [...new Set(seen)].toSorted();
}

interface Seen {
  readonly atClient: readonly string[];
  readonly atServer: readonly string[];
  readonly uplink: CaptureResult;
}

/** Captures for half a second at both pods and at the uplink. */
async function look(server: Pod, sport: number): Promise<Seen> {
  const captures = await Promise.all([client, server, lab.node(0)].map((place) => place.capture()));
  await sleep(stretched(500));
  const [atClient, atServer, uplink] = await Promise.all(captures.map((capture) => capture.stop()));
  if (atClient === undefined || atServer === undefined || uplink === undefined) throw new Error('no captures');
  return { atClient: view(atClient, client, sport), atServer: view(atServer, server, sport), uplink };
}

function onWire({ uplink }: Seen, protocol: Protocol, sport: number): ReturnType<typeof countWire> {
  const end = (pod: Pod, port: number): { pod: Pod; node: Node; port: number } => ({ pod, node: pod.node, port });
  const flow = { proto: IPPROTO[protocol], client: end(client, sport), server: end(remote, ENDPOINT_PORT) };
  return countWire(uplink.packets, [flow]);
}

describe('pods cannot tell whether a Service’s packets go fast', () => {
  const cases = PROTOCOLS.flatMap((protocol) => [
    { protocol, where: 'another node', endpoint: () => remote },
    { protocol, where: 'the same node', endpoint: () => neighbour },
  ]);
  const slow: Seen[] = [];

  beforeAll(async () => {
    await lab.offload(OFFLOADS.off);
    for (const { protocol, endpoint } of cases) {
      await setServices([service(protocol, endpoint())]);
      const server = await serve(endpoint(), protocol);
      const sport = freshPort();
      // Emulation takes seconds to start the captures.
      const asking = await ask({ protocol, sport, seconds: EMULATED ? 3 : 1.5 });
      await sleep(stretched(300));
      const seen = await look(endpoint(), sport);
      expect([seen.atClient.length, seen.atServer.length]).toEqual([1, 1]);
      slow.push(seen);
      await answered(asking);
      await server.stop();
    }
    sidecars = await startSidecars(lab);
  }, 60_000);
  afterAll(async () => {
    await setServices([]);
    await lab.offload(OFFLOADS.on);
  });

  test.each(cases.map((one, i) => ({ ...one, i })))('$protocol, $where', async ({ protocol, where, endpoint, i }) => {
    await setServices([service(protocol, endpoint())]);
    const server = await serve(endpoint(), protocol);
    try {
      const sport = freshPort();
      const asking = await ask({ protocol, sport, seconds: 6 });
      const flow = await fast(protocol, sport);
      expect(flow).toMatchObject({
        destinationIp: VIP,
        destinationPort: SERVICE_PORT,
        sameNode: where === 'the same node',
      });
      await running()
        .node(where === 'the same node' ? 0 : 1)
        .waitFast({ sourceIp: endpoint().address, port: sport }, FAST_MS);
      const seen = await look(endpoint(), sport);
      expect(seen.atClient).toEqual(slow[i]?.atClient);
      expect(seen.atServer).toEqual(slow[i]?.atServer);
      expect([seen.atClient.length, seen.atServer.length]).toEqual([1, 1]);
      expect(seen.atClient[0]).toContain(` ${VIP}:${SERVICE_PORT} ${client.address}:client `);
      const { encapsulated, masqueraded, unmarked } = onWire(seen, protocol, sport);
      expect([encapsulated, unmarked]).toEqual([0, 0]);
      if (where === 'another node') expect(masqueraded).toBeGreaterThan(atLeastNatively(50, 10));
      const { json } = await running()
        .node(0)
        .cli(['flows', '--port', String(sport), '-o', 'json']);
      const endpointIp = endpoint().address;
      expect(json).toMatchObject({
        flows: expect.arrayContaining([expect.objectContaining({ endpointIp, endpointPort: ENDPOINT_PORT })]),
      });
      await answered(asking);
    } finally {
      await server.stop();
    }
  });
});

describe('Services', () => {
  afterAll(() => setServices([]));

  test.each([
    ['another node', () => remote],
    ['the same node', () => neighbour],
  ] as const)('a verified transfer both ways with segmentation offload, %s', async (_where, endpoint) => {
    await setServices([service('tcp', endpoint())]);
    const tool = lab.tool('stream');
    const at = ['--tcp', '--port', String(ENDPOINT_PORT), '--bind', endpoint().address];
    const server = await endpoint().spawn([tool, 'server', ...at]);
    await server.waitFor(/^ready/);
    try {
      const sport = freshPort();
      const to = ['--tcp', '--to', VIP, '--port', String(SERVICE_PORT), '--sport', String(sport)];
      const much = ['--up', String(BULK), '--down', String(BULK), '--rate', String(BULK / stretched(1))];
      const transfer = await client.spawn([tool, 'client', ...to, ...much]);
      await fast('tcp', sport);
      expect(await transfer.json(60_000)).toMatchObject({ complete: true, corrupt: 0, peerCorrupt: 0 });
    } finally {
      await server.stop();
    }
  });

  test('each connection stays with its endpoint, and all endpoints have some', async () => {
    await setServices([service('tcp', remote, sibling, neighbour)]);
    const pods = [remote, sibling, neighbour];
    const servers = await Promise.all(pods.map((pod, i) => serve(pod, 'tcp', String(i))));
    try {
      const sports = Array.from({ length: 12 }, () => freshPort());
      // Whoever answers, answers with its own letter: the first answer says which one it is.
      const to = (sport: number): string[] => ['--to', VIP, '--port', String(SERVICE_PORT), '--sport', String(sport)];
      const common = [
        '--tcp',
        '--json',
        '--size',
        '64',
        '--interval-us',
        String(stretched(5000)),
        '--seconds',
        String(EMULATED ? 80 : 4),
      ];
      const asking = await Promise.all(
        sports.map((sport) => client.spawn([lab.tool('rr'), 'client', ...common, ...to(sport)])),
      );
      await eventually('all fast', async () => {
        const flows = await running().node(0).flows({ proto: 'tcp' });
        return sports.every((sport) => flows.some((flow) => flow.sourcePort === sport && flow.path === 'fast'));
      });
      const { json } = await running()
        .node(0)
        .cli(['flows', '--port', String(SERVICE_PORT), '-o', 'json']);
      const { flows } = json as { flows: { sourcePort: number; endpointIp: string }[] };
      const used = new Set(
        flows.filter(({ sourcePort }) => sports.includes(sourcePort)).map(({ endpointIp }) => endpointIp),
      );
      // By chance one of three gets none of twelve connections in 2 of 100 runs.
      expect(used.size).toBeGreaterThan(1);
      for (const one of asking)
        expect(await one.json(60_000)).toMatchObject({ transactions: atLeast(atLeastNatively(100, 10)), errors: 0 });
    } finally {
      await Promise.all(servers.map((server) => server.stop()));
    }
  });

  test('a removed UDP endpoint gets nothing more, and the next one is used', async () => {
    await setServices([service('udp', remote)]);
    const servers = [await serve(remote, 'udp', 'x'), await serve(sibling, 'udp', 'x')];
    try {
      const sport = freshPort();
      const asking = await ask({ protocol: 'udp', sport, seconds: 12, intervalUs: 5000 });
      await fast('udp', sport);
      await setServices([service('udp', sibling)]);
      await sleep(stretched(200));
      const [old, next] = await Promise.all(
        [remote, sibling].map((pod) => pod.capture({ filter: `udp port ${sport}`, direction: 'in' })),
      );
      await sleep(stretched(1000));
      expect((await old?.stop())?.packets.length).toBe(0);
      expect((await next?.stop())?.packets.length).toBeGreaterThan(20);
      // Another pod of the same node on the same ports: the old one's packets may still be under way.
      await eventually('the slot is recent', async () => {
        const flows = await running().node(0).flows({ proto: 'udp', port: sport });
        return flows.every(({ path, reason }) => path === 'slow' && reason === 'slot_recent');
      });
      await answered(asking, { timeouts: 1 });
    } finally {
      await Promise.all(servers.map((server) => server.stop()));
    }
  });

  test('a TCP connection to a removed endpoint goes on, as with AntreaProxy', async () => {
    await setServices([service('tcp', remote)]);
    const server = await serve(remote, 'tcp');
    try {
      const sport = freshPort();
      const asking = await ask({ protocol: 'tcp', sport, seconds: 4 });
      await fast('tcp', sport);
      await setServices([]);
      await sleep(stretched(1500));
      expect(await fast('tcp', sport)).toMatchObject({ path: 'fast' });
      await answered(asking);
    } finally {
      await server.stop();
    }
  });

  test('an endpoint that is no pod stays slow, with its reason', async () => {
    const [node] = lab.nodes.slice(1);
    if (node === undefined) throw new Error('the lab has two nodes');
    await setServices([{ ...service('tcp'), endpoints: [{ address: node.gateway, port: ENDPOINT_PORT }] }]);
    const where = ['--tcp', '--port', String(ENDPOINT_PORT), '--bind', node.gateway, '--size', '64', '--tag', 'x'];
    const server = await node.spawn([lab.tool('rr'), 'server', ...where]);
    await server.waitFor(/^ready/);
    try {
      const sport = freshPort();
      const asking = await ask({ protocol: 'tcp', sport, seconds: 2 });
      await sleep(stretched(1000));
      const flows = await running().node(0).flows({ proto: 'tcp', port: sport });
      expect(flows).toEqual([expect.objectContaining({ path: 'slow', reason: 'not_pod', admitted: false })]);
      await answered(asking);
    } finally {
      await server.stop();
    }
  });
});
