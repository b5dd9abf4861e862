/** Packets of up to 64 KB that a device is to cut: real ones arrive whole, crooked ones harm nobody. */
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { eventually } from '../lab/lab.ts';
import type { Pod } from '../lab/lab.ts';
import { freshPort } from '../lab/measure.ts';
import { up } from '../lab/native/native.ts';
import type { NativeLab } from '../lab/native/native.ts';
import { EMULATED, atMostNatively } from '../lab/scale.ts';
import { startSidecars } from '../lab/sidecar.ts';
import type { LabSidecars } from '../lab/sidecar.ts';
import { watchCounters } from './support/counters.ts';
import { forge } from './support/forge.ts';
import { UNDISTURBED, besidePods } from './support/pod-traffic.ts';
import { withDatagrams, withTransfer } from './support/streams.ts';
import { nextHopMac } from './support/traffic.ts';
import { isMasqueraded } from './support/wire.ts';

/** Sends of many datagrams each, per second. */
const SENDS = EMULATED ? 10 : 100;
/** Until UDP is fast (conntrack calls it a stream after two seconds), and some time after that. */
const DATAGRAM_SECONDS = EMULATED ? '30' : '6';

/** What one crooked packet may become on its way; emulation takes a second for some thousand. */
const MOST_PACKETS = EMULATED ? 500 : 65_536;

describe('packets to be segmented', () => {
  let lab: NativeLab;
  let sidecars: LabSidecars;
  let a: Pod;
  let b: Pod;

  beforeAll(async () => {
    lab = await up();
    sidecars = await startSidecars(lab);
    [a, b] = [lab.node(0).pod(0), lab.node(1).pod(0)];
  });
  afterAll(async () => {
    await sidecars.down();
    await lab.down();
  });

  /** Expects that nothing was lost on the fast path while `use` ran. */
  async function nothingLost(use: () => Promise<void>): Promise<void> {
    const counters = await watchCounters(sidecars);
    await use();
    for (const grown of await counters.since()) {
      expect(grown).toMatchObject({ unknown_key: 0, incomplete: 0, own_lost: 0 });
      expect(grown.flow_demoted + grown.black_hole).toBeLessThanOrEqual(atMostNatively(0));
    }
  }

  /** Captures the masqueraded packets on the second node's uplink. */
  const masqueraded = async (filter: string): Promise<() => Promise<{ length: number; id: number }[]>> => {
    const [n1, n2] = [lab.node(0), lab.node(1)];
    const wire = await n2.capture({ direction: 'in', filter: `src host ${n1.address} and ${filter}` });
    return async () => {
      const { packets } = await wire.stop();
      return packets
        .filter((packet) => isMasqueraded(packet, n1, n2))
        .map((packet) => ({ length: packet.wireLength, id: packet.ip?.id ?? 0 }));
    };
  };

  test('TCP sends of 64 KB cross the underlay masqueraded and in one piece, and arrive whole', async () => {
    await nothingLost(async () => {
      const options = [
        ...['--up', EMULATED ? '20M' : '200M'],
        ...['--down', EMULATED ? '5M' : '50M'],
        '--send-size',
        '1000000',
        '--pause-after',
        '1M',
        '--pause-ms',
        // Long enough for the capture to begin.
        EMULATED ? '6000' : '300',
      ];
      await withTransfer(lab, { from: a, to: b }, options, async ({ port, result }) => {
        await sidecars.waitFast({ proto: 'tcp', port });
        const captured = await masqueraded(`tcp port ${port}`);
        expect(await result()).toMatchObject({ complete: true, corrupt: 0, peerCorrupt: 0, error: '' });
        const packets = await captured();
        const largest = Math.max(...packets.map(({ length }) => length));
        expect(largest).toBeGreaterThan(60_000);
        // Segmentation counts the ID up in its lowest six bits: they begin with zero.
        expect(packets.filter(({ id }) => (id & 0x3f) !== 0)).toEqual([]);
      });
    });
  }, 60_000);

  test('UDP_SEGMENT of 64 segments is fast, and every datagram arrives once', async () => {
    await nothingLost(async () => {
      const options = [
        ...['--gso', '64', '--size', '1000', '--rate', String(64 * SENDS)],
        ...['--seconds', DATAGRAM_SECONDS, '--reply'],
      ];
      await withDatagrams(lab, { from: a, to: b }, options, async ({ port, result }) => {
        await sidecars.waitFast({ proto: 'udp', port }, 10_000);
        const captured = await masqueraded(`udp port ${port}`);
        const report = await result();
        expect(report).toMatchObject({
          foreign: 0,
          peer: { lost: 0, corrupt: 0, duplicates: 0 },
          echo: { lost: 0, corrupt: 0 },
        });
        expect(Math.max(...(await captured()).map(({ length }) => length))).toBeGreaterThan(60_000);
      });
    });
  }, 30_000);

  test('more than 64 segments go slow, by their own reason, and arrive as well', async () => {
    await nothingLost(async () => {
      const options = ['--gso', '100', '--size', '600', '--rate', String(60 * SENDS), '--seconds', '5', '--reply'];
      await withDatagrams(lab, { from: a, to: b }, options, async ({ port, result }) => {
        const before = (await sidecars.node(0).status()).reasons.gso_segments;
        const captured = await masqueraded(`udp port ${port} and udp[4:2] > 1000`);
        expect(await result()).toMatchObject({
          foreign: 0,
          peer: { lost: 0, corrupt: 0, duplicates: 0 },
          echo: { lost: 0 },
        });
        expect((await sidecars.node(0).status()).reasons.gso_segments).toBeGreaterThan(before);
        expect(await captured()).toEqual([]);
      });
    });
  }, 30_000);

  test('crooked ones of a pod, on a fast flow’s own ports too, harm nobody', async () => {
    await nothingLost(async () => {
      const { udp, tcp } = await besidePods(lab, sidecars, { from: a, to: b }, async ({ sport, port }) => {
        const hop = await nextHopMac(a, b);
        const counters = await watchCounters(sidecars);
        const text = 'crooked, but not corrupt';
        let sent = 0;
        const small = [1, 7, 600, 1398];
        // What is larger than the MTU is answered by the node, which on the flow's own ports would be an error of its socket.
        const any = [...small, 1399, 1472, 9000, 64_000, 65_535];
        for (const [from, ports, segments] of [
          [a, { sport, dport: port }, small],
          [lab.node(0).pod(1), { sport: freshPort(), dport: freshPort() }, any],
        ] as const) {
          for (const proto of ['udp', 'tcp'] as const) {
            for (const size of [1500, 20_000, 64_900]) {
              for (const segment of segments.filter((each) => size / each <= MOST_PACKETS)) {
                // The kernel itself refuses some: more than 128 datagrams, segments larger than the packet.
                sent += await forge(lab, from, {
                  ...{ dstMac: hop, dst: b.address, proto, ...ports, size, payload: text },
                  ...{ ids: [0x7ff0, 0x7ff0], options: ['--gso-size', String(segment)] },
                }).catch(() => 0);
              }
            }
          }
        }
        expect(sent).toBeGreaterThan(30);
        // All went one way or the other; what is too large for the path was dropped by it, not by us.
        const [first] = await counters.since();
        expect((first?.fast_tx ?? 0) + (first?.slow_tx ?? 0)).toBeGreaterThan(sent);
        for (const proto of ['udp', 'tcp'] as const) {
          await eventually('fast', async () => {
            const [flow] = await sidecars.node(0).flows({ proto, port, sourceIp: a.address });
            return flow?.path === 'fast';
          });
        }
      });
      // Datagrams of the flow itself that nobody asked for are not counted by the tool; it would notice wrong ones.
      expect({ udp, tcp }).toMatchObject(UNDISTURBED);
    });
  }, 60_000);
});
