/**
 * Reads frames as the rules of docs/design.md say they are to be read. Written from there and not from the C, which it
 * judges: the two must agree on millions of broken packets.
 */
import { Proto, Tcp } from '../packets.ts';

/** A frame and the segments that it stands for. */
export interface Frame {
  readonly bytes: Buffer;
  readonly length: number;
  /** GSO segments, 1 if none. */
  readonly segments: number;
}

/** Next headers that are no transport: extension headers, and nothing. */
const EXTENSIONS = [0, 43, 44, 59, 60, 135, 139, 140];
/** Ports that are never masqueraded. */
const RESERVED = [4789, 6081, 500, 4500, 51820] as const;

/** By its EtherType. */
export const isSix = (bytes: Buffer): boolean => bytes.readUInt16BE(12) === 0x86dd;
/** Where the transport header begins, options and extension headers apart. */
export const l4Of = (bytes: Buffer): number => (isSix(bytes) ? 54 : 34);

/** An IP packet in an untagged Ethernet frame: enough to speak of its ID. */
export function isIp({ bytes, length }: Frame): boolean {
  const version = (bytes[14] ?? 0) >> 4;
  if (isSix(bytes)) return length >= 54 && version === 6;
  return length >= 34 && bytes.readUInt16BE(12) === 0x0800 && version === 4;
}

/** In IPv6 the upper 16 bits of the flow label. */
export const idOf = (bytes: Buffer): number =>
  isSix(bytes) ? (bytes.readUInt32BE(14) >>> 4) & 0xffff : bytes.readUInt16BE(18);
export const hasDf = (bytes: Buffer): boolean => isSix(bytes) || ((bytes[20] ?? 0) & 0x40) !== 0;
export const protoOf = (bytes: Buffer): number => bytes[isSix(bytes) ? 20 : 23] ?? 0;
export const tosOf = (bytes: Buffer): number =>
  isSix(bytes) ? (bytes.readUInt16BE(14) >>> 4) & 0xff : (bytes[15] ?? 0);
export const ttlOf = (bytes: Buffer): number => bytes[isSix(bytes) ? 21 : 22] ?? 0;
/** Of header and payload. */
export const totalLengthOf = (bytes: Buffer): number =>
  isSix(bytes) ? bytes.readUInt16BE(18) + 40 : bytes.readUInt16BE(16);
/** Addresses in hexadecimal. */
export const srcOf = (bytes: Buffer): string =>
  isSix(bytes) ? bytes.toString('hex', 22, 38) : bytes.toString('hex', 26, 30);
export const dstOf = (bytes: Buffer): string =>
  isSix(bytes) ? bytes.toString('hex', 38, 54) : bytes.toString('hex', 30, 34);

/** Has an IPv4-mapped address, which no stack takes. */
export const mapped = (bytes: Buffer): boolean =>
  [srcOf(bytes), dstOf(bytes)].some((address) => address.startsWith('00000000000000000000ffff'));

/** What the two nodes tell connections apart by; see struct xmasq_flow_key. Addresses in hexadecimal. */
export interface Tuple {
  readonly src: string;
  readonly dst: string;
  readonly proto: number;
  readonly sport: number;
  readonly dport: number;
}

/** Why a packet has no flow or is not for the fast path by itself. */
export interface Judgement {
  readonly tuple: Tuple;
  /** Has a tuple that flows are looked up by. */
  readonly hasTuple: boolean;
  /** May be on the fast path. `gso` apart, which only senders mind. */
  readonly eligible: boolean;
  readonly tooManySegments: boolean;
  readonly tcpFlags: number;
}

const NO_TUPLE: Tuple = { src: '', dst: '', proto: 0, sport: 0, dport: 0 };
const NOTHING: Judgement = {
  tuple: NO_TUPLE,
  hasTuple: false,
  eligible: false,
  tooManySegments: false,
  tcpFlags: 0,
};

function sctpCarriesDataOnly(bytes: Buffer, length: number): boolean {
  let at = l4Of(bytes) + 12;
  if (at + 4 > length) return false;
  if (bytes[at] === 3) {
    at += Math.ceil(bytes.readUInt16BE(at + 2) / 4) * 4;
    if (at + 4 > length) return true;
  }
  return bytes[at] === 0;
}

/**
 * Judges a packet by itself.
 * @param padded bytes after the packet are allowed
 */
export function judge(frame: Frame, tunnelPort: number, padded: boolean): Judgement {
  const { bytes, length } = frame;
  if (!isIp(frame)) return NOTHING;
  const six = isSix(bytes);
  // Options; reserved flag, MF, fragment offset.
  if (!six && (bytes[14] !== 0x45 || (bytes.readUInt16BE(20) & 0xbfff) !== 0)) return NOTHING;
  const end = 14 + totalLengthOf(bytes);
  if (end > length || (!padded && end !== length)) return NOTHING;
  // Addresses of IPv4 in IPv6 (RFC 4291 2.5.5.2) are on no wire.
  if (six && mapped(bytes)) return NOTHING;
  const proto = protoOf(bytes);
  const l4 = l4Of(bytes);
  const addresses = { src: srcOf(bytes), dst: dstOf(bytes), proto };
  const tooManySegments = frame.segments > 64;
  const judged = (sport: number, dport: number, eligible = true, tcpFlags = 0): Judgement => ({
    tuple: { ...addresses, sport, dport },
    hasTuple: true,
    eligible,
    tooManySegments,
    tcpFlags,
  });
  const ports = (): [number, number] => [bytes.readUInt16BE(l4), bytes.readUInt16BE(l4 + 2)];
  const forbidden = ([sport, dport]: [number, number]): boolean =>
    sport === 53 || [sport, dport].some((port) => port === tunnelPort || RESERVED.includes(port as 4789));
  switch (proto) {
    case Proto.tcp: {
      if (length < l4 + 20 || (bytes[l4 + 12] ?? 0) >> 4 < 5) return NOTHING;
      const flags = bytes[l4 + 13] ?? 0;
      if ((flags & (Tcp.syn | Tcp.fin)) !== 0) return judged(...ports(), false, flags);
      return forbidden(ports()) ? NOTHING : judged(...ports(), true, flags);
    }
    case Proto.udp:
      return length < l4 + 8 || forbidden(ports()) ? NOTHING : judged(...ports());
    case Proto.icmp:
    case Proto.icmp6: {
      if (length < l4 + 8 || (proto === Proto.icmp6) !== six) return NOTHING;
      const [type, code] = [bytes[l4] ?? 0, bytes[l4 + 1] ?? 0];
      const echo = six ? [128, 129] : [8, 0];
      return !echo.includes(type) || code !== 0 ? NOTHING : judged(bytes.readUInt16BE(l4 + 4), type);
    }
    case Proto.sctp:
      return length < l4 + 12 ? NOTHING : judged(...ports(), sctpCarriesDataOnly(bytes, length));
    case Proto.igmp:
    case Proto.esp:
    case Proto.ah:
    case Proto.dccp:
    case Proto.udplite:
      return NOTHING;
    default:
      return six && EXTENSIONS.includes(proto) ? NOTHING : judged(0, 0);
  }
}

/** The tuple of packets in the other direction. */
export function reversed({ src, dst, proto, sport, dport }: Tuple): Tuple {
  const ends = { src: dst, dst: src, proto };
  if (proto === Proto.icmp) return { ...ends, sport, dport: 8 - dport };
  if (proto === Proto.icmp6) return { ...ends, sport, dport: 257 - dport };
  return { ...ends, sport: dport, dport: sport };
}

/** Sum of the transport segment and its pseudo header modulo 0xffff: 0 exactly if the checksum is right. */
export function transportSum(bytes: Buffer): number {
  const end = 14 + totalLengthOf(bytes);
  let sum = protoOf(bytes) + end - l4Of(bytes);
  for (let at = isSix(bytes) ? 22 : 26; at < end; at += 2) {
    sum += ((bytes[at] ?? 0) << 8) | (at + 1 < end ? (bytes[at + 1] ?? 0) : 0);
  }
  return sum % 0xffff;
}

/** Sum of the IPv4 header without options modulo 0xffff: 0 exactly if its checksum is right. */
export function headerSum(bytes: Buffer, start = 14): number {
  let sum = 0;
  for (let at = start; at < start + 20; at += 2) sum += bytes.readUInt16BE(at);
  return sum % 0xffff;
}
