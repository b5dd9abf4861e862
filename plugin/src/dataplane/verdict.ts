/** What conntrack says of a flow, in words. Pure functions. */
import { CtSctpState, CtStatus, CtTcpState, IpProtocol, type CtEntry } from '../netlink/ctnetlink.ts';

/** Bits of the status that say something to people; those that every entry has are left out. */
const STATUS: readonly (readonly [number, string])[] = [
  [CtStatus.seenReply, 'replied'],
  [CtStatus.assured, 'assured'],
  [CtStatus.srcNat, 'source NAT'],
  [CtStatus.dstNat, 'destination NAT'],
  [CtStatus.seqAdjust, 'sequence adjustment'],
  [CtStatus.dying, 'dying'],
  [CtStatus.template, 'template'],
  [CtStatus.natClash, 'clash'],
  [CtStatus.helper, 'helper'],
  [CtStatus.offload, 'offload'],
];

/** `ESTABLISHED` for established, `FIN_WAIT` for finWait. */
function nameOf(states: Readonly<Record<string, number>>, state: number | undefined): string | undefined {
  const name = Object.entries(states).find(([, value]) => value === state)?.[0];
  return name?.replace(/([A-Z])/g, '_$1').toUpperCase();
}

function stateOf({ protocol, tcpState, sctpState }: CtEntry): string | undefined {
  if (protocol === IpProtocol.tcp) return nameOf(CtTcpState, tcpState);
  return protocol === IpProtocol.sctp ? nameOf(CtSctpState, sctpState) : undefined;
}

/** An entry as one line: its state as `conntrack -L` names it, what its status says, its mark. */
export function entryText(entry: CtEntry): string {
  const state = stateOf(entry);
  const bits = STATUS.filter(([bit]) => (entry.status & bit) !== 0).map(([, name]) => name);
  return [
    ...(state === undefined ? [] : [state]),
    ...((entry.status & CtStatus.confirmed) === 0 ? ['unconfirmed'] : []),
    ...bits,
    `mark 0x${entry.mark.toString(16)}`,
  ].join(', ');
}
