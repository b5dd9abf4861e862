/** Conntrack messages to and from typed values: pure functions, no system call. */
import { NetlinkFormatError } from './errors.ts';
import { formatIpv4, formatIpv6, parseIpv4, parseIpv6 } from './ip.ts';
import { AttributeCursor, MessageFlag, MessageWriter, attributesOffset } from './message.ts';
import type { NetlinkMessage } from './message.ts';

/** NFNL_SUBSYS_CTNETLINK in the upper byte, IPCTNL_MSG_CT_* in the lower. */
export const ConntrackMessage = { new: 0x100, get: 0x101, delete: 0x102 } as const;

const NFGENMSG_BYTES = 4;
const AF_INET = 2;
const AF_INET6 = 10;

const CTA_TUPLE_ORIG = 1;
const CTA_TUPLE_REPLY = 2;
const CTA_STATUS = 3;
const CTA_PROTOINFO = 4;
const CTA_TIMEOUT = 7;
const CTA_MARK = 8;
const CTA_ID = 12;
const CTA_ZONE = 18;
const CTA_MARK_MASK = 21;

const CTA_TUPLE_IP = 1;
const CTA_TUPLE_PROTO = 2;
const CTA_IP_V4_SRC = 1;
const CTA_IP_V4_DST = 2;
const CTA_IP_V6_SRC = 3;
const CTA_IP_V6_DST = 4;
const CTA_PROTO_NUM = 1;
const CTA_PROTO_SRC_PORT = 2;
const CTA_PROTO_DST_PORT = 3;
const CTA_PROTO_ICMP_ID = 4;
const CTA_PROTO_ICMP_TYPE = 5;
const CTA_PROTO_ICMP_CODE = 6;
const CTA_PROTO_ICMPV6_ID = 7;
const CTA_PROTO_ICMPV6_TYPE = 8;
const CTA_PROTO_ICMPV6_CODE = 9;

const CTA_PROTOINFO_TCP = 1;
const CTA_PROTOINFO_SCTP = 3;
/** CTA_PROTOINFO_TCP_STATE and CTA_PROTOINFO_SCTP_STATE. */
const CTA_PROTOINFO_STATE = 1;

/** IP protocol numbers whose conntrack tuples have more than addresses. */
export const IpProtocol = { icmp: 1, tcp: 6, udp: 17, gre: 47, icmpv6: 58, sctp: 132, udplite: 136 } as const;

/** Bits of `CtEntry.status` (enum ip_conntrack_status). */
export const CtStatus = {
  expected: 1 << 0,
  seenReply: 1 << 1,
  assured: 1 << 2,
  confirmed: 1 << 3,
  srcNat: 1 << 4,
  dstNat: 1 << 5,
  seqAdjust: 1 << 6,
  srcNatDone: 1 << 7,
  dstNatDone: 1 << 8,
  dying: 1 << 9,
  fixedTimeout: 1 << 10,
  template: 1 << 11,
  /** Also IPS_UNTRACKED, which no longer occurs. */
  natClash: 1 << 12,
  helper: 1 << 13,
  offload: 1 << 14,
  hardwareOffload: 1 << 15,
} as const;

/** Values of `CtEntry.tcpState` (enum tcp_conntrack). */
export const CtTcpState = {
  none: 0,
  synSent: 1,
  synReceived: 2,
  established: 3,
  finWait: 4,
  closeWait: 5,
  lastAck: 6,
  timeWait: 7,
  close: 8,
  synSent2: 9,
} as const;

/** Values of `CtEntry.sctpState` (enum sctp_conntrack). */
export const CtSctpState = {
  none: 0,
  closed: 1,
  cookieWait: 2,
  cookieEchoed: 3,
  established: 4,
  shutdownSent: 5,
  shutdownReceived: 6,
  shutdownAckSent: 7,
  heartbeatSent: 8,
} as const;

/** Addresses of a tuple, both of its family, in canonical text (RFC 5952). */
export interface CtAddresses {
  readonly family: 4 | 6;
  readonly src: string;
  readonly dst: string;
}

/** Ports of a tuple; 0 for protocols without ports. For GRE they are the call ids. */
export interface CtPorts {
  readonly proto: number;
  readonly sport: number;
  readonly dport: number;
}

/** What stands for ports in ICMP (`proto` 1) and ICMPv6 (`proto` 58). */
export interface CtIcmp {
  readonly proto: number;
  readonly icmpType: number;
  readonly icmpCode: number;
  readonly icmpId: number;
}

/** One direction of a connection as conntrack keys it. */
export type CtTuple = CtAddresses & (CtPorts | CtIcmp);

/** The tuple has ICMP fields. */
export function isIcmpTuple(tuple: CtTuple): tuple is CtAddresses & CtIcmp {
  return 'icmpType' in tuple;
}

/** A conntrack entry as it was at the time of the message. */
export interface CtEntry {
  /** Addresses and ports of the first packet, before translation. */
  readonly origin: CtTuple;
  /** Addresses and ports of the packets that answer; differs from the mirrored `origin` under NAT. */
  readonly reply: CtTuple;
  /** IP protocol number. */
  readonly protocol: number;
  /** Zone of both directions. 0 also for an entry with a zone in one direction only. */
  readonly zone: number;
  /** Bits of CtStatus. */
  readonly status: number;
  readonly mark: number;
  /** Seconds until it expires; absent for entries in a flowtable and, on many kernels, in events about their end. */
  readonly timeoutSeconds?: number;
  /** One of CtTcpState, for TCP. */
  readonly tcpState?: number;
  /** One of CtSctpState, for SCTP where the kernel tracks it. */
  readonly sctpState?: number;
  /**
   * The kernel's id, a hash of the entry's place in memory and its tuple. A later entry with the same tuple may get the
   * same id, when it gets the same memory (seen in practice): different ids prove different entries, equal ones nothing.
   */
  readonly id: number;
}

/** Which attribute carries the tuple of a request. */
export type CtDirection = 'orig' | 'reply';

function hasPorts(proto: number): boolean {
  switch (proto) {
    case IpProtocol.tcp:
    case IpProtocol.udp:
    case IpProtocol.gre:
    case IpProtocol.sctp:
    case IpProtocol.udplite:
      return true;
    default:
      return false;
  }
}

function nfgenmsg(family: 0 | 4 | 6): Uint8Array {
  // Family, version NFNETLINK_V0, resource id 0.
  return Uint8Array.of(family === 4 ? AF_INET : family === 6 ? AF_INET6 : 0, 0, 0, 0);
}

function checkZone(zone: number): number {
  if (!Number.isInteger(zone) || zone < 0 || zone > 0xffff) throw new RangeError(`conntrack zone ${zone} is not a u16`);
  return zone;
}

function writeAddresses(writer: MessageWriter, tuple: CtTuple): void {
  if (tuple.family === 4) {
    writer.u32be(CTA_IP_V4_SRC, parseIpv4(tuple.src)).u32be(CTA_IP_V4_DST, parseIpv4(tuple.dst));
  } else {
    writer.bytes(CTA_IP_V6_SRC, parseIpv6(tuple.src)).bytes(CTA_IP_V6_DST, parseIpv6(tuple.dst));
  }
}

function writeTransport(writer: MessageWriter, tuple: CtTuple): void {
  writer.u8(CTA_PROTO_NUM, tuple.proto);
  if (!isIcmpTuple(tuple)) {
    if (hasPorts(tuple.proto)) writer.u16be(CTA_PROTO_SRC_PORT, tuple.sport).u16be(CTA_PROTO_DST_PORT, tuple.dport);
    return;
  }
  const [id, type, code] =
    tuple.family === 4
      ? [CTA_PROTO_ICMP_ID, CTA_PROTO_ICMP_TYPE, CTA_PROTO_ICMP_CODE]
      : [CTA_PROTO_ICMPV6_ID, CTA_PROTO_ICMPV6_TYPE, CTA_PROTO_ICMPV6_CODE];
  writer.u16be(id, tuple.icmpId).u8(type, tuple.icmpType).u8(code, tuple.icmpCode);
}

/** A request about the one entry that a tuple names; every such message carries the tuple, or it would mean all. */
function entryRequest(type: number, tuple: CtTuple, zone: number, direction: CtDirection): MessageWriter {
  const writer = new MessageWriter(type, MessageFlag.ack).header(nfgenmsg(tuple.family));
  return writer
    .nest(direction === 'orig' ? CTA_TUPLE_ORIG : CTA_TUPLE_REPLY, () => {
      writer
        .nest(CTA_TUPLE_IP, () => writeAddresses(writer, tuple))
        .nest(CTA_TUPLE_PROTO, () => writeTransport(writer, tuple));
    })
    .u16be(CTA_ZONE, checkZone(zone));
}

/**
 * Request for one entry.
 * @throws RangeError for an address that is not of the tuple's family
 */
export function getRequest(tuple: CtTuple, zone: number, direction: CtDirection): MessageWriter {
  return entryRequest(ConntrackMessage.get, tuple, zone, direction);
}

/** Request to delete one entry; with `id` only if its id is that (see `CtEntry.id` for what this is worth). */
export function deleteRequest(tuple: CtTuple, zone: number, id?: number): MessageWriter {
  const writer = entryRequest(ConntrackMessage.delete, tuple, zone, 'orig');
  return id === undefined ? writer : writer.u32be(CTA_ID, id);
}

/** Most seconds that a timeout may have: the kernel keeps it in an i32 of jiffies of at least 1 ms. */
export const MAX_TIMEOUT_SECONDS = 2_147_483;

/**
 * Request to set what is left of an entry's life. Without NLM_F_CREATE the kernel changes an entry and makes none.
 * @throws RangeError for seconds outside 1 to MAX_TIMEOUT_SECONDS: 0 would end the entry
 */
export function timeoutRequest(tuple: CtTuple, zone: number, seconds: number): MessageWriter {
  if (!Number.isInteger(seconds) || seconds < 1 || seconds > MAX_TIMEOUT_SECONDS) {
    throw new RangeError(`conntrack timeout of ${seconds} s: a whole number from 1 to ${MAX_TIMEOUT_SECONDS} expected`);
  }
  return entryRequest(ConntrackMessage.new, tuple, zone, 'orig').u32be(CTA_TIMEOUT, seconds);
}

/** What a dump is limited to; absent means not limited. */
export interface CtFilter {
  readonly zone?: number;
  /** Entries with `(entry.mark & markMask) === mark`. */
  readonly mark?: number;
  /** Default: all 32 bits. Without `mark` it has no meaning. */
  readonly markMask?: number;
  readonly family?: 4 | 6;
}

const ALL_BITS = 0xffff_ffff;

/** Request for all entries; kernels before 6.8 pass over the zone, so that answers must be filtered again. */
export function dumpRequest(filter: CtFilter): MessageWriter {
  const writer = new MessageWriter(ConntrackMessage.get, MessageFlag.dump).header(nfgenmsg(filter.family ?? 0));
  if (filter.zone !== undefined) writer.u16be(CTA_ZONE, checkZone(filter.zone));
  if (filter.mark !== undefined) writer.u32be(CTA_MARK, filter.mark).u32be(CTA_MARK_MASK, filter.markMask ?? ALL_BITS);
  return writer;
}

/** True when an entry passes the filter. */
export function matches(entry: CtEntry, filter: CtFilter): boolean {
  if (filter.zone !== undefined && entry.zone !== filter.zone) return false;
  if (filter.family !== undefined && entry.origin.family !== filter.family) return false;
  return filter.mark === undefined || (entry.mark & (filter.markMask ?? ALL_BITS)) >>> 0 === filter.mark;
}

function readAddresses(cursor: AttributeCursor): CtAddresses {
  let src4: number | undefined;
  let dst4: number | undefined;
  let src6: Uint8Array | undefined;
  let dst6: Uint8Array | undefined;
  while (cursor.next()) {
    if (cursor.type === CTA_IP_V4_SRC) src4 = cursor.u32be();
    else if (cursor.type === CTA_IP_V4_DST) dst4 = cursor.u32be();
    else if (cursor.type === CTA_IP_V6_SRC) src6 = cursor.bytes(16);
    else if (cursor.type === CTA_IP_V6_DST) dst6 = cursor.bytes(16);
  }
  if (src4 !== undefined && dst4 !== undefined) return { family: 4, src: formatIpv4(src4), dst: formatIpv4(dst4) };
  if (src6 !== undefined && dst6 !== undefined) return { family: 6, src: formatIpv6(src6), dst: formatIpv6(dst6) };
  throw new NetlinkFormatError('conntrack tuple: it lacks an address');
}

function readTransport(cursor: AttributeCursor): CtPorts | CtIcmp {
  let proto: number | undefined;
  let sport = 0;
  let dport = 0;
  let icmpType: number | undefined;
  let icmpCode = 0;
  let icmpId = 0;
  while (cursor.next()) {
    switch (cursor.type) {
      case CTA_PROTO_NUM:
        proto = cursor.u8();
        break;
      case CTA_PROTO_SRC_PORT:
        sport = cursor.u16be();
        break;
      case CTA_PROTO_DST_PORT:
        dport = cursor.u16be();
        break;
      case CTA_PROTO_ICMP_ID:
      case CTA_PROTO_ICMPV6_ID:
        icmpId = cursor.u16be();
        break;
      case CTA_PROTO_ICMP_TYPE:
      case CTA_PROTO_ICMPV6_TYPE:
        icmpType = cursor.u8();
        break;
      case CTA_PROTO_ICMP_CODE:
      case CTA_PROTO_ICMPV6_CODE:
        icmpCode = cursor.u8();
        break;
      default:
    }
  }
  if (proto === undefined) throw new NetlinkFormatError('conntrack tuple: it lacks the protocol number');
  return icmpType === undefined ? { proto, sport, dport } : { proto, icmpType, icmpCode, icmpId };
}

function readTuple(cursor: AttributeCursor): CtTuple {
  let addresses: CtAddresses | undefined;
  let transport: CtPorts | CtIcmp | undefined;
  while (cursor.next()) {
    if (cursor.type === CTA_TUPLE_IP) addresses = readAddresses(cursor.nested());
    else if (cursor.type === CTA_TUPLE_PROTO) transport = readTransport(cursor.nested());
  }
  if (addresses === undefined || transport === undefined) {
    throw new NetlinkFormatError('conntrack tuple: it lacks the addresses or the protocol');
  }
  return { ...addresses, ...transport };
}

function readProtocolState(cursor: AttributeCursor): { tcpState?: number; sctpState?: number } {
  while (cursor.next()) {
    if (cursor.type !== CTA_PROTOINFO_TCP && cursor.type !== CTA_PROTOINFO_SCTP) continue;
    const key = cursor.type === CTA_PROTOINFO_TCP ? 'tcpState' : 'sctpState';
    for (const inner = cursor.nested(); inner.next();) {
      if (inner.type === CTA_PROTOINFO_STATE) return { [key]: inner.u8() };
    }
  }
  return {};
}

function attributes(message: NetlinkMessage): AttributeCursor {
  const start = attributesOffset(message, NFGENMSG_BYTES, 'conntrack message');
  return new AttributeCursor(message.buffer, start, message.end, 'conntrack message');
}

/**
 * Zone of the entry in a message, found without decoding the rest: most messages on a busy node are about others.
 * @throws NetlinkFormatError
 */
export function entryZone(message: NetlinkMessage): number {
  for (const cursor = attributes(message); cursor.next();) if (cursor.type === CTA_ZONE) return cursor.u16be();
  return 0;
}

/**
 * Decodes the entry in a message.
 * @throws NetlinkFormatError
 */
export function decodeEntry(message: NetlinkMessage): CtEntry {
  let origin: CtTuple | undefined;
  let reply: CtTuple | undefined;
  let zone = 0;
  let status = 0;
  let mark = 0;
  let id = 0;
  let timeoutSeconds: number | undefined;
  let state: { tcpState?: number; sctpState?: number } | undefined;
  for (const cursor = attributes(message); cursor.next();) {
    switch (cursor.type) {
      case CTA_TUPLE_ORIG:
        origin = readTuple(cursor.nested());
        break;
      case CTA_TUPLE_REPLY:
        reply = readTuple(cursor.nested());
        break;
      case CTA_STATUS:
        status = cursor.u32be();
        break;
      case CTA_PROTOINFO:
        state = readProtocolState(cursor.nested());
        break;
      case CTA_TIMEOUT:
        timeoutSeconds = cursor.u32be();
        break;
      case CTA_MARK:
        mark = cursor.u32be();
        break;
      case CTA_ID:
        id = cursor.u32be();
        break;
      case CTA_ZONE:
        zone = cursor.u16be();
        break;
      default:
    }
  }
  if (origin === undefined || reply === undefined) throw new NetlinkFormatError('conntrack message: it lacks a tuple');
  return {
    origin,
    reply,
    protocol: origin.proto,
    zone,
    status,
    mark,
    id,
    ...(timeoutSeconds === undefined ? undefined : { timeoutSeconds }),
    ...state,
  };
}

const icmpAnswers: ReadonlyMap<number, number> = new Map([
  [0, 8],
  [8, 0],
  [13, 14],
  [14, 13],
  [15, 16],
  [16, 15],
  [17, 18],
  [18, 17],
]);
const icmpv6Answers: ReadonlyMap<number, number> = new Map([
  [128, 129],
  [129, 128],
  [139, 140],
  [140, 139],
]);

/**
 * The tuple of a packet that answers one with `tuple`, where there is no NAT.
 * @returns undefined for an ICMP type that conntrack pairs with no answer
 */
export function reverseTuple(tuple: CtTuple): CtTuple | undefined {
  const addresses: CtAddresses = { family: tuple.family, src: tuple.dst, dst: tuple.src };
  if (!isIcmpTuple(tuple)) return { ...addresses, proto: tuple.proto, sport: tuple.dport, dport: tuple.sport };
  const icmpType = (tuple.family === 4 ? icmpAnswers : icmpv6Answers).get(tuple.icmpType);
  if (icmpType === undefined) return undefined;
  return { ...addresses, proto: tuple.proto, icmpType, icmpCode: tuple.icmpCode, icmpId: tuple.icmpId };
}
