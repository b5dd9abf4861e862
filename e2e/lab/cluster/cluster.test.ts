/** What of the cluster's lab can be judged without a cluster: objects, readings, and commands on their way into a container. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from '@jest/globals';
import { xmasq } from '../../../plugin/src/gen/xmasq.js';
import { toJson } from '../../../plugin/src/grpc/json.ts';
import { endpointsFromJson, flowsArguments, flowsFromJson, statusFromJson } from '../admin.ts';
import { eventually } from '../lab.ts';
import { ProcessTable } from '../native/process.ts';
import {
  addressesOf,
  antreaConfOf,
  clusterIpOf,
  nodesOf,
  podObject,
  policyObject,
  runningPodsOf,
  sandboxPidOf,
  serviceObject,
} from './objects.ts';
import { RemoteProcesses, execIn } from './remote.ts';
import type { Entry } from './remote.ts';
import { clusterSettings } from './settings.ts';
import { ClusterSidecar } from './sidecar.ts';

const v1 = xmasq.v1;

describe('settings', () => {
  test('have defaults, and the families of the cluster', () => {
    expect(clusterSettings({})).toEqual({ name: 'xmasq', context: 'kind-xmasq', families: ['ipv4'] });
    expect(clusterSettings({ XMASQ_KIND_CLUSTER: 'a', XMASQ_KIND_IP_FAMILY: 'dual' })).toEqual({
      name: 'a',
      context: 'kind-a',
      families: ['ipv4', 'ipv6'],
    });
  });

  test('refuse another family', () => {
    expect(() => clusterSettings({ XMASQ_KIND_IP_FAMILY: 'v4' })).toThrow(/"v4"; expected ipv4, ipv6, dual/);
  });
});

describe('objects', () => {
  test('policies and Services select the pod by its label', () => {
    const pod = podObject('ns', 'pod-1-1', 'worker');
    expect(pod.spec).toMatchObject({ nodeName: 'worker' });
    expect(policyObject('ns', 'p', 'pod-1-1', []).spec).toMatchObject({
      podSelector: { matchLabels: { 'xmasq-e2e/pod': pod.metadata.labels?.['xmasq-e2e/pod'] } },
    });
    expect(serviceObject('ns', 's', 'pod-1-1', { proto: 'udp', port: 53, family: 'ipv6' }).spec).toMatchObject({
      ipFamilies: ['IPv6'],
      selector: { 'xmasq-e2e/pod': 'pod-1-1' },
      ports: [{ protocol: 'UDP', port: 53, targetPort: 53 }],
    });
  });

  test('a policy without ports allows none, rather than every one', () => {
    expect(policyObject('ns', 'p', 'pod', []).spec).toMatchObject({ policyTypes: ['Ingress'], ingress: [] });
    expect(policyObject('ns', 'p', 'pod', [{ proto: 'tcp', port: 80 }]).spec).toMatchObject({
      ingress: [{ ports: [{ protocol: 'TCP', port: 80 }] }],
    });
  });
});

describe('readings', () => {
  test('nodes in the order of their names', () => {
    const node = (name: string, labels: Record<string, string>): object => ({
      metadata: { name, labels },
      spec: { podCIDRs: ['10.244.1.0/24'] },
      status: {
        addresses: [
          { type: 'InternalIP', address: '172.18.0.3' },
          { type: 'Hostname', address: name },
        ],
      },
    });
    const items = [node('x-worker', {}), node('x-control-plane', { 'node-role.kubernetes.io/control-plane': '' })];
    const rest = { addresses: ['172.18.0.3'], podCidrs: ['10.244.1.0/24'] };
    expect(nodesOf({ items })).toEqual([
      { name: 'x-control-plane', controlPlane: true, ...rest },
      { name: 'x-worker', controlPlane: false, ...rest },
    ]);
  });

  test('pods that run and are to go on', () => {
    const pod = (name: string, phase: string, deletionTimestamp?: string): object => ({
      metadata: { name, ...(deletionTimestamp === undefined ? {} : { deletionTimestamp }) },
      spec: { nodeName: 'w' },
      status: { phase, podIPs: [{ ip: '10.244.1.2' }, { ip: 'fd00::2' }] },
    });
    const items = [pod('a', 'Running'), pod('b', 'Pending'), pod('c', 'Running', '2026-01-01T00:00:00Z')];
    expect(runningPodsOf({ items })).toEqual([{ name: 'a', nodeName: 'w', addresses: ['10.244.1.2', 'fd00::2'] }]);
  });

  test('addresses: the IPv4 one first, the IPv6 one where there is no other', () => {
    expect(addressesOf('a', ['fd00::2', '10.244.1.2'])).toEqual({ address: '10.244.1.2', address6: 'fd00::2' });
    expect(addressesOf('a', ['fd00::2'])).toEqual({ address: 'fd00::2', address6: 'fd00::2' });
    expect(addressesOf('a', ['10.244.1.2'])).toEqual({ address: '10.244.1.2' });
    expect(() => addressesOf('a', [])).toThrow('a has no address');
  });

  test('what else is asked for', () => {
    expect(antreaConfOf({ data: { 'antrea-agent.conf': 'x: y' } })).toBe('x: y');
    expect(clusterIpOf({ spec: { clusterIP: '10.96.0.9' } })).toBe('10.96.0.9');
    expect(sandboxPidOf({ status: {}, info: { pid: 42 } })).toBe(42);
    expect(() => sandboxPidOf({ status: {} })).toThrow();
  });
});

describe('what xmasq prints as JSON becomes what the Admin service says', () => {
  test('status', () => {
    const message = new v1.StatusResponse({
      state: v1.NodeState.NODE_STATE_READY,
      admissionMode: v1.AdmissionMode.ADMISSION_MODE_CONNTRACK,
      peers: 2,
      counters: [{ name: 'fast_tx', value: 5_000_000_000 }],
    });
    expect(statusFromJson(toJson(v1.StatusResponse, message))).toMatchObject({
      state: 'ready',
      admissionMode: 'conntrack',
      degradations: [],
      peers: 2,
      counters: { fast_tx: 5_000_000_000, restored: 0 },
    });
  });

  test('endpoints', () => {
    const endpoints = [{ namespace: 'ns', pod: 'a', ifName: 'a-123456', ips: ['10.244.1.2'], attached: true }];
    const json = toJson(v1.EndpointsResponse, new v1.EndpointsResponse({ endpoints }));
    expect(endpointsFromJson(json)).toMatchObject([{ ...endpoints[0], exclusion: undefined }]);
  });

  test('flows, those that the filter wants', () => {
    const flow = {
      destinationPort: 80,
      protocol: 6,
      path: v1.FlowPath.FLOW_PATH_FAST,
      mode: v1.TransmitMode.TRANSMIT_MODE_MASQUERADE,
    };
    const flows = [
      { ...flow, sourceIp: '10.244.1.2' },
      { ...flow, sourceIp: '10.244.1.3' },
    ];
    const json = toJson(v1.FlowsResponse, new v1.FlowsResponse({ last: true, flows }));
    expect(flowsFromJson(json)).toHaveLength(2);
    expect(flowsFromJson(json, { sourceIp: '10.244.1.3' })).toMatchObject([
      { sourceIp: '10.244.1.3', destinationPort: 80, protocol: 6, path: 'fast', mode: 'masquerade' },
    ]);
  });

  test('options of xmasq flows', () => {
    expect(flowsArguments({})).toEqual([]);
    expect(flowsArguments({ proto: 'tcp', port: 80, ip: '10.244.1.2', sourcePort: 1 })).toEqual(
      '--protocol tcp --port 80 --ip 10.244.1.2'.split(' '),
    );
  });
});

/** A way that leads nowhere else. */
const HERE: Entry = { name: 'here', before: () => [] };

describe('commands', () => {
  test('end, with what they print', async () => {
    expect(await execIn(HERE, ['cat'], { input: 'x' })).toMatchObject({ code: 0, stdout: 'x' });
    await expect(execIn(HERE, ['sh', '-c', 'echo why >&2; exit 3'])).rejects.toThrow(/exit code 3\nwhy/);
    expect(await execIn(HERE, ['false'], { check: false })).toMatchObject({ code: 1 });
  });

  test('that take too long are ended where they run', async () => {
    const sleeping = execIn(HERE, ['sleep', '60'], { timeoutMs: 200, check: false });
    await expect(sleeping).rejects.toThrow(/not done after 200 ms/);
  });
});

describe('processes', () => {
  const dir = mkdtempSync(join(tmpdir(), 'xmasq-cluster-'));
  const processes = new RemoteProcesses(new ProcessTable(dir));

  afterAll(async () => {
    await processes.stopAll();
    rmSync(dir, { recursive: true });
  });

  test('print what theirs print, and are told signals', async () => {
    const script = 'trap "echo {}; exit 0" INT; echo "ready $WHAT"; while :; do sleep 0.05; done';
    const proc = await processes.start(HERE, ['sh', '-c', script], { env: { WHAT: 'now' } });
    expect(await proc.waitFor(/^ready/)).toBe('ready now');
    await proc.stop('SIGINT');
    expect(await proc.json()).toEqual({});
    expect(proc.output()).not.toContain('process ');
    expect(proc.running).toBe(false);
  });

  test('that do not listen are killed, with those that they have started', async () => {
    const script = 'trap "" TERM; sleep 61.5 & echo "child $!"; wait; wait';
    const proc = await processes.start(HERE, ['sh', '-c', script]);
    const child = Number(/\d+/.exec(await proc.waitFor(/^child/))?.[0]);
    await proc.stop('SIGTERM', 200);
    const alive = ['sh', '-c', 'kill -0 "$0"', String(child)];
    await eventually('the child is gone', async () => (await execIn(HERE, alive, { check: false })).code !== 0);
  });
});

test('a sidecar that does not answer: the exit code and what it said', async () => {
  const entry: Entry = { name: 'sidecar', before: () => ['sh', '-c', 'echo unreachable >&2; exit 3'] };
  const sidecar = new ClusterSidecar({ name: 'worker' }, entry);
  await expect(sidecar.status()).rejects.toThrow('sidecar: xmasq status: exit code 3: unreachable');
});
