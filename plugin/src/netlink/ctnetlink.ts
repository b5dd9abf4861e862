import {
  ConntrackMessage,
  decodeEntry,
  deleteRequest,
  dumpRequest,
  entryZone,
  getRequest,
  matches,
  timeoutRequest,
} from './ctnetlink-codec.ts';
import type { CtDirection, CtEntry, CtFilter, CtTuple } from './ctnetlink-codec.ts';
import { isNetlinkError } from './errors.ts';
import type { MessageWriter } from './message.ts';
import { NetlinkProtocol, NetlinkSocket, streamTable } from './socket.ts';
import { NetlinkSubscription } from './subscription.ts';
import type { Watch, WatchOptions } from './subscription.ts';

export {
  CtSctpState,
  CtStatus,
  CtTcpState,
  IpProtocol,
  MAX_TIMEOUT_SECONDS,
  isIcmpTuple,
  reverseTuple,
} from './ctnetlink-codec.ts';
export type { CtAddresses, CtDirection, CtEntry, CtFilter, CtIcmp, CtPorts, CtTuple } from './ctnetlink-codec.ts';

/** NFNLGRP_CONNTRACK_DESTROY. */
const DESTROY_GROUP = 3;

/** What `watchDestroy` tells. */
export interface DestroyWatchOptions extends WatchOptions {
  /** Only entries of these zones; absent: of all. */
  readonly zones?: readonly number[];
  /** An entry is gone, by its timeout, by the protocol's end, or deleted. */
  readonly onDestroy: (entry: CtEntry) => void;
}

/**
 * The kernel's connection tracking, zone by zone.
 *
 * Single requests use one socket, which belongs to the network namespace in which the object was made; dumps and
 * watches open their own in the namespace of the calling thread, so stay in one namespace. Needs CAP_NET_ADMIN.
 */
export class Ctnetlink {
  readonly #socket = NetlinkSocket.open(NetlinkProtocol.netfilter);

  /** Closes the socket of the single requests. Dumps and watches live on. */
  close(): void {
    this.#socket.close();
  }

  /**
   * Looks an entry up by a tuple in a zone.
   *
   * The kernel's table holds both tuples of an entry under one hash, and a lookup takes either: a tuple as seen in
   * packets of the reply direction finds the entry too, whatever `direction` says (proved by test). `direction` only
   * chooses the attribute that carries the tuple. Compare `entry.origin` to learn which side matched.
   *
   * @returns undefined when the zone has no such entry, confirmed and alive
   * @throws NetlinkError EINVAL for an ICMP type that conntrack does not track
   */
  get(tuple: CtTuple, zone: number, direction: CtDirection = 'orig'): CtEntry | undefined {
    let entry: CtEntry | undefined;
    const found = this.#whereFound('conntrack get', getRequest(tuple, zone, direction), (found) => {
      entry = found;
    });
    // An entry with this zone in one direction only would answer as well.
    return found && entry?.zone === zone ? entry : undefined;
  }

  /**
   * All entries that pass the filter. The event loop gets its turn after every 32 KiB; an entry may come twice or, if
   * it is made or moved meanwhile, not at all. Leaving the loop early ends the dump.
   *
   * Mark and, since Linux 6.8, zone are filtered by the kernel, and everything once more here. A table with few matches
   * is walked within one receive: about 1 ms per thousand entries without a turn for the event loop.
   * @throws NetlinkError
   */
  dump(filter: CtFilter): AsyncGenerator<CtEntry, void, undefined> {
    return streamTable({
      protocol: NetlinkProtocol.netfilter,
      what: 'conntrack dump',
      request: () => dumpRequest(filter),
      decode: (message) => {
        if (message.type !== ConntrackMessage.new) return undefined;
        if (filter.zone !== undefined && entryZone(message) !== filter.zone) return undefined;
        const entry = decodeEntry(message);
        return matches(entry, filter) ? entry : undefined;
      },
    });
  }

  /**
   * Sets what is left of an entry's life; the next packet that conntrack sees sets it anew, as always. Makes no entry.
   * @param tuple either tuple of the entry
   * @param seconds from now, 1 to MAX_TIMEOUT_SECONDS
   * @returns false when the zone has no such entry, or it is ending
   * @throws NetlinkError EPERM for an entry with a fixed timeout, or without CAP_NET_ADMIN
   */
  setTimeout(tuple: CtTuple, zone: number, seconds: number): boolean {
    return this.#whereFound('conntrack set timeout', timeoutRequest(tuple, zone, seconds));
  }

  /**
   * Deletes an entry.
   * @param tuple either tuple of the entry
   * @param id delete only if the entry has this id (see `CtEntry.id` for what this is worth)
   * @returns false when the zone has no such entry
   * @throws NetlinkError EBUSY for an entry in a flowtable
   */
  delete(tuple: CtTuple, zone: number, id?: number): boolean {
    return this.#whereFound('conntrack delete', deleteRequest(tuple, zone, id));
  }

  /**
   * Watches entries end. Lost events are told by `onOverrun`: dump then, and end what is no longer there.
   *
   * Not every end is told: where the sysctl nf_conntrack_events is 2 (the default since Linux 5.19), an entry made while
   * nobody in the namespace listened to conntrack events ends in silence (proved by test), and where it is 0 they all
   * do. So after a restart, dump as well, and never rely on the event alone.
   * @throws NetlinkError
   */
  watchDestroy(options: DestroyWatchOptions): Watch {
    return new NetlinkSubscription(
      NetlinkProtocol.netfilter,
      [DESTROY_GROUP],
      (message) => {
        if (message.type !== ConntrackMessage.delete) return;
        if (options.zones !== undefined && !options.zones.includes(entryZone(message))) return;
        options.onDestroy(decodeEntry(message));
      },
      options,
    );
  }

  /** Runs a request about one entry; false when the kernel says that it is not there (or dying: ETIME). */
  #whereFound(what: string, writer: MessageWriter, onEntry?: (entry: CtEntry) => void): boolean {
    try {
      this.#socket.request(what, writer, (message) => {
        if (message.type === ConntrackMessage.new) onEntry?.(decodeEntry(message));
      });
      return true;
    } catch (error) {
      if (isNetlinkError(error, 'ENOENT', 'ETIME')) return false;
      throw error;
    }
  }
}
