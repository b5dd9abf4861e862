/** What has passed conntrack by on the fast path: a connection's part in the counters of the programs. */
import { isIcmp, isKeyed, oppositeKey, slotKeyOf } from '../dataplane/flow-key.ts';
import { FlowFlag, type FlowKey } from '../dataplane/layout.ts';
import type { Tables } from '../dataplane/tables.ts';
import type { RecordNames, RecordTuple } from './record.ts';

/** One counter of the programs. */
export interface BypassCounter {
  /** Where it is; with a `slot` and a `flow` the sum of both counts. */
  readonly of: 'flow' | 'slot';
  /** Another value means that the counter began at 0 again. */
  readonly era: string;
  /** Segments count one by one (conntrack counts a GSO packet once). */
  readonly packets: bigint;
  /** IP lengths, as conntrack's. */
  readonly bytes: bigint;
}

/** Both directions of a connection, the one in which it was begun first; absent: nothing is known of it now. */
export interface BypassSample {
  readonly forward?: readonly BypassCounter[];
  readonly reverse?: readonly BypassCounter[];
}

/** Reads the counters of a connection; undefined where it is not in the maps. */
export type ReadBypass = (connection: RecordTuple & Pick<RecordNames, 'service'>) => BypassSample | undefined;

type BypassTables = Pick<Tables, 'flows' | 'slots'>;

/** Sent by the local pod. */
function sent(tables: BypassTables, key: FlowKey): BypassCounter[] | undefined {
  const flow = tables.flows.get(key);
  if (flow === undefined) return undefined;
  return [{ of: 'flow', era: String(flow.admittedAt), packets: flow.txPackets, bytes: flow.txBytes }];
}

/** Received by the local pod that sends by this key. */
function received(tables: BypassTables, key: FlowKey): BypassCounter[] | undefined {
  const flow = tables.flows.get(key);
  if (flow === undefined || (flow.flags & FlowFlag.LOCAL) !== 0) return undefined;
  const { admittedAt, rxPackets, rxBytes } = flow;
  const plain: BypassCounter = { of: 'flow', era: String(admittedAt), packets: rxPackets, bytes: rxBytes };
  const slot = isKeyed(flow) ? tables.slots.get(slotKeyOf(flow)) : undefined;
  if (slot === undefined || slot.gen !== flow.slotGen) return [plain];
  // The program that gives a slot a new key begins to count anew, and nobody else does.
  return [plain, { of: 'slot', era: String(slot.key), packets: slot.rxPackets, bytes: slot.rxBytes }];
}

/**
 * Reads the maps `flows` and `slots`. What the local pod sends is counted in its flow, what it receives in its slot if it was
 * masqueraded and in the flow otherwise; between
 * two pods of this node each one's sending is the other's receiving. ICMP is left out: its records have no identifier.
 * @param deviceOf device of a local pod by its address
 */
export function bypassReader(tables: BypassTables, deviceOf: (address: string) => number | undefined): ReadBypass {
  return ({ protocol, source, destination, sourcePort, destinationPort, service }) => {
    if (isIcmp(protocol)) return undefined;
    const ends = { saddr: source, daddr: destination, sport: sourcePort, dport: destinationPort, proto: protocol };
    const sourceDevice = deviceOf(source);
    const destinationDevice = deviceOf(destination);
    // Where the connection began, it is one to the Service's address.
    const sentTo = service?.address !== undefined ? { daddr: service.address, dport: service.port } : {};
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
  readonly #last = new Map<BypassCounter['of'], BypassCounter>();

  add(counters: readonly BypassCounter[]): void {
    for (const counter of counters) {
      const before = this.#last.get(counter.of);
      const last = before?.era === counter.era && before.packets <= counter.packets ? before : undefined;
      this.packets += Number(counter.packets - (last?.packets ?? 0n));
      this.bytes += Number(counter.bytes - (last?.bytes ?? 0n));
      this.#last.set(counter.of, counter);
    }
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
    this.#forward.add(sample?.forward ?? []);
    this.#reverse.add(sample?.reverse ?? []);
  }

  get forward(): Volume {
    return { packets: this.#forward.packets, bytes: this.#forward.bytes };
  }

  get reverse(): Volume {
    return { packets: this.#reverse.packets, bytes: this.#reverse.bytes };
  }
}
