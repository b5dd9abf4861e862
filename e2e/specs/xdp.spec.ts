/** Restoring in XDP. The lab's uplinks are veth pairs: XDP sees whole checksums only if the senders write them. */
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { addressOf, sleep } from '../lab/lab.ts';
import type { Family, Lab } from '../lab/lab.ts';
import type { Pair } from '../lab/measure.ts';
import { up } from '../lab/native/native.ts';
import { startSidecars } from '../lab/sidecar.ts';
import type { LabSidecars } from '../lab/sidecar.ts';
import { watchCounters } from './support/counters.ts';
import { atLeast, atMost } from './support/matchers.ts';
import { withDatagrams, withTransfer } from './support/streams.ts';

let lab: Lab;
let sidecars: LabSidecars;

beforeAll(async () => {
  lab = await up({ ipv6: true });
  // A device that writes checksums itself would leave them out on a veth pair, whose other end never looks at them.
  await lab.offload({ tx: false, tso: false, gso: false });
  sidecars = await startSidecars(lab, { xdp: 'native' });
});
afterAll(async () => {
  await sidecars.down();
  await lab.down();
});

function pairOf(pod: number): Pair {
  return { from: lab.node(0).pod(pod), to: lab.node(1).pod(pod) };
}

/** Programs on the uplink, as the kernel tells. */
async function mode(node: number): Promise<'xdp' | 'tc'> {
  const { stdout } = await lab.node(node).exec(['ip', '-details', 'link', 'show', 'dev', lab.node(node).device]);
  return /xdp/.test(stdout) ? 'xdp' : 'tc';
}

test.each(['ipv4', 'ipv6'] as const)(
  '%s: TCP and UDP arrive whole, restored by XDP',
  async (family: Family) => {
    const withFamily = { ...pairOf(0), family };
    const size = ['--up', '3000000', '--down', '3000000', '--rate', '1500000'];
    await withTransfer(lab, withFamily, size, async (tcp) => {
      await withDatagrams(
        lab,
        { ...pairOf(1), family },
        ['--reply', '--rate', '200', '--seconds', '5'],
        async (udp) => {
          await Promise.all([tcp, udp].map(({ port }) => sidecars.waitFast({ port })));
          const counters = await watchCounters(sidecars);
          await sleep(1000);
          for (const { restored, restored_xdp, unknown_key, slow_rx } of await counters.since()) {
            // A packet in 150 ms, and one in a second, go to tc: acknowledgements and conntrack.
            expect(restored_xdp).toBeGreaterThan(0.8 * restored);
            // Neighbour discovery of pods is always slow.
            const few = atMost(family === 'ipv6' ? 10 : 0);
            expect({ unknown_key, slow_rx }).toEqual({ unknown_key: 0, slow_rx: few });
          }
          expect(await tcp.result()).toMatchObject({ complete: true, corrupt: 0, peerCorrupt: 0 });
          const { echo, peer } = await udp.result();
          expect([echo?.lost, peer.lost, peer.corrupt]).toEqual([0, 0, 0]);
        },
      );
    });
  },
  60_000,
);

test('pods cannot tell', async () => {
  const { from, to } = pairOf(0);
  await withDatagrams(lab, pairOf(0), ['--reply', '--rate', '100', '--seconds', '8'], async (udp) => {
    await sidecars.waitFast({ port: udp.port });
    const capture = await to.capture({ filter: `udp port ${udp.port}`, direction: 'in' });
    await sleep(1000);
    const { packets } = await capture.stop();
    const { echo } = await udp.result();
    expect(echo?.lost).toBe(0);
    expect(packets.length).toBeGreaterThan(50);
    for (const { ip } of packets) {
      expect(ip).toMatchObject({ src: addressOf(from, 'ipv4'), dst: addressOf(to, 'ipv4'), ttl: 62, tos: 0 });
    }
  });
}, 60_000);

test('from XDP to tc and back under traffic: nothing is lost', async () => {
  const size = ['--seconds', '14', '--down', '14000000', '--rate', '1000000'];
  await withTransfer(lab, pairOf(0), size, async (tcp) => {
    await withDatagrams(lab, pairOf(1), ['--reply', '--rate', '100', '--seconds', '14'], async (udp) => {
      await Promise.all([tcp, udp].map(({ port }) => sidecars.waitFast({ port })));
      expect(await mode(1)).toBe('xdp');
      await sidecars.node(1).restart({ xdp: 'off' });
      expect(await mode(1)).toBe('tc');
      await sleep(500);
      await sidecars.node(1).restart({ xdp: 'native' });
      expect(await mode(1)).toBe('xdp');
      const report = await tcp.result();
      expect(report).toMatchObject({ complete: true, corrupt: 0, peerCorrupt: 0, error: '' });
      const { echo, peer } = await udp.result();
      expect([echo?.lost, peer.lost]).toEqual([0, 0]);
      expect(peer.received).toEqual(atLeast(1000));
    });
  });
}, 60_000);

test('cleanup takes the program from the uplink', async () => {
  await sidecars.node(0).stop();
  expect((await sidecars.node(0).cleanup('--force')).code).toBe(0);
  expect(await mode(0)).toBe('tc');
}, 60_000);
