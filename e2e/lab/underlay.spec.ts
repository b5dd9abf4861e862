/** What goes wrong or changes between the nodes, in both families, without any sidecar. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { addressOf, eventually } from './lab.ts';
import type { EncapMode, Family, Place, Pod } from './lab.ts';
import { datagrams, freshPort, requestResponse, transfer } from './measure.ts';
import { up, withLab } from './native/native.ts';
import type { NativeLab } from './native/native.ts';
import { network } from './packet.ts';

const FAMILIES: readonly Family[] = ['ipv4', 'ipv6'];

async function reaches(from: Place, to: Place, family: Family): Promise<boolean> {
  const { code } = await from.exec(['ping', '-c1', '-W1', addressOf(to, family)], { check: false });
  return code === 0;
}

describe('behind a router', () => {
  let lab: NativeLab;
  let a: Pod;
  let b: Pod;

  beforeAll(async () => {
    lab = await up({ ipv6: true, router: true, podsPerNode: 1 });
    [a, b] = [lab.node(0).pod(0), lab.node(1).pod(0)];
  });
  afterEach(() => lab.underlay.clear());
  afterAll(() => lab.down());

  test.each(FAMILIES)('%s: loss, reordering and rules', async (family) => {
    const pair = { from: a, to: b, family };
    const count = ['--rate', '2000', '--count', '500'];
    await lab.underlay.setLoss(20);
    const lossy = await datagrams(lab, pair, count);
    expect(lossy.peer.lost).toBeGreaterThan(50);
    expect(lossy.peer.lost).toBeLessThan(150);
    await lab.underlay.clear();
    await lab.underlay.setReorder(20, 5);
    const mixed = await datagrams(lab, pair, count);
    expect(mixed.peer.lost).toBe(0);
    expect(mixed.peer.reordered).toBeGreaterThan(50);
    await lab.underlay.clear();
    await lab.underlay.addRules([`meta nfproto ${family} udp dport ${lab.node(0).tunnel.port} drop`]);
    expect(await reaches(a, b, family)).toBe(false);
    expect(await reaches(a, b, family === 'ipv4' ? 'ipv6' : 'ipv4')).toBe(true);
    await lab.underlay.clear();
    expect(await reaches(a, b, family)).toBe(true);
  });

  test.each(FAMILIES)('%s: a transfer goes on when the MTU is lowered, and the pods are told', async (family) => {
    await lab.offload({ tso: false, gso: false, gro: false });
    const pair = { from: a, to: b, family };
    const port = freshPort();
    const running = transfer(lab, pair, ['--up', '4M', '--down', '4M', '--rate', '2M'], { port });
    await eventually('the transfer', async () => (await lab.node(1).conntrack.list({ dport: port })).length > 0);
    await lab.underlay.setMtu(1350);
    const capture = await lab.node(1).capture({ snapLength: 200, direction: 'in' });
    expect(await running).toMatchObject({ complete: true, corrupt: 0, peerCorrupt: 0 });
    const { packets } = await capture.stop();
    expect(packets.length).toBeGreaterThan(500);
    expect(Math.max(...packets.map((packet) => network(packet)?.length ?? 0))).toBeLessThanOrEqual(1350);
    const overhead = family === 'ipv4' ? 50 : 70;
    const { stdout } = await a.exec(['ip', 'route', 'get', addressOf(b, family)]);
    expect(stdout).toContain(`mtu ${1350 - overhead}`);
    await expect(lab.underlay.setMtu(1279)).rejects.toThrow(/at least 1280/);
    await lab.offload({ tso: true, gso: true, gro: true });
  });

  test('a lower MTU towards one node is for what goes there only', async () => {
    // What the nodes were told before.
    for (const node of lab.nodes) await node.sh('ip route flush cache; ip -6 route flush cache');
    await lab.underlay.setMtu(1400, lab.node(1));
    for (const [from, to, fits] of [
      [lab.node(0), lab.node(1), false],
      [lab.node(1), lab.node(0), true],
    ] as const) {
      for (const family of FAMILIES) {
        const size = String(1500 - (family === 'ipv4' ? 28 : 48));
        // By itself: an answer of the same size would have the other way's MTU.
        const capture = await to.capture({ filter: 'icmp[0] = 8 or icmp6[0] = 128', direction: 'in' });
        const ping = ['ping', '-c1', '-W1', '-M', 'do', '-s', size, addressOf(to, family)];
        await from.exec(ping, { check: false });
        expect((await capture.stop()).packets).toHaveLength(fits ? 1 : 0);
      }
    }
  });

  test.each(FAMILIES)('%s: a stateful firewall lets pass what it has seen begin, and the tunnel', async (family) => {
    const nodes = { from: lab.node(0), to: lab.node(1), family };
    const long = { proto: 'tcp', seconds: 2, intervalUs: 10_000, timeoutMs: 500, port: freshPort() } as const;
    const running = requestResponse(lab, nodes, long);
    const inTunnel = requestResponse(lab, { from: a, to: b, family }, { ...long, port: freshPort() });
    const seen = { dport: long.port };
    await eventually('the connection', async () => (await lab.node(1).conntrack.list(seen)).length > 0);
    await lab.underlay.addFirewall({ kind: 'stateful' });
    expect((await running).errors).toBe(1);
    expect(await inTunnel).toMatchObject({ errors: 0 });
    expect(await requestResponse(lab, nodes, { proto: 'tcp', count: 10 })).toMatchObject({ errors: 0 });
    expect(await requestResponse(lab, nodes, { proto: 'udp', count: 10 })).toMatchObject({ errors: 0, timeouts: 0 });
  });

  test('a firewall for the tunnel only, for all or for what one node sends', async () => {
    const udp = async (from: Place, to: Place, family: Family): Promise<number> => {
      const result = await datagrams(lab, { from, to, family }, ['--count', '10']).catch(() => undefined);
      return result?.peer.received ?? 0;
    };
    await lab.underlay.addFirewall({ kind: 'tunnelOnly' });
    for (const family of FAMILIES) {
      expect(await reaches(lab.node(0), lab.node(1), family)).toBe(false);
      expect(await reaches(a, b, family)).toBe(true);
    }
    await lab.underlay.clear();
    await lab.underlay.addFirewall({ kind: 'tunnelOnly', from: lab.node(0) });
    const heard = async (from: Place, to: Place): Promise<number> => {
      const capture = await to.capture({ filter: 'udp dst port 7', direction: 'in' });
      await from.sh(`echo x | timeout 1 bash -c 'cat >/dev/udp/${to.address}/7'`);
      return (await capture.stop()).packets.length;
    };
    expect([await heard(lab.node(0), lab.node(1)), await heard(lab.node(1), lab.node(0))]).toEqual([0, 1]);
    expect(await udp(a, b, 'ipv6')).toBe(10);
  });
});

describe.each<[boolean, EncapMode]>([
  [false, 'encap'],
  [true, 'encap'],
  [false, 'noEncap'],
  [true, 'noEncap'],
])('router: %s, %s', (router, encapMode) => {
  test('MAC and transport addresses of a node change at run time', async () => {
    await withLab({ ipv6: true, router, encapMode, podsPerNode: 1 }, async (lab) => {
      const [a, b] = [lab.node(0).pod(0), lab.node(1).pod(0)];
      for (const family of FAMILIES) expect(await reaches(a, b, family)).toBe(true);
      await lab.node(1).setUplinkMac('0a:58:ac:1e:99:01');
      expect(lab.node(1).mac).toBe('0a:58:ac:1e:99:01');
      for (const family of FAMILIES) expect(await reaches(a, b, family)).toBe(true);
      const capture = await lab.node(1).capture({ direction: 'in', filter: 'ip or ip6' });
      for (const [family, host] of [
        ['ipv4', '77'],
        ['ipv6', '4d'],
      ] as const) {
        const address = addressOf(lab.node(1), family).replace(/[^.:]+$/, host);
        await lab.node(1).setTransportAddress(address);
        expect(addressOf(lab.node(1), family)).toBe(address);
        expect(await reaches(lab.node(0), lab.node(1), family)).toBe(true);
        expect([await reaches(a, b, family), await reaches(b, a, family)]).toEqual([true, true]);
      }
      const { packets } = await capture.stop();
      const tunnelled = packets.filter(({ inner }) => inner !== undefined).map((packet) => network(packet)?.dst);
      const addresses = [lab.node(1).address, lab.node(1).address6];
      expect(new Set(tunnelled)).toEqual(new Set(encapMode === 'encap' ? addresses : []));
    });
  });
});
