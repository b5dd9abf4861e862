/** The main job end to end: one TCP flow between pods of two nodes leaves the tunnel, and nothing is left behind. */
import { existsSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { eventually, sleep } from '../lab/lab.ts';
import type { Node, Pod, Proc } from '../lab/lab.ts';
import { residue, up } from '../lab/native/native.ts';
import type { NativeLab } from '../lab/native/native.ts';
import { IPPROTO } from '../lab/packet.ts';
import { ADMISSION, EMULATED, atMostNatively, stretched } from '../lab/scale.ts';
import { startSidecars } from '../lab/sidecar.ts';
import type { LabSidecars } from '../lab/sidecar.ts';
import { countWire } from '../lab/wire.ts';
import { footprintOf, remaining } from './support/footprint.ts';

const PORT = 7000;
const CLIENT_PORT = 7100;
/**
 * Slow packets per direction that a TCP flow may need (handshake included) until it is fast. Where the sidecar has to
 * approve it, as many as are sent until then.
 */
const MOST_SLOW_PACKETS = ADMISSION === 'conntrack' ? atMostNatively(6) : Infinity;

describe('two nodes', () => {
  let lab: NativeLab;
  let sidecars: LabSidecars;
  let client: Pod;
  let server: Pod;

  beforeAll(async () => {
    lab = await up({ podsPerNode: 1 });
    client = lab.node(0).pod(0);
    server = lab.node(1).pod(0);
    sidecars = await startSidecars(lab);
  });

  afterAll(async () => {
    await sidecars.down();
    await lab.down();
    expect(residue(lab)).toEqual([]);
  });

  test('every sidecar has loaded and attached the data plane', async () => {
    for (const sidecar of sidecars.nodes) {
      const status = await sidecar.status();
      expect(status).toMatchObject({
        state: 'ready',
        admissionMode: ADMISSION,
        degradations: [],
        endpoints: 1,
        peers: 1,
      });
      expect(status.podEvents).toMatchObject({ connected: true, synced: true });
      expect(existsSync(sidecar.node.pinDir)).toBe(true);
    }
  });

  test('a TCP flow is masqueraded in both directions: counters, flow table, command line and capture say so', async () => {
    const before = await Promise.all(sidecars.nodes.map((sidecar) => sidecar.status()));
    const procs = await startTransfer();
    try {
      await sidecars.waitFast({ proto: 'tcp', port: PORT });
      const after = await Promise.all(sidecars.nodes.map((sidecar) => sidecar.status()));
      after.forEach((status, i) => {
        const grown = (name: keyof typeof status.counters): number =>
          status.counters[name] - (before[i]?.counters[name] ?? 0);
        expect(grown('flow_admitted')).toBe(1);
        expect(grown('key_learned')).toBeGreaterThan(0);
        expect(grown('slow_tx')).toBeLessThanOrEqual(MOST_SLOW_PACKETS);
        expect(grown('fast_tx')).toBeGreaterThan(0);
        expect(grown('restored')).toBeGreaterThan(0);
        expect(grown('unknown_key') + grown('own_lost') + grown('incomplete')).toBe(0);
      });

      const capture = await lab.node(0).capture({ filter: `host ${lab.node(1).address}` });
      await sleep(EMULATED ? 1000 : 300);
      const { packets } = await capture.stop();
      const end = (pod: Pod, port: number): { pod: Pod; node: Node; port: number } => ({ pod, node: pod.node, port });
      const flow = { proto: IPPROTO.tcp, client: end(client, CLIENT_PORT), server: end(server, PORT) };
      const count = countWire(packets, [flow]);
      expect(count).toMatchObject({ encapsulated: 0, unmarked: 0 });
      expect(count.masqueraded).toBeGreaterThan(10);

      const { code, stdout, json } = await sidecars.node(0).cli(['flows', '--port', String(PORT), '-o', 'json']);
      expect({ code, stdout }).toMatchObject({ code: 0 });
      expect(json).toMatchObject({
        flows: [{ sourceIp: client.address, destinationIp: server.address, path: 'FLOW_PATH_FAST', admitted: true }],
      });
    } finally {
      await Promise.all(procs.map((proc) => proc.stop()));
    }
  });

  test('cleanup removes programs and pins, and the pods still reach each other', async () => {
    for (const sidecar of sidecars.nodes) {
      const footprint = await footprintOf(sidecar.node);
      expect(footprint.programs.length).toBeGreaterThan(0);
      const { code } = await sidecar.stop();
      expect(code).toBe(0);
      // Peers are not waited for here, since no flow is left.
      await sidecar.cleanup('--force');
      expect(existsSync(sidecar.node.pinDir)).toBe(false);
      // The kernel frees them a moment after their last user is gone.
      await eventually('programs, maps and links gone', async () => {
        const { programs, maps, links } = await remaining(sidecar.node, footprint);
        return programs.length + maps.length + links.length === 0;
      });
      const qdiscs = await sidecar.node.exec(['tc', 'qdisc', 'show']);
      expect(qdiscs.stdout).not.toContain('clsact');
    }
    await client.exec(['ping', '-c', '1', '-W', '2', server.address]);
  });

  /** A paced transfer in both directions that goes on until it is stopped. */
  async function startTransfer(): Promise<Proc[]> {
    const tool = lab.tool('stream');
    const common = ['--tcp', '--port', String(PORT), '--seconds', String(stretched(30))];
    const serving = await server.spawn([tool, 'server', ...common, '--bind', server.address]);
    await serving.waitFor(/^ready/);
    const way = [
      '--to',
      server.address,
      '--sport',
      String(CLIENT_PORT),
      '--rate',
      EMULATED ? '60000' : '1000000',
      '--down',
      '100000000',
    ];
    return [serving, await client.spawn([tool, 'client', ...common, ...way])];
  }
});
