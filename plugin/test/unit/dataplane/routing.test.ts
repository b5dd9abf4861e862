import { beforeEach, describe, expect, test } from '@jest/globals';
import { ConfigMap } from '../../../src/dataplane/config-map.ts';
import { ConfigFlag } from '../../../src/dataplane/layout.ts';
import { isRouted, Routing } from '../../../src/dataplane/routing.ts';
import type { ClusterNode } from '../../../src/state/cluster.ts';
import { FakeClock, FakeTables, quiet } from './fakes.ts';

const OWN = [
  { address: '172.30.0.1', prefixLength: 24 },
  { address: 'fd30::1', prefixLength: 64 },
];
const FAMILIES = [4, 6] as const;
const node = (...addresses: string[]): ClusterNode => ({ name: 'n', addresses, podCIDRs: [] });

describe('which peers Antrea routes to', () => {
  test.each([
    ['encap', ['172.30.0.2', 'fd30::2'], [false, false]],
    ['noEncap', ['172.31.0.2'], [true, true]],
    ['hybrid', ['172.30.0.2'], [true, false]],
    ['hybrid', ['172.30.1.2'], [false, false]],
    ['hybrid', ['fd30::2'], [false, true]],
    ['hybrid', ['fd31::2'], [false, false]],
    ['hybrid', ['172.30.0.2', 'fd30::2'], [true, true]],
    ['hybrid', ['172.30.0.2', 'fd31::2'], [true, false]],
    ['hybrid', ['172.30.1.2', 'fd30::2'], [false, true]],
  ] as const)('%s %j: %p', (mode, addresses, routed) =>
    expect(FAMILIES.map((family) => isRouted(mode, OWN, node(...addresses), family))).toEqual(routed),
  );

  test('hybrid: no family that this node lacks', () => {
    expect(isRouted('hybrid', OWN.slice(0, 1), node('fd30::2'), 6)).toBe(false);
    expect(isRouted('hybrid', OWN.slice(0, 1), node('172.30.0.2', 'fd30::2'), 4)).toBe(true);
    expect(isRouted('hybrid', OWN.slice(0, 1), node('172.30.0.2', 'fd30::2'), 6)).toBe(false);
  });
});

describe('what the programs are told', () => {
  let config: ConfigMap;
  /** For a near node and for a far one; undefined: the peers were not told. */
  let answers: (readonly [boolean, boolean])[];
  let routing: Routing;
  beforeEach(() => {
    config = new ConfigMap(new FakeTables().config, new FakeClock().now);
    answers = [];
    const peers = {
      setRouting: (isDirect: (node: ClusterNode, family: 4 | 6) => boolean) =>
        void answers.push([isDirect(node('172.30.0.2'), 4), isDirect(node('172.31.0.2'), 4)]),
    };
    routing = new Routing(config, peers, quiet);
  });

  test('the mode, each time that it is another one', () => {
    routing.setMode('encap');
    expect([answers.pop(), config.has(ConfigFlag.DIRECT)]).toEqual([[false, false], false]);
    routing.setMode('noEncap');
    expect([answers.pop(), config.has(ConfigFlag.DIRECT)]).toEqual([[true, true], true]);
    routing.setMode('noEncap');
    expect(answers).toEqual([]);
    routing.setMode('encap');
    expect([answers.pop(), config.has(ConfigFlag.DIRECT)]).toEqual([[false, false], false]);
  });

  test('hybrid waits for the subnets and follows them; without an uplink the last ones count', () => {
    routing.setMode('hybrid');
    expect(answers).toEqual([]);
    routing.setSubnets(OWN);
    routing.setSubnets(OWN);
    routing.setSubnets([]);
    expect(answers).toEqual([[true, false]]);
    expect(config.has(ConfigFlag.DIRECT)).toBe(true);
    routing.setSubnets([{ address: '172.30.0.1', prefixLength: 15 }]);
    expect(answers.at(-1)).toEqual([true, true]);
  });
});
