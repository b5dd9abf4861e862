/** The laboratory itself, without any sidecar: what the other specs take for granted. */
import { spawnSync } from 'node:child_process';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { ANTREA, eventually, sleep } from './lab.ts';
import type { Pod } from './lab.ts';
import { datagrams, freshPort, iperf, requestResponse, transfer, withServer } from './measure.ts';
import { hostDeviceName } from './native/addressing.ts';
import { listNamespaces } from './native/namespaces.ts';
import { residue, sweep, up, withLab } from './native/native.ts';
import type { NativeLab } from './native/native.ts';

const PINGS = ['-c', '3', '-i', '0.05', '-W', '1', '-q'];

async function pings(from: Pod, to: string): Promise<number> {
  const { stdout } = await from.exec(['ping', ...PINGS, to], { check: false });
  return Number(/(\d+) received/.exec(stdout)?.[1] ?? -1);
}

describe('two nodes on one segment', () => {
  let lab: NativeLab;
  let a: Pod;
  let b: Pod;
  let neighbour: Pod;

  beforeAll(async () => {
    lab = await up();
    a = lab.node(0).pod(0);
    b = lab.node(1).pod(0);
    neighbour = lab.node(0).pod(1);
  });
  afterAll(async () => {
    await lab.down();
    expect(residue(lab)).toEqual([]);
  });

  test('carries pod traffic across nodes in VXLAN, TTL 62, tracked in the zone with the marks of Antrea', async () => {
    const port = freshPort();
    const [wire, inPod] = await Promise.all([lab.node(1).capture(), b.capture({ filter: `tcp port ${port}` })]);
    const result = await requestResponse(lab, { from: a, to: b }, { proto: 'tcp', count: 100, port, size: 20 });
    const outer = await wire.stop();
    const inner = await inPod.stop();
    expect(result).toMatchObject({ transactions: 100, errors: 0, corrupt: 0 });

    const tunnelled = outer.packets.filter((packet) => packet.inner?.l4?.dport === port);
    expect(tunnelled.length).toBeGreaterThanOrEqual(100);
    expect(tunnelled[0]).toMatchObject({
      vni: 1,
      ip: { src: lab.node(0).address, dst: lab.node(1).address, ttl: 64, tos: 0, df: true },
      inner: { ip: { src: a.address, dst: b.address, ttl: 63 } },
    });
    expect(outer.packets.some((packet) => packet.ip?.src === a.address)).toBe(false);
    const requests = inner.packets.filter((packet) => packet.l4?.dport === port);
    expect(new Set(requests.map((packet) => packet.ip?.ttl))).toEqual(new Set([62]));
    expect(new Set(requests.map((packet) => packet.srcMac))).toEqual(new Set([ANTREA.virtualMac]));

    const filter = { zone: ANTREA.zone, proto: 'tcp', dport: port } as const;
    const [sending, receiving] = await Promise.all(lab.nodes.map((node) => node.conntrack.list(filter)));
    expect(sending).toMatchObject([{ mark: ANTREA.markFromPod, assured: true, original: { src: a.address } }]);
    expect(receiving).toMatchObject([{ mark: ANTREA.markFromTunnel, assured: true }]);
    for (const node of lab.nodes) {
      expect(await node.conntrack.list({ zone: 0, proto: 'udp', dport: ANTREA.vxlanPort })).toEqual([]);
    }
  });

  test('bridges pods of one node with TTL 64 and the same zone and mark', async () => {
    const capture = await neighbour.capture({ filter: 'icmp', direction: 'in' });
    expect(await pings(a, neighbour.address)).toBe(3);
    const { packets } = await capture.stop();
    expect(packets.map((packet) => [packet.ip?.ttl, packet.srcMac])).toEqual(Array(3).fill([64, a.mac]));
    expect(
      await lab.node(0).conntrack.list({ zone: ANTREA.zone, proto: 'icmp', dst: neighbour.address }),
    ).toMatchObject([{ mark: ANTREA.markFromPod, replied: true }]);
  });

  test('counts a connection until its answer, or until it is closed: then nothing is left out', async () => {
    const counted = async (whole: boolean): Promise<number> => {
      const options = { proto: 'tcp', crr: true, count: 1000, whole } as const;
      const { transactions, meanUs, seconds, errors } = await requestResponse(lab, { from: a, to: b }, options);
      expect({ transactions, errors }).toEqual({ transactions: 1000, errors: 0 });
      return (transactions * meanUs) / 1e6 / seconds;
    };
    const [answer, whole] = [await counted(false), await counted(true)];
    expect(whole).toBeGreaterThan(0.95);
    expect(whole).toBeLessThanOrEqual(1);
    expect(answer).toBeLessThan(whole - 0.02);
  });

  test('a connection of several requests is one transaction', async () => {
    const port = freshPort();
    const capture = await b.capture({ filter: `tcp dst port ${port}` });
    const options = { proto: 'tcp', crr: true, whole: true, requests: 7, count: 3, port } as const;
    expect(await requestResponse(lab, { from: a, to: b }, options)).toMatchObject({ transactions: 3, errors: 0 });
    const { packets } = await capture.stop();
    const requestsOf = new Map<number, number>();
    for (const { l4 } of packets) {
      if (l4?.sport !== undefined) requestsOf.set(l4.sport, (requestsOf.get(l4.sport) ?? 0) + l4.payloadLength);
    }
    expect([...requestsOf.values()]).toEqual([7, 7, 7]);
  });

  test('keeps traffic between the nodes in zone 0, without a mark', async () => {
    const port = freshPort();
    await requestResponse(lab, { from: lab.node(0), to: lab.node(1) }, { proto: 'udp', count: 10, port });
    for (const node of lab.nodes) {
      expect(await node.conntrack.list({ dport: port })).toMatchObject([{ zone: 0, mark: 0, replied: true }]);
    }
  });

  test('masquerades what a pod sends to a node, in zone 0', async () => {
    expect(await pings(a, lab.node(1).address)).toBe(3);
    expect(await lab.node(0).conntrack.list({ proto: 'icmp', dst: lab.node(1).address })).toMatchObject([
      { zone: 0, original: { src: a.address }, reply: { dst: lab.node(0).address } },
    ]);
  });

  test('transfers and datagrams arrive whole in both directions', async () => {
    const pair = { from: a, to: b };
    const tcp = await transfer(lab, pair, ['--up', '5M', '--down', '3M', '--tos', '0x28']);
    expect(tcp).toMatchObject({ complete: true, peerReceived: 5e6, received: 3e6, corrupt: 0, peerCorrupt: 0 });
    const reset = await transfer(lab, pair, ['--up', '100k', '--down', '50k', '--rst']);
    expect(reset).toMatchObject({ complete: true, error: '' });
    const far = await transfer(lab, pair, ['--up', '1M', '--down', '1M', '--jump', '5G', '--jump-ms', '100']);
    expect(far).toMatchObject({ complete: true, error: '' });
    const udp = await datagrams(lab, pair, ['--reply', '--rate', '2000', '--seconds', '0.5', '--size', '1400']);
    expect(udp).toMatchObject({ answered: true, peer: { lost: 0, corrupt: 0 }, echo: { lost: 0, corrupt: 0 } });
    expect((await iperf(pair)).gbitPerS).toBeGreaterThan(0.1);
  });

  test('SCTP from user space is tracked like the rest', async () => {
    const tool = lab.tool('sctp');
    const port = String(freshPort());
    await withServer(b, [tool, 'server', '--bind', b.address, '--port', port], async () => {
      const { stdout } = await a.exec([tool, 'client', '--bind', a.address, '--to', b.address, '--port', port]);
      expect(JSON.parse(stdout)).toMatchObject({ sent: 10, received: 10, corrupt: 0 });
    });
    expect(await lab.node(1).conntrack.list({ zone: ANTREA.zone, proto: 'sctp', dport: Number(port) })).toMatchObject([
      { mark: ANTREA.markFromTunnel, assured: true },
    ]);
  });

  test('policy denies new connections only and leaves no entry of the denied', async () => {
    const port = freshPort();
    const rr = lab.tool('rr');
    await withServer(b, [rr, 'server', '--tcp', '--port', String(port)], async () => {
      const client = [
        rr,
        'client',
        '--tcp',
        '--to',
        b.address,
        '--port',
        String(port),
        '--timeout-ms',
        '300',
        '--json',
      ];
      const old = await a.spawn([...client, '--seconds', '1', '--interval-us', '10000', '--sport', '7000']);
      await eventually(
        'the old connection',
        async () => (await lab.node(1).conntrack.list({ dport: port })).length > 0,
      );
      await lab.policy.deny({ srcPod: a, dstPod: b, proto: 'tcp', port });
      const denied = await a.exec([...client, '--count', '1', '--sport', '7001'], { check: false });
      expect(denied.stderr).toMatch(/timed out/i);
      expect(await lab.node(0).conntrack.list({ dport: port, sport: 7001 })).toEqual([]);
      expect(await old.json()).toMatchObject({ errors: 0, timeouts: 0 });
      await lab.policy.clear();
      expect((await a.exec([...client, '--count', '1', '--sport', '7002'])).code).toBe(0);
    });
  });

  test('marks and zones can be set by port and protocol', async () => {
    const port = freshPort();
    await lab.policy.markPort(port, 0x23);
    await lab.policy.markPort(port, 0x43); // replaces
    await lab.policy.zonePort(port + 5000, 77);
    await lab.policy.markProtocol('icmp', 0);
    await requestResponse(lab, { from: a, to: b }, { proto: 'udp', count: 3, port });
    await requestResponse(lab, { from: a, to: b }, { proto: 'tcp', count: 3, port: port + 5000 });
    await pings(neighbour, b.address);
    for (const node of lab.nodes) {
      expect(await node.conntrack.list({ dport: port })).toMatchObject([{ zone: ANTREA.zone, mark: 0x43 }]);
      expect(await node.conntrack.list({ dport: port + 5000 })).toMatchObject([{ zone: 77, assured: true }]);
      expect(await node.conntrack.list({ proto: 'icmp', src: neighbour.address, dst: b.address })).toMatchObject([
        { zone: ANTREA.zone, mark: 0, replied: true },
      ]);
    }
    await lab.policy.clearMarks();
    await lab.policy.clearZones();
    const other = freshPort();
    await requestResponse(lab, { from: a, to: b }, { proto: 'udp', count: 3, port: other });
    expect(await lab.node(0).conntrack.list({ dport: other })).toMatchObject([{ mark: ANTREA.markFromPod }]);
  });

  test('conntrack entries can be deleted and time out as told', async () => {
    const port = freshPort();
    const node = lab.node(0);
    await requestResponse(lab, { from: a, to: b }, { proto: 'udp', count: 3, port });
    expect(await node.conntrack.delete({ zone: ANTREA.zone, proto: 'udp', dport: port })).toBe(1);
    expect(await node.conntrack.delete({ zone: ANTREA.zone, proto: 'udp', dport: port })).toBe(0);
    await node.conntrack.setTimeouts({ udp: 1, udpStream: 1 });
    await requestResponse(lab, { from: a, to: b }, { proto: 'udp', count: 3, port });
    expect(await node.conntrack.list({ dport: port })).toHaveLength(1);
    await sleep(1500);
    expect(await node.conntrack.list({ dport: port })).toEqual([]);
    await node.conntrack.setTimeouts({ udp: 30, udpStream: 120 });
  });

  test('without transmit offload every checksum in a capture is right', async () => {
    await lab.offload({ tx: false, tso: false, gso: false });
    const port = freshPort();
    const capture = await b.capture({ filter: `tcp port ${port}` });
    await transfer(lab, { from: a, to: b }, ['--up', '200k', '--down', '200k'], { port });
    const { packets, dropped } = await capture.stop();
    expect(dropped).toBe(0);
    expect(packets.length).toBeGreaterThan(200);
    expect(packets.filter((packet) => packet.l4?.checksumValid !== true || !packet.ip?.checksumValid)).toEqual([]);
    expect(Math.max(...packets.map((packet) => packet.wireLength))).toBe(b.mtu + 14);
    await lab.offload({ tx: true, tso: true, gso: true });
  });

  test('a sweep of all IP IDs arrives complete and unchanged', async () => {
    const raw = lab.tool('raw');
    const count = ['count', '--dev', b.device, '--dst', b.address, '--proto', 'udp', '--payload', 'c0ffee'];
    const stopped = await withServer(b, [raw, ...count], async (counter) => {
      const to = ['--src-mac', a.mac, '--dst-mac', ANTREA.virtualMac, '--src', a.address, '--dst', b.address];
      const sweepArgs = ['--proto', 'udp', '--sport', '6', '--dport', '7', '--payload', 'c0ffee', '--rate', '100000'];
      const sent = await a.exec([raw, 'sweep', '--dev', a.device, ...to, ...sweepArgs]);
      expect(JSON.parse(sent.stdout)).toMatchObject({ sent: 65536, errors: 0 });
      await sleep(100);
      await counter.stop();
      return counter;
    });
    expect(await stopped.json()).toMatchObject({ incoming: 65536, missed: 0 });
  });

  test('a pod is deleted and its address given to a new one', async () => {
    const node = lab.node(1);
    const old = node.pod(1);
    const before = listNamespaces(lab.id).length;
    const child = await old.spawn(['sleep', '60']);
    await node.deletePod(old);
    await child.exited;
    expect(await pings(a, old.address)).toBe(0);
    const fresh = await node.addPod({ ip: old.address, name: old.name });
    expect(fresh.endpoint).toMatchObject({ name: old.name, ips: [old.address], namespace: 'default' });
    expect(fresh.endpoint.containerId).toMatch(/^[0-9a-f]{64}$/);
    expect(fresh.endpoint.ifName).toBe(hostDeviceName(old.name, fresh.endpoint.containerId));
    expect(fresh.mac).not.toBe(old.mac);
    expect(await pings(a, fresh.address)).toBe(3);
    expect(listNamespaces(lab.id)).toHaveLength(before);
    await expect(node.deletePod(old)).rejects.toThrow(/has no pod/);
    await expect(node.addPod({ ip: fresh.address })).rejects.toThrow(/in use/);
  });

  test('commands fail clearly and are bounded', async () => {
    await expect(a.exec(['false'])).rejects.toThrow(/pod-1-2.*false.*exit code 1/s);
    await expect(a.exec(['sleep', '5'], { timeoutMs: 100 })).rejects.toThrow(/killed after 100 ms/);
    await expect(a.exec(['no-such-program'])).rejects.toThrow(/no-such-program/);
    const proc = await a.spawn(['sh', '-c', 'echo one; exec sleep 60']);
    await proc.waitFor(/one/);
    await expect(proc.waitFor(/two/, 50)).rejects.toThrow(/did not print/);
    await proc.stop();
    expect(proc.running).toBe(false);
    await expect(lab.underlay.setLoss(1)).rejects.toThrow(/router: true/);
  });
});

test('a router loses, reorders and filters as told', async () => {
  await withLab({ router: true, nodes: 3, podsPerNode: 1 }, async (lab) => {
    const [a, b] = [lab.node(0).pod(0), lab.node(2).pod(0)];
    const count = ['--rate', '2000', '--count', '1000'];
    expect(await datagrams(lab, { from: a, to: b }, count)).toMatchObject({ peer: { lost: 0, reordered: 0 } });
    await lab.underlay.setLoss(20);
    const lossy = await datagrams(lab, { from: a, to: b }, count);
    expect(lossy.peer.lost).toBeGreaterThan(100);
    expect(lossy.peer.lost).toBeLessThan(300);
    await lab.underlay.clear();
    await lab.underlay.setReorder(20, 5);
    const mixed = await datagrams(lab, { from: a, to: b }, count);
    expect(mixed.peer.lost).toBe(0);
    expect(mixed.peer.reordered).toBeGreaterThan(100);
    await lab.underlay.clear();
    await lab.underlay.addRules([`udp dport ${ANTREA.vxlanPort} drop`]);
    expect(await pings(a, b.address)).toBe(0);
    await lab.underlay.clear();
    expect(await pings(a, b.address)).toBe(3);
  });
});

test('options: MTU 9000, spoof guard, no conntrack of host traffic', async () => {
  await withLab({ mtu: 9000, spoofGuard: true, hostConntrack: false }, async (lab) => {
    const [a, b] = [lab.node(0).pod(0), lab.node(1).pod(0)];
    expect(a.mtu).toBe(8950);
    expect((await a.exec(['ping', '-c1', '-W1', '-M', 'do', '-s', '8922', b.address])).stdout).toMatch(/1 received/);
    const port = freshPort();
    await requestResponse(lab, { from: lab.node(0), to: lab.node(1) }, { proto: 'tcp', count: 3, port });
    expect(await lab.node(0).conntrack.list({ dport: port })).toEqual([]);
    await requestResponse(lab, { from: a, to: b }, { proto: 'tcp', count: 3, port });
    expect(await lab.node(0).conntrack.list({ dport: port })).toHaveLength(1);

    const capture = await b.capture({ filter: 'udp dst port 7' });
    const frame = (src: string, mac: string): string[] => [
      ...[lab.tool('raw'), 'sweep', '--dev', a.device, '--src-mac', mac, '--dst-mac', ANTREA.virtualMac],
      ...['--src', src, '--dst', b.address, '--proto', 'udp', '--sport', '6', '--dport', '7', '--to', '0'],
    ];
    await a.exec(frame(lab.node(0).pod(1).address, a.mac));
    await a.exec(frame(a.address, lab.node(0).pod(1).mac));
    await a.exec(frame(a.address, a.mac));
    await sleep(100);
    expect((await capture.stop()).packets.map((packet) => packet.ip?.src)).toEqual([a.address]);
  });
});

test('a lab whose builder died is swept, a kept one only when asked', async () => {
  const module = new URL('native/native.ts', import.meta.url).pathname;
  const build = (keep: boolean): string => {
    const script = `import { up } from '${module}';
      const lab = await up({ keep: ${keep} });
      await lab.node(0).spawn(['sleep', '300']);
      console.log(lab.id);
      process.kill(process.pid, 'SIGKILL');`;
    const ended = spawnSync(process.execPath, ['--input-type=module-typescript', '-e', script], {
      encoding: 'utf8',
      env: { ...process.env, NODE_OPTIONS: '' },
      timeout: 20_000,
    });
    return ended.stdout.trim();
  };
  const kept = build(true);
  const lost = build(false);
  const [gone, stays] = [lost, kept].map((id) => ({ id, nodes: [] }));
  if (gone === undefined || stays === undefined) throw new Error('two labs were built');
  try {
    expect(residue(gone).filter((left) => left.startsWith('process'))).toHaveLength(1);
    const swept = await sweep();
    expect(swept).toContain(lost);
    expect(swept).not.toContain(kept);
    expect(residue(gone)).toEqual([]);
    expect(residue(stays)).not.toEqual([]);
  } finally {
    expect(await sweep({ kept: true, only: [kept] })).toEqual([kept]);
  }
  expect(residue(stays)).toEqual([]);
}, 30_000);
