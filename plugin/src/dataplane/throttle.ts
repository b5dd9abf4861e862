import { SECOND, type Clock } from './ports.ts';

/** Lets one of many alike through per interval: for logs of what fails again and again. */
export class Throttle {
  readonly #last = new Map<string, bigint>();
  readonly #now: Clock;
  readonly #intervalNs: bigint;

  /** @param intervalSeconds between two of one key; the number of keys must be bounded by the caller */
  constructor(now: Clock, intervalSeconds = 10) {
    this.#now = now;
    this.#intervalNs = BigInt(intervalSeconds) * SECOND;
  }

  /** True for the first of a key in each interval. */
  allows(key: string): boolean {
    const now = this.#now();
    const last = this.#last.get(key);
    if (last !== undefined && now - last < this.#intervalNs) return false;
    this.#last.set(key, now);
    return true;
  }
}
