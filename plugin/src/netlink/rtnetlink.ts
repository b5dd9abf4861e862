/**
 * Devices, addresses and traffic control as the kernel knows them, and their changes. Read only.
 *
 * Every function works in the network namespace of the calling thread at the time of the call. Tables are read
 * synchronously: they are small, and one consistent look is worth more than a shared event loop.
 */
import { isNetlinkError } from './errors.ts';
import {
  RouteMessage,
  addressesRequest,
  decodeAddress,
  decodeFilter,
  decodeLink,
  decodeQdisc,
  filtersRequest,
  linkRequest,
  linksRequest,
  qdiscsRequest,
} from './rtnetlink-codec.ts';
import type { Link, LinkAddress, TcDirection, TcFilter } from './rtnetlink-codec.ts';
import { NetlinkProtocol, NetlinkSocket, dumpTable } from './socket.ts';
import { NetlinkSubscription } from './subscription.ts';
import type { Watch, WatchOptions } from './subscription.ts';

export type { Link, LinkAddress, TcDirection, TcFilter } from './rtnetlink-codec.ts';

/** Multicast groups of linux/rtnetlink.h. */
const RouteGroup = { link: 1, ipv4Address: 5, ipv6Address: 9 } as const;

/** Longest device name: IFNAMSIZ without the NUL. */
const MAX_NAME_BYTES = 15;

/**
 * All devices.
 * @throws NetlinkError
 */
export function links(): Link[] {
  return dumpTable({
    protocol: NetlinkProtocol.route,
    what: 'list links',
    request: linksRequest,
    decode: (message) => (message.type === RouteMessage.newLink ? decodeLink(message) : undefined),
  });
}

function oneLink(by: number | string): Link | undefined {
  const socket = NetlinkSocket.open(NetlinkProtocol.route);
  let link: Link | undefined;
  try {
    socket.request(`get link ${by}`, linkRequest(by), (message) => {
      if (message.type === RouteMessage.newLink) link = decodeLink(message);
    });
  } catch (error) {
    if (!isNetlinkError(error, 'ENODEV')) throw error;
  } finally {
    socket.close();
  }
  return link;
}

/**
 * The device of that name (or alternative name), undefined when there is none.
 * @throws NetlinkError
 */
export function linkByName(name: string): Link | undefined {
  const bytes = Buffer.byteLength(name);
  if (bytes === 0 || bytes > MAX_NAME_BYTES || name.includes('\0')) return undefined;
  return oneLink(name);
}

/**
 * The device of that index, undefined when there is none.
 * @throws NetlinkError
 */
export function linkByIndex(ifindex: number): Link | undefined {
  return ifindex > 0 ? oneLink(ifindex) : undefined;
}

/**
 * IPv4 and IPv6 addresses, of one device or of all.
 * @throws NetlinkError
 */
export function addresses(ifindex?: number): LinkAddress[] {
  const all = dumpTable({
    protocol: NetlinkProtocol.route,
    what: 'list addresses',
    request: addressesRequest,
    decode: (message) => (message.type === RouteMessage.newAddress ? decodeAddress(message) : undefined),
  });
  return ifindex === undefined ? all : all.filter((address) => address.ifindex === ifindex);
}

/**
 * Kinds of the qdiscs of a device; empty for a device without any, and for none.
 * @throws NetlinkError
 */
export function qdiscs(ifindex: number): string[] {
  const all = dumpTable({
    protocol: NetlinkProtocol.route,
    what: 'list qdiscs',
    request: qdiscsRequest,
    decode: (message) => (message.type === RouteMessage.newQdisc ? decodeQdisc(message) : undefined),
  });
  return all.filter((qdisc) => qdisc.ifindex === ifindex).map((qdisc) => qdisc.kind);
}

/**
 * Filters of one clsact hook of a device in the order in which they run; empty without a clsact qdisc, and for a
 * device that does not exist. TCX programs, which run before all of these, are not filters and not listed.
 * @throws NetlinkError
 */
export function filters(ifindex: number, direction: TcDirection): TcFilter[] {
  return dumpTable({
    protocol: NetlinkProtocol.route,
    what: `list ${direction} filters of link ${ifindex}`,
    request: () => filtersRequest(ifindex, direction),
    decode: (message) => (message.type === RouteMessage.newFilter ? decodeFilter(message) : undefined),
  });
}

/** What `watch` tells. */
export interface LinkWatchOptions extends WatchOptions {
  /** A device is new or changed (name, MAC, flags, namespace of the peer ...); also without any visible change. */
  readonly onLink?: (link: Link) => void;
  /** A device is gone: deleted, or moved to another namespace. */
  readonly onLinkDeleted?: (link: Link) => void;
  /** An address was added or changed (`deleted` false), or removed. */
  readonly onAddress?: (address: LinkAddress, deleted: boolean) => void;
}

/**
 * Watches devices and addresses. Start the watch first and read the tables then, so that no change falls between.
 * @throws NetlinkError
 */
export function watch(options: LinkWatchOptions): Watch {
  const groups = options.onAddress
    ? [RouteGroup.link, RouteGroup.ipv4Address, RouteGroup.ipv6Address]
    : [RouteGroup.link];
  return new NetlinkSubscription(
    NetlinkProtocol.route,
    groups,
    (message) => {
      switch (message.type) {
        case RouteMessage.newLink:
        case RouteMessage.deleteLink: {
          const link = decodeLink(message);
          if (link === undefined) break;
          if (message.type === RouteMessage.newLink) options.onLink?.(link);
          else options.onLinkDeleted?.(link);
          break;
        }
        case RouteMessage.newAddress:
        case RouteMessage.deleteAddress: {
          const address = decodeAddress(message);
          if (address !== undefined) options.onAddress?.(address, message.type === RouteMessage.deleteAddress);
          break;
        }
        default:
      }
    },
    options,
  );
}
