import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import type { ExclusionList } from '../../../src/exclusion/exclusions.ts';
import { Reason } from '../../../src/gen/layouts.ts';
import type { Pod, PodEventSink } from '../../../src/grpc/backend.ts';
import { OvsdbSource, type OvsdbSourceOptions, type OvsdbState } from '../../../src/ovsdb/index.ts';
import type { ClusterProblem } from '../../../src/state/cluster.ts';
import { quiet } from '../dataplane/fakes.ts';
import { eventually, map, refs, ScriptedServer, serving, type Rows } from './scripted-server.ts';

let server: ScriptedServer;
let rows: Rows;
let source: OvsdbSource | undefined;
let recorder: Recorder;

/** Everything that the source tells, in order. */
class Recorder implements PodEventSink {
  readonly told: string[] = [];
  readonly states: OvsdbState[] = [];
  readonly problems: (ClusterProblem | undefined)[] = [];
  exclusions: ExclusionList | undefined;
  gate: Promise<void> = Promise.resolve();
  failures = 0;

  snapshot(pods: readonly Pod[]): Promise<void> {
    return this.#take(`snapshot ${pods.map(({ name }) => name).join()}`);
  }
  added(pod: Pod): Promise<void> {
    return this.#take(`added ${pod.name}${this.#excluded(pod)}`);
  }
  changed(pod: Pod, previous: Pod): Promise<void> {
    return this.#take(`changed ${previous.name} ${previous.ips.join()} -> ${pod.ips.join()}`);
  }
  removed(pod: Pod): Promise<void> {
    return this.#take(`removed ${pod.name}${this.#excluded(pod)}`);
  }

  get state(): OvsdbState | undefined {
    return this.states.at(-1);
  }

  #excluded(pod: Pod): string {
    const names = this.exclusions?.pods.map((exclusion) => exclusion.pod.name) ?? [];
    return names.includes(pod.name) ? ' excluded' : '';
  }

  async #take(what: string): Promise<void> {
    await this.gate;
    if (this.failures > 0) {
      this.failures--;
      this.told.push(`refused ${what}`);
      throw new Error('not now');
    }
    this.told.push(what);
  }
}

/** The keys of a pod's port, as antrea-agent writes them. */
function keys(n: number, over: Record<string, string | undefined> = {}): unknown[] {
  const all: Record<string, string | undefined> = {
    'antrea-type': 'container',
    'attached-mac': `0A:00:00:00:00:0${n}`,
    'ip-address': `10.10.1.${n},fd00::${n}`,
    'container-id': `c${n}`,
    'pod-name': `web-${n}`,
    'pod-namespace': 'default',
    'net-ns': '/host/var/run/netns/x',
    ...over,
  };
  return ['map', Object.entries(all).filter(([, value]) => value !== undefined)];
}

/** A port row, its interface row, and its place in the bridge. */
function addPort(uuid: string, row: object, device: object = {}, bridge = 'b'): void {
  rows['Port'] = { ...rows['Port'], [uuid]: { name: uuid, interfaces: ['uuid', `i-${uuid}`], ...row } };
  rows['Interface'] = { ...rows['Interface'], [`i-${uuid}`]: { name: uuid, ...device } };
  const { ports, ...rest } = rows['Bridge']?.[bridge] as { ports: [string, unknown[]] };
  rows['Bridge'] = { ...rows['Bridge'], [bridge]: { ...rest, ports: ['set', [...ports[1], ['uuid', uuid]]] } };
}

beforeEach(async () => {
  rows = {
    Open_vSwitch: { o: { other_config: map({}) } },
    Bridge: { b: { name: 'br-int', ports: refs(), external_ids: map({ roundNum: '3' }) } },
  };
  recorder = new Recorder();
  server = await ScriptedServer.create(serving(() => rows));
});
afterEach(async () => {
  await source?.stop();
  source = undefined;
  await server.remove();
});

function start(over: Partial<OvsdbSourceOptions> = {}): void {
  source = new OvsdbSource({
    socket: server.socket,
    log: quiet,
    pods: recorder,
    maxPods: 100,
    exclusions: (list) => {
      recorder.exclusions = list;
    },
    onState: (state) => {
      recorder.states.push(state);
    },
    onProblem: (problem) => {
      recorder.problems.push(problem);
    },
    backoffMinMs: 10,
    retryMs: 20,
    ...over,
  });
  source.start();
}

const told = (count: number): Promise<void> => eventually(() => recorder.told.length >= count);

describe('pods', () => {
  test('are the container ports of the bridge, with all of their keys', async () => {
    let pods: readonly Pod[] = [];
    recorder.snapshot = (given) => {
      pods = given;
      return Promise.resolve();
    };
    rows['Bridge'] = { ...rows['Bridge'], s: { name: 'br-secondary', ports: refs() } };
    addPort('web-1', { external_ids: keys(1) });
    addPort('other', { external_ids: keys(2) }, {}, 's');
    addPort('second-nic', { external_ids: keys(1, { 'if-dev': 'net1' }) });
    addPort('antrea-gw0', { external_ids: map({ 'antrea-type': 'gateway' }) }, { type: 'internal', ofport: 2 });
    addPort('br-int', {}, { type: 'internal' });
    start();
    await eventually(() => pods.length > 0);
    expect(pods).toEqual([
      {
        namespace: 'default',
        name: 'web-1',
        containerId: 'c1',
        ifName: 'web-1',
        ips: ['10.10.1.1', 'fd00::1'],
        mac: '0a:00:00:00:00:01',
      },
    ]);
    expect(source?.info).toMatchObject({ synced: true, connected: true, pods: 1, skippedNow: 0 });
  });

  test('come, change and go as their ports do', async () => {
    start();
    await told(1);
    const { peer } = server;
    peer.update2({
      Port: { p1: { insert: { name: 'web-1', external_ids: keys(1) } } },
      Bridge: { b: { modify: { ports: refs('p1') } } },
    });
    await told(2);
    peer.update2({ Port: { p1: { modify: { external_ids: map({ 'ip-address': '10.10.1.7' }) } } } });
    await told(3);
    peer.update2({ Port: { p1: { delete: null } }, Bridge: { b: { modify: { ports: refs('p1') } } } });
    await told(4);
    expect(recorder.told).toEqual([
      'snapshot ',
      'added web-1',
      'changed web-1 10.10.1.1,fd00::1 -> 10.10.1.7',
      'removed web-1',
    ]);
  });

  test('are gone when the port leaves the bridge, though its row stays', async () => {
    addPort('web-1', { external_ids: keys(1) });
    start();
    await told(1);
    server.peer.update2({ Bridge: { b: { modify: { ports: refs('web-1') } } } });
    await told(2);
    expect(recorder.told).toEqual(['snapshot web-1', 'removed web-1']);
  });

  test('stay while there is no connection; after it what is the same is not told again, and what is gone goes', async () => {
    for (const n of [1, 2, 3]) addPort(`web-${n}`, { external_ids: keys(n) });
    start();
    await told(1);
    await server.down();
    await eventually(() => recorder.state?.connected === false);
    expect(recorder.told).toEqual(['snapshot web-1,web-2,web-3']);
    expect(recorder.state).toMatchObject({ synced: true, pods: 3 });
    // Another server may number its rows anew.
    rows['Bridge'] = { b2: { name: 'br-int', ports: refs(), external_ids: map({ roundNum: '3' }) } };
    rows['Port'] = {};
    addPort('web-1', { external_ids: keys(1) }, {}, 'b2');
    addPort('web-4', { external_ids: keys(4) }, {}, 'b2');
    addPort('web-3', { external_ids: keys(3, { 'ip-address': '10.10.1.2' }) }, {}, 'b2');
    await server.listen();
    await told(4);
    expect(recorder.told.slice(1)).toEqual([
      'removed web-2',
      'added web-4',
      'changed web-3 10.10.1.3,fd00::3 -> 10.10.1.2',
    ]);
    expect(recorder.problems.at(-1)).toBeUndefined();
  });

  test('that change faster than they are taken over are told as they are in the end', async () => {
    start();
    await told(1);
    const { promise, resolve } = Promise.withResolvers<undefined>();
    recorder.gate = promise;
    const add = (n: number): void => {
      server.peer.update2({
        Port: { [`p${n}`]: { insert: { name: `web-${n}`, external_ids: keys(n) } } },
        Bridge: { b: { modify: { ports: refs(`p${n}`) } } },
      });
    };
    add(1);
    await eventually(() => source?.info.updates === 1);
    for (const n of [2, 3]) add(n);
    server.peer.update2({ Port: { p2: { delete: null } }, Bridge: { b: { modify: { ports: refs('p2') } } } });
    await eventually(() => source?.info.updates === 4);
    resolve(undefined);
    await told(3);
    expect(recorder.told).toEqual(['snapshot ', 'added web-1', 'added web-3']);
  });

  test('that were rejected are told again, all of them', async () => {
    addPort('web-1', { external_ids: keys(1) });
    recorder.failures = 1;
    start();
    await told(2);
    recorder.failures = 1;
    server.peer.update2({ Port: { 'web-1': { modify: { external_ids: map({ 'ip-address': '10.10.1.7' }) } } } });
    await told(4);
    expect(recorder.told).toEqual([
      'refused snapshot web-1',
      'snapshot web-1',
      'refused changed web-1 10.10.1.1,fd00::1 -> 10.10.1.7',
      'snapshot web-1',
    ]);
  });
});

describe('rows that cannot be used are skipped and counted, and the others are used', () => {
  test.each<[string, Record<string, string | undefined>, string]>([
    ['no MAC', { 'attached-mac': undefined }, 'invalid'],
    ['a bad MAC', { 'attached-mac': '01:00:5e:00:00:01' }, 'invalid'],
    ['no address', { 'ip-address': '' }, 'invalid'],
    ['a bad address', { 'ip-address': '10.10.1.300' }, 'invalid'],
    ['a prefix for an address', { 'ip-address': '10.10.1.1/24' }, 'invalid'],
    ['no container', { 'container-id': undefined }, 'invalid'],
    ['no pod name', { 'pod-name': undefined }, 'invalid'],
    ['no namespace', { 'pod-namespace': undefined }, 'invalid'],
    ['a pod name that is none', { 'pod-name': 'a/b' }, 'invalid'],
    ['an unknown type', { 'antrea-type': 'warp' }, 'unknown_type'],
    ['no type', { 'antrea-type': undefined }, 'no_type'],
    ['the container of a later port', { 'container-id': 'c2' }, 'duplicate'],
  ])('%s', async (_what, over, cause) => {
    addPort('bad', { external_ids: keys(1, over) });
    addPort('web-2', { external_ids: keys(2) });
    start();
    await told(1);
    expect(recorder.told).toEqual(['snapshot web-2']);
    expect(source?.info.skippedNow).toBe(1);
    expect([...(source?.info.skippedTotal ?? [])].filter(([, count]) => count > 0)).toEqual([[cause, 1]]);
    // Other news do not count it again.
    server.peer.update2({ Open_vSwitch: { o: { modify: { other_config: map({ 'flow-restore-wait': 'true' }) } } } });
    await eventually(() => recorder.state?.flowRestoreWait === true);
    expect(source?.info.skippedTotal.get(cause as 'invalid')).toBe(1);
    server.peer.update2({ Port: { bad: { modify: { external_ids: map({ x: 'y' }) } } } });
    await eventually(() => source?.info.skippedTotal.get(cause as 'invalid') === 2);
  });

  test('more pods than there can be', async () => {
    for (const n of [1, 2, 3]) addPort(`web-${n}`, { external_ids: keys(n) });
    start({ maxPods: 2 });
    await told(1);
    expect(source?.info).toMatchObject({ pods: 2, skippedNow: 1 });
    expect(source?.info.skippedTotal.get('too_many')).toBe(1);
  });

  test('and a row that becomes right is a pod', async () => {
    addPort('web-1', { external_ids: keys(1, { 'attached-mac': undefined }) });
    start();
    await told(1);
    const mac = map({ 'attached-mac': '0a:00:00:00:00:01' });
    server.peer.update2({ Port: { 'web-1': { modify: { external_ids: mac } } } });
    await told(2);
    expect(recorder.told).toEqual(['snapshot ', 'added web-1']);
    expect(source?.info.skippedNow).toBe(0);
  });
});

describe('signals', () => {
  test('are one state, told when it changes and only then', async () => {
    rows['Open_vSwitch'] = { o: { other_config: map({ 'flow-restore-wait': 'true', 'hw-offload': 'false' }) } };
    addPort(
      'antrea-gw0',
      { external_ids: map({ 'antrea-type': 'gateway' }) },
      { type: 'internal', ofport: 2, ifindex: 9 },
    );
    addPort(
      'antrea-tun0',
      { external_ids: map({ 'antrea-type': 'tunnel' }) },
      { type: 'vxlan', options: map({ key: 'flow', remote_ip: 'flow', dst_port: '8472' }) },
    );
    start();
    await eventually(() => recorder.states.length === 1);
    expect(recorder.state).toEqual({
      connected: true,
      synced: true,
      bridgePresent: true,
      flowRestoreWait: true,
      hwOffload: false,
      roundNum: 3,
      gateway: { name: 'antrea-gw0', ofport: 2, ifindex: 9, mac: '' },
      tunnels: [{ name: 'antrea-tun0', type: 'vxlan', port: 8472, ipsec: false }],
      uplinks: [],
      vlanPods: [],
      pods: 0,
    });
    const { peer } = server;
    peer.update2({ Bridge: { b: { modify: { external_ids: map({ other: 'x' }) } } } });
    peer.update2({ Open_vSwitch: { o: { modify: { other_config: map({ 'flow-restore-wait': 'true' }) } } } });
    await eventually(() => recorder.states.length === 2);
    expect(recorder.state).toMatchObject({ flowRestoreWait: false, roundNum: 3 });
    peer.update2({ Bridge: { b: { modify: { external_ids: map({ roundNum: '4' }) } } } });
    await eventually(() => recorder.states.length === 3);
    expect(recorder.state?.roundNum).toBe(4);
  });

  test('a state that cannot be put in force is told again, with the pods', async () => {
    addPort('web-1', { external_ids: keys(1) });
    let failures = 2;
    const states: OvsdbState[] = [];
    start({
      onState: (state) => {
        if (failures-- > 0) throw new Error('not now');
        states.push(state);
      },
    });
    await told(1);
    expect(recorder.told).toEqual(['snapshot web-1']);
    expect(states).toHaveLength(1);
    failures = 1;
    await server.down();
    await eventually(() => failures < 1);
    await server.listen();
    await eventually(() => source?.info.syncs === 2 && source.state.connected);
    expect(recorder.told).toEqual(['snapshot web-1']);
  });

  test('a lost connection and a missing bridge are problems until they are over', async () => {
    const bridge = rows['Bridge'];
    rows['Bridge'] = {};
    start();
    await eventually(() => recorder.problems.length === 1);
    expect(recorder.problems[0]?.what).toBe('the database of Open vSwitch has no bridge br-int');
    expect(recorder.state).toMatchObject({ bridgePresent: false, roundNum: undefined });
    rows['Bridge'] = bridge ?? {};
    server.peer.close();
    await eventually(() => recorder.problems.length === 3);
    expect(recorder.problems[1]?.what).toMatch(/^no connection to the database of Open vSwitch: /);
    expect(recorder.problems[1]?.where).toBe(server.socket);
    expect(recorder.problems[2]).toBeUndefined();
    expect(recorder.states.map(({ connected }) => connected)).toEqual([true, false, true]);
  });
});

describe('exclusions', () => {
  test.each<[string, () => void, { scope: string; reason: number; detail: string }]>([
    [
      'hw-offload',
      () => {
        rows['Open_vSwitch'] = { o: { other_config: map({ 'hw-offload': 'true' }) } };
      },
      { scope: 'node', reason: Reason.HW_OFFLOAD, detail: 'Open_vSwitch other_config:hw-offload=true' },
    ],
    [
      'an uplink in the bridge',
      () => {
        addPort('eth0', { external_ids: map({ 'antrea-type': 'uplink' }) });
      },
      { scope: 'node', reason: Reason.BRIDGING, detail: "uplink port eth0 in Antrea's bridge" },
    ],
    [
      'IPsec tunnels',
      () => {
        const device = { type: 'geneve', options: map({ remote_ip: '192.168.1.2', psk: 'secret' }) };
        addPort('node-2-abcdef', { external_ids: map({ 'antrea-type': 'ipsec-tunnel', 'node-name': 'n2' }) }, device);
      },
      { scope: 'inter-node', reason: Reason.ENCRYPTION, detail: 'IPsec tunnel port node-2-abcdef' },
    ],
    [
      'a tunnel of another type',
      () => {
        addPort('antrea-tun0', { external_ids: map({ 'antrea-type': 'tunnel' }) }, { type: 'stt' });
      },
      { scope: 'inter-node', reason: Reason.TUNNEL_TYPE, detail: 'tunnel port antrea-tun0 of type stt' },
    ],
  ])('%s', async (_what, prepare, exclusion) => {
    addPort('web-1', { external_ids: keys(1) });
    prepare();
    start();
    await told(1);
    expect(recorder.exclusions).toEqual({ node: [exclusion], pods: [] });
  });

  test('tunnels to TrafficControl targets are none of the nodes', async () => {
    addPort('vxlan0', { external_ids: map({ 'antrea-type': 'traffic-control' }) }, { type: 'gre' });
    start();
    await told(1);
    expect(recorder.exclusions).toEqual({ node: [], pods: [] });
    expect(recorder.state?.tunnels).toEqual([]);
  });

  test('a pod with a VLAN is excluded before it is told of, and until it is gone', async () => {
    start();
    await told(1);
    const { peer } = server;
    peer.update2({
      Port: { p1: { insert: { name: 'web-1', external_ids: keys(1), tag: 7 } } },
      Bridge: { b: { modify: { ports: refs('p1') } } },
    });
    await told(2);
    expect(recorder.exclusions?.pods).toEqual([
      { pod: { namespace: 'default', name: 'web-1' }, reason: Reason.POD_VLAN, detail: 'VLAN 7 on its port' },
    ]);
    peer.update2({ Port: { p1: { delete: null } }, Bridge: { b: { modify: { ports: refs('p1') } } } });
    await told(3);
    expect(recorder.told.slice(1)).toEqual(['added web-1 excluded', 'removed web-1 excluded']);
    await eventually(() => recorder.exclusions?.pods.length === 0);
  });

  test('a VLAN that comes and goes excludes and includes the pod', async () => {
    addPort('web-1', { external_ids: keys(1) });
    start();
    await told(1);
    server.peer.update2({ Port: { 'web-1': { modify: { tag: 5 } } } });
    await eventually(() => recorder.exclusions?.pods.length === 1);
    server.peer.update2({ Port: { 'web-1': { modify: { tag: ['set', []] } } } });
    await eventually(() => recorder.exclusions?.pods.length === 0);
    expect(recorder.told).toEqual(['snapshot web-1']);
  });
});
