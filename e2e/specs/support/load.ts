/** A steady load of numbered datagrams and verified TCP on the fast path, with every loss accounted for. */
import { expect } from '@jest/globals';
import { Counter } from '../../../plugin/src/gen/layouts.ts';
import type { Lab, Pod } from '../../lab/lab.ts';
import type { DatagramResult, TransferResult } from '../../lab/measure.ts';
import type { LabSidecars, Sidecar } from '../../lab/sidecar.ts';
import { withDatagrams, withTransfer } from './streams.ts';

/** What became of it. */
export interface LoadReport {
  readonly udp: DatagramResult;
  readonly tcp: TransferResult;
  /** TCP segments sent again, both directions. */
  readonly retransmits: number;
  /** Datagrams that a pod's socket had no room for: lost by the program that reads it, not on the way. */
  readonly overruns: number;
  /** Buffers that one node sent fast and the other one restored, for each direction, over the whole load. */
  readonly ways: readonly { readonly sent: number; readonly restored: number }[];
  /** Pod packets that took the slow path while both flows were fast. */
  readonly slow: number;
}

/** How much. */
export interface LoadOptions {
  /** Datagrams per second; each is answered. */
  readonly datagrams: number;
  /** TCP bytes per second and direction. */
  readonly bytes: number;
  readonly seconds: number;
}

/** Runs the load; once both flows are fast on both nodes, runs `disturb` and waits for the end. */
export async function underLoad(
  lab: Lab,
  sidecars: LabSidecars,
  { from, to }: { readonly from: Pod; readonly to: Pod },
  { datagrams, bytes, seconds }: LoadOptions,
  disturb: () => Promise<void>,
): Promise<LoadReport> {
  const time = ['--seconds', String(seconds)];
  const udpArgs = ['--reply', '--rate', String(datagrams), '--size', '64', ...time];
  const tcpArgs = ['--rate', String(bytes), '--down', String(bytes * seconds), ...time];
  const before = await readings(sidecars, [from, to]);
  let slow = 0;
  const [udp, tcp] = await withDatagrams(lab, { from, to }, udpArgs, (datagramStream) =>
    withTransfer(lab, { from, to }, tcpArgs, async (transfer) => {
      await sidecars.waitFast({ proto: 'udp', port: datagramStream.port }, 10_000);
      await sidecars.waitFast({ proto: 'tcp', port: transfer.port }, 10_000);
      const fast = await readings(sidecars, []);
      await disturb();
      if (!transfer.client.running || !datagramStream.client.running) throw new Error('the load was over too early');
      slow = sum((await readings(sidecars, [])).slow) - sum(fast.slow);
      return [await datagramStream.result(), await transfer.result()] as const;
    }),
  );
  const after = await readings(sidecars, [from, to]);
  const grown = (what: 'fast' | 'restored', node: number): number =>
    (after[what][node] ?? 0) - (before[what][node] ?? 0);
  return {
    udp,
    tcp,
    retransmits: tcp.retransmits + tcp.peerRetransmits,
    overruns: after.overruns - before.overruns,
    ways: [
      [0, 1],
      [1, 0],
    ].map(([one = 0, other = 0]) => ({ sent: grown('fast', one), restored: grown('restored', other) })),
    slow,
  };
}

/** Nothing was lost between the pods' sockets, and nothing went slow. */
export function expectUndisturbed(report: LoadReport): void {
  const { udp, tcp, overruns, ways, slow } = report;
  expect(slow).toBe(0);
  for (const { sent, restored } of ways) {
    expect(sent).toBeGreaterThan(1000);
    expect(restored).toBe(sent);
  }
  expect(udp).toMatchObject({ answered: true, foreign: 0, peer: { corrupt: 0, duplicates: 0 } });
  // `echo.lost` has those that the server never got.
  expect(udp.echo?.lost).toBe(overruns);
  expect(tcp).toMatchObject({ complete: true, corrupt: 0, peerCorrupt: 0, error: '' });
}

/** Counters of each node, read behind the sidecars, which may be dead. */
interface Readings {
  readonly fast: readonly number[];
  readonly restored: readonly number[];
  readonly slow: readonly number[];
  readonly overruns: number;
}

async function readings(sidecars: LabSidecars, pods: readonly Pod[]): Promise<Readings> {
  const counter = (which: number): number[] => sidecars.nodes.map((sidecar) => readCounter(sidecar, which));
  const overruns = await Promise.all(pods.map(udpOverruns));
  return {
    fast: counter(Counter.FAST_TX),
    restored: counter(Counter.RESTORED),
    slow: counter(Counter.SLOW_TX),
    overruns: sum(overruns),
  };
}

/** One counter of a node's programs, without the sidecar's help. */
export function readCounter(sidecar: Sidecar, which: number): number {
  return Number(sidecar.maps.use(({ counters }) => counters.allSums()[which] ?? 0n));
}

async function udpOverruns(pod: Pod): Promise<number> {
  const { stdout } = await pod.exec(['cat', '/proc/net/snmp']);
  const [names = [], values = []] = stdout
    .split('\n')
    .filter((line) => line.startsWith('Udp:'))
    .map((line) => line.split(' '));
  return Number(values[names.indexOf('RcvbufErrors')]);
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
