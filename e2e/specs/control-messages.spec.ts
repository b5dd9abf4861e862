/** Rejections, acknowledgements and masqueraded packets that others than the peer's data plane make up. */
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import type { Node, Place, Pod } from '../lab/lab.ts';
import { PROTOCOL_VERSION } from '../../plugin/src/dataplane/layout.ts';
import { up } from '../lab/native/native.ts';
import type { NativeLab } from '../lab/native/native.ts';
import { IPPROTO } from '../lab/packet.ts';
import { EMULATED } from '../lab/scale.ts';
import { startSidecars } from '../lab/sidecar.ts';
import type { LabSidecars } from '../lab/sidecar.ts';
import { controlFrame } from './support/control-message.ts';
import type { ControlMessage } from './support/control-message.ts';
import { watchCounters } from './support/counters.ts';
import { MARKED_IDS, forge, markedIdsWithout, sendFrames } from './support/forge.ts';
import { atMost } from './support/matchers.ts';
import { UNDISTURBED, besidePods } from './support/pod-traffic.ts';
import type { PodFlows } from './support/pod-traffic.ts';
import { tapped } from './support/stack-tap.ts';
import { nextHopMac } from './support/traffic.ts';

const both = ['udp', 'tcp'] as const;

/**
 * Acknowledgements of the peer's own: under emulation packets wait so long for each other that a node asks for them, and
 * some go slow meanwhile.
 */
const GENUINE = EMULATED ? 20 : 0;

/** An address on the underlay that is no node's. */
const STRANGER = '172.30.1.77';

/** Address and port of a Service whose endpoint is the other node's tunnel port. */
const VIP = '10.96.0.11';
const VIP_PORT = 7777;

describe('control messages', () => {
  let lab: NativeLab;
  let sidecars: LabSidecars;
  let n1: Node;
  let n2: Node;
  let a: Pod;
  let b: Pod;
  /** Where the strangers are: on the wire to the first node. */
  let stranger: Place;
  let strangerMac: string;

  beforeAll(async () => {
    lab = await up({ router: true });
    sidecars = await startSidecars(lab);
    [n1, n2] = [lab.node(0), lab.node(1)];
    [a, b] = [n1.pod(0), n2.pod(0)];
    if (lab.underlay.place === undefined) throw new Error('no place on the underlay');
    stranger = lab.underlay.place;
    const { stdout } = await stranger.exec(['ip', '-j', 'link', 'show', 'dev', stranger.device]);
    strangerMac = (JSON.parse(stdout) as { address: string }[])[0]?.address ?? '';
  });
  afterAll(async () => {
    await sidecars.down();
    await lab.down();
  });

  /** Puts frames on the wire to the first node, as if from this address. */
  const frame = (message: ControlMessage, src: string): Buffer =>
    controlFrame(message, { srcMac: strangerMac, dstMac: n1.mac, src, dst: n1.address, port: n1.tunnel.port });

  /** The flow of the first node's pod, and the key that it sends with. */
  function flowOf(flows: PodFlows, proto: 'udp' | 'tcp'): { proto: number; sport: number; dport: number; key: number } {
    const number = IPPROTO[proto];
    const found = sidecars
      .node(0)
      .maps.flows()
      .find(([key]) => key.proto === number && key.sport === flows.sport && key.dport === flows.port);
    if (found === undefined) throw new Error(`no ${proto} flow`);
    return { proto: number, sport: flows.sport, dport: flows.port, key: found[1].peerKey };
  }

  /**
   * Runs `use` beside the victims' flows, expects them to be as fast as before with the same keys, and says what it did to
   * the counters of both nodes.
   */
  async function unharmed(
    use: (flows: PodFlows) => Promise<void>,
  ): Promise<Awaited<ReturnType<Awaited<ReturnType<typeof watchCounters>>['since']>>> {
    const { value, udp, tcp, masqueraded } = await besidePods(lab, sidecars, { from: a, to: b }, async (flows) => {
      const before = both.map((proto) => flowOf(flows, proto));
      const slow = await slowPackets(flows);
      const counters = await watchCounters(sidecars);
      await use(flows);
      const grown = await counters.since();
      expect(both.map((proto) => flowOf(flows, proto))).toEqual(before);
      // Not one packet went slow.
      if (!EMULATED) expect(await slowPackets(flows)).toEqual(slow);
      for (const proto of both) await sidecars.waitFast({ proto, port: flows.port }, 100);
      return grown;
    });
    expect({ udp, tcp }).toMatchObject(UNDISTURBED);
    expect(masqueraded.forward.restored).toBe(masqueraded.forward.sent);
    expect(masqueraded.backward.restored).toBe(masqueraded.backward.sent);
    for (const grown of value) expect(grown).toMatchObject({ reject_received: 0, flow_demoted: 0, black_hole: 0 });
    return value;
  }

  const slowPackets = async ({ port }: PodFlows): Promise<number[]> =>
    (await Promise.all(sidecars.nodes.map((sidecar) => sidecar.flows({ port }))))
      .flat()
      .map((flow) => flow.slowPackets);

  const COUNT = 300;

  test.each<[string, (right: ControlMessage) => readonly ControlMessage[], (() => string) | undefined]>([
    ['right ones from an address that is no peer’s', (right) => [right], () => STRANGER],
    [
      'from the peer’s address with each other key',
      (right) => others(right.key, 256).map((key) => ({ ...right, key })),
      undefined,
    ],
    [
      'with another version',
      (right) => others(PROTOCOL_VERSION, 256).map((version) => ({ ...right, version })),
      undefined,
    ],
    [
      'of unknown types',
      (right) =>
        others(1, 256)
          .filter((type) => type > 3)
          .map((type) => ({ ...right, type })),
      undefined,
    ],
    [
      'for other protocols',
      (right) =>
        others(right.proto, 256)
          .filter(isNotOurs)
          .map((proto) => ({ ...right, proto })),
      undefined,
    ],
    ['for the opposite direction', (right) => [{ ...right, sport: right.dport, dport: right.sport }], undefined],
    ['for other ports', (right) => others(right.sport, 300).map((sport) => ({ ...right, sport })), undefined],
  ])(
    '%s are ignored',
    async (_, make, from) => {
      let sent = 0;
      const [grown] = await unharmed(async (flows) => {
        const src = from?.() ?? n2.address;
        const frames = both.flatMap((proto) =>
          [1, 2].flatMap((type) => {
            const right = { type, ...flowOf(flows, proto) };
            return make(right).map((message) => frame({ type, ...message }, src));
          }),
        );
        sent = await sendFrames(lab, stranger, frames, { repeat: Math.ceil(COUNT / frames.length) });
      });
      expect(sent).toBeGreaterThanOrEqual(COUNT);
      expect(grown).toMatchObject({ reject_ignored: sent, ack_received: atMost(GENUINE) });
    },
    30_000,
  );

  test('cut ones and such without the tag are left to the tunnel, which drops them', async () => {
    const [grown] = await unharmed(async (flows) => {
      const frames = both.flatMap((proto) => {
        const right = flowOf(flows, proto);
        const cut = [1, 8, 19].map((length) => frame({ ...right, length }, n2.address));
        return [...cut, ...[0, 0x08, 0xc0, 0xff].map((tag) => frame({ ...right, tag }, n2.address))];
      });
      await sendFrames(lab, stranger, frames, { repeat: 20 });
    });
    expect(grown).toMatchObject({ reject_ignored: 0, ack_received: atMost(GENUINE) });
  }, 30_000);

  test('a flood of 10,000 with wrong keys changes nothing', async () => {
    let sent = 0;
    const [grown] = await unharmed(async (flows) => {
      const frames = both.flatMap((proto) => {
        const right = flowOf(flows, proto);
        return others(right.key, 256).map((key) => frame({ ...right, key }, n2.address));
      });
      sent = await sendFrames(lab, stranger, frames, { repeat: Math.ceil(10_000 / frames.length) });
    });
    expect(sent).toBeGreaterThanOrEqual(10_000);
    expect(grown?.reject_ignored).toBe(sent);
  }, 30_000);

  test('a flood of packets with unknown keys, as if from the peer, is dropped, answered at most 100 times a second and harms no flow', async () => {
    let sent = 0;
    let seconds = 0;
    const [first, second] = await unharmed(async (flows) => {
      const started = performance.now();
      for (const proto of both) {
        // Another flow, of which the node knows nothing, and the victims' own with all keys but theirs.
        const other = { sport: flows.port, dport: flows.sport - 1 };
        const own = { sport: flows.port, dport: flows.sport };
        const keys = keysOf(flows, proto);
        for (const [ports, ranges] of [
          [other, [MARKED_IDS]],
          [own, markedIdsWithout(keys)],
        ] as const) {
          for (const ids of ranges) {
            sent += await forge(lab, stranger, {
              ...{ srcMac: strangerMac, dstMac: n1.mac, src: n2.address, dst: n1.address, proto, ids, ...ports },
              ...{ payload: 'nobody sent this', rate: 30_000 },
            });
          }
        }
      }
      seconds = (performance.now() - started) / 1000;
    });
    expect(sent).toBeGreaterThan(10_000);
    expect(first).toMatchObject({ unknown_passed: 0, incomplete: 0 });
    // Those with the key of probes are probes: answered as such, under the same limit.
    const probes = sent - (first?.unknown_key ?? 0);
    expect(probes).toBeLessThanOrEqual(sent / 250);
    const { reject_sent = 0, reject_limited = 0, probe_received = 0 } = first ?? {};
    expect(reject_sent + reject_limited + probe_received).toBe(sent);
    // The allowance of a second may be there at the beginning.
    expect(first?.reject_sent).toBeLessThanOrEqual(100 * (seconds + 2));
    expect(second).toMatchObject({ reject_ignored: first?.reject_sent });
  }, 60_000);

  test('packets that look masqueraded, from an address that is no peer’s, are somebody’s plain packets', async () => {
    const [grown] = await unharmed(async ({ sport, port }) => {
      const match = `ip saddr ${STRANGER} udp dport ${sport}`;
      const got = await tapped(n1, { all: match }, async () => {
        await forge(lab, stranger, {
          ...{ srcMac: strangerMac, dstMac: n1.mac, src: STRANGER, dst: n1.address, proto: 'udp' },
          ...{ sport: port, dport: sport, ids: MARKED_IDS, rate: 30_000 },
        });
      });
      expect(got).toEqual({ all: 32_768 });
    });
    expect(grown).toMatchObject({ unknown_key: 0, unknown_passed: 0, reject_sent: 0 });
  }, 30_000);

  test('a pod that sends them through its node’s address achieves nothing', async () => {
    // What a pod sends to a node leaves with its own node's address as the source: the peer's. By way of a Service, because
    // the lab's nodes do not translate what goes to the tunnel port (Antrea's do, if it is not addressed to themselves).
    const attacker = n2.pod(1);
    const ruleset = `
table ip service {
  chain prerouting {
    type nat hook prerouting priority dstnat; policy accept;
    ip daddr ${VIP} udp dport ${VIP_PORT} dnat to ${n1.address}:${n1.tunnel.port}
  }
}
`;
    await n2.exec(['nft', '-f', '-'], { input: ruleset });
    const [grown] = await unharmed(async (flows) => {
      const way = {
        ...{ srcMac: attacker.mac, dstMac: await nextHopMac(attacker, a), src: attacker.address, dst: VIP },
        port: VIP_PORT,
      };
      const crossing = await n2.capture({
        filter: `host ${n1.address} and udp port ${n1.tunnel.port} and udp[8] = 0xc1`,
      });
      const frames = both.flatMap((proto) =>
        [1, 2].flatMap((type) =>
          Array.from({ length: 256 }, (_, key) => controlFrame({ ...flowOf(flows, proto), type, key }, way)),
        ),
      );
      expect(await sendFrames(lab, attacker, frames)).toBe(1024);
      expect((await crossing.stop()).packets.length).toBeLessThanOrEqual(GENUINE);
    });
    await n2.exec(['nft', 'delete', 'table', 'ip', 'service']);
    expect(grown).toMatchObject({ ack_received: atMost(GENUINE), reject_received: 0, reject_ignored: 0 });
  }, 30_000);

  test('a right one, which only the peer can know, slows the flow down and no more', async () => {
    const { udp, tcp } = await besidePods(lab, sidecars, { from: a, to: b }, async (flows) => {
      for (const proto of both) {
        const counters = await watchCounters(sidecars);
        const slow = async (): Promise<number> => {
          const [flow] = await sidecars.node(0).flows({ proto, port: flows.port });
          return flow?.slowPackets ?? NaN;
        };
        const before = await slow();
        await sendFrames(lab, stranger, [frame(flowOf(flows, proto), n2.address)]);
        await sidecars.waitFast({ proto, port: flows.port }, 10_000);
        expect((await counters.since())[0]).toMatchObject({ reject_received: 1, reject_ignored: 0 });
        expect(await slow()).toBeGreaterThan(before);
      }
    });
    expect({ udp, tcp }).toMatchObject(UNDISTURBED);
  }, 60_000);

  /** The key that the first node restores the flow's packets by. */
  function keysOf(flows: PodFlows, proto: 'udp' | 'tcp'): number {
    const found = sidecars
      .node(0)
      .maps.slots()
      .find(([key]) => key.proto === IPPROTO[proto] && key.sport === flows.port && key.dport === flows.sport);
    if (found === undefined) throw new Error(`no ${proto} slot`);
    return found[1].key;
  }
});

/** All numbers below `count` but this one. */
function others(but: number, count: number): number[] {
  return Array.from({ length: count }, (_, i) => i).filter((i) => i !== but);
}

/* The victims have flows of both. */
function isNotOurs(proto: number): boolean {
  return proto !== IPPROTO.udp && proto !== IPPROTO.tcp;
}
