import { describe, expect, test } from '@jest/globals';
import { diffCluster, isEmptyDiff } from '../../../src/state/cluster-diff.ts';
import { parseCluster } from '../../../src/state/cluster-parse.ts';
import { oneOfEach, podCidr, rangeOf, transportAddress } from '../../../src/state/addresses.ts';

const NODES = `nodes:
  - name: node-b
    address: 192.168.77.2
    podCIDRs: [10.10.3.0/24, 10.10.2.0/24]
    capability: { protocol: 1, incarnation: boot-7 }
  - name: node-a
    address: 192.168.77.1
    podCIDRs: [10.10.1.0/24]
`;

function failure(text: string, own = 'node-a'): string {
  try {
    parseCluster('n.yaml', text, own);
  } catch (error) {
    return (error as Error).message;
  }
  throw new Error('no error');
}

describe('static cluster state', () => {
  test('is sorted, knows the own node, leaves absent capabilities out', () => {
    const state = parseCluster('n.yaml', NODES, 'node-a');
    expect(state.nodes.map((node) => node.name)).toEqual(['node-a', 'node-b']);
    expect(state.own).toEqual({ name: 'node-a', addresses: ['192.168.77.1'], podCIDRs: ['10.10.1.0/24'] });
    expect(state.nodes[1]).toEqual({
      name: 'node-b',
      addresses: ['192.168.77.2'],
      podCIDRs: ['10.10.2.0/24', '10.10.3.0/24'],
      capability: { protocol: 1, incarnation: 'boot-7' },
    });
  });

  test.each([
    [
      'address: 192.168.77.1',
      'address: 192.168.77.2',
      'n.yaml:7: nodes[1].address: is 192.168.77.2, as is nodes[0].address',
    ],
    ['name: node-a', 'name: node-b', 'n.yaml:6: nodes[1].name: is node-b, as is nodes[0].name'],
    [
      '10.10.1.0/24',
      '10.10.2.128/25',
      'n.yaml:8: nodes[1].podCIDRs[0]: is 10.10.2.128/25, which overlaps 10.10.2.0/24 of node-b; expected no overlaps',
    ],
    [
      '10.10.1.0/24',
      '10.8.0.0/13',
      'n.yaml:4: nodes[0].podCIDRs[1]: is 10.10.2.0/24, which overlaps 10.8.0.0/13 of node-a',
    ],
    [
      '10.10.1.0/24',
      '192.168.0.0/16',
      'n.yaml:3: nodes[0].address: is 192.168.77.2, which overlaps 192.168.0.0/16 of node-a',
    ],
    [
      '10.10.1.0/24',
      '10.10.1.1/24',
      'n.yaml:8: nodes[1].podCIDRs[0]: is "10.10.1.1/24"; is not as usual, or has host bits; expected 10.10.1.0/24',
    ],
    ['10.10.1.0/24', '10.10.1.0', 'nodes[1].podCIDRs[0]: is "10.10.1.0"; expected an IP prefix'],
    ['10.10.1.0/24', '0.0.0.0/0', 'expected an IP prefix of /8 or longer'],
    ['10.10.1.0/24', 'fd00::1/64', 'expected fd00::/64'],
    ['10.10.1.0/24', 'FD00::/64', 'expected fd00::/64'],
    ['10.10.1.0/24', 'fd00::/129', 'expected an IP prefix of /8 or longer'],
    ['address: 192.168.77.1', 'address: fe80::1', 'expected a unicast address'],
    ['address: 192.168.77.1', 'addresses: [10.0.0.1, 10.0.0.2]', 'expected one or two addresses, one of each family'],
    ['address: 192.168.77.1', 'addresses: []', 'expected one or two addresses, one of each family'],
    [
      'address: 192.168.77.1',
      'addresses: [192.168.77.2]',
      'nodes[1].addresses: is 192.168.77.2, as is nodes[0].address',
    ],
    [
      'address: 192.168.77.1',
      'address: 192.168.77.1\n    addresses: [fd00::1]',
      'nodes[1]: has address and addresses; expected one of the two',
    ],
    ['nodes:', 'trafficEncapMode: networkPolicyOnly\nnodes:', 'expected one of encap, noEncap, hybrid'],
    [
      'address: 192.168.77.1',
      'address: 224.0.0.1',
      'n.yaml:7: nodes[1].address: is "224.0.0.1"; expected a unicast address',
    ],
    ['address: 192.168.77.1', 'address: node-a', 'nodes[1].address: is "node-a"; expected a unicast address'],
    ['    address: 192.168.77.1\n', '', 'n.yaml:6: nodes[1]: lacks a transport address; expected address or addresses'],
    [
      'protocol: 1',
      'protocol: 0',
      'n.yaml:5: nodes[0].capability.protocol: is 0; expected a whole number from 1 to 255',
    ],
    [
      ', incarnation: boot-7',
      '',
      'nodes[0].capability.incarnation: is missing; expected 1 to 128 printable characters',
    ],
    [
      'podCIDRs: [10.10.1.0/24]',
      'podCidrs: []',
      'n.yaml:8: nodes[1].podCidrs: is not a known key; known here: name, address, addresses, podCIDRs',
    ],
  ])('with %j -> %j is wrong', (from, to, message) => {
    const text = NODES.replace(from, to);
    expect(text).not.toBe(NODES);
    expect(failure(text)).toContain(message);
  });

  test('must have this node', () => {
    expect(failure(NODES, 'node-c')).toBe(
      'n.yaml:1: nodes: lack this node, node-c; expected an entry with that name (nodeName of the configuration)',
    );
    expect(failure('')).toBe('n.yaml: nodes: is missing; expected a list of nodes');
  });

  test('bounds the number of nodes', () => {
    const nodes = Array.from({ length: 8193 }, (_, n) => ({ name: `n${n}`, address: `20.0.${n >> 8}.${n & 255}` }));
    expect(failure(JSON.stringify({ nodes }))).toContain('nodes: is a list; expected at most 8192 nodes');
  });

  test('takes 8192 nodes', () => {
    const nodes = Array.from({ length: 8192 }, (_, n) => ({
      name: `n${n}`,
      address: `20.0.${n >> 8}.${n & 255}`,
      podCIDRs: [`10.${n >> 8}.${n & 255}.0/24`],
    }));
    expect(parseCluster('n.json', JSON.stringify({ nodes }), 'n5').nodes.length).toBe(8192);
  });
});

test('the difference of two states', () => {
  const before = parseCluster('n', NODES, 'node-a');
  const after = parseCluster(
    'n',
    `${NODES.replace('boot-7', 'boot-8')}  - { name: node-c, address: 192.168.77.3 }\n`,
    'node-a',
  );
  expect(isEmptyDiff(diffCluster(before, before))).toBe(true);
  const diff = diffCluster(before, after);
  expect(diff.added.map((node) => node.name)).toEqual(['node-c']);
  expect(diff.changed.map(({ before: b, after: a }) => [b.capability?.incarnation, a.capability?.incarnation])).toEqual(
    [['boot-7', 'boot-8']],
  );
  expect(diffCluster(after, before).removed.map((node) => node.name)).toEqual(['node-c']);
  expect(diffCluster(undefined, before).added.length).toBe(2);
});

test('dual stack, and how pod traffic goes', () => {
  const text = NODES.replace('address: 192.168.77.1', 'addresses: [FD00:0::1, 192.168.77.1]').replace(
    '[10.10.1.0/24]',
    "['fd00:10:1::/64', 10.10.1.0/24]",
  );
  const { own, trafficEncapMode } = parseCluster('n', text, 'node-a');
  expect(own).toEqual({
    name: 'node-a',
    addresses: ['192.168.77.1', 'fd00::1'],
    podCIDRs: ['10.10.1.0/24', 'fd00:10:1::/64'],
  });
  expect(trafficEncapMode).toBe('encap');
  expect(parseCluster('n', `trafficEncapMode: hybrid\n${text}`, 'node-a').trafficEncapMode).toBe('hybrid');
});

test('addresses and prefixes', () => {
  expect(transportAddress('FD00:0::1')).toBe('fd00::1');
  for (const text of [
    '0.1.2.3',
    '127.0.0.1',
    '224.0.0.1',
    '1.2.3',
    '::',
    '::1',
    'fe80::1',
    'ff02::1',
    '::ffff:1.2.3.4',
  ]) {
    expect(transportAddress(text)).toBeUndefined();
  }
  for (const text of ['10.0.0.0/8', '255.255.255.255/32', 'fd00::/8', 'fd00:1:2::/64'])
    expect(podCidr(text)).toBe(text);
  for (const text of ['10.0.0.0/33', '10.0.0.0/', '10.0.0/8', '10.0.0.0/08', '10.0.0.0', '0.0.0.0/0', 'fd00::/7']) {
    expect(podCidr(text)).toBeUndefined();
  }
  expect(oneOfEach(['fd00::1', '10.0.0.1', '10.0.0.2', 'fd00::2'])).toEqual(['10.0.0.1', 'fd00::1']);
  expect(rangeOf('10.1.2.3/8')).toEqual({ first: 0xffff_0a00_0000n, last: 0xffff_0aff_ffffn });
  expect(rangeOf('::5')).toEqual({ first: 5n, last: 5n });
  expect(() => rangeOf('x')).toThrow(RangeError);
});
