/**
 * What `helm uninstall` does first: the hook's command asks the sidecars to leave, by the API, and waits for them. The rights
 * are those of the rendered chart. Helm itself is not here.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { GOLDEN } from '../chart/renderings.ts';
import { podObject } from '../double/objects.ts';
import { rightsOf } from '../double/rights.ts';
import { EMULATED } from '../lab/scale.ts';
import { eventually, type ExecResult } from '../lab/lab.ts';
import { freshPort, withServer } from '../lab/measure.ts';
import { up, type NativeLab } from '../lab/native/native.ts';
import { program } from '../lab/programs.ts';
import { startSidecars, type LabSidecars } from '../lab/sidecar.ts';
import { CONFIG_MAPS, LabCluster, NODES, PODS } from './support/cluster-double.ts';
import { attachments, footprintOf, pins, qdiscs, remaining } from './support/footprint.ts';
import { withDatagrams } from './support/streams.ts';

const NAMESPACE = 'kube-system';
const METRICS = '127.0.0.1:9108';
/** Of the traffic, which is ended when all is done; a drain takes 32 s. */
const MOST_S = 300;
const UDP_RATE = EMULATED ? '50' : '200';
/** Microseconds from one request to the next, on one TCP connection. */
const TCP_INTERVAL = EMULATED ? '50000' : '5000';
/** For a first answer, of a process that has to load a client first, on a busy machine, too; nobody is clean by then. */
const SHORT_S = 20;
/** From the removal until the process has noticed, said so, or begun anew. */
const SOON_MS = 10_000;

let lab: NativeLab;
let cluster: LabCluster;
let sidecars: LabSidecars;
let devicesBefore: string[];

/** Writes the ConfigMap as the chart has it: nothing is asked. */
function clearFlag(): void {
  cluster.double.store.put(CONFIG_MAPS, {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { namespace: NAMESPACE, name: 'xmasq-uninstall' },
  });
}

/** The hook's command; it needs no more of a node than a way to the API. */
function uninstall(timeoutSeconds: number): Promise<ExecResult> {
  const node = lab.node(0);
  const options = ['--namespace', NAMESPACE, '--timeout', String(timeoutSeconds)];
  const argv = [...program('xmasq-agent'), 'uninstall', '--kubeconfig', cluster.kubeconfig(node), ...options];
  return node.exec(argv, { check: false, timeoutMs: (timeoutSeconds + 20) * 1000 });
}

const annotationsOf = (node: number): Readonly<Record<string, string>> =>
  cluster.double.store.get(NODES, lab.node(node).name)?.metadata.annotations ?? {};

/** What the kubelet's probe of readiness gets on the first node; undefined: nobody answers. */
async function readiness(): Promise<string | undefined> {
  const script = `const r = await fetch('http://${METRICS}/readyz'); console.log(r.status + ' ' + (await r.text()))`;
  const { code, stdout } = await lab.node(0).exec([process.execPath, '--input-type=module', '-e', script], {
    check: false,
  });
  return code === 0 ? stdout : undefined;
}

beforeAll(async () => {
  lab = await up();
  devicesBefore = await qdiscs(lab.node(0));
  cluster = await LabCluster.start(lab);
  cluster.double.rights = rightsOf(readFileSync(join(GOLDEN, 'default.yaml'), 'utf8'));
  clearFlag();
  for (const { name: nodeName } of lab.nodes) {
    const pod = { namespace: NAMESPACE, name: `xmasq-${nodeName}`, nodeName, labels: { app: 'xmasq' } };
    cluster.double.store.put(PODS, podObject(pod));
  }
  // As in a pod.
  sidecars = await startSidecars(lab, {
    serviceAccount: (node) => cluster.serviceAccount(node),
    environment: cluster.environment,
    metricsAddress: METRICS,
  });
}, 120_000);
afterAll(async () => {
  await sidecars.down();
  await cluster.stop();
  await lab.down();
});

test('a node that does not answer is named in time; once all answer, nothing of XMasq is left and nothing was lost', async () => {
  const footprints = await Promise.all(lab.nodes.map(footprintOf));
  const pair = { from: lab.node(0).pod(0), to: lab.node(1).pod(0) };
  const rr = lab.tool('rr');
  const tcpPort = freshPort();
  const to = ['--tcp', '--port', String(tcpPort), '--size', '1000'];
  const datagrams = ['--seconds', String(MOST_S), '--reply', '--rate', UDP_RATE];
  const requests = ['--seconds', String(MOST_S), '--interval-us', TCP_INTERVAL, '--timeout-ms', '20000', '--json'];
  await withDatagrams(lab, pair, datagrams, (udp) =>
    withServer(pair.to, [rr, 'server', ...to], async () => {
      const tcp = await pair.from.spawn([rr, 'client', ...to, '--to', pair.to.address, ...requests]);
      await sidecars.waitFast({ proto: 'tcp', port: tcpPort });
      await sidecars.waitFast({ proto: 'udp', port: udp.port }, 10_000);
      expect(annotationsOf(0)).toHaveProperty(['node.xmasq.antrea.io/capability']);

      await sidecars.node(1).kill9();
      try {
        const begun = Date.now();
        const failed = await uninstall(SHORT_S);
        expect(failed.stderr).toContain(`not removed from 2 of 2 nodes within ${SHORT_S} s`);
        expect(failed).toMatchObject({ code: 1, stdout: '0 of 2 nodes are clean\n' });
        expect(failed.stderr).toContain(`${lab.node(1).name} (no answer)`);
        expect(Date.now() - begun).toBeLessThan((SHORT_S + 15) * 1000);
        expect(await sidecars.node(0).status()).toMatchObject({ state: 'draining' });
      } finally {
        // Taken back in mid-drain: it takes part again.
        clearFlag();
        await sidecars.node(1).start();
      }
      await sidecars.waitReady();
      await sidecars.waitFast({ proto: 'tcp', port: tcpPort }, 2 * SOON_MS);
      await sidecars.waitFast({ proto: 'udp', port: udp.port }, 2 * SOON_MS);

      const done = await uninstall(60);
      expect(done).toMatchObject({ code: 0, stderr: '' });
      expect(done.stdout).toMatch(/^2 of 2 nodes are clean\nXMasq is removed from 2 nodes$/m);
      expect(tcp.running && udp.client.running).toBe(true);
      await Promise.all([tcp, udp.client].map((client) => client.stop('SIGTERM', SOON_MS)));
      expect(await udp.result()).toMatchObject({ answered: true, peer: { lost: 0, corrupt: 0 }, echo: { lost: 0 } });
      expect(await tcp.json()).toMatchObject({ errors: 0, timeouts: 0, corrupt: 0, connections: 1 });
    }),
  );
  for (const [i, node] of lab.nodes.entries()) {
    // The processes are still there, and hold none of it.
    expect(sidecars.node(i).proc.running).toBe(true);
    const footprint = footprints[i] ?? { programs: [], maps: [], links: [] };
    expect(footprint.maps.length).toBeGreaterThan(10);
    await eventually(
      'programs, maps and links gone',
      async () => {
        const left = await remaining(node, footprint);
        return left.programs.length + left.maps.length + left.links.length === 0;
      },
      SOON_MS,
    );
    expect(await attachments(node)).toEqual([]);
    expect(await pins(node)).toEqual([]);
    expect(annotationsOf(i)).toEqual({});
  }
  expect(await qdiscs(lab.node(0))).toEqual(devicesBefore);
  expect(cluster.double.journal.filter(({ status }) => status === 403)).toEqual([]);
}, 150_000);

test('a sidecar that starts while it was asked to leave attaches nothing, and one that is not asked any more begins anew', async () => {
  const sidecar = sidecars.node(0);
  await sidecar.kill9();
  // Nobody tells it: it has noted down that it left.
  await cluster.double.outage();
  const { node, configFile } = sidecar;
  const again = await node.spawn([...program('xmasq-agent'), 'run', '--config', configFile], {
    name: 'again',
    env: cluster.environment,
  });
  try {
    let attached = false;
    await eventually(
      'it says so',
      async () => {
        attached ||= (await pins(node)).length > 0;
        return (await readiness())?.startsWith('503 removed\n');
      },
      4 * SOON_MS,
    );
    expect(attached).toBe(false);
    await cluster.double.resume();
    expect(await readiness()).toContain('ConfigMap xmasq-uninstall asks this node to leave');
    expect(await pins(node)).toEqual([]);
    expect(await attachments(node)).toEqual([]);
    // Of a release that goes, it goes before the pods do.
    cluster.double.store.delete(CONFIG_MAPS, `${NAMESPACE}/xmasq-uninstall`);
    await new Promise((resolve) => setTimeout(resolve, 500));
    expect(await readiness()).toMatch(/^503 removed\n/);

    clearFlag();
    await eventually('attached again', async () => (await attachments(node)).length > 0, 4 * SOON_MS);
    await eventually(
      'its capability',
      () => Promise.resolve('node.xmasq.antrea.io/capability' in annotationsOf(0)),
      SOON_MS,
    );
    expect(annotationsOf(0)).not.toHaveProperty(['node.xmasq.antrea.io/uninstall']);
  } finally {
    await cluster.double.resume();
    await again.stop('SIGTERM', SOON_MS);
  }
}, 120_000);
