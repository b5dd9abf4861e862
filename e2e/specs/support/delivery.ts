/** What happened to packets between the pod that sent them and the pod that received them. */
import { addressOf } from '../../lab/lab.ts';
import type { Family, Pod } from '../../lab/lab.ts';
import type { CapturedPacket, CaptureResult } from '../../lab/pcap.ts';
import { IPPROTO, network } from '../../lab/packet.ts';
import { MARKER, MARKER6 } from './wire.ts';

/** One direction of one flow, in the captures of its two pods. */
export interface Way {
  readonly from: Pod;
  readonly to: Pod;
  /** `icmp` between IPv6 addresses is ICMPv6. */
  readonly proto: keyof typeof IPPROTO;
  /** Port of one end, whichever; for ICMP echo the identifier. */
  readonly port: number;
  /** Default ipv4. */
  readonly family?: Family;
}

/** Number of a protocol in a family. */
export function protocolNumber(proto: keyof typeof IPPROTO, family: Family = 'ipv4'): number {
  return IPPROTO[proto === 'icmp' && family === 'ipv6' ? 'icmpv6' : proto];
}

/** The packets of one direction, compared one by one. Sets are sorted, so that two deliveries can be compared. */
export interface Delivery {
  /** Packets that the receiver's pod saw. */
  readonly received: number;
  /** Received packets whose IP payload nobody sent, byte for byte. */
  readonly unmatched: number;
  /** Sent packets that did not arrive. */
  readonly lost: number;
  /** Hexadecimal IP packets: up to three that nobody sent, and up to three that did not arrive. */
  readonly strays: readonly string[];
  /** Every way in which Ethernet and IP header were changed; IP ID, header checksum and IPv6's flow label apart. */
  readonly changes: readonly string[];
  /** Every TOS byte and DF flag that arrived, e.g. `0xb8 DF`. */
  readonly headers: readonly string[];
  /** Received packets with a wrong IP or transport checksum. */
  readonly wrongChecksums: number;
  /** Received packets with the marker bit in their IP ID or flow label. */
  readonly marked: number;
}

/**
 * Compares what was sent with what arrived. Both captures must be of the pods' own devices and hold the whole flow; each
 * packet must have been carried as it was sent (no segmentation or aggregation on the way).
 */
export function delivery(sent: CaptureResult, received: CaptureResult, way: Way): Delivery {
  const outgoing = new Map<string, CapturedPacket[]>();
  for (const packet of sent.packets) {
    if (!isOnWay(packet, way)) continue;
    const key = identity(packet);
    const same = outgoing.get(key);
    if (same === undefined) outgoing.set(key, [packet]);
    else same.push(packet);
  }
  const arrived = received.packets.filter((packet) => isOnWay(packet, way));
  const changes = new Set<string>();
  const unmatched: CapturedPacket[] = [];
  for (const packet of arrived) {
    const original = takeLike(packet, outgoing.get(identity(packet)) ?? []);
    if (original === undefined) unmatched.push(packet);
    else changes.add(changeOf(original, packet));
  }
  const lost = [...outgoing.values()].flat();
  return {
    received: arrived.length,
    unmatched: unmatched.length,
    lost: lost.length,
    strays: [...unmatched.slice(0, 3), ...lost.slice(0, 3)].map(({ bytes }) =>
      bytes.subarray(ETHER_HEADER).toString('hex'),
    ),
    changes: [...changes].sort(),
    headers: headersOf(arrived),
    wrongChecksums: arrived.filter(hasWrongChecksum).length,
    marked: arrived.filter(isMarked).length,
  };
}

/** One direction of a TCP connection as bytes and headers, whatever segmentation or aggregation did to it. */
export interface StreamDelivery {
  /** Received payload bytes, retransmissions included. */
  readonly bytes: number;
  /** Received payload bytes that differ from what was sent at their sequence number, or were never sent. */
  readonly wrongBytes: number;
  readonly changes: readonly string[];
  readonly headers: readonly string[];
  readonly marked: number;
}

/** As `delivery`, for a TCP connection with segmentation offloads. Exactly one connection may be on the way. */
export function streamDelivery(sent: CaptureResult, received: CaptureResult, way: Way): StreamDelivery {
  const outgoing = sent.packets.filter((packet) => isOnWay(packet, way));
  const arrived = received.packets.filter((packet) => isOnWay(packet, way));
  const syn = outgoing.find((packet) => ((packet.l4?.flags ?? 0) & 2) !== 0);
  const start = ((syn?.l4?.seq ?? 0) + 1) >>> 0;
  const offsetOf = (packet: CapturedPacket): number => ((packet.l4?.seq ?? 0) - start) >>> 0;
  const data = (packet: CapturedPacket): boolean => (packet.l4?.payloadLength ?? 0) > 0;

  const length = Math.max(0, ...outgoing.filter(data).map((packet) => offsetOf(packet) + tcpPayload(packet).length));
  const stream = Buffer.alloc(length);
  const known = Buffer.alloc(length);
  for (const packet of outgoing.filter(data)) {
    const payload = tcpPayload(packet);
    payload.copy(stream, offsetOf(packet));
    known.fill(1, offsetOf(packet), offsetOf(packet) + payload.length);
  }
  let bytes = 0;
  let wrongBytes = 0;
  const changes = new Set<string>();
  const template = syn;
  for (const packet of arrived) {
    if (template !== undefined) changes.add(changeOf(template, packet, false));
    const payload = tcpPayload(packet);
    const offset = offsetOf(packet);
    if (payload.length === 0) continue;
    bytes += payload.length;
    for (let i = 0; i < payload.length; i++) {
      if (known[offset + i] !== 1 || stream[offset + i] !== payload[i]) wrongBytes++;
    }
  }
  return {
    bytes,
    wrongBytes,
    changes: [...changes].sort(),
    headers: headersOf(arrived),
    marked: arrived.filter(isMarked).length,
  };
}

/** Is the packet of this direction? Fragments without ports are not. */
export function isOnWay(packet: CapturedPacket, way: Way): boolean {
  const { l4 } = packet;
  const { family = 'ipv4' } = way;
  const ip = network(packet);
  if (ip?.src !== addressOf(way.from, family) || ip.dst !== addressOf(way.to, family)) return false;
  if (ip.proto !== protocolNumber(way.proto, family)) return false;
  return l4 !== undefined && (l4.sport === way.port || l4.dport === way.port);
}

function hasWrongChecksum({ ip, l4 }: CapturedPacket): boolean {
  return ip?.checksumValid === false || l4?.checksumValid === false;
}

function isMarked({ ip, ip6 }: CapturedPacket): boolean {
  return ((ip?.id ?? 0) & MARKER) !== 0 || ((ip6?.flowLabel ?? 0) & MARKER6) !== 0;
}

const ETHER_HEADER = 14;

function payloadOf(packet: CapturedPacket): Buffer {
  const { bytes } = packet;
  const ip = network(packet);
  if (ip === undefined) return Buffer.alloc(0);
  return bytes.subarray(ETHER_HEADER + ip.headerLength, ETHER_HEADER + ip.length);
}

/**
 * What tells a packet from others. TCP knows two zeros, 0x0000 and 0xffff: changing addresses back and forth may make one
 * of the other (RFC 1624, section 3). UDP does not: there 0 means that there is no checksum.
 */
function identity(packet: CapturedPacket): string {
  const payload = payloadOf(packet);
  const isZero = network(packet)?.proto === IPPROTO.tcp && payload.length >= 20 && payload.readUInt16BE(16) === 0xffff;
  if (!isZero) return payload.toString('latin1');
  const copy = Buffer.from(payload);
  copy.writeUInt16BE(0, 16);
  return copy.toString('latin1');
}

/**
 * Takes out of packets with the same payload the first with the same TOS and DF, or else the first: such packets may
 * overtake each other on the slow path. A header that was changed leaves one over, so it is seen all the same.
 */
function takeLike(packet: CapturedPacket, same: CapturedPacket[]): CapturedPacket | undefined {
  const like = same.findIndex((each) => network(each)?.tos === network(packet)?.tos && each.ip?.df === packet.ip?.df);
  return same.splice(Math.max(like, 0), 1)[0];
}

function tcpPayload(packet: CapturedPacket): Buffer {
  const segment = payloadOf(packet);
  return segment.length < 20 ? segment.subarray(segment.length) : segment.subarray((segment.readUInt8(12) >> 4) * 4);
}

/** How the second packet differs from the first, in words; `each`: compare also what differs from packet to packet. */
function changeOf(before: CapturedPacket, after: CapturedPacket, each = true): string {
  const parts: string[] = [];
  if (before.srcMac !== after.srcMac) parts.push(`from ${after.srcMac}`);
  if (before.dstMac !== after.dstMac) parts.push(`to ${after.dstMac}`);
  const [a, b] = [network(before), network(after)];
  if (a !== undefined && b !== undefined) {
    if (a.ttl !== b.ttl) parts.push(`TTL ${b.ttl - a.ttl}`);
    if (each) {
      if (a.tos !== b.tos) parts.push(`TOS ${hex(a.tos)} > ${hex(b.tos)}`);
      if (before.ip?.df !== after.ip?.df) parts.push(`DF ${before.ip?.df} > ${after.ip?.df}`);
      if (a.length !== b.length) parts.push(`length ${a.length} > ${b.length}`);
      if (a.headerLength !== b.headerLength) parts.push(`header ${a.headerLength} > ${b.headerLength}`);
    }
  }
  return parts.join(', ');
}

function headersOf(packets: readonly CapturedPacket[]): string[] {
  return [
    ...new Set(packets.map((packet) => `${hex(network(packet)?.tos ?? 0)}${packet.ip?.df === true ? ' DF' : ''}`)),
  ].sort();
}

function hex(byte: number): string {
  return `0x${byte.toString(16).padStart(2, '0')}`;
}
