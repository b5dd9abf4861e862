/** Decodes Ethernet frames: IPv4 with TCP, UDP, ICMP, SCTP, and the frame inside a VXLAN or Geneve packet. */
import { createHash } from 'node:crypto';

/** IPv4 header fields. Numbers are in host order, addresses dotted. */
export interface Ipv4Fields {
  readonly src: string;
  readonly dst: string;
  readonly ttl: number;
  /** The whole TOS byte: DSCP in the upper six bits, ECN in the lower two. */
  readonly tos: number;
  readonly id: number;
  readonly df: boolean;
  readonly mf: boolean;
  /** Fragment offset in bytes. */
  readonly fragmentOffset: number;
  readonly proto: number;
  /** Total length from the header. */
  readonly length: number;
  /** Header length in bytes; more than 20 means options. */
  readonly headerLength: number;
  readonly checksumValid: boolean;
}

/** TCP, UDP, SCTP or ICMP of an unfragmented packet (or first fragment). */
export interface TransportFields {
  /** Ports; for ICMP echo both are the identifier; undefined for other ICMP. */
  readonly sport: number | undefined;
  readonly dport: number | undefined;
  /** TCP flags byte (FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32, ECE 64, CWR 128). */
  readonly flags: number | undefined;
  /** TCP sequence and acknowledgement numbers; `seq` is also the ICMP echo sequence number. */
  readonly seq: number | undefined;
  readonly ack: number | undefined;
  readonly icmpType: number | undefined;
  readonly icmpCode: number | undefined;
  /** Payload length in bytes (for ICMP: after the first 8 bytes; for SCTP: all chunks). */
  readonly payloadLength: number;
  /** First 16 hex digits of SHA-256 of the payload, for comparing two captures. */
  readonly payloadHash: string;
  /** Undefined if it cannot be judged: fragment, cut by the snap length, UDP without checksum, SCTP (CRC32c is judged). */
  readonly checksumValid: boolean | undefined;
}

export interface Packet {
  readonly srcMac: string;
  readonly dstMac: string;
  readonly etherType: number;
  /** Undefined if the frame is not IPv4. */
  readonly ip: Ipv4Fields | undefined;
  readonly l4: TransportFields | undefined;
  /** Network identifier, if this is UDP to port 4789 with a VXLAN header, or to 6081 with a Geneve header. */
  readonly vni: number | undefined;
  /** The frame inside the tunnel packet. */
  readonly inner: Packet | undefined;
}

/** Protocol numbers. */
export const IPPROTO = { icmp: 1, tcp: 6, udp: 17, sctp: 132, ah: 51 } as const;

const ETHER_HEADER = 14;
const ETHERTYPE_IPV4 = 0x0800;
/** Transparent Ethernet bridging: what Geneve says of an Ethernet frame. */
const ETHERTYPE_ETHERNET = 0x6558;
const VXLAN_PORT = 4789;
const GENEVE_PORT = 6081;
/** Both headers, without Geneve's options. */
const TUNNEL_HEADER = 8;

/** Decodes a frame; what is cut off or not understood is undefined, never an error. */
export function decodeFrame(frame: Buffer): Packet {
  const etherType = frame.length >= ETHER_HEADER ? frame.readUInt16BE(12) : 0;
  const base = {
    dstMac: macText(frame.subarray(0, 6)),
    srcMac: macText(frame.subarray(6, 12)),
    etherType,
    ip: undefined,
    l4: undefined,
    vni: undefined,
    inner: undefined,
  };
  if (etherType !== ETHERTYPE_IPV4) return base;
  const packet = frame.subarray(ETHER_HEADER);
  const ip = decodeIpv4(packet);
  if (ip === undefined) return base;
  // The IP length, not the frame's, ends the payload: short frames are padded.
  const segment = packet.subarray(ip.headerLength, Math.max(ip.headerLength, Math.min(ip.length, packet.length)));
  const complete = packet.length >= ip.length;
  if (ip.fragmentOffset !== 0) return { ...base, ip };
  const l4 = decodeTransport(ip, segment, complete && !ip.mf, packet);
  const tunnel = ip.proto === IPPROTO.udp ? segment.subarray(8) : Buffer.alloc(0);
  const headerLength = tunnelHeaderLength(l4?.dport, tunnel);
  if (headerLength === undefined || tunnel.length < headerLength) return { ...base, ip, l4 };
  return { ...base, ip, l4, vni: tunnel.readUIntBE(4, 3), inner: decodeFrame(tunnel.subarray(headerLength)) };
}

/** Length of the tunnel header that a UDP payload begins with; undefined if it is none with an Ethernet frame inside. */
function tunnelHeaderLength(port: number | undefined, payload: Buffer): number | undefined {
  if (payload.length < TUNNEL_HEADER) return undefined;
  const first = payload.readUInt8(0);
  if (port === VXLAN_PORT) return (first & 0x08) !== 0 ? TUNNEL_HEADER : undefined;
  const geneve = port === GENEVE_PORT && first >> 6 === 0 && payload.readUInt16BE(2) === ETHERTYPE_ETHERNET;
  return geneve ? TUNNEL_HEADER + (first & 0x3f) * 4 : undefined;
}

/** The Internet checksum (RFC 1071) of the bytes plus `initial`, complemented; 0 over data with a right checksum. */
export function internetChecksum(bytes: Buffer, initial = 0): number {
  let sum = initial;
  const even = bytes.length & ~1;
  for (let i = 0; i < even; i += 2) sum += bytes.readUInt16BE(i);
  if (even < bytes.length) sum += bytes.readUInt8(even) << 8;
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 0x10000);
  return ~sum & 0xffff;
}

/** CRC32c (Castagnoli) as SCTP uses it. */
export function crc32c(bytes: Buffer): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0x82f63b78 : 0);
  }
  return ~crc >>> 0;
}

function decodeIpv4(packet: Buffer): Ipv4Fields | undefined {
  if (packet.length < 20 || packet.readUInt8(0) >> 4 !== 4) return undefined;
  const headerLength = (packet.readUInt8(0) & 0x0f) * 4;
  if (headerLength < 20 || packet.length < headerLength) return undefined;
  const fragment = packet.readUInt16BE(6);
  const length = packet.readUInt16BE(2);
  return {
    src: packet.subarray(12, 16).join('.'),
    dst: packet.subarray(16, 20).join('.'),
    ttl: packet.readUInt8(8),
    tos: packet.readUInt8(1),
    id: packet.readUInt16BE(4),
    df: (fragment & 0x4000) !== 0,
    mf: (fragment & 0x2000) !== 0,
    fragmentOffset: (fragment & 0x1fff) * 8,
    proto: packet.readUInt8(9),
    // A length of 0 is a GSO packet too big for the field: it ends where the frame ends.
    length: length === 0 ? packet.length : length,
    headerLength,
    checksumValid: internetChecksum(packet.subarray(0, headerLength)) === 0,
  };
}

const NO_TRANSPORT = {
  sport: undefined,
  dport: undefined,
  flags: undefined,
  seq: undefined,
  ack: undefined,
  icmpType: undefined,
  icmpCode: undefined,
};

function decodeTransport(
  ip: Ipv4Fields,
  segment: Buffer,
  complete: boolean,
  packet: Buffer,
): TransportFields | undefined {
  const withPseudoHeader = (): boolean => internetChecksum(segment, pseudoHeaderSum(ip, packet, segment.length)) === 0;
  switch (ip.proto) {
    case IPPROTO.tcp: {
      if (segment.length < 20) return undefined;
      const payload = segment.subarray((segment.readUInt8(12) >> 4) * 4);
      return {
        ...NO_TRANSPORT,
        sport: segment.readUInt16BE(0),
        dport: segment.readUInt16BE(2),
        seq: segment.readUInt32BE(4),
        ack: segment.readUInt32BE(8),
        flags: segment.readUInt8(13),
        ...payloadFields(payload),
        checksumValid: complete ? withPseudoHeader() : undefined,
      };
    }
    case IPPROTO.udp: {
      if (segment.length < 8) return undefined;
      return {
        ...NO_TRANSPORT,
        sport: segment.readUInt16BE(0),
        dport: segment.readUInt16BE(2),
        ...payloadFields(segment.subarray(8)),
        checksumValid: complete && segment.readUInt16BE(6) !== 0 ? withPseudoHeader() : undefined,
      };
    }
    case IPPROTO.icmp: {
      if (segment.length < 8) return undefined;
      const type = segment.readUInt8(0);
      const echo = type === 0 || type === 8;
      return {
        ...NO_TRANSPORT,
        icmpType: type,
        icmpCode: segment.readUInt8(1),
        sport: echo ? segment.readUInt16BE(4) : undefined,
        dport: echo ? segment.readUInt16BE(4) : undefined,
        seq: echo ? segment.readUInt16BE(6) : undefined,
        ...payloadFields(segment.subarray(8)),
        checksumValid: complete ? internetChecksum(segment) === 0 : undefined,
      };
    }
    case IPPROTO.sctp: {
      if (segment.length < 12) return undefined;
      return {
        ...NO_TRANSPORT,
        sport: segment.readUInt16BE(0),
        dport: segment.readUInt16BE(2),
        ...payloadFields(segment.subarray(12)),
        checksumValid: complete ? sctpChecksumValid(segment) : undefined,
      };
    }
    default:
      return undefined;
  }
}

function payloadFields(payload: Buffer): { payloadLength: number; payloadHash: string } {
  return {
    payloadLength: payload.length,
    payloadHash: createHash('sha256').update(payload).digest('hex').slice(0, 16),
  };
}

function pseudoHeaderSum(ip: Ipv4Fields, packet: Buffer, length: number): number {
  let sum = ip.proto + length;
  for (let i = 12; i < 20; i += 2) sum += packet.readUInt16BE(i);
  return sum;
}

/* The CRC is computed with its own field zero and stored in little-endian order (RFC 9260, appendix A). */
function sctpChecksumValid(segment: Buffer): boolean {
  const copy = Buffer.from(segment);
  copy.writeUInt32LE(0, 8);
  return crc32c(copy) === segment.readUInt32LE(8);
}

function macText(bytes: Buffer): string {
  return [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join(':');
}
