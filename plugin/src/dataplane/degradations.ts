import type { Degradation } from '../grpc/backend.ts';
import type { Log } from './ports.ts';

/** More are counted, not kept: a list for people. */
const MAX_SHOWN = 100;

/**
 * What does not work as it should, by key. Whoever finds a trouble sets it and clears it when it is over; the list is
 * shown by status and makes the node's state "degraded".
 */
export class Degradations {
  readonly #current = new Map<string, Degradation>();
  readonly #log: Log;
  readonly #observers: ((degradation: Degradation, over: boolean) => void)[] = [];

  constructor(log: Log) {
    this.#log = log;
  }

  /** Tells of each that appears or says something else, and of each that is over. */
  observe(observer: (degradation: Degradation, over: boolean) => void): void {
    this.#observers.push(observer);
  }

  /** Sets or replaces a degradation; logs it when it is new or says something else. */
  set(key: string, degradation: Degradation): void {
    const before = this.#current.get(key);
    this.#current.set(key, degradation);
    if (before?.what === degradation.what && before.where === degradation.where) return;
    this.#log.warn({ where: degradation.where, action: degradation.action }, degradation.what);
    for (const observer of this.#observers) observer(degradation, false);
  }

  /** The trouble is over; nothing happens where there was none. */
  clear(key: string): void {
    const before = this.#current.get(key);
    if (before === undefined) return;
    this.#current.delete(key);
    this.#log.info({ where: before.where }, `over: ${before.what}`);
    for (const observer of this.#observers) observer(before, true);
  }

  /** Sets where `degradation` is given, clears otherwise. */
  put(key: string, degradation: Degradation | undefined): void {
    if (degradation === undefined) this.clear(key);
    else this.set(key, degradation);
  }

  get size(): number {
    return this.#current.size;
  }

  /** In the order in which they appeared; at most 100, the last one then says how many more there are. */
  list(): Degradation[] {
    const all = [...this.#current.values()];
    if (all.length <= MAX_SHOWN) return all;
    return [
      ...all.slice(0, MAX_SHOWN - 1),
      {
        what: `${all.length - MAX_SHOWN + 1} more problems`,
        where: 'this node',
        action: 'see the log; solve those above first',
      },
    ];
  }
}
