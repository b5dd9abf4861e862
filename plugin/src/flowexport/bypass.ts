/** What has passed conntrack by on the fast path: a connection's part in the counters of the programs. */
import { oppositeKey, slotKeyOf } from '../dataplane/flow-key.ts';
import { FlowFlag, type FlowKey } from '../dataplane/layout.ts';
import type { Tables } from '../dataplane/tables.ts';
import { IpProtocol } from '../netlink/ctnetlink.ts';
import type { RecordNames, RecordTuple } from './record.ts';

/** One counter of the programs. */
export interface BypassCounter {
  /** Another value means that the counter began at 0 again. */
  readonly era: string;
  /** Segments count one by one (conntrack counts a GSO packet once). */
  readonly packets: bigint;
  /** IP lengths, as conntrack's. */
  readonly bytes: bigint;
}

/** Both directions of a connection, the one in which it was begun first; absent: nothing is known of it now. */
export interface BypassSample {
  readonly forward?: BypassCounter;
  readonly reverse?: BypassCounter;
}

/** Reads the counters of a connection; undefined where it is not in the maps. */
export type ReadBypass = (connection: RecordTuple & Pick<RecordNames, 'service'>) => BypassSample | undefined;

type BypassTables = Pick<Tables, 'flows' | 'slots'>;

/** Sent by the local pod. */
function sent(tables: BypassTables, key: FlowKey): BypassCounter | undefined {
  const flow = tables.flows.get(key);
  if (flow === undefined) return undefined;
  return { era: String(flow.admittedAt), packets: flow.txPackets, bytes: flow.txBytes };
}

/** Received by the local pod that sends by this key. */
function received(tables: BypassTables, key: FlowKey): BypassCounter | undefined {
  const flow = tables.flows.get(key);
  if (flow === undefined || (flow.flags & FlowFlag.LOCAL) !== 0) return undefined;
  const slot = tables.slots.get(slotKeyOf(flow));
  if (slot === undefined || slot.gen !== flow.slotGen) return undefined;
  // The program that gives a slot a new key begins to count anew, and nobody else does.
  return { era: String(slot.key), packets: slot.rxPackets, bytes: slot.rxBytes };
}

/**
 * Reads the maps `flows` and `slots`. What the local pod sends is counted in its flow, what it receives in its slot; between
 * two pods of this node each one's sending is the other's receiving. ICMP is left out: its records have no identifier.
 * @param deviceOf device of a local pod by its address (host order)
 */
export function bypassReader(tables: BypassTables, deviceOf: (address: number) => number | undefined): ReadBypass {
  return ({ protocol, source, destination, sourcePort, destinationPort, service }) => {
    if (typeof source !== 'number' || typeof destination !== 'number' || protocol === IpProtocol.icmp) return undefined;
    const ends = { saddr: source, daddr: destination, sport: sourcePort, dport: destinationPort, proto: protocol };
    const sourceDevice = deviceOf(source);
    const destinationDevice = deviceOf(destination);
    // Where the connection began, it is one to the Service's address.
    const sentTo = typeof service?.address === 'number' ? { daddr: service.address, dport: service.port } : {};
    const there = sourceDevice === undefined ? undefined : { ...ends, ...sentTo, ifindex: sourceDevice };
    const back = destinationDevice === undefined ? undefined : oppositeKey({ ...ends, ifindex: 0 }, destinationDevice);
    const forward = there !== undefined ? sent(tables, there) : back && received(tables, back);
    const reverse = back !== undefined ? sent(tables, back) : there && received(tables, there);
    if (forward === undefined && reverse === undefined) return undefined;
    return { ...(forward && { forward }), ...(reverse && { reverse }) };
  };
}

/** A sum over all eras of a counter. */
class Total {
  packets = 0;
  bytes = 0;
  #last: BypassCounter | undefined;

  add(counter: BypassCounter | undefined): void {
    if (counter === undefined) return;
    const same = this.#last?.era === counter.era && this.#last.packets <= counter.packets;
    const last = same ? this.#last : undefined;
    this.packets += Number(counter.packets - (last?.packets ?? 0n));
    this.bytes += Number(counter.bytes - (last?.bytes ?? 0n));
    this.#last = counter;
  }
}

/** Packets and bytes. */
export interface Volume {
  readonly packets: number;
  readonly bytes: number;
}

/** What one connection has had on the fast path, over all its admissions. Never shrinks. */
export class BypassMeter {
  readonly #forward = new Total();
  readonly #reverse = new Total();

  /** Takes the counters as they are now. What passed between the last call and the end of an era is not counted. */
  add(sample: BypassSample | undefined): void {
    this.#forward.add(sample?.forward);
    this.#reverse.add(sample?.reverse);
  }

  get forward(): Volume {
    return { packets: this.#forward.packets, bytes: this.#forward.bytes };
  }

  get reverse(): Volume {
    return { packets: this.#reverse.packets, bytes: this.#reverse.bytes };
  }
}
