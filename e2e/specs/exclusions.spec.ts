/**
 * What Antrea does to packets on the slow path keeps flows there: each cause, produced as Antrea's users would in a double of
 * the Kubernetes API, takes effect on a fast flow within a second, says why, and ends as it began.
 */
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { PROTOCOL_VERSION } from '../../plugin/src/dataplane/layout.ts';
import type { ReasonName } from '../lab/admin.ts';
import { eventually, sleep, type Pod } from '../lab/lab.ts';
import { withServer, freshPort } from '../lab/measure.ts';
import { up, type NativeLab } from '../lab/native/native.ts';
import { atMostNatively, stretched } from '../lab/scale.ts';
import { startSidecars, type LabSidecars } from '../lab/sidecar.ts';
import { EVENTS, keyOf, LabCluster, NODES, PACKET_CAPTURES, TRAFFIC_CONTROLS } from './support/cluster-double.ts';

let lab: NativeLab;
let cluster: LabCluster;
let sidecars: LabSidecars;
let a: Pod;
let b: Pod;
let beside: Pod;

beforeAll(async () => {
  lab = await up();
  cluster = await LabCluster.start(lab);
  sidecars = await startSidecars(lab, { kubeconfig: (node) => cluster.kubeconfig(node) });
  [a, beside] = [lab.node(0).pod(0), lab.node(0).pod(1)];
  b = lab.node(1).pod(0);
});
afterAll(async () => {
  await sidecars.down();
  await cluster.stop();
  await lab.down();
});

/** Milliseconds from a change in the API to its effect on every flow. */
const AT_ONCE = atMostNatively(1000);

interface Flow {
  readonly from: Pod;
  readonly to: Pod;
  readonly port: number;
}

/** Requests over one TCP connection while `use` runs; not one may be lost. */
async function withFlow(from: Pod, to: Pod, use: (flow: Flow) => Promise<void>): Promise<void> {
  const port = freshPort();
  const rr = lab.tool('rr');
  await withServer(to, [rr, 'server', '--tcp', '--port', String(port)], async () => {
    const client = await from.spawn(
      [rr, 'client', '--tcp', '--to', to.address, '--port', String(port)].concat([
        '--interval-us',
        String(stretched(5000)),
        '--timeout-ms',
        String(stretched(10_000)),
        '--seconds',
        String(stretched(120)),
        '--json',
      ]),
    );
    try {
      await use({ from, to, port });
      await client.stop('SIGTERM', 3000);
      expect(await client.json()).toMatchObject({ errors: 0, corrupt: 0 });
    } finally {
      await client.stop();
    }
  });
}

/** What the sender's node says of the flow. */
async function pathOf({
  from,
  port,
}: Flow): Promise<{ readonly path: string; readonly reason: ReasonName } | undefined> {
  const sidecar = sidecars.nodes.find(({ node }) => node === from.node);
  const [flow] = (await sidecar?.flows({ proto: 'tcp', port, sourceIp: from.address })) ?? [];
  return flow && { path: flow.path, reason: flow.reason };
}

async function isFast(flow: Flow): Promise<void> {
  await eventually('fast', async () => (await pathOf(flow))?.path === 'fast', 8000);
}

async function isSlowAtOnce(flow: Flow, reason: ReasonName, since: number): Promise<void> {
  await eventually(`slow: ${reason}`, async () => (await pathOf(flow))?.reason === reason, 3000, 20);
  expect(performance.now() - since).toBeLessThan(AT_ONCE);
}

describe.each<[string, ReasonName, () => void, () => void]>([
  [
    'a TrafficControl that selects it',
    'traffic_control',
    () => {
      cluster.pod(a, { labels: { app: 'web' } });
      cluster.double.store.put(TRAFFIC_CONTROLS, trafficControl());
    },
    () => {
      cluster.double.store.delete(TRAFFIC_CONTROLS, keyOf(trafficControl()));
      cluster.pod(a);
    },
  ],
  [
    'a limited bandwidth',
    'bandwidth',
    () => cluster.pod(a, { annotations: { 'kubernetes.io/egress-bandwidth': '10M' } }),
    () => cluster.pod(a),
  ],
  [
    'a PacketCapture that names it',
    'packet_capture',
    () => cluster.double.store.put(PACKET_CAPTURES, packetCapture('False')),
    () => cluster.double.store.put(PACKET_CAPTURES, packetCapture('True')),
  ],
  [
    'an address of an IPPool',
    'antrea_ipam',
    () => cluster.pod(a, { annotations: { 'ipam.antrea.io/ippools': 'pool' } }),
    () => cluster.pod(a),
  ],
])('a pod with %s', (_, reason, begin, end) => {
  test('is slow within a second, to other nodes and within its own, and fast again afterwards', async () => {
    await withFlow(a, b, (far) =>
      withFlow(a, beside, async (near) => {
        await Promise.all([isFast(far), isFast(near)]);
        const since = performance.now();
        begin();
        try {
          await Promise.all([isSlowAtOnce(far, reason, since), isSlowAtOnce(near, reason, since)]);
          const [endpoint] = (await sidecars.node(0).admin.endpoints()).filter(({ pod }) => pod === a.name);
          expect(endpoint).toMatchObject({ attached: true, exclusion: reason });
          const { stdout } = await sidecars.node(0).cli(['endpoints']);
          expect(stdout).toContain(`excluded`);
          expect(stdout).toContain(reason.replaceAll('_', '-'));
        } finally {
          end();
        }
        await Promise.all([isFast(far), isFast(near)]);
      }),
    );
  }, 60_000);
});

describe.each<[Readonly<Record<string, unknown>>, ReasonName, 'node' | 'inter-node']>([
  [{ trafficEncapMode: 'networkPolicyOnly' }, 'encap_mode', 'node'],
  [{ enableBridgingMode: true }, 'bridging', 'node'],
  [{ trafficEncryptionMode: 'wireGuard' }, 'encryption', 'inter-node'],
  [{ trafficEncryptionMode: 'ipsec' }, 'encryption', 'inter-node'],
  [{ tunnelType: 'gre' }, 'tunnel_type', 'inter-node'],
  [{ multicluster: { enableGateway: true } }, 'multicluster', 'node'],
])('antrea-agent.conf with %j', (conf, reason, scope) => {
  test(`excludes ${scope === 'node' ? 'everything' : 'traffic between nodes'} within a second, and no longer than it lasts`, async () => {
    await withFlow(a, b, (far) =>
      withFlow(a, beside, async (near) => {
        await Promise.all([isFast(far), isFast(near)]);
        const since = performance.now();
        cluster.antreaConf(conf);
        try {
          await isSlowAtOnce(far, reason, since);
          if (scope === 'node') await isSlowAtOnce(near, reason, since);
          else await isFast(near);
          const { stdout } = await sidecars.node(0).cli(['status']);
          expect(stdout).toContain(`excluded (${scope}): ${reason.replaceAll('_', '-')}`);
        } finally {
          cluster.antreaConf({});
        }
        await Promise.all([isFast(far), isFast(near)]);
      }),
    );
  }, 60_000);
});

test('a node publishes its capability while it takes part, and Events about its troubles', async () => {
  const capability = (index: number): string | undefined =>
    cluster.double.store.list(NODES)[index]?.metadata.annotations?.['node.xmasq.antrea.io/capability'];
  await eventually('published', () => capability(0) !== undefined && capability(1) !== undefined);
  expect(JSON.parse(capability(0) ?? '')).toMatchObject({ protocol: PROTOCOL_VERSION });
  try {
    // A tunnel port that is not the configured one is a degradation.
    cluster.antreaConf({ tunnelPort: 4790 });
    await eventually('an Event', () =>
      cluster.double.store.list(EVENTS).some((event) => String(event['note']).includes('tunnel uses port 4790')),
    );
  } finally {
    cluster.antreaConf({});
  }
  // Withdrawn as soon as traffic with other nodes is excluded.
  cluster.antreaConf({ trafficEncryptionMode: 'ipsec' });
  try {
    await eventually('withdrawn', () => capability(0) === undefined);
  } finally {
    cluster.antreaConf({});
  }
  await eventually('published again', () => capability(0) !== undefined);
}, 60_000);

test('a sidecar that is restarted while the API is away excludes what it excluded before', async () => {
  const excluded = (): boolean =>
    sidecars.node(0).maps.use(({ endpoints, endpointByAddr }) => {
      const id = endpointByAddr.get(a.address);
      return id !== undefined && endpoints.get(id).excluded !== 0;
    });
  cluster.pod(a, { annotations: { 'kubernetes.io/ingress-bandwidth': '1M' } });
  try {
    await eventually('excluded', excluded);
    await cluster.double.outage();
    await sidecars.node(0).stop();
    await sidecars.node(0).start();
    await sleep(2000);
    expect(excluded()).toBe(true);
  } finally {
    await cluster.double.resume();
    cluster.pod(a);
  }
  await eventually('included', () => !excluded(), 40_000);
  await withFlow(a, b, isFast);
}, 90_000);

test('an API that is away for a while: flows stay fast, new ones become fast, and changes come in afterwards', async () => {
  await withFlow(a, b, async (flow) => {
    await isFast(flow);
    await cluster.double.outage();
    await eventually('noticed', async () => (await sidecars.node(0).status()).degradations.length > 0, 40_000);
    await withFlow(beside, b, isFast);
    expect((await pathOf(flow))?.path).toBe('fast');
    cluster.pod(a, { annotations: { 'kubernetes.io/ingress-bandwidth': '1M' } });
    await cluster.double.resume();
    await eventually('slow', async () => (await pathOf(flow))?.reason === 'bandwidth', 40_000);
    cluster.pod(a);
    await isFast(flow);
  });
}, 120_000);

function trafficControl() {
  return {
    apiVersion: 'crd.antrea.io/v1alpha2',
    kind: 'TrafficControl',
    metadata: { name: 'mirror-web' },
    spec: {
      appliedTo: { podSelector: { matchLabels: { app: 'web' } } },
      direction: 'Both',
      action: 'Mirror',
      targetPort: { ovsInternal: { name: 'tap0' } },
    },
  };
}

function packetCapture(complete: 'True' | 'False') {
  return {
    apiVersion: 'crd.antrea.io/v1alpha1',
    kind: 'PacketCapture',
    metadata: { name: 'capture' },
    spec: { source: { pod: { namespace: 'default', name: a.name } }, captureConfig: { firstN: { number: 5 } } },
    status: { conditions: [{ type: 'PacketCaptureComplete', status: complete }] },
  };
}
