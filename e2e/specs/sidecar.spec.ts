/** The data plane outlives its sidecar: killed, stopped, restarted, refused, drained and cleaned up, with pods at work. */
import { readFileSync, writeFileSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { Counter } from '../../plugin/src/gen/layouts.ts';
import { eventually, sleep } from '../lab/lab.ts';
import type { ExecResult, Pod, Proc } from '../lab/lab.ts';
import { up } from '../lab/native/native.ts';
import type { NativeLab } from '../lab/native/native.ts';
import { ADMISSION, EMULATED, atMostNatively } from '../lab/scale.ts';
import { startSidecars } from '../lab/sidecar.ts';
import type { LabSidecars, Sidecar } from '../lab/sidecar.ts';
import { attachments, footprintOf, pins, processes, qdiscs, remaining } from './support/footprint.ts';
import { expectUndisturbed, readCounter, underLoad } from './support/load.ts';
import { withDatagrams, withTransfer } from './support/streams.ts';

/** 10,000 UDP packets per second, both directions together, and TCP besides. Under emulation it outlasts a slow start. */
const LOAD = EMULATED
  ? { datagrams: 50, bytes: 50_000, seconds: 240 }
  : { datagrams: 5000, bytes: 4_000_000, seconds: 14 };
/** A stream that is ended when the test has what it wants. */
const PACED = ['--seconds', '600', '--rate', '200000', '--send-size', '2000'];
/** Streams that go on until nodes are drained, which takes 35 s, and commands refused before that. */
const DRAIN_SECONDS = EMULATED ? 420 : 48;
const DRAIN_PACE = 100_000;
/** Approvals outlast a sidecar that is away, which takes long to start on a busy machine and under emulation. */
const APPROVALS = { lease: 60 };
/** Runs of the load that the machine may spoil: a busy one makes TCP send again, whatever we do. */
const TRIES = 3;

const natively = EMULATED ? test.skip : test;

describe('the life of a sidecar', () => {
  let lab: NativeLab;
  let sidecars: LabSidecars;
  let first: Sidecar;
  let a: Pod;
  let b: Pod;
  let devicesBefore: string[];
  let config: string;
  const pings: Proc[] = [];

  beforeAll(async () => {
    lab = await up();
    devicesBefore = await qdiscs(lab.node(0));
    sidecars = await startSidecars(lab, { approvals: APPROVALS });
    first = sidecars.node(0);
    a = lab.node(0).pod(0);
    b = lab.node(1).pod(0);
    config = readFileSync(first.configFile, 'utf8');
  });
  // Whatever became of a test, the next one finds a sidecar that runs, and no traffic.
  afterEach(async () => {
    await Promise.all(pings.splice(0).map((ping) => ping.stop()));
    writeFileSync(first.configFile, config);
    for (const sidecar of sidecars.nodes) {
      if (!sidecar.proc.running) await sidecar.start();
    }
    await sidecars.waitReady();
  });
  afterAll(async () => {
    await sidecars.down();
    await lab.down();
  });

  const pair = (): { from: Pod; to: Pod } => ({ from: a, to: b });

  test('killed under load and started again: nothing is lost, everything stays fast', async () => {
    const runs: { control: number; killed: number }[] = [];
    do {
      const control = await underLoad(lab, sidecars, pair(), LOAD, () => sleep(500));
      expectUndisturbed(control);
      const killed = await underLoad(lab, sidecars, pair(), LOAD, async () => {
        await Promise.all(sidecars.nodes.map((sidecar) => sidecar.kill9()));
        await sleep(1000);
        await Promise.all(sidecars.nodes.map((sidecar) => sidecar.start()));
        await sidecars.waitReady();
      });
      expectUndisturbed(killed);
      runs.push({ control: control.retransmits, killed: killed.retransmits });
    } while (!EMULATED && runs.length < TRIES && !runs.some(({ control, killed }) => killed <= control));
    expect(Math.min(...runs.map(({ control, killed }) => killed - control))).toBeLessThanOrEqual(atMostNatively(0));
  }, 240_000);

  /** Echo requests to the other pod, until the test ends. */
  async function ping(id: number, seconds: number): Promise<void> {
    pings.push(await a.spawn(['ping', '-n', '-i', String(seconds), '-e', String(id), b.address]));
  }

  /** Waits until echo requests with this identifier are fast; unlike TCP they need the sidecar's approval. */
  function waitEchoFast(id: number, timeoutMs: number): Promise<unknown> {
    return eventually(
      `echo requests ${id} fast`,
      async () => (await first.flows({ proto: 'icmp' })).some(({ icmpId, path }) => icmpId === id && path === 'fast'),
      timeoutMs,
    );
  }

  /** Everything that a restart has to find again; of flows those of `live` ports or ICMP identifiers: others may end. */
  async function adopted(sidecar: Sidecar, live: readonly number[]) {
    const isLive = ({ sport, dport }: { sport: number; dport: number }): boolean =>
      live.includes(sport) || live.includes(dport);
    return {
      footprint: await footprintOf(sidecar.node),
      attachments: await attachments(sidecar.node),
      pins: await pins(sidecar.node),
      endpoints: (await sidecar.admin.endpoints()).map(({ pod, id, epoch, attached }) => ({
        pod,
        id,
        epoch,
        attached,
      })),
      peers: (await sidecar.admin.peers()).map(({ nodeName, id, epoch, capable }) => ({
        nodeName,
        id,
        epoch,
        capable,
      })),
      flows: sidecar.maps
        .flows()
        .filter(([key]) => isLive(key))
        .map(([key, { gen, endpoint, peer, ownKey, peerKey, admittedAt }]) => ({
          ...{ sport: key.sport, dport: key.dport, proto: key.proto },
          ...{ gen, endpoint, peer, ownKey, peerKey, admittedAt },
        })),
      slots: sidecar.maps
        .slots()
        .filter(([key]) => isLive(key))
        .map(([key, { gen, key: restoreKey, state, endpoint, peer }]) => ({
          ...{ sport: key.sport, dport: key.dport, proto: key.proto },
          ...{ gen, restoreKey, state, endpoint, peer },
        })),
    };
  }

  test.each([
    ['killed', (sidecar: Sidecar) => sidecar.kill9()],
    ['stopped', (sidecar: Sidecar) => sidecar.stop()],
  ])(
    '%s, the data plane goes on alone; started again, it takes over what is there',
    async (_, end) => {
      await withTransfer(lab, pair(), PACED, async (old) => {
        await ping(777, 0.1);
        await sidecars.waitFast({ port: old.port });
        await waitEchoFast(777, 10_000);
        // A start under emulation takes longer than approvals last without a sidecar: such flows are admitted anew.
        const live = !EMULATED ? [old.port, 777] : ADMISSION === 'conntrack' ? [old.port] : [];
        const before = await adopted(first, live);
        expect([before.flows.length, before.slots.length]).toEqual([live.length, live.length]);
        const sent = readCounter(first, Counter.FAST_TX);
        await end(first);
        expect(first.proc.running).toBe(false);
        const slow = readCounter(first, Counter.SLOW_TX);
        await sleep(700);
        expect(readCounter(first, Counter.SLOW_TX)).toBe(slow);
        // What needs nobody's approval is accelerated all the same.
        if (ADMISSION === 'conntrack') {
          await withTransfer(lab, pair(), PACED, async ({ port }) => {
            await sidecars.node(1).waitFast({ port });
            expect(first.maps.flows().find(([key]) => key.dport === port)?.[1].txPackets).toBeDefined();
          });
        }

        // A node that has taken part does not hold back again.
        writeFileSync(first.configFile, config.replace(/startHold: .*/, 'startHold: 60'));
        await first.start();
        const served = Date.now();
        await ping(778, 0.05);
        await withTransfer(lab, pair(), PACED, async ({ port }) => {
          await first.waitFast({ port }, 2000);
          await waitEchoFast(778, 2000);
          expect(Date.now() - served).toBeLessThan(atMostNatively(2500));
        });
        await first.waitReady();
        expect(await adopted(first, live)).toEqual(before);
        expect(readCounter(first, Counter.FAST_TX)).toBeGreaterThan(sent);
      });
    },
    60_000,
  );

  const run = (sidecar: Sidecar): Promise<ExecResult> => sidecar.agent(['run', '--config', sidecar.configFile]);

  // Open vSwitch plays no part.
  natively(
    'it refuses politely to take over what is no data plane, and touches nothing',
    async () => {
      await withTransfer(lab, pair(), PACED, async (running) => {
        await sidecars.waitFast({ port: running.port });
        const before = await adopted(first, [running.port]);
        await first.stop();
        const slow = readCounter(first, Counter.SLOW_TX);
        const [path, aside] = [`${first.node.pinDir}/maps/config`, `${first.node.pinDir}/aside`];
        await first.node.exec(['mv', path, aside]);
        const create = ['type', 'hash', 'key', '4', 'value', '8', 'entries', '4', 'name', 'config'];
        await first.node.exec(['bpftool', 'map', 'create', path, ...create]);
        const footprint = await footprintOf(first.node);
        try {
          const refused = await run(first);
          expect(refused.code).toBe(1);
          expect(refused.stderr).toMatch(/map config has type 1, this build and configuration want 2/);
          expect(refused.stderr).toContain(first.node.pinDir);
          expect(refused.stderr).toMatch(/left as it is.*xmasq-agent cleanup/);
          expect(refused.stderr).not.toMatch(/\n {4}at /);
          expect(await footprintOf(first.node)).toEqual(footprint);
        } finally {
          await first.node.exec(['mv', aside, path]);
        }
        expect(readCounter(first, Counter.SLOW_TX)).toBe(slow);
        await first.start();
        await first.waitReady();
        expect(await adopted(first, [running.port])).toEqual(before);
      });
    },
    40_000,
  );

  test('a second one on the same node is refused, and changes nothing', async () => {
    const before = await footprintOf(first.node);
    const again = await run(first);
    expect(again).toMatchObject({
      code: 1,
      stderr: expect.stringContaining(`another xmasq-agent serves ${first.socket}`),
    });
    // Another socket does not make it another node.
    const other = `${first.configFile}.other`;
    writeFileSync(other, readFileSync(first.configFile, 'utf8').replace(/^socket: .*/m, `socket: ${first.socket}2`));
    const aside = await first.agent(['run', '--config', other]);
    expect(aside).toMatchObject({ code: 1, stderr: expect.stringContaining(first.node.pinDir) });
    expect(aside.stderr).toMatch(/another xmasq-agent/);
    expect(await footprintOf(first.node)).toEqual(before);
    expect(await first.status()).toMatchObject({ state: 'ready', degradations: [] });
  }, 40_000);

  test('drained and cleaned up, it leaves nothing behind and no connection broken', async () => {
    const footprints = await Promise.all(lab.nodes.map(footprintOf));
    const attached = await Promise.all(lab.nodes.map(attachments));
    const time = ['--seconds', String(DRAIN_SECONDS)];
    const down = String(DRAIN_SECONDS * DRAIN_PACE);
    const transfer = [...time, '--down', down, '--rate', String(DRAIN_PACE), '--send-size', '1000'];
    const datagrams = [...time, '--reply', '--rate', EMULATED ? '50' : '200'];
    await withDatagrams(lab, pair(), datagrams, (udp) =>
      withTransfer(lab, pair(), transfer, async (tcp) => {
        await sidecars.waitFast({ proto: 'tcp', port: tcp.port });
        await sidecars.waitFast({ proto: 'udp', port: udp.port }, 10_000);

        // Not while it runs, and not before it is drained.
        const cleanup = ['cleanup', '--config', first.configFile];
        expect(await first.agent(cleanup)).toMatchObject({
          code: 1,
          stderr: expect.stringMatching(/is running.*stop it first/),
        });
        await first.stop();
        expect(await first.agent(cleanup)).toMatchObject({ code: 1, stderr: expect.stringMatching(/is not drained/) });
        expect(await footprintOf(first.node)).toEqual(footprints[0]);
        await first.start();
        await first.waitReady();

        await sidecars.drain();
        for (const sidecar of sidecars.nodes) {
          expect(await sidecar.status()).toMatchObject({ state: 'drained' });
          const flows = await Promise.all([tcp.port, udp.port].map((port) => sidecar.flows({ port })));
          expect(flows.map((list) => list.map(({ path, reason }) => ({ path, reason })))).toEqual([
            [{ path: 'slow', reason: 'draining' }],
            [{ path: 'slow', reason: 'draining' }],
          ]);
          expect(await sidecar.stop()).toEqual({ code: 0, signal: null });
          expect((await sidecar.cleanup()).stdout).toMatch(/removed \d+ attachments and \d+ pins/);
        }
        expect(await udp.result()).toMatchObject({ answered: true, peer: { lost: 0, corrupt: 0 }, echo: { lost: 0 } });
        expect(await tcp.result()).toMatchObject({ complete: true, corrupt: 0, peerCorrupt: 0, error: '' });
      }),
    );
    for (const [i, node] of lab.nodes.entries()) {
      // XDP's is loaded, too, and attached where the configuration asks for it.
      expect(footprints[i]?.programs).toHaveLength(5);
      // Two on the uplink, two for each of two pods; filters of older kernels are no links.
      expect(ADMISSION === 'conntrack' ? footprints[i]?.links : attached[i]).toHaveLength(6);
      // The kernel frees them a moment after their last user is gone.
      await eventually(
        'programs, maps and links gone',
        async () => {
          const left = await remaining(node, footprints[i] ?? { programs: [], maps: [], links: [] });
          return left.programs.length + left.maps.length + left.links.length === 0;
        },
        5000,
      );
      expect(await attachments(node)).toEqual([]);
      expect(await pins(node)).toEqual([]);
      expect(await processes(node, sidecars.node(i).configFile)).toEqual([]);
    }
    expect(await qdiscs(lab.node(0))).toEqual(devicesBefore);
    expect((await first.agent(['cleanup', '--config', first.configFile])).stdout).toContain('nothing to remove');
  }, 100_000);
});
