import { beforeEach, describe, expect, test } from '@jest/globals';
import { FEATURE_GATES, resolveGates } from '../../../src/config/feature-gates.ts';
import { parseConfig } from '../../../src/config/load.ts';
import { ConfigMap } from '../../../src/dataplane/config-map.ts';
import { Reason } from '../../../src/dataplane/layout.ts';
import type { Notes } from '../../../src/dataplane/notes.ts';
import { NodeExclusion } from '../../../src/dataplane/node-exclusion.ts';
import {
  Exclusions,
  NOTHING_EXCLUDED,
  type ExclusionList,
  type ExclusionState,
} from '../../../src/exclusion/exclusions.ts';
import { WireGuardDevice } from '../../../src/agent/device-exclusions.ts';
import { gateExclusions } from '../../../src/agent/gate-exclusions.ts';
import { FakeClock, fakeNotes, FakeTables, flow, key, quiet } from '../dataplane/fakes.ts';

const encryption = { scope: 'inter-node', reason: Reason.ENCRYPTION, detail: 'ipsec' } as const;
const gate = { scope: 'node', reason: Reason.FEATURE_GATE, detail: 'off' } as const;
const web = { pod: { namespace: 'a', name: 'web' }, reason: Reason.BANDWIDTH, detail: 'limit' };

describe('exclusions', () => {
  test('sources are put together; the first that speaks of a thing is told', () => {
    const states: ExclusionState[] = [];
    const exclusions = new Exclusions((state) => states.push(state));
    const first = exclusions.source('first');
    const second = exclusions.source('second');
    second({ node: [encryption], pods: [web] });
    expect(states[0]).toMatchObject({ sameNode: undefined, interNode: encryption, all: [encryption] });
    first({ node: [gate], pods: [{ ...web, detail: 'other' }] });
    expect(states[1]).toMatchObject({ sameNode: gate, interNode: gate, all: [gate, encryption] });
    expect(states[1]?.pods.get('a/web')?.detail).toBe('other');
    first({ node: [gate], pods: [{ ...web, detail: 'other' }] });
    expect(states).toHaveLength(2);
    first({ node: [], pods: [] });
    expect(exclusions.state).toMatchObject({ sameNode: undefined, interNode: encryption });
    expect(exclusions.state.pods.get('a/web')?.detail).toBe('limit');
  });

  test('traffic within the node alone', () => {
    const exclusions = new Exclusions(() => undefined);
    const sameNode = { ...gate, scope: 'same-node' } as const;
    exclusions.source('x')({ node: [sameNode], pods: [] });
    expect(exclusions.state).toMatchObject({ sameNode, interNode: undefined });
  });

  test('complete once all sources are known and have spoken, also if they exclude nothing', () => {
    const complete: boolean[] = [];
    const exclusions = new Exclusions((state) => complete.push(state.complete));
    exclusions.source('first')(NOTHING_EXCLUDED);
    const second = exclusions.source('second');
    exclusions.allKnown();
    second(NOTHING_EXCLUDED);
    second(NOTHING_EXCLUDED);
    expect(complete).toEqual([false, false, true]);
  });
});

describe('feature gates', () => {
  test('defaults, toggles, and names that count more', () => {
    expect(resolveGates({})).toEqual(
      Object.fromEntries(Object.entries(FEATURE_GATES).map(([name, value]) => [name, value.default])),
    );
    expect(resolveGates({ AllAlpha: true, FlowExport: false })).toMatchObject({ XMasq: true, FlowExport: false });
    expect(resolveGates({ AllBeta: false })).toMatchObject({ XMasq: false, SameNode: false });
  });

  test('an unknown name is an error that lists the known ones', () => {
    const text = 'nodeName: n\nclusterState: {file: /x}\nfeatureGates: {Xmasq: true}\n';
    expect(() => parseConfig('x.yaml', text)).toThrow(/x.yaml:3: featureGates.*Xmasq.*known here: XMasq, SameNode/);
  });

  test('what they exclude', () => {
    expect(gateExclusions(resolveGates({ XMasq: true }))).toEqual([]);
    expect(gateExclusions(resolveGates({}))).toMatchObject([{ scope: 'node', reason: Reason.FEATURE_GATE }]);
    expect(gateExclusions(resolveGates({ XMasq: true, SameNode: false }))).toMatchObject([{ scope: 'same-node' }]);
  });
});

describe('WireGuard’s device', () => {
  const others = ['lo', 'eth0', 'antrea-gw0'].map((name, index) => ({ name, ifindex: index + 1 }));
  const wireGuard = (ifindex: number) => [...others, { name: 'antrea-wg0', ifindex }];
  let said: ExclusionList | undefined;
  const excluded = (): boolean => {
    if (said?.node.length === 0) return false;
    expect(said).toMatchObject({ node: [{ scope: 'inter-node', reason: Reason.ENCRYPTION }], pods: [] });
    return true;
  };
  let notes: Notes;
  beforeEach(() => {
    notes = fakeNotes();
  });
  const device = (readsConfiguration = true): WireGuardDevice =>
    new WireGuardDevice((list) => (said = list), notes, { readsConfiguration });

  test('that is a leftover is so for the next start, too, unless that one reads no configuration', () => {
    const before = device();
    before.look(wireGuard(9));
    expect(excluded()).toBe(true);
    before.configured(false);
    device().look(wireGuard(9));
    expect(excluded()).toBe(false);
    device().look(wireGuard(10));
    expect(excluded()).toBe(true);
    device(false).look(wireGuard(9));
    expect(excluded()).toBe(true);
    device().look(wireGuard(9));
    expect(excluded()).toBe(true);
  });

  test('that is in use again is no leftover for the next start', () => {
    const before = device();
    before.look(wireGuard(9));
    before.configured(false);
    before.configured(true);
    device().look(wireGuard(9));
    expect(excluded()).toBe(true);
  });

  test('excludes traffic between nodes while it is there and no configuration is read', () => {
    const one = device();
    one.look(others);
    expect(excluded()).toBe(false);
    one.look(wireGuard(9));
    expect(excluded()).toBe(true);
    one.look(others);
    expect(excluded()).toBe(false);
  });

  test('that is a leftover by the configuration excludes nothing, also while the API is away', () => {
    const one = device();
    one.look(wireGuard(9));
    one.configured(false);
    expect(excluded()).toBe(false);
    one.look(wireGuard(9));
    expect(excluded()).toBe(false);
  });

  test('that appears after the configuration was read last excludes', () => {
    const one = device();
    one.look(others);
    one.configured(false);
    one.look(wireGuard(9));
    expect(excluded()).toBe(true);
    one.configured(false);
    expect(excluded()).toBe(false);
    one.look(wireGuard(10));
    expect(excluded()).toBe(true);
  });

  test('excludes when WireGuard is switched on again', () => {
    const one = device();
    one.look(wireGuard(9));
    one.configured(false);
    one.configured(true);
    expect(excluded()).toBe(true);
  });
});

describe('the node’s exclusions', () => {
  test('reach the programs, and end what is fast', async () => {
    const tables = new FakeTables();
    const clock = new FakeClock();
    const config = new ConfigMap(tables.config, clock.now);
    const node = new NodeExclusion({ config, tables, log: quiet, now: clock.now });
    tables.flows.set(key, flow({}));
    await node.apply({ sameNode: undefined, interNode: undefined, complete: true });
    expect(tables.flows.size).toBe(1);
    await node.apply({ sameNode: undefined, interNode: encryption, complete: true });
    expect(config.get()).toMatchObject({ excludedLocal: 0, excludedRemote: Reason.ENCRYPTION });
    expect(tables.flows.size).toBe(0);
    await node.apply({ sameNode: undefined, interNode: undefined, complete: false });
    expect(config.get().excludedRemote).toBe(Reason.ENCRYPTION);
    tables.flows.set(key, flow({}));
    await node.apply({ sameNode: undefined, interNode: encryption, complete: true });
    expect(tables.flows.size).toBe(1);
    await node.apply({ sameNode: undefined, interNode: undefined, complete: true });
    expect(config.get()).toMatchObject({ excludedLocal: 0, excludedRemote: 0 });
    node.pause(Reason.FLOW_RESTORE);
    expect(config.get().paused).toBe(Reason.FLOW_RESTORE);
  });
});
