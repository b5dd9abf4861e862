/** The nodes' own traffic beside masqueraded pods: nothing of it is lost, changed or given to a pod. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { eventually, sleep } from '../lab/lab.ts';
import type { Node, OffloadFlags, Pod, Proc } from '../lab/lab.ts';
import { datagramResult, datagrams, freshPort, requestResponse, transfer, withServer } from '../lab/measure.ts';
import type { DatagramResult } from '../lab/measure.ts';
import { up } from '../lab/native/native.ts';
import type { NativeLab } from '../lab/native/native.ts';
import { ADMISSION, EMULATED, atMostNatively, stretched } from '../lab/scale.ts';
import { startSidecars } from '../lab/sidecar.ts';
import type { LabSidecars } from '../lab/sidecar.ts';
import { watchCounters } from './support/counters.ts';
import { rebootWithout } from './support/footprint.ts';
import { attachForeign, compileForeign } from './support/foreign.ts';
import { MARKED_IDS, forge, markedIdsWithout } from './support/forge.ts';
import { UNDISTURBED, besidePods } from './support/pod-traffic.ts';
import type { PodFlows } from './support/pod-traffic.ts';
import { tapped } from './support/stack-tap.ts';
import { withTransfer } from './support/streams.ts';

/** Ports of a connection between the nodes. */
interface Ports {
  readonly sport: number;
  readonly port: number;
}

const OFFLOADS_ON: OffloadFlags = { tso: true, gso: true, gro: true, tx: true };
const OFFLOADS_OFF: OffloadFlags = { tso: false, gso: false, gro: false, tx: false };

/** What the counters of a node must not have done for its own traffic. */
const UNTOUCHED = { unknown_key: 0, unknown_passed: 0, incomplete: 0, own_lost: 0, reject_sent: 0 };

/** Bytes of a transfer: of small segments, and of large ones. */
const [SMALL, LARGE] = EMULATED ? ['40k', '300k'] : ['200k', '3M'];
/** Datagrams per second; packets that are forged in a row. */
const [DATAGRAMS, FORGED] = EMULATED ? [300, 3000] : [3000, 30_000];
/** IDs that are forged: all, or as many around the marker bit; those with it; and the most of one range. */
const IDS = EMULATED ? ([0x7800, 0x87ff] as const) : ([0, 0xffff] as const);
const WITH_MARKER = [0x8000, IDS[1]] as const;
const [IDS_COUNT, WITH_MARKER_COUNT] = [IDS[1] - IDS[0] + 1, IDS[1] - 0x8000 + 1];
const MOST_IDS = EMULATED ? 1000 : IDS_COUNT;
/** What goes on while something happens to the nodes: seconds, and bytes per second and direction. */
const [SECONDS, PACE] = EMULATED ? [60, 100_000] : [6, 1_000_000];

/** A client that runs while packets are forged. */
const BESIDE = EMULATED ? ['--rate', '50', '--seconds', '600'] : ['--seconds', '60'];

const CONTENT = 'from node to node, not for a pod';

// Kernels that admit by approvals have no TCX, by which the foreign program attaches, and no pinned links.
const withTcx = ADMISSION === 'conntrack' ? test : test.skip;

describe('node-to-node traffic', () => {
  let lab: NativeLab;
  let sidecars: LabSidecars;
  let n1: Node;
  let n2: Node;
  let a: Pod;
  let b: Pod;

  beforeAll(async () => {
    lab = await up();
    sidecars = await startSidecars(lab);
    [n1, n2] = [lab.node(0), lab.node(1)];
    [a, b] = [n1.pod(0), n2.pod(0)];
  });
  afterAll(async () => {
    await sidecars.down();
    await lab.down();
  });

  /** A verified TCP connection; ended by RST, so that the same ports can be used again. */
  const nodeTransfer = (ports: Ports, bytes: string, args: readonly string[] = []): ReturnType<typeof transfer> =>
    transfer(
      lab,
      { from: n1, to: n2 },
      ['--up', bytes, '--down', bytes, '--rst', '--sport', String(ports.sport), '--bind', n1.address, ...args],
      { port: ports.port },
    );

  /** Numbered datagrams, each answered. */
  const nodeDatagrams = (ports: Ports, args: readonly string[]): Promise<DatagramResult> =>
    datagrams(lab, { from: n1, to: n2 }, ['--reply', '--sport', String(ports.sport), '--bind', n1.address, ...args], {
      port: ports.port,
    });

  /** A client on the second node, whose socket is connected to the server on the first one: for packets sent the other way. */
  const connectedClient = async ({ sport, port }: Ports): Promise<Proc> => {
    const socket = ['--bind', n2.address, '--sport', String(port), '--to', n1.address, '--port', String(sport)];
    const client = await n2.spawn([lab.tool('stream'), 'client', '--udp', ...socket, '--reply', ...BESIDE]);
    const sockets = ['ss', '-Hun', 'state', 'connected', 'sport', String(port), 'dport', String(sport)];
    await eventually('a connected client', async () => (await n2.exec(sockets)).stdout !== '');
    return client;
  };

  const freshPorts = (): Ports => ({ sport: freshPort(), port: freshPort() });

  const expectWhole = (result: Awaited<ReturnType<typeof nodeTransfer>>): void =>
    expect(result).toMatchObject({ complete: true, corrupt: 0, peerCorrupt: 0, error: '' });

  const NOTHING_LOST = {
    answered: true,
    foreign: 0,
    peer: { lost: 0, corrupt: 0, duplicates: 0 },
    echo: { lost: 0, corrupt: 0, duplicates: 0 },
  };

  describe.each([
    ['on', OFFLOADS_ON],
    ['off', OFFLOADS_OFF],
  ])('with offloads %s', (_, flags) => {
    beforeEach(() => lab.offload(flags));
    afterEach(() => lab.offload(OFFLOADS_ON));

    test('TCP of every segment size, UDP, UDP_SEGMENT and ICMP arrive whole, on other ports and on those of a pod flow', async () => {
      const counters = await watchCounters(sidecars);
      const { udp, tcp, masqueraded } = await besidePods(lab, sidecars, { from: a, to: b }, async (flows) => {
        for (const ports of [flows, freshPorts()]) {
          const wire = await n2.capture({
            direction: 'in',
            filter: `src host ${n1.address} and icmp and ip[4] & 0x80 != 0 and ip[6] & 0x40 != 0`,
          });
          for (const mss of [88, 536, 1000, 1448]) {
            expectWhole(await nodeTransfer(ports, mss < 500 ? SMALL : LARGE, ['--mss', String(mss)]));
          }
          const plain = ['--count', '1000', '--rate', String(DATAGRAMS)];
          expect(await nodeDatagrams(ports, [...plain, '--size', '1400'])).toMatchObject(NOTHING_LOST);
          const gso = ['--count', '2000', '--rate', String(DATAGRAMS), '--gso', '40', '--size', '1000'];
          expect(await nodeDatagrams(ports, gso)).toMatchObject(NOTHING_LOST);
          const ping = ['ping', '-n', '-q', '-c', '100', '-i', '0.005', '-M', 'do', '-s', '1400', '-p', 'c0ffee'];
          const { stdout } = await n1.exec([...ping, n2.address]);
          expect(stdout).toContain('100 packets transmitted, 100 received');
          expect(stdout).not.toContain('wrong');
          expect((await wire.stop()).packets).toEqual([]);
        }
      });
      expect({ udp, tcp }).toMatchObject(UNDISTURBED);
      expect(masqueraded.forward.sent).toBeGreaterThan(0);
      expect(masqueraded.forward.restored).toBe(masqueraded.forward.sent);
      expect(masqueraded.backward.restored).toBe(masqueraded.backward.sent);
      for (const grown of await counters.since()) {
        expect(grown).toMatchObject(UNTOUCHED);
        expect(grown.flow_demoted + grown.black_hole).toBeLessThanOrEqual(atMostNatively(0));
        // A kernel chooses IDs at random: half of the connections needed it.
        expect(grown.node_cleared).toBeGreaterThan(0);
      }
    }, 90_000);
  });

  test('packets of connections never leave with the marker bit in their ID', async () => {
    // Of eight connections one begins with a marked ID with near certainty. Without offloads each packet has its own.
    await lab.offload(OFFLOADS_OFF);
    const ports = freshPorts();
    const filter = `port ${ports.port} and src host ${n1.address} and ip[6] & 0x40 != 0`;
    const wire = await n2.capture({ direction: 'in', filter });
    for (let i = 0; i < 8; i++) expectWhole(await nodeTransfer(ports, EMULATED ? '60k' : '500k', ['--mss', '88']));
    const { packets } = await wire.stop();
    expect(packets.length).toBeGreaterThan(1000);
    expect(packets.filter(({ ip }) => ((ip?.id ?? 0) & 0x8000) !== 0).slice(0, 3)).toEqual([]);
    await lab.offload(OFFLOADS_ON);
  }, 30_000);

  test('of IDs chosen by the sender only the marker bit is lost, and only where DF allows', async () => {
    const to = { dstMac: n2.mac, dst: n2.address, ids: IDS, ...udpPorts() };
    const ids = (text: string): string => `ip saddr ${n1.address} udp dport ${to.dport} ${text}`;
    const got = await tapped(n2, { marked: ids('ip id >= 0x8000'), plain: ids('ip id < 0x8000') }, async () => {
      expect(await forge(lab, n1, { ...to, proto: 'udp' })).toBe(IDS_COUNT);
    });
    expect(got).toEqual({ marked: 0, plain: IDS_COUNT });
    const untouched = await tapped(n2, { marked: ids('ip id >= 0x8000'), plain: ids('ip id < 0x8000') }, async () => {
      expect(await forge(lab, n1, { ...to, proto: 'udp', options: ['--no-df'] })).toBe(IDS_COUNT);
    });
    expect(untouched).toEqual({ marked: WITH_MARKER_COUNT, plain: IDS_COUNT - WITH_MARKER_COUNT });
  }, 60_000);

  test('AH, whose signature covers the ID, arrives with every ID as it was sent', async () => {
    const counters = await watchCounters(sidecars);
    const ah = `ip saddr ${n1.address} ip protocol ah`;
    const got = await tapped(n2, { marked: `${ah} ip id >= 0x8000`, all: ah }, async () => {
      await forge(lab, n1, { dstMac: n2.mac, dst: n2.address, proto: 51, payload: CONTENT, size: 200, ids: IDS });
    });
    expect(got).toEqual({ marked: WITH_MARKER_COUNT, all: IDS_COUNT });
    for (const grown of await counters.since()) expect(grown).toMatchObject(UNTOUCHED);
  }, 60_000);

  describe('of a sender that bypasses the qdisc layer', () => {
    test('to a connected socket arrives whole, on the ports of a pod flow, too', async () => {
      const { udp, tcp, masqueraded } = await besidePods(lab, sidecars, { from: a, to: b }, async (flows) => {
        const others = freshPorts();
        // Without conntrack, only the socket itself tells.
        const untracked = `
table ip untracked {
  chain prerouting { type filter hook prerouting priority raw; udp dport ${others.port} notrack; }
  chain output { type filter hook output priority raw; udp sport ${others.port} notrack; }
}
`;
        await n2.exec(['nft', '-f', '-'], { input: untracked });
        for (const ports of [others, flows]) {
          const counters = await watchCounters(sidecars);
          // A server on the first node and a connected client on the second, to which somebody else on the first one sends.
          const where = ['--port', String(ports.sport)];
          const tool = lab.tool('stream');
          await withServer(n1, [tool, 'server', '--udp', '--bind', n1.address, ...where], async () => {
            const client = await connectedClient(ports);
            let sent = 0;
            // The key's own IDs anybody may use who knows it: nobody can tell.
            let expected = 0;
            for (const [low, high] of markedIdsWithout(keyOf(flows))) {
              const ids = [low, Math.min(high, low + MOST_IDS - 1)] as const;
              expected += ids[1] - ids[0] + 1;
              sent += await forge(lab, n1, {
                ...{ dstMac: n2.mac, dst: n2.address, proto: 'udp', sport: ports.sport, dport: ports.port },
                ...{ ids, payload: CONTENT, rate: FORGED, bypass: true },
              });
            }
            expect(sent).toBe(expected);
            if (!EMULATED) expect(sent).toBe(32_768 - 128);
            await client.stop('SIGTERM', 5000);
            const result = datagramResult(await client.json());
            expect(result).toMatchObject({ ...NOTHING_LOST, foreign: sent });
            const [, grown] = await counters.since();
            expect(grown).toMatchObject({ unknown_key: 0, incomplete: 0, reject_sent: 0, unknown_passed: sent });
          });
        }
        await n2.exec(['nft', 'delete', 'table', 'ip', 'untracked']);
      });
      expect({ udp, tcp }).toMatchObject(UNDISTURBED);
      // Under emulation the client pauses for a second before it asks for the counts. After such a pause a packet on ports that
      // a connection of the node has, too, is taken for that one's: the client asks again.
      const lost = masqueraded.forward.sent - masqueraded.forward.restored;
      expect(lost).toBeGreaterThanOrEqual(0);
      expect(lost).toBeLessThanOrEqual(EMULATED ? 1 : 0);
    }, 60_000);

    test('to a socket that takes anybody’s datagrams arrives if the node tracks the connection', async () => {
      await besidePods(lab, sidecars, { from: a, to: b }, async () => {
        const { sport, port } = freshPorts();
        const server = [
          lab.tool('rr'),
          'server',
          '--udp',
          '--bind',
          n2.address,
          '--port',
          String(port),
          '--size',
          '20',
        ];
        await withServer(n2, server, async () => {
          const client = ['client', '--udp', '--to', n2.address, '--port', String(port), '--sport', String(sport)];
          await n1.exec([lab.tool('rr'), ...client, '--size', '20', '--count', '3']);
          const counters = await watchCounters(sidecars);
          const got = await tapped(n2, { all: `ip saddr ${n1.address} udp dport ${port}` }, async () => {
            await forge(lab, n1, {
              ...{ dstMac: n2.mac, dst: n2.address, proto: 'udp', sport, dport: port },
              ...{ ids: WITH_MARKER, payload: CONTENT, rate: FORGED, bypass: true },
            });
          });
          expect(got).toEqual({ all: WITH_MARKER_COUNT });
          expect((await counters.since())[1]).toMatchObject({ unknown_key: 0, unknown_passed: WITH_MARKER_COUNT });
        });
      });
    }, 60_000);

    /** Known limits (docs/design.md, section 5): nothing on the node says whose these are. */
    test.each([
      ['a datagram to a socket that takes anybody’s, of a connection that nobody tracks', 'udp'],
      ['an ICMP echo request', 'icmp'],
    ] as const)(
      'known limit: %s is dropped and rejected if it has marker and DF',
      async (_, proto) => {
        await besidePods(lab, sidecars, { from: a, to: b }, async () => {
          const { sport, port } = freshPorts();
          const server = [
            lab.tool('rr'),
            'server',
            '--udp',
            '--bind',
            n2.address,
            '--port',
            String(port),
            '--size',
            '20',
          ];
          await withServer(n2, server, async () => {
            const counters = await watchCounters(sidecars);
            const match = proto === 'udp' ? `udp dport ${port}` : 'icmp type echo-request';
            const got = await tapped(n2, { all: `ip saddr ${n1.address} ${match}` }, async () => {
              await forge(lab, n1, {
                ...{ dstMac: n2.mac, dst: n2.address, proto, sport, dport: port, ids: [0x8000, 0x80ff] },
                ...{ payload: CONTENT, bypass: true },
              });
            });
            expect(got).toEqual({ all: 0 });
            const [, grown] = await counters.since();
            expect(grown).toMatchObject({ unknown_key: 256, unknown_passed: 0 });
            expect((grown?.reject_sent ?? 0) + (grown?.reject_limited ?? 0)).toBe(256);
          });
        });
      },
      60_000,
    );
  });

  withTcx(
    'is untouched by a foreign tc program that ends the chain before ours; ours is first again within seconds',
    async () => {
      const object = compileForeign(lab);
      const { tcp } = await besidePods(lab, sidecars, { from: a, to: b }, async (flows) => {
        const displaced = async (): Promise<boolean> =>
          (await sidecars.node(0).status()).degradations.some(({ what }) => what.includes('before uplink_egress'));
        return withNodeTransfers(flows, async (whole) => {
          let foreign: Proc | undefined;
          try {
            foreign = await attachForeign(n1, object, 'egress');
            await clears();
            await eventually('no complaint', async () => !(await displaced()));
          } finally {
            await foreign?.stop();
          }
          await whole();
        });
      });
      expect(tcp).toMatchObject(UNDISTURBED.tcp);
    },
    60_000,
  );

  withTcx(
    'a foreign tc program that comes first where packets come in is told, and is behind ours within seconds',
    async () => {
      const object = compileForeign(lab);
      // It may be over before a busy machine has asked for the status twice: the log keeps it.
      const told = sidecars.node(1).proc.output().length;
      const logged = (text: string): boolean => sidecars.node(1).proc.output().slice(told).includes(text);
      const complaint = 'another program runs before uplink_ingress';
      await besidePods(lab, sidecars, { from: a, to: b }, async (flows) => {
        const foreign = await attachForeign(n2, object, 'ingress');
        try {
          await eventually('a complaint', () => logged(`"${complaint}`));
          await eventually('no complaint', () => logged(`"over: ${complaint}`));
          const { degradations } = await sidecars.node(1).status();
          expect(degradations.filter(({ what }) => what.includes(complaint))).toEqual([]);
          const counters = await watchCounters(sidecars);
          await sidecars.waitFast({ proto: 'tcp', port: flows.port });
          await eventually('restored', async () => ((await counters.since())[1]?.restored ?? 0) > 100);
        } finally {
          await foreign.stop();
        }
      });
    },
    60_000,
  );

  /** Waits until uplink_egress of the first node works: it does not while a program before it ends the chain. */
  async function clears(): Promise<void> {
    const probe = { dstMac: n2.mac, dst: n2.address, proto: 253, ids: [0x8001, 0x8001] } as const;
    const counters = await watchCounters(sidecars);
    await eventually(
      'uplink_egress works',
      async () => {
        await forge(lab, n1, probe);
        return ((await counters.since())[0]?.node_cleared ?? 0) > 0;
      },
      5000,
    );
  }

  /**
   * Runs `use` during TCP connections between the nodes that last until `whole` is called, which expects them to have
   * arrived whole: one on the pods' ports, one on others.
   */
  async function withNodeTransfers<T>(flows: PodFlows, use: (whole: () => Promise<void>) => Promise<T>): Promise<T> {
    const args = (ports: Ports): string[] => [
      ...['--sport', String(ports.sport), '--bind', n1.address, '--mss', '536'],
      ...['--seconds', String(SECONDS), '--rate', String(PACE), '--down', String(SECONDS * PACE)],
    ];
    const other = freshPorts();
    const pair = { from: n1, to: n2 };
    return withTransfer(
      lab,
      pair,
      args(flows),
      (same) =>
        withTransfer(
          lab,
          pair,
          args(other),
          (second) =>
            use(async () => {
              expectWhole(await same.result());
              expectWhole(await second.result());
            }),
          other.port,
        ),
      flows.port,
    );
  }

  /** Both ports of a UDP sweep. */
  function udpPorts(): { sport: number; dport: number } {
    return { sport: freshPort(), dport: freshPort() };
  }

  /** The key that the second node restores the pods' UDP packets by. */
  function keyOf(flows: PodFlows): number {
    const slots = sidecars.node(1).maps.slots();
    const found = slots.find(([key]) => key.proto === 17 && key.sport === flows.sport && key.dport === flows.port);
    if (found === undefined) throw new Error('the pods’ flow has no slot');
    return found[1].key;
  }

  describe('after one node has lost its hooks', () => {
    const remedies: [string, () => Promise<void>][] = [
      [
        'by cleanup --force',
        async () => {
          await sidecars.node(0).stop();
          await sidecars.node(0).cleanup('--force');
        },
      ],
      ['by a reboot without XMasq', () => reboot()],
    ];
    const reboot = (): Promise<void> => rebootWithout(sidecars.node(0));
    afterEach(async () => {
      if (!sidecars.node(0).proc.running) {
        await sidecars.node(0).start();
        await sidecars.node(0).waitReady();
      }
    });

    test.each(remedies)(
      '%s, connections go on and new ones work',
      async (_, lose) => {
        const counters = await watchOne(1);
        const { tcp } = await besidePods(lab, sidecars, { from: a, to: b }, (flows) =>
          withNodeTransfers(flows, async (whole) => {
            await lose();
            // New connections, of which each has a random ID at the start.
            const crr = await requestResponse(
              lab,
              { from: n1, to: n2 },
              { proto: 'tcp', crr: true, seconds: 1, size: 64, timeoutMs: stretched(1000) },
            );
            expect(crr).toMatchObject({ errors: 0, corrupt: 0, timeouts: 0 });
            for (let i = 0; i < 8; i++) expectWhole(await nodeTransfer(freshPorts(), '300k', ['--mss', '536']));
            const back = { from: n2, to: n1 };
            expectWhole(await transfer(lab, back, ['--up', '300k', '--down', '300k', '--mss', '88']));
            await whole();
          }),
        );
        // The pods go on over the slow path.
        expect(tcp).toMatchObject(UNDISTURBED.tcp);
        const grown = await counters();
        // The first node's own packets look masqueraded now and are known by their sockets.
        expect(grown.unknown_passed).toBeGreaterThan(0);
        expect(grown.unknown_key).toBe(0);
      },
      60_000,
    );

    test('of a connection on the very ports of a pod flow not one packet is given to the pod, whatever its ID', async () => {
      await besidePods(lab, sidecars, { from: a, to: b }, async (flows) => {
        const key = keyOf(flows);
        await reboot();
        const where = ['--port', String(flows.sport)];
        const tool = lab.tool('stream');
        await withServer(n1, [tool, 'server', '--udp', '--bind', n1.address, ...where], async () => {
          const client = await connectedClient(flows);
          const send = (ids: readonly [number, number]): Promise<number> =>
            forge(lab, n1, {
              ...{ dstMac: n2.mac, dst: n2.address, proto: 'udp', sport: flows.sport, dport: flows.port },
              ...{ ids, payload: CONTENT, rate: FORGED / 2 },
            });
          // The first packet with another key tells that the nodes have this connection.
          const other = 0x8000 | ((key ^ 1) << 6);
          let sent = await send([other, other]);
          // A second after the last masqueraded packet, the pods' own may not be under way any more.
          await sleep(1100);
          sent += await send(MARKED_IDS);
          await client.stop('SIGTERM', 5000);
          // Masqueraded packets of the other pod, which does not know yet, may have come as well, at the first node only.
          expect(datagramResult(await client.json())).toMatchObject({ foreign: sent, peer: { corrupt: 0 } });
        });
      });
    }, 60_000);

    withTcx(
      'links removed by hand are put back by the sidecar',
      async () => {
        const { tcp } = await besidePods(lab, sidecars, { from: a, to: b }, (flows) =>
          withNodeTransfers(flows, async (whole) => {
            await n1.sh(`rm ${n1.pinDir}/links/uplink_*`);
            await clears();
            for (let i = 0; i < 4; i++) expectWhole(await nodeTransfer(freshPorts(), '300k'));
            await whole();
          }),
        );
        expect(tcp).toMatchObject(UNDISTURBED.tcp);
      },
      60_000,
    );

    async function watchOne(i: number): Promise<() => Promise<Record<'unknown_key' | 'unknown_passed', number>>> {
      const before = (await sidecars.node(i).status()).counters;
      return async () => {
        const now = (await sidecars.node(i).status()).counters;
        return {
          unknown_key: now.unknown_key - before.unknown_key,
          unknown_passed: now.unknown_passed - before.unknown_passed,
        };
      };
    }
  });
});
