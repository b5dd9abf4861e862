/** The rights that the chart gives are enough for everything, and no more than that. */
import { readFileSync } from 'node:fs';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import type { ApiDouble } from '../../../../e2e/double/api-double.ts';
import { numberedNode } from '../../../../e2e/double/objects.ts';
import { rightsOf, type Deed } from '../../../../e2e/double/rights.ts';
import { AntreaConfig } from '../../../src/kubernetes/antrea-config.ts';
import { EventRecorder } from '../../../src/kubernetes/event-recorder.ts';
import { KubernetesCluster } from '../../../src/kubernetes/kubernetes-cluster.ts';
import { PodExclusions } from '../../../src/kubernetes/pod-exclusions.ts';
import { UninstallFlag } from '../../../src/kubernetes/uninstall.ts';
import { Harness, QUICK, quiet, until } from './harness.ts';

// Without those of the hook, which are not the sidecar's: uninstall.test.ts.
const manifest = readFileSync(new URL('../../../../charts/golden/default.yaml', import.meta.url), 'utf8')
  .split('---\n')
  .filter((text) => !text.includes('helm.sh/hook:'))
  .join('---\n');
const CRDS = ['v1alpha2/trafficcontrols', 'v1alpha1/packetcaptures', 'v1beta1/traceflows', 'v1beta1/antreaagentinfos'];

let harness: Harness;
let double: ApiDouble;

beforeEach(async () => {
  harness = new Harness();
  double = await harness.double();
  double.install(...CRDS.map((crd) => `/apis/crd.antrea.io/${crd}`));
});
afterEach(() => harness.close());

test('all parts live with the rights of charts/xmasq, and use all of them', async () => {
  const rights = rightsOf(manifest);
  const used = new Set<string>();
  double.rights = (deed) => {
    const allowed = rights(deed);
    if (allowed) used.add(`${deed.verb} ${deed.resource}`);
    return allowed;
  };
  double.store.put('/api/v1/nodes', numberedNode(1));
  double.store.put('/api/v1/configmaps', {
    metadata: { namespace: 'kube-system', name: 'antrea-config' },
    data: { 'antrea-agent.conf': '' },
  });
  const { api } = harness.client(double);
  const common = { ...QUICK, api, nodeName: 'node-00001', log: quiet, sink: () => undefined, trouble: () => undefined };
  const parts = {
    cluster: new KubernetesCluster(common),
    pods: new PodExclusions(common),
    antrea: new AntreaConfig(common),
    flag: new UninstallFlag({ ...common, namespace: 'kube-system' }),
  };
  const events = new EventRecorder(common);
  for (const part of [...Object.values(parts), events]) harness.add(() => part.stop());
  parts.pods.start();
  parts.antrea.start();
  parts.flag.start();
  await parts.cluster.start({ state: () => undefined, problem: () => undefined });
  parts.cluster.publishCapability({ protocol: 1, incarnation: 'x' });
  await Promise.all([parts.pods.ready, parts.antrea.ready]);
  for (let n = 1; n <= 2; n++) {
    events.emit({ type: 'Warning', reason: 'Test', note: 'x' });
    await until(() => events.counts.sent === n);
  }
  await until(() => double.watchCount === 9 && double.requests('PATCH', '/api/v1/nodes').length === 1);
  expect(double.journal.filter(({ status }) => status === 403)).toEqual([]);
  const followed = ['nodes', 'pods', 'namespaces', 'configmaps', ...CRDS.map((crd) => crd.split('/')[1])];
  expect([...used].sort()).toEqual(
    [
      ...followed.flatMap((kind) => [`list ${kind}`, `watch ${kind}`]),
      'patch nodes',
      'create events',
      'patch events',
    ].sort(),
  );
});

test.each<Deed>([
  { verb: 'list', group: '', resource: 'secrets', namespace: undefined, name: undefined },
  { verb: 'list', group: '', resource: 'configmaps', namespace: 'kube-system', name: undefined },
  { verb: 'list', group: '', resource: 'configmaps', namespace: 'default', name: 'antrea-config' },
  { verb: 'patch', group: '', resource: 'configmaps', namespace: 'kube-system', name: 'xmasq-uninstall' },
  { verb: 'patch', group: '', resource: 'pods', namespace: 'default', name: 'x' },
  { verb: 'delete', group: '', resource: 'nodes', namespace: undefined, name: 'x' },
  { verb: 'patch', group: 'crd.antrea.io', resource: 'trafficcontrols', namespace: undefined, name: 'x' },
  { verb: 'create', group: 'events.k8s.io', resource: 'events', namespace: 'kube-system', name: undefined },
])('not allowed: $verb $resource in $namespace', (deed) => expect(rightsOf(manifest)(deed)).toBe(false));
