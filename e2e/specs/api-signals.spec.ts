/** What a sidecar that follows the Kubernetes API says of its readiness, and what excludes traffic while the API is away. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { AntreaDatabase } from '../lab/antrea-database.ts';
import { debianTree } from '../lab/debian.ts';
import { at, eventually, type Node } from '../lab/lab.ts';
import { up, type NativeLab } from '../lab/native/native.ts';
import { startSidecars, type LabSidecars } from '../lab/sidecar.ts';
import { LabCluster } from './support/cluster-double.ts';
import { withTransfer } from './support/streams.ts';

const METRICS = '127.0.0.1:9108';
/** Until an exclusion is in force. */
const EXCLUDED_MS = 1000;

let lab: NativeLab;
let cluster: LabCluster;
let sidecars: LabSidecars;
let directory: string;
let databases: AntreaDatabase[];

const databaseOf = (node: Node): AntreaDatabase => at(databases, node.index - 1, 'database');

beforeAll(async () => {
  lab = await up();
  directory = mkdtempSync(join(tmpdir(), `${lab.id}-`));
  databases = await Promise.all(lab.nodes.map((node) => AntreaDatabase.create(join(directory, node.name))));
  for (const node of lab.nodes) for (const pod of node.pods) await databaseOf(node).addPod(pod.endpoint);
  cluster = await LabCluster.start(lab);
  cluster.double.rights = ({ verb, resource }) => verb !== 'list' || resource !== 'pods';
  sidecars = await startSidecars(lab, {
    withoutPods: true,
    withoutWaiting: true,
    ovsdb: (node) => databaseOf(node).socket,
    kubeconfig: (node) => cluster.kubeconfig(node),
    metricsAddress: METRICS,
  });
}, 180_000);
afterAll(async () => {
  await sidecars.down();
  await cluster.stop();
  await Promise.all(databases.map((database) => database.stop()));
  rmSync(directory, { recursive: true, force: true });
  await lab.down();
});

/** Asks inside the first node, where the sidecar listens. */
async function get(path: string): Promise<{ readonly status: number; readonly text: string }> {
  const script = `const r = await fetch('http://${METRICS}${path}'); console.log(JSON.stringify({status: r.status, text: await r.text()}))`;
  const { stdout } = await lab.node(0).exec([process.execPath, '--input-type=module', '-e', script]);
  return JSON.parse(stdout) as { status: number; text: string };
}

test('a right that is missing: alive, not ready, and named; ready when it is granted', async () => {
  await eventually('told', async () => (await get('/readyz')).text.includes('403'), 20_000);
  const { status, text } = await get('/readyz');
  expect(status).toBe(503);
  expect(text).toContain('nothing is known yet from the source kubernetes\n');
  expect(text).toMatch(/^cannot follow \/api\/v1\/pods: 403 .*cannot list resource "pods".*charts\/xmasq/m);
  expect(await get('/healthz')).toMatchObject({ status: 200 });
  expect((await get('/metrics')).text).toContain('xmasq_kubernetes_kind_ready{kind="pods"} 0');
  cluster.double.rights = undefined;
  await eventually('ready', async () => (await get('/readyz')).status === 200, 40_000);
  await sidecars.waitReady();
}, 90_000);

test('promtool finds nothing wrong with the metrics of all that is followed', async () => {
  const promtool = join(await debianTree('prometheus', ['prometheus']), 'usr/bin/promtool');
  const { text } = await get('/metrics');
  for (const line of [
    /^xmasq_kubernetes_actions_total\{kind="nodes",action="list"\} 1$/m,
    /^xmasq_kubernetes_actions_total\{kind="pods",action="failure"\} [1-9]/m,
    /^xmasq_kubernetes_objects\{kind="pods"\} 2$/m,
    /^xmasq_kubernetes_kind_ready\{kind="trafficcontrols"\} 1$/m,
    /^xmasq_ovsdb_actions_total\{action="connect"\} 1$/m,
    /^xmasq_source_ready\{source="kubernetes"\} 1$/m,
  ]) {
    expect(text).toMatch(line);
  }
  const check = spawnSync(promtool, ['check', 'metrics'], { input: text, encoding: 'utf8', timeout: 20_000 });
  expect(check).toMatchObject({ status: 0, stderr: '' });
}, 120_000);

test('WireGuard that is switched on while the API is away stops traffic between nodes, and the configuration has the last word', async () => {
  const [a, b] = [lab.node(0).pod(0), lab.node(1).pod(0)];
  const steady = ['--seconds', '30', '--rate', '200000', '--send-size', '2000'];
  await withTransfer(lab, { from: a, to: b }, steady, async ({ port, result }) => {
    await sidecars.waitFast({ port });
    await cluster.double.outage();
    try {
      await lab.node(0).sh('ip link add antrea-wg0 type veth peer name antrea-wg1');
      await eventually(
        'slow',
        async () => {
          const [flow] = await sidecars.node(0).flows({ port, sourceIp: a.address });
          return flow?.path === 'slow' && flow.reason === 'encryption';
        },
        EXCLUDED_MS,
        20,
      );
      const { stdout } = await sidecars.node(0).cli(['status']);
      expect(stdout).toContain('excluded (inter-node): encryption (device antrea-wg0: WireGuard)');
      await cluster.double.resume();
      // Read again, it says that the device is a leftover.
      cluster.antreaConf({ defaultMTU: 1400 });
      await sidecars.waitFast({ port }, 45_000);
    } finally {
      await cluster.double.resume();
      await lab.node(0).sh('ip link del antrea-wg0 || true');
    }
    expect(await result(90_000)).toMatchObject({ complete: true, error: '' });
  });
}, 150_000);

test("Antrea's NodeNetworkPolicy excludes traffic between nodes within a second", async () => {
  const [a, b] = [lab.node(0).pod(0), lab.node(1).pod(0)];
  const steady = ['--seconds', '10', '--rate', '200000', '--send-size', '2000'];
  await withTransfer(lab, { from: a, to: b }, steady, async ({ port, result }) => {
    await sidecars.waitFast({ port });
    cluster.antreaConf({ featureGates: { NodeNetworkPolicy: true } });
    try {
      await eventually(
        'slow',
        async () => (await sidecars.node(0).flows({ port, sourceIp: a.address }))[0]?.reason === 'feature_gate',
        EXCLUDED_MS,
        20,
      );
    } finally {
      cluster.antreaConf({});
    }
    await sidecars.waitFast({ port });
    expect(await result()).toMatchObject({ complete: true, error: '' });
  });
}, 90_000);
