/** The last record of each connection, bounded, and which records are news. */
import { EndReason, sameTotals, tupleText, type FlowRecord, type RecordTuple, type Stats } from './record.ts';

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

interface Entry {
  readonly record: FlowRecord;
  /** Key by which the pod sees the connection before DNAT. */
  readonly alias: string | undefined;
}

/** How the pod of a Service connection addresses it: to the Service, not the endpoint. */
export function beforeNat(record: FlowRecord): RecordTuple | undefined {
  const { service } = record.names;
  if (service?.address === undefined) return undefined;
  const { protocol, source, sourcePort } = record;
  return { protocol, source, sourcePort, destination: service.address, destinationPort: service.port };
}

function grown(known: Stats, stats: Stats): boolean {
  return stats.packets > known.packets;
}

/** Totals come from the kernel and never shrink; times come from a clock that may be set back. */
function compare(known: FlowRecord | undefined, record: FlowRecord): Arrival {
  if (known === undefined) return 'new';
  const later = record.endUs > known.endUs;
  if (record.startUs !== known.startUs) return record.startUs > known.startUs || later ? 'new' : 'stale';
  if (grown(known.forward, record.forward) || grown(known.reverse, record.reverse)) return 'update';
  if (later) return 'update';
  const same = sameTotals(record.forward, known.forward) && sameTotals(record.reverse, known.reverse);
  if (record.endUs < known.endUs || !same) return 'stale';
  return record.endReason === known.endReason ? 'duplicate' : 'update';
}

function reachesBack(known: Stats, stats: Stats): boolean {
  return stats.bytes - stats.bytesDelta <= known.bytes && stats.packets - stats.packetsDelta <= known.packets;
}

/** Last records by tuple. */
export class RecordStore {
  readonly #entries = new Map<string, Entry>();
  /** Tuple before DNAT -> tuple after it. */
  readonly #aliases = new Map<string, string>();
  readonly #counts = { new: 0, update: 0, duplicate: 0, stale: 0, gaps: 0, evicted: 0 };
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
    const arrival = compare(entry?.record, record);
    this.#counts[arrival]++;
    if (arrival === 'duplicate' || arrival === 'stale') return arrival;
    if (arrival === 'update' && entry !== undefined && !this.#contiguous(entry.record, record)) this.#counts.gaps++;
    if (entry !== undefined) this.#remove(key, entry);
    else if (this.#entries.size >= this.#limit) this.#evict();
    const nat = beforeNat(record);
    const alias = nat === undefined ? undefined : tupleText(nat);
    this.#entries.set(key, { record, alias });
    if (alias !== undefined) this.#aliases.set(alias, key);
    return arrival;
  }

  /** The record of a connection with this tuple, after DNAT or before it. */
  get(tuple: RecordTuple): FlowRecord | undefined {
    const key = tupleText(tuple);
    const alias = this.#aliases.get(key);
    return (this.#entries.get(key) ?? (alias === undefined ? undefined : this.#entries.get(alias)))?.record;
  }

  #contiguous(known: FlowRecord, record: FlowRecord): boolean {
    return reachesBack(known.forward, record.forward) && reachesBack(known.reverse, record.reverse);
  }

  #evict(): void {
    // Maps iterate in the order of insertion, and every record is inserted anew.
    for (const [key, entry] of this.#entries) {
      this.#remove(key, entry);
      this.#counts.evicted++;
      return;
    }
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
