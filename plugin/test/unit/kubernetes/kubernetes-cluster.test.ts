import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import type { ApiDouble } from '../../../../e2e/double/api-double.ts';
import { nodeObject, numberedNode } from '../../../../e2e/double/objects.ts';
import { KubernetesCluster, type KubernetesClusterOptions } from '../../../src/kubernetes/kubernetes-cluster.ts';
import { CAPABILITY_ANNOTATION } from '../../../src/kubernetes/node-view.ts';
import type { ClusterConsumer, ClusterDiff, ClusterProblem, ClusterState } from '../../../src/state/cluster.ts';
import { Harness, QUICK, quiet, sleep, until, writeAccount } from './harness.ts';

const NODES = '/api/v1/nodes';
const OWN = 'node-00001';
const CAPABILITY = { protocol: 1, incarnation: 'boot-1' };
const TEXT = JSON.stringify(CAPABILITY);

let harness: Harness;
let double: ApiDouble;

beforeEach(async () => {
  harness = new Harness();
  double = await harness.double();
  for (let n = 1; n <= 20; n++) double.store.put(NODES, numberedNode(n));
});
afterEach(() => harness.close());

/** Remembers what it is told. */
class Recorder implements ClusterConsumer {
  readonly diffs: ClusterDiff[] = [];
  readonly problems: (ClusterProblem | undefined)[] = [];
  names: string[] = [];
  last: ClusterState | undefined;
  fail: (() => void) | undefined;
  readonly #nodes = new Map<string, object>();

  state(state: ClusterState, diff: ClusterDiff): void {
    this.fail?.();
    for (const { name } of diff.removed) this.#nodes.delete(name);
    for (const node of [...diff.added, ...diff.changed.map(({ after }) => after)]) this.#nodes.set(node.name, node);
    this.diffs.push(diff);
    this.last = state;
    this.names = state.nodes.map(({ name }) => name);
    // Differences and states must say the same.
    expect([...this.#nodes.keys()].sort()).toEqual(this.names);
  }

  problem(problem: ClusterProblem | undefined): void {
    this.problems.push(problem);
  }

  get problemNow(): string | undefined {
    return this.problems.at(-1)?.what;
  }
}

function make(options: Partial<KubernetesClusterOptions> = {}): {
  cluster: KubernetesCluster;
  recorder: Recorder;
  directory: string;
} {
  const { api, directory } = harness.client(double);
  const cluster = new KubernetesCluster({ ...QUICK, api, nodeName: OWN, log: quiet, retryMs: 20, ...options });
  harness.add(() => cluster.stop());
  return { cluster, recorder: new Recorder(), directory };
}

async function started(options: Partial<KubernetesClusterOptions> = {}): Promise<ReturnType<typeof make>> {
  const made = make(options);
  await made.cluster.start(made.recorder);
  await until(() => double.watchCount === 1);
  return made;
}

const annotation = (): string | undefined =>
  double.store.get(NODES, OWN)?.metadata.annotations?.[CAPABILITY_ANNOTATION];

describe('the nodes of the cluster', () => {
  test('are read in pages, and changes come as differences', async () => {
    const { recorder } = await started();
    expect(recorder.last?.own).toEqual({ name: OWN, addresses: ['172.16.0.1'], podCIDRs: ['10.64.1.0/24'] });
    expect(recorder.diffs[0]?.added).toHaveLength(20);
    expect(double.requests('GET', NODES).filter(({ query }) => query['watch'] !== 'true')).toHaveLength(3);
    double.store.put(NODES, numberedNode(3, { annotations: { [CAPABILITY_ANNOTATION]: TEXT } }));
    double.store.put(NODES, numberedNode(21));
    double.store.delete(NODES, 'node-00004');
    await until(() => recorder.names.length === 20 && recorder.names.includes('node-00021'));
    const rest = recorder.diffs.slice(1);
    expect(rest.flatMap(({ changed }) => changed)).toMatchObject([
      { after: { name: 'node-00003', capability: CAPABILITY } },
    ]);
    expect(rest.flatMap(({ removed }) => removed)).toMatchObject([{ name: 'node-00004' }]);
  });

  test('heartbeats are no change', async () => {
    const { recorder, cluster } = await started();
    for (let n = 1; n <= 20; n++) double.store.put(NODES, { ...numberedNode(n), heartbeat: n });
    await until(() => cluster.counts.events === 20);
    await sleep(30);
    expect(recorder.diffs).toHaveLength(1);
  });

  test('a burst is one difference', async () => {
    const { recorder } = await started({ batchMs: 50 });
    for (let n = 2; n <= 20; n++)
      double.store.put(NODES, numberedNode(n, { annotations: { [CAPABILITY_ANNOTATION]: TEXT } }));
    await until(() => recorder.diffs.length > 1);
    await sleep(60);
    expect(recorder.diffs.length).toBeLessThanOrEqual(3);
    expect(recorder.diffs.slice(1).flatMap(({ changed }) => changed)).toHaveLength(19);
  });

  test('an expired version leads to a new list, which tells differences only', async () => {
    const { recorder, cluster } = await started();
    const burst = (): void => {
      double.store.delete(NODES, 'node-00005');
      double.store.put(NODES, numberedNode(22));
    };
    double.dropConnections();
    burst();
    double.expire();
    await until(() => recorder.names.includes('node-00022'));
    expect(cluster.counts.gone).toBeGreaterThan(0);
    expect(cluster.counts.lists).toBeGreaterThan(1);
    const told = recorder.diffs.slice(1).flatMap(({ added, changed, removed }) => [...added, ...changed, ...removed]);
    expect(told).toMatchObject([{ name: 'node-00022' }, { name: 'node-00005' }]);
  });

  test('a watch that is told 410 while it runs starts again without a word', async () => {
    const { recorder, cluster } = await started();
    double.expire();
    await until(() => cluster.counts.lists === 2 && double.watchCount === 1);
    expect(recorder.diffs).toHaveLength(1);
    expect(recorder.problems.filter(Boolean)).toEqual([]);
  });

  test('a list whose token expires begins anew', async () => {
    const { recorder, cluster } = make();
    const { rights } = double;
    let pages = 0;
    double.rights = () => {
      if (++pages === 2) double.expire();
      return true;
    };
    await cluster.start(recorder);
    double.rights = rights;
    expect(recorder.names).toHaveLength(20);
    expect(cluster.counts.gone).toBe(1);
  });

  test('a lost watch goes on from its version', async () => {
    const { recorder, cluster } = await started();
    double.dropConnections();
    double.store.delete(NODES, 'node-00006');
    await until(() => !recorder.names.includes('node-00006'));
    expect(cluster.counts.lists).toBe(1);
  });

  test('a watch that says nothing is replaced; bookmarks keep one alive and its version fresh', async () => {
    double = await harness.double({ bookmarkMs: 20 });
    double.store.put(NODES, numberedNode(1));
    const { cluster } = await started({ idleMs: 500 });
    await sleep(800);
    expect(cluster.counts.watches).toBe(1);
    double.store.put('/api/v1/pods', { metadata: { namespace: 'a', name: 'b' } });
    await sleep(500);
    // Nothing of ours happened, and yet our version is younger than what was forgotten.
    double.store.compact();
    double.dropConnections();
    await until(() => cluster.counts.watches === 2);
    await sleep(30);
    expect(cluster.counts).toMatchObject({ lists: 1, gone: 0 });
  });

  test('a watch without a byte is taken for dead', async () => {
    const { cluster } = await started({ idleMs: 50 });
    double.store.put(NODES, numberedNode(23));
    await until(() => cluster.counts.watches > 1);
    expect(cluster.counts.lists).toBe(1);
  });

  test('while the API is away the last state stays, and the trouble is told; what happened meanwhile comes after', async () => {
    const { recorder } = await started();
    await double.outage();
    await until(() => recorder.problemNow !== undefined);
    expect(recorder.problemNow).toMatch(/the Nodes cannot be followed: .*ECONNREFUSED/);
    expect(recorder.names).toHaveLength(20);
    double.store.delete(NODES, 'node-00007');
    await double.resume();
    await until(() => recorder.names.length === 19 && recorder.problemNow === undefined);
  });

  test('429 is waited out as long as the server wants', async () => {
    const { recorder, cluster } = make();
    double.throttle(1, 1);
    const begun = Date.now();
    await cluster.start(recorder);
    expect(Date.now() - begun).toBeGreaterThanOrEqual(990);
    expect(double.journal.filter(({ status }) => status === 429)).toHaveLength(1);
  });

  test('a server without answer does not stop it for ever', async () => {
    const { api } = harness.client(double, 100);
    const cluster = new KubernetesCluster({ ...QUICK, api, nodeName: OWN, log: quiet });
    harness.add(() => cluster.stop());
    const recorder = new Recorder();
    double.stall(true);
    const start = cluster.start(recorder);
    await until(() => recorder.problemNow !== undefined);
    expect(recorder.problemNow).toMatch(/timeout/);
    double.stall(false);
    await start;
    await until(() => recorder.problemNow === undefined);
  });

  test('a new token and a new authority are taken from the files', async () => {
    const { recorder, directory, cluster } = await started();
    double.token = 'token-2';
    await double.rotateIdentity();
    await until(() => recorder.problemNow !== undefined);
    writeAccount(directory, double);
    double.store.delete(NODES, 'node-00008');
    await until(() => recorder.names.length === 19 && recorder.problemNow === undefined);
    expect(cluster.counts.lists).toBe(1);
  });

  test('is waited for where the API is away or this node is not registered', async () => {
    double.store.delete(NODES, OWN);
    await double.outage();
    const { recorder, cluster } = make();
    const start = cluster.start(recorder);
    await until(() => recorder.problemNow !== undefined);
    await double.resume();
    await until(() => recorder.problemNow === `there is no Node ${OWN} with an IP address`);
    double.store.put(NODES, numberedNode(1));
    await start;
    await until(() => recorder.problemNow === undefined);
    expect(recorder.names).toHaveLength(20);
  });

  test('stop() ends a start that waits', async () => {
    await double.outage();
    const { recorder, cluster } = make();
    const start = cluster.start(recorder);
    await cluster.stop();
    await expect(start).rejects.toThrow('stopped');
  });

  test('a state that the consumer rejects comes again', async () => {
    const { recorder } = await started();
    let failures = 0;
    recorder.fail = () => {
      if (failures++ < 2) throw new Error('map full');
    };
    double.store.delete(NODES, 'node-00009');
    await until(() => recorder.names.length === 19);
    expect(recorder.problems.map((problem) => problem?.what)).toEqual([
      'a new cluster state could not be put in force: map full',
      undefined,
    ]);
  });

  test('a first state that the consumer rejects ends the start', async () => {
    const { recorder, cluster } = make();
    recorder.fail = () => {
      throw new Error('no');
    };
    await expect(cluster.start(recorder)).rejects.toThrow('no');
  });

  test('addresses that overlap stay with whoever has them; the other one gets them when they are free', async () => {
    const { recorder } = await started();
    double.store.put(NODES, nodeObject({ name: 'thief', address: '172.16.99.1', podCIDR: '10.64.2.0/23' }));
    await until(() => recorder.problemNow !== undefined);
    expect(recorder.problemNow).toBe('addresses of nodes overlap those of others: thief (node-00002)');
    expect(recorder.names).not.toContain('thief');
    double.store.delete(NODES, 'node-00002');
    double.store.delete(NODES, 'node-00003');
    await until(() => recorder.names.includes('thief') && recorder.problemNow === undefined);
  });
});

describe('this node declares its capability', () => {
  test('by an annotation, again where somebody takes it away, and no more when asked', async () => {
    const { cluster, recorder } = await started();
    expect(annotation()).toBeUndefined();
    cluster.publishCapability(CAPABILITY);
    await until(() => annotation() === TEXT);
    await until(() => recorder.last?.own.capability !== undefined);
    double.store.put(NODES, numberedNode(1));
    await until(() => annotation() === TEXT);
    cluster.publishCapability(undefined);
    await until(() => annotation() === undefined);
    await sleep(30);
    expect(double.requests('PATCH', NODES).map(({ path }) => path)).toEqual(Array(3).fill(`${NODES}/${OWN}`));
  });

  test('changes nothing else of the Node, and nothing at all before it is asked', async () => {
    const before = double.store.put(
      NODES,
      numberedNode(1, { annotations: { other: 'x', [CAPABILITY_ANNOTATION]: 'y' } }),
    );
    const { cluster } = await started();
    await sleep(30);
    expect(double.store.get(NODES, OWN)).toBe(before);
    cluster.publishCapability(CAPABILITY);
    await until(() => annotation() === TEXT);
    const { metadata, ...rest } = double.store.get(NODES, OWN) ?? { metadata: undefined };
    expect(metadata?.annotations).toEqual({ other: 'x', [CAPABILITY_ANNOTATION]: TEXT });
    expect({ ...rest }).toEqual({ spec: before['spec'], status: before['status'], apiVersion: 'v1', kind: 'Node' });
  });

  test('as soon as the API takes it', async () => {
    const { cluster, recorder } = await started();
    double.rights = ({ verb }) => verb !== 'patch';
    cluster.publishCapability(CAPABILITY);
    await until(() => recorder.problemNow?.includes('403') === true);
    expect(recorder.problemNow).toMatch(/^cannot publish this node's capability: 403 .*cannot patch resource "nodes"/);
    expect(recorder.problems.at(-1)?.action).toContain('charts/xmasq');
    double.rights = undefined;
    await until(() => annotation() === TEXT && recorder.problemNow === undefined);
  });
});
