/**
 * Ethernet frames with IPv4 packets from fields and back. Builds what a stack would write; every field can be overridden
 * to make it wrong. Shares no code with the data plane, so that both can't be wrong in the same way.
 */
import { parseIpv4 } from '../../src/netlink/ip.ts';

/** Bytes of an Ethernet header. */
export const ETH_BYTES = 14;
/** Bytes of an IPv4 header without options. */
export const IPV4_BYTES = 20;

/** IP protocol numbers in use here. */
export const Proto = {
  icmp: 1,
  igmp: 2,
  tcp: 6,
  udp: 17,
  dccp: 33,
  gre: 47,
  esp: 50,
  ah: 51,
  sctp: 132,
  udplite: 136,
} as const;

/** TCP header flags. */
export const Tcp = { fin: 1, syn: 2, rst: 4, psh: 8, ack: 16, urg: 32 } as const;

/** SCTP chunk types (RFC 9260 3.2). */
export const Chunk = { data: 0, init: 1, sack: 3, heartbeat: 4, abort: 6, shutdown: 7 } as const;

/** A TCP segment; the checksum is right unless given. */
export interface TcpSpec {
  readonly kind: 'tcp';
  readonly sport: number;
  readonly dport: number;
  /** Bits of Tcp; default ACK. */
  readonly flags?: number;
  readonly seq?: number;
  readonly ack?: number;
  readonly window?: number;
  /** A multiple of 4 bytes. */
  readonly options?: Buffer;
  /** In words of 4 bytes. */
  readonly dataOffset?: number;
  readonly payload?: Buffer;
  readonly checksum?: number;
}

/** A UDP datagram; checksum 0 means none. */
export interface UdpSpec {
  readonly kind: 'udp';
  readonly sport: number;
  readonly dport: number;
  readonly length?: number;
  readonly payload?: Buffer;
  readonly checksum?: number;
}

/** An ICMP message; default an echo request. */
export interface IcmpSpec {
  readonly kind: 'icmp';
  readonly type?: number;
  readonly code?: number;
  readonly id?: number;
  readonly seq?: number;
  readonly payload?: Buffer;
  readonly checksum?: number;
}

/** An SCTP packet; the CRC32c is right. */
export interface SctpSpec {
  readonly kind: 'sctp';
  readonly sport: number;
  readonly dport: number;
  /** Default one DATA chunk. */
  readonly chunks?: readonly { readonly type: number; readonly body: Buffer; readonly length?: number }[];
}

/** Any protocol by its bytes. */
export interface RawSpec {
  readonly kind: 'raw';
  readonly proto: number;
  readonly bytes?: Buffer;
}

export type TransportSpec = TcpSpec | UdpSpec | IcmpSpec | SctpSpec | RawSpec;

/** A frame. Addresses are text; lengths and checksums are computed unless given. */
export interface FrameSpec {
  readonly dmac: string;
  readonly smac: string;
  readonly etherType?: number;
  /** Puts an 802.1Q tag with this VLAN id into the frame. */
  readonly vlan?: number;
  readonly src: string;
  readonly dst: string;
  readonly version?: number;
  /** In words of 4 bytes. */
  readonly ihl?: number;
  readonly tos?: number;
  readonly totalLength?: number;
  readonly id?: number;
  /** Default true. */
  readonly df?: boolean;
  readonly mf?: boolean;
  /** The reserved bit beside DF and MF. */
  readonly evil?: boolean;
  /** In units of 8 bytes. */
  readonly fragmentOffset?: number;
  readonly ttl?: number;
  readonly proto?: number;
  readonly ipChecksum?: number;
  /** A multiple of 4 bytes. */
  readonly options?: Buffer;
  readonly transport: TransportSpec;
  /** Bytes after the packet, as Ethernet padding. */
  readonly trailer?: Buffer;
}

/** "02:00:00:00:00:01" to bytes. */
export function macBytes(text: string): Buffer {
  const bytes = Buffer.from(text.replaceAll(':', ''), 'hex');
  if (bytes.length !== 6) throw new RangeError(`"${text}" is not an Ethernet address`);
  return bytes;
}

/** Bytes to "02:00:00:00:00:01". */
export function macText(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join(':');
}

/** Ones' complement sum of big-endian 16-bit words (RFC 1071), folded but not inverted. */
export function onesSum(bytes: Uint8Array, start = 0): number {
  let sum = start;
  for (let at = 0; at < bytes.length; at += 2) sum += ((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 0x10000);
  return sum;
}

/** CRC32c (RFC 9260 appendix A) of an SCTP packet whose checksum field is zero. */
export function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ ((crc & 1) * 0x82f63b78);
  }
  return (crc ^ 0xffffffff) >>> 0;
}

function pseudoHeader(src: number, dst: number, proto: number, length: number): Buffer {
  const bytes = Buffer.alloc(12);
  bytes.writeUInt32BE(src, 0);
  bytes.writeUInt32BE(dst, 4);
  bytes.writeUInt8(proto, 9);
  bytes.writeUInt16BE(length & 0xffff, 10);
  return bytes;
}

/** Sum over pseudo header and segment: 0xffff exactly if the checksum in the segment is right. */
function transportSum(src: number, dst: number, proto: number, segment: Buffer): number {
  return onesSum(segment, onesSum(pseudoHeader(src, dst, proto, segment.length)));
}

const NO_BYTES = Buffer.alloc(0);
const DEFAULT_PAYLOAD = Buffer.from('the quick brown fox jumps over the lazy dog');

function buildTcp(spec: TcpSpec, src: number, dst: number): Buffer {
  const options = spec.options ?? NO_BYTES;
  const head = Buffer.alloc(20);
  head.writeUInt16BE(spec.sport, 0);
  head.writeUInt16BE(spec.dport, 2);
  head.writeUInt32BE(spec.seq ?? 0x01020304, 4);
  head.writeUInt32BE(spec.ack ?? 0x05060708, 8);
  head.writeUInt8((spec.dataOffset ?? 5 + options.length / 4) << 4, 12);
  head.writeUInt8(spec.flags ?? Tcp.ack, 13);
  head.writeUInt16BE(spec.window ?? 512, 14);
  const segment = Buffer.concat([head, options, spec.payload ?? DEFAULT_PAYLOAD]);
  segment.writeUInt16BE(spec.checksum ?? ~transportSum(src, dst, Proto.tcp, segment) & 0xffff, 16);
  return segment;
}

function buildUdp(spec: UdpSpec, src: number, dst: number): Buffer {
  const payload = spec.payload ?? DEFAULT_PAYLOAD;
  const head = Buffer.alloc(8);
  head.writeUInt16BE(spec.sport, 0);
  head.writeUInt16BE(spec.dport, 2);
  head.writeUInt16BE(spec.length ?? 8 + payload.length, 4);
  const segment = Buffer.concat([head, payload]);
  // 0 stands for "none", so a sum of 0 is written as 0xffff (RFC 768).
  segment.writeUInt16BE(spec.checksum ?? (~transportSum(src, dst, Proto.udp, segment) & 0xffff || 0xffff), 6);
  return segment;
}

function buildIcmp(spec: IcmpSpec): Buffer {
  const head = Buffer.alloc(8);
  head.writeUInt8(spec.type ?? 8, 0);
  head.writeUInt8(spec.code ?? 0, 1);
  head.writeUInt16BE(spec.id ?? 1, 4);
  head.writeUInt16BE(spec.seq ?? 1, 6);
  const message = Buffer.concat([head, spec.payload ?? DEFAULT_PAYLOAD]);
  message.writeUInt16BE(spec.checksum ?? ~onesSum(message) & 0xffff, 2);
  return message;
}

function buildSctp(spec: SctpSpec): Buffer {
  const head = Buffer.alloc(12);
  head.writeUInt16BE(spec.sport, 0);
  head.writeUInt16BE(spec.dport, 2);
  head.writeUInt32BE(0x11223344, 4);
  const chunks = (spec.chunks ?? [{ type: Chunk.data, body: Buffer.alloc(16, 7) }]).map(({ type, body, length }) => {
    const chunk = Buffer.alloc(4 + Math.ceil(body.length / 4) * 4);
    chunk.writeUInt8(type, 0);
    chunk.writeUInt16BE(length ?? 4 + body.length, 2);
    body.copy(chunk, 4);
    return chunk;
  });
  const packet = Buffer.concat([head, ...chunks]);
  packet.writeUInt32LE(crc32c(packet), 8);
  return packet;
}

function buildTransport(spec: TransportSpec, src: number, dst: number): { proto: number; bytes: Buffer } {
  switch (spec.kind) {
    case 'tcp':
      return { proto: Proto.tcp, bytes: buildTcp(spec, src, dst) };
    case 'udp':
      return { proto: Proto.udp, bytes: buildUdp(spec, src, dst) };
    case 'icmp':
      return { proto: Proto.icmp, bytes: buildIcmp(spec) };
    case 'sctp':
      return { proto: Proto.sctp, bytes: buildSctp(spec) };
    case 'raw':
      return { proto: spec.proto, bytes: spec.bytes ?? DEFAULT_PAYLOAD };
  }
}

/** The frame as bytes. */
export function buildFrame(spec: FrameSpec): Buffer {
  const src = parseIpv4(spec.src);
  const dst = parseIpv4(spec.dst);
  const { proto, bytes } = buildTransport(spec.transport, src, dst);
  const options = spec.options ?? NO_BYTES;
  const ip = Buffer.alloc(IPV4_BYTES + options.length);
  ip.writeUInt8(((spec.version ?? 4) << 4) | (spec.ihl ?? 5 + options.length / 4), 0);
  ip.writeUInt8(spec.tos ?? 0, 1);
  ip.writeUInt16BE(spec.totalLength ?? ip.length + bytes.length, 2);
  ip.writeUInt16BE(spec.id ?? 0, 4);
  const flags = (spec.evil === true ? 0x8000 : 0) | (spec.df === false ? 0 : 0x4000) | (spec.mf === true ? 0x2000 : 0);
  ip.writeUInt16BE(flags | (spec.fragmentOffset ?? 0), 6);
  ip.writeUInt8(spec.ttl ?? 64, 8);
  ip.writeUInt8(spec.proto ?? proto, 9);
  ip.writeUInt32BE(src, 12);
  ip.writeUInt32BE(dst, 16);
  options.copy(ip, IPV4_BYTES);
  ip.writeUInt16BE(spec.ipChecksum ?? ~onesSum(ip) & 0xffff, 10);
  const tag = spec.vlan === undefined ? NO_BYTES : Buffer.from([0x81, 0x00, spec.vlan >> 8, spec.vlan & 0xff]);
  const etherType = Buffer.alloc(2);
  etherType.writeUInt16BE(spec.etherType ?? 0x0800);
  const mac = [macBytes(spec.dmac), macBytes(spec.smac)];
  return Buffer.concat([...mac, tag, etherType, ip, bytes, spec.trailer ?? NO_BYTES]);
}

/** A frame taken apart. Addresses are text. */
export interface ParsedFrame {
  readonly dmac: string;
  readonly smac: string;
  readonly etherType: number;
  readonly tos: number;
  readonly totalLength: number;
  readonly id: number;
  readonly df: boolean;
  readonly mf: boolean;
  readonly fragmentOffset: number;
  readonly ttl: number;
  readonly proto: number;
  readonly src: string;
  readonly dst: string;
  /** The whole transport header and payload, without Ethernet padding. */
  readonly transport: Buffer;
  /** The transport's checksum field, for TCP, UDP, ICMP and SCTP. */
  readonly checksum: number | undefined;
  /** Wrong checksums and lengths, in words; empty for a good packet. */
  readonly problems: readonly string[];
}

function checksumAt(proto: number): number | undefined {
  switch (proto) {
    case Proto.tcp:
      return 16;
    case Proto.udp:
      return 6;
    case Proto.icmp:
      return 2;
    default:
      return undefined;
  }
}

function transportProblems(proto: number, src: number, dst: number, bytes: Buffer): string[] {
  switch (proto) {
    case Proto.tcp:
      if (bytes.length < 20) return ['TCP header cut'];
      return transportSum(src, dst, proto, bytes) === 0xffff ? [] : ['TCP checksum'];
    case Proto.udp:
      if (bytes.length < 8) return ['UDP header cut'];
      if (bytes.readUInt16BE(4) !== bytes.length) return ['UDP length'];
      if (bytes.readUInt16BE(6) === 0) return [];
      return transportSum(src, dst, proto, bytes) === 0xffff ? [] : ['UDP checksum'];
    case Proto.icmp:
      if (bytes.length < 8) return ['ICMP header cut'];
      return onesSum(bytes) === 0xffff ? [] : ['ICMP checksum'];
    case Proto.sctp: {
      if (bytes.length < 12) return ['SCTP header cut'];
      const copy = Buffer.from(bytes);
      copy.writeUInt32LE(0, 8);
      return crc32c(copy) === bytes.readUInt32LE(8) ? [] : ['SCTP checksum'];
    }
    default:
      return [];
  }
}

function ipText(value: number): string {
  return [24, 16, 8, 0].map((shift) => (value >>> shift) & 0xff).join('.');
}

/**
 * Takes a frame apart that holds an IPv4 packet without options, and judges it.
 * @throws RangeError for anything else, or less than the header
 */
export function parseFrame(frame: Buffer): ParsedFrame {
  if (frame.length < ETH_BYTES + IPV4_BYTES || frame.readUInt16BE(12) !== 0x0800 || frame[ETH_BYTES] !== 0x45) {
    throw new RangeError(`not an Ethernet frame with a plain IPv4 header: ${frame.toString('hex').slice(0, 80)}`);
  }
  const ip = frame.subarray(ETH_BYTES, ETH_BYTES + IPV4_BYTES);
  const totalLength = ip.readUInt16BE(2);
  const fragment = ip.readUInt16BE(6);
  const proto = ip.readUInt8(9);
  const [src, dst] = [ip.readUInt32BE(12), ip.readUInt32BE(16)];
  const transport = frame.subarray(ETH_BYTES + IPV4_BYTES, ETH_BYTES + totalLength);
  const problems: string[] = [];
  if (onesSum(ip) !== 0xffff) problems.push('IPv4 checksum');
  if (ETH_BYTES + totalLength > frame.length) problems.push('IPv4 length');
  if ((fragment & 0x3fff) === 0) problems.push(...transportProblems(proto, src, dst, transport));
  const at = checksumAt(proto);
  return {
    dmac: macText(frame.subarray(0, 6)),
    smac: macText(frame.subarray(6, 12)),
    etherType: frame.readUInt16BE(12),
    tos: ip.readUInt8(1),
    totalLength,
    id: ip.readUInt16BE(4),
    df: (fragment & 0x4000) !== 0,
    mf: (fragment & 0x2000) !== 0,
    fragmentOffset: fragment & 0x1fff,
    ttl: ip.readUInt8(8),
    proto,
    src: ipText(src),
    dst: ipText(dst),
    transport,
    checksum: at === undefined || transport.length < at + 2 ? undefined : transport.readUInt16BE(at),
    problems,
  };
}

/** Bytes of the transport header and payload with the checksum field zeroed: what a change of addresses leaves alone. */
export function withoutChecksum(frame: ParsedFrame): Buffer {
  const copy = Buffer.from(frame.transport);
  const at = checksumAt(frame.proto);
  if (at !== undefined && copy.length >= at + 2) copy.writeUInt16BE(0, at);
  return copy;
}
