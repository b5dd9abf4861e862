/** A large cluster, by the double of the Kubernetes API: time, memory and work of a sidecar that follows it. */
import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { PROTOCOL_VERSION } from '../../plugin/src/dataplane/layout.ts';
import { ApiDouble } from '../double/api-double.ts';
import type { FollowerSetup, FollowerStats } from '../double/follower.ts';
import { clusterObject, numberedNode, podObject } from '../double/objects.ts';

const NODES = '/api/v1/nodes';
const NODE_COUNT = 5000;
const NODE_BYTES = 8192;
const POD_COUNT = 200;
const OWN = 'node-00001';
const MB = 1_000_000;
const CRDS = ['v1alpha2/trafficcontrols', 'v1alpha1/packetcaptures', 'v1beta1/traceflows', 'v1beta1/antreaagentinfos'];

let double: ApiDouble;
let account: string;
let child: ChildProcess;

const sized = (n: number, incarnation?: string) =>
  numberedNode(n, {
    bytes: NODE_BYTES,
    ...(incarnation !== undefined && {
      annotations: { 'node.xmasq.antrea.io/capability': JSON.stringify({ protocol: PROTOCOL_VERSION, incarnation }) },
    }),
  });

async function stats(): Promise<FollowerStats> {
  child.send('stats');
  const [answer] = (await once(child, 'message')) as [FollowerStats];
  return answer;
}

async function until(condition: (now: FollowerStats) => boolean, ms: number): Promise<FollowerStats> {
  const end = Date.now() + ms;
  for (;;) {
    const now = await stats();
    if (condition(now)) return now;
    if (Date.now() > end) throw new Error(`not within ${ms} ms: ${condition.toString()}: ${JSON.stringify(now)}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** The state once nothing is written any more: changes are collected for 20 ms. */
async function settled(condition: (now: FollowerStats) => boolean, ms = 2000): Promise<FollowerStats> {
  let writes = -1;
  return until((now) => {
    const still = now.writes === writes;
    writes = now.writes;
    return still && condition(now);
  }, ms);
}

beforeAll(async () => {
  double = await ApiDouble.start();
  double.install(...CRDS.map((crd) => `/apis/crd.antrea.io/${crd}`));
  for (let n = 1; n <= NODE_COUNT; n++) double.store.put(NODES, sized(n, 'a'));
  for (let n = 1; n <= POD_COUNT; n++) {
    double.store.put('/api/v1/pods', podObject({ name: `pod-${n}`, nodeName: OWN, labels: { app: `app-${n % 10}` } }));
    double.store.put('/api/v1/pods', podObject({ name: `far-${n}`, nodeName: 'node-00002' }));
  }
  double.store.put('/api/v1/namespaces', clusterObject('Namespace', 'v1', 'default', {}));
  double.store.put('/api/v1/configmaps', {
    metadata: { namespace: 'kube-system', name: 'antrea-config' },
    data: { 'antrea-agent.conf': 'tunnelType: geneve' },
  });
  account = mkdtempSync(join(tmpdir(), 'xmasq-account-'));
  writeFileSync(join(account, 'token'), double.token);
  writeFileSync(join(account, 'ca.crt'), double.ca);
  const setup: FollowerSetup = { account, server: double.url, nodeName: OWN };
  child = fork(new URL('../double/follower.ts', import.meta.url), [JSON.stringify(setup)], { execArgv: [] });
});

afterAll(async () => {
  child.kill('SIGKILL');
  await double.stop();
  rmSync(account, { recursive: true });
});

/** A test that is tried again changes something again. */
let changes = 0;

describe(`${NODE_COUNT} Nodes of ${NODE_BYTES} bytes and ${POD_COUNT} local pods`, () => {
  test('are known in less than 5 s and 300 MB, the process itself included', async () => {
    for (const node of double.store.list(NODES).slice(0, 10)) {
      expect(JSON.stringify(node).length).toBeGreaterThanOrEqual(NODE_BYTES);
    }
    const now = await until(({ readyMs }) => readyMs !== undefined, 30_000);
    process.stdout.write(`ready ${now.readyMs?.toFixed(0)} ms, peak RSS ${(now.maxRssBytes / MB).toFixed(0)} MB\n`);
    expect(now).toMatchObject({ peers: NODE_COUNT - 1, localPods: POD_COUNT, lists: 1 });
    expect(now.problem).toBeUndefined();
    expect(now.readyMs).toBeLessThan(5000);
    expect(now.maxRssBytes).toBeLessThan(300 * MB);
    const pages = double.requests('GET', NODES).filter(({ query }) => query['limit'] === '500');
    expect(pages).toHaveLength(NODE_COUNT / 500);
  });

  test('one that changes costs a handful of writes', async () => {
    double.store.put(NODES, sized(78, 'a'));
    const before = await settled(({ peers }) => peers === NODE_COUNT - 1);
    changes += 1;
    double.store.put(NODES, sized(77, changes % 2 === 0 ? 'a' : 'b'));
    const now = await settled(({ states }) => states > before.states);
    expect(now.states - before.states).toBe(1);
    expect(now.writes - before.writes).toBeLessThanOrEqual(6);
    expect(now.notes - before.notes).toBe(1);
    double.store.delete(NODES, 'node-00078');
    const gone = await settled(({ peers }) => peers === NODE_COUNT - 2);
    expect(gone.writes - now.writes).toBeLessThanOrEqual(6);
  });

  test('heartbeats of all of them cost nothing but their reading', async () => {
    double.store.delete(NODES, 'node-00078');
    const before = await settled(({ peers }) => peers === NODE_COUNT - 2);
    for (let n = 100; n < 1100; n++) double.store.put(NODES, { ...sized(n, 'a'), heartbeat: 1 });
    double.store.put(NODES, sized(78, 'a'));
    const now = await settled(({ peers }) => peers === NODE_COUNT - 1, 10_000);
    expect(now.states - before.states).toBe(1);
    // The Node that came: one for each of its six paths, too.
    expect(now.writes - before.writes).toBeLessThanOrEqual(6 + 6);
  });

  test('a version that is too old: all are listed again, nothing is told, and memory stays', async () => {
    const before = await stats();
    for (let round = 1; round <= 3; round++) {
      double.expire();
      await until(({ lists }) => lists === before.lists + round && double.watchCount === 8, 20_000);
    }
    const now = await stats();
    expect(now).toMatchObject({ states: before.states, writes: before.writes, peers: NODE_COUNT - 1 });
    process.stdout.write(`after 3 more lists: peak RSS ${(now.maxRssBytes / MB).toFixed(0)} MB\n`);
    expect(now.maxRssBytes).toBeLessThan(300 * MB);
  });

  test('an outage: the state stays, and what happened meanwhile comes after it', async () => {
    const before = await stats();
    await double.outage();
    double.store.delete(NODES, 'node-00500');
    const away = await until(({ problem }) => problem !== undefined, 10_000);
    expect(away).toMatchObject({ peers: before.peers, writes: before.writes });
    await double.resume();
    const now = await until(({ peers, problem }) => peers === before.peers - 1 && problem === undefined, 20_000);
    expect(now.lists).toBe(before.lists);
    expect(now.writes - before.writes).toBeLessThanOrEqual(6);
  });
});
