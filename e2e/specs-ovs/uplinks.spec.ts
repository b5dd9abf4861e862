/**
 * Uplinks that are made of others: a VLAN of a device, or a bond of two. The programs belong on the device with the transport
 * address; XDP alone sits below a VLAN, and reads the tag. The kernel puts a bond's XDP on both its devices.
 */
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { eventually, sleep } from '../lab/lab.ts';
import type { LabOptions, Node, Pod } from '../lab/lab.ts';
import { UPLINK_VLAN } from '../lab/native/addressing.ts';
import { residue, up } from '../lab/ovs/ovs.ts';
import type { OvsLab } from '../lab/ovs/ovs.ts';
import { IPPROTO } from '../lab/packet.ts';
import type { CapturedPacket } from '../lab/pcap.ts';
import { ADMISSION, stretched } from '../lab/scale.ts';
import { startSidecars } from '../lab/sidecar.ts';
import type { LabSidecars } from '../lab/sidecar.ts';
import { watchCounters } from '../specs/support/counters.ts';
import { attachments, ifindexOf } from '../specs/support/footprint.ts';
import { atLeast } from '../specs/support/matchers.ts';
import { UNDISTURBED, besidePods } from '../specs/support/pod-traffic.ts';
import { isMasqueraded } from '../specs/support/wire.ts';

const ETHERTYPE_VLAN = 0x8100;
const VLAN_TAG = 4;
/** What is masqueraded of it in the time that is looked at, at least. */
const FAST = 20;

let lab: OvsLab;
let sidecars: LabSidecars;

async function begin(options: LabOptions): Promise<void> {
  lab = await up(options);
  // A veth pair never looks at checksums that a device would write.
  await lab.offload({ tx: false, tso: false, gso: false });
  sidecars = await startSidecars(lab);
}

async function end(): Promise<void> {
  await sidecars.down();
  await lab.down();
  expect(residue(lab)).toEqual([]);
}

/** Our programs on the node's uplink and what is below it, as `program device`, sorted. */
async function programs(node: Node): Promise<string[]> {
  const devices = [node.device, ...node.lowerDevices];
  const numbers = await Promise.all(devices.map((device) => ifindexOf(node, device)));
  const found = (await attachments(node)).map((each) => /^(uplink_[a-z]+)-(\d+) link/.exec(each));
  return found
    .flatMap((match) => (match === null ? [] : `${match[1]} ${devices[numbers.indexOf(Number(match[2]))]}`))
    .sort();
}

/** What there is to be, with XDP on this device. */
function expectedPrograms(node: Node, xdp?: string): string[] {
  const always = [`uplink_egress ${node.device}`, `uplink_ingress ${node.device}`];
  return xdp === undefined ? always : [...always, `uplink_xdp ${xdp}`];
}

/** Runs `use` while TCP and UDP are fast both ways; afterwards nothing was lost or corrupted, but for `gapMs`. */
async function underTraffic(use: () => Promise<void>, gapMs = 0): Promise<void> {
  const [from, to] = [lab.node(0).pod(0), lab.node(1).pod(0)];
  const { udp, tcp } = await besidePods(lab, sidecars, { from, to }, use);
  expect(tcp).toMatchObject(UNDISTURBED.tcp);
  expect(udp).toMatchObject({ answered: true, foreign: 0, peer: { corrupt: 0 }, echo: { corrupt: 0 } });
  const gaps = [udp?.peer, udp?.echo].filter((side) => (side?.lost ?? Infinity) > 0).map((side) => side?.maxGapMs);
  expect(gaps.filter((gap = Infinity) => gap > gapMs)).toEqual([]);
}

/** Looks for a while: counters of both nodes, and what left a device of the first. */
async function look(device: string): Promise<readonly CapturedPacket[]> {
  const counters = await watchCounters(sidecars);
  const capture = await lab.node(0).capture({ device, direction: 'out' });
  await sleep(stretched(500));
  const { packets } = await capture.stop();
  for (const each of await counters.since()) {
    expect(each).toMatchObject({ fast_tx: atLeast(FAST), restored: atLeast(FAST), own_lost: 0, unknown_key: 0 });
  }
  return packets;
}

/** XDP on the second node only: a start takes long under emulation. */
async function useXdp(): Promise<void> {
  await sidecars.node(1).restart({ xdp: 'native' });
}

/** XDP restores on the second node, or nothing. Packets that emulation has kept for 100 ms and more go to tc. */
async function expectXdp(used: boolean): Promise<void> {
  const counters = await watchCounters(sidecars);
  await sleep(stretched(500));
  const [first, second] = await counters.since();
  expect([first?.restored, second?.restored]).toEqual([atLeast(FAST), atLeast(FAST)]);
  expect(first?.restored_xdp).toBe(0);
  if (used) expect(second?.restored_xdp).toEqual(atLeast((second?.restored ?? Infinity) / 4));
  else expect(second?.restored_xdp).toBe(0);
}

/** UDP as the receiving pod sees it. */
async function expectPodSeesItsOwn(from: Pod, to: Pod): Promise<void> {
  const capture = await to.capture({ direction: 'in', filter: 'udp' });
  await sleep(stretched(200));
  const { packets } = await capture.stop();
  expect(packets.length).toEqual(atLeast(5));
  for (const { ip, l4 } of packets) {
    expect(ip).toMatchObject({ src: from.address, dst: to.address, ttl: 62, proto: IPPROTO.udp, checksumValid: true });
    expect(l4?.checksumValid).toBe(true);
  }
}

const onNewer = ADMISSION === 'conntrack' ? describe : describe.skip;

onNewer('a VLAN', () => {
  beforeAll(() => begin({ uplink: 'vlan', podsPerNode: 1 }), 60_000);
  afterAll(end);

  test('the programs are on the VLAN, and masqueraded packets cross the device below with its tag', async () => {
    const [below = ''] = lab.node(0).lowerDevices;
    for (const node of lab.nodes) {
      expect(await programs(node)).toEqual(expectedPrograms(node));
    }
    await underTraffic(async () => {
      const packets = await look(below);
      expect(new Set(packets.map(({ etherType }) => etherType))).toEqual(new Set([ETHERTYPE_VLAN]));
      expect(new Set(packets.map(({ bytes }) => bytes.readUInt16BE(14) & 0xfff))).toEqual(new Set([UPLINK_VLAN]));
      const inside = await look(lab.node(0).device);
      const masqueraded = inside.filter((packet) => isMasqueraded(packet, lab.node(0), lab.node(1)));
      expect(masqueraded.length).toEqual(atLeast(FAST));
      expect(packets.filter(({ bytes }) => isMarkedBelowTag(bytes)).length).toEqual(atLeast(FAST));
      await expectXdp(false);
    });
  }, 60_000);

  test('XDP sits on the device below and reads the tag', async () => {
    // A veth device hands a tag that it was to write over beside the frame, where XDP does not look for it.
    for (const node of lab.nodes) await node.exec(['ethtool', '-K', node.lowerDevices[0] ?? '', 'txvlan', 'off']);
    await underTraffic(async () => {
      await useXdp();
      const node = lab.node(1);
      expect(await programs(node)).toEqual(expectedPrograms(node, node.lowerDevices[0]));
      await expectXdp(true);
      await expectPodSeesItsOwn(lab.node(0).pod(0), lab.node(1).pod(0));
    });
  }, 60_000);
});

/** Is what follows the tag an IPv4 packet with DF and the marker? */
function isMarkedBelowTag(bytes: Buffer): boolean {
  const ip = bytes.subarray(14 + VLAN_TAG);
  return ip.length >= 20 && (ip.readUInt16BE(4) & 0x8000) !== 0 && (ip.readUInt16BE(6) & 0x4000) !== 0;
}

onNewer('a bond', () => {
  beforeAll(() => begin({ uplink: 'bond', podsPerNode: 1 }), 60_000);
  afterAll(end);

  /** The device in use. */
  async function active(node: Node): Promise<string> {
    const { stdout } = await node.exec(['cat', `/proc/net/bonding/${node.device}`]);
    return /^Currently Active Slave: (\S+)/m.exec(stdout)?.[1] ?? '';
  }

  async function usesOf(i: 0 | 1): Promise<void> {
    for (const node of lab.nodes) {
      await eventually(`device ${i} of ${node.name}`, async () => (await active(node)) === node.lowerDevices[i]);
    }
  }

  test('the programs are on the bond, and what is fast stays so when it changes its device', async () => {
    const node = lab.node(0);
    const [first = '', second = ''] = node.lowerDevices;
    for (const each of lab.nodes) expect(await programs(each)).toEqual(expectedPrograms(each));
    await usesOf(0);
    await underTraffic(async () => {
      for (const [device, change] of [
        [first, undefined],
        [second, 'down'],
        [first, 'up'],
      ] as const) {
        if (change !== undefined) await node.exec(['ip', 'link', 'set', first, change]);
        await usesOf(device === first ? 0 : 1);
        await sleep(stretched(100));
        const packets = await look(device);
        expect(packets.filter((packet) => isMasqueraded(packet, node, lab.node(1))).length).toEqual(atLeast(FAST));
      }
      // Until the bond notices, packets go to a device that is down.
    }, stretched(200));
  }, 60_000);

  test('XDP on the bond restores what comes by either device', async () => {
    const node = lab.node(1);
    const [first = ''] = node.lowerDevices;
    await usesOf(0);
    await underTraffic(async () => {
      await useXdp();
      expect(await programs(node)).toEqual(expectedPrograms(node, node.device));
      await expectXdp(true);
      await expectPodSeesItsOwn(lab.node(0).pod(0), lab.node(1).pod(0));
      // The switch between the nodes sends to the device that answers for the bond's address.
      await node.exec(['ip', 'link', 'set', first, 'down']);
      await eventually(`device 1 of ${node.name}`, async () => (await active(node)) === node.lowerDevices[1]);
      await sleep(stretched(100));
      await expectXdp(true);
      await node.exec(['ip', 'link', 'set', first, 'up']);
      await usesOf(0);
    }, stretched(200));
  }, 60_000);
});
