/** XMasq beside real Open vSwitch: what Antrea allows becomes fast, what it denies does not, and nothing is written to it. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { ANTREA, eventually, sleep } from '../lab/lab.ts';
import type { Pod, Proc } from '../lab/lab.ts';
import { freshPort, reaches, withServer } from '../lab/measure.ts';
import type { OvsState } from '../lab/ovs/node.ts';
import { residue, up } from '../lab/ovs/ovs.ts';
import type { OvsLab } from '../lab/ovs/ovs.ts';
import { IPPROTO } from '../lab/packet.ts';
import { startSidecars } from '../lab/sidecar.ts';
import type { LabSidecars } from '../lab/sidecar.ts';
import { countWire } from '../lab/wire.ts';
import { connections } from './support/connections.ts';
import { OvsWatch } from './support/watch.ts';

/** Traffic goes on for so long at most; it is stopped when the test is over. */
const SECONDS = '600';

let lab: OvsLab;
let sidecars: LabSidecars;
let a: Pod;
let neighbour: Pod;
let b: Pod;
/** Open vSwitch of each node before the sidecars were started. */
let untouched: readonly OvsState[];
/** Open vSwitch of each node, as it is asked by its sidecar. */
let watches: readonly OvsWatch[];
/** OpenFlow messages before the sidecars were started. */
let messages: readonly number[];

beforeAll(async () => {
  lab = await up();
  a = lab.node(0).pod(0);
  neighbour = lab.node(0).pod(1);
  b = lab.node(1).pod(0);
  watches = await Promise.all(lab.nodes.map((node) => OvsWatch.start(node)));
  untouched = await states();
  messages = await openflowMessages();
  // Pods are learned from the database only.
  sidecars = await startSidecars(lab, { withoutPods: true, ovsdb: (node) => OvsWatch.socketOf(node) });
  for (const sidecar of sidecars.nodes) {
    await eventually('pods of the database', async () => (await sidecar.status()).endpoints === 2);
  }
}, 180_000);
afterAll(async () => {
  await sidecars.down();
  await Promise.all(watches.map((watch) => watch.close()));
  await lab.down();
  expect(residue(lab)).toEqual([]);
});
beforeEach(async () => {
  await lab.policy.clear();
});

test('every sidecar is ready', async () => {
  for (const sidecar of sidecars.nodes) {
    expect(await sidecar.status()).toMatchObject({ state: 'ready', degradations: [], endpoints: 2, peers: 1 });
  }
});

describe('becomes fast', () => {
  test('TCP, masqueraded on the wire', async () => {
    const port = freshPort();
    await withClient(['--tcp'], a, b, port, async () => {
      await sidecars.waitFast({ proto: 'tcp', port });
      const capture = await lab.node(0).capture({ filter: `host ${lab.node(1).address}` });
      await sleep(3000);
      const { packets } = await capture.stop();
      const sport = packets.find(({ l4 }) => l4?.dport === port)?.l4?.sport ?? 0;
      const end = (pod: Pod, at: number): { pod: Pod; node: Pod['node']; port: number } => ({
        ...{ pod, node: pod.node, port: at },
      });
      const flow = { proto: IPPROTO.tcp, client: end(a, sport), server: end(b, port) };
      const count = countWire(packets, [flow]);
      expect(count).toMatchObject({ unmarked: 0 });
      expect(count.masqueraded).toBeGreaterThan(10);
      expect(count.encapsulated).toBeLessThan(count.masqueraded);
    });
  });

  test('UDP', async () => {
    const port = freshPort();
    await withClient(['--udp'], a, b, port, () => sidecars.waitFast({ proto: 'udp', port }, 10_000));
  });

  test('ICMP echo', async () => {
    const pinging = await a.spawn(['ping', '-q', '-i', '0.1', '-w', SECONDS, b.address]);
    await sidecars.waitFast({ proto: 'icmp' }, 10_000);
    await pinging.stop('SIGINT');
    expect(pinging.output()).toMatch(/ 0% packet loss/);
  });

  test('SCTP of the kernel', async () => {
    const port = freshPort();
    await withServer(
      b,
      ['iperf3', '-s', '--forceflush', '-p', String(port)],
      async () => {
        const args = ['-c', b.address, '-p', String(port), '-t', SECONDS, '-b', '1M'];
        const client = await a.spawn(['iperf3', '--sctp', ...args]);
        await sidecars.waitFast({ proto: 'sctp', port }, 10_000);
        await client.stop();
      },
      /listening/,
    );
  });

  test('TCP between pods of one node', async () => {
    const port = freshPort();
    await withClient(['--tcp'], a, neighbour, port, () => sidecars.node(0).waitFast({ proto: 'tcp', port }));
  });
});

describe('until here', () => {
  test('nobody has spoken OpenFlow', async () => {
    expect(await openflowMessages()).toEqual(messages);
    expect(await Promise.all(watches.map((watch) => watch.openflowConnections()))).toEqual([0, 0]);
  });

  test('the database was asked for its schema and its rows, and no more', () => {
    for (const { methods } of watches) {
      expect(methods.filter((method) => method !== 'echo')).toEqual(['get_schema', 'monitor_cond']);
    }
  });

  test('nobody has written to Open vSwitch', async () => {
    const now = await states();
    now.forEach((state, i) => expect(state).toEqual(untouched[i]));
    // That took OpenFlow: it would have been seen.
    for (const [i, count] of (await openflowMessages()).entries()) expect(count).toBeGreaterThan(messages[i] ?? 0);
  });
});

describe('policy', () => {
  test('a connection that was committed and then denied is never admitted', async () => {
    const port = freshPort();
    const rule = { srcPod: a, dstPod: neighbour, proto: 'tcp', port } as const;
    await lab.policy.allow(rule, 'egress');
    await lab.policy.deny(rule, ['ingress']);
    await withServer(neighbour, rrServer('--tcp', port), async () => {
      expect(await reaches(lab, a, neighbour, port)).toBe(false);
    });
    expect(await connections(lab.node(0), port)).toMatchObject([{ mark: 0 }]);
    expect((await sidecars.node(0).flows({ port })).filter(({ admitted }) => admitted)).toEqual([]);
  });

  test('denied UDP stays denied, however long it is sent', async () => {
    const port = freshPort();
    await lab.policy.deny({ srcPod: a, dstPod: b, proto: 'udp', port }, ['ingress']);
    const capture = await b.capture({ filter: `udp dst port ${port}` });
    await withServer(b, rrServer('--udp', port), async () => {
      const to = ['--udp', '--to', b.address, '--port', String(port)];
      await a.exec([lab.tool('rr'), 'client', ...to, '--timeout-ms', '100', '--seconds', '8', '--json'], {
        check: false,
      });
    });
    expect((await capture.stop()).packets).toEqual([]);
    expect((await sidecars.node(0).flows({ port })).filter(({ admitted }) => admitted)).toEqual([]);
  });

  test('tightened while a connection is fast: it goes on, as without XMasq, and a new one is denied', async () => {
    const port = freshPort();
    await withClient(['--tcp'], a, b, port, async (client) => {
      await sidecars.waitFast({ proto: 'tcp', port });
      await lab.policy.deny({ srcPod: a, dstPod: b, proto: 'tcp', port });
      expect(await reaches(lab, a, b, port)).toBe(false);
      await sleep(3000);
      await sidecars.waitFast({ proto: 'tcp', port });
      expect(client.running).toBe(true);
      const marks = await Promise.all(lab.nodes.map((node) => connections(node, port)));
      for (const entries of marks) expect(entries.filter(({ assured }) => assured)).toHaveLength(1);
      const denied = (await sidecars.node(0).flows({ destinationPort: port })).filter(({ admitted }) => !admitted);
      for (const flow of denied) expect(flow.path).toBe('slow');
    });
  });

  test('the entry of a fast connection is deleted: it is judged again, and denied now', async () => {
    const port = freshPort();
    await withClient(['--udp'], a, b, port, async () => {
      await sidecars.waitFast({ proto: 'udp', port }, 10_000);
      await lab.policy.deny({ srcPod: a, dstPod: b, proto: 'udp', port });
      for (const node of lab.nodes) await node.conntrack.delete({ zone: ANTREA.zone, proto: 'udp', dport: port });
      await eventually('not fast any more', async () =>
        (await sidecars.node(0).flows({ destinationPort: port })).every(({ path }) => path === 'slow'),
      );
      await sleep(2000);
      const capture = await b.capture({ filter: `udp dst port ${port}` });
      await sleep(3000);
      expect((await capture.stop()).packets).toEqual([]);
    });
  });
});

test('spoof guard: with the ports of a fast flow, too, nobody sends in the name of another pod', async () => {
  const port = freshPort();
  const sport = freshPort();
  await withClient(['--udp', '--sport', String(sport)], a, b, port, async () => {
    await sidecars.waitFast({ proto: 'udp', port }, 10_000);
    // Told from the exchanges of one byte by their length: 8 bytes of header and 4.
    const forged = `udp dst port ${port} and udp[4:2] = 12`;
    const send = (from: Pod, last: number): Promise<unknown> => {
      const source = ['--dev', from.device, '--src-mac', from.mac, '--src', a.address, '--sport', String(sport)];
      const target = ['--dst-mac', ANTREA.virtualMac, '--dst', b.address, '--proto', 'udp', '--dport', String(port)];
      const ids = ['--payload', 'deadbeef', '--from', '32768', '--to', String(last), '--rate', '20000'];
      return from.exec([lab.tool('raw'), 'sweep', ...source, ...target, ...ids], { timeoutMs: 30_000 });
    };
    const capture = await b.capture({ filter: forged });
    await send(neighbour, 65535);
    await sleep(2000);
    expect((await capture.stop()).packets).toEqual([]);

    const control = await b.capture({ filter: forged });
    await send(a, 32777);
    await sleep(2000);
    expect((await control.stop()).packets).toHaveLength(10);
  });
});

test('after all of this, and after cleanup, Open vSwitch is as it was and the pods reach each other', async () => {
  await lab.policy.clear();
  const before = await openflowMessages();
  for (const sidecar of sidecars.nodes) {
    expect((await sidecar.stop()).code).toBe(0);
    await sidecar.cleanup('--force');
  }
  expect(await openflowMessages()).toEqual(before);
  for (const { methods } of watches) {
    expect(methods.filter((method) => method !== 'echo')).toEqual(['get_schema', 'monitor_cond']);
  }
  const now = await states();
  now.forEach((state, i) => expect(state).toEqual(untouched[i]));
  await a.exec(['ping', '-c', '2', '-W', '5', b.address]);
});

function states(): Promise<OvsState[]> {
  return Promise.all(lab.nodes.map((node) => node.ovsState()));
}

function openflowMessages(): Promise<number[]> {
  return Promise.all(watches.map((watch) => watch.openflowMessages()));
}

function rrServer(protocol: '--tcp' | '--udp', port: number): string[] {
  return [lab.tool('rr'), 'server', protocol, '--port', String(port)];
}

/** Runs `use` while a client exchanges small messages with a server. */
async function withClient(
  [protocol, ...own]: readonly ['--tcp' | '--udp', ...string[]],
  from: Pod,
  to: Pod,
  port: number,
  use: (client: Proc) => Promise<unknown>,
): Promise<void> {
  const args = ['--to', to.address, '--port', String(port), '--seconds', SECONDS, '--interval-us', '50000', '--json'];
  await withServer(to, rrServer(protocol, port), async () => {
    const client = await from.spawn([lab.tool('rr'), 'client', protocol, ...args, ...own, '--timeout-ms', '5000']);
    try {
      await use(client);
    } finally {
      await client.stop();
    }
  });
}
