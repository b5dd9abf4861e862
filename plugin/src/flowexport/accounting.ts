/** Records for a collector with what the fast path has carried, which the kernel's accounting cannot see. */
import { inBatches } from '../dataplane/batches.ts';
import { BypassMeter, type ReadBypass } from './bypass.ts';
import { exportRequest, patchRecord } from './patch.ts';
import { EndReason, tupleText, type FlowRecord, type Stats } from './record.ts';

export interface AccountingOptions {
  readonly readBypass: ReadBypass;
  /** Takes an `ExportRequest` for the collector; must not block. */
  readonly send: (message: Buffer) => void;
  /** Milliseconds since 1970; default: the clock. */
  readonly now?: () => number;
  /** A flow that is busy on the fast path is reported this often, as Antrea's active timeout; default 5000 ms. */
  readonly intervalMs?: number;
  /** Connections of the fast path that are remembered; default 16384. */
  readonly limit?: number;
}

/** Sums since the start, and what is remembered now. */
export interface AccountingCounts {
  readonly tracked: number;
  /** Records passed on as they came. */
  readonly relayed: number;
  /** Records corrected. */
  readonly corrected: number;
  /** Records written for flows about which the agent is silent. */
  readonly added: number;
  /** Connections forgotten for want of room: their later records lack what was carried before. */
  readonly evicted: number;
}

interface Tracked {
  readonly startUs: number;
  readonly meter: BypassMeter;
  record: FlowRecord;
  /** The agent's last record. */
  raw: Buffer;
  /** Totals that the collector has. */
  forward: Stats;
  reverse: Stats;
  exportedAt: number;
  /** When something of it was last in the maps or told by the agent. */
  aliveAt: number;
}

/** A connection of which nothing is heard for so long is not looked for in the maps any more until a record names it. */
const DORMANT_MS = 600_000;

function sum(
  kernel: Stats,
  bypass: { readonly packets: number; readonly bytes: number },
): Omit<Stats, 'packetsDelta' | 'bytesDelta'> {
  return { packets: kernel.packets + bypass.packets, bytes: kernel.bytes + bypass.bytes };
}

/** Totals with deltas to what the collector has; never below that. */
function since(before: Stats, { packets, bytes }: Omit<Stats, 'packetsDelta' | 'bytesDelta'>): Stats {
  const all = { packets: Math.max(packets, before.packets), bytes: Math.max(bytes, before.bytes) };
  return { ...all, packetsDelta: all.packets - before.packets, bytesDelta: all.bytes - before.bytes };
}

/** What the collector had before this record, by the record's own deltas. */
function before({ packets, packetsDelta, bytes, bytesDelta }: Stats): Stats {
  const none = { packetsDelta: 0, bytesDelta: 0 };
  return { packets: Math.max(0, packets - packetsDelta), bytes: Math.max(0, bytes - bytesDelta), ...none };
}

/**
 * Passes every record on. Those of connections that use the fast path get the bypassed packets and bytes added, with
 * Antrea's meaning of the fields: totals since the beginning of the connection, deltas since the record before; and where
 * the agent takes a busy flow for an idle one, the record says active.
 */
export class FlowAccounting {
  readonly #o: AccountingOptions;
  readonly #now: () => number;
  readonly #intervalMs: number;
  readonly #limit: number;
  readonly #tracked = new Map<string, Tracked>();
  readonly #counts = { relayed: 0, corrected: 0, added: 0, evicted: 0 };
  #ticking = false;

  constructor(options: AccountingOptions) {
    this.#o = options;
    this.#now = options.now ?? Date.now;
    this.#intervalMs = options.intervalMs ?? 5000;
    this.#limit = options.limit ?? 16384;
  }

  get counts(): AccountingCounts {
    return { tracked: this.#tracked.size, ...this.#counts };
  }

  /** Takes a record that is news. @param raw the same as bytes; copied if it is to be kept */
  take(record: FlowRecord, raw: Buffer): void {
    const key = tupleText(record);
    const sample = this.#o.readBypass(record);
    let tracked = this.#tracked.get(key);
    if (tracked !== undefined && tracked.startUs !== record.startUs) {
      this.#tracked.delete(key);
      tracked = undefined;
    }
    if (tracked === undefined && sample === undefined) {
      this.#counts.relayed++;
      this.#o.send(exportRequest(raw));
      return;
    }
    tracked ??= this.#track(key, record, raw);
    tracked.record = record;
    tracked.raw = Buffer.from(raw);
    tracked.aliveAt = this.#now();
    tracked.meter.add(sample);
    this.#counts.corrected++;
    this.#export(tracked, undefined);
    // The longest silent one is first.
    this.#tracked.delete(key);
    if (record.endReason !== EndReason.END_OF_FLOW) this.#tracked.set(key, tracked);
  }

  /** Looks at the counters of all flows of the fast path, and reports those that are due. Once a second. */
  async tick(): Promise<void> {
    if (this.#ticking) return;
    this.#ticking = true;
    try {
      for await (const [, tracked] of inBatches(this.#tracked, 256)) this.#look(tracked);
    } finally {
      this.#ticking = false;
    }
  }

  #track(key: string, record: FlowRecord, raw: Buffer): Tracked {
    if (this.#tracked.size >= this.#limit) {
      const [oldest] = this.#tracked.keys();
      if (oldest !== undefined) this.#tracked.delete(oldest);
      this.#counts.evicted++;
    }
    const now = this.#now();
    const tracked: Tracked = {
      startUs: record.startUs,
      meter: new BypassMeter(),
      record,
      raw,
      forward: before(record.forward),
      reverse: before(record.reverse),
      exportedAt: now,
      aliveAt: now,
    };
    this.#tracked.set(key, tracked);
    return tracked;
  }

  #look(tracked: Tracked): void {
    const now = this.#now();
    if (now - tracked.aliveAt > DORMANT_MS) return;
    const sample = this.#o.readBypass(tracked.record);
    if (sample === undefined) return;
    tracked.aliveAt = now;
    tracked.meter.add(sample);
    if (now - tracked.exportedAt < this.#intervalMs || !this.#moved(tracked)) return;
    this.#counts.added++;
    this.#export(tracked, now * 1000);
  }

  #moved({ record, meter, forward, reverse }: Tracked): boolean {
    return (
      sum(record.forward, meter.forward).packets > forward.packets ||
      sum(record.reverse, meter.reverse).packets > reverse.packets
    );
  }

  /** @param endUs of a record of our own; undefined: the agent's own times */
  #export(tracked: Tracked, endUs: number | undefined): void {
    const { record, meter, raw } = tracked;
    const bypassed = since(tracked.forward, sum(record.forward, meter.forward));
    const returned = since(tracked.reverse, sum(record.reverse, meter.reverse));
    const busy = bypassed.packetsDelta > 0 || returned.packetsDelta > 0;
    const own = endUs !== undefined;
    // The agent's own record of a flow that ends says so, and stays so.
    const active = own || (busy && record.endReason === EndReason.IDLE_TIMEOUT);
    const flow = patchRecord(raw, {
      forward: bypassed,
      reverse: returned,
      endReason: active ? EndReason.ACTIVE_TIMEOUT : record.endReason,
      ...(own && { endUs }),
    });
    tracked.forward = bypassed;
    tracked.reverse = returned;
    tracked.exportedAt = this.#now();
    this.#o.send(exportRequest(flow));
  }
}
