/** An underlay with a firewall: `auto` finds out what it carries, no connection waits for that, and it finds back. */
import { afterAll, afterEach, beforeAll, expect, test } from '@jest/globals';
import { eventually, sleep } from '../lab/lab.ts';
import type { Firewall } from '../lab/lab.ts';
import { freshPort, requestResponse } from '../lab/measure.ts';
import type { Pair } from '../lab/measure.ts';
import { up } from '../lab/native/native.ts';
import type { NativeLab } from '../lab/native/native.ts';
import { startSidecars } from '../lab/sidecar.ts';
import type { LabSidecars } from '../lab/sidecar.ts';
import { watchCounters, watchReasons } from './support/counters.ts';
import { gapLimit, lasting, steadily } from './support/steady.ts';
import type { SteadyPorts } from './support/steady.ts';

const SECOND_MS = 1000;
/** Longest pause of probes (XMASQ_PROBE_MAX_NS), and the time that a mode is kept at least (XMASQ_MODE_HOLD_NS). */
const BACK_MS = 8000 + 5000 + SECOND_MS;
/** Both ends send, and only what one of them sends is lost: see blackhole.spec. */
const RETRANSMISSION_MS = 700;

let lab: NativeLab;
let sidecars: LabSidecars;
let tcpPair: Pair;
let udpPair: Pair;

beforeAll(async () => {
  lab = await up({ router: true });
  sidecars = await startSidecars(lab, { transmitMode: 'auto' });
  tcpPair = { from: lab.node(0).pod(0), to: lab.node(1).pod(0) };
  udpPair = { from: lab.node(0).pod(1), to: lab.node(1).pod(1) };
});
afterEach(async () => {
  await lab.underlay.clear();
});
afterAll(async () => {
  await sidecars.down();
  await lab.down();
});

type Mode = 'masquerade' | 'encap';

/** How both nodes send the flow. */
async function modes(port: number): Promise<(string | undefined)[]> {
  const flows = await Promise.all(sidecars.nodes.map((sidecar) => sidecar.flows({ port })));
  return flows.map(([flow]) => flow?.mode);
}

/** Waits until both nodes send it so. */
async function carried(port: number, mode: Mode, limitMs: number): Promise<void> {
  let last: unknown;
  await eventually(
    `port ${port} in mode ${mode}`,
    async () => {
      last = await modes(port);
      return JSON.stringify(last) === JSON.stringify([mode, mode]);
    },
    limitMs,
    50,
  ).catch((error: unknown) => {
    throw new Error(`port ${port} is ${JSON.stringify(last)}`, { cause: error });
  });
}

/** TCP both ways and UDP with answers for `seconds`; afterwards nothing was lost but for moments. */
async function underTraffic(
  seconds: number,
  stallMs: number,
  during: (ports: SteadyPorts) => Promise<void>,
): Promise<void> {
  const { tcp, tcpGapMs, udpGapMs } = await steadily(lab, { tcp: tcpPair, udp: udpPair }, lasting(seconds), during);
  expect(tcp).toMatchObject({ complete: true, error: '' });
  expect(tcpGapMs).toBeLessThan(gapLimit(stallMs));
  expect(udpGapMs).toBeLessThan(gapLimit(SECOND_MS));
}

test('after a pause of both the server speaks first: the path is still the one for masqueraded packets', async () => {
  const ports = { sport: freshPort(), port: freshPort() };
  const back: Pair = { from: udpPair.to, to: udpPair.from };
  const often = { proto: 'udp', intervalUs: 20_000 } as const;
  const before = requestResponse(lab, udpPair, { ...often, ...ports, seconds: 6 });
  await carried(ports.port, 'masquerade', 5000);
  expect(await before).toMatchObject({ errors: 0, timeouts: 0 });
  // Without a sign of life for so long nobody is sure of being heard (XMASQ_SEND_LIFE_NS).
  await sleep(5500);
  const counters = await watchCounters(sidecars);
  const reversed = { sport: ports.port, port: ports.sport };
  expect(await requestResponse(lab, back, { ...often, ...reversed, seconds: 3 })).toMatchObject({ errors: 0 });
  for (const { path_changed, black_hole, fast_tx, fast_encap } of await counters.since()) {
    expect({ path_changed, black_hole }).toEqual({ path_changed: 0, black_hole: 0 });
    expect(fast_encap).toBeLessThan(fast_tx / 4);
  }
}, 30_000);

interface Case {
  readonly what: string;
  readonly firewall: () => Firewall;
  /** Modes of TCP and UDP behind it. */
  readonly tcp: Mode;
  readonly udp: Mode;
  readonly stallMs: number;
}

const cases: readonly Case[] = [
  {
    what: 'drops TCP whose beginning it has not seen',
    firewall: () => ({ kind: 'stateful' }),
    tcp: 'encap',
    udp: 'masquerade',
    stallMs: SECOND_MS,
  },
  {
    what: 'passes the tunnel only',
    firewall: () => ({ kind: 'tunnelOnly' }),
    tcp: 'encap',
    udp: 'encap',
    stallMs: SECOND_MS,
  },
];

test.each(cases)(
  'a firewall that $what is there first: never masqueraded, never slow',
  async (each) => {
    await lab.underlay.addFirewall(each.firewall());
    await underTraffic(6, SECOND_MS, async ({ tcp, udp }) => {
      await carried(tcp, each.tcp, 4000);
      await carried(udp, each.udp, 4000);
      const [counters, reasons] = [await watchCounters(sidecars), await Promise.all(sidecars.nodes.map(watchReasons))];
      await sleep(SECOND_MS);
      expect(await Promise.all(reasons.map(({ since }) => since()))).toEqual([[], []]);
      for (const { slow_tx, black_hole } of await counters.since()) {
        expect({ slow_tx, black_hole }).toEqual({ slow_tx: 0, black_hole: 0 });
      }
    });
  },
  60_000,
);

test.each(cases)(
  'a firewall that $what comes and goes under traffic',
  async (each) => {
    await underTraffic(40, each.stallMs, async ({ tcp, udp }) => {
      await carried(tcp, 'masquerade', 12_000);
      await carried(udp, 'masquerade', 12_000);
      await sleep(5500);
      await lab.underlay.addFirewall(each.firewall());
      await carried(tcp, each.tcp, SECOND_MS);
      await carried(udp, each.udp, SECOND_MS);
      await sleep(4000);
      expect(await modes(tcp)).toEqual([each.tcp, each.tcp]);
      await lab.underlay.clear();
      await carried(tcp, 'masquerade', BACK_MS);
      await carried(udp, 'masquerade', BACK_MS);
    });
  },
  90_000,
);

test('a firewall in one direction: only that direction is encapsulated', async () => {
  const { address } = lab.node(0);
  await underTraffic(50, SECOND_MS + RETRANSMISSION_MS, async ({ tcp, udp }) => {
    await carried(tcp, 'masquerade', 12_000);
    await carried(udp, 'masquerade', 12_000);
    await sleep(5500);
    await lab.underlay.addRules([`ip saddr ${address} ip protocol tcp drop`]);
    // Who hears nothing is the first to notice, and takes the time of a change of mode to find that its own way is good.
    await eventually(
      'the flow is encapsulated one way',
      async () => JSON.stringify(await modes(tcp)) === JSON.stringify(['encap', 'masquerade']),
      BACK_MS,
    );
    await sleep(SECOND_MS);
    expect(await modes(tcp)).toEqual(['encap', 'masquerade']);
    expect(await modes(udp)).toEqual(['masquerade', 'masquerade']);
    await lab.underlay.clear();
    await carried(tcp, 'masquerade', BACK_MS);
  });
}, 90_000);
