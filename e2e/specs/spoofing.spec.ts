/** What hostile pods try: other pods' addresses, forged keys, others' ports. Nothing of it comes through on the fast path. */
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { sleep } from '../lab/lab.ts';
import type { Node, Pod } from '../lab/lab.ts';
import { datagrams, freshPort, withServer } from '../lab/measure.ts';
import { up } from '../lab/native/native.ts';
import type { NativeLab } from '../lab/native/native.ts';
import { ADMISSION, EMULATED, stretched } from '../lab/scale.ts';
import { startSidecars } from '../lab/sidecar.ts';
import type { LabSidecars } from '../lab/sidecar.ts';
import { watchCounters } from './support/counters.ts';
import { watchPayload } from './support/foreign-bytes.ts';
import { attachForeign, compileForeign } from './support/foreign.ts';
import { forge, sendFrames } from './support/forge.ts';
import type { Forgery } from './support/forge.ts';
import { udpFrame } from './support/frames.ts';
import { atLeast } from './support/matchers.ts';
import { UNDISTURBED, besidePods } from './support/pod-traffic.ts';
import type { PodFlows } from './support/pod-traffic.ts';
import { tapStack } from './support/stack-tap.ts';
import { nextHopMac } from './support/traffic.ts';

/** In everything that the attackers send. */
const FORGED = 'forged by a pod of no good intent';
/** Frames per second: leaves the machine room for the victim. */
const RATE = 60_000;
/** IP IDs that are swept: all natively, some of both halves under emulation. Those from 0x8000 on have the marker. */
const ALL_IDS: readonly [number, number] = EMULATED ? [0x7e00, 0x83ff] : [0, 0xffff];
const MARKED_IDS: readonly [number, number] = [0x8000, ALL_IDS[1]];
const ALL = ALL_IDS[1] - ALL_IDS[0] + 1;
const MARKED = MARKED_IDS[1] - MARKED_IDS[0] + 1;
/** Of a slow client, two seconds apart. */
const EXCHANGES = EMULATED ? 20 : 4;
/** A Service's address, which the first node translates. */
const VIP = '10.96.0.10';

describe('hostile pods', () => {
  let lab: NativeLab;
  let sidecars: LabSidecars;
  let n1: Node;
  let n2: Node;
  /** The victims: client and server of the fast flows. */
  let a: Pod;
  let b: Pod;
  /** The attackers. */
  let c: Pod;
  let d: Pod;
  /** MAC addresses that frames to other nodes' pods carry, by node. */
  let hops: ReadonlyMap<Node, string>;

  beforeAll(async () => {
    lab = await up({ spoofGuard: true });
    sidecars = await startSidecars(lab);
    [n1, n2] = [lab.node(0), lab.node(1)];
    [a, c] = [n1.pod(0), n1.pod(1)];
    [b, d] = [n2.pod(0), n2.pod(1)];
    hops = new Map([
      [n1, await nextHopMac(c, b)],
      [n2, await nextHopMac(d, a)],
    ]);
  });
  afterAll(async () => {
    await sidecars.down();
    await lab.down();
  });

  const both = ['udp', 'tcp'] as const;
  const hop = (from: Pod): string => hops.get(from.node) ?? '';

  /** Sends forgeries one after the other; says how many packets. */
  async function forgeAll(from: Pod, forgeries: readonly Omit<Forgery, 'payload' | 'rate'>[]): Promise<number> {
    let sent = 0;
    for (const each of forgeries) {
      const [first, last] = each.ids ?? ALL_IDS;
      expect(await forge(lab, from, { ...each, ids: [first, last], payload: FORGED, rate: RATE })).toBe(
        last - first + 1,
      );
      sent += last - first + 1;
    }
    return sent;
  }

  /** Expects that the victims' flows were not touched at all by what `use` does, and that they stayed fast. */
  async function besideVictims(use: (flows: PodFlows) => Promise<void>): Promise<void> {
    const counters = await watchCounters(sidecars);
    const { udp, tcp, masqueraded } = await besidePods(lab, sidecars, { from: a, to: b }, async (flows) => {
      await use(flows);
      for (const proto of both) await sidecars.waitFast({ proto, port: flows.port }, 500);
    });
    expect({ udp, tcp }).toMatchObject(UNDISTURBED);
    expect(masqueraded.forward.sent).toBeGreaterThan(0);
    expect(masqueraded.forward.restored).toBe(masqueraded.forward.sent);
    expect(masqueraded.backward.restored).toBe(masqueraded.backward.sent);
    for (const grown of await counters.since()) {
      expect(grown).toMatchObject({ unknown_key: 0, incomplete: 0, own_lost: 0, reject_sent: 0, reject_received: 0 });
    }
  }

  const reasons = async (i: number): Promise<Awaited<ReturnType<typeof status>>['reasons']> =>
    (await status(i)).reasons;
  const status = (i: number): ReturnType<(typeof sidecars.nodes)[0]['status']> => sidecars.node(i).status();

  describe('with another pod’s 5-tuple', () => {
    /** Expects no forged byte at these pods and on the underlay. */
    async function nothingArrives(pods: readonly Pod[], use: () => Promise<void>): Promise<void> {
      const watches = await Promise.all(pods.map((pod) => watchPayload(lab, pod, FORGED)));
      const wire = await n2.capture({ filter: `host ${n1.address}` });
      await use();
      expect(await Promise.all(watches.map((watch) => watch.stop()))).toEqual(pods.map(() => 0));
      const { packets, dropped } = await wire.stop();
      expect(dropped).toBe(0);
      expect(packets.filter(({ bytes }) => bytes.includes(FORGED)).slice(0, 3)).toEqual([]);
    }

    test.each([
      ['of the client, from the same node', () => ({ from: c, as: a, to: b, reverse: false, node: 0 })],
      ['of the client, from the server’s node', () => ({ from: d, as: a, to: b, reverse: false, node: 1 })],
      ['of the server, from the same node', () => ({ from: d, as: b, to: a, reverse: true, node: 1 })],
      ['of the server, from the client’s node', () => ({ from: c, as: b, to: a, reverse: true, node: 0 })],
    ])(
      '%s, with its MAC or its own, gets nothing through',
      async (_, who) => {
        const { from, as, to, reverse, node } = who();
        await besideVictims(async ({ sport, port }) => {
          const before = await reasons(node);
          let sent = 0;
          await nothingArrives([a, b], async () => {
            const ports = reverse ? { sport: port, dport: sport } : { sport, dport: port };
            const dstMac = from.node === to.node ? to.mac : hop(from);
            sent = await forgeAll(
              from,
              both.flatMap((proto) =>
                [from.mac, as.mac].map((srcMac) => ({
                  srcMac,
                  dstMac,
                  src: as.address,
                  dst: to.address,
                  proto,
                  ...ports,
                })),
              ),
            );
          });
          expect((await reasons(node)).spoof - before.spoof).toBe(sent);
        });
      },
      60_000,
    );

    test('the pod itself gets nothing through with another source MAC', async () => {
      await besideVictims(async ({ sport, port }) => {
        const before = await reasons(0);
        const to = { dstMac: hop(a), dst: b.address, sport, dport: port };
        await nothingArrives([b, d], async () => {
          await forgeAll(
            a,
            both.map((proto) => ({ ...to, proto, srcMac: c.mac })),
          );
        });
        expect((await reasons(0)).spoof - before.spoof).toBe(2 * ALL);
      });
    }, 60_000);

    test('nor before the victim’s own packets, when the node has forgotten the connection', async () => {
      const port = freshPort();
      const sport = freshPort();
      const rr = lab.tool('rr');
      const server = [rr, 'server', '--tcp', '--bind', b.address, '--port', String(port), '--size', '100'];
      await withServer(b, server, async () => {
        // One exchange every two seconds: enough time for others to be first.
        const pace = ['--interval-us', '2000000', '--count', String(EXCHANGES), '--size', '100', '--json'];
        const to = ['--to', b.address, '--port', String(port), '--sport', String(sport)];
        const client = await a.spawn([rr, 'client', '--tcp', ...to, ...pace, '--timeout-ms', String(stretched(5000))]);
        const [flow] = await sidecars.waitFast({ proto: 'tcp', port }, 10_000);
        expect(flow?.sourceIp).toBe(a.address);
        for (const sidecar of sidecars.nodes) sidecar.maps.wipe();
        const before = await reasons(0);
        await nothingArrives([a, b], async () => {
          const forgery = {
            dstMac: hop(c),
            src: a.address,
            dst: b.address,
            proto: 'tcp',
            sport,
            dport: port,
          } as const;
          for (const srcMac of [c.mac, a.mac]) {
            await forge(lab, c, { ...forgery, srcMac, ids: [0x8000, 0x80ff], payload: FORGED });
          }
        });
        expect((await reasons(0)).spoof - before.spoof).toBe(512);
        // Admitted for the attacker's interface, the flow's answers would be the attacker's.
        const ifindexOfA = sidecars.node(0).maps.use(({ endpointByAddr, endpoints }) => {
          const [entry] = [...endpointByAddr.entries()].filter(([address]) => address === a.address);
          return entry === undefined ? undefined : endpoints.get(entry[1]).ifindex;
        });
        const learned = sidecars
          .node(0)
          .maps.flows()
          .filter(([key]) => key.sport === sport && key.dport === port);
        expect(learned.filter(([key]) => key.ifindex !== ifindexOfA)).toEqual([]);
        expect(await client.json()).toMatchObject({ transactions: EXCHANGES, errors: 0, corrupt: 0 });
      });
    }, 60_000);
  });

  describe('with forged keys', () => {
    /** Captures of what leaves the node as if masqueraded or announcing, and what of it was forged. */
    async function nothingLeaves(use: () => Promise<void>): Promise<void> {
      const tunnel = n1.tunnel.port;
      const marked = `ip[4] & 0x80 != 0 and ip[6] & 0x40 != 0 and not udp port ${tunnel}`;
      // Inside the tunnel (VXLAN, or Geneve without options) the pod's IP header begins 30 bytes behind the outer UDP header.
      const announcing = `udp port ${tunnel} and udp[34] & 0x80 != 0`;
      const wire = await n2.capture({
        direction: 'in',
        filter: `src host ${n1.address} and ((${marked}) or (${announcing}))`,
      });
      const watch = await watchPayload(lab, b, FORGED, a.address);
      await use();
      expect(await watch.stop()).toBe(0);
      const { packets, dropped } = await wire.stop();
      expect(dropped).toBe(0);
      expect(packets.length).toBeGreaterThan(0);
      expect(packets.filter(({ bytes }) => bytes.includes(FORGED)).slice(0, 3)).toEqual([]);
    }

    async function withService(flows: PodFlows, use: () => Promise<void>): Promise<void> {
      const translate = (port: number, to: string): string =>
        `ip daddr ${VIP} th dport ${port} meta l4proto { tcp, udp } dnat to ${to}`;
      const ruleset = `
table ip service {
  chain prerouting {
    type nat hook prerouting priority dstnat; policy accept;
    ${translate(flows.port, n2.address)}
    ${translate(flows.port + 1, `${b.address}:${flows.port}`)}
  }
}
`;
      await n1.exec(['nft', '-f', '-'], { input: ruleset });
      try {
        await use();
      } finally {
        await n1.exec(['nft', 'delete', 'table', 'ip', 'service']);
      }
    }

    /** With the victims' ports as they are on the underlay: towards pods, the nodes and a Service. */
    const targets = ({ sport, port }: PodFlows): Omit<Forgery, 'payload' | 'rate'>[] => {
      const common = { dstMac: hop(c), sport, dport: port, ids: MARKED_IDS };
      return [
        // The lower half of the IDs has no marker: once is enough.
        { ...common, proto: 'udp', dst: n2.address, ids: ALL_IDS },
        { ...common, proto: 'tcp', dst: n2.address },
        ...both.flatMap((proto) => [VIP, b.address].map((dst) => ({ ...common, proto, dst }))),
        { ...common, proto: 'udp', dst: VIP, dport: port + 1 },
        { ...common, proto: 'udp', dst: d.address },
        { ...common, proto: 'udp', dst: n1.address },
        { ...common, proto: 'udp', dst: a.address, dstMac: a.mac },
        { ...common, proto: 'icmp', dst: n2.address },
      ];
    };

    test('sweeping all IP IDs towards pods, a Service and the nodes on a victim’s ports achieves nothing', async () => {
      await besideVictims(async (flows) => {
        const { sport, port } = flows;
        const tap = await tapStack(n2, {
          udp: `ip saddr ${n1.address} udp sport ${sport} udp dport ${port}`,
          tcp: `ip saddr ${n1.address} tcp sport ${sport} tcp dport ${port}`,
        });
        const atPod = await tapStack(d, {
          marked: `ip saddr ${c.address} ip id >= 0x8000`,
          all: `ip saddr ${c.address}`,
        });
        const counters = await watchCounters(sidecars);
        await nothingLeaves(() => withService(flows, () => forgeAll(c, targets(flows)).then(() => undefined)));
        // The attack was a real one: translated to the node's address, it had the ports of the victims' packets.
        // What the Service made of it has another source port if it is tracked in the same zone.
        expect(await tap.counts()).toEqual({ udp: atLeast(ALL), tcp: atLeast(MARKED) });
        expect(await atPod.counts()).toEqual({ marked: 0, all: MARKED });
        const [grown] = await counters.since();
        expect(grown?.marker_cleared).toEqual(atLeast(targets(flows).length * MARKED));
        await tap.remove();
        await atPod.remove();
      });
    }, 120_000);

    test('tagged frames, nested tags, fragments, options: the same', async () => {
      await besideVictims(async ({ sport, port }) => {
        const ids = Array.from({ length: EMULATED ? 32 : 512 }, (_, i) => 0x8000 | (i << 6));
        const plain = [n2.address, b.address].flatMap((dst) =>
          ids.map((id) =>
            udpFrame({
              ...{ srcMac: c.mac, dstMac: hop(c), src: c.address, dst, sport, dport: port, id },
              payload: Buffer.from(FORGED),
            }),
          ),
        );
        const tags = [[0], [5], [0, 0], [5, 0], [0, 5]];
        const frames = tags.flatMap((list) => plain.map((frame) => tagged(frame, list)));
        const forgery = {
          dstMac: hop(c),
          proto: 'udp',
          sport,
          dport: port,
          payload: FORGED,
          size: 80,
        } as const;
        const variants = [['--mf'], ['--frag-offset', '8'], ['--frag-offset', '1024'], ['--options'], ['--ttl', '1']];
        await nothingLeaves(async () => {
          expect(await sendFrames(lab, c, frames, { rate: RATE })).toBe(frames.length);
          for (const dst of [n2.address, b.address]) {
            for (const options of variants) {
              await forge(lab, c, { ...forgery, dst, options, ids: [0x8000, EMULATED ? 0x80ff : 0x8fff], rate: RATE });
            }
          }
        });
      });
    }, 120_000);

    test('packets that the kernel cuts do not count into the marker', async () => {
      // Real NICs cut later than this node does without offloads: the IDs are the same.
      await n1.offload({ sg: false, tso: false, gso: false, tx: false, 'tx-udp-segmentation': false });
      try {
        const dport = freshPort();
        const ids = EMULATED
          ? [0x7fc1, 0x7fff, 0xffff]
          : [0, 0x3fff, 0x7f80, 0x7fc1, 0x7fd8, 0x7ffe, 0x7fff, 0x8000, 0xbfff, 0xffc1, 0xffff];
        const inner = (field: string): string => `(udp port ${n1.tunnel.port} and ${field})`;
        const wire = await n2.capture({
          direction: 'in',
          filter: `src host ${n1.address} and (dst port ${dport} or ${inner(`udp[52:2] = ${dport}`)})`,
        });
        let cut = 0;
        for (const proto of both) {
          for (const dst of [n2.address, d.address]) {
            for (const [size, segment] of [
              [40_000, 1000],
              [63_000, 1300],
              [60_000, 500],
              [840, 7],
            ] as const) {
              for (const id of ids) {
                const forgery = { dstMac: hop(c), dst, proto, sport: freshPort(), dport } as const;
                const options = ['--gso-size', String(segment)];
                await forge(lab, c, { ...forgery, size, options, ids: [id, id] });
                cut += Math.ceil(size / segment);
              }
            }
          }
        }
        const { packets, dropped } = await wire.stop();
        expect(dropped).toBe(0);
        expect(packets.length).toBeGreaterThan(cut / 2);
        const headers = packets.map((packet) => packet.inner?.ip ?? packet.ip);
        expect(headers.filter((ip) => ip?.df === true && (ip.id & 0x8000) !== 0).slice(0, 3)).toEqual([]);
      } finally {
        await n1.offload({ sg: true, tso: true, gso: true, tx: true, 'tx-udp-segmentation': true });
      }
    }, 120_000);

    // The foreign program attaches by TCX.
    const withTcx = ADMISSION === 'conntrack' ? test : test.skip;
    withTcx(
      'pod_egress alone is enough: the same where another program hides uplink_egress',
      async () => {
        await besideVictims(async (flows) => {
          // The sidecar would put its program first again.
          await sidecars.node(0).stop();
          const foreign = await attachForeign(n1, compileForeign(lab), 'egress');
          try {
            const towardsNode = targets(flows).filter(({ dst }) => dst === n2.address || dst === VIP);
            await nothingLeaves(() => withService(flows, () => forgeAll(c, towardsNode).then(() => undefined)));
          } finally {
            await foreign.stop();
            await sidecars.node(0).start();
            await sidecars.node(0).waitReady();
          }
        });
      },
      120_000,
    );
  });

  test('two colluding pods on a victim’s ports stay slow and do not touch it', async () => {
    await besideVictims(async ({ sport, port }) => {
      const tap = await tapStack(b, { all: `ip saddr ${c.address}` });
      const pace = [
        '--reply',
        '--seconds',
        String(stretched(5)),
        '--rate',
        String(300 / stretched(1)),
        '--sport',
        String(sport),
        '--bind',
        c.address,
      ];
      const traffic = datagrams(lab, { from: c, to: d }, pace, { port });
      traffic.catch(() => undefined); // heard of below
      const refused = (i: number, sourceIp: string): Promise<unknown> =>
        sidecars.node(i).flows({ proto: 'udp', port, sourceIp });
      await sleep(stretched(4000));
      const seen = [await refused(0, c.address), await refused(1, d.address)];
      const colluders = { path: 'slow', reason: 'slot_taken', admitted: false, txPackets: 0 };
      expect(seen).toMatchObject([[colluders], [colluders]]);
      expect(await traffic).toMatchObject({ foreign: 0, peer: { lost: 0, corrupt: 0 }, echo: { lost: 0, corrupt: 0 } });
      expect(await tap.counts()).toEqual({ all: 0 });
      await tap.remove();
    });
  }, 60_000);
});

/** The frame with these VLAN identifiers, the outermost first. */
function tagged(frame: Buffer, vlans: readonly number[]): Buffer {
  const tags = vlans.map((vlan) => Buffer.from([0x81, 0x00, vlan >> 8, vlan & 255]));
  return Buffer.concat([frame.subarray(0, 12), ...tags, frame.subarray(12)]);
}
