import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import type { ApiDouble } from '../../../../e2e/double/api-double.ts';
import { clusterObject } from '../../../../e2e/double/objects.ts';
import { Reason } from '../../../src/dataplane/layout.ts';
import type { NodeExclusion } from '../../../src/exclusion/exclusions.ts';
import { AntreaConfig } from '../../../src/kubernetes/antrea-config.ts';
import { encapMode, exclusionsOf, parseAntreaConf, type AntreaModes } from '../../../src/kubernetes/antrea-modes.ts';
import type { ClusterProblem } from '../../../src/state/cluster.ts';
import { Harness, QUICK, quiet, sleep, until } from './harness.ts';

const CONFIG_MAPS = '/api/v1/configmaps';
const AGENT_INFOS = '/apis/crd.antrea.io/v1beta1/antreaagentinfos';

describe('modes', () => {
  test('an empty file has the defaults, which rule nothing out', () => {
    const modes = parseAntreaConf('');
    expect(modes).toMatchObject({
      trafficEncapMode: 'encap',
      trafficEncryptionMode: 'none',
      tunnelType: 'geneve',
      tunnelPort: 6081,
      antreaProxy: true,
      multiclusterGateway: false,
      bridgingMode: false,
      featureGates: {},
    });
    expect(exclusionsOf(modes)).toEqual([]);
  });

  test('values are compared without case, as Antrea does; gates and ports are read', () => {
    const conf =
      'trafficEncapMode: Encap\ntunnelType: VXLAN\ntunnelPort: 0\nfeatureGates:\n  AntreaProxy: true\n  X: 1\n';
    expect(parseAntreaConf(conf)).toMatchObject({
      trafficEncapMode: 'encap',
      tunnelPort: 4789,
      featureGates: { AntreaProxy: true },
    });
    expect(parseAntreaConf('tunnelPort: 9000').tunnelPort).toBe(9000);
    expect(parseAntreaConf('tunnelType: gre').tunnelPort).toBeUndefined();
    expect(parseAntreaConf('antreaProxy:\n  enable: false').antreaProxy).toBe(false);
  });

  test.each<[string, NodeExclusion['scope'] | undefined, number | undefined]>([
    ['trafficEncapMode: encap', undefined, undefined],
    ['trafficEncapMode: noEncap', undefined, undefined],
    ['trafficEncapMode: noEncap\ntunnelType: gre', undefined, undefined],
    ['trafficEncapMode: Hybrid', undefined, undefined],
    ['trafficEncapMode: hybrid\ntunnelType: gre', 'inter-node', Reason.TUNNEL_TYPE],
    ['trafficEncapMode: networkPolicyOnly', 'node', Reason.ENCAP_MODE],
    ['trafficEncapMode: somethingNew', 'node', Reason.ENCAP_MODE],
    ['enableBridgingMode: true', 'node', Reason.BRIDGING],
    ['trafficEncryptionMode: IPsec', 'inter-node', Reason.ENCRYPTION],
    ['trafficEncryptionMode: wireGuard', 'inter-node', Reason.ENCRYPTION],
    ['trafficEncryptionMode: none', undefined, undefined],
    ['tunnelType: gre', 'inter-node', Reason.TUNNEL_TYPE],
    ['tunnelType: stt', 'inter-node', Reason.TUNNEL_TYPE],
    ['tunnelType: vxlan', undefined, undefined],
    ['tunnelPort: 9999', undefined, undefined],
    ['multicluster:\n  enableGateway: true', 'node', Reason.MULTICLUSTER],
    ['multicluster:\n  enable: true', 'node', Reason.MULTICLUSTER],
    ['multicluster:\n  enableGateway: false', undefined, undefined],
    ['antreaProxy:\n  enable: false', undefined, undefined],
    ['defaultMTU: 1400', undefined, undefined],
    ['featureGates:\n  NodeNetworkPolicy: true', 'inter-node', Reason.FEATURE_GATE],
    ['featureGates:\n  NodeNetworkPolicy: false', undefined, undefined],
    ['featureGates:\n  AllAlpha: true', 'inter-node', Reason.FEATURE_GATE],
    ['featureGates:\n  AllAlpha: true\n  NodeNetworkPolicy: false', undefined, undefined],
    ['featureGates:\n  TrafficControl: true\n  L7NetworkPolicy: true', undefined, undefined],
    ['transportInterface: eth1', undefined, undefined],
  ])('%s: %p', (conf, scope, reason) => {
    const found = exclusionsOf(parseAntreaConf(conf));
    expect(found.map((exclusion) => [exclusion.scope, exclusion.reason])).toEqual(
      scope === undefined ? [] : [[scope, reason]],
    );
  });

  test.each([
    ['', 'encap'],
    ['trafficEncapMode: NOENCAP', 'noEncap'],
    ['trafficEncapMode: hybrid', 'hybrid'],
    ['trafficEncapMode: networkPolicyOnly', undefined],
  ])('%j: pod traffic between nodes goes %p', (conf, mode) => expect(encapMode(parseAntreaConf(conf))).toBe(mode));

  test('several at once are all told', () => {
    const conf = 'trafficEncryptionMode: ipsec\nenableBridgingMode: true\ntrafficEncapMode: noEncap\ntunnelType: gre\n';
    expect(exclusionsOf(parseAntreaConf(conf)).map(({ detail }) => detail)).toEqual([
      'enableBridgingMode: true',
      'trafficEncryptionMode: ipsec',
    ]);
  });

  test.each(['- a', 'text', 'a: [', 'a: &x 1\nb: *x'])('%j is refused', (conf) => {
    expect(() => parseAntreaConf(conf)).toThrow();
  });
});

describe('the ConfigMap of antrea-agent', () => {
  let harness: Harness;
  let double: ApiDouble;
  let told: (readonly NodeExclusion[])[];
  let modes: AntreaModes[];
  let problems: (ClusterProblem | undefined)[];

  beforeEach(async () => {
    harness = new Harness();
    double = await harness.double();
    told = [];
    modes = [];
    problems = [];
  });
  afterEach(() => harness.close());

  function begin(): AntreaConfig {
    const { api } = harness.client(double);
    const config = new AntreaConfig({
      ...QUICK,
      api,
      nodeName: 'n1',
      log: quiet,
      searchMs: 30,
      sink: ({ node }) => told.push(node),
      modes: (next) => modes.push(next),
      trouble: (problem) => problems.push(problem),
    });
    harness.add(() => config.stop());
    config.start();
    return config;
  }

  const put = (conf: string, name = 'antrea-config', more: object = {}): unknown =>
    double.store.put(CONFIG_MAPS, {
      metadata: { namespace: 'kube-system', name, labels: { app: 'antrea' }, ...more },
      data: { 'antrea-agent.conf': conf },
    });
  const last = (): string[] => told.at(-1)?.map(({ scope, detail }) => `${scope} ${detail}`) ?? ['nothing told'];

  test('is followed', async () => {
    put('tunnelType: vxlan');
    const config = begin();
    await config.ready;
    expect(last()).toEqual([]);
    expect(modes).toMatchObject([{ tunnelPort: 4789 }]);
    await until(() => double.watchCount === 1);
    const begun = Date.now();
    put('trafficEncryptionMode: wireGuard');
    await until(() => last().length === 1);
    expect(Date.now() - begun).toBeLessThan(1000);
    expect(last()).toEqual(['inter-node trafficEncryptionMode: wireguard']);
    put('');
    await until(() => last().length === 0);
  });

  test('where it is missing or wrong, nothing is accelerated', async () => {
    const config = begin();
    await config.ready;
    expect(last()).toEqual(['node no ConfigMap antrea-config with antrea-agent.conf in kube-system']);
    put('a: [');
    await until(() => last()[0]?.includes('ConfigMap antrea-config:') === true);
    expect(config.modes).toBeUndefined();
    put('');
    await until(() => last().length === 0);
  });

  test('is found by the beginning of its name: the newest of those', async () => {
    put('trafficEncapMode: noEncap', 'antrea-config-old', { creationTimestamp: '2020-01-01T00:00:00Z' });
    put('tunnelType: vxlan', 'antrea-config-new', { creationTimestamp: '2021-01-01T00:00:00Z' });
    put('', 'antrea-windows-config', { creationTimestamp: '2022-01-01T00:00:00Z' });
    const config = begin();
    await until(() => config.modes?.tunnelType === 'vxlan');
    expect(last()).toEqual([]);
  });

  test('at a start without API nothing is said; a later loss changes nothing', async () => {
    put('trafficEncryptionMode: ipsec');
    await double.outage();
    const config = begin();
    await until(() => problems.length > 0);
    expect(told).toEqual([]);
    await double.resume();
    await config.ready;
    await double.outage();
    await sleep(50);
    expect(told).toHaveLength(1);
    expect(last()).toEqual(['inter-node trafficEncryptionMode: ipsec']);
  });

  test('AntreaAgentInfo says how antrea-agent is', async () => {
    double.install(AGENT_INFOS);
    put('');
    const config = begin();
    await config.ready;
    expect(config.agentInfo).toBeUndefined();
    const info = (up: string) =>
      clusterObject('AntreaAgentInfo', 'crd.antrea.io/v1beta1', 'n1', {
        version: 'v2.8.0',
        agentConditions: [{ type: 'OpenflowConnectionUp', status: up, lastHeartbeatTime: new Date().toISOString() }],
      });
    double.store.put(AGENT_INFOS, { ...info('True'), metadata: { name: 'other' } });
    double.store.put(AGENT_INFOS, info('True'));
    await until(() => config.agentInfo !== undefined);
    expect(config.agentInfo).toEqual({ version: 'v2.8.0', conditions: { OpenflowConnectionUp: true } });
    double.store.put(AGENT_INFOS, info('False'));
    await until(() => config.agentInfo?.conditions['OpenflowConnectionUp'] === false);
  });
});
