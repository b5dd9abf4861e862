/** Decodes Ethernet frames: IPv4 and IPv6 with TCP, UDP, ICMP, SCTP, and the frame inside a VXLAN or Geneve packet. */
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

/** IPv6 header fields, extension headers included. Numbers are in host order, addresses as RFC 5952 writes them. */
export interface Ipv6Fields {
  readonly src: string;
  readonly dst: string;
  readonly hopLimit: number;
  /** The whole traffic class: DSCP in the upper six bits, ECN in the lower two. */
  readonly trafficClass: number;
  readonly flowLabel: number;
  /** From the first header, whatever it names. */
  readonly nextHeader: number;
  /** What follows the extension headers. */
  readonly proto: number;
  /** Numbers of the extension headers, in their order. */
  readonly extensions: readonly number[];
  /** Undefined without a fragment header; the offset is in bytes. */
  readonly fragment: { readonly offset: number; readonly more: boolean; readonly id: number } | undefined;
  /** Length of the whole packet from the header. */
  readonly length: number;
  /** The header's and the extension headers' length in bytes. */
  readonly headerLength: number;
}

/** What both families have. */
export interface NetworkFields {
  readonly src: string;
  readonly dst: string;
  /** IPv6: hop limit. */
  readonly ttl: number;
  /** IPv6: traffic class. */
  readonly tos: number;
  readonly proto: number;
  /** Of the whole packet. */
  readonly length: number;
  readonly headerLength: number;
}

/** TCP, UDP, SCTP, ICMP or ICMPv6 of an unfragmented packet (or first fragment). */
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
  /** Undefined if the frame is not IPv6. */
  readonly ip6: Ipv6Fields | undefined;
  readonly l4: TransportFields | undefined;
  /** Network identifier, if this is UDP to a port of VXLAN (4789) or Geneve (6081) with such a header. */
  readonly vni: number | undefined;
  /** Where in this frame the inner one begins, bytes. */
  readonly innerOffset: number | undefined;
  /** The frame inside the tunnel packet. */
  readonly inner: Packet | undefined;
}

/** Protocol numbers. */
export const IPPROTO = { icmp: 1, tcp: 6, udp: 17, fragment: 44, ah: 51, icmpv6: 58, sctp: 132 } as const;

/** UDP ports by which tunnel packets are known. */
export interface TunnelPorts {
  readonly vxlan: number;
  readonly geneve: number;
}

/** Those of IANA. */
export const TUNNEL_PORTS: TunnelPorts = { vxlan: 4789, geneve: 6081 };

const ETHER_HEADER = 14;
const ETHERTYPE_IPV4 = 0x0800;
const ETHERTYPE_IPV6 = 0x86dd;
/** Transparent Ethernet bridging: what Geneve says of an Ethernet frame. */
const ETHERTYPE_ETHERNET = 0x6558;
/** Both headers, without Geneve's options. */
const TUNNEL_HEADER = 8;
const UDP_HEADER = 8;
const IPV6_HEADER = 40;

/** Decodes a frame; what is cut off or not understood is undefined, never an error. */
export function decodeFrame(frame: Buffer, ports: TunnelPorts = TUNNEL_PORTS): Packet {
  const etherType = frame.length >= ETHER_HEADER ? frame.readUInt16BE(12) : 0;
  const base = {
    dstMac: macText(frame.subarray(0, 6)),
    srcMac: macText(frame.subarray(6, 12)),
    etherType,
    ip: undefined,
    ip6: undefined,
    l4: undefined,
    vni: undefined,
    innerOffset: undefined,
    inner: undefined,
  };
  const packet = frame.subarray(ETHER_HEADER);
  const ip = etherType === ETHERTYPE_IPV4 ? decodeIpv4(packet) : undefined;
  const ip6 = etherType === ETHERTYPE_IPV6 ? decodeIpv6(packet) : undefined;
  const fields = ip ?? ip6;
  if (fields === undefined) return base;
  const { headerLength, length, proto } = fields;
  // The IP length, not the frame's, ends the payload: short frames are padded.
  const segment = packet.subarray(headerLength, Math.max(headerLength, Math.min(length, packet.length)));
  const complete = packet.length >= length;
  const fragment = ip === undefined ? ip6?.fragment : { offset: ip.fragmentOffset, more: ip.mf };
  if ((fragment?.offset ?? 0) !== 0) return { ...base, ip, ip6 };
  const addresses = ip === undefined ? packet.subarray(8, 40) : packet.subarray(12, 20);
  const l4 = decodeTransport(proto, segment, complete && fragment?.more !== true, addresses);
  const tunnel = proto === IPPROTO.udp ? segment.subarray(UDP_HEADER) : Buffer.alloc(0);
  const tunnelLength = tunnelHeaderLength(l4?.dport, tunnel, ports);
  if (tunnelLength === undefined || tunnel.length < tunnelLength) return { ...base, ip, ip6, l4 };
  return {
    ...base,
    ip,
    ip6,
    l4,
    vni: tunnel.readUIntBE(4, 3),
    innerOffset: ETHER_HEADER + headerLength + UDP_HEADER + tunnelLength,
    inner: decodeFrame(tunnel.subarray(tunnelLength), ports),
  };
}

/** The fields that both families have; undefined if the frame is of neither. */
export function network({ ip, ip6 }: Pick<Packet, 'ip' | 'ip6'>): NetworkFields | undefined {
  if (ip !== undefined) return ip;
  return ip6 && { ...ip6, ttl: ip6.hopLimit, tos: ip6.trafficClass };
}

/** Length of the tunnel header that a UDP payload begins with; undefined if it is none with an Ethernet frame inside. */
function tunnelHeaderLength(port: number | undefined, payload: Buffer, ports: TunnelPorts): number | undefined {
  if (payload.length < TUNNEL_HEADER) return undefined;
  const first = payload.readUInt8(0);
  if (port === ports.vxlan) return (first & 0x08) !== 0 ? TUNNEL_HEADER : undefined;
  const geneve = port === ports.geneve && first >> 6 === 0 && payload.readUInt16BE(2) === ETHERTYPE_ETHERNET;
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

/** Extension headers that say their length in units of 8 bytes: hop-by-hop, routing, destination options. */
const OPTION_HEADERS: ReadonlySet<number> = new Set([0, 43, 60]);

function decodeIpv6(packet: Buffer): Ipv6Fields | undefined {
  if (packet.length < IPV6_HEADER || packet.readUInt8(0) >> 4 !== 6) return undefined;
  const first = packet.readUInt32BE(0);
  const payloadLength = packet.readUInt16BE(4);
  const extensions: number[] = [];
  let fragment: Ipv6Fields['fragment'];
  let proto = packet.readUInt8(6);
  let headerLength = IPV6_HEADER;
  while (packet.length >= headerLength + 8) {
    const next = packet.readUInt8(headerLength);
    const units = packet.readUInt8(headerLength + 1);
    if (proto === IPPROTO.fragment) {
      const word = packet.readUInt16BE(headerLength + 2);
      fragment = { offset: word & 0xfff8, more: (word & 1) !== 0, id: packet.readUInt32BE(headerLength + 4) };
      headerLength += 8;
    } else if (OPTION_HEADERS.has(proto)) headerLength += (units + 1) * 8;
    else if (proto === IPPROTO.ah) headerLength += (units + 2) * 4;
    else break;
    extensions.push(proto);
    proto = next;
    // What follows the header of a later fragment is data.
    if ((fragment?.offset ?? 0) !== 0) break;
  }
  return {
    src: ipv6Text(packet.subarray(8, 24)),
    dst: ipv6Text(packet.subarray(24, 40)),
    hopLimit: packet.readUInt8(7),
    trafficClass: (first >>> 20) & 0xff,
    flowLabel: first & 0xfffff,
    nextHeader: packet.readUInt8(6),
    proto,
    extensions,
    fragment,
    // A length of 0 is a GSO packet too big for the field: it ends where the frame ends.
    length: payloadLength === 0 ? packet.length : IPV6_HEADER + payloadLength,
    headerLength,
  };
}

/* The longest run of two or more zero groups, the first of equal ones, becomes "::" (RFC 5952). */
function ipv6Text(bytes: Buffer): string {
  const groups = Array.from({ length: 8 }, (_, i) => bytes.readUInt16BE(i * 2));
  let best = { start: 0, length: 1 };
  for (let start = 0; start < groups.length; start++) {
    let length = 0;
    while (groups[start + length] === 0) length++;
    if (length > best.length) best = { start, length };
  }
  const text = (part: readonly number[]): string => part.map((group) => group.toString(16)).join(':');
  if (best.length < 2) return text(groups);
  return `${text(groups.slice(0, best.start))}::${text(groups.slice(best.start + best.length))}`;
}

/** Reply and request, or request and reply. */
const ECHO_TYPES: Readonly<Record<'icmp' | 'icmpv6', readonly number[]>> = { icmp: [0, 8], icmpv6: [128, 129] };

const NO_TRANSPORT = {
  sport: undefined,
  dport: undefined,
  flags: undefined,
  seq: undefined,
  ack: undefined,
  icmpType: undefined,
  icmpCode: undefined,
};

/** @param addresses source and destination as they are in the IP header */
function decodeTransport(
  proto: number,
  segment: Buffer,
  complete: boolean,
  addresses: Buffer,
): TransportFields | undefined {
  const withPseudoHeader = (): boolean =>
    internetChecksum(segment, pseudoHeaderSum(proto, addresses, segment.length)) === 0;
  switch (proto) {
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
    case IPPROTO.icmp:
    case IPPROTO.icmpv6: {
      if (segment.length < 8) return undefined;
      const type = segment.readUInt8(0);
      const version6 = proto === IPPROTO.icmpv6;
      const echo = (version6 ? ECHO_TYPES.icmpv6 : ECHO_TYPES.icmp).includes(type);
      const valid = (): boolean => (version6 ? withPseudoHeader() : internetChecksum(segment) === 0);
      return {
        ...NO_TRANSPORT,
        icmpType: type,
        icmpCode: segment.readUInt8(1),
        sport: echo ? segment.readUInt16BE(4) : undefined,
        dport: echo ? segment.readUInt16BE(4) : undefined,
        seq: echo ? segment.readUInt16BE(6) : undefined,
        ...payloadFields(segment.subarray(8)),
        checksumValid: complete ? valid() : undefined,
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

/* The same for both families: where the fields stand does not matter to a sum. */
function pseudoHeaderSum(proto: number, addresses: Buffer, length: number): number {
  let sum = proto + length;
  for (let i = 0; i < addresses.length; i += 2) sum += addresses.readUInt16BE(i);
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
