/** rtnetlink messages to and from typed values: pure functions, no system call. */
import { NetlinkFormatError } from './errors.ts';
import { formatIpv4, formatIpv6 } from './ip.ts';
import {
  AttributeCursor,
  MessageFlag,
  MessageWriter,
  attributesOffset,
  readI32,
  readU32,
  writeU32,
} from './message.ts';
import type { NetlinkMessage } from './message.ts';

/** Message types of linux/rtnetlink.h. */
export const RouteMessage = {
  newLink: 16,
  deleteLink: 17,
  getLink: 18,
  newAddress: 20,
  deleteAddress: 21,
  getAddress: 22,
  newQdisc: 36,
  getQdisc: 38,
  newFilter: 44,
  getFilter: 46,
} as const;

const AF_UNSPEC = 0;
const AF_INET = 2;
const AF_INET6 = 10;

const IFINFO_BYTES = 16;
const IFADDR_BYTES = 8;
const TC_BYTES = 20;

const IFLA_ADDRESS = 1;
const IFLA_IFNAME = 3;
const IFLA_MTU = 4;
const IFLA_LINK = 5;
const IFLA_MASTER = 10;
const IFLA_LINKINFO = 18;
const IFLA_EXT_MASK = 29;
const IFLA_LINK_NETNSID = 37;
const IFLA_INFO_KIND = 1;
const IFLA_INFO_DATA = 2;
const IFLA_VLAN_ID = 1;
/** Leaves the IPv6 statistics, which nobody here reads, out of the answers. */
const RTEXT_FILTER_SKIP_STATS = 8;
const IFF_UP = 1;
const IFF_LOWER_UP = 0x1_0000;

const IFA_ADDRESS = 1;
const IFA_LOCAL = 2;

const TCA_KIND = 1;
const TCA_OPTIONS = 2;
const TCA_CHAIN = 11;
const TCA_BPF_NAME = 7;
const TCA_BPF_FLAGS = 8;
const TCA_BPF_ID = 11;
const TCA_BPF_FLAG_ACT_DIRECT = 1;
const TC_H_CLSACT_INGRESS = 0xffff_fff2;
const TC_H_CLSACT_EGRESS = 0xffff_fff3;

/** A network device of this namespace. */
export interface Link {
  readonly ifindex: number;
  readonly name: string;
  /** Lower-case, colon-separated; empty for devices without one. */
  readonly mac: string;
  /** Bytes. */
  readonly mtu: number;
  /** Administratively up. */
  readonly up: boolean;
  /** The lower layer is up: carrier, or for a veth a peer that is up. */
  readonly carrier: boolean;
  /** Driver kind such as "veth", "vxlan", "bridge"; absent for plain hardware and lo. */
  readonly kind?: string;
  /** The device below, or a veth's peer; an index of namespace `linkNetnsId` when that is set. */
  readonly linkIfindex?: number;
  /** This namespace's id for the one in which `linkIfindex` lives; absent when it is this one. */
  readonly linkNetnsId?: number;
  /** Number of the VLAN that the device is, of the device `linkIfindex`; absent for other kinds. */
  readonly vlanId?: number;
  /** The bridge or bond that the device is enslaved to. */
  readonly masterIfindex?: number;
}

/** An IP address of a device. */
export interface LinkAddress {
  readonly ifindex: number;
  readonly family: 4 | 6;
  /** The device's own address in text, also on point-to-point links. */
  readonly address: string;
  readonly prefixLength: number;
  /** 0 global, 253 link, 254 host (rtnetlink(7)). */
  readonly scope: number;
}

/** A queueing discipline of a device. */
export interface Qdisc {
  readonly ifindex: number;
  /** "clsact", "fq_codel" ... */
  readonly kind: string;
}

/** A traffic-control filter, in the order in which the kernel runs them. */
export interface TcFilter {
  /** 1 is first. */
  readonly priority: number;
  readonly handle: number;
  /** Classifier: "bpf", "flower", "u32" ... */
  readonly kind: string;
  /** Chain; packets start in 0. */
  readonly chain: number;
  /** Ethertype that the filter is limited to; 3 (ETH_P_ALL) for all. */
  readonly protocol: number;
  /** Name given when a BPF filter was attached, usually "object:[section]" or the program's. */
  readonly bpfName?: string;
  /** Program id of a BPF filter. */
  readonly bpfId?: number;
  /** Whether a BPF filter's return value is the verdict. */
  readonly directAction?: boolean;
}

/** The two hooks of a clsact qdisc. */
export type TcDirection = 'ingress' | 'egress';

function ifinfo(ifindex: number): Buffer {
  const header = Buffer.alloc(IFINFO_BYTES);
  writeU32(header, ifindex, 4);
  return header;
}

/** Request for all devices. */
export function linksRequest(): MessageWriter {
  return new MessageWriter(RouteMessage.getLink, MessageFlag.dump)
    .header(ifinfo(0))
    .u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
}

/** Request for one device, by index or by name. */
export function linkRequest(by: number | string): MessageWriter {
  const writer = new MessageWriter(RouteMessage.getLink, MessageFlag.ack)
    .header(ifinfo(typeof by === 'number' ? by : 0))
    .u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
  return typeof by === 'string' ? writer.string(IFLA_IFNAME, by) : writer;
}

/** Request for all IPv4 and IPv6 addresses. */
export function addressesRequest(): MessageWriter {
  return new MessageWriter(RouteMessage.getAddress, MessageFlag.dump).header(Buffer.alloc(IFADDR_BYTES));
}

function tc(ifindex: number, parent: number): Buffer {
  const header = Buffer.alloc(TC_BYTES);
  writeU32(header, ifindex, 4);
  writeU32(header, parent, 12);
  return header;
}

/** Request for the qdiscs; the kernel answers with those of all devices. */
export function qdiscsRequest(): MessageWriter {
  return new MessageWriter(RouteMessage.getQdisc, MessageFlag.dump).header(tc(0, 0));
}

/** Request for the filters of one clsact hook. */
export function filtersRequest(ifindex: number, direction: TcDirection): MessageWriter {
  const parent = direction === 'ingress' ? TC_H_CLSACT_INGRESS : TC_H_CLSACT_EGRESS;
  return new MessageWriter(RouteMessage.getFilter, MessageFlag.dump).header(tc(ifindex, parent));
}

function formatMac(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join(':');
}

/** The driver's kind and, of a VLAN, its number. */
function readInfo(cursor: AttributeCursor): { kind?: string; vlanId?: number } {
  const info: { kind?: string; vlanId?: number } = {};
  while (cursor.next()) {
    if (cursor.type === IFLA_INFO_KIND) info.kind = cursor.string();
    else if (cursor.type === IFLA_INFO_DATA && info.kind === 'vlan') {
      const data = cursor.nested();
      while (data.next()) if (data.type === IFLA_VLAN_ID) info.vlanId = data.u16();
    }
  }
  return info;
}

/**
 * Decodes a message about a device.
 * @returns undefined for messages about bridge ports, which have the same type: one of them with "delete" means only
 *   that the device left its bridge
 * @throws NetlinkFormatError
 */
export function decodeLink(message: NetlinkMessage): Link | undefined {
  const start = attributesOffset(message, IFINFO_BYTES, 'link message');
  const { buffer } = message;
  if (buffer.readUInt8(message.start) !== AF_UNSPEC) return undefined;
  const flags = readU32(buffer, message.start + 8);
  const link: { -readonly [K in keyof Link]: Link[K] } = {
    ifindex: readI32(buffer, message.start + 4),
    name: '',
    mac: '',
    mtu: 0,
    up: (flags & IFF_UP) !== 0,
    carrier: (flags & IFF_LOWER_UP) !== 0,
  };
  for (const cursor = new AttributeCursor(buffer, start, message.end, 'link message'); cursor.next();) {
    switch (cursor.type) {
      case IFLA_IFNAME:
        link.name = cursor.string();
        break;
      case IFLA_ADDRESS:
        link.mac = formatMac(cursor.bytes());
        break;
      case IFLA_MTU:
        link.mtu = cursor.u32();
        break;
      case IFLA_LINK:
        // Tunnels bound to no device say 0.
        if (cursor.u32() !== 0) link.linkIfindex = cursor.u32();
        break;
      case IFLA_LINK_NETNSID:
        link.linkNetnsId = cursor.u32() | 0;
        break;
      case IFLA_MASTER:
        link.masterIfindex = cursor.u32();
        break;
      case IFLA_LINKINFO:
        Object.assign(link, readInfo(cursor.nested()));
        break;
      default:
    }
  }
  return link;
}

function formatAddress(family: 4 | 6, bytes: Uint8Array): string {
  return family === 4 ? formatIpv4(Buffer.from(bytes).readUInt32BE(0)) : formatIpv6(bytes);
}

/**
 * Decodes a message about an address.
 * @returns undefined for families other than IPv4 and IPv6
 * @throws NetlinkFormatError
 */
export function decodeAddress(message: NetlinkMessage): LinkAddress | undefined {
  const start = attributesOffset(message, IFADDR_BYTES, 'address message');
  const { buffer } = message;
  const af = buffer.readUInt8(message.start);
  if (af !== AF_INET && af !== AF_INET6) return undefined;
  const family = af === AF_INET ? 4 : 6;
  const size = family === 4 ? 4 : 16;
  let address: string | undefined;
  for (const cursor = new AttributeCursor(buffer, start, message.end, 'address message'); cursor.next();) {
    // IFA_ADDRESS is the far end of a point-to-point link; IFA_LOCAL, where present, is ours.
    if (cursor.type === IFA_LOCAL) address = formatAddress(family, cursor.bytes(size));
    else if (cursor.type === IFA_ADDRESS) address ??= formatAddress(family, cursor.bytes(size));
  }
  if (address === undefined) throw new NetlinkFormatError('address message: it holds no address');
  return {
    ifindex: readI32(buffer, message.start + 4),
    family,
    address,
    prefixLength: buffer.readUInt8(message.start + 1),
    scope: buffer.readUInt8(message.start + 3),
  };
}

/**
 * Decodes a message about a qdisc.
 * @throws NetlinkFormatError
 */
export function decodeQdisc(message: NetlinkMessage): Qdisc {
  const start = attributesOffset(message, TC_BYTES, 'qdisc message');
  let kind = '';
  for (const cursor = new AttributeCursor(message.buffer, start, message.end, 'qdisc message'); cursor.next();) {
    if (cursor.type === TCA_KIND) kind = cursor.string();
  }
  return { ifindex: readI32(message.buffer, message.start + 4), kind };
}

/**
 * Decodes a message about a filter.
 * @returns undefined for the message that stands for a priority level itself (handle 0): it filters nothing
 * @throws NetlinkFormatError
 */
export function decodeFilter(message: NetlinkMessage): TcFilter | undefined {
  const start = attributesOffset(message, TC_BYTES, 'filter message');
  const { buffer } = message;
  const handle = readU32(buffer, message.start + 8);
  if (handle === 0) return undefined;
  const info = readU32(buffer, message.start + 16);
  let kind = '';
  let chain = 0;
  let options: AttributeCursor | undefined;
  for (const cursor = new AttributeCursor(buffer, start, message.end, 'filter message'); cursor.next();) {
    if (cursor.type === TCA_KIND) kind = cursor.string();
    else if (cursor.type === TCA_CHAIN) chain = cursor.u32();
    else if (cursor.type === TCA_OPTIONS) options = cursor.nested();
  }
  // The protocol is a big-endian u16 inside a host-order word.
  const protocol = ((info & 0xff) << 8) | ((info >>> 8) & 0xff);
  const filter = { priority: info >>> 16, handle, kind, chain, protocol };
  return kind === 'bpf' && options !== undefined ? { ...filter, ...decodeBpfOptions(options) } : filter;
}

function decodeBpfOptions(cursor: AttributeCursor): Pick<TcFilter, 'bpfName' | 'bpfId' | 'directAction'> {
  const options: { bpfName?: string; bpfId?: number; directAction: boolean } = { directAction: false };
  while (cursor.next()) {
    if (cursor.type === TCA_BPF_NAME) options.bpfName = cursor.string();
    else if (cursor.type === TCA_BPF_ID) options.bpfId = cursor.u32();
    else if (cursor.type === TCA_BPF_FLAGS) options.directAction = (cursor.u32() & TCA_BPF_FLAG_ACT_DIRECT) !== 0;
  }
  return options;
}
