/** TCP both ways and UDP with answers, paced, for a given time, while a test does things to the nodes. */
import type { Lab } from '../../lab/lab.ts';
import type { DatagramResult, Pair, TransferResult } from '../../lab/measure.ts';
import { EMULATED } from '../../lab/scale.ts';
import { withDatagrams, withTransfer } from './streams.ts';

/** TCP bytes per second and direction, and datagrams. */
const [PACE, DATAGRAMS] = EMULATED ? [200_000, 20] : [1_000_000, 100];

/** That nobody waits for longer than `ms` is judged natively; under emulation what decides about the way comes late itself. */
export function gapLimit(ms: number): number {
  return EMULATED ? 3 * ms : ms;
}

/** How long the traffic lasts, so that what is to happen meanwhile has happened. */
export function lasting(seconds: number): number {
  return EMULATED ? 4 * seconds : seconds;
}

/** Server ports. */
export interface SteadyPorts {
  readonly tcp: number;
  readonly udp: number;
}

export interface SteadyReport<T> {
  readonly value: T;
  readonly tcp: TransferResult;
  readonly udp: DatagramResult;
  /** The longest time that either end heard nothing of the other, milliseconds. */
  readonly tcpGapMs: number;
  readonly udpGapMs: number;
}

/** Runs `during` beside the traffic, which goes on for `seconds`, and waits for its end. */
export function steadily<T>(
  lab: Lab,
  pairs: { readonly tcp: Pair; readonly udp: Pair },
  seconds: number,
  during: (ports: SteadyPorts) => Promise<T>,
): Promise<SteadyReport<T>> {
  const tcpArgs = [
    ...['--seconds', String(seconds), '--down', String(seconds * PACE)],
    ...['--rate', String(PACE), '--send-size', '5000'],
  ];
  const udpArgs = ['--reply', '--rate', String(DATAGRAMS), '--seconds', String(seconds)];
  return withTransfer(lab, pairs.tcp, tcpArgs, (transfer) =>
    withDatagrams(lab, pairs.udp, udpArgs, async (datagrams) => {
      const value = await during({ tcp: transfer.port, udp: datagrams.port });
      if (!transfer.client.running || !datagrams.client.running) throw new Error('the traffic was over too early');
      const limitMs = (seconds + 60) * 1000;
      const [tcp, udp] = await Promise.all([transfer.result(limitMs), datagrams.result(limitMs)]);
      return {
        ...{ value, tcp, udp },
        tcpGapMs: Math.max(tcp.maxGapMs, tcp.peerMaxGapMs),
        udpGapMs: Math.max(udp.echo?.maxGapMs ?? Infinity, udp.peer.maxGapMs),
      };
    }),
  );
}
