/**
 * The underlay's MTU becomes smaller than the nodes assume: pods are told, whichever way their packets go, and connections go
 * on, on the fast path. What pods are told, and that a transfer survives at all, is judged by the slow path alone.
 */
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { OFFLOADS_OFF, OFFLOADS_ON, addressOf, sleep } from '../lab/lab.ts';
import type { Family, Lab, LabOptions, Pod } from '../lab/lab.ts';
import { PROVIDER, up } from '../lab/native/native.ts';
import { IPPROTO, network } from '../lab/packet.ts';
import { EMULATED, atMostNatively, stretched } from '../lab/scale.ts';
import type { LabSidecars } from '../lab/sidecar.ts';
import { carriages } from './support/carriage.ts';
import type { Carriage } from './support/carriage.ts';
import { ENDS_OF_A_CONNECTION, watchCounters, watchReasons } from './support/counters.ts';
import { atLeast } from './support/matchers.ts';
import { startInMode, waitCarried } from './support/modes.ts';
import type { Carried, Mode } from './support/modes.ts';
import { withTransfer } from './support/streams.ts';
import type { WireFlow } from './support/wire.ts';

const UNDERLAY_MTU = 1400;
/** Bytes per second and direction, and in all: long enough to be fast, to be told and to be watched. */
const [PACE, AMOUNT] = EMULATED ? [400_000, 24_000_000] : [8_000_000, 28_000_000];
const MUCH = ['--up', String(AMOUNT), '--down', String(AMOUNT), '--rate', String(PACE)];
/** What the first packets that are too large may cost: a retransmission or two of TCP, as on the slow path. */
const GAP_MS = 1000;
/** In the tunnel the pod must know before TCP's second retransmission, which comes after 600 ms at the earliest. */
const TUNNEL_GAP_MS = 600;
/** Until a probe of a path has been answered. */
const CARRIED_MS = 12_000;

/** How a flow goes, by what counter that is seen, and what crosses the underlay. */
interface Way {
  readonly carried: Carried;
  readonly counter: 'fast_tx' | 'fast_encap' | 'fast_direct';
  readonly wire: Carriage['how'];
}

const MASQUERADED: Way = { carried: 'masquerade', counter: 'fast_tx', wire: 'masqueraded' };
const ENCAPSULATED: Way = { carried: 'encap', counter: 'fast_encap', wire: 'tunnel' };
const ROUTED: Way = { carried: 'direct', counter: 'fast_direct', wire: 'plain' };

interface SetUp {
  readonly name: string;
  readonly options: LabOptions;
  readonly modes: readonly (readonly [Mode, Way])[];
}

const NATIVE = PROVIDER.name === 'native';
const setUps: readonly SetUp[] = [
  {
    name: 'nodes with a tunnel',
    options: {},
    modes: [
      ['masquerade', MASQUERADED],
      // On Open vSwitch not tried yet.
      ...(NATIVE
        ? ([
            ['auto', MASQUERADED],
            ['encap', ENCAPSULATED],
          ] as const)
        : []),
    ],
  },
  ...(NATIVE
    ? [{ name: 'nodes that route', options: { encapMode: 'noEncap' }, modes: [['direct', ROUTED]] } as const]
    : []),
];
const FAMILIES: readonly Family[] = NATIVE ? ['ipv4', 'ipv6'] : ['ipv4'];

describe.each(setUps)('$name', ({ options, modes }) => {
  let lab: Lab;
  let sidecars: LabSidecars | undefined;
  let a: Pod;
  let b: Pod;
  /** MTU of the way to the other pod, as each pod knows it without XMasq. */
  const told = new Map<Family, readonly string[]>();

  beforeAll(async () => {
    lab = await up({ podsPerNode: 1, router: true, ipv6: NATIVE, ...options });
    a = lab.node(0).pod(0);
    b = lab.node(1).pod(0);
    for (const family of FAMILIES) {
      await lowered(
        family,
        () => sleep(stretched(500)),
        async () => told.set(family, await knownMtu(family)),
      );
      await forget();
    }
  }, 60_000);
  afterEach(forget);
  afterAll(async () => {
    await sidecars?.down();
    await lab.down();
  });

  /** A transfer both ways; the MTU is lowered between `before` and, when the pods have been told, `after`. */
  async function lowered(
    family: Family,
    before: (port: number) => Promise<unknown>,
    after: (port: number) => Promise<unknown>,
    gapMs = GAP_MS,
  ): Promise<void> {
    await withTransfer(lab, { from: a, to: b, family }, MUCH, async ({ port, client, result }) => {
      await before(port);
      await lab.underlay.setMtu(UNDERLAY_MTU);
      await sleep(stretched(1000));
      await after(port);
      expect(client.running).toBe(true);
      const report = await result();
      expect(report).toMatchObject({ complete: true, corrupt: 0, peerCorrupt: 0, sent: AMOUNT, received: AMOUNT });
      expect(Math.max(report.maxGapMs, report.peerMaxGapMs)).toBeLessThan(atMostNatively(gapMs));
    });
  }

  async function knownMtu(family: Family): Promise<string[]> {
    const pairs = [
      [a, b],
      [b, a],
    ] as const;
    return Promise.all(
      pairs.map(async ([pod, other]) => {
        const { stdout } = await pod.exec(['ip', 'route', 'get', addressOf(other, family)]);
        return / mtu (\d+)/.exec(stdout)?.[1] ?? 'none';
      }),
    );
  }

  /** As before, for another try: nodes and pods forget what they were told. */
  async function forget(): Promise<void> {
    await lab.underlay.clear();
    const places = [...lab.nodes, a, b];
    await Promise.all(places.map((place) => place.sh('ip -4 route flush cache; ip -6 route flush cache')));
  }

  /** Nothing but neighbour discovery is slow, everything goes that way on both nodes; what crosses the first node's uplink meanwhile. */
  async function onlyThatWay(flow: WireFlow, { carried, counter, wire }: Way): Promise<Carriage[]> {
    if (sidecars === undefined) throw new Error('the sidecars are not running yet');
    await waitCarried(sidecars, { proto: IPPROTO.tcp, port: flow.port }, carried, CARRIED_MS);
    const counters = await watchCounters(sidecars);
    const reasons = await Promise.all(sidecars.nodes.map(watchReasons));
    const capture = await lab.node(0).capture({ snapLength: 192 });
    await sleep(stretched(300));
    const crossed = carriages(await capture.stop(), flow);
    for (const grown of await counters.since()) {
      expect(grown).toMatchObject({ [counter]: atLeast(50) });
    }
    for (const { since } of EMULATED ? [] : reasons)
      expect(['icmp_type']).toEqual(expect.arrayContaining(await since()));
    expect(new Set(crossed.map(({ how }) => how))).toEqual(new Set([wire]));
    expect(crossed.length).toEqual(atLeast(50));
    return crossed;
  }

  describe.each(modes)('mode %s', (mode, way) => {
    beforeAll(async () => {
      await sidecars?.down();
      sidecars = await startInMode(lab, mode);
    }, 60_000);

    test.each([
      ...FAMILIES.map((family) => [family, 'all offloads', OFFLOADS_ON] as const),
      // Emulation has no time for it.
      ...(EMULATED ? [] : [['ipv4', 'no offload', OFFLOADS_OFF] as const]),
    ])(
      '%s, %s: a running transfer goes on fast, with packets that fit',
      async (family, _offloads, offloads) => {
        await lab.offload(offloads);
        if (sidecars === undefined) throw new Error('the sidecars are not running yet');
        const counters = await watchCounters(sidecars);
        const reasons = await Promise.all(sidecars.nodes.map(watchReasons));
        const flow = (port: number): WireFlow => ({ from: a, to: b, proto: 'tcp', port, family });
        await lowered(
          family,
          (port) => onlyThatWay(flow(port), way),
          async (port) => {
            const crossed = await onlyThatWay(flow(port), way);
            const sizes = crossed.map(({ frame }) => network(frame)?.length ?? 0);
            if (offloads === OFFLOADS_OFF) expect(Math.max(...sizes)).toBeLessThanOrEqual(UNDERLAY_MTU);
            expect(await knownMtu(family)).toEqual(told.get(family));
          },
          way === ENCAPSULATED ? TUNNEL_GAP_MS : GAP_MS,
        );
        for (const grown of await counters.since()) {
          // Routers tell of masqueraded packets the nodes, of others nodes' kernels or pods, which need no help.
          expect(grown.icmp_error).toEqual(way === MASQUERADED ? atLeast(1) : 0);
          expect(grown.black_hole).toBeLessThanOrEqual(atMostNatively(0));
        }
        // Slow in between is only what no longer fits, which is how the tunnel's kernel tells the pod; and neighbour discovery. The
        // first connection of all finds nodes that have not heard of each other.
        // Emulation has more of them: its sidecars and acknowledgements come late.
        for (const { since } of EMULATED ? [] : reasons) {
          const slow = await since();
          expect([...ENDS_OF_A_CONNECTION, 'peer_silent', 'icmp_type', 'too_big']).toEqual(
            expect.arrayContaining(slow),
          );
          expect(slow.includes('too_big')).toBe(way === ENCAPSULATED);
        }
      },
      60_000,
    );
  });
});
