/**
 * Admission: does Antrea's pipeline pass the packets of this flow? Answered by Antrea's own conntrack entry, with the same
 * rules as `ct_verdict` in bpf-src/conntrack.h, in the same order. Here for what the kernel's lookup cannot answer:
 * protocols other than TCP and UDP, and kernels whose lookup takes no zone; and to say why.
 */
import { Reason } from './layout.ts';
import { CtSctpState, CtStatus, CtTcpState, IpProtocol, type CtEntry } from '../netlink/ctnetlink.ts';

/** Antrea's connection mark (its pkg/agent/openflow/fields.go). */
export const CtMark = {
  /** Where the connection came from; 0 = committed, but not allowed (yet). */
  sourceMask: 0x0f,
  sourceTunnel: 0x01,
  sourceGateway: 0x02,
  sourcePod: 0x03,
  service: 0x10,
  snat: 0x20,
  hairpin: 0x40,
  l7: 0x80,
} as const;

/** An entry with any of these is not what its tuple says, or about to be no more. */
const FORBIDDEN =
  CtStatus.srcNat |
  CtStatus.seqAdjust |
  CtStatus.dying |
  CtStatus.template |
  CtStatus.natClash |
  CtStatus.helper |
  CtStatus.offload;

/** What the predicate looks at. */
export type ConntrackFacts = Pick<CtEntry, 'protocol' | 'status' | 'mark' | 'tcpState' | 'sctpState'>;

/** Both sides have shown that they want this connection, as far as the protocol tells. */
function established(entry: ConntrackFacts): boolean {
  switch (entry.protocol) {
    case IpProtocol.tcp:
      return entry.tcpState === CtTcpState.established;
    case IpProtocol.sctp:
      return entry.sctpState === CtSctpState.established;
    case IpProtocol.udp:
      return (entry.status & CtStatus.assured) !== 0;
    default:
      // Conntrack keeps no state of the others: a reply is all there is.
      return true;
  }
}

/** What else decides. */
export interface AdmissionSetting {
  /** The local pod answers a pod of a node that Antrea routes to: such packets come by the gateway. Default false. */
  readonly routed?: boolean;
  /**
   * AntreaProxy's translation for a pod of this node is no obstacle, as where the programs ask themselves. Default false:
   * an approval cannot tell of a translation.
   */
  readonly services?: boolean;
}

/** @returns whether the connection is translated in a way that keeps it from being accelerated */
function obstructed({ mark, status }: ConntrackFacts, services: boolean): boolean {
  const marked = (mark & CtMark.service) !== 0;
  const translated = (status & CtStatus.dstNat) !== 0;
  if (!services) return marked || translated;
  return marked !== translated || (marked && (mark & CtMark.sourceMask) !== CtMark.sourcePod);
}

/**
 * May the flow of this entry be accelerated?
 * @param entry undefined: the zone has none
 * @returns Reason.NONE if so, else why not
 */
export function admission(
  entry: ConntrackFacts | undefined,
  { routed = false, services = false }: AdmissionSetting = {},
): number {
  if (entry === undefined) return Reason.CT_MISSING;
  const { status, mark } = entry;
  const source = mark & CtMark.sourceMask;
  if ((status & CtStatus.confirmed) === 0) return Reason.CT_UNCONFIRMED;
  if ((status & FORBIDDEN) !== 0) return Reason.CT_STATUS;
  if ((status & CtStatus.seenReply) === 0) return Reason.CT_UNREPLIED;
  if (source === 0) return Reason.CT_NOT_ALLOWED;
  if ((mark & CtMark.snat) !== 0) return Reason.CT_SNAT;
  if ((mark & CtMark.hairpin) !== 0) return Reason.CT_HAIRPIN;
  if ((mark & CtMark.l7) !== 0) return Reason.CT_L7;
  if (obstructed(entry, services)) return Reason.CT_SERVICE;
  const expected = source === CtMark.sourceTunnel || source === CtMark.sourcePod;
  if (!expected && !(source === CtMark.sourceGateway && routed)) return Reason.CT_SOURCE;
  if (!established(entry)) return Reason.CT_STATE;
  return Reason.NONE;
}
