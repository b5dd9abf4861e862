/** How soon a new TCP connection is on the fast path: packets on the wire and the counters have to agree. */
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import type { Lab, OffloadFlags, Pod } from '../lab/lab.ts';
import { freshPort } from '../lab/measure.ts';
import { up } from '../lab/native/native.ts';
import { INITIAL_WINDOW } from '../lab/scale.ts';
import { startSidecars } from '../lab/sidecar.ts';
import type { LabSidecars } from '../lab/sidecar.ts';
import { watchCounters } from './support/counters.ts';
import { atLeast } from './support/matchers.ts';
import { captured, exchange } from './support/traffic.ts';
import { beforeClose, crossings, direction } from './support/wire.ts';
import type { Crossing } from './support/wire.ts';

/** The promise: packets of a connection that the slow path carries, in each direction, SYN and ACK of the handshake included. */
const SLOW_PACKETS = 6 + INITIAL_WINDOW;

let lab: Lab;
let sidecars: LabSidecars;
let a: Pod;
let b: Pod;

beforeAll(async () => {
  lab = await up();
  a = lab.node(0).pod(0);
  b = lab.node(1).pod(0);
  sidecars = await startSidecars(lab);
});
afterAll(async () => {
  await sidecars.down();
  await lab.down();
});

const ALL_ON: OffloadFlags = { tx: true, sg: true, tso: true, gso: true };
const ALL_OFF: OffloadFlags = { tso: false, gso: false, gro: false, tx: false };

test.each([
  ['one byte each way', ['--size', '1'], ALL_ON],
  ['as much as fits into a packet', ['--size', '1390'], ALL_ON],
  ['several packets each way', ['--size', '8000'], ALL_ON],
  ['one byte each way, no offload', ['--size', '1'], ALL_OFF],
])('ten connections at once, requests and responses: %s', async (_name, size, offloads) => {
  await lab.offload(offloads);
  await fastSoon(10, SLOW_PACKETS, async (port) => {
    const common = ['--tcp', '--port', String(port), ...size];
    const client = ['--flows', '10', '--count', '1000', '--json'];
    const report = await exchange(lab, 'rr', { from: a, to: b }, { common, client });
    expect(report).toMatchObject({ transactions: atLeast(1000), errors: 0, corrupt: 0 });
  });
});

const UP = ['--up', '2M', '--down', '0'];
// The client says a little and stays: once it has closed its half, the connection is slow by design.
const DOWN = ['--send-size', '16k', '--up', '17k', '--pause-after', '16k', '--pause-ms', '300', '--down', '2M'];
// The client asks and then only acknowledges until all has come: it is the server's announcement that gets it admitted.
const ASKED = ['--send-size', '100', '--up', '101', '--pause-after', '100', '--pause-ms', '300', '--down', '2M'];

test.each([
  ['from client to server', UP, ALL_ON, SLOW_PACKETS],
  ['from server to client', DOWN, ALL_ON, SLOW_PACKETS],
  ['from server to client, who has only asked', ASKED, ALL_ON, SLOW_PACKETS],
  ['both ways', ['--up', '2M', '--down', '2M'], ALL_ON, SLOW_PACKETS],
  // Without segmentation offload the ten segments of the initial window (RFC 6928) leave before anything can come back.
  ['from client to server, no offload', UP, ALL_OFF, SLOW_PACKETS + 10],
  ['from server to client, no offload', DOWN, ALL_OFF, SLOW_PACKETS + 10],
])('four connections, a stream %s', async (_name, size, offloads, limit) => {
  await lab.offload(offloads);
  await fastSoon(4, limit, async (port) => {
    const common = ['--tcp', '--port', String(port)];
    for (let i = 0; i < 4; i++) {
      const report = await exchange(lab, 'stream', { from: a, to: b }, { common, client: size });
      expect(report).toMatchObject({ complete: true, corrupt: 0, peerCorrupt: 0 });
    }
  });
});

/** Runs TCP traffic to a port and checks each connection on the wire, and the counters of both nodes against the wire. */
async function fastSoon(connections: number, limit: number, traffic: (port: number) => Promise<void>): Promise<void> {
  const flow = { from: a, to: b, proto: 'tcp', port: freshPort() } as const;
  const counters = await watchCounters(sidecars);
  const { uplink } = await captured(lab, [], () => traffic(flow.port));
  const [here, there] = await counters.since();
  const all = crossings(uplink, flow);

  const byConnection = Map.groupBy(all, ({ forward, l4 }) => (forward ? l4?.sport : l4?.dport));
  expect(byConnection.size).toBe(connections);
  for (const [sport, packets] of byConnection) {
    for (const forward of [true, false]) {
      const { slow, fast } = direction(beforeClose(packets), forward);
      const start = { sport, forward, fast, slow: slow > limit ? `${slow} packets` : 'few' };
      expect(start).toEqual({ sport, forward, fast: atLeast(5), slow: 'few' });
    }
  }

  const count = (path: Crossing['path'], forward: boolean): number =>
    all.filter((packet) => packet.path === path && packet.forward === forward).length;
  expect(here).toMatchObject({
    fast_tx: count('fast', true),
    slow_tx: count('slow', true),
    restored: count('fast', false),
    slow_rx: count('slow', false),
    flow_admitted: connections,
  });
  expect(there).toMatchObject({
    fast_tx: count('fast', false),
    slow_tx: count('slow', false),
    restored: count('fast', true),
    slow_rx: count('slow', true),
    flow_admitted: connections,
  });
}
