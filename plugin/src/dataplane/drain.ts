/**
 * Taking the node out: it stops masquerading and announcing, peers notice that within XMASQ_SEND_LIFE_NS and send slow,
 * and after XMASQ_INTERPRET_NS they take nothing from this node for masqueraded. Only then may the hooks go.
 */
import { INTERPRET_NS, SEND_LIFE_NS } from './layout.ts';
import type { Notes } from './notes.ts';
import { MS, SECOND, type Clock } from './ports.ts';
import { ACTIVE_FLAGS } from './uplink.ts';

/** Packets in queues, and clocks of nodes that run their checks a little later. */
const MARGIN_NS = 2n * SECOND;
/** From the start of a drain until peers send nothing fast any more: uplink_ingress may go. */
export const QUIET_NS = SEND_LIFE_NS + MARGIN_NS;
/** From the start of a drain until peers interpret nothing any more: uplink_egress may go. */
export const DRAINED_NS = INTERPRET_NS + MARGIN_NS;

/** Where the node's part in the fast path is switched off. */
export interface Flags {
  setFlags(set: number, clear?: number): void;
}

/** A drain that this start or an earlier one began. The beginning is noted down beside the pins. */
export class Drain {
  /** The note's name, in every version. */
  static readonly NOTE = 'draining';
  readonly #config: Flags;
  readonly #notes: Notes;
  readonly #now: Clock;
  #since: bigint | undefined;

  constructor(config: Flags, notes: Notes, now: Clock) {
    this.#config = config;
    this.#notes = notes;
    this.#now = now;
    const text = notes.get(Drain.NOTE);
    // What cannot be read counts from now on: longer than necessary, never shorter.
    if (text !== undefined) this.#since = /^\d+$/.test(text) ? BigInt(text) : now();
  }

  get active(): boolean {
    return this.#since !== undefined;
  }

  /** Milliseconds until drained; 0: drained, or not draining. */
  get remainingMs(): number {
    if (this.#since === undefined) return 0;
    const left = this.#since + DRAINED_NS - this.#now();
    return left <= 0n ? 0 : Number((left + MS - 1n) / MS);
  }

  get state(): 'off' | 'draining' | 'drained' {
    if (this.#since === undefined) return 'off';
    return this.remainingMs > 0 ? 'draining' : 'drained';
  }

  /** Begins, unless it has begun. */
  start(): void {
    if (this.#since === undefined) {
      this.#since = this.#now();
      this.#notes.set(Drain.NOTE, this.#since.toString());
    }
    this.#config.setFlags(0, ACTIVE_FLAGS);
  }

  /** Takes it back; the caller then lets the node take part again. */
  stop(): void {
    this.#since = undefined;
    this.#notes.delete(Drain.NOTE);
  }
}
