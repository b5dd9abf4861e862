/** How sidecars are asked to leave, and the hook of the chart that asks them and waits. */
import { readFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import type { ApiDouble } from '../../../../e2e/double/api-double.ts';
import { numberedNode, podObject } from '../../../../e2e/double/objects.ts';
import { rightsOf } from '../../../../e2e/double/rights.ts';
import { uninstall } from '../../../src/agent/uninstall.ts';
import type { ApiClient } from '../../../src/kubernetes/api-client.ts';
import { parseAnswer, putAnswer, UninstallFlag } from '../../../src/kubernetes/uninstall.ts';
import { Harness, QUICK, quiet, until } from './harness.ts';

const NODES = '/api/v1/nodes';
const CONFIG_MAPS = '/api/v1/configmaps';
const NAMESPACE = 'kube-system';
const FLAG = { namespace: NAMESPACE, name: 'xmasq-uninstall' };
const CAPABILITY = 'node.xmasq.antrea.io/capability';
const ANSWER = 'node.xmasq.antrea.io/uninstall';

/** The rights that exist while the hook runs, without those of the sidecars. */
const hookRights = rightsOf(
  readFileSync(new URL('../../../../charts/golden/default.yaml', import.meta.url), 'utf8')
    .split('---\n')
    .filter((text) => text.includes('helm.sh/hook: pre-delete'))
    .join('---\n'),
);

let harness: Harness;
let double: ApiDouble;
let api: ApiClient;
let said: string[];

beforeEach(async () => {
  harness = new Harness();
  double = await harness.double();
  api = harness.client(double).api;
  said = [];
  double.store.put(CONFIG_MAPS, { metadata: FLAG });
});
afterEach(() => harness.close());

const nameOf = (n: number): string => numberedNode(n).metadata.name;
const annotationsOf = (n: number): object => double.store.get(NODES, nameOf(n))?.metadata.annotations ?? {};
const request = (): string =>
  (double.store.get(CONFIG_MAPS, `${NAMESPACE}/xmasq-uninstall`)?.['data'] as { request?: string } | undefined)
    ?.request ?? '';

/** A Node, and a pod of XMasq on it. */
function withSidecar(n: number): void {
  double.store.put(NODES, numberedNode(n, { annotations: { [CAPABILITY]: '{"protocol":3,"incarnation":"x"}' } }));
  const pod = { namespace: NAMESPACE, name: `xmasq-${n}`, nodeName: nameOf(n), labels: { app: 'xmasq' } };
  double.store.put('/api/v1/pods', podObject(pod));
}

function answer(n: number, error?: string): Promise<void> {
  const options = { api, signal: new AbortController().signal };
  return putAnswer(options, nameOf(n), { request: request(), ...(error !== undefined && { error }) });
}

function hook(timeoutMs: number): Promise<number> {
  return uninstall({ ...QUICK, api, namespace: NAMESPACE, timeoutMs, log: quiet, say: (line) => said.push(line) });
}

describe('the flag', () => {
  test('is unknown, clear, asked, clear, absent', async () => {
    const flag = new UninstallFlag({ ...QUICK, api, namespace: NAMESPACE, log: quiet });
    harness.add(() => flag.stop());
    expect(flag.state.kind).toBe('unknown');
    flag.start();
    const never = new AbortController().signal;
    const become = (kind: string): Promise<boolean> => flag.until((state) => state.kind === kind, never);
    expect(await become('clear')).toBe(true);
    double.store.put(CONFIG_MAPS, { metadata: FLAG, data: { request: 'one' } });
    expect(await become('asked')).toBe(true);
    expect(flag.state).toEqual({ kind: 'asked', request: 'one' });
    double.store.put(CONFIG_MAPS, { metadata: FLAG, data: { request: '' } });
    expect(await become('clear')).toBe(true);
    double.store.delete(CONFIG_MAPS, `${NAMESPACE}/xmasq-uninstall`);
    expect(await become('absent')).toBe(true);
    expect(await flag.until(() => false, AbortSignal.timeout(20))).toBe(false);
  });

  test('an answer that is not understood is none', () => {
    expect([undefined, '', '{', '{"request":1}'].map(parseAnswer)).toEqual([
      undefined,
      undefined,
      undefined,
      undefined,
    ]);
    expect(parseAnswer('{"request":"a","error":"b","more":1}')).toEqual({ request: 'a', error: 'b' });
  });
});

describe('the hook', () => {
  test('waits for all, with the rights of the chart, and leaves no annotation', async () => {
    for (let n = 1; n <= 20; n++) withSidecar(n);
    double.store.put(NODES, numberedNode(21));
    const waiting = hook(5000);
    await until(() => request() !== '');
    for (let n = 1; n <= 19; n++) await answer(n);
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(said.join()).not.toContain('20 of 20');
    await answer(20);
    double.rights = hookRights;
    expect(await waiting).toBe(20);
    expect(said.at(-1)).toBe('20 of 20 nodes are clean');
    for (let n = 1; n <= 21; n++) expect(annotationsOf(n)).toEqual({});
  });

  test('may do what it does, from the beginning, and needs all of it', async () => {
    const used = new Set<string>();
    double.rights = (deed) => {
      used.add(`${deed.verb} ${deed.resource}`);
      return hookRights(deed);
    };
    withSidecar(1);
    await expect(hook(300)).rejects.toThrow('not removed from 1 of 1 nodes within 0.3 s');
    double.store.put(NODES, numberedNode(1, { annotations: { [ANSWER]: '{"request":"earlier"}' } }));
    double.store.delete('/api/v1/pods', `${NAMESPACE}/xmasq-1`);
    expect(await hook(2000)).toBe(0);
    expect([...used].sort()).toEqual(['list nodes', 'list pods', 'patch configmaps', 'patch nodes', 'watch nodes']);
    expect(double.journal.filter(({ status }) => status === 403)).toEqual([]);
  });

  test('names the nodes that are not clean and says why, at its limit', async () => {
    for (let n = 1; n <= 3; n++) withSidecar(n);
    double.store.put(NODES, numberedNode(4, { annotations: { [CAPABILITY]: 'x', [ANSWER]: '{"request":"earlier"}' } }));
    const waiting = hook(1000);
    const failed = expect(waiting).rejects.toThrow(
      `not removed from 3 of 4 nodes within 1 s: ${nameOf(2)} (of another version), ${nameOf(3)} (no answer), ` +
        `${nameOf(4)} (no answer, and no pod of XMasq there). See to`,
    );
    await until(() => request() !== '');
    await answer(1);
    await answer(2, 'of another version');
    await failed;
    // Those that answered stay clean, and the next try asks anew.
    const before = request();
    expect(before).not.toBe('');
    await expect(hook(300)).rejects.toThrow('from 4 of 4 nodes');
    expect(request()).not.toBe(before);
  });

  test('a node that leaves the cluster is not waited for', async () => {
    withSidecar(1);
    withSidecar(2);
    const waiting = hook(5000);
    await until(() => request() !== '');
    await answer(1);
    double.store.delete(NODES, nameOf(2));
    expect(await waiting).toBe(1);
  });

  test('says so where there is no release, and where the API is away', async () => {
    await expect(
      uninstall({ ...QUICK, api, namespace: 'other', timeoutMs: 1000, log: quiet, say: () => undefined }),
    ).rejects.toThrow(/cannot be asked by ConfigMap other\/xmasq-uninstall: .*is other the namespace of the release/);
    await double.outage();
    await expect(hook(300)).rejects.toThrow(/cannot be asked .*ECONNREFUSED/);
  });
});
