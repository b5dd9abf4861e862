/** How long the client waits for the API server. */
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import type { ApiDouble } from '../../../../e2e/double/api-double.ts';
import { numberedNode } from '../../../../e2e/double/objects.ts';
import type { ApiClient } from '../../../src/kubernetes/api-client.ts';
import { Harness, sleep, until } from './harness.ts';

const NODES = '/api/v1/nodes';
/** For the answer to a request. */
const ANSWER_MS = 300;

let harness: Harness;
let double: ApiDouble;
let api: ApiClient;

beforeEach(async () => {
  harness = new Harness();
  double = await harness.double();
  ({ api } = harness.client(double, ANSWER_MS));
});
afterEach(() => harness.close());

/** How a watch ends that fails after `idleMs` without a byte, or is stopped after `during`. */
async function watched(idleMs: number, during: () => Promise<void>): Promise<string> {
  const stop = new AbortController();
  const ended = api
    .watch(NODES, { query: {}, opened: () => undefined, event: () => undefined, idleMs, signal: stop.signal })
    .then(
      () => 'ended',
      (error: unknown) => (error instanceof Error ? error.message : String(error)),
    );
  await during();
  stop.abort(new Error('stopped by the test'));
  return ended;
}

test('a watch without events is open for longer than an answer may take', async () => {
  expect(await watched(60_000, () => sleep(3 * ANSWER_MS))).toBe('stopped by the test');
});

test('a watch without a byte for too long fails, counted from its opening and from its last event', async () => {
  const how = await watched(2 * ANSWER_MS, async () => {
    await until(() => double.watchCount === 1);
    await sleep(ANSWER_MS);
    double.store.put(NODES, numberedNode(1));
    await sleep(1.5 * ANSWER_MS);
    expect(double.watchCount).toBe(1);
    await until(() => double.watchCount === 0);
  });
  expect(how).toBe(`nothing heard for ${2 * ANSWER_MS} ms`);
});
