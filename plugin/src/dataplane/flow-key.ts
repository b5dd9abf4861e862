/** Conversions between the keys of the maps and conntrack's tuples. Pure functions. */
import { IpProtocol, isIcmpTuple, type CtTuple } from '../netlink/ctnetlink.ts';
import { familyOf } from '../netlink/ip.ts';
import { FlowFlag, type Flow, type FlowKey, type Slot, type SlotKey } from './layout.ts';

/** ICMP types of echo messages, which stand in for the destination port. */
export const ICMP_ECHO_REPLY = 0;
export const ICMP_ECHO = 8;
export const ICMPV6_ECHO = 128;
export const ICMPV6_ECHO_REPLY = 129;

/** The answer to each ICMP type that a flow can have, by protocol. */
const ECHO_ANSWERS: ReadonlyMap<number, ReadonlyMap<number, number>> = new Map([
  [
    IpProtocol.icmp,
    new Map([
      [ICMP_ECHO, ICMP_ECHO_REPLY],
      [ICMP_ECHO_REPLY, ICMP_ECHO],
    ]),
  ],
  [
    IpProtocol.icmpv6,
    new Map([
      [ICMPV6_ECHO, ICMPV6_ECHO_REPLY],
      [ICMPV6_ECHO_REPLY, ICMPV6_ECHO],
    ]),
  ],
]);

/** True for ICMP and ICMPv6: identifier and type stand for the ports. */
export function isIcmp(proto: number): boolean {
  return ECHO_ANSWERS.has(proto);
}

/** Bytes of a flow key as a text, to use it in a Map. */
export function flowKeyText(key: FlowKey): string {
  return `${key.saddr},${key.daddr},${key.sport},${key.dport},${key.ifindex},${key.proto}`;
}

/** The ports of the opposite direction: swapped, or the other ICMP type under the same identifier. */
function reversePorts(proto: number, sport: number, dport: number): { sport: number; dport: number } {
  const answers = ECHO_ANSWERS.get(proto);
  if (answers === undefined) return { sport: dport, dport: sport };
  return { sport, dport: answers.get(dport) ?? dport };
}

/** The slot by which packets of the flow's peer are restored: it goes by the ports that the peer's pod has. */
export function slotKeyOf(flow: Pick<Flow, 'out' | 'proto' | 'nodeDaddr'>): SlotKey {
  const { out, proto, nodeDaddr } = flow;
  return { peer: nodeDaddr, ...reversePorts(proto, out.sport, out.dport), proto };
}

/** True for a flow that has a slot. */
export function isKeyed(flow: Pick<Flow, 'flags'>): boolean {
  return (flow.flags & FlowFlag.KEYED) !== 0;
}

/** What the other pod of a flow within this node sends. */
export function oppositeKeyOf(flow: Pick<Flow, 'out' | 'proto' | 'outIfindex'>): FlowKey {
  return oppositeKey({ ...flow.out, proto: flow.proto, ifindex: 0 }, flow.outIfindex);
}

/** The same flow as the pod on the other side sends it, through that device. Knows of no translation. */
export function oppositeKey(key: FlowKey, ifindex: number): FlowKey {
  return {
    saddr: key.daddr,
    daddr: key.saddr,
    ...reversePorts(key.proto, key.sport, key.dport),
    ifindex,
    proto: key.proto,
  };
}

/** The flow that a slot is for, as the local pod sends it. */
export function flowKeyOfSlot(
  { proto, dport }: SlotKey,
  { saddr, daddr, sport, ifindex }: Pick<Slot, 'saddr' | 'daddr' | 'sport' | 'ifindex'>,
): FlowKey {
  return { saddr: daddr, daddr: saddr, ...reversePorts(proto, sport, dport), ifindex, proto };
}

/** The tuple by which conntrack finds the flow's connection, whichever side began it. */
export function tupleOf(key: FlowKey): CtTuple {
  const addresses = { family: familyOf(key.saddr) ?? 4, src: key.saddr, dst: key.daddr } as const;
  if (!isIcmp(key.proto)) return { ...addresses, proto: key.proto, sport: key.sport, dport: key.dport };
  return { ...addresses, proto: key.proto, icmpType: key.dport, icmpCode: 0, icmpId: key.sport };
}

/** The flow that sends packets with this tuple through that device; undefined for ICMP other than echo. */
export function flowKeyOfTuple(tuple: CtTuple, ifindex: number): FlowKey | undefined {
  const rest = { saddr: tuple.src, daddr: tuple.dst, ifindex, proto: tuple.proto };
  if (!isIcmpTuple(tuple)) return { ...rest, sport: tuple.sport, dport: tuple.dport };
  if (ECHO_ANSWERS.get(tuple.proto)?.has(tuple.icmpType) !== true) return undefined;
  return { ...rest, sport: tuple.icmpId, dport: tuple.icmpType };
}

/** The later of two times. */
export function later(a: bigint, b: bigint): bigint {
  return a > b ? a : b;
}

/**
 * Last packet of the flow that this node has seen, in either direction.
 * @param lastRestored of the flow's slot; of flows within the node, when the other pod sent
 */
export function lastUse(flow: Flow, lastRestored: bigint | undefined): bigint {
  return later(later(later(flow.lastTx, flow.lastRxSlow), later(flow.admittedAt, flow.lastRx)), lastRestored ?? 0n);
}
