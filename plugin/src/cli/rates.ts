/** From two looks at growing sums to rates per second. Pure functions. */
import type { xmasq } from '../gen/xmasq.js';

/** One look at the flows of the node. */
export interface FlowsLook {
  /** Milliseconds of a clock that never goes back. */
  readonly at: number;
  readonly flows: readonly xmasq.v1.Flow.$Properties[];
}

/** What a flow carried between two looks, per second. */
export interface FlowRate {
  readonly flow: xmasq.v1.Flow.$Properties;
  /** On the fast path, in any mode; segments count one by one. */
  readonly txPackets: number;
  readonly rxPackets: number;
  /** Bits of IP packets on the fast path. */
  readonly txBits: number;
  readonly rxBits: number;
  /** Sent on the slow path, where nobody counts bytes. */
  readonly slowPackets: number;
}

/** Sums of a flow that only grow while it lives. */
const SUMS = ['txPackets', 'rxPackets', 'txBytes', 'rxBytes', 'slowPackets'] as const;

/** What one flow is told from all others by: addresses, ports, protocol, and pod. */
export function flowId({ sourcePod, ...flow }: xmasq.v1.Flow.$Properties): string {
  return [
    flow.protocol ?? 0,
    ...[flow.sourceIp, flow.sourcePort, flow.destinationIp, flow.destinationPort],
    ...[flow.icmpId, flow.icmpType, sourcePod?.namespace, sourcePod?.name],
  ].join();
}

/**
 * How much a sum has grown.
 * @param before undefined: it was not there
 * @param renewed it began at 0 in between
 */
export function growth(before: number | undefined, after: number, renewed = false): number {
  return renewed || before === undefined || after < before ? after : after - before;
}

/**
 * The rate of each flow that is there now. A flow that was not there before counts from its admission, one that was admitted
 * anew likewise; what a flow carried that has ended meanwhile is not told.
 */
export function flowRates(before: FlowsLook, after: FlowsLook): FlowRate[] {
  const elapsed = after.at - before.at;
  const known = new Map(before.flows.map((flow) => [flowId(flow), flow]));
  return after.flows.map((flow) => {
    const old = known.get(flowId(flow));
    const renewed = old?.admitted !== flow.admitted || (flow.ageMs != null && flow.ageMs < elapsed);
    const [txPackets, rxPackets, txBytes, rxBytes, slowPackets] = SUMS.map((name) =>
      perSecond(growth(old?.[name] ?? undefined, flow[name] ?? 0, renewed), elapsed),
    ) as [number, number, number, number, number];
    return { flow, txPackets, rxPackets, txBits: 8 * txBytes, rxBits: 8 * rxBytes, slowPackets };
  });
}

/** Of a sum in this many milliseconds; 0 if these are none. */
export function perSecond(sum: number, elapsedMs: number): number {
  return elapsedMs > 0 ? (sum * 1000) / elapsedMs : 0;
}

/** Sums by name. */
export type Sums = ReadonlyMap<string, number>;

/** What has grown between two looks, per second, in the order of the second. */
export function sumRates(before: Sums, after: Sums, elapsedMs: number): Map<string, number> {
  return new Map([...after].map(([name, value]) => [name, perSecond(growth(before.get(name), value), elapsedMs)]));
}

/** Counters of pods' packets that went fast. */
const FAST = ['fast_tx', 'fast_local', 'fast_encap', 'fast_direct'];
/** ... and of all others. */
const SLOW = 'slow_tx';

/**
 * Fast packets of all packets that the node's pods sent, 0 to 1; undefined: they sent none. A large send counts once.
 * @param counters sums or rates, by the names of `xmasq.v1.Counter`
 */
export function hitRatio(counters: Sums): number | undefined {
  const fast = FAST.reduce((sum, name) => sum + (counters.get(name) ?? 0), 0);
  const all = fast + (counters.get(SLOW) ?? 0);
  return all === 0 ? undefined : fast / all;
}
