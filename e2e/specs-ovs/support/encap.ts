/**
 * What mode encap has to do beside Open vSwitch, whatever the tunnel: its packets are those of Open vSwitch's own tunnel, and
 * both kinds of node, with XMasq and without, take them for such.
 */
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { sleep } from '../../lab/lab.ts';
import type { OffloadFlags, Pod, TunnelOptions } from '../../lab/lab.ts';
import { residue, up } from '../../lab/ovs/ovs.ts';
import type { OvsLab } from '../../lab/ovs/ovs.ts';
import type { CapturedPacket } from '../../lab/pcap.ts';
import { ADMISSION, stretched } from '../../lab/scale.ts';
import type { LabSidecars } from '../../lab/sidecar.ts';
import { watchCounters } from '../../specs/support/counters.ts';
import { EncapTraffic, FAST_SECONDS, expectSlowPathsOwn } from '../../specs/support/encap-traffic.ts';
import type { Make } from '../../specs/support/encap-traffic.ts';
import { attachments } from '../../specs/support/footprint.ts';
import { atLeast } from '../../specs/support/matchers.ts';
import { startInMode } from '../../specs/support/modes.ts';
import { exchange, nextHopMac, observe } from '../../specs/support/traffic.ts';
import type { Observation } from '../../specs/support/traffic.ts';
import { comparable, innerFrame } from '../../specs/support/tunnel.ts';

const OFF: OffloadFlags = { tso: false, gso: false, gro: false, tx: false, 'tx-udp-segmentation': false };
const ON: OffloadFlags = { tx: true, sg: true, tso: true, gso: true, gro: true, 'tx-udp-segmentation': true };
const STREAM_BYTES = 3_000_000;
/** Client's and server's port of the flow whose packets are sent again, with XMasq and without. */
const REPEATED = { sport: 9200, port: 9201 } as const;
/** Packets of a flow that are slow before it is known how they are sent and delivered. */
const LEARNING = 10;

/**
 * Declares the specs of one kind of tunnel. They count packets, of which some more are slow where the sidecar approves.
 * `brief`: without what does not depend on the header, to save minutes of emulation.
 */
export function describeEncap(name: string, tunnel: TunnelOptions, { brief = false } = {}): void {
  (ADMISSION === 'conntrack' ? describe : describe.skip)(name, () => {
    let lab: OvsLab;
    let sidecars: LabSidecars;
    let traffic: EncapTraffic;
    let a: Pod;
    let repeated: readonly Buffer[];
    /** By what is inside: the frames that left the first node's uplink without XMasq. */
    let slowFrames: ReadonlyMap<string, CapturedPacket>;
    let slowly: ReadonlyMap<string, Observation>;

    beforeAll(async () => {
      lab = await up({ podsPerNode: 1, tunnel });
      await lab.offload(OFF);
      traffic = await EncapTraffic.between(lab);
      a = lab.node(0).pod(0);
      const flow = { ...traffic.fresh('udp'), ...REPEATED };
      repeated = traffic.oddFrames(flow, await nextHopMac(a, flow.to));
      // Fewer kinds than natively: emulation carries them one after the other.
      slowly = await observe(
        lab,
        kinds().map((make) => make(1)),
      );
      slowFrames = await whileAssured(() => traffic.sendFrames(repeated));
      sidecars = await startInMode(lab, 'encap');
    }, 60_000);
    afterAll(async () => {
      await sidecars.down();
      await lab.down();
      expect(residue(lab)).toEqual([]);
    });

    /** Every protocol, small and as large as can be. */
    function kinds(): Make[] {
      const largest = String(a.mtu - 28);
      return [
        traffic.tcpBulk(65536, '0xb8'),
        traffic.udp(['--size', '333', '--df', 'dont', '--tos', '0x39'], ['--df', 'dont']),
        traffic.icmp(['-s', largest, '-M', 'do', '-Q', '0x40', '-t', '33']),
      ];
    }

    /** What leaves the first node's uplink in the tunnel, by what is inside. */
    async function captured(use: () => Promise<unknown>): Promise<Map<string, CapturedPacket>> {
      const filter = `udp dst port ${lab.node(0).tunnel.port}`;
      const capture = await lab.node(0).capture({ direction: 'out', filter });
      await use();
      const { packets, dropped } = await capture.stop();
      expect(dropped).toBe(0);
      return new Map(packets.map((packet) => [innerFrame(packet), packet]));
    }

    /** As `captured`, once conntrack takes the repeated flow for a stream. */
    async function whileAssured(use: () => Promise<unknown>): Promise<Map<string, CapturedPacket>> {
      const running = traffic.udpOnPorts(REPEATED.sport, REPEATED.port)(FAST_SECONDS).run();
      await sleep(stretched(600));
      const frames = await captured(use);
      await running;
      return frames;
    }

    test('the same packet of a pod is the same packet on the wire, by XMasq and by Open vSwitch', async () => {
      await lab.offload(OFF);
      const make = traffic.udpOnPorts(REPEATED.sport, REPEATED.port);
      const { out, counters } = await traffic.whileFast(sidecars, [make], () => traffic.sendFrames(repeated));
      const fastFrames = new Map(out[0]?.map((packet) => [innerFrame(packet), packet]));
      const both = [...slowFrames].filter(([inner]) => fastFrames.has(inner));
      // Everything that was repeated; what the client sent besides differs.
      expect(both.length).toEqual(atLeast(repeated.length));
      for (const [inner, slow] of both) {
        const fast = fastFrames.get(inner);
        expect(fast && comparable(fast)).toBe(comparable(slow));
        expect([fast?.ip?.checksumValid, fast?.l4?.checksumValid]).toEqual([true, slow.l4?.checksumValid]);
      }
      // A checksum over an inner packet without one would have to be made by reading it.
      const unsummed = tunnel.checksum === true ? repeated.length / 4 : 0;
      expect(counters[0]).toMatchObject({ slow_tx: unsummed, fast_encap: atLeast(repeated.length - unsummed) });
    }, 60_000);

    test('what we encapsulate is byte for byte what Open vSwitch’s own port makes of the same inner frame', async () => {
      await lab.offload(OFF);
      const { out, counters } = await traffic.whileFast(sidecars, kinds());
      for (const [i, node] of lab.nodes.entries()) {
        const packets = out[i] ?? [];
        expect(new Set(packets.map(({ l4 }) => l4?.dport))).toEqual(new Set([node.tunnel.port]));
        expect(packets.length).toEqual(atLeast(50));
        // Nearly all of it was ours: on a slow machine the end of a connection may come before that of the capture.
        expect(counters[i]).toMatchObject({ fast_encap: atLeast(0.9 * packets.length) });
        expect(await expectSlowPathsOwn(node, lab.node(1 - i), packets)).toEqual(atLeast(10));
      }
    }, 60_000);

    (brief ? test.skip : test)(
      'the receiving node takes them to the pod itself, and pods see what they see by Open vSwitch',
      async () => {
        await lab.offload(OFF);
        const counters = await watchCounters(sidecars);
        const fast = await observe(
          lab,
          kinds().map((make) => make(FAST_SECONDS)),
        );
        const [here, there] = await counters.since();
        for (const [kind, { forward, backward }] of fast) {
          const before = slowly.get(kind);
          for (const [way, slow] of [
            [forward, before?.forward],
            [backward, before?.backward],
          ] as const) {
            expect({ kind, ...way }).toMatchObject({
              ...{ kind, strays: [], unmatched: 0, lost: 0, wrongChecksums: 0, marked: 0 },
              ...{ changes: slow?.changes, headers: slow?.headers },
            });
          }
        }
        for (const [sender, receiver] of [
          [here, there],
          [there, here],
        ]) {
          expect(sender?.fast_encap).toEqual(atLeast(200));
          expect(receiver?.decapsulated).toEqual(atLeast((sender?.fast_encap ?? 0) - LEARNING * kinds().length));
          expect((sender?.fast_tx ?? 0) + (sender?.restored ?? 0)).toBe(0);
        }
      },
      60_000,
    );

    test.each([
      ['all offloads', ON],
      ['no offload', OFF],
    ])('with %s a stream arrives whole', async (_name, offloads) => {
      await lab.offload(offloads);
      const counters = await watchCounters(sidecars);
      const before = (await sidecars.node(0).status()).reasons.tunnel_checksum;
      await expectStream();
      const unsummed = (await sidecars.node(0).status()).reasons.tunnel_checksum - before;
      // Segments that the device makes cannot have a checksum in the outer header.
      if (tunnel.checksum === true && offloads === ON) expect(unsummed).toEqual(atLeast(20));
      else expect(unsummed).toBe(0);
      for (const each of await counters.since()) {
        expect(each).toMatchObject({ fast_encap: atLeast(20), decapsulated: atLeast(20) });
      }
    });

    async function expectStream(): Promise<void> {
      const flow = traffic.fresh('tcp');
      const size = String(STREAM_BYTES);
      const report = await exchange(lab, 'stream', flow, {
        common: ['--tcp', '--port', String(flow.port)],
        client: ['--up', size, '--down', size],
      });
      expect(report).toMatchObject({
        ...{ complete: true, corrupt: 0, peerCorrupt: 0, peerReceived: STREAM_BYTES, received: STREAM_BYTES },
      });
    }

    describe('to a node without XMasq', () => {
      beforeAll(async () => {
        const plain = sidecars.node(1);
        sidecars.setCapability(plain.node, undefined);
        await plain.stop();
        await plain.cleanup('--force');
        await sleep(stretched(2500));
      }, 60_000);

      test('all of it arrives by Open vSwitch, is answered, and looks as without XMasq', async () => {
        await lab.offload(OFF);
        expect(await attachments(lab.node(1))).toEqual([]);
        const only = { nodes: [sidecars.node(0)] };
        const received = await lab.node(1).tunnelReceived();
        const counters = await watchCounters(only);
        const observed = await observe(
          lab,
          kinds().map((make) => make(FAST_SECONDS)),
        );
        const [here] = await counters.since();
        expect(here).toMatchObject({ fast_encap: atLeast(200), decapsulated: atLeast(200), fast_tx: 0 });
        expect((await lab.node(1).tunnelReceived()) - received).toEqual(atLeast(here?.fast_encap ?? Infinity));
        for (const [kind, { forward, backward }] of observed) {
          const before = slowly.get(kind);
          // The IDs of what a node without XMasq sends are its pods' own.
          expect(forward.marked).toBe(0);
          for (const [way, slow] of [
            [forward, before?.forward],
            [backward, before?.backward],
          ] as const) {
            expect({ kind, ...way }).toMatchObject({
              ...{ kind, unmatched: 0, lost: 0, wrongChecksums: 0 },
              ...{ changes: slow?.changes, headers: slow?.headers },
            });
          }
        }
      }, 60_000);

      test('a stream with segments to be cut, too', async () => {
        await lab.offload(ON);
        const counters = await watchCounters({ nodes: [sidecars.node(0)] });
        await expectStream();
        expect(await counters.since()).toMatchObject([{ fast_encap: atLeast(20), decapsulated: atLeast(20) }]);
      });
    });
  });
}
