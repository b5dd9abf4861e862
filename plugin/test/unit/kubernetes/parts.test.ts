import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { nodeObject } from '../../../../e2e/double/objects.ts';
import { parseRetryAfter } from '../../../src/kubernetes/api-error.ts';
import { Backoff } from '../../../src/kubernetes/backoff.ts';
import { Claims } from '../../../src/kubernetes/claims.ts';
import { apiClient } from '../../../src/kubernetes/index.ts';
import { LineSplitter } from '../../../src/kubernetes/lines.ts';
import { ListScanner } from '../../../src/kubernetes/list-scanner.ts';
import { NodeBook } from '../../../src/kubernetes/node-book.ts';
import { CAPABILITY_ANNOTATION, nodeView, parseCapability } from '../../../src/kubernetes/node-view.ts';
import type { ClusterNode } from '../../../src/state/cluster.ts';
import { Harness } from './harness.ts';

describe('a Node as Antrea sees it', () => {
  const TRANSPORT = 'node.antrea.io/transport-addresses';
  const plain = nodeObject({ name: 'n', address: '10.0.0.1', podCIDR: '10.1.0.0/24' });
  const withAddresses = (...addresses: readonly { type: string; address: string }[]) => ({
    ...plain,
    status: { addresses },
  });
  const withAnnotation = (value: string) => ({
    ...plain,
    metadata: { ...plain.metadata, annotations: { [TRANSPORT]: value } },
  });

  test.each([
    ['InternalIP', plain, ['10.0.0.1']],
    ['the annotation before all', withAnnotation('fd00:0::1, 192.168.0.7'), ['192.168.0.7', 'fd00::1']],
    ['the annotation, though it has no IPv4', withAnnotation('fd00::1'), ['fd00::1']],
    ['none that a node can have', withAnnotation('fe80::1, 127.0.0.1, x'), undefined],
    ['ExternalIP as the last', withAddresses({ type: 'ExternalIP', address: '1.2.3.4' }), ['1.2.3.4']],
    [
      'InternalIPs before ExternalIPs, IPv4 before IPv6',
      withAddresses(
        { type: 'ExternalIP', address: '1.2.3.4' },
        { type: 'InternalIP', address: 'fd00::1' },
        { type: 'InternalIP', address: '10.0.0.2' },
      ),
      ['10.0.0.2', 'fd00::1'],
    ],
    ['no address', withAddresses({ type: 'Hostname', address: 'n' }), undefined],
    ['no status', { metadata: { name: 'n' } }, undefined],
  ])('addresses: %s', (_what, object, addresses) => expect(nodeView(object)?.node.addresses).toEqual(addresses));

  test.each([
    ['podCIDRs', { podCIDR: '10.9.0.0/24', podCIDRs: ['10.1.0.0/24'] }, ['10.1.0.0/24']],
    ['podCIDR without podCIDRs', { podCIDR: '10.9.0.0/24' }, ['10.9.0.0/24']],
    ['dual stack', { podCIDRs: ['fd00:0::/64', '10.1.0.0/24'] }, ['10.1.0.0/24', 'fd00::/64']],
    ['one of each family', { podCIDRs: ['10.1.0.0/24', '10.2.0.0/24'] }, ['10.1.0.0/24']],
    ['none yet', {}, []],
    ['host bits', { podCIDRs: ['10.1.2.3/24'] }, ['10.1.2.0/24']],
    ['too wide', { podCIDRs: ['0.0.0.0/0'] }, []],
  ])('pod CIDRs: %s', (_what, spec, expected) => expect(nodeView({ ...plain, spec })?.node.podCIDRs).toEqual(expected));

  test.each([
    ['{"protocol":1,"incarnation":"a-b"}', { protocol: 1, incarnation: 'a-b' }],
    ['{"protocol":2,"incarnation":"x","later":true}', { protocol: 2, incarnation: 'x' }],
    ['{"protocol":0,"incarnation":"x"}', undefined],
    ['{"protocol":256,"incarnation":"x"}', undefined],
    ['{"protocol":"1","incarnation":"x"}', undefined],
    ['{"protocol":1,"incarnation":""}', undefined],
    ['{"protocol":1,"incarnation":"a b"}', undefined],
    ['{"protocol":1}', undefined],
    ['null', undefined],
    ['', undefined],
    ['yes', undefined],
  ])('capability %s', (text, expected) => expect(parseCapability(text)).toEqual(expected));

  test('a capability that is not understood is none, but is seen', () => {
    const object = { ...plain, metadata: { ...plain.metadata, annotations: { [CAPABILITY_ANNOTATION]: 'v9' } } };
    expect(nodeView(object)).toEqual({
      node: { name: 'n', addresses: ['10.0.0.1'], podCIDRs: ['10.1.0.0/24'] },
      capabilityText: 'v9',
    });
  });
});

describe('claims to addresses', () => {
  const node = (name: string, address: string, ...podCIDRs: readonly string[]): ClusterNode => ({
    name,
    addresses: address.split(','),
    podCIDRs,
  });

  test.each([
    ['the same prefix', node('b', '10.0.0.2', '10.1.0.0/24'), 'a'],
    ['a wider prefix', node('b', '10.0.0.2', '10.1.0.0/16'), 'a'],
    ['a narrower prefix', node('b', '10.0.0.2', '10.1.0.128/25'), 'a'],
    ['the same address', node('b', '10.0.0.1', '10.2.0.0/24'), 'a'],
    ['an address of a pod', node('b', '10.1.0.7', '10.2.0.0/24'), 'a'],
    ['pods with the address of a node', node('b', '10.0.1.1', '10.0.0.0/24'), 'a'],
    ['its own address among its pods', node('b', '10.5.0.1', '10.5.0.0/24'), 'b'],
    ['the same IPv6 prefix', node('b', '10.0.0.2', 'fd00:1::/64'), 'a'],
    ['the same second address', node('b', '10.0.0.2,fd00::1'), 'a'],
    ['an IPv6 address of a pod', node('b', 'fd00:1::7'), 'a'],
    ['IPv6 neighbours', node('b', '10.0.0.2,fd00::2', 'fd00:1:0:1::/64'), undefined],
    ['neighbours', node('b', '10.0.0.2', '10.1.1.0/24', '10.0.255.0/24'), undefined],
  ])('%s', (_what, other, owner) => {
    const claims = new Claims();
    const first = node('a', '10.0.0.1,fd00::1', '10.1.0.0/24', 'fd00:1::/64');
    expect(claims.claim(first)).toBeUndefined();
    expect(claims.claim(other)).toBe(owner);
    claims.release(other);
    if (owner !== undefined) expect(claims.claim(other)).toBe(owner);
    claims.release(first);
    if (owner === 'a') expect(claims.claim(other)).toBeUndefined();
  });

  test('whatever changes, told nodes never overlap, and none is left out without need', () => {
    const change = fc.record({
      name: fc.constantFrom('a', 'b', 'c', 'd', 'own'),
      address: fc.integer({ min: 1, max: 6 }),
      prefix: fc.constantFrom('10.0.0.0/24', '10.0.0.0/16', '10.0.1.0/24', '10.1.0.0/24', '10.0.0.128/25'),
      gone: fc.boolean(),
      take: fc.boolean(),
      undo: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(change, { maxLength: 30 }), (changes) => {
        const book = new NodeBook();
        const told = new Map<string, ClusterNode>();
        const said = new Map<string, ClusterNode>();
        const take = (undo: boolean): void => {
          const taken = book.take('own');
          if (undo) {
            taken.undo();
            return;
          }
          for (const { name } of taken.diff.removed) told.delete(name);
          for (const { before, after } of taken.diff.changed) {
            expect(told.get(before.name)).toEqual(before);
            told.set(after.name, after);
          }
          for (const added of taken.diff.added) told.set(added.name, added);
        };
        for (const { name, address, prefix, gone, take: now, undo } of changes) {
          const next = gone ? undefined : node(name, `192.168.0.${address}`, prefix);
          book.put(name, next);
          if (next === undefined) said.delete(name);
          else said.set(name, next);
          if (now) take(undo);
        }
        take(false);
        const all = new Claims();
        for (const one of told.values()) {
          expect(all.claim(one)).toBeUndefined();
          expect(said.get(one.name)).toEqual(one);
        }
        for (const [name, one] of said) if (!told.has(name)) expect(all.claim(one)).toBeDefined();
      }),
    );
  });
});

test('lines are cut wherever the chunks end, and have a limit', () => {
  const text = 'one\nzwölf\n\nlast\n';
  const bytes = Buffer.from(text);
  for (let cut = 0; cut <= bytes.length; cut++) {
    const lines: string[] = [];
    const splitter = new LineSplitter(16);
    for (const part of [bytes.subarray(0, cut), bytes.subarray(cut)]) splitter.push(part, (line) => lines.push(line));
    expect(lines).toEqual(['one', 'zwölf', 'last']);
  }
  const splitter = new LineSplitter(4);
  expect(() => splitter.push(Buffer.from('12345'), () => undefined)).toThrow(RangeError);
});

describe('a list is read item by item', () => {
  test('wherever the chunks end', () => {
    const list = {
      kind: 'List',
      metadata: { resourceVersion: '5', continue: 'items":[{' },
      items: [{ a: '}]"\\\\', b: [{ items: [{}] }] }, {}, { name: 'ä€😀', nested: { items: ['x', { y: '[' }] } }],
      after: { items: [{ not: 'one' }] },
    };
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1 }), fc.boolean(), (sizes, pretty) => {
        const bytes = Buffer.from(JSON.stringify(list, undefined, pretty ? 2 : undefined));
        const items: unknown[] = [];
        const scanner = new ListScanner((item) => items.push(item));
        for (let at = 0, n = 0; at < bytes.length; n++) {
          const size = sizes[n % sizes.length] ?? 1;
          scanner.push(bytes.subarray(at, at + size));
          at += size;
        }
        expect(items).toEqual(list.items);
        expect(scanner.end()).toEqual({ ...list, items: [] });
      }),
    );
  });

  test.each(['', '{"items":[{"a":1}', '{"metadata":{}', '<html></html>'])('%j is no list', (text) => {
    const scanner = new ListScanner(() => undefined);
    scanner.push(Buffer.from(text));
    expect(() => scanner.end()).toThrow(SyntaxError);
  });

  test('what is too large is refused', () => {
    const large = Buffer.alloc(5_000_000, 'x');
    const item = new ListScanner(() => undefined);
    item.push(Buffer.from('{"items":[{"a":"'));
    expect(() => item.push(large)).toThrow(RangeError);
    const rest = new ListScanner(() => undefined);
    rest.push(Buffer.from('{"a":"'));
    expect(() => rest.push(large)).toThrow(RangeError);
  });
});

test('pauses grow to their limit, and half of each is random', () => {
  for (const [random, expected] of [
    [0, [250, 500, 1000, 15_000, 15_000]],
    [1, [500, 1000, 2000, 30_000, 30_000]],
  ] as const) {
    const backoff = new Backoff({ random: () => random });
    const pauses = Array.from({ length: 40 }, () => backoff.next());
    expect([0, 1, 2, 10, 39].map((index) => pauses[index])).toEqual(expected);
    backoff.reset();
    expect(backoff.next()).toBe(expected[0]);
  }
});

test.each([
  [undefined, undefined],
  ['3', 3000],
  ['0', 0],
  ['99999', 120_000],
  ['soon', undefined],
  ['Thu, 01 Jan 1970 00:00:10 GMT', 5000],
  ['Thu, 01 Jan 1970 00:00:01 GMT', 0],
])('Retry-After %s', (header, expected) => expect(parseRetryAfter(header, 5000)).toBe(expected));

describe('access', () => {
  let harness: Harness;
  let directory: string;
  const signal = new AbortController().signal;

  beforeEach(() => {
    harness = new Harness();
    directory = mkdtempSync(join(tmpdir(), 'xmasq-kubeconfig-'));
    harness.add(() => rmSync(directory, { recursive: true }));
  });
  afterEach(() => harness.close());

  test('by a kubeconfig, which is read again when it changes', async () => {
    const double = await harness.double();
    const file = join(directory, 'config');
    const write = (token: string, ca: string): void => {
      const cluster = { server: double.url, 'certificate-authority-data': Buffer.from(ca).toString('base64') };
      const config = {
        clusters: [{ name: 'c', cluster }],
        users: [{ name: 'u', user: { token } }],
        contexts: [{ name: 'x', context: { cluster: 'c', user: 'u' } }],
        'current-context': 'x',
      };
      writeFileSync(file, JSON.stringify(config));
    };
    write('token-1', double.ca);
    const api = apiClient({ kubeconfig: file });
    harness.add(() => api.close());
    const list = () => api.call('/api/v1/nodes', { signal });
    await expect(list()).resolves.toMatchObject({ items: [] });
    double.token = 'token-2';
    await expect(list()).rejects.toMatchObject({ status: 401 });
    await double.rotateIdentity();
    write('token-2', double.ca);
    await expect(list()).resolves.toMatchObject({ items: [] });
  });

  test('without a service account says what is missing', async () => {
    const { KUBERNETES_SERVICE_HOST: host } = process.env;
    delete process.env['KUBERNETES_SERVICE_HOST'];
    harness.add(() => {
      if (host !== undefined) process.env['KUBERNETES_SERVICE_HOST'] = host;
    });
    await expect(apiClient({}).call('/api', { signal })).rejects.toThrow(
      /serviceaccount.(?:token|ca\.crt)\W.*or configure a kubeconfig/,
    );
  });

  test('a server that another authority has signed is not talked to', async () => {
    const [double, other] = [await harness.double(), await harness.double()];
    const { api, directory: account } = harness.client(double);
    writeFileSync(join(account, 'ca.crt'), other.ca);
    await expect(api.call('/api/v1/nodes', { signal })).rejects.toMatchObject({
      code: expect.stringMatching(/CERT|VERIFY/) as unknown,
    });
    expect(double.journal).toEqual([]);
  });
});
