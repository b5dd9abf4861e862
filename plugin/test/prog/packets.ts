/**
 * Ethernet frames with IPv4 or IPv6 packets from fields and back. Builds what a stack would write; every field can be
 * overridden to make it wrong. Shares no code with the data plane, so that both can't be wrong in the same way.
 */
import { formatIpv6, parseIpv4, parseIpv6 } from '../../src/netlink/ip.ts';

/** Bytes of an Ethernet header. */
export const ETH_BYTES = 14;
/** Bytes of an IPv4 header without options. */
export const IPV4_BYTES = 20;
/** Bytes of an IPv6 header. */
export const IPV6_BYTES = 40;

export type Family = 4 | 6;

/** IP protocol numbers in use here. */
export const Proto = {
  hopByHop: 0,
  icmp: 1,
  igmp: 2,
  tcp: 6,
  udp: 17,
  dccp: 33,
  routing: 43,
  fragment: 44,
  gre: 47,
  esp: 50,
  ah: 51,
  icmp6: 58,
  none: 59,
  destinationOptions: 60,
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

/** An ICMP message, or ICMPv6 in IPv6; default an echo request. */
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

/** A frame. Addresses are text, and tell the family; lengths and checksums are computed unless given. */
export interface FrameSpec {
  readonly dmac: string;
  readonly smac: string;
  readonly etherType?: number;
  /** Puts an 802.1Q tag with this VLAN id into the frame. */
  readonly vlan?: number;
  readonly src: string;
  readonly dst: string;
  readonly version?: number;
  /** In words of 4 bytes; IPv4 only. */
  readonly ihl?: number;
  /** TOS, or traffic class. */
  readonly tos?: number;
  /** Of header and payload. */
  readonly totalLength?: number;
  /** The ID; in IPv6 the upper 16 bits of the flow label. */
  readonly id?: number;
  /** The lower 4 bits of the flow label. */
  readonly labelLow?: number;
  /** Default true; IPv6 has nothing like it. */
  readonly df?: boolean;
  /** More fragments; of IPv6 in a fragment header, which comes with either of these two. */
  readonly mf?: boolean;
  /** The reserved bit beside DF and MF. */
  readonly evil?: boolean;
  /** In units of 8 bytes. */
  readonly fragmentOffset?: number;
  /** TTL, or hop limit. */
  readonly ttl?: number;
  readonly proto?: number;
  readonly ipChecksum?: number;
  /** IPv4 options, a multiple of 4 bytes. */
  readonly options?: Buffer;
  /** An IPv6 extension header by its number and what follows its first byte. */
  readonly extension?: { readonly type: number; readonly body: Buffer };
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

/** An address as on the wire. */
export function addressBytes(text: string): Buffer {
  if (text.includes(':')) return Buffer.from(parseIpv6(text));
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(parseIpv4(text));
  return bytes;
}

/** RFC 9293 3.1, RFC 8200 8.1: addresses, length, protocol. */
function pseudoHeader(src: Buffer, dst: Buffer, proto: number, length: number): Buffer {
  const rest = Buffer.alloc(8);
  rest.writeUInt32BE(length, 0);
  rest.writeUInt32BE(proto, 4);
  return Buffer.concat([src, dst, rest]);
}

/** Sum over pseudo header and segment: 0xffff exactly if the checksum in the segment is right. */
function transportSum(src: Buffer, dst: Buffer, proto: number, segment: Buffer): number {
  return onesSum(segment, onesSum(pseudoHeader(src, dst, proto, segment.length)));
}

const NO_BYTES = Buffer.alloc(0);
const DEFAULT_PAYLOAD = Buffer.from('the quick brown fox jumps over the lazy dog');

function buildTcp(spec: TcpSpec, src: Buffer, dst: Buffer): Buffer {
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

function buildUdp(spec: UdpSpec, src: Buffer, dst: Buffer): Buffer {
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

function buildIcmp(spec: IcmpSpec, src: Buffer, dst: Buffer): Buffer {
  const v6 = src.length > 4;
  const head = Buffer.alloc(8);
  head.writeUInt8(spec.type ?? (v6 ? 128 : 8), 0);
  head.writeUInt8(spec.code ?? 0, 1);
  head.writeUInt16BE(spec.id ?? 1, 4);
  head.writeUInt16BE(spec.seq ?? 1, 6);
  const message = Buffer.concat([head, spec.payload ?? DEFAULT_PAYLOAD]);
  const sum = v6 ? transportSum(src, dst, Proto.icmp6, message) : onesSum(message);
  message.writeUInt16BE(spec.checksum ?? ~sum & 0xffff, 2);
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

function buildTransport(spec: TransportSpec, src: Buffer, dst: Buffer): { proto: number; bytes: Buffer } {
  switch (spec.kind) {
    case 'tcp':
      return { proto: Proto.tcp, bytes: buildTcp(spec, src, dst) };
    case 'udp':
      return { proto: Proto.udp, bytes: buildUdp(spec, src, dst) };
    case 'icmp':
      return { proto: src.length > 4 ? Proto.icmp6 : Proto.icmp, bytes: buildIcmp(spec, src, dst) };
    case 'sctp':
      return { proto: Proto.sctp, bytes: buildSctp(spec) };
    case 'raw':
      return { proto: spec.proto, bytes: spec.bytes ?? DEFAULT_PAYLOAD };
  }
}

function header4(spec: FrameSpec, src: Buffer, dst: Buffer, proto: number, length: number): Buffer {
  const options = spec.options ?? NO_BYTES;
  const ip = Buffer.alloc(IPV4_BYTES + options.length);
  ip.writeUInt8(((spec.version ?? 4) << 4) | (spec.ihl ?? 5 + options.length / 4), 0);
  ip.writeUInt8(spec.tos ?? 0, 1);
  ip.writeUInt16BE(spec.totalLength ?? ip.length + length, 2);
  ip.writeUInt16BE(spec.id ?? 0, 4);
  const flags = (spec.evil === true ? 0x8000 : 0) | (spec.df === false ? 0 : 0x4000) | (spec.mf === true ? 0x2000 : 0);
  ip.writeUInt16BE(flags | (spec.fragmentOffset ?? 0), 6);
  ip.writeUInt8(spec.ttl ?? 64, 8);
  ip.writeUInt8(spec.proto ?? proto, 9);
  src.copy(ip, 12);
  dst.copy(ip, 16);
  options.copy(ip, IPV4_BYTES);
  ip.writeUInt16BE(spec.ipChecksum ?? ~onesSum(ip) & 0xffff, 10);
  return ip;
}

/** Extension headers between the IPv6 header and the transport's, outermost first: their types, and their bytes. */
function extensions(spec: FrameSpec, proto: number): { first: number; bytes: Buffer } {
  let [first, bytes] = [proto, NO_BYTES];
  if (spec.mf !== undefined || spec.fragmentOffset !== undefined) {
    const header = Buffer.alloc(8);
    header.writeUInt8(first, 0);
    header.writeUInt16BE(((spec.fragmentOffset ?? 0) << 3) | (spec.mf === true ? 1 : 0), 2);
    header.writeUInt32BE(0x0badcafe, 4);
    [first, bytes] = [Proto.fragment, header];
  }
  if (spec.extension !== undefined) {
    bytes = Buffer.concat([Buffer.of(first), spec.extension.body, bytes]);
    first = spec.extension.type;
  }
  return { first, bytes };
}

function header6(spec: FrameSpec, src: Buffer, dst: Buffer, proto: number, length: number): Buffer {
  const { first, bytes } = extensions(spec, spec.proto ?? proto);
  const ip = Buffer.alloc(IPV6_BYTES);
  const label = ((spec.id ?? 0) << 4) | (spec.labelLow ?? 0);
  ip.writeUInt32BE((((spec.version ?? 6) << 28) | ((spec.tos ?? 0) << 20) | label) >>> 0, 0);
  ip.writeUInt16BE(spec.totalLength === undefined ? bytes.length + length : spec.totalLength - IPV6_BYTES, 4);
  ip.writeUInt8(first, 6);
  ip.writeUInt8(spec.ttl ?? 64, 7);
  src.copy(ip, 8);
  dst.copy(ip, 24);
  return Buffer.concat([ip, bytes]);
}

/** The frame as bytes. */
export function buildFrame(spec: FrameSpec): Buffer {
  const [src, dst] = [addressBytes(spec.src), addressBytes(spec.dst)];
  if (src.length !== dst.length) throw new RangeError(`${spec.src} and ${spec.dst} are of two families`);
  const { proto, bytes } = buildTransport(spec.transport, src, dst);
  const header = src.length === 4 ? header4 : header6;
  const ip = header(spec, src, dst, proto, bytes.length);
  const tag = spec.vlan === undefined ? NO_BYTES : Buffer.from([0x81, 0x00, spec.vlan >> 8, spec.vlan & 0xff]);
  const etherType = Buffer.alloc(2);
  etherType.writeUInt16BE(spec.etherType ?? (src.length === 4 ? 0x0800 : 0x86dd));
  const mac = [macBytes(spec.dmac), macBytes(spec.smac)];
  return Buffer.concat([...mac, tag, etherType, ip, bytes, spec.trailer ?? NO_BYTES]);
}

/** Does the IP header that begins at `at` have version 6? */
export function isV6(frame: Buffer, at = ETH_BYTES): boolean {
  return (frame[at] ?? 0) >> 4 === 6;
}

/** The ID of the packet; in IPv6 the upper 16 bits of the flow label. */
export function frameId(frame: Buffer, at = ETH_BYTES): number {
  return isV6(frame, at) ? (frame.readUInt32BE(at) >>> 4) & 0xffff : frame.readUInt16BE(at + 4);
}

/** The frame with another ID and the right header checksum; the lower 4 bits of an IPv6 flow label become 0. */
export function withId(frame: Buffer, id: number, at = ETH_BYTES): Buffer {
  const copy = Buffer.from(frame);
  if (isV6(frame, at)) {
    copy.writeUInt32BE(((frame.readUInt32BE(at) & 0xfff00000) | (id << 4)) >>> 0, at);
    return copy;
  }
  copy.writeUInt16BE(id, at + 4);
  copy.writeUInt16BE(0, at + 10);
  const header = copy.subarray(at, at + Math.max(5, (copy[at] ?? 0) & 0xf) * 4);
  copy.writeUInt16BE(~onesSum(header) & 0xffff, at + 10);
  return copy;
}

/** A frame taken apart. Addresses are text. */
export interface ParsedFrame {
  readonly dmac: string;
  readonly smac: string;
  readonly etherType: number;
  readonly family: Family;
  readonly tos: number;
  readonly totalLength: number;
  /** In IPv6 the upper 16 bits of the flow label. */
  readonly id: number;
  /** In IPv6 always. */
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
    case Proto.icmp6:
      return 2;
    default:
      return undefined;
  }
}

function transportProblems(proto: number, src: Buffer, dst: Buffer, bytes: Buffer): string[] {
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
    case Proto.icmp6:
      if (bytes.length < 8) return ['ICMPv6 header cut'];
      return transportSum(src, dst, proto, bytes) === 0xffff ? [] : ['ICMPv6 checksum'];
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

function addressText(bytes: Buffer): string {
  return bytes.length === 4 ? bytes.join('.') : formatIpv6(bytes);
}

interface ParsedHeader extends Omit<
  ParsedFrame,
  'dmac' | 'smac' | 'etherType' | 'src' | 'dst' | 'transport' | 'checksum' | 'problems'
> {
  readonly src: Buffer;
  readonly dst: Buffer;
  readonly bytes: number;
}

function parseHeader4(ip: Buffer): ParsedHeader {
  const fragment = ip.readUInt16BE(6);
  return {
    family: 4,
    tos: ip.readUInt8(1),
    totalLength: ip.readUInt16BE(2),
    id: ip.readUInt16BE(4),
    df: (fragment & 0x4000) !== 0,
    mf: (fragment & 0x2000) !== 0,
    fragmentOffset: fragment & 0x1fff,
    ttl: ip.readUInt8(8),
    proto: ip.readUInt8(9),
    src: ip.subarray(12, 16),
    dst: ip.subarray(16, 20),
    bytes: IPV4_BYTES,
  };
}

function parseHeader6(ip: Buffer): ParsedHeader {
  return {
    family: 6,
    tos: (ip.readUInt32BE(0) >>> 20) & 0xff,
    totalLength: ip.readUInt16BE(4) + IPV6_BYTES,
    id: (ip.readUInt32BE(0) >>> 4) & 0xffff,
    df: true,
    mf: false,
    fragmentOffset: 0,
    ttl: ip.readUInt8(7),
    proto: ip.readUInt8(6),
    src: ip.subarray(8, 24),
    dst: ip.subarray(24, 40),
    bytes: IPV6_BYTES,
  };
}

/**
 * Takes a frame apart that holds an IPv4 packet without options, or an IPv6 packet, and judges it.
 * @throws RangeError for anything else, or less than the header
 */
export function parseFrame(frame: Buffer): ParsedFrame {
  const etherType = frame.length < ETH_BYTES ? 0 : frame.readUInt16BE(12);
  const plain4 = etherType === 0x0800 && frame.length >= ETH_BYTES + IPV4_BYTES && frame[ETH_BYTES] === 0x45;
  const plain6 = etherType === 0x86dd && frame.length >= ETH_BYTES + IPV6_BYTES && isV6(frame);
  if (!plain4 && !plain6) {
    throw new RangeError(`not an Ethernet frame with a plain IP header: ${frame.toString('hex').slice(0, 80)}`);
  }
  const ip = frame.subarray(ETH_BYTES);
  const { src, dst, bytes, ...header } = plain4 ? parseHeader4(ip) : parseHeader6(ip);
  const transport = ip.subarray(bytes, header.totalLength);
  const problems: string[] = [];
  if (plain4 && onesSum(ip.subarray(0, IPV4_BYTES)) !== 0xffff) problems.push('IPv4 checksum');
  if (header.totalLength > ip.length) problems.push(`IPv${header.family} length`);
  if (!header.mf && header.fragmentOffset === 0) {
    problems.push(...transportProblems(header.proto, src, dst, transport));
  }
  const at = checksumAt(header.proto);
  return {
    ...header,
    dmac: macText(frame.subarray(0, 6)),
    smac: macText(frame.subarray(6, 12)),
    etherType,
    src: addressText(src),
    dst: addressText(dst),
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

/** A payload with which the TCP or UDP checksum of the given form comes out as zero, i.e. of UDP as 0xffff. */
export function payloadForZeroSum(build: (payload: Buffer) => Buffer): Buffer {
  const payload = Buffer.alloc(8, 0x31);
  // What is missing to a sum of 0xffff is the checksum itself.
  payload.writeUInt16BE(0, 0);
  payload.writeUInt16BE(parseFrame(build(payload)).checksum ?? 0, 0);
  if (parseFrame(build(payload)).checksum !== 0xffff) throw new Error('no payload has this checksum');
  return payload;
}
