/** How the packets of a flow between two pods crossed the underlay: masqueraded or in the tunnel. */
import type { Family, Node, Pod } from '../../lab/lab.ts';
import { IPPROTO } from '../../lab/packet.ts';
import { EMULATED, stretched } from '../../lab/scale.ts';
import type { Ipv4Fields, Packet, TransportFields } from '../../lab/packet.ts';
import type { CapturedPacket, CaptureResult } from '../../lab/pcap.ts';
import { atMost } from './matchers.ts';

/** Top bit of the IP ID of masqueraded and announcing packets. */
export const MARKER = 0x8000;
/** The same of the flow label. */
export const MARKER6 = 0x80000;
const ETHER_HEADER = 14;
const UDP_AND_VXLAN_HEADERS = 16;

/** TCP flags. */
export const TCP = { fin: 1, syn: 2, rst: 4, ack: 16 } as const;

/** A flow as its client sends it. */
export interface WireFlow {
  readonly from: Pod;
  readonly to: Pod;
  readonly proto: 'tcp' | 'udp' | 'icmp' | 'sctp';
  /** The server's port; for ICMP echo the identifier. */
  readonly port: number;
  /** The client's port; default any. */
  readonly sport?: number;
  /** Default ipv4. */
  readonly family?: Family;
}

/** A packet of the flow on the underlay. */
export interface Crossing {
  readonly path: 'fast' | 'slow';
  /** True: from client to server. */
  readonly forward: boolean;
  readonly time: number;
  /** The pod's packet inside the tunnel, or the masqueraded packet itself. */
  readonly ip: Ipv4Fields;
  readonly l4: TransportFields | undefined;
  /** The IP packet. */
  readonly packet: Buffer;
}

/** Is this a masqueraded packet between these nodes, judged by what every one of them has in common? */
export function isMasqueraded(packet: Packet, from: Node, to: Node): boolean {
  const { ip, vni } = packet;
  return (
    ip !== undefined &&
    vni === undefined &&
    ip.src === from.address &&
    ip.dst === to.address &&
    ip.df &&
    (ip.id & MARKER) !== 0
  );
}

/** The packets of the IPv4 flow among what was captured on an uplink, in their order. */
export function crossings(capture: CaptureResult, flow: WireFlow): Crossing[] {
  return capture.packets.flatMap((packet) => crossing(packet, flow) ?? []);
}

function crossing(packet: CapturedPacket, flow: WireFlow): Crossing | undefined {
  const { from, to } = flow;
  const { inner, time } = packet;
  if (inner?.ip !== undefined) {
    const forward = inner.ip.src === from.address && inner.ip.dst === to.address;
    const backward = inner.ip.src === to.address && inner.ip.dst === from.address;
    if ((!forward && !backward) || !isOf(flow, inner, forward)) return undefined;
    const frame = packet.bytes.subarray(ETHER_HEADER + (packet.ip?.headerLength ?? 0) + UDP_AND_VXLAN_HEADERS);
    return { path: 'slow', forward, time, ip: inner.ip, l4: inner.l4, packet: frame.subarray(ETHER_HEADER) };
  }
  if (packet.ip === undefined) return undefined;
  for (const forward of [true, false]) {
    const [source, destination] = forward ? [from, to] : [to, from];
    if (isMasqueraded(packet, source.node, destination.node) && isOf(flow, packet, forward)) {
      return { path: 'fast', forward, time, ip: packet.ip, l4: packet.l4, packet: packet.bytes.subarray(ETHER_HEADER) };
    }
  }
  return undefined;
}

function isOf(flow: WireFlow, packet: Packet, forward: boolean): boolean {
  const { ip, l4 } = packet;
  if (ip?.proto !== IPPROTO[flow.proto] || l4 === undefined) return false;
  const [server, client] = forward ? [l4.dport, l4.sport] : [l4.sport, l4.dport];
  if (flow.proto === 'icmp') return server === flow.port && l4.icmpType === (forward ? 8 : 0);
  return server === flow.port && (flow.sport === undefined || client === flow.sport);
}

/** One direction of a flow in numbers. */
export interface Direction {
  readonly slow: number;
  readonly fast: number;
  /** Packets in the tunnel before the first masqueraded one. */
  readonly slowBefore: number;
  /** Tenths of a second with a packet in the tunnel, not exempt, when the first masqueraded one was some time ago. */
  readonly slowAfter: number;
  /** Seconds since the epoch; undefined if there was none. */
  readonly firstFast: number | undefined;
  readonly lastFast: number | undefined;
}

/* The slow path is the longer one, and the nodes have several CPUs: packets overtake those sent before, for a moment. */
const SETTLE_SECONDS = stretched(0.1);

/**
 * `slowAfter` of a flow that stays fast: none. Emulation keeps packets waiting for half a second, which the programs take for
 * a black hole: what one costs (XMASQ_MODE_HOLD_NS and the way back), whatever the flow's pace.
 */
export const STAYS_FAST = atMost(EMULATED ? 60 : 0);

/** Counts one direction; `exempt` packets (e.g. SCTP control chunks) are slow by design and left out of slowAfter. */
export function direction(
  all: readonly Crossing[],
  forward: boolean,
  exempt: (crossing: Crossing) => boolean = () => false,
): Direction {
  const packets = all.filter((packet) => packet.forward === forward);
  const fast = packets.filter((packet) => packet.path === 'fast');
  const first = packets.findIndex((packet) => packet.path === 'fast');
  const before = first < 0 ? packets : packets.slice(0, first);
  const settled = (fast[0]?.time ?? Infinity) + SETTLE_SECONDS;
  const slowAfter = packets.filter((packet) => packet.path === 'slow' && packet.time > settled && !exempt(packet));
  return {
    slow: packets.length - fast.length,
    fast: fast.length,
    slowBefore: before.length,
    slowAfter: new Set(slowAfter.map(({ time }) => Math.floor(time * 10))).size,
    firstFast: fast[0]?.time,
    lastFast: fast.at(-1)?.time,
  };
}

/** The longest time without a slow packet in either direction between the flow's fast ones, in seconds. */
export function longestFast(all: readonly Crossing[]): number {
  const first = all.findIndex(({ path }) => path === 'fast');
  const last = all.findLastIndex(({ path }) => path === 'fast');
  if (first < 0) return 0;
  const limits = all
    .slice(first, last + 1)
    .filter(({ path }, i, { length }) => path === 'slow' || i === 0 || i === length - 1);
  return Math.max(...limits.map(({ time }, i) => time - (limits[i - 1]?.time ?? time)));
}

/** The packets of a TCP connection before the first FIN or RST: what comes then is slow by design. */
export function beforeClose(all: readonly Crossing[]): readonly Crossing[] {
  const end = all.findIndex((packet) => ((packet.l4?.flags ?? 0) & (TCP.fin | TCP.rst)) !== 0);
  return end < 0 ? all : all.slice(0, end);
}

/** Is this an SCTP packet with anything but DATA and SACK chunks (RFC 9260 3.2)? Those stay in the tunnel. */
export function isSctpControl({ ip, packet }: Crossing): boolean {
  if (ip.proto !== IPPROTO.sctp) return false;
  const chunks = packet.subarray(ip.headerLength + 12, ip.length);
  for (let at = 0; at + 4 <= chunks.length; at += (chunks.readUInt16BE(at + 2) + 3) & ~3) {
    const type = chunks.readUInt8(at);
    if (type !== SCTP_DATA && type !== SCTP_SACK) return true;
    if (chunks.readUInt16BE(at + 2) < 4) return true;
  }
  return false;
}

const SCTP_DATA = 0;
const SCTP_SACK = 3;
