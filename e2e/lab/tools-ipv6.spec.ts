/** The traffic tools between IPv6 addresses. */
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { ANTREA, addressOf, sleep } from './lab.ts';
import type { Pod } from './lab.ts';
import { datagrams, freshPort, requestResponse, transfer, withServer } from './measure.ts';
import type { Pair } from './measure.ts';
import { up } from './native/native.ts';
import type { NativeLab } from './native/native.ts';
import { IPPROTO } from './packet.ts';
import type { Packet } from './packet.ts';

let lab: NativeLab;
let a: Pod;
let b: Pod;
let pair: Pair;
let a6: string;
let b6: string;

beforeAll(async () => {
  lab = await up({ ipv6: true, podsPerNode: 1 });
  [a, b] = [lab.node(0).pod(0), lab.node(1).pod(0)];
  pair = { from: a, to: b, family: 'ipv6' };
  [a6, b6] = [addressOf(a, 'ipv6'), addressOf(b, 'ipv6')];
});
afterAll(async () => {
  await lab.down();
});

test('rr: TCP, UDP, many flows, connections', async () => {
  const plain = [{ proto: 'tcp' }, { proto: 'udp' }, { proto: 'udp', flows: 20 }, { proto: 'tcp', crr: true }] as const;
  for (const options of plain) {
    const result = await requestResponse(lab, pair, { ...options, count: 100, size: 20 });
    expect(result).toMatchObject({ errors: 0, corrupt: 0, timeouts: 0 });
    expect(result.transactions).toBeGreaterThanOrEqual(100);
  }
});

test('stream: traffic class, hop limit, both directions, a jump of sequence numbers, numbered datagrams', async () => {
  const port = freshPort();
  const capture = await b.capture({ filter: `ip6 and tcp dst port ${port}` });
  const tcp = await transfer(lab, pair, ['--up', '2M', '--down', '1M', '--tos', '0x28', '--ttl', '33'], { port });
  expect(tcp).toMatchObject({ complete: true, peerReceived: 2e6, received: 1e6, corrupt: 0, peerCorrupt: 0 });
  const { packets } = await capture.stop();
  const sent = packets.filter(({ ip6 }) => ip6?.src === a6);
  expect(new Set(sent.map(({ ip6 }) => `${ip6?.trafficClass} ${ip6?.hopLimit}`))).toEqual(new Set(['40 31']));
  const far = await transfer(lab, pair, ['--up', '1M', '--down', '1M', '--jump', '5G', '--jump-ms', '100']);
  expect(far).toMatchObject({ complete: true, error: '' });
  const udp = await datagrams(lab, pair, ['--reply', '--rate', '2000', '--seconds', '0.3', '--df', 'do']);
  expect(udp).toMatchObject({ answered: true, peer: { lost: 0, corrupt: 0 }, echo: { lost: 0, corrupt: 0 } });
  const cut = await datagrams(lab, pair, ['--count', '1000', '--gso', '10', '--size', '1000']);
  expect(cut).toMatchObject({ answered: true, peer: { lost: 0, corrupt: 0 } });
});

test('sctp: tracked like the rest', async () => {
  const tool = lab.tool('sctp');
  const port = freshPort();
  const capture = await b.capture({ filter: 'ip6 proto 132' });
  await withServer(b, [tool, 'server', '--bind', b6, '--port', String(port)], async () => {
    const { stdout } = await a.exec([tool, 'client', '--bind', a6, '--to', b6, '--port', String(port)]);
    expect(JSON.parse(stdout)).toMatchObject({ sent: 10, received: 10, corrupt: 0 });
  });
  const { packets } = await capture.stop();
  expect(packets.filter(({ l4 }) => l4?.checksumValid !== true)).toEqual([]);
  expect(packets.length).toBeGreaterThan(20);
  expect(await lab.node(1).conntrack.list({ zone: ANTREA.zone6, proto: 'sctp', dport: port })).toMatchObject([
    { mark: ANTREA.markFromTunnel, assured: true },
  ]);
});

/** What arrives in the other pod of a sweep over two flow labels. */
async function swept(proto: string, args: readonly string[] = []): Promise<Packet[]> {
  const capture = await b.capture({ direction: 'in', filter: `ip6 src ${a6}` });
  const frame = ['--dev', a.device, '--src-mac', a.mac, '--dst-mac', ANTREA.virtualMac, '--src', a6, '--dst', b6];
  const labels = ['--from', '0xffffe', '--to', '0xfffff', '--payload', 'c0ffee', '--tos', '0xb8', '--ttl', '9'];
  const ports = ['--sport', '6', '--dport', '7'];
  await a.exec([lab.tool('raw'), 'sweep', ...frame, '--proto', proto, ...ports, ...labels, ...args]);
  await sleep(100);
  return [...(await capture.stop()).packets];
}

test('raw: flow labels, extension headers, segments; counted', async () => {
  const raw = [lab.tool('raw'), 'count', '--dev', b.device, '--src', a6, '--dst', b6, '--payload', 'c0ffee'];
  for (const [proto, number] of [
    ['udp', IPPROTO.udp],
    ['tcp', IPPROTO.tcp],
    ['icmp', IPPROTO.icmpv6],
  ] as const) {
    // What conntrack does not begin with (a bare ACK) it takes up: nothing is dropped.
    const counted = await withServer(b, [...raw, '--proto', proto], async (counter) => {
      const packets = await swept(proto);
      const fields = { hopLimit: 7, trafficClass: 0xb8, proto: number, extensions: [] };
      expect(packets.filter(({ ip6 }) => ip6?.proto === number)).toMatchObject([
        { ip6: { ...fields, flowLabel: 0xffffe }, l4: { payloadLength: 3, checksumValid: true } },
        { ip6: { ...fields, flowLabel: 0xfffff }, l4: { payloadLength: 3, checksumValid: true } },
      ]);
      await counter.stop();
      return counter;
    });
    expect(await counted.json()).toMatchObject({ incoming: 2, missed: 0 });
  }
  expect(await swept('udp', ['--options', '--size', '50'])).toMatchObject(
    Array(2).fill({ ip6: { nextHeader: 60, proto: IPPROTO.udp, headerLength: 48 }, l4: { checksumValid: true } }),
  );
  const cut = await swept('udp', ['--gso-size', '100', '--size', '300', '--to', '0xffffe']);
  expect(cut.reduce((sum, { l4 }) => sum + (l4?.payloadLength ?? 0), 0)).toBe(300);
  await expect(swept('udp', ['--dst', b.address])).rejects.toThrow(/one address family/);
});
