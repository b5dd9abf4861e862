/**
 * What changes between the nodes while streams run: MAC addresses of next hops, a node's own transport address, the state of
 * its uplink. No packet goes to (or carries) a MAC address of before for more than a second, and flows become fast again.
 */
import { isDeepStrictEqual } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { addressOf, eventually, sleep } from '../lab/lab.ts';
import type { Family, Place } from '../lab/lab.ts';
import type { DatagramResult, TransferResult } from '../lab/measure.ts';
import { up } from '../lab/native/native.ts';
import type { NativeLab } from '../lab/native/native.ts';
import { network } from '../lab/packet.ts';
import type { CapturedPacket } from '../lab/pcap.ts';
import type { LabSidecars } from '../lab/sidecar.ts';
import { watchStack } from './support/counters.ts';
import { protocolNumber } from './support/delivery.ts';
import { atLeast, atMost } from './support/matchers.ts';
import { flowsOf, startInMode, waitCarried } from './support/modes.ts';
import type { FlowEnds, Mode } from './support/modes.ts';
import { withDatagrams, withTransfer } from './support/streams.ts';

const FAMILIES: readonly Family[] = ['ipv4', 'ipv6'];
const SECOND_MS = 1000;
/** TCP bytes per second and direction. */
const PACE = 300_000;
/** From the beginning until UDP is fast, too. */
const FAST_MS = 6000;
/** From a new address until the node takes part again, seconds: peers have to know it first (default 10). */
const HOLD_S = 3;
/** A flow looks at configuration and next hop so often (XMASQ_VERIFY_NS). */
const VERIFY_MS = 100;
/** Bytes that hold all headers of a packet in the tunnel. */
const HEADERS = 192;

type Streamed =
  { readonly name: string; readonly tcp: TransferResult } | { readonly name: string; readonly udp: DatagramResult };

/** TCP and UDP of each family, both ways, while `during` runs; ends with what became of them. */
async function underTraffic(
  lab: NativeLab,
  seconds: number,
  during: (flows: readonly FlowEnds[]) => Promise<void>,
): Promise<Streamed[]> {
  const flows: FlowEnds[] = [];
  const results: Streamed[] = [];
  const pair = (pod: number, family: Family): { from: Place; to: Place; family: Family } => ({
    ...{ from: lab.node(0).pod(pod), to: lab.node(1).pod(pod), family },
  });
  const tcpArgs = ['--seconds', String(seconds), '--down', String(seconds * PACE), '--rate', String(PACE)];
  const udpArgs = ['--reply', '--rate', '100', '--seconds', String(seconds)];
  const run = async ([family, ...others]: readonly Family[]): Promise<void> => {
    if (family === undefined) return during(flows);
    await withTransfer(lab, pair(0, family), [...tcpArgs, '--send-size', '5000'], async (tcp) => {
      await withDatagrams(lab, pair(1, family), udpArgs, async (udp) => {
        flows.push({ proto: protocolNumber('tcp', family), port: tcp.port });
        flows.push({ proto: protocolNumber('udp', family), port: udp.port });
        await run(others);
        results.push({ name: `TCP ${family}`, tcp: await tcp.result() });
        results.push({ name: `UDP ${family}`, udp: await udp.result() });
      });
    });
  };
  await run(FAMILIES);
  return results;
}

/** The longest pause of each stream at either end. */
function gapsOf(results: readonly Streamed[]): { readonly name: string; readonly gapMs: number }[] {
  return results.map((each) => ({
    name: each.name,
    gapMs:
      'tcp' in each
        ? Math.max(each.tcp.maxGapMs, each.tcp.peerMaxGapMs)
        : Math.max(each.udp.echo?.maxGapMs ?? Infinity, each.udp.peer.maxGapMs),
  }));
}

/** TCP arrived whole, and nothing arrived that was not sent, or where it does not belong. */
function expectWhole(results: readonly Streamed[]): void {
  for (const each of results) {
    if ('tcp' in each) {
      expect(each).toMatchObject({ tcp: { complete: true, corrupt: 0, peerCorrupt: 0, error: '' } });
    } else {
      expect(each).toMatchObject({ udp: { answered: true, foreign: 0, peer: { corrupt: 0 }, echo: { corrupt: 0 } } });
    }
  }
}

/** A MAC address that was another node's or router's until `at` (seconds). */
interface OldMac {
  readonly mac: string;
  readonly at: number;
}

/** Frames with such an address more than a second after it was given up. */
function stale(packets: readonly CapturedPacket[], old: readonly OldMac[]): string[] {
  return packets.flatMap(({ srcMac, dstMac, time }) =>
    old
      .filter(({ mac, at }) => (srcMac === mac || dstMac === mac) && time > at + SECOND_MS / 1000)
      .map(({ at }) => `${srcMac} > ${dstMac} after ${Math.round((time - at) * 1000)} ms`),
  );
}

describe.each<{ readonly mode: Exclude<Mode, 'direct'>; readonly router: boolean }>([
  { mode: 'masquerade', router: false },
  { mode: 'encap', router: false },
  { mode: 'masquerade', router: true },
  { mode: 'encap', router: true },
  // Here it matters what was proved for addresses of before; the rest is as in the mode that is chosen.
  { mode: 'auto', router: false },
])('$mode, router: $router', ({ mode, router }) => {
  let lab: NativeLab;
  let sidecars: LabSidecars;
  const carried = mode === 'auto' ? 'masquerade' : mode;
  /** Longest pause of probes (XMASQ_PROBE_MAX_NS): while the node waits it answers none. */
  const provenMs = mode === 'auto' ? 8 * SECOND_MS : 0;
  let macs = 0;
  let moves = 0;
  /** Gaps of the same disturbances on the slow path alone. */
  const reference = { down: 0, silent: 0 };

  beforeAll(async () => {
    lab = await up({ ipv6: true, router });
    if (mode !== 'auto') {
      if (!router) {
        const results = await underTraffic(lab, 4, async () => {
          await sleep(SECOND_MS);
          await downAndUp();
        });
        reference.down = Math.max(...gapsOf(results).map(({ gapMs }) => gapMs));
      }
      reference.silent = await silentChange(() => sleep(SECOND_MS));
    }
    sidecars = await startInMode(lab, mode, { startHold: HOLD_S });
  }, 90_000);
  afterAll(async () => {
    await sidecars.down();
    await lab.down();
  });

  /** Waits until every flow goes in the lab's mode on both nodes, and sees that nothing else does for a second. */
  async function allFast(flows: readonly FlowEnds[], limitMs = FAST_MS): Promise<void> {
    for (const flow of flows) await waitCarried(sidecars, flow, carried, limitMs);
    const before = await sent(flows);
    await sleep(SECOND_MS);
    for (const [i, { fast, slow }] of (await sent(flows)).entries()) {
      const { fast: fastBefore = 0, slow: slowBefore = 0 } = before[i] ?? {};
      expect({ fast: fast - fastBefore, slow: slow - slowBefore }).toEqual({ fast: atLeast(30), slow: 0 });
    }
  }

  /** Packets of each flow, node by node. */
  async function sent(flows: readonly FlowEnds[]): Promise<{ readonly fast: number; readonly slow: number }[]> {
    const lists = await Promise.all(flows.flatMap((flow) => sidecars.nodes.map((sidecar) => flowsOf(sidecar, flow))));
    return lists.map((list) => ({
      fast: list.reduce((sum, { txPackets }) => sum + txPackets, 0),
      slow: list.reduce((sum, { slowPackets }) => sum + slowPackets, 0),
    }));
  }

  /** Probes that were answered, by node. */
  async function answered(): Promise<number[]> {
    const statuses = await Promise.all(sidecars.nodes.map((sidecar) => sidecar.status()));
    return statuses.map(({ counters }) => counters.probe_answered);
  }

  function freshMac(): string {
    macs += 1;
    return `0a:58:ac:1e:99:${macs.toString(16).padStart(2, '0')}`;
  }

  async function changeNodeMac(node: number, announce: boolean): Promise<OldMac> {
    const { mac } = lab.node(node);
    await lab.node(node).setUplinkMac(freshMac(), { announce });
    return { mac, at: Date.now() / 1000 };
  }

  /** Another MAC address for the router's port towards a node; says what it was. */
  async function changeRouterMac(node: number, announce: boolean): Promise<OldMac> {
    const { place, ports } = lab.underlay;
    const port = ports[node] ?? '';
    if (place === undefined) throw new Error('the lab has no router');
    const { stdout } = await place.exec(['ip', '-json', 'link', 'show', 'dev', port]);
    const [{ address: mac } = { address: '' }] = JSON.parse(stdout) as { readonly address: string }[];
    await place.sh(
      `echo ${announce ? 1 : 0} >/proc/sys/net/ipv4/conf/${port}/arp_notify\n` +
        `echo ${announce ? 1 : 0} >/proc/sys/net/ipv6/conf/${port}/ndisc_notify\n` +
        `ip link set ${port} address ${freshMac()}`,
    );
    return { mac, at: Date.now() / 1000 };
  }

  async function downAndUp(): Promise<void> {
    const node = lab.node(1);
    // Else the kernel takes IPv6 addresses from a device that goes down.
    await node.sysctl({ 'net/ipv6/conf/eth0/keep_addr_on_down': 1 });
    await node.sh('ip link set eth0 down; sleep 0.3; ip link set eth0 up');
  }

  /**
   * A pod sends to another one that does not answer any more, and the next hop gets another MAC address without a word: the
   * other node, which has no reason to speak either, or the router, which knows the sender by IPv6 and asks it nothing. The
   * longest pause at the receiver.
   */
  async function silentChange(beforehand: (flow: FlowEnds) => Promise<void>): Promise<number> {
    const [here, there] = [lab.node(0), lab.node(1)];
    const family = router ? 'ipv6' : 'ipv4';
    // The kernel doubts a neighbour after a second, not after half a minute, and asks a second later.
    const conf = (name: string): string => `net/${family}/neigh/${here.device}/${name}`;
    await here.sysctl({ [conf('base_reachable_time_ms')]: SECOND_MS, [conf('delay_first_probe_time')]: 1 });
    await here.sysctl({ [conf('retrans_time_ms')]: 100 });
    // Timers that run already keep their times.
    await here.exec(['ip', 'neigh', 'flush', 'dev', here.device]);
    const [from, to] = [here.pod(1), there.pod(1)];
    const args = ['--reply', '--rate', '100', '--seconds', '13'];
    return withDatagrams(lab, { from, to, family }, args, async (udp) => {
      await beforehand({ proto: protocolNumber('udp', family), port: udp.port });
      const rules = `table inet silent { chain out { type filter hook output priority 0; udp sport ${udp.port} drop; }; }`;
      await to.exec(['nft', '-f', '-'], { input: rules });
      await sleep(SECOND_MS);
      await (router ? changeRouterMac(0, false) : changeNodeMac(1, false));
      await sleep(6 * SECOND_MS);
      await to.exec(['nft', 'delete', 'table', 'inet', 'silent']);
      const result = await udp.result();
      expect(result).toMatchObject({ answered: true });
      return result.peer.maxGapMs;
    });
  }

  const chosen = mode === 'auto' ? test.skip : test;
  const onSegment = router ? test.skip : test;
  const chosenOnSegment = router ? test.skip : chosen;

  chosen(
    'MAC addresses change: followed within a second, announced or not',
    async () => {
      const change = router ? changeRouterMac : changeNodeMac;
      const old: OldMac[] = [];
      const captures = await Promise.all(
        lab.nodes.map((node) => node.capture({ direction: 'out', snapLength: HEADERS, filter: 'ip or ip6' })),
      );
      const results = await underTraffic(lab, router ? 12 : 16, async (flows) => {
        await allFast(flows);
        // A router that says nothing asks with its link-local address: nodes that know it by its own (IPv6) stay wrong for long.
        for (const announce of router ? [true] : [true, false]) {
          for (const node of [1, 0]) {
            old.push(await change(node, announce));
            await sleep(1.5 * SECOND_MS);
          }
        }
        await allFast(flows);
      });
      const sent = await Promise.all(captures.map((capture) => capture.stop()));
      expectWhole(results);
      expect(gapsOf(results).filter(({ gapMs }) => gapMs >= SECOND_MS)).toEqual([]);
      for (const { packets, dropped } of sent) {
        expect(dropped).toBe(0);
        expect(packets.length).toBeGreaterThan(3000);
        expect(stale(packets, old)).toEqual([]);
      }
      // They were there before.
      for (const { mac } of old) {
        expect(
          sent.flatMap(({ packets }) => packets).some(({ srcMac, dstMac }) => [srcMac, dstMac].includes(mac)),
        ).toBe(true);
      }
    },
    60_000,
  );

  onSegment.each([
    { what: 'the node’s own addresses change', pause: false },
    // Kubernetes may know them later than the kernel: the node has none meanwhile, first of one family.
    { what: 'the node’s own addresses change, and the cluster learns it late', pause: true },
  ])(
    '$what: flows go on, and nothing leaves with an old one',
    async ({ pause }) => {
      const node = lab.node(1);
      const stacks = await Promise.all(lab.nodes.map(watchStack));
      const old = FAMILIES.map((family) => addressOf(node, family));
      const filter = old.map((address) => `src host ${address}`).join(' or ');
      const capture = await node.capture({ direction: 'out', snapLength: HEADERS, filter });
      moves += 1;
      const now = old.map((address) => address.replace(/[^.:]+$/, String(70 + moves)));
      const known = (): string[] =>
        sidecars.node(1).maps.use(({ config }) => {
          const { uplinkAddr4, uplinkAddr6 } = config.get(0);
          return [uplinkAddr4, uplinkAddr6];
        });
      let knownAt = 0;
      const results = await underTraffic(lab, 16 + provenMs / SECOND_MS, async (flows) => {
        await allFast(flows);
        const proved = await answered();
        for (const [i, address] of now.entries()) {
          await node.setTransportAddress(address);
          if (pause) await eventually('the node has no such address', () => known()[i] === '', 3 * SECOND_MS);
          sidecars.publishAddresses();
        }
        await eventually('the new addresses are known', () => isDeepStrictEqual(known(), now), 3 * SECOND_MS, 5);
        knownAt = Date.now();
        await allFast(flows, FAST_MS + HOLD_S * SECOND_MS + provenMs);
        // What was proved between other addresses does not count.
        for (const [i, count] of (await answered()).entries()) {
          expect(count - (proved[i] ?? NaN)).toEqual(mode === 'auto' ? atLeast(FAMILIES.length) : 0);
        }
      });
      const { packets } = await capture.stop();
      expectWhole(results);
      // The slow path has changed some 200 ms before the sidecars know: TCP may need its third retransmission, after 1.4 s.
      expect(gapsOf(results).filter(({ gapMs }) => gapMs >= 2 * SECOND_MS)).toEqual([]);
      for (const address of old) {
        const sent = packets.filter((packet) => network(packet)?.src === address);
        expect(sent.length).toBeGreaterThan(500);
        const ages = sent.map(({ time }) => time * 1000 - knownAt);
        expect(ages.filter((ms) => ms > 1.5 * VERIFY_MS)).toEqual([]);
      }
      // What was sent from the old address in the last moment may meet a peer that knows it no more: its own stack gets it.
      for (const stack of stacks) {
        expect(await stack.since()).toMatchObject({ tcpResets: atMost(20), udpNoPorts: atMost(20) });
      }
    },
    60_000,
  );

  chosenOnSegment(
    'the uplink goes down and up: no longer gap than without XMasq, and fast again',
    async () => {
      const results = await underTraffic(lab, 12, async (flows) => {
        await allFast(flows);
        await downAndUp();
        await allFast(flows);
      });
      expectWhole(results);
      // TCP's next retransmission may be a little late for the one, and in time for the other.
      expect(gapsOf(results).filter(({ gapMs }) => gapMs >= reference.down + SECOND_MS / 2)).toEqual([]);
    },
    60_000,
  );

  chosen(
    'a silent next hop’s MAC address changes unannounced: found out as soon as without XMasq',
    async () => {
      const gapMs = await silentChange((flow) => waitCarried(sidecars, flow, carried, FAST_MS));
      expect(reference.silent).toBeGreaterThan(SECOND_MS / 4);
      expect(gapMs).toBeLessThan(reference.silent + 1.5 * SECOND_MS);
    },
    60_000,
  );
});
