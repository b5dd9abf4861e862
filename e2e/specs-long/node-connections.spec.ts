/** Thousands of connections between the nodes, each with IP IDs of its own, while pods masquerade. */
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { eventually } from '../lab/lab.ts';
import type { Node, Pod } from '../lab/lab.ts';
import { freshPort, requestResponse, transfer, withServer } from '../lab/measure.ts';
import { up } from '../lab/native/native.ts';
import type { NativeLab } from '../lab/native/native.ts';
import { EMULATED, connections as scaled } from '../lab/scale.ts';
import { startSidecars } from '../lab/sidecar.ts';
import type { LabSidecars } from '../lab/sidecar.ts';
import { watchCounters } from '../specs/support/counters.ts';
import { rebootWithout } from '../specs/support/footprint.ts';
import { MARKED_IDS, forge } from '../specs/support/forge.ts';
import { UNDISTURBED, besidePods } from '../specs/support/pod-traffic.ts';
import { tapped } from '../specs/support/stack-tap.ts';

/** Connections of one transaction each. */
const CONNECTIONS = scaled(10_000);
/** Connections at the same time. */
const FLOWS = scaled(2000);
/** Segment sizes of long connections: from the least to the largest, in such steps. */
const MSS_STEP = EMULATED ? 340 : 85;
/** Bytes of a long connection in each direction. */
const LONG = EMULATED ? '200k' : '2M';

describe('thousands of node-to-node connections', () => {
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

  const FINE = { errors: 0, corrupt: 0, timeouts: 0 };

  /** Expects that all of it works: short connections, many at once, and long ones of every segment size. */
  async function connections(from: Node, to: Node): Promise<void> {
    const pair = { from, to };
    const limits = { size: 200, timeoutMs: 20_000 };
    const short = await requestResponse(lab, pair, {
      ...limits,
      proto: 'tcp',
      crr: true,
      count: CONNECTIONS,
      seconds: 60,
    });
    expect(short).toMatchObject({ ...FINE, transactions: CONNECTIONS });
    const many = await requestResponse(lab, pair, {
      ...limits,
      proto: 'tcp',
      flows: FLOWS,
      seconds: 10,
      intervalUs: 100_000,
    });
    expect(many).toMatchObject(FINE);
    expect(many.transactions).toBeGreaterThan(FLOWS);
    for (let mss = 88; mss <= 1448; mss += MSS_STEP) {
      const long = await transfer(lab, pair, ['--up', LONG, '--down', LONG, '--mss', String(mss)]);
      expect(long).toMatchObject({ complete: true, corrupt: 0, peerCorrupt: 0, error: '' });
    }
  }

  test('all work beside masqueraded pods, in both directions', async () => {
    const counters = await watchCounters(sidecars);
    const { udp, tcp, masqueraded } = await besidePods(lab, sidecars, { from: a, to: b }, async () => {
      await connections(n1, n2);
      await connections(n2, n1);
      // A hundred sockets at a time: one server's receive buffer holds no more at once.
      for (let i = 0; i < FLOWS; i += 100) {
        const options = { proto: 'udp', flows: 100, size: 200, count: 1000, timeoutMs: 5000 } as const;
        expect(await requestResponse(lab, { from: n1, to: n2 }, options)).toMatchObject(FINE);
      }
    });
    expect({ udp, tcp }).toMatchObject(UNDISTURBED);
    expect(masqueraded.forward.restored).toBe(masqueraded.forward.sent);
    expect(masqueraded.backward.restored).toBe(masqueraded.backward.sent);
    for (const grown of await counters.since()) {
      expect(grown).toMatchObject({ unknown_key: 0, unknown_passed: 0, incomplete: 0, own_lost: 0, reject_sent: 0 });
      expect(grown.node_cleared).toBeGreaterThan(CONNECTIONS);
    }
  }, 300_000);

  test('all work after one node was rebooted without XMasq, for as long as the other takes it for a peer and afterwards', async () => {
    const before = (await sidecars.node(1).status()).counters;
    const { tcp } = await besidePods(lab, sidecars, { from: a, to: b }, async () => {
      await rebootWithout(sidecars.node(0));
      await connections(n1, n2);
      await connections(n2, n1);
    });
    expect(tcp).toMatchObject(UNDISTURBED.tcp);
    const after = (await sidecars.node(1).status()).counters;
    expect(after.unknown_passed - before.unknown_passed).toBeGreaterThan(0);
    expect(after.unknown_key - before.unknown_key).toBe(0);

    // The pods have ended; 30 s after the last packet that could be a sign of life nothing is taken for masqueraded any
    // more, not even what no socket and no connection speaks for.
    const port = freshPort();
    const server = [lab.tool('rr'), 'server', '--udp', '--bind', n2.address, '--port', String(port)];
    await withServer(n2, server, async () => {
      await eventually(
        'the peer is given up',
        async () => {
          const { all } = await tapped(n2, { all: `ip saddr ${n1.address} udp dport ${port}` }, async () => {
            await forge(lab, n1, {
              ...{ dstMac: n2.mac, dst: n2.address, proto: 'udp', sport: freshPort(), dport: port },
              ...{ ids: [MARKED_IDS[0], MARKED_IDS[0] + 63] },
            });
          });
          return all === 64;
        },
        45_000,
        1000,
      );
    });
  }, 400_000);
});
