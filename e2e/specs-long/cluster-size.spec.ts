/** A sidecar at work in a cluster of 5,000 nodes, by a double of the Kubernetes API. */
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { numberedNode, podObject } from '../double/objects.ts';
import { eventually } from '../lab/lab.ts';
import { freshPort } from '../lab/measure.ts';
import { residentMemory } from '../lab/memory.ts';
import { up, type NativeLab } from '../lab/native/native.ts';
import { LabSidecars } from '../lab/sidecar.ts';
import { LabCluster, NODES, PODS } from '../specs/support/cluster-double.ts';
import { withTransfer } from '../specs/support/streams.ts';

const NODE_COUNT = 5000;
const NODE_BYTES = 8192;
const POD_COUNT = 200;
const MB = 2 ** 20;

let lab: NativeLab;
let cluster: LabCluster;
let sidecars: LabSidecars;
/** From the start of the first sidecar. */
let readyMs: number | undefined;

beforeAll(async () => {
  lab = await up();
  cluster = await LabCluster.start(lab);
  cluster.addNodes(NODE_COUNT, NODE_BYTES);
  const nodeName = lab.node(0).name;
  for (let n = 1; n <= POD_COUNT; n++) cluster.double.store.put(PODS, podObject({ name: `other-${n}`, nodeName }));
  sidecars = new LabSidecars(lab, { kubeconfig: (node) => cluster.kubeconfig(node) });
  // One after the other, as they share this machine: the double serves the first one alone.
  const begin = performance.now();
  for (const sidecar of sidecars.nodes) {
    await sidecar.start();
    await sidecar.waitReady();
    readyMs ??= performance.now() - begin;
  }
}, 120_000);
afterAll(async () => {
  await sidecars.down();
  await cluster.stop();
  await lab.down();
});

test('it is ready soon, takes less than 300 MB, and a flow is fast', async () => {
  const status = await sidecars.node(0).status();
  expect(status).toMatchObject({ state: 'ready', peers: NODE_COUNT + 1 });
  expect(readyMs).toBeLessThan(5000);
  const pair = { from: lab.node(0).pod(0), to: lab.node(1).pod(0) };
  const data = ['--seconds', '3', '--rate', '200000'];
  await withTransfer(
    lab,
    pair,
    data,
    async ({ port, result }) => {
      await sidecars.waitFast({ port });
      expect(await result()).toMatchObject({ complete: true, error: '' });
    },
    freshPort(),
  );
  const rss = sidecars.nodes.map(({ proc }) => Math.round(residentMemory(proc.pid).peakBytes / MB));
  process.stdout.write(`ready after ${Math.round(readyMs ?? NaN)} ms, peak RSS ${rss.join(' and ')} MB\n`);
  expect(Math.max(...rss)).toBeLessThan(300);
}, 60_000);

test('a change of one node arrives at once', async () => {
  cluster.double.store.put(NODES, numberedNode(7, { bytes: NODE_BYTES, address: '172.31.0.7' }));
  await eventually('the change', async () =>
    (await sidecars.node(0).admin.peers()).some(({ address }) => address === '172.31.0.7'),
  );
});
