/** What Antrea's pipeline does besides letting pass: translating sources, L7 redirection, DNS interception, isolation. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { ANTREA, eventually } from '../lab/lab.ts';
import type { Place, Pod } from '../lab/lab.ts';
import { freshPort, reaches, requestResponse, withServer } from '../lab/measure.ts';
import { L7_PORTS, VIRTUAL_SERVICE_ADDRESS } from '../lab/ovs/names.ts';
import { residue, up } from '../lab/ovs/ovs.ts';
import type { OvsLab } from '../lab/ovs/ovs.ts';
import type { ReasonName } from '../lab/admin.ts';
import { ADMISSION } from '../lab/scale.ts';
import { startSidecars } from '../lab/sidecar.ts';
import type { LabSidecars } from '../lab/sidecar.ts';
import { connections, ruleCounts } from './support/connections.ts';

const SNAT_ZONE = 65521;
const L7_VLAN = 5;
/** A connection is asked about for so long; conntrack calls UDP assured after two seconds. */
const SECONDS = '6';
const SERVICE_PORT = 80;

/** One Service for each behaviour, all on the first node. */
const SERVICES = {
  hairpin: { clusterIp: '10.96.0.20', protocol: 'tcp', port: SERVICE_PORT },
  gateway: { clusterIp: '10.96.0.21', protocol: 'tcp', port: SERVICE_PORT },
  external: { clusterIp: '10.96.0.22', protocol: 'tcp', port: SERVICE_PORT, external: true },
  node: { clusterIp: '10.96.0.23', protocol: 'tcp', port: SERVICE_PORT },
  neighbour: { clusterIp: '10.96.0.24', protocol: 'tcp', port: SERVICE_PORT },
} as const;
type ServiceName = keyof typeof SERVICES;

let lab: OvsLab;
let a: Pod;
let neighbour: Pod;
let b: Pod;
/** Ports of the endpoints. */
const endpoints = new Map<ServiceName, { readonly server: Place; readonly address: string; readonly port: number }>();

beforeAll(async () => {
  lab = await up();
  [a, neighbour, b] = [lab.node(0).pod(0), lab.node(0).pod(1), lab.node(1).pod(0)];
  const servers = { hairpin: a, gateway: b, external: b, node: lab.node(0), neighbour };
  for (const name of Object.keys(SERVICES) as ServiceName[]) {
    const server = servers[name];
    const endpoint = { server, address: server.address, port: freshPort() };
    endpoints.set(name, endpoint);
    await lab.node(0).addService({ ...SERVICES[name], endpoints: [endpoint] });
  }
  await lab.node(0).addL7Engine();
  // A client outside of the cluster: it reaches the Service by the first node.
  const { clusterIp } = SERVICES.external;
  await lab.node(1).exec(['ip', 'route', 'add', clusterIp, 'via', lab.node(0).address]);
}, 240_000);
afterAll(async () => {
  await lab.down();
  expect(residue(lab)).toEqual([]);
});
beforeEach(async () => {
  await lab.policy.clear();
});

describe('connections whose source is translated, too', () => {
  test('a pod reaches itself by a Service: marks 5 and 6, the gateway as client, back out of its port', async () => {
    const sources = await clientsSeen('hairpin', a);
    expect(sources).toEqual([lab.node(0).gateway]);
    const { clusterIp } = SERVICES.hairpin;
    expect(await marks(clusterIp)).toEqual([0x73]);
    const again = await connections(lab.node(0), endpointOf('hairpin').port, SNAT_ZONE);
    expect(again).toMatchObject([{ mark: 0x70 }]);
    expect(again[0]?.text).toContain(`dst=${lab.node(0).gateway}`);
  });

  test('the node reaches a pod of another node by a Service: its own address will do', async () => {
    expect(await clientsSeen('gateway', lab.node(0))).toEqual([lab.node(0).gateway]);
    expect(await marks(SERVICES.gateway.clusterIp)).toEqual([0x12]);
    expect(await connections(lab.node(0), endpointOf('gateway').port, SNAT_ZONE)).toEqual([]);
  });

  test('a client from outside, by this node to a pod of another: the gateway as client, mark 5', async () => {
    expect(await clientsSeen('external', lab.node(1))).toEqual([lab.node(0).gateway]);
    expect(await marks(SERVICES.external.clusterIp)).toEqual([0x32]);
    expect(await connections(lab.node(0), endpointOf('external').port, SNAT_ZONE)).toMatchObject([{ mark: 0x30 }]);
    expect(await connections(lab.node(1), endpointOf('external').port)).toMatchObject([
      { mark: ANTREA.markFromTunnel },
    ]);
  });

  test('the node reaches itself by a Service: marks 5 and 6, the virtual address as client', async () => {
    expect(await clientsSeen('node', lab.node(0))).toEqual([VIRTUAL_SERVICE_ADDRESS]);
    expect(await marks(SERVICES.node.clusterIp)).toEqual([0x72]);
  });
});

describe('L7, DNS', () => {
  test('an L7 rule: mark 7, every packet of both directions goes through the engine with its VLAN', async () => {
    const port = freshPort();
    const capture = await lab.node(0).capture({ device: L7_PORTS.to, filter: `vlan ${L7_VLAN} and tcp port ${port}` });
    const inPod = await b.capture({ filter: `tcp dst port ${port}` });
    const number = await lab.policy.allow({ srcPod: a, proto: 'tcp', port }, 'egress', L7_VLAN);
    const result = await requestResponse(lab, { from: a, to: b }, { proto: 'tcp', count: 5, port });
    expect(result).toMatchObject({ transactions: 5, errors: 0 });
    // SYN, SYN ACK, ACK, and each message once.
    expect((await capture.stop()).packets.length).toBeGreaterThanOrEqual(13);
    const { packets } = await inPod.stop();
    expect(new Set(packets.map(({ ip }) => ip?.ttl))).toEqual(new Set([62]));
    expect(await connections(lab.node(0), port)).toMatchObject([{ mark: 0x83, egressRule: number }]);
    expect(await connections(lab.node(1), port)).toMatchObject([{ mark: ANTREA.markFromTunnel }]);
  });

  test('DNS replies wait for the controller, established or not; where there is none, none arrives', async () => {
    await lab.policy.interceptDns(a);
    const options = { proto: 'udp', count: 5, port: 53 } as const;
    await withController(async (asked) => {
      // Open vSwitch may still have the old flow in its cache for a moment.
      await eventually('the controller was asked, and everything answered', async () => {
        const before = asked();
        const { errors } = await requestResponse(lab, { from: a, to: b }, options);
        return errors === 0 && asked() >= before + options.count;
      });
    });
    await withServer(b, rrServer('--udp', 53), async () => {
      const client = ['--udp', '--to', b.address, '--port', '53', '--count', '2', '--timeout-ms', '1000', '--json'];
      expect((await a.exec([lab.tool('rr'), 'client', ...client], { check: false })).code).not.toBe(0);
    });
  });
});

describe('isolation, probes, counts, TTL', () => {
  test('an isolated pod receives what a rule allows, and nothing else', async () => {
    const [port, other] = [freshPort(), freshPort()];
    await lab.policy.isolate(b, 'ingress');
    const number = await lab.policy.allow({ srcPod: a, dstPod: b, proto: 'tcp', port }, 'ingress');
    await withServer(b, rrServer('--tcp', port), async () => {
      expect(await reaches(lab, a, b, port)).toBe(true);
    });
    await withServer(b, rrServer('--tcp', other), async () => {
      expect(await reaches(lab, a, b, other)).toBe(false);
    });
    expect(await connections(lab.node(1), port)).toMatchObject([{ mark: 1, ingressRule: number }]);
    expect(await connections(lab.node(1), other)).toEqual([]);
    await eventually('counted', async () => {
      const { sessions, later } = await ruleCounts(lab.node(1), number, 'ingress');
      return sessions === 1 && later >= 3;
    });
  });

  test('an isolated pod sends what a rule allows, and nothing else', async () => {
    const [port, other] = [freshPort(), freshPort()];
    await lab.policy.isolate(a, 'egress');
    await lab.policy.allow({ srcPod: a, proto: 'tcp', port }, 'egress');
    for (const [each, reached] of [
      [port, true],
      [other, false],
    ] as const) {
      await withServer(neighbour, rrServer('--tcp', each), async () => {
        expect(await reaches(lab, a, neighbour, each)).toBe(reached);
      });
    }
  });

  test('the kubelet reaches an isolated pod with its mark', async () => {
    await lab.policy.isolate(neighbour, 'ingress');
    const ping = async (...own: string[]): Promise<boolean> =>
      (await lab.node(0).exec(['ping', '-c', '1', '-W', '3', ...own, neighbour.address], { check: false })).code === 0;
    expect(await ping()).toBe(false);
    expect(await ping('-m', String(0x80000000))).toBe(true);
  });

  test('a packet whose TTL ends on the way is dropped, and nobody says so', async () => {
    const ping = (ttl: number): Promise<{ readonly stdout: string; readonly code: number | null }> =>
      a.exec(['ping', '-c', '1', '-W', '3', '-t', String(ttl), b.address], { check: false });
    expect((await ping(3)).code).toBe(0);
    for (const ttl of [1, 2]) {
      const { code, stdout } = await ping(ttl);
      expect([ttl, code, /exceeded/.test(stdout)]).toEqual([ttl, 1, false]);
    }
  });
});

describe('with XMasq they are slow', () => {
  let sidecars: LabSidecars;

  beforeAll(async () => {
    sidecars = await startSidecars(lab);
  }, 120_000);
  afterAll(async () => {
    await sidecars.down();
  });

  // The pod sends to a gateway or a Service's address, and so does not even ask conntrack.
  test.each([
    ['a pod that reaches itself by a Service', 'hairpin', 0, 0, 'not_pod'],
    ['a client from outside by another node', 'external', 1, 1, 'not_pod'],
    ['the node, by a Service', 'gateway', 0, 1, 'not_pod'],
  ] as const)('%s', async (_, name, client, server, reason) => {
    const { port } = endpointOf(name);
    const before = await counted(server, reason);
    await askFor(client === 0 && name === 'hairpin' ? a : lab.node(client), name);
    expect(await admitted(port)).toEqual([]);
    expect(await counted(server, reason)).toBeGreaterThan(before);
  });

  // Approvals carry no translation.
  (ADMISSION === 'approvals' ? test : test.skip)('a Service’s endpoint on the same node', async () => {
    const { server, port } = endpointOf('neighbour');
    await withServer(server, rrServer('--tcp', port), async () => {
      const to = { address: SERVICES.neighbour.clusterIp, port: SERVICE_PORT, protocol: '--tcp' } as const;
      await whileAsking(a, to, () => shows(port, 'no_approval', neighbour.address));
    });
    expect(await fastPackets(port)).toBe(0);
  });

  test('a connection of an L7 rule', async () => {
    const port = freshPort();
    await lab.policy.allow({ srcPod: a, proto: 'tcp', port }, 'egress', L7_VLAN);
    await withServer(b, rrServer('--tcp', port), async () => {
      await whileAsking(a, { address: b.address, port, protocol: '--tcp' }, () => shows(port, 'ct_l7', a.address));
    });
    expect(await fastPackets(port)).toBe(0);
  });

  test('DNS replies that the agent wants to see', async () => {
    await lab.policy.interceptDns(a);
    const before = await counted(1, 'dns_reply');
    await withController(async (asked) => {
      const to = { address: b.address, port: 53, protocol: '--udp' } as const;
      await withServer(b, rrServer('--udp', 53), async () => {
        // A reply that comes before the controller is connected is lost, with XMasq or without.
        await eventually('the controller lets replies go on', () => answered(a, to), 30_000);
        await whileAsking(a, to, () =>
          eventually('counted', async () => (await counted(1, 'dns_reply')) > before + 10),
        );
      });
      expect(await admitted(53)).toEqual([]);
      await eventually('the controller was asked', () => asked() > 10);
    });
  });

  /** Before kernel 6.11 it is the sidecar that reads the mark, and the flow wants for its approval. */
  async function shows(port: number, reason: ReasonName, sourceIp: string): Promise<void> {
    const { admissionMode } = await sidecars.node(0).status();
    const expected = admissionMode === 'approvals' ? 'no_approval' : reason;
    await eventually(`${expected} of ${sourceIp}, port ${port}`, async () =>
      (await sidecars.node(0).flows({ port, sourceIp })).some(
        (flow) => flow.path === 'slow' && !flow.admitted && flow.reason === expected,
      ),
    );
  }

  async function counted(node: number, reason: ReasonName): Promise<number> {
    return (await sidecars.node(node).status()).reasons[reason];
  }

  async function admitted(port: number): Promise<unknown[]> {
    const flows = await Promise.all(sidecars.nodes.map((sidecar) => sidecar.flows({ port })));
    return flows.flat().filter((flow) => flow.admitted);
  }

  async function fastPackets(port: number): Promise<number> {
    const flows = await Promise.all(sidecars.nodes.map((sidecar) => sidecar.flows({ port })));
    return flows.flat().reduce((sum, { txPackets, rxPackets }) => sum + txPackets + rxPackets, 0);
  }
});

/** Reaches a Service and returns whom its server took for the client. */
async function clientsSeen(name: ServiceName, client: Place): Promise<string[]> {
  const { server, port } = endpointOf(name);
  const device = server === lab.node(0) ? lab.node(0).gatewayDevice : server.device;
  const capture = await server.capture({ device, filter: `tcp dst port ${port}`, direction: 'in' });
  await withServer(server, rrServer('--tcp', port), async () => {
    expect(await reaches(lab, client, { address: SERVICES[name].clusterIp }, SERVICE_PORT)).toBe(true);
  });
  const { packets } = await capture.stop();
  return [...new Set(packets.map(({ ip }) => ip?.src ?? ''))];
}

/** Runs `use` while the agent's stand-in answers; `asked` says how often it was asked so far. Two would answer twice. */
async function withController(use: (asked: () => number) => Promise<void>): Promise<void> {
  const controller = await lab.node(0).ovs.controller();
  try {
    await use(() => controller.output().match(/PACKET_IN/g)?.length ?? 0);
  } finally {
    await controller.stop();
  }
}

/** Sends a Service requests for some seconds; none may fail. */
async function askFor(client: Place, name: ServiceName): Promise<void> {
  const { server, port } = endpointOf(name);
  await withServer(server, rrServer('--tcp', port), () =>
    whileAsking(client, { address: SERVICES[name].clusterIp, port: SERVICE_PORT, protocol: '--tcp' }, () =>
      Promise.resolve(),
    ),
  );
}

interface Target {
  readonly address: string;
  readonly port: number;
  readonly protocol: '--tcp' | '--udp';
}

const targetOptions = ({ protocol, address, port }: Target): string[] => [
  ...[protocol, '--to', address, '--port', String(port), '--json'],
];

/** Asks for a second, and says whether every request was answered. */
async function answered(client: Place, to: Target): Promise<boolean> {
  const pace = ['--seconds', '1', '--interval-us', '100000', '--timeout-ms', '2000'];
  const asking = await client.spawn([lab.tool('rr'), 'client', ...targetOptions(to), ...pace]);
  const { errors, timeouts } = (await asking.json()) as { errors: number; timeouts: number };
  return errors === 0 && timeouts === 0;
}

/** Runs `use` while a client asks for some seconds, and waits for its end; no request may fail. */
async function whileAsking(client: Place, to: Target, use: () => Promise<unknown>): Promise<void> {
  const target = targetOptions(to);
  const pace = ['--seconds', SECONDS, '--interval-us', '50000', '--timeout-ms', '5000'];
  const asking = await client.spawn([lab.tool('rr'), 'client', ...target, ...pace]);
  await use();
  expect(await asking.json()).toMatchObject({ errors: 0, timeouts: 0, corrupt: 0 });
}

/** Marks of the first node's connections to a Service. */
async function marks(clusterIp: string): Promise<number[]> {
  const entries = await lab.node(0).conntrack.list({ zone: ANTREA.zone, proto: 'tcp', dst: clusterIp });
  return entries.map(({ mark }) => mark);
}

function endpointOf(name: ServiceName): { readonly server: Place; readonly address: string; readonly port: number } {
  const endpoint = endpoints.get(name);
  if (endpoint === undefined) throw new Error(`no endpoint of ${name}`);
  return endpoint;
}

function rrServer(protocol: '--tcp' | '--udp', port: number): string[] {
  return [lab.tool('rr'), 'server', protocol, '--port', String(port)];
}
