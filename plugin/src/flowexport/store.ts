/** The last record of each connection, bounded, and which records are news. */
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

/** What is kept of a record: there are many, so no more than is needed. */
interface Entry {
  readonly startUs: number;
  readonly endUs: number;
  readonly endReason: number;
  readonly packets: number;
  readonly bytes: number;
  readonly reversePackets: number;
  readonly reverseBytes: number;
  /** Shared between records. */
  readonly names: RecordNames;
  /** Key by which the pod sees the connection before DNAT. */
  readonly alias: string | undefined;
}

function entryOf({ startUs, endUs, endReason, forward, reverse, names }: FlowRecord, alias: string | undefined): Entry {
  return {
    startUs,
    endUs,
    endReason,
    packets: forward.packets,
    bytes: forward.bytes,
    reversePackets: reverse.packets,
    reverseBytes: reverse.bytes,
    names,
    alias,
  };
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
  readonly #limit: number;
  #oldest: Iterator<[string, Entry], undefined> = this.#entries.entries();

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
    if (entry !== undefined) this.#remove(key, entry);
    else if (this.#entries.size >= this.#limit) this.#evict();
    const nat = beforeNat(record);
    const alias = nat === undefined ? undefined : tupleText(nat);
    this.#entries.set(key, entryOf(record, alias));
    if (alias !== undefined) this.#aliases.set(alias, key);
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
    // Records are inserted anew with every update, so an iterator that goes on meets the oldest one first. One that begins
    // anew for each would walk over what the ones before have left behind.
    let next = this.#oldest.next();
    if (next.done === true) {
      this.#oldest = this.#entries.entries();
      next = this.#oldest.next();
    }
    if (next.done === true) return;
    const [key, entry] = next.value;
    this.#remove(key, entry);
    this.#counts.evicted++;
  }

  #remove(key: string, { alias }: Entry): void {
    this.#entries.delete(key);
    // Two connections may have the same tuple before DNAT, one after the other.
    if (alias !== undefined && this.#aliases.get(alias) === key) this.#aliases.delete(alias);
  }
}

/** Whether the connection lives, as far as the record says; only TCP has a state. */
export function isLive({ endReason, tcpState }: FlowRecord): boolean {
  return endReason !== EndReason.END_OF_FLOW && (tcpState === '' || tcpState === 'ESTABLISHED');
}
