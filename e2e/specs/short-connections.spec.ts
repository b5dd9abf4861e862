/** Connections that end after a request and its answer are left to the slow path: admission would cost more than they gain. */
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import type { Lab, Pod } from '../lab/lab.ts';
import { freshPort, requestResponse } from '../lab/measure.ts';
import { up } from '../lab/native/native.ts';
import { ADMISSION, connections } from '../lab/scale.ts';
import { startSidecars } from '../lab/sidecar.ts';
import type { LabSidecars } from '../lab/sidecar.ts';
import { watchCounters } from './support/counters.ts';
import { atLeast } from './support/matchers.ts';

const CONNECTIONS = connections(1000);
const VIP = '10.96.0.20';

let lab: Lab;
let sidecars: LabSidecars;
let client: Pod;

beforeAll(async () => {
  lab = await up({ podsPerNode: 2 });
  client = lab.node(0).pod(0);
  sidecars = await startSidecars(lab);
});
afterAll(async () => {
  await sidecars.down();
  await lab.down();
});

// Without the kernel's lookup connections are not judged by their age: a Service's could not be told from the outside's.
const whereJudged = ADMISSION === 'conntrack' ? test : test.skip;

whereJudged.each([
  ['a pod of another node', 1, 0, false],
  ['a pod of this node', 0, 1, false],
  ['a Service with a pod of another node', 1, 0, true],
  ['a Service with a pod of this node', 0, 1, true],
])(`${CONNECTIONS} connections of one request each to %s: none is admitted`, async (_name, node, pod, byService) => {
  const to = lab.node(node).pod(pod);
  const port = freshPort();
  const service = {
    clusterIp: VIP,
    protocol: 'tcp',
    port,
    endpoints: [{ address: to.address, port }],
  } as const;
  await Promise.all(lab.nodes.map((each) => each.setServices(byService ? [service] : [])));
  const counters = await watchCounters(sidecars);
  const young = await youngPackets();

  const pair = { from: client, to, ...(byService ? { via: VIP } : {}) };
  const result = await requestResponse(lab, pair, { proto: 'tcp', crr: true, count: CONNECTIONS, port });
  expect(result).toMatchObject({ transactions: CONNECTIONS, errors: 0, timeouts: 0, corrupt: 0 });

  for (const grown of await counters.since()) expect(grown).toMatchObject({ flow_admitted: 0, announced: 0 });
  const now = await youngPackets();
  // The client's acknowledgement of the handshake and its request, at least.
  expect((now[0] ?? 0) - (young[0] ?? 0)).toBeGreaterThanOrEqual(2 * CONNECTIONS);
});

whereJudged('a connection that goes on after its first answer is admitted on both nodes', async () => {
  const counters = await watchCounters(sidecars);
  const result = await requestResponse(lab, { from: client, to: lab.node(1).pod(0) }, { proto: 'tcp', count: 20 });
  expect(result).toMatchObject({ transactions: 20, errors: 0, timeouts: 0, corrupt: 0 });
  for (const grown of await counters.since()) expect(grown).toMatchObject({ flow_admitted: 1, fast_tx: atLeast(10) });
});

async function youngPackets(): Promise<number[]> {
  return Promise.all(sidecars.nodes.map(async (sidecar) => (await sidecar.status()).reasons.young));
}
