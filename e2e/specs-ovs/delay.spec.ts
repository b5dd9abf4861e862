/** An underlay that delays packets and lets them overtake each other: what is fast stays fast, and nothing is lost by it. */
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { sleep } from '../lab/lab.ts';
import type { Pod } from '../lab/lab.ts';
import { requestResponse } from '../lab/measure.ts';
import { residue, up } from '../lab/ovs/ovs.ts';
import type { OvsLab } from '../lab/ovs/ovs.ts';
import { ADMISSION, EMULATED, stretched } from '../lab/scale.ts';
import type { LabSidecars } from '../lab/sidecar.ts';
import { watchCounters } from '../specs/support/counters.ts';
import { atLeast, atMost } from '../specs/support/matchers.ts';
import { flowsOf, startInMode } from '../specs/support/modes.ts';
import { withDatagrams, withTransfer } from '../specs/support/streams.ts';

/** Of each direction, milliseconds. */
const DELAY_MS = 20;
const JITTER_MS = 10;
/** Datagrams are closer to each other than the jitter is wide: one of eight is overtaken, at least. */
const DATAGRAMS_PER_SECOND = 100;
/** Longer than a mode is kept at least (XMASQ_MODE_HOLD_NS), so that flapping would show. */
const SECONDS = EMULATED ? 40 : 15;
const WATCHED_MS = EMULATED ? 20_000 : 10_000;
const TCP_BYTES_PER_SECOND = EMULATED ? 50_000 : 1_000_000;

let lab: OvsLab;
let sidecars: LabSidecars;
let a: Pod;
let b: Pod;

beforeAll(async () => {
  lab = await up({ router: true, podsPerNode: 1 });
  [a, b] = [lab.node(0).pod(0), lab.node(1).pod(0)];
  await lab.underlay.setDelay(DELAY_MS, JITTER_MS);
  sidecars = await startInMode(lab, 'auto');
}, 60_000);
afterAll(async () => {
  await sidecars.down();
  await lab.down();
  expect(residue(lab)).toEqual([]);
});

const onNewer = ADMISSION === 'conntrack' ? test : test.skip;

/** How often each node has changed its mode for TCP and UDP. */
async function changes(): Promise<number[]> {
  const peers = await Promise.all(sidecars.nodes.map((sidecar) => sidecar.admin.peers()));
  return peers.flatMap((each) =>
    each.flatMap(({ paths }) => paths.filter(({ pathClass }) => pathClass !== 'other').map((path) => path.changes)),
  );
}

/** What both nodes say of the flows with this port: how they are sent. */
async function modes(proto: number, port: number): Promise<string[]> {
  const flows = await Promise.all(sidecars.nodes.map((sidecar) => flowsOf(sidecar, { proto, port })));
  return flows.flat().map(({ mode, path }) => `${mode} ${path}`);
}

onNewer(
  'TCP and UDP become fast and stay so, nothing is lost, and no path changes its mode',
  async () => {
    const pair = { from: a, to: b };
    const bytes = String(SECONDS * TCP_BYTES_PER_SECOND);
    const tcpArgs = ['--up', bytes, '--down', bytes, '--rate', String(TCP_BYTES_PER_SECOND), '--send-size', '1400'];
    const udpArgs = ['--reply', '--rate', String(DATAGRAMS_PER_SECOND), '--seconds', String(SECONDS)];
    await withTransfer(lab, pair, tcpArgs, (tcp) =>
      withDatagrams(lab, pair, udpArgs, async (udp) => {
        await Promise.all([tcp, udp].map(({ port }) => sidecars.waitFast({ port }, 10_000)));
        await sleep(stretched(100));
        const before = await changes();
        const counters = await watchCounters(sidecars);
        const seen = new Set<string>();
        for (let passed = 0; passed < WATCHED_MS; passed += 500) {
          await sleep(500);
          for (const mode of [...(await modes(6, tcp.port)), ...(await modes(17, udp.port))]) seen.add(mode);
        }
        expect([...seen]).toEqual(['masquerade fast']);
        expect(await changes()).toEqual(before);
        for (const each of await counters.since()) {
          expect(each).toMatchObject({ unknown_key: 0, own_lost: 0, black_hole: 0, fast_tx: atLeast(500) });
          // A packet now and then: what TCP sends again has other reasons.
          expect(each.slow_tx).toEqual(atMost(each.fast_tx / 50));
        }
        const { answered, peer, echo } = await udp.result();
        expect([answered, peer, echo]).toMatchObject([
          true,
          ...Array<unknown>(2).fill({ lost: 0, corrupt: 0, duplicates: 0, reordered: atLeast(50) }),
        ]);
        expect(await tcp.result()).toMatchObject({ complete: true, corrupt: 0, peerCorrupt: 0, error: '' });
      }),
    );
  },
  60_000,
);

onNewer(
  'keys that are told late, behind packets sent after them, do no harm',
  async () => {
    const counters = await watchCounters(sidecars);
    const before = await changes();
    // Every connection tells its keys anew, while packets overtake each other; several at a time.
    const result = await requestResponse(
      lab,
      { from: a, to: b },
      { proto: 'tcp', flows: 20, seconds: stretched(1), size: 100, timeoutMs: stretched(1000) },
    );
    expect(result).toMatchObject({ errors: 0, timeouts: 0, corrupt: 0 });
    expect(result.transactions).toEqual(atLeast(200));
    for (const each of await counters.since()) {
      expect(each).toMatchObject({ unknown_key: 0, own_lost: 0, black_hole: 0, fast_tx: atLeast(100) });
    }
    expect(await changes()).toEqual(before);
  },
  60_000,
);

onNewer(
  'the delay goes and comes under traffic',
  async () => {
    await withDatagrams(
      lab,
      { from: a, to: b },
      ['--reply', '--rate', String(DATAGRAMS_PER_SECOND), '--seconds', String(SECONDS)],
      async (udp) => {
        await sidecars.waitFast({ port: udp.port }, 10_000);
        const before = await changes();
        for (const [delay, jitter] of [
          [0, 0],
          [DELAY_MS, JITTER_MS],
        ] as const) {
          await lab.underlay.setDelay(delay, jitter);
          await sleep(stretched(300));
          expect(await modes(17, udp.port)).toEqual(['masquerade fast', 'masquerade fast']);
        }
        expect(await changes()).toEqual(before);
        const { answered, peer, echo } = await udp.result();
        // Whatever waits when the delay is taken away is lost with its queue.
        const waiting = Math.ceil((DATAGRAMS_PER_SECOND * 2 * (DELAY_MS + JITTER_MS)) / 1000) * (EMULATED ? 4 : 1);
        expect([answered, peer, echo]).toMatchObject([true, { lost: atMost(waiting) }, { lost: atMost(2 * waiting) }]);
      },
    );
  },
  60_000,
);
