/** An underlay that carries the tunnel but not masqueraded packets: noticed within a second, in whichever direction. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { eventually, sleep } from '../lab/lab.ts';
import { requestResponse } from '../lab/measure.ts';
import type { Pair } from '../lab/measure.ts';
import { PROVIDER, up } from '../lab/native/native.ts';
import type { NativeLab } from '../lab/native/native.ts';
import { EMULATED, atMostNatively, stretched } from '../lab/scale.ts';
import { describeFlow, startSidecars } from '../lab/sidecar.ts';
import type { LabSidecars, SidecarFlow } from '../lab/sidecar.ts';
import { watchCounters } from './support/counters.ts';
import { withDatagrams, withTransfer } from './support/streams.ts';

/** How long the hole lasts: long enough for three tries of the fast path, after pauses of 1 and 2 s. */
const HOLE_MS = 5000;
/** Tries in that time: the hole itself and what the doubling pauses leave room for. */
const MOST_TRIES = 4;
/** The longest pause that can have begun in that time. */
const PAUSE_MS = 8000;
const SECOND_MS = 1000;
/** An emulated sidecar takes a second to say so, and a TCP connection on an emulated path more time to retransmit. */
const NOTICED_MS = EMULATED ? 3 * SECOND_MS : SECOND_MS;
/**
 * Both ends send, and what one of them sends is lost: only the other one can notice, with its second retransmission. If
 * that is a moment later than the sender's own second one, the third is the first to go slow, 1.4 s after the loss.
 */
const RETRANSMISSION_MS = 700;
/** From before the hole until the flows are fast again. */
const SECONDS = EMULATED ? 120 : 18;
/** Between two requests: longer than the silence that means a hole, shorter than a pause (XMASQ_SILENCE_NS, XMASQ_PAUSE_NS). */
const SELDOM_MS = 700;
/** TCP bytes per second and direction. */
const PACE = EMULATED ? 200_000 : 1_000_000;

describe('a black hole', () => {
  let lab: NativeLab;
  let sidecars: LabSidecars;

  beforeAll(async () => {
    lab = await up({ router: true });
    sidecars = await startSidecars(lab);
  });
  afterEach(async () => {
    await lab.underlay.clear();
  });
  afterAll(async () => {
    await sidecars.down();
    await lab.down();
  });

  /** Router rules that swallow masqueraded packets. The nodes' own traffic passes. */
  const holes: readonly { readonly what: string; readonly rules: () => string[]; readonly tcpStallMs: number }[] = [
    { what: 'everything but the tunnel', rules: () => [...swallow(0), ...swallow(1)], tcpStallMs: SECOND_MS },
    { what: 'what the client sends', rules: () => swallow(0), tcpStallMs: SECOND_MS + RETRANSMISSION_MS },
    { what: 'what the server sends', rules: () => swallow(1), tcpStallMs: SECOND_MS + RETRANSMISSION_MS },
  ];

  function swallow(from: number): string[] {
    const { address } = lab.node(from);
    return [
      `ip saddr ${address} ip protocol tcp drop`,
      `ip saddr ${address} udp dport != ${PROVIDER.tunnel.port} drop`,
    ];
  }

  function pairOf(pod: number): Pair {
    return { from: lab.node(0).pod(pod), to: lab.node(1).pod(pod) };
  }

  /** Waits until one of the nodes has found the flow in a hole. */
  async function noticed(port: number): Promise<void> {
    let flows: SidecarFlow[] = [];
    try {
      await eventually(
        'a black hole noticed',
        async () => {
          flows = (await Promise.all(sidecars.nodes.map((sidecar) => sidecar.flows({ port })))).flat();
          return flows.some(({ reason }) => reason === 'black_hole');
        },
        NOTICED_MS,
        20,
      );
    } catch (error) {
      throw new Error(`port ${port} meets no black hole: ${flows.map(describeFlow).join('; ')}`, { cause: error });
    }
  }

  test('is not what a pod meets that asks by TCP once in a while and is answered at once', async () => {
    const counters = await watchCounters(sidecars);
    const seldom = { flows: 10, intervalUs: SELDOM_MS * 1000, seconds: EMULATED ? 40 : 8 };
    const options = { proto: 'tcp', ...seldom, timeoutMs: stretched(SECOND_MS) } as const;
    const report = await requestResponse(lab, pairOf(0), options);
    expect(report).toMatchObject({ errors: 0, timeouts: 0, corrupt: 0 });
    const grown = await counters.since();
    for (const { black_hole } of grown) expect(black_hole).toBeLessThanOrEqual(atMostNatively(0));
    expect(grown[0]?.fast_tx).toBeGreaterThan(report.transactions * (EMULATED ? 0.2 : 0.5));
  }, 30_000);

  test.each(holes)(
    'for $what: noticed within a second; TCP and UDP go on over the slow path, and come back',
    async ({ rules, tcpStallMs }) => {
      const [tcpPair, udpPair] = [pairOf(0), pairOf(1)];
      const tcpArgs = [
        ...['--seconds', String(SECONDS), '--down', String(SECONDS * PACE)],
        ...['--rate', String(PACE), '--send-size', '5000'],
      ];
      await withTransfer(lab, tcpPair, tcpArgs, async (tcp) => {
        await withDatagrams(lab, udpPair, ['--reply', '--rate', '100', '--seconds', String(SECONDS)], async (udp) => {
          const ports = [tcp.port, udp.port];
          await Promise.all(ports.map((port) => sidecars.waitFast({ port })));
          const counters = await watchCounters(sidecars);
          await lab.underlay.addRules(rules());
          await Promise.all(ports.map(noticed));
          await sleep(HOLE_MS);
          for (const { black_hole } of await counters.since()) {
            expect(black_hole).toBeLessThanOrEqual(MOST_TRIES * ports.length);
          }
          await lab.underlay.clear();
          await Promise.all(ports.map((port) => sidecars.waitFast({ port }, PAUSE_MS + 2 * SECOND_MS)));

          const report = await tcp.result();
          expect(report).toMatchObject({ complete: true, error: '' });
          expect([report.maxGapMs, report.peerMaxGapMs].filter((gap) => gap >= atMostNatively(tcpStallMs))).toEqual([]);
          const { echo, peer } = await udp.result();
          expect([echo?.maxGapMs ?? Infinity, peer.maxGapMs].filter((gap) => gap >= atMostNatively(SECOND_MS))).toEqual(
            [],
          );
        });
      });
    },
    60_000,
  );
});
