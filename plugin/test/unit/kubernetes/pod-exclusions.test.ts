import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import type { ApiDouble } from '../../../../e2e/double/api-double.ts';
import { clusterObject, podObject } from '../../../../e2e/double/objects.ts';
import { Reason } from '../../../src/dataplane/layout.ts';
import type { ExclusionList } from '../../../src/exclusion/exclusions.ts';
import { matchesLabels } from '../../../src/kubernetes/label-selector.ts';
import { PodExclusions } from '../../../src/kubernetes/pod-exclusions.ts';
import type { ClusterProblem } from '../../../src/state/cluster.ts';
import { Harness, QUICK, quiet, sleep, until } from './harness.ts';

const PODS = '/api/v1/pods';
const NAMESPACES = '/api/v1/namespaces';
const TRAFFIC_CONTROLS = '/apis/crd.antrea.io/v1alpha2/trafficcontrols';
const PACKET_CAPTURES = '/apis/crd.antrea.io/v1alpha1/packetcaptures';
const TRACEFLOWS = '/apis/crd.antrea.io/v1beta1/traceflows';

let harness: Harness;
let double: ApiDouble;
let lists: ExclusionList[];
let problems: (ClusterProblem | undefined)[];

beforeEach(async () => {
  harness = new Harness();
  double = await harness.double();
  double.install(TRAFFIC_CONTROLS, PACKET_CAPTURES, TRACEFLOWS);
  lists = [];
  problems = [];
  double.store.put(NAMESPACES, clusterObject('Namespace', 'v1', 'default', {}));
  double.store.put(PODS, podObject({ name: 'web', nodeName: 'n1', labels: { app: 'web', tier: 'front' } }));
  double.store.put(PODS, podObject({ name: 'db', nodeName: 'n1', labels: { app: 'db' } }));
  double.store.put(PODS, podObject({ name: 'far', nodeName: 'n2', labels: { app: 'web' } }));
  double.store.put(PODS, podObject({ name: 'host', nodeName: 'n1', labels: { app: 'web' }, hostNetwork: true }));
});
afterEach(() => harness.close());

function begin(): PodExclusions {
  const { api } = harness.client(double);
  const source = new PodExclusions({
    ...QUICK,
    api,
    nodeName: 'n1',
    log: quiet,
    sink: (list) => lists.push(list),
    trouble: (problem) => problems.push(problem),
  });
  harness.add(() => source.stop());
  source.start();
  return source;
}

const told = (): string[] =>
  lists.at(-1)?.pods.map(({ pod, reason, detail }) => `${pod.namespace}/${pod.name} ${reason} ${detail}`) ?? [];

async function becomes(...expected: readonly string[]): Promise<void> {
  const wanted = JSON.stringify(expected);
  try {
    await until(() => JSON.stringify(told()) === wanted, 1500);
  } catch {
    expect(told()).toEqual(expected);
  }
}

const control = (name: string, appliedTo: object) =>
  clusterObject('TrafficControl', 'crd.antrea.io/v1alpha2', name, {
    spec: { appliedTo, direction: 'Both', action: 'Mirror' },
  });

describe('pods that are not accelerated', () => {
  test('nothing is said before everything is known; then that there is nothing', async () => {
    double.rights = ({ resource }) => resource !== 'namespaces';
    const source = begin();
    await until(() => problems.at(-1)?.what.includes('namespaces') === true);
    expect(lists).toEqual([]);
    double.rights = undefined;
    await source.ready;
    expect(lists.at(-1)).toEqual({ node: [], pods: [] });
    expect(source.pods).toBe(2);
    await until(() => problems.at(-1) === undefined);
  });

  test.each([
    ['ingress', 'kubernetes.io/ingress-bandwidth'],
    ['egress', 'kubernetes.io/egress-bandwidth'],
  ])('%s bandwidth, while the annotation is there', async (_what, annotation) => {
    await begin().ready;
    double.store.put(PODS, podObject({ name: 'db', nodeName: 'n1', annotations: { [annotation]: '10M' } }));
    await becomes(`default/db ${Reason.BANDWIDTH} annotation ${annotation}: 10M`);
    double.store.put(PODS, podObject({ name: 'db', nodeName: 'n1' }));
    await becomes();
  });

  test('an IPPool of the Pod or of its Namespace', async () => {
    await begin().ready;
    const annotations = { 'ipam.antrea.io/ippools': 'pool-a' };
    double.store.put(PODS, podObject({ name: 'db', nodeName: 'n1', annotations }));
    await becomes(`default/db ${Reason.ANTREA_IPAM} annotation ipam.antrea.io/ippools: pool-a`);
    double.store.delete(PODS, 'default/db');
    await becomes();
    double.store.put(NAMESPACES, { metadata: { name: 'default', annotations } });
    await becomes(`default/web ${Reason.ANTREA_IPAM} annotation ipam.antrea.io/ippools: pool-a of Namespace default`);
  });

  test('secondary networks leave the primary one alone', async () => {
    double.store.put(
      PODS,
      podObject({ name: 'db', nodeName: 'n1', annotations: { 'k8s.v1.cni.cncf.io/networks': 'sriov-net' } }),
    );
    await begin().ready;
    expect(told()).toEqual([]);
  });

  test('TrafficControl by Pod labels, and when labels change', async () => {
    await begin().ready;
    double.store.put(TRAFFIC_CONTROLS, control('mirror', { podSelector: { matchLabels: { app: 'web' } } }));
    await becomes(`default/web ${Reason.TRAFFIC_CONTROL} TrafficControl mirror`);
    double.store.put(PODS, podObject({ name: 'db', nodeName: 'n1', labels: { app: 'web' } }));
    await becomes(
      `default/db ${Reason.TRAFFIC_CONTROL} TrafficControl mirror`,
      `default/web ${Reason.TRAFFIC_CONTROL} TrafficControl mirror`,
    );
    double.store.delete(TRAFFIC_CONTROLS, 'mirror');
    await becomes();
  });

  test('TrafficControl by Namespace labels, with expressions, and when they change', async () => {
    await begin().ready;
    const appliedTo = {
      namespaceSelector: { matchExpressions: [{ key: 'team', operator: 'In', values: ['a', 'b'] }] },
      podSelector: { matchExpressions: [{ key: 'tier', operator: 'Exists' }] },
    };
    double.store.put(TRAFFIC_CONTROLS, control('redirect', appliedTo));
    await sleep(50);
    expect(told()).toEqual([]);
    double.store.put(NAMESPACES, { metadata: { name: 'default', labels: { team: 'b' } } });
    await becomes(`default/web ${Reason.TRAFFIC_CONTROL} TrafficControl redirect`);
    double.store.put(NAMESPACES, { metadata: { name: 'default', labels: { team: 'c' } } });
    await becomes();
  });

  test('TrafficControl without selectors selects nothing, an empty selector everything', async () => {
    await begin().ready;
    double.store.put(TRAFFIC_CONTROLS, control('none', {}));
    await sleep(50);
    expect(told()).toEqual([]);
    double.store.put(TRAFFIC_CONTROLS, control('all', { podSelector: {} }));
    await until(() => told().length === 2);
  });

  test('a pod whose Namespace is not known yet may be selected', async () => {
    double.store.put(PODS, podObject({ namespace: 'new', name: 'x', nodeName: 'n1' }));
    double.store.put(TRAFFIC_CONTROLS, control('team', { namespaceSelector: { matchLabels: { team: 'a' } } }));
    await begin().ready;
    await becomes(`new/x ${Reason.TRAFFIC_CONTROL} TrafficControl team`);
    double.store.put(NAMESPACES, clusterObject('Namespace', 'v1', 'new', {}));
    await becomes();
  });

  test('PacketCapture, both pods, until it is complete', async () => {
    await begin().ready;
    const spec = {
      source: { pod: { namespace: 'default', name: 'web' } },
      destination: { pod: { name: 'db' } },
      timeout: 60,
    };
    const capture = (status: object) =>
      clusterObject('PacketCapture', 'crd.antrea.io/v1alpha1', 'pc', { spec, status });
    double.store.put(PACKET_CAPTURES, capture({}));
    await becomes(
      `default/db ${Reason.PACKET_CAPTURE} PacketCapture pc`,
      `default/web ${Reason.PACKET_CAPTURE} PacketCapture pc`,
    );
    double.store.put(PACKET_CAPTURES, capture({ conditions: [{ type: 'PacketCaptureStarted', status: 'True' }] }));
    await sleep(50);
    expect(told()).toHaveLength(2);
    double.store.put(PACKET_CAPTURES, capture({ conditions: [{ type: 'PacketCaptureComplete', status: 'True' }] }));
    await becomes();
  });

  test('Traceflows are counted while they run', async () => {
    const source = begin();
    await source.ready;
    double.store.put(
      TRACEFLOWS,
      clusterObject('Traceflow', 'crd.antrea.io/v1beta1', 't', { status: { phase: 'Running' } }),
    );
    await until(() => source.runningTraceflows === 1);
    double.store.put(
      TRACEFLOWS,
      clusterObject('Traceflow', 'crd.antrea.io/v1beta1', 't', { status: { phase: 'Failed' } }),
    );
    await until(() => source.runningTraceflows === 0);
    expect(told()).toEqual([]);
  });

  test('CRDs that are not installed are none, and are looked for again; one that is taken away has no objects', async () => {
    for (const kind of [TRAFFIC_CONTROLS, PACKET_CAPTURES, TRACEFLOWS]) double.uninstall(kind);
    const source = begin();
    await source.ready;
    expect(problems.filter(Boolean)).toEqual([]);
    double.store.put(TRAFFIC_CONTROLS, control('mirror', { podSelector: { matchLabels: { app: 'web' } } }));
    double.install(TRAFFIC_CONTROLS);
    await becomes(`default/web ${Reason.TRAFFIC_CONTROL} TrafficControl mirror`);
    await until(() => double.watchCount === 3);
    double.uninstall(TRAFFIC_CONTROLS);
    await becomes();
  });

  test('CRDs that may not be read do not hold everything up, but exclude every pod, until they may', async () => {
    double.rights = ({ group }) => group !== 'crd.antrea.io';
    await begin().ready;
    const refused = ['default/db', 'default/web'].flatMap((pod) => [
      `${pod} ${Reason.TRAFFIC_CONTROL} TrafficControls may not be read`,
      `${pod} ${Reason.PACKET_CAPTURE} PacketCaptures may not be read`,
    ]);
    await becomes(...refused);
    await until(() => problems.at(-1) !== undefined);
    const { what, action } = problems.at(-1) as ClusterProblem;
    expect(what).toMatch(/cannot follow \/apis\/crd\.antrea\.io.*403.*cannot list resource "\w+"/);
    expect(action).toContain('charts/xmasq');
    await until(() => problems.at(-1)?.what.includes(' and other kinds: 403') === true);
    double.rights = undefined;
    await becomes();
    await until(() => problems.at(-1) === undefined);
  });

  test('a right that is taken away later changes nothing of what is known', async () => {
    double.store.put(TRAFFIC_CONTROLS, control('mirror', { podSelector: { matchLabels: { app: 'web' } } }));
    await begin().ready;
    const before = told();
    const { length } = lists;
    double.rights = ({ group }) => group !== 'crd.antrea.io';
    double.dropConnections();
    await until(() => problems.at(-1)?.what.includes('403') === true);
    expect(told()).toEqual(before);
    expect(lists).toHaveLength(length);
  });

  test('how kinds are followed is counted', async () => {
    double.uninstall(PACKET_CAPTURES);
    const source = begin();
    await source.ready;
    await until(() => double.watchCount === 4);
    const of = (name: string) => source.kinds.find(({ kind }) => kind === name);
    expect(of('pods')).toMatchObject({ objects: 2, synced: true, counts: { lists: 1, watches: 1, failures: 0 } });
    expect(of('packetcaptures')).toMatchObject({ objects: 0, synced: true, counts: { lists: 0, failures: 0 } });
    double.expire();
    await until(() => of('pods')?.counts.lists === 2);
    expect(of('pods')?.counts).toMatchObject({ gone: 1, retries: 1, failures: 0 });
    double.throttle(1, 0);
    double.dropConnections();
    await until(() => source.kinds.some(({ counts }) => counts.throttled === 1));
    expect(source.kinds.map(({ kind }) => kind)).toEqual([
      'pods',
      'namespaces',
      'trafficcontrols',
      'packetcaptures',
      'traceflows',
    ]);
  });

  test('what is excluded stays so while the API is away', async () => {
    double.store.put(TRAFFIC_CONTROLS, control('mirror', { podSelector: { matchLabels: { app: 'web' } } }));
    await begin().ready;
    const before = told();
    const { length } = lists;
    await double.outage();
    await until(() => problems.at(-1) !== undefined);
    await double.resume();
    await until(() => problems.at(-1) === undefined && double.watchCount === 5);
    expect(told()).toEqual(before);
    expect(lists).toHaveLength(length);
    expect(before).toHaveLength(1);
  });
});

describe('label selectors', () => {
  const labels = { app: 'web', tier: '' };
  test.each([
    [{}, true],
    [{ matchLabels: { app: 'web' } }, true],
    [{ matchLabels: { app: 'web', tier: 'x' } }, false],
    [{ matchLabels: { none: '' } }, false],
    [{ matchExpressions: [{ key: 'app', operator: 'In', values: ['db', 'web'] }] }, true],
    [{ matchExpressions: [{ key: 'none', operator: 'In', values: ['x'] }] }, false],
    [{ matchExpressions: [{ key: 'app', operator: 'NotIn', values: ['web'] }] }, false],
    [{ matchExpressions: [{ key: 'none', operator: 'NotIn', values: ['web'] }] }, true],
    [{ matchExpressions: [{ key: 'tier', operator: 'Exists' }] }, true],
    [{ matchExpressions: [{ key: 'tier', operator: 'DoesNotExist' }] }, false],
    [{ matchExpressions: [{ key: 'none', operator: 'DoesNotExist' }] }, true],
    [{ matchExpressions: [{ key: 'app', operator: 'FromTheFuture' }] }, true],
    [{ matchLabels: { app: 'web' }, matchExpressions: [{ key: 'tier', operator: 'DoesNotExist' }] }, false],
  ])('%j: %p', (selector, expected) => expect(matchesLabels(selector, labels)).toBe(expected));
});
