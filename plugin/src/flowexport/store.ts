/** The last record of each connection, bounded, and which records are news. */
import { AgeList, type Aged } from './age-list.ts';
import { EndReason, tupleText, type FlowRecord, type RecordNames, type RecordTuple } from './record.ts';

/** What a record is to the store. */
export type Arrival =
  /** A connection that was not known, or a new one on the same tuple. */
  | 'new'
  /** A later state of a known one. */
  | 'update'
  /** The same again: agents repeat a batch whose sending failed. */
  | 'duplicate'
  /** Older than what is known. */
  | 'stale';

/** Sums since the start. */
export interface StoreCounts {
  readonly new: number;
  readonly update: number;
  readonly duplicate: number;
  readonly stale: number;
  /** Updates whose deltas do not reach back to the record before: some in between were lost. */
  readonly gaps: number;
  /** Connections forgotten for want of room, the longest silent first. */
  readonly evicted: number;
}

/**
 * What is kept of a record: there are many, so no more than is needed. The object lives as long as the connection is known:
 * a new one for each record would be garbage that has become old, which is the dear kind.
 */
class Entry implements Aged<Entry> {
  older: Entry | undefined;
  newer: Entry | undefined;
  /** The same string as in the map. */
  readonly key: string;
  /** Key by which the pod sees the connection before DNAT. */
  alias: string | undefined;
  /** Shared between records. */
  names: RecordNames;
  startUs: number;
  endUs: number;
  endReason: number;
  packets: number;
  bytes: number;
  reversePackets: number;
  reverseBytes: number;

  constructor(key: string, { names, startUs, endUs, endReason, forward, reverse }: FlowRecord) {
    this.key = key;
    this.names = names;
    this.startUs = startUs;
    this.endUs = endUs;
    this.endReason = endReason;
    this.packets = forward.packets;
    this.bytes = forward.bytes;
    this.reversePackets = reverse.packets;
    this.reverseBytes = reverse.bytes;
  }

  take({ names, startUs, endUs, endReason, forward, reverse }: FlowRecord): void {
    this.names = names;
    this.startUs = startUs;
    this.endUs = endUs;
    this.endReason = endReason;
    this.packets = forward.packets;
    this.bytes = forward.bytes;
    this.reversePackets = reverse.packets;
    this.reverseBytes = reverse.bytes;
  }
}

/** How the pod of a Service connection addresses it: to the Service, not the endpoint. */
export function beforeNat(record: FlowRecord): RecordTuple | undefined {
  const { service } = record.names;
  if (service?.address === undefined) return undefined;
  const { protocol, source, sourcePort } = record;
  return { protocol, source, sourcePort, destination: service.address, destinationPort: service.port };
}

/** Totals come from the kernel and never shrink; times come from a clock that may be set back. */
function compare(known: Entry | undefined, { startUs, endUs, endReason, forward, reverse }: FlowRecord): Arrival {
  if (known === undefined) return 'new';
  const later = endUs > known.endUs;
  if (startUs !== known.startUs) return startUs > known.startUs || later ? 'new' : 'stale';
  if (forward.packets > known.packets || reverse.packets > known.reversePackets || later) return 'update';
  const same =
    forward.packets === known.packets &&
    forward.bytes === known.bytes &&
    reverse.packets === known.reversePackets &&
    reverse.bytes === known.reverseBytes;
  if (endUs < known.endUs || !same) return 'stale';
  return endReason === known.endReason ? 'duplicate' : 'update';
}

/** Whether the deltas begin where the record before ended, or earlier. */
function contiguous(known: Entry, { forward, reverse }: FlowRecord): boolean {
  return (
    forward.packets - forward.packetsDelta <= known.packets &&
    reverse.packets - reverse.packetsDelta <= known.reversePackets
  );
}

/** Last records by tuple. */
export class RecordStore {
  readonly #entries = new Map<string, Entry>();
  /** Tuple before DNAT -> tuple after it. */
  readonly #aliases = new Map<string, string>();
  readonly #counts = { new: 0, update: 0, duplicate: 0, stale: 0, gaps: 0, evicted: 0 };
  readonly #ages = new AgeList<Entry>();
  readonly #limit: number;

  /** @param limit connections, at least 1 */
  constructor(limit: number) {
    this.#limit = limit;
  }

  get size(): number {
    return this.#entries.size;
  }

  get counts(): StoreCounts {
    return { ...this.#counts };
  }

  /** Takes a record, unless it is old news. */
  put(record: FlowRecord): Arrival {
    const key = tupleText(record);
    const entry = this.#entries.get(key);
    const arrival = compare(entry, record);
    this.#counts[arrival]++;
    if (arrival === 'duplicate' || arrival === 'stale') return arrival;
    if (arrival === 'update' && entry !== undefined && !contiguous(entry, record)) this.#counts.gaps++;
    if (entry === undefined) {
      if (this.#entries.size >= this.#limit) this.#evict();
      const added = new Entry(key, record);
      this.#entries.set(key, added);
      this.#used(added, record);
    } else {
      entry.take(record);
      this.#used(entry, record);
    }
    return arrival;
  }

  /** The names in the last record of the connection with this tuple, after DNAT or before it. */
  namesOf(tuple: RecordTuple): RecordNames | undefined {
    const key = tupleText(tuple);
    const alias = this.#aliases.get(key);
    return (this.#entries.get(key) ?? (alias === undefined ? undefined : this.#entries.get(alias)))?.names;
  }

  /** Forgets the connection that has been silent for longest. */
  #evict(): void {
    const { oldest } = this.#ages;
    if (oldest === undefined) return;
    this.#entries.delete(oldest.key);
    this.#ages.remove(oldest);
    this.#alias(oldest, undefined);
    this.#counts.evicted++;
  }

  #used(entry: Entry, record: FlowRecord): void {
    this.#ages.use(entry);
    const nat = beforeNat(record);
    this.#alias(entry, nat && tupleText(nat));
  }

  #alias(entry: Entry, alias: string | undefined): void {
    const former = entry.alias;
    // Two connections may have the same tuple before DNAT, one after the other.
    if (former !== undefined && former !== alias && this.#aliases.get(former) === entry.key)
      this.#aliases.delete(former);
    entry.alias = alias;
    if (alias !== undefined) this.#aliases.set(alias, entry.key);
  }
}

/** Whether the connection lives, as far as the record says; only TCP has a state. */
export function isLive({ endReason, tcpState }: FlowRecord): boolean {
  return endReason !== EndReason.END_OF_FLOW && (tcpState === '' || tcpState === 'ESTABLISHED');
}
