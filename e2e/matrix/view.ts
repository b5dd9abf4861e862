/** What two pods of a connection saw of each other's packets, in a form that does not depend on the path. */
import { network } from '../lab/packet.ts';
import type { CapturedPacket } from '../lab/pcap.ts';
import { MARKER, MARKER6 } from '../specs/support/wire.ts';

/** One direction of a connection as its receiver saw it. */
export interface View {
  /** Ethernet and IP header of everything received: addresses, ports, TTL, traffic class, DF, right or wrong checksums. Sorted. */
  readonly headers: readonly string[];
  /** Packets received. */
  readonly packets: number;
  /** Of those, such as nobody sent; with `whole` payload bytes instead. */
  readonly foreign: number;
  /** Sent, but not received; with `whole` payload bytes instead. */
  readonly lost: number;
  /** Received with the marker bit in the IPv4 ID or the IPv6 flow label. */
  readonly marked: number;
}

/** How to compare. */
export interface Comparison {
  readonly sent: readonly CapturedPacket[];
  readonly received: readonly CapturedPacket[];
  /** The client's port, another one in each run; for ICMP the identifier. */
  readonly clientPort: number;
  /** The server's, and the Service's: likewise. */
  readonly names: ReadonlyMap<number, string>;
  /** Addresses or ports were translated on the way: SCTP's checksum covers them. */
  readonly translated: boolean;
  /** Checksums may be left to the device: they are not compared. */
  readonly offloads: boolean;
  /** TCP: as a stream, because it is cut and merged on the way. */
  readonly whole: boolean;
}

/** Compares what was sent with what was received. */
export function viewOf(comparison: Comparison): View {
  const { sent, received, whole } = comparison;
  const [foreign, lost] = whole ? compareStreams(sent, received) : comparePackets(comparison);
  return {
    headers: [...new Set(received.map((packet) => header(packet, comparison)))].toSorted(),
    packets: received.length,
    foreign,
    lost,
    marked: received.filter(({ ip, ip6 }) => ((ip?.id ?? 0) & MARKER) !== 0 || ((ip6?.flowLabel ?? 0) & MARKER6) !== 0)
      .length,
  };
}

function header(packet: CapturedPacket, { clientPort, names, offloads }: Comparison): string {
  const { srcMac, dstMac, ip, ip6, l4 } = packet;
  const fields = network(packet);
  const port = (value: number | undefined): string =>
    value === clientPort ? 'client' : (names.get(value ?? 0) ?? String(value));
  const valid = ip?.checksumValid !== false && (offloads || l4?.checksumValid !== false);
  return [
    `${srcMac} > ${dstMac}`,
    `${fields?.src} ${port(l4?.sport)} > ${fields?.dst} ${port(l4?.dport)}`,
    `protocol ${fields?.proto} TTL ${fields?.ttl} TOS 0x${fields?.tos.toString(16)}`,
    `header ${fields?.headerLength}${ip?.df === true ? ' DF' : ''}${ip6?.fragment === undefined ? '' : ' fragment'}`,
    valid ? '' : 'wrong checksum',
  ].join(', ');
}

const ETHER_HEADER = 14;

/** From the transport header to the end of the packet. */
function segmentOf(packet: CapturedPacket): Buffer {
  const ip = network(packet);
  if (ip === undefined) return Buffer.alloc(0);
  return packet.bytes.subarray(ETHER_HEADER + ip.headerLength, ETHER_HEADER + ip.length);
}

/** Where the checksum is, by protocol: offset and length. */
const CHECKSUMS: ReadonlyMap<number, readonly [number, number]> = new Map([
  [6, [16, 2]],
  [17, [6, 2]],
  [132, [8, 4]],
]);

/** What tells packets apart: the transport header without what translation or the device change in it, and the payload. */
function identity(packet: CapturedPacket, { translated, offloads }: Comparison): string {
  const segment = Buffer.from(segmentOf(packet));
  const proto = network(packet)?.proto ?? 0;
  const checksum = CHECKSUMS.get(proto);
  if (checksum === undefined) return segment.toString('latin1');
  segment.fill(0, 0, 4);
  // TCP has two zeros (RFC 1624, section 3), which translation there and back may exchange.
  const zero = proto === 6 && segment.length >= 20 && segment.readUInt16BE(16) === 0xffff;
  if (zero || translated || offloads) segment.fill(0, checksum[0], checksum[0] + checksum[1]);
  return segment.toString('latin1');
}

function comparePackets(comparison: Comparison): [foreign: number, lost: number] {
  const outgoing = new Map<string, number>();
  for (const packet of comparison.sent) {
    const id = identity(packet, comparison);
    outgoing.set(id, (outgoing.get(id) ?? 0) + 1);
  }
  let foreign = 0;
  for (const packet of comparison.received) {
    const id = identity(packet, comparison);
    const left = outgoing.get(id) ?? 0;
    if (left === 0) foreign += 1;
    else outgoing.set(id, left - 1);
  }
  return [foreign, [...outgoing.values()].reduce((sum, left) => sum + left, 0)];
}

/* Payload by sequence number. What is retransmitted is counted once. */
function compareStreams(
  sent: readonly CapturedPacket[],
  received: readonly CapturedPacket[],
): [foreign: number, lost: number] {
  const first = sent.find(({ l4 }) => ((l4?.flags ?? 0) & 2) !== 0)?.l4?.seq;
  const start = ((first ?? 0) + 1) >>> 0;
  const [out, arrived] = [sent, received].map((packets) => streamOf(packets, start));
  if (out === undefined || arrived === undefined) return [0, 0];
  let [foreign, lost] = [0, 0];
  for (const [at, byte] of out.entries()) if (byte !== undefined && arrived[at] === undefined) lost += 1;
  for (const [at, byte] of arrived.entries()) if (byte !== undefined && out[at] !== byte) foreign += 1;
  return [foreign, lost];
}

function streamOf(packets: readonly CapturedPacket[], start: number): (number | undefined)[] {
  const stream: (number | undefined)[] = [];
  for (const packet of packets) {
    const segment = segmentOf(packet);
    if (segment.length < 20) continue;
    const payload = segment.subarray((segment.readUInt8(12) >> 4) * 4);
    const offset = ((packet.l4?.seq ?? 0) - start) >>> 0;
    if (offset > 1e8) continue;
    for (const [i, byte] of payload.entries()) stream[offset + i] = byte;
  }
  return stream;
}
