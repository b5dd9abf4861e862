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

/** Ports that are never masqueraded. */
const RESERVED = [4789, 6081, 500, 4500, 51820] as const;

/** An IPv4 packet in an untagged Ethernet frame: enough to speak of its ID. */
export function isIpv4({ bytes, length }: Frame): boolean {
  return length >= 34 && bytes.readUInt16BE(12) === 0x0800 && (bytes[14] ?? 0) >> 4 === 4;
}

export const idOf = (bytes: Buffer): number => bytes.readUInt16BE(18);
export const hasDf = (bytes: Buffer): boolean => ((bytes[20] ?? 0) & 0x40) !== 0;
export const protoOf = (bytes: Buffer): number => bytes[23] ?? 0;
export const tosOf = (bytes: Buffer): number => bytes[15] ?? 0;
export const ttlOf = (bytes: Buffer): number => bytes[22] ?? 0;
export const totalLengthOf = (bytes: Buffer): number => bytes.readUInt16BE(16);

/** What the two nodes tell connections apart by; see struct xmasq_flow_key. */
export interface Tuple {
  readonly src: number;
  readonly dst: number;
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

const NO_TUPLE: Tuple = { src: 0, dst: 0, proto: 0, sport: 0, dport: 0 };
const NOTHING: Judgement = {
  tuple: NO_TUPLE,
  hasTuple: false,
  eligible: false,
  tooManySegments: false,
  tcpFlags: 0,
};

function sctpCarriesDataOnly(bytes: Buffer, length: number): boolean {
  let at = 46;
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
  if (!isIpv4(frame) || bytes[14] !== 0x45) return NOTHING;
  // Reserved flag, MF, fragment offset.
  if ((bytes.readUInt16BE(20) & 0xbfff) !== 0) return NOTHING;
  const end = 14 + totalLengthOf(bytes);
  if (end > length || (!padded && end !== length)) return NOTHING;
  const proto = protoOf(bytes);
  const addresses = { src: bytes.readUInt32BE(26), dst: bytes.readUInt32BE(30), proto };
  const tooManySegments = frame.segments > 64;
  const judged = (sport: number, dport: number, eligible = true, tcpFlags = 0): Judgement => ({
    tuple: { ...addresses, sport, dport },
    hasTuple: true,
    eligible,
    tooManySegments,
    tcpFlags,
  });
  const ports = (): [number, number] => [bytes.readUInt16BE(34), bytes.readUInt16BE(36)];
  const forbidden = ([sport, dport]: [number, number]): boolean =>
    sport === 53 || [sport, dport].some((port) => port === tunnelPort || RESERVED.includes(port as 4789));
  switch (proto) {
    case Proto.tcp: {
      if (length < 54 || (bytes[46] ?? 0) >> 4 < 5) return NOTHING;
      const flags = bytes[47] ?? 0;
      if ((flags & (Tcp.syn | Tcp.fin)) !== 0) return judged(...ports(), false, flags);
      return forbidden(ports()) ? NOTHING : judged(...ports(), true, flags);
    }
    case Proto.udp:
      return length < 42 || forbidden(ports()) ? NOTHING : judged(...ports());
    case Proto.icmp: {
      if (length < 42) return NOTHING;
      const [type, code] = [bytes[34] ?? 0, bytes[35] ?? 0];
      return (type !== 8 && type !== 0) || code !== 0 ? NOTHING : judged(bytes.readUInt16BE(38), type);
    }
    case Proto.sctp:
      return length < 46 ? NOTHING : judged(...ports(), sctpCarriesDataOnly(bytes, length));
    case Proto.igmp:
    case Proto.esp:
    case Proto.ah:
    case Proto.dccp:
    case Proto.udplite:
      return NOTHING;
    default:
      return judged(0, 0);
  }
}

/** The tuple of packets in the other direction. */
export function reversed({ src, dst, proto, sport, dport }: Tuple): Tuple {
  const icmp = proto === Proto.icmp;
  return { src: dst, dst: src, proto, sport: icmp ? sport : dport, dport: icmp ? 8 - dport : sport };
}

/** Sum of the transport segment and its pseudo header modulo 0xffff: 0 exactly if the checksum is right. */
export function transportSum(bytes: Buffer): number {
  const end = 14 + totalLengthOf(bytes);
  let sum = protoOf(bytes) + end - 34;
  for (let at = 26; at < end; at += 2) sum += ((bytes[at] ?? 0) << 8) | (at + 1 < end ? (bytes[at + 1] ?? 0) : 0);
  return sum % 0xffff;
}

/** Sum of the IPv4 header without options modulo 0xffff: 0 exactly if its checksum is right. */
export function headerSum(bytes: Buffer, start = 14): number {
  let sum = 0;
  for (let at = start; at < start + 20; at += 2) sum += bytes.readUInt16BE(at);
  return sum % 0xffff;
}
