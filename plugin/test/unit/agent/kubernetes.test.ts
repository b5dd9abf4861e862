/** The Kubernetes API as the whole sidecar follows it: readiness, degradations and their Events. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import type { ApiDouble } from '../../../../e2e/double/api-double.ts';
import { clusterObject, numberedNode } from '../../../../e2e/double/objects.ts';
import { healthOf, type Health } from '../../../src/agent/health.ts';
import { KubernetesFollower } from '../../../src/agent/kubernetes.ts';
import { parseConfig } from '../../../src/config/load.ts';
import type { ConfigMap } from '../../../src/dataplane/config-map.ts';
import { Degradations } from '../../../src/dataplane/degradations.ts';
import { Exclusions } from '../../../src/exclusion/exclusions.ts';
import type { AntreaModes } from '../../../src/kubernetes/index.ts';
import type { ClusterConsumer } from '../../../src/state/cluster.ts';
import { Harness, quiet, until } from '../kubernetes/harness.ts';

const EVENTS = '/apis/events.k8s.io/v1/events';
const CRDS = ['v1alpha2/trafficcontrols', 'v1alpha1/packetcaptures', 'v1beta1/traceflows', 'v1beta1/antreaagentinfos'];

let harness: Harness;
let double: ApiDouble;
let degradations: Degradations;
let modes: AntreaModes | undefined;

beforeEach(async () => {
  harness = new Harness();
  double = await harness.double();
  double.install(...CRDS.map((crd) => `/apis/crd.antrea.io/${crd}`));
  double.store.put('/api/v1/nodes', numberedNode(1));
  double.store.put('/api/v1/namespaces', clusterObject('Namespace', 'v1', 'default', {}));
  conf('');
  degradations = new Degradations(quiet);
  modes = undefined;
});
afterEach(() => harness.close());

function conf(text: string): void {
  double.store.put('/api/v1/configmaps', {
    metadata: { namespace: 'kube-system', name: 'antrea-config' },
    data: { 'antrea-agent.conf': text },
  });
}

function follow(state: ClusterConsumer['state'] = () => undefined): KubernetesFollower {
  const directory = mkdtempSync(join(tmpdir(), 'xmasq-follow-'));
  harness.add(() => rmSync(directory, { recursive: true }));
  const kubeconfig = join(directory, 'config');
  const cluster = { server: double.url, 'certificate-authority-data': Buffer.from(double.ca).toString('base64') };
  const access = {
    clusters: [{ name: 'c', cluster }],
    users: [{ name: 'u', user: { token: double.token } }],
    contexts: [{ name: 'x', context: { cluster: 'c', user: 'u' } }],
    'current-context': 'x',
  };
  writeFileSync(kubeconfig, JSON.stringify(access));
  const config = parseConfig('x', `nodeName: node-00001\nclusterState: {kubernetes: {kubeconfig: ${kubeconfig}}}\n`);
  const { kubernetes } = config.clusterState;
  if (kubernetes === undefined) throw new Error('no section kubernetes');
  const follower = new KubernetesFollower({
    config,
    kubernetes,
    configMap: { has: () => true, get: () => ({ stateSince: 5n }) } as unknown as ConfigMap,
    consumer: { state, problem: () => undefined },
    configured: (read) => (modes = read),
    exclusions: new Exclusions(() => undefined),
    degradations,
    log: quiet,
  });
  harness.add(() => follower.stop());
  follower.start();
  return follower;
}

const health = (follower: KubernetesFollower): Health =>
  healthOf(degradations.size > 0 ? 'degraded' : 'ready', [follower.info], degradations.list());
const events = (): string[] =>
  double.store.list(EVENTS).map(({ type, reason, note }) => [type, reason, note].map(String).join(' '));

describe('the Kubernetes API', () => {
  test('a required kind that may not be read: not ready, the right is named, and all goes on when it is granted', async () => {
    double.rights = ({ verb, resource }) => verb !== 'list' || resource !== 'pods';
    const follower = follow();
    await until(() => degradations.size > 0, 10_000);
    const { ready, lines } = health(follower);
    expect(ready).toBe(false);
    expect(lines[1]).toBe('nothing is known yet from the source kubernetes');
    expect(lines[2]).toMatch(/^cannot follow \/api\/v1\/pods: 403 .*cannot list resource "pods".*charts\/xmasq/);
    expect(follower.info.synced).toBe(false);
    expect(follower.kinds.find(({ kind }) => kind === 'pods')).toMatchObject({ synced: false, objects: 0 });
    double.rights = undefined;
    await until(() => health(follower).ready, 10_000);
    await until(() => events().length === 2, 10_000);
    expect(events()).toEqual([
      expect.stringMatching(/^Warning XMasqDegraded cannot follow \/api\/v1\/pods: 403/),
      expect.stringMatching(/^Normal XMasqRecovered over: cannot follow \/api\/v1\/pods: 403/),
    ]);
  }, 40_000);

  test('an optional kind that may not be read: ready, and told', async () => {
    double.rights = ({ resource }) => resource !== 'traceflows';
    const follower = follow();
    await until(() => health(follower).ready && degradations.size > 0, 10_000);
    expect(health(follower).lines[1]).toMatch(/^cannot follow .*traceflows: 403 .*"traceflows"/);
  }, 20_000);

  test('a first state that cannot be put in force is told', async () => {
    follow(() => {
      throw new Error('map full');
    });
    await until(() => degradations.size > 0, 10_000);
    expect(degradations.list()[0]?.what).toBe('the first cluster state could not be put in force');
  }, 20_000);

  test("a tunnel port other than Antrea's is told until it is right, and modes are handed on", async () => {
    conf('tunnelPort: 4790');
    const follower = follow();
    await until(() => degradations.size > 0, 10_000);
    expect(degradations.list()).toMatchObject([
      { what: 'the tunnel uses port 4790, but tunnel.port is 6081', where: 'ConfigMap antrea-config' },
    ]);
    await until(() => follower.kinds.every(({ counts }) => counts.watches > 0), 10_000);
    conf('trafficEncryptionMode: wireGuard');
    await until(() => degradations.size === 0, 10_000);
    expect(modes?.trafficEncryptionMode).toBe('wireguard');
  }, 20_000);

  test('an agent that is not up is shown with its version', async () => {
    double.store.put('/apis/crd.antrea.io/v1beta1/antreaagentinfos', {
      ...clusterObject('AntreaAgentInfo', 'crd.antrea.io/v1beta1', 'node-00001', {
        version: 'v2.8.0',
        agentConditions: [
          { type: 'OVSDBConnectionUp', status: 'True' },
          { type: 'OpenflowConnectionUp', status: 'False' },
        ],
      }),
    });
    const follower = follow();
    await until(() => follower.info.detail.includes('v2.8.0'), 10_000);
    expect(follower.info.detail).toBe('0 local pods, Antrea v2.8.0, not true: OpenflowConnectionUp');
  }, 20_000);
});
