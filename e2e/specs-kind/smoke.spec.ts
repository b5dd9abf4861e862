/** XMasq beside a real Antrea (e2e/kind): what becomes fast, how it crosses the underlay, and that policies decide as ever. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { up } from '../lab/cluster/cluster.ts';
import type { ClusterLab, ClusterPod } from '../lab/cluster/cluster.ts';
import { clusterSettings } from '../lab/cluster/settings.ts';
import { addressOf, eventually, sleep } from '../lab/lab.ts';
import type { Family, Place } from '../lab/lab.ts';
import { freshPort, reaches, requestResponse, withServer } from '../lab/measure.ts';
import type { RequestResponseOptions, RequestResponseResult } from '../lab/measure.ts';
import { IPPROTO, network } from '../lab/packet.ts';
import type { CapturedPacket } from '../lab/pcap.ts';
import { countWire } from '../lab/wire.ts';
import type { WireCount, WireFlow } from '../lab/wire.ts';

type Protocol = 'tcp' | 'udp';
const PROTOCOLS: readonly Protocol[] = ['tcp', 'udp'];
const { families: FAMILIES } = clusterSettings();
const CASES = FAMILIES.flatMap((family) => PROTOCOLS.map((proto) => ({ family, proto })));
const [FAMILY = 'ipv4'] = FAMILIES;

/** An exchange goes on for so long: until it is fast, and while it is looked at. */
const SECONDS = 25;
/** UDP is admitted once conntrack calls it assured (2 s), approvals take a second, and masquerading is tried first. */
const FAST_MS = 15_000;
/** Antrea acts on an object a moment after it was made. */
const SOON_MS = 20_000;
const CAPTURE_MS = 1000;
/** 500 requests a second. */
const PACE: Pick<RequestResponseOptions, 'seconds' | 'intervalUs' | 'size'> = {
  seconds: SECONDS,
  intervalUs: 2000,
  size: 100,
};
/** Every answer came, and was right; a datagram may get lost. */
const SOUND = { errors: 0, corrupt: 0 } as const;
const LIMIT_MS = 120_000;

let lab: ClusterLab;
let client: ClusterPod;
let server: ClusterPod;

beforeAll(async () => {
  lab = await up();
  [client, server] = [lab.node(0).pod(0), lab.node(1).pod(0)];
}, 360_000);
afterAll(async () => {
  await lab.down();
}, 180_000);

test('every sidecar is ready, knows all other nodes, and has attached its pods', async () => {
  for (const node of lab.nodes) {
    // It holds back for ten seconds after it was installed.
    const status = await eventually(
      `${node.name} has started`,
      async () => {
        const now = await node.sidecar.status();
        return now.state === 'starting' ? undefined : now;
      },
      SOON_MS,
      500,
    );
    expect(status).toMatchObject({ state: 'ready', degradations: [], peers: lab.otherNodes });
    await eventually(
      `${node.name} has attached its pod`,
      async () => {
        const endpoints = await node.sidecar.endpoints();
        const own = endpoints.find(({ pod, namespace }) => pod === node.pod(0).name && namespace === lab.namespace);
        return own?.attached === true && own.exclusion === undefined;
      },
      SOON_MS,
      500,
    );
  }
});

describe('between two nodes', () => {
  test.each(CASES)(
    '$proto over $family is fast in both directions, as Antrea’s mode has it, and every answer is right',
    async ({ family, proto }) => {
      const [port, sport] = [freshPort(), freshPort()];
      const mode = lab.encapMode === 'encap' ? 'masquerade' : 'direct';
      const [result, seen] = await Promise.all([
        requestResponse(lab, { from: client, to: server, family }, { ...PACE, proto, port, sport }),
        lab.waitFast({ proto, port }, FAST_MS, mode).then(() => captureUplink(family)),
      ]);
      expect(result).toMatchObject(SOUND);
      expect(result.transactions).toBeGreaterThan(1000);
      const counts = crossings(seen, { family, proto, port, sport });
      // Nothing crosses in another way; how much there is, is a matter of the machine.
      const expected = { masquerade: 0, encap: 0, direct: 0, unmarked: 0, [mode]: true };
      expect({ ...counts, [mode]: counts[mode] > 50 }).toEqual(expected);
    },
    LIMIT_MS,
  );

  test.each(FAMILIES)(
    'TCP to a ClusterIP of %s is answered by its endpoint, and fast where the kernel admits',
    async (family) => {
      const port = freshPort();
      const via = await lab.addService(server, { proto: 'tcp', port, family });
      await withServer(server, rrServer(port, family), () => reachable({ address: via }, port));
      // Approvals carry no translation: such a flow stays slow.
      const { admissionMode } = await client.node.sidecar.status();
      const [result] = await Promise.all([
        requestResponse(lab, { from: client, to: server, family, via }, { ...PACE, proto: 'tcp', port }),
        admissionMode === 'conntrack' ? lab.waitFast({ proto: 'tcp', port }, FAST_MS) : Promise.resolve(),
      ]);
      expect(result).toMatchObject(SOUND);
      expect(result.transactions).toBeGreaterThan(1000);
    },
    LIMIT_MS,
  );
});

describe('a NetworkPolicy', () => {
  afterEach(async () => {
    await lab.policy.clear();
  }, 60_000);

  test(
    'denies new connections and admits no flow of them; what it allows becomes fast; what was there goes on',
    async () => {
      const [old, open, closed] = [freshPort(), freshPort(), freshPort()];
      const [result] = await Promise.all([
        exchange(old),
        lab.waitFast({ proto: 'tcp', port: old }, FAST_MS).then(() => tighten(open, closed)),
      ]);
      // As with Antrea alone: an established connection is not judged again.
      expect(result).toMatchObject(SOUND);

      const [allowed] = await Promise.all([exchange(open), lab.waitFast({ proto: 'tcp', port: open }, FAST_MS)]);
      expect(allowed).toMatchObject(SOUND);
    },
    LIMIT_MS,
  );

  /** Lets only one port into the server, and looks what becomes of another one. */
  async function tighten(open: number, closed: number): Promise<void> {
    await lab.policy.allowOnly(server, [{ proto: 'tcp', port: open }]);
    const to = { address: addressOf(server, FAMILY) };
    await withServer(server, rrServer(closed, FAMILY), () =>
      eventually('denied', async () => !(await reaches(lab, client, to, closed)), SOON_MS, 500),
    );
    for (const { sidecar } of lab.nodes) {
      const flows = await sidecar.flows({ proto: 'tcp', port: closed });
      // Those of attempts before the policy was in force have ended.
      expect(flows.filter(({ path }) => path === 'fast')).toEqual([]);
    }
  }

  function exchange(port: number): Promise<RequestResponseResult> {
    return requestResponse(lab, { from: client, to: server, family: FAMILY }, { ...PACE, proto: 'tcp', port });
  }
});

function rrServer(port: number, family: Family): string[] {
  return [lab.tool('rr'), 'server', '--tcp', '--port', String(port), '--bind', addressOf(server, family)];
}

/** Waits until a client is answered there. */
async function reachable(to: Pick<Place, 'address'>, port: number): Promise<void> {
  await eventually(`${to.address} is reachable`, () => reaches(lab, client, to, port), SOON_MS, 500);
}

/** What passes the client's node to and from the server's, and the pods themselves. */
async function captureUplink(family: Family): Promise<readonly CapturedPacket[]> {
  const hosts = [server.node.address, server.node.address6, addressOf(server, family)];
  const known = hosts.filter((host) => host !== undefined);
  const capture = await client.node.capture({ filter: known.map((host) => `host ${host}`).join(' or ') });
  await sleep(CAPTURE_MS);
  const { packets, dropped } = await capture.stop();
  expect(dropped).toBe(0);
  return packets;
}

/** Number of the flow's packets by how they crossed. */
type Crossings = Readonly<Record<'masquerade' | 'encap' | 'direct' | 'unmarked', number>>;

function crossings(
  packets: readonly CapturedPacket[],
  { family, proto, port, sport }: { family: Family; proto: Protocol; port: number; sport: number },
): Crossings {
  const end = (pod: ClusterPod, own: number): WireFlow['client'] => ({
    pod: { address: addressOf(pod, family) },
    node: { address: addressOf(pod.node, family) },
    port: own,
  });
  const flow: WireFlow = { proto: IPPROTO[proto], client: end(client, sport), server: end(server, port) };
  const { masqueraded, encapsulated, unmarked }: WireCount = countWire(packets, [flow]);
  const addresses = new Set([flow.client.pod.address, flow.server.pod.address]);
  const direct = packets.filter((packet) => {
    const ip = network(packet);
    if (ip === undefined || packet.inner !== undefined) return false;
    const ports = [packet.l4?.sport, packet.l4?.dport];
    return addresses.has(ip.src) && addresses.has(ip.dst) && ports.includes(port);
  });
  return { masquerade: masqueraded, encap: encapsulated, direct: direct.length, unmarked };
}
