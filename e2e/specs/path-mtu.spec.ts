/** The underlay's MTU becomes smaller than the nodes assume: pods are told, and connections go on. */
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { sleep } from '../lab/lab.ts';
import type { Lab, Pod } from '../lab/lab.ts';
import { freshPort, transferResult } from '../lab/measure.ts';
import { up } from '../lab/native/native.ts';
import { IPPROTO } from '../lab/packet.ts';
import { EMULATED, atMostNatively, stretched } from '../lab/scale.ts';
import { startSidecars } from '../lab/sidecar.ts';
import type { LabSidecars } from '../lab/sidecar.ts';
import { atLeast } from './support/matchers.ts';

const UNDERLAY_MTU = 1300;
/** What the tunnel adds: pods are told so much less. */
const OVERHEAD = 50;
/** Bytes per second and direction, and in all: long enough to be fast, to be told and to be watched. */
const [PACE, AMOUNT] = EMULATED ? [400_000, 24_000_000] : [10_000_000, 40_000_000];

let lab: Lab;
let sidecars: LabSidecars;
let a: Pod;
let b: Pod;

beforeAll(async () => {
  lab = await up({ podsPerNode: 1, router: true });
  a = lab.node(0).pod(0);
  b = lab.node(1).pod(0);
  sidecars = await startSidecars(lab);
});
afterAll(async () => {
  await sidecars.down();
  await lab.down();
});

/** The router forwards nothing larger from now on, in either direction; and forgets that where there is no limit. */
async function limitMtu(mtu?: number): Promise<void> {
  const router = lab.underlay.place;
  if (router === undefined) throw new Error('the lab has no router');
  const { stdout } = await router.exec(['ip', '-4', 'route', 'show', 'scope', 'link']);
  const limit = mtu === undefined ? [] : ['mtu', 'lock', String(mtu)];
  for (const line of stdout.trim().split('\n')) {
    const route = line.replace(/ mtu lock \d+/, '').trim();
    await router.exec(['ip', 'route', 'change', ...route.split(/\s+/), ...limit]);
  }
}

test('a running transfer goes on fast, with packets that fit into the tunnel, too', async () => {
  const tool = lab.tool('stream');
  const port = freshPort();
  const server = await b.spawn([tool, 'server', '--tcp', '--port', String(port), '--bind', b.address]);
  await server.waitFor(/^ready/);
  try {
    const much = ['--up', String(AMOUNT), '--down', String(AMOUNT), '--rate', String(PACE)];
    const client = await a.spawn([tool, 'client', '--tcp', '--to', b.address, '--port', String(port), ...much]);
    await sidecars.waitFast({ proto: 'tcp', port });
    const before = await Promise.all(sidecars.nodes.map((sidecar) => sidecar.status()));
    await limitMtu(UNDERLAY_MTU);
    await sleep(stretched(1500));
    const capture = await lab.node(0).capture({ filter: `host ${lab.node(1).address}` });
    await sleep(stretched(300));
    const { packets } = await capture.stop();
    const result = transferResult(await client.json(30_000));

    expect(result).toMatchObject({ complete: true, corrupt: 0, peerCorrupt: 0 });
    expect(Math.max(result.maxGapMs, result.peerMaxGapMs)).toBeLessThan(atMostNatively(1500));
    const after = await Promise.all(sidecars.nodes.map((sidecar) => sidecar.status()));
    after.forEach(({ counters }, i) => {
      expect(counters.icmp_error - (before[i]?.counters.icmp_error ?? 0)).toBeGreaterThan(0);
      expect(counters.black_hole - (before[i]?.counters.black_hole ?? 0)).toBeLessThanOrEqual(atMostNatively(0));
    });
    const tcp = packets.filter(({ ip, l4 }) => ip?.proto === IPPROTO.tcp && (l4?.sport === port || l4?.dport === port));
    // Fast, and not in the tunnel.
    expect(tcp.length).toBeGreaterThan(100);
    for (const [pod, other] of [
      [a, b],
      [b, a],
    ] as const) {
      const { stdout } = await pod.exec(['ip', 'route', 'get', other.address]);
      expect(stdout).toContain(`mtu ${UNDERLAY_MTU - OVERHEAD}`);
    }
    expect(result.sent).toEqual(atLeast(AMOUNT));
  } finally {
    await server.stop();
    // As before, for another try: the pods forget what they were told.
    await limitMtu();
    await Promise.all([a, b].map((pod) => pod.exec(['ip', 'route', 'flush', 'cache'])));
  }
}, 60_000);
