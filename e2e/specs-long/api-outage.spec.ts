/**
 * The Kubernetes API away for three minutes, under traffic: the data plane goes on, pods come and go by Open vSwitch's database,
 * the API is asked ever less often, and its return changes nothing but what has changed meanwhile.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { AntreaDatabase } from '../lab/antrea-database.ts';
import { at, eventually, sleep, type Node, type Pod } from '../lab/lab.ts';
import { residentMemory } from '../lab/memory.ts';
import { up, type NativeLab } from '../lab/native/native.ts';
import { startSidecars, type LabSidecars } from '../lab/sidecar.ts';
import { LabCluster, NODES } from '../specs/support/cluster-double.ts';
import { attachments } from '../specs/support/footprint.ts';
import { withTransfer } from '../specs/support/streams.ts';

const OUTAGE_MS = 180_000;
/** Pauses of 0.5 s to 30 s, half of each by chance: at most this many attempts of one kind of object. */
const MAX_ATTEMPTS = 24;
/** Kinds of objects that are followed. */
const KINDS = 8;
/** The longest pause before an attempt. */
const RETURN_MS = 35_000;
/** The heap's first growth, and what may come to it in the second half of the outage. */
const MAX_GROWTH_KB = 96 * 1024;
const MAX_LATE_GROWTH_KB = 16 * 1024;
/** Paths of the API: Events, and a patch of one. */
const EVENTS = /\/events(\/|$)/;
const METRICS = '127.0.0.1:9108';

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
  sidecars = await startSidecars(lab, {
    withoutPods: true,
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

/** Sums of xmasq_kubernetes_actions_total of the first node, by action. */
async function actions(): Promise<Readonly<Record<string, number>>> {
  const script = `process.stdout.write(await (await fetch('http://${METRICS}/metrics')).text())`;
  const { stdout } = await lab.node(0).exec([process.execPath, '--input-type=module', '-e', script]);
  const sums: Record<string, number> = {};
  for (const [, action = '', value] of stdout.matchAll(
    /^xmasq_kubernetes_actions_total\{.*action="(\w+)"\} (\d+)$/gm,
  )) {
    sums[action] = (sums[action] ?? 0) + Number(value);
  }
  return sums;
}

function residentKb(): number {
  return residentMemory(sidecars.node(0).proc.pid).rssBytes / 1024;
}

async function endpointOf(pod: Pod): Promise<{ readonly attached: boolean } | undefined> {
  const { containerId } = pod.endpoint;
  return (await sidecars.node(0).admin.endpoints()).find((endpoint) => endpoint.containerId === containerId);
}

function capabilities(): readonly (string | undefined)[] {
  return cluster.double.store
    .list(NODES)
    .map(({ metadata }) => metadata.annotations?.['node.xmasq.antrea.io/capability']);
}

test('three minutes without the API', async () => {
  const [a, b] = [lab.node(0).pod(0), lab.node(1).pod(0)];
  const seconds = OUTAGE_MS / 1000 + 90;
  const steady = ['--seconds', String(seconds), '--rate', '200000', '--send-size', '2000'];
  await withTransfer(lab, { from: a, to: b }, steady, async ({ port, result }) => {
    await sidecars.waitFast({ port });
    await eventually('capabilities published', () => capabilities().every((text) => text !== undefined));
    const published = capabilities();
    const before = { attachments: await attachments(lab.node(0)), actions: await actions(), residentKb: residentKb() };
    const [{ ageMs: ageBefore = 0 } = {}] = await sidecars.node(0).flows({ port, sourceIp: a.address });

    const begun = performance.now();
    await cluster.double.outage();
    await eventually(
      'told',
      async () => (await sidecars.node(0).status()).degradations.some(({ where }) => where === 'Kubernetes API'),
      40_000,
    );
    // A pod comes and goes as if nothing were.
    const added = await lab.node(0).addPod();
    await databaseOf(lab.node(0)).addPod(added.endpoint);
    await eventually('attached', async () => (await endpointOf(added))?.attached === true, 5000);
    await withTransfer(lab, { from: added, to: b }, ['--seconds', '5', '--rate', '200000'], async (other) => {
      await sidecars.node(0).waitFast({ port: other.port });
      expect(await other.result()).toMatchObject({ complete: true, error: '' });
    });
    await databaseOf(lab.node(0)).removePort(added.endpoint.ifName);
    await eventually('detached', async () => (await endpointOf(added)) === undefined, 5000);

    let largest = 0;
    let halfway = 0;
    while (performance.now() - begun < OUTAGE_MS) {
      await sleep(5000);
      const [flow] = await sidecars.node(0).flows({ port, sourceIp: a.address });
      expect(flow).toMatchObject({ path: 'fast', reason: 'none' });
      largest = Math.max(largest, residentKb());
      if (performance.now() - begun < OUTAGE_MS / 2) halfway = largest;
    }
    const away = await actions();
    const failures = (away['failure'] ?? 0) - (before.actions['failure'] ?? 0);
    const [growthKb, lateGrowthKb] = [largest - before.residentKb, largest - halfway];
    process.stdout.write(
      `${failures} attempts of ${KINDS} kinds, resident memory grew by ${growthKb} kB, ${lateGrowthKb} kB in the second half\n`,
    );
    expect(failures).toBeGreaterThan(KINDS);
    expect(failures).toBeLessThanOrEqual(KINDS * MAX_ATTEMPTS);
    expect(growthKb).toBeLessThan(MAX_GROWTH_KB);
    expect(lateGrowthKb).toBeLessThan(MAX_LATE_GROWTH_KB);
    expect((await sidecars.node(0).status()).degradations.length).toBeLessThanOrEqual(4);

    // What is different after the return must be known, and nothing else touched.
    cluster.pod(lab.node(0).pod(1), { annotations: { 'kubernetes.io/egress-bandwidth': '1M' } });
    const asked = cluster.double.journal.length;
    await cluster.double.resume();
    await eventually(
      'the change is known',
      async () => (await sidecars.node(0).admin.endpoints()).some(({ exclusion }) => exclusion === 'bandwidth'),
      RETURN_MS,
      100,
    );
    await eventually('all is well', async () => (await sidecars.node(0).status()).state === 'ready', RETURN_MS, 100);
    const requests = cluster.double.journal.slice(asked);
    process.stdout.write(`${requests.length} requests of both nodes at the return\n`);
    // A watch of each kind, tried twice at most; the ConfigMap's selection makes it one kind per node, as all others.
    const events = requests.filter(({ path }) => EVENTS.test(path));
    const others = requests.filter(({ path }) => !EVENTS.test(path));
    expect(others.length).toBeLessThanOrEqual(lab.nodes.length * KINDS * 2);
    // Of each kind it may have been told that it is away, and that it is back: by an Event, or by a patch of one that said it before.
    expect(events.length).toBeLessThanOrEqual(lab.nodes.length * KINDS * 2);
    expect(others.filter(({ method }) => method === 'PATCH')).toEqual([]);
    expect((await actions())['list']).toBe(before.actions['list']);
    expect(capabilities()).toEqual(published);
    expect(await attachments(lab.node(0))).toEqual(before.attachments);
    const [after] = await sidecars.node(0).flows({ port, sourceIp: a.address });
    expect(after).toMatchObject({ path: 'fast' });
    // Admitted once, before all of this.
    expect(after?.ageMs).toBeGreaterThan(ageBefore + OUTAGE_MS);
    expect(await result((seconds + 30) * 1000)).toMatchObject({ complete: true, error: '', corrupt: 0 });
  });
}, 480_000);
