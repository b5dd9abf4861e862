/** The double of the API server does what the real one does, where the sidecar relies on it. */
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import type { ApiDouble } from '../../../../e2e/double/api-double.ts';
import { numberedNode, podObject } from '../../../../e2e/double/objects.ts';
import { mergePatch } from '../../../../e2e/double/store.ts';
import type { ApiClient } from '../../../src/kubernetes/api-client.ts';
import type { KubeList, KubeObject, WatchEvent } from '../../../src/kubernetes/objects.ts';
import { Harness, sleep, until } from './harness.ts';

const NODES = '/api/v1/nodes';
const PODS = '/api/v1/pods';
const { signal } = new AbortController();

let harness: Harness;
let double: ApiDouble;
let api: ApiClient;

beforeEach(async () => {
  harness = new Harness();
  double = await harness.double();
  ({ api } = harness.client(double));
});
afterEach(() => harness.close());

type List = KubeList & { readonly items: readonly KubeObject[] };

async function list(path: string, query: Readonly<Record<string, string>> = {}): Promise<List> {
  return (await api.call(path, { query, signal })) as List;
}

/** Collects the events of a watch. */
function watch(
  path: string,
  query: Readonly<Record<string, string>>,
): { readonly events: WatchEvent[]; readonly ended: Promise<void> } {
  const events: WatchEvent[] = [];
  const stop = new AbortController();
  harness.add(() => stop.abort());
  const ended = api.watch(path, {
    query,
    opened: () => undefined,
    event: (event) => events.push(event),
    idleMs: 60_000,
    signal: stop.signal,
  });
  ended.catch(() => undefined);
  return { events, ended };
}

const seen = (events: readonly WatchEvent[]): string[] =>
  events.map(({ type, object }) => `${type} ${object.metadata?.name ?? ''}`.trim());

describe('lists', () => {
  test('show the state at their first page, and a watch from their version misses nothing', async () => {
    for (let n = 1; n <= 5; n++) double.store.put(NODES, numberedNode(n));
    const first = await list(NODES, { limit: '2' });
    double.store.delete(NODES, 'node-00005');
    double.store.put(NODES, numberedNode(6));
    const second = await list(NODES, { limit: '2', continue: first.metadata?.continue ?? '' });
    const third = await list(NODES, { limit: '2', continue: second.metadata?.continue ?? '' });
    expect([first, second, third].flatMap(({ items }) => items).map(({ metadata }) => metadata?.name)).toEqual(
      [1, 2, 3, 4, 5].map((n) => `node-0000${n}`),
    );
    expect(third.metadata?.continue).toBeUndefined();
    const { events } = watch(NODES, { resourceVersion: third.metadata?.resourceVersion ?? '' });
    await until(() => events.length === 2);
    expect(seen(events)).toEqual(['DELETED node-00005', 'ADDED node-00006']);
  });

  test('tokens and versions expire', async () => {
    for (let n = 1; n <= 3; n++) double.store.put(NODES, numberedNode(n));
    const { metadata } = await list(NODES, { limit: '1' });
    double.store.put(NODES, numberedNode(4));
    double.expire();
    await expect(list(NODES, { continue: metadata?.continue ?? '' })).rejects.toMatchObject({ status: 410 });
    const { events, ended } = watch(NODES, { resourceVersion: metadata?.resourceVersion ?? '' });
    await ended;
    expect(events).toMatchObject([{ type: 'ERROR', object: { code: 410 } }]);
  });
});

describe('watches', () => {
  test('show objects that enter or leave their selection as new or gone', async () => {
    const { events } = watch(PODS, { fieldSelector: 'spec.nodeName=a', labelSelector: 'x=1' });
    await until(() => double.watchCount === 1);
    const put = (nodeName: string, x: string) =>
      double.store.put(PODS, podObject({ name: 'p', nodeName, labels: { x } }));
    put('b', '1');
    put('a', '1');
    put('a', '1');
    put('a', '2');
    put('a', '1');
    double.store.delete(PODS, 'default/p');
    await until(() => events.length === 5);
    expect(seen(events)).toEqual(['ADDED p', 'MODIFIED p', 'DELETED p', 'ADDED p', 'DELETED p']);
    const versions = events.map(({ object }) => Number(object.metadata?.resourceVersion));
    expect(versions).toEqual([...versions].sort((a, b) => a - b));
  });

  test('end at their time, and have bookmarks only when asked for', async () => {
    const other = await harness.double({ bookmarkMs: 10 });
    ({ api } = harness.client(other));
    const plain = watch(NODES, {});
    const asked = watch(NODES, { allowWatchBookmarks: 'true', timeoutSeconds: '1' });
    await sleep(100);
    expect(plain.events).toEqual([]);
    expect(asked.events.at(-1)).toMatchObject({
      type: 'BOOKMARK',
      object: { metadata: { resourceVersion: `${other.store.revision}` } },
    });
    await asked.ended;
  });
});

describe('writes', () => {
  const patch = (body: object, contentType = 'application/merge-patch+json') =>
    api.call(`${NODES}/node-00001`, { method: 'PATCH', contentType, body, signal });

  test('a merge patch changes what it names, and the version; nothing, where nothing changes', async () => {
    const before = double.store.put(NODES, numberedNode(1, { annotations: { a: '1', b: '2' } }));
    await patch({ metadata: { annotations: { a: null, c: '3' } } });
    const after = double.store.get(NODES, 'node-00001');
    expect(after?.metadata.annotations).toEqual({ b: '2', c: '3' });
    expect(after?.metadata.uid).toBe(before.metadata.uid);
    expect(Number(after?.metadata.resourceVersion)).toBeGreaterThan(Number(before.metadata.resourceVersion));
    await patch({ metadata: { annotations: { c: '3' } } });
    expect(double.store.get(NODES, 'node-00001')).toBe(after);
  });

  test('a patch for another version is a conflict, of another kind is refused, of nothing is not found', async () => {
    await expect(patch({})).rejects.toMatchObject({ status: 404 });
    double.store.put(NODES, numberedNode(1));
    await expect(patch({ metadata: { resourceVersion: '7' }, x: 1 })).rejects.toMatchObject({ status: 409 });
    await expect(patch({}, 'application/json-patch+json')).rejects.toMatchObject({ status: 415 });
  });

  test.each([
    [{ a: 'b' }, { a: 'c' }, { a: 'c' }],
    [{ a: 'b', b: 'c' }, { a: null }, { b: 'c' }],
    [{ a: ['b'] }, { a: 'c' }, { a: 'c' }],
    [{ a: { b: 'c' } }, { a: { b: 'd', c: null } }, { a: { b: 'd' } }],
    [['a'], { a: 1 }, { a: 1 }],
    [{}, { a: { bb: { ccc: null } } }, { a: { bb: {} } }],
  ])('RFC 7396: %j with %j', (target, change, expected) => expect(mergePatch(target, change)).toEqual(expected));
});

test('who has no token, or whose kind is not there, is refused', async () => {
  await expect(list('/apis/crd.antrea.io/v1alpha2/trafficcontrols')).rejects.toMatchObject({ status: 404 });
  double.token = 'another';
  await expect(list(NODES)).rejects.toMatchObject({ status: 401 });
});
